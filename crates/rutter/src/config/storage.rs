//! `storage` of the store's file.

use std::path::PathBuf;
#[cfg(feature = "zookeeper")]
use std::time::Duration;

use dtab::Dtab;
use k8s::ApiTarget;
use namerd::store::Namespace;
use namerd::store::consul::{Consistency, ConsulStoreConfig};
use namerd::store::etcd::EtcdConfig;
use namerd::store::kubernetes::{KubernetesConfig, Shape};
#[cfg(feature = "zookeeper")]
use namerd::store::zookeeper::ZkStoreConfig;
#[cfg(feature = "zookeeper")]
use naming::namers::zookeeper::client::{Acl, ClientConfig};

use super::At;
#[cfg(feature = "zookeeper")]
use super::names;
use super::yaml::Value;

/// As Linkerd's `io.l5d.consul`.
const CONSUL_PORT: u16 = 8500;
/// As Linkerd's `io.l5d.etcd`.
const ETCD_PORT: u16 = 2379;
/// As Linkerd's `io.l5d.zk`.
#[cfg(feature = "zookeeper")]
const ZK_PREFIX: &str = "/dtabs";
/// As Linkerd's `io.l5d.zk`.
#[cfg(feature = "zookeeper")]
const ZK_TIMEOUT: Duration = Duration::from_secs(10);
/// As Linkerd's `io.l5d.etcd` and `io.l5d.consul`.
const PATH_PREFIX: &str = "/namerd/dtabs";

/// `storage`.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageSettings {
    /// `file`.
    File(PathBuf),
    /// `io.l5d.inMemory`, with what is in it to begin with.
    Memory(Vec<(Namespace, Dtab)>),
    /// `io.l5d.k8s` and `io.rutter.k8s.configMap`.
    Kubernetes(KubernetesConfig),
    /// `io.l5d.etcd`.
    Etcd(EtcdConfig),
    /// `io.l5d.consul`.
    Consul(ConsulStoreConfig),
    /// `io.l5d.zk`.
    #[cfg(feature = "zookeeper")]
    ZooKeeper(ZkStoreConfig),
}

pub(super) fn storage(at: &At<'_>) -> Option<StorageSettings> {
    at.get("experimental");
    match at.tag("kind", "").as_str() {
        "file" => Some(StorageSettings::File(at.get("path").string()?.into())),
        "io.l5d.inMemory" => {
            let namespaces = at.get("namespaces");
            let Some(Value::Map(entries)) = namespaces.node().map(|node| &node.value) else {
                return Some(StorageSettings::Memory(Vec::new()));
            };
            let dtabs = entries.iter().filter_map(|entry| {
                let dtab = namespaces.get(&entry.key);
                match Namespace::new(&entry.key) {
                    Ok(name) => Some((name, dtab.dtab()?)),
                    Err(error) => {
                        dtab.error(error.to_string(), "give it another name");
                        None
                    }
                }
            });
            Some(StorageSettings::Memory(dtabs.collect()))
        }
        "io.l5d.k8s" => Some(kubernetes(at, Shape::Dtab)),
        "io.rutter.k8s.configMap" => Some(kubernetes(at, Shape::ConfigMap)),
        "io.l5d.etcd" => Some(StorageSettings::Etcd(etcd(at))),
        "io.l5d.consul" => Some(StorageSettings::Consul(consul(at))),
        #[cfg(feature = "zookeeper")]
        "io.l5d.zk" => Some(StorageSettings::ZooKeeper(zookeeper(at))),
        _ => None,
    }
}

fn kubernetes(at: &At<'_>, shape: Shape) -> StorageSettings {
    let (host, port) = (at.get("host").string(), at.get("port").u16());
    let namespace = at.get("namespace").string();
    StorageSettings::Kubernetes(KubernetesConfig {
        target: ApiTarget::configured(host.as_deref(), port),
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        shape,
    })
}

fn etcd(at: &At<'_>) -> EtcdConfig {
    let (host, port) = (at.get("host"), at.get("port"));
    let endpoints = at.get("endpoints");
    if endpoints.is_given() && (host.is_given() || port.is_given()) {
        endpoints.error(
            "`endpoints` and `host` or `port` both say where etcd is",
            "put them all into `endpoints`",
        );
    }
    let mut members: Vec<String> = Vec::new();
    for item in endpoints.items() {
        let Some(text) = item.string() else { continue };
        let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) || text.contains('/') {
            item.error(
                format!("expected a member of etcd as `host:port`, found `{text}`"),
                "such as `etcd-0.etcd:2379`",
            );
        }
        members.push(text);
    }
    if members.is_empty() {
        let host = host.string().unwrap_or_else(|| "localhost".to_owned());
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        members.push(format!("{host}:{}", port.u16().unwrap_or(ETCD_PORT)));
    }
    EtcdConfig {
        members,
        path_prefix: path_prefix(at, PATH_PREFIX),
    }
}

fn consul(at: &At<'_>) -> ConsulStoreConfig {
    for ignored in ["writeConsistencyMode", "failFast", "backoff"] {
        at.get(ignored);
    }
    let token = at.get("token");
    let text = token.string();
    if text
        .as_deref()
        .is_some_and(|text| http::HeaderValue::from_str(text).is_err())
    {
        token.error(
            "`token` cannot be sent in a header",
            "it has a line end or another control character",
        );
    }
    let consistency = match at.get("readConsistencyMode").string().as_deref() {
        Some("stale") => Consistency::Stale,
        Some("consistent") => Consistency::Consistent,
        _ => Consistency::Default,
    };
    ConsulStoreConfig {
        host: at
            .get("host")
            .string()
            .unwrap_or_else(|| "localhost".to_owned()),
        port: at.get("port").u16().unwrap_or(CONSUL_PORT),
        path_prefix: path_prefix(at, PATH_PREFIX)
            .trim_start_matches('/')
            .to_owned(),
        token: text,
        datacenter: at.get("datacenter").string(),
        consistency,
    }
}

#[cfg(feature = "zookeeper")]
fn zookeeper(at: &At<'_>) -> ZkStoreConfig {
    let acls = at.get("acls");
    let mut all: Vec<_> = acls.items().iter().filter_map(acl).collect();
    if !acls.is_given() {
        all.push(Acl {
            scheme: "world".to_owned(),
            id: "anyone".to_owned(),
            perms: 31,
        });
    }
    let auth = at.get("authInfo");
    let auth = auth.get("scheme").string().zip(auth.get("auth").string());
    let timeout = at.get("sessionTimeoutMs").u64().map(Duration::from_millis);
    let client = ClientConfig {
        servers: names::zookeeper_servers(at),
        timeout: timeout.unwrap_or(ZK_TIMEOUT),
        auth,
        acls: all,
    };
    ZkStoreConfig {
        client,
        path_prefix: path_prefix(at, ZK_PREFIX),
    }
}

#[cfg(feature = "zookeeper")]
fn acl(at: &At<'_>) -> Option<Acl> {
    let perms = at.get("perms");
    let letters = perms.string()?;
    let mut mask = 0;
    for letter in letters.chars() {
        match "rwcda".find(letter) {
            Some(bit) => mask |= 1 << bit,
            None => perms.error(
                format!("expected letters of `crwda`, found `{letters}`"),
                "such as `cdrwa` for everything, or `r`",
            ),
        }
    }
    Some(Acl {
        scheme: at.get("scheme").string()?,
        id: at.get("id").string()?,
        perms: mask,
    })
}

/// Without a slash at its end.
fn path_prefix(at: &At<'_>, default: &str) -> String {
    let given = at.get("pathPrefix").string();
    let prefix = given.unwrap_or_else(|| default.to_owned());
    prefix.trim_end_matches('/').to_owned()
}
