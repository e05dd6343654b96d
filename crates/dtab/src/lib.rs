//! The language of delegation, as Finagle defines it, without async and without I/O.
//!
//! In reading order: [`Path`] is what a request is named; a [`NameTree`] holds alternatives and weighted unions of
//! them; a [`Dtab`] is the table of rules ([`Dentry`]: [`Prefix`] `=>` tree) that rewrites one path by one
//! [`Dtab::lookup`]. [`Layout`] is a dtab with its places and
//! comments. [`ParseError`] says where a text is wrong, as Finagle does and for people. The grammar is in
//! `parse.rs`, the canonical form in `print.rs`. Not here: namers and repeated lookups (`naming`).

mod dtab;
mod error;
mod index;
mod layout;
mod limits;
mod parse;
mod path;
mod prefix;
mod print;
mod tree;

pub use dtab::{Dentry, Dtab};
pub use error::{Expected, ParseError, ParseErrorKind};
pub use layout::{Layout, Placed};
pub use limits::{MAX_INPUT_BYTES, MAX_NESTING, MAX_PATH_SEGMENTS};
pub use path::{Path, Segment};
pub use prefix::{Elem, Prefix};
pub use tree::{NameTree, Weighted};
