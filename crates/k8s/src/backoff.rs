//! How long to wait before another try: longer each time, never in step with other routers.

use std::time::Duration;

/// Waits that double from `first` to `most`, each taken at random from its upper half.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    pub(crate) fn wait(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.most);
        between(now / 2, now)
    }

    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random duration in that range.
pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    least + most.saturating_sub(least).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        for most in [100, 200, 350, 350] {
            let wait = backoff.wait();
            assert!(wait >= ms(most / 2) && wait <= ms(most), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= ms(100));
    }
}
