//! Addresses whose machine seems to be gone: a connect to them was not answered. What one data thread finds out so is of use to all,
//! for each has connections of its own to them that look as if nothing had happened.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::lock;

/// When a connect that was not answered was begun, by address.
#[derive(Debug)]
pub(crate) struct Unanswered {
    made: Instant,
    /// The latest of all, in µs since `made`; 0 while there was none. So a request reads one cell that hardly ever changes.
    latest: AtomicU64,
    begun: Mutex<HashMap<SocketAddr, Instant>>,
}

/// By then every data thread has swept its idle connections many times.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Unanswered {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            made: now,
            latest: AtomicU64::new(0),
            begun: Mutex::default(),
        }
    }

    /// A connect that was `begun` then was not answered in its time, or nobody knew a way there.
    pub(crate) fn note(&self, addr: SocketAddr, begun: Instant) {
        let mut all = lock(&self.begun);
        all.retain(|_, known| begun.saturating_duration_since(*known) < REMEMBERED);
        let known = all.entry(addr).or_insert(begun);
        *known = begun.max(*known);
        drop(all);
        self.latest
            .fetch_max(self.micros(begun).max(1), Ordering::Release);
    }

    /// Whether a connect to the address was not answered that was begun later than this: a connection that was last heard of by
    /// then leads to nobody, perhaps.
    pub(crate) fn since(&self, addr: SocketAddr, heard: Instant) -> bool {
        let latest = self.latest.load(Ordering::Acquire);
        latest != 0
            && latest > self.micros(heard)
            && lock(&self.begun).get(&addr).is_some_and(|at| *at > heard)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.made).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_of_before_a_connect_that_nobody_answered_is_in_doubt() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let unanswered = Unanswered::new(start);
        let (here, there) = (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into());
        assert!(!unanswered.since(here, start));
        unanswered.note(here, at(100));
        assert!(unanswered.since(here, start));
        assert!(unanswered.since(here, at(99)));
        assert!(!unanswered.since(here, at(101)), "it answered meanwhile");
        assert!(!unanswered.since(there, start), "that is another address");
        // Another thread's connect that was begun before says nothing new.
        unanswered.note(here, at(50));
        assert!(unanswered.since(here, at(99)));
        unanswered.note(there, at(300));
        assert!(!unanswered.since(here, at(200)));
        assert!(unanswered.since(there, at(200)));
    }

    #[test]
    fn addresses_are_forgotten() {
        let start = Instant::now();
        let unanswered = Unanswered::new(start);
        for n in 0..1000_u16 {
            let second = Duration::from_secs(n.into());
            unanswered.note(([10, 0, 0, 1], n).into(), start + second);
        }
        assert_eq!(lock(&unanswered.begun).len() as u64, REMEMBERED.as_secs());
    }
}
