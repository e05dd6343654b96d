//! A store whose changes are told to a file that only grows.
//!
//! A change is told twice: before it is made, on the disk, and when it is known what came of it. A change that cannot be
//! told is not made. A process that dies between the two leaves the first alone: the change was made or not, and the
//! namespace's history says which.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use naming::Var;
use serde::Serialize;

use super::{
    Answer, Change, Names, Namespace, Only, Origin, Record, Standing, Store, StoreError, Stored,
    Watch, hash_of, to_millis,
};

/// Tells a file about each change of the store behind it.
pub struct Audited {
    store: Arc<dyn Store>,
    log: Arc<Log>,
}

struct Log {
    path: PathBuf,
    file: Mutex<File>,
    /// Tells this process' lines from those of the ones before.
    run: u64,
    last: AtomicU64,
}

/// A line: what is to be done, or what came of it.
#[derive(Serialize)]
struct Line<'a> {
    /// In milliseconds since 1970.
    time_ms: u64,
    /// The same in both lines of a change, and in no others.
    change: String,
    #[serde(flatten)]
    told: Told<'a>,
}

#[derive(Serialize)]
#[serde(tag = "told", rename_all = "lowercase")]
enum Told<'a> {
    Asked {
        what: &'a str,
        namespace: &'a str,
        author: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        note: &'a str,
        /// When it is allowed.
        only: String,
        /// SHA-256 of the new text.
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    Done {
        /// The version that it became.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    Refused {
        why: String,
    },
}

impl Audited {
    /// The store with a log at `path`, which is made when it is not there.
    pub fn over(store: Arc<dyn Store>, path: impl AsRef<Path>) -> std::io::Result<Self> {
        let path = path.as_ref().to_owned();
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        Ok(Self {
            store,
            log: Arc::new(Log {
                path,
                file: Mutex::new(file),
                run: fastrand::u64(..),
                last: AtomicU64::new(0),
            }),
        })
    }

    /// Notes what is to be done; what it returns names the change.
    async fn asked(
        &self,
        what: &'static str,
        namespace: &Namespace,
        origin: &Origin,
        only: &Only,
        text: Option<&str>,
    ) -> Result<String, StoreError> {
        let change = self.log.next();
        let line = Line {
            time_ms: to_millis(origin.time),
            change: change.clone(),
            told: Told::Asked {
                what,
                namespace: namespace.as_str(),
                author: &origin.author,
                note: &origin.note,
                only: match only {
                    Only::Always => "always".to_owned(),
                    Only::Absent => "absent".to_owned(),
                    Only::Present => "present".to_owned(),
                    Only::Version(version) => format!("version {version}"),
                },
                sha256: text.map(hash_of),
            },
        };
        self.log.write(&line, true).await.map_err(|error| {
            let path = self.log.path.display();
            tracing::error!(%namespace, %error, file = %path, "the audit log cannot be written: the change is not made");
            StoreError::Unavailable(format!("the audit log {path} cannot be written: {error}"))
        })?;
        Ok(change)
    }

    /// Notes what came of it.
    async fn end<T>(
        &self,
        change: String,
        result: Result<T, StoreError>,
        version: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, StoreError> {
        let told = match &result {
            Ok(done) => Told::Done {
                version: version(done),
            },
            Err(error) => Told::Refused {
                why: error.to_string(),
            },
        };
        let line = Line {
            time_ms: to_millis(SystemTime::now()),
            change,
            told,
        };
        if let Err(error) = self.log.write(&line, false).await {
            tracing::error!(%error, file = %self.log.path.display(), "the audit log lacks a change's end");
        }
        result
    }
}

impl Log {
    fn next(&self) -> String {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{number}", self.run)
    }

    async fn write(self: &Arc<Self>, line: &Line<'_>, sync: bool) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).map_err(|error| error.to_string())?;
        text.push(b'\n');
        let log = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = log.file.lock().unwrap_or_else(PoisonError::into_inner);
            // One write: lines of several processes do not mix.
            file.write_all(&text)?;
            if sync { file.sync_data() } else { Ok(()) }
        });
        match written.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Store for Audited {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    fn get<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Option<Arc<Stored>>> {
        self.store.get(namespace)
    }

    fn put<'a>(
        &'a self,
        namespace: &'a Namespace,
        change: Change,
        only: Only,
    ) -> Answer<'a, Arc<Stored>> {
        Box::pin(async move {
            let id = self
                .asked("put", namespace, &change.origin, &only, Some(&change.text))
                .await?;
            let result = self.store.put(namespace, change, only).await;
            self.end(id, result, |stored| Some(stored.record.number))
                .await
        })
    }

    fn delete<'a>(
        &'a self,
        namespace: &'a Namespace,
        origin: Origin,
        only: Only,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let id = self
                .asked("delete", namespace, &origin, &only, None)
                .await?;
            let result = self.store.delete(namespace, origin, only).await;
            self.end(id, result, |()| None).await
        })
    }

    fn history<'a>(
        &'a self,
        namespace: &'a Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'a, Vec<Record>> {
        self.store.history(namespace, before, limit)
    }

    fn names(&self) -> Names {
        self.store.names()
    }

    fn watch(&self, namespace: &Namespace) -> Watch {
        self.store.watch(namespace)
    }

    fn standing(&self) -> Var<Standing> {
        self.store.standing()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::store::MemoryStore;

    fn namespace() -> Namespace {
        Namespace::new("default").unwrap()
    }

    fn change(text: &str) -> Change {
        Change::read(text, Origin::now("ann", "for a test")).unwrap()
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn each_change_is_told_before_and_after_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for run in 0..2 {
            let memory = Arc::new(MemoryStore::with(std::iter::empty()));
            let store = Audited::over(memory, &path).unwrap();
            store
                .put(&namespace(), change("/a=>/b"), Only::Absent)
                .await
                .unwrap();
            store
                .put(&namespace(), change("/a=>/c"), Only::Absent)
                .await
                .unwrap_err();
            let origin = Origin::now("bob", "");
            store
                .delete(&namespace(), origin, Only::Present)
                .await
                .unwrap();
            assert_eq!(lines(&path).len(), 6 * (run + 1), "it only grows");
        }
        let lines = lines(&path);
        let said = |at: usize, key: &str| lines[at][key].as_str().unwrap_or_default().to_owned();
        let told: Vec<_> = (0..6).map(|at| said(at, "told")).collect();
        assert_eq!(told, ["asked", "done", "asked", "refused", "asked", "done"]);
        assert_eq!(said(0, "author") + &said(0, "note"), "annfor a test");
        assert_eq!(said(0, "sha256"), hash_of("/a=>/b"));
        assert_eq!(lines[1]["version"], 1);
        assert!(said(3, "why").contains("exists already"), "{}", lines[3]);
        assert_eq!(
            (said(4, "what"), said(4, "author")),
            ("delete".into(), "bob".into())
        );
        let changes: std::collections::BTreeSet<_> = (0..12).map(|at| said(at, "change")).collect();
        assert_eq!(changes.len(), 6);
        assert_eq!(said(0, "change"), said(1, "change"));
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_told_is_not_made() {
        // Every write to it fails: the disk is full.
        let memory = Arc::new(MemoryStore::with(std::iter::empty()));
        let store = Audited::over(memory, "/dev/full").unwrap();
        let refused = store
            .put(&namespace(), change("/a=>/b"), Only::Always)
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, StoreError::Unavailable(why) if why.contains("audit log /dev/full")),
            "{refused}"
        );
        assert!(store.get(&namespace()).await.unwrap().is_none());
    }
}
