//! What binds names under a dtab.

use std::sync::Arc;

use dtab::{Dtab, Path};
use serde_json::Value;

use crate::bind::{self, BoundTree, Mounted, Sources};
use crate::delegation::{self, Delegation, Origin};
use crate::{Namer, Reads, Transformer};

mod fs;
#[cfg(test)]
mod tests;

pub use fs::{FsInterpreter, FsInterpreterError};

/// Binds a path under a dtab: here, or by asking somebody else.
pub trait Interpreter: Send + Sync {
    /// The bound tree of `path` under `base` ++ `local`. It has no alternatives in it, is simplified, and its leaves
    /// carry weights. Never waits: what is not known yet is pending, and `reads` will tell.
    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree;

    /// The way from `path` to its leaves, for people. None when this interpreter cannot show delegations.
    fn delegate(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation>;

    /// Its state for `/ROUTER/interpreter_state/….json`.
    fn state(&self) -> Value {
        Value::Object(serde_json::Map::new())
    }
}

/// Linkerd's `default`: binds in the process itself, with the configured namers and the system namer.
pub struct DefaultInterpreter {
    sources: Sources,
    transformers: Vec<Arc<dyn Transformer>>,
}

impl DefaultInterpreter {
    /// An interpreter that asks `namers` in this order (a configuration's *last* one is to be the first here), then
    /// `system`, and passes bound names through `transformers`, in order.
    pub const fn new(
        namers: Vec<Mounted>,
        system: Arc<dyn Namer>,
        transformers: Vec<Arc<dyn Transformer>>,
    ) -> Self {
        let sources = Sources { namers, system };
        Self {
            sources,
            transformers,
        }
    }

    /// The namers, in the order in which they are asked.
    pub fn namers(&self) -> &[Mounted] {
        &self.sources.namers
    }

    pub(crate) fn bind_under(&self, dtab: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        bind::bind(dtab, &self.sources, &self.transformers, path, reads)
    }

    pub(crate) fn delegate_under(
        &self,
        dtab: &Dtab,
        origins: Vec<Origin>,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation> {
        self.transformers
            .iter()
            .all(|transformer| transformer.delegates())
            .then(|| {
                let root =
                    delegation::explain(dtab, &self.sources, &self.transformers, path, reads);
                Delegation::new(path.clone(), root, origins)
            })
    }
}

impl Interpreter for DefaultInterpreter {
    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        self.bind_under(&base.concat(local), path, reads)
    }

    fn delegate(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation> {
        let origins = vec![Origin::new("dtab", base), Origin::new("request", local)];
        self.delegate_under(&base.concat(local), origins, path, reads)
    }
}
