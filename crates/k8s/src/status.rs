//! What each watch did and when: for pages, metrics and messages.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::ApiError;
use crate::objects::Resource;
use crate::table::Scope;

/// Where a watch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a list.
    Listing,
    /// A watch is open.
    Watching,
    /// The last call failed; what was known before is still served.
    Retrying,
    /// The API server refuses: a permission is missing.
    Forbidden,
}

impl Phase {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Retrying => "retrying",
            Self::Forbidden => "forbidden",
        }
    }
}

/// One watch's record. Written by its task, read by pages and metrics.
#[derive(Debug)]
pub struct Status {
    /// What is watched.
    pub resource: Resource,
    /// Where.
    pub scope: Scope,
    record: Mutex<Record>,
}

/// How often something happened, and when last; all counters since the watch was begun.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where the watch stands.
    pub phase: Phase,
    /// The last resourceVersion seen; empty before the first list.
    pub version: String,
    /// When the API server last said anything about this kind; before that, when the snapshot that is served was
    /// confirmed, or the beginning.
    pub last_contact: Instant,
    /// When the last whole list came.
    pub last_list: Option<Instant>,
    /// When the last change came.
    pub last_event: Option<Instant>,
    /// When what is held was last compared with a fresh list.
    pub last_audit: Option<Instant>,
    /// Whole lists.
    pub lists: u64,
    /// Watches that were opened.
    pub watches: u64,
    /// Changes that came.
    pub events: u64,
    /// Calls and watches that failed.
    pub errors: u64,
    /// Watches that were given up because nothing came.
    pub silences: u64,
    /// Lists without more than half of what was held, which another list had to confirm.
    pub doubts: u64,
    /// Comparisons with a fresh list.
    pub audits: u64,
    /// Objects that such a comparison found wrong; any at all means that the watch lied.
    pub repairs: u64,
    /// What failed last, until something works again.
    pub error: Option<ApiError>,
}

impl Status {
    /// `known_since` is when what is held was confirmed last: by a snapshot's writer, or nothing is held and it is now.
    pub(crate) fn new(resource: Resource, scope: Scope, known_since: Instant) -> Self {
        let record = Record {
            phase: Phase::Listing,
            version: String::new(),
            last_contact: known_since,
            last_list: None,
            last_event: None,
            last_audit: None,
            lists: 0,
            watches: 0,
            events: 0,
            errors: 0,
            silences: 0,
            doubts: 0,
            audits: 0,
            repairs: 0,
            error: None,
        };
        Self {
            resource,
            scope,
            record: Mutex::new(record),
        }
    }

    /// A copy of the record.
    #[must_use]
    pub fn record(&self) -> Record {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How long ago the API server last said anything: the most that what is held can be behind.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.record().last_contact.elapsed()
    }

    pub(crate) fn failed(&self, error: ApiError) {
        self.change(|record| {
            record.phase = if error.forbidden() {
                Phase::Forbidden
            } else {
                Phase::Retrying
            };
            record.errors += 1;
            record.error = Some(error);
        });
    }

    pub(crate) fn listed(&self, version: &str) {
        self.change(|record| {
            record.heard();
            record.phase = Phase::Listing;
            version.clone_into(&mut record.version);
            record.last_list = Some(record.last_contact);
            record.lists += 1;
        });
    }

    pub(crate) fn opened(&self) {
        self.change(|record| {
            record.heard();
            record.phase = Phase::Watching;
            record.watches += 1;
        });
    }

    /// An event (or a bookmark, which changes nothing but the version).
    pub(crate) fn event(&self, version: &str, change: bool) {
        self.change(|record| {
            record.heard();
            version.clone_into(&mut record.version);
            if change {
                record.events += 1;
                record.last_event = Some(record.last_contact);
            }
        });
    }

    /// For `/state` and `/namer_state/io.l5d.k8s.json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let record = self.record();
        let ago = |at: Option<Instant>| at.map(|at| at.elapsed().as_secs_f64());
        json!({
            "resource": self.resource.plural,
            "scope": self.scope.to_string(),
            "request": self.resource.path(self.scope.namespace()),
            "state": record.phase.as_str(),
            "streaming": record.phase == Phase::Watching,
            "confirmed": record.lists > 0,
            "version": record.version,
            "ageSeconds": record.last_contact.elapsed().as_secs_f64(),
            "lastListSecondsAgo": ago(record.last_list),
            "lastEventSecondsAgo": ago(record.last_event),
            "lastAuditSecondsAgo": ago(record.last_audit),
            "lists": record.lists,
            "watches": record.watches,
            "events": record.events,
            "errors": record.errors,
            "silences": record.silences,
            "doubts": record.doubts,
            "audits": record.audits,
            "repairs": record.repairs,
            "error": record.error.map(|error| error.to_string()),
        })
    }
}

impl Record {
    fn heard(&mut self) {
        self.last_contact = Instant::now();
        self.error = None;
    }
}
