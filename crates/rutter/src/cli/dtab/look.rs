//! Commands that change nothing.

use std::num::NonZeroUsize;

use namerd::change::diff::Difference;
use namerd::change::shapes::{Blamed, Diff, History, Linted, Namespaces, Planned, Shown};
use serde::Serialize;
use serde_json::Value;

use super::super::store_client::{Ask, Failure};
use super::super::{Exit, Output, say};
use super::{FailOn, Work, files, print, segment};

impl Work<'_> {
    /// Prints an answer: as JSON, or as `lines` makes it.
    pub(super) fn answer<T: Serialize>(
        &self,
        kind: &str,
        value: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let internal = |error: String| Failure::new(Exit::Internal, error);
        let text = match self.output {
            Output::Table => lines(value),
            Output::Json => {
                let value =
                    serde_json::to_value(value).map_err(|error| internal(error.to_string()))?;
                let text = serde_json::to_string_pretty(&document(kind, value));
                text.map_err(|error| internal(error.to_string()))?
            }
        };
        say(&text)
            .map(|_| ())
            .map_err(|error| internal(format!("{error:#}")))
    }

    pub(super) async fn list(&self) -> Result<Exit, Failure> {
        let all: Namespaces = self.store.json(Ask::new("GET", "namespaces")).await?;
        self.answer("namespaces", &all, print::namespaces)?;
        Ok(Exit::Done)
    }

    pub(super) async fn shown(&self, name: &str) -> Result<Shown, Failure> {
        self.shown_of(&segment(name)).await
    }

    /// The same by a segment of the API's paths.
    pub(super) async fn shown_of(&self, segment: &str) -> Result<Shown, Failure> {
        self.store
            .json(Ask::new("GET", format!("dtabs/{segment}")))
            .await
    }

    pub(super) async fn get(&self, name: &str) -> Result<Exit, Failure> {
        let shown = self.shown(name).await?;
        self.answer("dtab", &shown, files::with_version)?;
        Ok(Exit::Done)
    }

    pub(super) async fn show(&self, name: &str) -> Result<Exit, Failure> {
        let shown = self.shown(name).await?;
        self.answer("dtab", &shown, print::shown)?;
        Ok(Exit::Done)
    }

    pub(super) async fn history(&self, name: &str, limit: usize) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}/history?limit={limit}", segment(name));
        let history: History = self.store.json(Ask::new("GET", path)).await?;
        self.answer("history", &history, |history| {
            print::history(history, std::time::SystemTime::now())
        })?;
        Ok(Exit::Done)
    }

    pub(super) async fn blame(&self, name: &str) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}/blame", segment(name));
        let blamed: Blamed = self.store.json(Ask::new("GET", path)).await?;
        self.answer("blame", &blamed, |blamed| {
            print::blame(blamed, std::time::SystemTime::now())
        })?;
        Ok(Exit::Done)
    }

    pub(super) async fn diff(
        &self,
        name: &str,
        from: Option<&str>,
        to: Option<u64>,
    ) -> Result<Exit, Failure> {
        let number = from.map(str::parse::<u64>);
        let diff = match (from, number) {
            (Some(file), Some(Err(_))) => {
                let text = files::read(file)?.text;
                let old = self.shown(name).await?;
                let differences = namerd::change::diff::differences(
                    &files::parsed(&old.text, name)?,
                    &files::parsed(&text, file)?,
                );
                Diff {
                    namespace: name.to_owned(),
                    from: old.version.number,
                    to: 0,
                    differences,
                }
            }
            (_, number) => {
                let mut query = Vec::new();
                query.extend(
                    number
                        .and_then(Result::ok)
                        .map(|from| format!("from={from}")),
                );
                query.extend(to.map(|to| format!("to={to}")));
                let path = format!("dtabs/{}/diff?{}", segment(name), query.join("&"));
                self.store.json(Ask::new("GET", path)).await?
            }
        };
        let file = from.filter(|_| diff.to == 0);
        self.answer("diff", &diff, |diff| print::diff(diff, file, self.style))?;
        Ok(ended_by(&diff.differences))
    }

    /// What a text would do there.
    pub(super) async fn planned(&self, name: &str, text: &str) -> Result<Planned, Failure> {
        let mut ask = Ask::new("POST", format!("dtabs/{}/plan", segment(name)));
        ask.body = text.to_owned();
        self.store.json(ask).await
    }

    pub(super) async fn plan(
        &self,
        name: &str,
        file: &str,
        fail_on: Option<FailOn>,
    ) -> Result<Exit, Failure> {
        let text = files::read(file)?.text;
        files::parsed(&text, file)?;
        let planned = self.planned(name, &text).await?;
        self.answer("plan", &planned, |planned| {
            print::plan(planned, file, self.style)
        })?;
        let plan = &planned.plan;
        let broken = plan.would_break > 0;
        Ok(match fail_on {
            Some(FailOn::Break) if broken => Exit::Refused,
            Some(FailOn::Change) if broken || plan.changed > 0 => Exit::Refused,
            Some(FailOn::Break) => Exit::Done,
            _ => ended_by(&plan.differences),
        })
    }

    pub(super) async fn lint(&self, file: &str, namespace: Option<&str>) -> Result<Exit, Failure> {
        let text = files::read(file)?.text;
        files::parsed(&text, file)?;
        let linted = match namespace {
            None => files::linted(&text),
            Some(namespace) => {
                let mut ask = Ask::new("POST", format!("dtabs/{}/lint", segment(namespace)));
                ask.body = text;
                self.store.json(ask).await?
            }
        };
        self.answer("lint", &linted, |linted: &Linted| {
            print::findings(&linted.findings, file)
        })?;
        Ok(if linted.findings.is_empty() {
            Exit::Done
        } else {
            Exit::No
        })
    }

    pub(super) async fn watch(
        &self,
        name: &str,
        count: Option<NonZeroUsize>,
    ) -> Result<Exit, Failure> {
        let path = format!("dtabs/{}?watch=true", segment(name));
        let mut lines = 0;
        let told = self.store.lines(Ask::new("GET", path), |line| {
            let text = match self.output {
                Output::Table => match serde_json::from_str::<Shown>(line) {
                    Ok(shown) => print::version_line(&shown.version),
                    Err(_) => format!("{name} is not there"),
                },
                Output::Json => match serde_json::from_str(line) {
                    Ok(value) => document("dtab", value).to_string(),
                    Err(_) => line.to_owned(),
                },
            };
            lines += 1;
            // Nobody reads on a broken pipe.
            say(&text).is_ok() && Some(lines) != count.map(NonZeroUsize::get)
        });
        tokio::select! {
            ended = told => ended.map(|()| Exit::Done),
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    }
}

/// A value of the API as the command prints it.
fn document(kind: &str, value: Value) -> Value {
    let mut document = serde_json::Map::new();
    document.insert(
        "schema".to_owned(),
        Value::from(format!("rutter/{kind}/v1")),
    );
    if let Value::Object(fields) = value {
        document.extend(fields);
    }
    Value::Object(document)
}

/// As `diff`: 1 when something differs.
fn ended_by(differences: &[Difference]) -> Exit {
    match differences.is_empty() {
        true => Exit::Done,
        false => Exit::No,
    }
}
