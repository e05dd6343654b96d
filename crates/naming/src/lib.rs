//! From a path to endpoints that change. [`names`] keeps what a router has bound (start reading there), [`interpreter`]
//! binds one path under a dtab, [`bind`] is the evaluation itself, [`namer`] says what sources of names implement and
//! [`endpoint`] what names end in, [`state`] holds values that change, [`delegation`] explains a name's way for people.
//! [`namers`] are the sources of names that need no cluster, [`transform`] the transformers, [`matcher`] patterns of paths,
//! [`file`] follows one file.
//!
//! Not here: the language of dtabs (`dtab`), what a request is (`router`), Kubernetes (`k8s`).

pub mod bind;
pub mod delegation;
pub mod endpoint;
pub mod file;
pub mod interpreter;
pub mod matcher;
pub mod namer;
pub mod namers;
pub mod names;
pub mod near;
pub mod state;
#[cfg(test)]
mod test_support;
pub mod transform;
mod words;

pub use bind::{BindError, BoundTree, Mounted};
pub use delegation::Delegation;
pub use endpoint::{Addr, Addrs, Bound, Endpoint, Name, Target};
pub use interpreter::{
    DefaultInterpreter, FsInterpreterError, Interpreter, LiveDtab, LiveInterpreter, LiveSource,
};
pub use matcher::{Captures, PathMatcher};
pub use namer::{Activity, Namer, NamerError, Rebind, Transformer, each_leaf};
pub use names::{
    Binding, Cause, Delegations, Leaf, LeafTarget, Names, NamesConfig, NamesLimits, Outcome,
};
pub use state::{Reads, Var};
pub use words::words;
