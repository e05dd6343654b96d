//! `rutter run`: the wiring. A [`Node`] is one router process's worth of everything: namers, routers, exporters, admin
//! port. It reads no environment and knows no globals, so that a demo can run two of them.
//!
//! In order: [`sources`] makes namers, transformers and interpreters of the configuration, [`reports`] what tells about
//! requests, [`routers`] the routers, [`pages`] the admin port; [`Node::start`] puts them together, and [`Node::reload`]
//! does it again while requests go on, when [`reload`] finds that the file has changed. [`store`] is the other process,
//! `rutter namerd`.

mod access;
mod memory;
mod pages;
mod reload;
mod reports;
mod routers;
mod sources;
pub mod store;
mod store_keys;
mod telling;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use admin::{Condition, Readiness};
use anyhow::{Context as _, anyhow};
use router::{DataPlane, Router};
use telemetry::log::LogHandle;
use telemetry::metrics::Registry;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::pages::Shown;
use self::reload::Follower;
use self::reports::Reports;
use self::routers::{Before, Parts, Routers};
use self::sources::Sources;
use crate::config::settings::Config;
use crate::config::{Environment, Loaded};

/// The data plane has at most so many threads unless it is told otherwise.
const MOST_WORKERS: usize = 4;

/// Who a node is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The Kubernetes node's name; empty when it is not known.
    pub node: String,
    /// The pod's name or address; empty when it is not known.
    pub pod: String,
}

/// A running node.
pub struct Node {
    /// What is in force.
    config: Config,
    plane: DataPlane,
    routers: Routers,
    reports: Reports,
    /// Namers and their watches.
    sources: Sources,
    admin: SocketAddr,
    shelf: admin::Current,
    stop_admin: CancellationToken,
    serving: Condition,
    surroundings: Surroundings,
}

/// What stays the same through all configurations.
struct Surroundings {
    identity: Identity,
    log: Option<LogHandle>,
    /// What `/admin/shutdown` cancels.
    stop: CancellationToken,
    control: Handle,
    registry: Registry,
    readiness: Readiness,
    workers: usize,
}

/// What a reload changed.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// Labels of the routers that are new, changed or gone.
    pub changed: Vec<Arc<str>>,
    /// Listeners that are new.
    pub opened: Vec<SocketAddr>,
    /// Listeners that are closed; their connections end with the requests they carry.
    pub closed: Vec<SocketAddr>,
    /// Keys whose change needs a restart, with what is in force meanwhile.
    pub restart: Vec<String>,
    /// Data threads that have not confirmed the change in time.
    pub late: usize,
}

/// Runs the configuration until `stop`, then drains. `file` is where it was read from, to be followed; none for stdin. An
/// error names what cannot be had, or how many connections were cut.
pub async fn run(
    loaded: Loaded,
    file: Option<PathBuf>,
    environment: Environment,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let levels = environment
        .variables
        .get(telemetry::log::VARIABLE)
        .map(String::as_str);
    let log = telemetry::log::init(telemetry::log::Format::Auto, levels)
        .context("the log cannot be set up")?;
    // Only the first of several in a process gets the recorder; they share it.
    _ = telemetry::metrics::control::install();
    tokio::spawn(telemetry::metrics::control::run_upkeep());
    tokio::spawn(memory::give_back());
    let identity = Identity {
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
    // Before anybody can know that this process is there: SIGHUP ends one that has not asked for it.
    let hangup = signal(SignalKind::hangup()).context("signals cannot be received")?;
    let mut node = Node::start(loaded.config, identity, Some(log), stop.clone()).await?;
    let text = &loaded.problems.source;
    let follower = Follower::new(&node, file, text, hangup, environment);
    tracing::info!(admin = %node.admin_addr(), "initialized");
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run(&mut node) => {}
    }
    tracing::info!("draining: what is under way may finish, then the listeners close");
    match node.drain().await {
        0 => Ok(()),
        cut => Err(anyhow!(
            "{cut} connections were still busy after {:?} (admin.shutdownGraceMs) and were cut",
            node.config.admin.shutdown_grace
        )),
    }
}

impl Node {
    /// Starts everything; the current runtime is the control plane's. `stop` is what `/admin/shutdown` cancels.
    pub async fn start(
        config: Config,
        identity: Identity,
        log: Option<LogHandle>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let control = Handle::current();
        let around = Surroundings {
            identity,
            log,
            stop,
            registry: Registry::new(),
            readiness: Readiness::default(),
            workers: config.workers.unwrap_or_else(default_workers),
            control: control.clone(),
        };
        let (readiness, registry) = (&around.readiness, &around.registry);
        control.spawn(registry.clone().summarise_forever());
        let serving = readiness.condition("listeners", "the listeners are not open yet");
        let sources = Sources::connect(&config, None, &control, registry).await?;
        let reports = Reports::start(&config, &around.identity, registry, &control)?;
        let routers = Routers::build(&config, None, &around.parts(&sources, &reports))?;
        sources.report_readiness(readiness, &control);
        let admin = around.shelf(&config, &routers, &sources, &reports)?;
        let admin = admin.bind().await?;
        let (admin_addr, shelf) = (admin.addr(), admin.current());
        let plane = DataPlane::start(routers.list(), around.workers, memory::collect)?;
        for router in plane.routers() {
            for addr in router.listeners() {
                tracing::info!(router = %router.label(), %addr, "serving");
            }
        }
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
            plane,
            routers,
            reports,
            sources,
            admin: admin_addr,
            shelf,
            stop_admin,
            serving,
            surroundings: around,
        })
    }

    /// Takes another configuration into force while requests go on: those under way end with the old one. Everything is
    /// built first, and on an error all is as before. What has not changed goes on: routers with their connections,
    /// budgets and ejections, namers with their watches. `heard` is when the change became known, for the metrics.
    pub async fn reload(&mut self, mut config: Config, heard: Instant) -> anyhow::Result<Reloaded> {
        if config == self.config {
            return Ok(Reloaded::default());
        }
        let mut restart = pin(&self.config, &mut config);
        let around = &self.surroundings;
        let (control, registry) = (&around.control, &around.registry);
        let sources = Sources::connect(&config, Some(&self.sources), control, registry).await?;
        let new_reports = match config.telemetry == self.config.telemetry {
            true => None,
            false => Some(Reports::start(
                &config,
                &around.identity,
                registry,
                control,
            )?),
        };
        let reports = new_reports.as_ref().unwrap_or(&self.reports);
        let before = Before {
            routers: &self.routers,
            same_namers: config.namers == self.config.namers,
            same_reports: new_reports.is_none(),
        };
        let parts = around.parts(&sources, reports);
        let routers = Routers::build(&config, Some(&before), &parts)?;
        let shelf = around.shelf(&config, &routers, &sources, reports)?;
        let prepared = self.plane.prepare(routers.list())?;
        routers.warm_up(&self.routers).await;

        // From here on nothing can fail.
        restart.extend(prepared.kept.iter().map(|kept| {
            let (wanted, has) = (kept.wanted, kept.has);
            let at = format!("routers ({}).servers[{}]", kept.router, kept.server);
            format!("{at}.ip: {wanted} cannot be opened while {has} is, which stays")
        }));
        let swapped = self.plane.swap(prepared).await;
        self.shelf.replace(shelf);
        sources.report_new(&around.readiness, control);
        routers.applied(&self.routers, heard);
        let changed = routers.changed(&self.routers);
        if let Some(reports) = new_reports {
            self.reports = reports;
        }
        (self.config, self.routers, self.sources) = (config, routers, sources);
        Ok(Reloaded {
            changed,
            opened: swapped.opened,
            closed: swapped.closed,
            restart,
            late: swapped.late,
        })
    }

    /// Where its admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Its routers, as they listen.
    pub fn routers(&self) -> &[Arc<Router>] {
        self.plane.routers()
    }

    /// Requests are still taken, each answered with `Connection: close`, until what was under way has ended; then the
    /// listeners close, what came last finishes, all within the grace time, and its spans are sent. Gives the number of
    /// connections that were cut.
    pub async fn drain(&mut self) -> usize {
        let end = Instant::now() + self.config.admin.shutdown_grace;
        let left = || end.saturating_duration_since(Instant::now());
        // Kubernetes has taken a pod that is deleted out of its Services. It is still asked whether it is ready, and
        // other nodes' routers send to it for as long as it says so.
        self.serving.met("ending, and still taking requests");
        self.plane.leave(left()).await;
        self.serving.unmet("draining");
        let drained = self.plane.drain(left()).await;
        self.reports.finish().await;
        self.stop_admin.cancel();
        drained.cut
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_admin.cancel();
    }
}

impl Surroundings {
    fn parts<'a>(&'a self, sources: &'a Sources, reports: &'a Reports) -> Parts<'a> {
        Parts {
            sources,
            reports,
            registry: &self.registry,
            workers: self.workers,
            control: &self.control,
            identity: &self.identity,
        }
    }

    fn shelf(
        &self,
        config: &Config,
        routers: &Routers,
        sources: &Sources,
        reports: &Reports,
    ) -> anyhow::Result<admin::Admin> {
        pages::shelf(&Shown {
            config,
            identity: &self.identity,
            routers: &routers.list(),
            sources,
            reports,
            registry: &self.registry,
            readiness: &self.readiness,
            log: self.log.clone(),
            stop: &self.stop,
        })
    }
}

/// Puts back what needs a restart to change; its keys, for people.
fn pin(old: &Config, new: &mut Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut note = |key: &str, stays: String| keys.push(format!("{key}: {stays} stays"));
    if new.admin.addr.ip() != old.admin.addr.ip() {
        note("admin.ip", old.admin.addr.ip().to_string());
    }
    if new.admin.addr.port() != old.admin.addr.port() {
        note("admin.port", old.admin.addr.port().to_string());
    }
    new.admin.addr = old.admin.addr;
    if new.workers != old.workers {
        let stays = old.workers.unwrap_or_else(default_workers);
        note("workers", stays.to_string());
    }
    new.workers = old.workers;
    if new.state_dir != old.state_dir {
        let stays = match &old.state_dir {
            Some(dir) => dir.display().to_string(),
            None => "none".to_owned(),
        };
        note("stateDir", stays);
    }
    new.state_dir.clone_from(&old.state_dir);
    for (index, router) in new.routers.iter().enumerate() {
        for (at, server) in router.router.servers.iter().enumerate() {
            let mut before = old.routers.iter().flat_map(|one| &one.router.servers);
            let Some(before) = before.find(|before| before.addr == server.addr) else {
                continue;
            };
            let (was, is) = (&before.socket, &server.socket);
            for (key, same) in [
                ("reuseAddr", was.reuse_addr == is.reuse_addr),
                ("reusePort", was.reuse_port == is.reuse_port),
                ("backlog", was.backlog == is.backlog),
            ] {
                if !same {
                    let key = format!("routers[{index}].servers[{at}].socketOptions.{key}");
                    note(&key, "what the listener was opened with".to_owned());
                }
            }
        }
    }
    keys
}

/// One data thread per core, as far as quota and affinity allow, and no more than a node's router needs.
fn default_workers() -> usize {
    // Takes cgroup quotas and the affinity mask into account.
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_WORKERS)
}
