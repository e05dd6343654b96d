//! Transformers: they rewrite the endpoints of bound names, and put `/%/PREFIX` in front of their ids.
//!
//! [`daemonset`] sends to the router on the endpoint's node, [`localnode`] keeps this node's endpoints, [`address`] are
//! those that look at one address at a time, [`constant`] those that put another name in the place of the bound one.

use std::net::IpAddr;
use std::sync::Arc;

use dtab::{NameTree, Path};

use crate::{Addr, Addrs, Bound, Endpoint, Reads, Target};

pub mod address;
pub mod constant;
pub mod daemonset;
pub mod interfaces;
pub mod localnode;

pub use address::{Localhost, Port, SpecificHost};
pub use constant::{Const, Replace};
pub use daemonset::{DaemonSet, DaemonSetConfig};
pub use interfaces::local_addresses;
pub use localnode::LocalNode;

/// `/%` + `prefix` + `id`.
pub fn prefixed(prefix: &Path, id: &Path) -> Path {
    Path::utf8(["%"]).concat(prefix).concat(id)
}

/// Changes the endpoints of a bound address set; what is left of an address set of some that comes out empty is
/// [`Addr::Neg`], as in Linkerd, and states that are not bound pass.
trait Change: Send + Sync {
    fn change(&self, endpoints: &[Endpoint], reads: &mut Reads) -> Addr;
}

/// An address set as changed.
struct Changed<C> {
    before: Arc<dyn Addrs>,
    change: Arc<C>,
}

impl<C: Change> Addrs for Changed<C> {
    fn addr(&self, reads: &mut Reads) -> Addr {
        match self.before.addr(reads) {
            // Nothing to take away from: the replica set is empty, which is not the transformer's doing.
            Addr::Bound(endpoints) if endpoints.is_empty() => Addr::Bound(endpoints),
            Addr::Bound(endpoints) => match self.change.change(&endpoints, reads) {
                Addr::Bound(left) if left.is_empty() => Addr::Neg,
                changed => changed,
            },
            other => other,
        }
    }
}

/// The bound name with a new id and its endpoints changed. A status that the router answers itself has none.
fn changed<C: Change + 'static>(bound: Bound, prefix: &Path, change: &Arc<C>) -> NameTree<Bound> {
    let target = match bound.target {
        Target::Endpoints(before) => {
            let change = change.clone();
            Target::Endpoints(Arc::new(Changed { before, change }))
        }
        status => status,
    };
    let id = prefixed(prefix, &bound.id);
    NameTree::Leaf(Bound {
        id,
        target,
        ..bound
    })
}

/// Whether two addresses are in the same /24, which many networks give to one node; IPv4 and IPv6 never are.
fn same_subnet(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        _ => false,
    }
}

#[cfg(test)]
mod tests;
