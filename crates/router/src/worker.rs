//! A data thread: one core's connections, pools, caches and counters, on a runtime of its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;

use crate::connection::{Job, serve};
use crate::ending::{Ending, UnderWay};
use crate::entrance::Entrance;
use crate::idle::IdlePools;
use crate::io::{Blocks, Io};
use crate::kept::Kept;
use crate::router::Router;
use crate::routes::Local;
use crate::secure::secure;
use crate::server::Acceptors;
use crate::stage::Stage;
use crate::timer::Timers;
use crate::tls::Crowd;
use crate::unanswered::Unanswered;

/// What all routers on one worker share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) timers: Rc<Timers>,
    pub(crate) blocks: Blocks,
    pub(crate) pools: Rc<IdlePools>,
    /// TLS handshakes of clients that are under way.
    pub(crate) crowd: Crowd,
    // Boxed: a job is moved in and out with each request.
    pub(crate) jobs: Kept<Box<Job>>,
    pub(crate) stages: Kept<Stage>,
    /// Tasks that served a connection.
    berths: Kept<Berth>,
    ending: Cell<Ending>,
    load: Arc<Load>,
    began: Instant,
    /// As [`DataPlane::start`](crate::DataPlane::start) has it.
    gave_up: fn(),
}

/// What this many requests at once need is kept for the next ones.
const REQUESTS: usize = 256;
/// And so many tasks for the next connections.
const BERTHS: usize = 64;
/// Seconds after which what nobody needed meanwhile is kept no longer.
const UNUSED: u64 = 10;

impl Worker {
    fn new(index: usize, load: Arc<Load>, unanswered: Arc<Unanswered>, gave_up: fn()) -> Rc<Self> {
        Rc::new(Self {
            index,
            timers: Timers::new(),
            blocks: Blocks::default(),
            pools: Rc::new(IdlePools::new(unanswered)),
            crowd: Crowd::default(),
            jobs: Kept::new(REQUESTS),
            stages: Kept::new(REQUESTS),
            berths: Kept::new(BERTHS),
            ending: Cell::new(Ending::No),
            load,
            began: Instant::now(),
            gave_up,
        })
    }

    /// How far it is on its way to the end.
    pub(crate) fn ending(&self) -> Ending {
        self.ending.get()
    }

    /// Whether connections are to end with the request that they carry.
    pub(crate) fn draining(&self) -> bool {
        self.ending.get() != Ending::No
    }

    /// For a request that begins now.
    pub(crate) fn under_way(&self) -> Option<UnderWay<'_>> {
        (!self.draining()).then(|| UnderWay::new(&self.load))
    }

    /// `now` in µs since the worker began.
    pub(crate) fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_micros() as u64
    }

    pub(crate) fn give_job(&self, mut job: Box<Job>) {
        job.out.clear();
        self.jobs.give(job);
    }

    /// Drops what was kept for requests that have not come.
    fn tidy(&self) {
        self.timers.tidy();
        self.pools.prune();
        if self.blocks.tidy() | self.jobs.tidy() | self.stages.tidy() | self.berths.tidy() {
            (self.gave_up)();
        }
    }
}

/// A listener's number; never used twice in a data plane's life.
pub(crate) type ListenerId = u64;

/// A connection on its way to its worker.
pub(crate) struct Accepted {
    pub(crate) listener: ListenerId,
    /// It does not block, and no runtime watches it.
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) counted: Counted,
}

/// A connection in its worker's load, from the acceptor on until it ends.
pub(crate) struct Counted(Arc<Load>);

impl Counted {
    pub(crate) fn new(load: &Arc<Load>) -> Self {
        load.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is served: all of it, after every change.
pub(crate) struct Plan {
    pub(crate) routers: Vec<Arc<Router>>,
    pub(crate) listeners: Vec<Planned>,
}

/// An open listener, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) id: ListenerId,
    pub(crate) addr: SocketAddr,
    /// Its place in [`Plan::routers`].
    pub(crate) router: usize,
    /// Which of the router's servers it is.
    pub(crate) server: usize,
}

/// What the control plane wants of a worker, beside its [`Phase`].
pub(crate) enum Order {
    /// Requests that begin from now on are served by this plan; said back once it is so.
    Serve(Arc<Plan>, mpsc::Sender<()>),
    /// Accept connections here, too. For the first worker only, and after the plan that has these listeners.
    Accept(Vec<(ListenerId, std::net::TcpListener)>),
}

/// What the control plane tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serve,
    /// Keep nothing alive, though new connections still come.
    Leave,
    /// Finish what is under way: no more connections come.
    Drain,
    /// Drop everything.
    Stop,
}

/// A worker's loads, seen from outside. In cache lines of its own: it changes with each request, and other workers' lie beside.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Load {
    pub(crate) connections: AtomicUsize,
    /// Requests under way that began before the end did; the worker alone writes it.
    pub(crate) older: AtomicUsize,
}

/// A closed listener's connections may still be on their way from the acceptor to the worker, but no longer than this.
const ON_THEIR_WAY: u64 = 30;

/// What ties a worker to its data plane.
pub(crate) struct Ties {
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) accepted: mpsc::Receiver<Accepted>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) load: Arc<Load>,
    /// All workers have the same.
    pub(crate) unanswered: Arc<Unanswered>,
    /// As [`DataPlane::start`](crate::DataPlane::start) has it.
    pub(crate) gave_up: fn(),
}

/// Runs a worker until it is told to stop, or to drain and all is done.
pub(crate) async fn run(index: usize, ties: Ties, acceptors: Option<Acceptors>) {
    let Ties {
        orders,
        mut accepted,
        mut phase,
        load,
        unanswered,
        gave_up,
    } = ties;
    let worker = Worker::new(index, Arc::clone(&load), unanswered, gave_up);
    let timers = Rc::clone(&worker.timers);
    spawn_local(async move { timers.drive().await });
    let mut floor = Floor {
        worker: Rc::clone(&worker),
        orders,
        acceptors,
        locals: Vec::new(),
        former: Vec::new(),
        entrances: HashMap::new(),
        closed: Vec::new(),
        idle: Rc::new(Notify::new()),
        load,
    };
    let idle = Rc::clone(&floor.idle);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut accepting, mut ordered) = (true, true);
    let told = told_of(phase.clone());
    loop {
        tokio::select! {
            one = accepted.recv(), if accepting => match one {
                Some(one) => floor.begin(one),
                None => accepting = false,
            },
            order = floor.orders.recv(), if ordered => match order {
                Some(order) => floor.obey(order),
                None => ordered = false,
            },
            () = told.notified() => {
                let is_left_alone = phase.has_changed().is_err();
                let now = *phase.borrow_and_update();
                if is_left_alone || now == Phase::Stop {
                    return;
                }
                worker.ending.set(match now {
                    Phase::Drain => Ending::Closing,
                    _ => Ending::Leaving,
                });
                worker.timers.rouse();
                if worker.ending() == Ending::Closing && floor.is_empty() {
                    return;
                }
            }
            () = idle.notified() => {
                if worker.ending() == Ending::Closing && floor.is_empty() {
                    return;
                }
            }
            _ = second.tick() => floor.tick(),
        }
    }
}

/// Notified of each new phase, and when no further one comes. All workers wait in one list for a phase: one that did so anew with each
/// connection and each second would write there, and hold up the others.
fn told_of(mut phase: watch::Receiver<Phase>) -> Rc<Notify> {
    let told = Rc::new(Notify::new());
    let teller = Rc::clone(&told);
    spawn_local(async move {
        while phase.changed().await.is_ok() {
            teller.notify_one();
        }
        teller.notify_one();
    });
    told
}

/// Everything a worker serves.
struct Floor {
    worker: Rc<Worker>,
    orders: mpsc::UnboundedReceiver<Order>,
    acceptors: Option<Acceptors>,
    /// In the order of the plan.
    locals: Vec<Rc<Local>>,
    /// Those of plans before, as long as a request is under way in them.
    former: Vec<Weak<Local>>,
    entrances: HashMap<ListenerId, Rc<Entrance>>,
    /// Closed ones among them, and in which second they were closed.
    closed: Vec<(ListenerId, u64)>,
    load: Arc<Load>,
    /// Told when a connection has ended, once the worker is on its way to the end.
    idle: Rc<Notify>,
}

impl Floor {
    fn is_empty(&self) -> bool {
        self.load.connections.load(Ordering::Relaxed) == 0
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Serve(plan, done) => {
                self.serve(&plan);
                // Nobody may be waiting for it.
                _ = done.try_send(());
            }
            Order::Accept(sockets) => {
                for (id, socket) in sockets {
                    if let (Some(acceptors), Some(entrance)) =
                        (&self.acceptors, self.entrances.get(&id))
                    {
                        let idle = Rc::clone(&self.idle);
                        acceptors.spawn(id, socket, Rc::clone(entrance), idle);
                    }
                }
            }
        }
    }

    /// Exchanges what is served. A router that is in both plans goes on as it is, one with a known label takes over
    /// what its predecessor has.
    fn serve(&mut self, plan: &Plan) {
        let old = std::mem::take(&mut self.locals);
        self.locals = plan
            .routers
            .iter()
            .map(|router| {
                let same = old.iter().find(|local| Arc::ptr_eq(&local.router, router));
                let before = || old.iter().find(|l| l.router.label() == router.label());
                match (same, before()) {
                    (Some(same), _) => Rc::clone(same),
                    (None, Some(before)) => before.successor(Arc::clone(router)),
                    (None, None) => Local::new(Arc::clone(router), Rc::clone(&self.worker)),
                }
            })
            .collect();
        let stays = |local: &Rc<Local>| self.locals.iter().any(|new| Rc::ptr_eq(new, local));
        let gone = old.iter().filter(|local| !stays(local));
        self.former.extend(gone.map(Rc::downgrade));
        for planned in &plan.listeners {
            let Planned {
                id, addr, server, ..
            } = *planned;
            let local = Rc::clone(&self.locals[planned.router]);
            match self.entrances.get(&id) {
                Some(entrance) => entrance.exchange(local, server, addr),
                None => {
                    let entrance = Entrance::new(local, server, addr);
                    self.entrances.insert(id, entrance);
                }
            }
        }
        for (id, entrance) in &self.entrances {
            let stays = plan.listeners.iter().any(|planned| planned.id == *id);
            if !stays && !entrance.is_closed() {
                entrance.close();
                self.closed.push((*id, self.worker.timers.seconds()));
            }
        }
    }

    /// Every second.
    fn tick(&mut self) {
        let now = Instant::now();
        self.worker.timers.tick(now);
        let seconds = self.worker.timers.seconds();
        if seconds.is_multiple_of(UNUSED) {
            self.worker.tidy();
        }
        self.locals.iter().for_each(|local| local.sweep(now));
        self.former.retain(|former| match former.upgrade() {
            Some(former) => {
                former.sweep(now);
                true
            }
            None => false,
        });
        if self.worker.draining() {
            // Whoever became idle since is told too.
            self.worker.timers.rouse();
        }
        let Self {
            closed, entrances, ..
        } = self;
        closed.retain(|(id, since)| {
            let stays = seconds < since + ON_THEIR_WAY;
            if !stays {
                entrances.remove(id);
            }
            stays
        });
    }

    fn entrance(&mut self, id: ListenerId) -> Option<Rc<Entrance>> {
        if !self.entrances.contains_key(&id) {
            // The order that opened it came before its first connection, but nobody has looked yet.
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
        }
        self.entrances.get(&id).cloned()
    }

    fn begin(&mut self, one: Accepted) {
        match self.entrance(one.listener) {
            Some(entrance) => begin(&entrance, &self.idle, one),
            None => {
                tracing::warn!(addr = %one.local, "connection lost before it was served");
                self.idle.notify_one();
            }
        }
    }
}

/// Begins to serve a connection in a task of its own: one that has served another before, when there is any.
pub(crate) fn begin(entrance: &Rc<Entrance>, idle: &Rc<Notify>, one: Accepted) {
    let begun = Begun {
        who: (one.local, one.peer),
        open: Open::new(entrance, idle, one.counted),
        tcp: one.tcp,
    };
    match entrance.worker().berths.take() {
        Some(berth) => berth.enter(begun),
        None => {
            let place = Rc::<Place>::default();
            place.next.set(Some(begun));
            // Boxed, so that the runtime moves a pointer when it begins and when it ends.
            spawn_local(Box::pin(go_on(place)));
        }
    }
}

/// Serves the connections that come to this place, one after the other.
async fn go_on(place: Rc<Place>) {
    while served(&place).await {}
}

/// Serves the next connection; false when there will be none. A panic ends that connection, and nothing else.
async fn served(place: &Rc<Place>) -> bool {
    let Some(Begun { open, who, tcp }) = place.next().await else {
        return false;
    };
    let entrance = &open.entrance;
    let keys = entrance.behind().keys.clone();
    let served = async {
        let io = match keys {
            None => Some(Io::Fresh(Some(tcp))),
            // Boxed, so that a plain connection's task is no larger for it.
            Some(keys) => Box::pin(secure(entrance, who, tcp, &keys)).await,
        };
        if let Some(io) = io {
            serve(entrance, who, io).await;
        }
    };
    let served = std::panic::AssertUnwindSafe(served);
    if served.catch_unwind().await.is_err() {
        let behind = entrance.behind();
        tracing::error!(router = %behind.local.router.label(), code = "RT-E140", "a request's handling failed (a defect of rutter): its connection was closed");
    }
    entrance.worker().berths.give(Berth(Rc::clone(place)));
    true
}

/// A connection that is to be served.
struct Begun {
    open: Open,
    who: (SocketAddr, SocketAddr),
    tcp: std::net::TcpStream,
}

/// A task that waits for its next connection. Dropped, it ends.
pub(crate) struct Berth(Rc<Place>);

/// Where such a task looks.
#[derive(Default)]
struct Place {
    next: Cell<Option<Begun>>,
    waker: RefCell<Option<Waker>>,
}

impl Berth {
    /// Hands the task its next connection, and lets go of it.
    fn enter(self, begun: Begun) {
        self.0.next.set(Some(begun));
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        if let Some(waker) = &*self.0.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Place {
    /// The next connection; none when nobody has a way here any more. Cancel safe.
    async fn next(self: &Rc<Self>) -> Option<Begun> {
        poll_fn(|cx| match self.next.take() {
            None if Rc::strong_count(self) > 1 => {
                let mut waker = self.waker.borrow_mut();
                // The task is always the same.
                waker.get_or_insert_with(|| cx.waker().clone());
                Poll::Pending
            }
            next => Poll::Ready(next),
        })
        .await
    }
}

/// Counts a connection while it is served.
struct Open {
    entrance: Rc<Entrance>,
    idle: Rc<Notify>,
    counted: Option<Counted>,
}

impl Open {
    fn new(entrance: &Rc<Entrance>, idle: &Rc<Notify>, counted: Counted) -> Self {
        let behind = entrance.behind();
        behind.stats.connects.incr();
        behind.stats.connections.incr();
        Self {
            entrance: Rc::clone(entrance),
            idle: Rc::clone(idle),
            counted: Some(counted),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let behind = self.entrance.behind();
        behind.stats.closes.incr();
        behind.stats.connections.decr();
        // Whoever is told looks at the count.
        self.counted = None;
        if self.entrance.worker().draining() {
            self.idle.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside it there is a box with its two ends.
    #[test]
    fn an_idle_connection_is_a_small_task() {
        let task = size_of_val(&go_on(Rc::default()));
        assert!(task <= 720, "{task} bytes of a task");
    }

    #[tokio::test]
    async fn a_task_goes_on_until_its_berth_is_dropped() {
        let place = Rc::<Place>::default();
        let berth = Berth(Rc::clone(&place));
        let mut next = Box::pin(place.next());
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(berth);
        assert!(next.await.is_none());
    }
}
