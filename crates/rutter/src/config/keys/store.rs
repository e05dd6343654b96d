//! The file of `rutter namerd`: Linkerd's namerd, key by key.

use super::{Effect, Key, Kinds, Section, Ty, kind, names, refused, report, router, top};

const NO_STORAGE: &str = "not in this version; use `file`, which keeps every version in one file";

/// The whole file.
pub static FILE: Section = Section {
    title: "The store's file",
    keys: &[
        Key::required(
            "storage",
            Ty::Kinds(&STORAGES),
            "Where dtabs are kept: `kind: file` with a `path`, or `kind: io.l5d.inMemory`.",
        ),
        Key::required(
            "interfaces",
            Ty::List(&Ty::Kinds(&INTERFACES)),
            "What clients are served on, at least one.",
        ),
        Key::new(
            "namers",
            Ty::List(&Ty::Kinds(&names::NAMERS)),
            "none",
            "Sources of names, as of a router; no prefix may begin with another's.",
        ),
        Key::new("admin", Ty::Section(&ADMIN), "", "The admin port."),
        Key::new(
            "telemetry",
            Ty::List(&Ty::Kinds(&report::TELEMETERS)),
            "none",
            "Where metrics go.",
        )
        .but(Effect::Ignored(
            "`/admin/metrics.json` and `/metrics` of the admin port are always there",
        )),
    ],
    also: &[],
    removed: &[],
};

/// `admin` of the store.
static ADMIN: Section = Section {
    title: "admin of the store",
    keys: &[Key::new(
        "port",
        Ty::Port,
        "9991",
        "Port of the admin port; 0 takes a free one.",
    )],
    also: &[&top::ADMIN],
    removed: &[],
};

/// `storage`.
static STORAGES: Kinds = Kinds {
    what: "storage",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "file",
            &FILE_STORAGE,
            "One file with every version that ever was. Not in Linkerd 1.",
        ),
        kind("io.l5d.inMemory", &IN_MEMORY, "Gone when the process ends."),
        refused("io.l5d.k8s", NO_STORAGE),
        refused("io.l5d.etcd", NO_STORAGE),
        refused("io.l5d.consul", NO_STORAGE),
        refused("io.l5d.zk", NO_STORAGE),
    ],
};
static ANY_STORAGE: Section = Section {
    title: "all storages",
    keys: &[Key::new(
        "experimental",
        Ty::Bool,
        "false",
        "Accepted everywhere.",
    )],
    also: &[],
    removed: &[],
};
static FILE_STORAGE: Section = Section {
    title: "file",
    keys: &[Key::required(
        "path",
        Ty::File,
        "The file, such as `/var/lib/rutter/dtabs.redb`; made when it is not there. It belongs to one process at a time.",
    )],
    also: &[&ANY_STORAGE],
    removed: &[],
};
static IN_MEMORY: Section = Section {
    title: "io.l5d.inMemory",
    keys: &[Key::new(
        "namespaces",
        Ty::Named(&Ty::Dtab),
        "none",
        "Dtabs to begin with, by namespace.",
    )],
    also: &[&ANY_STORAGE],
    removed: &[],
};

/// `interfaces[]`.
static INTERFACES: Kinds = Kinds {
    what: "interface",
    tag: "kind",
    default: None,
    kinds: &[
        kind(
            "io.l5d.httpController",
            &HTTP,
            "Linkerd's HTTP API, for namerctl, `rutter namerctl` and the interpreter io.l5d.namerd.http. Port 4180.",
        ),
        kind(
            "io.l5d.mesh",
            &MESH,
            "Linkerd's gRPC services, for the interpreter io.l5d.mesh. Port 4321.",
        ),
        kind(
            "io.l5d.thriftNameInterpreter",
            &THRIFT,
            "Linkerd's oldest interface, ThriftMux, for the interpreter io.l5d.namerd. Port 4100.",
        ),
        refused(
            "io.l5d.destination",
            "Linkerd 2's destination API is not re-created",
        ),
    ],
};
static HTTP: Section = Section {
    title: "io.l5d.httpController",
    keys: &[Key::new(
        "port",
        Ty::Port,
        "4180",
        "Port to listen on; 0 takes a free one.",
    )],
    also: &[&ANY_INTERFACE],
    removed: &[],
};
static MESH: Section = Section {
    title: "io.l5d.mesh of the store",
    keys: &[
        Key::new(
            "port",
            Ty::Port,
            "4321",
            "Port to listen on; 0 takes a free one.",
        ),
        Key::new(
            "h2AccessLog",
            Ty::Text,
            "none",
            "File for a line for each call.",
        )
        .but(NO_ACCESS_LOG),
        Key::new(
            "h2AccessLogRollPolicy",
            Ty::RollPolicy,
            "never",
            "When a new file is begun.",
        )
        .but(NO_ACCESS_LOG),
        Key::new(
            "h2AccessLogAppend",
            Ty::Bool,
            "true",
            "Whether the file is gone on with.",
        )
        .but(NO_ACCESS_LOG),
        Key::new(
            "h2AccessLogRotateCount",
            Ty::CountOrMinusOne(1_000_000),
            "-1",
            "Files that are kept.",
        )
        .but(NO_ACCESS_LOG),
    ],
    also: &[&ANY_INTERFACE],
    removed: &[],
};
static THRIFT: Section = Section {
    title: "io.l5d.thriftNameInterpreter",
    keys: &[
        Key::new(
            "port",
            Ty::Port,
            "4100",
            "Port to listen on; 0 takes a free one.",
        ),
        Key::new("cache", Ty::Section(&CACHE), "", "What Linkerd keeps."),
    ],
    also: &[&ANY_INTERFACE],
    removed: &[],
};
static CACHE: Section = Section {
    title: "cache of io.l5d.thriftNameInterpreter",
    keys: &[
        Key::new(
            "bindingCacheActive",
            Ty::Count(0, 100_000_000),
            "1000",
            "Names that are asked for.",
        )
        .but(NO_CACHE),
        Key::new(
            "bindingCacheInactive",
            Ty::Count(0, 100_000_000),
            "100",
            "Names that are kept when nobody asks for them.",
        )
        .but(NO_CACHE),
        Key::new(
            "bindingCacheInactiveTTLSecs",
            Ty::Count(0, 100_000_000),
            "600",
            "And how long.",
        )
        .but(NO_CACHE),
        Key::new(
            "addrCacheActive",
            Ty::Count(0, 100_000_000),
            "1000",
            "Address sets that are asked for.",
        )
        .but(NO_CACHE),
        Key::new(
            "addrCacheInactive",
            Ty::Count(0, 100_000_000),
            "100",
            "Address sets that are kept when nobody asks for them.",
        )
        .but(NO_CACHE),
        Key::new(
            "addrCacheInactiveTTLSecs",
            Ty::Count(0, 100_000_000),
            "600",
            "And how long.",
        )
        .but(NO_CACHE),
    ],
    also: &[],
    removed: &[],
};
const NO_CACHE: Effect = Effect::Ignored(
    "nothing is kept beside the questions that wait, of which a connection has 20,000 at most",
);
const NO_ACCESS_LOG: Effect = Effect::Ignored("calls are not logged");
static ANY_INTERFACE: Section = Section {
    title: "all interfaces",
    keys: &[
        Key::new("ip", Ty::Ip, "127.0.0.1", "Address to listen on."),
        Key::new(
            "allowAnonymous",
            Ty::Bool,
            "false",
            "Everybody who reaches the address may read and change every dtab. Needed on every address but loopback, as there is no other way of authentication in this version.",
        )
        .but(Effect::Ours),
        Key::new("socketOptions", Ty::Section(&router::SOCKET), "", "Options of the socket.")
            .but(Effect::Ignored("the socket has the system's options")),
        Key::new("tls", Ty::Section(&router::SERVER_TLS), "none", "TLS.").but(
            Effect::Refused(
                "it is served without TLS only, and would be open where you expect it closed",
            ),
        ),
    ],
    also: &[],
    removed: &[],
};
