//! The store of dtabs: what is in force in each namespace, its history, and Linkerd's HTTP API over it.
//!
//! In reading order: [`store`] says what keeps dtabs, and has the engines; [`names`] binds names under them; [`api`] is
//! Linkerd's HTTP controller API, [`mesh`] its gRPC services, [`thriftmux`] its ThriftMux service, [`serve`] their listener,
//! [`access`] who may do what; [`client`] is a router's side. Not here: the configuration file (`rutter`), what a request is
//! (`router`).

pub mod access;
pub mod api;
pub mod change;
pub mod client;
mod json;
pub mod mesh;
pub mod names;
mod observe;
pub mod serve;
pub mod store;
pub mod thriftmux;

pub use access::Access;
pub use api::Api;
pub use mesh::Mesh;
pub use names::Names;
pub use serve::{ApiListener, Interface, Keys};
pub use thriftmux::ThriftMux;
