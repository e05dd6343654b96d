//! `io.l5d.inMemory`: everything is gone when the process ends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::live::Live;
use super::{
    Answer, Change, Names, Namespace, Only, Origin, Record, Store, StoreError, Stored, Watch,
    decide,
};

/// The history of a namespace is kept in memory up to so many bytes of text; older records are dropped.
const HISTORY_BYTES: usize = 16 * 1024 * 1024;
/// What a record takes beside its text, roughly.
const RECORD_BYTES: usize = 200;

/// Keeps dtabs in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    live: Live,
    histories: Mutex<HashMap<Namespace, History>>,
}

#[derive(Debug, Default)]
struct History {
    /// The oldest one first.
    records: VecDeque<Record>,
    bytes: usize,
    last: u64,
}

impl History {
    fn push(&mut self, record: Record) {
        let size = |record: &Record| RECORD_BYTES + record.text.as_deref().map_or(0, str::len);
        self.last = record.number;
        self.bytes += size(&record);
        self.records.push_back(record);
        while self.bytes > HISTORY_BYTES && self.records.len() > 1 {
            self.bytes -= self.records.pop_front().as_ref().map_or(0, size);
        }
    }
}

impl MemoryStore {
    /// A store with these dtabs in it, as the configuration's `namespaces`.
    pub fn with(namespaces: impl IntoIterator<Item = (Namespace, Change)>) -> Self {
        let store = Self::default();
        for (namespace, change) in namespaces {
            let origin = change.origin.clone();
            _ = store.write(&namespace, Some(change), origin, &Only::Always);
        }
        store
    }

    fn write(
        &self,
        namespace: &Namespace,
        change: Option<Change>,
        origin: Origin,
        only: &Only,
    ) -> Result<Option<Arc<Stored>>, StoreError> {
        // Held through the whole write, which makes writes one after another.
        let mut histories = self
            .histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let last = histories.get(namespace).map_or(0, |history| history.last);
        let now = self.live.get(namespace);
        let (record, dtab) = decide(namespace, now.as_deref(), last, change, origin, only)?;
        histories
            .entry(namespace.clone())
            .or_default()
            .push(record.clone());
        Ok(self.live.take(namespace, record, dtab))
    }
}

impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "io.l5d.inMemory"
    }

    fn get<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Option<Arc<Stored>>> {
        Box::pin(async { Ok(self.live.get(namespace)) })
    }

    fn put<'a>(
        &'a self,
        namespace: &'a Namespace,
        change: Change,
        only: Only,
    ) -> Answer<'a, Arc<Stored>> {
        Box::pin(async move {
            let origin = change.origin.clone();
            let stored = self.write(namespace, Some(change), origin, &only)?;
            Ok(stored.expect("a write that is no deletion stores something"))
        })
    }

    fn delete<'a>(
        &'a self,
        namespace: &'a Namespace,
        origin: Origin,
        only: Only,
    ) -> Answer<'a, ()> {
        Box::pin(async move { self.write(namespace, None, origin, &only).map(|_| ()) })
    }

    fn history<'a>(
        &'a self,
        namespace: &'a Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'a, Vec<Record>> {
        Box::pin(async move {
            let histories = self
                .histories
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let records = histories
                .get(namespace)
                .into_iter()
                .flat_map(|history| history.records.iter().rev());
            let wanted = |record: &&Record| before.is_none_or(|before| record.number < before);
            Ok(records.filter(wanted).take(limit).cloned().collect())
        })
    }

    fn names(&self) -> Names {
        self.live.names()
    }

    fn watch(&self, namespace: &Namespace) -> Watch {
        self.live.watch(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[tokio::test]
    async fn it_does_what_every_store_does() {
        suite::every_story(&suite::NONE, || Arc::new(MemoryStore::default())).await;
    }

    #[tokio::test]
    async fn its_history_is_bounded_by_bytes() {
        let store = MemoryStore::default();
        let namespace = Namespace::new("large").unwrap();
        let text = format!("/svc => /{}", "x".repeat(1 << 20));
        for _ in 0..40 {
            let change = Change::read(&text, Origin::now("test", "")).unwrap();
            store.put(&namespace, change, Only::Always).await.unwrap();
        }
        let history = store.history(&namespace, None, 100).await.unwrap();
        assert_eq!(history[0].number, 40);
        assert!((14..17).contains(&history.len()), "{}", history.len());
    }
}
