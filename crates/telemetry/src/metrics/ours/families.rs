//! The list of our families, and which of them come from Linkerd's names.

use super::Place;

/// A kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

/// A family of metrics: one name, several label sets.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it counts, for people.
    pub help: &'static str,
    /// All its labels; those among router, server, service and client come from where the source is registered.
    pub labels: &'static [&'static str],
    /// From when on it is on the page.
    pub since: Since,
    /// Whether its values come from the control plane's recorder.
    pub control: bool,
}

/// From when on a family is on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From the start.
    Start,
    /// Once a request was routed.
    Request,
    /// Once rutter itself has answered with an error.
    Error,
    /// From the start, if a namer or transformer asks a Kubernetes API.
    Kubernetes,
    /// From the start, if a server or client has `tls`; of handshakes, if a server has it.
    Tls,
    /// Once a dtab was changed, by a new configuration or in a file of the interpreter `io.l5d.fs`.
    DtabChange,
}

impl Since {
    /// In words, for the documents.
    pub fn words(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Request => "first request",
            Self::Error => "first error",
            Self::Kubernetes => "start, with a Kubernetes API",
            Self::Tls => "start, with `tls`",
            Self::DtabChange => "first change of a dtab",
        }
    }
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        help,
        labels,
        since: Since::Start,
        control: false,
    }
}

impl Family {
    const fn since(self, since: Since) -> Self {
        Self { since, ..self }
    }
}

const fn control(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        control: true,
        ..family(name, kind, labels, help)
    }
}

use Kind::{Counter, Gauge, Histogram};

/// Every family of `/metrics`, in its order there; `docs/metrics.md` is made of this list.
pub const FAMILIES: &[Family] = &[
    family(
        "rutter_requests_total",
        Counter,
        &["router", "service", "client", "class", "code"],
        "Requests that have ended, after all retries. class is the answer's (2xx, error when there was none), code the RT-E code when rutter made the answer itself.",
    )
    .since(Since::Request),
    family(
        "rutter_request_duration_seconds",
        Histogram,
        &["router", "service", "client", "class"],
        "Time from a request's first byte to the end of its answer, after all retries.",
    )
    .since(Since::Request),
    family(
        "rutter_successful_requests_total",
        Counter,
        &["router", "service", "client"],
        "Requests whose answer the service's response classifier calls a success.",
    )
    .since(Since::Request),
    family(
        "rutter_errors_total",
        Counter,
        &["code"],
        "Requests that rutter itself answered with an error, by its code; rutter explain CODE tells what it means.",
    )
    .since(Since::Error),
    family(
        "rutter_attempts_total",
        Counter,
        &["router", "client", "result"],
        "Attempts to get an answer from an endpoint; result is success or failure as classified.",
    )
    .since(Since::Request),
    family(
        "rutter_retries_total",
        Counter,
        &["router", "service"],
        "Attempts after the first, made because the classifier called a failure retryable.",
    )
    .since(Since::Request),
    family(
        "rutter_requeues_total",
        Counter,
        &["router", "client"],
        "Attempts made again because the endpoint surely had not got the request.",
    )
    .since(Since::Request),
    family(
        "rutter_retry_budget_ratio",
        Gauge,
        &["router", "service"],
        "What is left of the retry budget, from 0 (exhausted) to 1 (full).",
    )
    .since(Since::Request),
    family(
        "rutter_retry_budget_exhausted_total",
        Counter,
        &["router", "service"],
        "Retries that were not made because the budget was spent.",
    )
    .since(Since::Request),
    family(
        "rutter_in_flight_requests",
        Gauge,
        &["router", "server"],
        "Requests that have begun and not ended.",
    ),
    family(
        "rutter_connections",
        Gauge,
        &["router", "server", "client"],
        "Open connections: from clients (label server) and to endpoints (label client).",
    ),
    family(
        "rutter_broken_attempts_total",
        Counter,
        &["router", "client", "sent"],
        "Attempts whose connection broke before an answer. sent is no (surely not processed) or maybe; what was repeated counts, too.",
    )
    .since(Since::Request),
    family(
        "rutter_tunnels",
        Gauge,
        &["router", "server"],
        "Connections of clients that are tunnels: after CONNECT, or an upgrade (WebSocket).",
    ),
    family(
        "rutter_tunnels_total",
        Counter,
        &["router", "server", "kind"],
        "Tunnels that were made. kind is connect or upgrade.",
    ),
    family(
        "rutter_tunnel_bytes_total",
        Counter,
        &["router", "server", "to"],
        "Bytes that went through tunnels. to is client or endpoint.",
    ),
    family(
        "rutter_connects_total",
        Counter,
        &["router", "client", "result"],
        "Attempts to connect to endpoints; result is ok, refused, timeout, tls or error.",
    )
    .since(Since::Request),
    family(
        "rutter_tls_handshakes_total",
        Counter,
        &["router", "server", "result"],
        "TLS handshakes of clients. result is ok, plain (it spoke plain HTTP), client_certificate, version, timeout or broken.",
    )
    .since(Since::Tls),
    family(
        "rutter_tls_certificate_expiry_timestamp_seconds",
        Gauge,
        &["router", "file"],
        "Until when the certificates in a file are valid, in seconds since 1970; of several in a file the first that ends.",
    )
    .since(Since::Tls),
    family(
        "rutter_tls_reloads_total",
        Counter,
        &["router", "result"],
        "Changed files of certificates; result is ok, or rejected: those before stay in force.",
    )
    .since(Since::Tls),
    family(
        "rutter_accepted_connections_total",
        Counter,
        &["router", "server"],
        "Connections that clients have made.",
    ),
    family(
        "rutter_received_bytes_total",
        Counter,
        &["router", "server", "client"],
        "Bytes received from clients (label server) and endpoints (label client).",
    ),
    family(
        "rutter_sent_bytes_total",
        Counter,
        &["router", "server", "client"],
        "Bytes sent to clients (label server) and endpoints (label client).",
    ),
    family(
        "rutter_endpoints",
        Gauge,
        &["router", "client", "state"],
        "Endpoints of a destination; state is ready or ejected.",
    )
    .since(Since::Request),
    family(
        "rutter_endpoint_ejections_total",
        Counter,
        &["router", "client"],
        "Endpoints taken out of rotation by failure accrual.",
    )
    .since(Since::Request),
    family(
        "rutter_binding_cache_misses_total",
        Counter,
        &["router"],
        "Names that had to be bound because they were not in the cache.",
    ),
    family(
        "rutter_delegations_total",
        Counter,
        &["result"],
        "Names followed through a dtab; result is bound, neg, fail, empty, too_deep or error.",
    ),
    family(
        "rutter_dtab_version_info",
        Gauge,
        &["router", "namespace", "version"],
        "The dtab in force; always 1. version is a fingerprint of the dtab: the same text has the same one on every node. namespace is empty for the dtab of the configuration, else the file it is in (io.l5d.fs).",
    ),
    family(
        "rutter_dtab_apply_seconds",
        Histogram,
        &["router"],
        "Time from a dtab's change becoming known to its being in force.",
    )
    .since(Since::DtabChange),
    family(
        "rutter_namer_watch_age_seconds",
        Gauge,
        &["namer", "resource", "namespace"],
        "Time since a namer's source last confirmed what it said.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_events_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Changes that a namer's watch was told of.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_errors_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Failures of a namer's watch; its last known state stays in use.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_lists_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Times that a namer's source was read as a whole, at the start and after a lost watch.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_repairs_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Differences that the audit of a watch found and repaired.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_audits_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Times that what a watch holds was compared with a fresh list.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_silences_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Watches that were opened anew because nothing came for too long.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_namer_watch_doubts_total",
        Counter,
        &["namer", "resource", "namespace"],
        "Lists that lacked most of what was known, which another list had to confirm.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_snapshot_last_write_timestamp_seconds",
        Gauge,
        &["namer"],
        "When what a namer knows was last saved to stateDir, in seconds since 1970; 0 when it never was.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_snapshot_writes_total",
        Counter,
        &["namer"],
        "Times that it was saved.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_snapshot_failures_total",
        Counter,
        &["namer"],
        "Times that it could not be saved; what was saved before is still there.",
    )
    .since(Since::Kubernetes),
    family(
        "rutter_spans_total",
        Counter,
        &["result"],
        "Spans of sampled requests; result is recorded, sent to a collector, or dropped because a queue was full or the collector did not take them.",
    ),
    family(
        "rutter_metrics_series",
        Gauge,
        &[],
        "Lines of this page, without those of the control plane.",
    ),
    family(
        "rutter_metrics_folded_labels",
        Gauge,
        &[],
        "Sources of services and clients beyond the limit of labels; they are added up as __other__.",
    ),
    family(
        "rutter_build_info",
        Gauge,
        &["version"],
        "The version that runs; always 1.",
    ),
    family(
        "process_cpu_seconds_total",
        Counter,
        &[],
        "Processor time used by the process.",
    ),
    family(
        "process_resident_memory_bytes",
        Gauge,
        &[],
        "Resident memory of the process.",
    ),
    family(
        "process_virtual_memory_bytes",
        Gauge,
        &[],
        "Virtual memory of the process.",
    ),
    family("process_open_fds", Gauge, &[], "Open file descriptors."),
    family(
        "process_max_fds",
        Gauge,
        &[],
        "The limit of open file descriptors.",
    ),
    family("process_threads", Gauge, &[], "Threads of the process."),
    family(
        "process_start_time_seconds",
        Gauge,
        &[],
        "When the process started, in seconds since 1970.",
    ),
    control(
        "rutter_config_reloads_total",
        Counter,
        &["result"],
        "Times that the configuration file was read again; result is ok, or rejected when the one before stays in force.",
    ),
    control(
        "rutter_config_last_reload_success_timestamp_seconds",
        Gauge,
        &[],
        "When the configuration file was last found to be in force or taken into force, in seconds since 1970.",
    ),
    control(
        "rutter_config_last_reload_successful",
        Gauge,
        &[],
        "Whether the configuration file as it is now is in force: 1, or 0 when it was rejected.",
    ),
];

impl Family {
    /// Which of Linkerd's names it gets values from, as `client: connects`.
    pub fn derived_from(&self) -> impl Iterator<Item = String> {
        let derived = DERIVED.iter().filter(|d| d.family == self.name);
        derived.map(|d| format!("{}: {}", d.place.name(), d.name))
    }
}

/// A family that gets its values from one of Linkerd's names at a certain place.
pub(super) struct Derived {
    pub(super) place: Place,
    pub(super) name: &'static str,
    pub(super) family: &'static str,
    pub(super) labels: &'static [(&'static str, &'static str)],
}

const fn derived(
    place: Place,
    name: &'static str,
    family: &'static str,
    labels: &'static [(&'static str, &'static str)],
) -> Derived {
    Derived {
        place,
        name,
        family,
        labels,
    }
}

/// What need not be reported twice.
pub(super) const DERIVED: &[Derived] = &[
    derived(Place::Server, "pending", "rutter_in_flight_requests", &[]),
    derived(Place::Server, "connections", "rutter_connections", &[]),
    derived(
        Place::Server,
        "connects",
        "rutter_accepted_connections_total",
        &[],
    ),
    derived(
        Place::Server,
        "received_bytes",
        "rutter_received_bytes_total",
        &[],
    ),
    derived(Place::Server, "sent_bytes", "rutter_sent_bytes_total", &[]),
    derived(Place::Service, "retries/total", "rutter_retries_total", &[]),
    derived(
        Place::Service,
        "retries/budget_exhausted",
        "rutter_retry_budget_exhausted_total",
        &[],
    ),
    derived(
        Place::Client,
        "success",
        "rutter_attempts_total",
        &[("result", "success")],
    ),
    derived(
        Place::Client,
        "failures",
        "rutter_attempts_total",
        &[("result", "failure")],
    ),
    derived(
        Place::Client,
        "retries/requeues",
        "rutter_requeues_total",
        &[],
    ),
    derived(Place::Client, "connections", "rutter_connections", &[]),
    derived(
        Place::Client,
        "connects",
        "rutter_connects_total",
        &[("result", "ok")],
    ),
    derived(
        Place::Client,
        "received_bytes",
        "rutter_received_bytes_total",
        &[],
    ),
    derived(Place::Client, "sent_bytes", "rutter_sent_bytes_total", &[]),
    derived(
        Place::Client,
        "loadbalancer/available",
        "rutter_endpoints",
        &[("state", "ready")],
    ),
    derived(
        Place::Client,
        "loadbalancer/busy",
        "rutter_endpoints",
        &[("state", "ejected")],
    ),
    derived(
        Place::Client,
        "failure_accrual/removals",
        "rutter_endpoint_ejections_total",
        &[],
    ),
    derived(
        Place::Router,
        "bindcache/path/misses",
        "rutter_binding_cache_misses_total",
        &[],
    ),
];
