//! Delegation, explained.

/// The way from a path to its leaves.
#[derive(Clone, Debug)]
pub struct Delegation {}
