//! The rule by which everything that a store says is followed, whatever the protocol: what was said last stays until
//! something else is said, and a stream is begun again whenever it ends.

use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

use tracing::{info, warn};

use super::{Followed, Known};

/// A stream that has said something is begun again this soon, at the latest.
const SOON: Duration = Duration::from_millis(200);
/// A store that has just come back may not know everything yet: that a name is gone counts after this.
const DOUBT: Duration = Duration::from_secs(10);

/// What is there later.
pub(super) type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// Where something is said.
pub(super) trait Source<T>: Send + Sync {
    /// Begins to listen.
    fn open(&self) -> Future<'_, Result<Box<dyn Said<T>>, Ended>>;
}

/// What is said, one after the other.
pub(super) trait Said<T>: Send {
    /// The next. Cancel safe.
    fn next(&mut self) -> Future<'_, Result<T, Ended>>;
}

/// How a stream ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) why: String,
    /// The store understood and says no: whoever knows nothing else is told.
    pub(super) refused: bool,
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self {
            why,
            refused: false,
        }
    }
}

/// What is followed, for the log, and how patiently.
pub(super) struct Label {
    pub(super) store: String,
    pub(super) what: String,
    pub(super) retry: (Duration, Duration),
}

/// Keeps `followed` at what `source` says, as long as anybody holds it.
pub(super) async fn follow<T: Clone + PartialEq + Send + Sync>(
    label: Label,
    source: Box<dyn Source<T>>,
    followed: Weak<Followed<T>>,
    says_nothing: fn(&T) -> bool,
) {
    let Label { store, what, retry } = label;
    let mut failures: u32 = 0;
    loop {
        let mut said = false;
        let Err(ended) = listen(&*source, &followed, says_nothing, &mut said).await else {
            return;
        };
        if said {
            if failures > 0 {
                info!(store, what, "the store answers again");
            }
            failures = 0;
        }
        let Some(followed) = followed.upgrade() else {
            return;
        };
        if ended.refused && !matches!(*followed.known.get(), Known::Said(_)) {
            followed
                .known
                .set_if_new(Known::Refused(ended.why.as_str().into()));
        }
        drop(followed);
        let wait = match said {
            true => SOON.mul_f64(fastrand::f64()),
            false => backoff(retry.0, retry.1, failures),
        };
        failures = failures.saturating_add(1);
        warn!(
            store,
            what,
            error = ended.why,
            retry_in_ms = wait.as_millis() as u64,
            "a stream of the store ended, what it said last stays"
        );
        tokio::time::sleep(wait).await;
    }
}

/// Twice as long each time, up to the longest, with a share of luck so that not all come back at once.
pub(super) fn backoff(first: Duration, most: Duration, failures: u32) -> Duration {
    let whole = first.saturating_mul(1 << failures.min(20)).min(most);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// One stream to its end; well when nobody holds `followed` any more. `said` tells whether it said something.
async fn listen<T: Clone + PartialEq + Send + Sync>(
    source: &dyn Source<T>,
    followed: &Weak<Followed<T>>,
    says_nothing: fn(&T) -> bool,
    said: &mut bool,
) -> Result<(), Ended> {
    let mut stream = source.open().await?;
    let mut doubted: Option<T> = None;
    loop {
        let value = match doubted.take() {
            None => stream.next().await?,
            Some(nothing) => match tokio::time::timeout(DOUBT, stream.next()).await {
                Ok(value) => value?,
                Err(_) => {
                    if let Some(followed) = followed.upgrade() {
                        followed.known.set_if_new(Known::Said(nothing));
                    }
                    continue;
                }
            },
        };
        let Some(followed) = followed.upgrade() else {
            return Ok(());
        };
        let had = match &*followed.known.get() {
            Known::Said(before) => !says_nothing(before),
            Known::Nothing | Known::Refused(_) => false,
        };
        match !*said && had && says_nothing(&value) {
            true => doubted = Some(value),
            false => _ = followed.known.set_if_new(Known::Said(value)),
        }
        *said = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_each_time_up_to_the_limit() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(30));
        for (failures, least, longest) in [
            (0, 0.5, 1.0),
            (1, 1.0, 2.0),
            (5, 15.0, 30.0),
            (u32::MAX, 15.0, 30.0),
        ] {
            let wait = backoff(first, most, failures).as_secs_f64();
            assert!((least..=longest).contains(&wait), "{failures}: {wait}");
        }
    }
}
