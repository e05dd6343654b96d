//! One name with its outcome, kept current.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use dtab::{Dtab, NameTree, Path};
use tokio::sync::Notify;

use super::delegations::Delegations;
use super::followers::{Follower, Followers};
use super::outcome::{Outcome, snapshot};
use crate::{Activity, Bound, Interpreter, Reads};

/// A name with its outcome, kept current as long as anyone holds it.
///
/// Once it leads somewhere, a failing or silent source does not change that: the last outcome stays.
///
/// In cache lines of its own: whoever uses the name looks at `version` each time, and would wait for what another thread
/// writes beside it.
#[repr(align(64))]
pub struct Binding {
    outcome: ArcSwap<Outcome>,
    version: AtomicU64,
    changed: Notify,
    used: AtomicBool,
    follower: OnceLock<Arc<Follower>>,
}

impl Binding {
    /// Binds now, and follows what it is made of.
    pub(super) fn start(question: Question, followers: &Followers) -> Arc<Self> {
        let mut answer = Answer::default();
        let outcome = answer
            .outcome(&question, None)
            .unwrap_or(Outcome::Bound(NameTree::Neg));
        let binding = Arc::new(Self {
            outcome: ArcSwap::from_pointee(outcome),
            version: AtomicU64::new(1),
            changed: Notify::new(),
            used: AtomicBool::new(true),
            follower: OnceLock::new(),
        });
        if answer.may_change() {
            let following = follow(Arc::downgrade(&binding), question, answer);
            if let Some(follower) = followers.follow(following) {
                // A new binding has no follower yet, so that this can't fail.
                _ = binding.follower.set(follower);
            }
        }
        binding
    }

    /// Grows when the outcome is another one; never 0. One atomic load.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The present outcome, at least as new as a [`Binding::version`] read before.
    pub fn current(&self) -> Arc<Outcome> {
        self.outcome.load_full()
    }

    /// The outcome, once it is known: waits as long as [`Outcome::is_pending`]. Cancel safe.
    pub async fn settled(&self) -> Arc<Outcome> {
        self.when(|own| Some(own.current()).filter(|outcome| !outcome.is_pending()))
            .await
    }

    /// The outcome, once it is another than at `version`. Cancel safe.
    pub async fn newer_than(&self, version: u64) -> Arc<Outcome> {
        self.when(|own| (own.version() != version).then(|| own.current()))
            .await
    }

    async fn when<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Enlist first, look then: a change in between wakes us.
            changed.as_mut().enable();
            if let Some(found) = look(self) {
                return found;
            }
            changed.await;
        }
    }

    /// Keeps the binding from being given up as idle.
    pub fn touch(&self) {
        // Many threads do this: only the first one writes.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was touched since this was last asked.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    fn publish(&self, outcome: Outcome) {
        self.outcome.store(Arc::new(outcome));
        self.version.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get() {
            follower.end();
        }
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, outcome) = (self.version(), self.current());
        f.debug_struct("Binding")
            .field("version", &version)
            .field("outcome", &outcome)
            .finish()
    }
}

/// Evaluates again whenever something changed that was read, until nobody holds the binding. A burst of changes is
/// one evaluation.
async fn follow(binding: Weak<Binding>, question: Question, mut answer: Answer) {
    while answer.may_change() {
        answer.changed().await;
        let Some(binding) = binding.upgrade() else {
            return;
        };
        if let Some(outcome) = answer.outcome(&question, Some(&binding.current())) {
            binding.publish(outcome);
        }
    }
}

/// What is to be bound.
pub(super) struct Question {
    pub(super) interpreter: Arc<dyn Interpreter>,
    pub(super) base: Dtab,
    pub(super) local: Dtab,
    pub(super) path: Path,
    pub(super) counts: Arc<Delegations>,
}

/// What was worked out, and from which values. The tree and its addresses are told apart, so that a changed endpoint
/// costs no lookups.
#[derive(Default)]
struct Answer {
    /// Held also for the address sets in it: a namer may give up what nobody holds.
    tree: Option<NameTree<Bound>>,
    names: Reads,
    addresses: Reads,
}

impl Answer {
    fn may_change(&self) -> bool {
        !(self.names.is_empty() && self.addresses.is_empty())
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.names.changed() => {}
            () = self.addresses.changed() => {}
        }
    }

    /// The outcome now; none when it is the one of `before`.
    fn outcome(&mut self, question: &Question, before: Option<&Outcome>) -> Option<Outcome> {
        if before.is_none() || self.names.stale() {
            let mut reads = Reads::new();
            let Question {
                interpreter,
                base,
                local,
                path,
                counts,
            } = question;
            let bound = interpreter.bind_request(base, local, path, &mut reads);
            counts.count(&bound);
            self.names = reads;
            match bound {
                Activity::Ok(tree) => self.tree = Some(tree),
                _ if self.leads_somewhere() => {}
                Activity::Pending(waiting_for) => {
                    return self.nothing(Outcome::Pending { waiting_for }, before);
                }
                Activity::Failed(error) => return self.nothing(Outcome::Failed(error), before),
            }
        }
        let tree = self.tree.as_ref()?;
        self.addresses.clear();
        let outcome = Outcome::Bound(snapshot(tree, before, &mut self.addresses));
        (before != Some(&outcome)).then_some(outcome)
    }

    fn nothing(&mut self, outcome: Outcome, before: Option<&Outcome>) -> Option<Outcome> {
        self.tree = None;
        self.addresses.clear();
        (before != Some(&outcome)).then_some(outcome)
    }

    fn leads_somewhere(&self) -> bool {
        let mut leaves = 0;
        if let Some(tree) = &self.tree {
            tree.for_each_leaf(&mut |_| leaves += 1);
        }
        leaves > 0
    }
}
