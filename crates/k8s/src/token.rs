//! Whose a token is: Kubernetes' TokenReview.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::api::{Api, ApiTarget};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Asks an API server whose tokens are. That takes the permission to `create` `tokenreviews.authentication.k8s.io`.
pub struct Tokens {
    target: ApiTarget,
    /// The token must be meant for one of them; for the API server itself when there is none.
    audiences: Vec<String>,
    patience: Duration,
    api: OnceCell<Api>,
}

/// Who a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Such as `system:serviceaccount:default:rutter`.
    pub name: String,
    /// Such as `system:serviceaccounts:default`.
    pub groups: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: Named,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    username: String,
    groups: Vec<String>,
}

impl Tokens {
    /// Asks that API server, each time for so long at most.
    pub fn new(target: ApiTarget, audiences: Vec<String>, patience: Duration) -> Self {
        Self {
            target,
            audiences,
            patience,
            api: OnceCell::new(),
        }
    }

    /// Whose token this is; none when it is nobody's, or not meant for these audiences. Cancel safe.
    ///
    /// # Errors
    /// Why that cannot be found out.
    pub async fn user(&self, token: &str) -> Result<Option<User>, String> {
        let connect = || async {
            let api = Api::new(&self.target, self.patience).await;
            api.map_err(|error| error.to_string())
        };
        let api = self.api.get_or_try_init(connect).await?;
        let question = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": self.audiences},
        });
        let answer = api.post(REVIEWS, &question).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let Status {
            authenticated,
            user,
            audiences,
            error,
        } = serde_json::from_value::<Answer>(answer)
            .map_err(|error| format!("the API server's TokenReview is none: {error}"))?
            .status;
        // An API server that knows no audiences says none: then a token meant for others would pass.
        let meant =
            self.audiences.is_empty() || audiences.iter().any(|one| self.audiences.contains(one));
        if !authenticated || !meant || user.username.is_empty() {
            tracing::debug!(error, ?audiences, "a token is nobody's");
            return Ok(None);
        }
        Ok(Some(User {
            name: user.username,
            groups: user.groups,
        }))
    }
}
