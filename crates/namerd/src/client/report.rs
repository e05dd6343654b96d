//! What a router tells its store: which names it has requests for, and the version that it routes with.
//!
//! A report goes out every ten seconds, and at once when names are routed with another version. A store that does not take
//! reports, as Linkerd's, is asked again after some minutes only; nothing of it ever touches a request.

use std::sync::Arc;
use std::time::Duration;

use naming::interpreter::Routed;
use naming::{Reads, Var};
use tracing::debug;

use super::ClientConfig;
use super::http::Api;
use crate::change::live::Report;

/// Between two reports.
const INTERVAL: Duration = Duration::from_secs(10);
/// A burst of names that are bound anew is one report.
const BURST: Duration = Duration::from_millis(20);
/// After a store that takes no reports.
const PAUSE: Duration = Duration::from_secs(300);

/// What reports are made of.
pub struct Reporter {
    /// Where the store is.
    pub store: ClientConfig,
    /// What the router is called there: the same after a restart, and no other router's.
    pub id: String,
    /// All that does not change.
    pub base: Report,
    /// Fills in names and clients; asked once an interval.
    pub figures: Box<dyn FnMut(&mut Report) + Send + Sync>,
    /// With which version names are routed; none when the router is gone.
    pub routed: Arc<dyn Fn() -> Option<Routed> + Send + Sync>,
    /// Changes when [`Reporter::routed`] may have.
    pub changes: Var<u64>,
}

impl Reporter {
    /// Reports until the router is gone.
    pub async fn run(mut self) {
        let api = Api::new(Arc::new(self.store.clone()));
        let mut next = tokio::time::Instant::now();
        let mut told = None;
        loop {
            let now = tokio::time::Instant::now();
            let mut reads = Reads::new();
            _ = self.changes.read(&mut reads);
            let Some(routed) = (self.routed)() else {
                return;
            };
            let due = now >= next;
            if due {
                (self.figures)(&mut self.base);
                next = now + INTERVAL;
            }
            if due || told != Some(routed) {
                let report = Report {
                    number: routed.number,
                    versions: routed.tells,
                    interval: INTERVAL.as_secs_f64(),
                    ..self.base.clone()
                };
                match self.send(&api, &report).await {
                    Ok(()) => told = Some(routed),
                    Err((why, for_good)) => {
                        debug!(store = %self.store, error = why, "a report was not taken");
                        let pause = if for_good { PAUSE } else { INTERVAL };
                        tokio::time::sleep(pause).await;
                        next = tokio::time::Instant::now();
                        continue;
                    }
                }
            }
            tokio::select! {
                () = reads.changed() => tokio::time::sleep(BURST).await,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// An error says whether asking again soon makes no sense.
    async fn send(&self, api: &Api, report: &Report) -> Result<(), (String, bool)> {
        let body = serde_json::to_string(report).map_err(|error| (error.to_string(), true))?;
        let target = format!("/api/rutter/1/routers/{}", crate::api::encoded(&self.id));
        let status = api.post(&target, body).await.map_err(|why| (why, false))?;
        match status.is_success() {
            true => Ok(()),
            false => Err((
                format!("the store answers {status}"),
                status.is_client_error(),
            )),
        }
    }
}
