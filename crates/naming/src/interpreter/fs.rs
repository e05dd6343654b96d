//! `io.l5d.fs`: a dtab in a file, followed while it changes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dtab::{Dtab, Path};
use serde_json::{Value, json};
use telemetry::cells::Histogram;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::{DefaultInterpreter, Interpreter};
use crate::bind::Circles;
use crate::bind::{BindError, BoundTree};
use crate::delegation::{Delegation, Node, Origin};
use crate::file::FollowedFile;
use crate::{Activity, Reads, Var};

/// Binds under the dtab of a file, on which the router's and the request's are put: they win over it.
///
/// A file that is invalid or gone later keeps the last good dtab in force. As Linkerd's `io.l5d.fs` interpreter, which
/// fails all names then.
pub struct FsInterpreter {
    inner: DefaultInterpreter,
    path: PathBuf,
    file: Var<FileDtab>,
    applied: Arc<Histogram>,
    follow: AbortHandle,
}

/// Why there is no interpreter.
#[derive(Debug, thiserror::Error)]
#[error("dtabFile {}: {reason}", path.display())]
pub struct FsInterpreterError {
    /// The file that was asked for.
    pub path: PathBuf,
    /// Why it can't be used.
    pub reason: String,
}

/// What is believed of the file.
#[derive(Clone, Debug, Default, PartialEq)]
struct FileDtab {
    /// The last good one; none while there was none.
    dtab: Option<Dtab>,
    /// What is wrong with the file as it is now.
    problem: Option<String>,
}

impl FileDtab {
    /// Takes in what was read.
    fn apply(&self, read: Result<String, String>) -> Self {
        match read.and_then(|text| Dtab::read(&text).map_err(|error| error.report(&text))) {
            Ok(dtab) => Self {
                dtab: Some(dtab),
                problem: None,
            },
            Err(problem) => Self {
                dtab: self.dtab.clone(),
                problem: Some(problem),
            },
        }
    }
}

impl FsInterpreter {
    /// An interpreter over `inner` with the dtab of this file, which must exist; it is followed on `control`.
    pub fn new(
        path: impl Into<PathBuf>,
        inner: DefaultInterpreter,
        control: &Handle,
    ) -> Result<Self, FsInterpreterError> {
        let path = path.into();
        let first = std::fs::read_to_string(&path).map_err(|error| FsInterpreterError {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let file = Var::new(FileDtab::default().apply(Ok(first)));
        let applied = Arc::new(Histogram::new());
        let follow = control
            .spawn(follow(path.clone(), file.clone(), applied.clone()))
            .abort_handle();
        Ok(Self {
            inner,
            path,
            file,
            applied,
            follow,
        })
    }

    fn dtab(
        &self,
        base: &Dtab,
        local: &Dtab,
        reads: &mut Reads,
    ) -> Result<(Dtab, Dtab), BindError> {
        let file = self.file.read(reads);
        match (&file.dtab, &file.problem) {
            (Some(dtab), _) => Ok((dtab.clone(), dtab.concat(base).concat(local))),
            (None, problem) => Err(BindError::Interpreter {
                message: format!(
                    "dtabFile {}: {}",
                    self.path.display(),
                    problem.as_deref().unwrap_or_default()
                ),
            }),
        }
    }

    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

impl Interpreter for FsInterpreter {
    fn known(&self) -> Vec<Path> {
        let mut known = self.inner.known();
        if let Ok((dtab, _)) = self.dtab(&Dtab::empty(), &Dtab::empty(), &mut Reads::new()) {
            known.extend(
                dtab.entries()
                    .iter()
                    .filter_map(|dentry| dentry.prefix.to_path()),
            );
        }
        known
    }

    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        match self.dtab(base, local, reads) {
            Ok((_, dtab)) => self.inner.bind_under(&dtab, Circles::LeftOut, path, reads),
            Err(error) => Activity::failed(error),
        }
    }

    fn bind_request(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        match self.dtab(base, &Dtab::empty(), reads) {
            Ok((_, dtab)) => self.inner.bind_request_under(&dtab, local, path, reads),
            Err(error) => Activity::failed(error),
        }
    }

    fn delegate(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation> {
        let (file, dtab) = match self.dtab(base, local, reads) {
            Ok(dtabs) => dtabs,
            Err(error) => {
                let root = Node::exception(path.clone(), None, error);
                return Some(Delegation::new(path.clone(), root, Vec::new()));
            }
        };
        let origins = vec![
            Origin::new(self.name(), &file),
            Origin::new("dtab", base),
            Origin::new("request", local),
        ];
        self.inner.delegate_under(&dtab, origins, path, reads)
    }

    fn state(&self) -> Value {
        let file = self.file.get();
        let dtab = file.dtab.as_ref().map(ToString::to_string);
        json!({"file": self.path, "dtab": dtab, "problem": file.problem})
    }

    fn applied(&self) -> Option<Arc<Histogram>> {
        Some(self.applied.clone())
    }
}

impl Drop for FsInterpreter {
    fn drop(&mut self) {
        self.follow.abort();
    }
}

impl fmt::Debug for FsInterpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsInterpreter")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Takes in the file whenever it changes.
async fn follow(path: PathBuf, file: Var<FileDtab>, applied: Arc<Histogram>) {
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
