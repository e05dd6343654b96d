//! Sources of names that need no cluster: [`system`] answers `/$/…`, [`rewrite`] and [`fs`] are configured ones, [`dns`]
//! follows host names for them.

pub mod dns;
pub mod fs;
pub mod rewrite;
pub mod system;

pub use dns::Dns;
pub use fs::FsNamer;
pub use rewrite::RewriteNamer;
pub use system::SystemNamer;
