//! TLS of listeners and towards endpoints: [`files`] reads what is configured, [`live`] keeps it up to date, [`handshake`]
//! makes a TLS connection of a socket, [`verify`] says whether an endpoint is who it should be, and [`stream`] is the
//! connection. A plain connection has nothing to do with any of it. [`endpoint`] is for clients that are no
//! router's. Types of rustls stay in here, but for [`ListenerKeys`].

mod endpoint;
mod error;
mod files;
mod handshake;
mod live;
mod show;
mod stream;
mod verify;

use std::sync::Arc;

use telemetry::metrics::{Registration, Registry, Scope};
use tokio::runtime::Handle;

pub use endpoint::EndpointKeys;
pub use error::{TlsCheck, TlsFailure, TlsFileError};
pub use files::{Validity, cipher_names};
pub(crate) use handshake::{Crowd, Incoming, accept, connect};
use live::{Figures, Live};
pub(crate) use stream::Stream;

use crate::router::Reporting;
use crate::settings::{ClientTls, RouterSettings, ServerTls};
use files::FromFiles;

/// The certificates of a listener, as they are now.
pub(crate) type ServerKeys = Live<ServerTls>;
/// The certificates towards endpoints, as they are now.
pub(crate) type ClientKeys = Live<ClientTls>;

/// Why a router has no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    Files(#[from] TlsFileError),
    /// Nothing would follow the files.
    #[error(transparent)]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
}

/// All that a router needs for TLS; nothing for a router without.
#[derive(Default)]
pub(crate) struct Keys {
    /// In the order of the router's servers.
    servers: Vec<Option<Arc<ServerKeys>>>,
    clients: Vec<Arc<ClientKeys>>,
    figures: Option<(Arc<Figures>, Arc<Registration>)>,
}

impl Keys {
    /// Reads the files of all servers and clients, and follows them on the current runtime. What is the same as in `before` goes on.
    pub(crate) fn open(
        settings: &RouterSettings,
        before: Option<&Self>,
        reporting: &Reporting,
    ) -> Result<Self, KeysError> {
        let servers = settings.servers.iter().map(|server| server.tls.as_ref());
        let entries = settings.client.entries.iter();
        let clients: Vec<ClientTls> = entries
            .filter_map(|(_, part)| part.tls.as_ref().filter(|tls| tls.enabled))
            .map(ClientTls::nameless)
            .collect();
        if clients.is_empty() && settings.servers.iter().all(|server| server.tls.is_none()) {
            return Ok(Self::default());
        }
        let control = &Handle::try_current()?;
        let known = before.and_then(|before| before.figures.clone());
        let (figures, registration) = known.unwrap_or_else(|| {
            let figures = Arc::new(Figures::default());
            let scope = Scope::router(&settings.label);
            let registration = reporting
                .registry
                .register(scope, Arc::clone(&figures) as _);
            (figures, Arc::new(registration))
        });
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let servers = servers
            .map(|tls| {
                let open = |tls| one(tls, before.servers.iter().flatten(), &figures, control);
                tls.map(open).transpose()
            })
            .collect::<Result<_, _>>()?;
        let mut opened: Vec<Arc<ClientKeys>> = Vec::new();
        for tls in &clients {
            let live = one(tls, opened.iter().chain(&before.clients), &figures, control)?;
            if !opened.iter().any(|known| Arc::ptr_eq(known, &live)) {
                opened.push(live);
            }
        }
        let new = Self {
            servers,
            clients: opened,
            figures: Some((Arc::clone(&figures), registration)),
        };
        figures.keep(&new.files());
        Ok(new)
    }

    /// Those of a server; none: it is plain.
    pub(crate) fn server(&self, server: usize) -> Option<Arc<ServerKeys>> {
        self.servers.get(server).cloned().flatten()
    }

    /// Those for clients with these settings.
    pub(crate) fn client(&self, tls: &ClientTls) -> Option<Arc<ClientKeys>> {
        let wanted = tls.nameless();
        self.clients
            .iter()
            .find(|live| live.is_of(&wanted))
            .cloned()
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let servers = self.servers.iter().flatten().flat_map(|live| live.files());
        servers
            .chain(self.clients.iter().flat_map(|live| live.files()))
            .collect()
    }
}

/// The one with these settings, if there is one, else a new one.
fn one<'a, F: FromFiles>(
    from: &F,
    mut known: impl Iterator<Item = &'a Arc<Live<F>>>,
    figures: &Arc<Figures>,
    control: &Handle,
) -> Result<Arc<Live<F>>, TlsFileError> {
    match known.find(|live| live.is_of(from)) {
        Some(live) => Ok(Arc::clone(live)),
        None => Live::start(from.clone(), figures, control),
    }
}

/// What is told about certificates that are no router's; all that share a place share one of these.
pub struct KeyFigures {
    figures: Arc<Figures>,
    _registration: Registration,
}

impl KeyFigures {
    /// Tells it in `scope` from now on.
    pub fn register(registry: &Registry, scope: Scope) -> Self {
        let figures = Arc::new(Figures::default());
        Self {
            _registration: registry.register(scope, Arc::clone(&figures) as _),
            figures,
        }
    }
}

/// The certificates of a listener that is no router's, as they are now: the files are followed as those of routers.
pub struct ListenerKeys {
    live: Arc<ServerKeys>,
}

impl ListenerKeys {
    /// Reads the files, and follows them on `control`; how long they are valid is told in `figures`.
    pub fn open(
        tls: &ServerTls,
        figures: &KeyFigures,
        control: &Handle,
    ) -> Result<Self, TlsFileError> {
        Ok(Self {
            live: Live::start(tls.clone(), &figures.figures, control)?,
        })
    }

    /// What the next handshake is made with.
    pub fn now(&self) -> Arc<rustls::ServerConfig> {
        self.live.now()
    }
}

/// What a client's certificate calls it: the first URI or DNS name, else the common name. None for what is no certificate,
/// or has no name.
pub fn client_name(der: &[u8]) -> Option<String> {
    show::name(der)
}

/// Reads the files of a server's TLS, as a start would, and says how long they are valid.
pub fn examine_server(tls: &ServerTls) -> Result<Vec<Validity>, TlsFileError> {
    tls.make().map(|made| made.validities)
}

/// Reads the files of a client's TLS, as a start would, and says how long they are valid.
pub fn examine_client(tls: &ClientTls) -> Result<Vec<Validity>, TlsFileError> {
    tls.make().map(|made| made.validities)
}
