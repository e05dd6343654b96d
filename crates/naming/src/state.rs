//! Values that change: one writer, readers with snapshots, and a way to learn that what was read is old.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// One value with one writer. Readers take snapshots; who reads it into [`Reads`] is told when it changes.
///
/// Clones are handles of the same value. A change is never lost: it is seen by the snapshot or it signals.
pub struct Var<T> {
    value: Arc<ArcSwap<T>>,
    signal: Arc<Signal>,
}

/// Counts the changes of a [`Var`] and wakes who waits for the next one.
struct Signal {
    version: AtomicU64,
    changed: Arc<Notify>,
}

impl<T> Var<T> {
    /// A value to begin with.
    pub fn new(value: T) -> Self {
        Self {
            value: Arc::new(ArcSwap::from_pointee(value)),
            signal: Arc::new(Signal {
                version: AtomicU64::new(0),
                changed: Arc::new(Notify::new()),
            }),
        }
    }

    /// Puts a new value in place and tells the readers, also when it equals the old one: whether a change is worth
    /// telling is the writer's matter, see [`Var::set_if_new`].
    pub fn set(&self, value: T) {
        self.value.store(Arc::new(value));
        // Behind the store: who sees the old version and the new value looks once more for nothing; the other way
        // round a change would be lost.
        self.signal.version.fetch_add(1, Ordering::Release);
        self.signal.changed.notify_waiters();
    }

    /// Puts a value in place that differs from the present one; false when it is the same.
    pub fn set_if_new(&self, value: T) -> bool
    where
        T: PartialEq,
    {
        let differs = **self.value.load() != value;
        if differs {
            self.set(value);
        }
        differs
    }

    /// The present value.
    pub fn get(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// The present value; `reads` will tell when there is a newer one.
    pub fn read(&self, reads: &mut Reads) -> Arc<T> {
        // Before the value, see `set`.
        reads.note(&self.signal);
        self.value.load_full()
    }

    /// Whether [`Reads`] that are still held have read it; for a value without further handles, which would count, too.
    pub fn is_read(&self) -> bool {
        Arc::strong_count(&self.signal) > 1
    }

    /// How often the value was set.
    pub fn version(&self) -> u64 {
        self.signal.version.load(Ordering::Acquire)
    }
}

impl<T> Clone for Var<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            signal: self.signal.clone(),
        }
    }
}

impl<T: Default> Default for Var<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Var<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Var").field(&self.get()).finish()
    }
}

/// Which [`Var`]s were read while something was worked out, and in which version.
#[derive(Default)]
pub struct Reads {
    seen: SmallVec<[Seen; 4]>,
}

struct Seen {
    signal: Arc<Signal>,
    version: u64,
}

impl Reads {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn note(&mut self, signal: &Arc<Signal>) {
        // A value read twice counts with its first version: whoever used the older snapshot is to look again.
        if !self
            .seen
            .iter()
            .any(|seen| Arc::ptr_eq(&seen.signal, signal))
        {
            let version = signal.version.load(Ordering::Acquire);
            let signal = signal.clone();
            self.seen.push(Seen { signal, version });
        }
    }

    /// Whether a value that was read has changed since.
    pub fn stale(&self) -> bool {
        self.seen.iter().any(Seen::stale)
    }

    /// Whether nothing was read, so that nothing can change.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// Notes all that `other` notes, too.
    pub fn extend(&mut self, other: Self) {
        for seen in other.seen {
            match self
                .seen
                .iter_mut()
                .find(|own| Arc::ptr_eq(&own.signal, &seen.signal))
            {
                Some(own) => own.version = own.version.min(seen.version),
                None => self.seen.push(seen),
            }
        }
    }

    /// Resolves when one of the values that were read has a newer version: at once when it has one already, never when
    /// nothing was read. Cancel safe.
    pub async fn changed(&self) {
        loop {
            // Enlist first, look then: a change in between wakes us.
            let mut waiting: SmallVec<[Pin<Box<OwnedNotified>>; 4]> =
                self.seen.iter().map(Seen::enlist).collect();
            if self.stale() {
                return;
            }
            std::future::poll_fn(|cx| {
                match waiting
                    .iter_mut()
                    .any(|one| one.as_mut().poll(cx).is_ready())
                {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }
}

impl Seen {
    fn stale(&self) -> bool {
        self.signal.version.load(Ordering::Acquire) != self.version
    }

    fn enlist(&self) -> Pin<Box<OwnedNotified>> {
        let mut waiting = Box::pin(self.signal.changed.clone().notified_owned());
        waiting.as_mut().enable();
        waiting
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reads")
            .field("values", &self.seen.len())
            .finish()
    }
}
