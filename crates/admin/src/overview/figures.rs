//! From the metrics tree to the rows of the overview: pure, so that its tests are plain calls.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::html::{grouped, millis};

/// A figure of the page before this one counts as "before" when it is at least this old.
const SHORTEST: Duration = Duration::from_millis(1_500);
/// Nobody looked for longer than this: a rate over that time would say nothing about now.
const LONGEST: Duration = Duration::from_secs(60);

/// One server, service or client of a router.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) router: String,
    pub(super) name: String,
    pub(super) requests: u64,
    pub(super) success: u64,
    pub(super) failures: u64,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) retries: u64,
    pub(super) connections: Option<u64>,
    pub(super) available: Option<u64>,
    pub(super) size: Option<u64>,
    /// Requests a second since the page before; none on the first look.
    pub(super) rate: Option<f64>,
    /// Success since the page before, 0 to 1.
    pub(super) recent: Option<f64>,
}

impl Row {
    fn read(router: &str, name: &str, node: &Value) -> Self {
        let counter = |path: &str| node.pointer(path).and_then(|v| v["counter"].as_u64());
        let gauge = |path: &str| node.pointer(path).and_then(|v| v["gauge"].as_f64());
        let latency = |which: &str| {
            node.pointer("/request_latency_ms")
                .and_then(|v| v[format!("stat.{which}")].as_f64())
        };
        Self {
            router: router.to_owned(),
            name: name.to_owned(),
            requests: counter("/requests").unwrap_or(0),
            success: counter("/success").unwrap_or(0),
            failures: counter("/failures").unwrap_or(0),
            p50: latency("p50"),
            p99: latency("p99"),
            retries: counter("/retries/total").unwrap_or(0)
                + counter("/retries/requeues").unwrap_or(0),
            connections: gauge("/connections").map(|v| v as u64),
            available: gauge("/loadbalancer/available").map(|v| v as u64),
            size: gauge("/loadbalancer/size").map(|v| v as u64),
            ..Self::default()
        }
    }

    /// Since start; none before the first answer.
    pub(super) fn success_ratio(&self) -> Option<f64> {
        let judged = self.success + self.failures;
        (judged > 0).then(|| self.success as f64 / judged as f64)
    }

    /// What the row is judged by: lately when known, else since start.
    fn health(&self) -> f64 {
        self.recent.or(self.success_ratio()).unwrap_or(1.0)
    }

    pub(super) fn rate_text(&self) -> String {
        self.rate
            .map_or_else(|| "–".to_owned(), |r| format!("{r:.1}"))
    }

    pub(super) fn requests_text(&self) -> String {
        grouped(self.requests)
    }

    pub(super) fn success_text(&self) -> String {
        percent(self.success_ratio())
    }

    pub(super) fn p50_text(&self) -> String {
        self.p50.map_or_else(|| "–".to_owned(), millis)
    }

    pub(super) fn p99_text(&self) -> String {
        self.p99.map_or_else(|| "–".to_owned(), millis)
    }

    pub(super) fn endpoints_text(&self) -> String {
        match (self.available, self.size) {
            (Some(available), Some(size)) => format!("{available} of {size}"),
            _ => "–".to_owned(),
        }
    }

    pub(super) fn connections_text(&self) -> String {
        self.connections.map_or_else(|| "–".to_owned(), grouped)
    }

    /// Sign and class of the success: sign and word go with the colour.
    pub(super) fn verdict(&self) -> (&'static str, &'static str) {
        match self.health() {
            _ if self.success + self.failures == 0 => ("", ""),
            h if h >= 0.995 => ("✓", "good"),
            h if h >= 0.95 => ("‼", "warn"),
            _ => ("✗", "bad"),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "router": self.router,
            "name": self.name,
            "requests": self.requests,
            "success": self.success,
            "failures": self.failures,
            "success_ratio": self.success_ratio(),
            "requests_per_second": self.rate,
            "p50_s": self.p50.map(|ms| ms / 1_000.0),
            "p99_s": self.p99.map(|ms| ms / 1_000.0),
            "retries": self.retries,
            "connections": self.connections,
            "endpoints": self.size,
            "endpoints_available": self.available,
        })
    }
}

/// `99.98 %`, never rounded up to a hundred.
fn percent(ratio: Option<f64>) -> String {
    match ratio {
        None => "–".to_owned(),
        Some(1.0) => "100 %".to_owned(),
        Some(ratio) => format!("{:.2} %", (ratio * 10_000.0).floor() / 100.0),
    }
}

/// All rows of all routers.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) services: Vec<Row>,
    pub(super) clients: Vec<Row>,
    pub(super) servers: Vec<Row>,
}

/// Reads the tree below `rt`; with `only`, one router's part.
pub(super) fn read(rt: &Value, only: Option<&str>) -> Figures {
    let mut figures = Figures::default();
    for (label, router) in children(rt).filter(|(label, _)| only.is_none_or(|o| o == *label)) {
        let rows = |kind: &str| {
            children(&router[kind])
                .map(|(name, node)| Row::read(label, name, node))
                .collect::<Vec<_>>()
        };
        figures.services.extend(rows("service"));
        figures.clients.extend(rows("client"));
        figures.servers.extend(rows("server"));
    }
    for row in figures.services.iter_mut().chain(&mut figures.clients) {
        row.name.insert(0, '/');
    }
    for row in &mut figures.servers {
        // `<ip>/<port>` is Linkerd's name of the node; people read `<ip>:<port>`.
        row.name = row.name.replace('/', ":");
    }
    figures
}

fn children(node: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let children = node.as_object().into_iter().flatten();
    children
        .filter(|(_, child)| child.is_object())
        .map(|(name, child)| (name.as_str(), child))
}

/// The sum over the servers: what came into this process.
pub(super) fn total(servers: &[Row]) -> Row {
    let mut total = Row::default();
    for row in servers {
        total.requests += row.requests;
        total.success += row.success;
        total.failures += row.failures;
        total.connections = sum(total.connections, row.connections);
        total.rate = match (total.rate, row.rate) {
            (None, rate) | (rate, None) => rate,
            (Some(a), Some(b)) => Some(a + b),
        };
        // Not a percentile of all, but its upper bound.
        total.p99 = [total.p99, row.p99].into_iter().flatten().reduce(f64::max);
    }
    total
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, other) | (other, None) => other,
        (Some(a), Some(b)) => Some(a + b),
    }
}

/// A table of the page: its rows worst first, cut to what a page can bear.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// How many there are at all.
    pub(super) known: usize,
    /// How many fit the filter.
    pub(super) matching: usize,
}

impl Table {
    pub(super) fn new(mut rows: Vec<Row>, q: &str, limit: usize) -> Self {
        let known = rows.len();
        let q = q.to_lowercase();
        rows.retain(|row| row.name.to_lowercase().contains(&q));
        let matching = rows.len();
        rows.sort_by(|a, b| {
            a.health()
                .total_cmp(&b.health())
                .then(b.failures.cmp(&a.failures))
                .then(b.requests.cmp(&a.requests))
                .then_with(|| a.name.cmp(&b.name))
        });
        rows.truncate(limit);
        Self {
            rows,
            known,
            matching,
        }
    }

    pub(super) fn cut(&self) -> usize {
        self.matching - self.rows.len()
    }
}

type Counts = HashMap<(u8, String, String), (u64, u64, u64)>;

/// Counters as they were when somebody looked: rates are the difference, and cost nothing when nobody looks.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(Instant, Counts)>);

impl History {
    /// Fills in the rates of `figures` as of `now`.
    pub(super) fn rates(&mut self, figures: &mut Figures, now: Instant) {
        let kinds = [
            &mut figures.services,
            &mut figures.clients,
            &mut figures.servers,
        ];
        let age = |at: &Instant| now.saturating_duration_since(*at);
        while self.0.front().is_some_and(|(at, _)| age(at) > LONGEST) {
            self.0.pop_front();
        }
        let before = self.0.iter().find(|(at, _)| age(at) >= SHORTEST);
        let mut counts = Counts::new();
        for (kind, rows) in kinds.into_iter().enumerate() {
            for row in rows {
                let key = (kind as u8, row.router.clone(), row.name.clone());
                if let Some((at, before)) = before {
                    // A name that was not there before has begun at 0.
                    let was = before.get(&key).copied().unwrap_or_default();
                    row.since(was, age(at));
                }
                counts.insert(key, (row.requests, row.success, row.failures));
            }
        }
        if self.0.back().is_none_or(|(at, _)| age(at) >= SHORTEST) {
            self.0.push_back((now, counts));
        }
        // A window of some ten seconds: the oldest but that many looks go.
        while self.0.len() > 6 {
            self.0.pop_front();
        }
    }
}

impl Row {
    fn since(&mut self, (requests, success, failures): (u64, u64, u64), passed: Duration) {
        // Smaller than before: the name was dropped and came back at 0.
        let requests = self.requests.checked_sub(requests).unwrap_or(self.requests);
        self.rate = Some(requests as f64 / passed.as_secs_f64());
        let success = self.success.saturating_sub(success);
        let judged = success + self.failures.saturating_sub(failures);
        self.recent = (judged > 0).then(|| success as f64 / judged as f64);
    }
}

#[cfg(test)]
mod tests;
