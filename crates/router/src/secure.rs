//! A client's connection to a listener with TLS, from its socket to the first byte of HTTP. A plain listener never gets here.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::connection::turn_away;
use crate::entrance::Entrance;
use crate::io::Io;
use crate::respond::RouteError;
use crate::stats::HandshakeStats;
use crate::tls::{self, Incoming, ServerKeys, TlsCheck, TlsFailure};

/// Failed handshakes are told about this often at the most: whoever reaches the port can make as many as it likes.
const COMPLAIN: Duration = Duration::from_secs(1);

/// Goes through the handshake. `None`: there is nothing to serve, and whoever should know has been told.
pub(crate) async fn secure(
    entrance: &Rc<Entrance>,
    who: (SocketAddr, SocketAddr),
    tcp: std::net::TcpStream,
    keys: &ServerKeys,
) -> Option<Io> {
    let tcp = match TcpStream::from_std(tcp) {
        Ok(tcp) => tcp,
        Err(error) => {
            tracing::warn!(client = %who.1, %error, "connection lost before it was served");
            return None;
        }
    };
    let worker = entrance.worker();
    let timer = worker.timers.timer();
    let incoming = tls::accept(tcp, keys, &worker.crowd, &timer).await;
    let behind = entrance.behind();
    let count = &behind.stats.handshakes;
    let failure = match incoming {
        Incoming::Secure(stream) => {
            count.ok.incr();
            return Some(Io::Tls(stream));
        }
        Incoming::Silent => return None,
        Incoming::Plain(tcp) => {
            count.plain.incr();
            drop(behind);
            turn_away(entrance, who, Io::Plain(tcp), &RouteError::PlainToTls).await;
            return None;
        }
        Incoming::PushedOut => TlsFailure::new(
            TlsCheck::Slow,
            "many handshakes were under way, and this one for longest",
        ),
        Incoming::Failed(failure) => failure,
    };
    count.failed(failure.check).incr();
    if let Some(unsaid) = count.complaint(COMPLAIN) {
        let router = behind.local.router.label();
        tracing::warn!(%router, client = %who.1, code = "RT-E128", check = failure.check.word(), error = %failure.what, unsaid, "a client's TLS handshake failed");
    }
    None
}

impl HandshakeStats {
    /// Where a handshake that failed is counted.
    fn failed(&self, check: TlsCheck) -> &telemetry::cells::Cell {
        match check {
            TlsCheck::Slow => &self.slow,
            TlsCheck::ClientCertificate | TlsCheck::Trust | TlsCheck::Time | TlsCheck::Name => {
                &self.client_certificate
            }
            TlsCheck::Version => &self.version,
            TlsCheck::NotTls | TlsCheck::Configuration | TlsCheck::Broken => &self.broken,
        }
    }

    /// Whether this failure is to be told about, and how many before it were not.
    fn complaint(&self, every: Duration) -> Option<u64> {
        let now = Instant::now();
        let mut told = crate::client::lock(&self.told);
        let (last, unsaid) = &mut *told;
        if last.is_some_and(|last| now.duration_since(last) < every) {
            *unsaid += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(unsaid))
    }
}
