//! One connection of a client: head after head, each given to [`handle`](crate::handle).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use telemetry::trace::Formats;

use crate::call::Call;
use crate::diagnose::Diagnosis;
use crate::entrance::{Behind, Entrance};
use crate::exchange::{Downstream, Stalls};
use crate::handle::After;
use crate::http1::{Framing, Parsed, RequestHead, ResponseHead, Version};
use crate::identify::Identified;
use crate::io::{BLOCK, Io};
use crate::respond::{self, Answering, RouteError};
use crate::routes::Local;
use crate::stage::on_stage;
use crate::stats::ServerStats;
use crate::tunnel::Wish;

/// A head must be complete this long after its first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The two ends of a client's connection.
pub(crate) struct Ends {
    /// Where it came in.
    pub(crate) entrance: Rc<Entrance>,
    /// Which of the router's servers accepted it.
    pub(crate) server: usize,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Random.
    pub(crate) id: u64,
    /// The listener's name in traces, `ip/port`, as Linkerd 1 has it.
    pub(crate) name: Arc<str>,
    pub(crate) stats: Arc<ServerStats>,
    /// The certificate that the client showed, as `x-forwarded-client-cert` has it.
    pub(crate) client_cert: Option<Box<str>>,
}

impl Ends {
    fn new(entrance: &Rc<Entrance>, (local, peer): (SocketAddr, SocketAddr)) -> Self {
        let behind = entrance.behind();
        Self {
            entrance: Rc::clone(entrance),
            server: behind.server,
            local,
            peer,
            id: fastrand::u64(..),
            name: Arc::clone(&behind.name),
            stats: Arc::clone(&behind.stats),
            client_cert: None,
        }
    }

    /// Takes in what serves the next request.
    fn follow(&mut self, behind: &Behind) {
        self.server = behind.server;
        if !Arc::ptr_eq(&self.stats, &behind.stats) {
            self.name = Arc::clone(&behind.name);
            self.stats = Arc::clone(&behind.stats);
        }
    }
}

/// A client's connection, and whose it is. Boxed, it goes to where its requests are served, and back.
pub(crate) struct Connection {
    pub(crate) ends: Ends,
    pub(crate) down: Downstream,
}

impl Connection {
    fn new(entrance: &Rc<Entrance>, who: (SocketAddr, SocketAddr), io: Io) -> Box<Self> {
        let mut ends = Ends::new(entrance, who);
        ends.client_cert = io.client_certificate().map(String::into_boxed_str);
        let worker = entrance.worker();
        Box::new(Self {
            ends,
            down: Downstream::new(io, worker.blocks.buffer(), worker.timers.timer()),
        })
    }
}

/// What a request needs while it is served; handed from request to request.
#[derive(Default)]
pub(crate) struct Job {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) name: Identified,
    pub(crate) key: Vec<u8>,
    /// The head that goes up.
    pub(crate) up: Vec<u8>,
    /// What goes down.
    pub(crate) out: Vec<u8>,
    pub(crate) formats: Formats,
    pub(crate) client_http10: bool,
    pub(crate) client_keeps: bool,
    pub(crate) wish: Wish,
    pub(crate) diagnosis: Diagnosis,
    /// What the client offers to speak, when `wish` is an upgrade.
    pub(crate) protocols: Vec<u8>,
}

/// What came of waiting for a head.
enum Head {
    Complete,
    /// The connection is done with.
    End,
    /// It was said to be readable and was not.
    Nothing,
    Bad(RouteError),
}

/// Serves a connection until it ends. `who` is this router's address and the client's.
pub(crate) async fn serve(entrance: &Rc<Entrance>, who: (SocketAddr, SocketAddr), io: Io) {
    let worker = entrance.worker();
    let began = Instant::now();
    let mut connection = Connection::new(entrance, who, io);
    let (mut sent, mut received) = (0, 0);
    // The client said that nothing follows its last request, and that was whole: closing loses nothing.
    let mut polite = false;
    loop {
        let Connection { ends, down } = &mut *connection;
        if down.buffer.is_empty() {
            down.buffer.rest();
            // What a fresh connection was made for is most likely here.
            if down.half_closed || !(down.io.is_fresh() || wait(entrance, down).await) {
                break;
            }
        }
        // A new configuration counts from here on, and stays for the whole of the request.
        let behind = entrance.behind();
        ends.follow(&behind);
        let local = &behind.local;
        let server = &local.router.settings.servers[ends.server];
        down.stalls = Stalls::of(&server.socket);
        let mut job = worker.jobs.take().unwrap_or_default();
        std::mem::swap(&mut down.out, &mut job.out);
        let after = match read_head(local, down, &mut job).await {
            Head::End => After::Close,
            Head::Nothing => After::Keep,
            Head::Bad(error) => {
                // Boxed, as it is rare: an idle connection's task is no larger for it.
                Box::pin(refuse_head(local, ends, down, &error)).await;
                After::Close
            }
            Head::Complete => {
                let old = server.life_time.is_some_and(|life| began.elapsed() > life);
                job.client_http10 = job.request.version() == Version::Http10;
                job.client_keeps = job.request.keep_alive() && !old && !entrance.is_ending();
                polite = !job.request.keep_alive() && job.request.framing() == Framing::None;
                let _under_way = worker.under_way();
                let after;
                (connection, job, after) = on_stage(worker, &behind, connection, job).await;
                after
            }
        };
        let Connection { ends, down } = &mut *connection;
        polite &= down.buffer.is_empty();
        // An idle connection has no memory for answers.
        std::mem::swap(&mut down.out, &mut job.out);
        worker.give_job(job);
        ends.stats.received.add(down.received - received);
        ends.stats.sent.add(down.sent - sent);
        (sent, received) = (down.sent, down.received);
        polite |= after == After::Cut;
        if after != After::Keep {
            break;
        }
    }
    let down = &mut connection.down;
    if !polite {
        linger(down).await;
    }
}

/// Waits for the next request, with no block and nothing of the router. False: the connection ends. Whoever ends it from
/// outside has it [look again](crate::timer::Timers::rouse).
async fn wait(entrance: &Entrance, down: &mut Downstream) -> bool {
    let mut armed = None;
    let readable = poll_fn(|cx| {
        let ending = entrance.ending();
        if armed.replace(ending) != Some(ending) {
            let behind = entrance.behind();
            let server = &behind.local.router.settings.servers[behind.server];
            let patience = ending.patience().or(server.idle_time);
            down.timer.arm_far(patience.unwrap_or(Duration::MAX));
        }
        if let Poll::Ready(result) = down.io.poll_readable(cx) {
            return Poll::Ready(result.is_ok());
        }
        down.timer.poll(cx).map(|()| false)
    })
    .await;
    down.timer.disarm();
    readable
}

/// Reads until a head is complete.
async fn read_head(local: &Local, down: &mut Downstream, job: &mut Job) -> Head {
    let limits = &local.limits;
    let most = limits.head + BLOCK;
    job.request.reset();
    let silence = down.stalls.read.min(HEAD_TIME);
    let mut armed: Option<Instant> = None;
    let head = poll_fn(|cx| {
        let mut heard = armed.is_none();
        loop {
            if !down.buffer.is_empty() {
                match job.request.parse(down.buffer.bytes(), limits) {
                    Err(error) => return Poll::Ready(Head::Bad(RouteError::BadHead(error))),
                    Ok(Parsed::Complete { consumed }) => {
                        down.buffer.consume(consumed);
                        down.buffer.rest();
                        return Poll::Ready(Head::Complete);
                    }
                    Ok(Parsed::Partial) => {}
                }
            }
            match down.poll_fill(cx, most) {
                Poll::Ready(Ok(n)) if n > 0 => heard = true,
                Poll::Ready(_) => return Poll::Ready(Head::End),
                Poll::Pending => break,
            }
        }
        if down.buffer.is_empty() {
            return Poll::Ready(Head::Nothing);
        }
        let end = *armed.get_or_insert_with(|| Instant::now() + HEAD_TIME);
        if heard {
            down.timer.arm(end.min(Instant::now() + silence));
        }
        match down.timer.poll(cx) {
            Poll::Ready(()) if silence == HEAD_TIME || end <= Instant::now() => {
                Poll::Ready(Head::Bad(RouteError::TooSlow(
                    "the request's head was not complete within 10 s",
                )))
            }
            Poll::Ready(()) => Poll::Ready(Head::Bad(RouteError::TooSlow(
                "no more of the request's head came within `readTimeoutMs`",
            ))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if armed.is_some() {
        down.timer.disarm();
    }
    head
}

/// Answers a connection that is none of HTTP's here, before it said anything that can be read.
pub(crate) async fn turn_away(
    entrance: &Rc<Entrance>,
    who: (SocketAddr, SocketAddr),
    io: Io,
    error: &RouteError,
) {
    let mut connection = Connection::new(entrance, who, io);
    let Connection { ends, down } = &mut *connection;
    let behind = entrance.behind();
    refuse_head(&behind.local, ends, down, error).await;
    drop(behind);
    linger(down).await;
}

/// Answers a head that cannot be read.
async fn refuse_head(local: &Local, ends: &Ends, down: &mut Downstream, error: &RouteError) {
    let mut call = Call::begin(local, ends);
    let who = Answering {
        router: &local.router.settings.label,
        node: &local.router.reporting.node,
        terse: local.router.settings.servers[ends.server].clear_context,
        close: true,
    };
    respond::to_error(&mut down.out, error, &who, None);
    let (router, code) = (local.router.label(), error.code().as_str());
    tracing::debug!(%router, client = %ends.peer, code, %error, "request refused");
    call.no_context();
    call.end(Some(error.status()), true, Some(error.code()), None);
    down.flush().await;
}

/// Closes so that the client can still read what was written: FIN first, and what it sends is read away for a moment.
/// Closing with unread bytes would send RST, and with it the answer could be lost.
async fn linger(down: &mut Downstream) {
    let mut left = 64 * 1024usize;
    down.timer.arm_in(Duration::from_secs(1));
    let mut shut = down.ended;
    poll_fn(|cx| {
        if !shut {
            match down.io.poll_shutdown(cx) {
                Poll::Pending => return down.timer.poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => shut = true,
            }
        }
        if down.half_closed {
            return Poll::Ready(());
        }
        loop {
            down.buffer.clear();
            match down.poll_fill(cx, BLOCK) {
                Poll::Pending => return down.timer.poll(cx),
                Poll::Ready(Ok(n)) if n > 0 && n < left => left -= n,
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<'a, F: Future>(_: fn(&'a Rc<Entrance>, (SocketAddr, SocketAddr), Io) -> F) -> usize {
        size_of::<F>()
    }

    /// What a request needs is lent to it; thousands of idle connections are to cost little.
    #[test]
    fn an_idle_connection_has_no_memory_for_requests() {
        let (task, ends) = (size(serve), size_of::<Connection>());
        assert!(task <= 640, "{task} bytes of a task");
        assert!(ends <= 512, "{ends} bytes of a connection's ends");
    }
}
