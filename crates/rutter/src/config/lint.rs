//! What starts and is still a mistake, most likely: `rutter config check` says it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use dtab::{Dentry, Dtab, Elem, NameTree, Path};
use telemetry::code::Lint as Rule;

mod certificates;

use super::problem::Problems;
use super::settings::{Config, NamerSource, RouterConfig};
use super::validate::first_line;
use super::yaml::{Node, Place, Value};
use super::{Environment, Loaded, Purpose};

/// The names behind `/$/` that are built in.
const BUILT_IN: [&str; 14] = [
    "inet",
    "fixedinet",
    "nil",
    "fail",
    "io.buoyant.rinet",
    "io.buoyant.hostportPfx",
    "io.buoyant.porthostPfx",
    "io.buoyant.http.anyMethod",
    "io.buoyant.http.anyMethodPfx",
    "io.buoyant.http.anyHost",
    "io.buoyant.http.anyHostPfx",
    "io.buoyant.http.subdomainOf",
    "io.buoyant.http.subdomainOfPfx",
    "io.buoyant.http.domainToPath",
];
const ALSO_BUILT_IN: [&str; 2] = ["io.buoyant.http.domainToPathPfx", "io.buoyant.http.status"];

/// Looks a valid configuration over and adds warnings (and errors of files that it names).
pub fn lint(loaded: &Loaded, environment: &Environment) -> Problems {
    let mut lint = Lint {
        config: &loaded.config,
        tree: &loaded.tree,
        problems: loaded.problems.clone(),
    };
    lint.admin();
    let nodes = items(loaded.tree.get("routers"));
    for (i, (router, node)) in loaded.config.routers.iter().zip(&nodes).enumerate() {
        lint.router(i, router, node, environment);
    }
    lint.problems.sort();
    lint.problems
}

struct Lint<'a> {
    config: &'a Config,
    tree: &'a Node,
    problems: Problems,
}

impl Lint<'_> {
    fn admin(&mut self) {
        let admin = &self.config.admin;
        if !admin.addr.ip().is_loopback() && admin.security.control {
            let node = self.tree.get("admin");
            let place = node
                .and_then(|n| n.entry("ip"))
                .map_or_else(Place::default, |e| e.node.place);
            let message = format!(
                "the admin port listens on {}: whoever reaches it can stop this router and change its log levels",
                admin.addr
            );
            let help = "`admin.security.controlEnabled: false` closes both, or keep the port off other networks".to_owned();
            self.problems
                .warning("admin.ip", place, message, Some(help));
        }
    }

    fn router(&mut self, i: usize, router: &RouterConfig, node: &Node, environment: &Environment) {
        let at = format!("routers[{i}]");
        self.own_listeners(&at, router, node);
        self.certificates(&at, router, node, environment);
        let mut dtab = router.dtab.clone();
        if let Some(file) = &router.interpreter.dtab_file {
            match self.dtab_file(&at, file, node, environment) {
                Some(from_file) => dtab = from_file.concat(&dtab),
                None => return, // without the file nothing can be said about names
            }
        }
        if router.interpreter.config_map.is_some() || router.interpreter.store.is_some() {
            return; // nor without the ConfigMap, or what the store has
        }
        self.names(&at, router, &dtab, node);
    }

    /// A literal destination in the dtab that is this router's own listener is a loop.
    fn own_listeners(&mut self, at: &str, router: &RouterConfig, node: &Node) {
        let own: HashSet<SocketAddr> = router.router.servers.iter().map(|s| s.addr).collect();
        for dentry in router.dtab.entries() {
            for path in leaves(&dentry.dst) {
                if inet(&path).is_some_and(|addr| own.contains(&addr)) {
                    let place = spot(node, &self.problems.source, &path.to_string());
                    let message =
                        format!("{path} is this router's own listener: requests would go round");
                    self.problems
                        .warning(&format!("{at}.dtab"), place, message, None);
                }
            }
        }
    }

    fn dtab_file(
        &mut self,
        at: &str,
        file: &std::path::Path,
        node: &Node,
        environment: &Environment,
    ) -> Option<Dtab> {
        if environment.purpose == Purpose::Text {
            return None;
        }
        let entry = node.get("interpreter").and_then(|n| n.entry("dtabFile"))?;
        let key = format!("{at}.interpreter.dtabFile");
        match std::fs::read_to_string(file) {
            Err(e) => self.problems.error(
                &key,
                entry.node.place,
                format!("{} cannot be read: {e}", file.display()),
                None,
            ),
            Ok(text) => match Dtab::read(&text) {
                Ok(dtab) => return Some(dtab),
                Err(e) => {
                    let (line, column) = e.line_column(&text);
                    let message = format!(
                        "{}:{line}:{column}: invalid dtab: {}",
                        file.display(),
                        e.summary()
                    );
                    self.problems
                        .error(&key, entry.node.place, message, e.hint(&text));
                }
            },
        }
        None
    }

    fn names(&mut self, at: &str, router: &RouterConfig, dtab: &Dtab, node: &Node) {
        let key = format!("{at}.dtab");
        if dtab.is_empty() {
            let message = format!(
                "router `{}` has an empty dtab: only requests with a `l5d-dtab` header of their own go anywhere",
                router.router.label
            );
            return self.problems.warning(
                &key,
                first_line(node),
                message,
                Some(format!(
                    "such as `dtab: {} => /#/io.l5d.k8s/default/http`",
                    router.router.dst_prefix
                )),
            );
        }
        if !dtab
            .entries()
            .iter()
            .any(|d| could_meet(d, &router.router.dst_prefix))
        {
            let message = format!(
                "no entry of the dtab takes names below {}, and all names of this router are",
                router.router.dst_prefix
            );
            self.problems.warning(
                &key,
                first_line(node),
                message,
                Some("add one with that prefix, or change `dstPrefix`".into()),
            );
        }
        for dentry in dtab.entries() {
            if let Some(union) = weightless(&dentry.dst) {
                let place = spot(node, &self.problems.source, &dentry.prefix.to_string());
                let message = format!(
                    "all weights of {union} are zero: no branch can be chosen ({})",
                    Rule::D06.entry().code
                );
                self.problems.warning(
                    &key,
                    place,
                    message,
                    Some("give at least one branch a weight above zero".into()),
                );
            }
            for path in leaves(&dentry.dst) {
                if goes_round(dtab, &path) {
                    let place = spot(node, &self.problems.source, &path.to_string());
                    let message = format!(
                        "{path} is rewritten in a circle: requests that get there end with RT-E116 ({})",
                        Rule::D03.entry().code
                    );
                    self.problems.warning(
                        &key,
                        place,
                        message,
                        Some(format!(
                            "`rutter delegate {path} --config FILE` shows its steps"
                        )),
                    );
                    continue;
                }
                if let Some((message, help)) = self.leads_nowhere(&path, dtab) {
                    let place = spot(node, &self.problems.source, &path.to_string());
                    self.problems.warning(&key, place, message, help);
                }
            }
        }
    }

    fn leads_nowhere(&self, path: &Path, dtab: &Dtab) -> Option<(String, Option<String>)> {
        match path.segments().first().and_then(|s| s.as_str()) {
            Some("#") => self.unknown_namer(path),
            Some("$") => unknown_built_in(path),
            _ if dtab.entries().iter().any(|d| could_meet(d, path)) => None,
            _ => Some((
                format!(
                    "{path} leads nowhere: no entry of the dtab takes it further ({})",
                    Rule::D02.entry().code
                ),
                Some("add an entry with that prefix, or delete the entry that points there".into()),
            )),
        }
    }

    fn unknown_namer(&self, path: &Path) -> Option<(String, Option<String>)> {
        let rest = path.drop(1);
        let known: Vec<&Path> = self.config.namers.iter().map(|n| &n.prefix).collect();
        if known
            .iter()
            .any(|p| rest.starts_with(p) || p.starts_with(&rest))
        {
            return None;
        }
        let names: Vec<String> = known.iter().map(|p| format!("/#{p}")).collect();
        let help = if names.is_empty() {
            "there is no namer at all: add one under `namers:`".into()
        } else {
            format!("configured: {}", names.join(", "))
        };
        let message = format!(
            "no configured namer answers {path} ({})",
            Rule::D04.entry().code
        );
        Some((message, Some(help)))
    }
}

/// What is wrong with a path of a system namer that there is not; with what to do.
pub(crate) fn unknown_built_in(path: &Path) -> Option<(String, Option<String>)> {
    let name = path.segments().get(1)?.as_str()?;
    if BUILT_IN.contains(&name) || ALSO_BUILT_IN.contains(&name) {
        return None;
    }
    let all = BUILT_IN.iter().chain(&ALSO_BUILT_IN).copied();
    let help = crate::near::nearest(name, all).map(|near| format!("did you mean `/$/{near}`?"));
    let message = format!(
        "there is no built-in namer `/$/{name}` ({})",
        Rule::D04.entry().code
    );
    Some((message, help))
}

/// As deep as names are followed; deeper is a circle, for people and for RT-E116 alike.
const DEEPEST: usize = 100;
/// Looking for circles ends after so many steps: a dtab may branch at each.
const STEPS: usize = 5_000;

/// Whether `path` is rewritten again and again without an end.
fn goes_round(dtab: &Dtab, path: &Path) -> bool {
    fn walk(dtab: &Dtab, path: &Path, depth: usize, steps: &mut usize) -> bool {
        let concrete = path.segments().first().and_then(|s| s.as_str());
        if concrete.is_some_and(|s| matches!(s, "#" | "$" | "%")) || *steps == 0 {
            return false;
        }
        if depth == 0 {
            return true;
        }
        *steps -= 1;
        let next = leaves(&dtab.lookup(path));
        next.iter().any(|next| walk(dtab, next, depth - 1, steps))
    }
    walk(dtab, path, DEEPEST, &mut { STEPS })
}

/// The first union in a tree none of whose branches weighs anything.
fn weightless(tree: &NameTree<Path>) -> Option<String> {
    match tree {
        NameTree::Union(branches) if branches.iter().all(|b| b.weight == 0.0) => {
            Some(tree.to_string())
        }
        NameTree::Union(branches) => branches.iter().find_map(|b| weightless(&b.tree)),
        NameTree::Alt(trees) => trees.iter().find_map(weightless),
        _ => None,
    }
}

/// Whether a dentry's prefix could match `path` with something behind it.
fn could_meet(dentry: &Dentry, path: &Path) -> bool {
    let both = dentry.prefix.elems().iter().zip(path.segments());
    both.into_iter()
        .all(|(elem, segment)| matches!(elem, Elem::Any) || elem.matches(segment))
}

fn leaves(tree: &NameTree<Path>) -> Vec<Path> {
    let mut all = Vec::new();
    tree.for_each_leaf(&mut |path: &Path| all.push(path.clone()));
    all
}

fn inet(path: &Path) -> Option<SocketAddr> {
    let words: Vec<&str> = path.segments().iter().map_while(|s| s.as_str()).collect();
    match words.as_slice() {
        ["$", "inet", host, port, ..] => Some(SocketAddr::new(
            host.parse::<IpAddr>().ok()?,
            port.parse().ok()?,
        )),
        _ => None,
    }
}

/// Where `text` stands in the router's dtab.
fn spot(node: &Node, source: &str, text: &str) -> Place {
    let Some(dtab) = node.get("dtab") else {
        return first_line(node);
    };
    match dtab.text().and_then(|t| t.find(text)) {
        Some(at) => Place {
            len: text.len(),
            ..dtab.place_within(source, at)
        },
        None => dtab.place,
    }
}

fn items(list: Option<&Node>) -> Vec<Node> {
    match list.map(|n| &n.value) {
        Some(Value::List(items)) => items.clone(),
        _ => Vec::new(),
    }
}

/// The namers that ask the Kubernetes API, for checks against it.
pub fn asks_kubernetes(config: &Config) -> bool {
    config
        .namers
        .iter()
        .any(|n| matches!(n.source, NamerSource::K8s { .. }))
}
