//! From a Kubernetes API to the states of `naming`. Reading order: [`objects`] is what is kept of EndpointSlices and
//! Services, [`table`] takes in the events of a watch.
//!
//! Not here: what a dtab means (`dtab`), what happens with an endpoint (`router`).

pub mod objects;
pub mod table;
