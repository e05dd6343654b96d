//! What binds names under a dtab.

use dtab::{Dtab, NameTree, Path};
use serde_json::Value;

use crate::{Activity, BindError, Bound, Delegation, Reads};

/// Binds a path under a dtab: here, or by asking somebody else.
pub trait Interpreter: Send + Sync {
    /// The bound tree of `path` under `base` ++ `local`. It has no alternatives in it, is simplified, and its leaves
    /// carry weights. Never waits: what is not known yet is pending, and `reads` will tell.
    fn bind(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Activity<NameTree<Bound>, BindError>;

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
