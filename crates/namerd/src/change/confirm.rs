//! Changes that end by themselves unless somebody confirms them. What is awaited stands in the version's own note
//! ([`super::noted`]), so that it holds over a restart and in every replica; this keeps the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::noted::{Noted, Within};
use crate::store::{Change, Namespace, Only, Origin, Record, Store, StoreError};

/// How often all namespaces are looked through for what other replicas wrote.
const LOOK: Duration = Duration::from_secs(60);
/// After a storage that did not take a change back.
const AGAIN: Duration = Duration::from_secs(2);
/// Who takes changes back, in the history.
const AUTHOR: &str = "rutter";

/// What waits to be confirmed. Clones are handles of the same.
#[derive(Clone, Default)]
pub struct Confirms(Arc<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Mutex<HashMap<Namespace, Awaited>>,
    added: Notify,
}

/// A version that ends unless it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Awaited {
    number: u64,
    until: SystemTime,
    within: Within,
}

/// When a version ends; none when it need not be confirmed.
pub fn until(record: &Record) -> Option<(SystemTime, Within)> {
    let within = Noted::of(&record.origin.note).confirm?;
    let until = record
        .origin
        .time
        .checked_add(Duration::from_secs(within.seconds))?;
    Some((until, within))
}

impl Confirms {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Namespace, Awaited>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a version that came into force.
    pub fn note(&self, namespace: &Namespace, record: &Record) {
        let awaited = until(record).map(|(until, within)| Awaited {
            number: record.number,
            until,
            within,
        });
        let before = match awaited {
            Some(awaited) => self.waiting().insert(namespace.clone(), awaited),
            None => self.waiting().remove(namespace),
        };
        if before != awaited {
            self.0.added.notify_one();
        }
    }

    /// Takes back what nobody confirms, until `stop`. What a store of before a restart left is taken up first.
    pub async fn run(self, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            let wait = self.next().unwrap_or(LOOK);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => self.look(&*store).await,
                () = self.0.added.notified() => {}
                () = tokio::time::sleep(wait) => self.take_back(&*store).await,
            }
        }
    }

    /// Until the first one ends.
    fn next(&self) -> Option<Duration> {
        let now = SystemTime::now();
        let waiting = self.waiting();
        let left = waiting
            .values()
            .map(|awaited| awaited.until.duration_since(now));
        left.map(Result::unwrap_or_default).min()
    }

    async fn look(&self, store: &dyn Store) {
        let names = store.names().get();
        for namespace in names.iter() {
            if let Ok(Some(stored)) = store.get(namespace).await {
                self.note(namespace, &stored.record);
            }
        }
    }

    async fn take_back(&self, store: &dyn Store) {
        let now = SystemTime::now();
        let due: Vec<_> = self
            .waiting()
            .iter()
            .filter(|(_, awaited)| awaited.until <= now)
            .map(|(namespace, awaited)| (namespace.clone(), *awaited))
            .collect();
        for (namespace, awaited) in due {
            let done = take_back(store, &namespace, awaited).await;
            let mut waiting = self.waiting();
            match done {
                Ok(()) => {
                    if waiting.get(&namespace) == Some(&awaited) {
                        waiting.remove(&namespace);
                    }
                }
                Err(error) => {
                    tracing::error!(%namespace, number = awaited.number, %error, "an unconfirmed change could not be taken back yet");
                    if let Some(awaited) = waiting.get_mut(&namespace) {
                        awaited.until = now + AGAIN;
                    }
                }
            }
        }
    }
}

async fn take_back(
    store: &dyn Store,
    namespace: &Namespace,
    awaited: Awaited,
) -> Result<(), StoreError> {
    let Some(stored) = store.get(namespace).await? else {
        return Ok(());
    };
    // Whoever wrote after it has decided otherwise.
    if stored.record.number != awaited.number {
        return Ok(());
    }
    let only = Only::Version(stored.record.version().into());
    let number = awaited.number;
    let before = match awaited.within.back {
        None => None,
        Some(back) => {
            let records = store.history(namespace, Some(back + 1), 1).await?;
            let record = records.into_iter().find(|record| record.number == back);
            record
                .and_then(|record| record.text)
                .map(|text| (back, text))
        }
    };
    let done = match before {
        Some((back, text)) => {
            let words = format!("version {number} was not confirmed: back to {back}");
            let origin = Origin::now(AUTHOR, words);
            match Change::read(&text, origin) {
                Ok(change) => store.put(namespace, change, only).await.map(|_| ()),
                Err(error) => Err(StoreError::Unavailable(format!(
                    "version {back} cannot be read: {error}"
                ))),
            }
        }
        None if awaited.within.back.is_some() => {
            tracing::error!(%namespace, number, back = awaited.within.back, "an unconfirmed change stays: the version before is not kept any more");
            return Ok(());
        }
        None => {
            let origin = Origin::now(AUTHOR, format!("version {number} was not confirmed"));
            store.delete(namespace, origin, only).await
        }
    };
    match done {
        Ok(()) => {
            tracing::warn!(%namespace, number, "a change was not confirmed in time and is taken back");
            Ok(())
        }
        Err(StoreError::Changed { .. } | StoreError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FileStore;

    async fn put(store: &dyn Store, text: &str, confirm: Option<Within>) -> Record {
        let noted = Noted {
            confirm,
            ..Noted::default()
        };
        let change = Change::read(text, Origin::now("test", noted.note())).unwrap();
        let stored = store.put(&namespace(), change, Only::Always).await.unwrap();
        stored.record.clone()
    }

    fn namespace() -> Namespace {
        Namespace::new("default").unwrap()
    }

    async fn becomes(store: &dyn Store, want: Option<&str>) {
        for _ in 0..1_000 {
            let now = store.get(&namespace()).await.unwrap();
            if now
                .as_ref()
                .map(|stored| stored.dtab.to_string())
                .as_deref()
                == want
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never became {want:?}");
    }

    #[tokio::test]
    async fn an_unconfirmed_change_ends_over_a_restart_of_the_store_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dtabs.redb");
        let store = FileStore::open(&path).unwrap();
        put(&store, "/a => /1", None).await;
        let within = Within {
            seconds: 1,
            back: Some(1),
        };
        put(&store, "/a => /2", Some(within)).await;
        drop(store);
        let store: Arc<dyn Store> = Arc::new(FileStore::open(&path).unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(Confirms::default().run(store.clone(), stop.clone()));
        becomes(&*store, Some("/a=>/1")).await;
        let newest = store.history(&namespace(), None, 1).await.unwrap();
        assert_eq!(newest[0].number, 3);
        assert_eq!(
            &*newest[0].origin.note,
            "version 2 was not confirmed: back to 1"
        );
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_new_namespace_that_is_not_confirmed_ends_and_a_later_write_counts_as_a_decision() {
        let store: Arc<dyn Store> = Arc::new(crate::store::MemoryStore::default());
        let confirms = Confirms::default();
        let stop = CancellationToken::new();
        let running = tokio::spawn(confirms.clone().run(store.clone(), stop.clone()));
        let within = Within {
            seconds: 0,
            back: None,
        };
        let record = put(&*store, "/a => /1", Some(within)).await;
        confirms.note(&namespace(), &record);
        becomes(&*store, None).await;
        let record = put(&*store, "/a => /2", Some(within)).await;
        put(&*store, "/a => /3", None).await;
        confirms.note(&namespace(), &record);
        while !confirms.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
        becomes(&*store, Some("/a=>/3")).await;
        stop.cancel();
        running.await.unwrap();
    }
}
