//! "Did you mean", for keys, commands and names: [`naming::near`].

pub use naming::near::{distance, nearest};
