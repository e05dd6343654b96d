//! What a router tells its store: which names it has requests for, and the version that it routes with.
//!
//! A report is made every ten seconds, and at once when names are routed with another version. Each replica of the store gets
//! each of them, by a task of its own: whichever is asked what a change would do, or whether it is in force, knows all
//! routers, and one that is slow or away delays none of the others. A store that does not take reports, as Linkerd's, is asked
//! again after some minutes only; nothing of it ever touches a request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use naming::interpreter::Routed;
use naming::{Addr, Addrs, Reads, Var};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::debug;

use super::ClientConfig;
use super::follow::backoff;
use super::http::Api;
use super::store::{Secure, Way};
use crate::change::live::Report;

/// Between two reports.
const INTERVAL: Duration = Duration::from_secs(10);
/// A burst of names that are bound anew is one report.
const BURST: Duration = Duration::from_millis(20);
/// After a store that takes no reports.
const PAUSE: Duration = Duration::from_secs(300);

/// What reports are made of.
pub struct Reporter {
    /// The store, how it is asked, and TLS towards it.
    pub store: (ClientConfig, Option<Arc<dyn Secure>>),
    /// Where its replicas are.
    pub replicas: Arc<dyn Addrs>,
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
        let (config, secure) = self.store.clone();
        let way = Way {
            config: Arc::new(config),
            secure,
        };
        let mut replicas = Replicas::new(way, &self.id);
        let mut next = tokio::time::Instant::now();
        let mut told = None;
        loop {
            let now = tokio::time::Instant::now();
            let mut reads = Reads::new();
            _ = self.changes.read(&mut reads);
            match self.replicas.addr(&mut reads) {
                Addr::Bound(endpoints) => {
                    replicas.keep(&endpoints.iter().map(|one| one.addr).collect::<Vec<_>>());
                }
                nowhere => {
                    debug!(store = %self.store.0, state = ?nowhere, "no address to report to");
                }
            }
            let Some(routed) = (self.routed)() else {
                return;
            };
            let due = now >= next;
            if due {
                (self.figures)(&mut self.base);
                next = now + INTERVAL;
            }
            if due || told != Some(routed) {
                replicas.tell(&Report {
                    number: routed.number,
                    versions: routed.tells,
                    interval: INTERVAL.as_secs_f64(),
                    ..self.base.clone()
                });
                told = Some(routed);
            }
            tokio::select! {
                () = reads.changed() => tokio::time::sleep(BURST).await,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }
}

/// The newest report as it is sent; nothing yet.
type Newest = Option<Arc<str>>;

/// Those that are told, each by its own task.
struct Replicas {
    way: Way,
    target: Arc<str>,
    newest: watch::Sender<Newest>,
    told: HashMap<SocketAddr, Telling>,
}

/// Ends with its owner.
struct Telling(AbortHandle);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Replicas {
    fn new(way: Way, id: &str) -> Self {
        Self {
            way,
            target: format!("/api/rutter/1/routers/{}", crate::api::encoded(id)).into(),
            newest: watch::Sender::new(None),
            told: HashMap::new(),
        }
    }

    /// Lets go of all but these, and tells those that are new what was said last.
    fn keep(&mut self, replicas: &[SocketAddr]) {
        self.told.retain(|known, _| replicas.contains(known));
        for &replica in replicas {
            self.told.entry(replica).or_insert_with(|| {
                let api = Api::of(replica, self.way.clone());
                let (target, newest) = (self.target.clone(), self.newest.subscribe());
                let telling =
                    tokio::spawn(tell(api, replica, target, newest, self.way.config.retry));
                Telling(telling.abort_handle())
            });
        }
    }

    fn tell(&self, report: &Report) {
        match serde_json::to_string(report) {
            Ok(body) => _ = self.newest.send_replace(Some(body.into())),
            Err(error) => debug!(%error, "a report cannot be written"),
        }
    }
}

/// Tells one replica the newest report, whenever there is another one. What it missed meanwhile is not sent.
async fn tell(
    api: Api,
    replica: SocketAddr,
    target: Arc<str>,
    mut newest: watch::Receiver<Newest>,
    retry: (Duration, Duration),
) {
    let mut failures = 0;
    loop {
        let body = newest.borrow_and_update().clone();
        if let Some(body) = body
            && let Err((why, for_good)) = send(&api, &target, &body).await
        {
            debug!(%replica, error = why, "a report was not taken");
            let wait = match for_good {
                true => PAUSE,
                false => backoff(retry.0, retry.1.min(INTERVAL), failures),
            };
            failures = failures.saturating_add(1);
            tokio::time::sleep(wait).await;
            continue;
        }
        failures = 0;
        if newest.changed().await.is_err() {
            return;
        }
    }
}

/// An error says whether asking again soon makes no sense.
async fn send(api: &Api, target: &str, body: &str) -> Result<(), (String, bool)> {
    let status = api.post(target, body.to_owned()).await;
    let status = status.map_err(|why| (why, false))?;
    match status.is_success() {
        true => Ok(()),
        false => Err((
            format!("the store answers {status}"),
            status.is_client_error(),
        )),
    }
}

#[cfg(test)]
mod tests;
