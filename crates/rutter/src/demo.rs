//! `rutter demo`: two nodes on this machine, and everything around them, in one process.
//!
//! [`cluster`] starts it: [`kube`] is the Kubernetes API, [`apps`] are the applications, [`spans`] keeps the traces, and
//! each node is what [`crate::run`] makes of the walkthrough's configuration. [`selftest`] asserts what is printed.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::cluster::{Cluster, NODES};
use crate::cli::Exit;
use crate::config::Environment;

pub mod apps;
pub mod cluster;
pub mod kube;
mod selftest;
pub mod spans;

/// What the routers say while the demo speaks; the variable of the log changes it.
const LOG_LEVELS: &str = "error";
/// Control threads: two nodes' and the surroundings'.
const THREADS: usize = 2;

/// The flags of `rutter demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Try everything that the demo shows, print a line for each, and end: 0 when all of it is so
    #[arg(long)]
    self_test: bool,
    /// Requests a second that are sent to http://hello all the time; 0 for none
    #[arg(long, value_name = "RPS", default_value_t = 20)]
    load: u32,
}

/// Runs the demo until it is interrupted, or its self-test until that has ended.
///
/// # Errors
/// What kept it from starting: a port that is taken, an address that this system does not have.
pub fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control runtime does not start")?;
    let ended = runtime.block_on(demo(args, environment));
    // Connections that are still open end with their runtime.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(exit) => Ok(exit),
        Err(error) => {
            crate::cli::complain(&format!("{error:#}"));
            Ok(Exit::No)
        }
    }
}

async fn demo(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let levels = environment.variables.get(telemetry::log::VARIABLE);
    let levels = levels.map_or(LOG_LEVELS, String::as_str);
    let log = telemetry::log::init(telemetry::log::Format::Auto, Some(levels))
        .context("the log cannot be set up")?;
    let stop = CancellationToken::new();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let told = async {
        tokio::select! { _ = interrupted.recv() => {}, _ = terminated.recv() => {} }
    };
    tokio::pin!(told);
    let mut cluster = Cluster::start(environment, &log, args.load, stop.clone()).await?;
    let work = async {
        let first = cluster.first_answer().await?;
        if args.self_test {
            return selftest::run(&cluster, first).await;
        }
        say(&banner(first, args.load))?;
        cluster.failed().await
    };
    let ended = tokio::select! {
        () = &mut told => Ok(Exit::Done),
        ended = work => ended,
    };
    stop.cancel();
    cluster.ended().await;
    ended
}

/// What to look at and to type: only what works.
fn banner(first: Duration, load: u32) -> String {
    let mut text = String::from(
        "rutter demo: two nodes on this machine, Ctrl-C stops and cleans everything\n",
    );
    for node in NODES {
        let ip = node.ip();
        text += &format!(
            "  {}  outgoing {ip}:4140   incoming {ip}:4141   admin http://{ip}:9990\n",
            node.name
        );
    }
    let (a, b) = (NODES[0].ip(), NODES[1].ip());
    text += &format!(
        "  kube    http://127.0.0.1:8001   Services hello, world-v1, world-v2, l5d
  spans   http://127.0.0.1:9411   scribe 9410
  apps    hello x2 (a, b)   world-v1 x3 (a, b, b)   world-v2 x1 (b)   load {load} rps
  first answer through both hops after {} ms
try
  http_proxy={a}:4140 curl -s http://hello
  http_proxy={b}:4140 curl -s -H 'l5d-dtab: /host/world => /srv/world-v2' http://hello
  http_proxy={a}:4140 curl -s http://wrold
  rutter why http://wrold --admin {a}:9990
  rutter delegate /svc/world --admin {a}:9990
  curl -s http://127.0.0.1:8001/apis/discovery.k8s.io/v1/namespaces/default/endpointslices
look
  http://{a}:9990/                            routers, services, clients of node-a
  http://{a}:9990/delegator?path=/svc/world   where a name goes
  http://{a}:9990/requests                    the last requests
  http://127.0.0.1:9411/                           traces
",
        first.as_millis()
    );
    text
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
