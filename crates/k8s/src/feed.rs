//! Keeps the view up to date with one kind of object: a list, then watches from its version on, for ever.
//!
//! Errors never delete. Whatever goes wrong, what is held stays until a new list is whole; a watch that breaks goes on
//! from the last version seen, and only a version that the API server has forgotten (410) asks for a new list.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::api::{Api, ApiError, WatchEvent};
use crate::backoff::{Backoff, between};
use crate::objects::{Key, Wire};
use crate::status::{Record, Status};
use crate::table::{Event, Scope};
use crate::view::{View, Viewed};

/// All waits of the watches; [`Default`] is what production uses.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long an answer, or the next piece of a list, may take.
    pub patience: Duration,
    /// The first wait after a failure; doubled up to `retry_most`, with jitter.
    pub retry_first: Duration,
    /// The longest wait after a failure. Short, since routers are to be right within 5 s of the API server's return.
    pub retry_most: Duration,
    /// The wait after a refusal for want of permissions.
    pub retry_forbidden: Duration,
    /// The least time from one whole list to the next: with 410 on every watch, lists are all that is left, and they
    /// are dear.
    pub relist: Duration,
    /// How long the API server is asked to keep a watch open, at most; below the 5 minutes after which many balancers
    /// cut it.
    pub watch: Duration,
    /// How long a watch may be silent before it is opened anew. API servers send a bookmark about once a minute; a
    /// watch that goes on costs them one cheap request, and a connection that died without a word is noticed.
    pub silence: Duration,
    /// The time between comparisons of what is held with a fresh list.
    pub audit: Duration,
    /// How long events up to that list may still be under way.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            retry_first: Duration::from_millis(50),
            retry_most: Duration::from_secs(4),
            retry_forbidden: Duration::from_secs(5),
            relist: Duration::from_secs(10),
            watch: Duration::from_secs(290),
            silence: Duration::from_secs(45),
            audit: Duration::from_secs(300),
            settle: Duration::from_secs(5),
        }
    }
}

/// Why a watch ended.
enum End {
    /// The API server ended it, as it may at any time.
    Closed,
    /// Nothing came; nobody knows why.
    Silent,
    /// A comparison with a fresh list found differences.
    Wrong,
    /// Something failed.
    Failed(ApiError),
}

/// One list and watch. See the module.
pub(crate) struct Feed {
    pub(crate) api: Api,
    pub(crate) view: Arc<View>,
    pub(crate) scope: Scope,
    pub(crate) timing: Timing,
    pub(crate) status: Arc<Status>,
    /// Whether the API server refuses the list.
    pub(crate) forbidden: watch::Sender<bool>,
}

impl Feed {
    /// Runs for ever; returns only when the API server has no such kind of object (404 to the very first list).
    pub(crate) async fn run<W: Wire<Value: Viewed>>(&self) -> ApiError {
        let mut backoff = Backoff::new(self.timing.retry_first, self.timing.retry_most);
        let mut version = None;
        let mut next_list = Instant::now();
        let mut refusals = 0;
        loop {
            let Some(from) = version.clone() else {
                sleep_until(next_list).await;
                match self.list::<W>().await {
                    Ok(fresh) => {
                        version = Some(fresh);
                        next_list = Instant::now()
                            + between(self.timing.relist, self.timing.relist * 5 / 4);
                        refusals = 0;
                        backoff.reset();
                    }
                    Err(error) if error.missing() && self.status.record().lists == 0 => {
                        return error;
                    }
                    Err(error) => sleep(self.note(error, &mut backoff)).await,
                }
                continue;
            };
            let opened = Instant::now();
            let (end, reached) = self.watch::<W>(&from).await;
            let lively = reached != from || opened.elapsed() > self.timing.retry_most;
            if lively {
                backoff.reset();
                refusals = 0;
            }
            version = Some(reached);
            match end {
                End::Closed => sleep(backoff.wait()).await,
                End::Silent => self.status.change(|record| record.silences += 1),
                End::Wrong => {
                    version = None;
                    // The differences are known: no reason to wait.
                    next_list = Instant::now();
                }
                End::Failed(error) => {
                    refusals += u32::from(matches!(error, ApiError::Status { .. }));
                    // A version that is refused again and again for whatever reason is of no more use, and without the
                    // permission to watch, lists are what is left.
                    if error.gone() || error.forbidden() || refusals >= 5 {
                        version = None;
                    }
                    let wait = self.note(error, &mut backoff);
                    sleep(wait).await;
                }
            }
        }
    }

    /// Remembers and logs a failure; how long to wait now.
    fn note(&self, error: ApiError, backoff: &mut Backoff) -> Duration {
        let wait = match error.forbidden() {
            true => between(self.timing.retry_forbidden / 2, self.timing.retry_forbidden),
            false => backoff.wait(),
        };
        let (resource, scope) = (self.status.resource.plural, &self.scope);
        let retry_in_ms = wait.as_millis();
        // Each failure is counted; the log has the first of a row.
        let known = self
            .status
            .record()
            .error
            .is_some_and(|before| same_kind(&before, &error));
        match known {
            true => debug!(resource, %scope, %error, retry_in_ms, "watch still lost"),
            false => {
                warn!(resource, %scope, %error, retry_in_ms, "watch lost, serving the last endpoints");
            }
        }
        self.status.failed(error);
        wait
    }

    /// Fetches a whole list and puts it in place; its version.
    async fn list<W: Wire<Value: Viewed>>(&self) -> Result<String, ApiError> {
        let list = self.api.list::<W>(&self.scope).await;
        self.forbidden.send_if_modified(|forbidden| {
            let now = list.as_ref().is_err_and(ApiError::forbidden);
            std::mem::replace(forbidden, now) != now
        });
        let list = list?;
        let (resource, scope, objects) =
            (self.status.resource.plural, &self.scope, list.items.len());
        let items = list.items.into_iter().map(Event::InitApply);
        self.view.apply(
            &self.scope,
            std::iter::once(Event::Init)
                .chain(items)
                .chain([Event::InitDone]),
        );
        self.status.listed(&list.version);
        info!(resource, %scope, objects, version = list.version, "listed");
        Ok(list.version)
    }

    /// Follows one watch from `version` on to its end; the version it reached.
    async fn watch<W: Wire<Value: Viewed>>(&self, version: &str) -> (End, String) {
        let mut reached = version.to_owned();
        let limit = between(self.timing.watch * 2 / 3, self.timing.watch);
        let mut stream = match self.api.watch::<W>(&self.scope, version, limit).await {
            Ok(stream) => stream,
            Err(error) => return (End::Failed(error), reached),
        };
        self.status.opened();
        let silence = between(self.timing.silence * 9 / 10, self.timing.silence);
        let mut deadline = Instant::now() + silence;
        let mut audit = Box::pin(self.audit::<W>());
        loop {
            let event = tokio::select! {
                event = stream.next::<W>() => event,
                () = sleep_until(deadline) => return (End::Silent, reached),
                list = &mut audit => {
                    if self.compare::<W>(&list) > 0 {
                        return (End::Wrong, reached);
                    }
                    audit.set(self.audit::<W>());
                    continue;
                }
            };
            deadline = Instant::now() + silence;
            let (change, at) = match event {
                Ok(Some(WatchEvent::Apply(object, at))) => (Some(Event::Apply(object)), at),
                Ok(Some(WatchEvent::Delete(key, at))) => {
                    let version = at.parse().unwrap_or(0);
                    (Some(Event::Delete(key, version)), at)
                }
                Ok(Some(WatchEvent::Bookmark(at))) => (None, at),
                Ok(None) => return (End::Closed, reached),
                Err(error) => return (End::Failed(error), reached),
            };
            self.status.event(&at, change.is_some());
            self.view.apply(&self.scope, change);
            reached = later(reached, at);
        }
    }

    /// The next comparison: some time after the last one, or after the last list.
    fn audit<W: Wire>(&self) -> impl Future<Output = (HashMap<Key, u64>, u64)> + Send + use<W> {
        let record = self.status.record();
        let last = record
            .last_audit
            .max(record.last_list)
            .unwrap_or_else(Instant::now);
        let due = last + between(self.timing.audit * 9 / 10, self.timing.audit * 11 / 10);
        audit::<W>(self.api.clone(), self.scope.clone(), self.timing, due)
    }

    /// How much differs from a fresh list, once what was under way has come.
    fn compare<W: Wire<Value: Viewed>>(&self, (list, at): &(HashMap<Key, u64>, u64)) -> usize {
        let wrong = self.view.differences::<W::Value>(&self.scope, list, *at);
        self.status.change(|record: &mut Record| {
            record.audits += 1;
            record.last_audit = Some(Instant::now());
            record.repairs += wrong.len() as u64;
        });
        if let Some(first) = wrong.first() {
            let (resource, scope, objects) =
                (self.status.resource.plural, &self.scope, wrong.len());
            warn!(resource, %scope, objects, %first, "the watch missed changes, listing again");
        }
        wrong.len()
    }
}

/// Whether two failures in a row are worth one line in the log.
fn same_kind(a: &ApiError, b: &ApiError) -> bool {
    match (a, b) {
        (ApiError::Status { code: a, .. }, ApiError::Status { code: b, .. }) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// The later of two versions; the new one when they are no numbers. An event that comes late must not turn back the
/// version from which the next watch goes on.
fn later(held: String, new: String) -> String {
    match (held.parse::<u64>(), new.parse::<u64>()) {
        (Ok(a), Ok(b)) if b < a => held,
        _ => new,
    }
}

/// Waits until `due`, fetches a fresh list of names and versions, and lets what is under way arrive.
async fn audit<W: Wire>(
    api: Api,
    scope: Scope,
    timing: Timing,
    due: Instant,
) -> (HashMap<Key, u64>, u64) {
    sleep_until(due).await;
    loop {
        // The watch itself tells when the API server is away.
        if let Ok(list) = api.list_versions::<W>(&scope).await {
            sleep(timing.settle).await;
            return list.by_key();
        }
        sleep(between(timing.audit / 5, timing.audit / 4)).await;
    }
}
