//! Binding a path.

use std::sync::Arc;

use dtab::Path;

use crate::NamerError;

/// Hops from a path to a bound name, as Finagle's and Linkerd's limit.
pub const MAX_DEPTH: usize = 100;

/// Why a path is not bound. Which of them stop an alternative and which a union leaves out is `evaluate`'s matter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// More than [`MAX_DEPTH`] hops: most likely rules that lead round in a circle. In Finagle's words.
    #[error("Max recursion level: {MAX_DEPTH} reached in Namer lookup")]
    TooDeep,
    /// A path grew beyond the limit on its way.
    #[error("the path grew to {segments} segments on its way, and {limit} are the most", limit = dtab::MAX_PATH_SEGMENTS)]
    TooLong {
        /// How long it would have become.
        segments: usize,
    },
    /// Binding took more work than one name may take: rules that branch again at each of many hops.
    #[error("the lookups for one name are used up: the rules branch again and again")]
    Budget,
    /// `/$/class…`, and there is no such system namer; in Linkerd's words.
    #[error("Unknown namer: {class} for path: {path}")]
    UnknownNamer {
        /// The segment behind `/$/`.
        class: String,
        /// The path that was asked for.
        path: Path,
    },
    /// A namer has no answer.
    #[error("{error}")]
    Namer {
        /// The path that it was asked for.
        path: Path,
        /// What it says.
        error: Arc<NamerError>,
    },
    /// The interpreter's own source (a store, a file) answers errors and nothing is known from before.
    #[error("{message}")]
    Interpreter {
        /// What it says.
        message: String,
    },
}
