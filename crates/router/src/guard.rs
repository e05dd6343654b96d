//! Addresses that a request may not name.
//!
//! A request chooses its destination by its host, its path and its own dtab; where a dtab leads to `/$/inet`, that is
//! any address at all. On a listener that others than this machine can reach, such a name must not open what only the
//! machine itself should: its loopback, the link-local range (where clouds keep their credentials), the router's own
//! pod and node, the control plane. What the operator wrote into the configured dtab is the operator's word.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use dtab::{Dtab, NameTree, Path};
use naming::{Addr, Leaf, LeafTarget};

use crate::settings::RouterSettings;

/// What is refused to requests of one router.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Off where only this machine can connect.
    on: bool,
    /// `/$/inet/HOST/PORT` and the like, as the configured dtab has them; without a port they mean all ports.
    written: Vec<Path>,
    /// Addresses of this node and of the control plane.
    protected: Vec<IpAddr>,
}

impl Guard {
    pub(crate) fn new(settings: &RouterSettings, base: &Dtab) -> Self {
        let open = |ip: IpAddr| !ip.to_canonical().is_loopback();
        let mut written = Vec::new();
        for dentry in base.entries() {
            collect(&dentry.dst, &mut written);
        }
        Self {
            on: settings.servers.iter().any(|server| open(server.addr.ip())),
            written,
            protected: settings.protected.clone(),
        }
    }

    /// The address of this leaf that the name of a request may not lead to, if there is one.
    pub(crate) fn forbidden(&self, leaf: &Leaf) -> Option<SocketAddr> {
        let LeafTarget::Addr(Addr::Bound(endpoints)) = &leaf.to else {
            return None;
        };
        if !self.on {
            return None;
        }
        let named = literal(&leaf.id)?;
        if self.written.iter().any(|one| named.starts_with(one)) {
            return None;
        }
        let inside = |ip: IpAddr| is_inside(ip) || self.protected.contains(&ip.to_canonical());
        endpoints
            .iter()
            .map(|endpoint| endpoint.addr)
            .find(|addr| inside(addr.ip()))
    }
}

/// The part of a path that names an address: `/$/inet/HOST/PORT`, or `/$/inet/HOST`.
fn literal(path: &Path) -> Option<Path> {
    let names: Vec<_> = path.segments().iter().map(|one| one.as_str()).collect();
    let at = names.windows(2).position(|pair| {
        pair[0] == Some("$") && matches!(pair[1], Some("inet" | "fixedinet" | "io.buoyant.rinet"))
    })?;
    // The host stands behind the port in `/$/io.buoyant.rinet/PORT/HOST`: with less, it names no address.
    let least = match names[at + 1] {
        Some("io.buoyant.rinet") => 4,
        _ => 3,
    };
    (names.len() >= at + least).then(|| path.drop(at).take(4))
}

fn collect(tree: &NameTree<Path>, into: &mut Vec<Path>) {
    match tree {
        NameTree::Leaf(path) => into.extend(literal(path)),
        NameTree::Alt(trees) => trees.iter().for_each(|tree| collect(tree, into)),
        NameTree::Union(trees) => trees.iter().for_each(|one| collect(&one.tree, into)),
        _ => {}
    }
}

/// Whether an address means this machine or its own network alone.
fn is_inside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || is_link_local(ip) || ip.is_unspecified() || ip.is_multicast()
        }
    }
}

/// fe80::/10
fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ServerSettings;

    fn guard(listen: &str, base: &str) -> Guard {
        let server = ServerSettings::new(listen.parse().unwrap());
        let mut settings = RouterSettings::new("out", server);
        settings.protected = vec!["10.0.0.1".parse().unwrap()];
        Guard::new(&settings, &Dtab::read(base).unwrap())
    }

    fn refused(guard: &Guard, id: &str, addr: &str) -> bool {
        let endpoint = naming::Endpoint::new(addr.parse().unwrap());
        let leaf = Leaf {
            id: Path::read(id).unwrap(),
            residual: Path::root(),
            to: LeafTarget::Addr(Addr::bound([endpoint])),
        };
        guard.forbidden(&leaf).is_some()
    }

    #[test]
    fn a_request_cannot_name_this_machine_its_links_or_the_control_plane() {
        let guard = guard("0.0.0.0:4140", "/svc => /$/inet ; /host => /#/io.l5d.fs");
        for (id, addr) in [
            ("/$/inet/127.0.0.1/9990", "127.0.0.1:9990"),
            ("/$/inet/9990", "127.0.0.1:9990"),
            ("/$/inet/169.254.169.254/80", "169.254.169.254:80"),
            ("/$/inet/rebound.example/80", "127.0.0.1:80"),
            ("/$/inet/a.example/80", "[::ffff:169.254.169.254]:80"),
            ("/$/inet/b.example/80", "[fe80::1]:80"),
            ("/$/inet/kubernetes.default.svc/443", "10.0.0.1:443"),
            ("/$/io.buoyant.rinet/80/127.0.0.1", "127.0.0.1:80"),
            ("/%/io.l5d.port/4141/$/inet/127.0.0.1/80", "127.0.0.1:4141"),
        ] {
            assert!(refused(&guard, id, addr), "{id} {addr}");
        }
        for (id, addr) in [
            ("/$/inet/shop.example/80", "93.184.216.34:80"),
            ("/#/io.l5d.fs/web", "127.0.0.1:8080"),
        ] {
            assert!(!refused(&guard, id, addr), "{id} {addr}");
        }
    }

    #[test]
    fn what_the_configured_dtab_says_and_what_only_this_machine_can_ask_is_not_refused() {
        let base = "/svc/kube => /$/inet/127.0.0.1/8001 | /$/inet/10.0.0.1/443 ; /svc => /$/inet";
        let open = guard("0.0.0.0:4140", base);
        assert!(!refused(&open, "/$/inet/127.0.0.1/8001", "127.0.0.1:8001"));
        assert!(!refused(&open, "/$/inet/10.0.0.1/443", "10.0.0.1:443"));
        assert!(refused(&open, "/$/inet/127.0.0.2/8001", "127.0.0.2:8001"));
        // Another port of an address that is written with its port is another place.
        assert!(refused(&open, "/$/inet/127.0.0.1/9990", "127.0.0.1:9990"));
        let all = guard("0.0.0.0:4140", "/svc => /$/inet/127.0.0.1");
        assert!(!refused(&all, "/$/inet/127.0.0.1/9990", "127.0.0.1:9990"));
        let none = guard("0.0.0.0:4140", "/svc => /$/io.buoyant.rinet/80");
        let id = "/$/io.buoyant.rinet/80/127.0.0.1";
        assert!(refused(&none, id, "127.0.0.1:80"));
        let local = guard("127.0.0.1:4140", "/svc => /$/inet");
        assert!(!refused(&local, "/$/inet/127.0.0.1/9990", "127.0.0.1:9990"));
    }
}
