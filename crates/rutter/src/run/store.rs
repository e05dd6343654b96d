//! `rutter namerd`: the wiring of the store. Storage, namers, the HTTP API, the admin port.

use std::net::SocketAddr;
use std::sync::Arc;

use admin::{
    Admin, AdminConfig, BoxFuture, Condition, DelegateError, DelegateRequest, DtabRow, Instance,
    Readiness, RouterInfo,
};
use anyhow::Context as _;
use namerd::change::noted::Noted;
use namerd::store::{
    Audited, Change, FileStore, MemoryStore, Observed, Origin, Standing, Store, consul, etcd,
    kubernetes,
};
use namerd::{Api, ApiListener, Interface, Mesh, Names, ThriftMux};
use naming::{Reads, Var};
use router::tls::KeyFigures;
use serde_json::Value;
use telemetry::log::LogHandle;
use telemetry::metrics::{Registry, Scope};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::sources::Sources;
use super::{access, pages};
use crate::config::Environment;
use crate::config::settings::Config;
use crate::config::storage::StorageSettings;
use crate::config::store::{InterfaceKind, InterfaceSettings, StoreConfig};

/// Runs the store until `stop`, then ends its streams and finishes its requests.
pub async fn run(
    config: StoreConfig,
    environment: &Environment,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let levels = environment.variables.get(telemetry::log::VARIABLE);
    let log = telemetry::log::init(telemetry::log::Format::Auto, levels.map(String::as_str))
        .context("the log cannot be set up")?;
    // Only the first of several in a process gets the recorder; they share it.
    _ = telemetry::metrics::control::install();
    tokio::spawn(telemetry::metrics::control::run_upkeep());
    tokio::spawn(super::memory::give_back());
    let instance = Instance {
        program: "rutter namerd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: environment
            .node_name
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        pod: environment
            .pod_ip
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
    };
    let store = StoreProcess::start(config, instance, Some(log), stop.clone()).await?;
    tracing::info!(admin = %store.admin_addr(), "initialized");
    stop.cancelled().await;
    tracing::info!("ending: streams end, requests under way are answered");
    store.drain().await
}

/// A running store.
pub struct StoreProcess {
    config: StoreConfig,
    admin: SocketAddr,
    http: Vec<SocketAddr>,
    serving: Condition,
    /// Ends the API.
    stop_http: CancellationToken,
    listeners: TaskTracker,
    stop_admin: CancellationToken,
    /// Namers and their watches.
    _sources: Sources,
}

impl StoreProcess {
    /// Starts everything on the current runtime. `stop` is what `/admin/shutdown` cancels.
    pub async fn start(
        config: StoreConfig,
        instance: Instance,
        log: Option<LogHandle>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let control = Handle::current();
        let registry = Registry::new();
        let readiness = Readiness::default();
        let serving = readiness.condition("listeners", "the listeners are not open yet");
        let store = open(&config.storage)?;
        let store: Arc<dyn Store> = match &config.audit_log {
            None => store,
            Some(path) => {
                let audited = Audited::over(store, path);
                let failed = || format!("auditLog: {} cannot be opened", path.display());
                Arc::new(audited.with_context(failed)?)
            }
        };
        let storage = readiness.condition("storage", "it has not answered yet");
        control.spawn(report(store.standing(), storage));
        let sources = Sources::connect(&names_only(&config), None, &control, &registry).await?;
        sources.report_readiness(&readiness, &control);
        let names = Names::new(store.clone(), Arc::new(sources.local(Vec::new())));
        let shelf = shelf(
            &config, instance, &registry, &readiness, &store, &names, &sources, stop,
        )?;
        let shelf = match log {
            Some(log) => shelf.logging(Arc::new(log)),
            None => shelf,
        };
        let admin = shelf.bind().await?;
        let admin_addr = admin.addr();

        let stop_http = CancellationToken::new();
        let listeners = TaskTracker::new();
        let confirms = names.confirms().clone();
        control.spawn(confirms.run(store.clone(), stop_http.clone()));
        let mut http = Vec::new();
        let access = Arc::new(access::open(&config, &control)?);
        let mut figures = None;
        for settings in &config.interfaces {
            let (kind, addr) = (settings.kind, settings.addr);
            let listener = ApiListener::bind(addr)
                .await
                .with_context(|| format!("the interface {kind:?} cannot listen on {addr}"))?;
            let addr = listener.addr();
            let listener = match &settings.tls {
                None => listener,
                Some(tls) => {
                    let figures = figures.get_or_insert_with(|| {
                        Arc::new(KeyFigures::register(&registry, Scope::new(["api"])))
                    });
                    listener.with_tls(access::keys(tls, figures, &control)?)
                }
            };
            let (store, names, stop) = (store.clone(), names.clone(), stop_http.clone());
            let interface = match kind {
                InterfaceKind::Http => {
                    match access.is_open() {
                        true => {
                            tracing::info!(%addr, "serving dtabs to everybody who reaches this address: there is no `access` that says who may what");
                        }
                        false => {
                            tracing::info!(%addr, tls = settings.tls.is_some(), "serving dtabs to those whom `access` lets in");
                        }
                    }
                    http.push(addr);
                    Interface::Http(Api::new(store, names, stop).with_access(access.clone()))
                }
                InterfaceKind::Mesh => {
                    tracing::info!(%addr, "serving names by io.l5d.mesh, {}", to_whom(settings));
                    Interface::Mesh(Mesh::new(store, names, stop))
                }
                InterfaceKind::Thrift => {
                    tracing::info!(%addr, "serving names by ThriftMux, {}", to_whom(settings));
                    Interface::Thrift(ThriftMux::new(store, names, stop))
                }
            };
            listeners.spawn(listener.serve(interface, stop_http.clone()));
        }
        listeners.close();
        serving.met("open");
        let stop_admin = CancellationToken::new();
        let serve = admin.serve(stop_admin.clone());
        control.spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "the admin port is gone");
            }
        });
        Ok(Self {
            config,
            admin: admin_addr,
            http,
            serving,
            stop_http,
            listeners,
            stop_admin,
            _sources: sources,
        })
    }

    /// Where its admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Where its HTTP API is.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The API takes no connections any more, streams end, requests are answered, all within the grace time.
    pub async fn drain(&self) -> anyhow::Result<()> {
        self.serving.unmet("ending");
        self.stop_http.cancel();
        let grace = self.config.admin.shutdown_grace;
        let ended = tokio::time::timeout(grace, self.listeners.wait()).await;
        self.stop_admin.cancel();
        ended.with_context(|| format!("some connections were still busy after {grace:?} (admin.shutdownGraceMs) and were cut"))
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        self.stop_http.cancel();
        self.stop_admin.cancel();
    }
}

fn open(settings: &StorageSettings) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match settings {
        StorageSettings::File(path) => Arc::new(FileStore::open(path)?),
        StorageSettings::Memory(namespaces) => {
            let first = namespaces.iter().map(|(name, dtab)| {
                let origin = Origin::now("the configuration", "");
                (name.clone(), Change::of(dtab.clone(), origin))
            });
            Arc::new(MemoryStore::with(first))
        }
        StorageSettings::Kubernetes(config) => kubernetes::open(config.clone(), &Handle::current()),
        StorageSettings::Etcd(config) => {
            etcd::open(config.clone(), &Handle::current()).map_err(anyhow::Error::msg)?
        }
        StorageSettings::Consul(config) => consul::open(config.clone(), &Handle::current()),
        #[cfg(feature = "zookeeper")]
        StorageSettings::ZooKeeper(config) => {
            namerd::store::zookeeper::open(config.clone(), &Handle::current())
        }
    })
}

/// Says whether the storage has ever answered; from then on what is known is served, whatever becomes of it.
async fn report(standing: Var<Standing>, ready: Condition) {
    loop {
        let mut reads = Reads::new();
        match &*standing.read(&mut reads) {
            Standing::Awaited(why) => ready.unmet(&**why),
            Standing::Good | Standing::Lost(_) => return ready.met("answers"),
        }
        reads.changed().await;
    }
}

/// Who gets in where nobody says who they are.
fn to_whom(interface: &InterfaceSettings) -> &'static str {
    match interface.tls.as_ref().map(|tls| &tls.client_roots) {
        Some(Some(_)) => "to who has a certificate",
        Some(None) => "with TLS, to everybody who reaches this address",
        None => "to everybody who reaches this address",
    }
}

/// What namers need of a router's configuration.
fn names_only(config: &StoreConfig) -> Config {
    Config {
        admin: config.admin.clone(),
        namers: config.namers.clone(),
        telemetry: Vec::new(),
        routers: Vec::new(),
        workers: None,
        state_dir: None,
        given: Value::Null,
    }
}

#[expect(clippy::too_many_arguments, reason = "each owner gives its page, once")]
fn shelf(
    config: &StoreConfig,
    instance: Instance,
    registry: &Registry,
    readiness: &Readiness,
    store: &Arc<dyn Store>,
    names: &Names,
    sources: &Sources,
    stop: CancellationToken,
) -> anyhow::Result<Admin> {
    let version = instance.version.clone();
    let admin = Admin::new(AdminConfig {
        ip: config.admin.addr.ip(),
        port: config.admin.addr.port(),
        security: pages::security(&config.admin.security)?,
        instance,
    });
    Ok(admin
        .dtabs(store.kind(), rows(store.clone()))
        .delegator(namespaces(store.clone()), delegate(names.clone()))
        .metrics(registry)
        .readiness(readiness.clone())
        .config_json(config.given.clone())
        .server_info("rutter namerd", &version, "")
        .shutdown(move || stop.cancel())
        .namer_state(pages::namer_state(sources.namers())))
}

fn in_force(store: &Arc<dyn Store>) -> Vec<(String, Arc<namerd::store::Stored>)> {
    let names = store.names().get();
    let state = |name: &namerd::store::Namespace| match store.watch(name).read(&mut Reads::new()) {
        Observed::Present(stored) => Some((name.to_string(), stored)),
        Observed::Absent | Observed::Unknown(_) => None,
    };
    names.iter().filter_map(state).collect()
}

fn rows(store: Arc<dyn Store>) -> impl Fn() -> Vec<DtabRow> + Send + Sync + 'static {
    move || {
        let row = |(namespace, stored): (String, Arc<namerd::store::Stored>)| DtabRow {
            link: namerd::api::encoded(&namespace),
            namespace,
            number: stored.record.number,
            version: stored.record.version(),
            rules: stored.dtab.len(),
            author: stored.record.origin.author.to_string(),
            note: Noted::of(&stored.record.origin.note).words,
        };
        in_force(&store).into_iter().map(row).collect()
    }
}

/// The namespaces as the delegator's page knows routers.
fn namespaces(store: Arc<dyn Store>) -> Arc<dyn Fn() -> Vec<RouterInfo> + Send + Sync> {
    Arc::new(move || {
        let info = |(namespace, stored): (String, Arc<namerd::store::Stored>)| RouterInfo {
            label: namespace,
            dtab: pages::pretty(&stored.dtab),
            interpreter: "default".to_owned(),
            ..RouterInfo::default()
        };
        in_force(&store).into_iter().map(info).collect()
    })
}

/// `/delegator.json`: under the dtab that is asked with, as in Linkerd's namerd, whatever the namespace has.
fn delegate(
    names: Names,
) -> impl Fn(DelegateRequest) -> BoxFuture<Result<Value, DelegateError>> + Send + Sync + 'static {
    move |request| {
        let names = names.clone();
        Box::pin(async move {
            pages::explained(&request, |dtab, path, reads| {
                names.delegate_under(dtab, path, reads)
            })
            .await
        })
    }
}
