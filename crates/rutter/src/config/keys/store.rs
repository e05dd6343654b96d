//! The file of `rutter namerd`: Linkerd's namerd, key by key.

use super::{Effect, Key, Kinds, Section, Ty, access, kind, names, refused, report, router, top};

/// The whole file.
pub static FILE: Section = Section {
    title: "The store's file",
    keys: &[
        Key::required(
            "storage",
            Ty::Kinds(&STORAGES),
            "Where dtabs are kept: `kind: file` with a `path` for one store; `io.l5d.k8s`, `io.l5d.etcd` or another for several that serve together.",
        ),
        Key::required(
            "interfaces",
            Ty::List(&Ty::Kinds(&INTERFACES)),
            "What clients are served on, at least one.",
        ),
        Key::new(
            "namers",
            Ty::List(&Ty::Kinds(&names::NAMERS)),
            "none",
            "Sources of names, as of a router; no prefix may begin with another's.",
        ),
        Key::new("admin", Ty::Section(&ADMIN), "", "The admin port."),
        Key::new(
            "access",
            Ty::Section(&access::ACCESS),
            "everybody may everything",
            "Who may do what on the HTTP API.",
        )
        .but(Effect::Ours),
        Key::new(
            "auditLog",
            Ty::File,
            "none",
            "A file that tells each change before it is made and what came of it, in lines of JSON. A change that cannot be told is not made.",
        )
        .but(Effect::Ours),
        Key::new(
            "telemetry",
            Ty::List(&Ty::Kinds(&report::TELEMETERS)),
            "none",
            "Where metrics go.",
        )
        .but(Effect::Ignored(
            "`/admin/metrics.json` and `/metrics` of the admin port are always there",
        )),
    ],
    also: &[],
    removed: &[],
};

/// `admin` of the store.
static ADMIN: Section = Section {
    title: "admin of the store",
    keys: &[Key::new(
        "port",
        Ty::Port,
        "9991",
        "Port of the admin port; 0 takes a free one.",
    )],
    also: &[&top::ADMIN],
    removed: &[],
};

/// `storage`.
static STORAGES: Kinds = Kinds {
    what: "storage",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "file",
            &FILE_STORAGE,
            "One file with every version that ever was. Not in Linkerd 1.",
        ),
        kind("io.l5d.inMemory", &IN_MEMORY, "Gone when the process ends."),
        kind(
            "io.l5d.k8s",
            &K8S,
            "Objects of the kind DTab (`dtabs.l5d.io`), as in Linkerd's namerd; several replicas serve together.",
        ),
        kind(
            "io.rutter.k8s.configMap",
            &K8S,
            "ConfigMaps with the label `rutter.io/storage: dtab`, one for each namespace, the dtab under their key `dtab`. Not in Linkerd 1.",
        ),
        kind(
            "io.l5d.etcd",
            &ETCD,
            "Keys of etcd, by the API of version 3; several replicas serve together.",
        ),
        kind(
            "io.l5d.consul",
            &CONSUL,
            "Keys of Consul, as in Linkerd's namerd; several replicas serve together.",
        ),
        #[cfg(feature = "zookeeper")]
        kind(
            "io.l5d.zk",
            &ZK,
            "Nodes of ZooKeeper, as in Linkerd's namerd; several replicas serve together.",
        ),
        #[cfg(not(feature = "zookeeper"))]
        super::not_built(
            "io.l5d.zk",
            "it was built without the cargo feature `zookeeper`",
        ),
    ],
};
static ANY_STORAGE: Section = Section {
    title: "all storages",
    keys: &[Key::new(
        "experimental",
        Ty::Bool,
        "false",
        "Accepted everywhere.",
    )],
    also: &[],
    removed: &[],
};
static FILE_STORAGE: Section = Section {
    title: "file",
    keys: &[Key::required(
        "path",
        Ty::File,
        "The file, such as `/var/lib/rutter/dtabs.redb`; made when it is not there. It belongs to one process at a time.",
    )],
    also: &[&ANY_STORAGE],
    removed: &[],
};
static IN_MEMORY: Section = Section {
    title: "io.l5d.inMemory",
    keys: &[Key::new(
        "namespaces",
        Ty::Named(&Ty::Dtab),
        "none",
        "Dtabs to begin with, by namespace.",
    )],
    also: &[&ANY_STORAGE],
    removed: &[],
};
static K8S: Section = Section {
    title: "io.l5d.k8s, io.rutter.k8s.configMap",
    keys: &[
        Key::new(
            "host",
            Ty::Text,
            "localhost (outside a pod, without a kubeconfig)",
            "Where a `kubectl proxy` listens. With neither `host` nor `port`, the API server is asked itself: inside a pod its cluster's, else the one of the kubeconfig (`KUBECONFIG`, `~/.kube/config`).",
        ),
        Key::new(
            "port",
            Ty::Port,
            "8001 (outside a pod, without a kubeconfig)",
            "And its port.",
        ),
        Key::new(
            "namespace",
            Ty::Text,
            "default",
            "The namespace of Kubernetes in which the objects are.",
        ),
    ],
    also: &[&ANY_STORAGE],
    removed: &[],
};
static ETCD: Section = Section {
    title: "io.l5d.etcd",
    keys: &[
        Key::new("host", Ty::Text, "localhost", "A member of etcd."),
        Key::new("port", Ty::Port, "2379", "And its port for clients."),
        Key::new(
            "endpoints",
            Ty::List(&Ty::Text),
            "`host` and `port`",
            "All members, each as `host:port`; the next one is asked when one does not answer.",
        )
        .but(Effect::Ours),
        Key::new(
            "pathPrefix",
            Ty::Path,
            "/namerd/dtabs",
            "What keys begin with; past versions are at the same with `.history` behind it.",
        ),
        Key::new("tls", Ty::Section(&super::NO_KEYS), "none", "TLS to etcd.").but(Effect::Refused(
            "etcd is asked without TLS only in this version: give the store a proxy that has its certificate",
        )),
    ],
    also: &[&ANY_STORAGE],
    removed: &[],
};
static CONSUL: Section = Section {
    title: "io.l5d.consul",
    keys: &[
        Key::new("host", Ty::Text, "localhost", "A Consul agent."),
        Key::new("port", Ty::Port, "8500", "The port of its HTTP API."),
        Key::new(
            "pathPrefix",
            Ty::Path,
            "/namerd/dtabs",
            "What keys begin with; past versions are at the same with `.history` behind it.",
        ),
        Key::new("token", Ty::Text, "none", "Sent as `X-Consul-Token`."),
        Key::new(
            "datacenter",
            Ty::Text,
            "the agent's",
            "The data centre whose keys are meant.",
        ),
        Key::new(
            "readConsistencyMode",
            Ty::OneOf(&["default", "stale", "consistent"]),
            "default",
            "How consistent the answers are with which dtabs are followed. With `stale`, single questions are asked `consistent`.",
        ),
        Key::new(
            "writeConsistencyMode",
            Ty::OneOf(&["default", "stale", "consistent"]),
            "default",
            "Of Linkerd 1's requests that write.",
        )
        .but(Effect::Ignored("Consul's leader does every write")),
        Key::new(
            "failFast",
            Ty::Bool,
            "false",
            "Linkerd 1 then marks an agent that refuses connections as dead.",
        )
        .but(Effect::Ignored(
            "an agent that fails is asked again after 100 ms to 3 s",
        )),
        Key::new(
            "backoff",
            Ty::Section(&CONSUL_BACKOFF),
            "100 ms to 3 s",
            "Waits between two attempts.",
        )
        .but(Effect::Ignored(
            "an agent that fails is asked again after 100 ms to 3 s",
        )),
        Key::new(
            "tls",
            Ty::Section(&super::NO_KEYS),
            "none",
            "HTTPS to Consul.",
        )
        .but(Effect::Refused(
            "Consul is asked by plain HTTP only: use the agent on the node",
        )),
    ],
    also: &[&ANY_STORAGE],
    removed: &[],
};
static CONSUL_BACKOFF: Section = Section {
    title: "backoff of io.l5d.consul",
    keys: &[
        Key::new(
            "kind",
            Ty::OneOf(&["constant", "jittered"]),
            "",
            "Which sort.",
        ),
        Key::new("ms", Ty::Millis, "", "Of a constant one."),
        Key::new("minMs", Ty::Millis, "", "Of a jittered one."),
        Key::new("maxMs", Ty::Millis, "", "Of a jittered one."),
    ],
    also: &[],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
static ZK: Section = Section {
    title: "io.l5d.zk",
    keys: &[
        Key::required(
            "zkAddrs",
            Ty::List(&Ty::Section(&names::ZK_SERVER)),
            "ZooKeeper's servers, at least one. A store is connected to one of them at a time.",
        ),
        Key::new(
            "pathPrefix",
            Ty::Path,
            "/dtabs",
            "The node above those of namespaces; past versions are at the same with `.history` behind it.",
        ),
        Key::new(
            "sessionTimeoutMs",
            Ty::Count(1_000, 600_000),
            "10000",
            "After as long without a word a connection is lost; the server may shorten it.",
        ),
        Key::new(
            "authInfo",
            Ty::Section(&ZK_AUTH),
            "none",
            "Who the store is for ZooKeeper.",
        ),
        Key::new(
            "acls",
            Ty::List(&Ty::Section(&ZK_ACL)),
            "everybody may do all",
            "Who may do what with the nodes that the store makes.",
        ),
    ],
    also: &[&ANY_STORAGE],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
static ZK_AUTH: Section = Section {
    title: "authInfo of io.l5d.zk",
    keys: &[
        Key::required("scheme", Ty::Text, "Such as `digest`."),
        Key::required("auth", Ty::Text, "What it takes, such as `name:password`."),
    ],
    also: &[],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
static ZK_ACL: Section = Section {
    title: "acls of io.l5d.zk",
    keys: &[
        Key::required("scheme", Ty::Text, "Such as `world` or `digest`."),
        Key::required("id", Ty::Text, "Such as `anyone`."),
        Key::required(
            "perms",
            Ty::Text,
            "Letters of `crwda`: create, read, write, delete, administer.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `interfaces[]`.
static INTERFACES: Kinds = Kinds {
    what: "interface",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.httpController",
            &HTTP,
            "Linkerd's HTTP API, for namerctl, `rutter namerctl` and the interpreter io.l5d.namerd.http. Port 4180.",
        ),
        kind(
            "io.l5d.mesh",
            &MESH,
            "Linkerd's gRPC services, for the interpreter io.l5d.mesh. Port 4321.",
        ),
        kind(
            "io.l5d.thriftNameInterpreter",
            &THRIFT,
            "Linkerd's oldest interface, ThriftMux, for the interpreter io.l5d.namerd. Port 4100.",
        ),
        refused(
            "io.l5d.destination",
            "Linkerd 2's destination API is not re-created",
        ),
    ],
};
static HTTP: Section = Section {
    title: "io.l5d.httpController",
    keys: &[
        Key::new(
            "port",
            Ty::Port,
            "4180",
            "Port to listen on; 0 takes a free one.",
        ),
        Key::new(
            "tls",
            Ty::Section(&router::SERVER_TLS),
            "none",
            "HTTPS, with the certificates in these files; they are followed. With `requireClientAuth`, who has a certificate is `certificate:` and its first name in `access.grants`.",
        ),
    ],
    also: &[&ANY_INTERFACE],
    removed: &[],
};
static MESH: Section = Section {
    title: "io.l5d.mesh of the store",
    keys: &[
        Key::new(
            "port",
            Ty::Port,
            "4321",
            "Port to listen on; 0 takes a free one.",
        ),
        TLS,
        Key::new(
            "h2AccessLog",
            Ty::Text,
            "none",
            "File for a line for each call.",
        )
        .but(NO_ACCESS_LOG),
        Key::new(
            "h2AccessLogRollPolicy",
            Ty::RollPolicy,
            "never",
            "When a new file is begun.",
        )
        .but(NO_ACCESS_LOG),
        Key::new(
            "h2AccessLogAppend",
            Ty::Bool,
            "true",
            "Whether the file is gone on with.",
        )
        .but(NO_ACCESS_LOG),
        Key::new(
            "h2AccessLogRotateCount",
            Ty::CountOrMinusOne(1_000_000),
            "-1",
            "Files that are kept.",
        )
        .but(NO_ACCESS_LOG),
    ],
    also: &[&ANY_INTERFACE],
    removed: &[],
};
static THRIFT: Section = Section {
    title: "io.l5d.thriftNameInterpreter",
    keys: &[
        Key::new(
            "port",
            Ty::Port,
            "4100",
            "Port to listen on; 0 takes a free one.",
        ),
        TLS,
        Key::new("cache", Ty::Section(&CACHE), "", "What Linkerd keeps."),
    ],
    also: &[&ANY_INTERFACE],
    removed: &[],
};
static CACHE: Section = Section {
    title: "cache of io.l5d.thriftNameInterpreter",
    keys: &[
        Key::new(
            "bindingCacheActive",
            Ty::Count(0, 100_000_000),
            "1000",
            "Names that are asked for.",
        )
        .but(NO_CACHE),
        Key::new(
            "bindingCacheInactive",
            Ty::Count(0, 100_000_000),
            "100",
            "Names that are kept when nobody asks for them.",
        )
        .but(NO_CACHE),
        Key::new(
            "bindingCacheInactiveTTLSecs",
            Ty::Count(0, 100_000_000),
            "600",
            "And how long.",
        )
        .but(NO_CACHE),
        Key::new(
            "addrCacheActive",
            Ty::Count(0, 100_000_000),
            "1000",
            "Address sets that are asked for.",
        )
        .but(NO_CACHE),
        Key::new(
            "addrCacheInactive",
            Ty::Count(0, 100_000_000),
            "100",
            "Address sets that are kept when nobody asks for them.",
        )
        .but(NO_CACHE),
        Key::new(
            "addrCacheInactiveTTLSecs",
            Ty::Count(0, 100_000_000),
            "600",
            "And how long.",
        )
        .but(NO_CACHE),
    ],
    also: &[],
    removed: &[],
};
const NO_CACHE: Effect = Effect::Ignored(
    "nothing is kept beside the questions that wait, of which a connection has 20,000 at most",
);
const NO_ACCESS_LOG: Effect = Effect::Ignored("calls are not logged");
const TLS: Key = Key::new(
    "tls",
    Ty::Section(&router::SERVER_TLS),
    "none",
    "TLS, with the certificates in these files; they are followed. With `requireClientAuth` nobody else gets in, and `allowAnonymous` is not needed.",
);
static ANY_INTERFACE: Section = Section {
    title: "all interfaces",
    keys: &[
        Key::new("ip", Ty::Ip, "127.0.0.1", "Address to listen on."),
        Key::new(
            "allowAnonymous",
            Ty::Bool,
            "false",
            "Everybody who reaches the address may do what can be done there: change every dtab by HTTP, read all by the others. Needed on every address but loopback, by HTTP when there is no `access`.",
        )
        .but(Effect::Ours),
        Key::new("socketOptions", Ty::Section(&router::SOCKET), "", "Options of the socket.")
            .but(Effect::Ignored("the socket has the system's options")),
    ],
    also: &[],
    removed: &[],
};
