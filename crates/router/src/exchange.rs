//! One attempt on the wire: the request goes up while the response comes down, both in bounded memory.
//!
//! First [`Exchange::until_head`] sends the request and waits for the response's head (the request's body may still be
//! on its way then); the caller judges it and either gives the attempt up or lets [`Exchange::forward`] pass the
//! response on. Bodies are never taken apart: their bytes pass through as they came, chunk framing included.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::client::Lent;
use crate::http1::{
    BodyError, BodyScanner, Framing, HeadError, LAST_CHUNK, Limits, Method, Parsed, ResponseHead,
    strip_hop_by_hop, write_chunk,
};
use crate::io::{BLOCK, BLOCK_MAX, Buffer, Io};
use crate::settings::SocketSettings;
use crate::splice::{LONG, Passage, Step};
use crate::timer::Timer;
use crate::wrap::Wrapper;

/// No byte of a body for so long is a stall.
const STALL: Duration = Duration::from_secs(60);
/// So much of a body is written together with its head, as one run of bytes.
const TOGETHER: usize = 2 * 1024;
/// No timer of a stall is armed for less.
const SOON: Duration = Duration::from_millis(10);

/// For how long a client may stand still within a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stalls {
    /// While it sends: `socketOptions.readTimeoutMs`.
    pub(crate) read: Duration,
    /// While it takes nothing: `socketOptions.writeTimeoutMs`.
    pub(crate) write: Duration,
}

impl Stalls {
    pub(crate) fn of(socket: &SocketSettings) -> Self {
        Self {
            read: socket.read_timeout.unwrap_or(STALL),
            write: socket.write_timeout.unwrap_or(STALL),
        }
    }
}

/// After an early response, so much of the request is still read before the connection is closed.
const DRAIN_BYTES: usize = 64 * 1024;
/// And for so long.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What a client that expects it is told when its body is wanted. Linkerd 1 answers at once; waiting until here lets a
/// refusal come first, and then the body is never sent.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The client's side of a connection.
pub(crate) struct Downstream {
    pub(crate) io: Io,
    /// What was read and is not done with: a request's body, then perhaps the next request.
    pub(crate) buffer: Buffer,
    /// What is to be written.
    pub(crate) out: Vec<u8>,
    /// How much of `out` was written.
    pub(crate) written: usize,
    /// The client sent FIN.
    pub(crate) half_closed: bool,
    /// The client has its last answer and our end.
    pub(crate) ended: bool,
    pub(crate) stalls: Stalls,
    pub(crate) timer: Timer,
    /// Bytes written to the client, and read from it, for metrics.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// A request's body on its way up, over all attempts.
pub(crate) struct RequestBody {
    scanner: BodyScanner,
    /// Bytes at the front of the buffer that belong to the body.
    scanned: usize,
    /// Of those, bytes that this attempt has written.
    sent: usize,
    /// The bytes stay in the buffer until the request is answered.
    retained: bool,
    /// Bytes were written and dropped: the body cannot be sent again.
    taken: bool,
    /// The client waits for `100 Continue` before it sends its body, and has not got it yet.
    continue_owed: bool,
    /// Longer ones are refused, in bytes on the wire; and how much of that is left.
    limit: u64,
    left: u64,
    /// Its bytes go around the buffer.
    passage: Option<Passage>,
}

/// What ended an attempt before its response head.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// The connection broke. `unsent`: the request's complete head was never handed to the socket.
    Broken {
        unsent: bool,
        error: Option<io::Error>,
    },
    /// The response's head is malformed or too large.
    BadResponse(HeadError),
    /// The deadline passed.
    Deadline,
    /// The client's body stands still.
    BodyStalled,
    /// The client's body is malformed.
    BadBody(BodyError),
    /// The client went away.
    ClientGone,
}

/// How a forwarded response ended.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// All of it was handed to the client.
    Whole,
    /// The endpoint closed or broke the framing in the middle of the body.
    UpstreamBroke(String),
    /// Nothing came from the endpoint, or could be written to the client, for too long.
    Stalled,
    /// The client went away.
    ClientGone,
}

impl RequestBody {
    /// `keep_up_to`: a body of at most so many bytes stays in the buffer, so that it can be sent again. `limit`: a longer
    /// one is refused, as soon as that is known.
    pub(crate) fn new(
        framing: Framing,
        buffer: &Buffer,
        keep_up_to: u64,
        limit: u64,
    ) -> Result<Self, BodyError> {
        let mut body = Self {
            scanner: BodyScanner::new(framing),
            scanned: 0,
            sent: 0,
            retained: false,
            taken: false,
            continue_owed: false,
            limit,
            left: limit,
            passage: None,
        };
        if matches!(framing, Framing::Length(n) if n > limit) {
            return Err(body.too_long());
        }
        body.scan(buffer)?;
        let short = matches!(framing, Framing::Length(n) if n <= keep_up_to.min(BLOCK_MAX as u64));
        body.retained = short || body.scanner.is_done();
        Ok(body)
    }

    fn scan(&mut self, buffer: &Buffer) -> Result<(), BodyError> {
        while !self.scanner.is_done() && self.scanned < buffer.len() {
            let scanned = self.scanner.scan(&buffer.bytes()[self.scanned..])?;
            self.scanned += scanned.consumed;
            let left = self.left.checked_sub(scanned.consumed as u64);
            self.left = left.ok_or_else(|| self.too_long())?;
            if scanned.consumed == 0 {
                break;
            }
        }
        Ok(())
    }

    fn too_long(&self) -> BodyError {
        BodyError::TooLong {
            what: "a request's body (maxRequestKB)",
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
        }
    }

    /// Whether all that was read of it is still there.
    pub(crate) fn can_be_sent_again(&self) -> bool {
        !self.taken
    }

    /// Whether so much of it is still to come, or an unknown amount, that nobody would read it away ([`drain`]).
    pub(crate) fn is_far_from_complete(&self) -> bool {
        self.scanner
            .remaining()
            .is_none_or(|left| left > DRAIN_BYTES as u64)
    }

    /// Whether it has come to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.scanner.is_done()
    }

    /// The client wants to be told to go on, once its body is wanted.
    pub(crate) fn expect_continue(&mut self) {
        self.continue_owed = true;
    }

    /// Whether the client has not been told to go on: its body is not going to come.
    pub(crate) fn is_withheld(&self) -> bool {
        self.continue_owed
    }

    /// Another attempt sends it from its beginning.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    fn wrote(&mut self, n: usize, buffer: &mut Buffer) {
        if self.retained {
            self.sent += n;
        } else if n > 0 {
            buffer.consume(n);
            self.scanned -= n;
            self.taken = true;
        }
    }

    /// So much of it left the connection around the buffer.
    fn passed(&mut self, n: usize) {
        self.scanner.skip(n as u64);
        self.left = self.left.saturating_sub(n as u64);
        self.taken = true;
    }

    /// Whether the endpoint has yet to take what came.
    fn is_held_up(&self) -> bool {
        self.sent < self.scanned || self.passage.as_ref().is_some_and(Passage::is_loaded)
    }

    /// The request is answered: its bytes leave the buffer, what follows is the next request.
    pub(crate) fn finish(&mut self, buffer: &mut Buffer) {
        buffer.consume(self.scanned);
        self.scanned = 0;
        self.sent = 0;
    }
}

impl Downstream {
    /// A connection of which nothing was read yet.
    pub(crate) fn new(io: Io, buffer: Buffer, timer: Timer) -> Self {
        Self {
            io,
            buffer,
            out: Vec::new(),
            written: 0,
            half_closed: false,
            ended: false,
            stalls: Stalls::of(&SocketSettings::default()),
            timer,
            sent: 0,
            received: 0,
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let n = ready!(self.io.poll_write(cx, &self.out[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.sent += n as u64;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes all of `out`. False: the client is gone, or takes nothing for too long.
    pub(crate) async fn flush(&mut self) -> bool {
        self.timer.arm_in(self.stalls.write);
        let done = poll_fn(|cx| {
            if self.timer.poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.poll_flush(cx).map(|result| result.is_ok())
        })
        .await;
        self.timer.disarm();
        done
    }

    /// Reads more; `Ready(Ok(0))` at the end, and also when the buffer is full.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.buffer.make_room(most) {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(self.io.poll_read(cx, &mut self.buffer))?;
        self.received += n as u64;
        Poll::Ready(Ok(n))
    }

    /// Watches a client that has nothing to say: takes in up to one head of pipelined bytes, notes FIN, and fails when
    /// it is gone.
    fn poll_watch(&mut self, cx: &mut Context<'_>, held: usize) -> io::Result<()> {
        if self.io.is_fresh() {
            return Ok(());
        }
        while !self.half_closed && self.buffer.len() - held < BLOCK {
            match self.poll_fill(cx, BLOCK_MAX) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.half_closed = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What is done to the framing of a response's body on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reframe {
    /// The bytes pass as they came.
    Same,
    /// The client does not know chunks: they are taken off, and the connection's end is the body's.
    Unchunk,
    /// The body ends with the endpoint's connection: in chunks, the client can tell its end from a broken connection,
    /// and keeps its own.
    Chunk,
    /// Something is done to its bytes, which makes chunks of them.
    Wrap,
}

impl Reframe {
    /// What a response framed in this way needs for a client of HTTP/1.0, or 1.1.
    pub(crate) fn of(framing: Framing, client_http10: bool, method: Method) -> Self {
        match framing {
            _ if method == Method::Head => Self::Same,
            Framing::Chunked if client_http10 => Self::Unchunk,
            Framing::UntilClose if !client_http10 => Self::Chunk,
            _ => Self::Same,
        }
    }
}

/// What sending can end with, besides success.
enum SendError {
    Upstream(io::Error),
    Client,
    BadBody(BodyError),
}

/// A response on its way down.
struct Passing<F> {
    scanner: BodyScanner,
    /// Bytes at the front of the endpoint's buffer that belong to the body and pass as they came.
    scanned: usize,
    reframe: Reframe,
    /// The client takes nothing at the moment.
    blocked: bool,
    /// The connection's end follows at once.
    then_ends: bool,
    /// Who is told before its last piece is written, and whether that comes at once.
    before_last: Option<F>,
    /// What was written last waits for the end, see [`Io::poll_write_last`].
    waits_for_end: bool,
    /// Its bytes go around the buffer.
    passage: Option<Passage>,
}

impl<F: FnOnce(bool)> Passing<F> {
    /// Whether nothing is going to follow what was scanned but the connection's end.
    fn is_last(&self) -> bool {
        self.then_ends && self.scanner.is_done()
    }

    /// Called before each write. `at_once`: nothing had to be waited for so far.
    fn note_last(&mut self, at_once: bool) {
        if self.scanner.is_done()
            && let Some(note) = self.before_last.take()
        {
            note(at_once);
        }
    }
}

/// One attempt: the two connections and what is between them.
pub(crate) struct Exchange<'a> {
    pub(crate) down: &'a mut Downstream,
    pub(crate) up: Lent<'a>,
    pub(crate) body: &'a mut RequestBody,
    /// The request's head as it is sent.
    pub(crate) head: &'a [u8],
    head_sent: usize,
    all_sent: bool,
    /// A byte came from the endpoint.
    heard: bool,
    /// The client is watched, so that it is noticed when that goes away: not before the answer has taken a while.
    watched: bool,
    write_error: Option<io::Error>,
    /// Something moved since the timer was armed.
    moved: bool,
    /// Since when nothing moves, as far as anybody looked; none before there was anything to wait for.
    still_since: Option<Instant>,
    /// What is done to the response's body, with [`Reframe::Wrap`].
    wrapper: Option<Box<Wrapper>>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        down: &'a mut Downstream,
        up: Lent<'a>,
        body: &'a mut RequestBody,
        head: &'a [u8],
    ) -> Self {
        body.rewind();
        Self {
            down,
            up,
            body,
            head,
            head_sent: 0,
            all_sent: false,
            heard: false,
            watched: false,
            write_error: None,
            moved: false,
            still_since: None,
            wrapper: None,
        }
    }

    /// The part behind the response's head: `all_sent` as the part before it left it.
    pub(crate) fn new_forwarding(
        down: &'a mut Downstream,
        up: Lent<'a>,
        body: &'a mut RequestBody,
        all_sent: bool,
        wrapper: Option<Box<Wrapper>>,
    ) -> Self {
        Self {
            down,
            up,
            body,
            head: &[],
            head_sent: 0,
            all_sent,
            heard: true,
            watched: true,
            write_error: None,
            moved: false,
            still_since: None,
            wrapper,
        }
    }

    /// Whether the whole request went up.
    pub(crate) fn all_sent(&self) -> bool {
        self.all_sent
    }

    /// Whether anything came from the endpoint.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// Sends until the request is whole; pending while a socket is not ready.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.head_sent == 0 && !self.body.is_complete() && self.down.buffer.is_full() {
            // The body's end is most likely here, too: one write instead of two. How this read ends, the next one says.
            self.down.buffer.widen(BLOCK_MAX);
            _ = self.down.poll_fill(cx, BLOCK_MAX);
        }
        loop {
            self.body
                .scan(&self.down.buffer)
                .map_err(SendError::BadBody)?;
            let head = &self.head[self.head_sent..];
            let body = &self.down.buffer.bytes()[self.body.sent..self.body.scanned];
            if !head.is_empty() || !body.is_empty() {
                let n = match ready!(self.up.poll_send(cx, head, body)) {
                    Ok(0) => {
                        return Poll::Ready(Err(SendError::Upstream(
                            io::ErrorKind::WriteZero.into(),
                        )));
                    }
                    Ok(n) => n,
                    Err(error) => return Poll::Ready(Err(SendError::Upstream(error))),
                };
                self.moved = true;
                let of_head = n.min(head.len());
                self.head_sent += of_head;
                self.body.wrote(n - of_head, &mut self.down.buffer);
                continue;
            }
            ready!(self.poll_send_around(cx))?;
            if self.body.is_complete() {
                return Poll::Ready(Ok(()));
            }
            if std::mem::take(&mut self.body.continue_owed) {
                self.down.out.extend_from_slice(CONTINUE);
            }
            if !self.down.out.is_empty() && ready!(self.down.poll_flush(cx)).is_err() {
                return Poll::Ready(Err(SendError::Client));
            }
            match ready!(self.down.poll_fill(cx, BLOCK_MAX)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(SendError::Client)),
                Ok(_) => self.moved = true,
            }
        }
    }

    /// Sends the long rest of a body around the buffer, to its end, unless it is to be kept or the way is closed.
    fn poll_send_around(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.body.passage.is_none() {
            // One that waits for `100 Continue`, or has interim answers to write, goes the other way first.
            let other = self.body.retained || self.body.continue_owed || !self.down.out.is_empty();
            if other || !is_long(&self.body.scanner, &self.down.buffer) {
                return Poll::Ready(Ok(()));
            }
            if self.down.io.watch().is_err() {
                return Poll::Ready(Err(SendError::Client));
            }
            self.body.passage = Some(self.down.buffer.passage());
        }
        let (Some(from), Some(to)) = (self.down.io.plain(), self.up.io.plain()) else {
            return Poll::Ready(Ok(()));
        };
        while let Some(passage) = &mut self.body.passage {
            let left = self.body.scanner.remaining().unwrap_or_default();
            if left == 0 && !passage.is_loaded() {
                break;
            }
            match ready!(passage.poll_step(cx, from, to, left)) {
                Step::Took(n) => {
                    self.down.received += n as u64;
                    self.body.passed(n);
                }
                Step::Gave(n) => self.up.sent(n),
                Step::Closed => self.body.passage = None,
                Step::FromEnded(_) => return Poll::Ready(Err(SendError::Client)),
                Step::ToBroke(error) => return Poll::Ready(Err(SendError::Upstream(error))),
            }
            self.moved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// The request's side: sends, or watches the client once all is sent and it takes a while.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), AttemptError> {
        if !self.all_sent && self.write_error.is_none() {
            match self.poll_send(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => self.all_sent = true,
                // The endpoint may have answered before it closed: what it said comes first.
                Poll::Ready(Err(SendError::Upstream(error))) => self.write_error = Some(error),
                Poll::Ready(Err(SendError::Client)) => return Err(AttemptError::ClientGone),
                Poll::Ready(Err(SendError::BadBody(error))) => {
                    return Err(AttemptError::BadBody(error));
                }
            }
        }
        if !self.watched {
            return Ok(());
        }
        let held = self.body.scanned;
        self.down
            .poll_watch(cx, held)
            .map_err(|_| AttemptError::ClientGone)
    }

    /// Sends the request and waits for the head of its final response. Interim responses (1xx) are passed on to a client
    /// that understands them.
    pub(crate) async fn until_head(
        &mut self,
        response: &mut ResponseHead,
        limits: &Limits,
        interim: bool,
        deadline: Option<Instant>,
    ) -> Result<(), AttemptError> {
        match deadline {
            Some(at) => self.down.timer.arm(at),
            None => self.down.timer.disarm(),
        }
        self.down.timer.look_later();
        let mut stall_armed = false;
        let result = poll_fn(|cx| {
            self.poll_up(cx)?;
            if !self.down.out.is_empty() && matches!(self.down.poll_flush(cx), Poll::Ready(Err(_)))
            {
                return Poll::Ready(Err(AttemptError::ClientGone));
            }
            if let Poll::Ready(result) = self.poll_head(cx, response, limits, interim) {
                return Poll::Ready(result);
            }
            // Only an upload that did not go through at once can stall.
            if !self.all_sent && self.write_error.is_none() && !stall_armed {
                stall_armed = true;
                self.arm_stall(deadline);
            }
            if self.down.timer.is_long() && !self.watched {
                self.watched = true;
                if self.down.io.watch().is_err() {
                    return Poll::Ready(Err(AttemptError::ClientGone));
                }
                self.poll_up(cx)?;
            }
            while self.down.timer.poll(cx).is_ready() {
                let now = Instant::now();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return Poll::Ready(Err(AttemptError::Deadline));
                }
                if !self.all_sent && self.stands_still(self.upload_stall()) {
                    return Poll::Ready(Err(AttemptError::BodyStalled));
                }
                self.arm_stall(deadline);
            }
            Poll::Pending
        })
        .await;
        self.down.timer.disarm();
        result
    }

    fn arm_stall(&mut self, deadline: Option<Instant>) {
        let now = Instant::now();
        if std::mem::take(&mut self.moved) || self.all_sent {
            self.still_since = None;
        }
        let since = *self.still_since.get_or_insert(now);
        // It may have been the endpoint that was waited for, and is the client now.
        let stall = (since + self.upload_stall()).max(now + SOON);
        self.down
            .timer
            .arm(deadline.map_or(stall, |deadline| deadline.min(stall)));
    }

    /// For how long the upload may stand still: whether the client is waited for, or the endpoint.
    fn upload_stall(&self) -> Duration {
        let waits_for_client = self.head_sent == self.head.len()
            && !self.body.is_held_up()
            && !self.body.is_complete();
        if waits_for_client {
            self.down.stalls.read
        } else {
            STALL
        }
    }

    /// Whether nothing has moved for `limit`.
    fn stands_still(&self, limit: Duration) -> bool {
        let since = self.still_since;
        !self.moved && since.is_some_and(|since| since.elapsed() >= limit)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut ResponseHead,
        limits: &Limits,
        interim: bool,
    ) -> Poll<Result<(), AttemptError>> {
        loop {
            // One interim response at a time: a client that does not read holds the endpoint back.
            if ready!(self.down.poll_flush(cx)).is_err() {
                return Poll::Ready(Err(AttemptError::ClientGone));
            }
            if !self.up.buffer.is_empty() {
                match response.parse(self.up.buffer.bytes(), limits) {
                    Err(error) => return Poll::Ready(Err(AttemptError::BadResponse(error))),
                    Ok(Parsed::Complete { consumed }) => {
                        self.up.buffer.consume(consumed);
                        if !response.interim() {
                            return Poll::Ready(Ok(()));
                        }
                        if interim {
                            strip_hop_by_hop(response);
                            response.write(&mut self.down.out);
                        }
                        continue;
                    }
                    Ok(Parsed::Partial) => {}
                }
            }
            // `parse` refuses a head over its limit before the buffer is full.
            self.up.buffer.make_room(BLOCK_MAX.max(limits.head + BLOCK));
            match ready!(self.up.poll_receive(cx)) {
                Ok(n) if n > 0 => self.heard = true,
                ended => {
                    let unsent = self.head_sent < self.head.len();
                    let error = self.write_error.take().or(ended.err());
                    return Poll::Ready(Err(AttemptError::Broken { unsent, error }));
                }
            }
        }
    }

    /// Passes the response on: `down.out` holds its head. `before_last` is called before the last piece is written, and told
    /// whether nothing had to be waited for: what it notes is noted before the client has its whole answer. `then_ends`: the
    /// client's connection ends when all is written; then it ends here, before anything else is done: the answer may wait for it.
    pub(crate) async fn forward(
        &mut self,
        framing: Framing,
        reframe: Reframe,
        then_ends: bool,
        before_last: impl FnOnce(bool),
    ) -> Forwarded {
        let mut passing = Passing {
            scanner: BodyScanner::new(framing),
            scanned: 0,
            reframe,
            blocked: false,
            then_ends: then_ends && self.all_sent && self.body.is_complete(),
            before_last: Some(before_last),
            waits_for_end: false,
            passage: None,
        };
        let stalls = self.down.stalls;
        let look_again = stalls.write.min(STALL);
        // A long silence is no stall as long as nothing is owed: server-sent events may pause. What is watched is a
        // client that takes nothing, and an endpoint that stops in the middle of a body with a length.
        let owes = matches!(framing, Framing::Length(_));
        let end = poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll_down(cx, &mut passing) {
                return Poll::Ready(end);
            }
            let blocked = passing.blocked;
            if self.down.io.watch().is_err() {
                return Poll::Ready(Forwarded::ClientGone);
            }
            match self.poll_up(cx) {
                Ok(()) => {}
                Err(AttemptError::ClientGone) if self.all_sent => {
                    return Poll::Ready(Forwarded::ClientGone);
                }
                // The upload fails while the response runs: nothing more goes up, the response goes on.
                Err(_) => self.write_error = Some(io::ErrorKind::BrokenPipe.into()),
            }
            // Most responses are passed on at once: what has to wait first asks for the time.
            if self.still_since.is_none() {
                let now = Instant::now();
                self.still_since = Some(now);
                self.down.timer.arm(now + look_again);
            }
            while self.down.timer.poll(cx).is_ready() {
                if std::mem::take(&mut self.moved) || !(blocked || owes) {
                    self.still_since = Some(Instant::now());
                } else if self.stands_still(if blocked { stalls.write } else { STALL }) {
                    return Poll::Ready(Forwarded::Stalled);
                }
                self.down.timer.arm_in(look_again);
            }
            Poll::Pending
        })
        .await;
        self.down.timer.disarm();
        end
    }

    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        passing: &mut Passing<impl FnOnce(bool)>,
    ) -> Poll<Forwarded> {
        let mut filled = self.up.buffer.is_full();
        loop {
            if let Err(error) = self.scan_down(passing) {
                return Poll::Ready(Forwarded::UpstreamBroke(error.to_string()));
            }
            if (1..=TOGETHER).contains(&passing.scanned) && self.down.written < self.down.out.len()
            {
                let body = &self.up.buffer.bytes()[..passing.scanned];
                self.down.out.extend_from_slice(body);
                self.up.buffer.consume(passing.scanned);
                passing.scanned = 0;
            }
            let head = &self.down.out[self.down.written..];
            let body = &self.up.buffer.bytes()[..passing.scanned];
            if !head.is_empty() || !body.is_empty() {
                if self.wrapper.is_none() {
                    passing.note_last(self.still_since.is_none());
                }
                passing.blocked = true;
                let last = body.is_empty()
                    && passing.is_last()
                    && self.wrapper.is_none()
                    && self.down.io.is_plain();
                passing.waits_for_end = last;
                let wrote = match last {
                    true => self.down.io.poll_write_last(cx, head),
                    false => self.down.io.poll_write_two(cx, head, body),
                };
                let n = match ready!(wrote) {
                    Ok(n) if n > 0 => n,
                    _ => return Poll::Ready(Forwarded::ClientGone),
                };
                passing.blocked = false;
                self.moved = true;
                self.down.sent += n as u64;
                let of_head = n.min(head.len());
                self.down.written += of_head;
                self.up.buffer.consume(n - of_head);
                passing.scanned -= n - of_head;
                if self.down.written == self.down.out.len() {
                    self.down.out.clear();
                    self.down.written = 0;
                }
                continue;
            }
            if passing.scanner.is_done() {
                if let Some(wrapper) = self.wrapper.take() {
                    wrapper.finish(&mut self.down.out);
                    continue;
                }
                if passing.waits_for_end {
                    // Closing alone would do, but take it back if the client sent something all the same.
                    _ = ready!(self.down.io.poll_shutdown(cx));
                    self.down.ended = true;
                }
                return Poll::Ready(Forwarded::Whole);
            }
            if let Some(end) = ready!(self.poll_around(cx, passing)) {
                return Poll::Ready(end);
            }
            if passing.scanner.is_done() {
                continue;
            }
            if filled && self.up.buffer.is_empty() {
                // A stream that fills its block gets a larger one.
                self.up.buffer.widen(BLOCK_MAX);
            }
            self.up.buffer.make_room(BLOCK_MAX);
            match ready!(self.up.poll_receive(cx)) {
                Ok(0) => match passing.scanner.eof() {
                    Ok(()) if passing.reframe == Reframe::Chunk => {
                        self.down.out.extend_from_slice(LAST_CHUNK);
                    }
                    // There is the wrapper's end to come.
                    Ok(()) if passing.reframe == Reframe::Wrap => {}
                    Ok(()) => return Poll::Ready(Forwarded::Whole),
                    Err(error) => return Poll::Ready(Forwarded::UpstreamBroke(error.to_string())),
                },
                Ok(_) => {
                    self.moved = true;
                    filled = self.up.buffer.is_full();
                }
                Err(error) => return Poll::Ready(Forwarded::UpstreamBroke(error.to_string())),
            }
        }
    }

    /// Passes the long rest of a body around the buffer, to its end. `None`: no more goes that way, for it is not long, or
    /// done, or the way is closed.
    fn poll_around(
        &mut self,
        cx: &mut Context<'_>,
        passing: &mut Passing<impl FnOnce(bool)>,
    ) -> Poll<Option<Forwarded>> {
        if passing.passage.is_none() {
            if passing.reframe != Reframe::Same || !is_long(&passing.scanner, &self.up.buffer) {
                return Poll::Ready(None);
            }
            if self.down.io.watch().is_err() {
                return Poll::Ready(Some(Forwarded::ClientGone));
            }
            passing.passage = Some(self.up.buffer.passage());
        }
        let (Some(from), Some(to)) = (self.up.io.plain(), self.down.io.plain()) else {
            return Poll::Ready(None);
        };
        while let Some(passage) = &mut passing.passage {
            let left = passing.scanner.remaining().unwrap_or_default();
            passing.blocked = passage.is_loaded();
            if left == 0 && !passing.blocked {
                break;
            }
            match ready!(passage.poll_step(cx, from, to, left)) {
                Step::Took(n) => {
                    self.up.received(n);
                    passing.scanner.skip(n as u64);
                    passing.note_last(self.still_since.is_none());
                }
                Step::Gave(n) => self.down.sent += n as u64,
                Step::Closed => passing.passage = None,
                Step::ToBroke(_) => return Poll::Ready(Some(Forwarded::ClientGone)),
                Step::FromEnded(error) => {
                    let why = match error {
                        Some(error) => error.to_string(),
                        None => BodyError::Truncated.to_string(),
                    };
                    return Poll::Ready(Some(Forwarded::UpstreamBroke(why)));
                }
            }
            self.moved = true;
        }
        Poll::Ready(None)
    }

    fn scan_down(&mut self, passing: &mut Passing<impl FnOnce(bool)>) -> Result<(), BodyError> {
        let Passing {
            scanner,
            scanned,
            reframe,
            ..
        } = passing;
        while !scanner.is_done() && *scanned < self.up.buffer.len() {
            let rest = &self.up.buffer.bytes()[*scanned..];
            let out = &mut self.down.out;
            let wrapper = &mut self.wrapper;
            let part = match reframe {
                Reframe::Same => scanner.scan(rest)?,
                Reframe::Unchunk => scanner.data(rest, |data| out.extend_from_slice(data))?,
                Reframe::Chunk => scanner.data(rest, |data| write_chunk(out, data))?,
                Reframe::Wrap => scanner.data(rest, |data| {
                    if let Some(wrapper) = wrapper {
                        wrapper.data(data, out);
                    }
                })?,
            };
            match reframe {
                Reframe::Same => *scanned += part.consumed,
                _ => self.up.buffer.consume(part.consumed),
            }
            if part.consumed == 0 {
                break;
            }
            if let Some(wrapper) = &mut self.wrapper {
                wrapper.flush(&mut self.down.out);
            }
        }
        Ok(())
    }
}

/// Whether what is left of a body is worth a way around the buffer, which has nothing of it.
fn is_long(scanner: &BodyScanner, buffer: &Buffer) -> bool {
    buffer.is_empty() && scanner.remaining().is_some_and(|left| left >= LONG)
}

/// After a response that came before its request's end: reads the rest away, a little of it. True when the request is
/// whole and the connection can go on.
pub(crate) async fn drain(down: &mut Downstream, body: &mut RequestBody) -> bool {
    let mut left = DRAIN_BYTES;
    down.timer.arm_in(DRAIN_TIME);
    let whole = poll_fn(|cx| {
        loop {
            if body.scan(&down.buffer).is_err() {
                return Poll::Ready(false);
            }
            left = left.saturating_sub(body.scanned);
            body.finish(&mut down.buffer);
            if body.is_complete() {
                return Poll::Ready(true);
            }
            if left == 0 || down.half_closed || down.timer.poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            match ready!(down.poll_fill(cx, BLOCK_MAX)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(false),
            }
        }
    })
    .await;
    down.timer.disarm();
    whole
}
