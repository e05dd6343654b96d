//! A worker's view of one router: the names in use, bound, with everything a request needs lying ready beside them.
//!
//! A request's key (its name's bytes and its own dtab) leads to a [`Route`]; as long as the binding's version is the
//! one the route was made of, nothing else is looked up.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dtab::{Dtab, NameTree, Path};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use naming::{Binding, Cause, Leaf, LeafTarget, Outcome};
use telemetry::metrics::{Registration, Scope};

use crate::budget::Deposits;
use crate::client::Client;
use crate::http1::Limits;
use crate::identify::Identified;
use crate::router::{Router, ServiceShared};
use crate::settings::ServiceSettings;
use crate::stats::{ClientStats, Pair, PairStats, RouterStats, ServiceStats};
use crate::worker::Worker;

mod succession;

use succession::Former;

type Routes = HashMap<Box<[u8]>, Rc<Route>, RandomState>;

/// A worker's part of a router.
pub(crate) struct Local {
    pub(crate) router: Arc<Router>,
    pub(crate) worker: Rc<Worker>,
    pub(crate) stats: Arc<RouterStats>,
    /// Of heads, both ways.
    pub(crate) limits: Limits,
    registration: Rc<Registration>,
    routes: RefCell<Routes>,
    /// Those under a dtab that the request brought along.
    own_routes: RefCell<Routes>,
    /// What routes of this router's predecessor were, until they are made anew.
    former: RefCell<HashMap<Box<[u8]>, Former, RandomState>>,
    /// The predecessor's clients, under today's settings: as long as names may ask for them again.
    heirs: RefCell<Vec<Rc<Client>>>,
    /// Of names that lead somewhere.
    services: RefCell<HashMap<Path, Rc<Service>, RandomState>>,
    /// Of names that lead nowhere so far, the younger and the older ones: counted as Linkerd does, but not for long.
    strangers: RefCell<[HashMap<Path, Rc<Service>, RandomState>; 2]>,
    clients: RefCell<HashMap<Path, Rc<Client>, RandomState>>,
    registrations: RefCell<HashMap<Path, Rc<Registration>, RandomState>>,
}

/// A worker's part of a logical name.
pub(crate) struct Service {
    pub(crate) shared: Arc<ServiceShared>,
    /// Those of `shared`.
    pub(crate) settings: Arc<ServiceSettings>,
    pub(crate) stats: Arc<ServiceStats>,
    pub(crate) deposits: Deposits,
    registration: Rc<Registration>,
}

/// A name under one dtab, as this worker routes it.
pub(crate) struct Route {
    pub(crate) service: Rc<Service>,
    pub(crate) binding: Arc<Binding>,
    /// Version of the binding that `tree` was made of.
    seen: Cell<u64>,
    tree: RefCell<Rc<Tree>>,
    used: Cell<u64>,
}

/// What a binding came to.
pub(crate) enum Tree {
    /// Not bound yet.
    Pending,
    /// Bound, though perhaps to nothing.
    Bound(NameTree<Rc<Branch>>),
    /// It leads nowhere, for the whole of the name.
    Nowhere(Cause),
}

/// A leaf of the bound tree, ready for requests.
pub(crate) struct Branch {
    pub(crate) to: To,
    /// The lines that tell the next hop of it: `l5d-dst-service`, `l5d-dst-client`, `l5d-dst-residual`.
    pub(crate) headers: Box<[u8]>,
    /// What of the name the client's id does not stand for.
    pub(crate) residual: Path,
}

/// Where a branch ends.
pub(crate) enum To {
    /// At endpoints.
    Client {
        client: Rc<Client>,
        pair: Arc<PairStats>,
        /// Of `pair`.
        kept: Rc<Pair>,
    },
    /// At the router itself, which answers this status.
    Status(u16),
    /// Nowhere.
    Nowhere(Cause),
    /// At an address that the request may not name.
    Forbidden(SocketAddr),
}

/// Names that lead nowhere of which a worker keeps the counters, twice: more push the older ones out.
const STRANGERS: usize = 64;

/// Routes a worker keeps at the most; the least lately used half goes when there are more.
const ROUTES: usize = 20_000;

/// Of those under requests' own dtabs: whoever sends another one each time fills no memory.
const OWN_ROUTES: usize = 500;

/// Nor does who sends long ones: bytes of their keys, in which the dtabs are. One key may have all of them.
const OWN_BYTES: usize = 1 << 20;

impl Local {
    pub(crate) fn new(router: Arc<Router>, worker: Rc<Worker>) -> Rc<Self> {
        let stats = Arc::new(RouterStats::default());
        let registry = &router.reporting.registry;
        let registration = registry.register(
            Scope::router(&router.settings.label),
            Arc::clone(&stats) as _,
        );
        Self::with(router, worker, stats, Rc::new(registration))
    }

    fn with(
        router: Arc<Router>,
        worker: Rc<Worker>,
        stats: Arc<RouterStats>,
        registration: Rc<Registration>,
    ) -> Rc<Self> {
        let settings = &router.settings;
        let limits = Limits {
            head: settings.max_head,
            line: settings.max_line,
            ..Limits::default()
        };
        Rc::new(Self {
            worker,
            limits,
            stats,
            registration,
            routes: RefCell::default(),
            own_routes: RefCell::default(),
            former: RefCell::default(),
            heirs: RefCell::default(),
            services: RefCell::default(),
            strangers: RefCell::default(),
            clients: RefCell::default(),
            registrations: RefCell::default(),
            router,
        })
    }

    /// The route of a name under the request's own dtab. `key` is scratch space.
    pub(crate) fn route(&self, name: &Identified, own: &Dtab, key: &mut Vec<u8>) -> Rc<Route> {
        key.clear();
        key.extend_from_slice(name.key());
        if !own.is_empty() {
            // No length prefix looks like this.
            key.extend_from_slice(&u32::MAX.to_le_bytes());
            key.extend_from_slice(own.to_string().as_bytes());
        }
        let seconds = self.worker.timers.seconds();
        let kept = match own.is_empty() {
            true => &self.routes,
            false => &self.own_routes,
        };
        if let Some(route) = kept.borrow().get(&key[..]) {
            route.used.set(seconds);
            return Rc::clone(route);
        }
        self.stats.misses.incr();
        let path = name.path();
        let binding = self.router.names.binding(&path, own);
        let former = self.former.borrow_mut().remove(&key[..]);
        let route = Rc::new(Route {
            service: self.service(&path),
            binding,
            seen: Cell::new(u64::MAX),
            tree: RefCell::new(former.map_or_else(|| Rc::new(Tree::Pending), |former| former.tree)),
            used: Cell::new(seconds),
        });
        // A name that leads nowhere leaves nothing behind here: whoever makes names up fills no table.
        let mut kept_it = false;
        if route.tree(self).leads_somewhere() {
            self.acquaint(&route.service);
            let most = match own.is_empty() {
                true => (ROUTES, usize::MAX),
                false => (OWN_ROUTES, OWN_BYTES),
            };
            let mut kept = kept.borrow_mut();
            let before = kept.len();
            kept_it = keep(&mut kept, most, key, &route);
            let evicted = before + usize::from(kept_it) - kept.len();
            self.stats.evicts.add(evicted as u64);
        }
        if !kept_it {
            self.stats.oneshots.incr();
        }
        route
    }

    /// The name led somewhere: its counters are kept as long as it is used.
    fn acquaint(&self, service: &Rc<Service>) {
        let path = &service.shared.path;
        for some in self.strangers.borrow_mut().iter_mut() {
            some.remove(path);
        }
        let mut services = self.services.borrow_mut();
        if !services.contains_key(path) {
            services.insert(path.clone(), Rc::clone(service));
        }
    }

    /// The older strangers go, the younger ones are the older ones now. How many went.
    fn forget_strangers(&self) -> usize {
        let mut strangers = self.strangers.borrow_mut();
        let [young, old] = &mut *strangers;
        std::mem::swap(young, old);
        let gone = young.len();
        young.clear();
        gone
    }

    fn service(&self, path: &Path) -> Rc<Service> {
        let strangers = self.strangers.borrow();
        let known = self.services.borrow().get(path).cloned();
        let known = known.or_else(|| strangers.iter().find_map(|some| some.get(path).cloned()));
        if let Some(known) = known {
            return known;
        }
        let full = strangers[0].len() >= STRANGERS;
        drop(strangers);
        if full {
            self.forget_strangers();
        }
        let stats = Arc::new(ServiceStats::default());
        let label = &self.router.settings.label;
        let scope = Scope::service(label, &path.to_string());
        let shared = self.router.service(path);
        let service = Rc::new(Service {
            settings: Arc::clone(&shared.settings),
            shared,
            registration: Rc::new(
                self.router
                    .reporting
                    .registry
                    .register(scope, Arc::clone(&stats) as _),
            ),
            stats,
            deposits: Deposits::default(),
        });
        self.strangers.borrow_mut()[0].insert(path.clone(), Rc::clone(&service));
        service
    }

    fn client(&self, id: &Path) -> Rc<Client> {
        if let Some(known) = self.clients.borrow().get(id) {
            return Rc::clone(known);
        }
        self.stats.client_misses.incr();
        let stats = Arc::new(ClientStats::default());
        let scope = Scope::client(&self.router.settings.label, &id.to_string());
        let registration = self
            .router
            .reporting
            .registry
            .register(scope, Arc::clone(&stats) as _);
        let client = Rc::new(Client::new(self.router.client(id), stats, &self.worker));
        self.clients
            .borrow_mut()
            .insert(id.clone(), Rc::clone(&client));
        self.registrations
            .borrow_mut()
            .insert(id.clone(), Rc::new(registration));
        client
    }

    /// `known` are the branches that the route had before: their counters go on.
    fn branch(&self, service: &Service, leaf: &Leaf, known: &[Rc<Branch>]) -> Rc<Branch> {
        let to = match &leaf.to {
            LeafTarget::Status(status) => To::Status(*status),
            LeafTarget::Addr(addr) => match (leaf.cause(), self.router.guard.forbidden(leaf)) {
                (None, None) => {
                    let client = self.client(&leaf.id);
                    client.update(addr);
                    self.to_client(service, leaf, client, known)
                }
                (cause, forbidden) => {
                    // No client is made of what cannot be reached, but one that is there is told.
                    let there = self.clients.borrow().get(&leaf.id).cloned();
                    if let Some(client) = there {
                        client.update(addr);
                    }
                    match (cause, forbidden) {
                        (None, Some(address)) => To::Forbidden(address),
                        (cause, _) => To::Nowhere(cause.unwrap_or(Cause::Neg)),
                    }
                }
            },
        };
        let mut headers = format!(
            "l5d-dst-service: {}\r\nl5d-dst-client: {}\r\n",
            service.shared.path, leaf.id
        );
        if !leaf.residual.is_empty() {
            headers.push_str(&format!("l5d-dst-residual: {}\r\n", leaf.residual));
        }
        Rc::new(Branch {
            to,
            headers: headers.into_bytes().into(),
            residual: leaf.residual.clone(),
        })
    }

    fn to_client(
        &self,
        service: &Service,
        leaf: &Leaf,
        client: Rc<Client>,
        known: &[Rc<Branch>],
    ) -> To {
        if service.stats.resolved.get() == 0 {
            service.stats.resolved.incr();
            service
                .shared
                .resolved
                .store(true, std::sync::atomic::Ordering::Relaxed);
        }
        let before = known.iter().find_map(|branch| match &branch.to {
            To::Client { kept, .. } if kept.is_of(&client.stats, &service.stats) => Some(kept),
            _ => None,
        });
        let kept = before.map_or_else(
            || {
                let scope = Scope::client_service(
                    &self.router.settings.label,
                    &leaf.id.to_string(),
                    &service.shared.path.to_string(),
                );
                let registry = &self.router.reporting.registry;
                Rc::new(Pair::new(&client.stats, &service.stats, |pair| {
                    registry.register(scope, pair)
                }))
            },
            Rc::clone,
        );
        To::Client {
            client,
            pair: Arc::clone(&kept.stats),
            kept,
        }
    }

    /// Gives up what was not used for long, and old connections. Every second.
    pub(crate) fn sweep(&self, now: Instant) {
        let seconds = self.worker.timers.seconds();
        for client in self.clients.borrow().values() {
            client.sweep(now);
        }
        if !seconds.is_multiple_of(10) {
            return;
        }
        let idle = self.router.settings.binding_idle.as_secs();
        for routes in [&self.routes, &self.own_routes] {
            routes.borrow_mut().retain(|_, route| {
                route.binding.touch();
                seconds.saturating_sub(route.used.get()) < idle
            });
        }
        self.former
            .borrow_mut()
            .retain(|_, former| seconds.saturating_sub(former.used) < idle);
        if self.former.borrow().is_empty() {
            self.heirs.borrow_mut().clear();
        }
        let gone = self.forget_strangers();
        let before = self.clients.borrow().len() + self.services.borrow().len();
        // What only these maps hold belongs to no route any more.
        self.services
            .borrow_mut()
            .retain(|_, service| Rc::strong_count(service) > 1);
        self.clients
            .borrow_mut()
            .retain(|_, client| Rc::strong_count(client) > 1);
        let clients = self.clients.borrow();
        self.registrations
            .borrow_mut()
            .retain(|id, _| clients.contains_key(id));
        if gone > 0 || clients.len() + self.services.borrow().len() < before {
            self.router.prune();
        }
    }
}

/// Remembers a route that turned out to lead somewhere, within so many routes and bytes of keys: the half that was unused the
/// longest makes room. False when its key alone is too long.
fn keep(routes: &mut Routes, (most, bytes): (usize, usize), key: &[u8], route: &Rc<Route>) -> bool {
    if key.len() > bytes {
        return false;
    }
    let full = |routes: &Routes| {
        let held = || routes.keys().map(|key| key.len()).sum::<usize>();
        routes.len() >= most || bytes < usize::MAX && held() + key.len() > bytes
    };
    while full(routes) {
        let mut ages: Vec<_> = routes.values().map(|route| route.used.get()).collect();
        let middle = ages.len() / 2;
        let (_, &mut median, _) = ages.select_nth_unstable(middle);
        routes.retain(|_, route| route.used.get() > median);
    }
    routes.insert(key.into(), Rc::clone(route));
    true
}

impl Branch {
    /// Where a request that takes it is counted, if it ends at endpoints.
    pub(crate) fn pair(&self) -> Option<&PairStats> {
        match &self.to {
            To::Client { pair, .. } => Some(pair),
            To::Status(_) | To::Nowhere(_) | To::Forbidden(_) => None,
        }
    }
}

impl Tree {
    /// Whether some branch ends at something that exists, if only without an endpoint at the moment.
    fn leads_somewhere(&self) -> bool {
        let Self::Bound(tree) = self else {
            return false;
        };
        let mut all = Vec::new();
        branches(tree, &mut all);
        all.iter().any(|branch| match &branch.to {
            To::Client { .. } | To::Nowhere(Cause::AddrEmpty | Cause::AddrNeg) => true,
            To::Status(_) | To::Forbidden(_) | To::Nowhere(_) => false,
        })
    }
}

impl Route {
    /// What the name leads to now.
    pub(crate) fn tree(&self, local: &Local) -> Rc<Tree> {
        let version = self.binding.version();
        if self.seen.get() == version {
            return Rc::clone(&self.tree.borrow());
        }
        let tree = match &*self.binding.current() {
            outcome if outcome.is_pending() => Tree::Pending,
            Outcome::Pending { .. } => Tree::Pending,
            outcome @ Outcome::Failed(_) => Tree::Nowhere(outcome.cause().unwrap_or(Cause::Neg)),
            Outcome::Bound(tree) => self.bound(local, tree),
        };
        let tree = Rc::new(tree);
        *self.tree.borrow_mut() = Rc::clone(&tree);
        self.seen.set(version);
        tree
    }

    fn bound(&self, local: &Local, tree: &NameTree<Leaf>) -> Tree {
        // A branch that was there before keeps its counters.
        let old = self.tree.borrow();
        let mut known = Vec::new();
        if let Tree::Bound(tree) = &**old {
            branches(tree, &mut known);
        }
        Tree::Bound(tree.map(|leaf: &Leaf| {
            let same = known.iter().find(|branch| match (&branch.to, &leaf.to) {
                (To::Client { client, .. }, LeafTarget::Addr(_)) => {
                    client.shared.id == leaf.id
                        && leaf.cause().is_none()
                        && local.router.guard.forbidden(leaf).is_none()
                        && leaf.residual.is_empty()
                        // With other settings it is another client.
                        && Rc::ptr_eq(client, &local.client(&leaf.id))
                }
                _ => false,
            });
            match (same, &leaf.to) {
                (Some(branch), LeafTarget::Addr(addr)) => {
                    if let To::Client { client, .. } = &branch.to {
                        client.update(addr);
                    }
                    Rc::clone(branch)
                }
                _ => local.branch(&self.service, leaf, &known),
            }
        }))
    }
}

fn branches(tree: &NameTree<Rc<Branch>>, into: &mut Vec<Rc<Branch>>) {
    match tree {
        NameTree::Leaf(branch) => into.push(Rc::clone(branch)),
        NameTree::Alt(trees) => trees.iter().for_each(|tree| branches(tree, into)),
        NameTree::Union(trees) => trees.iter().for_each(|one| branches(&one.tree, into)),
        _ => {}
    }
}

/// Picks a branch: at random by weight where there are several; the reason when there is none.
pub(crate) fn choose(tree: &NameTree<Rc<Branch>>) -> Result<Rc<Branch>, Cause> {
    let mut tree = tree;
    loop {
        match tree {
            NameTree::Leaf(branch) => return Ok(Rc::clone(branch)),
            NameTree::Fail => return Err(Cause::Fail),
            NameTree::Empty => return Err(Cause::Empty),
            NameTree::Neg => return Err(Cause::Neg),
            NameTree::Alt(trees) => match trees.first() {
                Some(first) => tree = first,
                None => return Err(Cause::Neg),
            },
            NameTree::Union(trees) => {
                let total: f64 = trees.iter().map(|one| one.weight).sum();
                let chosen = if total > 0.0 && total.is_finite() {
                    let mut at = fastrand::f64() * total;
                    trees.iter().find(|one| {
                        at -= one.weight;
                        at < 0.0
                    })
                } else {
                    // All weights 0, or not numbers: uniform, as Finagle's Drv.
                    trees.get(fastrand::usize(..trees.len().max(1)))
                };
                match chosen.or(trees.last()) {
                    Some(one) => tree = &one.tree,
                    None => return Err(Cause::Neg),
                }
            }
        }
    }
}
