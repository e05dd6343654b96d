//! "Did you mean", for the answers to requests: what it may cost is bounded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dtab::Path;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Names;
use crate::near;

/// One suggestion at a time, and a pause of this length after it: who asks for unknown names by the thousand gets none.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the names that the namers know are used before they are gathered again.
const FRESH: Duration = Duration::from_secs(10);

/// What suggestions are made from.
pub(super) struct Nearby {
    turn: Arc<Semaphore>,
    known: Mutex<Option<(Instant, Arc<[Path]>)>>,
}

impl Default for Nearby {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            known: Mutex::default(),
        }
    }
}

impl Names {
    /// A name one slip away from `path` that leads to endpoints now, under the router's own dtab. Looked for on the control
    /// runtime, for at most twenty askers a second: the others get none at once. Cancel safe.
    pub async fn near(self: &Arc<Self>, path: &Path) -> Option<Path> {
        let turn = self.nearby.turn.clone().try_acquire_owned().ok()?;
        let (names, path) = (Arc::clone(self), path.clone());
        let found = self.control.spawn(async move { names.nearest(&path) });
        self.control.spawn(async move {
            tokio::time::sleep(PAUSE).await;
            drop(turn);
        });
        found.await.ok().flatten()
    }

    /// The same at once and for everybody who asks. It may take as long as to gather all names that the namers know.
    pub fn nearest(&self, path: &Path) -> Option<Path> {
        near::suggest(&*self.interpreter, &self.base, path, &*self.known())
    }

    fn known(&self) -> Arc<[Path]> {
        let mut kept = self
            .nearby
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known)) = &*kept
            && at.elapsed() < FRESH
        {
            return known.clone();
        }
        let known: Arc<[Path]> = self.interpreter.known().into();
        *kept = Some((Instant::now(), known.clone()));
        known
    }
}
