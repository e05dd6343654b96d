//! A listener as one worker sees it: whose requests come in there. The router behind it may be exchanged while
//! connections are open, for that is how a new configuration comes into force: each connection looks here before it
//! begins with a request, and ends that request with what it found.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use telemetry::metrics::{Registration, Scope};
use tokio::sync::Notify;

use crate::ending::Ending;
use crate::routes::Local;
use crate::stats::ServerStats;
use crate::tls::ServerKeys;
use crate::worker::Worker;

/// A listener on one worker.
pub(crate) struct Entrance {
    worker: Rc<Worker>,
    behind: RefCell<Rc<Behind>>,
    closed: Cell<bool>,
    /// Wakes the acceptor when the listener is gone.
    pub(crate) ended: Notify,
}

/// What serves the requests that come in: never changed, only exchanged as a whole.
pub(crate) struct Behind {
    pub(crate) local: Rc<Local>,
    /// Which of the router's servers this is.
    pub(crate) server: usize,
    /// The listener's name in traces, `ip/port`, as Linkerd 1 has it.
    pub(crate) name: Arc<str>,
    pub(crate) stats: Arc<ServerStats>,
    /// With TLS.
    pub(crate) keys: Option<Arc<ServerKeys>>,
    registration: Rc<Registration>,
}

impl Entrance {
    /// The listener at `addr`, which is this server of that router.
    pub(crate) fn new(local: Rc<Local>, server: usize, addr: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            worker: Rc::clone(&local.worker),
            behind: RefCell::new(Rc::new(Behind::new(local, server, addr))),
            closed: Cell::new(false),
            ended: Notify::new(),
        })
    }

    /// What serves a request that begins now.
    pub(crate) fn behind(&self) -> Rc<Behind> {
        Rc::clone(&self.behind.borrow())
    }

    /// Requests that begin from now on are this router's. Counters go on as long as its label is the same.
    pub(crate) fn exchange(&self, local: Rc<Local>, server: usize, addr: SocketAddr) {
        let old = self.behind();
        if Rc::ptr_eq(&old.local, &local) && old.server == server {
            return;
        }
        let new = match old.local.router.label() == local.router.label() {
            true => Behind {
                keys: keys(&local, server, &old.stats),
                local,
                server,
                name: Arc::clone(&old.name),
                stats: Arc::clone(&old.stats),
                registration: Rc::clone(&old.registration),
            },
            false => {
                let new = Behind::new(local, server, addr);
                // Connections that are open are the other router's from now on.
                new.stats.connections.set(old.stats.connections.get());
                old.stats.connections.set(0);
                new
            }
        };
        *self.behind.borrow_mut() = Rc::new(new);
    }

    /// The listener is gone: connections end politely, each with the request that it carries.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.ended.notify_waiters();
        self.worker.timers.rouse();
    }

    /// Whether the listener is gone, though the worker goes on.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether connections are to end with the request that they carry.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending() != Ending::No
    }

    /// How far it is on its way to the end, with the worker or alone.
    pub(crate) fn ending(&self) -> Ending {
        match self.worker.ending() {
            Ending::No if self.closed.get() => Ending::Leaving,
            of_worker => of_worker,
        }
    }

    /// The worker that serves it.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }
}

impl Behind {
    fn new(local: Rc<Local>, server: usize, addr: SocketAddr) -> Self {
        let stats = Arc::new(ServerStats::default());
        let scope = Scope::server(local.router.label(), addr);
        let registry = &local.router.reporting.registry;
        let registration = registry.register(scope, Arc::clone(&stats) as _);
        Self {
            server,
            keys: keys(&local, server, &stats),
            name: format!("{}/{}", addr.ip(), addr.port()).into(),
            stats,
            registration: Rc::new(registration),
            local,
        }
    }
}

/// The certificates of a server with TLS, whose handshakes are counted from now on.
fn keys(local: &Local, server: usize, stats: &ServerStats) -> Option<Arc<ServerKeys>> {
    let keys = local.router.keys.server(server)?;
    stats.handshakes.shown.store(true, Ordering::Relaxed);
    Some(keys)
}
