//! How everything reports: one catalogue of error codes ([`code`]), the cells that data threads count in ([`cells`]), the
//! tree of metrics read from them and its pages ([`metrics`]), trace contexts in headers ([`trace`]), finished spans and
//! their way to a collector ([`span`]), the log ([`log`]).
//!
//! The rule of the house: a data thread writes plain cells of its own and pushes plain records into a bounded queue. Names,
//! labels, text and sockets belong to the control runtime, when somebody looks. Not here: what a dtab, a router or a
//! namer is; they are only names in a [`metrics::Scope`].

pub mod cells;
pub mod code;
pub mod log;
pub mod metrics;
pub mod span;
pub mod trace;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what is sound between any two statements, so that a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
