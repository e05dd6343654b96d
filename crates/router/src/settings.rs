//! What a router was told to do, once checked: after this nothing parses or doubts again. The configuration file
//! (`rutter`'s) produces these; defaults are Linkerd 1's unless a comment says otherwise.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtab::Path;
use naming::PathMatcher;

mod tls;

pub use tls::{ClientTls, ServerTls, TlsIdentity, TlsVersions, Trust};

/// One router: its listeners, how it names requests and how it treats services and endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterSettings {
    /// Metric scope and name for people; the protocol's name when the file gives none.
    pub label: Arc<str>,
    /// At least one.
    pub servers: Vec<ServerSettings>,
    /// Tried in order; the first that names the request wins. Never empty.
    pub identifiers: Vec<IdentifierSettings>,
    /// Put in front of every name; `/svc` unless configured.
    pub dst_prefix: Path,
    /// Longest wait for a name to be bound and a connection to be had.
    pub binding_timeout: Duration,
    /// A name that was not asked for this long is given up, with its connections and metrics.
    pub binding_idle: Duration,
    /// Per concrete (bound) name.
    pub client: PerPath<ClientPart>,
    /// Per logical name.
    pub service: PerPath<ServicePart>,
    /// Which trace headers are believed and written.
    pub trace_propagator: TracePropagator,
    /// Where access lines go; `None`: nowhere.
    pub access_log: Option<AccessLogSettings>,
    /// Request bodies with a larger Content-Length are streamed and thus never retried by a classifier, in bytes.
    pub stream_after: u64,
    /// Limit of a whole message head, in bytes. Ours is 64 KB where Linkerd 1 has 8.
    pub max_head: usize,
    /// Limit of the request line, in bytes.
    pub max_line: usize,
    /// Limit of a request's body as it is on the wire, in bytes.
    pub max_request: Option<u64>,
    /// Level of the compression of responses, 1 to 9.
    pub compression: Option<u32>,
    /// Addresses of this node, its pod and the control plane, which no request may name.
    pub protected: Vec<IpAddr>,
}

/// Longest wait for a name to be bound, as Linkerd 1's `bindingTimeoutMs`.
pub const BINDING_TIMEOUT: Duration = Duration::from_secs(10);
/// As Linkerd 1's `bindingCache.idleTtlSecs`.
pub const BINDING_IDLE: Duration = Duration::from_secs(600);
/// As Linkerd 1's `streamAfterContentLengthKB`.
pub const STREAM_AFTER: u64 = 5 * 1024;
/// Our head limit; Linkerd 1's `maxHeadersKB: 8` breaks on cookies.
pub const MAX_HEAD: usize = 64 * 1024;
/// Our request-line limit; Linkerd 1's `maxInitialLineKB: 4` breaks on long queries.
pub const MAX_LINE: usize = 32 * 1024;

impl RouterSettings {
    /// A router with Linkerd 1's defaults: names requests by their Host, one server.
    pub fn new(label: &str, server: ServerSettings) -> Self {
        Self {
            label: label.into(),
            servers: vec![server],
            identifiers: vec![IdentifierSettings::HeaderToken {
                header: "Host".into(),
            }],
            dst_prefix: Path::utf8(["svc"]),
            binding_timeout: BINDING_TIMEOUT,
            binding_idle: BINDING_IDLE,
            client: PerPath::default(),
            service: PerPath::default(),
            trace_propagator: TracePropagator::Default,
            access_log: None,
            stream_after: STREAM_AFTER,
            max_head: MAX_HEAD,
            max_line: MAX_LINE,
            max_request: None,
            compression: None,
            protected: Vec::new(),
        }
    }
}

/// One listener of a router.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Address and port; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Drop all context headers of requests, and hide ours from responses (an edge listener).
    pub clear_context: bool,
    /// More requests at once than this are answered 503 (RT-E124); `None`: no limit.
    pub max_concurrent_requests: Option<u32>,
    /// More `Via` entries than this are a loop (RT-E115). Ours is 32 where Linkerd 1 has 1000.
    pub max_call_depth: usize,
    /// Adds `Forwarded`, with these labels for `by` and `for`.
    pub add_forwarded: Option<ForwardedSettings>,
    /// Adds a request header of this name with the time in milliseconds since 1970.
    pub timestamp_header: Option<Arc<str>>,
    /// From a request's arrival to its response head.
    pub timeout: Option<Duration>,
    /// An idle keep-alive connection is closed after this. Ours is 10 minutes where Linkerd 1 has none.
    pub idle_time: Option<Duration>,
    /// A connection is closed politely once it is older than this.
    pub life_time: Option<Duration>,
    /// Ports that CONNECT may ask for.
    pub connect_ports: Vec<u16>,
    /// A tunnel through which nothing goes for so long is ended.
    pub tunnel_idle: Duration,
    /// Options of accepted sockets.
    pub socket: SocketSettings,
    /// `tls`; `None`: plain HTTP.
    pub tls: Option<ServerTls>,
}

/// As `maxCallDepth`; ours, `design.md` says why.
pub const MAX_CALL_DEPTH: usize = 32;
/// Ours: `connectPorts`; Linkerd 1 has no tunnels.
pub const CONNECT_PORTS: [u16; 1] = [443];
/// Ours: `tunnelIdleMs`.
pub const TUNNEL_IDLE: Duration = Duration::from_secs(3600);
/// Our default for `serverSession.idleTimeMs`.
pub const SERVER_IDLE_TIME: Duration = Duration::from_secs(600);

impl ServerSettings {
    /// A listener with the defaults.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            clear_context: false,
            max_concurrent_requests: None,
            max_call_depth: MAX_CALL_DEPTH,
            add_forwarded: None,
            timestamp_header: None,
            timeout: None,
            idle_time: Some(SERVER_IDLE_TIME),
            life_time: None,
            connect_ports: CONNECT_PORTS.to_vec(),
            tunnel_idle: TUNNEL_IDLE,
            socket: SocketSettings::default(),
            tls: None,
        }
    }
}

/// `socketOptions`; what is `None` is left to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// SO_REUSEADDR.
    pub reuse_addr: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// SO_KEEPALIVE.
    pub keep_alive: Option<bool>,
    /// Length of the accept queue.
    pub backlog: Option<u32>,
    /// Longest silence while reading a message.
    pub read_timeout: Option<Duration>,
    /// Longest time a write may stand still.
    pub write_timeout: Option<Duration>,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            no_delay: true,
            reuse_addr: true,
            reuse_port: false,
            keep_alive: None,
            backlog: None,
            read_timeout: None,
            write_timeout: None,
        }
    }
}

/// How the two sides of a `Forwarded` header are told; both are random per request unless configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardedSettings {
    /// This router.
    pub by: ForwardedLabel,
    /// The client.
    pub client: ForwardedLabel,
}

/// A node in a `Forwarded` header (RFC 7239), as Linkerd 1's labelers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardedLabel {
    /// The IP address.
    Ip,
    /// IP address and port.
    IpPort,
    /// A random word that stays with the connection.
    ConnectionRandom,
    /// A random word for each request.
    RequestRandom,
    /// The router's label.
    Router,
    /// A fixed word.
    Static(Arc<str>),
}

/// How a request gets its name (`io.l5d.*` identifiers of `http`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentifierSettings {
    /// `io.l5d.header.token`: the header's value is one segment.
    HeaderToken {
        /// Header name.
        header: Arc<str>,
    },
    /// `io.l5d.header`: the header's value is a path.
    Header {
        /// Header name, `l5d-name` unless configured.
        header: Arc<str>,
    },
    /// `io.l5d.methodAndHost`.
    MethodAndHost {
        /// Appends the segments of the request's path.
        uri_in_dst: bool,
    },
    /// `io.l5d.path`: the first segments of the request's path.
    Path {
        /// How many, at least 1.
        segments: usize,
        /// Takes them off the forwarded path.
        consume: bool,
    },
    /// `io.l5d.static`.
    Static {
        /// The name, behind the prefix.
        path: Path,
    },
}

/// Trace headers that are read and written besides `l5d-ctx-trace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracePropagator {
    /// `io.l5d.default`: `l5d-ctx-trace`; B3 and W3C when the request came with them.
    Default,
    /// `io.l5d.zipkin`: B3 always.
    Zipkin,
}

/// `httpAccessLog`.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogSettings {
    /// The file.
    pub path: PathBuf,
    /// Lines are JSON objects rather than Linkerd 1's.
    pub json: bool,
    /// Append to what is there, rather than begin anew.
    pub append: bool,
    /// When a new file is begun.
    pub roll: RollPolicy,
    /// How many old files are kept; `None`: all.
    pub keep: Option<usize>,
}

/// When an access log begins a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollPolicy {
    /// Never.
    Never,
    /// Each hour.
    Hourly,
    /// Each day.
    Daily,
    /// Each week, on this day (1 = Sunday).
    Weekly(u8),
    /// When the file is larger, in bytes.
    Size(u64),
    /// When the process gets SIGHUP.
    Sighup,
}

/// Settings by prefix of a name: all entries that match are merged, a later one overrides key by key.
///
/// `io.l5d.global` is one entry with the prefix `/`; `io.l5d.static` is its list.
#[derive(Clone, Debug, PartialEq)]
pub struct PerPath<T> {
    /// In the order of the file.
    pub entries: Vec<(PathMatcher, T)>,
}

impl<T> Default for PerPath<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

/// What one entry of `client` says; `None` leaves the key to other entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientPart {
    /// `loadBalancer`.
    pub balancer: Option<Balancer>,
    /// `failureAccrual`.
    pub accrual: Option<Accrual>,
    /// `requestAttemptTimeoutMs`.
    pub attempt_timeout: Option<Duration>,
    /// `requeueBudget`.
    pub requeue_budget: Option<BudgetSettings>,
    /// `failFast`.
    pub fail_fast: Option<bool>,
    /// `hostConnectionPool.minSize`.
    pub pool_min: Option<u32>,
    /// `hostConnectionPool.maxSize`.
    pub pool_max: Option<u32>,
    /// `hostConnectionPool.idleTimeMs`.
    pub pool_idle: Option<Duration>,
    /// `hostConnectionPool.maxWaiters`.
    pub pool_waiters: Option<u32>,
    /// `clientSession.idleTimeMs`.
    pub session_idle: Option<Duration>,
    /// `clientSession.lifeTimeMs`.
    pub session_life: Option<Duration>,
    /// Ours: `connectTimeoutMs`.
    pub connect_timeout: Option<Duration>,
    /// `tls`.
    pub tls: Option<ClientTls>,
    /// `forwardClientCert`.
    pub forward_client_cert: Option<bool>,
    /// Ours: `httpProxy`.
    pub proxies: Option<bool>,
}

/// How requests to one bound name are sent: the merged [`ClientPart`]s, with defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// Which endpoint gets a request.
    pub balancer: Balancer,
    /// When an endpoint is left out.
    pub accrual: Accrual,
    /// From an attempt's start to its response head.
    pub attempt_timeout: Option<Duration>,
    /// For repeats of provably unsent requests.
    pub requeue_budget: BudgetSettings,
    /// One failed connect ejects the endpoint.
    pub fail_fast: bool,
    /// Connections kept to an endpoint whatever their idle time.
    pub pool_min: u32,
    /// Connections to an endpoint at once.
    pub pool_max: u32,
    /// Requests that wait for a connection to an endpoint at once, when there may be no further one.
    pub pool_waiters: u32,
    /// An unused pooled connection is closed after this. Ours is 4 s (below common servers' keep-alive) where Linkerd 1 has none.
    pub pool_idle: Duration,
    /// A pooled connection is not used any more when older.
    pub session_life: Option<Duration>,
    /// Longest wait for a connection to be made.
    pub connect_timeout: Duration,
    /// TLS to its endpoints, with the name they must have; `None`: plain.
    pub tls: Option<ClientTls>,
    /// Tells endpoints which certificate the client showed.
    pub forward_client_cert: bool,
    /// Endpoints are proxies, to which CONNECT is passed on; `None`: as the transformers in the name say.
    pub proxies: Option<bool>,
}

/// Finagle's fixed connect timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Ours: below the keep-alive of the servers that are common behind a router.
pub const POOL_IDLE: Duration = Duration::from_secs(4);

#[cfg(test)]
impl ClientPart {
    /// The settings of every client, where this is all that is configured.
    pub(crate) fn alone(self) -> ClientSettings {
        let all = PathMatcher::new("/").unwrap();
        let entries = vec![(all, self)];
        PerPath { entries }.resolve(&"/x".parse().unwrap())
    }
}

impl PerPath<ClientPart> {
    /// The settings for a bound name, of all the entries that match `id`.
    pub fn resolve(&self, id: &Path) -> ClientSettings {
        let mut all = ClientPart::default();
        for (prefix, part) in &self.entries {
            let Ok(Some(captures)) = prefix.extract(id) else {
                continue;
            };
            if let Some(tls) = &part.tls {
                all.tls = Some(tls.filled(&captures));
            }
            all.forward_client_cert = part.forward_client_cert.or(all.forward_client_cert);
            all.balancer = part.balancer.clone().or(all.balancer);
            all.accrual = part.accrual.clone().or(all.accrual);
            all.attempt_timeout = part.attempt_timeout.or(all.attempt_timeout);
            all.requeue_budget = part.requeue_budget.or(all.requeue_budget);
            all.fail_fast = part.fail_fast.or(all.fail_fast);
            all.pool_min = part.pool_min.or(all.pool_min);
            all.pool_max = part.pool_max.or(all.pool_max);
            all.pool_idle = part.pool_idle.or(all.pool_idle);
            all.pool_waiters = part.pool_waiters.or(all.pool_waiters);
            all.session_idle = part.session_idle.or(all.session_idle);
            all.session_life = part.session_life.or(all.session_life);
            all.connect_timeout = part.connect_timeout.or(all.connect_timeout);
            all.proxies = part.proxies.or(all.proxies);
        }
        let pool_idle = match (all.pool_idle, all.session_idle) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap_or(POOL_IDLE),
        };
        ClientSettings {
            balancer: all.balancer.unwrap_or(Balancer::P2c),
            accrual: all.accrual.unwrap_or_default(),
            attempt_timeout: all.attempt_timeout,
            requeue_budget: all.requeue_budget.unwrap_or_default(),
            fail_fast: all.fail_fast.unwrap_or(false),
            pool_min: all.pool_min.unwrap_or(0),
            pool_max: all.pool_max.unwrap_or(u32::MAX),
            pool_waiters: all.pool_waiters.unwrap_or(u32::MAX),
            pool_idle,
            session_life: all.session_life,
            connect_timeout: all.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            tls: all.tls.filter(|tls| tls.enabled),
            forward_client_cert: all.forward_client_cert.unwrap_or(false),
            proxies: all.proxies,
        }
    }
}

/// What one entry of `service` says; `None` leaves the key to other entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServicePart {
    /// `totalTimeoutMs`.
    pub total_timeout: Option<Duration>,
    /// `responseClassifier`.
    pub classifier: Option<Classifier>,
    /// `retries.budget`.
    pub retry_budget: Option<BudgetSettings>,
    /// `retries.backoff`.
    pub backoff: Option<Backoff>,
    /// Ours: `retries.maxPerRequest`.
    pub max_retries: Option<u32>,
}

/// How requests of one logical name are judged and repeated: the merged [`ServicePart`]s, with defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// From a request's arrival to its final response head, all attempts together.
    pub total_timeout: Option<Duration>,
    /// What is a failure, and which may be repeated.
    pub classifier: Classifier,
    /// How many repeats there may be.
    pub retry_budget: BudgetSettings,
    /// The wait before a repeat.
    pub backoff: Backoff,
    /// Repeats of one request at the most. Ours; Linkerd 1 goes on until the budget is spent (some hundred).
    pub max_retries: u32,
}

/// Ours: repeats of one request at the most, whatever the budget.
pub const MAX_RETRIES: u32 = 25;

impl PerPath<ServicePart> {
    /// The settings for a logical name, of all the entries that match it.
    pub fn resolve(&self, name: &Path) -> ServiceSettings {
        let mut all = ServicePart::default();
        for (_, part) in self
            .entries
            .iter()
            .filter(|(prefix, _)| prefix.matches(name))
        {
            all.total_timeout = part.total_timeout.or(all.total_timeout);
            all.classifier = part.classifier.or(all.classifier);
            all.retry_budget = part.retry_budget.or(all.retry_budget);
            all.backoff = part.backoff.clone().or(all.backoff);
            all.max_retries = part.max_retries.or(all.max_retries);
        }
        ServiceSettings {
            total_timeout: all.total_timeout,
            classifier: all.classifier.unwrap_or(Classifier::NonRetryable5xx),
            retry_budget: all.retry_budget.unwrap_or_default(),
            backoff: all.backoff.unwrap_or(Backoff::Constant(Duration::ZERO)),
            max_retries: all.max_retries.unwrap_or(MAX_RETRIES),
        }
    }
}

/// `loadBalancer`.
#[derive(Clone, Debug, PartialEq)]
pub enum Balancer {
    /// The less loaded of two at random.
    P2c,
    /// The lower of load times peak latency, of two at random.
    Ewma {
        /// Window of the latency average.
        decay: Duration,
    },
    /// P2c over a part of the endpoints.
    Aperture {
        /// Endpoints in use at the least.
        min: usize,
        /// Below this load per endpoint the part shrinks.
        low: f64,
        /// Above this load per endpoint the part grows.
        high: f64,
        /// Window of the load average.
        smooth: Duration,
    },
    /// The least loaded of all.
    Heap,
    /// One after the other.
    RoundRobin,
}

/// As Linkerd 1's `decayTimeMs` of `ewma`.
pub const EWMA_DECAY: Duration = Duration::from_secs(10);

/// `failureAccrual`: when an endpoint is left out, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub enum Accrual {
    /// Never.
    None,
    /// After so many failures in a row.
    Consecutive {
        /// How many.
        failures: u32,
        /// Time left out, growing.
        backoff: Backoff,
    },
    /// When the success rate, averaged over so many requests, is lower.
    SuccessRate {
        /// 0 to 1.
        rate: f64,
        /// Window, in requests.
        requests: u32,
        /// Time left out, growing.
        backoff: Backoff,
    },
    /// When the success rate, averaged over so much time, is lower.
    SuccessRateWindowed {
        /// 0 to 1.
        rate: f64,
        /// Window.
        window: Duration,
        /// Time left out, growing.
        backoff: Backoff,
    },
}

/// Failures in a row, as Linkerd 1's default accrual.
pub const ACCRUAL_FAILURES: u32 = 5;

impl Default for Accrual {
    fn default() -> Self {
        Self::Consecutive {
            failures: ACCRUAL_FAILURES,
            backoff: Backoff::accrual(),
        }
    }
}

impl Accrual {
    /// What a failed connect counts as with `failFast`, as Finagle's: out at once, for 1 s, then longer, at most 32 s.
    pub(crate) fn fail_fast() -> Self {
        Self::Consecutive {
            failures: 1,
            backoff: Backoff::EqualJittered {
                start: Duration::from_secs(1),
                max: Duration::from_secs(32),
            },
        }
    }
}

/// A wait that may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// Always the same.
    Constant(Duration),
    /// Decorrelated jitter: a random time between `min` and three times the one before, at most `max`.
    Jittered {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// Equal jitter: half of a doubling time, and a random part of the other half.
    EqualJittered {
        /// First.
        start: Duration,
        /// Longest.
        max: Duration,
    },
}

impl Backoff {
    /// Equal-jittered 5 s to 300 s, as Linkerd 1's default for failure accrual.
    pub fn accrual() -> Self {
        Self::EqualJittered {
            start: Duration::from_secs(5),
            max: Duration::from_secs(300),
        }
    }
}

/// `responseClassifier` (`io.l5d.http.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classifier {
    /// 5xx fails, nothing is repeated.
    NonRetryable5xx,
    /// GET, HEAD, OPTIONS, TRACE may be repeated.
    RetryableRead5xx,
    /// PUT and DELETE too.
    RetryableIdempotent5xx,
    /// POST and PATCH too.
    RetryableAll5xx,
    /// Every response is a success.
    AllSuccessful,
}

/// A retry budget, as Finagle's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetSettings {
    /// Repeats a second that are always allowed.
    pub min_per_sec: u32,
    /// Repeats for each request, 0 to 1000; 0.2 is 20 %.
    pub percent: f64,
    /// How long a request counts, 1 s to 60 s.
    pub ttl: Duration,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            min_per_sec: 10,
            percent: 0.2,
            ttl: Duration::from_secs(10),
        }
    }
}
