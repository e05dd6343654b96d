//! `file`: one file on a disk, with every version that ever was.
//!
//! What is in force lies in memory; reading costs no disk. A write is one transaction of `redb`, on the disk before it is
//! answered: a process that is killed has every answered write, and of one that was not answered either all or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dtab::Dtab;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::live::Live;
use super::{
    Answer, Change, Names, Namespace, Only, Origin, Record, Store, StoreError, Stored, Watch,
    decide, to_millis,
};

/// Namespace and number to a [`Written`].
const RECORDS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("records");
/// Namespace to the number of its last record.
const LAST: TableDefinition<'_, &str, u64> = TableDefinition::new("last");
/// Pages that are kept in memory; what is in force lies in memory anyway, and redb's own default is 1 GiB, which a
/// history fills in time.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// What the file is.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// The shape of all this. One that is newer is refused.
const FORMAT: u64 = 1;

/// Keeps dtabs in a file.
pub struct FileStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Database,
    live: Live,
    /// Held through a write, from what is in force to what will be.
    writing: Mutex<()>,
}

/// Why a file cannot be the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system or the file says no.
    #[error("the store's file {}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do where there is something.
        reason: String,
    },
    /// A dtab in it cannot be read.
    #[error("the store's file {}: version {number} of namespace {namespace} is no dtab: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// The namespace.
        namespace: String,
        /// The record's number.
        number: u64,
        /// The parser's message.
        reason: String,
    },
}

/// A record as it lies in the file.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    author: std::borrow::Cow<'a, str>,
    time_ms: u64,
    #[serde(borrow, default)]
    note: std::borrow::Cow<'a, str>,
    /// None for a deletion.
    #[serde(borrow, default)]
    dtab: Option<std::borrow::Cow<'a, str>>,
}

impl FileStore {
    /// Opens the store, or makes an empty one; its folder must be there. It belongs to one process at a time.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let failed = |reason: String| OpenError::File {
            path: path.clone(),
            reason,
        };
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| failed(refusal(&error, &path)))?;
        let found = prepare(&database).map_err(|error| failed(error.to_string()))?;
        if found > FORMAT {
            return Err(failed(format!(
                "it was written by a newer version of the program (format {found}, known is {FORMAT})"
            )));
        }
        let heads = heads(&database).map_err(|error| failed(error.to_string()))?;
        let mut stored = BTreeMap::new();
        for (name, record) in heads {
            let Some(text) = &record.text else { continue };
            let unreadable = |reason: String| OpenError::Content {
                path: path.clone(),
                namespace: name.clone(),
                number: record.number,
                reason,
            };
            let dtab = Dtab::read(text).map_err(|error| unreadable(error.to_string()))?;
            let namespace = Namespace::new(&name).map_err(|error| unreadable(error.to_string()))?;
            stored.insert(namespace, Arc::new(Stored { record, dtab }));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                database,
                live: Live::of(stored),
                writing: Mutex::default(),
            }),
        })
    }

    /// On a thread that may wait for the disk. A write goes on to its end when the caller is gone.
    fn blocking<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let ended = tokio::task::spawn_blocking(move || work(&inner)).await;
            ended.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
        })
    }
}

impl Inner {
    fn write(
        &self,
        namespace: &Namespace,
        change: Option<Change>,
        origin: Origin,
        only: &Only,
    ) -> Result<Option<Arc<Stored>>, StoreError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.live.get(namespace);
        let failed = |error: redb::Error| {
            tracing::error!(%namespace, %error, file = %self.path.display(), "the store cannot write");
            StoreError::Unavailable(format!("{}: {error}", self.path.display()))
        };
        let last = self.last(namespace).map_err(failed)?;
        let (record, dtab) = decide(namespace, now.as_deref(), last, change, origin, only)?;
        self.append(namespace, &record).map_err(failed)?;
        Ok(self.live.take(namespace, record, dtab))
    }

    fn last(&self, namespace: &Namespace) -> Result<u64, redb::Error> {
        let table = self.database.begin_read()?.open_table(LAST)?;
        Ok(table
            .get(namespace.as_str())?
            .map_or(0, |last| last.value()))
    }

    fn append(&self, namespace: &Namespace, record: &Record) -> Result<(), redb::Error> {
        let written = Written {
            author: (&*record.origin.author).into(),
            time_ms: to_millis(record.origin.time),
            note: (&*record.origin.note).into(),
            dtab: record.text.as_deref().map(Into::into),
        };
        let bytes = serde_json::to_vec(&written).expect("texts and numbers are JSON");
        // Durable when the commit returns: redb's default.
        let transaction = self.database.begin_write()?;
        transaction
            .open_table(RECORDS)?
            .insert((namespace.as_str(), record.number), bytes.as_slice())?;
        transaction
            .open_table(LAST)?
            .insert(namespace.as_str(), record.number)?;
        transaction.commit()?;
        Ok(())
    }

    fn history(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Record>, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let name = namespace.as_str();
        let range = table.range((name, 0)..(name, before.unwrap_or(u64::MAX)))?;
        let mut records = Vec::new();
        for entry in range.rev().take(limit) {
            let (key, value) = entry?;
            records.push(read(key.value().1, value.value())?);
        }
        Ok(records)
    }
}

/// Makes the tables; the format of what was there.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut about = transaction.open_table(ABOUT)?;
        let found = about.get("format")?.map(|format| format.value());
        if found.is_none() {
            about.insert("format", FORMAT)?;
        }
        transaction.open_table(RECORDS)?;
        transaction.open_table(LAST)?;
        found.unwrap_or(FORMAT)
    };
    transaction.commit()?;
    Ok(found)
}

/// The last record of every namespace.
fn heads(database: &Database) -> Result<Vec<(String, Record)>, redb::Error> {
    let transaction = database.begin_read()?;
    let records = transaction.open_table(RECORDS)?;
    let mut heads = Vec::new();
    for entry in transaction.open_table(LAST)?.iter()? {
        let (name, last) = entry?;
        let (name, last) = (name.value(), last.value());
        let written = records
            .get((name, last))?
            .ok_or_else(|| corrupted(format!("record {last} of {name} is missing")))?;
        heads.push((name.to_owned(), read(last, written.value())?));
    }
    Ok(heads)
}

fn read(number: u64, bytes: &[u8]) -> Result<Record, redb::Error> {
    let written: Written<'_> = serde_json::from_slice(bytes)
        .map_err(|error| corrupted(format!("record {number}: {error}")))?;
    Ok(Record {
        number,
        origin: Origin::at(&*written.author, written.time_ms, &*written.note),
        text: written.dtab.map(|text| (&*text).into()),
        tag: None,
    })
}

fn corrupted(what: String) -> redb::Error {
    redb::Error::Corrupted(what)
}

fn refusal(error: &redb::DatabaseError, path: &Path) -> String {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            "another process has it open; one store writes to a file, and several replicas need another kind of storage".to_owned()
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("."));
            format!("the folder {} is not there: make it, or mount a volume there", folder.display())
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
            "it is no store of this program: give another `path`, or move the file away".to_owned()
        }
        other => other.to_string(),
    }
}

impl Store for FileStore {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn get<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Option<Arc<Stored>>> {
        Box::pin(async { Ok(self.inner.live.get(namespace)) })
    }

    fn put<'a>(
        &'a self,
        namespace: &'a Namespace,
        change: Change,
        only: Only,
    ) -> Answer<'a, Arc<Stored>> {
        let namespace = namespace.clone();
        self.blocking(move |inner| {
            let origin = change.origin.clone();
            let stored = inner.write(&namespace, Some(change), origin, &only)?;
            Ok(stored.expect("a write that is no deletion stores something"))
        })
    }

    fn delete<'a>(
        &'a self,
        namespace: &'a Namespace,
        origin: Origin,
        only: Only,
    ) -> Answer<'a, ()> {
        let namespace = namespace.clone();
        self.blocking(move |inner| inner.write(&namespace, None, origin, &only).map(|_| ()))
    }

    fn history<'a>(
        &'a self,
        namespace: &'a Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'a, Vec<Record>> {
        let namespace = namespace.clone();
        self.blocking(move |inner| {
            let records = inner.history(&namespace, before, limit);
            records.map_err(|error| StoreError::Unavailable(error.to_string()))
        })
    }

    fn names(&self) -> Names {
        self.inner.live.names()
    }

    fn watch(&self, namespace: &Namespace) -> Watch {
        self.inner.live.watch(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{killed, suite};

    #[tokio::test]
    async fn it_does_what_every_store_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = 0;
        suite::every_story(&suite::NONE, || {
            made += 1;
            Arc::new(FileStore::open(folder.path().join(format!("{made}.redb"))).unwrap())
        })
        .await;
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dtabs.redb");
        suite::before_a_restart(&FileStore::open(&path).unwrap()).await;
        suite::after_a_restart(&FileStore::open(&path).unwrap()).await;
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dtabs.redb");
        let message = |path: &Path| FileStore::open(path).map(|_| ()).unwrap_err().to_string();
        let _open = FileStore::open(&path).unwrap();
        assert!(
            message(&path).contains("another process has it open"),
            "{}",
            message(&path)
        );
        let nowhere = folder.path().join("none/dtabs.redb");
        assert!(
            message(&nowhere).contains("none is not there"),
            "{}",
            message(&nowhere)
        );
        let other = folder.path().join("other");
        std::fs::write(&other, "no database ".repeat(1000)).unwrap();
        assert!(
            message(&other).contains("no store of this program"),
            "{}",
            message(&other)
        );
    }

    /// Not a test of its own: the process that is killed.
    #[tokio::test]
    async fn victim() {
        if let Some(path) = killed::place() {
            killed::on_and_on(Arc::new(FileStore::open(path).unwrap())).await;
        }
    }

    #[tokio::test]
    async fn a_killed_process_has_every_answered_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dtabs.redb");
        let victim = "store::file::tests::victim";
        killed::every_answered_write_is_there(victim, path.to_str().unwrap(), u64::MAX, || {
            Arc::new(FileStore::open(&path).unwrap())
        })
        .await;
    }
}
