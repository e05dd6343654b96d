//! Keeps the view up to date with one kind of object: a list, then watches from its version on, for ever.
//!
//! Errors never delete. Whatever goes wrong, what is held stays until a new list is whole; a watch that breaks goes on
//! from the last version seen, and only a version that the API server has forgotten (410) asks for a new list. A list
//! that lacks more than half of what is held is doubted: it adds at once, and removes when the next one agrees.
//!
//! Where the API server can do it, the list is the beginning of the watch: one request for both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use telemetry::code::Watching;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::api::{Api, ApiError, Watch, WatchEvent};
use crate::backoff::{Backoff, between};
use crate::objects::{Key, Object, Wire};
use crate::status::{Record, Status};
use crate::table::{Event, Scope};
use crate::view::{View, Viewed};

/// All waits of the watches; [`Default`] is what production uses.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long an answer, or the next piece of a list, may take.
    pub patience: Duration,
    /// How long a list that comes as a stream may take as a whole.
    pub stream: Duration,
    /// The first wait after a failure; doubled up to `retry_most`, with jitter.
    pub retry_first: Duration,
    /// The longest wait after a failure. Short, since routers are to be right within 5 s of the API server's return.
    pub retry_most: Duration,
    /// The wait after a refusal for want of permissions.
    pub retry_forbidden: Duration,
    /// The least time from one whole list to the next: with 410 on every watch, lists are all that is left, and they
    /// are dear. A list that is doubted is confirmed by another one after this time.
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
    /// The least time from one snapshot on disk to the next.
    pub save: Duration,
    /// The longest time until the next one, when nothing changes but the time of the last confirmation.
    pub save_anyway: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            stream: Duration::from_secs(120),
            retry_first: Duration::from_millis(50),
            retry_most: Duration::from_secs(4),
            retry_forbidden: Duration::from_secs(5),
            relist: Duration::from_secs(10),
            watch: Duration::from_secs(290),
            silence: Duration::from_secs(45),
            audit: Duration::from_secs(300),
            settle: Duration::from_secs(5),
            save: Duration::from_secs(10),
            save_anyway: Duration::from_secs(900),
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
    /// It is time for the list that confirms the one before, or doesn't.
    Doubtful,
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
    /// Whether the API server refuses the list, for want of permissions.
    pub(crate) forbidden: watch::Sender<bool>,
}

impl Feed {
    /// Runs for ever; returns only when the API server has no such kind of object (404 to the very first list).
    pub(crate) async fn run<W: Wire<Value: Viewed>>(&self) -> ApiError {
        let mut backoff = Backoff::new(self.timing.retry_first, self.timing.retry_most);
        let mut version = None;
        let mut next_list = Instant::now();
        let mut refusals = 0;
        let mut lists = Lists::default();
        loop {
            let Some(from) = version.clone() else {
                sleep_until(next_list).await;
                match self.begin::<W>(&mut lists).await {
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
            let confirm = lists.doubted.then_some(next_list);
            let (end, reached) = self.watch::<W>(&from, lists.open.take(), confirm).await;
            let lively = reached != from || opened.elapsed() > self.timing.retry_most;
            if lively {
                backoff.reset();
                refusals = 0;
            }
            version = Some(reached);
            match end {
                End::Closed => sleep(backoff.wait()).await,
                End::Silent => self.note_silence(),
                End::Doubtful => version = None,
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

    fn note_silence(&self) {
        let (resource, scope, code) = (
            self.status.resource.plural,
            &self.scope,
            Watching::K03.entry().code,
        );
        warn!(resource, %scope, code, "the watch was silent, opening it anew");
        self.status.change(|record| record.silences += 1);
    }

    /// Has a whole list and puts it in place; its version.
    async fn begin<W: Wire<Value: Viewed>>(&self, lists: &mut Lists) -> Result<String, ApiError> {
        if !std::mem::take(&mut lists.by_itself) && self.api.streams().await? {
            match self.stream::<W>().await {
                Ok((version, objects, watch)) => {
                    lists.failed = false;
                    self.allowed(true);
                    self.put(&version, objects, lists);
                    lists.open = Some(watch);
                    return Ok(version);
                }
                // Among them one whose store is too old for it: a failure inside.
                Err(error) if error.misunderstood() => self.api.stop_streaming(),
                Err(error) if error.passing() => {
                    // A list would fare no better, and cost the API server more when all come back at once. What
                    // fails again is asked the other way.
                    lists.by_itself = lists.failed;
                    lists.failed = !lists.failed;
                    return Err(error);
                }
                // The list itself says what is missing; and where watches are refused, lists are what is left.
                Err(ApiError::Status { .. }) => {}
                Err(error) => {
                    // Perhaps something on the way holds back streams.
                    lists.by_itself = true;
                    return Err(error);
                }
            }
        }
        let list = self.api.list::<W>(&self.scope).await;
        self.allowed(!list.as_ref().is_err_and(ApiError::forbidden));
        let list = list?;
        self.put(&list.version, list.items, lists);
        Ok(list.version)
    }

    fn allowed(&self, allowed: bool) {
        self.forbidden
            .send_if_modified(|forbidden| std::mem::replace(forbidden, !allowed) == allowed);
    }

    /// Opens a watch that begins with the list, and takes that.
    async fn stream<W: Wire>(&self) -> Result<(String, Vec<Object<W::Value>>, Watch), ApiError> {
        let end = Instant::now() + self.timing.stream;
        let limit = self.watch_limit();
        let mut watch = self.api.list_and_watch::<W>(&self.scope, limit).await?;
        let mut objects = Vec::new();
        loop {
            let until = end.min(Instant::now() + self.timing.patience);
            let late = |_| match Instant::now() < end {
                true => ApiError::Silent(self.timing.patience),
                false => ApiError::Slow(self.timing.stream),
            };
            match timeout_at(until, watch.next::<W>()).await.map_err(late)?? {
                Some(WatchEvent::Apply(object, _)) => objects.push(object),
                Some(WatchEvent::Delete(gone, _)) => objects.retain(|object| object.key != gone),
                Some(WatchEvent::Bookmark(_)) => {}
                Some(WatchEvent::Whole(version)) => return Ok((version, objects, watch)),
                None => {
                    let what = "the list broke off".to_owned();
                    return Err(ApiError::Unreachable(what));
                }
            }
        }
    }

    /// Puts a whole list in the place of what is held, or, when it lacks most of that for the first time, beside it.
    fn put<V: Viewed>(&self, version: &str, objects: Vec<Object<V>>, lists: &mut Lists) {
        let (resource, scope, count) = (self.status.resource.plural, &self.scope, objects.len());
        let (held, missing) = self.view.missing_from(&self.scope, &objects);
        lists.doubted = !lists.doubted && missing * 2 > held;
        if lists.doubted {
            let code = Watching::K04.entry().code;
            warn!(resource, %scope, code, held, missing, "the list lacks most of what is known, which stays until another list agrees");
            self.view
                .apply(&self.scope, objects.into_iter().map(Event::Apply));
            self.status.change(|record| record.doubts += 1);
        } else {
            let items = objects.into_iter().map(Event::InitApply);
            let whole = std::iter::once(Event::Init)
                .chain(items)
                .chain([Event::InitDone]);
            self.view.apply(&self.scope, whole);
        }
        self.status.listed(version);
        info!(resource, %scope, objects = count, version, "listed");
    }

    fn watch_limit(&self) -> Duration {
        between(self.timing.watch * 2 / 3, self.timing.watch)
    }

    /// Follows one watch from `version` on to its end; the version it reached. `open` is the watch that a list began.
    async fn watch<W: Wire<Value: Viewed>>(
        &self,
        version: &str,
        open: Option<Watch>,
        confirm: Option<Instant>,
    ) -> (End, String) {
        let mut reached = version.to_owned();
        let limit = self.watch_limit();
        let opened = match open {
            Some(watch) => Ok(watch),
            None => self.api.watch::<W>(&self.scope, version, limit).await,
        };
        let mut stream = match opened {
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
                () = sleep_until(confirm.unwrap_or(deadline)), if confirm.is_some() => {
                    return (End::Doubtful, reached);
                }
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
                Ok(Some(WatchEvent::Bookmark(at) | WatchEvent::Whole(at))) => (None, at),
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
            let code = Watching::K05.entry().code;
            warn!(resource, %scope, code, objects, %first, "the watch missed changes, listing again");
        }
        wrong.len()
    }
}

/// What one list leaves for the next, or for the watch.
#[derive(Default)]
struct Lists {
    /// The last list lacked most of what is held, which is still there.
    doubted: bool,
    /// The next list is fetched by itself, since the last one stuck as a stream, or two in a row failed.
    by_itself: bool,
    /// The last stream failed, and was the first to do so.
    failed: bool,
    /// The watch that the last list began.
    open: Option<Watch>,
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
