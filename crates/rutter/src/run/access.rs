//! The wiring of the store's `access`: who may do what, and with which certificates it is asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s::Tokens;
use namerd::access::{Access, Reviewed, Reviewer, Subject, TokenFile};
use router::settings::ServerTls;
use router::tls::{KeyFigures, ListenerKeys, client_name};
use tokio::runtime::Handle;

use super::sources::target;
use crate::config::store::StoreConfig;

/// How long an API server may take to say whose a token is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may do what, as the file says.
pub(super) fn open(config: &StoreConfig, control: &Handle) -> anyhow::Result<Access> {
    let Some(settings) = &config.access else {
        return Ok(Access::open());
    };
    let tokens = settings.tokens.as_ref();
    let tokens = tokens
        .map(|file| TokenFile::open(file, control))
        .transpose();
    let tokens = tokens.context("access.tokens")?;
    let reviewer = settings.review.as_ref().map(|review| {
        let tokens = Tokens::new(target(&review.api), review.audiences.clone(), PATIENCE);
        Arc::new(Kubernetes(tokens)) as Arc<dyn Reviewer>
    });
    Ok(Access::of(settings.grants.clone(), tokens, reviewer))
}

/// The certificates of an interface.
pub(super) fn keys(
    tls: &ServerTls,
    figures: &Arc<KeyFigures>,
    control: &Handle,
) -> anyhow::Result<Arc<dyn namerd::Keys>> {
    let keys = ListenerKeys::open(tls, figures, control)?;
    Ok(Arc::new(Keys(keys, Arc::clone(figures))))
}

/// And what is told about them, as long as they are used.
struct Keys(
    ListenerKeys,
    #[expect(dead_code, reason = "it is told as long as it is held")] Arc<KeyFigures>,
);

impl namerd::Keys for Keys {
    fn config(&self) -> Arc<rustls::ServerConfig> {
        self.0.now()
    }

    fn name(&self, certificate: &[u8]) -> Option<String> {
        client_name(certificate)
    }
}

/// Whose tokens are is asked of an API server.
struct Kubernetes(Tokens);

impl Reviewer for Kubernetes {
    fn review<'a>(&'a self, token: &'a str) -> Reviewed<'a> {
        Box::pin(async move {
            let user = self.0.user(token).await?;
            Ok(user.map(|user| Subject {
                name: user.name.into(),
                groups: user.groups.into_iter().map(Into::into).collect(),
            }))
        })
    }
}
