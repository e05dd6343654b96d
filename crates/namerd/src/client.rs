//! A router's side: the interpreters `io.l5d.namerd.http`, `io.l5d.mesh` and `io.l5d.namerd`, which bind names by
//! asking a store, as Linkerd's do.
//!
//! Each name in use has a stream of its tree, each bound name one of its addresses ([`follow`]). What was said last stays
//! until something else is said: a store that is away, restarts or talks nonsense changes nothing. The protocols are
//! `http`, `mesh` and `thrift`; TLS is somebody else's ([`Secure`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use dtab::{Dtab, NameTree, Path};
use naming::interpreter::Routed;
use naming::{
    Activity, Addr, Addrs, BindError, Bound, BoundTree, DefaultInterpreter, Delegation,
    Interpreter, Namer, Reads, Rebind, Target, Transformer, Var,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::follow::{Label, follow};
use self::said::{Numbered, Tree};
pub use self::store::{Duplex, Secure, Securing, Stream};
use self::store::{Remote, Way};

mod follow;
mod http;
mod mesh;
pub mod report;
mod said;
mod store;
mod thrift;

/// So many names are followed at the same time; whoever makes names up gets no further.
const MOST: usize = 10_000;
/// How often unused names are looked for; one that is unused twice in a row is given up.
const SWEEP: Duration = Duration::from_secs(30);
/// The system name that a router answers itself, with a status.
const STATUS: &[u8] = b"io.buoyant.http.status";

/// Where a store is, and how patiently it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// How it is asked.
    pub protocol: Protocol,
    /// Name or address.
    pub host: Arc<str>,
    /// Port of its interface of this protocol.
    pub port: u16,
    /// The namespace whose dtab counts.
    pub namespace: Arc<str>,
    /// The first wait after a failure, and the longest one.
    pub retry: (Duration, Duration),
    /// How often it is asked whether it is there when it says nothing, and how long it has to say so. Not by HTTP.
    pub liveness: (Duration, Duration),
    /// A file with the token that says who asks. By HTTP alone.
    pub token: Option<Arc<std::path::Path>>,
}

/// How a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Its HTTP API, `io.l5d.httpController`.
    Http,
    /// Its gRPC services, `io.l5d.mesh`.
    Mesh {
        /// So many bytes of a stream may be on their way.
        window: u32,
    },
    /// ThriftMux, `io.l5d.thriftNameInterpreter`.
    Thrift,
}

impl Protocol {
    /// The interpreter's `kind`.
    const fn kind(self) -> &'static str {
        match self {
            Self::Http => "io.l5d.namerd.http",
            Self::Mesh { .. } => "io.l5d.mesh",
            Self::Thrift => "io.l5d.namerd",
        }
    }
}

impl Way {
    fn remote(self) -> Arc<dyn Remote> {
        match self.config.protocol {
            Protocol::Http => Arc::new(http::Api::new(self)),
            Protocol::Mesh { window } => Arc::new(mesh::Api::new(self, window)),
            Protocol::Thrift => Arc::new(thrift::Api::new(self)),
        }
    }
}

impl fmt::Display for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            namespace,
            ..
        } = self;
        write!(f, "{host}:{port}, namespace {namespace}")
    }
}

/// Binds names by asking a store.
pub struct StoreInterpreter {
    shared: Arc<Shared>,
    transformers: Vec<Arc<dyn Transformer>>,
    /// For names that need no store: the system namers.
    plain: DefaultInterpreter,
    sweeper: AbortHandle,
}

/// What one says about a name, and who keeps it current.
struct Followed<T> {
    known: Var<Known<T>>,
    /// The version that a router's binding was made of last; 0 is none.
    routed: AtomicU64,
    /// Of a tree: the last one whose addresses were known.
    settled: Mutex<Option<T>>,
    task: OnceLock<AbortHandle>,
}

/// What is known.
#[derive(Clone, Debug, PartialEq)]
enum Known<T> {
    /// Nothing yet.
    Nothing,
    /// Nothing but why.
    Refused(Arc<str>),
    /// What was said last.
    Said(T),
}

impl<T: Clone + PartialEq + Send + Sync + 'static> Followed<T> {
    /// Something that `start` keeps current, on `control`, as long as anybody holds it.
    fn start<F: Future<Output = ()> + Send + 'static>(
        known: Known<T>,
        control: &Handle,
        start: impl FnOnce(Weak<Self>) -> F,
    ) -> Arc<Self> {
        let followed = Arc::new(Self {
            known: Var::new(known),
            routed: AtomicU64::new(0),
            settled: Mutex::default(),
            task: OnceLock::new(),
        });
        let task = control.spawn(start(Arc::downgrade(&followed)));
        _ = followed.task.set(task.abort_handle());
        followed
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

struct Shared {
    config: Arc<ClientConfig>,
    remote: Arc<dyn Remote>,
    control: Handle,
    tables: Mutex<Tables>,
    /// Changes when a name is routed with another version.
    routed: Var<u64>,
}

#[derive(Default)]
struct Tables {
    /// By the router's and the request's dtab, and the path.
    trees: HashMap<(String, Path), Entry<Numbered>>,
    addrs: HashMap<Path, Entry<Addr>>,
}

struct Entry<T> {
    followed: Arc<Followed<T>>,
    /// Sweeps since it was used.
    unused: u32,
}

impl<T> Entry<T> {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.followed) > 1 || self.followed.known.is_read()
    }

    fn keep(&mut self) -> bool {
        let used = self.is_used();
        self.unused = if used { 0 } else { self.unused + 1 };
        self.unused < 2
    }
}

impl StoreInterpreter {
    /// An interpreter that asks that store, with or without TLS, and with tasks on `control`; what it binds passes through `transformers`, in
    /// order. `system` answers what needs no store.
    pub fn new(
        (config, secure): (ClientConfig, Option<Arc<dyn Secure>>),
        system: Arc<dyn Namer>,
        transformers: Vec<Arc<dyn Transformer>>,
        control: &Handle,
    ) -> Self {
        let config = Arc::new(config);
        let way = Way {
            config: config.clone(),
            secure,
        };
        let shared = Arc::new(Shared {
            remote: way.remote(),
            config,
            control: control.clone(),
            tables: Mutex::default(),
            routed: Var::default(),
        });
        let sweeper = control.spawn(sweep(Arc::downgrade(&shared))).abort_handle();
        Self {
            shared,
            transformers,
            plain: DefaultInterpreter::new(Vec::new(), system, Vec::new()),
            sweeper,
        }
    }

    /// The tree as the store has it.
    fn bound(&self, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        let Some(followed) = self.shared.tree(local, path) else {
            let message = format!("{MOST} names are followed already");
            return Activity::failed(BindError::Interpreter { message });
        };
        match followed.known.read(reads).as_ref() {
            Known::Nothing => Activity::pending(format!("the store at {}", self.shared.config)),
            Known::Refused(why) => Activity::failed(BindError::Interpreter {
                message: why.to_string(),
            }),
            Known::Said(said) => Activity::Ok(self.settled(&followed, said, reads)),
        }
    }

    /// The tree with its addresses. As long as some are not known, the one before counts: a change that a store tells just
    /// before it goes must not leave names without addresses.
    fn settled(
        &self,
        followed: &Followed<Numbered>,
        said: &Numbered,
        reads: &mut Reads,
    ) -> NameTree<Bound> {
        let bound = self.shared.with_addrs(&said.tree, None);
        let (mut waits, mut awaited) = (false, Reads::new());
        bound.for_each_leaf(&mut |leaf: &Bound| {
            if let Target::Endpoints(addrs) = &leaf.target {
                waits |= addrs.addr(&mut awaited) == Addr::Pending;
            }
        });
        if waits {
            reads.extend(awaited);
        }
        let mut settled = followed
            .settled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*settled {
            Some(before) if waits => self.shared.with_addrs(&before.tree, None),
            _ => {
                if !waits {
                    *settled = Some(said.clone());
                }
                self.shared.note(followed, said.number);
                bound
            }
        }
    }
}

impl Drop for StoreInterpreter {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

impl fmt::Debug for StoreInterpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreInterpreter({})", self.shared.config)
    }
}

impl Interpreter for StoreInterpreter {
    fn bind(&self, base: &Dtab, local: &Dtab, path: &Path, reads: &mut Reads) -> BoundTree {
        let local = base.concat(local);
        let mut tree = match self.bound(&local, path, reads) {
            Activity::Ok(tree) => tree,
            other => return other,
        };
        let mut rebind = Again {
            interpreter: self,
            local: &local,
        };
        for transformer in &self.transformers {
            match transformer.transform_tree(tree, &mut rebind, reads) {
                Activity::Ok(next) => tree = next,
                other => return other,
            }
        }
        Activity::Ok(tree)
    }

    /// The store explains its names itself, at `/api/1/delegate/NAMESPACE` and on its admin port.
    fn delegate(&self, _: &Dtab, _: &Dtab, _: &Path, _: &mut Reads) -> Option<Delegation> {
        None
    }

    fn kind(&self) -> &str {
        self.shared.config.protocol.kind()
    }

    fn state(&self) -> Value {
        self.shared.state()
    }

    fn routed(&self) -> Option<(Routed, Var<u64>)> {
        Some((self.shared.in_force(), self.shared.routed.clone()))
    }
}

/// Binds further names for a transformer.
struct Again<'a> {
    interpreter: &'a StoreInterpreter,
    local: &'a Dtab,
}

impl Rebind for Again<'_> {
    fn bind(&mut self, path: &Path, reads: &mut Reads) -> BoundTree {
        self.interpreter.bound(self.local, path, reads)
    }

    fn bind_plain(&mut self, path: &Path, reads: &mut Reads) -> BoundTree {
        let empty = Dtab::empty();
        self.interpreter.plain.bind(&empty, &empty, path, reads)
    }
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn label(&self, what: &Path) -> Label {
        Label {
            store: self.config.to_string(),
            what: what.to_string(),
            retry: self.config.retry,
        }
    }

    /// The tree of a name, followed from now on. None when too many are.
    fn tree(&self, local: &Dtab, path: &Path) -> Option<Arc<Followed<Numbered>>> {
        let mut tables = self.tables();
        let key = (local.to_string(), path.clone());
        if let Some(entry) = tables.trees.get_mut(&key) {
            entry.unused = 0;
            return Some(entry.followed.clone());
        }
        if tables.trees.len() >= MOST {
            return None;
        }
        let (label, source) = (self.label(path), self.remote.tree(local, path));
        let followed = Followed::start(Known::Nothing, &self.control, |followed| {
            follow(label, source, followed, Numbered::says_nothing)
        });
        let entry = Entry {
            followed: followed.clone(),
            unused: 0,
        };
        tables.trees.insert(key, entry);
        Some(followed)
    }

    /// The addresses of a bound name, followed from now on; the tree that it stands in said what they are at first.
    fn addr(&self, id: &Path, first: &Addr) -> Arc<Followed<Addr>> {
        let mut tables = self.tables();
        if let Some(entry) = tables.addrs.get_mut(id) {
            entry.unused = 0;
            return entry.followed.clone();
        }
        let first = match first {
            Addr::Pending => Known::Nothing,
            first => Known::Said(first.clone()),
        };
        let (label, source) = (self.label(id), self.remote.addr(id));
        let nothing = |addr: &Addr| addr.endpoints().is_empty();
        let followed = Followed::start(first, &self.control, |followed| {
            follow(label, source, followed, nothing)
        });
        let entry = Entry {
            followed: followed.clone(),
            unused: 0,
        };
        tables.addrs.insert(id.clone(), entry);
        followed
    }

    fn with_addrs(&self, tree: &Tree, weight: Option<f64>) -> NameTree<Bound> {
        match tree {
            Tree::Neg => NameTree::Neg,
            Tree::Fail => NameTree::Fail,
            Tree::Empty => NameTree::Empty,
            Tree::Leaf { id, residual, addr } => {
                let target = match status(id) {
                    Some(status) => Target::Status(status),
                    None => Target::Endpoints(self.addr(id, addr)),
                };
                let bound = Bound::to(id.clone(), residual.clone(), target);
                NameTree::Leaf(Bound { weight, ..bound })
            }
            Tree::Union(branches) => NameTree::Union(
                branches
                    .iter()
                    .map(|(weight, tree)| {
                        dtab::Weighted::new(*weight, self.with_addrs(tree, Some(*weight)))
                    })
                    .collect(),
            ),
        }
    }

    /// Notes the version that a name is bound under from now on.
    fn note(&self, followed: &Followed<Numbered>, number: Option<u64>) {
        let number = number.unwrap_or_default();
        if followed.routed.swap(number, Ordering::AcqRel) != number {
            self.routed.set(self.routed.get().wrapping_add(1));
        }
    }

    /// The oldest version that a name in use is bound under.
    fn in_force(&self) -> Routed {
        let tables = self.tables();
        let used = tables.trees.values().filter(|entry| entry.is_used());
        let said = used.filter(|entry| matches!(*entry.followed.known.get(), Known::Said(_)));
        let numbers: Vec<u64> = said
            .map(|entry| entry.followed.routed.load(Ordering::Acquire))
            .collect();
        Routed {
            // A store that says no numbers is none of ours.
            tells: numbers.iter().all(|&number| number > 0),
            number: numbers.iter().copied().min().filter(|&number| number > 0),
        }
    }

    fn state(&self) -> Value {
        let tables = self.tables();
        let word = |known: &str| known.to_owned();
        let trees = tables.trees.iter().map(|((local, path), entry)| {
            let state = match entry.followed.known.get().as_ref() {
                Known::Nothing => word("pending"),
                Known::Refused(why) => format!("failed: {why}"),
                Known::Said(said) => said.tree.to_string(),
            };
            json!({"path": path.to_string(), "dtab": local, "state": state})
        });
        let addrs = tables.addrs.iter().map(|(id, entry)| {
            let state = match entry.followed.known.get().as_ref() {
                Known::Nothing => json!({"state": "Pending"}),
                Known::Refused(why) => json!({"state": format!("Failed: {why}")}),
                Known::Said(addr) => addr.client_state(),
            };
            (id.to_string(), state)
        });
        json!({
            "store": self.config.to_string(),
            "bind": trees.collect::<Vec<_>>(),
            "addr": addrs.collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn status(id: &Path) -> Option<u16> {
    match id.segments() {
        [dollar, class, status] if dollar.as_bytes() == b"$" && class.as_bytes() == STATUS => {
            status.as_str()?.parse().ok()
        }
        _ => None,
    }
}

impl Addrs for Followed<Addr> {
    fn addr(&self, reads: &mut Reads) -> Addr {
        match self.known.read(reads).as_ref() {
            Known::Nothing => Addr::Pending,
            Known::Refused(why) => Addr::Failed(why.clone()),
            Known::Said(addr) => addr.clone(),
        }
    }
}

/// Gives up what nobody uses any more.
async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut tables = shared.tables();
        tables.trees.retain(|_, entry| entry.keep());
        tables.addrs.retain(|_, entry| entry.keep());
    }
}
