//! Deadlines of one worker's connections: a coarse clock on which arming costs a store, not a timer.
//!
//! A connection has one [`Timer`] for its whole life and moves its deadline with every request. The heap behind it holds
//! an entry at or before the deadline; when that comes up too early it is put back, so a busy connection touches the heap
//! about once a timeout, not once a request.
//!
//! What lasts longer than most, and is to be looked at then, is not worth a deadline: it [stands in a list](Timer::look_later) that
//! is gone through every now and then.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::kept::less_room;

/// Deadlines are met this late at the most.
const GRAIN: Duration = Duration::from_millis(2);
/// The heap is cleared of places that count no more when there are so many for each timer, and a few.
const STALE: usize = 4;
/// Not in the heap, not in the list.
const NOWHERE: u64 = u64::MAX;
/// How often the list is gone through while anything stands in it, in ms.
const ROUND: u64 = 50;
/// What is further away than this may come a second or two late.
const FAR: Duration = Duration::from_secs(60);

/// All the timers of one worker. [`Timers::drive`] must run beside them.
pub(crate) struct Timers {
    start: Instant,
    heap: RefCell<BinaryHeap<Reverse<Place>>>,
    /// Timers that there are; each has one place in the heap that counts, and perhaps others that do not any more.
    alive: Cell<usize>,
    /// When the driver will look again, in ms since `start`.
    next: Cell<u64>,
    earlier: Notify,
    /// Those that are to be looked at again when they have lasted for long; and some that are not any more.
    later: RefCell<Vec<Rc<Entry>>>,
    /// How often that was gone through.
    rounds: Cell<u64>,
    /// A coarse clock: seconds since `start`, as somebody told last.
    seconds: Cell<u64>,
}

struct Place {
    at: u64,
    entry: Rc<Entry>,
}

impl Place {
    /// Whether its timer still is, and has not been placed anew.
    fn counts(&self) -> bool {
        self.entry.placed.get() == self.at && Rc::strong_count(&self.entry) > 1
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Place {}
impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

struct Entry {
    /// In ms since the start; [`NOWHERE`] when disarmed.
    deadline: Cell<u64>,
    /// Where it stands in the heap.
    placed: Cell<u64>,
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// After which round it was put into the list; [`NOWHERE`] when it is not to be looked at any more.
    since: Cell<u64>,
    /// Whether it stands in the list.
    listed: Cell<bool>,
    /// It has lasted for long.
    is_long: Cell<bool>,
}

impl Entry {
    /// Wakes whoever waits.
    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A deadline that can be moved. Dropping it disarms it.
pub(crate) struct Timer {
    entry: Rc<Entry>,
    timers: Rc<Timers>,
}

impl Timers {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            heap: RefCell::default(),
            alive: Cell::new(0),
            next: Cell::new(NOWHERE),
            earlier: Notify::new(),
            later: RefCell::default(),
            rounds: Cell::new(0),
            seconds: Cell::new(0),
        })
    }

    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let entry = Entry {
            deadline: Cell::new(NOWHERE),
            placed: Cell::new(NOWHERE),
            fired: Cell::new(false),
            waker: RefCell::new(None),
            since: Cell::new(NOWHERE),
            listed: Cell::new(false),
            is_long: Cell::new(false),
        };
        self.alive.set(self.alive.get() + 1);
        Timer {
            entry: Rc::new(entry),
            timers: Rc::clone(self),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start)
            .as_millis()
            .try_into()
            .unwrap_or(NOWHERE - 1)
    }

    fn place(&self, entry: &Rc<Entry>, at: u64) {
        entry.placed.set(at);
        let mut heap = self.heap.borrow_mut();
        heap.push(Reverse(Place {
            at,
            entry: Rc::clone(entry),
        }));
        if heap.len() > 64 + STALE * self.alive.get() {
            // A connection that ends leaves its idle time behind: minutes, with many connections a second.
            heap.retain(|Reverse(place)| place.counts());
        }
        drop(heap);
        if at < self.next.get() {
            self.earlier.notify_one();
        }
    }

    /// Drops what connections that have ended left behind, if that is much of it. Every now and then.
    pub(crate) fn tidy(&self) {
        let mut heap = self.heap.borrow_mut();
        if heap.len() > 64 + 2 * self.alive.get() {
            heap.retain(|Reverse(place)| place.counts());
        }
        if let Some(room) = less_room(heap.len(), heap.capacity()) {
            heap.shrink_to(room);
        }
        let mut later = self.later.borrow_mut();
        if let Some(room) = less_room(later.len(), later.capacity()) {
            later.shrink_to(room);
        }
    }

    /// Has everybody look again who waits beside a timer that is armed.
    pub(crate) fn rouse(&self) {
        for Reverse(place) in self.heap.borrow().iter() {
            place.entry.wake();
        }
    }

    /// Sets the coarse clock, each second. What is [far away](Timer::arm_far) counts from there.
    pub(crate) fn tick(&self, now: Instant) {
        self.seconds.set(self.millis(now) / 1000);
    }

    /// Seconds since it began, by the coarse clock.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.get()
    }

    /// Goes through the list: what has stood there for a whole round is woken.
    fn round(&self) {
        let round = self.rounds.get() + 1;
        self.rounds.set(round);
        self.later.borrow_mut().retain(|entry| {
            let since = entry.since.get();
            if since != NOWHERE && since + 1 >= round {
                return true;
            }
            entry.listed.set(false);
            if since != NOWHERE {
                entry.since.set(NOWHERE);
                entry.is_long.set(true);
                entry.wake();
            }
            false
        });
    }

    /// Fires what is due and says when to look again, in ms since the start.
    fn turn(&self, now: u64) -> u64 {
        loop {
            let due = match self.heap.borrow_mut().peek_mut() {
                None => return NOWHERE,
                Some(top) if top.0.at > now => return top.0.at,
                Some(top) => std::collections::binary_heap::PeekMut::pop(top).0,
            };
            let entry = due.entry;
            if entry.placed.get() != due.at {
                continue; // it was placed anew, earlier
            }
            entry.placed.set(NOWHERE);
            let deadline = entry.deadline.get();
            if deadline <= now {
                entry.fired.set(true);
                entry.wake();
            } else if deadline != NOWHERE && Rc::strong_count(&entry) > 1 {
                self.place(&entry, deadline);
            }
        }
    }

    /// Fires timers, for ever.
    pub(crate) async fn drive(&self) {
        let mut round = NOWHERE;
        loop {
            let now = self.millis(Instant::now());
            if round <= now {
                self.round();
                round = NOWHERE;
            }
            if round == NOWHERE && !self.later.borrow().is_empty() {
                round = now + ROUND;
            }
            let next = self.turn(now).min(round);
            self.next.set(next);
            if next == NOWHERE {
                self.earlier.notified().await;
                continue;
            }
            let at = self.start + Duration::from_millis(next) + GRAIN;
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

impl Timer {
    /// Moves the deadline to `at`.
    pub(crate) fn arm(&self, at: Instant) {
        self.arm_at(self.timers.millis(at));
    }

    fn arm_at(&self, at: u64) {
        self.entry.fired.set(false);
        self.entry.deadline.set(at);
        if at < self.entry.placed.get() {
            self.timers.place(&self.entry, at);
        }
    }

    /// Moves the deadline to `after` from now.
    pub(crate) fn arm_in(&self, after: Duration) {
        self.arm(Instant::now() + after);
    }

    /// Moves the deadline to `after` from now. When that is minutes, it may come a second or two late, and no clock is read.
    pub(crate) fn arm_far(&self, after: Duration) {
        match after < FAR {
            true => self.arm_in(after),
            false => {
                let next = 1000 * (self.timers.seconds() + 1);
                self.arm_at(next + u64::try_from(after.as_millis()).unwrap_or(NOWHERE / 2));
            }
        }
    }

    /// From 50 to 100 ms from now it [has lasted for long](Self::is_long), and whoever polls it is woken, unless it was disarmed.
    pub(crate) fn look_later(&self) {
        let (entry, timers) = (&self.entry, &self.timers);
        entry.is_long.set(false);
        entry.since.set(timers.rounds.get());
        if entry.listed.replace(true) {
            return;
        }
        let mut later = timers.later.borrow_mut();
        if later.is_empty() {
            timers.earlier.notify_one();
        } else if later.len() > 64 + STALE * timers.alive.get() {
            // So that the memory of those that are gone is used again while it is in the cache.
            later.retain(|entry| entry.since.get() != NOWHERE || !entry.listed.take());
        }
        later.push(Rc::clone(entry));
    }

    /// Whether it has lasted for long.
    pub(crate) fn is_long(&self) -> bool {
        self.entry.is_long.get()
    }

    /// Never fires until armed again, and is not looked at.
    pub(crate) fn disarm(&self) {
        self.entry.fired.set(false);
        self.entry.deadline.set(NOWHERE);
        self.entry.since.set(NOWHERE);
        self.entry.is_long.set(false);
    }

    /// Ready once the deadline has passed; stays so until armed anew.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.entry.fired.get() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        match &*waker {
            Some(old) if old.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for the deadline. Cancel safe.
    pub(crate) async fn expired(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.entry.deadline.set(NOWHERE);
        self.entry.since.set(NOWHERE);
        self.entry.waker.borrow_mut().take();
        self.timers.alive.set(self.timers.alive.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    async fn with_driver<F: Future>(timers: &Rc<Timers>, f: F) -> F::Output {
        tokio::select! {
            out = f => out,
            () = timers.drive() => unreachable!("the driver never ends"),
        }
    }

    #[tokio::test]
    async fn fires_at_its_deadline_and_not_before() {
        let timers = Timers::new();
        let timer = timers.timer();
        let began = Instant::now();
        timer.arm_in(Duration::from_millis(30));
        with_driver(&timers, timer.expired()).await;
        assert!(began.elapsed() >= Duration::from_millis(29));
    }

    #[tokio::test]
    async fn a_deadline_that_was_moved_back_fires_once_at_the_later_time() {
        let timers = Timers::new();
        let timer = timers.timer();
        let began = Instant::now();
        timer.arm_in(Duration::from_millis(10));
        timer.arm_in(Duration::from_millis(60));
        with_driver(&timers, timer.expired()).await;
        assert!(began.elapsed() >= Duration::from_millis(59));
    }

    #[tokio::test]
    async fn a_deadline_moved_forward_while_the_driver_sleeps_is_met() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.arm_in(Duration::from_secs(3600));
        with_driver(&timers, async {
            tokio::task::yield_now().await;
            timer.arm_in(Duration::from_millis(5));
            timer.expired().await;
        })
        .await;
    }

    #[tokio::test]
    async fn what_lasts_for_long_is_looked_at() {
        let timers = Timers::new();
        let (long, short) = (timers.timer(), timers.timer());
        let began = Instant::now();
        for timer in [&long, &short] {
            timer.look_later();
        }
        short.disarm();
        let looked = poll_fn(|cx| match (long.is_long(), long.poll(cx)) {
            (true, _) => Poll::Ready(()),
            (false, polled) => polled,
        });
        with_driver(&timers, looked).await;
        assert!(began.elapsed() >= Duration::from_millis(ROUND - 1));
        assert!(!short.is_long() && timers.later.borrow().is_empty());
        long.disarm();
        assert!(!long.is_long());
    }

    #[test]
    fn the_list_has_each_timer_once_and_forgets_what_is_gone() {
        let timers = Timers::new();
        let timer = timers.timer();
        for _ in 0..1000 {
            timer.look_later();
            timer.disarm();
            timers.timer().look_later();
        }
        assert!(timers.later.borrow().len() <= 128);
        timer.look_later();
        timers.round();
        assert_eq!(
            timers.later.borrow().len(),
            1,
            "it has not been there for a round"
        );
        assert!(!timer.is_long());
        timers.round();
        assert!(timer.is_long() && timers.later.borrow().is_empty());
    }

    #[test]
    fn what_is_minutes_away_counts_from_the_next_second() {
        let timers = Timers::new();
        timers.tick(timers.start + Duration::from_secs(7));
        let timer = timers.timer();
        timer.arm_far(FAR);
        assert_eq!(timer.entry.deadline.get(), 68_000);
        timer.arm_far(Duration::MAX);
        assert!(timer.entry.deadline.get() < NOWHERE);
        timer.arm_far(Duration::from_secs(1));
        assert!(timer.entry.deadline.get() < 2000);
    }

    #[test]
    fn everybody_who_waits_is_roused() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Arc::clone(&count).into();
        let timers = Timers::new();
        let all = [timers.timer(), timers.timer()];
        for timer in &all {
            timer.arm_in(Duration::from_secs(600));
            timer.arm_in(Duration::from_secs(1));
            assert!(timer.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        timers.rouse();
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "each of them once");
        assert!(all.iter().all(|timer| !timer.entry.fired.get()));
    }

    #[test]
    fn timers_that_are_gone_leave_nothing_behind() {
        let timers = Timers::new();
        let kept: Vec<_> = (0..10).map(|_| timers.timer()).collect();
        for timer in &kept {
            timer.arm_in(Duration::from_secs(900));
        }
        for _ in 0..100_000 {
            // A connection's life: idle, then connecting, then closing.
            let timer = timers.timer();
            for after in [600, 10, 1] {
                timer.arm_in(Duration::from_secs(after));
            }
        }
        assert!(timers.heap.borrow().len() <= 128);
        for timer in &kept {
            let placed = timer.entry.placed.get();
            let heap = timers.heap.borrow();
            assert!(
                heap.iter()
                    .any(|Reverse(place)| place.at == placed
                        && Rc::ptr_eq(&place.entry, &timer.entry))
            );
        }
    }

    #[test]
    fn what_many_connections_at_once_left_behind_is_tidied_up() {
        let timers = Timers::new();
        let all: Vec<_> = (0..5000).map(|_| timers.timer()).collect();
        for timer in &all {
            timer.arm_in(Duration::from_secs(600));
        }
        timers.tidy();
        assert_eq!(timers.heap.borrow().len(), 5000, "all of them count");
        drop(all);
        let one = timers.timer();
        one.arm_in(Duration::from_secs(600));
        timers.tidy();
        let heap = timers.heap.borrow();
        assert_eq!(heap.len(), 1);
        assert!(heap.capacity() < 256, "{}", heap.capacity());
    }

    #[test]
    fn a_busy_connection_has_one_place_in_the_heap() {
        let timers = Timers::new();
        let timer = timers.timer();
        for n in 0..1000 {
            timer.arm(timers.start + Duration::from_millis(60_000 + n));
        }
        assert_eq!(timers.heap.borrow().len(), 1);
        assert_eq!(
            timers.turn(60_000),
            60_999,
            "too early: put back to where the deadline is now"
        );
        timer.disarm();
        assert_eq!(timers.turn(70_000), NOWHERE);
        assert!(!timer.entry.fired.get());
    }

    #[test]
    fn a_dropped_timer_leaves_the_heap_when_its_place_comes() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.arm(timers.start + Duration::from_millis(10));
        drop(timer);
        assert_eq!(timers.turn(20), NOWHERE);
        assert!(timers.heap.borrow().is_empty());
    }
}
