//! The installation in a cluster: DaemonSet, its pods and variables, ConfigMap, nodes, and how pods reach the router.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use telemetry::code::Check;

use super::api::{Account, Found, Kube};
use super::report::{Category, Report};
use crate::cli::tree::{list, text};
use crate::config::settings::{Config, K8sApi, TransformerKind};
use crate::config::{self, lint};

const R: Category = Category::Routers;
/// How an installation is found.
const LABEL: &str = "app.kubernetes.io/name=rutter";
/// What a DaemonSet without that label may be called: ours, and Linkerd 1's examples'.
const NAMES: [&str; 2] = ["rutter", "l5d"];

/// The routers of a cluster.
pub(super) struct Installation {
    /// The DaemonSet.
    object: Value,
    pub(super) namespace: String,
    pub(super) name: String,
    pods: Vec<Value>,
    /// What its ConfigMap says, when it is valid.
    pub(super) config: Option<Config>,
}

/// Finds the DaemonSet. `None`, with the finding, when there is none; and without one, where there are no DaemonSets at
/// all (an API that is only a part of one).
pub(super) async fn find(
    kube: &Kube,
    namespace: Option<&str>,
    report: &mut Report,
) -> Option<Installation> {
    let path = match namespace {
        None => "/apis/apps/v1/daemonsets".to_owned(),
        Some(namespace) => format!("/apis/apps/v1/namespaces/{namespace}/daemonsets"),
    };
    let labelled = match kube
        .list(
            &path,
            &format!("labelSelector={}", LABEL.replace('=', "%3D")),
        )
        .await
    {
        Ok(found) => found,
        Err(error) if error.missing() => {
            report.note(R, "no DaemonSets were looked for: this API has none");
            return None;
        }
        Err(error) => {
            report.note(
                R,
                format!("the DaemonSet of the routers was not looked for: {error}"),
            );
            return None;
        }
    };
    let object = match labelled.into_iter().next() {
        Some(object) => Some(object),
        None => {
            let all = kube.list(&path, "").await.unwrap_or_default();
            all.into_iter()
                .find(|one| NAMES.contains(&text(&one["metadata"], "name")))
        }
    };
    let Some(object) = object else {
        let place = namespace.map_or_else(
            || "in any namespace".to_owned(),
            |n| format!("in namespace {n}"),
        );
        report.fail(
            Check::C020,
            R,
            format!("there is no DaemonSet of routers {place}"),
        );
        return None;
    };
    let meta = &object["metadata"];
    let (namespace, name) = (
        text(meta, "namespace").to_owned(),
        text(meta, "name").to_owned(),
    );
    let selector = selector(&object["spec"]["selector"]["matchLabels"]);
    let pods = kube
        .list(
            &format!("/api/v1/namespaces/{namespace}/pods"),
            &format!("labelSelector={selector}"),
        )
        .await
        .unwrap_or_default();
    Some(Installation {
        object,
        namespace,
        name,
        pods,
        config: None,
    })
}

/// `matchLabels` as a query's value.
fn selector(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let labels: Vec<String> = labels
        .map(|(key, value)| {
            let pair = format!("{key}={}", value.as_str().unwrap_or_default());
            crate::cli::admin_client::escape(&pair)
        })
        .collect();
    labels.join("%2C")
}

impl Installation {
    fn template(&self) -> &Value {
        &self.object["spec"]["template"]["spec"]
    }

    /// The labels of its pods.
    pub(super) fn labels(&self) -> &Value {
        &self.object["spec"]["template"]["metadata"]["labels"]
    }

    /// The service account that its pods have.
    pub(super) fn account(&self) -> Account {
        let name = text(self.template(), "serviceAccountName");
        Account {
            namespace: self.namespace.clone(),
            name: if name.is_empty() { "default" } else { name }.to_owned(),
        }
    }

    /// The container that is the router: by its name or image, else the first.
    pub(super) fn container_of_router(&self) -> &Value {
        let by_name =
            |c: &&Value| NAMES.contains(&text(c, "name")) || text(c, "image").contains("rutter");
        let containers = || list(self.template(), "containers");
        containers()
            .find(by_name)
            .or_else(|| containers().next())
            .unwrap_or(&Value::Null)
    }

    /// Nodes with a ready router.
    pub(super) fn ready_nodes(&self) -> BTreeSet<&str> {
        self.pods
            .iter()
            .filter(|pod| is_ready(pod))
            .map(|pod| text(&pod["spec"], "nodeName"))
            .collect()
    }

    /// Whether a pod is one of its own.
    pub(super) fn owns(&self, pod: &Value) -> bool {
        list(&pod["metadata"], "ownerReferences").any(|owner| {
            text(owner, "kind") == "DaemonSet"
                && text(owner, "name") == self.name
                && text(&pod["metadata"], "namespace") == self.namespace
        })
    }

    /// Addresses of its pods.
    pub(super) fn addresses(&self) -> BTreeSet<&str> {
        self.pods
            .iter()
            .map(|pod| text(&pod["status"], "podIP"))
            .collect()
    }

    /// Everything about it.
    pub(super) async fn look(&mut self, kube: &Kube, report: &mut Report) {
        self.pods_ready(report);
        self.nodes(kube, report).await;
        self.alike(report);
        self.configuration(kube, report).await;
        self.variables(report);
        self.side_container(report);
        self.reach(kube, report).await;
    }

    fn pods_ready(&self, report: &mut Report) {
        let status = &self.object["status"];
        let number = |key: &str| status[key].as_u64().unwrap_or(0);
        let (wanted, ready) = (number("desiredNumberScheduled"), number("numberReady"));
        let mut named = false;
        for pod in self.pods.iter().filter(|pod| !is_ready(pod)) {
            named = true;
            let node = text(&pod["spec"], "nodeName");
            let place = if node.is_empty() {
                "no node yet".to_owned()
            } else {
                format!("node {node}")
            };
            report
                .fail(
                    Check::C025,
                    R,
                    format!(
                        "pod {}/{} ({place}) is not ready: {}",
                        self.namespace,
                        text(&pod["metadata"], "name"),
                        reason(pod)
                    ),
                )
                .effect("pods on that node have no router, and others do not reach them");
        }
        if ready < wanted && !named {
            report.fail(
                Check::C025,
                R,
                format!(
                    "DaemonSet {}/{}: {ready} of {wanted} routers are ready",
                    self.namespace, self.name
                ),
            );
        } else if ready >= wanted && !named {
            report.ok(
                R,
                format!(
                    "DaemonSet {}/{}: {ready} of {wanted} routers are ready",
                    self.namespace, self.name
                ),
            );
        }
    }

    async fn nodes(&self, kube: &Kube, report: &mut Report) {
        let nodes = match kube.list("/api/v1/nodes", "").await {
            Ok(nodes) => nodes,
            Err(error) => return report.note(R, format!("nodes were not looked at: {error}")),
        };
        let with: BTreeSet<&str> = self
            .pods
            .iter()
            .map(|pod| text(&pod["spec"], "nodeName"))
            .collect();
        let mut without = 0;
        for node in &nodes {
            let name = text(&node["metadata"], "name");
            if with.contains(name) || !conditions(node, "Ready") {
                continue;
            }
            without += 1;
            let taints: Vec<String> = list(&node["spec"], "taints")
                .map(|taint| format!("{}:{}", text(taint, "key"), text(taint, "effect")))
                .collect();
            let why = if taints.is_empty() {
                String::new()
            } else {
                format!("; its taints: {}", taints.join(", "))
            };
            report
                .warn(Check::C026, R, format!("node {name} has no router{why}"))
                .effect("pods there have nobody to send their requests to");
        }
        if without == 0 {
            report.ok(R, format!("every node has a router ({})", nodes.len()));
        }
    }

    /// RT-C029: one image, by its name and as it runs, and one revision of the template.
    fn alike(&self, report: &mut Report) {
        let mut images: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut running: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut revisions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for pod in &self.pods {
            let node = text(&pod["spec"], "nodeName");
            let all: Vec<&str> = list(&pod["spec"], "containers")
                .map(|c| text(c, "image"))
                .collect();
            images.entry(all.join(" ")).or_default().push(node);
            // A tag may have been pushed again between the pulls of two nodes. A pod that does not run has none yet.
            let mut ids: Vec<&str> = list(&pod["status"], "containerStatuses")
                .map(|c| text(c, "imageID"))
                .filter(|id| !id.is_empty())
                .collect();
            ids.sort_unstable();
            if ids.len() == all.len() {
                running.entry(ids.join(" ")).or_default().push(node);
            }
            let revision = text(&pod["metadata"]["labels"], "controller-revision-hash");
            revisions.entry(revision).or_default().push(node);
        }
        let told = |groups: Vec<(String, Vec<&str>)>| {
            let groups = groups
                .into_iter()
                .map(|(what, nodes)| format!("{what} on {}", nodes.join(", ")));
            groups.collect::<Vec<_>>().join("; ")
        };
        if images.len() > 1 {
            report.warn(
                Check::C029,
                R,
                format!(
                    "routers are of different images: {}",
                    told(images.into_iter().collect())
                ),
            );
        } else if running.len() > 1 {
            report.warn(
                Check::C029,
                R,
                format!(
                    "routers run different images of the same name: {}",
                    told(running.into_iter().collect())
                ),
            );
        } else if revisions.len() > 1 {
            let groups = revisions
                .into_iter()
                .map(|(r, n)| (format!("revision {r}"), n))
                .collect();
            report.warn(
                Check::C029,
                R,
                format!(
                    "routers are of different revisions of the DaemonSet: {}",
                    told(groups)
                ),
            );
        } else if let Some(image) = images.keys().next() {
            report.ok(
                R,
                format!("all are of one image ({image}) and one revision"),
            );
        }
    }

    /// RT-C028, RT-C060, RT-C061: the ConfigMap.
    async fn configuration(&mut self, kube: &Kube, report: &mut Report) {
        let volumes: Vec<&Value> = list(self.template(), "volumes")
            .filter(|volume| volume["configMap"].is_object())
            .collect();
        let args: Vec<&str> = ["command", "args"]
            .iter()
            .flat_map(|key| list(self.container_of_router(), key))
            .filter_map(Value::as_str)
            .collect();
        let mounts: Vec<(&str, &str)> = list(self.container_of_router(), "volumeMounts")
            .map(|mount| (text(mount, "name"), text(mount, "mountPath")))
            .collect();
        // The argument that lies in a ConfigMap's mount is the configuration.
        let found = volumes.iter().find_map(|volume| {
            let (_, at) = mounts
                .iter()
                .find(|(name, _)| *name == text(volume, "name"))?;
            let file = args.iter().find_map(|arg| arg.strip_prefix(at))?;
            let file = file.trim_start_matches('/');
            let key = list(&volume["configMap"], "items")
                .find(|item| text(item, "path") == file)
                .map_or(file, |item| text(item, "key"));
            Some((
                text(&volume["configMap"], "name").to_owned(),
                key.to_owned(),
            ))
        });
        let Some((name, key)) = found else {
            return report.note(R, format!("DaemonSet {}/{} mounts no ConfigMap that its arguments name: its configuration was not looked at", self.namespace, self.name));
        };
        let full = format!("{}/{name}", self.namespace);
        let object = match kube
            .get(&format!(
                "/api/v1/namespaces/{}/configmaps/{name}",
                self.namespace
            ))
            .await
        {
            Found::Object(object) => object,
            Found::Unknown(why) => {
                return report.note(R, format!("ConfigMap {full} was not looked at: {why}"));
            }
            Found::Missing => {
                report.fail(
                    Check::C028,
                    R,
                    format!("ConfigMap {full} does not exist, and the DaemonSet mounts it"),
                );
                return;
            }
        };
        let Some(source) = object["data"][&key].as_str() else {
            let keys: Vec<&str> = object["data"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k.as_str())
                .collect();
            report.fail(
                Check::C028,
                R,
                format!(
                    "ConfigMap {full} has no {key}, which the routers are started with; it has {}",
                    if keys.is_empty() {
                        "nothing".to_owned()
                    } else {
                        keys.join(", ")
                    }
                ),
            );
            return;
        };
        let literal = |one: &Value| {
            let value = one["value"].as_str()?;
            Some((text(one, "name").to_owned(), value.to_owned()))
        };
        let variables = list(self.container_of_router(), "env").filter_map(literal);
        let environment = super::of_a_pod(variables.collect());
        let place = format!("ConfigMap {full}, {key}");
        match config::load(&place, source, &environment) {
            Ok(loaded) => {
                let mut problems = lint::lint(&loaded, &environment);
                // On the pod's own network only: that is what probes and scrapes need.
                let on_host = self.on_host(loaded.config.admin.addr.port());
                problems
                    .all
                    .retain(|problem| problem.key != "admin.ip" || on_host);
                super::configuration::tell(&place, &problems, R, report);
                self.config = Some(loaded.config);
            }
            Err(problems) => super::configuration::tell(&place, &problems, R, report),
        }
    }

    /// RT-C027, RT-C022: what the configuration needs of the environment.
    fn variables(&self, report: &mut Report) {
        let has = |name: &str| {
            list(self.container_of_router(), "env").any(|one| text(one, "name") == name)
        };
        let config = self.config.as_ref();
        let given = config
            .map(|config| config.given.to_string())
            .unwrap_or_default();
        let needs =
            given.contains("io.l5d.k8s.localnode") || given.contains("io.l5d.k8s.daemonset");
        let (pod_ip, node_name) = (has("POD_IP"), has("NODE_NAME"));
        let who = format!("DaemonSet {}/{}", self.namespace, self.name);
        if needs && !pod_ip {
            report
                .fail(Check::C027, R, format!("{who} does not set POD_IP, which io.l5d.k8s.localnode needs"))
                .effect("the routers do not start")
                .fix("add to the container's env: name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}");
        }
        if needs && !node_name {
            report
                .warn(Check::C022, R, format!("{who} does not set NODE_NAME: which node a router is on is guessed"))
                .fix("add to the container's env: name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}");
        }
        if needs && pod_ip && node_name {
            report.ok(R, "POD_IP and NODE_NAME are set");
        }
    }

    /// RT-C014: an API that the configuration expects in the pod itself.
    fn side_container(&self, report: &mut Report) {
        let Some(config) = &self.config else { return };
        let Some(K8sApi::Proxy { host, port }) = super::api_of(config) else {
            return;
        };
        let alone = list(self.template(), "containers").count() < 2;
        // As the chart says it for pasted files: such a proxy is not there, the API server is asked itself.
        let direct = list(self.container_of_router(), "env").any(|one| {
            text(one, "name") == config::KUBERNETES_API && text(one, "value") == "direct"
        });
        if super::router::is_loopback(host) && alone && !direct {
            report
                .fail(Check::C014, R, format!("the configuration asks the Kubernetes API at {host}:{port}, and the routers' pods have one container only"))
                .effect("no name of io.l5d.k8s has endpoints");
        }
    }

    /// Ports that pods send their requests to: of servers on all addresses, of routers that are not an incoming one.
    pub(super) fn outgoing(&self) -> Vec<u16> {
        self.config.as_ref().map(outgoing).unwrap_or_default()
    }

    /// Services that lead to the routers' pods.
    pub(super) async fn services(&self, kube: &Kube) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        let mut all = kube.list(&path, "").await.unwrap_or_default();
        all.retain(|service| selects(&service["spec"]["selector"], self.labels()));
        all
    }

    /// Whether a port of the pods is one of their node's, too.
    fn on_host(&self, port: u16) -> bool {
        let ports = list(self.template(), "containers").flat_map(|c| list(c, "ports"));
        self.template()["hostNetwork"] == true
            || ports
                .filter(|p| p["containerPort"] == port)
                .any(|p| p["hostPort"] == port)
    }

    /// RT-C030.
    async fn reach(&self, kube: &Kube, report: &mut Report) {
        let services = self.services(kube).await;
        for port in self.outgoing() {
            let on_host = self.on_host(port);
            let local = services.iter().find(|service| {
                let spec = &service["spec"];
                text(spec, "internalTrafficPolicy") == "Local"
                    && list(spec, "ports").any(|p| leads_to(p, port, self.container_of_router()))
            });
            match (on_host, local) {
                (true, _) => {
                    report.ok(R, format!("pods reach port {port} at their node's address"));
                }
                (false, Some(service)) => report.ok(
                    R,
                    format!(
                        "pods reach port {port} through Service {}/{}, on their own node",
                        self.namespace,
                        text(&service["metadata"], "name")
                    ),
                ),
                (false, None) => {
                    report.fail(Check::C030, R, format!("port {port} has no hostPort, and no Service with internalTrafficPolicy: Local leads to it"))
                        .effect("pods have no address for the router on their node");
                }
            }
        }
    }
}

/// Ports of servers that applications use.
pub(super) fn outgoing(config: &Config) -> Vec<u16> {
    let local = |router: &&config::settings::RouterConfig| {
        let transformers = &router.interpreter.transformers;
        !transformers
            .iter()
            .any(|t| matches!(t.kind, TransformerKind::LocalNode { .. }))
    };
    let servers = config
        .routers
        .iter()
        .filter(local)
        .flat_map(|r| &r.router.servers);
    servers
        .filter(|server| !server.addr.ip().is_loopback())
        .map(|server| server.addr.port())
        .collect()
}

/// Whether a Service's port ends at that port of the container.
pub(super) fn leads_to(service_port: &Value, port: u16, container: &Value) -> bool {
    match &service_port["targetPort"] {
        Value::Null => service_port["port"] == port,
        Value::String(name) => {
            list(container, "ports").any(|p| text(p, "name") == name && p["containerPort"] == port)
        }
        number => *number == json!(port),
    }
}

/// Whether a Service's selector takes pods with these labels.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(selector) = selector.as_object().filter(|s| !s.is_empty()) else {
        return false;
    };
    selector.iter().all(|(key, value)| labels[key] == *value)
}

/// Whether a pod is ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    conditions(pod, "Ready")
}

fn conditions(object: &Value, kind: &str) -> bool {
    list(&object["status"], "conditions")
        .any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// Why a pod is not ready, in Kubernetes' words.
fn reason(pod: &Value) -> String {
    let status = &pod["status"];
    let waits = list(status, "containerStatuses").find_map(|container| {
        let state = &container["state"];
        let told = |of: &Value| {
            let words = [text(of, "reason"), text(of, "message")];
            let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
            (!words.is_empty())
                .then(|| format!("{}: {}", text(container, "name"), words.join(", ")))
        };
        told(&state["waiting"]).or_else(|| told(&state["terminated"]))
    });
    let condition = || {
        list(status, "conditions")
            .filter(|c| text(c, "status") != "True")
            .find_map(|c| {
                Some(text(c, "message"))
                    .filter(|m| !m.is_empty())
                    .or(Some(text(c, "reason")).filter(|m| !m.is_empty()))
            })
            .map(str::to_owned)
    };
    waits
        .or_else(condition)
        .unwrap_or_else(|| format!("phase {}", text(status, "phase")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_takes_pods_with_all_its_labels() {
        let labels = json!({"app": "l5d", "x": "y"});
        assert!(selects(&json!({"app": "l5d"}), &labels));
        assert!(!selects(&json!({"app": "l5d", "z": "1"}), &labels));
        assert!(!selects(&json!({}), &labels), "none selects nothing");
        assert!(!selects(&Value::Null, &labels));
    }

    #[test]
    fn a_service_port_leads_to_a_container_port_by_number_or_name() {
        let container = json!({"ports": [{"name": "outgoing", "containerPort": 4140}]});
        for (port, leads) in [
            (json!({"port": 4140}), true),
            (json!({"port": 80, "targetPort": 4140}), true),
            (json!({"port": 80, "targetPort": "outgoing"}), true),
            (json!({"port": 4140, "targetPort": "incoming"}), false),
            (json!({"port": 80}), false),
        ] {
            assert_eq!(leads_to(&port, 4140, &container), leads, "{port}");
        }
    }

    #[test]
    fn the_reason_is_that_of_the_container_that_waits() {
        let pod = json!({"status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False", "message": "containers with unready status"}],
            "containerStatuses": [{"name": "rutter", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}});
        assert_eq!(reason(&pod), "rutter: ImagePullBackOff, no such image");
        let pod = json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes have free ports"}]}});
        assert_eq!(reason(&pod), "0/2 nodes have free ports");
    }
}
