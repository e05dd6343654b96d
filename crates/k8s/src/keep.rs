//! The snapshot's life: taken in at the start, written when something has changed, and what went wrong with it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use telemetry::code::Watching;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::snapshot::{self, Content, Place};
use crate::view::View;

/// Keeps the snapshot of one API server.
pub(crate) struct Keeper {
    place: Place,
    target: String,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// When the snapshot that was taken in at the start had been confirmed: how long before the start, and how many
    /// objects it had.
    restored: Option<(Duration, usize)>,
    /// When it was last written, and its size.
    written: Option<(Instant, u64)>,
    writes: u64,
    failures: u64,
    /// What went wrong last, until something works again.
    problem: Option<(Watching, String)>,
}

impl Keeper {
    pub(crate) fn new(dir: &Path, target: &str) -> Self {
        Self {
            place: Place::new(dir, target),
            target: target.to_owned(),
            record: Mutex::default(),
        }
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Takes in what is on disk; when that was confirmed, or none when there is nothing of use.
    pub(crate) fn restore(&self, view: &View) -> Option<Instant> {
        let file = self.place.file();
        let content = match self.place.read() {
            Ok(content) => content?,
            Err(error) => {
                let (code, file) = (Watching::K01.entry().code, file.display());
                warn!(code, %file, %error, "the snapshot is not used");
                self.change(|record| record.problem = Some((Watching::K01, error.to_string())));
                return None;
            }
        };
        let age = snapshot::age(content.confirmed);
        let objects = content.members.len() + content.services.len();
        view.restore(content);
        info!(file = %file.display(), objects, age_s = age.as_secs(), "serving from the snapshot until the API server answers");
        self.change(|record| record.restored = Some((age, objects)));
        Instant::now().checked_sub(age).or(Some(Instant::now()))
    }

    pub(crate) fn restored(&self) -> bool {
        self.change(|record| record.restored.is_some())
    }

    /// Writes a snapshot, in a thread of its own: a disk that hangs holds up nothing, not even the end of the process.
    /// False when it could not be written.
    pub(crate) async fn write(&self, content: Content) -> bool {
        let (done, written) = tokio::sync::oneshot::channel();
        let place = self.place.clone();
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        let thread = thread.spawn(move || _ = done.send(place.write(&content)));
        let written = match thread {
            Ok(_) => written
                .await
                .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended early"))),
            Err(error) => Err(error),
        };
        match written {
            Ok(bytes) => {
                self.change(|record| {
                    record.written = Some((Instant::now(), bytes));
                    record.writes += 1;
                    record.problem = None;
                });
                true
            }
            Err(error) => {
                let text = error.to_string();
                let known = self.change(|record| {
                    record.failures += 1;
                    let before = record.problem.replace((Watching::K02, text.clone()));
                    before.is_some_and(|(code, before)| code == Watching::K02 && before == text)
                });
                // Each failure is counted; the log has the first of a row.
                if !known {
                    let (code, file) = (Watching::K02.entry().code, self.place.file());
                    warn!(code, file = %file.display(), %error, "the snapshot cannot be written, trying again");
                }
                false
            }
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut Record) -> R) -> R {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For `/state`.
    pub(crate) fn to_json(&self) -> Value {
        self.change(|record| {
            json!({
                "file": self.place.file().display().to_string(),
                "restored": record.restored.map(|(age, objects)| json!({
                    "confirmedSecondsBeforeStart": age.as_secs(), "objects": objects,
                })),
                "writtenSecondsAgo": record.written.map(|(at, _)| at.elapsed().as_secs_f64()),
                "bytes": record.written.map(|(_, bytes)| bytes),
                "writes": record.writes,
                "failures": record.failures,
                "problem": record.problem.as_ref().map(|(code, error)| json!({
                    "code": code.entry().code, "error": error,
                })),
            })
        })
    }

    /// When it was last written, in seconds since 1970, how often, and how often it could not be.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        self.change(|record| {
            let at = record
                .written
                .map_or(0, |(at, _)| snapshot::unix_seconds_ago(at.elapsed()));
            (at, record.writes, record.failures)
        })
    }
}
