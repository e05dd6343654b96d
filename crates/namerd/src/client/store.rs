//! A store as a client sees it: what it can be asked, and the way to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, Path};
use naming::Addr;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::ClientConfig;
use super::follow::Source;
use super::said::Numbered;

/// Until a name's addresses are known.
const LOOKUP: Duration = Duration::from_secs(10);
/// Until a store takes a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Until it begins to answer.
pub(super) const HEAD: Duration = Duration::from_secs(30);
/// A store that is gone without a word is noticed after some three of these.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The longest thing that is said, in bytes.
pub(super) const LONGEST: usize = 16 * 1024 * 1024;

/// A connection to a store.
pub type Stream = Box<dyn Duplex>;

/// What is read and written.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A handshake under way; an error is why there is none.
pub type Securing<'a> = super::follow::Future<'a, Result<Stream, String>>;

/// TLS towards a store. Whoever implements it knows the certificates.
pub trait Secure: Send + Sync {
    /// Makes a TLS connection of a socket, in bounded time. The store's certificate has to be for the name that is configured, else
    /// for `host`; `protocol` is what ALPN calls what is spoken inside.
    fn secure<'a>(
        &'a self,
        tcp: TcpStream,
        host: &'a str,
        protocol: Option<&'static str>,
    ) -> Securing<'a>;
}

/// The way to a store.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) config: Arc<ClientConfig>,
    /// None: without TLS.
    pub(super) secure: Option<Arc<dyn Secure>>,
}

/// A store that binds.
pub(super) trait Remote: Send + Sync {
    /// Where the tree of a path under further rules is said.
    fn tree(&self, local: &Dtab, path: &Path) -> Box<dyn Source<Numbered>>;

    /// Where the addresses of a bound name are said.
    fn addr(&self, id: &Path) -> Box<dyn Source<Addr>>;
}

/// A connection to one of the replicas, whichever answers; they are tried in any order, so that routers spread over them. The
/// name is looked up each time: a store may be somewhere else now.
pub(super) async fn connect(way: &Way, protocol: Option<&'static str>) -> Result<Stream, String> {
    let config = &way.config;
    let found = tokio::time::timeout(LOOKUP, lookup_host((&*config.host, config.port))).await;
    let found = found
        .map_err(|_| format!("{} was not looked up within {LOOKUP:?}", config.host))?
        .map_err(|error| format!("{}: {error}", config.host))?;
    let mut replicas: Vec<SocketAddr> = found.collect();
    fastrand::shuffle(&mut replicas);
    let mut failed = Vec::new();
    for replica in replicas {
        match connect_to(replica, way, protocol).await {
            Ok(stream) => return Ok(stream),
            Err(why) => failed.push(why),
        }
    }
    match failed.is_empty() {
        true => Err(format!("{} has no address", config.host)),
        false => Err(failed.join(", ")),
    }
}

/// A connection to this replica.
pub(super) async fn connect_to(
    replica: SocketAddr,
    way: &Way,
    protocol: Option<&'static str>,
) -> Result<Stream, String> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(replica)).await;
    let stream = stream
        .map_err(|_| format!("{replica}: no connection within {CONNECT:?}"))?
        .map_err(|error| format!("{replica}: {error}"))?;
    _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(3));
    match &way.secure {
        None => Ok(Box::new(stream)),
        Some(secure) => {
            let secured = secure.secure(stream, &way.config.host, protocol).await;
            secured.map_err(|why| format!("{replica}: {why}"))
        }
    }
}
