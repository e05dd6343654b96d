//! `rutter namerd FILE`: reads the store's configuration, then hands over to [`crate::run::store`].

use std::io::Write as _;

use anyhow::Context as _;

use super::run::{CONTROL_END, CONTROL_THREADS, stop_on_signals};
use super::{Exit, complain, read_text, say};
use crate::config::{Environment, store};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The store's configuration: YAML, or JSON when it begins with `{`; `-` is stdin
    file: String,
    /// Only read the configuration: ends with 0 when the store would start with it
    #[arg(long)]
    validate: bool,
}

pub(super) fn run(args: &Args, environment: Environment) -> anyhow::Result<Exit> {
    let name = if args.file == "-" {
        "stdin"
    } else {
        &args.file
    };
    let text = match read_text(&args.file) {
        Ok(text) => text,
        Err(message) => {
            complain(&message);
            return Ok(Exit::No);
        }
    };
    let loaded = match store::load(name, &text, &environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            _ = write!(std::io::stderr().lock(), "{}", problems.render());
            return Ok(Exit::No);
        }
    };
    if loaded.problems.warnings() > 0 {
        _ = write!(std::io::stderr().lock(), "{}", loaded.problems.render());
    }
    if args.validate {
        return say(&format!("{}: valid", args.file));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("store")
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let ended = runtime.block_on(async {
        let stop = stop_on_signals().context("signals cannot be received")?;
        crate::run::store::run(loaded.config, &environment, stop).await
    });
    runtime.shutdown_timeout(CONTROL_END);
    match ended {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            complain(&format!("{error:#}"));
            Ok(Exit::No)
        }
    }
}
