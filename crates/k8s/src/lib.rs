//! From a Kubernetes API to the states of `naming`. Reading order: [`objects`] is what is kept of EndpointSlices and
//! Services, [`table`] takes in the events of a watch, [`merge`] makes endpoints of a service's slices; these three are
//! pure. `view` holds it all and tells who uses a name; [`namer`] asks it. [`api`] talks to the API server, [`feed`]
//! drives one list and watch, [`cluster`] all of them; [`snapshot`] is what of it is on disk, `keep` reads and writes it;
//! [`review`] asks for permissions; [`raw`] is objects as JSON, for who writes them. [`configmap`] is apart: one object, which
//! holds a dtab; so is [`token`]: whose a token is.
//!
//! Not here: what a dtab means (`dtab`), what happens with an endpoint (`router`).

pub mod api;
mod backoff;
pub mod cluster;
pub mod configmap;
pub mod feed;
mod keep;
pub mod merge;
pub mod namer;
pub mod namespaces;
pub mod objects;
pub mod raw;
pub mod review;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod token;
mod view;

pub use api::{Api, ApiError, ApiTarget, ConnectError};
pub use cluster::{Cluster, ClusterConfig};
pub use configmap::ConfigMapConfig;
pub use feed::Timing;
pub use namer::{NamerConfig, NamerKind, ServiceNamer};
pub use review::{Missing, Review};
pub use token::{Tokens, User};
pub use view::Kind;
