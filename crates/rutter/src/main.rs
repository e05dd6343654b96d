//! The program `rutter`: see `rutter --help`. Only here is the process's environment read.

use std::process::ExitCode;

use rutter::cli;
use rutter::config::{Environment, Purpose};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page for each thread's few kilobytes would be most of what an idle router has in memory.
    _ = rustix::thread::disable_transparent_huge_pages(true);
    cli::main(std::env::args_os(), Environment::of_process(Purpose::Start))
}
