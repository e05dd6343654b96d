//! The pods that use the router: whether their `http_proxy` leads to one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;
use telemetry::code::Check;

use super::api::{Found, Kube};
use super::installation::{Installation, leads_to, selects};
use super::report::{Category, Report};
use crate::cli::tree::{list, text};

const A: Category = Category::Applications;
/// Pods whose names are listed in one finding.
const NAMED: usize = 3;

/// What is known of the routers.
pub(super) struct Routers {
    /// Ports that applications may use.
    pub(super) ports: Vec<u16>,
    /// Their pods' addresses.
    pub(super) addresses: BTreeSet<String>,
    /// Nodes with a ready router; none when there is no DaemonSet to ask.
    pub(super) nodes: Option<BTreeSet<String>>,
    /// Namespace, name, cluster address and ports of the Services in front of them.
    services: Vec<RouterService>,
    /// Labels of their pods.
    labels: Value,
    container: Value,
}

struct RouterService {
    namespace: String,
    name: String,
    address: String,
    ports: Vec<u16>,
}

impl Routers {
    pub(super) async fn of(kube: &Kube, installation: &Installation) -> Self {
        let ports = installation.outgoing();
        let container = installation.container_of_router().clone();
        let services = installation.services(kube).await;
        let services = services.iter().map(|service| RouterService {
            namespace: installation.namespace.clone(),
            name: text(&service["metadata"], "name").to_owned(),
            address: text(&service["spec"], "clusterIP").to_owned(),
            ports: list(&service["spec"], "ports")
                .filter(|p| ports.iter().any(|port| leads_to(p, *port, &container)))
                .filter_map(|p| p["port"].as_u64()?.try_into().ok())
                .collect(),
        });
        Self {
            services: services.collect(),
            addresses: installation
                .addresses()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            nodes: Some(
                installation
                    .ready_nodes()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            ),
            labels: installation.labels().clone(),
            container,
            ports,
        }
    }
}

/// What is wrong with one container's settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mistake {
    code: Check,
    what: String,
}

fn mistake(code: Check, what: impl Into<String>) -> Mistake {
    Mistake {
        code,
        what: what.into(),
    }
}

/// Looks at all pods.
pub(super) async fn look(kube: &Kube, routers: &Routers, report: &mut Report) {
    let pods = match kube.list("/api/v1/pods", "").await {
        Ok(pods) => pods,
        Err(error) => return report.note(A, format!("pods were not looked at: {error}")),
    };
    let mut found: BTreeMap<(Mistake, String), Vec<String>> = BTreeMap::new();
    let mut using = 0;
    let mut resolver = Resolver::default();
    for pod in &pods {
        let phase = text(&pod["status"], "phase");
        if matches!(phase, "Succeeded" | "Failed")
            || selects(&routers.labels, &pod["metadata"]["labels"])
        {
            continue;
        }
        let mut mistakes = BTreeSet::new();
        let mut uses = false;
        for container in
            list(&pod["spec"], "containers").chain(list(&pod["spec"], "initContainers"))
        {
            let env = Env::of(container);
            let Some(proxy) = env.get("http_proxy").or_else(|| env.get("HTTP_PROXY")) else {
                continue;
            };
            uses = true;
            mistakes.extend(settings(&env));
            mistakes.extend(address(kube, routers, &mut resolver, &env, &proxy, pod).await);
        }
        using += usize::from(uses);
        for one in mistakes {
            found
                .entry((one, owner(pod)))
                .or_default()
                .push(text(&pod["metadata"], "name").to_owned());
        }
    }
    if using == 0 {
        return report.note(
            A,
            "no pod has http_proxy set: nobody uses the routers yet; `rutter proxy-env` adds it",
        );
    }
    if found.is_empty() {
        return report.ok(
            A,
            format!("{using} pods use the routers, all with an address that leads to one"),
        );
    }
    for ((mistake, owner), pods) in found {
        let count = match pods.len() {
            1 => format!("pod {}", pods[0]),
            n if n <= NAMED => format!("pods {}", pods.join(", ")),
            n => format!("{n} pods ({}, …)", pods[..NAMED].join(", ")),
        };
        let message = format!("{owner}, {count}: {}", mistake.what);
        if is_error(mistake.code) {
            report.fail(mistake.code, A, message);
        } else {
            report.warn(mistake.code, A, message);
        }
    }
}

/// Requests fail because of it, always.
fn is_error(code: Check) -> bool {
    matches!(
        code,
        Check::C031 | Check::C032 | Check::C033 | Check::C036 | Check::C038
    )
}

/// `deploy/hello` of a pod, by its first owner.
fn owner(pod: &Value) -> String {
    let namespace = text(&pod["metadata"], "namespace");
    let owner = list(&pod["metadata"], "ownerReferences").next();
    let Some(owner) = owner else {
        return format!("{namespace}/pod");
    };
    let (kind, name) = (text(owner, "kind"), text(owner, "name"));
    match name.rsplit_once('-') {
        // A ReplicaSet is its Deployment's name and a hash.
        Some((deployment, _)) if kind == "ReplicaSet" => format!("{namespace}/deploy/{deployment}"),
        _ => format!("{namespace}/{}/{name}", kind.to_lowercase()),
    }
}

/// A container's variables, with what they refer to put in.
struct Env {
    values: Vec<(String, Given)>,
    from_elsewhere: bool,
}

/// What a variable holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Text(String),
    /// A field of the pod.
    Field(String),
    /// A ConfigMap's or a Secret's: not looked at.
    Elsewhere,
}

impl Env {
    fn of(container: &Value) -> Self {
        let mut env = Self {
            values: Vec::new(),
            from_elsewhere: list(container, "envFrom").next().is_some(),
        };
        for one in list(container, "env") {
            let given = match (
                one["value"].as_str(),
                one["valueFrom"]["fieldRef"]["fieldPath"].as_str(),
            ) {
                (Some(value), _) => Given::Text(env.expanded(value)),
                (None, Some(field)) => Given::Field(field.to_owned()),
                (None, None) if one["valueFrom"].is_object() => Given::Elsewhere,
                (None, None) => Given::Text(String::new()),
            };
            env.values.push((text(one, "name").to_owned(), given));
        }
        env
    }

    /// As Kubernetes does it: `$(NAME)` of variables that stand before; fields become `{field}` here.
    fn expanded(&self, value: &str) -> String {
        let mut out = String::new();
        let mut rest = value;
        while let Some(at) = rest.find("$(") {
            let Some(end) = rest[at..].find(')') else {
                break;
            };
            let name = &rest[at + 2..at + end];
            out.push_str(&rest[..at]);
            match self.values.iter().rev().find(|(n, _)| n == name) {
                Some((_, Given::Text(text))) => out.push_str(text),
                Some((_, Given::Field(field))) => out.push_str(&format!("{{{field}}}")),
                Some((_, Given::Elsewhere)) => out.push_str("{elsewhere}"),
                None if self.from_elsewhere => out.push_str("{elsewhere}"),
                None => out.push_str(&rest[at..=at + end]),
            }
            rest = &rest[at + end + 1..];
        }
        out + rest
    }

    fn get(&self, name: &str) -> Option<String> {
        let (_, given) = self.values.iter().rev().find(|(n, _)| n == name)?;
        Some(match given {
            Given::Text(text) => text.clone(),
            Given::Field(field) => format!("{{{field}}}"),
            Given::Elsewhere => "{elsewhere}".to_owned(),
        })
    }
}

/// What can be said without knowing the cluster.
fn settings(env: &Env) -> Vec<Mistake> {
    let mut found = Vec::new();
    if env.get("http_proxy").is_none() {
        found.push(mistake(
            Check::C037,
            "only HTTP_PROXY is set; curl and others read http_proxy",
        ));
    }
    let proxy = env.get("http_proxy").or_else(|| env.get("HTTP_PROXY"));
    let https = env.get("https_proxy").or_else(|| env.get("HTTPS_PROXY"));
    if https.is_some() && https == proxy {
        found.push(mistake(
            Check::C034,
            "https_proxy is the router, which makes no tunnels",
        ));
    }
    let none = env
        .get("no_proxy")
        .or_else(|| env.get("NO_PROXY"))
        .unwrap_or_default();
    let has = |name: &str| {
        none.split(',')
            .any(|one| one.trim() == name || one.trim() == "*")
    };
    let whole = has("localhost") && has("127.0.0.1");
    if !whole && !none.contains("{elsewhere}") {
        found.push(mistake(
            Check::C035,
            "no_proxy has not both localhost and 127.0.0.1",
        ));
    }
    found
}

/// Whether an address is a router's.
async fn address(
    kube: &Kube,
    routers: &Routers,
    resolver: &mut Resolver,
    env: &Env,
    proxy: &str,
    pod: &Value,
) -> Option<Mistake> {
    if proxy.contains("{elsewhere}") || proxy.is_empty() {
        return None;
    }
    if let Some(at) = proxy.find("$(") {
        let name = proxy[at..].split(')').next().unwrap_or_default();
        let later = env.values.iter().any(|(n, _)| *n == name[2..]);
        let why = if later {
            "is defined below it"
        } else {
            "is not defined"
        };
        return Some(mistake(
            Check::C036,
            format!("http_proxy is {proxy:?}, and {name}) {why}"),
        ));
    }
    let (host, port) = split(proxy);
    let node = text(&pod["spec"], "nodeName");
    let wrong_port = |allowed: &[u16]| {
        (!allowed.is_empty() && !allowed.contains(&port)).then(|| {
            let ports: Vec<String> = allowed.iter().map(u16::to_string).collect();
            mistake(
                Check::C032,
                format!(
                    "http_proxy {proxy} has port {port}; the router's is {}",
                    ports.join(", ")
                ),
            )
        })
    };
    let own_node = || {
        let missing = routers
            .nodes
            .as_ref()
            .is_some_and(|nodes| !node.is_empty() && !nodes.contains(node));
        missing.then(|| mistake(Check::C038, format!("node {node} has no ready router")))
    };
    match host {
        "{status.hostIP}" => wrong_port(&routers.ports).or_else(own_node),
        "{spec.nodeName}" => {
            if !node.is_empty() && !resolver.resolves(node).await {
                return Some(mistake(
                    Check::C031,
                    format!(
                        "http_proxy is the node's name, and {node} does not resolve; use status.hostIP"
                    ),
                ));
            }
            wrong_port(&routers.ports).or_else(own_node)
        }
        "{status.podIP}" | "localhost" => Some(mistake(
            Check::C033,
            format!("http_proxy {proxy} is the pod itself"),
        )),
        _ => match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => by_address(routers, ip, pod, proxy, &wrong_port),
            Err(_) => by_name(kube, routers, host, port, proxy, pod).await,
        },
    }
}

fn by_address(
    routers: &Routers,
    ip: IpAddr,
    pod: &Value,
    proxy: &str,
    wrong_port: &dyn Fn(&[u16]) -> Option<Mistake>,
) -> Option<Mistake> {
    let told = ip.to_string();
    if text(&pod["status"], "hostIP") == told || routers.addresses.contains(&told) {
        return wrong_port(&routers.ports);
    }
    match routers
        .services
        .iter()
        .find(|service| service.address == told)
    {
        Some(service) => wrong_port(&service.ports),
        None => Some(mistake(
            Check::C033,
            format!(
                "http_proxy {proxy} is neither the pod's node nor a router nor a Service of routers"
            ),
        )),
    }
}

async fn by_name(
    kube: &Kube,
    routers: &Routers,
    host: &str,
    port: u16,
    proxy: &str,
    pod: &Value,
) -> Option<Mistake> {
    let host = host.trim_end_matches('.');
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    let namespace = labels.next().unwrap_or(text(&pod["metadata"], "namespace"));
    if !matches!(
        labels.collect::<Vec<_>>().as_slice(),
        [] | ["svc"] | ["svc", "cluster", "local"]
    ) {
        return None; // a name outside the cluster: nobody here can say
    }
    if let Some(service) = routers
        .services
        .iter()
        .find(|s| s.name == name && s.namespace == namespace)
    {
        let ports: Vec<String> = service.ports.iter().map(u16::to_string).collect();
        return (!service.ports.contains(&port)).then(|| {
            mistake(
                Check::C032,
                format!(
                    "http_proxy {proxy} has port {port}; that of Service {namespace}/{name} is {}",
                    ports.join(", ")
                ),
            )
        });
    }
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    match kube.get(&path).await {
        Found::Missing => Some(mistake(
            Check::C031,
            format!(
                "http_proxy {proxy}: there is no Service {namespace}/{name}, so the name does not resolve"
            ),
        )),
        Found::Object(service) if selects(&service["spec"]["selector"], &routers.labels) => {
            let leads = list(&service["spec"], "ports").any(|p| {
                p["port"] == port
                    && routers
                        .ports
                        .iter()
                        .any(|to| leads_to(p, *to, &routers.container))
            });
            (!leads).then(|| mistake(Check::C032, format!("http_proxy {proxy}: Service {namespace}/{name} has no port {port} that leads to the outgoing router")))
        }
        Found::Object(_) => Some(mistake(
            Check::C033,
            format!("http_proxy {proxy}: Service {namespace}/{name} does not lead to routers"),
        )),
        Found::Unknown(_) => None,
    }
}

/// Host and port of a proxy's address; 80 when it has none, as curl 1080, and others differ.
fn split(proxy: &str) -> (&str, u16) {
    let rest = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, port.parse().unwrap_or(0)),
        _ => (rest, 80),
    }
}

/// Which node names resolve, as far as this machine knows.
#[derive(Default)]
struct Resolver {
    known: BTreeMap<String, bool>,
}

impl Resolver {
    async fn resolves(&mut self, name: &str) -> bool {
        if let Some(&known) = self.known.get(name) {
            return known;
        }
        let found = tokio::time::timeout(
            std::time::Duration::from_secs(3),
            tokio::net::lookup_host((name, 80)),
        );
        let found = match found.await {
            Ok(Ok(mut addrs)) => addrs.next().is_some(),
            _ => false,
        };
        self.known.insert(name.to_owned(), found);
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_refer_to_those_before_them_only() {
        let env = Env::of(&json!({"env": [
            {"name": "A", "value": "1$(LATER)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "http_proxy", "value": "http://$(IP):4140/$(A)"},
            {"name": "LATER", "value": "x"},
        ]}));
        assert_eq!(
            env.get("http_proxy").unwrap(),
            "http://{status.hostIP}:4140/1$(LATER)"
        );
        let env =
            Env::of(&json!({"envFrom": [{}], "env": [{"name": "http_proxy", "value": "$(X):1"}]}));
        assert_eq!(env.get("http_proxy").unwrap(), "{elsewhere}:1");
    }

    #[test]
    fn a_proxy_is_split_into_host_and_port() {
        for (proxy, host, port) in [
            ("http://a:4140", "a", 4140),
            ("a:4140/", "a", 4140),
            ("http://u:p@a.b:1", "a.b", 1),
            ("http://[::1]:4140", "[::1]", 4140),
            ("http://[::1]", "[::1]", 80),
            ("a", "a", 80),
        ] {
            assert_eq!(split(proxy), (host, port), "{proxy}");
        }
    }

    #[test]
    fn a_pods_owner_is_its_deployment() {
        let pod = |kind: &str, name: &str| json!({"metadata": {"namespace": "default", "ownerReferences": [{"kind": kind, "name": name}]}});
        assert_eq!(
            owner(&pod("ReplicaSet", "hello-5f9c")),
            "default/deploy/hello"
        );
        assert_eq!(owner(&pod("StatefulSet", "db")), "default/statefulset/db");
        assert_eq!(owner(&json!({"metadata": {"namespace": "x"}})), "x/pod");
    }
}
