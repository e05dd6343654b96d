//! `rutter config check|show|schema|convert`.

use std::io::Write as _;

use serde_json::json;

use super::{Exit, Output, complain, load, looking, read_text, say, say_json};
use crate::config::manifest::{self, Embedded};
use crate::config::problem::Problems;
use crate::config::{self, Environment, Purpose, lint, schema, show, store};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Find everything that start-up would find, and what would only go wrong later
    Check {
        /// The configuration, or a manifest with ConfigMaps; `-` is stdin
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
    /// A Linkerd 1 file as one that starts here: what is not there is commented out, line by line, and named
    ///
    /// Exit code 0: nothing had to go; 1: look at what was named.
    Convert {
        /// The configuration, or a manifest with ConfigMaps; `-` is stdin
        file: String,
    },
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
        Command::Convert { file } => convert(file, &environment.for_purpose(Purpose::Text)),
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
    let name = if file == "-" { "stdin" } else { file };
    let parts = manifest::embedded(&text);
    if parts.is_empty() {
        let problems = problems_of(name, &text, &environment);
        match output {
            Output::Json => _ = say_json(&problems.to_json())?,
            Output::Table => show_problems(&problems)?,
        }
        return Ok(verdict(&[problems], strict));
    }
    let checked: Vec<Problems> = parts
        .iter()
        .map(|part| problems_of(name, &part.text, &environment))
        .collect();
    match output {
        Output::Json => {
            let of_part = |(part, problems): (&Embedded, &Problems)| {
                let mut json = problems.to_json();
                json["part"] = part.whose.as_str().into();
                json
            };
            let errors: usize = checked.iter().map(Problems::errors).sum();
            let warnings: usize = checked.iter().map(Problems::warnings).sum();
            let all: Vec<_> = parts.iter().zip(&checked).map(of_part).collect();
            _ = say_json(&json!({
                "schema": "rutter/config-check/v1",
                "file": name,
                "valid": errors == 0,
                "errors": errors,
                "warnings": warnings,
                "parts": all,
            }))?;
        }
        Output::Table => {
            for (part, problems) in parts.iter().zip(&checked) {
                match problems.all.is_empty() {
                    true => _ = say(&format!("{}:", part.whose))?,
                    false => complain(&format!("{}:", part.whose)),
                }
                show_problems(problems)?;
            }
        }
    }
    Ok(verdict(&checked, strict))
}

/// All that is wrong with a router's or a store's file.
fn problems_of(name: &str, text: &str, environment: &Environment) -> Problems {
    match store::is_store(text) {
        true => match store::load(name, text, environment) {
            Ok(loaded) => loaded.problems,
            Err(problems) => problems,
        },
        false => match config::load(name, text, environment) {
            Ok(loaded) => lint::lint(&loaded, environment),
            Err(problems) => problems,
        },
    }
}

fn show_problems(problems: &Problems) -> anyhow::Result<()> {
    match problems.all.is_empty() {
        true => _ = say(&problems.render())?,
        false => std::io::stderr()
            .lock()
            .write_all(problems.render().as_bytes())?,
    }
    Ok(())
}

fn verdict(checked: &[Problems], strict: bool) -> Exit {
    let bad = |problems: &Problems| problems.errors() > 0 || (strict && problems.warnings() > 0);
    match checked.iter().any(bad) {
        true => Exit::No,
        false => Exit::Done,
    }
}

/// Prints the file as one that starts here, and what it had to leave out.
fn convert(file: &str, environment: &Environment) -> anyhow::Result<Exit> {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(message) => {
            complain(&message);
            return Ok(Exit::No);
        }
    };
    let name = if file == "-" { "stdin" } else { file };
    // A manifest is converted part by part; the others stay as they are.
    let parts = manifest::embedded(&text);
    if let Some(part) = parts.iter().find(|part| !part.in_place) {
        complain(&format!(
            "{name}: {} is not there line by line: write it as a block (`key: |`), or convert it as a file of its own",
            part.whose
        ));
        return Ok(Exit::No);
    }
    let many = parts.len().max(1);
    let mut text = text;
    let mut all_well = true;
    for at in 0..many {
        let part = |text: &str| match manifest::embedded(text).into_iter().nth(at) {
            Some(part) => part.text,
            None => text.to_owned(),
        };
        let converted = config::convert::convert(&text, |text| {
            let read = part(text);
            (problems_of(name, &read, environment), read)
        });
        for one in &converted.taken_out.all {
            let line = one.place.map_or(0, |place| place.line);
            let help = one.help.iter().map(|help| format!(" ({help})"));
            complain(&format!(
                "{name}:{line}: {} is commented out: {}{}",
                one.key,
                one.message,
                help.collect::<String>()
            ));
        }
        if converted.left.errors() > 0 {
            complain("to be mended by hand:");
            show_problems(&converted.left)?;
        }
        all_well &= converted.taken_out.all.is_empty() && converted.left.errors() == 0;
        text = converted.text;
    }
    _ = say(&text)?;
    Ok(if all_well { Exit::Done } else { Exit::No })
}
