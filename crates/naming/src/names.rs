//! A router's names: what it has bound, kept current.

use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, NameTree, Path};

use crate::{Addr, BindError, Interpreter};

/// A router's names: base dtab, interpreter and the shared cache of live bindings.
pub struct Names {}

/// What [`Names::new`] needs.
pub struct NamesConfig {
    /// Who binds.
    pub interpreter: Arc<dyn Interpreter>,
    /// The router's own dtab.
    pub base: Dtab,
    /// How much is kept.
    pub limits: NamesLimits,
    /// Where bindings are kept current.
    pub control: tokio::runtime::Handle,
}

/// How many bindings are kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct NamesLimits {
    /// Names that lead somewhere, as Linkerd's `bindingCache.paths`.
    pub paths: usize,
    /// After how long without use a binding is given up, as Linkerd's `bindingCache.idleTtlSecs`.
    pub idle: Duration,
    /// Names that lead nowhere.
    pub unknown: usize,
}

impl Default for NamesLimits {
    /// Linkerd 1's `bindingCache`: 1000 names, 600 s.
    fn default() -> Self {
        Self {
            paths: 1000,
            idle: Duration::from_secs(600),
            unknown: 1000,
        }
    }
}

impl Names {
    /// Names with nothing bound yet.
    pub fn new(config: NamesConfig) -> Arc<Self> {
        _ = config;
        Arc::new(Self {})
    }
}

/// A name with its outcome, kept current as long as anyone holds it.
#[derive(Debug)]
pub struct Binding {}

/// What a name leads to at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Not known yet.
    Pending {
        /// What is waited for.
        waiting_for: Arc<str>,
    },
    /// It can't be bound.
    Failed(Arc<BindError>),
    /// Bound: a tree without alternatives.
    Bound(NameTree<Leaf>),
}

/// Where a branch ends: a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// The cluster's identity.
    pub id: Path,
    /// What the namer did not use up.
    pub residual: Path,
    /// What is there.
    pub to: LeafTarget,
}

/// What is at a leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafTarget {
    /// The router answers this status itself.
    Status(u16),
    /// Endpoints.
    Addr(Addr),
}

/// Why a name, or a leaf, leads nowhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// No rule and no namer knows the name (RT-E101).
    Neg,
    /// A `!` or `/$/fail` (RT-E102).
    Fail,
    /// A `$` or `/$/nil` (RT-E105).
    Empty,
    /// The address set is Neg: a transformer left no address (RT-E104).
    AddrNeg,
    /// The address set is empty (RT-E105).
    AddrEmpty,
    /// The address set's source fails and nothing is known (RT-E117).
    AddrFailed(Arc<str>),
    /// Not known yet (RT-E103).
    Pending {
        /// What is waited for.
        waiting_for: Arc<str>,
    },
    /// The rules lead round in a circle, or too far (RT-E116).
    TooDeep,
    /// The lookup budget is spent (RT-E116).
    Budget,
    /// A namer or the interpreter fails (RT-E117).
    Failed(Arc<BindError>),
}
