//! From a service's slices to the endpoints behind one of its ports. Pure, and called anew whenever one of them changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use naming::Endpoint;

use crate::objects::{Condition, Ingress, Members, Service, ServicePort, Subset, TargetPort};

/// The port segment of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The name that the Service gives it.
    Name(Box<str>),
    /// The number on the Service's own address.
    Number(u16),
}

impl Port {
    /// What looks like a port number is one, all else is a name.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text.parse() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Self::Number(number),
            _ => Self::Name(text.into()),
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// When endpoints that are on their way out (terminating, and still serving) are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Leaving {
    /// When the service has no ready one.
    #[default]
    Alone,
    /// On each node that has no ready one: what stands on a node for all its pods has nobody else to stand in for it.
    OnTheirNode,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// There is no such service or port: another branch of the dtab may answer.
    Neg,
    /// These endpoints, in the order of their addresses; none when none is ready.
    Bound(Vec<Endpoint>),
}

/// The endpoints of a named port.
///
/// Each subset's own number for the name is used, so that one service may have the same port on different numbers.
/// Neg when no subset has a TCP port of that name.
pub fn named<'a>(
    slices: impl Iterator<Item = &'a Members>,
    name: &str,
    leaving: Leaving,
) -> Resolved {
    let subsets = slices.flat_map(|slice| &slice.subsets).flat_map(|subset| {
        let ports = subset.ports.iter().filter(|port| *port.name == *name);
        ports.map(move |port| (subset, port.number))
    });
    collect(subsets, leaving)
}

/// The endpoints of a port that is given by its number on the Service.
///
/// The slices name their ports as the Service does, so they know best where it leads on each pod. When none has that
/// name (slices that were written by hand), the Service's `targetPort` decides, as in Linkerd 1: a number is that port
/// on every endpoint, a name is looked up among the slices' ports. Neg when the Service has no such TCP port.
pub fn numbered<'a>(
    slices: impl Iterator<Item = &'a Members> + Clone,
    service: &Service,
    number: u16,
    leaving: Leaving,
) -> Resolved {
    let Some(port) = service.ports.iter().find(|port| port.number == number) else {
        return Resolved::Neg;
    };
    match named(slices.clone(), &port.name, leaving) {
        Resolved::Neg => targeted(slices, port, leaving),
        bound => bound,
    }
}

fn targeted<'a>(
    slices: impl Iterator<Item = &'a Members>,
    port: &ServicePort,
    leaving: Leaving,
) -> Resolved {
    match &port.target {
        TargetPort::Name(name) => named(slices, name, leaving),
        TargetPort::Number(number) => {
            let subsets = slices
                .flat_map(|slice| &slice.subsets)
                .filter(|subset| !subset.members.is_empty());
            collect(subsets.map(|subset| (subset, *number)), leaving)
        }
    }
}

/// A Service's port by its name or number.
#[must_use]
pub fn port_of<'a>(service: &'a Service, port: &Port) -> Option<&'a ServicePort> {
    service.ports.iter().find(|own| match port {
        Port::Name(name) => own.name == *name,
        Port::Number(number) => own.number == *number,
    })
}

/// The IP addresses of a Service's load balancer at one of its ports; Neg when it has no such port or no balancer with
/// an IP address.
pub fn external(service: &Service, port: &Port) -> Resolved {
    let Some(found) = port_of(service, port) else {
        return Resolved::Neg;
    };
    let ips = service.ingress.iter().filter_map(|ingress| match ingress {
        Ingress::Ip(ip) => Some(*ip),
        Ingress::Host(_) => None,
    });
    let addrs: std::collections::BTreeSet<_> =
        ips.map(|ip| SocketAddr::new(ip, found.number)).collect();
    match addrs.is_empty() {
        true => Resolved::Neg,
        false => Resolved::Bound(addrs.into_iter().map(Endpoint::new).collect()),
    }
}

/// The endpoints of one service by address: their condition, and their node where it is known.
type Merged<'a> = BTreeMap<SocketAddr, (Condition, Option<&'a Arc<str>>)>;

/// Merges subsets, each with the number its port has there; Neg when there is none.
fn collect<'a>(subsets: impl Iterator<Item = (&'a Subset, u16)>, leaving: Leaving) -> Resolved {
    let mut subsets = subsets.peekable();
    if subsets.peek().is_none() {
        return Resolved::Neg;
    }
    // The same endpoint may be in two slices for a while, when Kubernetes moves it: its better state counts.
    let mut merged = Merged::new();
    for (subset, number) in subsets {
        for member in &subset.members {
            let addr = SocketAddr::new(member.ip, number);
            let kept = merged
                .entry(addr)
                .or_insert((member.condition, member.node.as_ref()));
            // Whatever the order of the slices, the same wins: the better condition, then a node over none.
            let new = (member.condition, member.node.as_ref());
            if (new.0, new.1.is_none(), new.1) < (kept.0, kept.1.is_none(), kept.1) {
                *kept = new;
            }
        }
    }
    Resolved::Bound(match leaving {
        Leaving::Alone => usable(&merged),
        Leaving::OnTheirNode => usable_by_node(&merged),
    })
}

/// As [`usable`], but node by node. Endpoints whose node is not known count as being on one.
fn usable_by_node(merged: &Merged<'_>) -> Vec<Endpoint> {
    let mut nodes = BTreeMap::<Option<&Arc<str>>, Merged<'_>>::new();
    for (addr, one) in merged {
        nodes.entry(one.1).or_default().insert(*addr, *one);
    }
    let mut all: Vec<_> = nodes.values().flat_map(usable).collect();
    all.sort_by_key(|endpoint| endpoint.addr);
    all
}

/// The ready endpoints; those on their way out when there is no other; of the IP family that the service has.
fn usable(merged: &Merged<'_>) -> Vec<Endpoint> {
    let of = |condition, family: fn(&IpAddr) -> bool| -> Vec<Endpoint> {
        let chosen = merged
            .iter()
            .filter(|(addr, (own, _))| *own == condition && family(&addr.ip()));
        chosen
            .map(|(addr, (_, node))| Endpoint {
                node: node.cloned(),
                ..Endpoint::new(*addr)
            })
            .collect()
    };
    for condition in [Condition::Ready, Condition::Draining] {
        // A dual-stack service has each pod twice, once in a slice of each family: with both, some pods would get
        // twice their share.
        for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
            let found = of(condition, family);
            if !found.is_empty() {
                return found;
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
pub(crate) mod tests;
