//! `io.l5d.fs`: a dtab in a file, followed while it changes.

use std::path::PathBuf;
use std::sync::Arc;

use telemetry::cells::Histogram;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::DefaultInterpreter;
use super::live::{LiveDtab, LiveInterpreter, LiveSource};
use crate::Var;
use crate::file::FollowedFile;

/// Why there is no interpreter.
#[derive(Debug, thiserror::Error)]
#[error("dtabFile {}: {reason}", path.display())]
pub struct FsInterpreterError {
    /// The file that was asked for.
    pub path: PathBuf,
    /// Why it can't be used.
    pub reason: String,
}

impl LiveInterpreter {
    /// An interpreter over `inner` with the dtab of this file, which must exist; it is followed on `control`.
    ///
    /// A file that is invalid or gone later keeps the last good dtab in force. As Linkerd's `io.l5d.fs` interpreter, which
    /// fails all names then.
    pub fn file(
        path: impl Into<PathBuf>,
        inner: DefaultInterpreter,
        control: &Handle,
    ) -> Result<Self, FsInterpreterError> {
        let path = path.into();
        let first = std::fs::read_to_string(&path).map_err(|error| FsInterpreterError {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let live = Var::new(LiveDtab::default().apply(Ok(first)));
        let applied = Arc::new(Histogram::new());
        let follow = control.spawn(follow(path.clone(), live.clone(), applied.clone()));
        let name = path.file_name().unwrap_or(path.as_os_str());
        let source = LiveSource {
            kind: "io.l5d.fs",
            place: format!("dtabFile {}", path.display()),
            name: name.to_string_lossy().into_owned(),
            live,
            applied,
            follow: follow.abort_handle(),
        };
        Ok(Self::new(inner, source))
    }
}

/// Takes in the file whenever it changes.
async fn follow(path: PathBuf, file: Var<LiveDtab>, applied: Arc<Histogram>) {
    let mut followed = FollowedFile::new(path);
    // The first look is for what happened between the first reading and the watch.
    loop {
        let (text, heard) = followed.read().await;
        let before = file.get();
        let now = before.apply(text);
        if *before != now {
            let taken = now.problem.is_none();
            match &now.problem {
                Some(problem) => {
                    warn!(file = %followed.path().display(), %problem, "dtab file not taken, the last good one stays");
                }
                None => info!(file = %followed.path().display(), "dtab file taken"),
            }
            file.set(now);
            if taken {
                applied.record(heard.elapsed().as_micros() as u64);
            }
        }
        followed.changed().await;
    }
}
