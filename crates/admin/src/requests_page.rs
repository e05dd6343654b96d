//! `/requests`: the last requests that were sampled, as a live table and as JSON.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::{HeaderMap, header};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Admin;
use crate::html::{self, Site};

/// One finished request; texts that are unknown are empty.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// When it ended.
    pub time: SystemTime,
    /// The client's address.
    pub source: String,
    /// The server it came to, `ip:port`.
    pub server: String,
    /// The router's label.
    pub router: String,
    /// The path it was named.
    pub logical: String,
    /// The bound id it went to.
    pub concrete: String,
    /// The endpoint's address.
    pub destination: String,
    /// Method and target, as they came.
    pub request: String,
    /// The status the client got; 0 when it got none.
    pub status: u16,
    /// Our code, when we answered ourselves: `RT-E101`.
    pub code: String,
    /// From the request's head to the response's end.
    pub latency: Duration,
    /// The trace id, sixteen hexadecimal digits; empty when not traced.
    pub trace: String,
}

/// What is known of the last requests. Newest first.
#[derive(Debug, Clone, Default)]
pub struct RequestsView {
    /// The requests that are kept.
    pub rows: Vec<RequestRow>,
    /// The share of requests that is kept, 0 to 1.
    pub sample_rate: f64,
    /// How many are kept at most.
    pub capacity: usize,
    /// How many requests passed since start, kept or not; 0 when not counted.
    pub passed: u64,
}

#[derive(Deserialize)]
struct Asked {
    q: Option<String>,
    fragment: Option<String>,
}

#[derive(Template)]
#[template(path = "requests.html")]
struct Page {
    view: RequestsView,
    kept: usize,
    q: String,
    whole: bool,
}

impl RequestRow {
    fn clock(&self) -> String {
        let since = self
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let of_day = since.as_secs() % 86_400;
        let (h, m, s) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        format!("{h:02}:{m:02}:{s:02}.{:03}", since.subsec_millis())
    }

    fn took(&self) -> String {
        html::millis(self.latency.as_secs_f64() * 1_000.0)
    }

    /// Sign, word and class of how it ended: colour is never the only carrier.
    fn verdict(&self) -> (&'static str, &'static str) {
        match self.status {
            _ if !self.code.is_empty() => ("✗", "bad"),
            500.. => ("✗", "bad"),
            0 => ("✗", "bad"),
            400..=499 => ("‼", "warn"),
            _ => ("✓", "good"),
        }
    }

    /// Whether any column has `part` in it; a status class (`5xx`) is understood too.
    fn matches(&self, part: &str) -> bool {
        let class = format!("{}xx", self.status / 100);
        let status = self.status.to_string();
        [
            &self.source,
            &self.server,
            &self.router,
            &self.logical,
            &self.concrete,
            &self.destination,
            &self.request,
            &self.code,
            &self.trace,
            &status,
            &class,
        ]
        .iter()
        .any(|column| column.to_lowercase().contains(part))
    }

    fn to_json(&self) -> Value {
        let since = self
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        json!({
            "timestamp": since.as_millis() as u64,
            "source": self.source,
            "server": self.server,
            "router": self.router,
            "logical": self.logical,
            "concrete": self.concrete,
            "destination": self.destination,
            "request": self.request,
            "status": self.status,
            "code": self.code,
            "latency_s": self.latency.as_secs_f64(),
            "trace": self.trace,
        })
    }
}

impl RequestsView {
    /// Whether any row says what was asked; without, the column is left out.
    fn names_requests(&self) -> bool {
        self.rows.iter().any(|row| !row.request.is_empty())
    }

    /// Only the rows in which every word of `q` occurs.
    fn filtered(mut self, q: &str) -> Self {
        let words: Vec<String> = q.split_whitespace().map(str::to_lowercase).collect();
        self.rows
            .retain(|row| words.iter().all(|word| row.matches(word)));
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "schema": "rutter/requests/v1",
            "sample_rate": self.sample_rate,
            "capacity": self.capacity,
            "passed": self.passed,
            "requests": self.rows.iter().map(RequestRow::to_json).collect::<Vec<_>>(),
        })
    }
}

impl Admin {
    /// `/requests` (page; JSON for who asks with `Accept: application/json`) and `/requests.json`; both take `?q`.
    #[must_use]
    pub fn requests(self, view: impl Fn() -> RequestsView + Send + Sync + 'static) -> Self {
        let view = Arc::new(view);
        let of_json = view.clone();
        let page = get(
            move |site: Extension<Arc<Site>>, headers: HeaderMap, asked: Query<Asked>| async move {
                let view = view();
                let q = asked.0.q.unwrap_or_default();
                let kept = view.rows.len();
                let view = view.filtered(&q);
                let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
                if accept.is_some_and(|kinds| kinds.starts_with("application/json")) {
                    return crate::shelf::json_response(&view.to_json());
                }
                let fragment = asked.0.fragment.is_some();
                let whole = !fragment;
                let main = Page {
                    view,
                    kept,
                    q,
                    whole,
                };
                html::page(
                    &site,
                    ("/requests", "Requests"),
                    Some("live.js"),
                    fragment,
                    &main,
                )
            },
        );
        let json = get(move |asked: Query<Asked>| async move {
            let q = asked.0.q.unwrap_or_default();
            crate::shelf::json_response(&of_json().filtered(&q).to_json())
        });
        self.nav_page("/requests", "Requests", page)
            .page("/requests.json", json)
    }
}
