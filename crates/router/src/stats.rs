//! What is counted, and under which of Linkerd 1's names it is read. One object a worker and place; each is written by
//! its worker's thread alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use telemetry::cells::{Cell, Gauge, Histogram};
use telemetry::metrics::{Collector, Outcomes, Registration, Requests, Source, Unit};

use crate::client::{ConnectError, lock};

/// `rt/<label>/server/<ip>/<port>`.
pub(crate) struct ServerStats {
    pub(crate) requests: Requests,
    pub(crate) connects: Cell,
    pub(crate) closes: Cell,
    pub(crate) connections: Gauge,
    pub(crate) received: Cell,
    pub(crate) sent: Cell,
    pub(crate) tunnels: TunnelStats,
    pub(crate) handshakes: HandshakeStats,
}

/// Of clients' TLS handshakes.
#[derive(Default)]
pub(crate) struct HandshakeStats {
    /// The listener has TLS: until then there is nothing to show.
    pub(crate) shown: AtomicBool,
    pub(crate) ok: Cell,
    pub(crate) plain: Cell,
    pub(crate) slow: Cell,
    pub(crate) client_certificate: Cell,
    pub(crate) version: Cell,
    pub(crate) broken: Cell,
    /// When a failure was told about last, and how many were not since.
    pub(crate) told: Mutex<(Option<Instant>, u64)>,
}

/// Of connections that have become tunnels.
#[derive(Default)]
pub(crate) struct TunnelStats {
    pub(crate) active: Gauge,
    pub(crate) upgrades: Cell,
    pub(crate) connects: Cell,
    pub(crate) to_endpoints: Cell,
    pub(crate) to_clients: Cell,
}

impl Default for ServerStats {
    fn default() -> Self {
        Self {
            requests: Requests::with_statuses(),
            connects: Cell::new(),
            closes: Cell::new(),
            connections: Gauge::new(),
            received: Cell::new(),
            sent: Cell::new(),
            tunnels: TunnelStats::default(),
            handshakes: HandshakeStats::default(),
        }
    }
}

impl Source for ServerStats {
    fn collect(&self, out: &mut Collector<'_>) {
        self.requests.collect(out);
        out.counter("connects", self.connects.get());
        out.counter("closes", self.closes.get());
        out.gauge("connections", self.connections.get() as f64);
        out.counter("received_bytes", self.received.get());
        out.counter("sent_bytes", self.sent.get());
        let shaken = &self.handshakes;
        if shaken.shown.load(Ordering::Relaxed) {
            for (result, cell) in [
                ("ok", &shaken.ok),
                ("plain", &shaken.plain),
                ("timeout", &shaken.slow),
                ("client_certificate", &shaken.client_certificate),
                ("version", &shaken.version),
                ("broken", &shaken.broken),
            ] {
                let labels = [("result", result)];
                out.ours("rutter_tls_handshakes_total", &labels, cell.get());
            }
        }
        let tunnels = &self.tunnels;
        out.our_gauge("rutter_tunnels", &[], tunnels.active.get() as f64);
        for (kind, cell) in [
            ("upgrade", &tunnels.upgrades),
            ("connect", &tunnels.connects),
        ] {
            out.ours("rutter_tunnels_total", &[("kind", kind)], cell.get());
        }
        for (to, cell) in [
            ("endpoint", &tunnels.to_endpoints),
            ("client", &tunnels.to_clients),
        ] {
            out.ours("rutter_tunnel_bytes_total", &[("to", to)], cell.get());
        }
    }
}

/// `rt/<label>`: requests that got no name.
#[derive(Default)]
pub(crate) struct RouterStats {
    pub(crate) outcomes: Outcomes,
    /// Names bound anew, as Linkerd's `bindcache/path/misses`.
    pub(crate) misses: Cell,
    /// Of those, the ones that were not kept for further requests: `oneshots`.
    pub(crate) oneshots: Cell,
    /// Names given up to make room for others: `evicts`.
    pub(crate) evicts: Cell,
    /// Bound names of which a client was made: `bindcache/client/misses`.
    pub(crate) client_misses: Cell,
}

impl Source for RouterStats {
    fn collect(&self, out: &mut Collector<'_>) {
        self.outcomes.collect(out);
        out.counter("bindcache/path/misses", self.misses.get());
        out.counter("bindcache/path/evicts", self.evicts.get());
        out.counter("bindcache/path/oneshots", self.oneshots.get());
        out.counter("bindcache/client/misses", self.client_misses.get());
    }
}

/// `rt/<label>/service/<path>`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct ServiceStats {
    pub(crate) retries_per_request: Histogram,
    /// Requests under way, failures, and all of those that got to no client: the others are counted at their pairs.
    pub(crate) requests: Requests,
    pairs: Mutex<Vec<Arc<PairStats>>>,
    /// The name led to an endpoint at least once. Until then only Linkerd's own counters name it, for a while: names
    /// that somebody makes up must not become labels of ours.
    pub(crate) resolved: Cell,
    pub(crate) retries: Cell,
    pub(crate) budget_exhausted: Cell,
}

impl Source for ServiceStats {
    fn collect(&self, out: &mut Collector<'_>) {
        {
            let pairs = lock(&self.pairs);
            self.requests.collect(out);
            for pair in &*pairs {
                pair.outcomes.collect_as_requests(out);
            }
        }
        if self.resolved.get() == 0 {
            return;
        }
        out.counter("retries/total", self.retries.get());
        out.stat(
            "retries/per_request",
            Unit::Plain,
            &self.retries_per_request,
        );
        out.counter("retries/budget_exhausted", self.budget_exhausted.get());
    }
}

/// `rt/<label>/client/<id>`.
#[repr(C)]
pub(crate) struct ClientStats {
    // What each request changes stands first.
    pub(crate) received: Cell,
    pub(crate) sent: Cell,
    pub(crate) requeues_per_request: Histogram,
    /// Attempts are counted at the pairs; here are those of pairs that have gone.
    gone: Requests,
    pairs: Mutex<Vec<Arc<PairStats>>>,
    pub(crate) connects: Cell,
    pub(crate) closes: Cell,
    pub(crate) connections: Gauge,
    pub(crate) connect_latency: Histogram,
    pub(crate) failed_connect_latency: Histogram,
    /// Connections that were refused, not made in time, without TLS where it has to be, not made for another reason.
    pub(crate) refused: Cell,
    pub(crate) timed_out: Cell,
    pub(crate) untrusted: Cell,
    pub(crate) unconnected: Cell,
    /// Connections that broke before an answer: the request was surely not sent, or it may have been.
    pub(crate) broken_unsent: Cell,
    pub(crate) broken_sent: Cell,
    pub(crate) adds: Cell,
    pub(crate) removes: Cell,
    pub(crate) updates: Cell,
    pub(crate) requeues: Cell,
    pub(crate) requeue_budget_exhausted: Cell,
    /// Attempts that were not repeated because the request had been repeated as often as one may be.
    pub(crate) request_limit: Cell,
    /// Picks that found ejected endpoints only, as often as the balancer draws.
    pub(crate) effort_exhausted: Cell,
    pub(crate) removals: Cell,
    /// For how long endpoints were ejected, in ms, all of them together.
    pub(crate) removed_for_ms: Cell,
    pub(crate) revivals: Cell,
    pub(crate) probes: Cell,
}

impl Default for ClientStats {
    fn default() -> Self {
        Self {
            received: Cell::new(),
            sent: Cell::new(),
            requeues_per_request: Histogram::new(),
            gone: Requests::with_statuses(),
            pairs: Mutex::default(),
            connects: Cell::new(),
            closes: Cell::new(),
            connections: Gauge::new(),
            connect_latency: Histogram::new(),
            failed_connect_latency: Histogram::new(),
            refused: Cell::new(),
            timed_out: Cell::new(),
            untrusted: Cell::new(),
            unconnected: Cell::new(),
            broken_unsent: Cell::new(),
            broken_sent: Cell::new(),
            adds: Cell::new(),
            removes: Cell::new(),
            updates: Cell::new(),
            requeues: Cell::new(),
            requeue_budget_exhausted: Cell::new(),
            request_limit: Cell::new(),
            effort_exhausted: Cell::new(),
            removals: Cell::new(),
            removed_for_ms: Cell::new(),
            revivals: Cell::new(),
            probes: Cell::new(),
        }
    }
}

impl ClientStats {
    /// Where a connection that was not made is counted.
    pub(crate) fn not_connected(&self, error: &ConnectError) -> &Cell {
        use std::io::ErrorKind;
        match error {
            ConnectError::Timeout => &self.timed_out,
            ConnectError::Tls(_) => &self.untrusted,
            ConnectError::NoPlace(_) => &self.unconnected,
            ConnectError::Refused(error) => match error.kind() {
                ErrorKind::ConnectionRefused => &self.refused,
                ErrorKind::TimedOut => &self.timed_out,
                _ => &self.unconnected,
            },
        }
    }
}

impl Source for ClientStats {
    fn collect(&self, out: &mut Collector<'_>) {
        {
            let pairs = lock(&self.pairs);
            self.gone.collect(out);
            for pair in &*pairs {
                pair.attempts.collect(out);
            }
        }
        for (result, cell) in [
            ("refused", &self.refused),
            ("timeout", &self.timed_out),
            ("tls", &self.untrusted),
            ("error", &self.unconnected),
        ] {
            out.ours("rutter_connects_total", &[("result", result)], cell.get());
        }
        for (sent, cell) in [("no", &self.broken_unsent), ("maybe", &self.broken_sent)] {
            out.ours(
                "rutter_broken_attempts_total",
                &[("sent", sent)],
                cell.get(),
            );
        }
        for (name, cell) in [
            ("connects", &self.connects),
            ("closes", &self.closes),
            ("received_bytes", &self.received),
            ("sent_bytes", &self.sent),
            ("loadbalancer/adds", &self.adds),
            ("loadbalancer/removes", &self.removes),
            ("loadbalancer/updates", &self.updates),
            ("retries/requeues", &self.requeues),
            ("retries/budget_exhausted", &self.requeue_budget_exhausted),
            ("retries/request_limit", &self.request_limit),
            ("loadbalancer/max_effort_exhausted", &self.effort_exhausted),
            ("failure_accrual/removals", &self.removals),
            ("failure_accrual/removed_for_ms", &self.removed_for_ms),
            ("failure_accrual/revivals", &self.revivals),
            ("failure_accrual/probes", &self.probes),
        ] {
            out.counter(name, cell.get());
        }
        // As Finagle's: it rebuilds its list after each update, and each time when all it drew was ejected.
        let rebuilds = self.updates.get() + self.effort_exhausted.get();
        out.counter("loadbalancer/rebuilds", rebuilds);
        out.gauge("connections", self.connections.get() as f64);
        out.stat("connect_latency_ms", Unit::Millis, &self.connect_latency);
        out.stat(
            "retries/requeues_per_request",
            Unit::Plain,
            &self.requeues_per_request,
        );
        out.stat(
            "failed_connect_latency_ms",
            Unit::Millis,
            &self.failed_connect_latency,
        );
    }
}

/// `rt/<label>/client/<id>/service/<path>`, and what the client and the service are the sums of: each request and each
/// attempt is counted once.
pub(crate) struct PairStats {
    pub(crate) attempts: Requests,
    pub(crate) outcomes: Outcomes,
}

impl Source for PairStats {
    fn collect(&self, out: &mut Collector<'_>) {
        self.attempts.collect_without_statuses(out);
        self.outcomes.collect(out);
    }
}

/// Keeps a pair's part in the sums of its client and its service. Whoever counts at the pair holds it; when it goes, what was
/// counted stays with them.
pub(crate) struct Pair {
    pub(crate) stats: Arc<PairStats>,
    client: Arc<ClientStats>,
    service: Arc<ServiceStats>,
    _registration: Registration,
}

impl Pair {
    /// A new one, shown by `register` under its own name. For the thread that writes all three.
    pub(crate) fn new(
        client: &Arc<ClientStats>,
        service: &Arc<ServiceStats>,
        register: impl FnOnce(Arc<PairStats>) -> Registration,
    ) -> Self {
        let stats = Arc::new(PairStats {
            attempts: Requests::with_statuses(),
            outcomes: Outcomes::new(),
        });
        for pairs in [&client.pairs, &service.pairs] {
            lock(pairs).push(Arc::clone(&stats));
        }
        Self {
            client: Arc::clone(client),
            service: Arc::clone(service),
            _registration: register(Arc::clone(&stats)),
            stats,
        }
    }

    /// Whether these are its client and its service.
    pub(crate) fn is_of(&self, client: &Arc<ClientStats>, service: &Arc<ServiceStats>) -> bool {
        Arc::ptr_eq(&self.client, client) && Arc::ptr_eq(&self.service, service)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Under the locks, so that nobody sees it twice, or not at all.
        let without = |pairs: &mut Vec<Arc<PairStats>>| {
            if let Some(at) = pairs.iter().position(|one| Arc::ptr_eq(one, &self.stats)) {
                pairs.swap_remove(at);
            }
        };
        let mut pairs = lock(&self.client.pairs);
        without(&mut pairs);
        self.client.gone.absorb(&self.stats.attempts);
        drop(pairs);
        let mut pairs = lock(&self.service.pairs);
        without(&mut pairs);
        self.service.requests.absorb_outcomes(&self.stats.outcomes);
    }
}

/// Of a client, whatever the number of workers.
#[derive(Debug, Default)]
pub(crate) struct ClientGauges {
    pub(crate) endpoints: Gauge,
    /// Their mean weight, as f64 bits.
    mean_weight: AtomicU64,
}

impl ClientGauges {
    /// There are these endpoints now.
    pub(crate) fn set(&self, endpoints: &[naming::Endpoint]) {
        self.endpoints.set(endpoints.len() as i64);
        let sum: f64 = endpoints.iter().map(|one| one.weight).sum();
        let mean = match endpoints.len() {
            0 => 0.0,
            some => sum / some as f64,
        };
        self.mean_weight.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Mean weight of the endpoints; 0 when there are none.
    pub(crate) fn mean_weight(&self) -> f64 {
        f64::from_bits(self.mean_weight.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use telemetry::metrics::{Outcome, Registry, Scope, linkerd};

    use super::*;

    fn outcome(status: u16) -> Outcome<'static> {
        Outcome {
            status: Some(status),
            success: status < 500,
            code: None,
            exception: None,
            latency_us: 1_500,
        }
    }

    /// What Linkerd's page shows of the client `c` and the service `s`: requests, successes and failures of both, answers
    /// with 200 of the client.
    fn shown(registry: &Registry) -> [u64; 7] {
        let page = linkerd::json(registry, &linkerd::JsonOptions::default()).unwrap();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        [
            "client/c/requests",
            "client/c/success",
            "client/c/failures",
            "client/c/status/200",
            "service/s/requests",
            "service/s/success",
            "service/s/failures",
        ]
        .map(|name| page[format!("rt/out/{name}")].as_u64().unwrap_or(0))
    }

    #[test]
    fn a_client_and_a_service_are_the_sums_of_their_pairs_also_of_those_that_have_gone() {
        let registry = Registry::new();
        let (client, service) = (
            Arc::<ClientStats>::default(),
            Arc::<ServiceStats>::default(),
        );
        let _shown = [
            registry.register(Scope::client("out", "c"), Arc::clone(&client) as _),
            registry.register(Scope::service("out", "s"), Arc::clone(&service) as _),
        ];
        let pair = || {
            let scope = Scope::client_service("out", "c", "s");
            Pair::new(&client, &service, |pair| registry.register(scope, pair))
        };
        let request = |pair: &Pair, attempts: &[u16]| {
            service.requests.begin();
            for status in attempts {
                pair.stats.attempts.begin();
                pair.stats.attempts.end(&outcome(*status));
            }
            let last = outcome(*attempts.last().unwrap());
            service.requests.end_elsewhere(&last);
            pair.stats.outcomes.end(&last);
        };
        let (one, other) = (pair(), pair());
        assert!(one.is_of(&client, &service));
        request(&one, &[503, 200]);
        request(&other, &[200]);
        request(&other, &[503]);
        // One that got to no client.
        service.requests.begin();
        service.requests.end(&outcome(502));
        let all = [4, 2, 2, 2, 4, 2, 2];
        assert_eq!(shown(&registry), all);
        drop(one);
        assert_eq!(shown(&registry), all);
        drop(other);
        assert_eq!(shown(&registry), all);
        request(&pair(), &[200]);
        assert_eq!(shown(&registry), [5, 3, 2, 3, 5, 3, 2]);
    }

    #[test]
    fn the_mean_weight_is_that_of_the_endpoints_there_are() {
        let gauges = ClientGauges::default();
        assert_eq!(gauges.mean_weight(), 0.0);
        for (weights, mean) in [(&[1.0, 2.0, 6.0][..], 3.0), (&[0.5], 0.5), (&[], 0.0)] {
            let addr = ([127, 0, 0, 1], 80).into();
            let endpoint = |&weight: &f64| naming::Endpoint {
                weight,
                ..naming::Endpoint::new(addr)
            };
            let endpoints: Vec<_> = weights.iter().map(endpoint).collect();
            gauges.set(&endpoints);
            assert_eq!(gauges.mean_weight(), mean, "{weights:?}");
            assert_eq!(gauges.endpoints.get(), weights.len() as i64);
        }
    }
}
