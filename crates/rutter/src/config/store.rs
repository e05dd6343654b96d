//! The file of `rutter namerd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use router::settings::ServerTls;
use serde_json::Value as Json;

use super::access::{AccessSettings, access};
use super::keys::{Ty, store as keys};
use super::problem::Problems;
use super::read::Reading;
use super::settings::{AdminSettings, NamerSettings};
use super::storage::{self, StorageSettings};
use super::validate::Validator;
use super::yaml::{self, Node};
use super::{At, Environment, names, tls, top};

/// As Linkerd's namerd.
const ADMIN_PORT: u16 = 9991;
/// As Linkerd's namerd: the kinds of interfaces and their ports.
const INTERFACES: [(&str, InterfaceKind, u16); 3] = [
    ("io.l5d.httpController", InterfaceKind::Http, 4180),
    ("io.l5d.mesh", InterfaceKind::Mesh, 4321),
    ("io.l5d.thriftNameInterpreter", InterfaceKind::Thrift, 4100),
];

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// The admin port.
    pub admin: AdminSettings,
    /// Where dtabs are kept.
    pub storage: StorageSettings,
    /// In the file's order; the last one is asked first.
    pub namers: Vec<NamerSettings>,
    /// What is served where; at least one.
    pub interfaces: Vec<InterfaceSettings>,
    /// Who may do what; none: everybody may everything.
    pub access: Option<AccessSettings>,
    /// The file that tells of changes.
    pub audit_log: Option<PathBuf>,
    /// Keys that were given, as JSON: `/config.json`.
    pub given: Json,
}

/// The `kind` of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// `io.l5d.httpController`.
    Http,
    /// `io.l5d.mesh`.
    Mesh,
    /// `io.l5d.thriftNameInterpreter`.
    Thrift,
}

/// An interface.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceSettings {
    /// What is served.
    pub kind: InterfaceKind,
    /// Where it listens.
    pub addr: SocketAddr,
    /// With which certificates; none: without TLS.
    pub tls: Option<ServerTls>,
}

/// A file that has been read.
#[derive(Debug)]
pub struct LoadedStore {
    /// What it says.
    pub config: StoreConfig,
    /// The tree it came from.
    pub tree: Node,
    /// Warnings only.
    pub problems: Problems,
}

/// Whether a text looks like a store's file rather than a router's.
pub fn is_store(source: &str) -> bool {
    let Ok(tree) = yaml::parse(source) else {
        return false;
    };
    let has = |key: &str| tree.get(key).is_some();
    (has("storage") || has("interfaces")) && !has("routers")
}

/// Reads a configuration of the store. `name` is what the user calls the file.
///
/// # Errors
/// All that is wrong with it, warnings included.
pub fn load(name: &str, source: &str, environment: &Environment) -> Result<LoadedStore, Problems> {
    let mut problems = Problems::of(name, source);
    let tree = match yaml::parse(source) {
        Ok(tree) => tree,
        Err(e) => {
            problems.error("", e.place, e.message, None);
            return Err(problems);
        }
    };
    let mut validator = Validator {
        environment,
        problems,
    };
    validator.check(&tree, Ty::Section(&keys::FILE), "");
    let reading = Reading::new(validator.problems);
    let config = file(&At::root(&tree, &reading), environment);
    let mut problems = reading.problems.into_inner();
    problems.sort();
    match config {
        Some(config) if problems.errors() == 0 => Ok(LoadedStore {
            config,
            tree,
            problems,
        }),
        _ => Err(problems),
    }
}

fn file(at: &At<'_>, environment: &Environment) -> Option<StoreConfig> {
    let interfaces = at.get("interfaces");
    if interfaces.is_given() && interfaces.items().is_empty() {
        interfaces.error(
            "one or more interfaces must be specified",
            "such as `- kind: io.l5d.httpController`",
        );
    }
    let namers = namers(&at.get("namers"), environment);
    let admin = top::admin(&at.get("admin"), ADMIN_PORT);
    let rules = at.get("access");
    let interfaces = listeners(&interfaces.items(), admin.addr, rules.is_given());
    let certificates = interfaces
        .iter()
        .filter(|interface| interface.kind == InterfaceKind::Http)
        .filter_map(|interface| interface.tls.as_ref())
        .any(|tls| tls.client_roots.is_some());
    at.get("telemetry");
    Some(StoreConfig {
        admin,
        storage: storage::storage(&at.get("storage"))?,
        namers,
        interfaces,
        access: access(&rules, environment, certificates),
        audit_log: at.get("auditLog").string().map(Into::into),
        given: at.node()?.to_json(),
    })
}

/// Linkerd lets a router's namers have one prefix, but not namerd's.
fn namers(at: &At<'_>, environment: &Environment) -> Vec<NamerSettings> {
    let mut namers: Vec<NamerSettings> = Vec::new();
    for item in at.items() {
        let Some(namer) = names::namer(&item, environment) else {
            continue;
        };
        let clash = namers.iter().find(|other| {
            other.prefix.starts_with(&namer.prefix) || namer.prefix.starts_with(&other.prefix)
        });
        if let Some(other) = clash {
            item.error(
                format!(
                    "Namers must not have overlapping prefixes: {} & {}",
                    other.prefix, namer.prefix
                ),
                "give one of them another `prefix`",
            );
        }
        namers.push(namer);
    }
    namers
}

/// `rules`: there is an `access`.
fn listeners(interfaces: &[At<'_>], admin: SocketAddr, rules: bool) -> Vec<InterfaceSettings> {
    let mut taken = vec![(admin, "the admin port".to_owned())];
    let mut listeners = Vec::new();
    for at in interfaces {
        let named = at.tag("kind", "");
        let Some((_, kind, port)) = INTERFACES.into_iter().find(|(name, ..)| *name == named) else {
            continue;
        };
        let ip = at.get("ip").ip().unwrap_or(top::LOOPBACK);
        let addr = SocketAddr::new(ip, at.get("port").u16().unwrap_or(port));
        let open = at.get("allowAnonymous").bool().unwrap_or(false);
        let given = at.get("tls");
        let tls = given.is_given().then(|| tls::server(&given)).flatten();
        let shown = tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        let (may, guarded) = match kind {
            InterfaceKind::Http => ("change every dtab", rules),
            // Nobody says there who they are; who has a certificate was let in by its authority.
            InterfaceKind::Mesh | InterfaceKind::Thrift => {
                ("read every dtab and every address", shown)
            }
        };
        if !ip.is_loopback() && !open && !guarded {
            let (why, access) = match kind {
                InterfaceKind::Http => (
                    "there is no `access` that says who may",
                    "write down who may in `access` (see docs/store.md); or ",
                ),
                _ => (
                    "this protocol has no authentication",
                    "let in who has a certificate (`tls` with `requireClientAuth`); or ",
                ),
            };
            at.error(
                format!("{addr} is no loopback address, and whoever reaches it could {may}: {why}"),
                format!("{access}add the line `allowAnonymous: true` to this interface if the network keeps others away; or listen on 127.0.0.1"),
            );
        }
        if open && guarded && kind == InterfaceKind::Http {
            at.get("allowAnonymous").error(
                "the interface is open, and there is an `access` that says who may",
                "delete one of the two; what `access` grants to `anonymous` is open to everybody",
            );
        }
        listeners.push(InterfaceSettings { kind, addr, tls });
        if let Some((other, who)) = taken.iter().find(|(other, _)| top::clash(*other, addr)) {
            at.error(
                format!("port conflict on port {}", addr.port()),
                format!("{who} listens on {other}; one address and port can be listened on once"),
            );
        }
        taken.push((addr, at.path().to_owned()));
    }
    listeners
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "zookeeper")]
    use std::time::Duration;

    use k8s::ApiTarget;
    use namerd::store::consul::Consistency;
    use namerd::store::etcd::EtcdConfig;
    use namerd::store::kubernetes::{KubernetesConfig, Shape};

    use super::*;
    use crate::config::Purpose;

    fn read(source: &str) -> Result<LoadedStore, String> {
        let environment = Environment {
            purpose: Purpose::Text,
            ..Environment::default()
        };
        load("namerd.yaml", source, &environment).map_err(|problems| problems.render())
    }

    const HTTP: &str = "interfaces: [{kind: io.l5d.httpController}]\n";

    #[test]
    fn linkerds_file_is_read_with_its_defaults() {
        let source = "interfaces: [{kind: io.l5d.httpController}, {kind: io.l5d.mesh}, {kind: io.l5d.thriftNameInterpreter}]\nstorage: {kind: io.l5d.inMemory, namespaces: {default: '/svc => /a', 日本: ''}}\n";
        assert!(is_store(source));
        let config = read(source).unwrap().config;
        assert_eq!(config.admin.addr.to_string(), "127.0.0.1:9991");
        let shown: Vec<_> = config
            .interfaces
            .iter()
            .map(|interface| format!("{:?} {}", interface.kind, interface.addr))
            .collect();
        assert_eq!(
            shown,
            [
                "Http 127.0.0.1:4180",
                "Mesh 127.0.0.1:4321",
                "Thrift 127.0.0.1:4100"
            ]
        );
        let StorageSettings::Memory(namespaces) = config.storage else {
            panic!("in memory");
        };
        let shown: Vec<_> = namespaces
            .iter()
            .map(|(name, dtab)| format!("{name}: {dtab}"))
            .collect();
        assert_eq!(shown, ["default: /svc=>/a", "日本: "]);
        let source = format!("{HTTP}storage: {{kind: file, path: /var/lib/x.redb}}\n");
        let storage = read(&source).unwrap().config.storage;
        assert_eq!(storage, StorageSettings::File("/var/lib/x.redb".into()));
    }

    #[test]
    fn who_has_a_certificate_needs_no_allow_anonymous_where_nobody_says_who_they_are() {
        let source = |kind: &str, more: &str| {
            format!(
                "storage: {{kind: io.l5d.inMemory}}\ninterfaces:\n- {{kind: {kind}, ip: 0.0.0.0, tls: {{certPath: c, keyPath: k{more}}}}}\n"
            )
        };
        let required = ", caCertPath: a, requireClientAuth: true";
        for kind in ["io.l5d.mesh", "io.l5d.thriftNameInterpreter"] {
            let config = read(&source(kind, required)).unwrap().config;
            let tls = config.interfaces[0].tls.as_ref().unwrap();
            assert_eq!(tls.client_roots.as_deref(), Some("a".as_ref()));
            let said = read(&source(kind, "")).unwrap_err();
            assert!(said.contains("`tls` with `requireClientAuth`"), "{said}");
        }
        // There it says who, and not what they may.
        assert!(read(&source("io.l5d.httpController", required)).is_err());
    }

    #[test]
    fn storages_have_linkerds_defaults() {
        let storage = |storage: &str| {
            let source = format!("{HTTP}storage: {{{storage}}}\n");
            read(&source).unwrap().config.storage
        };
        let kubernetes = |target, namespace: &str, shape| {
            StorageSettings::Kubernetes(KubernetesConfig {
                target,
                namespace: namespace.to_owned(),
                shape,
            })
        };
        assert_eq!(
            storage("kind: io.l5d.k8s, experimental: true"),
            kubernetes(ApiTarget::Ambient, "default", Shape::Dtab)
        );
        assert_eq!(
            storage("kind: io.rutter.k8s.configMap, port: 8001, namespace: l5d"),
            kubernetes(
                ApiTarget::configured(Some("localhost"), Some(8001)),
                "l5d",
                Shape::ConfigMap
            )
        );
        let etcd = |members: &[&str], path_prefix: &str| {
            StorageSettings::Etcd(EtcdConfig {
                members: members.iter().map(|one| (*one).to_owned()).collect(),
                path_prefix: path_prefix.to_owned(),
            })
        };
        assert_eq!(
            storage("kind: io.l5d.etcd, experimental: true"),
            etcd(&["localhost:2379"], "/namerd/dtabs")
        );
        assert_eq!(
            storage("kind: io.l5d.etcd, endpoints: ['a:1', '[::1]:2'], pathPrefix: /x"),
            etcd(&["a:1", "[::1]:2"], "/x")
        );
        let StorageSettings::Consul(consul) = storage(
            "kind: io.l5d.consul, token: t, datacenter: dc1, readConsistencyMode: stale, failFast: true, backoff: {kind: constant, ms: 5}",
        ) else {
            panic!("Consul");
        };
        assert_eq!(
            (&*consul.host, consul.port, &*consul.path_prefix),
            ("localhost", 8500, "namerd/dtabs")
        );
        assert_eq!(
            (consul.token.as_deref(), consul.consistency),
            (Some("t"), Consistency::Stale)
        );
        #[cfg(feature = "zookeeper")]
        {
            let StorageSettings::ZooKeeper(zk) = storage(
                "kind: io.l5d.zk, zkAddrs: [{host: zk}], acls: [{scheme: world, id: anyone, perms: crwda}]",
            ) else {
                panic!("ZooKeeper");
            };
            assert_eq!((&*zk.path_prefix, zk.client.servers[0].1), ("/dtabs", 2181));
            assert_eq!(
                (zk.client.timeout, zk.client.acls[0].perms),
                (Duration::from_secs(10), 31)
            );
            let wrong = format!(
                "{HTTP}storage: {{kind: io.l5d.zk, zkAddrs: [{{host: zk}}], acls: [{{scheme: a, id: b, perms: rx}}]}}\n"
            );
            assert!(
                read(&wrong)
                    .unwrap_err()
                    .contains("expected letters of `crwda`, found `rx`")
            );
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        let memory = "storage: {kind: io.l5d.inMemory}\n";
        for (source, want) in [
            (HTTP.to_owned(), "`storage` is missing"),
            (memory.to_owned(), "`interfaces` is missing"),
            (
                format!("{memory}interfaces: []\n"),
                "one or more interfaces must be specified",
            ),
            (
                format!("{memory}interfaces: [{{kind: io.l5d.destination}}]\n"),
                "io.l5d.destination is not supported",
            ),
            (
                format!("{HTTP}storage: {{kind: io.l5d.etcd, endpoints: [etcd]}}\n"),
                "expected a member of etcd as `host:port`, found `etcd`",
            ),
            (
                format!("{HTTP}storage: {{kind: io.l5d.etcd, host: a, endpoints: ['b:1']}}\n"),
                "put them all into `endpoints`",
            ),
            (
                format!("{HTTP}storage: {{kind: io.l5d.etcd, tls: {{}}}}\n"),
                "etcd is asked without TLS only",
            ),
            (
                format!("{memory}interfaces: [{{kind: io.l5d.httpController, ip: 0.0.0.0}}]\n"),
                "add the line `allowAnonymous: true`",
            ),
            (
                format!("{memory}interfaces: [{{kind: io.l5d.httpController, port: 9991}}]\n"),
                "port conflict on port 9991",
            ),
            (
                format!(
                    "{memory}{HTTP}namers: [{{kind: io.l5d.fs, rootDir: /a}}, {{kind: io.l5d.fs, rootDir: /b}}]\n"
                ),
                "Namers must not have overlapping prefixes: /io.l5d.fs & /io.l5d.fs",
            ),
            (
                format!(
                    "{HTTP}storage: {{kind: io.l5d.inMemory, namespaces: {{default: '/svc = /a'}}}}\n"
                ),
                "storage.namespaces.default",
            ),
            (
                format!("{memory}{HTTP}routers: []\n"),
                "unknown key `routers`",
            ),
        ] {
            let said = read(&source).expect_err(&source);
            assert!(said.contains(want), "{source}\n{said}");
        }
        let open =
            "interfaces: [{kind: io.l5d.httpController, ip: 0.0.0.0, allowAnonymous: true}]\n";
        assert!(read(&format!("{memory}{open}")).is_ok());
        let rules =
            "access: {tokenReview: {audiences: [rutter]}, grants: [{to: ['*'], may: [write]}]}\n";
        let closed = open.replace(", allowAnonymous: true", "");
        let config = read(&format!("{memory}{closed}{rules}")).unwrap().config;
        let grant = &config.access.unwrap().grants[0];
        assert_eq!((&*grant.to[0], &*grant.namespaces[0]), ("*", "*"));
        for (rules, want) in [
            (rules, "the interface is open, and there is an `access`"),
            ("access: {grants: []}\n", "nobody could show who they are"),
            (
                "access: {tokenReview: {}, grants: [{to: [anonymous], may: [write]}]}\n",
                "everybody who reaches the address could change dtabs",
            ),
            (
                "access: {tokenReview: {}, grants: [{to: [a], may: [wirte]}]}\n",
                "write",
            ),
        ] {
            let said = read(&format!("{memory}{open}{rules}")).expect_err(rules);
            assert!(said.contains(want), "{rules}\n{said}");
        }
    }

    #[test]
    fn the_files_of_the_stores_page_are_configurations() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/store.md");
        let text = std::fs::read_to_string(page).unwrap();
        let blocks: Vec<_> = text.split("```yaml\n").skip(1).collect();
        assert!(blocks.len() >= 2);
        for block in blocks {
            let block = block.split("```").next().unwrap();
            if is_store(block) {
                read(block).unwrap();
            } else {
                let environment = Environment::default().for_purpose(Purpose::Text);
                let loaded = crate::config::load("store.md", block, &environment);
                loaded.map_err(|problems| problems.render()).unwrap();
            }
        }
    }
}
