//! `routers[]`: servers, identifiers, `client`, `service`.

use super::{Effect, Key, Kinds, Section, Ty, kind, names, refused};

const MAX: u64 = u32::MAX as u64;

/// A router, by its protocol.
pub static ROUTERS: Kinds = Kinds {
    what: "router",
    tag: "protocol",
    default: None,
    kinds: &[
        kind("http", &HTTP, "HTTP/1."),
        refused("h2", "HTTP/2 routers are not in this version"),
        refused(
            "thrift",
            "only HTTP is routed; use a TCP service for Thrift",
        ),
        refused("thriftmux", "only HTTP is routed"),
        refused("mux", "only HTTP is routed"),
    ],
};

/// The keys of an `http` router.
pub static HTTP: Section = Section {
    title: "routers[] (protocol: http)",
    keys: &[
        Key::new(
            "label",
            Ty::Text,
            "http",
            "The router's name in metrics, spans and pages; no two may have the same.",
        ),
        Key::required(
            "servers",
            Ty::List(&Ty::Section(&SERVER)),
            "Where it listens, at least one.",
        ),
        Key::new(
            "dtab",
            Ty::Dtab,
            "empty",
            "The router's dtab; a later entry is tried first.",
        ),
        Key::new("dstPrefix", Ty::Path, "/svc", "Put in front of every name."),
        Key::new(
            "identifier",
            Ty::OneOrMany(&Ty::Kinds(&IDENTIFIERS)),
            "io.l5d.header.token",
            "How a request is named; of a list the first that can.",
        ),
        Key::new(
            "interpreter",
            Ty::Kinds(&names::INTERPRETERS),
            "default",
            "What binds names.",
        ),
        Key::new(
            "client",
            Ty::Kinds(&CLIENTS),
            "",
            "How requests are sent, by bound name.",
        ),
        Key::new(
            "service",
            Ty::Kinds(&SERVICES),
            "",
            "How requests are judged and repeated, by logical name.",
        ),
        Key::new(
            "bindingTimeoutMs",
            Ty::Millis,
            "10000",
            "Longest wait for a name to be bound and a connection to be had.",
        ),
        Key::new(
            "bindingCache",
            Ty::Section(&BINDING_CACHE),
            "",
            "Names kept ready.",
        ),
        Key::new(
            "streamAfterContentLengthKB",
            Ty::Count(0, 1 << 21),
            "5",
            "A request body with a larger Content-Length is never repeated by a classifier.",
        ),
        Key::new(
            "streamingEnabled",
            Ty::Bool,
            "true",
            "Whether bodies stream.",
        )
        .but(Effect::Ignored("bodies always stream, in bounded memory")),
        Key::new(
            "maxHeadersKB",
            Ty::Count(1, 1024),
            "64",
            "Limit of a message's head. Linkerd 1: 8, which breaks on cookies.",
        ),
        Key::new(
            "maxInitialLineKB",
            Ty::Count(1, 1024),
            "32",
            "Limit of the request line. Linkerd 1: 4.",
        ),
        Key::new(
            "maxRequestKB",
            Ty::Count(0, 1 << 21),
            "none",
            "Limit of a request's body, with its framing; a longer one is answered 413. Linkerd 1.6: 5120, of buffered ones; 1.7 has removed the key.",
        ),
        Key::new(
            "maxResponseKB",
            Ty::Count(0, 1 << 21),
            "none",
            "Limit of a buffered response (Linkerd 1.6).",
        )
        .but(Effect::Ignored(
            "bodies always stream, so nothing is buffered whole; Linkerd 1.7 has removed the key",
        )),
        Key::new(
            "maxErrResponseKB",
            Ty::Count(0, 1 << 21),
            "5120",
            "Limit of an error page.",
        )
        .but(Effect::Ignored("rutter's error pages are short")),
        Key::new(
            "compressionLevel",
            Ty::CountOrMinusOne(9),
            "0",
            "Compression (gzip, deflate) of textual responses for clients that accept it: 1 to 9, -1 for the usual 6; 0: none. Events, ranges and what is encoded already pass as they are. Linkerd 1: -1.",
        ),
        Key::new(
            "tracePropagator",
            Ty::Kinds(&PROPAGATORS),
            "io.l5d.default",
            "Which trace headers are believed and written.",
        ),
        Key::new(
            "httpAccessLog",
            Ty::File,
            "none",
            "File for one line for each request that an endpoint has answered.",
        ),
        Key::new(
            "httpAccessLogFormat",
            Ty::OneOf(&["linkerd", "json"]),
            "linkerd",
            "`json`: an object a line, with the names that the request had.",
        )
        .but(Effect::Ours),
        Key::new(
            "httpAccessLogRollPolicy",
            Ty::RollPolicy,
            "never",
            "When a new file is begun: `never`, `hourly`, `daily`, `weekly(n)`, a size such as `3.megabytes`, `sighup` (the same name anew, for who has moved the old file away).",
        ),
        Key::new(
            "httpAccessLogAppend",
            Ty::Bool,
            "true",
            "Append to what is there.",
        ),
        Key::new(
            "httpAccessLogRotateCount",
            Ty::CountOrMinusOne(MAX),
            "-1",
            "How many old files are kept; -1: all.",
        ),
        Key::new("originator", Ty::Bool, "false", "A gauge in Linkerd 1.")
            .but(Effect::Ignored("it only set a gauge")),
        Key::new(
            "announcers",
            Ty::List(&Ty::Kinds(&ANNOUNCERS)),
            "[]",
            "Announcers.",
        )
        .but(Effect::Refused(
            "announcers (io.l5d.serversets) are not supported",
        )),
        Key::new("experimental", Ty::Bool, "false", "Accepted everywhere."),
    ],
    also: &[],
    removed: &[
        ("baseDtab", "write `dtab:`"),
        (
            "timeoutMs",
            "write `service: {totalTimeoutMs: …}`, or `client: {requestAttemptTimeoutMs: …}` for a single attempt",
        ),
        ("responseClassifier", "it belongs under `service:`"),
        ("retries", "it belongs under `service:`"),
        ("loadBalancer", "it belongs under `client:`"),
        ("failureAccrual", "it belongs under `client:`"),
        ("tls", "it belongs under a server or under `client:`"),
        ("maxChunkKB", "chunks of any size pass: delete the key"),
        ("engine", "there is one engine: delete the key"),
        (
            "tracers",
            "give the tracer under the top level's `telemetry:`",
        ),
        (
            "loggers",
            "`requestAuthorizers` under `client:` took its place, and is not supported",
        ),
        ("failFast", "it belongs under `client:`"),
    ],
};

/// `servers[]`.
pub static SERVER: Section = Section {
    title: "routers[].servers[]",
    keys: &[
        Key::new("port", Ty::Port, "4140", "Port; 0 takes a free one."),
        Key::new(
            "ip",
            Ty::Ip,
            "127.0.0.1",
            "Address; `0.0.0.0` is all of IPv4.",
        ),
        Key::new("label", Ty::Text, "the router's", "Name of the server.").but(Effect::Ignored(
            "metrics are named by address and port, as Linkerd 1's",
        )),
        Key::new(
            "clearContext",
            Ty::Bool,
            "false",
            "For an edge: drops `l5d-*` headers of requests and hides rutter's from responses.",
        ),
        Key::new(
            "maxConcurrentRequests",
            Ty::Count(1, MAX),
            "none",
            "More at once are answered 503.",
        ),
        Key::new(
            "timeoutMs",
            Ty::Millis,
            "none",
            "From a request's arrival to its response head.",
        ),
        Key::new(
            "maxCallDepth",
            Ty::Count(1, MAX),
            "32",
            "More entries in `Via` are a loop, answered 400. Linkerd 1: 1000.",
        ),
        Key::new(
            "addForwardedHeader",
            Ty::Section(&FORWARDED),
            "off",
            "Adds `Forwarded`; `{}` labels both sides at random.",
        ),
        Key::new(
            "timestampHeader",
            Ty::Header,
            "none",
            "Adds a header of that name with the time in milliseconds since 1970.",
        ),
        Key::new(
            "serverSession",
            Ty::Section(&SERVER_SESSION),
            "",
            "When connections of clients are closed.",
        ),
        Key::new(
            "connectPorts",
            Ty::List(&Ty::Port),
            "[443]",
            "Ports that CONNECT may ask for a tunnel to; others are answered 403. `[]`: none.",
        )
        .but(Effect::Ours),
        Key::new(
            "tunnelIdleMs",
            Ty::Millis,
            "3600000",
            "A tunnel (CONNECT, WebSocket, other upgrades) through which nothing goes for so long is cut.",
        )
        .but(Effect::Ours),
        Key::new(
            "socketOptions",
            Ty::Section(&SOCKET),
            "",
            "Options of accepted sockets.",
        ),
        Key::new("tls", Ty::Section(&SERVER_TLS), "none", "HTTPS, with the certificates in these files; they are followed."),
        Key::new("announce", Ty::List(&Ty::Path), "[]", "Names to announce.")
            .but(Effect::Ignored("announcers are not supported")),
    ],
    also: &[],
    removed: &[
        (
            "dstName",
            "it is linkerd-tcp's, not Linkerd's: write the router's `dstPrefix` and `identifier`",
        ),
        ("dtab", "it belongs on the router, not on the server"),
        ("identifier", "it belongs on the router, not on the server"),
        ("protocol", "it belongs on the router, not on the server"),
    ],
};

/// `serverSession`.
pub static SERVER_SESSION: Section = Section {
    title: "routers[].servers[].serverSession",
    keys: &[
        Key::new(
            "idleTimeMs",
            Ty::Millis,
            "600000",
            "An idle connection is closed after this. Linkerd 1: never.",
        ),
        Key::new(
            "lifeTimeMs",
            Ty::Millis,
            "none",
            "An older connection is closed between two requests.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `clientSession`.
pub static CLIENT_SESSION: Section = Section {
    title: "client.clientSession",
    keys: &[
        Key::new(
            "idleTimeMs",
            Ty::Millis,
            "as hostConnectionPool",
            "An unused connection is closed after this; the shorter of the two counts. Linkerd 1: never.",
        ),
        Key::new(
            "lifeTimeMs",
            Ty::Millis,
            "none",
            "An older connection is not used again.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `socketOptions`.
pub static SOCKET: Section = Section {
    title: "socketOptions",
    keys: &[
        Key::new("noDelay", Ty::Bool, "true", "TCP_NODELAY."),
        Key::new("reuseAddr", Ty::Bool, "true", "SO_REUSEADDR."),
        Key::new(
            "reusePort",
            Ty::Bool,
            "false",
            "SO_REUSEPORT: a second process may listen on the same port.",
        ),
        Key::new(
            "readTimeoutMs",
            Ty::Millis,
            "none",
            "Longest silence while reading a message.",
        ),
        Key::new(
            "writeTimeoutMs",
            Ty::Millis,
            "none",
            "Longest time a write may stand still.",
        ),
        Key::new("keepAlive", Ty::Bool, "the system's", "SO_KEEPALIVE."),
        Key::new(
            "backlog",
            Ty::Count(1, 65_535),
            "the system's",
            "Length of the accept queue.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `addForwardedHeader`.
pub static FORWARDED: Section = Section {
    title: "addForwardedHeader",
    keys: &[
        Key::new(
            "by",
            Ty::Kinds(&LABELERS),
            "requestRandom",
            "How this router is told.",
        ),
        Key::new(
            "for",
            Ty::Kinds(&LABELERS),
            "requestRandom",
            "How the client is told.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// Labels of `Forwarded`.
pub static LABELERS: Kinds = Kinds {
    what: "label",
    tag: "kind",
    default: None,
    kinds: &[
        kind("ip", &super::NO_KEYS, "The IP address."),
        kind("ip:port", &super::NO_KEYS, "Address and port."),
        kind(
            "connectionRandom",
            &super::NO_KEYS,
            "A random word that stays with the connection.",
        ),
        kind(
            "requestRandom",
            &super::NO_KEYS,
            "A random word for each request.",
        ),
        kind("router", &super::NO_KEYS, "The router's label."),
        kind("static", &STATIC_LABEL, "A fixed word."),
    ],
};

static STATIC_LABEL: Section = Section {
    title: "static",
    keys: &[Key::required("label", Ty::Text, "The word.")],
    also: &[],
    removed: &[],
};

/// `identifier`.
pub static IDENTIFIERS: Kinds = Kinds {
    what: "identifier",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.header.token",
            &HEADER_TOKEN,
            "A header's value is one segment: `/svc/VALUE`.",
        ),
        kind(
            "io.l5d.header",
            &HEADER_PATH,
            "A header's value is a path: `/svc` and then that.",
        ),
        kind(
            "io.l5d.methodAndHost",
            &METHOD_AND_HOST,
            "`/svc/1.1/METHOD/HOST`.",
        ),
        kind(
            "io.l5d.path",
            &URI_PATH,
            "The first segments of the request's path.",
        ),
        kind("io.l5d.static", &STATIC_NAME, "Always the same name."),
        refused(
            "io.l5d.ingress",
            "Ingress objects are not read in this version",
        ),
        refused("io.l5d.header.path", "it is an identifier of h2 routers"),
        refused(
            "io.l5d.k8s.istio",
            "Linkerd 1's support of Istio's old API is not re-created",
        ),
        refused(
            "io.l5d.k8s.istio-ingress",
            "Linkerd 1's support of Istio's old API is not re-created",
        ),
    ],
};

static HEADER_TOKEN: Section = Section {
    title: "io.l5d.header.token",
    keys: &[Key::new("header", Ty::Header, "Host", "Which header.")],
    also: &[],
    removed: &[],
};
static HEADER_PATH: Section = Section {
    title: "io.l5d.header",
    keys: &[Key::new("header", Ty::Header, "l5d-name", "Which header.")],
    also: &[],
    removed: &[],
};
static METHOD_AND_HOST: Section = Section {
    title: "io.l5d.methodAndHost",
    keys: &[Key::new(
        "httpUriInDst",
        Ty::Bool,
        "false",
        "Appends the segments of the request's path.",
    )],
    also: &[],
    removed: &[],
};
static URI_PATH: Section = Section {
    title: "io.l5d.path",
    keys: &[
        Key::new("segments", Ty::Count(1, 1000), "1", "How many segments."),
        Key::new(
            "consume",
            Ty::Bool,
            "false",
            "Takes them off the forwarded path.",
        ),
    ],
    also: &[],
    removed: &[],
};
static STATIC_NAME: Section = Section {
    title: "io.l5d.static",
    keys: &[Key::required(
        "path",
        Ty::Path,
        "The name, behind `dstPrefix`.",
    )],
    also: &[],
    removed: &[],
};

/// `tracePropagator`.
pub static PROPAGATORS: Kinds = Kinds {
    what: "trace propagator",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.default",
            &super::NO_KEYS,
            "`l5d-ctx-trace`; B3 and W3C when the request came with them.",
        ),
        kind("io.l5d.zipkin", &super::NO_KEYS, "B3 always."),
    ],
};

/// `announcers[]`.
pub static ANNOUNCERS: Kinds = Kinds {
    what: "announcer",
    tag: "kind",
    default: None,
    kinds: &[refused(
        "io.l5d.serversets",
        "announcing to ZooKeeper is not supported",
    )],
};

/// `bindingCache`.
pub static BINDING_CACHE: Section = Section {
    title: "routers[].bindingCache",
    keys: &[
        Key::new(
            "paths",
            Ty::Count(1, MAX),
            "1000",
            "Names kept at the most.",
        ),
        Key::new(
            "trees",
            Ty::Count(1, MAX),
            "1000",
            "Linkerd 1's second cache.",
        )
        .but(Effect::Ignored(
            "there is one cache of names; `paths` is its size",
        )),
        Key::new(
            "bounds",
            Ty::Count(1, MAX),
            "1000",
            "Linkerd 1's third cache.",
        )
        .but(Effect::Ignored(
            "there is one cache of names; `paths` is its size",
        )),
        Key::new(
            "clients",
            Ty::Count(1, MAX),
            "1000",
            "Bound names whose connections are kept.",
        )
        .but(Effect::Ignored(
            "there is one cache of names; `paths` is its size",
        )),
        Key::new(
            "idleTtlSecs",
            Ty::Count(1, MAX),
            "600",
            "An unused name is forgotten after this, with its metrics.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `client`.
pub static CLIENTS: Kinds = Kinds {
    what: "client",
    tag: "kind",
    default: Some("io.l5d.global"),
    kinds: &[
        kind("io.l5d.global", &CLIENT, "The same for all bound names."),
        kind(
            "io.l5d.static",
            &STATIC_CLIENTS,
            "By prefix of the bound name; all that match are merged, a later one overrides key by key.",
        ),
    ],
};

static STATIC_CLIENTS: Section = Section {
    title: "client (kind: io.l5d.static)",
    keys: &[Key::required(
        "configs",
        Ty::List(&Ty::Section(&CLIENT_ENTRY)),
        "Entries, each a prefix and keys of `client`.",
    )],
    also: &[],
    removed: &[],
};
static CLIENT_ENTRY: Section = Section {
    title: "client.configs[]",
    keys: &[Key::required(
        "prefix",
        Ty::Pattern,
        "Prefix of bound names, such as `/#/io.l5d.k8s/*/{port}`; `/` is all.",
    )],
    also: &[&CLIENT],
    removed: &[],
};

/// The keys of `client`.
pub static CLIENT: Section = Section {
    title: "client",
    keys: &[
        Key::new("loadBalancer", Ty::Kinds(&BALANCERS), "p2c", "Which endpoint gets a request."),
        Key::new("failureAccrual", Ty::Kinds(&ACCRUALS), "5 in a row", "When an endpoint is left out."),
        Key::new("requestAttemptTimeoutMs", Ty::Millis, "none", "From an attempt's start to its response head; 503 beyond."),
        Key::new("connectTimeoutMs", Ty::Millis, "1000", "Longest wait for a connection to be made.").but(Effect::Ours),
        Key::new("httpProxy", Ty::Bool, "by the name", "Endpoints are HTTP proxies: CONNECT is passed on to them, rather than its tunnel's bytes. Without it they are where a transformer has put a proxy in their place (`io.l5d.k8s.daemonset`, `io.l5d.port`, `io.l5d.const`, `io.l5d.replace`).").but(Effect::Ours),
        Key::new("requeueBudget", Ty::Section(&BUDGET), "", "Repeats of requests that were provably not sent."),
        Key::new("hostConnectionPool", Ty::Section(&POOL), "", "Connections to an endpoint."),
        Key::new("clientSession", Ty::Section(&CLIENT_SESSION), "", "When connections to endpoints are closed."),
        Key::new("failFast", Ty::Bool, "false", "One failed connect leaves the endpoint out."),
        Key::new("socketOptions", Ty::Section(&SOCKET), "", "Options of sockets to endpoints.").but(Effect::Ignored("sockets to endpoints have TCP_NODELAY and the system's other options")),
        Key::new("tls", Ty::Section(&CLIENT_TLS), "none", "TLS to endpoints. Of several entries the last counts as a whole."),
        Key::new("forwardClientCert", Ty::Bool, "false", "Sends `x-forwarded-client-cert` with the certificate that the client showed; one that came in never passes."),
        Key::new("requestAuthorizers", Ty::List(&Ty::Kinds(&AUTHORIZERS)), "[]", "Authorizers.").but(Effect::Refused("io.l5d.k8s.istio is not supported, and leaving an authorizer out would let requests pass")),
    ],
    also: &[],
    removed: &[],
};

static AUTHORIZERS: Kinds = Kinds {
    what: "authorizer",
    tag: "kind",
    default: None,
    kinds: &[refused(
        "io.l5d.k8s.istio",
        "Istio's mixer is not supported",
    )],
};

static POOL: Section = Section {
    title: "client.hostConnectionPool",
    keys: &[
        Key::new(
            "minSize",
            Ty::Count(0, MAX),
            "0",
            "Connections to an endpoint that are kept whatever their idle time.",
        ),
        Key::new(
            "maxSize",
            Ty::Count(1, MAX),
            "none",
            "Connections to an endpoint at once, over all data threads; further requests wait, for 10 s at the most (RT-E135).",
        ),
        Key::new(
            "idleTimeMs",
            Ty::Millis,
            "4000",
            "An unused connection is closed after this. Linkerd 1: never.",
        ),
        Key::new(
            "maxWaiters",
            Ty::Count(0, MAX),
            "none",
            "Requests that wait for a connection to an endpoint at once; further ones are answered 502 (RT-E135).",
        ),
    ],
    also: &[],
    removed: &[],
};

/// A budget of repeats.
pub static BUDGET: Section = Section {
    title: "budget",
    keys: &[
        Key::new(
            "minRetriesPerSec",
            Ty::Count(0, MAX),
            "10",
            "Repeats a second that are always allowed.",
        ),
        Key::new(
            "percentCanRetry",
            Ty::Number(0.0, 1000.0),
            "0.2",
            "Repeats for each request: 0.2 is 20 %.",
        ),
        Key::new(
            "ttlSecs",
            Ty::Count(1, 60),
            "10",
            "How long a request counts.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `loadBalancer`.
pub static BALANCERS: Kinds = Kinds {
    what: "load balancer",
    tag: "kind",
    default: None,
    kinds: &[
        kind("p2c", &EFFORT, "The less loaded of two at random."),
        kind("ewma", &EWMA, "Load times peak latency, of two at random."),
        kind("aperture", &APERTURE, "p2c over a part of the endpoints."),
        kind("heap", &PROBATION, "The least loaded of all."),
        kind("roundRobin", &EFFORT, "One after the other."),
    ],
};

const NO_EFFORT: Effect =
    Effect::Ignored("an endpoint that is left out is never picked while another one is not");
static PROBATION: Section = Section {
    title: "all balancers",
    keys: &[Key::new(
        "enableProbation",
        Ty::Bool,
        "false",
        "Keeps removed endpoints while they answer.",
    )
    .but(Effect::Ignored(
        "a removed endpoint is not used again: its address may belong to another pod by now",
    ))],
    also: &[],
    removed: &[],
};
static EFFORT: Section = Section {
    title: "p2c, roundRobin",
    keys: &[Key::new(
        "maxEffort",
        Ty::Count(1, MAX),
        "5",
        "Picks to find an open endpoint.",
    )
    .but(NO_EFFORT)],
    also: &[&PROBATION],
    removed: &[],
};
static EWMA: Section = Section {
    title: "ewma",
    keys: &[Key::new(
        "decayTimeMs",
        Ty::Millis,
        "10000",
        "Window of the latency's average.",
    )],
    also: &[&EFFORT],
    removed: &[],
};
static APERTURE: Section = Section {
    title: "aperture",
    keys: &[
        Key::new(
            "smoothWindowMs",
            Ty::Millis,
            "5000",
            "Window of the load's average.",
        ),
        Key::new(
            "lowLoad",
            Ty::Number(0.0, 1e9),
            "0.5",
            "Below this load per endpoint fewer are used.",
        ),
        Key::new(
            "highLoad",
            Ty::Number(0.0, 1e9),
            "2.0",
            "Above this load per endpoint more are used.",
        ),
        Key::new(
            "minAperture",
            Ty::Count(1, MAX),
            "1",
            "Endpoints in use at the least.",
        ),
    ],
    also: &[&EFFORT],
    removed: &[],
};

/// `failureAccrual`.
pub static ACCRUALS: Kinds = Kinds {
    what: "failure accrual",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.consecutiveFailures",
            &CONSECUTIVE,
            "After so many failures in a row.",
        ),
        kind(
            "io.l5d.successRate",
            &SUCCESS_RATE,
            "When the success rate over so many requests is lower.",
        ),
        kind(
            "io.l5d.successRateWindowed",
            &SUCCESS_RATE_WINDOWED,
            "When the success rate over so many seconds is lower.",
        ),
        kind("none", &super::NO_KEYS, "Never."),
    ],
};

const ACCRUAL_BACKOFF: Key = Key::new(
    "backoff",
    Ty::Kinds(&BACKOFFS),
    "equal jitter, 5 s to 300 s",
    "How long it is left out, growing.",
);
const RATE: Key = Key::required("successRate", Ty::Number(0.0, 1.0), "The rate, 0 to 1.");
static CONSECUTIVE: Section = Section {
    title: "io.l5d.consecutiveFailures",
    keys: &[
        Key::required("failures", Ty::Count(1, MAX), "How many."),
        ACCRUAL_BACKOFF,
    ],
    also: &[],
    removed: &[],
};
static SUCCESS_RATE: Section = Section {
    title: "io.l5d.successRate",
    keys: &[
        RATE,
        Key::required("requests", Ty::Count(1, MAX), "Window, in requests."),
        ACCRUAL_BACKOFF,
    ],
    also: &[],
    removed: &[],
};
static SUCCESS_RATE_WINDOWED: Section = Section {
    title: "io.l5d.successRateWindowed",
    keys: &[
        RATE,
        Key::required("window", Ty::Count(1, 86_400), "Window, in seconds."),
        ACCRUAL_BACKOFF,
    ],
    also: &[],
    removed: &[],
};

/// `backoff`.
pub static BACKOFFS: Kinds = Kinds {
    what: "backoff",
    tag: "kind",
    default: None,
    kinds: &[
        kind("constant", &CONSTANT, "Always the same."),
        kind("jittered", &JITTERED, "Decorrelated jitter."),
    ],
};
static CONSTANT: Section = Section {
    title: "constant",
    keys: &[Key::new("ms", Ty::Millis, "0", "The wait.")],
    also: &[],
    removed: &[],
};
static JITTERED: Section = Section {
    title: "jittered",
    keys: &[
        Key::required("minMs", Ty::Millis, "Shortest wait."),
        Key::required("maxMs", Ty::Millis, "Longest wait."),
    ],
    also: &[],
    removed: &[],
};

/// `service`.
pub static SERVICES: Kinds = Kinds {
    what: "service",
    tag: "kind",
    default: Some("io.l5d.global"),
    kinds: &[
        kind("io.l5d.global", &SERVICE, "The same for all names."),
        kind(
            "io.l5d.static",
            &STATIC_SERVICES,
            "By prefix of the logical name; all that match are merged, a later one overrides key by key.",
        ),
    ],
};
static STATIC_SERVICES: Section = Section {
    title: "service (kind: io.l5d.static)",
    keys: &[Key::required(
        "configs",
        Ty::List(&Ty::Section(&SERVICE_ENTRY)),
        "Entries, each a prefix and keys of `service`.",
    )],
    also: &[],
    removed: &[],
};
static SERVICE_ENTRY: Section = Section {
    title: "service.configs[]",
    keys: &[Key::required(
        "prefix",
        Ty::Pattern,
        "Prefix of logical names, such as `/svc/web`; `/` is all.",
    )],
    also: &[&SERVICE],
    removed: &[],
};

/// The keys of `service`.
pub static SERVICE: Section = Section {
    title: "service",
    keys: &[
        Key::new(
            "totalTimeoutMs",
            Ty::Millis,
            "none",
            "From a request's arrival to its response head, repeats included; 503 beyond.",
        ),
        Key::new(
            "responseClassifier",
            Ty::Kinds(&CLASSIFIERS),
            "io.l5d.http.nonRetryable5XX",
            "What is a failure, and which may be repeated.",
        ),
        Key::new(
            "retries",
            Ty::Section(&RETRIES),
            "",
            "How failures are repeated.",
        ),
    ],
    also: &[],
    removed: &[],
};
static RETRIES: Section = Section {
    title: "service.retries",
    keys: &[
        Key::new(
            "budget",
            Ty::Section(&BUDGET),
            "",
            "How many repeats there may be.",
        ),
        Key::new(
            "backoff",
            Ty::Kinds(&BACKOFFS),
            "0 ms",
            "The wait before a repeat.",
        ),
        Key::new(
            "maxPerRequest",
            Ty::Count(0, 1000),
            "25",
            "Repeats of one request at the most, whatever the budget.",
        )
        .but(Effect::Ours),
    ],
    also: &[],
    removed: &[],
};

/// `responseClassifier`.
pub static CLASSIFIERS: Kinds = Kinds {
    what: "response classifier",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.http.nonRetryable5XX",
            &super::NO_KEYS,
            "5xx fails, nothing is repeated.",
        ),
        kind(
            "io.l5d.http.retryableRead5XX",
            &super::NO_KEYS,
            "5xx fails; GET, HEAD, OPTIONS and TRACE are repeated.",
        ),
        kind(
            "io.l5d.http.retryableIdempotent5XX",
            &super::NO_KEYS,
            "PUT and DELETE are repeated, too.",
        ),
        kind(
            "io.l5d.http.retryableAll5XX",
            &super::NO_KEYS,
            "POST and PATCH are repeated, too.",
        ),
        kind(
            "io.l5d.http.allSuccessful",
            &super::NO_KEYS,
            "Every response is a success.",
        ),
        refused("io.l5d.h2.nonRetryable5XX", H2_ONLY),
        refused("io.l5d.h2.retryableRead5XX", H2_ONLY),
        refused("io.l5d.h2.retryableIdempotent5XX", H2_ONLY),
        refused("io.l5d.h2.retryableAll5XX", H2_ONLY),
        refused("io.l5d.h2.allSuccessful", H2_ONLY),
        refused("io.l5d.h2.grpc.default", H2_ONLY),
        refused("io.l5d.h2.grpc.compliant", H2_ONLY),
        refused("io.l5d.h2.grpc.alwaysRetryable", H2_ONLY),
        refused("io.l5d.h2.grpc.neverRetryable", H2_ONLY),
        refused("io.l5d.h2.grpc.retryableStatusCodes", H2_ONLY),
    ],
};
const H2_ONLY: &str = "it is a classifier of h2 routers";

/// TLS of a server.
pub static SERVER_TLS: Section = Section {
    title: "tls of a server",
    keys: &[
        Key::required(
            "certPath",
            Ty::ExistingFile,
            "Certificate, PEM; others of its chain may stand behind it.",
        ),
        Key::required(
            "keyPath",
            Ty::ExistingFile,
            "Its key, PEM: PKCS#8, or PKCS#1 and SEC1, which Linkerd 1 does not read.",
        ),
        Key::new(
            "intermediateCertsPath",
            Ty::ExistingFile,
            "none",
            "The rest of the chain, PEM.",
        ),
        Key::new(
            "caCertPath",
            Ty::ExistingFile,
            "none",
            "Authorities that sign clients' certificates, PEM.",
        ),
        Key::new(
            "requireClientAuth",
            Ty::Bool,
            "false",
            "Lets only clients in that show a certificate signed by `caCertPath`.",
        ),
        Key::new(
            "ciphers",
            Ty::List(&Ty::Text),
            "all that are sound",
            "Cipher suites by their names in the RFCs, such as `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`.",
        ),
        PROTOCOLS,
    ],
    also: &[],
    removed: &[],
};

const PROTOCOLS: Key = Key::new(
    "protocols",
    Ty::List(&Ty::Text),
    "both",
    "`TLSv1.2`, `TLSv1.3`; older ones are not spoken.",
);

/// TLS of a client.
pub static CLIENT_TLS: Section = Section {
    title: "tls of a client",
    keys: &[
        Key::new(
            "enabled",
            Ty::Bool,
            "true",
            "`false` turns TLS off where an earlier entry turned it on.",
        ),
        Key::new(
            "disableValidation",
            Ty::Bool,
            "false",
            "Trusts any certificate with any name; excludes `clientAuth`.",
        ),
        Key::new(
            "commonName",
            Ty::Text,
            "none",
            "The name that is sent (SNI) and that the endpoint's certificate must have; captures of the entry's prefix may stand in it. Needed unless `disableValidation`.",
        ),
        Key::new(
            "trustCerts",
            Ty::List(&Ty::ExistingFile),
            "the system's",
            "Files with the authorities, or certificates, that are trusted, PEM.",
        ),
        Key::new(
            "trustCertsBundle",
            Ty::ExistingFile,
            "the system's",
            "The same in one file; excludes `trustCerts`.",
        ),
        Key::new(
            "clientAuth",
            Ty::Section(&CLIENT_AUTH),
            "none",
            "The certificate that this router shows.",
        ),
        PROTOCOLS,
    ],
    also: &[],
    removed: &[],
};
static CLIENT_AUTH: Section = Section {
    title: "clientAuth",
    keys: &[
        Key::required("certPath", Ty::ExistingFile, "Certificate, PEM."),
        Key::required("keyPath", Ty::ExistingFile, "Its key, PEM."),
        Key::new(
            "intermediateCertsPath",
            Ty::ExistingFile,
            "none",
            "The rest of the chain, PEM.",
        ),
    ],
    also: &[],
    removed: &[],
};
