//! Sources of names that need no cluster: [`system`] answers `/$/…`, [`rewrite`], [`fs`], [`dnssrv`], [`consul`] and `zookeeper` are configured ones,
//! [`dns`] follows host names for them, `followed` the names of a source that has to be asked again and again.

pub mod consul;
pub mod dns;
pub mod dnssrv;
mod followed;
pub mod fs;
pub mod rewrite;
pub mod system;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use consul::{ConsulConfig, ConsulNamer};
pub use dns::Dns;
pub use dnssrv::{DnsSrvConfig, DnsSrvNamer};
pub use fs::FsNamer;
pub use rewrite::RewriteNamer;
pub use system::SystemNamer;
#[cfg(feature = "zookeeper")]
pub use zookeeper::{ZkConfig, ZkKind, ZkNamer};
