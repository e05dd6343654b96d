//! What is wrong with a file, told for people: place, line, caret, what to write instead.

use std::fmt::Write as _;

use serde_json::json;

use super::yaml::Place;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The router does not start with it.
    Error,
    /// It starts, but look at it.
    Warning,
}

impl Severity {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Which key, such as `routers[0].servers[1].port`; empty for the file as a whole.
    pub key: String,
    /// What was wanted and what was found.
    pub message: String,
    /// Where; `None` when it is nowhere in the file, as with a file that is not there.
    pub place: Option<Place>,
    /// What to do.
    pub help: Option<String>,
    /// How the file does without it.
    pub remedy: Remedy,
}

/// How a file can do without what is not there, for `rutter config convert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remedy {
    /// Somebody has to mend it.
    #[default]
    None,
    /// Without the key.
    WithoutKey,
    /// Without the mapping that has the key.
    WithoutPart,
}

/// A file's problems, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    /// The file as the user called it.
    pub file: String,
    /// Its text.
    pub source: String,
    /// All of them.
    pub all: Vec<Problem>,
}

impl Problems {
    /// None yet, of that file.
    pub fn of(file: &str, source: &str) -> Self {
        Self {
            file: file.into(),
            source: source.into(),
            all: Vec::new(),
        }
    }

    /// Notes an error.
    pub fn error(
        &mut self,
        key: &str,
        place: Place,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Severity::Error, key, Some(place), message.into(), help);
    }

    /// Notes a warning.
    pub fn warning(
        &mut self,
        key: &str,
        place: Place,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Severity::Warning, key, Some(place), message.into(), help);
    }

    /// Notes that the file asks for what is not there.
    pub fn not_here(
        &mut self,
        key: &str,
        place: Place,
        message: String,
        help: Option<String>,
        remedy: Remedy,
    ) {
        self.error(key, place, message, help);
        if let Some(last) = self.all.last_mut().filter(|last| last.key == key) {
            last.remedy = remedy;
        }
    }

    fn add(
        &mut self,
        severity: Severity,
        key: &str,
        place: Option<Place>,
        message: String,
        help: Option<String>,
    ) {
        let problem = Problem {
            severity,
            key: key.into(),
            message,
            place,
            help,
            remedy: Remedy::None,
        };
        if !self.all.contains(&problem) {
            self.all.push(problem);
        }
    }

    /// Sorts them as the file goes.
    pub fn sort(&mut self) {
        self.all
            .sort_by_key(|p| (p.place.map_or(usize::MAX, |at| at.offset), p.severity));
    }

    /// How many stop the router from starting.
    pub fn errors(&self) -> usize {
        self.all
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count()
    }

    /// How many are only warnings.
    pub fn warnings(&self) -> usize {
        self.all.len() - self.errors()
    }

    /// Only those that stop the router from starting.
    pub fn only_errors(mut self) -> Self {
        self.all.retain(|p| p.severity == Severity::Error);
        self
    }

    /// All of them with their lines and carets, and a closing line that counts them.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for problem in &self.all {
            self.render_one(&mut out, problem);
            out.push('\n');
        }
        _ = writeln!(out, "{}: {}", self.file, self.summary());
        out
    }

    /// `2 errors, 1 warning`, or `valid`.
    pub fn summary(&self) -> String {
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (0, 0) => "valid".into(),
            (0, w) => format!("valid, {}", count(w, "warning")),
            (e, 0) => count(e, "error"),
            (e, w) => format!("{}, {}", count(e, "error"), count(w, "warning")),
        }
    }

    fn render_one(&self, out: &mut String, problem: &Problem) {
        _ = writeln!(out, "{}: {}", problem.severity.word(), problem.message);
        let Some(place) = problem.place else {
            _ = writeln!(out, "  --> {}", self.file);
            return help(out, "", problem);
        };
        let key = if problem.key.is_empty() {
            String::new()
        } else {
            format!("  {}", problem.key)
        };
        _ = writeln!(
            out,
            "  --> {}:{}:{}{key}",
            self.file, place.line, place.column
        );
        let line = self.source.lines().nth(place.line - 1).unwrap_or_default();
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        _ = writeln!(out, "{margin} |");
        _ = writeln!(out, "{number} | {}", visible(line));
        _ = writeln!(
            out,
            "{margin} | {}{}",
            indent(line, place.column),
            "^".repeat(self.width(place, line))
        );
        help(out, &margin, problem);
    }

    /// As many carets as the thing has characters on its first line.
    fn width(&self, place: Place, line: &str) -> usize {
        let end = self.source.len().min(place.offset + place.len);
        let text = self.source.get(place.offset..end).unwrap_or_default();
        let first = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_end()
            .chars()
            .count();
        first
            .min(line.chars().count().saturating_sub(place.column - 1))
            .max(1)
    }

    /// The same for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<_> = self
            .all
            .iter()
            .map(|p| {
                json!({
                    "severity": p.severity.word(),
                    "key": p.key,
                    "line": p.place.map(|at| at.line),
                    "column": p.place.map(|at| at.column),
                    "message": p.message,
                    "help": p.help,
                })
            })
            .collect();
        json!({
            "schema": "rutter/config-check/v1",
            "file": self.file,
            "valid": self.errors() == 0,
            "errors": self.errors(),
            "warnings": self.warnings(),
            "problems": problems,
        })
    }
}

fn help(out: &mut String, margin: &str, problem: &Problem) {
    if let Some(help) = &problem.help {
        _ = writeln!(out, "{margin} = help: {help}");
    }
}

/// A line without characters that would upset a terminal.
fn visible(line: &str) -> String {
    line.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '�'
            } else {
                c
            }
        })
        .collect()
}

/// Blanks up to the column; tabs stay tabs so that the caret stands below its character.
fn indent(line: &str, column: usize) -> String {
    line.chars()
        .chain(std::iter::repeat(' '))
        .take(column - 1)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect()
}
