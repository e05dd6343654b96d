//! Where names come from: namers, transformers and interpreters, as configured.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use admin::Readiness;
use anyhow::Context as _;
use k8s::{ApiTarget, Cluster, ClusterConfig};
use naming::namers::{Dns, FsNamer, RewriteNamer, SystemNamer};
use naming::transform::{self, DaemonSetConfig, LocalNode};
use naming::{DefaultInterpreter, Interpreter, Mounted, Namer, Transformer, Var};
use telemetry::metrics::{Registration, Registry, Scope};
use tokio::runtime::Handle;

use crate::config::settings::{
    Config, InterpreterSettings, K8sApi, NamerSettings, NamerSource, TransformerKind,
    TransformerSettings,
};

/// A namer, and the transformers of its answers.
type Configured = (Arc<dyn Namer>, Vec<Arc<dyn Transformer>>);

/// All of them, and the clusters they share.
pub(super) struct Sources {
    clusters: HashMap<K8sApi, Cluster>,
    /// In the order in which they are asked.
    namers: Vec<Configured>,
    system: Arc<dyn Namer>,
    _registrations: Vec<Registration>,
}

impl Sources {
    /// Connects to every Kubernetes API that is named, then makes the namers.
    pub(super) async fn connect(
        config: &Config,
        control: &Handle,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let dns = Dns::system(control.clone());
        let mut clusters = HashMap::new();
        let mut registrations = Vec::new();
        for api in apis(config) {
            let target = target(&api);
            let what = target.to_string();
            let namespaces = namespaces(config);
            let cluster = Cluster::connect(
                ClusterConfig {
                    target,
                    namespaces,
                    ..ClusterConfig::default()
                },
                control,
            )
            .await
            .with_context(|| format!("the Kubernetes API at {what} cannot be set up"))?;
            registrations
                .push(registry.register(Scope::new(["k8s", &what]), Arc::new(cluster.clone())));
            clusters.insert(api, cluster);
        }
        let system: Arc<dyn Namer> = Arc::new(SystemNamer::new(dns.clone()));
        let mut sources = Self {
            clusters,
            namers: Vec::new(),
            system,
            _registrations: registrations,
        };
        // The last one listed is asked first.
        for namer in config.namers.iter().rev() {
            let transformers = sources.transformers(&namer.transformers)?;
            sources
                .namers
                .push((sources.namer(namer, &dns)?, transformers));
        }
        Ok(sources)
    }

    fn namer(&self, settings: &NamerSettings, dns: &Dns) -> anyhow::Result<Arc<dyn Namer>> {
        let prefix = settings.prefix.clone();
        Ok(match &settings.source {
            NamerSource::Fs { root } => {
                Arc::new(FsNamer::new(prefix, root, dns.clone()).with_context(|| {
                    format!("the namer at {} cannot be set up", settings.prefix)
                })?)
            }
            NamerSource::Rewrite { pattern, name } => {
                Arc::new(RewriteNamer::new(prefix, pattern.clone(), &**name))
            }
            NamerSource::K8s {
                api,
                namespace,
                label_selector,
            } => {
                let config = match namespace {
                    None => k8s::NamerConfig::everywhere(),
                    Some(namespace) => k8s::NamerConfig::namespace(&**namespace),
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
        self.clusters
            .get(api)
            .expect("every API that the configuration names was connected to")
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
                let namer = self.cluster(api).namer(k8s::NamerConfig::everywhere());
                Arc::new(transform::DaemonSet::at(prefix, &config, namer))
            }
            TransformerKind::LocalNode {
                pod_ip,
                node_name,
                host_network,
            } => {
                let node = transform::localnode::OwnNode {
                    pod_ip: pod_ip.filter(|_| !host_network),
                    name: Var::new(node_name.clone()),
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

    /// The interpreter of one router.
    pub(super) fn interpreter(
        &self,
        settings: &InterpreterSettings,
        control: &Handle,
    ) -> anyhow::Result<Arc<dyn Interpreter>> {
        let mounted = self
            .namers
            .iter()
            .map(|(namer, transformers)| Mounted::new(namer.clone(), transformers.clone()));
        let transformers = self.transformers(&settings.transformers)?;
        let default = DefaultInterpreter::new(mounted.collect(), self.system.clone(), transformers);
        Ok(match &settings.dtab_file {
            None => Arc::new(default),
            Some(file) => Arc::new(
                naming::FsInterpreter::new(file, default, control).with_context(|| {
                    format!("the dtab file {} cannot be followed", file.display())
                })?,
            ),
        })
    }

    /// The namers, in the order in which they are asked.
    pub(super) fn namers(&self) -> Vec<Arc<dyn Namer>> {
        self.namers.iter().map(|(namer, _)| namer.clone()).collect()
    }

    /// The clusters, for `/state` and `check`.
    pub(super) fn clusters(&self) -> Vec<Cluster> {
        self.clusters.values().cloned().collect()
    }

    /// A node gets traffic once every API has answered one whole list.
    pub(super) fn report_readiness(&self, readiness: &Readiness, control: &Handle) {
        for cluster in self.clusters() {
            let name = format!("kubernetes {}", cluster.target());
            let condition = readiness.condition(name, "no whole list of endpoints yet");
            control.spawn(async move {
                loop {
                    match (cluster.ready(), cluster.trouble().join("; ")) {
                        (true, trouble) if trouble.is_empty() => condition.met("watching"),
                        (true, trouble) => {
                            condition.met(format!("serving what is known; {trouble}"));
                        }
                        (false, trouble) if trouble.is_empty() => {
                            condition.unmet("no whole list of endpoints yet");
                        }
                        (false, trouble) => condition.unmet(trouble),
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                }
            });
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

fn target(api: &K8sApi) -> ApiTarget {
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
        let NamerSource::K8s { namespace, .. } = &namer.source else {
            continue;
        };
        match namespace {
            Some(namespace) => _ = found.insert(namespace.to_string()),
            None => {
                for router in &config.routers {
                    found.extend(k8s::namespaces::of(&router.dtab, &namer.prefix));
                }
            }
        }
    }
    found
}
