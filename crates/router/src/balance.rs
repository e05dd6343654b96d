//! Which endpoint gets a request: two at random, the less loaded one (p2c), and its relatives.
//!
//! Load is what all workers have under way, each published by its worker in a cache line of its own; latency (peak
//! EWMA) likewise. A pick reads the candidates' sums and writes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use naming::Endpoint;

use crate::accrual::{Health, Status};
use crate::settings::Balancer;

/// What all workers know of one endpoint of one bound name. It outlives updates that keep the address.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Shared {
    // What each request to it reads is one cache line.
    pub(crate) addr: SocketAddr,
    pub(crate) lanes: Lanes,
    pub(crate) health: Health,
}

/// What each worker has under way at an endpoint, and how long answers took it.
#[derive(Clone, Debug)]
pub(crate) struct Lanes(Arc<[Lane]>);

/// One worker's share, alone in its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    in_flight: AtomicU32,
    /// Peak EWMA of the latency in µs, as f64 bits, and when it was written, in µs.
    cost: AtomicU64,
    cost_at: AtomicU64,
}

impl Shared {
    pub(crate) fn new(addr: SocketAddr, workers: usize, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            addr,
            lanes: Lanes((0..workers).map(|_| Lane::default()).collect()),
            health: Health::new(now),
        })
    }
}

impl Lanes {
    /// Requests under way, over all workers.
    pub(crate) fn load(&self) -> u32 {
        self.0
            .iter()
            .map(|lane| lane.in_flight.load(Ordering::Relaxed))
            .sum()
    }

    /// One more under way on `worker`; only that worker's thread calls this.
    pub(crate) fn enter(&self, worker: usize) {
        let cell = &self.0[worker].in_flight;
        cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// One less under way on `worker`.
    pub(crate) fn leave(&self, worker: usize) {
        let cell = &self.0[worker].in_flight;
        cell.store(
            cell.load(Ordering::Relaxed).saturating_sub(1),
            Ordering::Relaxed,
        );
    }

    /// Takes in a latency; a rise counts at once, a fall decays.
    pub(crate) fn observe(&self, worker: usize, latency: Duration, at_us: u64, decay: Duration) {
        let lane = &self.0[worker];
        let sample = latency.as_secs_f64() * 1e6;
        let old = lane.decayed(at_us, decay);
        let new = if sample > old {
            sample
        } else {
            old + (sample - old) * lane.share(at_us, decay)
        };
        lane.cost.store(new.to_bits(), Ordering::Relaxed);
        lane.cost_at.store(at_us.max(1), Ordering::Relaxed);
    }

    /// Peak EWMA latency in µs, the worst of the workers that measured one lately.
    fn latency(&self, at_us: u64, decay: Duration) -> f64 {
        self.0
            .iter()
            .map(|lane| lane.decayed(at_us, decay))
            .fold(0.0, f64::max)
    }
}

impl Lane {
    /// How much of the average a new sample is, after the time that passed.
    fn share(&self, at_us: u64, decay: Duration) -> f64 {
        let passed = at_us.saturating_sub(self.cost_at.load(Ordering::Relaxed)) as f64;
        1.0 - (-passed / (decay.as_secs_f64() * 1e6).max(1.0)).exp()
    }

    /// The average as it is now; without requests it sinks towards 0.
    fn decayed(&self, at_us: u64, decay: Duration) -> f64 {
        if self.cost_at.load(Ordering::Relaxed) == 0 {
            return 0.0;
        }
        f64::from_bits(self.cost.load(Ordering::Relaxed)) * (1.0 - self.share(at_us, decay))
    }
}

/// What the picker needs of a worker's view of an endpoint.
pub(crate) trait Candidate {
    fn shared(&self) -> &Shared;

    /// Those of [`shared`](Self::shared): of all it may pick, that is all it looks at.
    fn lanes(&self) -> &Lanes {
        &self.shared().lanes
    }
}

/// A worker's picker for one bound name.
#[derive(Debug)]
pub(crate) struct Picker {
    kind: Balancer,
    rng: fastrand::Rng,
    /// The same on all workers of a router, and another one on each router: which endpoints an aperture begins with.
    order: u64,
    /// Endpoints of one weight each, as Finagle's TrafficDistributor: a class is drawn by the weight of all its members,
    /// and one of them by the balancer. Empty when all weigh the same, as nearly always: `alone` is their class then.
    classes: Vec<Class>,
    alone: Class,
    effort_exhausted: bool,
}

/// Endpoints of the same weight, and what their balancer remembers.
#[derive(Debug)]
struct Class {
    /// Their places in the list; `None`: all, in its order.
    members: Option<Box<[usize]>>,
    /// The weights of this class and all before it.
    sum: f64,
    /// Of roundRobin.
    next: usize,
    aperture: Aperture,
}

/// How many of a class's members are in use, and what that follows.
#[derive(Clone, Copy, Debug)]
struct Aperture {
    width: f64,
    smooth: f64,
    smooth_at: Instant,
}

/// Candidates that are drawn before one that is ejected is taken all the same, as Finagle's `maxEffort`.
const MAX_EFFORT: usize = 5;
/// What an endpoint costs that has not answered yet: more than any other one.
const UNKNOWN: f64 = 1e15;

impl Picker {
    /// `seed` is for this picker's dice, `order` the same for all pickers of a bound name in this process.
    pub(crate) fn new(kind: Balancer, seed: u64, order: u64, now: Instant) -> Self {
        Self {
            kind,
            rng: fastrand::Rng::with_seed(seed),
            order,
            classes: Vec::new(),
            alone: Class {
                members: None,
                sum: 1.0,
                next: seed as usize,
                aperture: Aperture {
                    width: 1.0,
                    smooth: 0.0,
                    smooth_at: now,
                },
            },
            effort_exhausted: false,
        }
    }

    /// Whether the last pick drew ejected endpoints only, [`MAX_EFFORT`] times: Finagle's `max_effort_exhausted`.
    pub(crate) fn is_effort_exhausted(&self) -> bool {
        self.effort_exhausted
    }

    /// The endpoints changed.
    pub(crate) fn update(&mut self, endpoints: &[Endpoint]) {
        let old = self.classes.first().unwrap_or(&self.alone);
        let (next, aperture) = (old.next, old.aperture);
        let by_weight = weights(endpoints);
        let mut sum = 0.0;
        self.classes = by_weight
            .iter()
            .map(|weight| {
                let is_in =
                    |at: &usize| weight.is_none_or(|weight| endpoints[*at].weight == weight);
                let mut members: Vec<usize> = (0..endpoints.len()).filter(is_in).collect();
                sum += weight.unwrap_or(1.0) * members.len() as f64;
                let ordered = matches!(self.kind, Balancer::Aperture { .. });
                if ordered {
                    members.sort_by_key(|&at| mixed(self.order, endpoints[at].addr));
                }
                let members = (ordered || weight.is_some()).then(|| members.into());
                Class {
                    members,
                    sum,
                    next,
                    aperture,
                }
            })
            .collect();
        if self.classes.len() == 1 {
            self.alone = self.classes.swap_remove(0);
        }
    }

    /// The index of an endpoint for the next request; `None` only when there is none. Ejected endpoints are passed
    /// over while others are there; when all are ejected one is picked all the same, as Finagle does. `avoid` is the
    /// endpoint that has just failed this request.
    pub(crate) fn pick<C: Candidate>(
        &mut self,
        among: &[C],
        avoid: Option<SocketAddr>,
        now: Instant,
        at_us: u64,
    ) -> Option<usize> {
        let open = |index: usize| among[index].shared().health.status(now) == Status::Open;
        self.effort_exhausted = false;
        match among {
            [] => None,
            [_] => {
                self.effort_exhausted = !open(0);
                Some(0)
            }
            _ => {
                let usable =
                    |index: usize| open(index) && Some(among[index].shared().addr) != avoid;
                let (mut last, mut none_open) = (0, true);
                for _ in 0..MAX_EFFORT {
                    last = self.draw(among, now, at_us);
                    if usable(last) {
                        return Some(last);
                    }
                    none_open &= !open(last);
                }
                self.effort_exhausted = none_open;
                let start = self.rng.usize(..among.len());
                let open = (0..among.len())
                    .map(|n| (start + n) % among.len())
                    .find(|&index| usable(index));
                Some(open.unwrap_or(last))
            }
        }
    }

    fn draw<C: Candidate>(&mut self, among: &[C], now: Instant, at_us: u64) -> usize {
        let class = match self.classes.len() {
            0 => &mut self.alone,
            classes => {
                let all = self.classes[classes - 1].sum;
                let at = self.rng.f64() * all;
                let class = self.classes.partition_point(|class| class.sum <= at);
                &mut self.classes[class.min(classes - 1)]
            }
        };
        let Class {
            members,
            next,
            aperture,
            ..
        } = class;
        let members = members.as_deref();
        let count = members.map_or(among.len(), <[usize]>::len);
        // A list that has just become shorter comes with an update at once.
        let place = |n: usize| members.map_or(n, |members| members[n]).min(among.len() - 1);
        let load = |n: usize| f64::from(among[place(n)].lanes().load());
        let rng = &mut self.rng;
        let drawn = match self.kind {
            Balancer::P2c => better_of_two(rng, count, load),
            Balancer::Ewma { decay } => better_of_two(rng, count, |n| {
                let latency = among[place(n)].lanes().latency(at_us, decay);
                match latency < 1.0 && load(n) > 0.0 {
                    // Nothing is known of it, and it has been asked: its answer is waited for.
                    true => UNKNOWN + load(n),
                    false => (load(n) + 1.0) * latency.max(1.0),
                }
            }),
            Balancer::Heap => {
                let start = rng.usize(..count);
                (0..count)
                    .map(|n| (start + n) % count)
                    .min_by(|&a, &b| load(a).total_cmp(&load(b)))
                    .unwrap_or(0)
            }
            Balancer::RoundRobin => {
                *next = next.wrapping_add(1);
                *next % count
            }
            Balancer::Aperture {
                min,
                low,
                high,
                smooth,
            } => {
                let total = (0..count).map(load).sum::<f64>();
                let limits = (min.max(1), count.max(min.max(1)));
                aperture.adjust(total, (low, high), smooth, limits, now);
                better_of_two(rng, (aperture.width as usize).clamp(1, count), load)
            }
        };
        place(drawn)
    }
}

impl Aperture {
    /// Another request: wider by one when the smoothed load of an endpoint in it is high, narrower by one when it is low.
    fn adjust(
        &mut self,
        total: f64,
        (low, high): (f64, f64),
        smooth: Duration,
        (least, most): (usize, usize),
        now: Instant,
    ) {
        let passed = now.saturating_duration_since(self.smooth_at).as_secs_f64();
        let share = 1.0 - (-passed / smooth.as_secs_f64().max(0.001)).exp();
        self.smooth += (total + 1.0 - self.smooth) * share;
        self.smooth_at = now;
        match self.smooth / self.width {
            each if each > high => self.width += 1.0,
            each if each < low => self.width -= 1.0,
            _ => {}
        }
        self.width = self.width.clamp(least as f64, most as f64);
    }
}

/// The different weights there are, without those that get nothing; `None` alone: they are all the same.
fn weights(endpoints: &[Endpoint]) -> Vec<Option<f64>> {
    let mut all: Vec<f64> = endpoints.iter().map(|one| one.weight).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    let some: Vec<_> = all.iter().copied().filter(|&weight| weight > 0.0).collect();
    match all.len() {
        0 | 1 => vec![None],
        _ if some.is_empty() => vec![None],
        _ => some.into_iter().map(Some).collect(),
    }
}

/// An order of addresses that is another one for each `order`, and keeps while others come and go.
fn mixed(order: u64, addr: SocketAddr) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(order).hash_one(addr)
}

fn better_of_two(rng: &mut fastrand::Rng, among: usize, cost: impl Fn(usize) -> f64) -> usize {
    let one = rng.usize(..among);
    if among == 1 {
        return one;
    }
    let other = rng.usize(..among - 1);
    let two = if other < one { other } else { other + 1 };
    if cost(two) < cost(one) { two } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Accrual, Backoff, EWMA_DECAY};

    const P2C: Balancer = Balancer::P2c;
    const EWMA: Balancer = Balancer::Ewma { decay: EWMA_DECAY };

    fn aperture(min: usize) -> Balancer {
        Balancer::Aperture {
            min,
            low: 0.5,
            high: 2.0,
            smooth: Duration::from_secs(5),
        }
    }

    struct One(Arc<Shared>, f64);

    impl Candidate for One {
        fn shared(&self) -> &Shared {
            &self.0
        }
    }

    fn some(weights: &[f64]) -> Vec<One> {
        let now = Instant::now();
        let one = |(n, &weight): (usize, &f64)| {
            One(
                Shared::new(([127, 0, 0, 1], n as u16 + 1).into(), 2, now),
                weight,
            )
        };
        weights.iter().enumerate().map(one).collect()
    }

    fn counts(picker: &mut Picker, among: &[One], n: usize) -> Vec<usize> {
        let now = Instant::now();
        let mut counts = vec![0; among.len()];
        for _ in 0..n {
            counts[picker.pick(among, None, now, 1).unwrap()] += 1;
        }
        counts
    }

    fn picker(kind: Balancer, among: &[One]) -> Picker {
        let mut picker = Picker::new(kind, 7, 7, Instant::now());
        picker.update(&endpoints(among));
        picker
    }

    fn endpoints(among: &[One]) -> Vec<Endpoint> {
        let endpoint = |one: &One| Endpoint {
            weight: one.1,
            ..Endpoint::new(one.0.addr)
        };
        among.iter().map(endpoint).collect()
    }

    #[test]
    fn without_load_each_gets_its_share() {
        let among = some(&[1.0; 4]);
        for n in counts(&mut picker(Balancer::P2c, &among), &among, 40_000) {
            assert!((9_000..11_000).contains(&n), "{n}");
        }
    }

    #[test]
    fn weights_split_the_traffic_whatever_the_balancer() {
        let among = some(&[1.0, 3.0, 1.0, 0.0]);
        for kind in [P2C, EWMA, Balancer::Heap, Balancer::RoundRobin, aperture(4)] {
            let got = counts(&mut picker(kind.clone(), &among), &among, 50_000);
            // 1 : 3 : 1, within five standard deviations of a draw.
            for (n, want) in got.iter().zip([10_000.0, 30_000.0, 10_000.0, 0.0]) {
                assert!(
                    (*n as f64 - want).abs() <= 550.0 * f64::from(want > 0.0),
                    "{kind:?} {got:?}"
                );
            }
        }
    }

    #[test]
    fn weights_that_are_all_zero_count_as_none() {
        let among = some(&[0.0, 0.0]);
        let got = counts(&mut picker(P2C, &among), &among, 1000);
        assert!(got.iter().all(|&n| n > 400), "{got:?}");
    }

    #[test]
    fn round_robin_takes_one_after_the_other() {
        let among = some(&[1.0; 5]);
        let got = counts(&mut picker(Balancer::RoundRobin, &among), &among, 1000);
        assert_eq!(got, [200; 5]);
    }

    #[test]
    fn p2c_keeps_even_the_worst_of_a_hundred_near_the_mean() {
        // Requests that never end: what one endpoint gets is its load.
        let among = some(&[1.0; 100]);
        let mut picker = picker(P2C, &among);
        let now = Instant::now();
        for _ in 0..10_000 {
            let at = picker.pick(&among, None, now, 1).unwrap();
            among[at].0.lanes.enter(at % 2);
        }
        let most = among.iter().map(|one| one.0.lanes.load()).max().unwrap();
        assert!(
            (100..=106).contains(&most),
            "random alone would be at 130: {most}"
        );
    }

    /// Requests one after the other, some at once, on endpoints that take so long; how many each got.
    fn simulated(kind: Balancer, takes_ms: &[u64], at_once: usize, requests: usize) -> Vec<usize> {
        let among = some(&vec![1.0; takes_ms.len()]);
        let mut picker = picker(kind, &among);
        let (start, mut clock_us) = (Instant::now(), 1_000u64);
        let mut counts = vec![0; among.len()];
        let mut under_way: Vec<(u64, u64, usize)> = Vec::new();
        for _ in 0..requests {
            if under_way.len() == at_once {
                under_way.sort_unstable();
                let (ends, began, at) = under_way.remove(0);
                clock_us = ends;
                among[at].0.lanes.leave(0);
                let took = Duration::from_micros(ends - began);
                among[at].0.lanes.observe(0, took, clock_us, EWMA_DECAY);
            }
            let now = start + Duration::from_micros(clock_us);
            let at = picker.pick(&among, None, now, clock_us).unwrap();
            among[at].0.lanes.enter(0);
            counts[at] += 1;
            under_way.push((clock_us + takes_ms[at] * 1000, clock_us, at));
        }
        counts
    }

    #[test]
    fn ewma_gives_the_faster_endpoints_more_than_p2c_does() {
        let takes = [10, 10, 200];
        let ewma = simulated(EWMA, &takes, 6, 30_000);
        let p2c = simulated(P2C, &takes, 6, 30_000);
        assert!(
            ewma[2] * 20 < 30_000,
            "the slow one gets less than 5 %: {ewma:?}"
        );
        assert!(ewma[2] * 2 < p2c[2], "{ewma:?} {p2c:?}");
        assert!(ewma[2] > 0, "and is asked now and then: {ewma:?}");
        let even = (ewma[0] as f64 / ewma[1] as f64 - 1.0).abs();
        assert!(even < 0.5, "{ewma:?}");
    }

    #[test]
    fn an_endpoint_that_is_new_to_ewma_gets_one_request_first() {
        let among = some(&[1.0; 2]);
        among[0]
            .0
            .lanes
            .observe(0, Duration::from_millis(5), 1_000, EWMA_DECAY);
        let mut picker = picker(EWMA, &among);
        assert_eq!(
            counts(&mut picker, &among, 10),
            [0, 10],
            "nothing is known of it"
        );
        among[1].0.lanes.enter(0);
        assert_eq!(
            counts(&mut picker, &among, 10),
            [10, 0],
            "until it has answered"
        );
    }

    #[test]
    fn an_aperture_grows_with_the_load_and_shrinks_without() {
        let among = some(&[1.0; 20]);
        let mut picker = picker(aperture(2), &among);
        let start = Instant::now();
        let mut used = |from_s: u64, load: u32| {
            among
                .iter()
                .for_each(|one| (0..load).for_each(|_| one.0.lanes.enter(0)));
            let mut used = std::collections::BTreeSet::new();
            for n in 0..2000u64 {
                let now = start + Duration::from_secs(from_s) + Duration::from_millis(n * 50);
                let at = picker.pick(&among, None, now, 1).unwrap();
                if n >= 1000 {
                    used.insert(at);
                }
            }
            among
                .iter()
                .for_each(|one| (0..load).for_each(|_| one.0.lanes.leave(0)));
            used.len()
        };
        assert_eq!(used(0, 0), 2, "as few as `minAperture`");
        assert_eq!(
            used(1000, 3),
            20,
            "60 under way are 3 each: more than `highLoad` for all of them"
        );
        assert_eq!(used(2000, 0), 2, "and few again");
    }

    #[test]
    fn apertures_of_two_routers_begin_with_other_endpoints_and_those_of_two_workers_with_the_same()
    {
        let among = some(&[1.0; 50]);
        let first = |seed, order| {
            let mut picker = Picker::new(aperture(1), seed, order, Instant::now());
            picker.update(&endpoints(&among));
            picker.pick(&among, None, Instant::now(), 1).unwrap()
        };
        assert_eq!(first(1, 7), first(2, 7));
        let routers: std::collections::BTreeSet<_> = (0..50).map(|order| first(1, order)).collect();
        assert!(routers.len() > 20, "{routers:?}");
    }

    #[test]
    fn an_ejected_endpoint_gets_one_request_when_its_time_is_over_and_its_share_once_that_succeeds()
    {
        let policy = Accrual::Consecutive {
            failures: 1,
            backoff: Backoff::Constant(Duration::from_secs(5)),
        };
        for kind in [P2C, EWMA, Balancer::Heap, Balancer::RoundRobin, aperture(3)] {
            let among = some(&[1.0; 3]);
            let start = Instant::now();
            let ejected = &among[1].0;
            ejected.health.failure(&policy, false, start);
            let mut picker = picker(kind.clone(), &among);
            let mut got = |after: Duration, answer: Option<bool>| {
                let now = start + after;
                let mut probes = 0;
                for _ in 0..300 {
                    let at = picker.pick(&among, None, now, 1).unwrap();
                    let health = &among[at].0.health;
                    let probe = health.begin(now);
                    probes += usize::from(at == 1);
                    match answer {
                        Some(true) => _ = health.success(&policy, probe, now),
                        Some(false) if at == 1 => _ = health.failure(&policy, probe, now),
                        _ => {}
                    }
                }
                probes
            };
            assert_eq!(got(Duration::from_secs(4), None), 0, "{kind:?}");
            assert_eq!(
                got(Duration::from_secs(6), Some(false)),
                1,
                "one probe, {kind:?}"
            );
            assert_eq!(got(Duration::from_secs(7), None), 0, "out again, {kind:?}");
            assert!(
                got(Duration::from_secs(12), Some(true)) > 50,
                "back, {kind:?}"
            );
        }
    }

    #[test]
    fn the_less_loaded_of_two_is_taken_whichever_worker_the_load_is_on() {
        let among = some(&[1.0, 1.0]);
        among[0].0.lanes.enter(1);
        assert_eq!(
            counts(&mut picker(Balancer::P2c, &among), &among, 100),
            [0, 100]
        );
        among[0].0.lanes.leave(1);
        among[1].0.lanes.enter(0);
        assert_eq!(
            counts(&mut picker(Balancer::Heap, &among), &among, 100),
            [100, 0]
        );
    }

    #[test]
    fn ewma_prefers_the_faster_and_forgets() {
        let among = some(&[1.0, 1.0]);
        among[0]
            .0
            .lanes
            .observe(0, Duration::from_millis(100), 1_000, EWMA_DECAY);
        among[1]
            .0
            .lanes
            .observe(0, Duration::from_millis(1), 1_000, EWMA_DECAY);
        let mut picker = picker(Balancer::Ewma { decay: EWMA_DECAY }, &among);
        assert_eq!(counts(&mut picker, &among, 100), [0, 100]);
        assert!(among[0].0.lanes.latency(200_000_000, EWMA_DECAY) < 1.0);
    }

    #[test]
    fn an_ejected_endpoint_is_passed_over_until_all_are_ejected() {
        let policy = Accrual::Consecutive {
            failures: 1,
            backoff: Backoff::Constant(Duration::from_secs(60)),
        };
        let among = some(&[1.0; 3]);
        let now = Instant::now();
        among[1].0.health.failure(&policy, false, now);
        let mut picker = picker(Balancer::P2c, &among);
        assert_eq!(counts(&mut picker, &among, 300)[1], 0);
        for one in &among {
            one.0.health.failure(&policy, false, now);
        }
        assert_eq!(counts(&mut picker, &among, 300).iter().sum::<usize>(), 300);
    }

    #[test]
    fn the_endpoint_that_just_failed_is_avoided() {
        let among = some(&[1.0; 2]);
        let mut picker = picker(Balancer::P2c, &among);
        for _ in 0..100 {
            let avoid = Some(among[0].0.addr);
            assert_eq!(picker.pick(&among, avoid, Instant::now(), 1), Some(1));
        }
    }

    #[test]
    fn the_effort_is_exhausted_when_all_that_is_drawn_is_ejected() {
        let policy = Accrual::Consecutive {
            failures: 1,
            backoff: Backoff::Constant(Duration::from_secs(5)),
        };
        let now = Instant::now();
        for size in [1, 2, 20] {
            let among = some(&vec![1.0; size]);
            let mut picker = picker(P2C, &among);
            picker.pick(&among, None, now, 1);
            assert!(!picker.is_effort_exhausted(), "{size} open");
            for one in &among {
                one.0.health.failure(&policy, false, now);
            }
            picker.pick(&among, None, now, 1);
            assert!(picker.is_effort_exhausted(), "{size} ejected");
            let later = now + Duration::from_secs(6);
            picker.pick(&among, None, later, 1);
            assert!(!picker.is_effort_exhausted(), "{size} to be probed");
        }
        // What has just failed the request is passed over, and is open all the same.
        let among = some(&[1.0; 2]);
        among[1].0.lanes.enter(0);
        let avoid = Some(among[0].0.addr);
        let mut picker = picker(P2C, &among);
        assert_eq!(picker.pick(&among, avoid, now, 1), Some(1));
        assert!(!picker.is_effort_exhausted());
    }
}
