//! `rutter demo`: two nodes on this machine, and everything around them. [`kube`] is the Kubernetes API, [`apps`] are the
//! applications, [`spans`] keeps the traces.

pub mod apps;
pub mod kube;
pub mod spans;
