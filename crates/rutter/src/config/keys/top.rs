//! The file's top level, `admin` and `usage`.

use super::{Effect, Key, Section, Ty, names, report, router};

/// The whole file.
pub static FILE: Section = Section {
    title: "The file",
    keys: &[
        Key::required(
            "routers",
            Ty::List(&Ty::Kinds(&router::ROUTERS)),
            "The routers, at least one.",
        ),
        Key::new(
            "namers",
            Ty::List(&Ty::Kinds(&names::NAMERS)),
            "none",
            "Sources of names, tried last to first. A dtab reaches them as `/#/PREFIX/…`.",
        ),
        Key::new(
            "telemetry",
            Ty::List(&Ty::Kinds(&report::TELEMETERS)),
            "none",
            "Where metrics, spans and recent requests go. `/admin/metrics.json` and `/metrics` are always there.",
        ),
        Key::new("admin", Ty::Section(&ADMIN), "", "The admin port."),
        Key::new(
            "usage",
            Ty::Section(&USAGE),
            "",
            "Usage reporting of Linkerd 1.",
        )
        .but(Effect::Ignored("rutter sends no usage data")),
        Key::new(
            "workers",
            Ty::Count(1, 1024),
            "min(4, CPUs)",
            "Threads of the data plane.",
        )
        .but(Effect::Ours),
        Key::new(
            "stateDir",
            Ty::File,
            "none",
            "Directory for what is known of Kubernetes, so that a router that starts while the API server is away can serve. Made when it is not there; one that cannot be written to is a warning. A change counts from the next start on.",
        )
        .but(Effect::Ours),
    ],
    also: &[],
    removed: &[
        (
            "tracers",
            "give the tracer under `telemetry:`, such as `- kind: io.l5d.zipkin`",
        ),
        (
            "metrics",
            "give exporters under `telemetry:`, such as `- kind: io.l5d.prometheus`",
        ),
    ],
};

/// `admin`.
pub static ADMIN: Section = Section {
    title: "admin",
    keys: &[
        Key::new("ip", Ty::Ip, "127.0.0.1", "Address of the admin port."),
        Key::new("port", Ty::Port, "9990", "Port of the admin port; 0 takes a free one."),
        Key::new("shutdownGraceMs", Ty::Millis, "10000", "How long requests may take to finish after SIGTERM, SIGINT or `/admin/shutdown`."),
        Key::new("security", Ty::Section(&SECURITY), "", "Which pages are served."),
        Key::new("socketOptions", Ty::Section(&router::SOCKET), "", "Options of the admin socket.").but(Effect::Ignored("the admin socket has the system's options")),
        Key::new("workerThreads", Ty::Count(1, 1024), "2", "Threads of the admin server.").but(Effect::Ignored("admin pages run on the control runtime, never on a data thread")),
        Key::new("tls", Ty::Section(&router::SERVER_TLS), "none", "HTTPS on the admin port.").but(Effect::Refused("the admin port serves plain HTTP only; without TLS it would be open where you expect it closed")),
        Key::new("httpIdentifierPort", Ty::Port, "none", "A port that shows how a request is named.").but(Effect::Refused("use `/identify.json` of the admin port, or `rutter why`")),
    ],
    also: &[],
    removed: &[("metricsIntervalSecs", "metrics are always current: delete the key")],
};

/// `admin.security`.
pub static SECURITY: Section = Section {
    title: "admin.security",
    keys: &[
        Key::new(
            "uiEnabled",
            Ty::Bool,
            "true",
            "Pages for people, `/config.json`, `/metrics.json`, `/delegator`.",
        ),
        Key::new(
            "controlEnabled",
            Ty::Bool,
            "true",
            "`/admin/shutdown` and `/logging.json`.",
        ),
        Key::new("diagnosticsEnabled", Ty::Bool, "true", "All other pages."),
        Key::new(
            "pathWhitelist",
            Ty::List(&Ty::Text),
            "[]",
            "Regular expressions of whole paths that are let through although their group is off.",
        ),
        Key::new(
            "pathBlacklist",
            Ty::List(&Ty::Text),
            "[]",
            "Regular expressions of whole paths that are never served.",
        ),
    ],
    also: &[],
    removed: &[],
};

/// `usage`.
pub static USAGE: Section = Section {
    title: "usage",
    keys: &[
        Key::new("orgId", Ty::Text, "none", "An organisation's name."),
        Key::new("enabled", Ty::Bool, "false", "Whether to report."),
    ],
    also: &[],
    removed: &[],
};
