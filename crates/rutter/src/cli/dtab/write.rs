//! Commands that change what is in force.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use namerd::change::shapes::{Confirm, Planned, Rollback, Shown, Written, duration};

use super::super::store_client::{Ask, Failure};
use super::super::{Exit, complain};
use super::{Manner, Put, Work, files, print, segment};

/// What has to be there before a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    /// Nothing.
    BeNew,
    /// Something.
    BeThere,
    /// That is all the same.
    Either,
}

impl Manner {
    /// Whether nothing is to be written.
    pub(in crate::cli) const fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// The same for what takes a change back: its note is another one, and it needs no confirmation.
    pub(in crate::cli) fn for_the_way_back(self) -> Self {
        Self {
            note: None,
            confirm_within: None,
            ..self
        }
    }

    fn waits(&self) -> Result<Duration, Failure> {
        if self.no_wait || self.dry_run {
            return Ok(Duration::ZERO);
        }
        duration(&self.wait).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("--wait takes a time such as 30s, found {}", self.wait),
            )
        })
    }

    /// The request of a write: its query, and who makes it.
    pub(in crate::cli) fn ask<'a>(
        &self,
        method: &'a str,
        path: &str,
        work: &crate::config::Environment,
    ) -> Result<Ask<'a>, Failure> {
        let wait = self.waits()?;
        if let Some(wrong) = self
            .max_break
            .filter(|percent| !(0.0..=100.0).contains(percent))
        {
            let message = format!("--max-break is from 0 to 100 percent, found {wrong}");
            return Err(Failure::new(Exit::Usage, message));
        }
        let mut query = Vec::new();
        if !wait.is_zero() {
            query.push(format!("wait={}ms", wait.as_millis()));
        }
        query.extend(self.allow_break.then(|| "allow-break=true".to_owned()));
        query.extend(
            self.max_break
                .map(|percent| format!("max-break={}", percent / 100.0)),
        );
        query.extend(self.dry_run.then(|| "dry-run=true".to_owned()));
        if let Some(within) = &self.confirm_within {
            let within = duration(within).ok_or_else(|| {
                let message = format!("--confirm-within takes a time such as 5m, found {within}");
                Failure::new(Exit::Usage, message)
            })?;
            query.push(format!("confirm-within={}s", within.as_secs()));
        }
        let mut ask = Ask::new(method, format!("{path}?{}", query.join("&")));
        ask.wait = wait;
        ask.headers.push(("rutter-via", "cli".to_owned()));
        let user = || {
            work.variables
                .get("USER")
                .filter(|user| !user.is_empty())
                .cloned()
        };
        if let Some(author) = self.author.clone().or_else(user) {
            ask.headers.push(("rutter-author", author));
        }
        if let Some(note) = self.note.clone().filter(|note| !note.is_empty()) {
            ask.headers.push(("rutter-note", note));
        }
        Ok(ask)
    }
}

impl Work<'_> {
    pub(super) async fn put(&self, put: &Put, must: Must) -> Result<Exit, Failure> {
        let given = files::read(&put.file)?;
        files::parsed(&given.text, &put.file)?;
        let version = given.version.filter(|_| must != Must::BeNew);
        self.write(&put.name, &given.text, version, must, &put.manner)
            .await
    }

    /// Writes a text; `version` is what it was made from.
    async fn write(
        &self,
        name: &str,
        text: &str,
        version: Option<String>,
        must: Must,
        manner: &Manner,
    ) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}", namerd::api::encoded(name));
        let mut ask = manner.ask("PUT", &path, self.environment)?;
        let version = manner.version.clone().or(version).filter(|_| !manner.force);
        match (must, version) {
            (Must::BeNew, _) => ask.headers.push(("if-none-match", "*".to_owned())),
            (_, Some(version)) => ask.headers.push(("if-match", version)),
            (Must::BeThere, None) => ask.headers.push(("if-match", "*".to_owned())),
            (Must::Either, None) => {}
        }
        ask.body = text.to_owned();
        match self.change(ask, manner).await {
            Err(failure) if failure.exit == Exit::Conflict && must != Must::BeNew => {
                self.conflict(name, text).await;
                Err(failure)
            }
            other => other,
        }
    }

    /// Shows how far what is in force is from the text that somebody wanted to write.
    async fn conflict(&self, name: &str, text: &str) {
        let Ok(shown) = self.shown_of(&namerd::api::encoded(name)).await else {
            return;
        };
        let (Ok(now), Ok(new)) = (dtab::Dtab::read(&shown.text), dtab::Dtab::read(text)) else {
            return;
        };
        let lines = namerd::change::diff::differences(&now, &new);
        let version = print::version_line(&shown.version);
        complain(&format!(
            "somebody else was first:\n{version}\nfrom that to your text:\n{}",
            print::differences(&lines)
        ));
    }

    /// One write: what came of it, and how far routers are.
    async fn change(&self, ask: Ask<'_>, manner: &Manner) -> Result<Exit, Failure> {
        if manner.dry_run {
            let planned: Planned = self.store.json(ask).await?;
            self.answer("plan", &planned, |planned| {
                print::plan(planned, "the new text", self.style)
            })?;
            return Ok(if planned.plan.would_break > 0 {
                Exit::Refused
            } else {
                Exit::Done
            });
        }
        let waited = !ask.wait.is_zero();
        let written: Written = self.store.json(ask).await?;
        self.answer("written", &written, |written| {
            print::written(written, self.style)
        })?;
        let late: Vec<_> = written
            .acks
            .iter()
            .filter(|ack| ack.tells && !ack.applied)
            .collect();
        if waited && !late.is_empty() {
            let names: Vec<_> = late.iter().map(|ack| print::router(ack)).collect();
            complain(&format!(
                "it is written, and not in force yet on: {}",
                names.join(", ")
            ));
            return Ok(Exit::TimedOut);
        }
        Ok(Exit::Done)
    }

    pub(super) async fn delete(&self, name: &str, manner: &Manner) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}", namerd::api::encoded(name));
        let mut ask = manner.ask("DELETE", &path, self.environment)?;
        if let Some(version) = &manner.version {
            ask.headers.push(("if-match", version.clone()));
        }
        self.change(ask, manner).await
    }

    pub(super) async fn rollback(
        &self,
        name: &str,
        to: Option<u64>,
        manner: &Manner,
    ) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}/rollback", namerd::api::encoded(name));
        let mut ask = manner.ask("POST", &path, self.environment)?;
        ask.body = json(&Rollback { to });
        self.change(ask, manner).await
    }

    pub(super) async fn confirm(
        &self,
        name: &str,
        number: Option<u64>,
        manner: &Manner,
    ) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}/confirm", namerd::api::encoded(name));
        let mut ask = manner.ask("POST", &path, self.environment)?;
        ask.body = json(&Confirm { number });
        self.change(ask, manner).await
    }

    pub(super) async fn edit(&self, name: &str, manner: &Manner) -> Result<Exit, Failure> {
        let shown = self.shown(name).await?;
        let failed =
            |what: &str, error: std::io::Error| Failure::new(Exit::No, format!("{what}: {error}"));
        let folder = std::env::temp_dir().join(format!("rutter-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|error| failed("no folder for the text", error))?;
        let file = folder.join(format!("{}.dtab", segment(name)));
        std::fs::write(&file, files::with_version(&shown))
            .map_err(|error| failed("no file for the text", error))?;
        let edited = self.edited(name, &file, &shown, manner).await;
        if edited.is_ok() {
            _ = std::fs::remove_dir_all(&folder);
        } else {
            complain(&format!("the text is kept in {}", file.display()));
        }
        edited
    }

    async fn edited(
        &self,
        name: &str,
        file: &std::path::Path,
        shown: &Shown,
        manner: &Manner,
    ) -> Result<Exit, Failure> {
        let variable = |name: &str| {
            self.environment
                .variables
                .get(name)
                .filter(|v| !v.is_empty())
        };
        let editor = variable("VISUAL")
            .or_else(|| variable("EDITOR"))
            .cloned()
            .unwrap_or_else(|| "vi".to_owned());
        loop {
            // As git: the variable may have arguments in it.
            let status = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("{editor} \"$1\""))
                .arg("editor")
                .arg(file)
                .status();
            if !status.is_ok_and(|status| status.success()) {
                return Err(Failure::new(
                    Exit::No,
                    format!("{editor} (from $EDITOR) did not end well: nothing is written"),
                ));
            }
            let given = files::read(&file.to_string_lossy())?;
            if given.text == shown.text {
                complain("nothing was changed");
                return Ok(Exit::Done);
            }
            let parsed = files::parsed(&given.text, &file.to_string_lossy());
            let Err(failure) = parsed else {
                let version = Some(shown.version.version.clone());
                return self
                    .write(name, &given.text, version, Must::BeThere, manner)
                    .await;
            };
            if !std::io::stdin().is_terminal() {
                return Err(failure);
            }
            complain(&failure.message);
            if !asked("edit again?") {
                return Err(Failure::new(Exit::No, "nothing is written"));
            }
        }
    }

    pub(super) async fn apply(
        &self,
        paths: &[PathBuf],
        prune: bool,
        manner: &Manner,
    ) -> Result<Exit, Failure> {
        let all = files::collected(paths)?;
        let there: namerd::change::shapes::Namespaces =
            self.store.json(Ask::new("GET", "namespaces")).await?;
        let mut exit = Exit::Done;
        for (name, given) in &all {
            let known = there
                .namespaces
                .iter()
                .any(|version| version.namespace == *name);
            if known {
                let now = self.shown_of(&namerd::api::encoded(name)).await?;
                if now.text.trim_end() == given.text.trim_end() {
                    continue;
                }
            }
            let must = if known { Must::BeThere } else { Must::BeNew };
            let one = self
                .write(name, &given.text, given.version.clone(), must, manner)
                .await;
            exit = worse(exit, self.outcome(name, one));
        }
        let gone = there
            .namespaces
            .iter()
            .filter(|version| prune && !all.iter().any(|(name, _)| *name == version.namespace));
        for version in gone {
            let one = self.delete(&version.namespace, manner).await;
            exit = worse(exit, self.outcome(&version.namespace, one));
        }
        Ok(exit)
    }

    fn outcome(&self, name: &str, one: Result<Exit, Failure>) -> Exit {
        one.unwrap_or_else(|failure| {
            complain(&format!("{name}:"));
            self.failed(&failure)
        })
    }
}

/// The first that is none of success counts.
fn worse(one: Exit, other: Exit) -> Exit {
    if one == Exit::Done { other } else { one }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether somebody at the terminal says yes.
fn asked(question: &str) -> bool {
    _ = write!(std::io::stderr(), "rutter: {question} [y/n] ");
    let mut line = String::new();
    _ = std::io::stdin().read_line(&mut line);
    matches!(line.trim(), "y" | "yes")
}
