//! A data thread: one core's connections, pools, caches and counters, on a runtime of its own.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use telemetry::metrics::{Registration, Scope};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;

use crate::connection::{Ends, Job, serve};
use crate::io::{Blocks, Io};
use crate::router::Router;
use crate::routes::Local;
use crate::stats::ServerStats;
use crate::timer::Timers;

/// What all routers on one worker share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) timers: Rc<Timers>,
    pub(crate) blocks: Blocks,
    // Boxed: a job is moved in and out with each request.
    #[allow(clippy::vec_box)]
    pub(crate) jobs: RefCell<Vec<Box<Job>>>,
    /// A coarse clock: seconds since the worker began.
    pub(crate) seconds: Cell<u64>,
    /// Tells idle connections that a drain has begun.
    pub(crate) drained: Notify,
    draining: Cell<bool>,
    began: Instant,
}

/// Jobs that are kept for the next request.
const JOBS: usize = 256;

impl Worker {
    fn new(index: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            timers: Timers::new(),
            blocks: Blocks::default(),
            jobs: RefCell::default(),
            seconds: Cell::new(0),
            drained: Notify::new(),
            draining: Cell::new(false),
            began: Instant::now(),
        })
    }

    /// Whether connections are to end with the request that they carry.
    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// `now` in µs since the worker began.
    pub(crate) fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_micros() as u64
    }

    pub(crate) fn give_job(&self, job: Box<Job>) {
        let mut jobs = self.jobs.borrow_mut();
        if jobs.len() < JOBS {
            jobs.push(job);
        }
    }
}

/// A connection on its way to its worker.
pub(crate) struct Accepted {
    /// Which router.
    pub(crate) router: usize,
    /// Which of its servers.
    pub(crate) server: usize,
    pub(crate) tcp: Tcp,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// A client's socket, as it was accepted.
pub(crate) enum Tcp {
    /// On the very thread that serves it.
    Here(TcpStream),
    /// On another one.
    Elsewhere(std::net::TcpStream),
}

/// What the control plane tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serve,
    /// Finish what is under way, keep nothing alive.
    Drain,
    /// Drop everything.
    Stop,
}

/// A worker's loads, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) connections: AtomicUsize,
}

/// A router's listener on one worker: where its connections are counted.
struct Server {
    name: Arc<str>,
    stats: Arc<ServerStats>,
    _registration: Registration,
}

/// Runs a worker until it is told to stop, or to drain and all is done.
pub(crate) async fn run(
    index: usize,
    routers: Vec<Arc<Router>>,
    mut accepted: mpsc::Receiver<Accepted>,
    mut phase: watch::Receiver<Phase>,
    load: Arc<Load>,
) {
    let worker = Worker::new(index);
    let timers = Rc::clone(&worker.timers);
    spawn_local(async move { timers.drive().await });
    let locals: Vec<_> = routers
        .into_iter()
        .map(|router| Local::new(router, Rc::clone(&worker)))
        .collect();
    let servers: Vec<Vec<Server>> = locals.iter().map(register).collect();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let idle = Rc::new(Notify::new());
    let mut accepting = true;
    loop {
        tokio::select! {
            one = accepted.recv(), if accepting => match one {
                Some(one) => begin(&locals, &servers, &load, &idle, one),
                None => accepting = false,
            },
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                if changed.is_err() || now == Phase::Stop {
                    return;
                }
                worker.draining.set(true);
                worker.drained.notify_waiters();
                if load.connections.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
            () = idle.notified() => {
                if worker.draining() && load.connections.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
            _ = second.tick() => {
                let now = Instant::now();
                worker.seconds.set(now.duration_since(worker.began).as_secs());
                locals.iter().for_each(|local| local.sweep(now));
                if worker.draining() {
                    // Whoever became idle since is told too.
                    worker.drained.notify_waiters();
                }
            }
        }
    }
}

fn register(local: &Rc<Local>) -> Vec<Server> {
    let label = &local.router.settings.label;
    let one = |addr: &SocketAddr| {
        let stats = Arc::new(ServerStats::default());
        let registry = &local.router.reporting.registry;
        let registration = registry.register(Scope::server(label, *addr), Arc::clone(&stats) as _);
        let name = format!("{}/{}", addr.ip(), addr.port()).into();
        Server {
            name,
            stats,
            _registration: registration,
        }
    };
    local.router.listeners().iter().map(one).collect()
}

/// Begins to serve a connection in a task of its own. A panic in it ends this connection, and nothing else.
fn begin(
    locals: &[Rc<Local>],
    servers: &[Vec<Server>],
    load: &Arc<Load>,
    idle: &Rc<Notify>,
    one: Accepted,
) {
    let local = Rc::clone(&locals[one.router]);
    let server = &servers[one.router][one.server];
    let (name, stats) = (Arc::clone(&server.name), Arc::clone(&server.stats));
    let tcp = match one.tcp {
        Tcp::Here(tcp) => Ok(tcp),
        Tcp::Elsewhere(tcp) => TcpStream::from_std(tcp),
    };
    let tcp = match tcp {
        Ok(tcp) => tcp,
        Err(error) => {
            tracing::warn!(router = %local.router.label(), %error, "connection lost before it was served");
            load.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
    };
    let open = Open {
        stats: Arc::clone(&stats),
        load: Arc::clone(load),
        idle: Rc::clone(idle),
    };
    stats.connects.incr();
    stats.connections.incr();
    let ends = Ends {
        server: one.server,
        local: one.local,
        peer: one.peer,
        id: fastrand::u64(..),
        name,
        stats,
    };
    spawn_local(async move {
        let _open = open;
        let served = std::panic::AssertUnwindSafe(serve(Rc::clone(&local), ends, Io::Plain(tcp)));
        if served.catch_unwind().await.is_err() {
            local.stats.panics.incr();
            tracing::error!(router = %local.router.label(), code = "RT-E140", "a request's handling failed (a defect of rutter): its connection was closed");
        }
    });
}

/// Counts a connection while it is open.
struct Open {
    stats: Arc<ServerStats>,
    load: Arc<Load>,
    idle: Rc<Notify>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.closes.incr();
        self.stats.connections.decr();
        if self.load.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.notify_one();
        }
    }
}
