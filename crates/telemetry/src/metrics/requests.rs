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

/// What is counted at a server, a service, or of a client's attempts: requests, success, failures, their latency, the statuses.
/// Written by one thread. What each request changes stands first, within a cache line.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Requests {
    pending: Gauge,
    requests: Cell,
    success: Cell,
    /// Statuses are counted where Linkerd does: at servers and clients.
    by_status: bool,
    statuses: Statuses,
    /// Nothing is in it where there are statuses, each hundred of which has its own.
    latency: Histogram,
    failures: Cell,
    exceptions: Mutex<BTreeMap<Cow<'static, str>, u64>>,
}

const LATENCY: &str = "request_latency_ms";

/// Counts and times by status.
#[derive(Debug, Default)]
#[repr(C)]
struct Statuses {
    /// By hundred, 1XX to 5XX.
    hundreds: [OnceLock<Box<Hundred>>; 5],
    /// No answer, or a status outside 100 to 599.
    error: Cell,
    error_time: Histogram,
}

/// What most answers count in lies together.
#[derive(Debug)]
#[repr(C, align(64))]
struct Hundred {
    time: Histogram,
    statuses: [Cell; 100],
}

impl Requests {
    /// For services, without statuses.
    pub fn new() -> Self {
        Self::default()
    }

    /// For servers and attempts, with `status/…` and `time/…`.
    pub fn with_statuses() -> Self {
        Self {
            by_status: true,
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
        match self.by_status {
            true => self.statuses.count(outcome),
            false => self.latency.record(outcome.latency_us),
        }
        match outcome.success {
            true => self.success.incr(),
            false => self.fail(outcome),
        }
    }

    /// It has ended, and is counted in [`Outcomes`], which whoever shows these here adds to them
    /// ([`Outcomes::collect_as_requests`]): only what those don't know is counted.
    pub fn end_elsewhere(&self, outcome: &Outcome<'_>) {
        self.pending.decr();
        if !outcome.success {
            self.fail(outcome);
        }
    }

    /// Takes in what `gone` has counted, but for what is under way; to be called by the thread that writes this one.
    pub fn absorb(&self, gone: &Requests) {
        self.requests.add(gone.requests.get());
        self.success.add(gone.success.get());
        self.failures.add(gone.failures.get());
        self.latency.absorb(&gone.latency);
        self.statuses.absorb(&gone.statuses);
        let mut exceptions = lock(&self.exceptions);
        for (name, n) in &*lock(&gone.exceptions) {
            *exceptions.entry(name.clone()).or_default() += n;
        }
    }

    /// As [`absorb`](Self::absorb), of requests that came to [`end_elsewhere`](Self::end_elsewhere).
    pub fn absorb_outcomes(&self, gone: &Outcomes) {
        self.requests.add(gone.requests());
        self.success.add(gone.success());
        for class in &gone.classes {
            self.latency.absorb(&class.time);
        }
    }

    /// Reports all but the statuses, which Linkerd doesn't show at a client's service.
    pub fn collect_without_statuses(&self, out: &mut Collector<'_>) {
        out.counter("requests", self.requests.get());
        out.counter("success", self.success.get());
        // As Linkerd's: there is no such counter before the first failure.
        if self.failures.get() > 0 {
            out.counter("failures", self.failures.get());
        }
        out.gauge("pending", self.pending.get() as f64);
        out.stat(LATENCY, Unit::Millis, &self.latency);
        for time in self.statuses.times() {
            out.stat(LATENCY, Unit::Millis, time);
        }
        let exceptions = lock(&self.exceptions).clone();
        for (name, n) in exceptions {
            out.counter(&format!("failures/{name}"), n);
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

impl Hundred {
    fn new() -> Box<Self> {
        Box::new(Self {
            time: Histogram::new(),
            statuses: [const { Cell::new() }; 100],
        })
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
        let hundred = self.hundreds[hundred].get_or_init(Hundred::new);
        hundred.statuses[rest].incr();
        hundred.time.record(outcome.latency_us);
    }

    fn absorb(&self, gone: &Statuses) {
        for (ours, gone) in self.hundreds.iter().zip(&gone.hundreds) {
            let Some(gone) = gone.get() else {
                continue;
            };
            let ours = ours.get_or_init(Hundred::new);
            ours.time.absorb(&gone.time);
            for (cell, gone) in ours.statuses.iter().zip(&gone.statuses) {
                cell.add(gone.get());
            }
        }
        self.error.add(gone.error.get());
        self.error_time.absorb(&gone.error_time);
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
        self.collect_without_statuses(out);
        if self.by_status {
            self.statuses.collect(out);
        }
    }
}

/// The classes of the `class` label, by status.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "error"];

/// How requests ended after all retries, for `rutter_requests_total` and `rutter_request_duration_seconds`. Registered at the client's service
/// when a request got as far as a client, else at the service, or at the router for one that got no name. Written by one thread.
#[derive(Debug, Default)]
pub struct Outcomes {
    classes: [Class; 6],
    /// Answers rutter made itself, by class and code; made when first used.
    made: OnceLock<Box<[[Cell; Code::ALL.len()]; 6]>>,
}

/// What a request changes is one cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Class {
    /// Answers of services.
    served: Cell,
    /// Of all, also of those that rutter made.
    success: Cell,
    time: Histogram,
}

impl Outcomes {
    /// All at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request has ended; `outcome` is the one its client saw.
    pub fn end(&self, outcome: &Outcome<'_>) {
        let at = match outcome.status {
            Some(status @ 100..600) => usize::from(status / 100 - 1),
            _ => 5,
        };
        let class = &self.classes[at];
        match outcome.code {
            None => class.served.incr(),
            Some(code) => {
                let made = self.made.get_or_init(made);
                made[at][code as usize].incr();
            }
        }
        if outcome.success {
            class.success.incr();
        }
        class.time.record(outcome.latency_us);
    }

    /// Reports Linkerd's `requests`, `success` and `request_latency_ms` of these.
    pub fn collect_as_requests(&self, out: &mut Collector<'_>) {
        out.counter("requests", self.requests());
        out.counter("success", self.success());
        for class in &self.classes {
            out.stat(LATENCY, Unit::Millis, &class.time);
        }
    }

    fn requests(&self) -> u64 {
        let served: u64 = self.classes.iter().map(|class| class.served.get()).sum();
        let made = self.made.get().into_iter();
        let made: u64 = made
            .flat_map(|made| made.iter().flatten().map(Cell::get))
            .sum();
        served + made
    }

    fn success(&self) -> u64 {
        self.classes.iter().map(|class| class.success.get()).sum()
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
            let served = self.classes[class].served.get();
            if served > 0 {
                let labels = [("class", *name), ("code", "")];
                out.ours(REQUESTS, &labels, served);
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
                &self.classes[class].time,
            );
        }
        out.ours("rutter_successful_requests_total", &[], self.success());
    }
}

#[cfg(test)]
mod tests;
