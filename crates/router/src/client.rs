//! The router as a client: a bound name's endpoints, the pooled connections to them, and making new ones.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use dtab::Path;
use naming::Addr;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::balance::{Candidate, Lanes, Picker, Shared};
use crate::budget::{Budget, Deposits};
use crate::idle::{Idle, IdlePools};
use crate::io::{Blocks, Buffer, Io};
use crate::pool::{NoPlace, Place, Places};
use crate::settings::{BINDING_TIMEOUT, ClientSettings};
use crate::stats::{ClientGauges, ClientStats};
use crate::timer::Timer;
use crate::tls::{self, ClientKeys, TlsCheck, TlsFailure};
use crate::tunnel;
use crate::worker::Worker;

/// What all workers share of one bound name.
pub(crate) struct ClientShared {
    pub(crate) id: Path,
    pub(crate) settings: Arc<ClientSettings>,
    pub(crate) requeues: Budget,
    pub(crate) gauges: ClientGauges,
    /// With `settings.tls`.
    keys: Option<Arc<ClientKeys>>,
    /// Random, for all workers: see [`Picker::new`].
    order: u64,
    /// With `settings.pool_max`.
    places: Mutex<HashMap<SocketAddr, Weak<Places>>>,
    endpoints: Mutex<HashMap<SocketAddr, Weak<Shared>>>,
    addr: Mutex<Addr>,
    workers: usize,
}

impl ClientShared {
    pub(crate) fn new(
        id: Path,
        settings: Arc<ClientSettings>,
        keys: Option<Arc<ClientKeys>>,
        workers: usize,
    ) -> Self {
        let requeues = Budget::new(settings.requeue_budget, Instant::now());
        Self {
            id,
            settings,
            requeues,
            gauges: ClientGauges::default(),
            keys,
            order: fastrand::u64(..),
            places: Mutex::default(),
            endpoints: Mutex::default(),
            addr: Mutex::new(Addr::Pending),
            workers,
        }
    }

    /// The same bound name with other settings: what is known of its endpoints stays.
    pub(crate) fn successor(
        &self,
        settings: Arc<ClientSettings>,
        keys: Option<Arc<ClientKeys>>,
    ) -> Self {
        let new = Self::new(self.id.clone(), settings, keys, self.workers);
        *lock(&new.endpoints) = lock(&self.endpoints).clone();
        *lock(&new.addr) = self.addr();
        new
    }

    /// The endpoint's record; the same one as long as anybody holds it.
    fn endpoint(&self, addr: SocketAddr) -> Arc<Shared> {
        let mut endpoints = lock(&self.endpoints);
        if let Some(known) = endpoints.get(&addr).and_then(Weak::upgrade) {
            return known;
        }
        endpoints.retain(|_, known| known.strong_count() > 0);
        let new = Shared::new(addr, self.workers, Instant::now());
        endpoints.insert(addr, Arc::downgrade(&new));
        new
    }

    /// The places for connections to an endpoint, where their number is limited.
    fn places(&self, addr: SocketAddr) -> Option<Arc<Places>> {
        let mut all = lock(&self.places);
        if let Some(known) = all.get(&addr).and_then(Weak::upgrade) {
            return Some(known);
        }
        let new = Places::new(&self.settings)?;
        all.retain(|_, known| known.strong_count() > 0);
        all.insert(addr, Arc::downgrade(&new));
        Some(new)
    }

    /// The address set as it was last published, for `/client_state.json`.
    pub(crate) fn addr(&self) -> Addr {
        lock(&self.addr).clone()
    }

    /// The endpoints in use, for people.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Shared>> {
        let endpoints = lock(&self.endpoints);
        endpoints.values().filter_map(Weak::upgrade).collect()
    }
}

/// Locks a table whose every state between two statements is a sound one, so that a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker's client of one bound name.
pub(crate) struct Client {
    pub(crate) shared: Arc<ClientShared>,
    /// Those of `shared`.
    pub(crate) settings: Arc<ClientSettings>,
    pub(crate) stats: Arc<ClientStats>,
    pub(crate) deposits: Deposits,
    endpoints: RefCell<Vec<Listed>>,
    picker: RefCell<Picker>,
    pools: Rc<IdlePools>,
    worker: usize,
}

/// A worker's view of one endpoint.
pub(crate) struct Endpoint {
    pub(crate) shared: Arc<Shared>,
    weight: f64,
    idle: Rc<Idle>,
    places: Option<Arc<Places>>,
    /// Requests that wait here for a connection, and what tells them that one was put back.
    waiting: Cell<u32>,
    returned: Notify,
    /// Gone from the address set: what is under way ends, nothing is kept.
    removed: Cell<bool>,
}

#[cfg(test)]
impl Endpoint {
    /// One without connections.
    pub(crate) fn alone(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            weight: 1.0,
            idle: Rc::default(),
            places: None,
            waiting: Cell::new(0),
            returned: Notify::new(),
            removed: Cell::new(false),
        })
    }
}

/// An endpoint in a client's list, and beside it what a pick compares.
struct Listed {
    lanes: Lanes,
    endpoint: Rc<Endpoint>,
}

impl Candidate for Listed {
    fn shared(&self) -> &Shared {
        &self.endpoint.shared
    }

    fn lanes(&self) -> &Lanes {
        &self.lanes
    }
}

/// A connection to an endpoint.
pub(crate) struct Upstream {
    pub(crate) io: Io,
    pub(crate) buffer: Buffer,
    pub(crate) local: Option<SocketAddr>,
    /// It carried a request before.
    pub(crate) reused: bool,
    made: Instant,
    pub(crate) idle_since: Instant,
    _open: Open,
    /// Where their number is limited.
    _place: Option<Place>,
}

/// A connection to an endpoint, and the client whose request it carries.
pub(crate) struct Lent<'a> {
    upstream: &'a mut Upstream,
    user: &'a ClientStats,
}

impl Deref for Lent<'_> {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        self.upstream
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Upstream {
        self.upstream
    }
}

impl Lent<'_> {
    /// Writes of both, and counts it.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(self.io.poll_write_two(cx, head, body))?;
        self.sent(n);
        Poll::Ready(Ok(n))
    }

    /// Reads more into the buffer, and counts it.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Upstream { io, buffer, .. } = &mut *self.upstream;
        let n = ready!(io.poll_read(cx, buffer))?;
        self.received(n);
        Poll::Ready(Ok(n))
    }

    /// Counts bytes that came from it.
    pub(crate) fn received(&self, n: usize) {
        self.user.received.add(n as u64);
    }

    /// Counts bytes that went to it.
    pub(crate) fn sent(&self, n: usize) {
        self.user.sent.add(n as u64);
    }
}

/// Counts an open connection while it lives, with the client that made it.
struct Open(Arc<ClientStats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.decr();
        self.0.closes.incr();
    }
}

/// What came of waiting for a place.
enum Placed {
    Place(Place),
    Connection(Box<Upstream>),
}

/// Counts a request that waits on this worker.
struct WaitingHere<'a>(&'a Cell<u32>);

impl<'a> WaitingHere<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for WaitingHere<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Refused(io::Error),
    Timeout,
    /// There is a connection, but no TLS.
    Tls(TlsFailure),
    /// There may be no further one.
    NoPlace(NoPlace),
}

impl ConnectError {
    /// Whether nobody answered at all: the machine is gone, or the way to it.
    fn is_silence(&self) -> bool {
        use io::ErrorKind;
        match self {
            Self::Timeout => true,
            Self::Refused(error) => matches!(
                error.kind(),
                ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ),
            Self::Tls(_) | Self::NoPlace(_) => false,
        }
    }
}

/// Bytes that are not acknowledged for so long end the connection: its machine is dead, or unreachable.
const UNACKNOWLEDGED: Duration = Duration::from_secs(6);
/// A connection that is silent for so long is asked whether its machine still lives, and then each second.
const SILENT: Duration = Duration::from_secs(5);

/// Longest wait for a connection that others use, as Linkerd 1's `bindingTimeoutMs`, in which it includes this.
const PLACE_TIME: Duration = BINDING_TIMEOUT;

/// Longest wait for a handshake with an endpoint, behind the wait for its connection.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// A machine that loses its power says nothing: without this, requests on connections to it wait for ever. A service that
/// is merely slow is not affected, for its kernel answers.
fn watch_for_death(socket: &TcpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let alive = TcpKeepalive::new()
        .with_time(SILENT)
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&alive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

impl Client {
    pub(crate) fn new(shared: Arc<ClientShared>, stats: Arc<ClientStats>, worker: &Worker) -> Self {
        let seed = fastrand::u64(..);
        let kind = shared.settings.balancer.clone();
        let picker = Picker::new(kind, seed, shared.order, Instant::now());
        Self {
            settings: Arc::clone(&shared.settings),
            shared,
            stats,
            deposits: Deposits::default(),
            endpoints: RefCell::default(),
            picker: RefCell::new(picker),
            pools: Rc::clone(&worker.pools),
            worker: worker.index,
        }
    }

    /// Takes in a new address set: an endpoint that stays keeps its connections, latency and ejection state.
    pub(crate) fn update(&self, addr: &Addr) {
        *lock(&self.shared.addr) = addr.clone();
        let new: &[naming::Endpoint] = match addr {
            Addr::Bound(endpoints) => endpoints,
            // Nothing is known anew: what we have stays.
            Addr::Pending | Addr::Failed(_) => return,
            Addr::Neg => &[],
        };
        let mut endpoints = self.endpoints.borrow_mut();
        let mut old: HashMap<_, _> = endpoints
            .drain(..)
            .map(|one| (one.endpoint.shared.addr, one.endpoint))
            .collect();
        for endpoint in new {
            let one = match old.remove(&endpoint.addr) {
                Some(known) if known.weight == endpoint.weight => known,
                known => Rc::new(Endpoint {
                    shared: known.as_ref().map_or_else(
                        || {
                            self.stats.adds.incr();
                            self.shared.endpoint(endpoint.addr)
                        },
                        |known| Arc::clone(&known.shared),
                    ),
                    weight: endpoint.weight,
                    places: self.shared.places(endpoint.addr),
                    waiting: Cell::new(0),
                    returned: Notify::new(),
                    idle: known.map_or_else(
                        || self.pools.of(endpoint.addr, &self.shared.settings),
                        |known| Rc::clone(&known.idle),
                    ),
                    removed: Cell::new(false),
                }),
            };
            endpoints.push(Listed {
                lanes: one.shared.lanes.clone(),
                endpoint: one,
            });
        }
        for gone in old.into_values() {
            self.stats.removes.incr();
            gone.removed.set(true);
            // Whoever has the address still, or again, has another endpoint there, perhaps.
            gone.idle.clear();
        }
        self.picker.borrow_mut().update(new);
        self.stats.updates.incr();
        self.shared.gauges.set(new);
    }

    /// Whether its endpoints are proxies, to which CONNECT is passed on.
    pub(crate) fn leads_to_proxies(&self) -> bool {
        let configured = self.settings.proxies;
        configured.unwrap_or_else(|| tunnel::leads_to_proxies(&self.shared.id))
    }

    /// How many endpoints there are to pick from.
    pub(crate) fn width(&self) -> usize {
        self.endpoints.borrow().len()
    }

    /// An endpoint for the next attempt; `None` when there is none at all.
    pub(crate) fn pick(
        &self,
        avoid: Option<SocketAddr>,
        now: Instant,
        at_us: u64,
    ) -> Option<Rc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        let mut picker = self.picker.borrow_mut();
        let index = picker.pick(&endpoints, avoid, now, at_us)?;
        if picker.is_effort_exhausted() {
            self.stats.effort_exhausted.incr();
        }
        Some(Rc::clone(&endpoints[index].endpoint))
    }

    /// A pooled connection that is quiet and not [in doubt](Unanswered::since), or `None`.
    pub(crate) fn reuse(&self, endpoint: &Endpoint, now: Instant) -> Option<Box<Upstream>> {
        let settings = &*self.settings;
        loop {
            let mut upstream = endpoint.idle.take()?;
            let old = settings
                .session_life
                .is_some_and(|life| now.duration_since(upstream.made) > life);
            if !old
                && (now.duration_since(upstream.idle_since) < settings.pool_idle
                    || endpoint.idle.len() < self.kept())
                && !self.in_doubt(endpoint, upstream.idle_since)
                && upstream.io.is_quiet()
            {
                upstream.reused = true;
                return Some(upstream);
            }
        }
    }

    /// Whether a connection that was `heard` of then leads to nobody, perhaps.
    fn in_doubt(&self, endpoint: &Endpoint, heard: Instant) -> bool {
        self.pools.unanswered.since(endpoint.shared.addr, heard)
    }

    /// A connection for a request, a new one unless one is put back while it waits for its place. `timer` is armed for it.
    /// Cancel safe.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        blocks: &Blocks,
        timer: &Timer,
        deadline: Option<Instant>,
    ) -> Result<Box<Upstream>, ConnectError> {
        let place = match &endpoint.places {
            None => None,
            Some(places) => match places.take() {
                Some(place) => Some(place),
                None => {
                    let waited = self.wait_for_place(endpoint, places, timer, deadline);
                    match Box::pin(waited).await? {
                        Placed::Place(place) => Some(place),
                        Placed::Connection(upstream) => return Ok(upstream),
                    }
                }
            },
        };
        let began = Instant::now();
        let limit = began + self.settings.connect_timeout;
        timer.arm(deadline.map_or(limit, |deadline| deadline.min(limit)));
        let addr = endpoint.shared.addr;
        let connecting = async {
            let socket = if addr.is_ipv6() {
                TcpSocket::new_v6()
            } else {
                TcpSocket::new_v4()
            }?;
            socket.set_nodelay(true)?;
            watch_for_death(&socket)?;
            socket.connect(addr).await
        };
        let result = tokio::select! {
            biased;
            result = connecting => result.map_err(ConnectError::Refused),
            () = timer.expired() => Err(ConnectError::Timeout),
        };
        // A request that has less time than a connect is no measure.
        let cut_short = deadline.is_some_and(|deadline| deadline < limit);
        match &result {
            Err(ConnectError::Timeout) if cut_short => {}
            Err(error) if error.is_silence() => self.pools.unanswered.note(addr, began),
            _ => {}
        }
        let local = result.as_ref().ok().and_then(|tcp| tcp.local_addr().ok());
        let result = match (result, &self.shared.keys) {
            (Ok(tcp), None) => Ok(Io::Plain(tcp)),
            (Ok(tcp), Some(keys)) => Box::pin(self.secure(tcp, keys, addr, timer, deadline)).await,
            (Err(error), _) => Err(error),
        };
        timer.disarm();
        let micros = began.elapsed().as_micros() as u64;
        match result {
            Ok(io) => {
                self.stats.connects.incr();
                self.stats.connect_latency.record(micros);
                self.stats.connections.incr();
                Ok(Box::new(Upstream {
                    local,
                    io,
                    buffer: blocks.buffer(),
                    reused: false,
                    made: began,
                    idle_since: began,
                    _open: Open(Arc::clone(&self.stats)),
                    _place: place,
                }))
            }
            Err(error) => {
                self.stats.failed_connect_latency.record(micros);
                self.stats.not_connected(&error).incr();
                Err(error)
            }
        }
    }

    /// Waits until there may be a further connection, or one is put back on this worker.
    async fn wait_for_place(
        &self,
        endpoint: &Endpoint,
        places: &Places,
        timer: &Timer,
        deadline: Option<Instant>,
    ) -> Result<Placed, ConnectError> {
        // Those that idle were not wanted.
        endpoint.idle.clear();
        let _counted = places.wait().map_err(ConnectError::NoPlace)?;
        let _here = WaitingHere::new(&endpoint.waiting);
        let limit = Instant::now() + PLACE_TIME;
        timer.arm(deadline.map_or(limit, |deadline| deadline.min(limit)));
        let mut next = std::pin::pin!(places.next());
        let result = loop {
            tokio::select! {
                biased;
                () = endpoint.returned.notified() => {
                    if let Some(upstream) = self.reuse(endpoint, Instant::now()) {
                        break Ok(Placed::Connection(upstream));
                    }
                }
                place = &mut next => break Ok(Placed::Place(place)),
                () = timer.expired() => break Err(ConnectError::NoPlace(places.late())),
            }
        };
        timer.disarm();
        result
    }

    /// Goes through the handshake with an endpoint, within its own time.
    async fn secure(
        &self,
        tcp: TcpStream,
        keys: &ClientKeys,
        addr: SocketAddr,
        timer: &Timer,
        deadline: Option<Instant>,
    ) -> Result<Io, ConnectError> {
        let limit = Instant::now() + HANDSHAKE_TIME;
        timer.arm(deadline.map_or(limit, |deadline| deadline.min(limit)));
        let name = self
            .shared
            .settings
            .tls
            .as_ref()
            .and_then(|tls| tls.name.as_deref());
        let shaken = tokio::select! {
            biased;
            shaken = tls::connect(tcp, keys, name, addr) => shaken,
            () = timer.expired() => Err(TlsFailure::new(
                TlsCheck::Slow,
                format!("the handshake was not done within {HANDSHAKE_TIME:?}, or the request's own time"),
            )),
        };
        shaken.map(Io::Tls).map_err(ConnectError::Tls)
    }

    /// The connection, for a request of this client's.
    pub(crate) fn lend<'a>(&'a self, upstream: &'a mut Upstream) -> Lent<'a> {
        Lent {
            upstream,
            user: &self.stats,
        }
    }

    /// Puts a connection back that is clean: no unread bytes, and both sides keep it.
    pub(crate) fn put_back(&self, endpoint: &Endpoint, mut upstream: Box<Upstream>, now: Instant) {
        debug_assert!(upstream.buffer.is_empty());
        upstream.buffer.rest();
        if endpoint.removed.get() {
            return;
        }
        upstream.idle_since = now;
        match &endpoint.places {
            None => endpoint.idle.put(upstream),
            Some(places) => {
                let alone = self.shared.workers == 1;
                if endpoint.waiting.get() > 0 {
                    endpoint.idle.put(upstream);
                    endpoint.returned.notify_one();
                } else if alone || !(places.is_waited_for() || places.is_full()) {
                    endpoint.idle.put(upstream);
                }
            }
        }
    }

    /// Closes pooled connections that are too old, or that the endpoint closed. Every second or so.
    pub(crate) fn sweep(&self, now: Instant) {
        let (limit, min) = (self.settings.pool_idle, self.kept());
        for Listed { endpoint, .. } in self.endpoints.borrow().iter() {
            let places = endpoint.places.as_ref();
            if places.is_some_and(|places| places.is_waited_for()) {
                // Somebody on another worker has more use for their places.
                endpoint.idle.clear();
            }
            let in_doubt = |heard| self.in_doubt(endpoint, heard);
            endpoint.idle.sweep(now, limit, min, in_doubt);
        }
    }

    /// How many connections to an endpoint this worker keeps, however long they idle: its share of `minSize`.
    fn kept(&self) -> usize {
        let workers = self.shared.workers.max(1);
        (self.settings.pool_min as usize).div_ceil(workers)
    }

    /// The worker this client belongs to.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }
}
