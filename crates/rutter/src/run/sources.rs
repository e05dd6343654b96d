//! Where names come from: namers, transformers and interpreters, as configured.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use admin::{Condition, Readiness};
use anyhow::Context as _;
use k8s::{ApiTarget, Cluster, ClusterConfig, ConfigMapConfig};
use namerd::client::{Secure, StoreInterpreter};
use naming::namers::{
    ConsulNamer, Dns, DnsSrvConfig, DnsSrvNamer, FsNamer, RewriteNamer, SystemNamer,
};
use naming::transform::{self, DaemonSetConfig, LocalNode};
use naming::{Addrs, DefaultInterpreter, Interpreter, Mounted, Namer, Reads, Transformer, Var};
use telemetry::code::Check;
use telemetry::metrics::{Registration, Registry, Scope};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::store_keys::StoreKeys;
use crate::config::settings::{
    Config, InterpreterSettings, K8sApi, K8sKind, NamerSettings, NamerSource, TransformerKind,
    TransformerSettings,
};

/// How often it is looked whether a cluster is ready.
const READINESS: Duration = Duration::from_millis(250);

/// How long the slices may take to tell on which node this is, before the log says that it is guessed.
const NODE_PATIENCE: Duration = Duration::from_secs(15);

/// The name of the node that this runs on, which may be learnt later.
type OwnNode = Var<Option<Arc<str>>>;

/// A namer, and the transformers of its answers.
type Configured = (Arc<dyn Namer>, Vec<Arc<dyn Transformer>>);

/// All of them, and the clusters they share.
pub(super) struct Sources {
    clusters: HashMap<K8sApi, Watched>,
    /// In the order in which they are asked, as they were configured.
    namers: Vec<(NamerSettings, Configured)>,
    dns: Dns,
    system: Arc<SystemNamer>,
    stores: Arc<StoreKeys>,
    registry: Registry,
    /// What the slices say about a node whose name the environment doesn't give; none while nobody asks.
    own_node: OwnNode,
    /// Whether the slices are asked for it.
    learning: bool,
}

/// A cluster, with what tells about it.
#[derive(Clone)]
struct Watched {
    cluster: Cluster,
    /// The task that reports whether it is ready, once somebody wants to know.
    readiness: Arc<OnceLock<AbortOnDrop>>,
    _registration: Arc<Registration>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sources {
    /// Connects to every Kubernetes API that is named, then makes the namers. Those that were there `before` in the same
    /// way go on.
    pub(super) async fn connect(
        config: &Config,
        before: Option<&Self>,
        control: &Handle,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let dns = match before {
            Some(before) => before.dns.clone(),
            None => Dns::system(control.clone()),
        };
        let mut clusters = HashMap::new();
        for api in apis(config) {
            let namespaces = namespaces(config);
            if let Some(known) = before.and_then(|before| before.clusters.get(&api)) {
                known.cluster.expect(namespaces);
                clusters.insert(api, known.clone());
                continue;
            }
            let target = target(&api);
            let what = target.to_string();
            let cluster = Cluster::connect(
                ClusterConfig {
                    target,
                    namespaces,
                    state_dir: config.state_dir.clone(),
                    ..ClusterConfig::default()
                },
                control,
            )
            .await
            .with_context(|| format!("the Kubernetes API at {what} cannot be set up"))?;
            let source = Arc::new(cluster.clone());
            let registration = registry.register(Scope::new(["k8s", &what]), source);
            let watched = Watched {
                cluster,
                readiness: Arc::default(),
                _registration: Arc::new(registration),
            };
            clusters.insert(api, watched);
        }
        let system = Arc::new(SystemNamer::new(dns.clone()));
        let mut sources = Self {
            clusters,
            namers: Vec::new(),
            dns,
            system,
            stores: before.map_or_else(Arc::default, |before| before.stores.clone()),
            registry: registry.clone(),
            own_node: before.map_or_else(OwnNode::default, |before| before.own_node.clone()),
            learning: before.is_some_and(|before| before.learning),
        };
        sources.identify_node(config, before, control);
        // The last one listed is asked first.
        for namer in config.namers.iter().rev() {
            let known = before.and_then(|before| before.configured(namer));
            let configured = match known {
                Some(known) => known.clone(),
                None => (
                    sources.namer(namer, &sources.dns)?,
                    sources.transformers(&namer.transformers)?,
                ),
            };
            sources.namers.push((namer.clone(), configured));
        }
        Ok(sources)
    }

    /// The namer that was configured in just this way.
    fn configured(&self, settings: &NamerSettings) -> Option<&Configured> {
        let mut namers = self.namers.iter();
        let (_, configured) = namers.find(|(known, _)| known == settings)?;
        Some(configured)
    }

    fn namer(&self, settings: &NamerSettings, dns: &Dns) -> anyhow::Result<Arc<dyn Namer>> {
        let prefix = settings.prefix.clone();
        Ok(match &settings.source {
            NamerSource::Fs { root } => {
                Arc::new(FsNamer::new(prefix, root, dns.clone()).with_context(|| {
                    format!("the namer at {} cannot be set up", settings.prefix)
                })?)
            }
            NamerSource::DnsSrv { refresh, servers } => {
                let config = DnsSrvConfig {
                    prefix,
                    refresh: *refresh,
                    servers: addresses(servers)?,
                };
                Arc::new(DnsSrvNamer::new(config, dns.clone(), Handle::current()))
            }
            NamerSource::Consul(config) => Arc::new(ConsulNamer::new(
                (**config).clone(),
                dns.clone(),
                Handle::current(),
            )),
            #[cfg(feature = "zookeeper")]
            NamerSource::ZooKeeper(config) => Arc::new(naming::namers::ZkNamer::new(
                config.clone(),
                dns.clone(),
                Handle::current(),
            )),
            NamerSource::Rewrite { pattern, name } => {
                Arc::new(RewriteNamer::new(prefix, pattern.clone(), &**name))
            }
            NamerSource::K8s {
                api,
                kind,
                label_selector,
            } => {
                let config = match kind {
                    K8sKind::Everywhere => k8s::NamerConfig::everywhere(),
                    K8sKind::Namespace(namespace) => k8s::NamerConfig::namespace(&**namespace),
                    K8sKind::External => k8s::NamerConfig::external().resolving(dns.clone()),
                };
                let config = match label_selector {
                    None => config,
                    Some(label) => config.selecting(&**label),
                };
                self.cluster(api).namer(config.at(prefix))
            }
        })
    }

    fn cluster(&self, api: &K8sApi) -> &Cluster {
        let watched = self.clusters.get(api);
        &watched
            .expect("every API that the configuration names was connected to")
            .cluster
    }

    fn transformers(
        &self,
        settings: &[TransformerSettings],
    ) -> anyhow::Result<Vec<Arc<dyn Transformer>>> {
        settings.iter().map(|one| self.transformer(one)).collect()
    }

    fn transformer(&self, settings: &TransformerSettings) -> anyhow::Result<Arc<dyn Transformer>> {
        let prefix = settings.prefix.clone();
        Ok(match &settings.kind {
            TransformerKind::DaemonSet {
                api,
                namespace,
                service,
                port,
                host_network,
            } => {
                let config = DaemonSetConfig {
                    namespace: namespace.to_string(),
                    port: port.to_string(),
                    service: service.to_string(),
                    host_network: *host_network,
                };
                let namer = self.cluster(api).namer(k8s::NamerConfig::gateways());
                Arc::new(transform::DaemonSet::at(prefix, &config, namer))
            }
            TransformerKind::LocalNode {
                pod_ip,
                node_name,
                host_network,
            } => {
                let name = match node_name {
                    Some(name) => Var::new(Some(name.clone())),
                    None => self.own_node.clone(),
                };
                let node = transform::localnode::OwnNode {
                    pod_ip: pod_ip.filter(|_| !host_network),
                    name,
                };
                Arc::new(LocalNode::at(prefix, node))
            }
            TransformerKind::Port(port) => Arc::new(transform::Port::at(prefix, *port)),
            TransformerKind::Localhost => {
                let own = transform::local_addresses()
                    .context("this machine's addresses cannot be listed")?;
                Arc::new(transform::Localhost::at(prefix, own))
            }
            TransformerKind::SpecificHost(host) => {
                Arc::new(transform::SpecificHost::at(prefix, *host))
            }
            TransformerKind::Const(path) => Arc::new(transform::Const::at(prefix, path.clone())),
            TransformerKind::Replace(path) => {
                Arc::new(transform::Replace::at(prefix, path.clone()))
            }
        })
    }

    /// Where the environment doesn't say on which node this is, the slices do: that of the endpoint with this pod's
    /// address. Where it does, they are the proof of it.
    fn identify_node(&mut self, config: &Config, before: Option<&Self>, control: &Handle) {
        let Some((pod_ip, node_name)) = own_node(config) else {
            return;
        };
        let began = std::mem::replace(&mut self.learning, true);
        let new = |api: &K8sApi| !began || !before.is_some_and(|b| b.clusters.contains_key(api));
        for (_, watched) in self.clusters.iter().filter(|(api, _)| new(api)) {
            watched.cluster.learn_node(pod_ip, self.own_node.clone());
        }
        if !began {
            let learnt = self.own_node.clone();
            control.spawn(tell_of_node(pod_ip, node_name, learnt));
        }
    }

    /// The interpreter of one router.
    pub(super) fn interpreter(
        &self,
        settings: &InterpreterSettings,
        control: &Handle,
    ) -> anyhow::Result<Arc<dyn Interpreter>> {
        let transformers = self.transformers(&settings.transformers)?;
        if let Some(store) = &settings.store {
            let system = self.system.clone();
            let secure = self.secure(settings, control)?;
            let store = (store.clone(), secure);
            let asking = StoreInterpreter::new(store, system, transformers, control);
            return Ok(Arc::new(asking));
        }
        let default = self.local(transformers);
        if let Some(map) = &settings.config_map {
            let config = ConfigMapConfig {
                target: target(&map.api),
                namespace: map.namespace.to_string(),
                name: map.name.to_string(),
                key: map.filename.to_string(),
                timing: k8s::Timing::default(),
            };
            return Ok(Arc::new(k8s::configmap::interpreter(
                config, default, control,
            )));
        }
        Ok(match &settings.dtab_file {
            None => Arc::new(default),
            Some(file) => Arc::new(
                naming::LiveInterpreter::file(file, default, control).with_context(|| {
                    format!("the dtab file {} cannot be followed", file.display())
                })?,
            ),
        })
    }

    /// TLS towards the interpreter's store.
    pub(super) fn secure(
        &self,
        settings: &InterpreterSettings,
        control: &Handle,
    ) -> anyhow::Result<Option<Arc<dyn Secure>>> {
        let tls = settings.store_tls.as_ref();
        self.stores.open(tls, &self.registry, control)
    }

    /// The addresses of a host, as `/$/inet` has them.
    pub(super) fn addresses(&self, host: &str, port: u16) -> Arc<dyn Addrs> {
        self.system.addresses(host, port)
    }

    /// What binds with the configured namers, and then transforms.
    pub(super) fn local(&self, transformers: Vec<Arc<dyn Transformer>>) -> DefaultInterpreter {
        let mounted = self
            .namers
            .iter()
            .map(|(_, (namer, transformers))| Mounted::new(namer.clone(), transformers.clone()));
        DefaultInterpreter::new(mounted.collect(), self.system.clone(), transformers)
    }

    /// The namers, in the order in which they are asked.
    pub(super) fn namers(&self) -> Vec<Arc<dyn Namer>> {
        let namers = self.namers.iter();
        namers.map(|(_, (namer, _))| namer.clone()).collect()
    }

    /// The clusters, for `/state` and `check`.
    pub(super) fn clusters(&self) -> Vec<Cluster> {
        let watched = self.clusters.values();
        watched.map(|one| one.cluster.clone()).collect()
    }

    /// A node that starts gets traffic once every API has answered one whole list.
    pub(super) fn report_readiness(&self, readiness: &Readiness, control: &Handle) {
        self.report(readiness, control, Awaited::ByTheStart);
    }

    /// A node that serves is not taken out of traffic for an API that came with a changed configuration: all nodes would
    /// be, at the same time.
    pub(super) fn report_new(&self, readiness: &Readiness, control: &Handle) {
        self.report(readiness, control, Awaited::ByNobody);
    }

    fn report(&self, readiness: &Readiness, control: &Handle, awaited: Awaited) {
        for watched in self.clusters.values() {
            let cluster = watched.cluster.clone();
            let report = || {
                let name = format!("kubernetes {}", cluster.target());
                let condition = match awaited {
                    Awaited::ByTheStart => readiness.condition(name, NO_LIST),
                    Awaited::ByNobody => readiness.condition_met(name, NO_LIST),
                };
                let task = control.spawn(follow(cluster, condition, awaited));
                AbortOnDrop(task.abort_handle())
            };
            watched.readiness.get_or_init(report);
        }
    }
}

/// Whether a node waits for an API's first list before it gets traffic.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// It has served nothing yet.
    ByTheStart,
    /// It serves, and the API is new.
    ByNobody,
}

/// Before the first list.
const NO_LIST: &str = "no whole list of endpoints yet";

/// Reports whether a cluster is ready, for ever.
async fn follow(cluster: Cluster, condition: Condition, awaited: Awaited) {
    let waits = |detail: String| match awaited {
        Awaited::ByTheStart => condition.unmet(detail),
        Awaited::ByNobody => {
            condition.met(format!("new with a changed configuration; {detail}"));
        }
    };
    loop {
        match (cluster.ready(), cluster.trouble().join("; ")) {
            (true, trouble) if trouble.is_empty() && !cluster.confirmed() => {
                condition.met("serving the snapshot of the one before");
            }
            (true, trouble) if trouble.is_empty() => condition.met("watching"),
            (true, trouble) => condition.met(format!("serving what is known; {trouble}")),
            (false, trouble) if trouble.is_empty() => waits(NO_LIST.to_owned()),
            (false, trouble) => waits(trouble),
        }
        tokio::time::sleep(READINESS).await;
    }
}

/// This pod's address and, where it is given, its node's name, when a transformer asks for its own node.
fn own_node(config: &Config) -> Option<(IpAddr, Option<Arc<str>>)> {
    let of_namers = config.namers.iter().flat_map(|namer| &namer.transformers);
    let of_routers = config
        .routers
        .iter()
        .flat_map(|router| &router.interpreter.transformers);
    of_namers.chain(of_routers).find_map(|one| match &one.kind {
        TransformerKind::LocalNode {
            pod_ip: Some(ip),
            node_name,
            ..
        } => Some((*ip, node_name.clone())),
        _ => None,
    })
}

/// Says in the log what the slices say about the own node, each time that it is something new; and that the node is
/// guessed when they say nothing for long.
async fn tell_of_node(pod_ip: IpAddr, given: Option<Arc<str>>, learnt: OwnNode) {
    let mut waiting = given.is_none();
    let patience = tokio::time::Instant::now() + NODE_PATIENCE;
    loop {
        let mut reads = Reads::new();
        match (&given, &*learnt.read(&mut reads)) {
            (None, Some(node)) => {
                tracing::info!(%pod_ip, %node, "the slices say which node this is");
                waiting = false;
            }
            (Some(given), Some(node)) if given != node => {
                tracing::error!(%pod_ip, node = %given, slices_say = %node, "NODE_NAME is not the node that this pod is on: requests for its pods are refused");
            }
            _ => {}
        }
        if !waiting {
            reads.changed().await;
            continue;
        }
        tokio::select! {
            () = reads.changed() => {}
            () = tokio::time::sleep_until(patience) => {
                let code = Check::C022.entry().code;
                tracing::warn!(%pod_ip, code, "no slice says which node this is, and NODE_NAME is not set: endpoints in the same /24 count as being here, as in Linkerd 1");
                waiting = false;
            }
        }
    }
}

/// Every Kubernetes API that is named, once.
fn apis(config: &Config) -> Vec<K8sApi> {
    let of_transformers = |list: &[TransformerSettings]| {
        list.iter()
            .filter_map(|one| match &one.kind {
                TransformerKind::DaemonSet { api, .. } => Some(api.clone()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let mut apis = Vec::new();
    for namer in &config.namers {
        if let NamerSource::K8s { api, .. } = &namer.source {
            apis.push(api.clone());
        }
        apis.extend(of_transformers(&namer.transformers));
    }
    for router in &config.routers {
        apis.extend(of_transformers(&router.interpreter.transformers));
    }
    let mut seen = std::collections::HashSet::new();
    apis.retain(|api| seen.insert(api.clone()));
    apis
}

/// The addresses of DNS servers; names are resolved once, at the start.
fn addresses(servers: &[(Arc<str>, u16)]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut all = Vec::with_capacity(servers.len());
    for (host, port) in servers {
        let found = (&**host, *port).to_socket_addrs();
        let found = found.with_context(|| format!("the DNS server {host} (dnsHosts)"))?;
        all.extend(found);
    }
    Ok(all)
}

pub(super) fn target(api: &K8sApi) -> ApiTarget {
    match api {
        K8sApi::Proxy { host, port } => ApiTarget::Plain {
            host: host.to_string(),
            port: *port,
        },
        K8sApi::InCluster => ApiTarget::Ambient,
    }
}

/// The namespaces that the configuration knows: followed one by one where the whole cluster may not be.
fn namespaces(config: &Config) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut note = |transformers: &[TransformerSettings]| {
        for one in transformers {
            if let TransformerKind::DaemonSet { namespace, .. } = &one.kind {
                found.insert(namespace.to_string());
            }
        }
    };
    config
        .namers
        .iter()
        .for_each(|namer| note(&namer.transformers));
    config
        .routers
        .iter()
        .for_each(|router| note(&router.interpreter.transformers));
    for namer in &config.namers {
        let NamerSource::K8s { kind, .. } = &namer.source else {
            continue;
        };
        match kind {
            K8sKind::Namespace(namespace) => _ = found.insert(namespace.to_string()),
            K8sKind::Everywhere | K8sKind::External => {
                for router in &config.routers {
                    found.extend(k8s::namespaces::of(&router.dtab, &namer.prefix));
                }
            }
        }
    }
    found
}
