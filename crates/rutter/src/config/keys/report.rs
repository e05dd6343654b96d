//! `telemetry[]`.

use super::{Effect, Key, Kinds, Section, Ty, kind, refused};

/// `telemetry[]`.
pub static TELEMETERS: Kinds = Kinds {
    what: "telemeter",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.prometheus",
            &PROMETHEUS,
            "Linkerd 1's metrics for Prometheus, on the admin port.",
        ),
        kind("io.l5d.zipkin", &ZIPKIN, "Spans for a Zipkin collector."),
        kind("io.l5d.recentRequests", &RECENT, "The page `/requests`."),
        refused(
            "io.l5d.influxdb",
            "InfluxDB's line protocol is not written; scrape `/metrics`",
        ),
        refused("io.l5d.statsd", "StatsD is not written; scrape `/metrics`"),
        refused(
            "io.l5d.tracelog",
            "spans are not logged; use `io.l5d.zipkin`",
        ),
        refused(
            "io.l5d.commonMetrics",
            "`/admin/metrics.json` is always there: delete the entry",
        ),
    ],
};

const EXPERIMENTAL: Key = Key::new("experimental", Ty::Bool, "false", "Accepted everywhere.");
static PROMETHEUS: Section = Section {
    title: "io.l5d.prometheus",
    keys: &[
        Key::new(
            "path",
            Ty::Text,
            "/admin/metrics/prometheus",
            "Where the page is.",
        ),
        Key::new(
            "prefix",
            Ty::Text,
            "none",
            "Put in front of every metric's name.",
        ),
        EXPERIMENTAL,
    ],
    also: &[],
    removed: &[],
};
static ZIPKIN: Section = Section {
    title: "io.l5d.zipkin",
    keys: &[
        Key::new("host", Ty::Text, "localhost", "The collector."),
        Key::new("port", Ty::Port, "9410", "Its port."),
        Key::new(
            "sampleRate",
            Ty::Number(0.0, 1.0),
            "0.001",
            "Share of traces that are recorded.",
        ),
        Key::new(
            "transport",
            Ty::OneOf(&["scribe", "http"]),
            "`http` when `port` is 9411 or `path` is given, else `scribe`",
            "How spans travel: framed thrift, as Linkerd 1 sends them, or Zipkin's JSON of version 2.",
        )
        .but(Effect::Ours),
        Key::new(
            "path",
            Ty::Text,
            "Zipkin's own, `/api/v2/spans`",
            "Where spans are posted by HTTP.",
        )
        .but(Effect::Ours),
        EXPERIMENTAL,
    ],
    also: &[],
    removed: &[],
};
static RECENT: Section = Section {
    title: "io.l5d.recentRequests",
    keys: &[
        Key::required(
            "sampleRate",
            Ty::Number(0.0, 1.0),
            "Share of requests that are shown.",
        ),
        Key::new(
            "capacity",
            Ty::Count(1, 100_000),
            "10",
            "How many are kept.",
        ),
        EXPERIMENTAL,
    ],
    also: &[],
    removed: &[],
};
