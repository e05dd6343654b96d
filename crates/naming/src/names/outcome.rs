//! What a name leads to at one moment, and why it leads nowhere.

use std::sync::Arc;

use dtab::{NameTree, Path};

use crate::bind::BindError;
use crate::{Addr, Bound, Reads, Target};

/// What a name leads to at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Not known yet.
    Pending {
        /// What is waited for.
        waiting_for: Arc<str>,
    },
    /// It can't be bound, and was not before.
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
    /// A `$` or `/$/nil`: bound to nothing (RT-E105).
    Empty,
    /// A transformer left no address (RT-E104).
    AddrNeg,
    /// The name exists, with no endpoint ready (RT-E105).
    AddrEmpty,
    /// The source of the addresses fails and nothing is known (RT-E117).
    AddrFailed(Arc<str>),
    /// Not known yet (RT-E103).
    Pending {
        /// What is waited for.
        waiting_for: Arc<str>,
    },
    /// The rules lead too far, most likely round in a circle (RT-E116).
    TooDeep,
    /// The lookups for one name are used up (RT-E116).
    Budget,
    /// A namer or the interpreter fails (RT-E117).
    Failed(Arc<BindError>),
}

impl Outcome {
    /// Why it leads nowhere; none when at least one branch leads to an endpoint or to a status.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Pending { waiting_for } => Some(Cause::Pending {
                waiting_for: waiting_for.clone(),
            }),
            Self::Failed(error) => Some(match **error {
                BindError::TooDeep | BindError::TooLong { .. } => Cause::TooDeep,
                BindError::Budget => Cause::Budget,
                _ => Cause::Failed(error.clone()),
            }),
            Self::Bound(tree) => Cause::of(tree),
        }
    }

    /// Whether it is worth waiting for: not known yet, or without a usable branch and one not known yet.
    pub fn is_pending(&self) -> bool {
        matches!(self.cause(), Some(Cause::Pending { .. }))
    }
}

impl Leaf {
    /// Why this leaf leads nowhere.
    pub fn cause(&self) -> Option<Cause> {
        match &self.to {
            LeafTarget::Status(_) => None,
            LeafTarget::Addr(Addr::Pending) => Some(Cause::Pending {
                waiting_for: format!("the addresses of {}", self.id).into(),
            }),
            LeafTarget::Addr(Addr::Neg) => Some(Cause::AddrNeg),
            LeafTarget::Addr(Addr::Failed(error)) => Some(Cause::AddrFailed(error.clone())),
            LeafTarget::Addr(Addr::Bound(endpoints)) => {
                endpoints.is_empty().then_some(Cause::AddrEmpty)
            }
        }
    }
}

impl Cause {
    /// Why a bound tree, or a branch of one, leads nowhere: of a union's branches the one that may still come, else
    /// the first.
    pub fn of(tree: &NameTree<Leaf>) -> Option<Self> {
        match tree {
            NameTree::Leaf(leaf) => leaf.cause(),
            NameTree::Neg => Some(Self::Neg),
            NameTree::Fail => Some(Self::Fail),
            NameTree::Empty => Some(Self::Empty),
            NameTree::Alt(trees) => Self::of_all(trees.iter()),
            NameTree::Union(branches) => Self::of_all(branches.iter().map(|branch| &branch.tree)),
        }
    }

    fn of_all<'t>(trees: impl Iterator<Item = &'t NameTree<Leaf>>) -> Option<Self> {
        let causes: Vec<_> = trees.map(Self::of).collect::<Option<_>>()?;
        let pending = causes
            .iter()
            .position(|cause| matches!(cause, Self::Pending { .. }));
        causes
            .into_iter()
            .nth(pending.unwrap_or(0))
            .or(Some(Self::Neg))
    }
}

/// The addresses at this moment. Where they are not to be had now, `before` tells the last that were.
pub(super) fn snapshot(
    tree: &NameTree<Bound>,
    before: Option<&Outcome>,
    reads: &mut Reads,
) -> NameTree<Leaf> {
    tree.map(|bound| Leaf {
        id: bound.id.clone(),
        residual: bound.residual.clone(),
        to: match &bound.target {
            Target::Status(code) => LeafTarget::Status(*code),
            Target::Endpoints(addrs) => LeafTarget::Addr(match addrs.addr(reads) {
                gone @ (Addr::Pending | Addr::Failed(_)) => {
                    last_good(&bound.id, before).unwrap_or(gone)
                }
                addr => addr,
            }),
        },
    })
}

fn last_good(id: &Path, before: Option<&Outcome>) -> Option<Addr> {
    let Some(Outcome::Bound(tree)) = before else {
        return None;
    };
    let mut found = None;
    tree.for_each_leaf(&mut |leaf: &Leaf| {
        if let LeafTarget::Addr(addr @ Addr::Bound(_)) = &leaf.to
            && leaf.id == *id
        {
            found.get_or_insert_with(|| addr.clone());
        }
    });
    found
}
