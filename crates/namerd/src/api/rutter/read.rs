//! What looks at the store and changes nothing.

use std::time::{Duration, SystemTime};

use dtab::{Dtab, Path};
use http::{HeaderMap, HeaderValue, Request, header};
use hyper::body::Incoming;
use naming::{Activity, BindError, Reads};
use telemetry::code::Lint as Rule;

use super::super::Api;
use super::super::answer::{self, Refusal, Response};
use super::super::dtabs::read_text;
use super::super::query::Query;
use super::super::stream::{Next, documents};
use super::{JSON, Named, json};
use crate::access::Subject;
use crate::change::diff::{Blame, Sign, differences};
use crate::change::lint::{self, Finding, Ground};
use crate::change::plan::{Plan, Verdict};
use crate::change::shapes::{
    Acks, Blamed, BlamedEntry, Diff, History, Linted, NameInUse, NamesInUse, Namespaces, Planned,
    Shown, Step, Traffic, Version,
};
use crate::store::{Namespace, Observed, Record, StoreError, Stored};

/// Records of a page of a history.
const PAGE: usize = 50;
/// At most.
const MOST: usize = 1_000;
/// The longest that anybody waits for routers.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Api {
    pub(super) async fn namespaces(&self, who: &Subject) -> Result<Response, Refusal> {
        let mut namespaces = Vec::new();
        let names = self.store.names().get();
        for name in names.iter().filter(|name| self.access.sees(who, name)) {
            if let Some(stored) = self.store.get(name).await? {
                namespaces.push(Version::of(name, &stored.record));
            }
        }
        json(&Namespaces { namespaces })
    }

    /// What is in force; 404 when there is no such namespace.
    pub(super) async fn in_force(
        &self,
        namespace: &Namespace,
    ) -> Result<std::sync::Arc<Stored>, Refusal> {
        let stored = self.store.get(namespace).await?;
        Ok(stored.ok_or_else(|| StoreError::NotFound(namespace.clone()))?)
    }

    /// A version by its number; 404 when it is not kept.
    pub(super) async fn record(
        &self,
        namespace: &Namespace,
        number: u64,
    ) -> Result<Record, Refusal> {
        let records = self
            .store
            .history(namespace, Some(number.saturating_add(1)), 1)
            .await?;
        let found = records.into_iter().find(|record| record.number == number);
        found.ok_or_else(|| {
            let reason = format!("there is no version {number} of namespace {namespace}");
            Refusal::new(http::StatusCode::NOT_FOUND, reason)
        })
    }

    pub(super) async fn show(
        &self,
        named: &Named,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        if query.watch() {
            return Ok(self.watch_versions(namespace));
        }
        let record = match named.number.or(query.number("version")?) {
            Some(number) => self.record(namespace, number).await?,
            None => self.in_force(namespace).await?.record.clone(),
        };
        let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let mut response = match accepted.is_some_and(|types| types.contains("application/dtab")) {
            true => answer::typed(
                "application/dtab",
                record.text.as_deref().unwrap_or_default().to_owned(),
            ),
            false => json(&Shown::of(namespace, &record))?,
        };
        let tag = HeaderValue::try_from(record.version()).expect("base64 is a header's value");
        response.headers_mut().insert(header::ETAG, tag);
        Ok(response)
    }

    fn watch_versions(&self, namespace: &Namespace) -> Response {
        let (watch, namespace) = (self.store.watch(namespace), namespace.clone());
        let said = move |reads: &mut Reads| match watch.read(reads) {
            Observed::Present(stored) => {
                let shown = Shown::of(&namespace, &stored.record);
                Next::Say(serde_json::to_string(&shown).unwrap_or_default())
            }
            Observed::Absent => {
                let gone = serde_json::json!({"namespace": namespace.as_str(), "deleted": true});
                Next::Say(gone.to_string())
            }
            Observed::Unknown(why) => Next::Wait(why.to_string()),
        };
        answer::with_type(documents(said, self.stop.clone()), Some(JSON))
    }

    pub(super) async fn history(&self, named: &Named, query: &Query) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let limit = query
            .number("limit")?
            .unwrap_or(PAGE as u64)
            .clamp(1, MOST as u64) as usize;
        let before = query.number("before")?;
        // One more: what came with a version is seen against the one before it.
        let records = self.store.history(namespace, before, limit + 1).await?;
        if records.is_empty() && before.is_none() {
            return Err(StoreError::NotFound(namespace.clone()).into());
        }
        let in_force = self.store.get(namespace).await?;
        let acks = self.names.live().acks(namespace, 0, SystemTime::UNIX_EPOCH);
        let mut versions = Vec::new();
        for (at, record) in records.iter().take(limit).enumerate() {
            let older = records.get(at + 1).map(dtab_of).unwrap_or_default();
            let lines = differences(&older, &dtab_of(record));
            let added = lines.iter().filter(|line| line.sign == Sign::Added).count();
            let with = |number: Option<u64>| number == Some(record.number);
            versions.push(Step {
                version: Version::of(namespace, record),
                added,
                removed: lines.len() - added,
                routers: acks.iter().filter(|ack| with(ack.number)).count(),
            });
        }
        let more = records.len() > limit;
        json(&History {
            namespace: namespace.to_string(),
            next: versions
                .last()
                .map(|step| step.version.number)
                .filter(|_| more),
            versions,
            in_force: in_force.map(|stored| stored.record.number),
            routers: acks.iter().filter(|ack| ack.tells).count(),
        })
    }

    pub(super) async fn diff(&self, named: &Named, query: &Query) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let to = match query.number("to")? {
            Some(number) => self.record(namespace, number).await?,
            None => {
                let newest = self.store.history(namespace, None, 1).await?;
                let newest = newest.into_iter().next();
                newest.ok_or_else(|| StoreError::NotFound(namespace.clone()))?
            }
        };
        let from = query.number("from")?.unwrap_or(to.number.saturating_sub(1));
        let old = match from {
            0 => Dtab::empty(),
            number => dtab_of(&self.record(namespace, number).await?),
        };
        json(&Diff {
            namespace: namespace.to_string(),
            from,
            to: to.number,
            differences: differences(&old, &dtab_of(&to)),
        })
    }

    pub(super) async fn blame(&self, named: &Named) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let stored = self.in_force(namespace).await?;
        let newest = stored.record.number;
        let mut blame = Blame::new(newest, stored.dtab.clone());
        let mut records = std::collections::HashMap::from([(newest, stored.record.clone())]);
        let mut before = newest;
        'all: while !blame.is_done() {
            let page = self.store.history(namespace, Some(before), PAGE).await?;
            if page.is_empty() {
                break;
            }
            for record in page {
                before = record.number;
                blame.before(record.number, dtab_of(&record));
                records.insert(record.number, record);
                if blame.is_done() {
                    break 'all;
                }
            }
        }
        let shown = Shown::of(namespace, &stored.record);
        let entries = shown.entries.into_iter().zip(blame.versions());
        let entries = entries.filter_map(|(entry, number)| {
            let version = Version::of(namespace, records.get(&number)?);
            Some(BlamedEntry {
                entry,
                number,
                author: version.author,
                time: version.time,
                note: version.note,
            })
        });
        json(&Blamed {
            namespace: namespace.to_string(),
            number: newest,
            entries: entries.collect(),
        })
    }

    pub(super) async fn plan(
        &self,
        request: Request<Incoming>,
        named: &Named,
    ) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let text = read_text(request).await?;
        let stored = self.store.get(namespace).await?;
        json(&self.planned(namespace, stored.as_deref(), &text).await?)
    }

    /// What a text would do, if it came in force after `stored`.
    pub(super) async fn planned(
        &self,
        namespace: &Namespace,
        stored: Option<&Stored>,
        text: &str,
    ) -> Result<Planned, Refusal> {
        let new = Dtab::read(text).map_err(|error| invalid(&error, text))?;
        let empty = Dtab::empty();
        let old = stored.map_or(&empty, |stored| &stored.dtab);
        let live = self.names.live().names(namespace);
        let plan = Plan::make(&self.names, old, &new, &live).await;
        let acks = self.names.live().acks(namespace, 0, SystemTime::UNIX_EPOCH);
        Ok(Planned {
            namespace: namespace.to_string(),
            from: stored.map(|stored| stored.record.number),
            findings: self.findings(text, &plan)?,
            plan,
            routers: acks.len(),
        })
    }

    pub(super) async fn lint(
        &self,
        request: Request<Incoming>,
        named: &Named,
    ) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let text = read_text(request).await?;
        let stored = self.store.get(namespace).await?;
        let planned = self.planned(namespace, stored.as_deref(), &text).await?;
        json(&Linted {
            findings: planned.findings,
        })
    }

    /// Likely mistakes: of the text, and of what it does to names in use.
    fn findings(&self, text: &str, plan: &Plan) -> Result<Vec<Finding>, Refusal> {
        let mut roots = vec![Path::utf8(["svc"])];
        for name in &plan.names {
            let path = Path::read(&name.name).unwrap_or_default();
            let first = path.take(1);
            if !first.is_empty() && !roots.contains(&first) {
                roots.push(first);
            }
        }
        let no_namer = |path: &Path| self.no_namer(path);
        let ground = Ground {
            roots,
            no_namer: &no_namer,
        };
        let mut findings = lint::lint(text, &ground).map_err(|error| invalid(&error, text))?;
        let layout = dtab::Layout::read(text).map_err(|error| invalid(&error, text))?;
        let dtab = layout.dtab();
        for name in &plan.names {
            let Ok(path) = Path::read(&name.name) else {
                continue;
            };
            let nowhere = name.verdict == Verdict::Unchanged && !name.leads_somewhere();
            let (rule, message) = match name.verdict {
                Verdict::WouldBreak => {
                    let rate = name
                        .rps
                        .map(|rps| format!(" at {rps:.1} requests a second"))
                        .unwrap_or_default();
                    let message = format!(
                        "{path}, in use{rate}, leads to {} now and would lead to {}",
                        name.now, name.then
                    );
                    (Rule::D07, message)
                }
                _ if nowhere => (
                    Rule::D05,
                    format!("{path} is asked for and leads nowhere: {}", name.then),
                ),
                _ => continue,
            };
            let entry = lint::entry_of(&dtab, &path).unwrap_or(usize::MAX - 1);
            findings.push(Finding::at(rule, &layout, entry, message));
        }
        for finding in &mut findings {
            // A name that no entry takes stands at the top of the text.
            finding.entry = finding.entry.min(dtab.len());
        }
        findings.sort_by_key(|finding| (finding.line, finding.column));
        Ok(findings)
    }

    fn no_namer(&self, path: &Path) -> Option<String> {
        let text = |at: usize| path.segments().get(at).and_then(|segment| segment.as_str());
        let namers = self.names.interpreter().namers();
        if text(0) == Some("#") {
            let known = namers
                .iter()
                .any(|mounted| path.starts_with(&mounted.at) || mounted.at.starts_with(path));
            let all: Vec<_> = namers
                .iter()
                .map(|mounted| mounted.at.to_string())
                .collect();
            return (!known).then(|| {
                format!(
                    "no namer of the store answers {path}; it has: {}",
                    all.join(", ")
                )
            });
        }
        let empty = Dtab::empty();
        let bound = self
            .names
            .bind_under(&empty, &empty, path, &mut Reads::new());
        match bound {
            Activity::Failed(error) if matches!(*error, BindError::UnknownNamer { .. }) => {
                Some(format!("no namer answers {path}: {error}"))
            }
            _ => None,
        }
    }

    pub(super) async fn acks(&self, named: &Named, query: &Query) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let (number, written) = match query.number("number")? {
            Some(number) => (number, SystemTime::UNIX_EPOCH),
            None => {
                let stored = self.in_force(namespace).await?;
                (stored.record.number, stored.record.origin.time)
            }
        };
        let live = self.names.live();
        if let Some(wait) = query.duration("wait")? {
            live.applied(namespace, number, wait.min(LONGEST_WAIT))
                .await;
        }
        json(&Acks {
            namespace: namespace.to_string(),
            number,
            acks: live.acks(namespace, number, written),
        })
    }

    pub(super) fn names_in_use(&self, named: &Named) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        let names = self.names.live().names(namespace);
        let name = |name: crate::change::live::LiveName| NameInUse {
            name: name.path.to_string(),
            dtab: name.local.to_string(),
            rps: name.rps,
            routers: name.routers,
        };
        json(&NamesInUse {
            namespace: namespace.to_string(),
            names: names.into_iter().map(name).collect(),
        })
    }

    pub(super) fn traffic(&self, named: &Named) -> Result<Response, Refusal> {
        let namespace = named.namespace()?;
        json(&Traffic {
            namespace: namespace.to_string(),
            clients: self.names.live().clients(namespace),
        })
    }
}

/// The dtab of a record; a deletion's is empty.
pub(super) fn dtab_of(record: &Record) -> Dtab {
    let text = record.text.as_deref().unwrap_or_default();
    Dtab::read(text).unwrap_or_default()
}

/// 400 with the place in the text.
pub(super) fn invalid(error: &dtab::ParseError, text: &str) -> Refusal {
    Refusal::bad(format!("this is no dtab: {}", error.report(text))).coded("invalid-dtab")
}
