//! What the file says, once checked. The router's part is [`router::settings`]; what is left is here, until its wiring in `run`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, Path};
use namerd::client::ClientConfig;
use naming::PathMatcher;
use naming::namers::ConsulConfig;
use router::settings::{ClientTls, RouterSettings};
use telemetry::metrics::linkerd::StatsdConfig;
use telemetry::span::Transport;
use tracing::Level;

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The admin port.
    pub admin: AdminSettings,
    /// In the file's order; the last one is asked first.
    pub namers: Vec<NamerSettings>,
    /// Exporters and pages.
    pub telemetry: Vec<TelemeterSettings>,
    /// At least one; labels differ, and so do listeners.
    pub routers: Vec<RouterConfig>,
    /// Threads of the data plane; `None`: as many as the machine suggests.
    pub workers: Option<usize>,
    /// Where what is known is kept over restarts; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Keys that were given, as JSON: `/config.json`.
    pub given: serde_json::Value,
}

/// `admin`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How long requests may take to finish when the process stops.
    pub shutdown_grace: Duration,
    /// Which pages are served.
    pub security: SecuritySettings,
}

/// `admin.security`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecuritySettings {
    /// Pages for people.
    pub ui: bool,
    /// Shutdown and log levels.
    pub control: bool,
    /// All other pages.
    pub diagnostics: bool,
    /// Regular expressions of paths that are served all the same.
    pub whitelist: Vec<Arc<str>>,
    /// Regular expressions of paths that are never served.
    pub blacklist: Vec<Arc<str>>,
}

/// One of `namers`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamerSettings {
    /// What a dtab calls it, behind `/#`.
    pub prefix: Path,
    /// In order.
    pub transformers: Vec<TransformerSettings>,
    /// Where names come from.
    pub source: NamerSource,
}

/// Where a namer's names come from.
#[derive(Clone, Debug, PartialEq)]
pub enum NamerSource {
    /// `io.l5d.fs`.
    Fs {
        /// One file per name.
        root: PathBuf,
    },
    /// `io.l5d.k8s`, `io.l5d.k8s.ns`, `io.l5d.k8s.external`.
    K8s {
        /// The API.
        api: K8sApi,
        /// What its paths hold, and where they lead.
        kind: K8sKind,
        /// A label's key; a last segment of the path is its value.
        label_selector: Option<Arc<str>>,
    },
    /// `io.l5d.dnssrv`.
    DnsSrv {
        /// Between two questions.
        refresh: Duration,
        /// Servers with their ports; none: the system's.
        servers: Vec<(Arc<str>, u16)>,
    },
    /// `io.l5d.consul`; the prefix in it is the namer's.
    Consul(Box<ConsulConfig>),
    /// `io.l5d.serversets`, `io.l5d.zkLeader`; the prefix in it is the namer's.
    #[cfg(feature = "zookeeper")]
    ZooKeeper(naming::namers::ZkConfig),
    /// `io.l5d.rewrite`.
    Rewrite {
        /// What is matched.
        pattern: PathMatcher,
        /// The path instead, with `{captures}`.
        name: Arc<str>,
    },
}

/// Which of the namers of Kubernetes' Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum K8sKind {
    /// `io.l5d.k8s`: endpoints in all namespaces.
    Everywhere,
    /// `io.l5d.k8s.ns`: endpoints in this namespace, which paths then don't name.
    Namespace(Arc<str>),
    /// `io.l5d.k8s.external`: load balancers' addresses.
    External,
}

/// How the Kubernetes API is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum K8sApi {
    /// Plain HTTP, as through `kubectl proxy`.
    Proxy {
        /// Name or address.
        host: Arc<str>,
        /// Its port.
        port: u16,
    },
    /// With the pod's service account.
    InCluster,
}

/// One of `transformers`.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformerSettings {
    /// Shown in bound names behind `/%`.
    pub prefix: Path,
    /// What it does.
    pub kind: TransformerKind,
}

/// What a transformer does.
#[derive(Clone, Debug, PartialEq)]
pub enum TransformerKind {
    /// `io.l5d.k8s.daemonset`.
    DaemonSet {
        /// The API.
        api: K8sApi,
        /// Of the routers' Service.
        namespace: Arc<str>,
        /// The routers' Service.
        service: Arc<str>,
        /// Name of its port.
        port: Arc<str>,
        /// Nodes are told apart by name.
        host_network: bool,
    },
    /// `io.l5d.k8s.localnode`: at least one of the two is known.
    LocalNode {
        /// POD_IP.
        pod_ip: Option<IpAddr>,
        /// NODE_NAME.
        node_name: Option<Arc<str>>,
        /// Nodes are told apart by name.
        host_network: bool,
    },
    /// `io.l5d.port`.
    Port(u16),
    /// `io.l5d.localhost`.
    Localhost,
    /// `io.l5d.specificHost`.
    SpecificHost(IpAddr),
    /// `io.l5d.const`.
    Const(Path),
    /// `io.l5d.replace`.
    Replace(Path),
}

/// A router and its names.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// What the data plane has to know.
    pub router: RouterSettings,
    /// The base dtab.
    pub dtab: Dtab,
    /// What binds names.
    pub interpreter: InterpreterSettings,
    /// Names kept ready.
    pub cache: CacheSettings,
}

/// `interpreter`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InterpreterSettings {
    /// `io.l5d.fs`: a file with a dtab in front of the router's own.
    pub dtab_file: Option<PathBuf>,
    /// `io.l5d.k8s.configMap`: a dtab in front of the router's own.
    pub config_map: Option<ConfigMapSettings>,
    /// `io.l5d.namerd.http`: a store that binds.
    pub store: Option<ClientConfig>,
    /// TLS towards that store; none: without.
    pub store_tls: Option<ClientTls>,
    /// In order.
    pub transformers: Vec<TransformerSettings>,
}

/// `io.l5d.k8s.configMap`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigMapSettings {
    /// The API.
    pub api: K8sApi,
    /// The ConfigMap's namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The key with the dtab.
    pub filename: Arc<str>,
}

/// `bindingCache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Names kept at the most.
    pub paths: usize,
    /// An unused name is forgotten after this.
    pub idle_ttl: Duration,
}

/// One of `telemetry`.
#[derive(Clone, Debug, PartialEq)]
pub enum TelemeterSettings {
    /// `io.l5d.prometheus`.
    Prometheus {
        /// Where the page is.
        path: Arc<str>,
        /// Put in front of names.
        prefix: Arc<str>,
    },
    /// `io.l5d.zipkin`.
    Zipkin {
        /// The collector.
        host: Arc<str>,
        /// Its port.
        port: u16,
        /// 0 to 1.
        sample_rate: f64,
        /// How spans travel; `None`: as port and path say.
        transport: Option<Transport>,
        /// The path for HTTP; `None`: Zipkin's own.
        path: Option<Arc<str>>,
    },
    /// `io.l5d.influxdb`.
    Influxdb,
    /// `io.l5d.statsd`.
    Statsd(StatsdConfig),
    /// `io.l5d.tracelog`.
    Tracelog {
        /// 0 to 1.
        sample_rate: f64,
        /// Of its lines.
        level: Level,
    },
    /// `io.l5d.recentRequests`.
    RecentRequests {
        /// 0 to 1.
        sample_rate: f64,
        /// How many are kept.
        capacity: usize,
    },
}
