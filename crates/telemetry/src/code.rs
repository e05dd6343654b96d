//! The closed catalogue of what can go wrong, each with a code that stands in the answer, `l5d-err`, metric, span and log.
//!
//! `rutter explain RT-E101` prints an entry's page and `docs/errors.md` has them all; both come from the tables in
//! `code/catalogue.rs` and `code/checks.rs`. There is no catch-all: a new way to fail is a new entry.

use std::fmt;
use std::str::FromStr;

#[macro_use]
mod catalogue;
mod checks;
mod watching;

pub use catalogue::Code;
pub use checks::{Check, Lint};
pub use watching::Watching;

/// What the catalogue says about one code.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The code as people see it: `RT-E101`.
    pub code: &'static str,
    /// What it means, in a few words: "no such destination".
    pub title: &'static str,
    /// The statuses an answer with this code may have, the usual one first. Empty when no answer can be made any more, or
    /// when the status is that of the failure the code is added to; for findings, which answer nothing.
    pub statuses: &'static [u16],
    /// What happened.
    pub what: &'static str,
    /// The usual causes, likeliest first.
    pub causes: &'static [&'static str],
    /// What to do.
    pub fix: &'static str,
    /// Which metric, page or log line shows it.
    pub see: &'static str,
}

impl Entry {
    /// The entry's page as plain text.
    pub fn page(&self) -> String {
        let mut page = format!("{}  {}\n", self.code, self.title);
        if !self.statuses.is_empty() {
            page.push_str(&format!("status {}\n", self.status_text()));
        }
        page.push_str(&format!("\n{}\n\nUsual causes\n", self.what));
        for cause in self.causes {
            page.push_str(&format!("  - {cause}\n"));
        }
        page.push_str(&format!("\nWhat to do\n  {}\n", self.fix));
        page.push_str(&format!("\nWhere it shows\n  {}\n", self.see));
        page
    }

    /// The statuses with ` / ` between them.
    fn status_text(&self) -> String {
        let statuses: Vec<_> = self.statuses.iter().map(u16::to_string).collect();
        statuses.join(" / ")
    }
}

impl Code {
    /// `RT-E101`.
    pub fn as_str(self) -> &'static str {
        self.entry().code
    }

    /// What it means, in a few words.
    pub fn title(self) -> &'static str {
        self.entry().title
    }

    /// The usual status of an answer with this code; none when the status comes from the failure the code is added to
    /// (RT-E113, RT-E114) or no answer can be made any more (RT-E132).
    pub fn status(self) -> Option<u16> {
        self.entry().statuses.first().copied()
    }

    /// Its page, as plain text.
    pub fn explanation(self) -> String {
        self.entry().page()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no code {0:?}: codes look like RT-E101, and docs/errors.md lists them")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Code::ALL.iter().find(|code| code.entry().is_called(text));
        found.copied().ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

/// The entry with this code, in any case, with or without `RT-`: "RT-E101", "e101", "rt-c021".
pub fn find(text: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.is_called(text))
}

/// All entries: errors, then findings of `rutter check`, then those of the dtab lint, then those of the watches.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    let errors = Code::ALL.iter().map(|code| code.entry());
    let checks = Check::ALL.iter().map(|code| code.entry());
    errors
        .chain(checks)
        .chain(Lint::ALL.iter().map(|code| code.entry()))
        .chain(Watching::ALL.iter().map(|code| code.entry()))
}

impl Entry {
    fn is_called(&self, text: &str) -> bool {
        let short = self.code.trim_start_matches("RT-");
        text.eq_ignore_ascii_case(self.code) || text.eq_ignore_ascii_case(short)
    }
}

#[cfg(test)]
mod tests;
