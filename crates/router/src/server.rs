//! Listeners and workers: connections are accepted and, before a byte is read, given to the worker with the fewest.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, watch};

use crate::ending::{LINGER, accepts_for};
use crate::entrance::Entrance;
use crate::router::Router;
use crate::settings::{ServerSettings, SocketSettings};
use crate::unanswered::Unanswered;
use crate::worker::{
    self, Accepted, Counted, ListenerId, Load, Order, Phase, Plan, Planned, Ties, begin,
};

/// Connections on their way to a worker at once.
const HANDOVER: usize = 1024;
/// Length of the accept queue.
const BACKLOG: i32 = 1024;
/// Workers confirm a swap within microseconds unless they are stuck.
const SWAP_LIMIT: Duration = Duration::from_secs(5);
/// A data thread that was told to end is waited for this long. One that is stuck is left behind: it ends with the process.
const THREAD_END: Duration = Duration::from_secs(1);
/// Listeners are closed within microseconds, unless the first data thread is stuck.
const LISTENERS_END: Duration = Duration::from_secs(1);
/// After accept fails for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be had.
    #[error(
        "router {router:?} cannot listen on {addr}: {error}{}",
        hint(error, addr)
    )]
    Listen {
        /// The router's label.
        router: Box<str>,
        /// As configured.
        addr: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A data thread cannot be had.
    #[error("cannot start a data thread: {0}")]
    Thread(io::Error),
}

fn hint(error: &io::Error, addr: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "; see which process has it with `ss -ltnp 'sport = :{}'`, or configure another port",
                addr.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "; {} is not an address of this machine, configure one that is, or 0.0.0.0",
                addr.ip()
            )
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege, configure a higher one".to_owned()
        }
        _ => String::new(),
    }
}

/// The running data plane: workers and listeners. Dropping it stops them at once.
pub struct DataPlane {
    routers: Vec<Arc<Router>>,
    listeners: Vec<Listener>,
    /// The number of the next listener.
    next: ListenerId,
    phase: watch::Sender<Phase>,
    accepting: watch::Sender<bool>,
    /// How many listeners may still give connections to workers.
    open: Arc<AtomicUsize>,
    loads: Vec<Arc<Load>>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because the time was over.
    pub cut: usize,
}

/// An open listener.
#[derive(Clone, Debug)]
struct Listener {
    id: ListenerId,
    /// The router it belongs to.
    label: Arc<str>,
    /// As configured; its port may be 0.
    configured: SocketAddr,
    addr: SocketAddr,
}

/// Routers that are ready to be served, with all their listeners open. Dropping it instead of handing it to
/// [`DataPlane::swap`] closes the new ones, and nothing has happened.
pub struct Prepared {
    routers: Vec<Arc<Router>>,
    listeners: Vec<(Listener, Planned)>,
    sockets: Vec<(ListenerId, TcpListener)>,
    next: ListenerId,
    /// Listeners that could not be opened while an old one has the port: the old one takes their place.
    pub kept: Vec<Kept>,
}

/// A listener that stays at its old address, as the new one cannot be had while that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The router's label.
    pub router: Arc<str>,
    /// Which of its servers.
    pub server: usize,
    /// As configured now.
    pub wanted: SocketAddr,
    /// Where it listens.
    pub has: SocketAddr,
}

/// What a [`DataPlane::swap`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// Listeners that are new.
    pub opened: Vec<SocketAddr>,
    /// Listeners that are closed; their connections end with the requests they carry.
    pub closed: Vec<SocketAddr>,
    /// Workers that have not said in time that they are done: they are busy, and do it when they can.
    pub late: usize,
}

impl DataPlane {
    /// Binds all listeners, then starts `workers` data threads that serve them. Each calls `gave_up` when it has dropped what it
    /// had kept for further requests, which nobody needed for long: its allocator may give the memory back.
    pub fn start(
        routers: Vec<Arc<Router>>,
        workers: usize,
        gave_up: fn(),
    ) -> Result<Self, StartError> {
        let prepared = prepare(routers, &[], 0)?;
        let workers = workers.max(1);
        let (phase, phases) = watch::channel(Phase::Serve);
        let (accepting, accepts) = watch::channel(true);
        let open = Arc::new(AtomicUsize::new(0));
        let loads: Vec<_> = (0..workers).map(|_| Arc::new(Load::default())).collect();
        let unanswered = Arc::new(Unanswered::new(Instant::now()));
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::channel(HANDOVER)).unzip();
        let (orders, ordered): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        // The first worker accepts: with one worker, no connection changes threads.
        let mut acceptors = Some(Acceptors {
            senders,
            loads: loads.clone(),
            accepting: accepts,
            open: Arc::clone(&open),
            next: Arc::default(),
        });
        let mut threads = Vec::new();
        for (index, (accepted, orders)) in receivers.into_iter().zip(ordered).enumerate() {
            let ties = Ties {
                orders,
                accepted,
                phase: phases.clone(),
                load: Arc::clone(&loads[index]),
                unanswered: Arc::clone(&unanswered),
                gave_up,
            };
            let acceptors = acceptors.take();
            let body = move || work(index, ties, acceptors);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(body).map_err(StartError::Thread)?);
        }
        let mut plane = Self {
            routers: Vec::new(),
            listeners: Vec::new(),
            next: 0,
            phase,
            accepting,
            open,
            loads,
            orders,
            threads,
        };
        // Nobody waits for the answers: connections that come before are not served before, either.
        _ = plane.order(prepared);
        Ok(plane)
    }

    /// Makes everything ready to serve these routers instead of the present ones, and changes nothing yet. A router that
    /// is served already goes on as it is; one with the label of another takes its place, and is best made by
    /// [`Router::successor`]. Listeners that stay at their address stay open.
    pub fn prepare(&self, routers: Vec<Arc<Router>>) -> Result<Prepared, StartError> {
        prepare(routers, &self.listeners, self.next)
    }

    /// Puts what was prepared in force, without a pause: every request that begins from now on is served by the new
    /// routers, those under way end with the old ones. Waits until all workers have confirmed it, though not for long.
    /// Cancel safe: it is done, only not confirmed.
    pub async fn swap(&mut self, prepared: Prepared) -> Swapped {
        let before = self.listeners.clone();
        let mut done = self.order(prepared);
        let is_in = |list: &[Listener], id| list.iter().any(|listener| listener.id == id);
        let only = |some: &[Listener], others: &[Listener]| -> Vec<SocketAddr> {
            let only = some.iter().filter(|one| !is_in(others, one.id));
            only.map(|one| one.addr).collect()
        };
        let mut swapped = Swapped {
            opened: only(&self.listeners, &before),
            closed: only(&before, &self.listeners),
            late: self.orders.len(),
        };
        let confirmed = async {
            while done.recv().await.is_some() {
                swapped.late -= 1;
            }
        };
        // Each worker's sender goes with its answer, or with the worker.
        _ = tokio::time::timeout(SWAP_LIMIT, confirmed).await;
        swapped
    }

    /// Tells all workers; they answer on the channel.
    fn order(&mut self, prepared: Prepared) -> mpsc::Receiver<()> {
        let (done, answers) = mpsc::channel(self.orders.len().max(1));
        let planned = prepared.listeners.iter().map(|(_, planned)| *planned);
        let plan = Arc::new(Plan {
            routers: prepared.routers.clone(),
            listeners: planned.collect(),
        });
        for orders in &self.orders {
            // A worker that has ended serves nothing any more.
            _ = orders.send(Order::Serve(Arc::clone(&plan), done.clone()));
        }
        // After all workers have got the plan, so that they know what comes in there.
        if let Some(first) = self.orders.first() {
            _ = first.send(Order::Accept(prepared.sockets));
        }
        self.routers = prepared.routers;
        self.listeners = prepared.listeners.into_iter().map(|(one, _)| one).collect();
        self.next = prepared.next;
        answers
    }

    /// The routers it serves.
    pub fn routers(&self) -> &[Arc<Router>] {
        &self.routers
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.sum(|load| &load.connections)
    }

    /// Of all workers.
    fn sum(&self, count: impl Fn(&Load) -> &AtomicUsize) -> usize {
        let counts = self.loads.iter().map(|load| count(load));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Closes the listeners; connections that are open go on.
    pub fn stop_accepting(&self) {
        self.accepting.send_replace(false);
    }

    /// The first part of an end: every answer says that its connection closes, and connections are still accepted, for
    /// nobody else may have the port yet. Until the requests that were under way have ended and idle connections were
    /// kept for a second more, so that no request crosses the close; at once when nobody is connected; and before
    /// `limit` is over, so that [`DataPlane::drain`] with what is left of it can finish what was accepted last. Cancel
    /// safe.
    pub async fn leave(&self, limit: Duration) {
        self.phase.send_replace(Phase::Leave);
        let began = Instant::now();
        let (until, lingers) = (began + accepts_for(limit), began + LINGER);
        let older = || self.sum(|load| &load.older);
        // Workers take a moment to hear of it: what begins before that ends before the second is over, or is waited for.
        while self.connections() > 0 && (older() > 0 || Instant::now() < lingers) {
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops accepting, lets what is under way finish, closes keep-alive connections politely, and cuts what is left
    /// after `limit`. Cancel safe: called again, it goes on.
    pub async fn drain(&mut self, limit: Duration) -> Drained {
        self.stop_accepting();
        let end = Instant::now() + limit;
        // A worker ends when it has nothing left to do: not before it has got the last connection.
        let closed = end.min(Instant::now() + LISTENERS_END);
        while self.open.load(Ordering::Relaxed) > 0 && Instant::now() < closed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.phase.send_replace(Phase::Drain);
        while self.connections() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cut = self.connections();
        self.phase.send_replace(Phase::Stop);
        // What is cut is still counted, and its spans are recorded.
        let end = Instant::now() + THREAD_END;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Drained { cut }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stop);
        let end = Instant::now() + THREAD_END;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                let thread = thread.thread().name().unwrap_or_default();
                tracing::error!(thread, "a data thread is stuck and was left behind");
                continue;
            }
            // A worker that panicked has said so in the log.
            _ = thread.join();
        }
    }
}

/// Opens what is not open yet. `open` are the listeners there are, `next` is the number of the next one.
fn prepare(
    routers: Vec<Arc<Router>>,
    open: &[Listener],
    mut next: ListenerId,
) -> Result<Prepared, StartError> {
    let mut free: Vec<&Listener> = open.iter().collect();
    let mut wanted = Vec::new();
    for (index, router) in routers.iter().enumerate() {
        for (server, settings) in router.settings.servers.iter().enumerate() {
            // Those that stay where they are come first, before one takes another's place.
            let same = |one: &&Listener| {
                one.configured == settings.addr
                    && (settings.addr.port() != 0 || one.label == *router.label())
            };
            let found = free.iter().position(same).map(|at| free.remove(at));
            wanted.push((index, server, settings, found));
        }
    }
    let (mut listeners, mut sockets, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (index, server, settings, found) in wanted {
        let label = routers[index].label();
        let known = found.or_else(|| {
            let at = free.iter().position(|one| clash(one.addr, settings.addr))?;
            let old = free.remove(at);
            kept.push(Kept {
                router: Arc::clone(label),
                server,
                wanted: settings.addr,
                has: old.addr,
            });
            Some(old)
        });
        let listener = match known {
            Some(known) => Listener {
                label: Arc::clone(label),
                ..known.clone()
            },
            None => {
                let failed = |error| StartError::Listen {
                    router: (&**label).into(),
                    addr: settings.addr,
                    error,
                };
                let socket = listen(settings).map_err(failed)?;
                let addr = socket.local_addr().map_err(failed)?;
                sockets.push((next, socket));
                next += 1;
                Listener {
                    id: next - 1,
                    label: Arc::clone(label),
                    configured: settings.addr,
                    addr,
                }
            }
        };
        let planned = Planned {
            id: listener.id,
            addr: listener.addr,
            router: index,
            server,
        };
        listeners.push((listener, planned));
    }
    for (index, router) in routers.iter().enumerate() {
        let own = listeners
            .iter()
            .filter(|(_, planned)| planned.router == index);
        // A router that is served already has them.
        _ = router.listeners.set(own.map(|(one, _)| one.addr).collect());
    }
    Ok(Prepared {
        routers,
        listeners,
        sockets,
        next,
        kept,
    })
}

/// Whether an address cannot be listened on while another one is.
fn clash(open: SocketAddr, wanted: SocketAddr) -> bool {
    let (a, b) = (open.ip(), wanted.ip());
    open.port() == wanted.port() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn listen(settings: &ServerSettings) -> io::Result<TcpListener> {
    let SocketSettings {
        reuse_addr,
        reuse_port,
        backlog,
        ..
    } = settings.socket;
    let socket = Socket::new(
        Domain::for_address(settings.addr),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(reuse_addr)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if settings.addr.is_ipv6() {
        // `::` takes IPv4 too, as Java's listeners do.
        socket.set_only_v6(false)?;
    }
    socket.bind(&settings.addr.into())?;
    // What is accepted inherits these on Linux: two system calls less for each connection, see `Inherited`.
    _ = socket.set_tcp_nodelay(settings.socket.no_delay);
    _ = socket.set_keepalive(keeps_alive(&settings.socket));
    socket.listen(backlog.map_or(BACKLOG, |backlog| {
        i32::try_from(backlog).unwrap_or(i32::MAX)
    }))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn keeps_alive(settings: &SocketSettings) -> bool {
    settings.keep_alive.unwrap_or(true)
}

/// A data thread's life.
fn work(index: usize, ties: Ties, acceptors: Option<Acceptors>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a data thread");
            return;
        }
    };
    runtime.block_on(worker::run(index, ties, acceptors));
}

/// The ways to all workers; the first worker has them.
pub(crate) struct Acceptors {
    senders: Vec<mpsc::Sender<Accepted>>,
    loads: Vec<Arc<Load>>,
    accepting: watch::Receiver<bool>,
    /// How many listeners are open.
    open: Arc<AtomicUsize>,
    next: Arc<AtomicUsize>,
}

/// A listener that may still give connections to workers.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Acceptors {
    /// Accepts on this socket from now on, in a task of its own.
    pub(crate) fn spawn(
        &self,
        id: ListenerId,
        socket: TcpListener,
        entrance: Rc<Entrance>,
        idle: Rc<Notify>,
    ) {
        let ways = Self {
            senders: self.senders.clone(),
            loads: self.loads.clone(),
            accepting: self.accepting.clone(),
            open: Arc::clone(&self.open),
            next: Arc::clone(&self.next),
        };
        let open = Open::new(&self.open);
        tokio::task::spawn_local(async move {
            ways.accept(id, socket, &entrance, &idle).await;
            drop(open);
        });
    }

    /// Accepts until told to stop. Nothing that accept says ends it.
    async fn accept(
        mut self,
        id: ListenerId,
        socket: TcpListener,
        entrance: &Rc<Entrance>,
        idle: &Rc<Notify>,
    ) {
        let inherited = Inherited::of(&socket);
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that may close by themselves: not this one"
        )]
        let watched = AsyncFd::with_interest(socket, Interest::READABLE);
        let socket = match watched {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "cannot watch the listener");
                return;
            }
        };
        let mut complaint = Complaint::default();
        while *self.accepting.borrow_and_update() && !entrance.is_closed() {
            let accepted = tokio::select! {
                biased;
                accepted = accepted(&socket) => accepted,
                () = entrance.ended.notified() => continue,
                changed = self.accepting.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            match accepted {
                Ok((tcp, peer)) => {
                    let who = (entrance, idle);
                    if !self.hand_over(id, tcp, peer, who, &inherited).await {
                        return;
                    }
                }
                Err(error) => {
                    complaint.say(socket.get_ref().local_addr().ok(), &error);
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        // Who has connected already is served: closing would reset what waits in the queue. The system is asked itself,
        // as the runtime may not have heard of them yet.
        let socket = socket.into_inner();
        while let Ok((tcp, peer)) = accept_one(&socket) {
            let who = (entrance, idle);
            if !self.hand_over(id, tcp, peer, who, &inherited).await {
                return;
            }
        }
    }

    /// Gives a connection to the worker with the fewest; false when that has ended.
    async fn hand_over(
        &self,
        listener: ListenerId,
        tcp: TcpStream,
        peer: SocketAddr,
        (entrance, idle): (&Rc<Entrance>, &Rc<Notify>),
        inherited: &Inherited,
    ) -> bool {
        let behind = entrance.behind();
        inherited.complete(
            &tcp,
            &behind.local.router.settings.servers[behind.server].socket,
        );
        drop(behind);
        let local = match inherited.local {
            Some(local) => local,
            None => match tcp.local_addr() {
                Ok(local) => local,
                Err(_) => return true, // it is gone already
            },
        };
        let worker = fewest(&self.loads, &self.next);
        let accepted = Accepted {
            listener,
            tcp,
            local,
            peer,
            counted: Counted::new(&self.loads[worker]),
        };
        if worker == 0 {
            // This is the first worker's thread.
            begin(entrance, idle, accepted);
            return true;
        }
        self.senders[worker].send(accepted).await.is_ok()
    }
}

/// The next connection. Cancel safe.
async fn accepted(socket: &AsyncFd<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    // However many come at once: those that are here are served between them.
    tokio::task::coop::consume_budget().await;
    loop {
        let mut ready = socket.readable().await?;
        let result = accept_one(socket.get_ref());
        match &result {
            Ok(_) if has_more(socket.get_ref()) => {}
            Ok(_) => ready.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            Err(_) => {}
        }
        return result;
    }
}

/// Whether a connection waits to be accepted. To ask costs a tenth of an accept that finds none: that one makes a socket before
/// it looks.
fn has_more(socket: &TcpListener) -> bool {
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    // When it cannot be told, the next accept tells.
    poll(&mut waiting, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

/// A connection that has come in. It does not block.
fn accept_one(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (tcp, peer) = acceptfrom_with(socket, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((tcp.into(), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}

/// What connections have from the listening socket they came by, so that it need not be asked for or set again.
struct Inherited {
    /// TCP_NODELAY and SO_KEEPALIVE; none where they are not inherited.
    options: Option<(bool, bool)>,
    /// Their local address; none when that is any of this machine's.
    local: Option<SocketAddr>,
}

impl Inherited {
    fn of(listener: &TcpListener) -> Self {
        let socket = SockRef::from(listener);
        let options = || Some((socket.tcp_nodelay().ok()?, socket.keepalive().ok()?));
        let local = listener.local_addr().ok();
        Self {
            options: if cfg!(target_os = "linux") {
                options()
            } else {
                None
            },
            local: local.filter(|addr| !addr.ip().is_unspecified()),
        }
    }

    /// Sets what is wanted otherwise by now: a reload changes settings and keeps the listener.
    fn complete(&self, tcp: &TcpStream, wanted: &SocketSettings) {
        if self.options == Some((wanted.no_delay, keeps_alive(wanted))) {
            return;
        }
        let options = SockRef::from(tcp);
        // An option that cannot be set is no reason to refuse a client.
        _ = options.set_tcp_nodelay(wanted.no_delay);
        _ = options.set_keepalive(keeps_alive(wanted));
    }
}

/// The worker with the fewest connections; the next one in turn among equals.
fn fewest(loads: &[Arc<Load>], next: &AtomicUsize) -> usize {
    if loads.len() == 1 {
        return 0;
    }
    let start = next.fetch_add(1, Ordering::Relaxed);
    let order = (0..loads.len()).map(|n| (start + n) % loads.len());
    order
        .min_by_key(|&n| loads[n].connections.load(Ordering::Relaxed))
        .unwrap_or(0)
}

/// Says at most once a second that accepting fails.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    fn say(&mut self, addr: Option<SocketAddr>, error: &io::Error) {
        if self
            .last
            .is_some_and(|last| last.elapsed() < Duration::from_secs(1))
        {
            self.unsaid += 1;
            return;
        }
        self.last = Some(Instant::now());
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::warn!(?addr, %error, unsaid, "cannot accept connections; open ones go on");
    }
}
