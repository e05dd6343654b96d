//! Delegation explained: the way from a path to its leaves, as Linkerd's delegate API shows it and for people.
//!
//! Where a name's evaluation stops at the first alternative that is not Neg, this follows all of them. Both ask the
//! same table and the same [`Sources`]; which branch wins is [`Delegation::chosen`].

use std::sync::Arc;

use dtab::{Dentry, Dtab, NameTree, Path, Prefix};

use crate::bind::{BindError, Gathered, MAX_DEPTH, Sources, Spent, Work, join};
use crate::{Activity, Addr, Bound, Name, Reads, Target, Transformer};

mod json;
mod print;

/// The way from a path to its leaves.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// What was asked for.
    pub path: Path,
    /// The whole way.
    pub root: Node,
    /// The tables that the rules come from, in the order in which they were put together.
    pub origins: Vec<Origin>,
}

/// A table among those that a name was delegated under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What people call it: `dtab` is the router's own, `request` came with the request.
    pub name: Arc<str>,
    /// How many rules it has.
    pub rules: usize,
}

/// One place on the way.
#[derive(Clone, Debug)]
pub struct Node {
    /// The path that is looked up here.
    pub path: Path,
    /// The rule that led here; none at the root and where a namer did.
    pub rule: Option<Arc<Rule>>,
    /// What comes of it.
    pub kind: NodeKind,
}

/// A rule and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The prefix it applied to.
    pub prefix: Prefix,
    /// What took the prefix's place.
    pub dst: NameTree<Path>,
    /// Its place among all rules, from 0.
    pub index: usize,
}

/// What comes of a path.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// No such name.
    Neg {
        /// What the namer says about it.
        reason: Option<Arc<str>>,
        /// What the namers answer all the same: a lone `~` does not keep them from being asked, although Linkerd's
        /// delegate API ends there.
        beyond: Option<Box<Node>>,
    },
    /// `!`.
    Fail,
    /// `$`.
    Empty,
    /// Not known yet.
    Pending(Arc<str>),
    /// An error ends this branch.
    Exception(Arc<BindError>),
    /// One rule, or a namer's answer, leads on.
    Delegate(Box<Node>),
    /// Alternatives, the first one first.
    Alt(Vec<Node>),
    /// A union's branches with their weights.
    Union(Vec<(f64, Node)>),
    /// A bound name, and its addresses at that moment.
    Leaf(Bound, Option<Addr>),
    /// A transformer changed a bound name.
    Transformation {
        /// The transformer's kind.
        name: String,
        /// What it got.
        before: Bound,
        /// The addresses of that.
        addr: Option<Addr>,
        /// What it made of it.
        tree: Box<Node>,
    },
}

impl Origin {
    /// A table by its name.
    pub fn new(name: impl Into<Arc<str>>, table: &Dtab) -> Self {
        Self {
            name: name.into(),
            rules: table.len(),
        }
    }
}

impl Delegation {
    /// A way with the tables it was found in.
    pub const fn new(path: Path, root: Node, origins: Vec<Origin>) -> Self {
        Self {
            path,
            root,
            origins,
        }
    }

    /// The bound tree that a request for this path gets: what the interpreter's `bind` answers.
    pub fn chosen(&self) -> Activity<NameTree<Bound>, BindError> {
        self.root
            .chosen()
            .unwrap_or_else(|Spent| Activity::failed(BindError::Budget))
    }

    /// The error that the whole way ends in, when no alternative and no union lies around it. Linkerd's API fails
    /// then.
    pub fn failed(&self) -> Option<&BindError> {
        let mut node = &self.root;
        loop {
            match &node.kind {
                NodeKind::Delegate(next) => node = next,
                NodeKind::Exception(error) => match **error {
                    BindError::TooDeep | BindError::TooLong { .. } | BindError::Budget => {
                        return Some(error);
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// What the way waits for, if a part of it is not known yet. Linkerd's API waits 2 s and answers 503.
    pub fn pending(&self) -> Option<Arc<str>> {
        let mut nodes = vec![&self.root];
        while let Some(node) = nodes.pop() {
            match &node.kind {
                NodeKind::Pending(waiting_for) => return Some(waiting_for.clone()),
                NodeKind::Delegate(next) => nodes.push(next),
                NodeKind::Transformation { tree, .. } => nodes.push(tree),
                NodeKind::Alt(branches) => nodes.extend(branches),
                NodeKind::Union(branches) => {
                    nodes.extend(branches.iter().map(|(_, branch)| branch));
                }
                _ => {}
            }
        }
        None
    }

    /// Where a rule stands, for people: `dtab:3` is the third of the router's own.
    pub fn place(&self, rule: &Rule) -> String {
        let mut before = 0;
        for origin in &self.origins {
            if rule.index < before + origin.rules {
                return format!("{}:{}", origin.name, rule.index - before + 1);
            }
            before += origin.rules;
        }
        format!("rule {}", rule.index + 1)
    }
}

impl Node {
    /// As binding chooses among the branches.
    fn chosen(&self) -> Result<Activity<NameTree<Bound>, BindError>, Spent> {
        Ok(match &self.kind {
            NodeKind::Neg {
                beyond: Some(node), ..
            } => node.chosen()?,
            NodeKind::Neg { beyond: None, .. } => Activity::Ok(NameTree::Neg),
            NodeKind::Fail => Activity::Ok(NameTree::Fail),
            NodeKind::Empty => Activity::Ok(NameTree::Empty),
            NodeKind::Pending(waiting_for) => Activity::Pending(waiting_for.clone()),
            NodeKind::Exception(error) if **error == BindError::Budget => return Err(Spent),
            NodeKind::Exception(error) => Activity::Failed(error.clone()),
            NodeKind::Delegate(next) | NodeKind::Transformation { tree: next, .. } => {
                next.chosen()?
            }
            NodeKind::Leaf(bound, _) => Activity::Ok(NameTree::Leaf(bound.clone())),
            NodeKind::Alt(branches) => {
                for branch in branches {
                    match branch.chosen()? {
                        Activity::Ok(NameTree::Neg) => {}
                        other => return Ok(other),
                    }
                }
                Activity::Ok(NameTree::Neg)
            }
            NodeKind::Union(branches) => {
                let mut gathered = Gathered::default();
                for (weight, branch) in branches {
                    gathered.add(*weight, branch.chosen()?);
                }
                gathered.tree()
            }
        })
    }

    /// The alternative that wins.
    fn alternative(branches: &[Self]) -> Result<Option<&Self>, Spent> {
        for branch in branches {
            if !matches!(branch.chosen()?, Activity::Ok(NameTree::Neg)) {
                return Ok(Some(branch));
            }
        }
        Ok(None)
    }
}

/// The way of `path` under `dtab`, after the interpreter's transformers.
pub(crate) fn explain(
    dtab: &Dtab,
    sources: &Sources,
    transformers: &[Arc<dyn Transformer>],
    path: &Path,
    reads: &mut Reads,
) -> Node {
    let mut way = Way {
        dtab,
        sources,
        work: Work::new(),
        nested: 0,
    };
    let root = way.path(path.clone(), None, None, 0, reads);
    let root = root.unwrap_or_else(|error| Node::exception(path.clone(), None, error));
    let mut root = root.simplified();
    for transformer in transformers {
        root = root.transformed(transformer.as_ref(), reads);
    }
    root
}

/// As deep as an explanation goes into alternatives and unions inside each other.
const MAX_NESTED: usize = 300;

struct Way<'a> {
    dtab: &'a Dtab,
    sources: &'a Sources,
    work: Work,
    nested: usize,
}

impl Way<'_> {
    /// What comes of `path`, to which `rule` led.
    fn path(
        &mut self,
        path: Path,
        rule: Option<&Arc<Rule>>,
        weight: Option<f64>,
        depth: usize,
        reads: &mut Reads,
    ) -> Result<Node, BindError> {
        if depth > MAX_DEPTH {
            return Err(BindError::TooDeep);
        }
        self.work.spend(&path).map_err(|Spent| BindError::Budget)?;
        let dtab = self.dtab;
        let entries: Vec<&Dentry> = dtab.matches(&path).collect();
        let kind = match entries.as_slice() {
            [] => return self.namers(path, rule, weight, depth + 1, reads),
            [lone] if lone.dst.is_neg() => {
                let beyond = self.namers(path.clone(), None, weight, depth + 1, reads)?;
                let hidden = Node {
                    path: Path::root(),
                    rule: Some(self.rule(lone)),
                    kind: match &beyond.kind {
                        NodeKind::Neg { reason, .. } => NodeKind::neg(reason.clone()),
                        _ => NodeKind::Neg {
                            reason: None,
                            beyond: Some(Box::new(beyond)),
                        },
                    },
                };
                NodeKind::Delegate(Box::new(hidden))
            }
            [lone] => NodeKind::Delegate(Box::new(self.entry(
                lone,
                &path,
                weight,
                depth + 1,
                reads,
            )?)),
            entries => {
                if depth + 1 > MAX_DEPTH {
                    return Err(BindError::TooDeep);
                }
                let branches = entries.iter();
                let branches = branches.map(|entry| {
                    let branch = self.nest(|own| own.entry(entry, &path, weight, depth + 1, reads));
                    branch
                        .unwrap_or_else(|error| Node::exception(path.clone(), rule.cloned(), error))
                });
                NodeKind::Alt(branches.collect())
            }
        };
        let rule = rule.cloned();
        Ok(Node { path, rule, kind })
    }

    fn entry(
        &mut self,
        entry: &Dentry,
        path: &Path,
        weight: Option<f64>,
        depth: usize,
        reads: &mut Reads,
    ) -> Result<Node, BindError> {
        let rest = path.drop(entry.prefix.len());
        let rule = self.rule(entry);
        let name = |dst: &Path| join(dst, &rest).map(Name::Path);
        self.tree(&entry.dst, &name, path, Some(&rule), weight, depth, reads)
    }

    fn namers(
        &mut self,
        path: Path,
        rule: Option<&Arc<Rule>>,
        weight: Option<f64>,
        depth: usize,
        reads: &mut Reads,
    ) -> Result<Node, BindError> {
        let sources = self.sources;
        let kind = match sources.ask(
            &path,
            &mut crate::bind::Evaluation::new(self.dtab, sources),
            reads,
        ) {
            Activity::Pending(waiting_for) => NodeKind::Pending(waiting_for),
            Activity::Failed(error) => NodeKind::Exception(error),
            Activity::Ok(NameTree::Neg) if depth > MAX_DEPTH => return Err(BindError::TooDeep),
            Activity::Ok(NameTree::Neg) => NodeKind::neg(sources.why_not(&path).map(Into::into)),
            Activity::Ok(tree) => {
                // As Linkerd shows it, a namer's rewriting is no step of its own.
                let name = |leaf: &Name| Ok(leaf.clone());
                return self.tree(&tree, &name, &path, rule, weight, depth, reads);
            }
        };
        let rule = rule.cloned();
        Ok(Node { path, rule, kind })
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the state of the walk; `bind`'s has one less"
    )]
    fn tree<T>(
        &mut self,
        tree: &NameTree<T>,
        name: &dyn Fn(&T) -> Result<Name, BindError>,
        path: &Path,
        rule: Option<&Arc<Rule>>,
        weight: Option<f64>,
        depth: usize,
        reads: &mut Reads,
    ) -> Result<Node, BindError> {
        if depth > MAX_DEPTH {
            return Err(BindError::TooDeep);
        }
        let kind = match tree {
            NameTree::Leaf(leaf) => match name(leaf)? {
                Name::Path(next) => return self.path(next, rule, weight, depth, reads),
                Name::Bound(bound) => {
                    let bound = Bound { weight, ..bound };
                    let addr = snapshot(&bound, reads);
                    NodeKind::Leaf(bound, addr)
                }
            },
            NameTree::Neg => {
                let (path, rule) = (Path::root(), rule.cloned());
                let kind = NodeKind::neg(None);
                return Ok(Node { path, rule, kind });
            }
            NameTree::Fail => NodeKind::Fail,
            NameTree::Empty => NodeKind::Empty,
            NameTree::Alt(trees) => {
                let branches = trees.iter().map(|tree| {
                    let branch =
                        self.nest(|own| own.tree(tree, name, path, rule, weight, depth, reads));
                    branch
                        .unwrap_or_else(|error| Node::exception(path.clone(), rule.cloned(), error))
                });
                NodeKind::Alt(branches.collect())
            }
            NameTree::Union(trees) => {
                let branches = trees.iter().map(|branch| {
                    let inner = match trees.len() {
                        1 => weight,
                        _ => Some(branch.weight),
                    };
                    let node = self
                        .nest(|own| own.tree(&branch.tree, name, path, rule, inner, depth, reads));
                    let failed = |error| Node::exception(path.clone(), rule.cloned(), error);
                    (branch.weight, node.unwrap_or_else(failed))
                });
                NodeKind::Union(branches.collect())
            }
        };
        let (path, rule) = (path.clone(), rule.cloned());
        Ok(Node { path, rule, kind })
    }

    fn nest<R>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<R, BindError>,
    ) -> Result<R, BindError> {
        if self.nested == MAX_NESTED {
            return Err(BindError::Budget);
        }
        self.nested += 1;
        let result = inside(self);
        self.nested -= 1;
        result
    }

    fn rule(&self, entry: &Dentry) -> Arc<Rule> {
        let entries = self.dtab.entries();
        // Mostly it is one of these very entries, and errors are explained to every client: don't search then.
        let offset = (&raw const *entry)
            .addr()
            .wrapping_sub(entries.as_ptr().addr())
            / size_of::<Dentry>();
        let index = match entries.get(offset) {
            Some(same) if std::ptr::eq(same, entry) => Some(offset),
            _ => entries.iter().position(|other| other == entry),
        };
        Arc::new(Rule {
            prefix: entry.prefix.clone(),
            dst: entry.dst.clone(),
            index: index.unwrap_or(usize::MAX),
        })
    }
}

/// The addresses of a bound name at this moment.
fn snapshot(bound: &Bound, reads: &mut Reads) -> Option<Addr> {
    match &bound.target {
        Target::Endpoints(addrs) => Some(addrs.addr(reads)),
        Target::Status(_) => None,
    }
}

impl NodeKind {
    const fn neg(reason: Option<Arc<str>>) -> Self {
        let beyond = None;
        Self::Neg { reason, beyond }
    }
}

impl Node {
    pub(crate) fn exception(path: Path, rule: Option<Arc<Rule>>, error: BindError) -> Self {
        let kind = NodeKind::Exception(Arc::new(error));
        Self { path, rule, kind }
    }

    /// Without steps that say nothing, as Linkerd's `DelegateTree.simplified`.
    fn simplified(self) -> Self {
        let Self { path, rule, kind } = self;
        let kind = match kind {
            NodeKind::Delegate(next) => return Self::delegate(path, rule, next.simplified()),
            NodeKind::Alt(branches) => {
                let mut flat = Vec::new();
                for branch in branches.into_iter().map(Self::simplified) {
                    match branch.kind {
                        NodeKind::Alt(inner) if branch.path == path => flat.extend(inner),
                        _ => flat.push(branch),
                    }
                }
                match flat.len() {
                    0 => NodeKind::neg(None),
                    1 => return Self::delegate(path, rule, flat.swap_remove(0)),
                    _ => NodeKind::Alt(flat),
                }
            }
            NodeKind::Union(branches) => {
                let mut branches: Vec<_> = branches
                    .into_iter()
                    .map(|(w, branch)| (w, branch.simplified()))
                    .collect();
                match branches.len() {
                    0 => NodeKind::neg(None),
                    1 => return Self::delegate(path, rule, branches.swap_remove(0).1),
                    _ => NodeKind::Union(branches),
                }
            }
            NodeKind::Neg { reason, beyond } => NodeKind::Neg {
                reason,
                beyond: beyond.map(|node| Box::new(node.simplified())),
            },
            other => other,
        };
        Self { path, rule, kind }
    }

    /// A step from `path` to `next`; `next` itself when it is no step.
    fn delegate(path: Path, rule: Option<Arc<Rule>>, next: Self) -> Self {
        let ends = matches!(
            next.kind,
            NodeKind::Neg { .. } | NodeKind::Fail | NodeKind::Empty
        );
        match next.path == path && !ends {
            true => Self {
                path,
                rule,
                kind: next.kind,
            },
            false => Self {
                path,
                rule,
                kind: NodeKind::Delegate(Box::new(next)),
            },
        }
    }

    /// With every leaf as the transformer makes it.
    fn transformed(self, transformer: &dyn Transformer, reads: &mut Reads) -> Self {
        let Self { path, rule, kind } = self;
        let kind = match kind {
            NodeKind::Leaf(before, addr) => {
                let after = Self::bound(&path, transformer.transform(before.clone()), reads);
                NodeKind::Transformation {
                    name: transformer.kind().to_owned(),
                    before,
                    addr,
                    tree: Box::new(after),
                }
            }
            NodeKind::Transformation {
                name,
                before,
                addr,
                tree,
            } => NodeKind::Transformation {
                name,
                before,
                addr,
                tree: Box::new(tree.transformed(transformer, reads)),
            },
            NodeKind::Delegate(next) => {
                NodeKind::Delegate(Box::new(next.transformed(transformer, reads)))
            }
            NodeKind::Alt(branches) => NodeKind::Alt(
                branches
                    .into_iter()
                    .map(|b| b.transformed(transformer, reads))
                    .collect(),
            ),
            NodeKind::Union(branches) => {
                let branches = branches.into_iter();
                NodeKind::Union(
                    branches
                        .map(|(w, b)| (w, b.transformed(transformer, reads)))
                        .collect(),
                )
            }
            NodeKind::Neg { reason, beyond } => NodeKind::Neg {
                reason,
                beyond: beyond.map(|node| Box::new(node.transformed(transformer, reads))),
            },
            other => other,
        };
        Self { path, rule, kind }
    }

    /// A bound tree as a part of the way.
    fn bound(path: &Path, tree: NameTree<Bound>, reads: &mut Reads) -> Self {
        let kind = match tree {
            NameTree::Leaf(bound) => {
                let addr = snapshot(&bound, reads);
                NodeKind::Leaf(bound, addr)
            }
            NameTree::Neg => NodeKind::neg(None),
            NameTree::Fail => NodeKind::Fail,
            NameTree::Empty => NodeKind::Empty,
            NameTree::Alt(trees) => NodeKind::Alt(
                trees
                    .into_iter()
                    .map(|t| Self::bound(path, t, reads))
                    .collect(),
            ),
            NameTree::Union(branches) => {
                let branches = branches.into_iter();
                NodeKind::Union(
                    branches
                        .map(|b| (b.weight, Self::bound(path, b.tree, reads)))
                        .collect(),
                )
            }
        };
        let (path, rule) = (path.clone(), None);
        Self { path, rule, kind }
    }
}
