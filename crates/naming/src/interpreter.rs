//! What binds names under a dtab.

use std::sync::Arc;

use dtab::{Dtab, Path};
use serde_json::Value;
use telemetry::cells::Histogram;

use crate::bind::{self, BoundTree, Circles, Mounted, Sources};
use crate::delegation::{self, Delegation, Origin};
use crate::{Activity, BindError, Namer, Reads, Transformer, Var};

mod fs;
mod live;
#[cfg(test)]
mod tests;

pub use fs::FsInterpreterError;
pub use live::{LiveDtab, LiveInterpreter, LiveSource};

/// Binds a path under a dtab: here, or by asking somebody else.
pub trait Interpreter: Send + Sync {
    /// The bound tree of `path` under `base` ++ `local`. It has no alternatives in it, is simplified, and its leaves
    /// carry weights. Never waits: what is not known yet is pending, and `reads` will tell.
    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree;

    /// The same for a request that brings `local` along. A union's branch that leads round in a circle is left out, as
    /// in Finagle, unless the request's own rules made the circle: then the name is refused ([`BindError::TooDeep`]).
    fn bind_request(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        self.bind(base, local, path, reads)
    }

    /// The way from `path` to its leaves, for people. None when this interpreter cannot show delegations.
    fn delegate(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation>;

    /// The names that its namers know, as [`Namer::known`].
    fn known(&self) -> Vec<Path> {
        Vec::new()
    }

    /// Its `kind`, as in the configuration.
    fn kind(&self) -> &str {
        "default"
    }

    /// Its state for `/ROUTER/interpreter_state/….json`.
    fn state(&self) -> Value {
        Value::Object(serde_json::Map::new())
    }

    /// With which version of a store's dtab names are routed, and what changes when that does; none when it knows of no
    /// versions.
    fn routed(&self) -> Option<(Routed, Var<u64>)> {
        None
    }

    /// How long changes of its own dtab took to be in force since they became known, in µs; none when it has no dtab.
    fn applied(&self) -> Option<Arc<Histogram>> {
        None
    }
}

/// With which version of a store's dtab names are routed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// The number of the oldest version that a name in use is bound under; none when no name is in use.
    pub number: Option<u64>,
    /// Whether the store says versions.
    pub tells: bool,
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

    pub(crate) fn bind_under(
        &self,
        dtab: &Dtab,
        circles: Circles,
        path: &Path,
        reads: &mut Reads,
    ) -> BoundTree {
        bind::bind(
            dtab,
            &self.sources,
            &self.transformers,
            path,
            reads,
            circles,
        )
    }

    /// As [`Interpreter::bind_request`].
    pub(crate) fn bind_request_under(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> BoundTree {
        if local.is_empty() {
            return self.bind_under(base, Circles::LeftOut, path, reads);
        }
        let whole = base.concat(local);
        let answer = self.bind_under(&whole, Circles::Refused, path, reads);
        let refused = |tree: &BoundTree| matches!(tree, Activity::Failed(error) if **error == BindError::TooDeep);
        if refused(&answer) && refused(&self.bind_under(base, Circles::Refused, path, reads)) {
            return self.bind_under(&whole, Circles::LeftOut, path, reads);
        }
        answer
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
    fn known(&self) -> Vec<Path> {
        let namers = self.sources.namers.iter();
        namers.flat_map(|mounted| mounted.namer.known()).collect()
    }

    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        self.bind_under(&base.concat(local), Circles::LeftOut, path, reads)
    }

    fn bind_request(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        self.bind_request_under(base, local, path, reads)
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
