//! What keeps names current: a future for each, polled where bindings are kept current, and gone at once with its name.
//!
//! A task of tokio's that nobody needs any more stays, with all that it holds, until its runtime comes to it. A thread that is
//! kept from running while others bind names that nobody knows would so gather without bounds what belongs to names long
//! forgotten.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where followers are polled once something woke them.
#[derive(Clone)]
pub(super) struct Followers(UnboundedSender<Arc<Follower>>);

impl Followers {
    /// Followers whose wake-ups are worked through by one task on `control`, one after the other. The task ends with the last of
    /// them.
    pub(super) fn on(control: &Handle) -> Self {
        let (due, woken) = unbounded_channel();
        control.spawn(work(woken));
        Self(due)
    }

    /// Polls `following` here for the first time, so that it waits for what it follows; later on `control`, each time it is
    /// woken. None when it is at its end already.
    pub(super) fn follow(
        &self,
        following: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Arc<Follower>> {
        let follower = Arc::new(Follower {
            state: Mutex::new(State::Waiting(Box::pin(following))),
            is_due: AtomicBool::new(false),
            due: self.clone(),
        });
        follower.poll();
        let at_end = matches!(*follower.state(), State::Ended);
        (!at_end).then_some(follower)
    }
}

/// Polls what was woken, until there is nobody left who could wake anything.
async fn work(mut woken: UnboundedReceiver<Arc<Follower>>) {
    // The channel lets other tasks in between after so many of them.
    while let Some(follower) = woken.recv().await {
        follower.is_due.store(false, Ordering::SeqCst);
        follower.poll();
    }
}

/// A future that follows a name, until it is at its end or [`Follower::end`] is called.
pub(super) struct Follower {
    state: Mutex<State>,
    /// It lies in the queue.
    is_due: AtomicBool,
    due: Followers,
}

enum State {
    Waiting(Following),
    /// Somebody polls it right now.
    Polled {
        /// It was due meanwhile.
        again: bool,
    },
    Ended,
}

impl Follower {
    /// Drops the future: now, or as soon as its poll that is under way returns. May be called from within that.
    pub(super) fn end(&self) {
        let before = mem::replace(&mut *self.state(), State::Ended);
        // Outside of the lock: what it holds may be the last of something.
        drop(before);
    }

    fn poll(self: &Arc<Self>) {
        let mut following = match &mut *self.state() {
            State::Ended => return,
            State::Polled { again } => {
                *again = true;
                return;
            }
            state => match mem::replace(state, State::Polled { again: false }) {
                State::Waiting(following) => following,
                _ => unreachable!("the others were looked at above"),
            },
        };
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| following.as_mut().poll(&mut context)));
        let still = match polled {
            Ok(Poll::Pending) => Some(following),
            Ok(Poll::Ready(())) => None,
            Err(_) => {
                tracing::error!(
                    "following a name failed (a defect of rutter, the line above says where): it is not kept current any more"
                );
                None
            }
        };
        let mut state = self.state();
        match (&*state, still) {
            (State::Polled { again }, Some(following)) => {
                let again = *again;
                *state = State::Waiting(following);
                drop(state);
                if again {
                    self.wake_by_ref();
                }
            }
            (_, left) => {
                *state = State::Ended;
                drop(state);
                drop(left);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in there is half done when somebody panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Follower {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_due.swap(true, Ordering::SeqCst) {
            // Nobody is there any more when the runtime is gone.
            _ = self.due.0.send(self.clone());
        }
    }
}
