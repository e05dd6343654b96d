//! Dtabs in a storage that several replicas use: Kubernetes, etcd, ZooKeeper, Consul.
//!
//! A [`Backend`] has one item for each namespace, which it can read as it is now and change only if it is still as it was
//! read: every write of every replica goes through that, so that none is lost. What is in force is followed by a watch and
//! served from memory. The history has past versions only, each put there *before* it is replaced: whoever is killed in
//! between leaves a record that is true.
//!
//! `write` is the way of a write, `sealed` what stands in an item beside its dtab, `named` what it is called, `follow` keeps [`Live`] up to date.

use std::collections::HashMap;
use std::future::Future;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtab::Dtab;
use naming::Var;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::live::Live;
use super::{
    Answer, Change, Names, Namespace, Only, Origin, Record, Refused, Standing, Store, StoreError,
    Stored, Watch,
};

mod follow;
mod named;
mod sealed;
mod write;

pub(super) use named::{namespace, node_name};
#[cfg(feature = "kubernetes")]
pub(super) use sealed::hash;
pub(super) use sealed::{Meta, Past, open_text, seal_text};

/// So many versions of a namespace are kept behind the one in force, at most.
pub const KEPT: u64 = 200;
/// Of large ones only so many that they would have so many bytes of dtabs, were all as large as the last.
pub const KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// How long a reading may take.
const READS: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(1));
/// Writes of one namespace come one after another within a replica; so many namespaces at a time.
const TURNS: usize = 64;

/// A storage with one item for each namespace.
pub(super) trait Backend: Send + Sync + 'static {
    /// What a write names as what it replaces.
    type Held: Clone + Send + Sync;

    /// Its `kind` in the configuration.
    fn kind(&self) -> &'static str;

    /// What it is and where, for messages.
    fn place(&self) -> String;

    /// Whether a namespace can be called so; otherwise why not.
    fn fits(&self, namespace: &Namespace) -> Result<(), String>;

    /// The item as it is now: every write that was answered before, by whichever replica, is seen.
    fn read(
        &self,
        namespace: &Namespace,
    ) -> impl Future<Output = Result<Option<Item<Self::Held>>, Trouble>> + Send;

    /// Puts an item in place of what was `before`, or where there was none; what it is now, or none when that was not there
    /// any more.
    fn write(
        &self,
        namespace: &Namespace,
        text: &str,
        meta: &Meta,
        before: Option<&Self::Held>,
    ) -> impl Future<Output = Result<Option<Place>, Trouble>> + Send;

    /// Takes the item away that was `before`; none when it was not there any more.
    fn delete(
        &self,
        namespace: &Namespace,
        before: &Self::Held,
    ) -> impl Future<Output = Result<Option<u64>, Trouble>> + Send;

    /// Puts a past version into the history, over one that has its number.
    fn archive(
        &self,
        namespace: &Namespace,
        past: &Past,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Past versions with numbers below `before`, the newest first.
    fn archived(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Past>, Trouble>> + Send;

    /// Takes a version out of the history, if it is there.
    fn forget(
        &self,
        namespace: &Namespace,
        number: u64,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Tells of everything there is, and then of each change, until it cannot; then why.
    fn follow(&self, told: &Told<'_, Self>) -> impl Future<Output = Trouble> + Send
    where
        Self: Sized;
}

/// What takes in what a [`Backend`] tells of.
pub(super) struct Told<'a, B: Backend>(&'a Shared<B>);

/// Where an item stands among all changes of a storage.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Greater for each later change, deletions included.
    pub(super) order: u64,
    /// The version that clients see.
    pub(super) version: Arc<str>,
}

/// An item as it was read.
#[derive(Clone, Debug)]
pub(super) struct Item<H> {
    pub(super) place: Place,
    pub(super) held: H,
    /// The dtab.
    pub(super) text: Arc<str>,
    /// What we have written beside it; none when the dtab is not the one it was written for.
    pub(super) meta: Option<Meta>,
    /// The number of a version that was there before, as far as the item tells.
    pub(super) at_least: u64,
    /// Who changed it past us, and when, where the storage knows.
    pub(super) outside: Option<Origin>,
}

/// Why a storage did not do what it was asked for.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// No answer, or one of a storage that is not well: whether it was done is not known.
    Unanswered(String),
    /// It was not done and never will be.
    Refused(Refused, String),
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unanswered(why) => Self::Unavailable(why),
            Trouble::Refused(why, text) => Self::Refused(why, text),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unanswered(why) | Self::Refused(_, why) => f.write_str(why),
        }
    }
}

/// An engine over such a storage.
pub(super) struct Remote<B: Backend> {
    shared: Arc<Shared<B>>,
    follow: AbortHandle,
}

struct Shared<B: Backend> {
    backend: B,
    live: Live,
    standing: Var<Standing>,
    /// Where the last change of each namespace stood that was taken in.
    seen: Mutex<HashMap<Namespace, u64>>,
    /// Up to which version this replica has taken old ones out of the history.
    forgotten: Mutex<HashMap<Namespace, u64>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
    hasher: RandomState,
}

impl<B: Backend> Remote<B> {
    /// Begins to follow at once.
    pub(super) fn new(backend: B, control: &Handle) -> Self {
        let why = format!("{} has not answered yet", backend.place());
        let shared = Arc::new(Shared {
            backend,
            live: Live::awaited(&why),
            standing: Var::new(Standing::Awaited(why.into())),
            seen: Mutex::default(),
            forgotten: Mutex::default(),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            hasher: RandomState::new(),
        });
        let follow = control.spawn(follow::keep(shared.clone())).abort_handle();
        Self { shared, follow }
    }

    fn write<'a>(
        &self,
        namespace: &Namespace,
        change: Option<Change>,
        origin: Origin,
        only: Only,
    ) -> Answer<'a, Option<Arc<Stored>>> {
        let (shared, namespace) = (self.shared.clone(), namespace.clone());
        Box::pin(async move {
            // It goes on to its end when the caller is gone.
            let work = async move { shared.write(&namespace, change, origin, &only).await };
            let ended = tokio::spawn(work).await;
            ended.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
        })
    }
}

impl<B: Backend> Drop for Remote<B> {
    fn drop(&mut self) {
        self.follow.abort();
    }
}

impl<B: Backend> Shared<B> {
    fn seen(&self) -> MutexGuard<'_, HashMap<Namespace, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, (well, lost): (Duration, Duration)) -> Instant {
        let well = match &*self.standing.get() {
            Standing::Good => well,
            Standing::Awaited(_) | Standing::Lost(_) => lost,
        };
        Instant::now() + well
    }

    async fn asked<T>(
        &self,
        until: Instant,
        asked: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let late = || Trouble::Unanswered(format!("{} does not answer", self.backend.place()));
        timeout_at(until, asked)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    fn fits(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let refused = |why| StoreError::Refused(Refused::Name, why);
        self.backend.fits(namespace).map_err(refused)
    }

    async fn get(&self, namespace: &Namespace) -> Result<Option<Arc<Stored>>, StoreError> {
        if self.backend.fits(namespace).is_err() {
            return Ok(None);
        }
        let until = self.until(READS);
        let read = async {
            match self.backend.read(namespace).await? {
                Some(item) => self.stored(namespace, &item).await.map(Some),
                None => Ok(None),
            }
        };
        let Some(stored) = self.asked(until, read).await? else {
            return Ok(None);
        };
        let dtab = stored.dtab.map_err(|reason| {
            let (place, version) = (self.backend.place(), stored.record.version());
            StoreError::Unavailable(format!(
                "what {place} has for namespace {namespace} in version {version} is no dtab: {reason}"
            ))
        })?;
        let record = stored.record;
        Ok(Some(Arc::new(Stored { record, dtab })))
    }

    /// What an item says. One that was changed past us is numbered behind the last version that is known of.
    async fn stored(&self, namespace: &Namespace, item: &Item<B::Held>) -> Result<Read, Trouble> {
        let record = match &item.meta {
            Some(meta) => meta.record(&item.text, &item.place.version),
            None => {
                let past = self.backend.archived(namespace, None, 1).await?;
                let last = past.first().map_or(0, |past| past.number);
                let known = self.live.get(namespace);
                let number = match &known {
                    // Seen already by this replica.
                    Some(known) if known.record.tag.as_ref() == Some(&item.place.version) => {
                        known.record.number
                    }
                    known => {
                        let known = known.as_ref().map_or(0, |known| known.record.number);
                        last.max(item.at_least).max(known) + 1
                    }
                };
                let unknown = || Origin::now(format!("outside, in {}", self.backend.place()), "");
                Record {
                    number,
                    origin: item.outside.clone().unwrap_or_else(unknown),
                    text: Some(item.text.clone()),
                    tag: Some(item.place.version.clone()),
                }
            }
        };
        let id = item.meta.as_ref().map(|meta| meta.id.clone());
        let dtab = Dtab::read(&item.text).map_err(|error| error.to_string());
        Ok(Read { record, dtab, id })
    }

    async fn history(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        if self.backend.fits(namespace).is_err() {
            return Ok(Vec::new());
        }
        let until = self.until(READS);
        let read = async {
            let now = match self.backend.read(namespace).await? {
                Some(item) => Some(self.stored(namespace, &item).await?.record),
                None => None,
            };
            // What has the number of the present one, or a later one, never was in force.
            let bound = now.as_ref().map_or(u64::MAX, |now| now.number);
            let below = before.unwrap_or(u64::MAX).min(bound);
            let past = match limit {
                0 => Vec::new(),
                _ => self.backend.archived(namespace, Some(below), limit).await?,
            };
            let shown = now.filter(|now| before.is_none_or(|before| now.number < before));
            let records = shown.into_iter().chain(past.iter().map(Past::record));
            Ok(records.take(limit).collect())
        };
        Ok(self.asked(until, read).await?)
    }
}

/// An item that was read and understood.
struct Read {
    record: Record,
    dtab: Result<Dtab, String>,
    id: Option<Arc<str>>,
}

impl Read {
    fn past(&self) -> Past {
        Past::of(&self.record, self.id.as_ref())
    }
}

impl<B: Backend> Store for Remote<B> {
    fn kind(&self) -> &'static str {
        self.shared.backend.kind()
    }

    fn get<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Option<Arc<Stored>>> {
        Box::pin(self.shared.get(namespace))
    }

    fn put<'a>(
        &'a self,
        namespace: &'a Namespace,
        change: Change,
        only: Only,
    ) -> Answer<'a, Arc<Stored>> {
        let origin = change.origin.clone();
        let write = self.write(namespace, Some(change), origin, only);
        Box::pin(async move {
            let stored = write.await?;
            Ok(stored.expect("a write that is no deletion stores something"))
        })
    }

    fn delete<'a>(
        &'a self,
        namespace: &'a Namespace,
        origin: Origin,
        only: Only,
    ) -> Answer<'a, ()> {
        let write = self.write(namespace, None, origin, only);
        Box::pin(async move { write.await.map(|_| ()) })
    }

    fn history<'a>(
        &'a self,
        namespace: &'a Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'a, Vec<Record>> {
        Box::pin(self.shared.history(namespace, before, limit))
    }

    fn names(&self) -> Names {
        self.shared.live.names()
    }

    fn watch(&self, namespace: &Namespace) -> Watch {
        self.shared.live.watch(namespace)
    }

    fn standing(&self) -> Var<Standing> {
        self.shared.standing.clone()
    }
}
