//! Connections under TLS of a client that is no router's, such as one of the store's.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use super::live::Live;
use super::{ClientKeys, KeyFigures, TlsCheck, TlsFailure, TlsFileError};
use crate::settings::ClientTls;

/// A handshake takes no longer than this.
const TIME: Duration = Duration::from_secs(10);

/// What such a client makes its connections with, as it is now: the files are followed as those of routers.
pub struct EndpointKeys {
    live: Arc<ClientKeys>,
    name: Option<Arc<str>>,
}

impl EndpointKeys {
    /// Reads the files, and follows them on `control`; how long they are valid is told in `figures`, if there are any.
    pub fn open(
        tls: &ClientTls,
        figures: Option<&KeyFigures>,
        control: &Handle,
    ) -> Result<Self, TlsFileError> {
        let figures = figures.map_or_else(Arc::default, |figures| Arc::clone(&figures.figures));
        Ok(Self {
            live: Live::start(tls.nameless(), &figures, control)?,
            name: tls.name.clone(),
        })
    }

    /// Makes a TLS connection of a socket. The other side's certificate has to be for the name of the settings, else for
    /// `host`, a name or an address. `protocol` is what is to be spoken inside, as ALPN calls it.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        host: &str,
        protocol: Option<&str>,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, TlsFailure> {
        let name = self.name.as_deref().unwrap_or(host);
        let Ok(server) = ServerName::try_from(name.to_owned()) else {
            let what = format!("{name:?} is no host name that a certificate could be for");
            return Err(TlsFailure::new(TlsCheck::Configuration, what));
        };
        let mut config = (*self.live.now()).clone();
        config.alpn_protocols = protocol.map(Vec::from).into_iter().collect();
        let shaking = TlsConnector::from(Arc::new(config)).connect(server, tcp);
        let shaken = tokio::time::timeout(TIME, shaking).await.map_err(|_| {
            let what = format!("the handshake was not done within {TIME:?}");
            TlsFailure::new(TlsCheck::Slow, what)
        })?;
        shaken.map_err(|error| TlsFailure::of(&error))
    }
}
