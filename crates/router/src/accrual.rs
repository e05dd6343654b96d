//! When an endpoint is left out (ejected), and when it is tried again: Linkerd 1's failure accrual.
//!
//! One record per endpoint, shared by all workers: written on a failure and on the first success after one, otherwise
//! only read. Alive → dead for a backoff → one request probes it → alive again, or dead for longer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::settings::{Accrual, Backoff};

/// What a pick may do with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Use it.
    Open,
    /// Leave it out while others are open.
    Busy,
}

/// The record of one endpoint.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Health {
    /// Dead until then, in ms since `start`; 0: alive.
    dead_until: AtomicU64,
    /// Some failure has not been made up for: successes must be written too.
    troubled: AtomicBool,
    /// The one request that probes is under way.
    probing: AtomicBool,
    start: Instant,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    in_a_row: u32,
    /// Average success rate, for the policies that use one.
    rate: f64,
    rate_at: Instant,
    seen: u64,
    waits: Waits,
}

/// What a failure or success changed, for counters and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// Ejected, for this long.
    Removed(Duration),
    /// Back.
    Revived,
}

impl Health {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            dead_until: AtomicU64::new(0),
            troubled: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            start: now,
            record: Mutex::new(Record {
                in_a_row: 0,
                rate: 1.0,
                rate_at: now,
                seen: 0,
                waits: Waits::default(),
            }),
        }
    }

    /// Whether it may be picked. Reads only.
    pub(crate) fn status(&self, now: Instant) -> Status {
        match self.dead_until.load(Ordering::Relaxed) {
            0 => Status::Open,
            until if self.millis(now) < until || self.probing.load(Ordering::Relaxed) => {
                Status::Busy
            }
            _ => Status::Open,
        }
    }

    /// When it is tried again, if it is ejected now.
    pub(crate) fn ejected_until(&self) -> Option<Instant> {
        match self.dead_until.load(Ordering::Relaxed) {
            0 => None,
            until => Some(self.start + Duration::from_millis(until)),
        }
    }

    /// A request goes to it. True when this one is the probe.
    pub(crate) fn begin(&self, now: Instant) -> bool {
        let until = self.dead_until.load(Ordering::Relaxed);
        until != 0 && self.millis(now) >= until && !self.probing.swap(true, Ordering::Relaxed)
    }

    /// A request to it ended without a verdict (the client went away).
    pub(crate) fn forget(&self, probe: bool) {
        if probe {
            self.probing.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn success(&self, policy: &Accrual, probe: bool, now: Instant) -> Change {
        let averaging = matches!(
            policy,
            Accrual::SuccessRate { .. } | Accrual::SuccessRateWindowed { .. }
        );
        if !averaging && !self.troubled.load(Ordering::Relaxed) {
            return Change::None;
        }
        let mut record = self.record.lock().expect("nothing panics while it is held");
        record.in_a_row = 0;
        record.average(policy, 1.0, now);
        if self.dead_until.load(Ordering::Relaxed) == 0 {
            self.troubled.store(false, Ordering::Relaxed);
            return Change::None;
        }
        // Only the probe revives: an answer to a request that was under way before says little.
        if !probe {
            return Change::None;
        }
        record.rate = 1.0;
        record.seen = 0;
        record.waits = Waits::default();
        self.dead_until.store(0, Ordering::Relaxed);
        self.probing.store(false, Ordering::Relaxed);
        self.troubled.store(false, Ordering::Relaxed);
        Change::Revived
    }

    pub(crate) fn failure(&self, policy: &Accrual, probe: bool, now: Instant) -> Change {
        let mut record = self.record.lock().expect("nothing panics while it is held");
        self.troubled.store(true, Ordering::Relaxed);
        record.in_a_row = record.in_a_row.saturating_add(1);
        record.average(policy, 0.0, now);
        let dead = self.dead_until.load(Ordering::Relaxed) != 0;
        let backoff = match policy {
            Accrual::None => return Change::None,
            Accrual::Consecutive { failures, backoff } => {
                (record.in_a_row >= *failures).then_some(backoff)
            }
            Accrual::SuccessRate {
                rate,
                requests,
                backoff,
            } => (record.seen >= u64::from(*requests) && record.rate < *rate).then_some(backoff),
            Accrual::SuccessRateWindowed { rate, backoff, .. } => {
                (record.rate < *rate).then_some(backoff)
            }
        };
        let backoff = match policy {
            _ if dead && probe => policy.backoff(),
            _ if dead => return Change::None,
            _ => backoff,
        };
        let Some(backoff) = backoff else {
            return Change::None;
        };
        let wait = record.waits.next(backoff);
        let until = self.millis(now) + (wait.as_millis() as u64).max(1);
        self.dead_until.store(until, Ordering::Relaxed);
        self.probing.store(false, Ordering::Relaxed);
        Change::Removed(wait)
    }

    fn millis(&self, now: Instant) -> u64 {
        // Never 0, which stands for alive.
        now.saturating_duration_since(self.start).as_millis() as u64 + 1
    }
}

impl Accrual {
    fn backoff(&self) -> Option<&Backoff> {
        match self {
            Self::None => None,
            Self::Consecutive { backoff, .. }
            | Self::SuccessRate { backoff, .. }
            | Self::SuccessRateWindowed { backoff, .. } => Some(backoff),
        }
    }
}

impl Record {
    fn average(&mut self, policy: &Accrual, outcome: f64, now: Instant) {
        let keep = match policy {
            Accrual::SuccessRate { requests, .. } => (-1.0 / f64::from((*requests).max(1))).exp(),
            Accrual::SuccessRateWindowed { window, .. } => {
                let passed = now.saturating_duration_since(self.rate_at).as_secs_f64();
                (-passed / window.as_secs_f64().max(0.001)).exp()
            }
            _ => return,
        };
        self.rate_at = now;
        self.seen += 1;
        // The first outcome sets the average, as Finagle's EMA.
        self.rate = if self.seen == 1 {
            outcome
        } else {
            self.rate * keep + outcome * (1.0 - keep)
        };
    }
}

/// The waits of a [`Backoff`], one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    last: Option<Duration>,
    count: u32,
}

impl Waits {
    pub(crate) fn next(&mut self, backoff: &Backoff) -> Duration {
        let wait = match *backoff {
            Backoff::Constant(wait) => wait,
            Backoff::Jittered { min, max } => {
                let upper = self.last.unwrap_or(min) * 3;
                between(min, upper.clamp(min, max.max(min)))
            }
            Backoff::EqualJittered { start, max } => {
                let doubled = start
                    .saturating_mul(1u32.checked_shl(self.count).unwrap_or(u32::MAX))
                    .min(max);
                between(doubled / 2, doubled)
            }
        };
        self.last = Some(wait);
        self.count = (self.count + 1).min(30);
        wait
    }
}

fn between(low: Duration, high: Duration) -> Duration {
    low + high.saturating_sub(low).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Accrual {
        Accrual::Consecutive {
            failures: 3,
            backoff: Backoff::Constant(Duration::from_secs(5)),
        }
    }

    #[test]
    fn so_many_failures_in_a_row_eject_and_a_success_between_starts_anew() {
        let now = Instant::now();
        let health = Health::new(now);
        for _ in 0..2 {
            assert_eq!(health.failure(&three(), false, now), Change::None);
        }
        assert_eq!(health.success(&three(), false, now), Change::None);
        for _ in 0..2 {
            assert_eq!(health.failure(&three(), false, now), Change::None);
        }
        assert_eq!(health.status(now), Status::Open);
        assert_eq!(
            health.failure(&three(), false, now),
            Change::Removed(Duration::from_secs(5))
        );
        assert_eq!(health.status(now), Status::Busy);
    }

    #[test]
    fn one_probe_after_the_backoff_decides() {
        let now = Instant::now();
        let health = Health::new(now);
        for _ in 0..3 {
            health.failure(&three(), false, now);
        }
        assert!(!health.begin(now + Duration::from_secs(4)));
        let later = now + Duration::from_secs(6);
        assert_eq!(health.status(later), Status::Open);
        assert!(health.begin(later), "the probe");
        assert_eq!(
            health.status(later),
            Status::Busy,
            "and no second one meanwhile"
        );
        assert!(!health.begin(later));
        assert_eq!(
            health.failure(&three(), true, later),
            Change::Removed(Duration::from_secs(5))
        );
        let again = later + Duration::from_secs(6);
        assert!(health.begin(again));
        assert_eq!(health.success(&three(), true, again), Change::Revived);
        assert_eq!(health.status(again), Status::Open);
    }

    #[test]
    fn an_answer_to_an_older_request_does_not_revive() {
        let now = Instant::now();
        let health = Health::new(now);
        for _ in 0..3 {
            health.failure(&three(), false, now);
        }
        assert_eq!(health.success(&three(), false, now), Change::None);
        assert_eq!(health.status(now), Status::Busy);
    }

    #[test]
    fn none_never_ejects() {
        let now = Instant::now();
        let health = Health::new(now);
        for _ in 0..1000 {
            assert_eq!(health.failure(&Accrual::None, false, now), Change::None);
        }
    }

    #[test]
    fn a_success_rate_below_the_target_ejects_once_enough_was_seen() {
        let policy = Accrual::SuccessRate {
            rate: 0.9,
            requests: 20,
            backoff: Backoff::Constant(Duration::from_secs(1)),
        };
        let now = Instant::now();
        let health = Health::new(now);
        let removed = (0..40).position(|_| health.failure(&policy, false, now) != Change::None);
        assert_eq!(removed, Some(19));
    }

    #[test]
    fn a_windowed_success_rate_forgets_by_time_and_not_by_requests() {
        let policy = Accrual::SuccessRateWindowed {
            rate: 0.5,
            window: Duration::from_secs(10),
            backoff: Backoff::Constant(Duration::from_secs(1)),
        };
        let start = Instant::now();
        let health = Health::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        for n in 0..100 {
            assert_eq!(health.success(&policy, false, at(n * 100)), Change::None);
        }
        // A burst of failures within a moment weighs as much as that moment.
        for _ in 0..50 {
            assert_eq!(health.failure(&policy, false, at(10_010)), Change::None);
        }
        // ln 2 of the window halves what was good before.
        let ejected =
            (1..200).find(|n| health.failure(&policy, false, at(10_010 + n * 100)) != Change::None);
        let after_s = ejected.unwrap() as f64 / 10.0;
        assert!((6.0..8.0).contains(&after_s), "{after_s}");
    }

    #[test]
    fn decorrelated_jitter_stays_between_its_limits_and_grows_to_three_times_the_last() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(3));
        let backoff = Backoff::Jittered { min, max };
        fastrand::seed(5);
        let mut waits = Waits::default();
        let mut last = min;
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let wait = waits.next(&backoff);
            assert!(
                wait >= min && wait <= max.min(last * 3),
                "{wait:?} after {last:?}"
            );
            last = wait;
            longest = longest.max(wait);
        }
        assert!(longest > Duration::from_secs(1), "{longest:?}");
    }

    #[test]
    fn fail_fast_needs_one_failure_and_its_probe_brings_it_back() {
        let now = Instant::now();
        let health = Health::new(now);
        let wait = match health.failure(&Accrual::fail_fast(), false, now) {
            Change::Removed(wait) => wait,
            other => panic!("{other:?}"),
        };
        assert!(wait <= Duration::from_secs(1) && wait >= Duration::from_millis(500));
        let later = now + Duration::from_secs(2);
        let probe = health.begin(later);
        assert!(probe);
        // The endpoint's own policy says nothing of it.
        assert_eq!(
            health.success(&Accrual::None, probe, later),
            Change::Revived
        );
    }

    #[test]
    fn equal_jitter_doubles_up_to_its_longest() {
        let backoff = Backoff::accrual();
        let mut waits = Waits::default();
        for want in [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
            let wait = waits.next(&backoff).as_secs_f64();
            assert!((want / 2.0..=want).contains(&wait), "{wait} of {want}");
        }
    }
}
