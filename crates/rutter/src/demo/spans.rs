//! A small span store: what Zipkin's collector and its API do, for ten thousand spans in memory.
//!
//! Spans come by scribe ([`scribe`]) and by HTTP ([`http`]); both forms of them become Zipkin's v2 JSON ([`v1`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

pub mod http;
pub mod scribe;
pub mod v1;

/// Spans kept; the oldest go first.
const CAPACITY: usize = 10_000;

/// The store. Cheap to clone; all clones are one store.
#[derive(Debug, Clone, Default)]
pub struct Spans(Arc<Mutex<VecDeque<Span>>>);

/// A span as it is kept: what is searched by, and its v2 JSON as text, a tenth of what the tree of it takes.
#[derive(Debug, Clone)]
struct Span {
    trace: Box<str>,
    id: Box<str>,
    parent: Option<Box<str>>,
    kind: Box<str>,
    service: Box<str>,
    timestamp: u64,
    failed: bool,
    text: Box<str>,
}

impl Spans {
    /// Takes in spans in v2 JSON; gives how many of them were spans.
    pub fn add(&self, spans: impl IntoIterator<Item = Value>) -> usize {
        let mut kept = self.lock();
        let mut taken = 0;
        for span in spans.into_iter().filter_map(Span::read) {
            taken += 1;
            // The same span again: both of its reporters, or a collector that got it twice.
            let same =
                kept.iter_mut().rev().take(200).find(|old| {
                    old.id == span.id && old.trace == span.trace && old.kind == span.kind
                });
            match same {
                Some(old) => *old = span,
                None => kept.push_back(span),
            }
            if kept.len() > CAPACITY {
                kept.pop_front();
            }
        }
        taken
    }

    /// How many spans are kept.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The spans of one trace, earliest first. An id of 16 digits finds traces with 32 that end so.
    pub fn trace(&self, id: &str) -> Vec<Value> {
        let id = normal_id(id);
        let low = &id[id.len().saturating_sub(16)..];
        let kept = self.lock();
        let mut spans: Vec<&Span> = kept
            .iter()
            .filter(|span| span.trace.ends_with(low))
            .collect();
        spans.sort_by_key(|span| span.timestamp);
        spans.into_iter().map(Span::json).collect()
    }

    /// The names of services that reported, sorted.
    pub fn services(&self) -> BTreeSet<String> {
        let kept = self.lock();
        let named = kept.iter().filter(|span| !span.service.is_empty());
        named.map(|span| span.service.to_string()).collect()
    }

    /// The span names of a service, sorted.
    pub fn names(&self, service: &str) -> BTreeSet<String> {
        let kept = self.lock();
        let own = kept.iter().filter(|span| *span.service == *service);
        own.filter_map(|span| span.json()["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// Traces with a span that fits, newest first, at most `limit`.
    pub fn traces(&self, fits: impl Fn(&Value) -> bool, limit: usize) -> Vec<Vec<Value>> {
        let mut ids: Vec<Box<str>> = Vec::new();
        for span in self.lock().iter().rev() {
            if ids.len() >= limit {
                break;
            }
            if !ids.contains(&span.trace) && fits(&span.json()) {
                ids.push(span.trace.clone());
            }
        }
        ids.iter().map(|id| self.trace(id)).collect()
    }

    /// Who calls whom, as Zipkin's dependency links: calls counted where a span's parent is another service's.
    pub fn dependencies(&self) -> Vec<Value> {
        let kept = self.lock();
        let by_id: BTreeMap<(&str, &str), &Span> = kept
            .iter()
            .map(|span| ((&*span.trace, &*span.id), span))
            .collect();
        let mut links: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for span in kept.iter() {
            let parent = span.parent.as_deref();
            let parent = parent.and_then(|id| by_id.get(&(&*span.trace, id)));
            let Some(parent) = parent.filter(|parent| parent.service != span.service) else {
                continue;
            };
            let link = links.entry((&parent.service, &span.service)).or_default();
            link.0 += 1;
            link.1 += u64::from(span.failed);
        }
        links
            .into_iter()
            .map(|((parent, child), (calls, errors))| {
                json!({"parent": parent, "child": child, "callCount": calls, "errorCount": errors})
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Span {
    fn read(json: Value) -> Option<Self> {
        let mut object: Map<String, Value> = match json {
            Value::Object(object) => object,
            _ => return None,
        };
        for field in ["traceId", "id", "parentId"] {
            if let Some(id) = object.get(field).and_then(Value::as_str) {
                let id = normal_id(id);
                // A root is one that names no parent; some reporters send zeros.
                match field == "parentId" && id.bytes().all(|digit| digit == b'0') {
                    true => _ = object.shift_remove(field),
                    false => _ = object.insert(field.to_owned(), Value::from(id)),
                }
            }
        }
        let json = Value::Object(object);
        let text = |field: &str| json[field].as_str().map(Box::from);
        Some(Self {
            trace: text("traceId")?,
            id: text("id")?,
            parent: text("parentId"),
            kind: text("kind").unwrap_or_default(),
            service: json["localEndpoint"]["serviceName"]
                .as_str()
                .unwrap_or_default()
                .into(),
            timestamp: json["timestamp"].as_u64().unwrap_or(0),
            failed: !json["tags"]["error"].is_null(),
            text: json.to_string().into(),
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Lower case, at least sixteen digits, no zeros before sixteen.
fn normal_id(id: &str) -> String {
    let id = id.to_lowercase();
    let short = id.trim_start_matches('0');
    match short.len() {
        ..=16 => format!("{short:0>16}"),
        _ => format!("{short:0>32}"),
    }
}

#[cfg(test)]
mod tests;
