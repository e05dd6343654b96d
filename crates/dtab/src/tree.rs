//! Name trees: alternatives and weighted unions.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::{ParseError, Path, parse, print};

/// Where a name may lead: to one of several alternatives, or to several at once by weight.
///
/// A tree read from text is at most some 500 levels deep ([`MAX_NESTING`](crate::MAX_NESTING)); the functions here
/// recurse, as does dropping a tree, so who builds trees by other means bounds their depth.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NameTree<T> {
    /// Where a branch ends.
    Leaf(T),
    /// `a | b`: the first that is not [`NameTree::Neg`].
    Alt(Vec<Self>),
    /// `3 * a & 1 * b`: all of them, by weight.
    Union(Vec<Weighted<T>>),
    /// `~`: no such name; an alternative goes on to the next.
    Neg,
    /// `!`: no such name, and no alternative is tried.
    Fail,
    /// `$`: the name exists and nothing is behind it.
    Empty,
}

/// A branch of a union.
#[derive(Clone, Debug)]
pub struct Weighted<T> {
    /// The share, in proportion to those of the other branches; not negative, not NaN, 1 when none is written.
    pub weight: f64,
    /// The branch.
    pub tree: NameTree<T>,
}

impl<T> Weighted<T> {
    /// The weight of a branch that names none, as Finagle's `NameTree.Weighted.defaultWeight`.
    pub const DEFAULT: f64 = 1.0;

    /// A branch with its weight.
    pub const fn new(weight: f64, tree: NameTree<T>) -> Self {
        Self { weight, tree }
    }
}

impl<T: PartialEq> PartialEq for Weighted<T> {
    fn eq(&self, other: &Self) -> bool {
        self.weight.to_bits() == other.weight.to_bits() && self.tree == other.tree
    }
}

impl<T: Eq> Eq for Weighted<T> {}

impl<T: Hash> Hash for Weighted<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.weight.to_bits().hash(state);
        self.tree.hash(state);
    }
}

/// What a tree evaluates to, in the three ways that an alternative tells apart.
enum Eval<'a, T> {
    Neg,
    Fail,
    Set(Vec<&'a T>),
}

impl<T> NameTree<T> {
    /// Whether this is [`NameTree::Neg`] itself; `~ | ~` is not.
    pub const fn is_neg(&self) -> bool {
        matches!(self, Self::Neg)
    }

    /// The same tree with other leaves.
    pub fn map<U>(&self, mut change: impl FnMut(&T) -> U) -> NameTree<U> {
        self.map_with(&mut change)
    }

    fn map_with<U>(&self, change: &mut impl FnMut(&T) -> U) -> NameTree<U> {
        match self {
            Self::Leaf(leaf) => NameTree::Leaf(change(leaf)),
            Self::Alt(trees) => NameTree::Alt(trees.iter().map(|t| t.map_with(change)).collect()),
            Self::Union(branches) => NameTree::Union(
                branches
                    .iter()
                    .map(|b| Weighted::new(b.weight, b.tree.map_with(change)))
                    .collect(),
            ),
            Self::Neg => NameTree::Neg,
            Self::Fail => NameTree::Fail,
            Self::Empty => NameTree::Empty,
        }
    }

    /// Calls `visit` with every leaf, from left to right.
    pub fn for_each_leaf<'a>(&'a self, visit: &mut dyn FnMut(&'a T)) {
        match self {
            Self::Leaf(leaf) => visit(leaf),
            Self::Alt(trees) => trees.iter().for_each(|t| t.for_each_leaf(visit)),
            Self::Union(branches) => branches.iter().for_each(|b| b.tree.for_each_leaf(visit)),
            Self::Neg | Self::Fail | Self::Empty => {}
        }
    }

    /// An equivalent tree without branches that can't be reached, as Finagle's `NameTree.simplified`.
    ///
    /// Alternatives lose `~` and what is behind a `!`, unions lose `~` and `!`, a node with one branch left becomes
    /// that branch. Nested nodes are not merged and weights are not scaled.
    #[must_use]
    pub fn simplified(&self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Alt(trees) => simplify_alt(trees),
            Self::Union(branches) => simplify_union(branches),
            other => other.clone(),
        }
    }

    /// The distinct leaves that the tree stands for, weights aside; none when it evaluates to `~` or `!`.
    ///
    /// A `$` is a success with nothing in it. A union of nothing but `!` counts as `~`, so an alternative around it
    /// goes on. As Finagle's `NameTree.eval`.
    pub fn eval(&self) -> Option<Vec<&T>>
    where
        T: Eq + Hash,
    {
        match self.evaluate() {
            Eval::Neg | Eval::Fail => None,
            Eval::Set(leaves) => Some(leaves),
        }
    }

    fn evaluate(&self) -> Eval<'_, T>
    where
        T: Eq + Hash,
    {
        match self {
            Self::Leaf(leaf) => Eval::Set(vec![leaf]),
            Self::Empty => Eval::Set(Vec::new()),
            Self::Neg => Eval::Neg,
            Self::Fail => Eval::Fail,
            Self::Alt(trees) => trees
                .iter()
                .map(Self::evaluate)
                .find(|value| !matches!(value, Eval::Neg))
                .unwrap_or(Eval::Neg),
            Self::Union(branches) => match branches.as_slice() {
                [lone] => lone.tree.evaluate(),
                branches => evaluate_union(branches),
            },
        }
    }
}

fn evaluate_union<T: Eq + Hash>(branches: &[Weighted<T>]) -> Eval<'_, T> {
    let mut succeeded = false;
    let mut seen = HashSet::new();
    let mut leaves = Vec::new();
    for branch in branches {
        if let Eval::Set(set) = branch.tree.evaluate() {
            succeeded = true;
            leaves.extend(set.into_iter().filter(|leaf| seen.insert(*leaf)));
        }
    }
    if succeeded {
        Eval::Set(leaves)
    } else {
        Eval::Neg
    }
}

fn simplify_alt<T: Clone>(trees: &[NameTree<T>]) -> NameTree<T> {
    if let [lone] = trees {
        return lone.simplified();
    }
    let mut kept = Vec::new();
    for tree in trees {
        match tree.simplified() {
            NameTree::Neg => {}
            NameTree::Fail => {
                kept.push(NameTree::Fail);
                break;
            }
            other => kept.push(other),
        }
    }
    match kept.len() {
        0 => NameTree::Neg,
        1 => kept.swap_remove(0),
        _ => NameTree::Alt(kept),
    }
}

fn simplify_union<T: Clone>(branches: &[Weighted<T>]) -> NameTree<T> {
    if let [lone] = branches {
        return lone.tree.simplified();
    }
    let mut kept: Vec<_> = branches
        .iter()
        .map(|b| Weighted::new(b.weight, b.tree.simplified()))
        .filter(|b| !matches!(b.tree, NameTree::Neg | NameTree::Fail))
        .collect();
    match kept.len() {
        0 => NameTree::Neg,
        1 => kept.swap_remove(0).tree,
        _ => NameTree::Union(kept),
    }
}

impl NameTree<Path> {
    /// Reads a tree of paths as Finagle's `NameTree.read` does.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        parse::read_tree(text)
    }
}

impl FromStr for NameTree<Path> {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

impl<T: fmt::Display> fmt::Display for NameTree<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::tree(self, f)
    }
}
