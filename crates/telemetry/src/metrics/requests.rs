//! The sources that every request is counted in: [`Requests`] at each place of Linkerd's tree, [`Outcomes`] for ours.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use super::{Collector, Source, Unit};
use crate::cells::{Cell, Gauge, Histogram};
use crate::code::Code;
use crate::lock;

/// How a request, or an attempt of it, ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The status of the answer; none when there was none (connection lost, client gone).
    pub status: Option<u16>,
    /// As classified.
    pub success: bool,
    /// The code, when rutter made the answer.
    pub code: Option<Code>,
    /// What stands behind `failures/` in Linkerd's tree; for a failure without one, the code is used, or "failure" for a bad answer.
    pub exception: Option<&'a str>,
    /// From the first byte of the request, or the start of the attempt, to the end, in µs.
    pub latency_us: u64,
}

/// What is counted at a server, a service, a client, or a client's service: requests, success, failures, their latency, the statuses.
/// Written by one thread.
#[derive(Debug, Default)]
pub struct Requests {
    requests: Cell,
    success: Cell,
    failures: Cell,
    pending: Gauge,
    /// Nothing is in it where there are statuses, each hundred of which has its own.
    latency: Histogram,
    /// Statuses are counted where Linkerd does: at servers and clients.
    statuses: Option<Box<Statuses>>,
    exceptions: Mutex<BTreeMap<Cow<'static, str>, u64>>,
}

const LATENCY: &str = "request_latency_ms";

/// Counts and times by status.
#[derive(Debug, Default)]
struct Statuses {
    /// By hundred, 1XX to 5XX.
    hundreds: [OnceLock<Box<Hundred>>; 5],
    /// No answer, or a status outside 100 to 599.
    error: Cell,
    error_time: Histogram,
}

/// What most answers count in lies together.
#[derive(Debug)]
#[repr(C)]
struct Hundred {
    time: Histogram,
    statuses: [Cell; 100],
}

impl Requests {
    /// For services and clients' services, without statuses.
    pub fn new() -> Self {
        Self::default()
    }

    /// For servers and clients, with `status/…` and `time/…`.
    pub fn with_statuses() -> Self {
        Self {
            statuses: Some(Box::default()),
            ..Self::default()
        }
    }

    /// A request comes in.
    pub fn begin(&self) {
        self.pending.incr();
    }

    /// It has ended, in one way or another; each [`begin`](Self::begin) has one end.
    pub fn end(&self, outcome: &Outcome<'_>) {
        self.pending.decr();
        self.requests.incr();
        match &self.statuses {
            Some(statuses) => statuses.count(outcome),
            None => self.latency.record(outcome.latency_us),
        }
        match outcome.success {
            true => self.success.incr(),
            false => self.fail(outcome),
        }
    }

    /// Requests that have ended.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Of those, the successful ones.
    pub fn success(&self) -> u64 {
        self.success.get()
    }

    /// Of those, the failed ones.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Requests that have begun and not ended.
    pub fn pending(&self) -> i64 {
        self.pending.get()
    }

    // Failures are rare: a lock that nobody else holds but a scrape for the time of one clone.
    fn fail(&self, outcome: &Outcome<'_>) {
        self.failures.incr();
        let name = match (outcome.exception, outcome.code) {
            (Some(name), _) => Cow::Borrowed(name),
            (None, Some(code)) => Cow::Borrowed(code.as_str()),
            (None, None) => Cow::Borrowed("failure"),
        };
        let mut exceptions = lock(&self.exceptions);
        match exceptions.get_mut(name.as_ref()) {
            Some(n) => *n += 1,
            None => {
                exceptions.insert(Cow::Owned(name.into_owned()), 1);
            }
        }
    }
}

impl Statuses {
    fn count(&self, outcome: &Outcome<'_>) {
        let status = outcome.status.filter(|s| (100..600).contains(s));
        let Some(status) = status else {
            self.error.incr();
            self.error_time.record(outcome.latency_us);
            return;
        };
        let (hundred, rest) = (usize::from(status / 100 - 1), usize::from(status % 100));
        let hundred = self.hundreds[hundred].get_or_init(|| {
            Box::new(Hundred {
                time: Histogram::new(),
                statuses: [const { Cell::new() }; 100],
            })
        });
        hundred.statuses[rest].incr();
        hundred.time.record(outcome.latency_us);
    }

    fn times(&self) -> impl Iterator<Item = &Histogram> {
        let hundreds = self.hundreds.iter().filter_map(OnceLock::get);
        let times = hundreds.map(|hundred| &hundred.time);
        times.chain([&self.error_time])
    }

    fn collect(&self, out: &mut Collector<'_>) {
        for (i, hundred) in self.hundreds.iter().enumerate() {
            let Some(hundred) = hundred.get() else {
                continue;
            };
            let first = (i + 1) * 100;
            let all = hundred.statuses.iter().map(Cell::get).sum();
            out.counter(&format!("status/{}XX", i + 1), all);
            for (rest, cell) in hundred
                .statuses
                .iter()
                .enumerate()
                .filter(|(_, c)| c.get() > 0)
            {
                out.counter(&format!("status/{}", first + rest), cell.get());
            }
            out.stat(&format!("time/{}XX", i + 1), Unit::Millis, &hundred.time);
        }
        if self.error.get() > 0 {
            out.counter("status/error", self.error.get());
            out.stat("time/error", Unit::Millis, &self.error_time);
        }
    }
}

impl Source for Requests {
    fn collect(&self, out: &mut Collector<'_>) {
        out.counter("requests", self.requests.get());
        out.counter("success", self.success.get());
        // As Linkerd's: there is no such counter before the first failure.
        if self.failures.get() > 0 {
            out.counter("failures", self.failures.get());
        }
        out.gauge("pending", self.pending.get() as f64);
        out.stat(LATENCY, Unit::Millis, &self.latency);
        for time in self.statuses.iter().flat_map(|statuses| statuses.times()) {
            out.stat(LATENCY, Unit::Millis, time);
        }
        let exceptions = lock(&self.exceptions).clone();
        for (name, n) in exceptions {
            out.counter(&format!("failures/{name}"), n);
        }
        if let Some(statuses) = &self.statuses {
            statuses.collect(out);
        }
    }
}

/// The classes of the `class` label, by status.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "error"];

/// How requests ended after all retries, for `rutter_requests_total` and `rutter_request_duration_seconds`. Registered at the client's service
/// when a request got as far as a client, else at the service, or at the router for one that got no name. Written by one thread.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Answers of services, by class.
    served: [Cell; 6],
    /// Answers rutter made itself, by class and code; made when first used.
    made: OnceLock<Box<[[Cell; Code::ALL.len()]; 6]>>,
    success: Cell,
    time: [Histogram; 6],
}

impl Outcomes {
    /// All at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request has ended; `outcome` is the one its client saw.
    pub fn end(&self, outcome: &Outcome<'_>) {
        let class = match outcome.status {
            Some(status @ 100..600) => usize::from(status / 100 - 1),
            _ => 5,
        };
        match outcome.code {
            None => self.served[class].incr(),
            Some(code) => {
                let made = self.made.get_or_init(made);
                made[class][code as usize].incr();
            }
        }
        if outcome.success {
            self.success.incr();
        }
        self.time[class].record(outcome.latency_us);
    }
}

/// All at zero ([`Default`] ends at arrays of 32).
fn made() -> Box<[[Cell; Code::ALL.len()]; 6]> {
    Box::new([const { [const { Cell::new() }; Code::ALL.len()] }; 6])
}

impl Source for Outcomes {
    fn collect(&self, out: &mut Collector<'_>) {
        const REQUESTS: &str = "rutter_requests_total";
        for (class, name) in CLASSES.iter().enumerate() {
            if self.served[class].get() > 0 {
                let labels = [("class", *name), ("code", "")];
                out.ours(REQUESTS, &labels, self.served[class].get());
            }
            for code in Code::ALL {
                let made = self
                    .made
                    .get()
                    .map_or(0, |m| m[class][*code as usize].get());
                if made > 0 {
                    let labels = [("class", *name), ("code", code.as_str())];
                    out.ours(REQUESTS, &labels, made);
                    out.ours("rutter_errors_total", &[("code", code.as_str())], made);
                }
            }
            let labels = [("class", *name)];
            out.duration(
                "rutter_request_duration_seconds",
                &labels,
                &self.time[class],
            );
        }
        out.ours("rutter_successful_requests_total", &[], self.success.get());
    }
}

#[cfg(test)]
mod tests;
