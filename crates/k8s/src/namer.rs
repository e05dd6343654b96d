//! The namers `io.l5d.k8s`, `io.l5d.k8s.ns` and `io.l5d.k8s.external`: from a path's segments to a query of the view.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use dtab::{NameTree, Path, Segment};
use naming::namers::Dns;
use naming::namers::dns::Host;
use naming::{Activity, Addr, Addrs, Bound, Endpoint, Name, Namer, Reads, Target};
use serde_json::{Map, Value, json};

use crate::cluster::Inner;
use crate::merge::{Leaving, Port};
use crate::objects::Key;
use crate::view::{Answer, Found, Kind, Query};

/// Which of the namers, with its keys.
#[derive(Clone, Debug)]
pub struct NamerConfig {
    /// Behind `/#`, such as `/io.l5d.k8s`.
    pub prefix: Path,
    /// What its paths hold.
    pub kind: NamerKind,
    /// The key of a label whose value is one more segment of each path.
    pub label_selector: Option<String>,
    /// Who resolves the host names of load balancers; without it they lead nowhere.
    pub dns: Option<Dns>,
}

/// What a path holds behind the prefix, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamerKind {
    /// `/<namespace>/<port>/<service>`: the service's endpoints.
    Everywhere,
    /// `/<port>/<service>`, in this namespace.
    Namespace(String),
    /// `/<namespace>/<port>/<service>`: the addresses of the Service's load balancer.
    External,
    /// As [`NamerKind::Everywhere`], for services with one endpoint on each node: on a node without a ready one, that
    /// which is on its way out is used as long as it serves.
    Gateways,
}

impl NamerConfig {
    /// `io.l5d.k8s` with its default prefix.
    #[must_use]
    pub fn everywhere() -> Self {
        Self {
            prefix: Path::utf8(["io.l5d.k8s"]),
            kind: NamerKind::Everywhere,
            label_selector: None,
            dns: None,
        }
    }

    /// What `io.l5d.k8s.daemonset` asks for the routers of all nodes.
    #[must_use]
    pub fn gateways() -> Self {
        let kind = NamerKind::Gateways;
        Self {
            kind,
            ..Self::everywhere()
        }
    }

    /// `io.l5d.k8s.ns` with its default prefix.
    #[must_use]
    pub fn namespace(namespace: impl Into<String>) -> Self {
        let kind = NamerKind::Namespace(namespace.into());
        Self {
            prefix: Path::utf8(["io.l5d.k8s.ns"]),
            kind,
            label_selector: None,
            dns: None,
        }
    }

    /// `io.l5d.k8s.external` with its default prefix.
    #[must_use]
    pub fn external() -> Self {
        Self {
            prefix: Path::utf8(["io.l5d.k8s.external"]),
            kind: NamerKind::External,
            label_selector: None,
            dns: None,
        }
    }

    /// The same with another prefix.
    #[must_use]
    pub fn at(self, prefix: Path) -> Self {
        Self { prefix, ..self }
    }

    /// The same with somebody who resolves host names.
    #[must_use]
    pub fn resolving(self, dns: Dns) -> Self {
        let dns = Some(dns);
        Self { dns, ..self }
    }

    /// The same with a label's key.
    #[must_use]
    pub fn selecting(self, label: impl Into<String>) -> Self {
        Self {
            label_selector: Some(label.into()),
            ..self
        }
    }
}

/// One of the namers over a cluster.
pub struct ServiceNamer {
    cluster: Arc<Inner>,
    config: NamerConfig,
    /// The selector's key.
    label: Option<Arc<str>>,
}

/// A path as it is understood: the query, and the segments that make its identity.
struct Understood {
    query: Query,
    id: Path,
    residual: Path,
}

impl ServiceNamer {
    pub(crate) fn new(cluster: Arc<Inner>, config: NamerConfig) -> Self {
        let label = config.label_selector.as_deref().map(Arc::from);
        Self {
            cluster,
            config,
            label,
        }
    }

    /// Splits what is behind the prefix; none when segments are missing or no text.
    fn understand(&self, rest: &Path) -> Option<Understood> {
        let external = self.config.kind == NamerKind::External;
        let namespaced = matches!(self.config.kind, NamerKind::Namespace(_));
        let used = 3 - usize::from(namespaced) + usize::from(self.label.is_some());
        if rest.len() < used {
            return None;
        }
        let texts: Option<Vec<String>> = rest.segments()[..used]
            .iter()
            .map(|segment| self.text(segment))
            .collect();
        let mut texts = texts?.into_iter();
        let namespace = match &self.config.kind {
            NamerKind::Namespace(namespace) => namespace.clone(),
            _ => texts.next()?,
        };
        let (port, service) = (texts.next()?, texts.next()?);
        let value = texts.next();
        let label = self.label.clone().zip(value.as_deref().map(Arc::from));
        // `/svc` in the namespace of another kind of path: what is no name of Kubernetes is asked of nobody anyway,
        // since the answer is looked up in what is held.
        let id = [&namespace, &port, &service]
            .into_iter()
            .chain(&value)
            .skip(usize::from(namespaced));
        let id = Path::utf8(["#"])
            .concat(&self.config.prefix)
            .concat(&Path::utf8(id.map(String::as_str)));
        let query = Query {
            service: Key::new(&namespace, &service),
            port: Port::read(&port),
            label,
            external,
            leaving: match self.config.kind {
                NamerKind::Gateways => Leaving::OnTheirNode,
                _ => Leaving::Alone,
            },
        };
        let id = if external {
            self.whole(&rest.take(used))
        } else {
            id
        };
        Some(Understood {
            query,
            id,
            residual: rest.drop(used),
        })
    }

    /// As Linkerd: names are lower-cased, but for load balancers, where the id keeps the case.
    fn text(&self, segment: &Segment) -> Option<String> {
        segment.as_str().map(str::to_ascii_lowercase)
    }

    /// The host names of a load balancer, followed.
    fn hosts(&self, query: &Query, reads: &mut Reads) -> Option<Hosts> {
        let dns = self.config.dns.as_ref().filter(|_| query.external)?;
        let (hosts, port) = self.cluster.shared.view.balancer_hosts(query, reads)?;
        let followed = hosts.iter().map(|host| dns.follow(host)).collect();
        Some(Hosts { followed, port })
    }

    fn whole(&self, rest: &Path) -> Path {
        Path::utf8(["#"]).concat(&self.config.prefix).concat(rest)
    }
}

/// Host names, and the port on each of their addresses.
struct Hosts {
    followed: Vec<Arc<Host>>,
    port: u16,
}

/// The addresses of a load balancer that has host names: what DNS says of these, and the IP addresses beside them.
struct BalancerAddrs {
    hosts: Hosts,
    addresses: Option<Arc<Answer>>,
}

impl Addrs for BalancerAddrs {
    fn addr(&self, reads: &mut Reads) -> Addr {
        let mut found = BTreeMap::<SocketAddr, Endpoint>::new();
        let mut without = None;
        let of_hosts = self.hosts.followed.iter();
        let mut all: Vec<_> = of_hosts
            .map(|host| host.addr(self.hosts.port, reads))
            .collect();
        all.extend(self.addresses.iter().map(|answer| answer.addr(reads)));
        for addr in all {
            match addr {
                Addr::Bound(endpoints) => {
                    found.extend(endpoints.iter().map(|one| (one.addr, one.clone())));
                }
                // One name that is known is enough; without any, waiting is better than an error, and that than Neg.
                Addr::Pending => without = Some(Addr::Pending),
                Addr::Failed(why) if without.is_none() => without = Some(Addr::Failed(why)),
                Addr::Failed(_) | Addr::Neg => {}
            }
        }
        match (found.is_empty(), without) {
            (true, Some(without)) => without,
            (true, None) => Addr::Neg,
            (false, _) => Addr::bound(found.into_values()),
        }
    }
}

impl Namer for ServiceNamer {
    fn prefix(&self) -> &Path {
        &self.config.prefix
    }

    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        let Some(Understood {
            query,
            id,
            residual,
        }) = self.understand(rest)
        else {
            return Activity::Ok(NameTree::Neg);
        };
        let namespace = query.service.namespace.clone();
        let shared = &self.cluster.shared;
        let hosts = self.hosts(&query, reads);
        let found = shared.view.find(query, reads);
        if let (Some(hosts), Found::Neg | Found::Bound(_)) = (hosts, &found) {
            let addresses = match found {
                Found::Bound(answer) => Some(answer),
                _ => None,
            };
            let addrs = BalancerAddrs { hosts, addresses };
            let bound = Bound::to(id, residual, Target::Endpoints(Arc::new(addrs)));
            return Activity::Ok(NameTree::Leaf(Name::Bound(bound)));
        }
        match found {
            Found::Pending(kind) => Activity::pending(shared.waiting_for(kind, &namespace)),
            Found::Neg => Activity::Ok(NameTree::Neg),
            Found::Bound(answer) => {
                let bound = Bound::to(id, residual, Target::Endpoints(answer));
                Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
            }
        }
    }

    /// A path for each Service, with one of its ports; Linkerd's `/bound-names.json` has none of them.
    fn known(&self) -> Vec<Path> {
        let view = &self.cluster.shared.view;
        let whole = Path::utf8(["#"]).concat(&self.config.prefix);
        let services = view.services().into_iter();
        let named = services.filter_map(|Key { namespace, name }| {
            let rest = match &self.config.kind {
                NamerKind::Namespace(own) if **own != *namespace => return None,
                NamerKind::Namespace(_) => vec!["http", &*name],
                _ => vec![&*namespace, "http", &*name],
            };
            Some(whole.concat(&Path::utf8(rest)))
        });
        named.collect()
    }

    /// As Linkerd's page (`endpoints`, one entry for each name in use), and beside it the watches.
    fn state(&self) -> Value {
        let shared = &self.cluster.shared;
        let watches: Vec<Value> = shared
            .statuses()
            .iter()
            .map(|status| status.to_json())
            .collect();
        let mut endpoints = Map::new();
        let external = self.config.kind == NamerKind::External;
        for (query, addr) in shared.view.in_use() {
            if query.external != external {
                continue;
            }
            let label = query
                .label
                .map_or_else(String::new, |(key, value)| format!(":{key}={value}"));
            let entry = endpoints
                .entry(format!("{}{label}", query.service))
                .or_insert_with(|| json!({}));
            let entry = &mut entry[query.port.to_string()];
            // The routers' own service may be asked for in two ways: the namer's is the one shown.
            if query.leaving == Leaving::Alone || entry.is_null() {
                *entry = json!({"state": {"running": true, "value": addr.to_json()}});
            }
        }
        json!({"endpoints": endpoints, "watches": watches})
    }

    fn why_not(&self, rest: &Path) -> Option<String> {
        let Some(Understood { query, .. }) = self.understand(rest) else {
            return Some("the path has too few segments".to_owned());
        };
        let (view, Key { namespace, name }) = (&self.cluster.shared.view, &query.service);
        let kind = if query.external {
            Kind::Services
        } else {
            Kind::Members
        };
        if !view.listed(kind, namespace) {
            return None;
        }
        Some(match view.ports(&query.service) {
            None => format!("no Service `{name}` in namespace `{namespace}`"),
            Some(ports) if ports.is_empty() => {
                format!("Service `{name}` in namespace `{namespace}` has no endpoints")
            }
            Some(ports) if ports.contains(&query.port.to_string()) => {
                format!(
                    "port `{}` of Service `{name}` in namespace `{namespace}` leads nowhere",
                    query.port
                )
            }
            Some(ports) => format!(
                "no port `{}` of Service `{name}` in namespace `{namespace}`, which has {}",
                query.port,
                ports
                    .iter()
                    .map(|port| format!("`{port}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
    }
}
