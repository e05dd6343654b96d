//! `rutter explain CODE`, without a network.

use telemetry::code;

use super::{Exit, complain, say};
use crate::near;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A code such as RT-E101; without one all are listed
    code: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Some(asked) = &args.code else {
        let lines: Vec<String> = code::entries()
            .map(|e| format!("{}  {}", e.code, e.title))
            .collect();
        return say(&lines.join("\n"));
    };
    if let Some(entry) = code::find(asked) {
        return say(&entry.page());
    }
    let near = near::nearest(asked, code::entries().map(|e| e.code))
        .map(|n| format!(" (did you mean {n}?)"))
        .unwrap_or_default();
    complain(&format!(
        "there is no code {asked}{near}; `rutter explain` lists all"
    ));
    Ok(Exit::NotFound)
}
