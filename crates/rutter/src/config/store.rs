//! The file of `rutter namerd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use dtab::Dtab;
use namerd::store::Namespace;
use serde_json::Value as Json;

use super::keys::{Ty, store as keys};
use super::problem::Problems;
use super::read::Reading;
use super::settings::{AdminSettings, NamerSettings};
use super::validate::Validator;
use super::yaml::{self, Node, Value};
use super::{At, Environment, names, top};

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
    pub interfaces: Vec<(InterfaceKind, SocketAddr)>,
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

/// `storage`.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageSettings {
    /// `file`.
    File(PathBuf),
    /// `io.l5d.inMemory`, with what is in it to begin with.
    Memory(Vec<(Namespace, Dtab)>),
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
    let interfaces = listeners(&interfaces.items(), admin.addr);
    at.get("telemetry");
    Some(StoreConfig {
        admin,
        storage: storage(&at.get("storage"))?,
        namers,
        interfaces,
        given: at.node()?.to_json(),
    })
}

fn storage(at: &At<'_>) -> Option<StorageSettings> {
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
        _ => None,
    }
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

fn listeners(interfaces: &[At<'_>], admin: SocketAddr) -> Vec<(InterfaceKind, SocketAddr)> {
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
        let may = match kind {
            InterfaceKind::Http => "change every dtab",
            InterfaceKind::Mesh | InterfaceKind::Thrift => "read every dtab and every address",
        };
        if !ip.is_loopback() && !open {
            at.error(
                format!("{addr} is no loopback address, and whoever reaches it could {may}: there is no authentication in this version"),
                "add the line `allowAnonymous: true` to this interface if the network keeps others away, or listen on 127.0.0.1",
            );
        }
        if let Some((other, who)) = taken.iter().find(|(other, _)| top::clash(*other, addr)) {
            at.error(
                format!("port conflict on port {}", addr.port()),
                format!("{who} listens on {other}; one address and port can be listened on once"),
            );
        }
        taken.push((addr, at.path().to_owned()));
        listeners.push((kind, addr));
    }
    listeners
}

#[cfg(test)]
mod tests {
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
        let source = format!(
            "interfaces: [{{kind: io.l5d.httpController}}, {{kind: io.l5d.mesh}}, {{kind: io.l5d.thriftNameInterpreter}}]\nstorage: {{kind: io.l5d.inMemory, namespaces: {{default: '/svc => /a', 日本: ''}}}}\n"
        );
        assert!(is_store(&source));
        let config = read(&source).unwrap().config;
        assert_eq!(config.admin.addr.to_string(), "127.0.0.1:9991");
        let shown = format!("{:?}", config.interfaces);
        assert_eq!(
            shown,
            "[(Http, 127.0.0.1:4180), (Mesh, 127.0.0.1:4321), (Thrift, 127.0.0.1:4100)]"
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
                format!("{HTTP}storage: {{kind: io.l5d.k8s}}\n"),
                "io.l5d.k8s is not supported",
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
                let environment = Environment::default();
                let loaded = crate::config::load("store.md", block, &environment);
                loaded.map_err(|problems| problems.render()).unwrap();
            }
        }
    }
}
