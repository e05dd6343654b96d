//! Finished spans and their way out: a data thread pushes a plain [`SpanRecord`] into a bounded queue ([`Recorder`]), a task of the
//! control runtime hands them to [`Sink`]s.
//!
//! Each router makes one SERVER span for a request and one CLIENT span for each attempt; all ids differ. The SERVER span is the
//! child of the context that came in, the CLIENT span the child of the SERVER span, and the CLIENT span's context is what is sent
//! on. So two routers give four spans in a line: caller → SERVER → CLIENT → SERVER → CLIENT.
//!
//! A full queue drops and counts. Nothing here makes a data thread wait, whatever the collector does.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::cells::Counter;
use crate::code::Code;
use crate::trace::TraceContext;

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request received.
    Server,
    /// An attempt sent.
    Client,
}

/// A finished span, as plain data.
#[derive(Debug, Clone)]
pub struct SpanRecord {
    /// Its ids and flags.
    pub context: TraceContext,
    /// Which side of the call.
    pub kind: Kind,
    /// What was called. As Linkerd: `<router label> <path>` on the server's side, `<METHOD> <path>` on the client's.
    pub name: Box<str>,
    /// Who says so. As Linkerd: the router's label on the server's side, the bound id on the client's.
    pub service: Arc<str>,
    /// The start, in µs since 1970.
    pub start_us: u64,
    /// The length, in µs.
    pub duration_us: u64,
    /// Our end of the connection.
    pub local: Option<SocketAddr>,
    /// The other end: the client of a server span, the endpoint of a client span.
    pub remote: Option<SocketAddr>,
    /// `http.uri`, `service`, `router.label` and so on, by linkerd1.md's names.
    pub tags: Vec<(Cow<'static, str>, Box<str>)>,
    /// What happened when, in µs since 1970.
    pub annotations: Vec<(u64, Cow<'static, str>)>,
    /// The code of the error it ended with, if rutter made one.
    pub error: Option<Code>,
}

/// Now, in µs since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_micros() as u64)
}

/// A data thread's end of the queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: Option<mpsc::Sender<SpanRecord>>,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// Given to the sinks.
    pub recorded: Counter,
    /// Dropped because the queue was full.
    pub dropped: Counter,
}

impl Recorder {
    /// A queue of at most `capacity` spans and its other end.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<SpanRecord>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let recorder = Self {
            queue: Some(sender),
            counts: Arc::default(),
        };
        (recorder, receiver)
    }

    /// A recorder for a configuration without tracers.
    pub fn none() -> Self {
        Self {
            queue: None,
            counts: Arc::default(),
        }
    }

    /// Whether anybody listens: without, records need not be made.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a span on, or drops and counts it when the queue is full. Never waits.
    pub fn record(&self, span: SpanRecord) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(span) {
            Ok(()) => self.counts.recorded.incr(),
            Err(_) => self.counts.dropped.incr(),
        }
    }

    /// What became of the spans so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
