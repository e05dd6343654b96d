//! Linkerd's names as far as rutter has them, with what they mean.

use super::super::Registry;
use super::super::ours::Kind;

/// One of Linkerd's names.
#[derive(Debug)]
pub struct Described {
    /// Where it stands: `router`, `server`, `service`, `client`, `client service` or `jvm`.
    pub place: &'static str,
    /// Its name there; `<…>` stands for one or more words.
    pub name: &'static str,
    /// Its kind; a stat is a histogram.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
}

const fn names(
    place: &'static str,
    name: &'static str,
    kind: Kind,
    help: &'static str,
) -> Described {
    Described {
        place,
        name,
        kind,
        help,
    }
}

use Kind::{Counter, Gauge, Histogram as Stat};

/// All of them; `docs/metrics.md` is made of this list.
pub const NAMES: &[Described] = &[
    names(
        "router",
        "bindcache/path/misses",
        Counter,
        "names that had to be bound because they were not in the cache",
    ),
    names(
        "router",
        "bindcache/path/evicts",
        Counter,
        "names that were given up to make room for others",
    ),
    names(
        "router",
        "bindcache/path/oneshots",
        Counter,
        "names bound for one request and not kept: they led nowhere, or not yet",
    ),
    names(
        "router",
        "bindcache/client/misses",
        Counter,
        "bound names of which a client had to be made, by each worker",
    ),
    names("server", "requests", Counter, "requests that have ended"),
    names(
        "server",
        "success",
        Counter,
        "of those, the ones classified as a success",
    ),
    names("server", "failures", Counter, "of those, the others"),
    names(
        "server",
        "failures/<exception>",
        Counter,
        "failures by cause: the RT-E code of an answer made here, else Finagle's exception where there is one like it",
    ),
    names(
        "server",
        "request_latency_ms",
        Stat,
        "from a request's first byte to the end of its answer",
    ),
    names(
        "server",
        "pending",
        Gauge,
        "requests that have begun and not ended",
    ),
    names(
        "server",
        "status/<code>",
        Counter,
        "answers with this status",
    ),
    names(
        "server",
        "status/<n>XX",
        Counter,
        "answers with a status of this hundred",
    ),
    names(
        "server",
        "status/error",
        Counter,
        "requests without an answer",
    ),
    names(
        "server",
        "time/<n>XX",
        Stat,
        "their latency in ms, by the status' hundred",
    ),
    names(
        "server",
        "time/error",
        Stat,
        "latency in ms of requests without an answer",
    ),
    names("server", "connects", Counter, "connections accepted"),
    names("server", "closes", Counter, "connections closed"),
    names("server", "connections", Gauge, "open connections"),
    names("server", "received_bytes", Counter, "bytes from clients"),
    names("server", "sent_bytes", Counter, "bytes to clients"),
    names(
        "service",
        "requests",
        Counter,
        "requests with this logical name that have ended, retries not counted",
    ),
    names(
        "service",
        "success",
        Counter,
        "of those, the ones classified as a success",
    ),
    names("service", "failures", Counter, "of those, the others"),
    names(
        "service",
        "failures/<exception>",
        Counter,
        "failures by cause",
    ),
    names(
        "service",
        "request_latency_ms",
        Stat,
        "latency with all retries",
    ),
    names(
        "service",
        "pending",
        Gauge,
        "requests that have begun and not ended",
    ),
    names(
        "service",
        "retries/total",
        Counter,
        "attempts after the first, asked for by the classifier",
    ),
    names(
        "service",
        "retries/per_request",
        Stat,
        "such attempts of each request",
    ),
    names(
        "service",
        "retries/budget",
        Gauge,
        "retries that the budget allows now",
    ),
    names(
        "service",
        "retries/budget_exhausted",
        Counter,
        "retries not made because the budget was spent",
    ),
    names("client", "requests", Counter, "attempts that have ended"),
    names(
        "client",
        "success",
        Counter,
        "of those, the ones classified as a success",
    ),
    names("client", "failures", Counter, "of those, the others"),
    names(
        "client",
        "failures/<exception>",
        Counter,
        "failures by cause",
    ),
    names("client", "request_latency_ms", Stat, "latency of attempts"),
    names(
        "client",
        "pending",
        Gauge,
        "attempts that have begun and not ended",
    ),
    names(
        "client",
        "status/<code>",
        Counter,
        "answers with this status",
    ),
    names(
        "client",
        "status/<n>XX",
        Counter,
        "answers with a status of this hundred",
    ),
    names(
        "client",
        "status/error",
        Counter,
        "attempts without an answer",
    ),
    names(
        "client",
        "time/<n>XX",
        Stat,
        "their latency in ms, by the status' hundred",
    ),
    names(
        "client",
        "time/error",
        Stat,
        "latency in ms of attempts without an answer",
    ),
    names(
        "client",
        "connects",
        Counter,
        "connections made to endpoints",
    ),
    names(
        "client",
        "closes",
        Counter,
        "connections to endpoints closed",
    ),
    names(
        "client",
        "connections",
        Gauge,
        "open connections to endpoints",
    ),
    names("client", "connect_latency_ms", Stat, "time to connect"),
    names(
        "client",
        "failed_connect_latency_ms",
        Stat,
        "time until connecting failed",
    ),
    names("client", "received_bytes", Counter, "bytes from endpoints"),
    names("client", "sent_bytes", Counter, "bytes to endpoints"),
    names(
        "client",
        "available",
        Gauge,
        "1 when some endpoint is not ejected, else 0",
    ),
    names("client", "loadbalancer/size", Gauge, "endpoints known"),
    names(
        "client",
        "loadbalancer/available",
        Gauge,
        "endpoints that are not ejected",
    ),
    names(
        "client",
        "loadbalancer/busy",
        Gauge,
        "endpoints ejected by failure accrual",
    ),
    names(
        "client",
        "loadbalancer/load",
        Gauge,
        "requests in flight to all endpoints",
    ),
    names(
        "client",
        "loadbalancer/adds",
        Counter,
        "endpoints that have come",
    ),
    names(
        "client",
        "loadbalancer/removes",
        Counter,
        "endpoints that have gone",
    ),
    names(
        "client",
        "loadbalancer/updates",
        Counter,
        "changes of the endpoint set",
    ),
    names(
        "client",
        "loadbalancer/rebuilds",
        Counter,
        "updates, and the times when max_effort_exhausted is counted",
    ),
    names(
        "client",
        "loadbalancer/max_effort_exhausted",
        Counter,
        "picks that drew ejected endpoints only, five times",
    ),
    names(
        "client",
        "loadbalancer/meanweight",
        Gauge,
        "mean weight of the endpoints; 0 without any",
    ),
    names(
        "client",
        "loadbalancer/algorithm/<algorithm>",
        Gauge,
        "1, under Finagle's name of the balancer",
    ),
    names(
        "client",
        "retries/requeues",
        Counter,
        "attempts made again because the endpoint surely had not got the request",
    ),
    names(
        "client",
        "retries/budget",
        Gauge,
        "requeues that the budget allows now",
    ),
    names(
        "client",
        "retries/budget_exhausted",
        Counter,
        "requeues not made because the budget was spent",
    ),
    names(
        "client",
        "retries/request_limit",
        Counter,
        "requeues not made because the request had been requeued five times",
    ),
    names(
        "client",
        "retries/requeues_per_request",
        Stat,
        "how often a request was requeued",
    ),
    names(
        "client",
        "failure_accrual/removals",
        Counter,
        "endpoints ejected",
    ),
    names(
        "client",
        "failure_accrual/removed_for_ms",
        Counter,
        "for how long, added up, in ms",
    ),
    names(
        "client",
        "failure_accrual/revivals",
        Counter,
        "endpoints taken back",
    ),
    names(
        "client",
        "failure_accrual/probes",
        Counter,
        "requests sent to an ejected endpoint to see whether it is well again",
    ),
    names(
        "client service",
        "requests",
        Counter,
        "as the service's, for what went to this client",
    ),
    names(
        "client service",
        "success",
        Counter,
        "of those, the ones classified as a success",
    ),
    names(
        "client service",
        "failures",
        Counter,
        "of those, the others",
    ),
    names(
        "client service",
        "failures/<exception>",
        Counter,
        "failures by cause",
    ),
    names(
        "client service",
        "request_latency_ms",
        Stat,
        "their latency",
    ),
    names(
        "client service",
        "pending",
        Gauge,
        "those that have begun and not ended",
    ),
    names("jvm", "uptime", Gauge, "milliseconds since the start"),
    names(
        "jvm",
        "start_time",
        Gauge,
        "the start, in milliseconds since 1970",
    ),
    names("jvm", "num_cpus", Gauge, "processors usable"),
    names("jvm", "fd_count", Gauge, "open file descriptors"),
    names("jvm", "fd_limit", Gauge, "their limit"),
    names("jvm", "thread/count", Gauge, "threads"),
    names("jvm", "mem/current/used", Gauge, "resident memory in bytes"),
    names(
        "jvm",
        "heap/used",
        Gauge,
        "the same, under the name of the heap",
    ),
];

/// What a process serves under routers and `jvm` that is not in [`NAMES`], as `place: name`; for tests that keep the list whole.
pub fn undescribed(registry: &Registry) -> Vec<String> {
    let mut missing: Vec<_> = super::linkerd_metrics(registry)
        .iter()
        .filter_map(|metric| {
            let scope: Vec<_> = metric.scope.nodes().iter().map(AsRef::as_ref).collect();
            let place = match scope[..] {
                ["rt", _] => "router",
                ["rt", _, place @ ("server" | "service" | "client"), _] => place,
                ["rt", _, "client", _, "service", _] => "client service",
                ["jvm"] => "jvm",
                _ => return None,
            };
            let known = NAMES
                .iter()
                .any(|d| d.place == place && matches(d.name, &metric.name));
            (!known).then(|| format!("{place}: {}", metric.name))
        })
        .collect();
    missing.sort();
    missing.dedup();
    missing
}

/// Whether a name has the form of one in the list.
fn matches(described: &str, name: &str) -> bool {
    match described.split_once('<') {
        None => described == name,
        Some((before, rest)) => {
            let after = rest.split_once('>').map_or("", |(_, after)| after);
            let inner = name
                .strip_prefix(before)
                .and_then(|name| name.strip_suffix(after));
            inner.is_some_and(|inner| !inner.is_empty())
        }
    }
}
