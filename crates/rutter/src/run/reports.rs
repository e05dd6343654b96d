//! What tells about requests: metrics, spans and where they go.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use router::Reporting;
use telemetry::metrics::linkerd::push_statsd;
use telemetry::metrics::{Registration, Registry, Scope};
use telemetry::span::{Exporter, ExporterConfig, Recent, Recorder, Sink, TraceLog, deliver_until};
use telemetry::trace::{Sampler, Sampling};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Identity;
use crate::config::settings::{Config, TelemeterSettings};

/// Finished spans that wait to be given out, before they are dropped and counted.
const QUEUE: usize = 10_000;
/// At the end the last spans have this long to get to a collector: a dead one does not hold up the exit.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// Requests on the page `/requests` when no telemeter says how many.
const RECENT: usize = 100;

/// Everything that is started once per node.
pub(super) struct Reports {
    pub(super) reporting: Reporting,
    pub(super) recent: Recent,
    /// Share of requests that `/requests` shows, and how many it keeps.
    pub(super) recent_rate: f64,
    pub(super) recent_capacity: usize,
    /// Linkerd's Prometheus pages: path and prefix.
    pub(super) prometheus: Vec<(Arc<str>, Arc<str>)>,
    /// Whether there is a page for InfluxDB.
    pub(super) influxdb: bool,
    /// Tells the tasks below that what is recorded from now on is not wanted any more.
    ended: CancellationToken,
    /// Everything between a data thread and a collector, in this order.
    tasks: Vec<JoinHandle<()>>,
    _registration: Registration,
}

impl Reports {
    pub(super) fn start(
        config: &Config,
        identity: &Identity,
        registry: &Registry,
        control: &Handle,
    ) -> anyhow::Result<Self> {
        let salt = fastrand_salt();
        let (recorder, spans) = Recorder::new(QUEUE);
        let mut sampling = Sampling {
            tracers: Vec::new(),
            salt,
        };
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let mut exporters = Vec::new();
        let (mut recent_rate, mut recent_capacity) = (0.0, RECENT);
        let (mut prometheus, mut influxdb) = (Vec::new(), false);
        let ended = CancellationToken::new();
        for telemeter in &config.telemetry {
            match telemeter {
                TelemeterSettings::Prometheus { path, prefix } => {
                    prometheus.push((path.clone(), prefix.clone()));
                }
                TelemeterSettings::Influxdb => influxdb = true,
                TelemeterSettings::Statsd(statsd) => {
                    let end = ended.clone().cancelled_owned();
                    let push = push_statsd(registry.clone(), statsd.clone(), end);
                    exporters.push(control.spawn(push));
                }
                TelemeterSettings::Tracelog { sample_rate, level } => {
                    sinks.push(Box::new(TraceLog(*level)));
                    sampling.tracers.push(Sampler::new(*sample_rate, salt));
                }
                TelemeterSettings::Zipkin {
                    host,
                    port,
                    sample_rate,
                    transport,
                    path,
                } => {
                    let exporter = ExporterConfig {
                        host: host.to_string(),
                        port: *port,
                        transport: *transport,
                        path: path.as_deref().map(str::to_owned),
                        queue: QUEUE,
                    };
                    let counts = recorder.counts().clone();
                    let (exporter, task) = Exporter::spawn(&exporter, counts, control)
                        .with_context(|| {
                            format!("telemeter io.l5d.zipkin to {host}:{port} cannot be set up")
                        })?;
                    sinks.push(Box::new(exporter));
                    exporters.push(task);
                    sampling.tracers.push(Sampler::new(*sample_rate, salt));
                }
                TelemeterSettings::RecentRequests {
                    sample_rate,
                    capacity,
                } => {
                    recent_rate = *sample_rate;
                    recent_capacity = *capacity;
                    sampling.tracers.push(Sampler::new(*sample_rate, salt));
                }
            }
        }
        let recent = Recent::new(recent_capacity);
        sinks.push(Box::new(recent.clone()));
        let delivery = deliver_until(spans, sinks, ended.clone().cancelled_owned());
        let tasks = std::iter::once(control.spawn(delivery)).chain(exporters);
        let registration = registry.register(Scope::new(["spans"]), recorder.counts().clone());
        let reporting = Reporting {
            registry: registry.clone(),
            recorder,
            sampling,
            node: identity.node.as_str().into(),
        };
        Ok(Self {
            reporting,
            recent,
            recent_rate,
            recent_capacity,
            prometheus,
            influxdb,
            ended,
            tasks: tasks.collect(),
            _registration: registration,
        })
    }

    /// Sends what was recorded so far and waits for that, within limits. What is recorded later is dropped and counted.
    pub(super) async fn finish(&mut self) {
        self.ended.cancel();
        let all = async {
            for task in &mut self.tasks {
                // A task that panicked has said so.
                _ = task.await;
            }
        };
        if tokio::time::timeout(LAST_SPANS, all).await.is_err() {
            tracing::warn!(limit = ?LAST_SPANS, "the collectors did not take the last spans and metrics in time, they are lost");
        }
        self.tasks.clear();
    }
}

/// Differs from process to process, so that not all of them sample the same traces.
fn fastrand_salt() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher is seeded at random.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
