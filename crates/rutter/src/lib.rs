//! The program: configuration file, wiring, commands.

pub mod cli;
pub mod config;
pub mod demo;
pub mod identify;
pub mod near;
pub mod run;
pub mod suggest;
