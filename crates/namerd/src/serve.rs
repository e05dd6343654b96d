//! The listener of an interface: who may take how long, and how it ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::mesh::Mesh;
use crate::thriftmux::ThriftMux;

/// A head must be there after this.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A head has at most so many bytes: names and dtabs stand in the query.
const HEAD_BYTES: usize = 256 * 1024;
/// Connections at once; each router has one for each name it watches.
const CONNECTIONS: usize = 16_384;
/// A client that says nothing is asked after this whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Between two failures of `accept`.
const PAUSE: Duration = Duration::from_millis(50);

/// The certificates of a listener.
pub trait Keys: Send + Sync {
    /// What the next handshake is made with.
    fn config(&self) -> Arc<ServerConfig>;
    /// What a client's certificate calls it.
    fn name(&self, certificate: &[u8]) -> Option<String>;
}

/// Who a connection's client is, by its certificate; in the extensions of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(pub(crate) Arc<str>);

/// What a port serves.
#[derive(Clone)]
pub enum Interface {
    /// `io.l5d.httpController`.
    Http(Api),
    /// `io.l5d.mesh`.
    Mesh(Mesh),
    /// `io.l5d.thriftNameInterpreter`.
    Thrift(ThriftMux),
}

/// An open port of an interface.
pub struct ApiListener {
    listener: TcpListener,
    addr: SocketAddr,
    keys: Option<Arc<dyn Keys>>,
}

impl ApiListener {
    /// Opens the port. From here on connections queue up, and [`ApiListener::serve`] answers them.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self {
            listener,
            addr,
            keys: None,
        })
    }

    /// It speaks TLS, and nothing else.
    #[must_use]
    pub fn with_tls(self, keys: Arc<dyn Keys>) -> Self {
        Self {
            keys: Some(keys),
            ..self
        }
    }

    /// Where it listens, with the port that the system chose.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`; then requests under way are answered, and streams end. The caller bounds that time.
    pub async fn serve(self, interface: Interface, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                tracing::warn!(%peer, limit = CONNECTIONS, "too many connections, this one is closed");
                continue;
            };
            let (interface, stop, keys) = (interface.clone(), stop.clone(), self.keys.clone());
            connections.spawn(async move {
                connection(stream, keys, peer, interface, stop).await;
                drop(permit);
            });
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

impl Interface {
    /// What ALPN calls what is spoken inside of TLS; ThriftMux has no name.
    const fn protocol(&self) -> Option<&'static str> {
        match self {
            Self::Http(_) => Some("http/1.1"),
            Self::Mesh(_) => Some("h2"),
            Self::Thrift(_) => None,
        }
    }
}

/// The handshake, and what the client's certificate calls it.
async fn secured(
    stream: TcpStream,
    keys: &dyn Keys,
    protocol: Option<&'static str>,
) -> Result<(TlsStream<TcpStream>, Option<Certificate>), String> {
    let mut config = (*keys.config()).clone();
    config.alpn_protocols = protocol.map(Vec::from).into_iter().collect();
    let accepting = TlsAcceptor::from(Arc::new(config)).accept(stream);
    let stream = tokio::time::timeout(HEAD_TIME, accepting)
        .await
        .map_err(|_| format!("the handshake was not complete within {HEAD_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    let shown = stream.get_ref().1.peer_certificates();
    let name = shown.and_then(|chain| keys.name(chain.first()?));
    Ok((stream, name.map(|name| Certificate(name.into()))))
}

async fn connection(
    stream: TcpStream,
    keys: Option<Arc<dyn Keys>>,
    peer: SocketAddr,
    interface: Interface,
    stop: CancellationToken,
) {
    prepare(&stream);
    // Each on the heap, so that a connection has room for what it is and not for the largest that there is.
    let Some(keys) = keys else {
        return Box::pin(spoken(stream, None, peer, interface, stop)).await;
    };
    match Box::pin(secured(stream, &*keys, interface.protocol())).await {
        Ok((stream, name)) => Box::pin(spoken(stream, name, peer, interface, stop)).await,
        Err(error) => tracing::debug!(%peer, error, "no TLS came of a connection"),
    }
}

/// What is spoken on a connection, whatever is below.
async fn spoken(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    name: Option<Certificate>,
    peer: SocketAddr,
    interface: Interface,
    stop: CancellationToken,
) {
    match interface {
        Interface::Http(api) => Box::pin(http(stream, name, peer, api, stop)).await,
        Interface::Mesh(mesh) => Box::pin(mesh.serve(stream, peer)).await,
        Interface::Thrift(thrift) => Box::pin(thrift.serve(stream, peer)).await,
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    certificate: Option<Certificate>,
    peer: SocketAddr,
    api: Api,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let api = api.clone();
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        // On the heap until it is answered: hyper keeps room for it as long as the connection lasts, a stream's too.
        async move { Ok::<_, std::convert::Infallible>(Box::pin(api.handle(request, peer)).await) }
    });
    // Clients write `>` in a query as it is.
    let io = TokioIo::new(admin::Lenient::new(stream));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(io, service);
    until(&stop, serving, peer).await;
}

/// Serves a connection to its end; after `stop` what is under way is answered, and nothing else.
pub(crate) async fn until(
    stop: &CancellationToken,
    serving: impl GracefulConnection<Error = hyper::Error>,
    peer: SocketAddr,
) {
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

/// A peer that is gone without a word, or that reads nothing, does not hold its connection for ever.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = prepared {
        tracing::debug!(%error, "a socket's options are not set");
    }
}
