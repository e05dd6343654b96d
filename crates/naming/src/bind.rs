//! Binding one path under a dtab: the evaluation itself, over snapshots. As Finagle's `Namer.bind` with Linkerd's
//! namers in front of the system namer; the cases are in `tests/vectors/bind.jsonl`.

use std::sync::Arc;

use dtab::{Dentry, Dtab, MAX_PATH_SEGMENTS, NameTree, Path, Weighted};

use crate::{Activity, Bound, Name, Namer, NamerError, Reads, Rebind, Transformer};

/// Hops from a path to a bound name, as Finagle's and Linkerd's limit.
pub const MAX_DEPTH: usize = 100;

/// Lookups for one name: far more than honest rules take, and done in a few milliseconds.
const LOOKUPS: usize = 5_000;
/// A path of more segments than this counts as several lookups, as copying it costs as much.
const SEGMENTS_A_LOOKUP: usize = 64;
/// Alternatives and unions inside each other, through all hops: bounds the recursion and the depth of the result.
const MAX_NESTED: usize = 500;

/// Why a path is not bound. A failed branch stops an alternative and is left out of a union, except
/// [`BindError::Budget`], which ends the whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// More than [`MAX_DEPTH`] hops: most likely rules that lead round in a circle. In Finagle's words.
    #[error("Max recursion level: {MAX_DEPTH} reached in Namer lookup")]
    TooDeep,
    /// A path grew beyond the limit on its way.
    #[error("the path grew to {segments} segments on its way, the limit is {MAX_PATH_SEGMENTS}")]
    TooLong {
        /// How long it would have become.
        segments: usize,
    },
    /// Binding took more work than one name may take: rules that branch again at each of many hops.
    #[error("the lookups for one name are used up: the rules branch again at each hop")]
    Budget,
    /// `/$/class…`, and there is no such system namer; in Linkerd's words.
    #[error("Unknown namer: {class} for path: {path}")]
    UnknownNamer {
        /// The segment behind `/$/`.
        class: String,
        /// The path that was asked for.
        path: Path,
    },
    /// A namer has no answer.
    #[error("{error}")]
    Namer {
        /// The path that it was asked for.
        path: Path,
        /// What it says.
        error: Arc<NamerError>,
    },
    /// The interpreter's own source (a store, a file) answers errors and nothing is known from before.
    #[error("{message}")]
    Interpreter {
        /// What it says.
        message: String,
    },
}

/// A bound tree, or why there is none.
pub type BoundTree = Activity<NameTree<Bound>, BindError>;

/// The work for one name is used up; ends the whole evaluation.
pub(crate) struct Spent;

/// What is left of the work that one name may take.
pub(crate) struct Work(usize);

impl Work {
    pub(crate) const fn new() -> Self {
        Self(LOOKUPS)
    }

    /// Takes one lookup of `path`.
    pub(crate) fn spend(&mut self, path: &Path) -> Result<(), Spent> {
        let cost = 1 + path.len() / SEGMENTS_A_LOOKUP;
        match self.0.checked_sub(cost) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                Err(Spent)
            }
        }
    }

    pub(crate) const fn exhaust(&mut self) {
        self.0 = 0;
    }
}

/// A namer in its place.
#[derive(Clone)]
pub struct Mounted {
    /// The paths that it is asked for start with this, `/#` + its prefix.
    pub at: Path,
    /// Who answers.
    pub namer: Arc<dyn Namer>,
    /// Applied to its bound answers, in order.
    pub transformers: Vec<Arc<dyn Transformer>>,
}

impl Mounted {
    /// A configured namer, at `/#` + its prefix.
    pub fn new(namer: Arc<dyn Namer>, transformers: Vec<Arc<dyn Transformer>>) -> Self {
        let at = Path::utf8(["#"]).concat(namer.prefix());
        Self {
            at,
            namer,
            transformers,
        }
    }
}

/// All that answers concrete paths.
pub struct Sources {
    /// Asked in this order, each for paths that start with its place. (Linkerd asks the one listed last first: who
    /// reads a configuration turns the list round.)
    pub namers: Vec<Mounted>,
    /// Asked last, with the whole path.
    pub system: Arc<dyn Namer>,
}

impl Sources {
    /// The answer to a path that no dentry matches: that of the first namer that does not say Neg.
    ///
    /// A namer's transformers are applied when its answer is bound throughout; a tree with paths in it passes as it is.
    pub(crate) fn ask(
        &self,
        path: &Path,
        rebind: &mut dyn Rebind,
        reads: &mut Reads,
    ) -> Activity<NameTree<Name>, BindError> {
        for mounted in self
            .namers
            .iter()
            .filter(|mounted| path.starts_with(&mounted.at))
        {
            match mounted.namer.lookup(&path.drop(mounted.at.len()), reads) {
                Activity::Ok(NameTree::Neg) => {}
                answer => return finish(answer, path, &mounted.transformers, rebind, reads),
            }
        }
        self.ask_system(path, reads)
    }

    pub(crate) fn ask_system(
        &self,
        path: &Path,
        reads: &mut Reads,
    ) -> Activity<NameTree<Name>, BindError> {
        named(self.system.lookup(path, reads), path)
    }

    /// Why no namer knows `path`, if one of them can say.
    pub(crate) fn why_not(&self, path: &Path) -> Option<String> {
        let asked = self
            .namers
            .iter()
            .filter(|mounted| path.starts_with(&mounted.at));
        let mut reasons =
            asked.filter_map(|mounted| mounted.namer.why_not(&path.drop(mounted.at.len())));
        reasons.next().or_else(|| self.system.why_not(path))
    }
}

fn finish(
    answer: Activity<NameTree<Name>>,
    path: &Path,
    transformers: &[Arc<dyn Transformer>],
    rebind: &mut dyn Rebind,
    reads: &mut Reads,
) -> Activity<NameTree<Name>, BindError> {
    match (named(answer, path), transformers) {
        (Activity::Ok(tree), [_, ..]) => match all_bound(&tree) {
            Some(bound) => transformed(bound, transformers, rebind, reads)
                .map(|tree| tree.map(|b| Name::Bound(b.clone()))),
            None => Activity::Ok(tree),
        },
        (answer, _) => answer,
    }
}

/// The answer with an error that says which path was asked for.
fn named(answer: Activity<NameTree<Name>>, path: &Path) -> Activity<NameTree<Name>, BindError> {
    match answer {
        Activity::Ok(tree) => Activity::Ok(tree),
        Activity::Pending(waiting_for) => Activity::Pending(waiting_for),
        Activity::Failed(error) => Activity::failed(match &*error {
            NamerError::UnknownNamer { class, path } => BindError::UnknownNamer {
                class: class.clone(),
                path: path.clone(),
            },
            _ => BindError::Namer {
                path: path.clone(),
                error,
            },
        }),
    }
}

fn all_bound(tree: &NameTree<Name>) -> Option<NameTree<Bound>> {
    let mut whole = true;
    tree.for_each_leaf(&mut |leaf| whole &= matches!(leaf, Name::Bound(_)));
    whole.then(|| {
        crate::each_leaf(tree.clone(), &mut |leaf| match leaf {
            Name::Bound(bound) => NameTree::Leaf(bound),
            Name::Path(_) => NameTree::Neg,
        })
    })
}

/// The tree after all transformers, in order.
pub(crate) fn transformed(
    mut tree: NameTree<Bound>,
    transformers: &[Arc<dyn Transformer>],
    rebind: &mut dyn Rebind,
    reads: &mut Reads,
) -> BoundTree {
    for transformer in transformers {
        match transformer.transform_tree(tree, rebind, reads) {
            Activity::Ok(next) => tree = next,
            other => return other,
        }
    }
    Activity::Ok(tree)
}

/// The bound tree of `path` under `dtab`, and that after the interpreter's transformers.
pub(crate) fn bind(
    dtab: &Dtab,
    sources: &Sources,
    transformers: &[Arc<dyn Transformer>],
    path: &Path,
    reads: &mut Reads,
    circles: Circles,
) -> BoundTree {
    let mut evaluation = Evaluation::new(dtab, sources);
    match Rebind::bind(&mut evaluation, path, reads) {
        Activity::Ok(_) if evaluation.circled && circles == Circles::Refused => {
            Activity::failed(BindError::TooDeep)
        }
        Activity::Ok(tree) => transformed(tree, transformers, &mut evaluation, reads),
        other => other,
    }
}

/// What becomes of a union with a branch that leads round in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circles {
    /// The branch is left out, as in Finagle.
    LeftOut,
    /// The name is refused: a request that brings such rules along (Linkerd 1 is killed by them) is told so.
    Refused,
}

/// `rest` put behind a leaf of a dentry's destination.
pub(crate) fn join(dst: &Path, rest: &Path) -> Result<Path, BindError> {
    match dst.len() + rest.len() {
        segments if segments > MAX_PATH_SEGMENTS => Err(BindError::TooLong { segments }),
        _ => Ok(dst.concat(rest)),
    }
}

/// One name's way through the dtab.
///
/// It recurses at alternatives and unions, of which [`MAX_NESTED`] may lie inside each other through all hops, and at
/// namers' answers, at most [`MAX_DEPTH`] of them; plain hops are a loop.
pub(crate) struct Evaluation<'a> {
    dtab: &'a Dtab,
    sources: &'a Sources,
    /// Asks the system namer alone.
    plain: bool,
    work: Work,
    nested: usize,
    /// Some branch went too deep, even if a union left it out.
    circled: bool,
}

impl<'a> Evaluation<'a> {
    pub(crate) const fn new(dtab: &'a Dtab, sources: &'a Sources) -> Self {
        Self {
            dtab,
            sources,
            plain: false,
            work: Work::new(),
            nested: 0,
            circled: false,
        }
    }

    fn too_deep(&mut self) -> BoundTree {
        self.circled = true;
        Activity::failed(BindError::TooDeep)
    }

    fn path(
        &mut self,
        mut path: Path,
        mut depth: usize,
        weight: Option<f64>,
        reads: &mut Reads,
    ) -> Result<BoundTree, Spent> {
        let dtab = self.dtab;
        loop {
            if depth > MAX_DEPTH {
                return Ok(self.too_deep());
            }
            self.work.spend(&path)?;
            let mut matches = dtab.matches(&path);
            depth += 1;
            match (matches.next(), matches.next()) {
                // A lone `~` is the same as no entry.
                (None, _) => return self.namers(&path, depth, weight, reads),
                (Some(entry), None) if entry.dst.is_neg() => {
                    return self.namers(&path, depth, weight, reads);
                }
                (
                    Some(Dentry {
                        prefix,
                        dst: NameTree::Leaf(dst),
                    }),
                    None,
                ) => match join(dst, &path.drop(prefix.len())) {
                    Ok(next) => path = next,
                    Err(error) => return Ok(Activity::failed(error)),
                },
                (Some(entry), None) => return self.entry(entry, &path, depth, weight, reads),
                (Some(first), Some(second)) => {
                    if depth > MAX_DEPTH {
                        return Ok(self.too_deep());
                    }
                    return self.nest(|own| {
                        for entry in [first, second].into_iter().chain(matches) {
                            match own.entry(entry, &path, depth, weight, reads)? {
                                Activity::Ok(NameTree::Neg) => {}
                                other => return Ok(other),
                            }
                        }
                        Ok(Activity::Ok(NameTree::Neg))
                    });
                }
            }
        }
    }

    fn entry(
        &mut self,
        entry: &Dentry,
        path: &Path,
        depth: usize,
        weight: Option<f64>,
        reads: &mut Reads,
    ) -> Result<BoundTree, Spent> {
        let rest = path.drop(entry.prefix.len());
        self.tree(
            &entry.dst,
            &|dst| join(dst, &rest).map(Name::Path),
            depth,
            weight,
            reads,
        )
    }

    fn namers(
        &mut self,
        path: &Path,
        depth: usize,
        weight: Option<f64>,
        reads: &mut Reads,
    ) -> Result<BoundTree, Spent> {
        let sources = self.sources;
        let answer = match self.plain {
            true => sources.ask_system(path, reads),
            false => sources.ask(path, self, reads),
        };
        match answer {
            Activity::Pending(waiting_for) => Ok(Activity::Pending(waiting_for)),
            Activity::Failed(error) => Ok(Activity::Failed(error)),
            Activity::Ok(tree) => self.tree(&tree, &|leaf| Ok(leaf.clone()), depth, weight, reads),
        }
    }

    fn tree<T>(
        &mut self,
        tree: &NameTree<T>,
        name: &dyn Fn(&T) -> Result<Name, BindError>,
        depth: usize,
        weight: Option<f64>,
        reads: &mut Reads,
    ) -> Result<BoundTree, Spent> {
        if depth > MAX_DEPTH {
            return Ok(self.too_deep());
        }
        match tree {
            NameTree::Leaf(leaf) => match name(leaf) {
                Ok(Name::Path(path)) => self.path(path, depth, weight, reads),
                Ok(Name::Bound(bound)) => {
                    Ok(Activity::Ok(NameTree::Leaf(Bound { weight, ..bound })))
                }
                Err(error) => Ok(Activity::failed(error)),
            },
            NameTree::Neg => Ok(Activity::Ok(NameTree::Neg)),
            NameTree::Fail => Ok(Activity::Ok(NameTree::Fail)),
            NameTree::Empty => Ok(Activity::Ok(NameTree::Empty)),
            NameTree::Alt(trees) => self.nest(|own| own.alt(trees, name, depth, weight, reads)),
            NameTree::Union(branches) => {
                self.nest(|own| own.union(branches, name, depth, weight, reads))
            }
        }
    }

    /// The first that is not Neg, be it pending or failed.
    fn alt<T>(
        &mut self,
        trees: &[NameTree<T>],
        name: &dyn Fn(&T) -> Result<Name, BindError>,
        depth: usize,
        weight: Option<f64>,
        reads: &mut Reads,
    ) -> Result<BoundTree, Spent> {
        for tree in trees {
            match self.tree(tree, name, depth, weight, reads)? {
                Activity::Ok(NameTree::Neg) => {}
                other => return Ok(other),
            }
        }
        Ok(Activity::Ok(NameTree::Neg))
    }

    /// All that are bound; what is pending or failed is left out as long as there is one of them.
    fn union<T>(
        &mut self,
        branches: &[Weighted<T>],
        name: &dyn Fn(&T) -> Result<Name, BindError>,
        depth: usize,
        weight: Option<f64>,
        reads: &mut Reads,
    ) -> Result<BoundTree, Spent> {
        if let [lone] = branches {
            return self.tree(&lone.tree, name, depth, weight, reads);
        }
        let mut gathered = Gathered::default();
        for branch in branches {
            let bound = self.tree(&branch.tree, name, depth, Some(branch.weight), reads)?;
            gathered.add(branch.weight, bound);
        }
        Ok(gathered.tree())
    }

    fn nest<R>(&mut self, inside: impl FnOnce(&mut Self) -> Result<R, Spent>) -> Result<R, Spent> {
        if self.nested == MAX_NESTED {
            return Err(Spent);
        }
        self.nested += 1;
        let result = inside(self);
        self.nested -= 1;
        result
    }

    fn whole(&mut self, path: &Path, reads: &mut Reads) -> BoundTree {
        let path = path.clone();
        match self.nest(|own| own.path(path, 0, None, reads)) {
            Ok(tree) => tree,
            Err(Spent) => {
                self.work.exhaust();
                Activity::failed(BindError::Budget)
            }
        }
    }
}

impl Rebind for Evaluation<'_> {
    fn bind(&mut self, path: &Path, reads: &mut Reads) -> BoundTree {
        self.whole(path, reads)
    }

    fn bind_plain(&mut self, path: &Path, reads: &mut Reads) -> BoundTree {
        let empty = Dtab::empty();
        let mut plain = Evaluation {
            dtab: &empty,
            sources: self.sources,
            plain: true,
            work: std::mem::replace(&mut self.work, Work(0)),
            nested: self.nested,
            circled: false,
        };
        let tree = plain.whole(path, reads);
        self.work = plain.work;
        tree
    }
}

/// The branches of a union, as they get bound.
pub(crate) struct Gathered<T> {
    bound: Vec<Weighted<T>>,
    failed: Option<Arc<BindError>>,
    pending: Option<Arc<str>>,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Self {
            bound: Vec::new(),
            failed: None,
            pending: None,
        }
    }
}

impl<T> Gathered<T> {
    pub(crate) fn add(&mut self, weight: f64, tree: Activity<NameTree<T>, BindError>) {
        match tree {
            Activity::Ok(tree) => self.bound.push(Weighted::new(weight, tree)),
            Activity::Failed(error) => _ = self.failed.get_or_insert(error),
            Activity::Pending(waiting_for) => _ = self.pending.get_or_insert(waiting_for),
        }
    }

    /// What they come to; simplified, given that each branch is.
    pub(crate) fn tree(mut self) -> Activity<NameTree<T>, BindError> {
        match (self.bound.len(), self.failed, self.pending) {
            (0, Some(error), _) => return Activity::Failed(error),
            (0, None, Some(waiting_for)) => return Activity::Pending(waiting_for),
            // One branch alone stays what it is, a Fail too.
            (1, ..) => return Activity::Ok(self.bound.swap_remove(0).tree),
            _ => {}
        }
        self.bound
            .retain(|b| !matches!(b.tree, NameTree::Neg | NameTree::Fail));
        Activity::Ok(match self.bound.len() {
            0 => NameTree::Neg,
            1 => self.bound.swap_remove(0).tree,
            _ => NameTree::Union(self.bound),
        })
    }
}
