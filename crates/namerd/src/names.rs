//! What names mean under a namespace's dtab: the store's dtabs and namerd's namers put together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dtab::{Dtab, NameTree, Path};
use naming::{
    Activity, Addr, Bound, BoundTree, DefaultInterpreter, Delegation, Interpreter as _, Reads,
    Target,
};

use crate::change::confirm::Confirms;
use crate::change::live::{Held, Live};
use crate::store::{Namespace, Observed, Store, Watch};

/// Names that one [`Scope`] keeps in use; a stream has one.
const MOST_HELD: usize = 1_000;

/// Binds names for clients, each under the dtab of its namespace.
#[derive(Clone)]
pub struct Names {
    store: Arc<dyn Store>,
    interpreter: Arc<DefaultInterpreter>,
    live: Live,
    confirms: Confirms,
}

/// A namespace whose names are asked for. Its dtab is followed as long as this lives.
pub struct Scope {
    namespace: Namespace,
    watch: Watch,
    interpreter: Arc<DefaultInterpreter>,
    live: Live,
    /// What was bound here, which is in use for so long.
    held: Mutex<HashMap<(Path, Dtab), Held>>,
}

impl Names {
    /// Names under the dtabs of `store`, from the namers of `interpreter`.
    pub fn new(store: Arc<dyn Store>, interpreter: Arc<DefaultInterpreter>) -> Self {
        Self {
            store,
            interpreter,
            live: Live::default(),
            confirms: Confirms::default(),
        }
    }

    /// The changes that end unless they are confirmed; somebody has to run it.
    pub const fn confirms(&self) -> &Confirms {
        &self.confirms
    }

    /// The names in use, and the routers that report.
    pub const fn live(&self) -> &Live {
        &self.live
    }

    /// The interpreter that binds, with its namers.
    pub(crate) fn interpreter(&self) -> &DefaultInterpreter {
        &self.interpreter
    }

    /// What [`Scope::bind`] would give if `base` were the namespace's dtab.
    pub(crate) fn bind_under(
        &self,
        base: &Dtab,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> BoundTree {
        self.interpreter.bind_request(base, local, path, reads)
    }

    /// The names of one namespace.
    pub fn of(&self, namespace: &Namespace) -> Scope {
        Scope {
            namespace: namespace.clone(),
            watch: self.store.watch(namespace),
            interpreter: self.interpreter.clone(),
            live: self.live.clone(),
            held: Mutex::default(),
        }
    }

    /// The addresses of a bound name, whatever transformers stand in front of it; [`Addr::Neg`] when no namer has it.
    pub fn addr(&self, id: &Path, reads: &mut Reads) -> BoundAddr {
        let concrete = without_transformers(id);
        let empty = Dtab::empty();
        self.interpreter
            .bind(&empty, &empty, &concrete, reads)
            .map(|tree| match tree {
                NameTree::Leaf(bound)
                    if bound.residual.is_empty() && without_transformers(&bound.id) == concrete =>
                {
                    addr_of(&bound, reads)
                }
                _ => Addr::Neg,
            })
    }

    /// All names that namers can enumerate, sorted.
    pub fn enumerated(&self) -> Vec<String> {
        let namers = self.interpreter.namers().iter();
        let mut names: Vec<_> = namers
            .flat_map(|mounted| mounted.namer.names())
            .map(|name| name.to_string())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The way of a path under a dtab alone, whatever any namespace has.
    pub fn delegate_under(
        &self,
        dtab: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Option<Delegation> {
        self.interpreter.delegate(dtab, &Dtab::empty(), path, reads)
    }
}

/// An address set, or why there is none yet.
pub type BoundAddr = Activity<Addr, naming::BindError>;

impl Scope {
    /// The namespace's dtab. One that is not there is empty: names fall through it.
    fn dtab(&self, reads: &mut Reads) -> Result<Dtab, Arc<str>> {
        match self.watch.read(reads) {
            Observed::Unknown(why) => Err(why),
            Observed::Absent => Ok(Dtab::empty()),
            Observed::Present(stored) => Ok(stored.dtab.clone()),
        }
    }

    /// The number of the version that is in force; none when there is no such namespace. Read before a name is bound, it is
    /// at most too old for what is bound.
    pub fn number(&self, reads: &mut Reads) -> Option<u64> {
        match self.watch.read(reads) {
            Observed::Present(stored) => Some(stored.record.number),
            Observed::Absent | Observed::Unknown(_) => None,
        }
    }

    /// The bound tree of `path` under the namespace's dtab and then `local`. The name counts as in use as long as this
    /// scope lives, and a while longer.
    pub fn bind(&self, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        self.hold(local, path);
        match self.dtab(reads) {
            Ok(dtab) => self.interpreter.bind_request(&dtab, local, path, reads),
            Err(why) => Activity::Pending(why),
        }
    }

    fn hold(&self, local: &Dtab, path: &Path) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (path.clone(), local.clone());
        if held.len() < MOST_HELD && !held.contains_key(&key) {
            held.insert(key, self.live.hold(&self.namespace, path, local));
        }
    }

    /// The way of `path`, for people; what is waited for when the store has not answered yet.
    pub fn delegate(
        &self,
        local: &Dtab,
        path: &Path,
        reads: &mut Reads,
    ) -> Result<Option<Delegation>, Arc<str>> {
        let dtab = self.dtab(reads)?;
        Ok(self.interpreter.delegate(&dtab, local, path, reads))
    }
}

/// The way of a path, once all of it is known; none when it cannot be shown. May wait for ever.
pub(crate) async fn explained(scope: &Scope, local: &Dtab, path: &Path) -> Option<Delegation> {
    loop {
        let mut reads = Reads::new();
        if let Ok(delegation) = scope.delegate(local, path, &mut reads) {
            let delegation = delegation?;
            if delegation.pending().is_none() {
                return Some(delegation);
            }
        }
        reads.changed().await;
    }
}

/// The addresses of a bound name; a name that the router itself answers has none.
pub(crate) fn addr_of(bound: &Bound, reads: &mut Reads) -> Addr {
    match &bound.target {
        Target::Endpoints(addrs) => addrs.addr(reads),
        Target::Status(_) => Addr::bound([]),
    }
}

/// As Linkerd: `/%/…` in front is dropped up to the first segment `#` or `$`.
fn without_transformers(id: &Path) -> Path {
    let segments = id.segments();
    let is = |at: usize, sign: &[u8]| segments[at].as_bytes() == sign;
    if segments.is_empty() || !is(0, b"%") {
        return id.clone();
    }
    let namer = (1..segments.len()).find(|&at| is(at, b"#") || is(at, b"$"));
    id.drop(namer.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transformers_in_front_of_an_id_are_dropped() {
        for (id, want) in [
            ("/#/io.l5d.fs/a", "/#/io.l5d.fs/a"),
            ("/%/io.l5d.port/4141/#/io.l5d.fs/a", "/#/io.l5d.fs/a"),
            ("/%/a/%/b/$/inet/127.1/80", "/$/inet/127.1/80"),
            ("/%/a", "/%/a"),
            ("/", "/"),
        ] {
            let id = Path::read(id).unwrap();
            assert_eq!(without_transformers(&id).to_string(), want);
        }
    }
}
