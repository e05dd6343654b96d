//! Transformers that look at one address at a time: `io.l5d.port`, `io.l5d.localhost`, `io.l5d.specificHost`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dtab::{NameTree, Path};

use super::{Change, changed};
use crate::{Addr, Bound, Endpoint, Reads, Transformer};

/// `io.l5d.port`: the same hosts at another port.
#[derive(Debug)]
pub struct Port {
    prefix: Path,
    port: Arc<ToPort>,
}

#[derive(Debug)]
struct ToPort(u16);

impl Port {
    /// A transformer with Linkerd's prefix, `/io.l5d.port/PORT`.
    pub fn new(port: u16) -> Self {
        let prefix = Path::utf8(["io.l5d.port", &port.to_string()]);
        Self::at(prefix, port)
    }

    /// A transformer with another prefix.
    pub fn at(prefix: Path, port: u16) -> Self {
        let port = Arc::new(ToPort(port));
        Self { prefix, port }
    }
}

impl Change for ToPort {
    /// Endpoints of one host become one.
    fn change(&self, endpoints: &[Endpoint], _: &mut Reads) -> Addr {
        let mut seen = HashSet::new();
        let there = endpoints.iter().map(|endpoint| Endpoint {
            addr: SocketAddr::new(endpoint.addr.ip(), self.0),
            ..endpoint.clone()
        });
        Addr::bound(there.filter(|endpoint| seen.insert(endpoint.addr)))
    }
}

impl Transformer for Port {
    fn kind(&self) -> &str {
        "io.l5d.port"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        changed(bound, &self.prefix, &self.port)
    }
}

/// Keeps the endpoints of certain hosts.
#[derive(Debug)]
struct Only(Vec<IpAddr>);

impl Change for Only {
    fn change(&self, endpoints: &[Endpoint], _: &mut Reads) -> Addr {
        let kept = endpoints
            .iter()
            .filter(|e| self.0.contains(&e.addr.ip().to_canonical()));
        Addr::bound(kept.cloned())
    }
}

/// `io.l5d.localhost`: only endpoints on this host.
#[derive(Debug)]
pub struct Localhost {
    prefix: Path,
    hosts: Arc<Only>,
}

impl Localhost {
    /// A transformer with Linkerd's prefix, `/io.l5d.localhost`. `addresses` are those of this host's interfaces, see
    /// [`local_addresses`](super::local_addresses).
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self::at(Path::utf8(["io.l5d.localhost"]), addresses)
    }

    /// A transformer with another prefix.
    pub fn at(prefix: Path, addresses: Vec<IpAddr>) -> Self {
        let hosts = Arc::new(Only(addresses));
        Self { prefix, hosts }
    }
}

impl Transformer for Localhost {
    fn kind(&self) -> &str {
        "io.l5d.localhost"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        changed(bound, &self.prefix, &self.hosts)
    }
}

/// `io.l5d.specificHost`: only endpoints on one host.
#[derive(Debug)]
pub struct SpecificHost {
    prefix: Path,
    host: Arc<Only>,
}

impl SpecificHost {
    /// A transformer with Linkerd's prefix, `/io.l5d.specificHost`; the host is not part of it.
    pub fn new(host: IpAddr) -> Self {
        Self::at(Path::utf8(["io.l5d.specificHost"]), host)
    }

    /// A transformer with another prefix.
    pub fn at(prefix: Path, host: IpAddr) -> Self {
        let host = Arc::new(Only(vec![host.to_canonical()]));
        Self { prefix, host }
    }
}

impl Transformer for SpecificHost {
    fn kind(&self) -> &str {
        "io.l5d.specificHost"
    }

    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn transform(&self, bound: Bound) -> NameTree<Bound> {
        changed(bound, &self.prefix, &self.host)
    }
}
