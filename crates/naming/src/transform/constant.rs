//! Transformers that put another name in the place of the bound one: `io.l5d.const`, `io.l5d.replace`.

use dtab::{NameTree, Path};

use super::prefixed;
use crate::{Activity, BindError, Bound, Reads, Rebind, Transformer, each_leaf};

/// `io.l5d.const`: whatever was asked for, this name is the answer.
#[derive(Clone, Debug)]
pub struct Const {
    prefix: Path,
    path: Path,
}

impl Const {
    /// A transformer with Linkerd's prefix, `/io.l5d.const`.
    pub fn new(path: Path) -> Self {
        Self::at(Path::utf8(["io.l5d.const"]), path)
    }

    /// A transformer with another prefix.
    pub const fn at(prefix: Path, path: Path) -> Self {
        Self { prefix, path }
    }
}

impl Transformer for Const {
    fn kind(&self) -> &str {
        "io.l5d.const"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// One leaf alone can't be answered for, only the whole: see [`Transformer::transform_tree`].
    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        NameTree::Leaf(bound)
    }

    /// The tree of the constant's path, whatever the other was, `~` too.
    fn transform_tree(
        &self,
        _: NameTree<Bound>,
        bind: &mut dyn Rebind,
        reads: &mut Reads,
    ) -> Activity<NameTree<Bound>, BindError> {
        bind.bind(&self.path, reads)
            .map(|tree| under(&self.prefix, tree))
    }

    fn delegates(&self) -> bool {
        false
    }
}

/// `io.l5d.replace`: this name in the place of every bound one; what is not bound stays as it is.
#[derive(Clone, Debug)]
pub struct Replace {
    prefix: Path,
    path: Path,
}

impl Replace {
    /// A transformer with Linkerd's prefix, `/io.l5d.replace`.
    pub fn new(path: Path) -> Self {
        Self::at(Path::utf8(["io.l5d.replace"]), path)
    }

    /// A transformer with another prefix.
    pub const fn at(prefix: Path, path: Path) -> Self {
        Self { prefix, path }
    }
}

impl Transformer for Replace {
    fn kind(&self) -> &str {
        "io.l5d.replace"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// A leaf can't be replaced without binding: see [`Transformer::transform_tree`].
    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        NameTree::Leaf(bound)
    }

    /// The path is bound with an empty dtab by the system namers.
    fn transform_tree(
        &self,
        tree: NameTree<Bound>,
        bind: &mut dyn Rebind,
        reads: &mut Reads,
    ) -> Activity<NameTree<Bound>, BindError> {
        let mut leaves = 0;
        tree.for_each_leaf(&mut |_| leaves += 1);
        if leaves == 0 {
            return Activity::Ok(tree);
        }
        bind.bind_plain(&self.path, reads).map(|other| {
            let other = under(&self.prefix, other);
            each_leaf(tree, &mut |leaf: Bound| reweighed(&other, leaf.weight))
        })
    }

    fn delegates(&self) -> bool {
        false
    }
}

/// The tree with ids below a transformer's prefix.
fn under(prefix: &Path, tree: NameTree<Bound>) -> NameTree<Bound> {
    each_leaf(tree, &mut |bound: Bound| {
        let id = prefixed(prefix, &bound.id);
        NameTree::Leaf(Bound { id, ..bound })
    })
}

/// The tree in the place of a leaf, whose union's weight its own leaves inherit.
fn reweighed(tree: &NameTree<Bound>, weight: Option<f64>) -> NameTree<Bound> {
    tree.map(|bound| {
        let mut bound = bound.clone();
        bound.weight = bound.weight.or(weight);
        bound
    })
}
