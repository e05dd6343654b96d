//! The top level, `admin` and `telemetry`; and what no section can see alone: clashes of labels and ports.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use telemetry::metrics::linkerd::StatsdConfig;
use telemetry::span::Transport;
use tracing::Level;

use super::settings::{AdminSettings, Config, SecuritySettings, TelemeterSettings};
use super::{At, Environment, names, router_section};

/// As Linkerd 1's `admin.port`.
const ADMIN_PORT: u16 = 9990;
/// As Linkerd 1's `admin.shutdownGraceMs`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// As Linkerd 1's Zipkin telemeter.
const ZIPKIN_PORT: u16 = 9410;
/// As Linkerd 1's Zipkin telemeter.
const ZIPKIN_SAMPLE_RATE: f64 = 0.001;
/// As Linkerd 1's statsd telemeter.
const STATSD_PORT: u16 = 8125;
/// As Linkerd 1's statsd telemeter, `gaugeIntervalMs`.
const STATSD_INTERVAL: Duration = Duration::from_secs(10);
/// As Linkerd 1's statsd telemeter.
const STATSD_SAMPLE_RATE: f64 = 0.01;
/// As Linkerd 1's recentRequests.
const RECENT_CAPACITY: usize = 10;

pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The whole file; nothing when it has no routers.
pub(super) fn file(at: &At<'_>, environment: &Environment) -> Option<Config> {
    let routers = at.get("routers");
    if routers.is_given() && routers.items().is_empty() {
        routers.error(
            "at least one router must be specified",
            "see `rutter config schema`, or docs/configuration.md for an example",
        );
    }
    let namers = at
        .get("namers")
        .items()
        .iter()
        .filter_map(|n| names::namer(n, environment))
        .collect();
    let items = routers.items();
    let routers: Vec<_> = items
        .iter()
        .filter_map(|r| router_section::router(r, environment))
        .collect();
    label_clashes(&items);
    port_clashes(&items, &at.get("admin"));
    at.get("usage");
    Some(Config {
        admin: admin(&at.get("admin"), ADMIN_PORT),
        namers,
        telemetry: at
            .get("telemetry")
            .items()
            .iter()
            .filter_map(telemeter)
            .collect(),
        routers,
        workers: at.get("workers").usize(),
        state_dir: at.get("stateDir").string().map(PathBuf::from),
        given: at.node()?.to_json(),
    })
}

pub(super) fn admin(at: &At<'_>, port: u16) -> AdminSettings {
    let security = at.get("security");
    let list = |key: &str| {
        security
            .get(key)
            .items()
            .iter()
            .filter_map(At::text)
            .collect()
    };
    AdminSettings {
        addr: admin_addr(at, port),
        shutdown_grace: at.get("shutdownGraceMs").millis().unwrap_or(SHUTDOWN_GRACE),
        security: SecuritySettings {
            ui: security.get("uiEnabled").bool().unwrap_or(true),
            control: security.get("controlEnabled").bool().unwrap_or(true),
            diagnostics: security.get("diagnosticsEnabled").bool().unwrap_or(true),
            whitelist: list("pathWhitelist"),
            blacklist: list("pathBlacklist"),
        },
    }
}

fn admin_addr(at: &At<'_>, port: u16) -> SocketAddr {
    SocketAddr::new(
        at.get("ip").ip().unwrap_or(LOOPBACK),
        at.get("port").u16().unwrap_or(port),
    )
}

fn telemeter(at: &At<'_>) -> Option<TelemeterSettings> {
    at.get("experimental");
    Some(match at.tag("kind", "").as_str() {
        "io.l5d.prometheus" => prometheus(at),
        "io.l5d.zipkin" => zipkin(at),
        "io.l5d.influxdb" => TelemeterSettings::Influxdb,
        "io.l5d.statsd" => TelemeterSettings::Statsd(statsd(at)),
        "io.l5d.tracelog" => TelemeterSettings::Tracelog {
            sample_rate: at.get("sampleRate").f64().unwrap_or(1.0),
            level: level(&at.get("level")),
        },
        "io.l5d.recentRequests" => TelemeterSettings::RecentRequests {
            sample_rate: at.get("sampleRate").f64()?,
            capacity: at.get("capacity").usize().unwrap_or(RECENT_CAPACITY),
        },
        _ => return None,
    })
}

fn zipkin(at: &At<'_>) -> TelemeterSettings {
    let path = at.get("path");
    let transport = match at.get("transport").string().as_deref() {
        Some("scribe") => Some(Transport::Scribe),
        Some("http") => Some(Transport::Http),
        _ => None,
    };
    if path.is_given() && transport == Some(Transport::Scribe) {
        path.error(
            "`path` contradicts `transport: scribe`",
            "spans are posted to a path by HTTP only: delete one of the two keys, or write `transport: http`",
        );
    }
    if let Some(text) = path.string().filter(|text| !is_http_path(text)) {
        path.error(
            format!("`{text}` is no path of a URL"),
            "it begins with `/` and has no blanks in it, such as `/api/v2/spans`",
        );
    }
    TelemeterSettings::Zipkin {
        host: at.get("host").text().unwrap_or_else(|| "localhost".into()),
        port: at.get("port").u16().unwrap_or(ZIPKIN_PORT),
        sample_rate: at.get("sampleRate").f64().unwrap_or(ZIPKIN_SAMPLE_RATE),
        transport,
        path: path.text(),
    }
}

fn prometheus(at: &At<'_>) -> TelemeterSettings {
    let path = at.get("path");
    if let Some(text) = path.string().filter(|text| !is_http_path(text)) {
        path.error(
            format!("`{text}` is no path of a URL"),
            "it begins with `/` and has no blanks in it, such as `/admin/metrics/prometheus`",
        );
    }
    TelemeterSettings::Prometheus {
        path: path
            .text()
            .unwrap_or_else(|| "/admin/metrics/prometheus".into()),
        prefix: at.get("prefix").text().unwrap_or_default(),
    }
}

fn statsd(at: &At<'_>) -> StatsdConfig {
    let text = |key: &str, default: &str| at.get(key).string().unwrap_or_else(|| default.into());
    StatsdConfig {
        prefix: text("prefix", "linkerd"),
        host: text("hostname", "127.0.0.1"),
        port: at.get("port").u16().unwrap_or(STATSD_PORT),
        interval: at
            .get("gaugeIntervalMs")
            .millis()
            .unwrap_or(STATSD_INTERVAL),
        sample_rate: at.get("sampleRate").f64().unwrap_or(STATSD_SAMPLE_RATE),
    }
}

fn level(at: &At<'_>) -> Level {
    match at.string().as_deref() {
        Some("TRACE") => Level::TRACE,
        Some("DEBUG") => Level::DEBUG,
        Some("WARNING") => Level::WARN,
        Some("ERROR" | "CRITICAL" | "FATAL") => Level::ERROR,
        _ => Level::INFO,
    }
}

fn is_http_path(text: &str) -> bool {
    text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#')
}

fn label_clashes(routers: &[At<'_>]) {
    let mut seen: HashMap<String, String> = HashMap::new();
    for router in routers {
        let label = router.get("label");
        let Some(name) = label.string().or_else(|| router.get("protocol").string()) else {
            continue;
        };
        if let Some(first) = seen.get(&name) {
            let spot = if label.is_given() { &label } else { router };
            spot.error(format!("multiple routers with the label `{name}`"), format!("{first} has it, too; metrics and pages are told apart by it: give this one another `label`"));
        } else {
            seen.insert(name, router.path().to_owned());
        }
    }
}

fn port_clashes(routers: &[At<'_>], admin: &At<'_>) {
    let mut seen: Vec<(SocketAddr, String)> =
        vec![(admin_addr(admin, ADMIN_PORT), "the admin port".to_owned())];
    for server in routers.iter().flat_map(|r| r.get("servers").items()) {
        let addr = router_section::server_addr(&server);
        if addr.port() == 0 {
            continue;
        }
        if let Some((other, who)) = seen.iter().find(|(other, _)| clash(*other, addr)) {
            let spot = if server.get("port").is_given() {
                server.get("port")
            } else {
                server.clone()
            };
            let help =
                format!("{who} listens on {other}; one address and port can be listened on once");
            spot.error(format!("server conflict on port {}", addr.port()), help);
        } else {
            seen.push((addr, server.path().to_owned()));
        }
    }
}

/// The same port on different addresses is fine, unless one of them stands for all.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a.ip()) || all(b.ip()))
}
