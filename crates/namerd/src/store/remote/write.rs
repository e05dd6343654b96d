//! A write: what is there is read, what comes of it decided, and put in its place if it is still there. One whose answer is lost
//! is looked for before it is tried again, so that it is done once.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use dtab::Dtab;
use tokio::time::{Instant, sleep};

use super::{Backend, Item, KEPT, KEPT_BYTES, Meta, Past, Read, Shared, TURNS, Trouble};
use crate::store::{Change, Namespace, Only, Origin, Refused, StoreError, Stored, decide};

/// How long a write is tried, and how long when the storage is known to be away.
const WRITES: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(2));
/// Between two tries: the first wait, which doubles, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// So many versions that others left too far back are looked for at a time.
const LEFT: usize = 64;

/// Whether a write without an answer was done.
enum Done {
    Yes(Option<Arc<Stored>>),
    No,
}

impl<B: Backend> Shared<B> {
    pub(super) async fn write(
        &self,
        namespace: &Namespace,
        change: Option<Change>,
        origin: Origin,
        only: &Only,
    ) -> Result<Option<Arc<Stored>>, StoreError> {
        self.fits(namespace)?;
        let turn = self.hasher.hash_one(namespace) as usize % TURNS;
        let _turn = self.turns[turn].lock().await;
        let until = self.until(WRITES);
        let mut wait = AGAIN.0;
        let mut attempt = Attempt {
            id: format!("{:016x}", fastrand::u64(..)).into(),
            number: None,
        };
        loop {
            let attempted = self.attempt(namespace, &change, &origin, only, &mut attempt);
            match self.asked(until, async { Ok(attempted.await) }).await {
                Ok(Ok(Done::Yes(stored))) => return Ok(stored),
                // Somebody else was first: it is decided anew what that means.
                Ok(Ok(Done::No)) => {}
                Ok(Err(StoreError::Unavailable(why))) if Instant::now() + wait >= until => {
                    return Err(attempt.unanswered(why));
                }
                Ok(Err(StoreError::Unavailable(why))) => {
                    tracing::debug!(%namespace, %why, "the storage is asked again");
                    sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    wait = (wait * 2).min(AGAIN.1);
                }
                Ok(Err(definite)) => return Err(definite),
                Err(late) => return Err(attempt.unanswered(late.to_string())),
            }
        }
    }

    /// One try: what is there, what comes of it, and the change if nobody else was first.
    async fn attempt(
        &self,
        namespace: &Namespace,
        change: &Option<Change>,
        origin: &Origin,
        only: &Only,
        attempt: &mut Attempt,
    ) -> Result<Done, StoreError> {
        let item = self.backend.read(namespace).await?;
        let now = match &item {
            Some(item) => Some(self.stored(namespace, item).await?),
            None => None,
        };
        if let Some(number) = attempt.number {
            let found = self.found(namespace, &attempt.id, number, item.as_ref(), now.as_ref());
            if let Done::Yes(stored) = found.await? {
                return Ok(Done::Yes(stored));
            }
        }
        let last = match &now {
            Some(now) => now.record.number,
            None => {
                let past = self.backend.archived(namespace, None, 1).await?;
                past.first().map_or(0, |past| past.number)
            }
        };
        let past = now.as_ref().map(Read::past);
        // One that cannot be read is in the way of nobody who replaces it.
        let in_force = now.map(|now| Stored {
            record: now.record,
            dtab: now.dtab.unwrap_or_default(),
        });
        let (mut record, dtab) = decide(
            namespace,
            in_force.as_ref(),
            last,
            change.clone(),
            origin.clone(),
            only,
        )?;
        if let Some(past) = &past {
            match self.backend.archive(namespace, past).await {
                // In JSON it has more bytes than it had; it must not be in the way of what replaces it.
                Err(Trouble::Refused(Refused::TooLarge, why)) => {
                    let version = past.number;
                    tracing::warn!(%namespace, version, why, "a version is too large for the history, and not in it");
                }
                archived => archived?,
            }
        }
        attempt.number = Some(record.number);
        let held = item.as_ref().map(|item| &item.held);
        let order = match (&record.text, held) {
            (Some(text), held) => {
                let meta = Meta::of(&record, &attempt.id);
                let written = self.backend.write(namespace, text, &meta, held).await?;
                let Some(place) = written else {
                    return Ok(Done::No);
                };
                record.tag = Some(place.version);
                place.order
            }
            (None, Some(held)) => {
                let end = Past::of(&record, Some(&attempt.id));
                let behind = Some(end.number + 1);
                let there = self.backend.archived(namespace, behind, 1).await?;
                let replaced = |past: &Past| past.number == end.number && past.dtab.is_some();
                if there.first().is_some_and(replaced) {
                    return Ok(Done::No);
                }
                // Should somebody be first in spite of that, the version that is has its number, and goes over it.
                self.backend.archive(namespace, &end).await?;
                let Some(order) = self.backend.delete(namespace, held).await? else {
                    return Ok(Done::No);
                };
                order
            }
            (None, None) => unreachable!("nothing is deleted that is not there"),
        };
        let size = past.and_then(|past| past.dtab).map_or(0, |text| text.len());
        self.forget_old(namespace, record.number, size).await;
        Ok(Done::Yes(self.take(namespace, record, dtab, order)))
    }

    /// Whether an earlier try of the same write was done after all.
    async fn found(
        &self,
        namespace: &Namespace,
        id: &Arc<str>,
        number: u64,
        item: Option<&Item<B::Held>>,
        now: Option<&Read>,
    ) -> Result<Done, StoreError> {
        if let (Some(item), Some(now)) = (item, now) {
            if now.id.as_ref() == Some(id) {
                let dtab = now.dtab.clone().ok();
                let stored = self.take(namespace, now.record.clone(), dtab, item.place.order);
                return Ok(Done::Yes(stored));
            }
            // Up to its number it cannot have been in force: the one that is there has it.
            if now.record.number <= number {
                return Ok(Done::No);
            }
        }
        let past = self
            .backend
            .archived(namespace, Some(number + 1), 1)
            .await?;
        Ok(match past.first() {
            Some(past) if past.number == number && past.id.as_ref() == Some(id) => {
                let dtab = past.dtab.as_deref().map(Dtab::read);
                let record = past.record();
                let stored = dtab
                    .and_then(Result::ok)
                    .map(|dtab| Stored { record, dtab });
                Done::Yes(stored.map(Arc::new))
            }
            _ => Done::No,
        })
    }

    /// Removes the versions that are too many, given how large the last one is: mostly one. What another replica or an
    /// earlier process may have left is looked for once.
    async fn forget_old(&self, namespace: &Namespace, number: u64, size: usize) {
        let last = number.saturating_sub(kept(size) + 1);
        if last == 0 {
            return;
        }
        if let Err(error) = self.forget_up_to(namespace, number, last).await {
            tracing::debug!(%namespace, version = last, %error, "an old version stays in the history");
            return;
        }
        let mut forgotten = self.forgotten();
        let known = forgotten.entry(namespace.clone()).or_default();
        *known = last.max(*known);
    }

    async fn forget_up_to(
        &self,
        namespace: &Namespace,
        number: u64,
        last: u64,
    ) -> Result<(), Trouble> {
        let first = number.saturating_sub(KEPT + 1).max(1);
        let next = self.forgotten().get(namespace).map_or(0, |known| known + 1);
        if next < first {
            // Who was killed between a write and this has left one.
            let left = self.backend.archived(namespace, Some(first), LEFT).await?;
            for past in left {
                self.backend.forget(namespace, past.number).await?;
            }
        }
        for old in first.max(next)..=last {
            self.backend.forget(namespace, old).await?;
        }
        Ok(())
    }

    fn forgotten(&self) -> MutexGuard<'_, HashMap<Namespace, u64>> {
        self.forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many versions of that size are kept.
fn kept(size: usize) -> u64 {
    (KEPT_BYTES / (size as u64).max(1)).clamp(1, KEPT)
}

/// A write that goes on until it is known what became of it.
struct Attempt {
    /// Stands in what is written.
    id: Arc<str>,
    /// The number it had when it was last tried; none before.
    number: Option<u64>,
}

impl Attempt {
    fn unanswered(&self, why: String) -> StoreError {
        StoreError::Unavailable(match self.number {
            Some(_) => {
                format!("{why}; the change may be in force or not: read before you write again")
            }
            None => format!("{why}; nothing was changed"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_large_versions_fewer_are_kept() {
        for (size, want) in [
            (0, KEPT),
            (80_000, KEPT),
            (400_000, 41),
            (1_400_000, 11),
            (usize::MAX, 1),
        ] {
            assert_eq!(kept(size), want, "{size}");
        }
    }
}
