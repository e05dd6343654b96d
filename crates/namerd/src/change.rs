//! Changes of dtabs made safe: what a change is ([`diff`]), what is wrong with a text ([`lint`]), which names are in use and
//! which router routes with what ([`live`]), what a change would do to them ([`plan`]), an edit of single entries
//! ([`edit`]), what is said with a version ([`noted`]), and a change that ends by itself unless confirmed ([`confirm`]); [`shapes`] is how all this is told.
//!
//! Not here: HTTP (`api/rutter.rs`), storage (`store`).

pub mod confirm;
pub mod diff;
pub mod edit;
pub mod lint;
pub mod live;
pub mod noted;
pub mod plan;
pub mod shapes;
