//! `--pre`: what an installation needs of a cluster.

use std::collections::BTreeMap;

use serde_json::Value;
use telemetry::code::Check;

use super::api::{Found, Kube};
use super::installation::Installation;
use super::report::{Category, Report};
use crate::cli::tree::{list, text};

const K: Category = Category::Kubernetes;
const R: Category = Category::Routers;
/// The nodes' ports that an installation takes when nothing else is configured.
const PORTS: [u16; 1] = [4140];
/// Where an installation goes when nothing else is said.
const NAMESPACE: &str = "default";
/// What the chart creates: group, resource, and whether it lies in the namespace.
const CREATED: [(&str, &str, bool); 6] = [
    ("apps", "daemonsets", true),
    ("", "services", true),
    ("", "configmaps", true),
    ("", "serviceaccounts", true),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
];

/// Looks at a cluster before the installation.
pub(super) async fn look(
    kube: &Kube,
    namespace: Option<&str>,
    ports: &[u16],
    installed: Option<&Installation>,
    report: &mut Report,
) {
    let namespace = namespace.unwrap_or(NAMESPACE);
    may_install(kube, namespace, report).await;
    let ports = if ports.is_empty() { &PORTS } else { ports };
    ports_free(kube, ports, installed, report).await;
    pod_security(kube, namespace, report).await;
}

async fn may_install(kube: &Kube, namespace: &str, report: &mut Report) {
    let mut unsaid = false;
    let mut all = true;
    for (group, resource, within) in CREATED {
        match kube
            .may_create(group, resource, within.then_some(namespace))
            .await
        {
            Some(true) => {}
            Some(false) => {
                all = false;
                let place = if within {
                    format!(" in namespace {namespace}")
                } else {
                    String::new()
                };
                report
                    .fail(
                        Check::C011,
                        K,
                        format!("whoever asks may not create {resource}{place}"),
                    )
                    .effect("the chart cannot be installed by this user");
            }
            None => unsaid = true,
        }
    }
    match (unsaid, all) {
        (true, _) => report.note(
            K,
            "whether everything may be created was not looked at: the API server does not say",
        ),
        (false, true) => report.ok(
            K,
            "everything that an installation consists of may be created",
        ),
        (false, false) => {}
    }
}

/// RT-C080.
async fn ports_free(
    kube: &Kube,
    ports: &[u16],
    installed: Option<&Installation>,
    report: &mut Report,
) {
    let pods = match kube.list("/api/v1/pods", "").await {
        Ok(pods) => pods,
        Err(error) => {
            return report.note(R, format!("the nodes' ports were not looked at: {error}"));
        }
    };
    let mut taken: BTreeMap<(u16, String), Vec<&str>> = BTreeMap::new();
    for pod in &pods {
        if installed.is_some_and(|own| own.owns(pod)) {
            continue;
        }
        for port in host_ports(pod)
            .into_iter()
            .filter(|port| ports.contains(port))
        {
            taken
                .entry((port, who(pod)))
                .or_default()
                .push(text(&pod["spec"], "nodeName"));
        }
    }
    if taken.is_empty() {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        report.ok(R, format!("port {} of the nodes is free", ports.join(", ")));
    }
    for ((port, who), nodes) in taken {
        report
            .fail(
                Check::C080,
                R,
                format!("port {port} is taken by {who} on {}", nodes.join(", ")),
            )
            .effect("routers stay Pending there, or the later of the two does");
    }
}

/// Ports of the node that a pod takes.
fn host_ports(pod: &Value) -> Vec<u16> {
    let host_network = pod["spec"]["hostNetwork"] == true;
    let ports = list(&pod["spec"], "containers").flat_map(|c| list(c, "ports"));
    let number = |p: &Value| {
        p[if host_network {
            "containerPort"
        } else {
            "hostPort"
        }]
        .as_u64()
    };
    ports.filter_map(|p| number(p)?.try_into().ok()).collect()
}

fn who(pod: &Value) -> String {
    let namespace = text(&pod["metadata"], "namespace");
    match list(&pod["metadata"], "ownerReferences").next() {
        Some(owner) => format!(
            "{} {namespace}/{}",
            text(owner, "kind"),
            text(owner, "name")
        ),
        None => format!("pod {namespace}/{}", text(&pod["metadata"], "name")),
    }
}

/// RT-C081.
async fn pod_security(kube: &Kube, namespace: &str, report: &mut Report) {
    match kube.get(&format!("/api/v1/namespaces/{namespace}")).await {
        Found::Object(object) => {
            let level = text(
                &object["metadata"]["labels"],
                "pod-security.kubernetes.io/enforce",
            );
            if matches!(level, "baseline" | "restricted") {
                report.fail(Check::C081, R, format!("namespace {namespace} enforces pod security level {level}, which forbids hostPort"));
            } else {
                report.ok(
                    R,
                    format!("namespace {namespace} lets pods have a hostPort"),
                );
            }
        }
        Found::Missing => report.note(R, format!("namespace {namespace} does not exist yet")),
        Found::Unknown(why) => {
            report.note(R, format!("namespace {namespace} was not looked at: {why}"));
        }
    }
}
