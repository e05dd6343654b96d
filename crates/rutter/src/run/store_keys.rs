//! TLS towards stores of dtabs.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use anyhow::Context as _;
use namerd::client::{Secure, Securing, Stream};
use router::settings::ClientTls;
use router::tls::{EndpointKeys, KeyFigures};
use telemetry::metrics::{Registry, Scope};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// All that is known of stores' certificates, through all configurations: who asks a store in the same way shares it.
#[derive(Default)]
pub(super) struct StoreKeys {
    figures: OnceLock<KeyFigures>,
    known: Mutex<Vec<(ClientTls, Weak<Keys>)>>,
}

impl StoreKeys {
    /// Reads the files, unless they are known; none: without TLS.
    pub(super) fn open(
        &self,
        tls: Option<&ClientTls>,
        registry: &Registry,
        control: &Handle,
    ) -> anyhow::Result<Option<Arc<dyn Secure>>> {
        let Some(tls) = tls else {
            return Ok(None);
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, keys)| keys.strong_count() > 0);
        let same = known.iter().find(|(other, _)| other == tls);
        if let Some(keys) = same.and_then(|(_, keys)| keys.upgrade()) {
            return Ok(Some(keys));
        }
        let scope = || Scope::new(["interpreter", "store"]);
        let figures = self
            .figures
            .get_or_init(|| KeyFigures::register(registry, scope()));
        let keys = EndpointKeys::open(tls, Some(figures), control);
        let keys = Arc::new(Keys(keys.context("`tls` of the interpreter")?));
        known.push((tls.clone(), Arc::downgrade(&keys)));
        Ok(Some(keys))
    }
}

struct Keys(EndpointKeys);

impl Secure for Keys {
    fn secure<'a>(
        &'a self,
        tcp: TcpStream,
        host: &'a str,
        protocol: Option<&'static str>,
    ) -> Securing<'a> {
        Box::pin(async move {
            match self.0.connect(tcp, host, protocol).await {
                Ok(stream) => Ok(Box::new(stream) as Stream),
                Err(failure) => Err(format!("TLS: {failure}")),
            }
        })
    }
}
