//! Sending spans to a collector, in batches, from a task of its own.
//!
//! A collector that is dead, slow, hanging or renamed costs memory for one full queue and nothing else: what doesn't fit is dropped
//! and counted. Between tries only the newest spans go on waiting. Names are resolved anew for each connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Counts, Sink, SpanRecord, scribe, zipkin};

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Framed thrift, as Linkerd 1 sends them.
    Scribe,
    /// Zipkin's JSON of version 2.
    Http,
}

/// Where spans go: telemeter `io.l5d.zipkin`.
#[derive(Debug, Clone)]
pub struct ExporterConfig {
    /// The collector's name or address.
    pub host: String,
    /// Its port; Linkerd's default is 9410.
    pub port: u16,
    /// How; by default what [`Transport::of`] says.
    pub transport: Option<Transport>,
    /// The path for HTTP; by default `/api/v2/spans`.
    pub path: Option<String>,
    /// At most so many spans wait.
    pub queue: usize,
}

impl Transport {
    /// Zipkin's own port or a path mean HTTP, everything else scribe.
    pub fn of(port: u16, path: Option<&str>) -> Self {
        match port == 9411 || path.is_some() {
            true => Transport::Http,
            false => Transport::Scribe,
        }
    }
}

/// At most so many spans in a message.
const BATCH: usize = 100;

/// A span waits at most so long for others to travel with.
const LINGER: Duration = Duration::from_millis(500);

/// For a whole exchange with the collector, connecting included.
const SEND_LIMIT: Duration = Duration::from_secs(3);

/// Waits after failures, doubling from the first to the last; recovery is noticed within the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often it is looked during such a wait whether this is the end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// While the collector takes none, at most so many spans go on waiting, the newest; a whole queue of them would be 10 MiB.
const WAITING: usize = 1_000;

/// A batch that fails so often is dropped: it may be the batch's fault.
const TRIES: u32 = 5;

/// The configuration of an exporter makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{url} is no place to send spans to: {reason}")]
pub struct SetupError {
    pub(super) url: String,
    pub(super) reason: String,
}

/// The collector did not take a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// It may take it later.
    #[error("{0}")]
    Failed(String),
    /// It never will.
    #[error("{0}")]
    Refused(String),
}

/// One way to bring a batch to a collector.
pub(super) trait Carrier {
    /// One try. A connection that failed, or whose try was given up, is not used again.
    fn send(
        &mut self,
        spans: &[Arc<SpanRecord>],
    ) -> impl Future<Output = Result<(), SendError>> + Send;
}

/// The near end of an exporter's queue.
#[derive(Debug)]
pub struct Exporter {
    queue: mpsc::Sender<Arc<SpanRecord>>,
    counts: Arc<Counts>,
}

impl Exporter {
    /// Starts the task that sends. It ends, with a last try for what is waiting, once the exporter is dropped.
    pub fn spawn(
        config: &ExporterConfig,
        counts: Arc<Counts>,
        control: &Handle,
    ) -> Result<(Self, JoinHandle<()>), SetupError> {
        let (queue, spans) = mpsc::channel(config.queue.max(BATCH));
        let transport = config.transport;
        let transport = transport.unwrap_or(Transport::of(config.port, config.path.as_deref()));
        let task = match transport {
            Transport::Scribe => {
                let sender = scribe::Scribe::new(&config.host, config.port);
                control.spawn(run(spans, sender, counts.clone()))
            }
            Transport::Http => {
                let path = config.path.as_deref();
                let sender = zipkin::Zipkin::new(&config.host, config.port, path)?;
                control.spawn(run(spans, sender, counts.clone()))
            }
        };
        Ok((Self { queue, counts }, task))
    }
}

impl Sink for Exporter {
    fn offer(&self, span: &Arc<SpanRecord>) {
        if self.queue.try_send(span.clone()).is_err() {
            self.counts.dropped.incr();
        }
    }
}

/// Sends batches until the queue is closed and empty.
async fn run(
    mut spans: mpsc::Receiver<Arc<SpanRecord>>,
    mut sender: impl Carrier,
    counts: Arc<Counts>,
) {
    let mut health = Health::default();
    let mut batch = Vec::with_capacity(BATCH);
    while fill(&mut spans, &mut batch).await {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = timeout(SEND_LIMIT, sender.send(&batch)).await;
            let sent = sent.unwrap_or_else(|_| Err(SendError::Failed("no answer in time".into())));
            match sent {
                Ok(()) => {
                    health.good();
                    counts.sent.add(batch.len() as u64);
                    break;
                }
                Err(error) => {
                    let wait = health.bad(&error);
                    let refused = matches!(error, SendError::Refused(_));
                    // At the end one failure is enough: nobody is to wait for a dead collector.
                    let ending = spans.is_closed() && !refused;
                    if refused || ending || tries == TRIES {
                        counts.dropped.add(batch.len() as u64);
                        if ending {
                            counts.dropped.add(spans.len() as u64);
                            return;
                        }
                        break;
                    }
                    pause(wait, &mut spans, &counts).await;
                }
            }
        }
        batch.clear();
    }
}

/// Waits before the next try; not when this is the end, as there is little time left then.
async fn pause(wait: Duration, spans: &mut mpsc::Receiver<Arc<SpanRecord>>, counts: &Counts) {
    let until = Instant::now() + wait;
    while Instant::now() < until && !spans.is_closed() {
        while spans.len() > WAITING && spans.try_recv().is_ok() {
            counts.dropped.incr();
        }
        sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
    }
}

/// Waits for a first span and then a little for more; false when there are no more.
async fn fill(
    spans: &mut mpsc::Receiver<Arc<SpanRecord>>,
    batch: &mut Vec<Arc<SpanRecord>>,
) -> bool {
    if spans.recv_many(batch, BATCH).await == 0 {
        return false;
    }
    let until = Instant::now() + LINGER;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        match timeout_at(until, spans.recv_many(batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    true
}

/// Whether the collector takes spans, said in the log when that changes, and how long to wait otherwise.
#[derive(Default)]
struct Health {
    failures: u32,
}

impl Health {
    fn good(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "the span collector answers again");
        }
        self.failures = 0;
    }

    fn bad(&mut self, error: &SendError) -> Duration {
        if self.failures == 0 {
            tracing::warn!(%error, "the span collector does not take spans, they are dropped and counted");
        }
        let wait = BACKOFF.0.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let jitter = 0.75 + 0.5 * fastrand::f64();
        wait.min(BACKOFF.1).mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests;
