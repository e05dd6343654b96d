//! What a dtab says without a running router: the delegation is naming's own, which requests are bound with; only the
//! sources of names are ones that nobody asks.

use dtab::{Dtab, NameTree, Path};
use naming::namers::{Dns, RewriteNamer, SystemNamer};
use naming::{
    Activity, Addr, Bound, DefaultInterpreter, Interpreter as _, Mounted, Name, Namer, Reads,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::runtime::Handle;

use crate::config::settings::{Config, NamerSource};

/// System namers that ask a name server unless they are given an address.
const BY_DNS: [&str; 3] = ["inet", "fixedinet", "io.buoyant.rinet"];

/// A configuration's names, to be followed without asking anybody.
pub(super) struct Offline {
    interpreter: DefaultInterpreter,
}

impl Offline {
    /// With the namers of `config`; to be called within a runtime.
    pub(super) fn new(config: &Config) -> Self {
        // The last one listed is asked first.
        let namers = config.namers.iter().rev().map(|namer| {
            let prefix = namer.prefix.clone();
            let source: Arc<dyn Namer> = match &namer.source {
                NamerSource::Rewrite { pattern, name } => {
                    Arc::new(RewriteNamer::new(prefix, pattern.clone(), &**name))
                }
                NamerSource::Fs { .. }
                | NamerSource::K8s { .. }
                | NamerSource::DnsSrv { .. }
                | NamerSource::Consul(_) => Arc::new(Unasked { prefix }),
                #[cfg(feature = "zookeeper")]
                NamerSource::ZooKeeper(_) => Arc::new(Unasked { prefix }),
            };
            Mounted::new(source, Vec::new())
        });
        let system = Arc::new(System {
            root: Path::root(),
            namer: SystemNamer::new(Dns::system(Handle::current())),
        });
        Self {
            interpreter: DefaultInterpreter::new(namers.collect(), system, Vec::new()),
        }
    }

    /// The way of `path` under `dtab`, as Linkerd's delegate JSON; where a namer would have to be asked it ends with the
    /// type `unasked`.
    pub(super) fn delegate(&self, dtab: &Dtab, path: &Path) -> Value {
        let mut reads = Reads::new();
        let delegation = self
            .interpreter
            .delegate(dtab, &Dtab::empty(), path, &mut reads)
            .expect("an interpreter without transformers explains everything");
        if let Some(error) = delegation.failure() {
            return json!({"type": "exception", "path": path.to_string(), "message": error});
        }
        let mut tree = delegation.to_json();
        mark(&mut tree);
        tree
    }
}

/// A leaf of which nothing is known becomes one that nobody was asked about.
fn mark(node: &mut Value) {
    if node["type"] == "leaf" && node["bound"]["addr"]["type"] == "pending" {
        node["type"] = json!("unasked");
        if let Some(object) = node.as_object_mut() {
            object.shift_remove("bound");
        }
        return;
    }
    match node {
        Value::Array(nodes) => nodes.iter_mut().for_each(mark),
        Value::Object(fields) => fields.values_mut().for_each(mark),
        _ => {}
    }
}

/// Stands in a namer's place and knows every name, without endpoints.
struct Unasked {
    prefix: Path,
}

fn unasked(id: Path) -> Activity<NameTree<Name>> {
    let bound = Bound::new(id, Path::root(), Addr::Pending);
    Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
}

impl Namer for Unasked {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        unasked(Path::utf8(["#"]).concat(&self.prefix).concat(rest))
    }
}

/// The system namers, but for name servers.
struct System {
    root: Path,
    namer: SystemNamer,
}

impl Namer for System {
    fn prefix(&self) -> &Path {
        &self.root
    }

    fn lookup(&self, path: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        let words: Vec<&str> = path.segments().iter().filter_map(|s| s.as_str()).collect();
        let by_dns = match words.as_slice() {
            ["$", class, a, b, ..] if BY_DNS.contains(class) => {
                let is_address = |word: &str| word.parse::<std::net::IpAddr>().is_ok();
                !is_address(a) && !is_address(b)
            }
            _ => false,
        };
        if by_dns {
            unasked(path.clone())
        } else {
            self.namer.lookup(path, reads)
        }
    }
}
