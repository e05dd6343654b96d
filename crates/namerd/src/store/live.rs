//! What is in force, in memory, and those who watch it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dtab::Dtab;
use naming::{Reads, Var};

use super::{Namespace, Record, Stored};

/// The names of all namespaces, sorted; a handle on the newest state.
pub type Names = Var<Arc<BTreeSet<Namespace>>>;

/// What is known of a namespace.
#[derive(Clone, Debug)]
pub enum Observed {
    /// The engine has not heard from its storage yet: whoever knows something from before keeps it.
    Unknown(Arc<str>),
    /// There is no such namespace.
    Absent,
    /// This is in force.
    Present(Arc<Stored>),
}

/// A handle on the newest state of a namespace.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Var<Observed>>);

impl Watch {
    /// The present state; `reads` will tell of the next one.
    pub fn read(&self, reads: &mut Reads) -> Observed {
        self.0.read(reads).as_ref().clone()
    }
}

/// The current records of all namespaces. One engine writes, under a lock that is held for moments only.
#[derive(Debug, Default)]
pub(super) struct Live {
    names: Names,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stored: BTreeMap<Namespace, Arc<Stored>>,
    watched: HashMap<Namespace, Weak<Var<Observed>>>,
    /// Why what is not stored here may be there all the same.
    unheard: Option<Arc<str>>,
    /// With so many entries in `watched`, those that nobody watches any more are taken out.
    tidy_at: usize,
}

impl Live {
    /// What is there to begin with.
    pub(super) fn of(stored: BTreeMap<Namespace, Arc<Stored>>) -> Self {
        let names = Arc::new(stored.keys().cloned().collect());
        Self {
            names: Var::new(names),
            inner: Mutex::new(Inner {
                stored,
                ..Inner::default()
            }),
        }
    }

    /// Nothing is known yet, for this reason; what is not there is not absent until [`Live::heard`].
    pub(super) fn awaited(why: &str) -> Self {
        let live = Self::default();
        live.inner().unheard = Some(why.into());
        live
    }

    /// There is another reason for which nothing is known; without effect when all is known.
    pub(super) fn still_awaited(&self, why: &Arc<str>) {
        let mut inner = self.inner();
        if inner.unheard.is_some() {
            inner.unheard = Some(why.clone());
            inner.tell_unknown(&Observed::Unknown(why.clone()));
        }
    }

    /// From now on, what is not there is absent.
    pub(super) fn heard(&self) {
        let mut inner = self.inner();
        if inner.unheard.take().is_some() {
            inner.tell_unknown(&Observed::Absent);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names(&self) -> Names {
        self.names.clone()
    }

    pub(super) fn get(&self, namespace: &Namespace) -> Option<Arc<Stored>> {
        self.inner().stored.get(namespace).cloned()
    }

    /// Puts a record in force: a dtab, or a deletion.
    pub(super) fn take(
        &self,
        namespace: &Namespace,
        record: Record,
        dtab: Option<Dtab>,
    ) -> Option<Arc<Stored>> {
        let stored = dtab.map(|dtab| Arc::new(Stored { record, dtab }));
        let mut inner = self.inner();
        let before = match &stored {
            Some(stored) => inner.stored.insert(namespace.clone(), stored.clone()),
            None => inner.stored.remove(namespace),
        };
        if before.is_some() != stored.is_some() {
            self.names
                .set(Arc::new(inner.stored.keys().cloned().collect()));
        }
        if let Some(watched) = inner.watched.get(namespace).and_then(Weak::upgrade) {
            watched.set(observed(stored.clone()));
        }
        stored
    }

    pub(super) fn watch(&self, namespace: &Namespace) -> Watch {
        let mut inner = self.inner();
        if let Some(watched) = inner.watched.get(namespace).and_then(Weak::upgrade) {
            return Watch(watched);
        }
        if inner.watched.len() >= inner.tidy_at {
            inner
                .watched
                .retain(|_, watched| watched.strong_count() > 0);
            inner.tidy_at = 2 * inner.watched.len() + 64;
        }
        let state = match (inner.stored.get(namespace), &inner.unheard) {
            (None, Some(why)) => Observed::Unknown(why.clone()),
            (stored, _) => observed(stored.cloned()),
        };
        let watched = Arc::new(Var::new(state));
        inner
            .watched
            .insert(namespace.clone(), Arc::downgrade(&watched));
        Watch(watched)
    }
}

impl Inner {
    /// To all who watch what nothing is known of.
    fn tell_unknown(&self, state: &Observed) {
        let watched = self.watched.values().filter_map(Weak::upgrade);
        for watched in watched.filter(|one| matches!(*one.get(), Observed::Unknown(_))) {
            watched.set(state.clone());
        }
    }
}

fn observed(stored: Option<Arc<Stored>>) -> Observed {
    stored.map_or(Observed::Absent, Observed::Present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_watches_any_more_are_forgotten() {
        let live = Live::default();
        let kept = live.watch(&Namespace::new("kept").unwrap());
        for i in 0..10_000 {
            live.watch(&Namespace::new(&format!("n{i}")).unwrap());
        }
        assert!(live.inner().watched.len() < 200);
        assert!(matches!(kept.read(&mut Reads::new()), Observed::Absent));
        assert!(Arc::ptr_eq(
            &kept.0,
            &live.watch(&Namespace::new("kept").unwrap()).0
        ));
    }
}
