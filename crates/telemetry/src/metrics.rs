//! Metrics: sources register under a place of Linkerd's tree, and are read when somebody looks.
//!
//! ```text
//! data thread:  Cell, Histogram in an object of its own        registry.register(scope, source)  →  Registration (drop = gone)
//! control:      gather() reads each source once, adds up what several workers report under one scope and name, and pages are made of it:
//!               linkerd::json, linkerd::prometheus (Linkerd 1's names), ours::page (the names of docs/metrics.md)
//! ```
//! One set of cells serves both vocabularies. A source reports under Linkerd's names ([`Collector::counter`], [`gauge`](Collector::gauge),
//! [`stat`](Collector::stat)); what Linkerd has no name for it reports in a family of ours ([`Collector::ours`],
//! [`Collector::duration`]) whose `router`, `service`, `client`, `server` labels come from the scope. [`Requests`] and [`Outcomes`] are
//! the sources that every request is counted in.

use std::fmt;
use std::sync::Arc;

mod collect;
pub mod control;
pub mod linkerd;
pub mod ours;
mod process;
mod registry;
mod requests;
mod text;

pub use collect::{Collector, Source, Unit};
pub use registry::{Registration, Registry, RegistryConfig};
pub use requests::{Outcome, Outcomes, Requests};

/// A place in the tree of metrics, as Linkerd's: `rt / out / service / svc/web`. Each node is one label value or word and may contain
/// slashes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<[Box<str>]>);

impl Scope {
    /// The place with these nodes; empty ones are left out.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Self {
        Self(
            nodes
                .into_iter()
                .filter(|n| !n.is_empty())
                .map(Box::from)
                .collect(),
        )
    }

    /// `rt/<label>`.
    pub fn router(label: &str) -> Self {
        Self::new(["rt", label])
    }

    /// `rt/<label>/server/<ip>/<port>`; address and port are one node.
    pub fn server(label: &str, addr: std::net::SocketAddr) -> Self {
        Self::new([
            "rt",
            label,
            "server",
            &format!("{}/{}", addr.ip(), addr.port()),
        ])
    }

    /// `rt/<label>/service/<path>`; the path without its leading slash.
    pub fn service(label: &str, path: &str) -> Self {
        Self::new(["rt", label, "service", path.trim_start_matches('/')])
    }

    /// `rt/<label>/client/<id>`; the bound id without its leading slash.
    pub fn client(label: &str, id: &str) -> Self {
        Self::new(["rt", label, "client", id.trim_start_matches('/')])
    }

    /// `rt/<label>/client/<id>/service/<path>`.
    pub fn client_service(label: &str, id: &str, path: &str) -> Self {
        Self::client(label, id)
            .child("service")
            .child(path.trim_start_matches('/'))
    }

    /// One node deeper.
    #[must_use]
    pub fn child(&self, node: &str) -> Self {
        Self::new(self.nodes().iter().map(AsRef::as_ref).chain([node]))
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Box<str>] {
        &self.0
    }
}

/// The nodes with slashes between them.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A client's id without the transformers before it: `%/io.l5d.k8s.daemonset/…/#/io.l5d.k8s/default/http/web` is
/// `#/io.l5d.k8s/default/http/web`. All clients of a router have the same ones, which would make up a third
/// of our page, and the node in some would make a service of each node.
pub(crate) fn bare(client: &str) -> &str {
    let start = client.find("/#/").or_else(|| client.find("/$/"));
    match start.filter(|_| client.starts_with("%/")) {
        Some(at) => &client[at + 1..],
        None => client,
    }
}
