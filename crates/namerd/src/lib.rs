//! The store of dtabs: what is in force in each namespace, its history, and Linkerd's HTTP API over it.
//!
//! In reading order: [`store`] says what keeps dtabs, and has the engines; [`names`] binds names under them; [`api`] is
//! Linkerd's HTTP controller API, [`serve`] its listener, [`access`] who may do what on it; [`client`] is a router's side of it. Not here: the configuration file (`rutter`), what a request is
//! (`router`).

pub mod access;
pub mod api;
pub mod change;
pub mod client;
mod json;
pub mod names;
pub mod serve;
pub mod store;

pub use access::Access;
pub use api::Api;
pub use names::Names;
pub use serve::{ApiListener, Keys};
