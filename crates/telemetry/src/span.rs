//! Finished spans and their way out: a data thread pushes a plain [`SpanRecord`] into a bounded queue ([`Recorder`]), a task of the
//! control runtime hands them to [`Sink`]s.
//!
//! Each router makes one SERVER span for a request and one CLIENT span for each attempt; all ids differ. The SERVER span is the
//! child of the context that came in, the CLIENT span the child of the SERVER span, and the CLIENT span's context is what is sent
//! on. So two routers give four spans in a line: caller → SERVER → CLIENT → SERVER → CLIENT.
//!
//! A full queue drops and counts. Nothing here makes a data thread wait, whatever the collector does.

use std::borrow::Cow;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::cells::Counter;
use crate::code::Code;
use crate::metrics::{Collector, Source};
use crate::trace::TraceContext;

mod export;
mod recent;
mod scribe;
mod tracelog;
mod zipkin;

pub use export::{Exporter, ExporterConfig, SetupError, Transport};
pub use recent::{Recent, RecentRequest};
pub use tracelog::TraceLog;

/// Takes finished spans on the control runtime. Must not wait: who sends them somewhere has a queue and a task of its own.
pub trait Sink: Send + Sync {
    /// A span of a sampled request has ended.
    fn offer(&self, span: &Arc<SpanRecord>);
}

/// Between two looks into the queue while spans come in.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Hands spans to all sinks until every [`Recorder`] is gone. To be spawned once on the control runtime.
pub async fn deliver(spans: mpsc::Receiver<SpanRecord>, sinks: Vec<Box<dyn Sink>>) {
    deliver_until(spans, sinks, pending()).await;
}

/// The same until `end`, which may come before the last [`Recorder`] goes: what is in the queue then is still handed on,
/// what comes later is dropped and counted.
pub async fn deliver_until(
    mut spans: mpsc::Receiver<SpanRecord>,
    sinks: Vec<Box<dyn Sink>>,
    end: impl Future<Output = ()>,
) {
    let mut end = pin!(end);
    let offer = |span| {
        let span = Arc::new(span);
        for sink in &sinks {
            sink.offer(&span);
        }
    };
    loop {
        let first = tokio::select! {
            first = spans.recv() => first,
            () = &mut end, if !spans.is_closed() => {
                spans.close();
                continue;
            }
        };
        let Some(first) = first else { return };
        offer(first);
        // To wake a waiting task costs the data thread a system call. So nobody waits while spans come in.
        let mut busy = true;
        while busy && !spans.is_closed() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = &mut end => spans.close(),
            }
            busy = false;
            while let Ok(span) = spans.try_recv() {
                offer(span);
                busy = true;
            }
        }
    }
}

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
    /// Who says so: the router's label on the server's side, [`client_service`] on the client's.
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

/// The service that a client span is reported for, given the router's label and the bound id.
///
/// As Linkerd it is the destination: collectors then show applications that report no spans themselves, and draw an edge from an
/// application to what it calls. Two things differ from Linkerd, whose dependency graph falls to pieces by them: transformers are left out, as
/// they would make one service of each node; and a span to another router is this router's own, since that router reports the rest.
pub fn client_service<'a>(label: &'a str, bound_id: &'a str) -> &'a str {
    let id = bound_id.trim_start_matches('/');
    match id.contains(GATEWAY) {
        true => label,
        false => crate::metrics::bare(id),
    }
}

/// The transformer that sends requests to the router on the endpoint's node.
const GATEWAY: &str = "io.l5d.k8s.daemonset/";

impl SpanRecord {
    /// The value of a tag.
    pub fn tag(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|(key, _)| key == name);
        tag.map(|(_, value)| value.as_ref())
    }

    /// What stands under `error`, by which collectors mark failed spans: the code's text, unless there is such a tag already.
    fn error_tag(&self) -> Option<&'static str> {
        let code = self.error.filter(|_| self.tag("error").is_none());
        code.map(Code::as_str)
    }
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

/// What became of spans; to be registered as a source of metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Taken from data threads.
    pub recorded: Counter,
    /// Accepted by a collector.
    pub sent: Counter,
    /// Dropped, because a queue was full or a collector did not take them.
    pub dropped: Counter,
}

impl Source for Counts {
    fn collect(&self, out: &mut Collector<'_>) {
        for (result, counter) in [
            ("recorded", &self.recorded),
            ("sent", &self.sent),
            ("dropped", &self.dropped),
        ] {
            out.ours("rutter_spans_total", &[("result", result)], counter.get());
        }
    }
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
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

#[cfg(test)]
mod tests;
