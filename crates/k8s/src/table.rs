//! What a watch has told so far: a pure table of objects that takes in events. It never does I/O, and a relist never
//! empties it: the new list is collected beside the old one and takes its place when it is whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::objects::{Key, Object};

/// How many deletions are remembered, so that an event that comes late doesn't bring an object back.
const TOMBSTONES: usize = 4096;

/// Which namespaces a list or watch covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// One.
    Namespace(Arc<str>),
}

impl Scope {
    /// Whether objects of `namespace` are within.
    #[must_use]
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(own) => **own == *namespace,
        }
    }

    /// The namespace to ask for; none for all.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Cluster => None,
            Self::Namespace(namespace) => Some(namespace),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.namespace().unwrap_or("*"))
    }
}

/// One step of a list and watch.
#[derive(Clone, Debug)]
pub enum Event<V> {
    /// A new list begins; what is held stays until it is whole.
    Init,
    /// One object of the new list.
    InitApply(Object<V>),
    /// The list is whole: what it doesn't have is gone.
    InitDone,
    /// An object was added or changed.
    Apply(Object<V>),
    /// An object was deleted, at this version.
    Delete(Key, u64),
}

/// An object that readers now see differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<V> {
    /// Which.
    pub key: Key,
    /// What was held before; none: it is new.
    pub before: Option<V>,
}

#[derive(Clone, Debug)]
struct Held<V> {
    version: u64,
    value: V,
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Table<V> {
    live: HashMap<Key, Held<V>>,
    relists: HashMap<Scope, HashMap<Key, Held<V>>>,
    gone: Tombstones,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            live: HashMap::new(),
            relists: HashMap::new(),
            gone: Tombstones::default(),
        }
    }
}

impl<V: Clone + PartialEq> Table<V> {
    /// Takes in one event of the watch over `scope`; the objects that readers now see differently.
    pub fn apply(&mut self, scope: &Scope, event: Event<V>) -> Vec<Change<V>> {
        match event {
            Event::Init => {
                self.relists.insert(scope.clone(), HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let list = self.relists.entry(scope.clone()).or_default();
                list.insert(
                    object.key,
                    Held {
                        version: object.version,
                        value: object.value,
                    },
                );
                Vec::new()
            }
            Event::InitDone => self.replace(scope),
            Event::Apply(object) => self.put(object).into_iter().collect(),
            Event::Delete(key, version) => self.remove(key, version).into_iter().collect(),
        }
    }

    /// The finished list takes the place of all that was held of its scope, whatever the versions say: after a
    /// restored backup they run backwards, and the list is what the API server has.
    fn replace(&mut self, scope: &Scope) -> Vec<Change<V>> {
        let Some(list) = self.relists.remove(scope) else {
            return Vec::new();
        };
        self.gone.forget(scope);
        let absent: Vec<Key> = self
            .live
            .keys()
            .filter(|key| scope.covers(&key.namespace) && !list.contains_key(key))
            .cloned()
            .collect();
        let mut changes = Vec::new();
        for key in absent {
            let before = self.live.remove(&key).map(|held| held.value);
            changes.push(Change { key, before });
        }
        for (key, new) in list {
            let same = self
                .live
                .get(&key)
                .is_some_and(|held| held.value == new.value);
            let before = self.live.insert(key.clone(), new).map(|held| held.value);
            if !same {
                changes.push(Change { key, before });
            }
        }
        changes
    }

    fn put(&mut self, object: Object<V>) -> Option<Change<V>> {
        let Object {
            key,
            version,
            value,
        } = object;
        if self
            .gone
            .at(&key)
            .is_some_and(|deleted| older(version, deleted))
        {
            return None;
        }
        if let Some(held) = self.live.get_mut(&key) {
            if older(version, held.version) {
                return None;
            }
            held.version = version;
            if held.value == value {
                return None;
            }
            let before = Some(std::mem::replace(&mut held.value, value));
            return Some(Change { key, before });
        }
        self.live.insert(key.clone(), Held { version, value });
        Some(Change { key, before: None })
    }

    fn remove(&mut self, key: Key, version: u64) -> Option<Change<V>> {
        if self
            .live
            .get(&key)
            .is_some_and(|held| older(version, held.version))
        {
            return None;
        }
        self.gone.note(&key, version);
        let before = Some(self.live.remove(&key)?.value);
        Some(Change { key, before })
    }

    /// What is held of `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.live.get(key).map(|held| &held.value)
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.live.iter().map(|(key, held)| (key, &held.value))
    }

    /// All objects with their versions, in no order.
    pub fn objects(&self) -> impl Iterator<Item = (&Key, u64, &V)> {
        self.live
            .iter()
            .map(|(key, held)| (key, held.version, &held.value))
    }

    /// How many objects of `scope` are held, and how many of these `list` does not have.
    #[must_use]
    pub fn missing_from(&self, scope: &Scope, list: &HashSet<&Key>) -> (usize, usize) {
        let held = self.live.keys().filter(|key| scope.covers(&key.namespace));
        held.fold((0, 0), |(held, missing), key| {
            (held + 1, missing + usize::from(!list.contains(key)))
        })
    }

    /// How many objects are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// How many objects differ from a list of names and versions that the API server gave at `at`, when all events
    /// up to then must have come: one that is held too old or not at all, or held although it is gone.
    #[must_use]
    pub fn differences(&self, scope: &Scope, list: &HashMap<Key, u64>, at: u64) -> Vec<Key> {
        let missed = list
            .iter()
            .filter(|(key, version)| match self.live.get(key) {
                Some(held) => older(held.version, **version),
                None => self
                    .gone
                    .at(key)
                    .is_none_or(|deleted| older(deleted, **version)),
            });
        let left_over = self.live.iter().filter(|(key, held)| {
            scope.covers(&key.namespace) && !list.contains_key(key) && !older(at, held.version)
        });
        missed
            .map(|(key, _)| key)
            .chain(left_over.map(|(key, _)| key))
            .cloned()
            .collect()
    }
}

/// Whether `a` is known to be before `b`; version 0 is unknown and before nothing.
fn older(a: u64, b: u64) -> bool {
    a != 0 && b != 0 && a < b
}

/// The last deletions, oldest forgotten first.
#[derive(Debug, Default)]
struct Tombstones {
    at: HashMap<Key, u64>,
    order: VecDeque<(Key, u64)>,
}

impl Tombstones {
    fn note(&mut self, key: &Key, version: u64) {
        let known = self.at.entry(key.clone()).or_insert(version);
        *known = version.max(*known);
        self.order.push_back((key.clone(), version));
        if self.order.len() > TOMBSTONES
            && let Some((key, version)) = self.order.pop_front()
            && self.at.get(&key) == Some(&version)
        {
            self.at.remove(&key);
        }
    }

    fn at(&self, key: &Key) -> Option<u64> {
        self.at.get(key).copied()
    }

    fn forget(&mut self, scope: &Scope) {
        self.at.retain(|key, _| !scope.covers(&key.namespace));
        self.order.retain(|(key, _)| !scope.covers(&key.namespace));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(name: &str, version: u64, value: u32) -> Object<u32> {
        Object {
            key: Key::new("a", name),
            version,
            value,
        }
    }

    fn held(table: &Table<u32>) -> Vec<(String, u32)> {
        let mut all: Vec<_> = table
            .iter()
            .map(|(key, value)| (key.name.to_string(), *value))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_relist_keeps_the_old_objects_until_it_is_whole() {
        let mut table = Table::default();
        table.apply(&Scope::Cluster, Event::Apply(object("x", 1, 10)));
        table.apply(&Scope::Cluster, Event::Apply(object("y", 2, 20)));
        assert!(table.apply(&Scope::Cluster, Event::Init).is_empty());
        assert!(
            table
                .apply(&Scope::Cluster, Event::InitApply(object("y", 3, 21)))
                .is_empty()
        );
        assert_eq!(held(&table), [("x".into(), 10), ("y".into(), 20)]);
        let changes = table.apply(&Scope::Cluster, Event::InitDone);
        assert_eq!(held(&table), [("y".into(), 21)]);
        assert_eq!(changes.len(), 2, "{changes:?}");
        // A list that was begun and given up changes nothing.
        table.apply(&Scope::Cluster, Event::Init);
        table.apply(&Scope::Cluster, Event::Init);
        table.apply(&Scope::Cluster, Event::InitApply(object("y", 3, 21)));
        assert!(table.apply(&Scope::Cluster, Event::InitDone).is_empty());
    }

    #[test]
    fn a_list_of_one_namespace_leaves_the_others_alone() {
        let mut table = Table::default();
        let other = Object {
            key: Key::new("b", "z"),
            version: 1,
            value: 5,
        };
        table.apply(&Scope::Cluster, Event::Apply(other));
        table.apply(&Scope::Cluster, Event::Apply(object("x", 1, 10)));
        let scope = Scope::Namespace("a".into());
        table.apply(&scope, Event::Init);
        table.apply(&scope, Event::InitDone);
        assert_eq!(held(&table), [("z".into(), 5)]);
    }

    #[test]
    fn a_list_wins_even_when_versions_run_backwards() {
        let mut table = Table::default();
        table.apply(&Scope::Cluster, Event::Apply(object("x", 900, 10)));
        table.apply(&Scope::Cluster, Event::Init);
        table.apply(&Scope::Cluster, Event::InitApply(object("x", 5, 11)));
        table.apply(&Scope::Cluster, Event::InitDone);
        assert_eq!(held(&table), [("x".into(), 11)]);
        table.apply(&Scope::Cluster, Event::Apply(object("x", 6, 12)));
        assert_eq!(held(&table), [("x".into(), 12)]);
    }

    #[test]
    fn objects_without_versions_are_taken_as_they_come() {
        let mut table = Table::default();
        table.apply(&Scope::Cluster, Event::Apply(object("x", 0, 1)));
        table.apply(&Scope::Cluster, Event::Apply(object("x", 0, 2)));
        table.apply(&Scope::Cluster, Event::Delete(Key::new("a", "x"), 0));
        assert!(table.is_empty());
        table.apply(&Scope::Cluster, Event::Apply(object("x", 0, 3)));
        assert_eq!(held(&table), [("x".into(), 3)]);
    }

    #[test]
    fn deletions_are_remembered_in_bounded_memory() {
        let mut table = Table::<u32>::default();
        for i in 0..10_000 {
            table.apply(
                &Scope::Cluster,
                Event::Delete(Key::new("a", &i.to_string()), i),
            );
        }
        assert_eq!(
            (table.gone.at.len(), table.gone.order.len()),
            (TOMBSTONES, TOMBSTONES)
        );
    }

    #[test]
    fn an_audit_finds_what_was_missed_and_only_that() {
        let mut table = Table::default();
        for (name, version) in [("same", 1), ("old", 2), ("left", 3), ("newer", 9)] {
            table.apply(&Scope::Cluster, Event::Apply(object(name, version, 0)));
        }
        table.apply(&Scope::Cluster, Event::Delete(Key::new("a", "deleted"), 8));
        let list = [("same", 1), ("old", 4), ("absent", 5), ("deleted", 5)];
        let list = list
            .map(|(name, version)| (Key::new("a", name), version))
            .into();
        let mut found = table.differences(&Scope::Cluster, &list, 7);
        found.sort();
        assert_eq!(
            found,
            ["absent", "left", "old"].map(|name| Key::new("a", name))
        );
        assert!(
            table
                .differences(&Scope::Namespace("b".into()), &HashMap::new(), 7)
                .is_empty()
        );
    }

    /// What really happened to a few objects: versions rise, each step changes or deletes one.
    fn history() -> impl Strategy<Value = Vec<Event<u32>>> {
        proptest::collection::vec((0..5u8, any::<bool>(), any::<u32>()), 1..40).prop_map(|steps| {
            let event = |(at, (name, delete, value)): (usize, (u8, bool, u32))| {
                let version = at as u64 + 1;
                match delete {
                    true => Event::Delete(Key::new("a", &name.to_string()), version),
                    false => Event::Apply(object(&name.to_string(), version, value)),
                }
            };
            steps.into_iter().enumerate().map(event).collect()
        })
    }

    fn final_state(history: &[Event<u32>]) -> Vec<(String, u32)> {
        let mut state = std::collections::BTreeMap::new();
        for event in history {
            match event {
                Event::Apply(object) => _ = state.insert(object.key.name.to_string(), object.value),
                Event::Delete(key, _) => _ = state.remove(&*key.name),
                _ => {}
            }
        }
        state.into_iter().collect()
    }

    proptest! {
        #[test]
        fn duplicates_and_reordering_end_in_the_true_state(
            history in history(),
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        ) {
            let mut told = history.clone();
            for (from, to) in noise {
                // Half of the noise repeats an event elsewhere, half swaps two.
                let (from, to) = (from.index(told.len()), to.index(told.len()));
                if from % 2 == 0 {
                    told.insert(to, told[from].clone());
                } else {
                    told.swap(from, to);
                }
            }
            let mut table = Table::default();
            for event in told {
                table.apply(&Scope::Cluster, event);
            }
            prop_assert_eq!(held(&table), final_state(&history));
        }

        #[test]
        fn a_list_in_the_middle_loses_nothing(history in history(), at in any::<prop::sample::Index>()) {
            let at = at.index(history.len());
            let mut table = Table::default();
            let mut changes = 0;
            for event in &history[..at] {
                changes += table.apply(&Scope::Cluster, event.clone()).len();
            }
            prop_assert!(changes <= at);
            table.apply(&Scope::Cluster, Event::Init);
            for event in &history[..at] {
                if let Event::Apply(object) = event
                    && final_state(&history[..at]).contains(&(object.key.name.to_string(), object.value))
                {
                    table.apply(&Scope::Cluster, Event::InitApply(object.clone()));
                }
            }
            table.apply(&Scope::Cluster, Event::InitDone);
            prop_assert_eq!(held(&table), final_state(&history[..at]));
            // The watch begins at the list, but may repeat what the list had.
            for event in &history[at.saturating_sub(3)..] {
                table.apply(&Scope::Cluster, event.clone());
            }
            prop_assert_eq!(held(&table), final_state(&history));
        }
    }
}
