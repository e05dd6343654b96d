//! Binds under a dtab that lies elsewhere and is followed there: the part that `io.l5d.fs` and `io.l5d.k8s.configMap` share.

use std::fmt;
use std::sync::Arc;

use dtab::{Dtab, Path};
use serde_json::{Value, json};
use telemetry::cells::Histogram;
use tokio::task::AbortHandle;

use super::{DefaultInterpreter, Interpreter};
use crate::bind::Circles;
use crate::bind::{BindError, BoundTree};
use crate::delegation::{Delegation, Node, Origin};
use crate::{Activity, Reads, Var};

/// What is believed of a dtab that is followed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveDtab {
    /// The last good one; none while there was none.
    pub dtab: Option<Dtab>,
    /// What is wrong at present: with the dtab, or with its source.
    pub problem: Option<String>,
    /// Its source has not answered yet: names wait for it.
    pub waiting: bool,
}

impl LiveDtab {
    /// Before the first answer of the source.
    pub fn awaited() -> Self {
        Self {
            waiting: true,
            ..Self::default()
        }
    }

    /// Takes in what was read: an invalid dtab leaves the last good one in force.
    #[must_use]
    pub fn apply(&self, read: Result<String, String>) -> Self {
        match read.and_then(|text| Dtab::read(&text).map_err(|error| error.report(&text))) {
            Ok(dtab) => Self {
                dtab: Some(dtab),
                problem: None,
                waiting: false,
            },
            Err(problem) => self.failed(problem),
        }
    }

    /// The same with something wrong.
    #[must_use]
    pub fn failed(&self, problem: String) -> Self {
        Self {
            problem: Some(problem),
            ..self.clone()
        }
    }
}

/// Binds under a dtab that is followed, on which the router's and the request's are put: they win over it.
pub struct LiveInterpreter {
    inner: DefaultInterpreter,
    kind: &'static str,
    /// Where the dtab lies, for messages.
    place: String,
    /// What explanations call the dtab.
    name: String,
    live: Var<LiveDtab>,
    applied: Arc<Histogram>,
    follow: AbortHandle,
}

/// What [`LiveInterpreter::new`] needs beside the interpreter that binds.
pub struct LiveSource {
    /// As in the configuration.
    pub kind: &'static str,
    /// Where the dtab lies, for messages: `dtabFile /etc/dtab`.
    pub place: String,
    /// What explanations call the dtab: `dtab`, the file's name.
    pub name: String,
    /// What is believed of it.
    pub live: Var<LiveDtab>,
    /// How long changes took to be in force since they became known, in µs.
    pub applied: Arc<Histogram>,
    /// The task that follows it; ended with the interpreter.
    pub follow: AbortHandle,
}

impl LiveInterpreter {
    /// An interpreter over `inner`.
    pub fn new(inner: DefaultInterpreter, source: LiveSource) -> Self {
        let LiveSource {
            kind,
            place,
            name,
            live,
            applied,
            follow,
        } = source;
        Self {
            inner,
            kind,
            place,
            name,
            live,
            applied,
            follow,
        }
    }

    /// The followed dtab, and the whole one.
    fn dtab(
        &self,
        base: &Dtab,
        local: &Dtab,
        reads: &mut Reads,
    ) -> Activity<(Dtab, Dtab), BindError> {
        let live = self.live.read(reads);
        match &live.dtab {
            Some(dtab) => Activity::Ok((dtab.clone(), dtab.concat(base).concat(local))),
            None if live.waiting => Activity::pending(match &live.problem {
                Some(problem) => format!("{}: {problem}", self.place),
                None => self.place.clone(),
            }),
            None => Activity::failed(BindError::Interpreter {
                message: format!(
                    "{}: {}",
                    self.place,
                    live.problem.as_deref().unwrap_or_default()
                ),
            }),
        }
    }
}

impl Interpreter for LiveInterpreter {
    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        match self.dtab(base, local, reads) {
            Activity::Ok((_, dtab)) => self.inner.bind_under(&dtab, Circles::LeftOut, path, reads),
            Activity::Pending(waiting_for) => Activity::Pending(waiting_for),
            Activity::Failed(error) => Activity::Failed(error),
        }
    }

    fn bind_request(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        match self.dtab(base, &Dtab::empty(), reads) {
            Activity::Ok((_, dtab)) => self.inner.bind_request_under(&dtab, local, path, reads),
            Activity::Pending(waiting_for) => Activity::Pending(waiting_for),
            Activity::Failed(error) => Activity::Failed(error),
        }
    }

    fn delegate(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation> {
        let failed = |message: String| {
            let error = BindError::Interpreter { message };
            let root = Node::exception(path.clone(), None, error);
            Some(Delegation::new(path.clone(), root, Vec::new()))
        };
        let (live, dtab) = match self.dtab(base, local, reads) {
            Activity::Ok(dtabs) => dtabs,
            Activity::Pending(waiting_for) => return failed(format!("no dtab yet: {waiting_for}")),
            Activity::Failed(error) => {
                let root = Node::exception(path.clone(), None, (*error).clone());
                return Some(Delegation::new(path.clone(), root, Vec::new()));
            }
        };
        let origins = vec![
            Origin::new(self.name.clone(), &live),
            Origin::new("dtab", base),
            Origin::new("request", local),
        ];
        self.inner.delegate_under(&dtab, origins, path, reads)
    }

    fn kind(&self) -> &str {
        self.kind
    }

    fn state(&self) -> Value {
        let live = self.live.get();
        let dtab = live.dtab.as_ref().map(ToString::to_string);
        json!({"source": self.place, "dtab": dtab, "problem": live.problem})
    }

    fn applied(&self) -> Option<Arc<Histogram>> {
        Some(self.applied.clone())
    }
}

impl Drop for LiveInterpreter {
    fn drop(&mut self) {
        self.follow.abort();
    }
}

impl fmt::Debug for LiveInterpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveInterpreter")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
