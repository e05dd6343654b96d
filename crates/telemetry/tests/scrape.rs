//! What a scrape costs with 3,000 services, in bytes and allocations: numbers that a busy machine does not change.
//! `cargo test --release -p telemetry --test scrape -- --nocapture` shows the times, too.

#![allow(unsafe_code)] // a global allocator cannot be written without

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use telemetry::cells::{Cell, Gauge, Histogram};
use telemetry::metrics::linkerd::{self, JsonOptions};
use telemetry::metrics::ours::{self, Format};
use telemetry::metrics::{
    Collector, Outcome, Outcomes, Registration, Registry, Requests, Scope, Source, Unit,
};

/// Counts allocations, and the most bytes that were in use.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    let now = BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const SERVICES: usize = 3_000;

/// What a router's client reports beside its requests.
struct Client {
    requests: Requests,
    counts: [Cell; 16],
    connects: [Cell; 4],
    connections: Gauge,
    latency: Histogram,
    requeues: Histogram,
}

impl Source for Client {
    fn collect(&self, out: &mut Collector<'_>) {
        const COUNTS: [&str; 16] = [
            "connects",
            "closes",
            "received_bytes",
            "sent_bytes",
            "loadbalancer/adds",
            "loadbalancer/removes",
            "loadbalancer/updates",
            "loadbalancer/rebuilds",
            "loadbalancer/max_effort_exhausted",
            "retries/requeues",
            "retries/budget_exhausted",
            "retries/request_limit",
            "failure_accrual/removals",
            "failure_accrual/removed_for_ms",
            "failure_accrual/revivals",
            "failure_accrual/probes",
        ];
        self.requests.collect(out);
        for (result, cell) in ["refused", "timeout", "tls", "error"]
            .iter()
            .zip(&self.connects)
        {
            out.ours("rutter_connects_total", &[("result", result)], cell.get());
        }
        for (name, cell) in COUNTS.iter().zip(&self.counts) {
            out.counter(name, cell.get());
        }
        out.gauge("connections", self.connections.get() as f64);
        out.stat("connect_latency_ms", Unit::Millis, &self.latency);
        out.stat("retries/requeues_per_request", Unit::Plain, &self.requeues);
    }
}

/// `rt/out/client/…/service/…`
#[derive(Default)]
struct Pair {
    requests: Requests,
    outcomes: Outcomes,
}

impl Source for Pair {
    fn collect(&self, out: &mut Collector<'_>) {
        self.requests.collect(out);
        self.outcomes.collect(out);
    }
}

/// A worker's sources of that many services, all of them used in the last minute, one in ten with failures.
fn filled(registry: &Registry) -> Vec<Registration> {
    let mut kept = Vec::new();
    for i in 0..SERVICES {
        let (service, client) = (
            format!("/svc/team-{}/service-{i}", i % 50),
            format!("/#/io.l5d.k8s/team-{}/http/service-{i}", i % 50),
        );
        let whole = Requests::new();
        let at_client = Client {
            requests: Requests::with_statuses(),
            counts: Default::default(),
            connects: Default::default(),
            connections: Gauge::default(),
            latency: Histogram::new(),
            requeues: Histogram::new(),
        };
        let pair = Pair::default();
        at_client.latency.record(250);
        at_client.requeues.record(0);
        for n in 0..20 {
            let fails = n == 7 && i % 10 == 0;
            let outcome = Outcome {
                status: Some(if fails { 503 } else { 200 }),
                success: !fails,
                code: None,
                exception: None,
                latency_us: 300 + 997 * n,
            };
            for requests in [&whole, &at_client.requests, &pair.requests] {
                requests.begin();
                requests.end(&outcome);
            }
            pair.outcomes.end(&outcome);
        }
        for (scope, source) in [
            (
                Scope::service("out", &service),
                Arc::new(whole) as Arc<dyn Source>,
            ),
            (Scope::client("out", &client), Arc::new(at_client)),
            (
                Scope::client_service("out", &client, &service),
                Arc::new(pair),
            ),
        ] {
            kept.push(registry.register(scope, source));
        }
    }
    registry.summarise();
    kept
}

struct Cost {
    page: usize,
    allocations: usize,
    /// The most bytes in use at once, beyond those before.
    peak: usize,
}

fn cost(what: &str, page: impl Fn() -> String) -> Cost {
    let (before, bytes) = (
        ALLOCATIONS.load(Ordering::Relaxed),
        BYTES.load(Ordering::Relaxed),
    );
    PEAK.store(bytes, Ordering::Relaxed);
    let began = Instant::now();
    let text = page();
    let took = began.elapsed();
    let cost = Cost {
        page: text.len(),
        allocations: ALLOCATIONS.load(Ordering::Relaxed) - before,
        peak: PEAK.load(Ordering::Relaxed) - bytes,
    };
    let (page, peak) = (cost.page as f64 / MIB, cost.peak as f64 / MIB);
    eprintln!(
        "{what}: {page:.1} MiB, {} allocations, {peak:.1} MiB at most, {took:?}",
        cost.allocations
    );
    cost
}

const MIB: f64 = 1024.0 * 1024.0;

#[test]
fn a_scrape_of_3_000_services_is_bounded() {
    let registry = Registry::new();
    let _kept = filled(&registry);
    let json = || linkerd::json(&registry, &JsonOptions::default()).unwrap();
    // Of the names of Linkerd's pages none can be left out: eleven lines for each stat of a service in use.
    for (what, cost, page, allocations, peak) in [
        ("json", cost("json", json), 15.5, 200_000, 47.0),
        (
            "Linkerd's page",
            cost("Linkerd's page", || linkerd::prometheus(&registry, "")),
            19.5,
            600_000,
            60.0,
        ),
        (
            "our page",
            cost("our page", || ours::page(&registry, Format::Text)),
            10.0,
            250_000,
            35.0,
        ),
    ] {
        let bytes = cost.page as f64 / MIB;
        assert!(bytes <= page, "{what}: {bytes:.1} MiB");
        assert!(
            cost.allocations <= allocations,
            "{what}: {} allocations",
            cost.allocations
        );
        let most = cost.peak as f64 / MIB;
        assert!(most <= peak, "{what}: {most:.1} MiB in use");
    }
}
