//! A store as a client sees it: what it can be asked, and the way to it.

use std::time::Duration;

use dtab::{Dtab, Path};
use naming::Addr;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::ClientConfig;
use super::follow::Source;
use super::said::Numbered;

/// Until a store takes a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until it begins to answer.
pub(super) const HEAD: Duration = Duration::from_secs(30);
/// A store that is gone without a word is noticed after some three of these.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The longest thing that is said, in bytes.
pub(super) const LONGEST: usize = 16 * 1024 * 1024;

/// A store that binds.
pub(super) trait Remote: Send + Sync {
    /// Where the tree of a path under further rules is said.
    fn tree(&self, local: &Dtab, path: &Path) -> Box<dyn Source<Numbered>>;

    /// Where the addresses of a bound name are said.
    fn addr(&self, id: &Path) -> Box<dyn Source<Addr>>;
}

/// A connection. The name is looked up each time: a store may be somewhere else now.
pub(super) async fn connect(config: &ClientConfig) -> Result<TcpStream, String> {
    let connecting = TcpStream::connect((&*config.host, config.port));
    let stream = tokio::time::timeout(CONNECT, connecting).await;
    let stream = stream
        .map_err(|_| format!("no connection within {CONNECT:?}"))?
        .map_err(|error| error.to_string())?;
    _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(3));
    Ok(stream)
}
