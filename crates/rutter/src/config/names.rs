//! `namers[]`, `interpreter`, `transformers[]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtab::Path;
use namerd::client::{ClientConfig, Protocol};
use namerd::store::Namespace;
use naming::namers::ConsulConfig;
use naming::namers::consul::{Consistency, Health};
#[cfg(feature = "zookeeper")]
use naming::namers::{ZkConfig, ZkKind};

use super::settings::{
    ConfigMapSettings, InterpreterSettings, K8sApi, K8sKind, NamerSettings, NamerSource,
    TransformerKind, TransformerSettings,
};
use super::{At, Environment, Purpose, tls};

/// As Linkerd 1's: where `kubectl proxy` listens.
const K8S_PORT: u16 = 8001;
/// The first wait for a store that does not answer.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The longest one.
const STORE_RETRY_MAX: Duration = Duration::from_secs(30);
/// As Linkerd 1's `failureThreshold` of `io.l5d.mesh`, where it is given.
const STORE_PING: Duration = Duration::from_secs(5);
const STORE_PONG: Duration = Duration::from_secs(6);
/// As Linkerd 1's `failureThreshold` of `io.l5d.namerd`.
const STORE_PONG_MUX: Duration = Duration::from_secs(4);
/// As Linkerd 1's `initialStreamWindowSizeKB`.
const STREAM_WINDOW_KB: u64 = 10_240;
/// HTTP/2 knows no larger one.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// As Linkerd 1's `io.l5d.consul`.
const CONSUL_PORT: u16 = 8500;
/// As Linkerd 1's `refreshIntervalSeconds`.
const SRV_REFRESH: Duration = Duration::from_secs(5);
const DNS_PORT: u16 = 53;
/// As Linkerd 1's `zkAddrs`.
#[cfg(feature = "zookeeper")]
const ZK_PORT: u16 = 2181;

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
        "io.l5d.dnssrv" => dnssrv(at),
        "io.l5d.consul" => consul(at, &prefix(at, &kind)),
        #[cfg(feature = "zookeeper")]
        "io.l5d.serversets" => zookeeper(at, ZkKind::Serverset, prefix(at, &kind)),
        #[cfg(feature = "zookeeper")]
        "io.l5d.zkLeader" => zookeeper(at, ZkKind::Leader, prefix(at, &kind)),
        _ => return None,
    };
    let prefix = prefix(at, &kind);
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

fn prefix(at: &At<'_>, kind: &str) -> Path {
    at.get("prefix")
        .name()
        .unwrap_or_else(|| Path::utf8([kind]))
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
pub(super) fn api(host: &At<'_>, port: &At<'_>, environment: &Environment) -> K8sApi {
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

fn dnssrv(at: &At<'_>) -> NamerSource {
    let server = |host: &At<'_>| {
        let text = host.string()?;
        let parsed = server(&text);
        if parsed.is_none() {
            host.error(
                format!("`{text}` is no DNS server"),
                "a name or an IP address, with `:PORT` behind it if it is not 53; an IPv6 address with a port stands in brackets",
            );
        }
        parsed
    };
    NamerSource::DnsSrv {
        refresh: at
            .get("refreshIntervalSeconds")
            .seconds()
            .unwrap_or(SRV_REFRESH),
        servers: at
            .get("dnsHosts")
            .items()
            .iter()
            .filter_map(server)
            .collect(),
    }
}

/// `HOST`, `HOST:PORT`, `[IPv6]:PORT` or a plain IPv6 address.
fn server(text: &str) -> Option<(Arc<str>, u16)> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some((addr.ip().to_string().into(), addr.port()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_string().into(), DNS_PORT));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, DNS_PORT),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.chars().all(fits)).then(|| (host.into(), port))
}

fn consul(at: &At<'_>, prefix: &Path) -> NamerSource {
    let token = at.get("token");
    let token_text = token.string();
    let fits = |c: char| c.is_ascii_graphic() || c == ' ';
    if token_text
        .as_ref()
        .is_some_and(|text| !text.chars().all(fits))
    {
        token.error(
            "`token` cannot be sent",
            "it goes into a header: letters, digits and signs of ASCII only",
        );
    }
    let set_host = at.get("setHost");
    if set_host.bool() == Some(true) {
        set_host.error(
            "`setHost: true` is not supported",
            "requests are sent with the host they came with, in this version; see docs/linkerd1.md",
        );
    }
    let health = |status: &At<'_>| {
        Some(match status.string()?.as_str() {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            "critical" => Health::Critical,
            "maintenance" => Health::Maintenance,
            _ => return None,
        })
    };
    let statuses = at.get("healthStatuses");
    let mut statuses: Vec<_> = statuses.items().iter().filter_map(health).collect();
    if statuses.is_empty() {
        statuses.push(Health::Passing);
    }
    let weight = |one: &At<'_>| Some((one.get("tag").string()?, one.get("weight").f64()?));
    NamerSource::Consul(Box::new(ConsulConfig {
        prefix: prefix.clone(),
        host: at
            .get("host")
            .string()
            .unwrap_or_else(|| "localhost".into()),
        port: at.get("port").u16().unwrap_or(CONSUL_PORT),
        include_tag: at.get("includeTag").bool().unwrap_or(false),
        statuses: at
            .get("useHealthCheck")
            .bool()
            .unwrap_or(false)
            .then_some(statuses),
        token: token_text,
        set_host: false,
        consistency: match at.get("consistencyMode").string().as_deref() {
            Some("stale") => Consistency::Stale,
            Some("consistent") => Consistency::Consistent,
            _ => Consistency::Default,
        },
        prefer_service_address: at.get("preferServiceAddress").bool().unwrap_or(true),
        weights: at
            .get("weights")
            .items()
            .iter()
            .filter_map(weight)
            .collect(),
    }))
}

#[cfg(feature = "zookeeper")]
fn zookeeper(at: &At<'_>, kind: ZkKind, prefix: Path) -> NamerSource {
    NamerSource::ZooKeeper(ZkConfig {
        prefix,
        kind,
        servers: zookeeper_servers(at),
    })
}

/// `zkAddrs`.
#[cfg(feature = "zookeeper")]
pub(super) fn zookeeper_servers(at: &At<'_>) -> Vec<(Arc<str>, u16)> {
    let servers = at.get("zkAddrs");
    if servers.is_given() && servers.items().is_empty() {
        servers.error(
            "`zkAddrs` names no server",
            "at least one, such as `[{host: zookeeper.local, port: 2181}]`",
        );
    }
    let server = |one: &At<'_>| {
        let host = one.get("host");
        let text = host.string()?;
        let address = text.parse::<IpAddr>().is_ok();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !address && (text.is_empty() || !text.chars().all(fits)) {
            host.error(
                format!("`{text}` is no host"),
                "a name or an IP address; the port is a key of its own, `port`",
            );
        }
        let port = one.get("port").u16().unwrap_or(ZK_PORT);
        Some((text.into(), port))
    };
    servers.items().iter().filter_map(server).collect()
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
    let kind = at.tag("kind", "default");
    InterpreterSettings {
        dtab_file: (kind == "io.l5d.fs")
            .then(|| at.get("dtabFile").string().map(PathBuf::from))
            .flatten(),
        config_map: (kind == "io.l5d.k8s.configMap")
            .then(|| config_map(at, environment))
            .flatten(),
        store: store(at, &kind),
        store_tls: match kind.as_str() {
            "io.l5d.namerd.http" | "io.l5d.mesh" => tls::store(&at.get("tls")),
            "io.l5d.namerd" => tls::thrift_store(&at.get("tls")),
            _ => None,
        },
        transformers: transformers(&at.get("transformers"), environment),
    }
}

/// As Linkerd 1's keys; it waits up to 10 min, too long for a store that is only restarted.
fn store(at: &At<'_>, kind: &str) -> Option<ClientConfig> {
    let protocol = match kind {
        "io.l5d.namerd.http" => Protocol::Http,
        "io.l5d.mesh" => Protocol::Mesh {
            window: window(&at.get("initialStreamWindowSizeKB")),
        },
        "io.l5d.namerd" => Protocol::Thrift,
        _ => return None,
    };
    let retry = at.get("retry");
    let seconds = |key: &str, default: Duration| retry.get(key).seconds().unwrap_or(default);
    let base = seconds("baseSeconds", STORE_RETRY);
    let max = seconds("maxSeconds", STORE_RETRY_MAX);
    if base > max {
        retry.error(
            "`baseSeconds` must not be more than `maxSeconds`",
            format!("found {} and {}", base.as_secs(), max.as_secs()),
        );
    }
    let threshold = at.get("failureThreshold");
    let millis = |key: &str, default: Duration| threshold.get(key).millis().unwrap_or(default);
    let pong = match protocol {
        Protocol::Thrift => STORE_PONG_MUX,
        _ => STORE_PONG,
    };
    let liveness = (
        millis("minPeriodMs", STORE_PING),
        millis("closeTimeoutMs", pong),
    );
    let namespace = match protocol {
        Protocol::Http | Protocol::Thrift => namespace_name(&at.get("namespace")),
        Protocol::Mesh { .. } => root(&at.get("root")),
    };
    let dst = at.get("dst");
    let path = dst.name()?;
    let segments: Vec<_> = path.segments().iter().map(|one| one.as_str()).collect();
    if let [Some("$"), Some("inet"), Some(host), Some(port)] = segments[..]
        && let Ok(port) = port.parse()
    {
        return Some(ClientConfig {
            protocol,
            host: host.into(),
            port,
            namespace,
            retry: (base, max),
            liveness,
            token: at
                .get("tokenPath")
                .text()
                .map(|path| std::path::Path::new(&*path).into()),
        });
    }
    dst.error(
        "`dst` must be `/$/inet/HOST/PORT`: a store is not found through namers in this version",
        "such as `/$/inet/namerd.default.svc.cluster.local/4180`",
    );
    None
}

fn window(at: &At<'_>) -> u32 {
    let kilobytes = at.u64().unwrap_or(STREAM_WINDOW_KB);
    u32::try_from(kilobytes * 1024)
        .unwrap_or(u32::MAX)
        .min(MAX_WINDOW)
}

fn namespace_name(at: &At<'_>) -> Arc<str> {
    let name = at.text().unwrap_or_else(|| "default".into());
    if let Err(error) = Namespace::new(&name) {
        at.error(error.to_string(), "such as `default`");
    }
    name
}

/// As Linkerd: one segment.
fn root(at: &At<'_>) -> Arc<str> {
    let root = at.name().unwrap_or_else(|| Path::utf8(["default"]));
    if let [one] = root.segments()
        && let Some(name) = one.as_str()
        && Namespace::new(name).is_ok()
    {
        return name.into();
    }
    at.error(
        format!("`root` may only contain a single path element (for now): {root}"),
        "it names the namespace, such as `/default`",
    );
    "default".into()
}

fn config_map(at: &At<'_>, environment: &Environment) -> Option<ConfigMapSettings> {
    let namespace = at.get("namespace").text();
    Some(ConfigMapSettings {
        api: api(&at.get("host"), &at.get("port"), environment),
        namespace: namespace.unwrap_or_else(|| "default".into()),
        name: at.get("name").text()?,
        filename: at.get("filename").text()?,
    })
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
