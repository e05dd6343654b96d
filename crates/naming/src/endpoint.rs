//! What names end in: endpoints, sets of them that change, and bound names.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use dtab::Path;
use serde_json::{Map, Value, json};

use crate::{Reads, Var};

/// One place that a request can be sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share in proportion to its neighbours', 1 unless its source says otherwise.
    pub weight: f64,
    /// The node it runs on, where the source knows.
    pub node: Option<Arc<str>>,
    /// The host name to ask for there, where the source knows better than the request (Consul's `setHost`).
    pub authority: Option<Arc<str>>,
}

impl Endpoint {
    /// An endpoint of weight 1 about which nothing else is known.
    pub const fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            weight: 1.0,
            node: None,
            authority: None,
        }
    }

    /// The same with a weight.
    #[must_use]
    pub fn weighing(self, weight: f64) -> Self {
        Self { weight, ..self }
    }

    /// The same on a node.
    #[must_use]
    pub fn on(self, node: impl Into<Arc<str>>) -> Self {
        let node = Some(node.into());
        Self { node, ..self }
    }

    /// As Linkerd's delegate API shows an address: `{"ip", "port", "meta"}`.
    pub fn to_json(&self) -> Value {
        let mut meta = Map::new();
        if self.weight != 1.0 {
            // The key that Finagle's WeightedAddress keeps in an address's metadata.
            meta.insert("endpoint_addr_weight".to_owned(), json!(self.weight));
        }
        if let Some(node) = &self.node {
            meta.insert("nodeName".to_owned(), json!(node));
        }
        if let Some(authority) = &self.authority {
            meta.insert("authority".to_owned(), json!(authority));
        }
        json!({"ip": self.addr.ip().to_string(), "port": self.addr.port(), "meta": meta})
    }
}

/// The state of an address set.
#[derive(Clone, Debug, PartialEq)]
pub enum Addr {
    /// Its source has not answered yet.
    Pending,
    /// There is no such thing; also when a transformer left no address.
    Neg,
    /// Its source answers errors and nothing is known.
    Failed(Arc<str>),
    /// These endpoints, none of them twice; there may be none.
    Bound(Arc<[Endpoint]>),
}

impl Addr {
    /// A set of endpoints.
    pub fn bound(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self::Bound(endpoints.into_iter().collect())
    }

    /// The endpoints; none when the set is in another state.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Bound(endpoints) => endpoints,
            _ => &[],
        }
    }

    /// As Linkerd's delegate API shows it: `{"type": "bound", "addrs": […], "meta": {}}`, or `neg`, `pending`,
    /// `failed` with a `cause`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Pending => json!({"type": "pending"}),
            Self::Neg => json!({"type": "neg"}),
            Self::Failed(cause) => json!({"type": "failed", "cause": cause}),
            Self::Bound(endpoints) => {
                let addrs: Vec<_> = endpoints.iter().map(Endpoint::to_json).collect();
                json!({"type": "bound", "addrs": addrs, "meta": {}})
            }
        }
    }

    /// As a value of `/client_state.json`: `{"state": "bound", "addresses": ["ip:port"…]}`, or only the state as `Neg`,
    /// `Pending`, `Failed: CAUSE`.
    pub fn client_state(&self) -> Value {
        match self {
            Self::Pending => json!({"state": "Pending"}),
            Self::Neg => json!({"state": "Neg"}),
            Self::Failed(cause) => json!({"state": format!("Failed: {cause}")}),
            Self::Bound(endpoints) => {
                let addresses: Vec<_> = endpoints.iter().map(|e| e.addr.to_string()).collect();
                json!({"state": "bound", "addresses": addresses})
            }
        }
    }
}

/// An address set that changes.
pub trait Addrs: Send + Sync {
    /// Its present state; `reads` will tell of the next one.
    fn addr(&self, reads: &mut Reads) -> Addr;
}

impl Addrs for Var<Addr> {
    fn addr(&self, reads: &mut Reads) -> Addr {
        self.read(reads).as_ref().clone()
    }
}

/// An address set that never changes.
impl Addrs for Addr {
    fn addr(&self, _: &mut Reads) -> Addr {
        self.clone()
    }
}

/// What a bound name leads to.
#[derive(Clone)]
pub enum Target {
    /// Endpoints that change.
    Endpoints(Arc<dyn Addrs>),
    /// Nowhere: the router itself answers with this status (`/$/io.buoyant.http.status`).
    Status(u16),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(addrs) => f
                .debug_tuple("Endpoints")
                .field(&addrs.addr(&mut Reads::new()))
                .finish(),
            Self::Status(code) => f.debug_tuple("Status").field(code).finish(),
        }
    }
}

/// A bound name: the outcome of binding a path. Equal to another when their ids are equal, whatever else differs.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The identity of the cluster.
    pub id: Path,
    /// The segments that the namer did not use up; they are never looked up again.
    pub residual: Path,
    /// Where it leads.
    pub target: Target,
    /// The weight of the nearest union's branch on the way here; none when there was no union.
    pub weight: Option<f64>,
}

impl Bound {
    /// A bound name of endpoints that change.
    pub fn new(id: Path, residual: Path, addrs: impl Addrs + 'static) -> Self {
        Self::to(id, residual, Target::Endpoints(Arc::new(addrs)))
    }

    /// A bound name with any target.
    pub const fn to(id: Path, residual: Path, target: Target) -> Self {
        Self {
            id,
            residual,
            target,
            weight: None,
        }
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Bound {}

impl std::hash::Hash for Bound {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// A leaf of a namer's answer.
#[derive(Clone, Debug)]
pub enum Name {
    /// To be looked up further, from the top of the dtab.
    Path(Path),
    /// The end of the way.
    Bound(Bound),
}
