//! `rutter config check|show|schema`.

use std::io::Write as _;

use super::{Exit, Output, complain, load, looking, read_text, say, say_json};
use crate::config::{self, Environment, Purpose, lint, schema, show};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Find everything that start-up would find, and what would only go wrong later
    Check {
        /// The configuration; `-` is stdin
        file: String,
        /// How the answer is written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Warnings count as errors
        #[arg(long)]
        strict: bool,
    },
    /// The configuration with every default written out
    Show {
        /// The configuration; `-` is stdin
        file: String,
        /// How the answer is written; json has only the keys that were given
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// JSON Schema of the configuration, for editors
    Schema,
}

pub(super) fn run(command: &Command, environment: Environment) -> anyhow::Result<Exit> {
    match command {
        Command::Check {
            file,
            output,
            strict,
        } => check(file, *output, *strict, looking(environment)),
        Command::Show { file, output } => {
            match (load(file, &environment.for_purpose(Purpose::Text)), output) {
                (Err(exit), _) => Ok(exit),
                (Ok(loaded), Output::Table) => say(&show::yaml(&loaded.tree)),
                (Ok(loaded), Output::Json) => say_json(&loaded.config.given),
            }
        }
        Command::Schema => say_json(&schema::schema()),
    }
}

fn check(
    file: &str,
    output: Output,
    strict: bool,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(message) => {
            complain(&message);
            return Ok(Exit::No);
        }
    };
    let problems = match config::load(
        if file == "-" { "stdin" } else { file },
        &text,
        &environment,
    ) {
        Ok(loaded) => lint::lint(&loaded, &environment),
        Err(problems) => problems,
    };
    match output {
        Output::Json => _ = say_json(&problems.to_json())?,
        Output::Table if problems.all.is_empty() => _ = say(&problems.render())?,
        Output::Table => std::io::stderr()
            .lock()
            .write_all(problems.render().as_bytes())?,
    }
    let failed = problems.errors() > 0 || (strict && problems.warnings() > 0);
    Ok(if failed { Exit::No } else { Exit::Done })
}
