//! `hostConnectionPool.maxSize` and `maxWaiters`: how many connections to an endpoint there may be, over all workers. Where
//! neither is configured nobody gets here.
//!
//! A connection has a place as long as it is open, idle ones too. When all places are taken, a connection that has done its
//! work goes to a request that waits on its worker, or is closed for one that waits on another; and where several workers
//! share the places, the last ones are not kept by connections that idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::ClientSettings;

/// The places for connections to one endpoint, of all workers.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicU32,
    most_waiting: u32,
    most: u32,
}

/// A connection's place, while it is open.
pub(crate) type Place = OwnedSemaphorePermit;

/// A request that waits for a place is counted.
pub(crate) struct Waiting<'a>(&'a Places);

/// Why a request gets no connection though its endpoint has not refused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// `maxWaiters`
    #[error(
        "all {most} connections are in use (hostConnectionPool.maxSize), and {waiting} requests wait for one already (maxWaiters)"
    )]
    Crowded {
        /// As configured.
        most: u32,
        /// As configured.
        waiting: u32,
    },
    /// It waited for too long.
    #[error(
        "all {most} connections are in use (hostConnectionPool.maxSize), and none became free in time"
    )]
    Late {
        /// As configured.
        most: u32,
    },
}

impl Places {
    /// `None` where there is no limit.
    pub(crate) fn new(settings: &ClientSettings) -> Option<Arc<Self>> {
        if settings.pool_max == u32::MAX {
            return None;
        }
        Some(Arc::new(Self {
            free: Arc::new(Semaphore::new(settings.pool_max as usize)),
            waiting: AtomicU32::new(0),
            most_waiting: settings.pool_waiters,
            most: settings.pool_max,
        }))
    }

    /// A place that is free now.
    pub(crate) fn take(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Begins to wait, if not too many do so already.
    pub(crate) fn wait(&self) -> Result<Waiting<'_>, NoPlace> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::Crowded {
                most: self.most,
                waiting: self.most_waiting,
            });
        }
        Ok(Waiting(self))
    }

    /// The next place that becomes free; first come, first served.
    pub(crate) async fn next(&self) -> Place {
        let free = Arc::clone(&self.free);
        free.acquire_owned().await.expect("it is never closed")
    }

    pub(crate) fn late(&self) -> NoPlace {
        NoPlace::Late { most: self.most }
    }

    /// Whether somebody waits, on whichever worker.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether all places are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ClientPart;

    fn settings(most: Option<u32>, waiting: Option<u32>) -> ClientSettings {
        let part = ClientPart {
            pool_max: most,
            pool_waiters: waiting,
            ..ClientPart::default()
        };
        part.alone()
    }

    #[test]
    fn without_a_limit_there_is_nothing() {
        assert!(Places::new(&settings(None, Some(1))).is_none());
    }

    #[tokio::test]
    async fn there_are_as_many_places_as_configured_and_as_many_may_wait() {
        let places = Places::new(&settings(Some(2), Some(1))).unwrap();
        let (one, _two) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none() && places.is_full());
        let waiting = places.wait().unwrap();
        assert!(places.is_waited_for());
        assert_eq!(
            places.wait().err(),
            Some(NoPlace::Crowded {
                most: 2,
                waiting: 1
            })
        );
        drop(one);
        let _three = places.next().await;
        drop(waiting);
        assert!(places.is_full() && !places.is_waited_for());
    }
}
