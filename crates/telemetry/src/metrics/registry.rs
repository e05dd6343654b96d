//! Who has metrics, and the once-a-minute summaries of stats.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use super::Scope;
use super::collect::{Collector, Item, Name, Source, Unit, Value, Wanted};
use crate::cells::Histo;
use crate::lock;

/// As Linkerd's `histogramSnapshotInterval`.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// So many services, and so many clients, of one router have labels of their own; further ones are added up under [`OTHER`].
const LABEL_LIMIT: usize = 2_000;

/// So many sources that came or went wait for the next look at the most; then whoever registers takes them in. Names that
/// clients make up come and go by the thousand a second, and nobody may look for a minute.
const NEWS: usize = 1_024;

/// The label value of services and clients beyond the limit.
pub(super) const OTHER: &str = "__other__";

/// How a [`Registry`] behaves.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// How often stats are summarised; Linkerd's minute.
    pub summary_interval: Duration,
    /// How many services, and how many clients, of a router have labels of their own.
    pub label_limit: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            summary_interval: SUMMARY_INTERVAL,
            label_limit: LABEL_LIMIT,
        }
    }
}

/// All metrics of a process; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    config: RegistryConfig,
    /// What came and went since the last look. Data threads touch nothing but this, for the time of one push.
    news: Mutex<Vec<News>>,
    next: AtomicU64,
    state: Mutex<State>,
}

enum News {
    Come(u64, Scope, Arc<dyn Source>),
    Gone(u64),
}

/// Keeps a source registered. When the last one of a scope is dropped the scope disappears from all pages; as long as others
/// report under it, what the dropped one had counted stays in the sums, so that no counter goes backwards.
#[derive(Debug)]
pub struct Registration {
    id: u64,
    registry: std::sync::Weak<Shared>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(shared) = self.registry.upgrade() {
            shared.tell(News::Gone(self.id));
        }
    }
}

#[derive(Default)]
struct State {
    scopes: BTreeMap<Scope, Place>,
    /// Where each source stands, and whether it was folded.
    of: HashMap<u64, (Scope, bool)>,
    /// The services and clients with labels of their own, by router and kind, with the number of scopes that have them.
    labels: HashMap<Scope, HashMap<Box<str>, usize>>,
    /// Sources that were folded, as they are beyond the limit of labels.
    folded: u64,
}

/// What is known about a scope.
#[derive(Default)]
struct Place {
    sources: Vec<(u64, Arc<dyn Source>)>,
    /// The last values of sources that have gone while others remain.
    gone: Vec<Item>,
    stats: Vec<Stat>,
}

/// A stat between two summaries.
struct Stat {
    name: Box<str>,
    unit: Unit,
    /// All values up to the last summary.
    upto: Histo,
    /// Those of the minute before it; none before the first.
    window: Option<Histo>,
}

/// The metrics of one scope at one moment.
pub(super) struct Reading {
    pub(super) scope: Scope,
    pub(super) items: Vec<Item>,
    /// Summaries of the last minute.
    pub(super) stats: Vec<(Box<str>, Unit, Histo)>,
}

impl Registry {
    /// An empty registry with Linkerd's habits.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry with others.
    pub fn with(config: RegistryConfig) -> Self {
        Self(Arc::new(Shared {
            config,
            ..Shared::default()
        }))
    }

    /// Reports `source` under `scope` for as long as the registration lives. Several sources may share a scope; they are added up.
    ///
    /// May be called on a data thread, as may dropping the registration: neither waits for a scrape.
    pub fn register(&self, scope: Scope, source: Arc<dyn Source>) -> Registration {
        let id = self.0.next.fetch_add(1, Relaxed);
        self.0.tell(News::Come(id, scope, source));
        Registration {
            id,
            registry: Arc::downgrade(&self.0),
        }
    }

    /// Summarises stats at every interval, forever. To be spawned once on the control runtime.
    pub async fn summarise_forever(self) {
        let interval = self.0.config.summary_interval.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.summarise();
        }
    }

    /// Ends the current minute of all stats: from now on pages show what came in it.
    pub fn summarise(&self) {
        let mut state = self.settled();
        let wanted = Wanted {
            stats: true,
            ..Wanted::default()
        };
        for place in state.scopes.values_mut() {
            let items = place.read(wanted);
            place.summarise(items);
        }
    }

    /// The number of sources beyond the limit of labels, which are added up as `__other__`.
    pub(super) fn folded(&self) -> u64 {
        lock(&self.0.state).folded
    }

    /// Reads every source.
    pub(super) fn read(&self, wanted: Wanted) -> Vec<Reading> {
        let state = self.settled();
        let read = |(scope, place): (&Scope, &Place)| Reading {
            scope: scope.clone(),
            items: place.read(wanted),
            stats: place.summaries(),
        };
        state.scopes.iter().map(read).collect()
    }

    /// The state with all news taken in.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0.state);
        self.0.take_in(&mut state);
        state
    }
}

impl Shared {
    /// Notes news. When many have gathered they are taken in at once, unless a scrape is under way: nobody waits for that.
    fn tell(&self, news: News) {
        let gathered = {
            let mut all = lock(&self.news);
            all.push(news);
            all.len()
        };
        if gathered < NEWS {
            return;
        }
        match self.state.try_lock() {
            Ok(mut state) => self.take_in(&mut state),
            Err(TryLockError::Poisoned(state)) => self.take_in(&mut state.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn take_in(&self, state: &mut State) {
        let news = std::mem::take(&mut *lock(&self.news));
        for news in news {
            match news {
                News::Come(id, scope, source) => {
                    state.come(id, scope, source, self.config.label_limit);
                }
                News::Gone(id) => state.gone(id),
            }
        }
    }
}

impl State {
    fn come(&mut self, id: u64, scope: Scope, source: Arc<dyn Source>, limit: usize) {
        let (scope, folded) = self.within_limit(scope, limit);
        self.folded += u64::from(folded);
        if !self.scopes.contains_key(&scope) {
            for (family, label) in labels(&scope) {
                *self
                    .labels
                    .entry(family)
                    .or_default()
                    .entry(label)
                    .or_default() += 1;
            }
        }
        self.of.insert(id, (scope.clone(), folded));
        let place = self.scopes.entry(scope).or_default();
        place.sources.push((id, source));
    }

    fn gone(&mut self, id: u64) {
        let Some((scope, folded)) = self.of.remove(&id) else {
            return;
        };
        self.folded -= u64::from(folded);
        let Some(place) = self.scopes.get_mut(&scope) else {
            return;
        };
        place.leave(id);
        if place.sources.is_empty() {
            self.scopes.remove(&scope);
            self.forget_labels(&scope);
        }
    }

    /// The scope itself, or with `__other__` for each service or client beyond the limit; whether that was necessary.
    fn within_limit(&self, scope: Scope, limit: usize) -> (Scope, bool) {
        let mut nodes = scope.nodes().to_vec();
        for at in label_places(&scope) {
            let known = self.labels.get(&family(&scope, at));
            let is_new = known.is_none_or(|known| !known.contains_key(&nodes[at]));
            if is_new && known.map_or(0, HashMap::len) >= limit {
                nodes[at] = OTHER.into();
            }
        }
        match nodes[..] == *scope.nodes() {
            true => (scope, false),
            false => (Scope(nodes.into()), true),
        }
    }

    /// Gives the places of a scope's labels back when it was the last to have them.
    fn forget_labels(&mut self, scope: &Scope) {
        for (family, label) in labels(scope) {
            let Some(known) = self.labels.get_mut(&family) else {
                continue;
            };
            match known.get_mut(&label) {
                Some(count) if *count > 1 => *count -= 1,
                _ => _ = known.remove(&label),
            }
        }
    }
}

/// The positions of a router's services and clients among a scope's nodes.
fn label_places(scope: &Scope) -> impl Iterator<Item = usize> {
    let nodes = scope.nodes();
    let below_router = nodes.first().is_some_and(|node| **node == *"rt");
    let is_kind = |node: &str| node == "service" || node == "client";
    (3..nodes.len()).filter(move |at| below_router && is_kind(&nodes[at - 1]))
}

/// The router and the kind of a label.
fn family(scope: &Scope, at: usize) -> Scope {
    let nodes = scope.nodes();
    Scope(Arc::from([
        nodes[0].clone(),
        nodes[1].clone(),
        nodes[at - 1].clone(),
    ]))
}

/// A scope's labels that count against the limit.
fn labels(scope: &Scope) -> impl Iterator<Item = (Scope, Box<str>)> {
    let own = label_places(scope).filter(|at| *scope.nodes()[*at] != *OTHER);
    own.map(|at| (family(scope, at), scope.nodes()[at].clone()))
}

impl Place {
    /// All sources added up, with those that have gone.
    fn read(&self, wanted: Wanted) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        for (_, source) in &self.sources {
            source.collect(&mut Collector::new(&mut items, wanted));
        }
        add_items(&mut items, &self.gone, wanted);
        items
    }

    /// A source leaves; its counts stay if it was not the last.
    fn leave(&mut self, id: u64) {
        let Some(at) = self.sources.iter().position(|(have, _)| *have == id) else {
            return;
        };
        let (_, source) = self.sources.swap_remove(at);
        if self.sources.is_empty() {
            return;
        }
        let mut last = Vec::new();
        source.collect(&mut Collector::new(&mut last, Wanted::ALL));
        last.retain(|item| !matches!(item.value, Value::Gauge(_)));
        add_items(&mut self.gone, &last, Wanted::ALL);
    }

    fn summarise(&mut self, items: Vec<Item>) {
        for item in items {
            let (Name::Linkerd(name), Value::Stat(unit, now)) = (item.name, item.value) else {
                continue;
            };
            match self.stats.iter_mut().find(|stat| stat.name == name) {
                Some(stat) => {
                    stat.window = Some(now.since(&stat.upto));
                    stat.upto = now;
                }
                None => self.stats.push(Stat {
                    name,
                    unit,
                    window: Some(now.clone()),
                    upto: now,
                }),
            }
        }
    }

    fn summaries(&self) -> Vec<(Box<str>, Unit, Histo)> {
        let known = self.stats.iter();
        let known = known.filter_map(|stat| Some((&stat.name, stat.unit, stat.window.as_ref()?)));
        known
            .map(|(name, unit, window)| (name.clone(), unit, window.clone()))
            .collect()
    }
}

/// Adds `more` to `items`, as far as wanted.
fn add_items(items: &mut Vec<Item>, more: &[Item], wanted: Wanted) {
    for item in more {
        let wanted = match (&item.name, &item.value) {
            (Name::Ours(..), _) => wanted.ours,
            (_, Value::Stat(..)) => wanted.stats,
            _ => wanted.linkerd,
        };
        if !wanted {
            continue;
        }
        match items.iter_mut().find(|have| have.name == item.name) {
            Some(have) => have.value.add(&item.value),
            None => items.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some64KiB([u8; 64 * 1024]);

    impl Source for Some64KiB {
        fn collect(&self, out: &mut Collector<'_>) {
            out.counter("requests", u64::from(self.0[0]));
        }
    }

    #[test]
    fn what_comes_and_goes_while_nobody_looks_is_not_kept() {
        let registry = Registry::new();
        let mut sources = Vec::new();
        for n in 0..10 * NEWS {
            let source = Arc::new(Some64KiB([1; 64 * 1024]));
            sources.push(Arc::downgrade(&source));
            drop(registry.register(Scope::service("out", &format!("/svc/{n}")), source));
        }
        assert!(lock(&registry.0.news).len() <= NEWS);
        let alive = sources.iter().filter(|one| one.strong_count() > 0).count();
        assert!(alive <= NEWS, "{alive} sources");
        assert!(registry.read(Wanted::ALL).is_empty());
    }

    #[test]
    fn a_look_that_takes_long_holds_up_nobody_and_nothing_is_lost() {
        let registry = Registry::new();
        let looking = lock(&registry.0.state);
        let kept: Vec<_> = (0..NEWS + 10)
            .map(|n| {
                let scope = Scope::service("out", &format!("/svc/{}", n % 100));
                registry.register(scope, Arc::new(Some64KiB([1; 64 * 1024])))
            })
            .collect();
        drop(looking);
        let values = registry.read(Wanted::ALL);
        assert_eq!(values.len(), 100);
        drop(kept);
        assert!(registry.read(Wanted::ALL).is_empty());
    }
}
