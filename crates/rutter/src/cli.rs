//! What one types: commands, their flags, what they print and how they end.
//!
//! Data goes to stdout, everything else to stderr. Each command is a file below `cli/` and returns an [`Exit`]; only [`main`] turns
//! it into a process's status.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{Environment, Purpose};
use crate::{demo, near};

mod admin_client;
mod check;
mod config;
mod curl;
mod delegate;
mod dtab;
mod explain;
mod namerctl;
mod namerd;
mod offline;
mod proxy_env;
mod run;
mod shift;
mod store_address;
mod store_client;
mod tree;
mod why;

/// How a command ended; the numbers are documented and stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; all is well.
    Done = 0,
    /// The answer is "no": a check failed, a configuration is invalid, a name leads nowhere.
    No = 1,
    /// Wrong usage.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Somebody changed it first.
    Conflict = 4,
    /// Nobody answers at the address.
    Unreachable = 5,
    /// What was waited for did not come.
    TimedOut = 6,
    /// It would break names in use, and was not allowed to.
    Refused = 7,
    /// A defect of ours.
    Internal = 70,
    /// Stopped by the user.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A terminal that says it is narrower is not believed.
const NARROWEST: usize = 20;

const GROUPS: &str = "\
LOOK
  check       is everything all right?
ASK
  why         why does this URL fail, or go where it goes?
  delegate    what does the dtab do to a path?
  curl        send a request through a router
  config      check, show or describe the configuration
  explain     what does code RT-… mean?
RUN
  run         the router (also: rutter FILE, and `-` reads stdin)
  namerd      the store of dtabs
  demo        two nodes on this machine, everything in it
CHANGE
  dtab        the dtabs of a store: get, edit, plan, put, history, rollback, …
  shift       move a share of traffic, guarded
  namerctl    read and change the dtabs of a store
  proxy-env   add http_proxy to pod specs, or take it out
ABOUT
  version     which version this is
  completion  a completion script for your shell
  help        help for a command

Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 not found, 4 changed by
somebody else, 5 nobody answers, 6 waited in vain, 7 it would break names in use,
70 a defect, 130 interrupted.";

/// A per-node HTTP router that names requests and follows dtabs, as Linkerd 1 did.
#[derive(Parser, Debug)]
#[command(
    name = "rutter",
    version,
    disable_help_subcommand = false,
    arg_required_else_help = true
)]
#[command(help_template = "{about}\n\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}\n", after_help = GROUPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the router
    #[command(
        after_help = "Examples:\n  rutter run config.yaml\n  rutter config.yaml\n  kubectl get cm l5d-config -o jsonpath='{.data.config\\.yaml}' | rutter -"
    )]
    Run(run::Args),
    /// Run the store of dtabs
    #[command(
        after_help = "Examples:\n  rutter namerd namerd.yaml\n  rutter namerd --validate namerd.yaml"
    )]
    Namerd(namerd::Args),
    /// Is everything all right? Asks a running router, and looks a configuration over
    #[command(
        after_help = "Examples:\n  rutter check\n  rutter check --admin 10.1.2.3:9990 config.yaml\n  rutter check --pre --kubeconfig ~/.kube/config\n  rutter check -N mesh --proxy --probe hello\n  rutter check --only names -o short"
    )]
    Check(check::Args),
    /// Why does this URL fail, or go where it goes?
    #[command(
        after_help = "Examples:\n  rutter why http://web/\n  rutter why web --admin 10.1.2.3:9990 --router outgoing"
    )]
    Why(why::Args),
    /// What does the dtab do to a path?
    #[command(
        after_help = "Examples:\n  rutter delegate /svc/web\n  rutter delegate /svc/web --config config.yaml\n  rutter delegate /svc/web --dtab '/svc => /#/io.l5d.fs'"
    )]
    Delegate(delegate::Args),
    /// Send a request through a router, as an application with http_proxy would
    #[command(
        after_help = "Examples:\n  rutter curl http://web/\n  rutter curl --proxy 10.1.2.3:4140 --dtab '/svc/web => /srv/web-v2' http://web/\n  rutter curl --expect 200 --retry-for 30 http://web/"
    )]
    Curl(curl::Args),
    /// Check, show or describe the configuration
    #[command(
        subcommand,
        after_help = "Examples:\n  rutter config check config.yaml\n  rutter config show config.yaml\n  rutter config schema > rutter.schema.json\n  rutter config convert linkerd.yaml > rutter.yaml"
    )]
    Config(config::Command),
    /// What does code RT-… mean?
    #[command(
        after_help = "Examples:\n  rutter explain RT-E101\n  rutter explain        (lists all)"
    )]
    Explain(explain::Args),
    /// Two nodes on this machine, everything in it
    Demo(demo::Args),
    /// Add http_proxy and no_proxy to pod specs, or take them out
    #[command(
        long_about = proxy_env::ABOUT,
        after_help = "Examples:\n  rutter proxy-env deployment.yaml | kubectl apply -f -\n  kubectl get deploy hello -o yaml | rutter proxy-env | kubectl apply -f -\n  rutter proxy-env --undo deployment.yaml > plain.yaml\n  helm template . | rutter proxy-env --service rutter.mesh --no-proxy .internal.example"
    )]
    ProxyEnv(proxy_env::Args),
    /// The dtabs of a store: looked at, planned, changed, taken back
    #[command(
        subcommand_required = true,
        after_help = "Examples:\n  rutter dtab list\n  rutter dtab plan default new.dtab\n  rutter dtab put default new.dtab --note 'canary 10 %'\n  rutter dtab rollback default"
    )]
    Dtab(dtab::Args),
    /// Move a share of a name's traffic, in steps, guarded by the routers' own numbers
    #[command(
        after_help = "Examples:\n  rutter shift /host/world --to /srv/world-v2=10 -n default\n  rutter shift /host/world --to /srv/world-v2 --steps 1,10,50,100 --every 5m --abort-if 'success<99' --abort-if 'p99>500ms'"
    )]
    Shift(shift::Args),
    /// Read and change the dtabs of a store, as Linkerd's namerctl (also by a symbolic link of that name)
    #[command(
        after_help = "Examples:\n  rutter namerctl dtab list\n  rutter namerctl dtab get default > default.dtab\n  rutter namerctl dtab update default default.dtab\n  rutter namerctl --base-url http://namerd:4180 dtab create default -"
    )]
    Namerctl(namerctl::Args),
    /// Which version this is
    Version,
    /// A completion script for your shell
    #[command(
        after_help = "Examples:\n  rutter completion bash > /etc/bash_completion.d/rutter\n  rutter completion zsh > ~/.zfunc/_rutter"
    )]
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Signs and colours for this terminal.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// `✓` rather than `[ok]`.
    pub unicode: bool,
    /// Colours.
    pub colour: bool,
    /// Columns of the terminal; none when the output goes elsewhere, where lines stay whole.
    pub width: Option<usize>,
}

impl Style {
    /// As locale and terminal allow: ASCII unless the locale is UTF-8, no colour with NO_COLOR, TERM=dumb or in a pipe.
    pub fn of(environment: &Environment, terminal: bool) -> Self {
        let get = |name: &str| {
            environment
                .variables
                .get(name)
                .map(String::as_str)
                .filter(|v| !v.is_empty())
        };
        let locale = get("LC_ALL")
            .or_else(|| get("LC_CTYPE"))
            .or_else(|| get("LANG"))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        let colour =
            terminal && get("NO_COLOR").is_none() && get("TERM").is_none_or(|t| t != "dumb");
        let asked = get("COLUMNS").and_then(|columns| columns.parse().ok());
        let width = asked.or_else(|| {
            let columns = comfy_table::Table::new().width()?;
            Some(usize::from(columns))
        });
        Self {
            unicode,
            colour,
            width: width.filter(|&columns| terminal && columns >= NARROWEST),
        }
    }

    /// `—` or `-`.
    pub fn dash(self) -> &'static str {
        if self.unicode { "—" } else { "-" }
    }

    /// `first` and the text behind it, broken at words where the terminal ends; lines after the first have that indent.
    pub fn wrapped(self, first: &str, indent: usize, text: &str) -> String {
        let mut out = first.to_owned();
        let mut column = visible(first);
        let mut begun = false;
        for word in text.split(' ') {
            let long = visible(word);
            let full = self.width.is_some_and(|width| column + 1 + long > width);
            if begun && full {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                column = indent;
            } else if begun {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += long;
            begun = true;
        }
        out.push('\n');
        out
    }

    /// The sign in front of a line: well, to be looked at, wrong.
    pub fn sign(self, sign: Sign) -> String {
        let (unicode, ascii, colour) = match sign {
            Sign::Ok => ("✓", "[ok]", 32),
            Sign::Note => ("·", "[-]", 2),
            Sign::Warn => ("‼", "[warn]", 33),
            Sign::Fail => ("✗", "[FAIL]", 31),
        };
        let text = if self.unicode { unicode } else { ascii };
        if self.colour {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// `→` or `->`.
    pub fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }
}

/// Columns that a text takes, without its colours.
fn visible(text: &str) -> usize {
    let mut columns = 0;
    let mut colour = false;
    for c in text.chars() {
        match c {
            '\u{1b}' => colour = true,
            'm' if colour => colour = false,
            _ if colour => {}
            _ => columns += 1,
        }
    }
    columns
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// All right.
    Ok,
    /// Not looked at.
    Note,
    /// Look at it.
    Warn,
    /// Wrong.
    Fail,
}

/// Runs the command line of this process; `main` gives what it knows of its surroundings.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments = arrange(arguments.into_iter().collect());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    dispatch(cli.command, environment)
        .unwrap_or_else(|error| {
            complain(&format!("{error:#}"));
            Exit::Internal
        })
        .into()
}

fn dispatch(command: Command, environment: Environment) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run::run(&args, environment),
        Command::Namerd(args) => namerd::run(&args, environment),
        Command::Namerctl(args) => namerctl::run(&args, &environment),
        Command::Dtab(args) => dtab::run(&args, &environment),
        Command::Shift(args) => shift::run(&args, &environment),
        Command::Check(args) => check::run(&args, environment),
        Command::Why(args) => why::run(&args, &environment),
        Command::Delegate(args) => delegate::run(&args, environment),
        Command::Curl(args) => curl::run(&args, &environment),
        Command::Config(command) => config::run(&command, environment),
        Command::Explain(args) => explain::run(&args, &environment),
        Command::ProxyEnv(args) => proxy_env::run(&args),
        Command::Demo(args) => demo::run(&args, &environment),
        Command::Version => say(&format!("rutter {}", env!("CARGO_PKG_VERSION"))),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rutter", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(Exit::Done)
        }
    }
}

/// Linkerd 1's command line among ours: a file alone is run, and `-validate` has one dash.
fn arrange(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments
        .first()
        .is_some_and(|program| namerctl::is_called(program))
    {
        arguments.insert(1, "namerctl".into());
    }
    for argument in &mut arguments {
        if argument == "-validate" {
            *argument = "--validate".into();
        }
    }
    let first = arguments
        .iter()
        .skip(1)
        .position(|a| a == "-" || !a.to_string_lossy().starts_with('-'));
    if let Some(at) = first.map(|i| i + 1)
        && is_file_like(&arguments[at].to_string_lossy())
    {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// A file's name rather than a mistyped command: `-`, or with a slash or a dot, or simply there.
fn is_file_like(word: &str) -> bool {
    let command = Cli::command()
        .get_subcommands()
        .any(|c| c.get_name() == word)
        || word == "help";
    !command && (word == "-" || word.contains(['/', '.']) || std::path::Path::new(word).is_file())
}

fn usage(error: &clap::Error) -> Exit {
    _ = error.print();
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

/// Prints an answer.
pub(crate) fn say(text: &str) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.trim_end().as_bytes())
        .and_then(|()| out.write_all(b"\n"));
    match written {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(Exit::Done),
    }
}

/// Says on stderr what went wrong.
pub(crate) fn complain(text: &str) {
    _ = writeln!(std::io::stderr().lock(), "rutter: {}", text.trim_end());
}

/// Prints JSON.
pub(crate) fn say_json(value: &serde_json::Value) -> anyhow::Result<Exit> {
    say(&serde_json::to_string_pretty(value)?)
}

/// A runtime for a command that asks somebody something.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future))
}

/// A text from a file, or from stdin when it is called `-`.
pub(crate) fn read_text(file: &str) -> Result<String, String> {
    use std::io::Read as _;
    if file == "-" {
        let mut text = String::new();
        return std::io::stdin()
            .read_to_string(&mut text)
            .map(|_| text)
            .map_err(|e| format!("stdin cannot be read: {e}"));
    }
    let path = std::path::Path::new(file);
    if !path.is_file() {
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(std::path::Path::new("."));
        let names: Vec<String> = folder
            .read_dir()
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        let wanted = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let near = near::nearest(&wanted, names.iter().map(String::as_str))
            .map(|n| format!(" (did you mean {n}?)"))
            .unwrap_or_default();
        return Err(format!("config is not a file: {file}{near}"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("{file} cannot be read: {e}"))
}

/// Loads a configuration for a command, and says what is wrong when that fails.
pub(crate) fn load(file: &str, environment: &Environment) -> Result<crate::config::Loaded, Exit> {
    let text = read_text(file).map_err(|message| {
        complain(&message);
        Exit::No
    })?;
    let name = if file == "-" { "stdin" } else { file };
    crate::config::load(name, &text, environment).map_err(|problems| {
        _ = write!(std::io::stderr().lock(), "{}", problems.render());
        if crate::config::store::is_store(&text) {
            complain(&format!(
                "{name} is a store's file: `rutter namerd {file}` runs it"
            ));
        }
        Exit::No
    })
}

/// The environment of a command that starts nothing.
pub(crate) fn looking(environment: Environment) -> Environment {
    environment.for_purpose(Purpose::Check)
}

#[cfg(test)]
mod tests;
