//! Listeners and workers: connections are accepted and, before a byte is read, given to the worker with the fewest.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::{mpsc, watch};

use crate::router::Router;
use crate::settings::{ServerSettings, SocketSettings};
use crate::worker::{self, Accepted, Load, Phase, Tcp};

/// Connections on their way to a worker at once.
const HANDOVER: usize = 1024;
/// Length of the accept queue.
const BACKLOG: i32 = 1024;
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
    phase: watch::Sender<Phase>,
    accepting: watch::Sender<bool>,
    loads: Vec<Arc<Load>>,
    threads: Vec<JoinHandle<()>>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because the time was over.
    pub cut: usize,
}

/// A listener before it is served.
struct Listening {
    router: usize,
    server: usize,
    socket: TcpListener,
    addr: SocketAddr,
}

impl DataPlane {
    /// Binds all listeners, then starts `workers` data threads that serve them.
    pub fn start(routers: Vec<Arc<Router>>, workers: usize) -> Result<Self, StartError> {
        let mut listening = Vec::new();
        for (index, router) in routers.iter().enumerate() {
            let mut addrs = Vec::new();
            for (server, settings) in router.settings.servers.iter().enumerate() {
                let failed = |error| StartError::Listen {
                    router: (&**router.label()).into(),
                    addr: settings.addr,
                    error,
                };
                let socket = listen(settings).map_err(failed)?;
                let addr = socket.local_addr().map_err(failed)?;
                addrs.push(addr);
                listening.push(Listening {
                    router: index,
                    server,
                    socket,
                    addr,
                });
            }
            // A router is started once.
            _ = router.listeners.set(addrs);
        }
        Self::serve(routers, listening, workers.max(1))
    }

    fn serve(
        routers: Vec<Arc<Router>>,
        listening: Vec<Listening>,
        workers: usize,
    ) -> Result<Self, StartError> {
        let (phase, phases) = watch::channel(Phase::Serve);
        let (accepting, accepts) = watch::channel(true);
        let loads: Vec<_> = (0..workers).map(|_| Arc::new(Load::default())).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::channel(HANDOVER)).unzip();
        let mut acceptors = Some(Acceptors {
            listening,
            senders,
            loads: loads.clone(),
            accepting: accepts,
        });
        let mut threads = Vec::new();
        for (index, receiver) in receivers.into_iter().enumerate() {
            let (routers, phases, load) =
                (routers.clone(), phases.clone(), Arc::clone(&loads[index]));
            // The first worker accepts: with one worker, no connection changes threads.
            let acceptors = acceptors.take();
            let body = move || work(index, routers, receiver, phases, load, acceptors);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(body).map_err(StartError::Thread)?);
        }
        Ok(Self {
            routers,
            phase,
            accepting,
            loads,
            threads,
        })
    }

    /// The routers it serves.
    pub fn routers(&self) -> &[Arc<Router>] {
        &self.routers
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.loads
            .iter()
            .map(|load| load.connections.load(Ordering::Relaxed))
            .sum()
    }

    /// Closes the listeners; connections that are open go on.
    pub fn stop_accepting(&self) {
        self.accepting.send_replace(false);
    }

    /// Stops accepting, lets what is under way finish, closes keep-alive connections politely, and cuts what is left
    /// after `limit`. Cancel safe: called again, it goes on.
    pub async fn drain(&mut self, limit: Duration) -> Drained {
        self.stop_accepting();
        self.phase.send_replace(Phase::Drain);
        let end = Instant::now() + limit;
        while self.connections() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cut = self.connections();
        self.phase.send_replace(Phase::Stop);
        Drained { cut }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stop);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so in the log.
            _ = thread.join();
        }
    }
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
    socket.listen(backlog.map_or(BACKLOG, |backlog| {
        i32::try_from(backlog).unwrap_or(i32::MAX)
    }))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A data thread's life.
fn work(
    index: usize,
    routers: Vec<Arc<Router>>,
    receiver: mpsc::Receiver<Accepted>,
    phases: watch::Receiver<Phase>,
    load: Arc<Load>,
    acceptors: Option<Acceptors>,
) {
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
    runtime.block_on(async move {
        if let Some(acceptors) = acceptors {
            acceptors.spawn(&routers);
        }
        worker::run(index, routers, receiver, phases, load).await;
    });
}

/// All listeners, and the ways to all workers.
struct Acceptors {
    listening: Vec<Listening>,
    senders: Vec<mpsc::Sender<Accepted>>,
    loads: Vec<Arc<Load>>,
    accepting: watch::Receiver<bool>,
}

impl Acceptors {
    fn spawn(self, routers: &[Arc<Router>]) {
        let next = Arc::new(AtomicUsize::new(0));
        for one in self.listening {
            let settings = routers[one.router].settings.servers[one.server]
                .socket
                .clone();
            let (senders, loads) = (self.senders.clone(), self.loads.clone());
            let (accepting, next) = (self.accepting.clone(), Arc::clone(&next));
            tokio::task::spawn_local(accept(one, settings, senders, loads, accepting, next));
        }
    }
}

/// Accepts until told to stop. Nothing that accept says ends it.
async fn accept(
    one: Listening,
    settings: SocketSettings,
    senders: Vec<mpsc::Sender<Accepted>>,
    loads: Vec<Arc<Load>>,
    mut accepting: watch::Receiver<bool>,
    next: Arc<AtomicUsize>,
) {
    let Listening {
        router,
        server,
        socket,
        addr,
    } = one;
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%addr, %error, "cannot watch the listener");
            return;
        }
    };
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            changed = accepting.changed() => {
                if changed.is_err() || !*accepting.borrow_and_update() {
                    return;
                }
                continue;
            }
        };
        match accepted {
            Ok((tcp, peer)) => {
                let options = SockRef::from(&tcp);
                // An option that cannot be set is no reason to refuse a client.
                _ = options.set_tcp_nodelay(settings.no_delay);
                _ = options.set_keepalive(settings.keep_alive.unwrap_or(true));
                let local = tcp.local_addr().unwrap_or(addr);
                let worker = fewest(&loads, &next);
                // This is the first worker's thread: what stays here is not registered anew.
                let tcp = match worker {
                    0 => Tcp::Here(tcp),
                    _ => match tcp.into_std() {
                        Ok(tcp) => Tcp::Elsewhere(tcp),
                        Err(_) => continue,
                    },
                };
                loads[worker].connections.fetch_add(1, Ordering::Relaxed);
                let accepted = Accepted {
                    router,
                    server,
                    tcp,
                    local,
                    peer,
                };
                if senders[worker].send(accepted).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                complaint.say(addr, &error);
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
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
    fn say(&mut self, addr: SocketAddr, error: &io::Error) {
        if self
            .last
            .is_some_and(|last| last.elapsed() < Duration::from_secs(1))
        {
            self.unsaid += 1;
            return;
        }
        self.last = Some(Instant::now());
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::warn!(%addr, %error, unsaid, "cannot accept connections; open ones go on");
    }
}
