//! Changes: planned, guarded, written with the version that they were planned against, and waited for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;

use super::super::Api;
use super::super::answer::{Refusal, Response};
use super::super::dtabs::{origin, precondition, read_bytes, read_text};
use super::super::query::Query;
use super::read::LONGEST_WAIT;
use super::{Action, Named, json, json_with};
use crate::change::diff::{Sign, differences};
use crate::change::edit::{EditError, Edits};
use crate::change::noted::{Noted, Within};
use crate::change::shapes::{Confirm, Planned, Rollback, Version, Written};
use crate::store::{Change, Namespace, Only, Origin, StoreError, Stored};

/// How the change came, when it says so.
const VIA: &str = "rutter-via";
/// So often a change is planned again when others were first.
const ATTEMPTS: usize = 1_000;
/// A body that is no dtab.
const BODY_BYTES: usize = 1024 * 1024;
/// The longest time that a change may wait to be confirmed.
const LONGEST_CONFIRM: Duration = Duration::from_secs(24 * 3600);

/// What is to come in force, given what is.
enum Wish {
    /// This text.
    Text(String),
    /// Edits of what is in force.
    Edits(Edits),
    /// An older version.
    Back(Rollback),
    /// What is in force, without its end.
    Keep(Confirm),
    /// Nothing.
    Nothing,
}

/// How a change is to be made.
pub(in crate::api) struct Manner {
    only: Only,
    allow: bool,
    most: f64,
    dry: bool,
    wait: Option<Duration>,
    within: Option<Duration>,
}

impl Manner {
    pub(in crate::api) fn of(query: &Query, headers: &HeaderMap) -> Result<Self, Refusal> {
        let most = match query.get("max-break") {
            None => 0.0,
            Some(text) => {
                let share = text
                    .parse()
                    .ok()
                    .filter(|share| (0.0..=1.0).contains(share));
                share.ok_or_else(|| {
                    Refusal::bad(format!(
                        "`max-break` is a share from 0 to 1, found {text:?}"
                    ))
                })?
            }
        };
        let within = query.duration("confirm-within")?;
        if within.is_some_and(|within| within > LONGEST_CONFIRM || within < Duration::from_secs(1))
        {
            return Err(Refusal::bad("`confirm-within` is from 1s to 24h"));
        }
        Ok(Self {
            only: precondition(headers)?,
            allow: query.is_true("allow-break"),
            most,
            dry: query.is_true("dry-run"),
            wait: query.duration("wait")?,
            within,
        })
    }
}

impl Api {
    pub(super) async fn change(
        &self,
        action: Action,
        request: Request<Incoming>,
        named: &Named,
        query: &Query,
        peer: SocketAddr,
    ) -> Result<Response, Refusal> {
        let namespace = named.namespace()?.clone();
        let manner = Manner::of(query, request.headers())?;
        let origin = origin(request.headers(), peer)?;
        let via = request.headers().get(VIA).and_then(|via| via.to_str().ok());
        let noted = Noted {
            words: origin.note.to_string(),
            via: via.unwrap_or("api").to_owned(),
            confirm: None,
        };
        let wish = match action {
            Action::Put => Wish::Text(read_text(request).await?),
            Action::Patch => Wish::Edits(body(request).await?),
            Action::Rollback => Wish::Back(body(request).await?),
            Action::Confirm => Wish::Keep(body(request).await?),
            _ => Wish::Nothing,
        };
        // A change goes on to its end when its client is gone: half of it would be worse.
        let api = self.clone();
        let task = tokio::spawn(async move {
            let made = api
                .make(&namespace, &wish, &manner, &origin, &noted)
                .await?;
            match made {
                Made::Planned(planned) => json(&planned),
                Made::Written(mut written) => {
                    api.wait_for(&namespace, &manner, &mut written).await;
                    let status = match written.before {
                        Some(_) => StatusCode::OK,
                        None => StatusCode::CREATED,
                    };
                    json_with(status, &written)
                }
            }
        });
        task.await.unwrap_or_else(|error| {
            Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                error.to_string(),
            ))
        })
    }

    /// Plans and writes, again when somebody else was first and the client did not name a version.
    async fn make(
        &self,
        namespace: &Namespace,
        wish: &Wish,
        manner: &Manner,
        origin: &Origin,
        noted: &Noted,
    ) -> Result<Made, Refusal> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let stored = self.store.get(namespace).await?;
            allowed(&manner.only, namespace, stored.as_deref())?;
            let mut noted = noted.clone();
            let text = self
                .text(namespace, wish, stored.as_deref(), &mut noted)
                .await?;
            let planned = match wish {
                // It changes nothing that could break.
                Wish::Keep(_) => None,
                _ => {
                    let text = text.as_deref().unwrap_or_default();
                    Some(self.planned(namespace, stored.as_deref(), text).await?)
                }
            };
            let would_break = planned
                .as_ref()
                .map_or(0, |planned| planned.plan.would_break);
            if let Some(planned) = planned {
                if manner.dry {
                    return Ok(Made::Planned(planned));
                }
                guard(planned, manner)?;
            }
            noted.confirm = manner.within.map(|within| Within {
                seconds: within.as_secs(),
                back: stored.as_ref().map(|stored| stored.record.number),
            });
            let origin = Origin::now(origin.author.clone(), noted.note());
            let written = self
                .put(namespace, stored.as_deref(), text.as_deref(), origin)
                .await;
            match written {
                Err(
                    StoreError::Changed { .. }
                    | StoreError::Exists { .. }
                    | StoreError::NotFound(_),
                ) if attempt < ATTEMPTS => {
                    // What is in force by now may be what the client allows: it is looked at and planned anew.
                    let pause = fastrand::u64(0..2_000 * attempt.min(20) as u64);
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                }
                Err(error) => return Err(error.into()),
                Ok(version) => {
                    let new = text
                        .as_deref()
                        .map(dtab::Dtab::read)
                        .and_then(Result::ok)
                        .unwrap_or_default();
                    let old = stored
                        .as_ref()
                        .map(|stored| stored.dtab.clone())
                        .unwrap_or_default();
                    let lines = differences(&old, &new);
                    let added = lines.iter().filter(|line| line.sign == Sign::Added).count();
                    return Ok(Made::Written(Written {
                        version,
                        before: stored.as_ref().map(|stored| stored.record.number),
                        added,
                        removed: lines.len() - added,
                        would_break,
                        acks: Vec::new(),
                    }));
                }
            }
        }
    }

    /// The text that is wished for; none for no namespace.
    async fn text(
        &self,
        namespace: &Namespace,
        wish: &Wish,
        stored: Option<&Stored>,
        noted: &mut Noted,
    ) -> Result<Option<String>, Refusal> {
        let missing = || Refusal::from(StoreError::NotFound(namespace.clone()));
        let in_force = || stored.map(|stored| stored.record.text.as_deref().unwrap_or_default());
        match wish {
            Wish::Text(text) => Ok(Some(text.clone())),
            Wish::Nothing => stored.map(|_| None).ok_or_else(missing),
            Wish::Edits(edits) => {
                let text = in_force().ok_or_else(missing)?;
                Ok(Some(edits.apply(text).map_err(refused)?))
            }
            Wish::Back(Rollback { to }) => {
                let newest = self.store.history(namespace, None, 1).await?;
                let newest = newest.first().ok_or_else(missing)?.number;
                let to = to.unwrap_or(newest.saturating_sub(1));
                if to == 0 {
                    return Err(Refusal::bad("there is no version before this one"));
                }
                let record = self.record(namespace, to).await?;
                let Some(text) = &record.text else {
                    return Err(Refusal::bad(format!(
                        "version {to} is a deletion: `delete` ends a namespace"
                    )));
                };
                if noted.words.is_empty() {
                    noted.words = format!("back to {to}");
                }
                Ok(Some(text.to_string()))
            }
            Wish::Keep(Confirm { number }) => {
                let stored = stored.ok_or_else(missing)?;
                let found = stored.record.number;
                if number.is_some_and(|number| number != found) {
                    let reason = format!(
                        "namespace {namespace} has version {found} now: there is nothing to confirm"
                    );
                    return Err(Refusal::new(StatusCode::CONFLICT, reason).coded("changed"));
                }
                if crate::change::confirm::until(&stored.record).is_none() {
                    let reason = format!(
                        "version {found} of namespace {namespace} does not wait to be confirmed"
                    );
                    return Err(Refusal::new(StatusCode::CONFLICT, reason).coded("changed"));
                }
                if noted.words.is_empty() {
                    noted.words = format!("version {found} confirmed");
                }
                Ok(in_force().map(str::to_owned))
            }
        }
    }

    /// Writes what was planned, if that is still what is in force.
    async fn put(
        &self,
        namespace: &Namespace,
        stored: Option<&Stored>,
        text: Option<&str>,
        origin: Origin,
    ) -> Result<Version, StoreError> {
        let only = match stored {
            Some(stored) => Only::Version(Arc::from(stored.record.version())),
            None => Only::Absent,
        };
        let record = match text {
            None => {
                self.store.delete(namespace, origin, only).await?;
                let newest = self.store.history(namespace, None, 1).await?;
                let newest = newest.into_iter().next();
                newest.ok_or_else(|| StoreError::NotFound(namespace.clone()))?
            }
            Some(text) => {
                let change = Change::read(text, origin)
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                self.store
                    .put(namespace, change, only)
                    .await?
                    .record
                    .clone()
            }
        };
        self.names.confirms().note(namespace, &record);
        tracing::info!(%namespace, version = record.number, author = %record.origin.author, "dtab changed");
        Ok(Version::of(namespace, &record))
    }

    /// Waits for routers as long as was asked for, and says how far they are.
    async fn wait_for(&self, namespace: &Namespace, manner: &Manner, written: &mut Written) {
        if written.version.deleted {
            return;
        }
        let live = self.names.live();
        let number = written.version.number;
        if let Some(wait) = manner.wait {
            live.applied(namespace, number, wait.min(LONGEST_WAIT))
                .await;
        }
        let record = self.record(namespace, number).await;
        let since = record.map_or(std::time::SystemTime::UNIX_EPOCH, |record| {
            record.origin.time
        });
        written.acks = live.acks(namespace, number, since);
    }
}

enum Made {
    Planned(Planned),
    Written(Written),
}

async fn body<T: serde::de::DeserializeOwned + Default>(
    request: Request<Incoming>,
) -> Result<T, Refusal> {
    let body = read_bytes(request, BODY_BYTES).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad(format!("the body is not what this takes: {error}")))
}

/// What the client's own condition says to what is in force.
fn allowed(only: &Only, namespace: &Namespace, stored: Option<&Stored>) -> Result<(), Refusal> {
    match (only, stored) {
        (Only::Always, _) | (Only::Absent, None) | (Only::Present, Some(_)) => Ok(()),
        (Only::Version(wanted), Some(now)) if now.record.version() == **wanted => Ok(()),
        (Only::Version(_), Some(now)) => Err(StoreError::Changed {
            namespace: namespace.clone(),
            version: now.record.version(),
        }
        .into()),
        (Only::Absent, Some(now)) => Err(StoreError::Exists {
            namespace: namespace.clone(),
            version: now.record.version(),
        }
        .into()),
        (Only::Present | Only::Version(_), None) => {
            Err(StoreError::NotFound(namespace.clone()).into())
        }
    }
}

/// Refuses what would break more names in use than is allowed.
fn guard(planned: Planned, manner: &Manner) -> Result<(), Refusal> {
    let plan = &planned.plan;
    if manner.allow || plan.would_break == 0 || plan.share_broken <= manner.most {
        return Ok(());
    }
    let first: Vec<&str> = plan.names.iter().take(3).map(|name| &*name.name).collect();
    let more = plan.would_break.saturating_sub(first.len());
    let shown = &first[..first.len().min(plan.would_break)];
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let reason = format!(
        "{} of the names in use would break: {}{more}; `allow-break=true` writes all the same",
        plan.would_break,
        shown.join(", ")
    );
    Err(Refusal::new(StatusCode::CONFLICT, reason)
        .coded("would-break")
        .planned(planned))
}

fn refused(error: EditError) -> Refusal {
    match error {
        EditError::Unreadable { .. } => Refusal::bad(error.to_string()).coded("invalid-dtab"),
        EditError::Missing { .. } | EditError::Changed { .. } => {
            Refusal::new(StatusCode::CONFLICT, error.to_string()).coded("changed")
        }
    }
}
