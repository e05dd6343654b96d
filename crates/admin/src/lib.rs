//! See the folder's Cargo.toml.
