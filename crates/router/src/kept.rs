//! What a worker keeps for the next that needs one, so that it need not be made anew: the one given back last comes first
//! ([`Kept`]). And what many have alike, which is there once ([`Alike`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::client::lock;

/// Things of a kind that nobody uses now; at most so many, and none that has not been needed for long.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    most: usize,
    things: RefCell<Vec<T>>,
    /// So many were there all the time since [`tidy`](Self::tidy).
    unused: Cell<usize>,
}

impl<T> Kept<T> {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            most,
            things: RefCell::new(Vec::new()),
            unused: Cell::new(0),
        }
    }

    pub(crate) fn take(&self) -> Option<T> {
        let mut things = self.things.borrow_mut();
        let taken = things.pop();
        if things.len() < self.unused.get() {
            self.unused.set(things.len());
        }
        taken
    }

    pub(crate) fn give(&self, thing: T) {
        let mut things = self.things.borrow_mut();
        if things.len() < self.most {
            things.push(thing);
        }
    }

    /// Drops what nobody needed since the last time, and says whether there was any: after a burst of requests its memory goes
    /// back.
    pub(crate) fn tidy(&self) -> bool {
        let mut things = self.things.borrow_mut();
        let left = things.split_off(self.unused.get());
        let unused = std::mem::replace(&mut *things, left);
        things.shrink_to_fit();
        self.unused.set(things.len());
        let any = !unused.is_empty();
        // Dropping them may give something back to where they lay.
        drop((things, unused));
        any
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.things.borrow().len()
    }
}

/// What many names are configured with alike is there once, so that a request finds it in the cache whatever its name.
#[derive(Debug)]
pub(crate) struct Alike<T>(Mutex<VecDeque<Arc<T>>>);

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: PartialEq> Alike<T> {
    /// The one that is there already and is the same as `one`, among those that were new last.
    pub(crate) fn of(&self, one: T) -> Arc<T> {
        let mut all = lock(&self.0);
        if let Some(known) = all.iter().find(|known| ***known == one) {
            return Arc::clone(known);
        }
        let new = Arc::new(one);
        all.push_front(Arc::clone(&new));
        all.truncate(ALIKE);
        new
    }
}

/// Names with settings of their own are compared with so many.
const ALIKE: usize = 8;

/// The room that a list of this length is to have, when it has far more: after a burst its memory goes back.
pub(crate) fn less_room(length: usize, capacity: usize) -> Option<usize> {
    let room = ROOM.max(2 * length);
    (capacity > 2 * room).then_some(room)
}

/// So much is no matter.
const ROOM: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_there_once_and_what_differs_is_not_kept_without_end() {
        let alike = Alike::default();
        let one = alike.of("x".to_owned());
        assert!(Arc::ptr_eq(&one, &alike.of("x".to_owned())));
        let others: Vec<_> = (0..100).map(|n| alike.of(n.to_string())).collect();
        assert_eq!(*others[7], "7");
        assert_eq!(lock(&alike.0).len(), ALIKE);
        assert!(!Arc::ptr_eq(&one, &alike.of("x".to_owned())));
    }

    #[test]
    fn what_nobody_needs_is_dropped_and_the_rest_is_kept() {
        let kept = Kept::new(10);
        (0..12).for_each(|n| kept.give(n));
        assert_eq!(kept.len(), 10);
        assert!(!kept.tidy());
        assert_eq!(kept.len(), 10, "they have just come");
        let used = [kept.take(), kept.take(), kept.take()];
        assert_eq!(used, [Some(9), Some(8), Some(7)], "the last one first");
        used.into_iter().flatten().for_each(|n| kept.give(n));
        assert!(kept.tidy());
        assert_eq!(kept.len(), 3, "three were in use at once");
        kept.tidy();
        assert_eq!(kept.len(), 0);
        assert_eq!(kept.take(), None);
    }
}
