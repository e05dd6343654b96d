//! `namers[]`, `interpreter`, `transformers[]`.

use super::{Effect, Key, Kinds, Section, Ty, kind, refused};

const CURATOR: &str = "of ZooKeeper only serversets and leader groups are read";
#[cfg(not(feature = "zookeeper"))]
const NO_ZK: &str = "it was built without the cargo feature `zookeeper`";
/// `namers[]`.
pub static NAMERS: Kinds = Kinds {
    what: "namer",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.fs",
            &FS,
            "One file per name, a line per endpoint: `host port` or `host port * weight`. `/#/io.l5d.fs/FILE`",
        ),
        kind(
            "io.l5d.k8s",
            &K8S,
            "Services of Kubernetes. `/#/io.l5d.k8s/NAMESPACE/PORT/SERVICE`",
        ),
        kind(
            "io.l5d.k8s.ns",
            &K8S_NS,
            "Services of one namespace. `/#/io.l5d.k8s.ns/PORT/SERVICE`",
        ),
        kind(
            "io.l5d.k8s.external",
            &K8S_EXTERNAL,
            "Load balancers of Kubernetes' Services. `/#/io.l5d.k8s.external/NAMESPACE/PORT/SERVICE`",
        ),
        kind("io.l5d.rewrite", &REWRITE, "Rewrites paths by a pattern."),
        refused(
            "io.l5d.k8s.istio",
            "Linkerd 1's support of Istio's old API is not re-created",
        ),
        kind(
            "io.l5d.consul",
            &CONSUL,
            "Services of Consul. `/#/io.l5d.consul/DATACENTRE/SERVICE`, or `/#/io.l5d.consul/DATACENTRE/TAG/SERVICE`; `.local` is the data centre of the agent that is asked.",
        ),
        refused("io.l5d.marathon", "Marathon is not read"),
        kind(
            "io.l5d.dnssrv",
            &DNSSRV,
            "Targets of SRV records of DNS, all alike whatever their priority and weight, as in Linkerd 1. `/#/io.l5d.dnssrv/NAME`",
        ),
        #[cfg(feature = "zookeeper")]
        kind(
            "io.l5d.serversets",
            &SERVERSETS,
            "Serversets of ZooKeeper: their members that are alive. `/#/io.l5d.serversets/PATH`, the last segment also as `NAME:ENDPOINT`, `NAME#SHARD` or `NAME:ENDPOINT#SHARD`; when there is no such serverset, the longest path before it that is one, and the rest is residual.",
        ),
        #[cfg(feature = "zookeeper")]
        kind(
            "io.l5d.zkLeader",
            &ZK_LEADER,
            "Leader groups of ZooKeeper: the member with the lowest number, which holds `HOST:PORT`. `/#/io.l5d.zkLeader/PATH`, or the longest path before it that is such a group.",
        ),
        #[cfg(not(feature = "zookeeper"))]
        super::not_built("io.l5d.serversets", NO_ZK),
        #[cfg(not(feature = "zookeeper"))]
        super::not_built("io.l5d.zkLeader", NO_ZK),
        refused("io.l5d.curator", CURATOR),
        refused("io.l5d.rancher", "Rancher 1 is not read"),
        refused("io.l5d.etcd", "Linkerd 1 has no such namer, either"),
        refused("io.l5d.eureka", "Linkerd 1 has no such namer, either"),
    ],
};

static COMMON: Section = Section {
    title: "all namers",
    keys: &[
        Key::new(
            "prefix",
            Ty::Path,
            "/ and the kind",
            "What a dtab calls it: `/#` and then this.",
        ),
        Key::new(
            "transformers",
            Ty::List(&Ty::Kinds(&TRANSFORMERS)),
            "[]",
            "Applied in order to what this namer binds.",
        ),
        Key::new("experimental", Ty::Bool, "false", "Accepted everywhere."),
    ],
    also: &[],
    removed: &[],
};
static FS: Section = Section {
    title: "io.l5d.fs",
    keys: &[Key::required("rootDir", Ty::ExistingDir, "The directory.")],
    also: &[&COMMON],
    removed: &[],
};
static API: Section = Section {
    title: "Kubernetes API",
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
            "labelSelector",
            Ty::Text,
            "none",
            "A label's key; the path gets its value as a last segment.",
        ),
    ],
    also: &[],
    removed: &[],
};
static K8S: Section = Section {
    title: "io.l5d.k8s",
    keys: &[],
    also: &[&API, &COMMON],
    removed: &[],
};
static K8S_EXTERNAL: Section = Section {
    title: "io.l5d.k8s.external",
    keys: &[],
    also: &[&API, &COMMON],
    removed: &[],
};
static K8S_NS: Section = Section {
    title: "io.l5d.k8s.ns",
    keys: &[Key::new(
        "envVar",
        Ty::Text,
        "POD_NAMESPACE",
        "The environment variable that holds the namespace.",
    )],
    also: &[&API, &COMMON],
    removed: &[],
};
static DNSSRV: Section = Section {
    title: "io.l5d.dnssrv",
    keys: &[
        Key::new(
            "refreshIntervalSeconds",
            Ty::Count(1, 86_400),
            "5",
            "Seconds between two questions for a name.",
        ),
        Key::new(
            "dnsHosts",
            Ty::List(&Ty::Text),
            "the system's",
            "DNS servers, each a name or an address; a port may stand behind a colon, else it is 53.",
        ),
    ],
    also: &[&COMMON],
    removed: &[],
};
static CONSUL: Section = Section {
    title: "io.l5d.consul",
    keys: &[
        Key::new("host", Ty::Text, "localhost", "A Consul agent."),
        Key::new("port", Ty::Port, "8500", "The port of its HTTP API."),
        Key::new(
            "includeTag",
            Ty::Bool,
            "false",
            "Paths have a tag before the service; only instances with it count.",
        ),
        Key::new(
            "useHealthCheck",
            Ty::Bool,
            "false",
            "Only instances with healthy checks count.",
        ),
        Key::new(
            "healthStatuses",
            Ty::List(&Ty::OneOf(HEALTH)),
            "[passing]",
            "What counts as healthy, with `useHealthCheck`; an instance is as its worst check says.",
        ),
        Key::new("token", Ty::Text, "none", "Sent as `X-Consul-Token`."),
        Key::new(
            "setHost",
            Ty::Bool,
            "false",
            "Puts the service's name in Consul's DNS into `Host`: `true` is not supported in this version.",
        ),
        Key::new(
            "consistencyMode",
            Ty::OneOf(&["default", "stale", "consistent"]),
            "default",
            "How consistent Consul's answers are to be.",
        ),
        Key::new(
            "failFast",
            Ty::Bool,
            "false",
            "Linkerd 1 then marks an agent that refuses connections as dead.",
        )
        .but(Effect::Ignored(
            "an agent that fails is asked again after 10 ms to 5 s",
        )),
        Key::new(
            "preferServiceAddress",
            Ty::Bool,
            "true",
            "The address of the service counts, where it has one; otherwise the node's.",
        ),
        Key::new(
            "weights",
            Ty::List(&Ty::Section(&TAG_WEIGHT)),
            "[]",
            "What instances with a tag weigh; of several the greatest, without any 1.",
        ),
        Key::new(
            "fixedLengthStreamedAfterKB",
            Ty::Count(0, 1 << 32),
            "5120",
            "Of Linkerd 1's HTTP client.",
        )
        .but(Effect::Ignored("answers of up to 32 MB are read")),
        Key::new(
            "transferMetadata",
            Ty::Bool,
            "false",
            "Keeps the service's metadata with its addresses.",
        )
        .but(Effect::Ignored("nothing reads it")),
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
    also: &[&COMMON],
    removed: &[],
};
/// From the best to the worst.
const HEALTH: &[&str] = &["passing", "warning", "critical", "maintenance"];
static TAG_WEIGHT: Section = Section {
    title: "weights of io.l5d.consul",
    keys: &[
        Key::required("tag", Ty::Text, "The tag."),
        Key::required("weight", Ty::Number(0.0, 1_000_000.0), "Its weight."),
    ],
    also: &[],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
static SERVERSETS: Section = Section {
    title: "io.l5d.serversets",
    keys: &[],
    also: &[&ZK, &COMMON],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
static ZK_LEADER: Section = Section {
    title: "io.l5d.zkLeader",
    keys: &[],
    also: &[&ZK, &COMMON],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
static ZK: Section = Section {
    title: "io.l5d.serversets, io.l5d.zkLeader",
    keys: &[Key::required(
        "zkAddrs",
        Ty::List(&Ty::Section(&ZK_SERVER)),
        "ZooKeeper's servers, at least one. A router is connected to one of them at a time.",
    )],
    also: &[],
    removed: &[],
};
#[cfg(feature = "zookeeper")]
pub(super) static ZK_SERVER: Section = Section {
    title: "a server of zkAddrs",
    keys: &[
        Key::required("host", Ty::Text, "Its name or address."),
        Key::new("port", Ty::Port, "2181", "Its port for clients."),
    ],
    also: &[],
    removed: &[],
};
static REWRITE: Section = Section {
    title: "io.l5d.rewrite",
    keys: &[
        Key::required(
            "prefix",
            Ty::Path,
            "What a dtab calls it: `/#` and then this.",
        ),
        Key::required(
            "pattern",
            Ty::Pattern,
            "What is matched, such as `/{port}/{ns}/{svc}`; captures are one segment or a part of it.",
        ),
        Key::required("name", Ty::Text, "The path instead, with `{captures}`."),
        Key::new(
            "transformers",
            Ty::List(&Ty::Kinds(&TRANSFORMERS)),
            "[]",
            "Applied in order to what this namer binds.",
        ),
        Key::new("experimental", Ty::Bool, "false", "Accepted everywhere."),
    ],
    also: &[],
    removed: &[],
};

/// `interpreter`.
pub static INTERPRETERS: Kinds = Kinds {
    what: "interpreter",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "default",
            &INTERPRETER,
            "Binds here, with the router's dtab and the configured namers.",
        ),
        kind(
            "io.l5d.fs",
            &INTERPRETER_FS,
            "The same with a dtab from a file that is watched, in front of the router's own.",
        ),
        kind(
            "io.l5d.namerd.http",
            &INTERPRETER_NAMERD_HTTP,
            "Asks a store's HTTP API (`rutter namerd`, or Linkerd's namerd), which binds with its dtab and its namers.",
        ),
        kind(
            "io.l5d.namerd",
            &INTERPRETER_NAMERD,
            "The same by ThriftMux, for a store that has nothing else.",
        ),
        kind(
            "io.l5d.mesh",
            &INTERPRETER_MESH,
            "The same by gRPC: all names on one connection. The one to take between routers and a store of this program.",
        ),
        kind(
            "io.l5d.k8s.configMap",
            &INTERPRETER_CONFIG_MAP,
            "The same with a dtab from a ConfigMap that is watched, in front of the router's own.",
        ),
        refused(
            "io.l5d.consul.interpreter",
            "Consul is not read in this version",
        ),
        refused(
            "io.l5d.k8s.istio",
            "Linkerd 1's support of Istio's old API is not re-created",
        ),
    ],
};
static INTERPRETER: Section = Section {
    title: "interpreter",
    keys: &[
        Key::new(
            "transformers",
            Ty::List(&Ty::Kinds(&TRANSFORMERS)),
            "[]",
            "Applied in order to every bound name.",
        ),
        Key::new("experimental", Ty::Bool, "false", "Accepted everywhere."),
    ],
    also: &[],
    removed: &[],
};
static INTERPRETER_FS: Section = Section {
    title: "io.l5d.fs",
    keys: &[Key::required(
        "dtabFile",
        Ty::ExistingFile,
        "File with the dtab; read again when it changes.",
    )],
    also: &[&INTERPRETER],
    removed: &[],
};
static INTERPRETER_CONFIG_MAP: Section = Section {
    title: "io.l5d.k8s.configMap",
    keys: &[
        Key::required("name", Ty::Text, "The ConfigMap."),
        Key::required(
            "filename",
            Ty::Text,
            "The key in it whose value is the dtab.",
        ),
        Key::new(
            "namespace",
            Ty::Text,
            "default",
            "The ConfigMap's namespace.",
        ),
        Key::new(
            "host",
            Ty::Text,
            "localhost (outside a pod, without a kubeconfig)",
            "Where a `kubectl proxy` listens. With neither `host` nor `port`, the API server is asked itself, as by `io.l5d.k8s`; the verbs `get` and `watch` are needed.",
        ),
        Key::new(
            "port",
            Ty::Port,
            "8001 (outside a pod, without a kubeconfig)",
            "And its port.",
        ),
    ],
    also: &[&INTERPRETER],
    removed: &[],
};

static INTERPRETER_NAMERD_HTTP: Section = Section {
    title: "io.l5d.namerd.http",
    keys: &[
        Key::required(
            "dst",
            Ty::Path,
            "Where the store is: `/$/inet/HOST/PORT`, with the port of its HTTP API, such as `/$/inet/namerd.default.svc/4180`.",
        ),
        Key::new("namespace", Ty::Text, "default", "The namespace whose dtab counts. The router's own `dtab` and the request's are put behind it."),
        Key::new("retry", Ty::Section(&RETRY), "", "How patiently a store that does not answer is asked again."),
        Key::new("tokenPath", Ty::File, "none", "A file with the token that the router shows the store, such as a service account's; it is read anew for each question.")
            .but(Effect::Ours),
        STORE_TLS,
    ],
    also: &[&INTERPRETER],
    removed: &[],
};
static INTERPRETER_MESH: Section = Section {
    title: "io.l5d.mesh",
    keys: &[
        Key::required(
            "dst",
            Ty::Path,
            "Where the store is: `/$/inet/HOST/PORT`, with the port of its interface io.l5d.mesh, such as `/$/inet/namerd.default.svc/4321`.",
        ),
        Key::new(
            "root",
            Ty::Path,
            "/default",
            "The namespace whose dtab counts, as a path of one segment. The router's own `dtab` and the request's are put behind it.",
        ),
        Key::new(
            "retry",
            Ty::Section(&RETRY),
            "",
            "How patiently a store that does not answer is asked again.",
        ),
        STORE_TLS,
        Key::new(
            "failureThreshold",
            Ty::Section(&FAILURE_THRESHOLD),
            "",
            "How a store that is gone without a word is noticed.",
        ),
        Key::new(
            "initialStreamWindowSizeKB",
            Ty::Count(16, 1_048_576),
            "10240",
            "How much of an answer may be on its way.",
        ),
    ],
    also: &[&INTERPRETER],
    removed: &[],
};
static INTERPRETER_NAMERD: Section = Section {
    title: "io.l5d.namerd",
    keys: &[
        Key::required(
            "dst",
            Ty::Path,
            "Where the store is: `/$/inet/HOST/PORT`, with the port of its interface io.l5d.thriftNameInterpreter, such as `/$/inet/namerd.default.svc/4100`.",
        ),
        Key::new(
            "namespace",
            Ty::Text,
            "default",
            "The namespace whose dtab counts. The router's own `dtab` and the request's are put behind it.",
        ),
        Key::new(
            "retry",
            Ty::Section(&RETRY),
            "",
            "How patiently a store that does not answer is asked again.",
        ),
        Key::new(
            "tls",
            Ty::Section(&THRIFT_TLS),
            "none",
            "TLS towards the store; without keys (`tls: {}`) with what the system trusts.",
        ),
        Key::new(
            "failureThreshold",
            Ty::Section(&FAILURE_THRESHOLD),
            "",
            "How a store that is gone without a word is noticed.",
        ),
    ],
    also: &[&INTERPRETER],
    removed: &[],
};
const STORE_TLS: Key = Key::new(
    "tls",
    Ty::Section(&super::router::CLIENT_TLS),
    "none",
    "TLS towards the store. Without `commonName` its certificate has to be for the host of `dst`. The files are followed.",
);
static THRIFT_TLS: Section = Section {
    title: "tls of io.l5d.namerd",
    keys: &[
        Key::new(
            "commonName",
            Ty::Text,
            "the host of `dst`",
            "The name that is sent (SNI) and that the store's certificate must have.",
        ),
        Key::new(
            "caCert",
            Ty::ExistingFile,
            "the system's",
            "The authorities, or certificates, that are trusted, PEM.",
        ),
    ],
    also: &[],
    removed: &[],
};
static FAILURE_THRESHOLD: Section = Section {
    title: "failureThreshold of a store",
    keys: &[
        Key::new(
            "minPeriodMs",
            Ty::Count(100, 3_600_000),
            "5000",
            "How often it is asked whether it is there.",
        ),
        Key::new(
            "closeTimeoutMs",
            Ty::Count(100, 3_600_000),
            "6000 (io.l5d.namerd: 4000)",
            "How long it has to say so before the connection is given up.",
        ),
    ],
    also: &[],
    removed: &[],
};
static RETRY: Section = Section {
    title: "retry of a store",
    keys: &[
        Key::new("baseSeconds", Ty::Count(1, 86_400), "1", "The first wait."),
        Key::new("maxSeconds", Ty::Count(1, 86_400), "30", "The longest one."),
    ],
    also: &[],
    removed: &[],
};

/// `transformers[]`.
pub static TRANSFORMERS: Kinds = Kinds {
    what: "transformer",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.k8s.daemonset",
            &DAEMONSET,
            "Sends to the router on the endpoint's node instead of the endpoint.",
        ),
        kind(
            "io.l5d.k8s.localnode",
            &LOCALNODE,
            "Keeps endpoints of this node only.",
        ),
        kind("io.l5d.port", &PORT, "Replaces the port."),
        kind(
            "io.l5d.localhost",
            &PREFIX_ONLY,
            "Keeps endpoints of this machine only.",
        ),
        kind(
            "io.l5d.specificHost",
            &SPECIFIC_HOST,
            "Keeps endpoints with that address only.",
        ),
        kind("io.l5d.const", &CONST, "Binds every name to one."),
        kind(
            "io.l5d.replace",
            &CONST,
            "Replaces every bound name with one.",
        ),
    ],
};

static PREFIX_ONLY: Section = Section {
    title: "all transformers",
    keys: &[
        Key::new(
            "prefix",
            Ty::Path,
            "/ and the kind",
            "Shown in bound names behind `/%`.",
        ),
        Key::new("experimental", Ty::Bool, "false", "Accepted everywhere."),
    ],
    also: &[],
    removed: &[],
};
static DAEMONSET: Section = Section {
    title: "io.l5d.k8s.daemonset",
    keys: &[
        Key::required(
            "namespace",
            Ty::Text,
            "Namespace of the Service in front of the routers.",
        ),
        Key::required("service", Ty::Text, "That Service."),
        Key::required(
            "port",
            Ty::Text,
            "Name of its port that leads to the incoming routers.",
        ),
        Key::new(
            "k8sHost",
            Ty::Text,
            "localhost (outside a pod, without a kubeconfig)",
            "Where a `kubectl proxy` listens. With neither `k8sHost` nor `k8sPort`, the API server of a configured namer `io.l5d.k8s` is asked.",
        ),
        Key::new(
            "k8sPort",
            Ty::Port,
            "8001 (outside a pod, without a kubeconfig)",
            "And its port.",
        ),
        Key::new(
            "hostNetwork",
            Ty::Bool,
            "false",
            "The routers are on the hosts' network. Nodes are told apart by name whenever the API gives names, whatever this says.",
        ),
    ],
    also: &[&PREFIX_ONLY],
    removed: &[],
};
static LOCALNODE: Section = Section {
    title: "io.l5d.k8s.localnode",
    keys: &[Key::new(
        "hostNetwork",
        Ty::Bool,
        "false",
        "The router is on the host's network: NODE_NAME must be set. Otherwise POD_IP, or NODE_NAME.",
    )],
    also: &[&PREFIX_ONLY],
    removed: &[],
};
static PORT: Section = Section {
    title: "io.l5d.port",
    keys: &[Key::required("port", Ty::Port, "The port.")],
    also: &[&PREFIX_ONLY],
    removed: &[],
};
static SPECIFIC_HOST: Section = Section {
    title: "io.l5d.specificHost",
    keys: &[Key::required("host", Ty::Ip, "The address.")],
    also: &[&PREFIX_ONLY],
    removed: &[],
};
static CONST: Section = Section {
    title: "io.l5d.const, io.l5d.replace",
    keys: &[Key::required(
        "path",
        Ty::Path,
        "The name that is bound instead.",
    )],
    also: &[&PREFIX_ONLY],
    removed: &[],
};
