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
        kind(
            "io.l5d.influxdb",
            &INFLUXDB,
            "Linkerd 1's metrics in InfluxDB's line protocol, on the admin port: `/admin/metrics/influxdb`.",
        ),
        kind(
            "io.l5d.statsd",
            &STATSD,
            "Linkerd 1's metrics, pushed to a StatsD server by UDP.",
        ),
        kind(
            "io.l5d.tracelog",
            &TRACELOG,
            "Spans as lines of the log, under the target `io.l5d.tracelog`.",
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
static INFLUXDB: Section = Section {
    title: "io.l5d.influxdb",
    keys: &[EXPERIMENTAL],
    also: &[],
    removed: &[],
};
static STATSD: Section = Section {
    title: "io.l5d.statsd",
    keys: &[
        Key::new(
            "prefix",
            Ty::Text,
            "linkerd",
            "Put in front of every metric's name, with a dot.",
        ),
        Key::new(
            "hostname",
            Ty::Text,
            "127.0.0.1",
            "The StatsD server; resolved anew for each push.",
        ),
        Key::new("port", Ty::Port, "8125", "Its port."),
        Key::new(
            "gaugeIntervalMs",
            Ty::Count(1, 86_400_000),
            "10000",
            "Milliseconds between two pushes: of gauges, of what counters have counted since the last one, of sampled values.",
        ),
        Key::new(
            "sampleRate",
            Ty::Number(0.0, 1.0),
            "0.01",
            "Share of the values of each stat that is sent. Counters are exact.",
        ),
        EXPERIMENTAL,
    ],
    also: &[],
    removed: &[],
};
static TRACELOG: Section = Section {
    title: "io.l5d.tracelog",
    keys: &[
        Key::new(
            "sampleRate",
            Ty::Number(0.0, 1.0),
            "1.0",
            "Share of traces that are logged.",
        ),
        Key::new(
            "level",
            Ty::OneOf(LEVELS),
            "INFO",
            "Level of the lines; `FATAL` and `CRITICAL` are logged as errors.",
        ),
        EXPERIMENTAL,
    ],
    also: &[],
    removed: &[],
};
/// As Twitter's logging has them, from the least to the most; `ALL` and `OFF` are no levels of a line.
const LEVELS: &[&str] = &[
    "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL",
];
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
