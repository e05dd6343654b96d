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
pub(crate) struct Shared {
    pub(crate) addr: SocketAddr,
    pub(crate) health: Health,
    workers: Box<[Lane]>,
}

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
        let workers = (0..workers).map(|_| Lane::default()).collect();
        Arc::new(Self {
            addr,
            health: Health::new(now),
            workers,
        })
    }

    /// Requests under way, over all workers.
    pub(crate) fn load(&self) -> u32 {
        self.workers
            .iter()
            .map(|lane| lane.in_flight.load(Ordering::Relaxed))
            .sum()
    }

    /// One more under way on `worker`; only that worker's thread calls this.
    pub(crate) fn enter(&self, worker: usize) {
        let cell = &self.workers[worker].in_flight;
        cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// One less under way on `worker`.
    pub(crate) fn leave(&self, worker: usize) {
        let cell = &self.workers[worker].in_flight;
        cell.store(
            cell.load(Ordering::Relaxed).saturating_sub(1),
            Ordering::Relaxed,
        );
    }

    /// Takes in a latency; a rise counts at once, a fall decays.
    pub(crate) fn observe(&self, worker: usize, latency: Duration, at_us: u64, decay: Duration) {
        let lane = &self.workers[worker];
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
        self.workers
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
}

/// A worker's picker for one bound name.
#[derive(Debug)]
pub(crate) struct Picker {
    kind: Balancer,
    rng: fastrand::Rng,
    /// Sums of weights, only when they differ.
    weights: Option<Box<[f64]>>,
    next: usize,
    width: f64,
    smooth: f64,
    smooth_at: Instant,
}

/// Candidates that are drawn before one that is ejected is taken all the same, as Finagle's `maxEffort`.
const MAX_EFFORT: usize = 5;

impl Picker {
    pub(crate) fn new(kind: Balancer, seed: u64, now: Instant) -> Self {
        Self {
            kind,
            rng: fastrand::Rng::with_seed(seed),
            weights: None,
            next: seed as usize,
            width: 1.0,
            smooth: 0.0,
            smooth_at: now,
        }
    }

    /// The endpoints changed.
    pub(crate) fn update(&mut self, endpoints: &[Endpoint]) {
        let differ = endpoints
            .windows(2)
            .any(|two| two[0].weight != two[1].weight);
        let mut sum = 0.0;
        self.weights = differ.then(|| {
            endpoints
                .iter()
                .map(|endpoint| {
                    sum += endpoint.weight.max(0.0);
                    sum
                })
                .collect()
        });
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
        match among {
            [] => None,
            [_] => Some(0),
            _ => {
                let usable = |index: usize| {
                    let shared = among[index].shared();
                    shared.health.status(now) == Status::Open && Some(shared.addr) != avoid
                };
                let mut last = 0;
                for _ in 0..MAX_EFFORT {
                    last = self.draw(among, now, at_us);
                    if usable(last) {
                        return Some(last);
                    }
                }
                let start = self.rng.usize(..among.len());
                let open = (0..among.len())
                    .map(|n| (start + n) % among.len())
                    .find(|&index| usable(index));
                Some(open.unwrap_or(last))
            }
        }
    }

    fn draw<C: Candidate>(&mut self, among: &[C], now: Instant, at_us: u64) -> usize {
        let load = |index: usize| f64::from(among[index].shared().load());
        match self.kind.clone() {
            Balancer::P2c => self.better_of_two(among.len(), load),
            Balancer::Ewma { decay } => self.better_of_two(among.len(), |index| {
                (load(index) + 1.0) * among[index].shared().latency(at_us, decay).max(1.0)
            }),
            Balancer::Heap => {
                let start = self.rng.usize(..among.len());
                (0..among.len())
                    .map(|n| (start + n) % among.len())
                    .min_by(|&a, &b| load(a).total_cmp(&load(b)))
                    .unwrap_or(0)
            }
            Balancer::RoundRobin => {
                self.next = self.next.wrapping_add(1);
                self.next % among.len()
            }
            Balancer::Aperture {
                min,
                low,
                high,
                smooth,
            } => {
                self.adjust(among, min, low, high, smooth, now);
                self.better_of_two((self.width as usize).clamp(1, among.len()), load)
            }
        }
    }

    /// Widens or narrows the aperture by the smoothed load of an endpoint in it.
    fn adjust<C: Candidate>(
        &mut self,
        among: &[C],
        min: usize,
        low: f64,
        high: f64,
        smooth: Duration,
        now: Instant,
    ) {
        let total: u32 = among.iter().map(|one| one.shared().load()).sum();
        let passed = now.saturating_duration_since(self.smooth_at).as_secs_f64();
        let share = 1.0 - (-passed / smooth.as_secs_f64().max(0.001)).exp();
        self.smooth += (f64::from(total) + 1.0 - self.smooth) * share;
        self.smooth_at = now;
        let each = self.smooth / self.width;
        if each > high {
            self.width += 1.0;
        } else if each < low {
            self.width -= 1.0;
        }
        self.width = self
            .width
            .clamp(min.max(1) as f64, among.len().max(1) as f64);
    }

    fn better_of_two(&mut self, among: usize, cost: impl Fn(usize) -> f64) -> usize {
        let one = self.any(among);
        if among == 1 {
            return one;
        }
        let mut two = self.any(among);
        if one == two {
            two = (one + 1 + self.rng.usize(..among - 1)) % among;
            if self.weights.is_some() {
                // With weights, another draw in vain means that `one` outweighs the rest: it is taken.
                return one;
            }
        }
        if cost(two) < cost(one) { two } else { one }
    }

    fn any(&mut self, among: usize) -> usize {
        match &self.weights {
            Some(sums) if sums.len() >= among && sums[among - 1] > 0.0 => {
                let at = self.rng.f64() * sums[among - 1];
                sums[..among]
                    .partition_point(|&sum| sum <= at)
                    .min(among - 1)
            }
            _ => self.rng.usize(..among),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Accrual, Backoff, EWMA_DECAY};

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
        let mut picker = Picker::new(kind, 7, Instant::now());
        let endpoints: Vec<_> = among
            .iter()
            .map(|one| Endpoint {
                weight: one.1,
                ..Endpoint::new(one.0.addr)
            })
            .collect();
        picker.update(&endpoints);
        picker
    }

    #[test]
    fn without_load_each_gets_its_share() {
        let among = some(&[1.0; 4]);
        for n in counts(&mut picker(Balancer::P2c, &among), &among, 40_000) {
            assert!((9_000..11_000).contains(&n), "{n}");
        }
    }

    #[test]
    fn weights_split_the_traffic() {
        let among = some(&[1.0, 3.0]);
        let got = counts(&mut picker(Balancer::RoundRobin, &among), &among, 1000);
        assert_eq!(got, [500, 500], "round robin has no weights");
        let got = counts(&mut picker(Balancer::P2c, &among), &among, 40_000);
        assert!(got[1] > got[0] * 2, "{got:?}");
    }

    #[test]
    fn the_less_loaded_of_two_is_taken_whichever_worker_the_load_is_on() {
        let among = some(&[1.0, 1.0]);
        among[0].0.enter(1);
        assert_eq!(
            counts(&mut picker(Balancer::P2c, &among), &among, 100),
            [0, 100]
        );
        among[0].0.leave(1);
        among[1].0.enter(0);
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
            .observe(0, Duration::from_millis(100), 1_000, EWMA_DECAY);
        among[1]
            .0
            .observe(0, Duration::from_millis(1), 1_000, EWMA_DECAY);
        let mut picker = picker(Balancer::Ewma { decay: EWMA_DECAY }, &among);
        assert_eq!(counts(&mut picker, &among, 100), [0, 100]);
        assert!(among[0].0.latency(200_000_000, EWMA_DECAY) < 1.0);
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
}
