//! A router, as all workers and the control plane see it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Instant;

use dtab::Path;
use naming::{Addr, Names};
use telemetry::metrics::{Collector, Registration, Registry, Scope, Source};
use telemetry::span::Recorder;
use telemetry::trace::Sampling;

use crate::access_log::AccessLog;
use crate::budget::Budget;
use crate::client::{ClientShared, lock};
use crate::guard::Guard;
use crate::kept::Alike;
use crate::settings::{Balancer, ClientSettings, RouterSettings, ServiceSettings};
use crate::tls::Keys;

/// Where a router's reports go.
#[derive(Clone)]
pub struct Reporting {
    /// Metrics.
    pub registry: Registry,
    /// Finished spans.
    pub recorder: Recorder,
    /// Which requests are traced when their callers did not say.
    pub sampling: Sampling,
    /// This node's name, for answers; empty when it is not known.
    pub node: Arc<str>,
}

/// One router: settings, names, and what its workers share.
pub struct Router {
    pub(crate) settings: RouterSettings,
    pub(crate) names: Arc<Names>,
    pub(crate) reporting: Reporting,
    pub(crate) workers: usize,
    /// Requests under way by server; written only where a limit is configured.
    pub(crate) under_way: Vec<Arc<AtomicU32>>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) guard: Guard,
    /// Where it listens, once it does.
    pub(crate) listeners: OnceLock<Vec<SocketAddr>>,
    pub(crate) keys: Keys,
    clients: Mutex<Known<ClientShared>>,
    services: Mutex<Known<ServiceShared>>,
    client_settings: Alike<ClientSettings>,
    service_settings: Alike<ServiceSettings>,
}

/// What is known of names as long as some worker holds it, with its registration for metrics.
struct Known<T> {
    names: HashMap<Path, (Weak<T>, Arc<Registration>)>,
    /// When there are so many, those that nobody holds any more go: a new name costs the same however many there are.
    prune_at: usize,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            prune_at: 0,
        }
    }
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self {
            names: self.names.clone(),
            prune_at: self.prune_at,
        }
    }
}

impl<T> Known<T> {
    fn get(&self, path: &Path) -> Option<Arc<T>> {
        self.names.get(path).and_then(|(one, _)| one.upgrade())
    }

    fn insert(&mut self, path: Path, one: &Arc<T>, registration: Registration) {
        if self.names.len() >= self.prune_at {
            self.prune();
        }
        let entry = (Arc::downgrade(one), Arc::new(registration));
        self.names.insert(path, entry);
    }

    fn prune(&mut self) {
        self.names.retain(|_, (one, _)| one.strong_count() > 0);
        self.prune_at = 2 * self.names.len() + 64;
    }
}

/// What all workers share of one logical name.
pub(crate) struct ServiceShared {
    pub(crate) path: Path,
    pub(crate) settings: Arc<ServiceSettings>,
    pub(crate) retries: Budget,
    /// As `ServiceStats::resolved`.
    pub(crate) resolved: AtomicBool,
}

/// A client as `/client_state.json` and `/state` show it.
#[derive(Clone, Debug)]
pub struct ClientState {
    /// The bound name.
    pub id: Path,
    /// The address set as it was last published.
    pub addr: Addr,
    /// Endpoints: address, requests under way, and for how many more seconds it is ejected, if it is.
    pub endpoints: Vec<(SocketAddr, u32, Option<f64>)>,
}

impl Router {
    /// A router that does not listen yet; `workers` is the number of data threads it will be served by. An access log
    /// that cannot be written is an error, and so are certificates that cannot be used. With TLS, the current runtime
    /// follows the files.
    pub fn new(
        settings: RouterSettings,
        names: Arc<Names>,
        reporting: Reporting,
        workers: usize,
    ) -> std::io::Result<Arc<Self>> {
        let access_log = open(&settings)?;
        let keys = keys(&settings, None, &reporting)?;
        Ok(Arc::new(Self::with(
            settings, names, reporting, workers, access_log, keys,
        )))
    }

    fn with(
        settings: RouterSettings,
        names: Arc<Names>,
        reporting: Reporting,
        workers: usize,
        access_log: Option<Arc<AccessLog>>,
        keys: Keys,
    ) -> Self {
        Self {
            under_way: settings.servers.iter().map(|_| Arc::default()).collect(),
            guard: Guard::new(&settings, names.base()),
            settings,
            names,
            reporting,
            workers,
            access_log,
            listeners: OnceLock::new(),
            keys,
            clients: Mutex::default(),
            services: Mutex::default(),
            client_settings: Alike::default(),
            service_settings: Alike::default(),
        }
    }

    /// This router with other settings or names; it does not listen yet. What the change leaves as it is goes on in it:
    /// connections to endpoints, what is known of their health, budgets, counters.
    pub fn successor(
        &self,
        settings: RouterSettings,
        names: Arc<Names>,
        reporting: Reporting,
    ) -> std::io::Result<Arc<Self>> {
        let access_log = match settings.access_log == self.settings.access_log {
            true => self.access_log.clone(),
            false => open(&settings)?,
        };
        let keys = keys(&settings, Some(&self.keys), &reporting)?;
        let mut new = Self::with(settings, names, reporting, self.workers, access_log, keys);
        for (server, under_way) in new.settings.servers.iter().zip(&mut new.under_way) {
            let old = self.settings.servers.iter();
            if let Some(at) = old.map(|old| old.addr).position(|addr| addr == server.addr) {
                *under_way = Arc::clone(&self.under_way[at]);
            }
        }
        let clients = lock(&self.clients);
        new.clients = Mutex::new(clients.clone());
        let services = lock(&self.services);
        new.services = Mutex::new(services.clone());
        Ok(Arc::new(new))
    }

    /// Its label.
    pub fn label(&self) -> &Arc<str> {
        &self.settings.label
    }

    /// Its settings.
    pub fn settings(&self) -> &RouterSettings {
        &self.settings
    }

    /// The process got SIGHUP: an access log with the policy `sighup` goes on in a new file.
    pub fn hangup(&self) {
        if let Some(log) = &self.access_log {
            log.hangup();
        }
    }

    /// Its names.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Where it listens, in the order of its servers; empty before it does.
    pub fn listeners(&self) -> &[SocketAddr] {
        self.listeners.get().map_or(&[], Vec::as_slice)
    }

    /// The bound names in use.
    pub fn clients(&self) -> Vec<ClientState> {
        let now = Instant::now();
        let clients = lock(&self.clients);
        let mut states: Vec<_> = clients
            .names
            .values()
            .filter_map(|(client, _)| client.upgrade())
            .map(|client| ClientState {
                id: client.id.clone(),
                addr: client.addr(),
                endpoints: client
                    .endpoints()
                    .iter()
                    .map(|one| {
                        let until = one.health.ejected_until();
                        let left =
                            until.map(|until| until.saturating_duration_since(now).as_secs_f64());
                        (one.addr, one.lanes.load(), left)
                    })
                    .collect(),
            })
            .collect();
        states.sort_by(|a, b| a.id.cmp(&b.id));
        states
    }

    /// The shared part of a bound name's client; made when no worker has it, or has it with settings of before.
    pub(crate) fn client(&self, id: &Path) -> Arc<ClientShared> {
        let settings = self.client_settings.of(self.settings.client.resolve(id));
        let mut clients = lock(&self.clients);
        let keys = settings.tls.as_ref();
        let keys = keys.and_then(|tls| self.keys.client(tls));
        let new = match clients.get(id) {
            Some(known) if known.settings == settings => return known,
            Some(former) => ClientShared::successor(&former, settings, keys),
            None => ClientShared::new(id.clone(), settings, keys, self.workers),
        };
        let new = Arc::new(new);
        let scope = Scope::client(&self.settings.label, &id.to_string());
        let source = Arc::new(ClientSource(Arc::downgrade(&new)));
        let registration = self.reporting.registry.register(scope, source);
        clients.insert(id.clone(), &new, registration);
        new
    }

    /// The shared part of a logical name; made when no worker has it, or has it with settings of before.
    pub(crate) fn service(&self, path: &Path) -> Arc<ServiceShared> {
        let settings = self
            .service_settings
            .of(self.settings.service.resolve(path));
        let mut services = lock(&self.services);
        let known = services.get(path);
        let resolved = known.as_ref().is_some_and(|known| known.is_resolved());
        if let Some(known) = known
            && known.settings == settings
        {
            return known;
        }
        let retries = Budget::new(settings.retry_budget, Instant::now());
        let new = Arc::new(ServiceShared {
            path: path.clone(),
            settings,
            retries,
            resolved: AtomicBool::new(resolved),
        });
        let scope = Scope::service(&self.settings.label, &path.to_string());
        let source = Arc::new(ServiceSource(Arc::downgrade(&new)));
        let registration = self.reporting.registry.register(scope, source);
        services.insert(path.clone(), &new, registration);
        new
    }

    /// Forgets clients and services that no worker has any more, and their gauges with them.
    pub(crate) fn prune(&self) {
        let mut clients = lock(&self.clients);
        clients.prune();
        let mut services = lock(&self.services);
        services.prune();
    }

    /// Takes a place among a server's requests; `None` when the limit is reached.
    pub(crate) fn enter(&self, server: usize) -> Option<Place> {
        let limit = self.settings.servers[server].max_concurrent_requests;
        let Some(limit) = limit else {
            return Some(Place(None));
        };
        let under_way = &self.under_way[server];
        if under_way.fetch_add(1, Ordering::Relaxed) >= limit {
            under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Some(Arc::clone(under_way))))
    }
}

impl ServiceShared {
    fn is_resolved(&self) -> bool {
        self.resolved.load(Ordering::Relaxed)
    }
}

fn open(settings: &RouterSettings) -> std::io::Result<Option<Arc<AccessLog>>> {
    let log = settings.access_log.as_ref();
    Ok(log.map(AccessLog::open).transpose()?.map(Arc::new))
}

fn keys(
    settings: &RouterSettings,
    before: Option<&Keys>,
    reporting: &Reporting,
) -> std::io::Result<Keys> {
    Keys::open(settings, before, reporting).map_err(std::io::Error::other)
}

/// A request's place under `maxConcurrentRequests`.
pub(crate) struct Place(Option<Arc<AtomicU32>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(under_way) = &self.0 {
            under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

struct ClientSource(Weak<ClientShared>);

impl Source for ClientSource {
    fn collect(&self, out: &mut Collector<'_>) {
        let Some(client) = self.0.upgrade() else {
            return;
        };
        let now = Instant::now();
        let endpoints = client.endpoints();
        let busy = endpoints
            .iter()
            .filter(|one| one.health.status(now) == crate::accrual::Status::Busy)
            .count();
        let size = client.gauges.endpoints.get();
        out.gauge("loadbalancer/size", size as f64);
        out.gauge("loadbalancer/available", (size - busy as i64).max(0) as f64);
        out.gauge("loadbalancer/busy", busy as f64);
        out.gauge("loadbalancer/meanweight", client.gauges.mean_weight());
        out.gauge(algorithm(&client.settings.balancer), 1.0);
        // As Finagle's, whose client is as available as the best of its endpoints.
        out.gauge("available", f64::from(u8::from(size > busy as i64)));
        out.gauge(
            "loadbalancer/load",
            f64::from(endpoints.iter().map(|one| one.lanes.load()).sum::<u32>()),
        );
        out.gauge("retries/budget", client.requeues.shown(now) as f64);
    }
}

/// The gauge that says by its name how endpoints are picked, with Finagle's word for it.
fn algorithm(balancer: &Balancer) -> &'static str {
    match balancer {
        Balancer::P2c => "loadbalancer/algorithm/p2c_least_loaded",
        Balancer::Ewma { .. } => "loadbalancer/algorithm/p2c_peak_ewma",
        Balancer::Aperture { .. } => "loadbalancer/algorithm/aperture_least_loaded",
        Balancer::Heap => "loadbalancer/algorithm/heap_least_loaded",
        Balancer::RoundRobin => "loadbalancer/algorithm/round_robin",
    }
}

struct ServiceSource(Weak<ServiceShared>);

impl Source for ServiceSource {
    fn collect(&self, out: &mut Collector<'_>) {
        if let Some(service) = self.0.upgrade().filter(|service| service.is_resolved()) {
            let now = Instant::now();
            out.gauge("retries/budget", service.retries.shown(now) as f64);
            let ratio = service.retries.ratio(now);
            out.our_gauge("rutter_retry_budget_ratio", &[], ratio);
        }
    }
}
