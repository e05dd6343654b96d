//! How many repeats there may be: Finagle's retry budget, a bucket of tokens that leak away.
//!
//! Each request puts tokens in, each repeat takes some out; what is put in is gone after the time to live. The
//! arithmetic is Finagle's `RetryBudget` and `LeakyTokenBucket` (`spec`: 1000 tokens a request, 1000 / percent a repeat,
//! a reserve of `min_per_sec` repeats for each second of the time to live).

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::settings::BudgetSettings;

/// What a request puts in.
const DEPOSIT: i64 = 1000;
/// The time to live is counted in so many windows.
const WINDOWS: usize = 10;
/// A worker hands its deposits over in batches of so many, so that requests that succeed write nothing shared.
const BATCH: u32 = 64;

/// One budget, shared by all workers.
#[derive(Debug)]
pub(crate) struct Budget {
    deposit: i64,
    withdrawal: i64,
    reserve: i64,
    window: Duration,
    bucket: Mutex<Bucket>,
    start: Instant,
    /// For the gauges, which take no lock: the balance and what was spent lately, as they were when the budget was last
    /// used, and when that was, in ms since `start`.
    shown: AtomicI64,
    spent: AtomicI64,
    used: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    start: Instant,
    /// Number of the newest window.
    newest: u64,
    windows: [i64; WINDOWS],
    /// What was taken out of each.
    spent: [i64; WINDOWS],
}

impl Budget {
    pub(crate) fn new(settings: BudgetSettings, now: Instant) -> Self {
        let never = settings.min_per_sec == 0 && settings.percent == 0.0;
        // With no percentage a repeat costs one token, and only the reserve gives any.
        let (deposit, withdrawal) = match settings.percent {
            0.0 => (0, 1),
            percent => (DEPOSIT, ((DEPOSIT as f64 / percent) as i64).max(1)),
        };
        let seconds = settings.ttl.as_secs().max(1) as i64;
        let reserve = if never {
            0
        } else {
            i64::from(settings.min_per_sec) * seconds * withdrawal
        };
        Self {
            deposit,
            withdrawal,
            reserve,
            window: settings.ttl.max(Duration::from_millis(10)) / WINDOWS as u32,
            bucket: Mutex::new(Bucket {
                start: now,
                newest: 0,
                windows: [0; WINDOWS],
                spent: [0; WINDOWS],
            }),
            start: now,
            shown: AtomicI64::new(reserve),
            spent: AtomicI64::new(0),
            used: AtomicU64::new(0),
        }
    }

    /// Puts in the tokens of `requests` requests.
    pub(crate) fn deposit(&self, requests: u32, now: Instant) {
        if self.deposit > 0 {
            self.with(now, |bucket, _| {
                let slot = (bucket.newest % WINDOWS as u64) as usize;
                bucket.windows[slot] += self.deposit * i64::from(requests);
            });
        }
    }

    /// Takes the tokens of one repeat; false when they are not there.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.with(now, |bucket, balance| {
            if balance < self.withdrawal {
                return false;
            }
            let slot = (bucket.newest % WINDOWS as u64) as usize;
            bucket.windows[slot] -= self.withdrawal;
            bucket.spent[slot] += self.withdrawal;
            true
        })
    }

    /// Repeats that are left now.
    #[cfg(test)]
    fn balance(&self, now: Instant) -> i64 {
        self.with(now, |_, balance| balance / self.withdrawal)
    }

    /// Repeats that are left, as far as can be told without a lock: what was put in or taken since the budget was last
    /// used is not looked up, only forgotten when all of it has leaked away.
    pub(crate) fn shown(&self, now: Instant) -> i64 {
        self.figures(now).0 / self.withdrawal
    }

    /// Which part of what could have been repeated lately still may be: 1 when nothing was, 0 when nothing is left.
    pub(crate) fn ratio(&self, now: Instant) -> f64 {
        match self.figures(now) {
            (_, 0) => 1.0,
            (left, spent) => left as f64 / (left + spent) as f64,
        }
    }

    /// What is left, and what was spent within the time to live.
    fn figures(&self, now: Instant) -> (i64, i64) {
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        let idle = now.saturating_duration_since(self.start + used);
        match idle > self.window * WINDOWS as u32 {
            true => (self.reserve, 0),
            false => (
                self.shown.load(Ordering::Relaxed),
                self.spent.load(Ordering::Relaxed),
            ),
        }
    }

    fn with<R>(&self, now: Instant, f: impl FnOnce(&mut Bucket, i64) -> R) -> R {
        let mut bucket = self.bucket.lock().expect("nothing panics while it is held");
        bucket.age(now, self.window);
        let balance = self.reserve + bucket.sum();
        let out = f(&mut bucket, balance);
        let left = (self.reserve + bucket.windows.iter().sum::<i64>()).max(0);
        self.shown.store(left, Ordering::Relaxed);
        let spent = bucket.spent.iter().sum();
        self.spent.store(spent, Ordering::Relaxed);
        let used = now.saturating_duration_since(self.start).as_millis() as u64;
        self.used.store(used, Ordering::Relaxed);
        out
    }
}

impl Bucket {
    fn age(&mut self, now: Instant, window: Duration) {
        let number = (now.saturating_duration_since(self.start).as_nanos()
            / window.as_nanos().max(1)) as u64;
        let passed = number.saturating_sub(self.newest).min(WINDOWS as u64);
        for n in 0..passed {
            let slot = ((number - n) % WINDOWS as u64) as usize;
            self.windows[slot] = 0;
            self.spent[slot] = 0;
        }
        self.newest = self.newest.max(number);
    }

    fn sum(&self) -> i64 {
        self.windows.iter().sum()
    }
}

/// A worker's side of a [`Budget`].
#[derive(Debug, Default)]
pub(crate) struct Deposits(std::cell::Cell<u32>);

impl Deposits {
    /// Counts one request.
    pub(crate) fn add(&self, budget: &Budget) {
        let n = self.0.get() + 1;
        self.0.set(n);
        if n >= BATCH {
            self.flush(budget, Instant::now());
        }
    }

    /// Hands over what was counted; before each withdrawal.
    pub(crate) fn flush(&self, budget: &Budget, now: Instant) {
        let n = self.0.take();
        if n > 0 {
            budget.deposit(n, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &Budget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.withdraw(now))
            .take_while(|&ok| ok)
            .take(100_000)
            .count()
    }

    #[test]
    fn the_reserve_and_a_share_of_the_requests_may_be_repeated() {
        let now = Instant::now();
        for (min_per_sec, percent, requests, want) in [
            (10, 0.2, 0, 100),
            (10, 0.2, 100, 120),
            (0, 0.5, 10, 5),
            (0, 0.0, 100, 0),
            (3, 0.0, 100, 30),
            (0, 2.0, 3, 6),
        ] {
            let budget = Budget::new(
                BudgetSettings {
                    min_per_sec,
                    percent,
                    ttl: Duration::from_secs(10),
                },
                now,
            );
            budget.deposit(requests, now);
            assert_eq!(
                budget.balance(now),
                want as i64,
                "{min_per_sec} {percent} {requests}"
            );
            assert_eq!(
                spend(&budget, now),
                want,
                "{min_per_sec} {percent} {requests}"
            );
            assert!(!budget.withdraw(now));
        }
    }

    #[test]
    fn deposits_and_withdrawals_are_forgotten_after_the_time_to_live() {
        let start = Instant::now();
        let budget = Budget::new(
            BudgetSettings {
                min_per_sec: 1,
                percent: 0.1,
                ttl: Duration::from_secs(10),
            },
            start,
        );
        budget.deposit(100, start);
        assert_eq!(spend(&budget, start), 20);
        let later = start + Duration::from_secs(11);
        assert_eq!(
            spend(&budget, later),
            10,
            "the reserve is back, the deposits are gone"
        );
        let middle = start + Duration::from_secs(16);
        assert_eq!(spend(&budget, middle), 0, "what was taken still counts");
    }

    #[test]
    fn the_gauges_follow_what_is_spent_and_recover_when_nobody_asks() {
        let start = Instant::now();
        let settings = BudgetSettings {
            min_per_sec: 1,
            percent: 0.5,
            ttl: Duration::from_secs(10),
        };
        let budget = Budget::new(settings, start);
        let shown = |after| (budget.shown(start + after), budget.ratio(start + after));
        assert_eq!(shown(Duration::ZERO), (10, 1.0));
        budget.deposit(20, start);
        assert_eq!(shown(Duration::ZERO), (20, 1.0));
        (0..5).for_each(|_| assert!(budget.withdraw(start)));
        assert_eq!(shown(Duration::ZERO), (15, 0.75));
        assert_eq!(spend(&budget, start), 15);
        assert_eq!(shown(Duration::from_secs(5)), (0, 0.0));
        assert_eq!(
            shown(Duration::from_secs(11)),
            (10, 1.0),
            "all has leaked away"
        );
    }

    #[test]
    fn a_workers_deposits_arrive_at_the_latest_when_it_wants_to_repeat() {
        let now = Instant::now();
        let budget = Budget::new(
            BudgetSettings {
                min_per_sec: 0,
                percent: 1.0,
                ttl: Duration::from_secs(10),
            },
            now,
        );
        let deposits = Deposits::default();
        for _ in 0..3 {
            deposits.add(&budget);
        }
        assert_eq!(budget.balance(now), 0);
        deposits.flush(&budget, now);
        assert_eq!(budget.balance(now), 3);
    }
}
