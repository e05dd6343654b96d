//! `rutter run`: the wiring. A [`Node`] is one router process's worth of everything: namers, routers, exporters, admin
//! port. It reads no environment and knows no globals, so that a demo can run two of them.
//!
//! In order: [`sources`] makes namers, transformers and interpreters of the configuration, [`reports`] what tells about
//! requests, [`pages`] the admin port; [`Node::start`] puts them together.

mod pages;
mod reports;
mod sources;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::{Condition, Readiness};
use anyhow::{Context as _, anyhow};
use naming::{Names, NamesConfig, NamesLimits};
use router::{DataPlane, Router};
use telemetry::log::LogHandle;
use telemetry::metrics::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::reports::Reports;
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
    plane: DataPlane,
    admin: SocketAddr,
    serving: Condition,
    grace: Duration,
    stop_admin: CancellationToken,
    /// Namers and their watches live as long as the node.
    _sources: Sources,
}

/// Runs the configuration until `stop`, then drains. An error names what cannot be had, or how many connections were cut.
pub async fn run(
    loaded: Loaded,
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
    let mut node = Node::start(loaded.config, identity, Some(log), stop.clone()).await?;
    tracing::info!(admin = %node.admin_addr(), "initialized");
    stop.cancelled().await;
    tracing::info!("draining: no new connections, what is under way may finish");
    match node.drain().await {
        0 => Ok(()),
        cut => Err(anyhow!(
            "{cut} connections were still busy after {:?} (admin.shutdownGraceMs) and were cut",
            node.grace
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
        let registry = Registry::new();
        let readiness = Readiness::default();
        let serving = readiness.condition("listeners", "the listeners are not open yet");
        let sources = Sources::connect(&config, &control, &registry).await?;
        let reports = Reports::start(&config, &identity, &registry, &control)?;
        let workers = config.workers.unwrap_or_else(default_workers);
        let mut routers = Vec::new();
        for one in &config.routers {
            let names = Names::new(NamesConfig {
                interpreter: sources.interpreter(&one.interpreter, &control)?,
                base: one.dtab.clone(),
                limits: NamesLimits {
                    paths: one.cache.paths,
                    idle: one.cache.idle_ttl,
                    ..NamesLimits::default()
                },
                control: control.clone(),
            });
            let router = Router::new(
                one.router.clone(),
                names,
                reports.reporting.clone(),
                workers,
            )
            .with_context(|| format!("router {} cannot be set up", one.router.label))?;
            routers.push(router);
        }
        sources.report_readiness(&readiness, &control);
        let shelf = pages::shelf(
            &config, &identity, &routers, &sources, &reports, &readiness, log, stop,
        )?;
        let admin = shelf.bind().await?;
        let admin_addr = admin.addr();
        let plane = DataPlane::start(routers, workers)?;
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
            plane,
            admin: admin_addr,
            serving,
            grace: config.admin.shutdown_grace,
            stop_admin,
            _sources: sources,
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

    /// Readiness goes off, keep-alive connections close politely, what is under way finishes within the grace time.
    /// Gives the number of connections that were cut.
    pub async fn drain(&mut self) -> usize {
        self.serving.unmet("draining");
        let drained = self.plane.drain(self.grace).await;
        self.stop_admin.cancel();
        drained.cut
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_admin.cancel();
    }
}

/// One data thread per core, as far as quota and affinity allow, and no more than a node's router needs.
fn default_workers() -> usize {
    // Takes cgroup quotas and the affinity mask into account.
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_WORKERS)
}
