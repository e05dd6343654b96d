//! One API server and all that is known of it: the watches, shared by all namers and transformers that name the same
//! target, and the access reviews.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use naming::Var;
use serde_json::{Value, json};
use telemetry::metrics::{Collector, Source};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::api::{Api, ApiTarget, ConnectError};
use crate::backoff::between;
use crate::feed::{Feed, Timing};
use crate::keep::Keeper;
use crate::namer::{NamerConfig, ServiceNamer};
use crate::objects::{EndpointsWire, Resource, ServiceWire, SliceWire, Wire};
use crate::review::{self, Review};
use crate::status::{Phase, Status};
use crate::table::Scope;
use crate::view::{Kind, View, Viewed};

/// How a cluster is watched.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// Where its API server is.
    pub target: ApiTarget,
    /// The namespaces to watch one by one when the permission for all of them is missing: the process's own, and those
    /// that the configured dtabs name. More can be told later, see [`Cluster::expect`].
    pub namespaces: BTreeSet<String>,
    /// The directory for the snapshot of what is held; none: there is no snapshot.
    pub state_dir: Option<PathBuf>,
    /// All waits.
    pub timing: Timing,
}

/// A watched cluster. Clones are handles of the same one; with the last of them (and of its namers) the watches end.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    target: ApiTarget,
    tasks: Vec<AbortHandle>,
}

/// What the watches' tasks use, too.
pub(crate) struct Shared {
    pub(crate) view: Arc<View>,
    api: Api,
    timing: Timing,
    namespaces: watch::Sender<BTreeSet<Arc<str>>>,
    statuses: Mutex<Vec<Arc<Status>>>,
    keeper: Option<Keeper>,
    /// When what is held before the first list was confirmed: as the snapshot says, or, without one, the beginning.
    known_since: Instant,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Cluster {
    /// Sets up the client, takes in the snapshot of the state directory, and begins to watch on `control`. The first
    /// lists are fetched at once, in the background.
    ///
    /// # Errors
    /// When the target or its credentials can't be used; an API server that doesn't answer is no error.
    pub async fn connect(config: ClusterConfig, control: &Handle) -> Result<Self, ConnectError> {
        let api = Api::new(&config.target, config.timing.patience).await?;
        let namespaces = config
            .namespaces
            .iter()
            .map(|namespace| Arc::from(namespace.as_str()))
            .collect();
        let view = Arc::<View>::default();
        let keeper = config
            .state_dir
            .map(|dir| Keeper::new(&dir, &config.target.to_string()));
        let known_since = keeper.as_ref().and_then(|keeper| keeper.restore(&view));
        let shared = Arc::new(Shared {
            view,
            api,
            timing: config.timing,
            namespaces: watch::Sender::new(namespaces),
            statuses: Mutex::default(),
            keeper,
            known_since: known_since.unwrap_or_else(Instant::now),
        });
        let members = control
            .spawn(shared.clone().follow_everywhere(Kind::Members))
            .abort_handle();
        let services = control
            .spawn(shared.clone().follow_everywhere(Kind::Services))
            .abort_handle();
        let keeping = control.spawn(shared.clone().keep()).abort_handle();
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                target: config.target,
                tasks: vec![members, services, keeping],
            }),
        })
    }

    /// The API server's address, for people.
    #[must_use]
    pub fn target(&self) -> &ApiTarget {
        &self.inner.target
    }

    /// A namer over this cluster.
    #[must_use]
    pub fn namer(&self, config: NamerConfig) -> Arc<ServiceNamer> {
        Arc::new(ServiceNamer::new(self.inner.clone(), config))
    }

    /// Adds namespaces to those that are watched one by one, should the permission for all be missing.
    pub fn expect(&self, namespaces: impl IntoIterator<Item = impl AsRef<str>>) {
        self.inner.shared.namespaces.send_if_modified(|known| {
            let before = known.len();
            known.extend(
                namespaces
                    .into_iter()
                    .map(|namespace| Arc::from(namespace.as_ref())),
            );
            known.len() != before
        });
    }

    /// Every watch's record.
    #[must_use]
    pub fn watches(&self) -> Vec<Arc<Status>> {
        self.inner.shared.statuses()
    }

    /// Whether endpoints are known somewhere, be it from the snapshot: readiness waits for that.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.restored() || self.confirmed()
    }

    /// Whether the API server itself has listed endpoints somewhere since the start.
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.watches()
            .iter()
            .any(|status| is_members(status.resource) && status.record().lists > 0)
    }

    /// Whether what is held began with the snapshot on disk.
    #[must_use]
    pub fn restored(&self) -> bool {
        let keeper = self.inner.shared.keeper.as_ref();
        keeper.is_some_and(Keeper::restored)
    }

    /// Tells `node` on which node the endpoint with the address `ip` runs, now and whenever a slice says so.
    pub fn learn_node(&self, ip: IpAddr, node: Var<Option<Arc<str>>>) {
        self.inner.shared.view.learn_node(ip, node);
    }

    /// What is missing now, in the words of a readiness page; none when all is well.
    #[must_use]
    pub fn trouble(&self) -> Vec<String> {
        let watches = self.watches();
        let bad = watches.iter().filter_map(|status| {
            let error = status.record().error?;
            Some(format!(
                "{} in {}: {error}",
                status.resource.plural,
                words(&status.scope)
            ))
        });
        bad.collect()
    }

    /// Asks the API server which of the needed permissions are there.
    pub async fn review(&self) -> Review {
        let namespaces = self.inner.shared.namespaces.borrow().clone();
        review::review(&self.inner.shared.api, &namespaces).await
    }

    /// Whether Service `name` exists in `namespace`, asked of the API server itself; none when it doesn't answer.
    pub async fn service_exists(&self, namespace: &str, name: &str) -> Option<bool> {
        let path = format!("{}/{name}", ServiceWire::RESOURCE.path(Some(namespace)));
        match self.inner.shared.api.get(&path).await {
            Ok(_) => Some(true),
            Err(error) if error.missing() => Some(false),
            Err(_) => None,
        }
    }

    /// For `/state`.
    #[must_use]
    pub fn state(&self) -> Value {
        let shared = &self.inner.shared;
        json!({
            "target": self.inner.target.to_string(),
            "services": shared.view.services().len(),
            "objects": {"endpointSlices": shared.view.count(Kind::Members), "services": shared.view.count(Kind::Services)},
            "watches": self.watches().iter().map(|status| status.to_json()).collect::<Vec<_>>(),
            "source": match (self.confirmed(), self.restored()) {
                (true, _) => "live",
                (false, true) => "snapshot",
                (false, false) => "nothing yet",
            },
            "snapshot": shared.keeper.as_ref().map(Keeper::to_json),
        })
    }
}

fn is_members(resource: Resource) -> bool {
    resource != ServiceWire::RESOURCE
}

/// A scope in words.
pub(crate) fn words(scope: &Scope) -> String {
    match scope {
        Scope::Cluster => "all namespaces".to_owned(),
        Scope::Namespace(namespace) => format!("namespace `{namespace}`"),
    }
}

impl Shared {
    pub(crate) fn statuses(&self) -> Vec<Arc<Status>> {
        self.statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What a name of `namespace` still waits for.
    pub(crate) fn waiting_for(&self, kind: Kind, namespace: &str) -> String {
        let of_kind =
            |status: &&Arc<Status>| is_members(status.resource) == (kind == Kind::Members);
        let statuses = self.statuses();
        let mut relevant: Vec<_> = statuses
            .iter()
            .filter(of_kind)
            .filter(|status| status.scope.covers(namespace))
            .collect();
        // The namespace's own watch knows better than the one of the cluster, which is refused when there is one.
        relevant.sort_by_key(|status| status.scope == Scope::Cluster);
        let Some(status) = relevant.first() else {
            return "the Kubernetes API".to_owned();
        };
        let refused = status.scope == Scope::Cluster && status.record().phase == Phase::Forbidden;
        let mut text = format!(
            "the first list of {} in {}",
            status.resource.plural,
            words(&status.scope)
        );
        if let Some(error) = status.record().error {
            text = format!("{text} ({error})");
        }
        if refused && !self.namespaces.borrow().contains(namespace) {
            text = format!(
                "{text}; namespace `{namespace}` is not among those that are watched by themselves"
            );
        }
        text
    }

    /// Keeps the snapshot on disk up to date, once the API server itself has told something.
    async fn keep(self: Arc<Self>) {
        let Some(keeper) = &self.keeper else {
            return;
        };
        let (mut saved, mut saved_at) = (None, Instant::now());
        loop {
            sleep(between(self.timing.save / 2, self.timing.save)).await;
            let changed = saved != Some(self.view.changes());
            if (!changed && saved_at.elapsed() < self.timing.save_anyway) || !self.anything_listed()
            {
                continue;
            }
            let target = keeper.target().to_owned();
            let (content, changes) = self.view.save(target, self.confirmed_at());
            if keeper.write(content).await {
                (saved, saved_at) = (Some(changes), Instant::now());
            }
        }
    }

    fn anything_listed(&self) -> bool {
        self.statuses()
            .iter()
            .any(|status| status.record().lists > 0)
    }

    /// When all that is held was confirmed, in seconds since 1970: the oldest of the watches that hold anything counts.
    fn confirmed_at(&self) -> u64 {
        let restored = self.keeper.as_ref().is_some_and(Keeper::restored);
        let holds = |status: &&Arc<Status>| {
            restored && status.scope == Scope::Cluster || status.record().lists > 0
        };
        let statuses = self.statuses();
        let ages = statuses.iter().filter(holds).map(|status| status.age());
        crate::snapshot::unix_seconds_ago(ages.max().unwrap_or_default())
    }

    /// Follows a kind in the whole cluster, and while that is refused, in each known namespace.
    async fn follow_everywhere(self: Arc<Self>, kind: Kind) {
        let (forbidden, refused) = watch::channel(false);
        tokio::join!(
            self.clone().follow(kind, Scope::Cluster, forbidden),
            self.follow_namespaces(kind, refused)
        );
    }

    async fn follow_namespaces(self: Arc<Self>, kind: Kind, mut refused: watch::Receiver<bool>) {
        let mut namespaces = self.namespaces.subscribe();
        let mut running = HashMap::new();
        loop {
            if *refused.borrow_and_update() {
                for namespace in namespaces.borrow_and_update().iter() {
                    running.entry(namespace.clone()).or_insert_with(|| {
                        let scope = Scope::Namespace(namespace.clone());
                        let (unused, _) = watch::channel(false);
                        AbortOnDrop(
                            tokio::spawn(self.clone().follow(kind, scope, unused)).abort_handle(),
                        )
                    });
                }
            } else {
                // The whole cluster is listed now, with all that these knew.
                running.clear();
                self.forget_namespaces(kind);
            }
            let changed = tokio::select! {
                changed = refused.changed() => changed,
                changed = namespaces.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn forget_namespaces(&self, kind: Kind) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.retain(|status| {
            status.scope == Scope::Cluster || is_members(status.resource) != (kind == Kind::Members)
        });
    }

    async fn follow(self: Arc<Self>, kind: Kind, scope: Scope, forbidden: watch::Sender<bool>) {
        match kind {
            Kind::Services => self.run::<ServiceWire>(&scope, &forbidden).await,
            Kind::Members => loop {
                // EndpointSlices are in every API server since 1.21; what has none has Endpoints.
                self.run::<SliceWire>(&scope, &forbidden).await;
                self.run::<EndpointsWire>(&scope, &forbidden).await;
                let wait = self.timing.retry_most;
                sleep(between(wait / 2, wait)).await;
            },
        }
    }

    /// Runs one feed; it returns when the API server has no such kind.
    async fn run<W: Wire<Value: Viewed>>(&self, scope: &Scope, forbidden: &watch::Sender<bool>) {
        let since = self.known_since;
        let status = Arc::new(Status::new(W::RESOURCE, scope.clone(), since));
        self.record(status.clone());
        let feed = Feed {
            api: self.api.clone(),
            view: self.view.clone(),
            scope: scope.clone(),
            timing: self.timing,
            status: status.clone(),
            forbidden: forbidden.clone(),
        };
        let error = feed.run::<W>().await;
        status.failed(error);
    }

    /// Takes the place of an earlier record of the same kind and scope.
    fn record(&self, status: Arc<Status>) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.retain(|old| {
            old.scope != status.scope || is_members(old.resource) != is_members(status.resource)
        });
        statuses.push(status);
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The watches' metrics, for a scope of the caller's choice.
impl Source for Cluster {
    fn collect(&self, out: &mut Collector<'_>) {
        for status in self.watches() {
            let record = status.record();
            let scope = status.scope.to_string();
            let labels = [
                ("namer", "io.l5d.k8s"),
                ("resource", status.resource.plural),
                ("namespace", scope.as_str()),
            ];
            out.our_gauge(
                "rutter_namer_watch_age_seconds",
                &labels,
                record.last_contact.elapsed().as_secs_f64(),
            );
            out.ours("rutter_namer_watch_events_total", &labels, record.events);
            out.ours("rutter_namer_watch_errors_total", &labels, record.errors);
            out.ours("rutter_namer_watch_lists_total", &labels, record.lists);
            out.ours("rutter_namer_watch_audits_total", &labels, record.audits);
            out.ours("rutter_namer_watch_repairs_total", &labels, record.repairs);
            out.ours(
                "rutter_namer_watch_silences_total",
                &labels,
                record.silences,
            );
            out.ours("rutter_namer_watch_doubts_total", &labels, record.doubts);
        }
        let labels = [("namer", "io.l5d.k8s")];
        let keeper = self.inner.shared.keeper.as_ref();
        let (at, writes, failures) = keeper.map(Keeper::counts).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "2^52 seconds are far off")]
        let at = at as f64;
        out.our_gauge("rutter_snapshot_last_write_timestamp_seconds", &labels, at);
        out.ours("rutter_snapshot_writes_total", &labels, writes);
        out.ours("rutter_snapshot_failures_total", &labels, failures);
    }
}
