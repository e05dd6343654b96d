//! A namer for tests: its names are values that the test changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dtab::{NameTree, Path};

use crate::{Activity, Addr, Bound, Endpoint, Name, Namer, NamerError, Reads, Target, Var};

/// What a [`TestNamer`] says about a name.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Pending,
    Failed,
    Neg,
    Bound,
    Panic,
    Tree(NameTree<Path>),
}

/// Answers to the first segment.
pub(crate) struct TestNamer {
    prefix: Path,
    names: HashMap<Path, (Var<Says>, Var<Addr>)>,
    pub(crate) lookups: AtomicUsize,
}

pub(crate) fn path(text: &str) -> Path {
    Path::read(text).unwrap()
}

impl TestNamer {
    /// These names, bound to one endpoint each.
    pub(crate) fn new(prefix: &str, names: &[&str]) -> Self {
        let entry = |name: &&str| {
            (
                Path::utf8([*name]),
                (Var::new(Says::Bound), Var::new(one_endpoint(80))),
            )
        };
        Self {
            prefix: path(prefix),
            names: names.iter().map(entry).collect(),
            lookups: AtomicUsize::new(0),
        }
    }

    /// A system namer that knows nothing.
    pub(crate) fn system() -> Self {
        Self::new("/", &[])
    }

    pub(crate) fn says(&self, name: &str) -> &Var<Says> {
        &self.names[&Path::utf8([name])].0
    }

    pub(crate) fn addr(&self, name: &str) -> &Var<Addr> {
        &self.names[&Path::utf8([name])].1
    }
}

pub(crate) fn one_endpoint(port: u16) -> Addr {
    Addr::bound([Endpoint::new(([127, 0, 0, 1], port).into())])
}

impl Namer for TestNamer {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let Some((says, addr)) = self.names.get(&rest.take(1)) else {
            return Activity::Ok(NameTree::Neg);
        };
        match &*says.read(reads) {
            Says::Pending => Activity::pending("a test"),
            Says::Failed => Activity::failed(NamerError::Unavailable {
                message: "down".to_owned(),
            }),
            Says::Neg => Activity::Ok(NameTree::Neg),
            Says::Panic => panic!("a test"),
            Says::Tree(tree) => {
                Activity::Ok(tree.map(|leaf| Name::Path(leaf.concat(&rest.drop(1)))))
            }
            Says::Bound => {
                let id = Path::utf8(["#"]).concat(&self.prefix).concat(&rest.take(1));
                let target = Target::Endpoints(Arc::new(addr.clone()));
                Activity::Ok(NameTree::Leaf(Name::Bound(Bound::to(
                    id,
                    rest.drop(1),
                    target,
                ))))
            }
        }
    }
}
