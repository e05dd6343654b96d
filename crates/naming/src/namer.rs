//! What answers concrete paths, and what rewrites the answers: the traits that sources of names implement.

use std::sync::Arc;

use dtab::{NameTree, Path};
use serde_json::Value;

use crate::{BindError, Bound, Name, Reads};

/// The state of something that is worked out from changing values.
#[derive(Clone, Debug)]
pub enum Activity<T, E = NamerError> {
    /// Not known yet; what is waited for, for people.
    Pending(Arc<str>),
    /// Not to be had at present.
    Failed(Arc<E>),
    /// Known.
    Ok(T),
}

impl<T, E> Activity<T, E> {
    /// Not known yet, and what is waited for.
    pub fn pending(waiting_for: impl Into<Arc<str>>) -> Self {
        Self::Pending(waiting_for.into())
    }

    /// Not to be had because of this.
    pub fn failed(error: impl Into<Arc<E>>) -> Self {
        Self::Failed(error.into())
    }

    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Activity<U, E> {
        match self {
            Self::Pending(waiting_for) => Activity::Pending(waiting_for),
            Self::Failed(error) => Activity::Failed(error),
            Self::Ok(value) => Activity::Ok(change(value)),
        }
    }

    /// The value, if it is known.
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(value) => Some(value),
            _ => None,
        }
    }
}

/// Why a namer has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamerError {
    /// `/$/class…`, and there is no such system namer; in Linkerd's words.
    #[error("Unknown namer: {class} for path: {path}")]
    UnknownNamer {
        /// The segment behind `/$/`.
        class: String,
        /// The path that was asked for.
        path: Path,
    },
    /// The namer rewrites the name to a text that is no path.
    #[error("{message}")]
    NotAPath {
        /// The parser's message.
        message: String,
    },
    /// The namer can't take such a name (an empty label in `io.buoyant.http.domainToPath`).
    #[error("{message}")]
    Unfit {
        /// What is wrong with it.
        message: String,
    },
    /// The namer's source answers errors, and nothing is known from before.
    #[error("{message}")]
    Unavailable {
        /// What the source answers.
        message: String,
    },
}

/// Answers concrete paths from one source.
pub trait Namer: Send + Sync {
    /// Its place behind `/#`, such as `/io.l5d.fs`: it is asked for paths that start with `/#/io.l5d.fs`.
    ///
    /// The system namer has the root here and is asked with the whole path.
    fn prefix(&self) -> &Path;

    /// The answer to what is behind the prefix. Never waits: what is not known yet is [`Activity::Pending`], and
    /// `reads` will tell.
    ///
    /// [`NameTree::Neg`] lets the next namer of the same prefix answer. Ids of bound names are whole, with `/#` and
    /// the prefix.
    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>>;

    /// All names it can enumerate, whole, for `/bound-names.json`.
    fn names(&self) -> Vec<Path> {
        Vec::new()
    }

    /// The names it knows, whole, for suggestions to people; some namers know names that they don't enumerate as Linkerd
    /// understands it. One path for a name suffices, and there may be as many as the source has.
    fn known(&self) -> Vec<Path> {
        self.names()
    }

    /// Its state, for `/namer_state/PREFIX.json`.
    fn state(&self) -> Value {
        Value::Object(serde_json::Map::new())
    }

    /// Why `rest` has no answer, in a few words for people: ``no Service `web` in namespace `default` ``. None when
    /// there is nothing to say beyond that; called only when somebody wants an explanation.
    fn why_not(&self, rest: &Path) -> Option<String> {
        _ = rest;
        None
    }
}

/// Rewrites a bound name's endpoints, and its id with them: `/%` + [`Transformer::prefix`] + the id before.
pub trait Transformer: Send + Sync {
    /// Its `kind`.
    fn kind(&self) -> &str;

    /// Its place behind `/%`, such as `/io.l5d.k8s.daemonset/default/incoming/l5d`.
    fn prefix(&self) -> &Path;

    /// The rewritten name of one bound leaf.
    ///
    /// Neg, pending and failed address sets pass; a set of which nothing is left becomes [`crate::Addr::Neg`]. What is
    /// read for the decision is read by the address set (its [`crate::Addrs`] reads the gateways, too), so that the
    /// name itself stays the same.
    fn transform(&self, bound: Bound) -> NameTree<Bound>;

    /// The rewritten tree; each leaf by itself unless the kind puts something else in the tree's place.
    ///
    /// `bind` binds further paths, see [`Rebind`].
    fn transform_tree(
        &self,
        tree: NameTree<Bound>,
        bind: &mut dyn Rebind,
        reads: &mut Reads,
    ) -> Activity<NameTree<Bound>, BindError> {
        _ = (bind, reads);
        Activity::Ok(each_leaf(tree, &mut |bound| self.transform(bound)))
    }

    /// Whether names transformed by it can be explained; `io.l5d.const` and `io.l5d.replace` can't, as in Linkerd.
    fn delegates(&self) -> bool {
        true
    }
}

/// What a transformer may ask for beside the tree it is given.
pub trait Rebind {
    /// `path` bound as the name at hand is: under the same dtab, with the same namers.
    fn bind(&mut self, path: &Path, reads: &mut Reads) -> Activity<NameTree<Bound>, BindError>;

    /// `path` bound with an empty dtab by the system namers alone.
    fn bind_plain(
        &mut self,
        path: &Path,
        reads: &mut Reads,
    ) -> Activity<NameTree<Bound>, BindError>;
}

/// The tree with another tree in each leaf's place.
pub fn each_leaf<T, U>(tree: NameTree<T>, change: &mut dyn FnMut(T) -> NameTree<U>) -> NameTree<U> {
    match tree {
        NameTree::Leaf(leaf) => change(leaf),
        NameTree::Alt(trees) => NameTree::Alt(
            trees
                .into_iter()
                .map(|tree| each_leaf(tree, change))
                .collect(),
        ),
        NameTree::Union(branches) => NameTree::Union(
            branches
                .into_iter()
                .map(|b| dtab::Weighted::new(b.weight, each_leaf(b.tree, change)))
                .collect(),
        ),
        NameTree::Neg => NameTree::Neg,
        NameTree::Fail => NameTree::Fail,
        NameTree::Empty => NameTree::Empty,
    }
}
