//! `access` of the store's file.

use std::path::PathBuf;
use std::sync::Arc;

use namerd::access::{ANONYMOUS, Grant, Verb};

use super::settings::K8sApi;
use super::{At, Environment, names};

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    /// The file of tokens.
    pub tokens: Option<PathBuf>,
    /// Whom Kubernetes is asked for.
    pub review: Option<ReviewSettings>,
    /// What is granted.
    pub grants: Vec<Grant>,
}

/// `tokenReview`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewSettings {
    /// The API server.
    pub api: K8sApi,
    /// Whom tokens are meant for.
    pub audiences: Vec<String>,
}

/// None: there are no rules. `certificates`: an interface asks for clients' certificates.
pub(super) fn access(
    at: &At<'_>,
    environment: &Environment,
    certificates: bool,
) -> Option<AccessSettings> {
    if !at.is_given() {
        return None;
    }
    let tokens = at.get("tokens").string().map(PathBuf::from);
    let review = at.get("tokenReview");
    let review = review.is_given().then(|| ReviewSettings {
        api: names::api(&review.get("host"), &review.get("port"), environment),
        audiences: texts(&review.get("audiences"))
            .iter()
            .map(ToString::to_string)
            .collect(),
    });
    if tokens.is_none() && review.is_none() && !certificates {
        at.error(
            "nobody could show who they are",
            "give a file of `tokens`, a `tokenReview`, or an interface's `tls` with `requireClientAuth: true`",
        );
    }
    let grants = at.get("grants");
    let grants = grants.items().iter().filter_map(grant).collect();
    Some(AccessSettings {
        tokens,
        review,
        grants,
    })
}

fn grant(at: &At<'_>) -> Option<Grant> {
    let may = at.get("may").items();
    let verb = |item: &At<'_>| {
        let word = item.string()?;
        Verb::ALL.into_iter().find(|verb| verb.as_str() == word)
    };
    let may: Vec<_> = may.iter().filter_map(verb).collect();
    let (to, namespaces) = (at.get("to"), at.get("namespaces"));
    let grant = Grant {
        to: texts(&to),
        namespaces: match namespaces.is_given() {
            true => texts(&namespaces),
            false => vec!["*".into()],
        },
        may,
    };
    let writes = grant
        .may
        .iter()
        .any(|&verb| !matches!(verb, Verb::Read | Verb::Plan));
    if writes && grant.to.iter().any(|to| **to == *ANONYMOUS) {
        to.error(
            "everybody who reaches the address could change dtabs",
            "grant `anonymous` nothing but `read` or `plan`; to leave all open, delete `access` and write `allowAnonymous: true` on the interface",
        );
    }
    Some(grant)
}

fn texts(at: &At<'_>) -> Vec<Arc<str>> {
    at.items().iter().filter_map(At::text).collect()
}
