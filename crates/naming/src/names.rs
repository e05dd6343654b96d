//! A router's names: what it has bound, kept current, within bounds.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dtab::{Dtab, Path};
use tokio::runtime::Handle;

use crate::{Delegation, Interpreter, Reads};

mod binding;
mod delegations;
mod followers;
mod nearby;
mod outcome;
#[cfg(test)]
mod tests;

pub use binding::Binding;
use binding::Question;
pub use delegations::Delegations;
use followers::Followers;
pub use outcome::{Cause, Leaf, LeafTarget, Outcome};

/// How often within the idle time unused bindings are looked for.
const SWEEPS: u32 = 8;
/// But not more often than this.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// A router's names: base dtab, interpreter and the shared cache of live bindings.
pub struct Names {
    interpreter: Arc<dyn Interpreter>,
    base: Dtab,
    limits: NamesLimits,
    control: Handle,
    followers: Followers,
    kept: Mutex<Kept>,
    delegations: Arc<Delegations>,
    oneshots: AtomicU64,
    evicted: AtomicU64,
    nearby: nearby::Nearby,
}

/// What [`Names::new`] needs.
pub struct NamesConfig {
    /// Who binds.
    pub interpreter: Arc<dyn Interpreter>,
    /// The router's own dtab.
    pub base: Dtab,
    /// How much is kept.
    pub limits: NamesLimits,
    /// Where bindings are kept current; its clock is needed, too.
    pub control: Handle,
}

/// How many bindings are kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct NamesLimits {
    /// Names that lead somewhere, as Linkerd's `bindingCache.paths`. When there are more, an unused one goes, and when
    /// all are in use, the binding is for one request.
    pub paths: usize,
    /// After how long without use a binding is given up, as Linkerd's `bindingCache.idleTtlSecs`.
    pub idle: Duration,
    /// Names that lead nowhere; the oldest goes when there are more.
    pub unknown: usize,
    /// Bytes of the dtabs that requests brought along, in all names that are kept. When there are more, unused ones go, and when
    /// all are in use, the binding is for one request.
    pub own_bytes: usize,
}

impl Default for NamesLimits {
    /// Linkerd 1's `bindingCache`: 1000 names, 600 s.
    fn default() -> Self {
        Self {
            paths: 1000,
            idle: Duration::from_secs(600),
            unknown: 1000,
            own_bytes: 4 << 20,
        }
    }
}

type Key = (Path, Dtab);

#[derive(Default)]
struct Kept {
    known: HashMap<Key, Entry>,
    unknown: HashMap<Key, Entry>,
    /// The unknown ones by age; also keys of some that have gone since.
    oldest: VecDeque<Key>,
}

struct Entry {
    binding: Arc<Binding>,
    /// Sweeps since it was used.
    idle: u32,
    /// Of the request's own dtab.
    bytes: usize,
}

impl Names {
    /// Names with nothing bound yet.
    pub fn new(config: NamesConfig) -> Arc<Self> {
        let NamesConfig {
            interpreter,
            base,
            limits,
            control,
        } = config;
        let names = Arc::new(Self {
            interpreter,
            base,
            limits,
            followers: Followers::on(&control),
            control,
            kept: Mutex::default(),
            delegations: Arc::default(),
            oneshots: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            nearby: nearby::Nearby::default(),
        });
        names.control.spawn(sweep(
            Arc::downgrade(&names),
            SWEEP_PERIOD.max(limits.idle / SWEEPS),
        ));
        names
    }

    /// The binding of `path` under the base dtab and a request's own: from the cache, or bound now. Never waits: see
    /// [`Binding::settled`].
    pub fn binding(&self, path: &Path, local: &Dtab) -> Arc<Binding> {
        let key = (path.clone(), local.clone());
        if let Some(binding) = self.kept().find(&key) {
            return binding;
        }
        let question = Question {
            interpreter: self.interpreter.clone(),
            base: self.base.clone(),
            local: local.clone(),
            path: path.clone(),
            counts: self.delegations.clone(),
        };
        // Outside the lock: other threads' names need not wait for this one.
        let binding = Binding::start(question, &self.followers);
        let mut kept = self.kept();
        if let Some(earlier) = kept.find(&key) {
            return earlier;
        }
        let entry = Entry {
            binding: binding.clone(),
            idle: 0,
            bytes: match local.is_empty() {
                true => 0,
                false => local.to_string().len(),
            },
        };
        let (gone, stored) = kept.insert(key, entry, &self.limits);
        drop(kept);
        self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
        self.oneshots
            .fetch_add(u64::from(!stored), Ordering::Relaxed);
        binding
    }

    /// The way of `path`, for people; none when the interpreter cannot show it. Asks what a request's binding asks.
    pub fn explain(&self, path: &Path, local: &Dtab) -> Option<Delegation> {
        self.interpreter
            .delegate(&self.base, local, path, &mut Reads::new())
    }

    /// The way of `path`, once all of it is known. May wait for ever: Linkerd gives it 2 s. Cancel safe.
    pub async fn explained(&self, path: &Path, local: &Dtab) -> Option<Delegation> {
        loop {
            let mut reads = Reads::new();
            let delegation = self
                .interpreter
                .delegate(&self.base, local, path, &mut reads)?;
            if delegation.pending().is_none() {
                return Some(delegation);
            }
            reads.changed().await;
        }
    }

    /// The names that are kept, with what they lead to.
    pub fn snapshot(&self) -> Vec<(Path, Dtab, Arc<Outcome>)> {
        let kept = self.kept();
        let entries = kept.known.iter().chain(&kept.unknown);
        entries
            .map(|((path, local), entry)| (path.clone(), local.clone(), entry.binding.current()))
            .collect()
    }

    /// What came of the names that were followed through the dtab so far.
    pub fn delegations(&self) -> &Arc<Delegations> {
        &self.delegations
    }

    /// How many bindings were for one request, as the cache was full of names in use.
    pub fn oneshots(&self) -> u64 {
        self.oneshots.load(Ordering::Relaxed)
    }

    /// How many bindings made room for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// How many bindings are kept that lead somewhere, and that lead nowhere.
    pub fn sizes(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.known.len(), kept.unknown.len())
    }

    /// The router's own dtab.
    pub const fn base(&self) -> &Dtab {
        &self.base
    }

    /// Who binds.
    pub fn interpreter(&self) -> &Arc<dyn Interpreter> {
        &self.interpreter
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in there is half done when somebody panics.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up what was not used for the idle time, until the names themselves are gone.
async fn sweep(names: Weak<Names>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(names) = names.upgrade() else {
            return;
        };
        let gone = names.kept().sweep();
        drop(gone);
    }
}

impl Kept {
    fn find(&mut self, key: &Key) -> Option<Arc<Binding>> {
        let entry = self.known.get(key).or_else(|| self.unknown.get(key))?;
        entry.binding.touch();
        Some(entry.binding.clone())
    }

    /// Puts the entry where it belongs. What made room for it, to be dropped outside of the lock, and whether it is
    /// kept at all.
    fn insert(&mut self, key: Key, entry: Entry, limits: &NamesLimits) -> (Vec<Entry>, bool) {
        let mut gone = Vec::new();
        if entry.bytes > 0 && !self.make_bytes(entry.bytes, limits.own_bytes, &mut gone) {
            return (gone, false);
        }
        if !entry.leads_nowhere() {
            if self.known.len() >= limits.paths {
                gone.extend(self.make_room());
            }
            let room = self.known.len() < limits.paths;
            if room {
                self.known.insert(key, entry);
            }
            return (gone, room);
        }
        while self.unknown.len() >= limits.unknown.max(1)
            && let Some(oldest) = self.oldest.pop_front()
        {
            gone.extend(self.unknown.remove(&oldest));
        }
        if limits.unknown > 0 {
            self.oldest.push_back(key.clone());
            self.unknown.insert(key, entry);
        }
        (gone, limits.unknown > 0)
    }

    /// Takes out names of requests' own dtabs that nobody holds, those first that were unused the longest, until there is room
    /// for `bytes` more; false when there is none.
    fn make_bytes(&mut self, bytes: usize, most: usize, gone: &mut Vec<Entry>) -> bool {
        let all = |kept: &Self| -> usize {
            let entries = kept.known.values().chain(kept.unknown.values());
            entries.map(|entry| entry.bytes).sum()
        };
        while all(self) + bytes > most {
            let entries = self.known.iter().chain(&self.unknown);
            let free = entries
                .filter(|(_, entry)| entry.bytes > 0 && Arc::strong_count(&entry.binding) == 1);
            let Some((key, _)) = free.max_by_key(|(_, entry)| entry.idle) else {
                return false;
            };
            let key = key.clone();
            let entry = self
                .known
                .remove(&key)
                .or_else(|| self.unknown.remove(&key));
            gone.extend(entry);
        }
        true
    }

    /// Takes out the one that was unused the longest, of those that nobody holds.
    fn make_room(&mut self) -> Option<Entry> {
        let free = self
            .known
            .iter()
            .filter(|(_, entry)| Arc::strong_count(&entry.binding) == 1);
        let (key, _) = free.max_by_key(|(_, entry)| entry.idle)?;
        let key = key.clone();
        self.known.remove(&key)
    }

    /// Ages all entries; what is too old, to be dropped outside of the lock.
    fn sweep(&mut self) -> Vec<Entry> {
        let (mut gone, mut found, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for (key, entry) in self
            .known
            .extract_if(|_, entry| entry.age() || entry.leads_nowhere())
        {
            match entry.is_old() {
                true => gone.push(entry),
                false => lost.push((key, entry)),
            }
        }
        for (key, entry) in self
            .unknown
            .extract_if(|_, entry| entry.age() || !entry.leads_nowhere())
        {
            match entry.is_old() {
                true => gone.push(entry),
                false => found.push((key, entry)),
            }
        }
        for (key, entry) in lost {
            self.oldest.push_back(key.clone());
            self.unknown.insert(key, entry);
        }
        self.known.extend(found);
        let Self {
            unknown, oldest, ..
        } = self;
        oldest.retain(|key| unknown.contains_key(key));
        gone
    }
}

impl Entry {
    /// Known to lead nowhere: what is not known yet may still come.
    fn leads_nowhere(&self) -> bool {
        match self.binding.current().cause() {
            None | Some(Cause::Pending { .. }) => false,
            // It exists: how many endpoints it has changes all the time.
            Some(Cause::AddrNeg | Cause::AddrEmpty | Cause::AddrFailed(_)) => false,
            Some(_) => true,
        }
    }

    /// One sweep older, or as new when it was used; true when it is too old now.
    fn age(&mut self) -> bool {
        self.idle = match self.binding.was_used() {
            true => 0,
            false => self.idle + 1,
        };
        self.is_old()
    }

    const fn is_old(&self) -> bool {
        self.idle > SWEEPS
    }
}
