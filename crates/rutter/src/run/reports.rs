//! What tells about requests: metrics, spans and where they go.

use std::sync::Arc;

use anyhow::Context as _;
use router::Reporting;
use telemetry::metrics::{Registration, Registry, Scope};
use telemetry::span::{Exporter, ExporterConfig, Recent, Recorder, Sink, deliver};
use telemetry::trace::{Sampler, Sampling};
use tokio::runtime::Handle;

use super::Identity;
use crate::config::settings::{Config, TelemeterSettings};

/// Finished spans that wait to be given out, before they are dropped and counted.
const QUEUE: usize = 10_000;
/// Requests on the page `/requests` when no telemeter says how many.
const RECENT: usize = 100;

/// Everything that is started once per node.
pub(super) struct Reports {
    pub(super) reporting: Reporting,
    pub(super) registry: Registry,
    pub(super) recent: Recent,
    /// Share of requests that `/requests` shows, and how many it keeps.
    pub(super) recent_rate: f64,
    pub(super) recent_capacity: usize,
    /// Linkerd's Prometheus pages: path and prefix.
    pub(super) prometheus: Vec<(Arc<str>, Arc<str>)>,
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
        let (mut recent_rate, mut recent_capacity) = (0.0, RECENT);
        let mut prometheus = Vec::new();
        for telemeter in &config.telemetry {
            match telemeter {
                TelemeterSettings::Prometheus { path, prefix } => {
                    prometheus.push((path.clone(), prefix.clone()));
                }
                TelemeterSettings::Zipkin {
                    host,
                    port,
                    sample_rate,
                } => {
                    let exporter = ExporterConfig {
                        host: host.to_string(),
                        port: *port,
                        transport: None,
                        path: None,
                        queue: QUEUE,
                    };
                    let counts = recorder.counts().clone();
                    let (exporter, _task) = Exporter::spawn(&exporter, counts, control)
                        .with_context(|| {
                            format!("telemeter io.l5d.zipkin to {host}:{port} cannot be set up")
                        })?;
                    sinks.push(Box::new(exporter));
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
        control.spawn(deliver(spans, sinks));
        control.spawn(registry.clone().summarise_forever());
        let registration = registry.register(Scope::new(["spans"]), recorder.counts().clone());
        let reporting = Reporting {
            registry: registry.clone(),
            recorder,
            sampling,
            node: identity.node.as_str().into(),
        };
        Ok(Self {
            reporting,
            registry: registry.clone(),
            recent,
            recent_rate,
            recent_capacity,
            prometheus,
            _registration: registration,
        })
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
