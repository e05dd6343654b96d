//! The end of a data plane in two steps: first it keeps nothing alive but still accepts, for nobody else may have its
//! port yet; then it accepts no more and finishes. And how long an idle connection is kept when its time has come: a
//! request may be on its way, and one that crosses the close is lost to its client.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::worker::Load;

/// How far a worker, or a listener, is on its way to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It serves.
    #[default]
    No,
    /// Every answer says that its connection closes; what is idle is kept for a while.
    Leaving,
    /// Nothing new comes any more.
    Closing,
}

impl Ending {
    /// How long a connection waits for its next request; none: as long as the server's settings say.
    pub(crate) fn patience(self) -> Option<Duration> {
        match self {
            Self::No => None,
            Self::Leaving => Some(LINGER),
            Self::Closing => Some(LAST_LOOK),
        }
    }
}

/// An idle connection is kept for so long after the end began: whoever uses it meanwhile is answered, and told to close.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// At the very end: a request that is already on its way is served.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// What is accepted last has so long to be answered, though no more than half of the whole.
const TAIL: Duration = Duration::from_secs(1);

/// The latest time to stop accepting, when all must be over after `limit`.
pub(crate) fn accepts_for(limit: Duration) -> Duration {
    limit - TAIL.min(limit / 2)
}

/// A request that began before the end did, as long as it is under way.
pub(crate) struct UnderWay<'a>(&'a Load);

impl<'a> UnderWay<'a> {
    pub(crate) fn new(load: &'a Load) -> Self {
        let under_way = Self(load);
        under_way.add(1);
        under_way
    }

    /// The worker alone writes, so a sum needs no lock of the bus.
    fn add(&self, change: isize) {
        let now = self.0.older.load(Ordering::Relaxed);
        let sum = now.saturating_add_signed(change);
        self.0.older.store(sum, Ordering::Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_second_or_half_of_the_time_is_for_what_was_accepted() {
        for (limit, accepts) in [(10_000, 9_000), (2_000, 1_000), (700, 350), (0, 0)] {
            let limit = Duration::from_millis(limit);
            assert_eq!(accepts_for(limit), Duration::from_millis(accepts));
        }
    }

    #[test]
    fn requests_that_began_before_are_counted_until_they_end() {
        let load = Load::default();
        let older = || load.older.load(Ordering::Relaxed);
        let (one, two) = (UnderWay::new(&load), UnderWay::new(&load));
        assert_eq!(older(), 2);
        drop(one);
        assert_eq!(older(), 1);
        drop(two);
        assert_eq!(older(), 0);
    }
}
