//! `namers[]`, `interpreter`, `transformers[]`.

use std::path::PathBuf;
use std::sync::Arc;

use dtab::Path;

use super::settings::{
    InterpreterSettings, K8sApi, K8sKind, NamerSettings, NamerSource, TransformerKind,
    TransformerSettings,
};
use super::{At, Environment, Purpose};

/// As Linkerd 1's: where `kubectl proxy` listens.
const K8S_PORT: u16 = 8001;

pub(super) fn namer(at: &At<'_>, environment: &Environment) -> Option<NamerSettings> {
    let kind = at.tag("kind", "");
    at.get("experimental");
    let source = match kind.as_str() {
        "io.l5d.fs" => NamerSource::Fs {
            root: at.get("rootDir").string().map(PathBuf::from)?,
        },
        "io.l5d.k8s" => k8s(at, K8sKind::Everywhere, environment),
        "io.l5d.k8s.ns" => {
            let namespace = namespace(at, environment)?;
            k8s(at, K8sKind::Namespace(namespace), environment)
        }
        "io.l5d.k8s.external" => k8s(at, K8sKind::External, environment),
        "io.l5d.rewrite" => rewrite(at)?,
        _ => return None,
    };
    let prefix = at
        .get("prefix")
        .name()
        .unwrap_or_else(|| Path::utf8([kind.as_str()]));
    if prefix.is_empty() {
        at.get("prefix").error(
            "a namer's `prefix` must not be `/`",
            "it is what a dtab writes behind `/#`",
        );
    }
    Some(NamerSettings {
        prefix,
        transformers: transformers(&at.get("transformers"), environment),
        source,
    })
}

fn k8s(at: &At<'_>, kind: K8sKind, environment: &Environment) -> NamerSource {
    NamerSource::K8s {
        api: api(&at.get("host"), &at.get("port"), environment),
        kind,
        label_selector: at.get("labelSelector").text(),
    }
}

/// A given host or port is a `kubectl proxy`. Otherwise the API server is asked itself, inside a pod or where a kubeconfig
/// says where it is; where neither is, a proxy is looked for at Linkerd 1's default.
fn api(host: &At<'_>, port: &At<'_>, environment: &Environment) -> K8sApi {
    let given = host.is_given() || port.is_given();
    let host = host.text().unwrap_or_else(|| "localhost".into());
    let own_pod = matches!(&*host, "localhost" | "127.0.0.1" | "::1");
    let knows = environment.in_pod || environment.has_kubeconfig();
    if knows && !given || environment.in_pod && own_pod && environment.asks_directly() {
        return K8sApi::InCluster;
    }
    K8sApi::Proxy {
        host,
        port: port.u16().unwrap_or(K8S_PORT),
    }
}

fn namespace(at: &At<'_>, environment: &Environment) -> Option<Arc<str>> {
    let variable = at
        .get("envVar")
        .string()
        .unwrap_or_else(|| "POD_NAMESPACE".into());
    if let Some(value) = environment
        .variables
        .get(&variable)
        .filter(|v| !v.is_empty())
    {
        return Some(value.as_str().into());
    }
    needs(
        at,
        environment,
        &format!("could not find the namespace: the environment variable {variable} is not set"),
        &variable,
        "metadata.namespace",
    )
    .then(|| "default".into())
}

fn rewrite(at: &At<'_>) -> Option<NamerSource> {
    let name = at.get("name");
    let text = name.text()?;
    if !text.starts_with('/') {
        name.error(
            "`name` must be a path",
            "it begins with `/`, such as `/k8s/{ns}/{port}/{svc}`",
        );
    }
    let pattern = at.get("pattern");
    let known = pattern.string().map(|p| captures(&p)).unwrap_or_default();
    for used in captures(&text).iter().filter(|c| !known.contains(c)) {
        name.error(
            format!("`name` uses {{{used}}}, which `pattern` does not capture"),
            format!(
                "captured there: {}",
                if known.is_empty() {
                    "nothing".into()
                } else {
                    known.join(", ")
                }
            ),
        );
    }
    Some(NamerSource::Rewrite {
        pattern: pattern.pattern()?,
        name: text,
    })
}

/// The names in braces.
fn captures(text: &str) -> Vec<String> {
    text.split('{')
        .skip(1)
        .filter_map(|part| part.split_once('}'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

pub(super) fn interpreter(at: &At<'_>, environment: &Environment) -> InterpreterSettings {
    at.get("experimental");
    let dtab_file = match at.tag("kind", "default").as_str() {
        "io.l5d.fs" => at.get("dtabFile").string().map(PathBuf::from),
        _ => None,
    };
    InterpreterSettings {
        dtab_file,
        transformers: transformers(&at.get("transformers"), environment),
    }
}

fn transformers(at: &At<'_>, environment: &Environment) -> Vec<TransformerSettings> {
    at.items()
        .iter()
        .filter_map(|t| transformer(t, environment))
        .collect()
}

fn transformer(at: &At<'_>, environment: &Environment) -> Option<TransformerSettings> {
    let kind = at.tag("kind", "");
    at.get("experimental");
    let (what, behind) = match kind.as_str() {
        "io.l5d.k8s.daemonset" => daemonset(at, environment)?,
        "io.l5d.k8s.localnode" => local_node(at, environment)?,
        "io.l5d.port" => {
            let port = at.get("port").u16()?;
            (TransformerKind::Port(port), vec![port.to_string().into()])
        }
        "io.l5d.localhost" => (TransformerKind::Localhost, vec![]),
        "io.l5d.specificHost" => (TransformerKind::SpecificHost(at.get("host").ip()?), vec![]),
        "io.l5d.const" => (TransformerKind::Const(at.get("path").name()?), vec![]),
        "io.l5d.replace" => (TransformerKind::Replace(at.get("path").name()?), vec![]),
        _ => return None,
    };
    let default =
        || Path::utf8(std::iter::once(kind.as_str()).chain(behind.iter().map(AsRef::as_ref)));
    Some(TransformerSettings {
        prefix: at.get("prefix").name().unwrap_or_else(default),
        kind: what,
    })
}

type KindAndSegments = (TransformerKind, Vec<Arc<str>>);

fn daemonset(at: &At<'_>, environment: &Environment) -> Option<KindAndSegments> {
    let (namespace, service, port) = (
        at.get("namespace").text()?,
        at.get("service").text()?,
        at.get("port").text()?,
    );
    let behind = vec![namespace.clone(), port.clone(), service.clone()];
    let kind = TransformerKind::DaemonSet {
        api: api(&at.get("k8sHost"), &at.get("k8sPort"), environment),
        namespace,
        service,
        port,
        host_network: at.get("hostNetwork").bool().unwrap_or(false),
    };
    Some((kind, behind))
}

/// Which node this is comes from the pod's environment: Linkerd 1 takes POD_IP, or NODE_NAME on the host's network; we take either.
fn local_node(at: &At<'_>, environment: &Environment) -> Option<KindAndSegments> {
    let host_network = at.get("hostNetwork").bool().unwrap_or(false);
    let (pod_ip, node_name) = (environment.pod_ip, environment.node_name.clone());
    let shown: Option<Arc<str>> = match (host_network, pod_ip, &node_name) {
        (true, _, name) => name.clone(),
        (false, Some(ip), _) => Some(ip.to_string().into()),
        (false, None, name) => name.clone(),
    };
    if shown.is_none() {
        let (what, variable, field) = if host_network {
            (
                "NODE_NAME env variable must be set to the node's name",
                "NODE_NAME",
                "spec.nodeName",
            )
        } else {
            (
                "POD_IP env variable must be set to the pod's IP",
                "POD_IP",
                "status.podIP",
            )
        };
        if !needs(at, environment, what, variable, field) {
            return None;
        }
    }
    let kind = TransformerKind::LocalNode {
        pod_ip,
        node_name,
        host_network,
    };
    Some((kind, vec![shown.unwrap_or_else(|| "this-node".into())]))
}

/// A variable that only a pod has is missing: an error where the router is to start, else a warning. True when it may stay so.
fn needs(
    at: &At<'_>,
    environment: &Environment,
    message: &str,
    variable: &str,
    field: &str,
) -> bool {
    let help = format!(
        "in the pod's template: `env: [{{name: {variable}, valueFrom: {{fieldRef: {{fieldPath: {field}}}}}}}]`"
    );
    if environment.purpose == Purpose::Start || environment.in_pod {
        at.error(message, help);
        return false;
    }
    if environment.purpose == Purpose::Check {
        at.warning(message, help);
    }
    true
}
