//! Metrics of the control plane, through the `metrics` crate: `metrics::counter!("rutter_config_reloads_total", "result" => "ok")`.
//!
//! Not for the request path. The recorder is installed once a process; what it holds is put at the end of our `/metrics`.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Between two clean-ups; without them the samples of histograms pile up until something scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The bucket limits of the control plane's histograms, in seconds.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Another recorder for the `metrics` crate is installed in this process already.
#[derive(Debug, thiserror::Error)]
#[error("the control plane's metrics could not be set up: {0}")]
pub struct InstallError(String);

/// Makes `metrics::…!` count here, and describes the families in [`FAMILIES`](super::ours::FAMILIES) that come from there. Doing it again is
/// no error.
pub fn install() -> Result<(), InstallError> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let builder = PrometheusBuilder::new().set_buckets(&SECONDS);
    let recorder = builder
        .map_err(|e| InstallError(e.to_string()))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| InstallError(e.to_string()))?;
    for family in super::ours::FAMILIES.iter().filter(|f| f.control) {
        match family.kind {
            super::ours::Kind::Counter => metrics::describe_counter!(family.name, family.help),
            super::ours::Kind::Gauge => metrics::describe_gauge!(family.name, family.help),
            super::ours::Kind::Histogram => metrics::describe_histogram!(family.name, family.help),
        }
    }
    HANDLE.get_or_init(|| handle);
    Ok(())
}

/// Cleans up at intervals, forever. To be spawned once on the control runtime.
pub async fn run_upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}

/// The page of the control plane's metrics; empty before [`install`].
pub(super) fn render() -> String {
    HANDLE
        .get()
        .map(PrometheusHandle::render)
        .unwrap_or_default()
}
