//! The log: lines on standard error, plain on a terminal and JSON otherwise, with levels that can be changed while running.
//!
//! Levels are per target, a target being a crate or module (`naming`, `router::client`) or one of the named logs (`access`). `RUTTER_LOG`
//! has the form `info,naming=debug,k8s=trace`; the level without a target is that of everything else, called `root` on the admin page.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// The environment variable with levels.
pub const VARIABLE: &str = "RUTTER_LOG";

/// The target of access lines; off unless asked for.
pub const ACCESS: &str = "access";

/// What the level of everything without a level of its own is called.
const ROOT: &str = "root";

/// Targets that the admin page offers before anybody has set a level for them.
const TARGETS: [&str; 10] = [
    ACCESS,
    "admin",
    "dtab",
    "io.l5d.tracelog",
    "k8s",
    "namerd",
    "naming",
    "router",
    "rutter",
    "telemetry",
];

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Plain on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Plain,
    /// An object a line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;
    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "auto" => Ok(Format::Auto),
            "plain" => Ok(Format::Plain),
            "json" => Ok(Format::Json),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

/// The log cannot be set up or changed like that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such format.
    #[error("unknown log format `{0}`: choose auto, plain or json")]
    Format(String),
    /// The levels cannot be read.
    #[error(
        "cannot read log levels `{0}`: they look like `info,naming=debug`, with levels off, error, warn, info, debug, trace"
    )]
    Levels(String),
    /// No such level.
    #[error("unknown log level `{0}`: choose off, error, warn, info, debug or trace")]
    Level(String),
    /// The process has a log already.
    #[error("the log is set up already")]
    Twice,
}

/// Reads and changes levels while running; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

/// Sets the process's log up: once, at the start of the program. `levels` is what `RUTTER_LOG` or a flag says, by default `info`.
pub fn init(format: Format, levels: Option<&str>) -> Result<LogHandle, LogError> {
    let terminal = io::stderr().is_terminal();
    let format = match (format, terminal) {
        (Format::Auto, true) => Format::Plain,
        (Format::Auto, false) => Format::Json,
        (format, _) => format,
    };
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (subscriber, handle) = subscriber(format, color, levels, io::stderr)?;
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    Ok(handle)
}

/// The subscriber and the handle to its levels, writing to `writer`.
fn subscriber<W>(
    format: Format,
    color: bool,
    levels: Option<&str>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(levels.unwrap_or_default())?);
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Plain | Format::Auto => lines.with_ansi(color).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    Ok((subscriber, LogHandle(handle)))
}

/// Levels as in `RUTTER_LOG`. Crates may be written as `rutter::naming`; access lines are off unless named.
fn parse(levels: &str) -> Result<Targets, LogError> {
    let wrong = |_| LogError::Levels(levels.to_owned());
    let short: Vec<_> = levels
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(short_target)
        .collect();
    // A word that is no level would be taken for a target with all its lines.
    let known = |part: &&str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if !short.iter().all(known) {
        return Err(LogError::Levels(levels.to_owned()));
    }
    let targets = match short.is_empty() {
        // As text, nothing would be the level `error`.
        true => Targets::new(),
        false => short.join(",").parse().map_err(wrong)?,
    };
    let named = |target| targets.iter().any(|(have, _)| have == target);
    let default = targets.default_level().unwrap_or(LevelFilter::INFO);
    let access = (!named(ACCESS)).then_some((ACCESS, LevelFilter::OFF));
    Ok(targets.with_default(default).with_targets(access))
}

/// `rutter::naming=debug` as `naming=debug`.
fn short_target(part: &str) -> &str {
    let rest = part.strip_prefix("rutter::");
    let is_known = |rest: &&str| TARGETS.iter().any(|known| rest.starts_with(known));
    rest.filter(is_known).unwrap_or(part)
}

impl LogHandle {
    /// All targets with their levels: `root` first, then by name those known and those that were set. A known target without a
    /// level of its own shows the one in force for it.
    pub fn levels(&self) -> Vec<(String, LevelFilter)> {
        let read = |targets: &Targets| {
            let root = targets.default_level().unwrap_or(LevelFilter::OFF);
            let mut levels: BTreeMap<_, _> = (TARGETS.iter())
                .map(|known| (known.to_string(), root))
                .collect();
            levels.extend(
                targets
                    .iter()
                    .map(|(target, level)| (target.to_owned(), level)),
            );
            let mut all = vec![(ROOT.to_owned(), root)];
            all.extend(levels);
            all
        };
        self.0.with_current(read).unwrap_or_default()
    }

    /// Sets a target's level, `root`'s for everything without a level of its own. Levels are ours or Linkerd's, in any case.
    pub fn set(&self, target: &str, level: &str) -> Result<(), LogError> {
        let level = parse_level(level)?;
        let change = |targets: &mut Targets| {
            let old = targets.clone();
            *targets = match target {
                ROOT | "" => old.with_default(level),
                _ => old.with_target(short_target(target), level),
            };
        };
        self.0.modify(change).map_err(|_| LogError::Twice)
    }

    /// The answer of `GET /logging.json`, with Linkerd's names of levels.
    pub fn json(&self) -> serde_json::Value {
        let levels = self.levels().into_iter();
        levels
            .map(
                |(logger, level)| serde_json::json!({"logger": logger, "level": level_name(level)}),
            )
            .collect()
    }
}

/// Ours, and those of Linkerd's page that mean the same.
fn parse_level(text: &str) -> Result<LevelFilter, LogError> {
    match text.to_ascii_lowercase().as_str() {
        "all" => Ok(LevelFilter::TRACE),
        "warning" => Ok(LevelFilter::WARN),
        "critical" | "fatal" => Ok(LevelFilter::ERROR),
        level => level.parse().map_err(|_| LogError::Level(text.to_owned())),
    }
}

/// As Linkerd's page calls it.
fn level_name(level: LevelFilter) -> &'static str {
    match level.into_level() {
        None => "OFF",
        Some(tracing::Level::ERROR) => "ERROR",
        Some(tracing::Level::WARN) => "WARNING",
        Some(tracing::Level::INFO) => "INFO",
        Some(tracing::Level::DEBUG) => "DEBUG",
        Some(tracing::Level::TRACE) => "TRACE",
    }
}

#[cfg(test)]
mod tests;
