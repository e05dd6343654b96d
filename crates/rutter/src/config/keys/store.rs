//! The file of `rutter namerd`: Linkerd's namerd, key by key.

use super::{Effect, Key, Kinds, Section, Ty, access, kind, names, refused, report, router, top};

const NOT_YET: &str = "not in this version; routers read the interface io.l5d.httpController with the interpreter io.l5d.namerd.http";
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
            "access",
            Ty::Section(&access::ACCESS),
            "everybody may everything",
            "Who may do what on the HTTP API.",
        )
        .but(Effect::Ours),
        Key::new(
            "auditLog",
            Ty::File,
            "none",
            "A file that tells each change before it is made and what came of it, in lines of JSON. A change that cannot be told is not made.",
        )
        .but(Effect::Ours),
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
        refused("io.l5d.mesh", NOT_YET),
        refused("io.l5d.thriftNameInterpreter", NOT_YET),
        refused(
            "io.l5d.destination",
            "Linkerd 2's destination API is not re-created",
        ),
    ],
};
static HTTP: Section = Section {
    title: "io.l5d.httpController",
    keys: &[
        Key::new("ip", Ty::Ip, "127.0.0.1", "Address to listen on."),
        Key::new("port", Ty::Port, "4180", "Port to listen on; 0 takes a free one."),
        Key::new(
            "allowAnonymous",
            Ty::Bool,
            "false",
            "Everybody who reaches the address may read and change every dtab. Needed on every address but loopback when there is no `access`.",
        )
        .but(Effect::Ours),
        Key::new("socketOptions", Ty::Section(&router::SOCKET), "", "Options of the socket.")
            .but(Effect::Ignored("the socket has the system's options")),
        Key::new(
            "tls",
            Ty::Section(&router::SERVER_TLS),
            "none",
            "HTTPS, with the certificates in these files; they are followed. With `requireClientAuth`, who has a certificate is `certificate:` and its first name in `access.grants`.",
        ),
    ],
    also: &[],
    removed: &[],
};
