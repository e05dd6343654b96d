//! What the configuration leads to in the cluster: namespaces, Services and ports of the dtab, and those of transformers.

use std::collections::{BTreeMap, BTreeSet};

use dtab::{NameTree, Path};
use serde_json::Value;
use telemetry::code::Check;

use super::api::{Found, Kube};
use super::installation::{Installation, selects};
use super::report::{Category, Report};
use crate::cli::offline::Offline;
use crate::cli::tree::{self, list, text};
use crate::config::settings::{Config, K8sKind, NamerSource, TransformerKind};
use crate::near;

const N: Category = Category::Names;
/// Destinations of a dtab that are looked up in the cluster; the rest is said to be left out.
const MOST: usize = 200;

/// What a path of a Kubernetes namer says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Destination {
    pub(super) namespace: String,
    /// Port and Service; none when the rest of the name comes from the request.
    pub(super) service: Option<(String, String)>,
}

/// Where the rules of all dtabs lead, as far as that is written in them; with the rule for each.
pub(super) fn destinations(config: &Config) -> BTreeMap<Destination, String> {
    let offline = Offline::new(config);
    let mut found = BTreeMap::new();
    for router in &config.routers {
        for dentry in router.dtab.entries() {
            let rule = format!("{} => {}", dentry.prefix, dentry.dst);
            for path in leaves(&dentry.dst) {
                let way = offline.delegate(&router.dtab, &path);
                let mut ends = Vec::new();
                tree::ends(&way, &mut ends);
                for end in ends.iter().filter(|end| text(end, "type") == "unasked") {
                    if let Some(destination) = destination(config, text(end, "path")) {
                        found.entry(destination).or_insert_with(|| rule.clone());
                    }
                }
            }
        }
    }
    found
}

fn leaves(tree: &NameTree<Path>) -> Vec<Path> {
    let mut all = Vec::new();
    tree.for_each_leaf(&mut |path: &Path| all.push(path.clone()));
    all
}

fn destination(config: &Config, concrete: &str) -> Option<Destination> {
    let path = Path::read(concrete).ok()?.drop(1);
    let namer = config
        .namers
        .iter()
        .rev()
        .find(|namer| path.starts_with(&namer.prefix))?;
    let NamerSource::K8s { kind, .. } = &namer.source else {
        return None;
    };
    let rest = path.drop(namer.prefix.len());
    let mut words = rest.segments().iter().map(|s| s.to_string().to_lowercase());
    let namespace = match kind {
        K8sKind::Namespace(namespace) => namespace.to_string(),
        K8sKind::Everywhere => words.next()?,
        // A load balancer, not endpoints, is what is there.
        K8sKind::External => return None,
    };
    let service = words.next().zip(words.next());
    Some(Destination { namespace, service })
}

/// The namespaces that the configuration names: those of the dtabs, of namers and of transformers.
pub(super) fn namespaces(config: &Config) -> Vec<String> {
    let mut found: BTreeSet<String> = destinations(config)
        .into_keys()
        .map(|d| d.namespace)
        .collect();
    for router in &config.routers {
        for transformer in &router.interpreter.transformers {
            if let TransformerKind::DaemonSet { namespace, .. } = &transformer.kind {
                found.insert(namespace.to_string());
            }
        }
    }
    found.into_iter().collect()
}

/// Looks all of them up.
pub(super) async fn look(
    kube: &Kube,
    config: &Config,
    installation: Option<&Installation>,
    report: &mut Report,
) {
    transformers(kube, config, installation, report).await;
    let all = destinations(config);
    if all.len() > MOST {
        report.note(
            N,
            format!(
                "the dtab leads to {} places; the first {MOST} were looked up",
                all.len()
            ),
        );
    }
    let mut bad_namespaces = BTreeSet::new();
    let mut good = 0;
    for (destination, rule) in all.iter().take(MOST) {
        let namespace = &destination.namespace;
        if bad_namespaces.contains(namespace) {
            continue;
        }
        if !namespace_exists(kube, namespace, rule, report).await {
            bad_namespaces.insert(namespace.clone());
            continue;
        }
        match &destination.service {
            Some((port, service)) => {
                good += usize::from(
                    service_is_there(kube, namespace, port, service, rule, report).await,
                );
            }
            None => good += 1,
        }
    }
    if good == all.len() && good > 0 {
        report.ok(
            N,
            format!("all {good} places that the dtab names are there"),
        );
    }
}

async fn namespace_exists(kube: &Kube, namespace: &str, rule: &str, report: &mut Report) -> bool {
    let Found::Missing = kube.get(&format!("/api/v1/namespaces/{namespace}")).await else {
        return true; // there, or nobody says
    };
    let known = kube
        .list("/api/v1/namespaces", "")
        .await
        .unwrap_or_default();
    let names = known.iter().map(|one| text(&one["metadata"], "name"));
    let finding = report.fail(
        Check::C051,
        N,
        format!("namespace {namespace}, which `{rule}` leads to, does not exist"),
    );
    if let Some(near) = near::nearest(namespace, names) {
        finding.fix(format!("did you mean {near}?"));
    }
    false
}

async fn service_is_there(
    kube: &Kube,
    namespace: &str,
    port: &str,
    service: &str,
    rule: &str,
    report: &mut Report,
) -> bool {
    let full = format!("{namespace}/{service}");
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let object = match kube.get(&format!("{services}/{service}")).await {
        Found::Object(object) => object,
        Found::Unknown(why) => {
            report.note(N, format!("Service {full} was not looked for: {why}"));
            return true;
        }
        Found::Missing => {
            let known = kube.list(&services, "").await.unwrap_or_default();
            let names = known.iter().map(|one| text(&one["metadata"], "name"));
            let finding = report.warn(
                Check::C052,
                N,
                format!("Service {full}, which `{rule}` leads to, does not exist"),
            );
            if let Some(near) = near::nearest(service, names) {
                finding.fix(format!("deploy it, or did you mean {near}?"));
            }
            return false;
        }
    };
    let ports: Vec<String> = list(&object["spec"], "ports").map(port_name).collect();
    let number = port.parse::<u16>().ok();
    let fits = |p: &Value| text(p, "name") == port || number.is_some_and(|n| p["port"] == n);
    if !list(&object["spec"], "ports").any(fits) {
        let there = if ports.is_empty() {
            "none".to_owned()
        } else {
            ports.join(", ")
        };
        report
            .warn(
                Check::C053,
                N,
                format!("Service {full} has no port {port}, which `{rule}` leads to"),
            )
            .fix(format!(
                "its ports are: {there}; name one of them {port}, or change the rule"
            ));
        return false;
    }
    if text(&object["spec"], "type") == "ExternalName" {
        return true;
    }
    match ready_endpoints(kube, namespace, service).await {
        Some(0) => {
            report.warn(
                Check::C054,
                N,
                format!("Service {full}, which `{rule}` leads to, has no ready endpoint"),
            );
            false
        }
        _ => true,
    }
}

/// `http (80)`, or the number alone.
fn port_name(port: &Value) -> String {
    match text(port, "name") {
        "" => format!("{} (without a name)", port["port"]),
        name => format!("{name} ({})", port["port"]),
    }
}

/// How many ready endpoints a Service has; `None` when nobody says.
pub(super) async fn ready_endpoints(kube: &Kube, namespace: &str, service: &str) -> Option<usize> {
    let slices = slices(kube, namespace, service).await?;
    let endpoints = slices.iter().flat_map(|slice| list(slice, "endpoints"));
    // Absent means ready, as Kubernetes says.
    Some(
        endpoints
            .filter(|e| e["conditions"]["ready"] != false)
            .count(),
    )
}

async fn slices(kube: &Kube, namespace: &str, service: &str) -> Option<Vec<Value>> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let query = format!("labelSelector=kubernetes.io%2Fservice-name%3D{service}");
    kube.list(&path, &query).await.ok()
}

/// RT-C021, RT-C022, RT-C023, RT-C024: the Services by which routers find each other.
async fn transformers(
    kube: &Kube,
    config: &Config,
    installation: Option<&Installation>,
    report: &mut Report,
) {
    for (i, router) in config.routers.iter().enumerate() {
        for (j, transformer) in router.interpreter.transformers.iter().enumerate() {
            if let TransformerKind::DaemonSet {
                namespace,
                service,
                port,
                ..
            } = &transformer.kind
            {
                let wanted = Gateways {
                    router: &router.router.label,
                    at: format!("routers[{i}].interpreter.transformers[{j}]"),
                    namespace,
                    service,
                    port,
                };
                wanted.look(kube, installation, report).await;
            }
        }
    }
}

/// The Service of a daemonset transformer.
struct Gateways<'a> {
    router: &'a str,
    at: String,
    namespace: &'a str,
    service: &'a str,
    port: &'a str,
}

impl Gateways<'_> {
    async fn look(&self, kube: &Kube, installation: Option<&Installation>, report: &mut Report) {
        let full = format!("{}/{}", self.namespace, self.service);
        let who = format!(
            "router \"{}\": transformer io.l5d.k8s.daemonset",
            self.router
        );
        let effect = "every request that leaves its node fails with RT-E104";
        let path = format!(
            "/api/v1/namespaces/{}/services/{}",
            self.namespace, self.service
        );
        let object = match kube.get(&path).await {
            Found::Object(object) => object,
            Found::Unknown(why) => {
                return report.note(
                    N,
                    format!(
                        "router {}: Service {full} was not looked for: {why}",
                        self.router
                    ),
                );
            }
            Found::Missing => {
                report
                    .fail(
                        Check::C021,
                        N,
                        format!("{who} names Service {full}, which does not exist"),
                    )
                    .effect(effect)
                    .fix(format!(
                        "create the Service, or set {}.service to the one that selects the routers",
                        self.at
                    ));
                return;
            }
        };
        let ports: Vec<&Value> = list(&object["spec"], "ports").collect();
        if !ports.iter().any(|p| text(p, "name") == self.port) {
            let names: Vec<String> = ports.iter().map(|p| port_name(p)).collect();
            report
                .fail(
                    Check::C023,
                    N,
                    format!(
                        "{who} wants port {} of Service {full}, which has {}",
                        self.port,
                        if names.is_empty() {
                            "none".to_owned()
                        } else {
                            names.join(", ")
                        }
                    ),
                )
                .effect(effect)
                .fix(format!(
                    "name the port {}, or set {}.port",
                    self.port, self.at
                ));
            return;
        }
        let Some(slices) = slices(kube, self.namespace, self.service).await else {
            return report.note(
                N,
                format!("the endpoints of Service {full} were not looked at"),
            );
        };
        let endpoints: Vec<&Value> = slices
            .iter()
            .flat_map(|slice| list(slice, "endpoints"))
            .collect();
        let ready = endpoints
            .iter()
            .filter(|e| e["conditions"]["ready"] != false);
        if ready.clone().count() == 0 {
            let selector = &object["spec"]["selector"];
            let finding = report.fail(
                Check::C024,
                N,
                format!("Service {full}, which {who} names, has no ready endpoint"),
            );
            finding.effect(effect);
            if let Some(installation) = installation
                && !selects(selector, installation.labels())
            {
                finding.fix(format!("its selector {selector} does not take the pods of DaemonSet {}/{}, which have {}", installation.namespace, installation.name, installation.labels()));
            }
            return;
        }
        let without_node = ready.filter(|e| text(e, "nodeName").is_empty()).count();
        if without_node > 0 {
            report
                .warn(Check::C022, N, format!("{without_node} endpoints of Service {full} do not say which node they are on"))
                .fix("let Kubernetes make the Service's EndpointSlices, or set nodeName in those you write");
            return;
        }
        report.ok(
            N,
            format!(
                "router {}: Service {full} exists, and has {} routers",
                self.router,
                endpoints.len()
            ),
        );
    }
}
