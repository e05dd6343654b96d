//! The program `rutter`: see `rutter --help`. Only here is the process's environment read.

use std::process::ExitCode;

use rutter::cli;
use rutter::config::{Environment, Purpose};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), Environment::of_process(Purpose::Start))
}
