//! `io.l5d.k8s.localnode`: only endpoints on this node.

use std::net::IpAddr;
use std::sync::Arc;

use dtab::{NameTree, Path};

use super::{Change, changed, same_subnet};
use crate::{Addr, Bound, Endpoint, Reads, Transformer, Var};

/// Keeps the endpoints of this node: by the node's name where it is known on both sides, otherwise those in the /24 of
/// this pod's address, as Linkerd.
#[derive(Debug)]
pub struct LocalNode {
    prefix: Path,
    node: Arc<OwnNode>,
}

/// Where this process runs.
#[derive(Clone, Debug, Default)]
pub struct OwnNode {
    /// The pod's address (`POD_IP`).
    pub pod_ip: Option<IpAddr>,
    /// The node's name (`NODE_NAME`), which may be learnt later.
    pub name: Var<Option<Arc<str>>>,
}

impl OwnNode {
    /// A node whose name is known, or never will be.
    pub fn new(pod_ip: Option<IpAddr>, name: Option<&str>) -> Self {
        let name = Var::new(name.map(Arc::from));
        Self { pod_ip, name }
    }
}

impl LocalNode {
    /// A transformer with Linkerd's prefix, `/io.l5d.k8s.localnode/POD_IP`.
    pub fn by_pod(pod_ip: IpAddr, name: Var<Option<Arc<str>>>) -> Self {
        let prefix = Path::utf8(["io.l5d.k8s.localnode", &pod_ip.to_string()]);
        let pod_ip = Some(pod_ip);
        Self::at(prefix, OwnNode { pod_ip, name })
    }

    /// With `hostNetwork`: a transformer with Linkerd's prefix, `/io.l5d.k8s.localnode/NODE_NAME`. Addresses tell
    /// nothing there, only the node's name counts.
    pub fn by_node(name: &str) -> Self {
        let prefix = Path::utf8(["io.l5d.k8s.localnode", name]);
        Self::at(prefix, OwnNode::new(None, Some(name)))
    }

    /// A transformer with another prefix.
    pub fn at(prefix: Path, node: OwnNode) -> Self {
        let node = Arc::new(node);
        Self { prefix, node }
    }
}

impl Change for OwnNode {
    fn change(&self, endpoints: &[Endpoint], reads: &mut Reads) -> Addr {
        let name = self.name.read(reads);
        let is_here = |endpoint: &&Endpoint| match (&*name, &endpoint.node) {
            (Some(own), Some(node)) => own == node,
            _ => self
                .pod_ip
                .is_some_and(|own| same_subnet(own, endpoint.addr.ip())),
        };
        Addr::bound(endpoints.iter().filter(is_here).cloned())
    }
}

impl Transformer for LocalNode {
    fn kind(&self) -> &str {
        "io.l5d.k8s.localnode"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        changed(bound, &self.prefix, &self.node)
    }
}
