//! `rutter check`: is everything all right?
//!
//! What is looked at depends on what can be reached: [`router`] asks the admin port, [`api`] the Kubernetes API, of which
//! [`installation`] is the routers' DaemonSet and what belongs to it, [`names`] what the dtab leads to, [`applications`]
//! the pods that use it, [`traces`] the spans and [`pre`] a cluster without an installation. [`configuration`] reads
//! files, [`probe`] sends requests. All of them tell a [`report`]; each finding has a code.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use k8s::api::ApiTarget;

use self::api::{ApiArgs, Kube};
use self::installation::Installation;
use self::report::{Category, Report};
use self::router::Running;
use super::admin_client::{AdminClient, Target};
use super::{Exit, Style, looking, say, say_json};
use crate::config::settings::{Config, K8sApi, NamerSource, TransformerKind};
use crate::config::{Environment, Purpose};

mod api;
mod applications;
mod configuration;
mod installation;
mod names;
mod pre;
mod probe;
mod report;
mod router;
mod traces;

/// Between two looks with `--wait`.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A configuration to look over, too; `-` is stdin
    #[arg(value_hint = clap::ValueHint::FilePath)]
    config: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    api: ApiArgs,
    /// Look at what an installation needs of the cluster, before it
    #[arg(long)]
    pre: bool,
    /// Look at the applications' http_proxy settings, too
    #[arg(long)]
    proxy: bool,
    /// Send a request to this host through the router, too; may be given several times
    #[arg(long, value_name = "HOST")]
    probe: Vec<String>,
    /// Only findings of this category; may be given several times
    #[arg(long, value_name = "CATEGORY", value_enum)]
    only: Vec<Category>,
    /// Look again until there is no error, for so long: 30s, 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people: everything, with cause and fix.
    #[default]
    Table,
    /// For programs.
    Json,
    /// A line for each error and warning.
    Short,
    /// For build servers.
    Junit,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("wanted a number with s, m or h, not {text:?}")),
    };
    let number: u32 = number
        .parse()
        .map_err(|_| format!("wanted a number with s, m or h, not {text:?}"))?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

pub(super) fn run(args: &Args, environment: Environment) -> anyhow::Result<Exit> {
    let style = Style::of(&environment, std::io::stdout().is_terminal());
    let client = AdminClient::new(&args.target, &environment);
    let environment = looking(environment);
    let (report, late) = super::block_on(patiently(args, &client, &environment))?;
    _ = match args.output {
        Output::Table => say(&report.table(style)),
        Output::Json => say_json(&report.json(&client.admin)),
        Output::Short => say(&report.short()),
        Output::Junit => say(&report.junit()),
    }?;
    Ok(match (report.errors(), late) {
        (0, _) => Exit::Done,
        (_, true) => Exit::TimedOut,
        (_, false) => Exit::No,
    })
}

/// Looks until all is well or the time is over; true when it is over.
async fn patiently(args: &Args, client: &AdminClient, environment: &Environment) -> (Report, bool) {
    let begun = Instant::now();
    loop {
        let report = look(args, client, environment).await;
        let Some(wait) = args.wait else {
            return (report, false);
        };
        if report.errors() == 0 || begun.elapsed() >= wait {
            return (report, true);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn look(args: &Args, client: &AdminClient, environment: &Environment) -> Report {
    let mut report = Report::only(&args.only);
    let from_file = args
        .config
        .as_deref()
        .and_then(|file| configuration::file(file, environment, &mut report));
    if args.pre {
        before(args, from_file.as_ref(), &mut report).await;
        return report;
    }
    let mut running = Running::default();
    let mut at = args.api.target();
    let named = AdminClient::is_named(&args.target, environment);
    // Who asks for a cluster and names no router has none in mind that would be here.
    if at.is_none() || named {
        let mut own = Report::default();
        if router::answers(client, &mut own).await {
            running = router::look(client, &mut own).await;
            traces::forwarding(client, &mut own).await;
        } else if !named && has_kubeconfig(environment) {
            own = Report::default();
            own.note(
                Category::Router,
                format!(
                    "no router answers at {}: the cluster was looked at",
                    client.admin
                ),
            );
            at = Some(ApiTarget::Ambient);
        }
        report.take(own);
    }
    let spans_arrive = running.spans_arrive;
    let config = running.config.or(from_file);
    let at = match at {
        Some(target) => Some(target),
        None => match configured(config.as_ref(), client, args.proxy, environment) {
            Ok(target) => target,
            Err(why) => {
                report.note(Category::Kubernetes, why);
                None
            }
        },
    };
    let installation = match at {
        Some(target) => cluster(args, &target, config.as_ref(), spans_arrive, &mut report).await,
        None => None,
    };
    let config = config.or_else(|| installation.and_then(|installation| installation.config));
    if !args.probe.is_empty() {
        match &config {
            Some(config) => probe::look(client, config, &args.probe, &mut report).await,
            None => report.note(Category::Probe, "no probe was sent: no router answers"),
        }
    }
    report
}

/// Everything that the Kubernetes API tells; what is installed, when that was found.
async fn cluster(
    args: &Args,
    target: &ApiTarget,
    config: Option<&Config>,
    spans_arrive: bool,
    report: &mut Report,
) -> Option<Installation> {
    let kube = Kube::connect(target, report).await?;
    kube.slices(report).await;
    let mut installation =
        installation::find(&kube, args.api.rutter_namespace.as_deref(), report).await;
    if let Some(installation) = &mut installation {
        installation.look(&kube, report).await;
    }
    let installed = installation.as_ref();
    let config = config.or_else(|| installed.and_then(|i| i.config.as_ref()));
    let namespaces = config.map(names::namespaces).unwrap_or_default();
    let account = installed.map(Installation::account);
    kube.permissions(account.as_ref(), &namespaces, report)
        .await;
    if let Some(config) = config {
        names::look(&kube, config, installed, report).await;
        if !spans_arrive {
            traces::collector_services(&kube, config, report).await;
        }
    }
    if args.proxy {
        match installed {
            Some(installed) => {
                let routers = applications::Routers::of(&kube, installed).await;
                applications::look(&kube, &routers, report).await;
            }
            None => report.note(Category::Applications, "applications were not looked at: without the routers' DaemonSet nobody knows where http_proxy should lead"),
        }
    }
    installation
}

/// `--pre`.
async fn before(args: &Args, config: Option<&Config>, report: &mut Report) {
    let target = args.api.target().unwrap_or(ApiTarget::Ambient);
    let Some(kube) = Kube::connect(&target, report).await else {
        return;
    };
    kube.slices(report).await;
    let ports = config.map(installation::outgoing).unwrap_or_default();
    let namespace = args.api.rutter_namespace.as_deref();
    // One that is there may be upgraded; that there is none is no finding yet.
    let mut unheard = Report::default();
    let installed = installation::find(&kube, namespace, &mut unheard).await;
    pre::look(&kube, namespace, &ports, installed.as_ref(), report).await;
}

/// The Kubernetes API that the configuration names, as it can be reached from here; none when it names none.
fn configured(
    config: Option<&Config>,
    client: &AdminClient,
    wanted: bool,
    environment: &Environment,
) -> Result<Option<ApiTarget>, String> {
    let Some(api) = config.and_then(api_of) else {
        return Ok((wanted || environment.in_pod).then_some(ApiTarget::Ambient));
    };
    match api {
        K8sApi::Proxy { host, port } => {
            let here = !router::is_loopback(host) || router::is_loopback(router::host_of(&client.admin));
            if here {
                Ok(Some(ApiTarget::configured(Some(host), Some(*port))))
            } else if has_kubeconfig(environment) {
                Ok(Some(ApiTarget::Ambient))
            } else {
                Err(format!("the router asks the Kubernetes API at its own {host}:{port}, which is not reachable from here: give --kubeconfig or --api"))
            }
        }
        K8sApi::InCluster if has_kubeconfig(environment) => Ok(Some(ApiTarget::Ambient)),
        K8sApi::InCluster => Err("the router asks its cluster's Kubernetes API, and there is neither a service account nor a kubeconfig here: give --kubeconfig or --api".to_owned()),
    }
}

/// Whether there is a cluster to ask when nobody names one.
fn has_kubeconfig(environment: &Environment) -> bool {
    let get = |name: &str| environment.variables.get(name).filter(|v| !v.is_empty());
    let home = get("HOME").map(|home| std::path::Path::new(home).join(".kube/config"));
    environment.in_pod || get("KUBECONFIG").is_some() || home.is_some_and(|file| file.is_file())
}

/// The surroundings of a router in its pod, for reading its configuration here.
fn of_a_pod(variables: HashMap<String, String>) -> Environment {
    Environment {
        pod_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        node_name: Some("its own".into()),
        in_pod: true,
        variables,
        purpose: Purpose::Text,
    }
}

/// The first Kubernetes API that a configuration names.
fn api_of(config: &Config) -> Option<&K8sApi> {
    let of_namers = config
        .namers
        .iter()
        .filter_map(|namer| match &namer.source {
            NamerSource::K8s { api, .. } => Some(api),
            _ => None,
        });
    let routers = config.routers.iter();
    let of_routers = routers
        .flat_map(|r| &r.interpreter.transformers)
        .filter_map(|t| match &t.kind {
            TransformerKind::DaemonSet { api, .. } => Some(api),
            _ => None,
        });
    of_namers.chain(of_routers).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_with_a_unit() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("7", 7), ("1h", 3600), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "soon"] {
            assert!(duration(text).unwrap_err().contains("wanted"), "{text}");
        }
    }
}
