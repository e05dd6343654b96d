//! `rutter dtab …`: the dtabs of a store, over `/api/rutter/1`.
//!
//! [`Command`] has the words; `look` reads, `write` changes, `files` is for texts and folders, `print` makes lines of answers.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::store_client::{Failure, StoreClient, Target};
use super::{Exit, Output, Style, block_on, complain};
use crate::config::Environment;

mod files;
mod look;
pub(super) mod print;
mod write;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// All namespaces, with the version in force
    #[command(alias = "ls")]
    List,
    /// A dtab as it is written, with its version as the first line
    #[command(alias = "cat")]
    Get {
        /// A namespace, or one of its versions: NS@41
        name: String,
    },
    /// A version: who wrote it, when, what for, and its entries with their numbers
    Show {
        /// A namespace, or one of its versions: NS@41
        name: String,
    },
    /// A new namespace
    #[command(alias = "new")]
    Create(Put),
    /// Another text for a namespace, or a new one: planned, written, and waited for
    Put(Put),
    /// Another text for a namespace that is there
    #[command(alias = "up")]
    Update(Put),
    /// End a namespace; its history stays
    #[command(aliases = ["del", "rm"])]
    Delete {
        /// The namespace
        name: String,
        #[command(flatten)]
        manner: Manner,
    },
    /// Change a dtab in $EDITOR
    Edit {
        /// The namespace
        name: String,
        #[command(flatten)]
        manner: Manner,
    },
    /// What would a text do to the names in use? Writes nothing
    Plan {
        /// The namespace
        name: String,
        /// The dtab; `-` is stdin
        file: String,
        /// When to end with 7 rather than 1
        #[arg(long, value_enum, value_name = "WHAT")]
        fail_on: Option<FailOn>,
    },
    /// What differs between two versions, or between what is in force and a file
    Diff {
        /// The namespace
        name: String,
        /// A version's number, or a file; without it the last change is shown
        from: Option<String>,
        /// A version's number
        to: Option<u64>,
    },
    /// Put a folder's dtabs in force: one NAME.dtab for each namespace
    Apply {
        /// Files or folders
        #[arg(short, long, required = true, value_name = "PATH")]
        file: Vec<PathBuf>,
        /// End namespaces that have no file
        #[arg(long)]
        prune: bool,
        #[command(flatten)]
        manner: Manner,
    },
    /// The versions of a namespace, the newest first
    #[command(alias = "log")]
    History {
        /// The namespace
        name: String,
        /// At most so many
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: usize,
    },
    /// The version that brought each entry
    Blame {
        /// The namespace
        name: String,
    },
    /// An older text as a new version
    Rollback {
        /// The namespace
        name: String,
        /// The version that comes back [default: the one before what is in force]
        #[arg(long, value_name = "NUMBER")]
        to: Option<u64>,
        #[command(flatten)]
        manner: Manner,
    },
    /// Keep a change that was written with --confirm-within
    Confirm {
        /// The namespace
        name: String,
        /// Only if this is in force
        #[arg(long, value_name = "NUMBER")]
        number: Option<u64>,
        #[command(flatten)]
        manner: Manner,
    },
    /// A line for each version as it comes
    Watch {
        /// The namespace
        name: String,
        /// End after so many lines
        #[arg(short = 'n', long, value_name = "LINES")]
        count: Option<NonZeroUsize>,
    },
    /// Lay a dtab out, with its comments; without --write it is printed
    Fmt {
        /// Files; `-` is stdin
        #[arg(required = true)]
        files: Vec<String>,
        /// Change the files
        #[arg(short, long)]
        write: bool,
        /// End with 1 when a file is not laid out so
        #[arg(long, conflicts_with = "write")]
        check: bool,
    },
    /// Likely mistakes, with line and column; with --namespace also by the store's namers and names in use
    Lint {
        /// The dtab; `-` is stdin
        file: String,
        /// Ask the store, as if the text came in force there
        #[arg(short, long, value_name = "NS")]
        namespace: Option<String>,
    },
    /// Write all namespaces into a folder, a NAME.dtab each
    Export {
        /// The folder
        folder: PathBuf,
    },
    /// Put the dtabs of a folder into the store; what is the same stays
    Import {
        /// The folder
        folder: PathBuf,
        #[command(flatten)]
        manner: Manner,
    },
}

#[derive(clap::Args, Debug)]
struct Put {
    /// The namespace
    name: String,
    /// The dtab; `-` is stdin. A first line `# version …`, as `get` prints it, says what it was made from
    file: String,
    #[command(flatten)]
    manner: Manner,
}

/// How a change is made.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Manner {
    /// What the change is for
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) note: Option<String>,
    /// Who makes it [default: $USER]
    #[arg(long = "as", value_name = "NAME")]
    author: Option<String>,
    /// Only if this version is in force [default: the one in the text's first line]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Whatever version is in force
    #[arg(long, conflicts_with = "version")]
    force: bool,
    /// How long routers are waited for
    #[arg(long, default_value = "30s", value_name = "TIME")]
    wait: String,
    /// Do not wait for routers
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Write although names in use break
    #[arg(long)]
    pub(in crate::cli) allow_break: bool,
    /// So many of the names in use may break, in percent
    #[arg(long, value_name = "PERCENT")]
    max_break: Option<f64>,
    /// Only say what it would do
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Take it back after this time unless it is confirmed (`rutter dtab confirm`)
    #[arg(long, value_name = "TIME")]
    confirm_within: Option<String>,
}

/// What makes a plan a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// A name in use breaks.
    Break,
    /// A name in use changes.
    Change,
}

/// A command at work.
struct Work<'a> {
    store: StoreClient,
    output: Output,
    style: Style,
    environment: &'a Environment,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    use std::io::IsTerminal as _;
    let store = match StoreClient::new(&args.target, environment) {
        Ok(store) => store,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Ok(Exit::Usage);
        }
    };
    let work = Work {
        store,
        output: args.output,
        style: Style::of(environment, std::io::stdout().is_terminal()),
        environment,
    };
    match block_on(work.run(&args.command))? {
        Ok(exit) => Ok(exit),
        Err(failure) => Ok(work.failed(&failure)),
    }
}

impl Work<'_> {
    async fn run(&self, command: &Command) -> Result<Exit, Failure> {
        match command {
            Command::List => self.list().await,
            Command::Get { name } => self.get(name).await,
            Command::Show { name } => self.show(name).await,
            Command::Create(put) => self.put(put, write::Must::BeNew).await,
            Command::Put(put) => self.put(put, write::Must::Either).await,
            Command::Update(put) => self.put(put, write::Must::BeThere).await,
            Command::Delete { name, manner } => self.delete(name, manner).await,
            Command::Edit { name, manner } => self.edit(name, manner).await,
            Command::Plan {
                name,
                file,
                fail_on,
            } => self.plan(name, file, *fail_on).await,
            Command::Diff { name, from, to } => self.diff(name, from.as_deref(), *to).await,
            Command::Apply {
                file,
                prune,
                manner,
            } => self.apply(file, *prune, manner).await,
            Command::History { name, limit } => self.history(name, *limit).await,
            Command::Blame { name } => self.blame(name).await,
            Command::Rollback { name, to, manner } => self.rollback(name, *to, manner).await,
            Command::Confirm {
                name,
                number,
                manner,
            } => self.confirm(name, *number, manner).await,
            Command::Watch { name, count } => self.watch(name, *count).await,
            Command::Fmt {
                files,
                write,
                check,
            } => self.fmt(files, *write, *check),
            Command::Lint { file, namespace } => self.lint(file, namespace.as_deref()).await,
            Command::Export { folder } => self.export(folder).await,
            Command::Import { folder, manner } => {
                self.apply(std::slice::from_ref(folder), false, manner)
                    .await
            }
        }
    }

    /// Says what went wrong; a plan that is the reason is shown.
    fn failed(&self, failure: &Failure) -> Exit {
        let plan = failure.problem.as_ref().and_then(|p| p.plan.as_ref());
        if let Some(plan) = plan {
            complain(&format!(
                "{}\n{}",
                failure.message,
                print::plan(plan, "the new text", self.style)
            ));
            complain("nothing was written; --allow-break writes all the same");
        } else {
            complain(&failure.message);
        }
        failure.exit
    }
}

/// A namespace as a segment of the API's paths; `NS@41` is one of its versions.
fn segment(name: &str) -> String {
    match name.rsplit_once('@') {
        Some((name, number))
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("{}@{number}", namerd::api::encoded(name))
        }
        _ => namerd::api::encoded(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_behind_the_namespace() {
        for (name, want) in [
            ("a", "a"),
            ("a@41", "a@41"),
            ("a@b", "a%40b"),
            ("a@b@2", "a%40b@2"),
            ("a@", "a%40"),
        ] {
            assert_eq!(segment(name), want);
        }
    }
}
