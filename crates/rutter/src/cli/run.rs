//! `rutter run FILE`: reads the configuration, then hands over to [`crate::run`].

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, complain, load, say};
use crate::config::Environment;

/// Threads of the control runtime: watches, admin pages, exporters. The data plane has its own.
pub(super) const CONTROL_THREADS: usize = 2;
/// What the control runtime still does when all is over (a file that is being read) may take this long to end.
pub(super) const CONTROL_END: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The configuration: YAML, or JSON when it begins with `{`; `-` is stdin
    file: String,
    /// Only read the configuration: ends with 0 when the router would start with it
    #[arg(long)]
    validate: bool,
}

pub(super) fn run(args: &Args, environment: Environment) -> anyhow::Result<Exit> {
    let loaded = match load(&args.file, &environment) {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    if loaded.problems.warnings() > 0 {
        _ = write!(std::io::stderr().lock(), "{}", loaded.problems.render());
    }
    if args.validate {
        return say(&format!("{}: valid", args.file));
    }
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control runtime does not start")?;
    let ended = control.block_on(async {
        let stop = stop_on_signals().context("signals cannot be received")?;
        let file = (args.file != "-").then(|| args.file.as_str().into());
        crate::run::run(loaded, file, environment, stop).await
    });
    control.shutdown_timeout(CONTROL_END);
    match ended {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            complain(&format!("{error:#}"));
            Ok(Exit::No)
        }
    }
}

/// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
pub(super) fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let told = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            let status = tokio::select! { _ = term.recv() => 143, _ = int.recv() => 130 };
            if first {
                told.cancel();
            } else {
                std::process::exit(status);
            }
        }
    });
    Ok(stop)
}
