//! Connections that become tunnels: after `Upgrade`, once the endpoint has said 101, and after CONNECT. Until then the
//! request is one like any other: named, bound, balanced, judged. From then on bytes go both ways as they come.
//!
//! What a client sends before it is told that its tunnel is there stays in the buffer: with the tunnel it goes to the
//! endpoint, without one it is thrown away with the connection. So it is never read as a request, neither here nor
//! behind. A connection to an endpoint on which an upgrade was tried is not used again either.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dtab::Path;
use telemetry::code::Code;

use crate::client::Lent;
use crate::connection::Job;
use crate::exchange::Downstream;
use crate::http1::{
    Fields, HeadError, Method, RequestHead, ResponseHead, Version, valid_authority,
};
use crate::io::{BLOCK_MAX, Buffer};
use crate::respond::RouteError;
use crate::settings::ServerSettings;
use crate::stats::TunnelStats;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    /// An answer, as nearly all do.
    #[default]
    Answer,
    /// Another protocol on this connection.
    Upgrade,
    /// A tunnel: CONNECT.
    Tunnel,
}

impl Wish {
    /// Whether an answer of this status begins the tunnel.
    pub(crate) fn is_granted(self, status: u16) -> bool {
        match self {
            Self::Answer => false,
            Self::Upgrade => status == 101,
            Self::Tunnel => matches!(status, 200..=299),
        }
    }

    /// Whether the connections are the request's alone, and end with it.
    pub(crate) fn is_tunnel(self) -> bool {
        self != Self::Answer
    }
}

/// Finds out what a request asks for: into `job.wish`, and the protocols it offers into `job.protocols`. A CONNECT is
/// named by the authority that it asks for, whatever its `Host` says, as a request in absolute form is.
pub(crate) fn wish(job: &mut Job) {
    job.wish = Wish::Answer;
    if job.request.is_method(Method::Connect) {
        job.wish = Wish::Tunnel;
        job.client_keeps = false;
        let target = job.request.target().to_vec();
        job.request.set("Host", &target);
    } else if job.request.offers_upgrade() {
        protocols(&job.request, &mut job.protocols);
        // What is listed in Connection goes with it; here it goes whether it was listed or not.
        job.request.remove("HTTP2-Settings");
        if !job.protocols.is_empty() {
            job.wish = Wish::Upgrade;
            job.client_keeps = false;
        }
    }
}

/// Refuses a CONNECT to a port that the server does not allow, before anything is looked up for it.
pub(crate) fn allow(job: &Job, server: &ServerSettings) -> Result<(), RouteError> {
    if job.wish != Wish::Tunnel {
        return Ok(());
    }
    let target = job.request.target();
    match port(target).filter(|port| server.connect_ports.contains(port)) {
        Some(_) => Ok(()),
        None => Err(RouteError::Connect {
            target: String::from_utf8_lossy(target).into(),
            allowed: server.connect_ports.clone(),
        }),
    }
}

/// The port of `host:port`.
fn port(authority: &[u8]) -> Option<u16> {
    let at = authority.iter().rposition(|byte| *byte == b':')?;
    let port = std::str::from_utf8(&authority[at + 1..]).ok()?;
    valid_authority(authority).then(|| port.parse().ok())?
}

/// The protocols that are offered, but for HTTP itself: requests in a tunnel would get around the router.
fn protocols(head: &RequestHead, into: &mut Vec<u8>) {
    into.clear();
    for protocol in head.values("Upgrade").flat_map(listed) {
        let is = |prefix: &[u8]| {
            let start = protocol.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if !is(b"h2c") && !is(b"http/") {
            if !into.is_empty() {
                into.extend_from_slice(b", ");
            }
            into.extend_from_slice(protocol);
        }
    }
}

fn listed(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    all.filter(|one| !one.is_empty())
}

/// Offers an upgrade to the next hop, if that is what is asked for; after the lines of the hop before were removed.
pub(crate) fn offer(head: &mut RequestHead, wish: Wish, protocols: &[u8]) {
    if wish == Wish::Upgrade {
        upgrade(head, protocols);
    }
}

fn upgrade(fields: &mut Fields, protocols: &[u8]) {
    fields.append(b"Connection", b"Upgrade");
    fields.append(b"Upgrade", protocols);
}

/// Judges an answer that grants what was asked for; of the protocols that were offered those that were chosen are left.
/// `all_sent`: the endpoint has got the whole request.
pub(crate) fn judge(job: &mut Job, all_sent: bool) -> Result<(), HeadError> {
    let ambiguous = |what| HeadError::Ambiguous {
        what,
        found: Box::default(),
    };
    if !job.wish.is_granted(job.response.status()) {
        return Ok(());
    }
    if !all_sent {
        return Err(ambiguous("a tunnel before the request's end"));
    }
    if job.wish == Wish::Upgrade {
        job.protocols = chosen(&job.response, &job.protocols).map_err(ambiguous)?;
    }
    Ok(())
}

/// Tells the client that its tunnel is there; after the lines of the hop before were removed.
pub(crate) fn grant(response: &mut ResponseHead, wish: Wish, protocols: &[u8]) {
    // What follows has no end that a head could tell.
    response.remove("Content-Length");
    response.remove("Transfer-Encoding");
    if wish == Wish::Upgrade {
        upgrade(response, protocols);
    }
}

/// What the endpoint has chosen of the protocols that it was offered; or what is wrong with its 101.
fn chosen(response: &ResponseHead, offered: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut chosen = Vec::new();
    for protocol in response.values("Upgrade").flat_map(listed) {
        if !listed(offered).any(|one| one.eq_ignore_ascii_case(protocol)) {
            return Err("101 with a protocol that was not offered");
        }
        if !chosen.is_empty() {
            chosen.extend_from_slice(b", ");
        }
        chosen.extend_from_slice(protocol);
    }
    match chosen.is_empty() {
        true => Err("101 without Upgrade"),
        false => Ok(chosen),
    }
}

/// The answer to a CONNECT whose tunnel ends at the endpoint: there is a connection.
pub(crate) fn connected(response: &mut ResponseHead) {
    response.begin(Version::Http11, 200, "Connection established");
}

/// Transformers that put a proxy in the endpoints' place.
const PROXIES: [&str; 4] = [
    "io.l5d.k8s.daemonset",
    "io.l5d.port",
    "io.l5d.const",
    "io.l5d.replace",
];

/// Whether the endpoints of a bound name are proxies, to which CONNECT is passed on, by the transformers in its id.
pub(crate) fn leads_to_proxies(id: &Path) -> bool {
    id.segments().windows(2).any(|pair| {
        pair[0].as_str() == Some("%") && pair[1].as_str().is_some_and(|one| PROXIES.contains(&one))
    })
}

/// One side has finished, and the other one neither does nor says anything for so long: it has forgotten its tunnel.
const HALF_CLOSED: Duration = Duration::from_secs(300);

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have finished.
    Whole,
    /// The client is gone.
    ClientGone,
    /// The endpoint is gone.
    EndpointGone,
    /// Nothing went either way for `tunnelIdleMs`.
    Idle,
}

impl End {
    /// What the spans say of it.
    pub(crate) fn code(self) -> Option<Code> {
        match self {
            Self::Whole | Self::Idle => None,
            Self::ClientGone => Some(Code::E126),
            Self::EndpointGone => Some(Code::E132),
        }
    }
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Its source has finished, its target is still to be told.
    Ending,
    /// Its target knows.
    Ended,
}

/// A tunnel under way.
pub(crate) struct Tunnel<'a> {
    down: &'a mut Downstream,
    up: Lent<'a>,
    stats: &'a TunnelStats,
    to_endpoint: Way,
    to_client: Way,
    /// Something has happened since the timer was armed.
    moved: bool,
}

impl<'a> Tunnel<'a> {
    pub(crate) fn new(down: &'a mut Downstream, up: Lent<'a>, stats: &'a TunnelStats) -> Self {
        // A client may have said all that it has to say before it was answered.
        let to_endpoint = match down.half_closed {
            true => Way::Ending,
            false => Way::Open,
        };
        stats.active.incr();
        Self {
            down,
            up,
            stats,
            to_endpoint,
            to_client: Way::Open,
            moved: false,
        }
    }

    /// Passes bytes both ways until both sides have finished, or one of them is gone.
    pub(crate) async fn run(&mut self, idle: Duration) -> End {
        self.down.timer.arm_in(idle);
        let end = poll_fn(|cx| {
            if let Err(end) = self
                .poll_to_endpoint(cx)
                .and_then(|()| self.poll_to_client(cx))
            {
                return Poll::Ready(end);
            }
            if (self.to_endpoint, self.to_client) == (Way::Ended, Way::Ended) {
                return Poll::Ready(End::Whole);
            }
            if std::mem::take(&mut self.moved) {
                let half = [self.to_endpoint, self.to_client].contains(&Way::Ended);
                let limit = if half { idle.min(HALF_CLOSED) } else { idle };
                self.down.timer.arm(Instant::now() + limit);
            }
            self.down.timer.poll(cx).map(|()| End::Idle)
        })
        .await;
        self.down.timer.disarm();
        match end {
            End::Whole => {}
            // Whoever is left must not take this for the other one's end.
            _ => _ = (self.down.io.reset_on_close(), self.up.io.reset_on_close()),
        }
        end
    }

    fn poll_to_endpoint(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if !self.down.buffer.is_empty() {
                let sent = match self.up.poll_send(cx, self.down.buffer.bytes(), &[]) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(n)) if n > 0 => n,
                    Poll::Ready(_) => return Err(End::EndpointGone),
                };
                self.down.buffer.consume(sent);
                self.stats.to_endpoints.add(sent as u64);
                self.moved = true;
                continue;
            }
            match self.to_endpoint {
                Way::Ended => return Ok(()),
                Way::Ending => match self.up.io.poll_shutdown(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(())) => (self.to_endpoint, self.moved) = (Way::Ended, true),
                    Poll::Ready(Err(_)) => return Err(End::EndpointGone),
                },
                Way::Open => match fill(cx, &mut *self.down) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(0)) => {
                        self.to_endpoint = Way::Ending;
                        self.down.half_closed = true;
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Err(End::ClientGone),
                },
            }
        }
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if !self.up.buffer.is_empty() {
                let sent = match self.down.io.poll_write(cx, self.up.buffer.bytes()) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(n)) if n > 0 => n,
                    Poll::Ready(_) => return Err(End::ClientGone),
                };
                self.up.buffer.consume(sent);
                self.down.sent += sent as u64;
                self.stats.to_clients.add(sent as u64);
                self.moved = true;
                continue;
            }
            match self.to_client {
                Way::Ended => return Ok(()),
                Way::Ending => match self.down.io.poll_shutdown(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(())) => (self.to_client, self.moved) = (Way::Ended, true),
                    Poll::Ready(Err(_)) => return Err(End::ClientGone),
                },
                Way::Open => match fill(cx, &mut self.up) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(0)) => self.to_client = Way::Ending,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Err(End::EndpointGone),
                },
            }
        }
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        self.stats.active.decr();
    }
}

/// A side that bytes are read from.
trait Side {
    fn buffer(&mut self) -> &mut Buffer;
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
}

impl Side for Downstream {
    fn buffer(&mut self) -> &mut Buffer {
        &mut self.buffer
    }
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill(cx, BLOCK_MAX)
    }
}

impl Side for Lent<'_> {
    fn buffer(&mut self) -> &mut Buffer {
        &mut self.buffer
    }
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_receive(cx)
    }
}

/// Reads more into an empty buffer. A side that has nothing to say holds no memory, however busy it was.
fn fill(cx: &mut Context<'_>, side: &mut impl Side) -> Poll<io::Result<usize>> {
    let read = side.poll_read(cx);
    match &read {
        Poll::Pending => side.buffer().rest(),
        // A stream that fills its block gets a larger one.
        Poll::Ready(Ok(_)) if side.buffer().is_full() => _ = side.buffer().widen(BLOCK_MAX),
        Poll::Ready(_) => {}
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    fn job(text: &str) -> Job {
        let mut job = Job::default();
        job.request
            .parse(text.as_bytes(), &Limits::default())
            .unwrap();
        job.client_keeps = true;
        job
    }

    fn server() -> ServerSettings {
        ServerSettings::new(([127, 0, 0, 1], 0).into())
    }

    #[test]
    fn an_upgrade_is_offered_on_without_http_itself() {
        for (fields, wish_, protocols) in [
            (
                "Connection: Upgrade\r\nUpgrade: websocket\r\n",
                Wish::Upgrade,
                "websocket",
            ),
            (
                "Connection: keep-alive, upgrade\r\nUpgrade: WebSocket, tcp\r\n",
                Wish::Upgrade,
                "WebSocket, tcp",
            ),
            (
                "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
                Wish::Upgrade,
                "websocket",
            ),
            (
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n",
                Wish::Answer,
                "",
            ),
            (
                "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\nHTTP2-Settings: AAM\r\n",
                Wish::Answer,
                "",
            ),
            ("Connection: Upgrade\r\n", Wish::Answer, ""),
            ("Upgrade: websocket\r\n", Wish::Answer, ""),
            ("Connection: close\r\n", Wish::Answer, ""),
        ] {
            let mut job = job(&format!("GET / HTTP/1.1\r\nHost: web\r\n{fields}\r\n"));
            wish(&mut job);
            assert_eq!(job.wish, wish_, "{fields}");
            assert_eq!(job.client_keeps, wish_ == Wish::Answer, "{fields}");
            if wish_ == Wish::Upgrade {
                assert_eq!(String::from_utf8_lossy(&job.protocols), protocols);
            }
            if fields.starts_with("Connection: Upgrade") {
                assert_eq!(job.request.get("HTTP2-Settings"), None, "{fields}");
            }
        }
        let mut old = job("GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        wish(&mut old);
        assert_eq!(old.wish, Wish::Answer);
    }

    #[test]
    fn connect_is_named_by_what_it_asks_for_and_only_to_allowed_ports() {
        let mut allowed = job("CONNECT web:443 HTTP/1.1\r\nHost: other:80\r\n\r\n");
        wish(&mut allowed);
        allow(&allowed, &server()).unwrap();
        assert_eq!(allowed.wish, Wish::Tunnel);
        assert_eq!(allowed.request.get("Host"), Some(&b"web:443"[..]));
        for target in ["web:80", "web", "[::1]", "web:", "web:0443x", "web:99999"] {
            let mut job = Job::default();
            let text = format!("CONNECT {target} HTTP/1.1\r\nHost: web:443\r\n\r\n");
            if job
                .request
                .parse(text.as_bytes(), &Limits::default())
                .is_ok()
            {
                wish(&mut job);
                let error = allow(&job, &server()).unwrap_err();
                assert_eq!(error.status(), 403, "{target}");
                assert!(error.to_string().contains("connectPorts"), "{error}");
            }
        }
    }

    #[test]
    fn only_a_protocol_that_was_offered_can_be_chosen() {
        let mut response = ResponseHead::new();
        for (upgrade, want) in [
            ("Upgrade: websocket\r\n", Ok("websocket")),
            ("Upgrade: WebSocket\r\n", Ok("WebSocket")),
            (
                "Upgrade: tcp\r\n",
                Err("101 with a protocol that was not offered"),
            ),
            ("", Err("101 without Upgrade")),
        ] {
            response.reset();
            response.allow_upgrade();
            let text = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n");
            response.parse(text.as_bytes(), &Limits::default()).unwrap();
            let found = chosen(&response, b"websocket, other");
            assert_eq!(found, want.map(|ok| ok.as_bytes().to_vec()), "{upgrade}");
        }
    }

    #[test]
    fn transformers_that_replace_addresses_lead_to_proxies() {
        for (id, want) in [
            (
                "/%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/default/http/web",
                true,
            ),
            ("/%/io.l5d.port/4141/#/io.l5d.fs/web", true),
            (
                "/%/io.l5d.k8s.localnode/n1/#/io.l5d.k8s/default/http/web",
                false,
            ),
            ("/#/io.l5d.fs/web", false),
        ] {
            assert_eq!(leads_to_proxies(&Path::read(id).unwrap()), want, "{id}");
        }
    }
}
