//! `io.l5d.k8s.daemonset`: instead of an endpoint, the router on its node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use dtab::{NameTree, Path};

use super::{Change, changed, same_subnet};
use crate::{Activity, Addr, Bound, Endpoint, Name, Namer, Reads, Target, Transformer};

/// Puts the gateways on the endpoints' nodes in the endpoints' place. A gateway weighs as much as the endpoints behind
/// it together, so that each of them gets the same share (in Linkerd, each node does).
#[derive(Debug)]
pub struct DaemonSet {
    prefix: Path,
    gateways: Arc<Gateways>,
}

/// Which service the gateways are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSetConfig {
    /// Its namespace.
    pub namespace: String,
    /// The name of its port.
    pub port: String,
    /// Its name.
    pub service: String,
    /// Whether gateways listen on their nodes' addresses, of which a subnet tells nothing: only nodes' names count.
    pub host_network: bool,
}

struct Gateways {
    namer: Arc<dyn Namer>,
    /// What the namer is asked for.
    name: Path,
    host_network: bool,
}

impl std::fmt::Debug for Gateways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gateways({}{})", self.namer.prefix(), self.name)
    }
}

impl DaemonSet {
    /// A transformer with Linkerd's prefix, `/io.l5d.k8s.daemonset/NAMESPACE/PORT/SERVICE`. `namer` is asked for
    /// `/NAMESPACE/PORT/SERVICE`.
    pub fn new(config: &DaemonSetConfig, namer: Arc<dyn Namer>) -> Self {
        let name = Path::utf8([config.namespace.as_str(), &config.port, &config.service]);
        let prefix = Path::utf8(["io.l5d.k8s.daemonset"]).concat(&name);
        Self::at(prefix, config, namer)
    }

    /// A transformer with another prefix.
    pub fn at(prefix: Path, config: &DaemonSetConfig, namer: Arc<dyn Namer>) -> Self {
        let name = Path::utf8([config.namespace.as_str(), &config.port, &config.service]);
        let host_network = config.host_network;
        let gateways = Arc::new(Gateways {
            namer,
            name,
            host_network,
        });
        Self { prefix, gateways }
    }
}

impl Transformer for DaemonSet {
    fn kind(&self) -> &str {
        "io.l5d.k8s.daemonset"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        changed(bound, &self.prefix, &self.gateways)
    }
}

impl Change for Gateways {
    fn change(&self, endpoints: &[Endpoint], reads: &mut Reads) -> Addr {
        match self.all(reads) {
            Addr::Bound(gateways) => Addr::bound(self.instead_of(endpoints, &gateways)),
            other => other,
        }
    }
}

impl Gateways {
    /// All gateways. A service that does not exist has none; while nothing is known, the destination waits.
    fn all(&self, reads: &mut Reads) -> Addr {
        let tree = match self.namer.lookup(&self.name, reads) {
            Activity::Pending(_) => return Addr::Pending,
            Activity::Failed(error) => return Addr::Failed(error.to_string().into()),
            Activity::Ok(tree) => tree,
        };
        match tree {
            NameTree::Leaf(Name::Bound(Bound {
                target: Target::Endpoints(addrs),
                ..
            })) => match addrs.addr(reads) {
                Addr::Neg => Addr::bound([]),
                other => other,
            },
            _ => Addr::bound([]),
        }
    }

    fn instead_of(&self, endpoints: &[Endpoint], gateways: &[Endpoint]) -> Vec<Endpoint> {
        let mut behind: HashMap<SocketAddr, f64> = HashMap::new();
        for endpoint in endpoints {
            let there: Vec<_> = gateways
                .iter()
                .filter(|g| self.same_node(g, endpoint))
                .collect();
            // Two gateways on a node, as while one takes over from the other, have half of it each.
            let share = endpoint.weight / there.len() as f64;
            for gateway in there {
                *behind.entry(gateway.addr).or_default() += share;
            }
        }
        let weighed =
            |gateway: &Endpoint| Some(gateway.clone().weighing(*behind.get(&gateway.addr)?));
        gateways.iter().filter_map(weighed).collect()
    }

    fn same_node(&self, gateway: &Endpoint, endpoint: &Endpoint) -> bool {
        match (&gateway.node, &endpoint.node) {
            (Some(a), Some(b)) => a == b,
            _ if self.host_network => false,
            _ => same_subnet(gateway.addr.ip(), endpoint.addr.ip()),
        }
    }
}
