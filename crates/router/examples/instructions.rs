//! The work whose instructions are counted (`tests/instructions/check`): `instructions WORK` does it over and over inside of
//! `measured`, and nothing else there. It says how many blocks of memory were asked for.

#![allow(unsafe_code)] // a global allocator cannot be written without
#![allow(clippy::print_stdout)] // what it says is for the check

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dtab::{Dtab, NameTree, Path};
use naming::namers::{Dns, SystemNamer};
use naming::{
    Activity, Addr, Bound, DefaultInterpreter, Endpoint, Mounted, Name, Namer, Names, NamesConfig,
    NamesLimits, Reads, Var,
};
use router::http1::{Limits, Parsed, RequestHead, ResponseHead, strip_hop_by_hop};
use telemetry::trace::{Formats, Propagation, TraceContext};

const SERVICES: usize = 10_000;
/// Names that are bound one after the other: which place a hash gives to one of them is chance, for all of them it is not.
const NAMES: usize = 1_000;
const HEADS: usize = 1_000;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Counts what `work` allocates, and valgrind counts what `measured` does.
fn count<T>(work: impl FnOnce() -> T) -> T {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let result = measured(work);
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    println!("{}", after - before);
    result
}

/// The name is looked for by the check.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let works: [(&str, fn()); 7] = [
        ("dtab-read", dtab_read),
        ("dtab-lookup", dtab_lookup),
        ("bind", bind),
        ("bind-cached", bind_cached),
        ("endpoint-change", endpoint_change),
        ("request-head", request_head),
        ("response-head", response_head),
    ];
    match works.iter().find(|(name, _)| *name == wanted) {
        Some((_, work)) => work(),
        None => {
            let all: Vec<_> = works.iter().map(|(name, _)| *name).collect();
            println!("{}", all.join("\n"));
        }
    }
}

fn service(i: usize) -> Path {
    Path::utf8([&*format!("team-{}", i % 50), &*format!("service-{i}")])
}

fn name(i: usize) -> Path {
    Path::utf8(["svc"]).concat(&service(i))
}

/// A rule for each service, and one that leads on.
fn text() -> String {
    let mut text = String::from("/host => /#/cluster;\n");
    for i in 0..SERVICES {
        let at = service(i);
        _ = writeln!(text, "/svc{at} => /host{at};");
    }
    text
}

fn dtab_read() {
    let text = text();
    count(|| Dtab::read(&text)).unwrap();
}

fn dtab_lookup() {
    let dtab: Dtab = text().parse().unwrap();
    let names: Vec<_> = (0..NAMES).map(name).collect();
    count(|| {
        for name in &names {
            assert!(matches!(dtab.lookup(name), NameTree::Leaf(_)));
        }
    });
}

/// Knows the services; the endpoints of each are a value of its own.
struct Cluster {
    prefix: Path,
    services: HashMap<Path, Var<Addr>>,
}

impl Namer for Cluster {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        let name = rest.take(2);
        let Some(addrs) = self.services.get(&name) else {
            return Activity::Ok(NameTree::Neg);
        };
        let id = Path::utf8(["#"]).concat(&self.prefix).concat(&name);
        let bound = Bound::new(id, rest.drop(2), addrs.clone());
        Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
    }
}

fn endpoints(n: u8) -> Addr {
    Addr::bound((0..n).map(|i| Endpoint::new(([10, 0, 0, i], 8080).into())))
}

/// A router's names over the cluster. Its tasks run in [`Rig::settle`] only, on this thread.
struct Rig {
    runtime: tokio::runtime::Runtime,
    cluster: Arc<Cluster>,
    names: Arc<Names>,
}

impl Rig {
    fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let services = (0..SERVICES).map(|i| (service(i), Var::new(endpoints(10))));
        let cluster = Arc::new(Cluster {
            prefix: Path::utf8(["cluster"]),
            services: services.collect(),
        });
        let namers = vec![Mounted::new(Arc::clone(&cluster) as _, Vec::new())];
        let system = SystemNamer::new(Dns::system(runtime.handle().clone()));
        let interpreter = DefaultInterpreter::new(namers, Arc::new(system), Vec::new());
        let names = Names::new(NamesConfig {
            interpreter: Arc::new(interpreter),
            base: text().parse().unwrap(),
            limits: NamesLimits {
                paths: SERVICES,
                ..NamesLimits::default()
            },
            control: runtime.handle().clone(),
        });
        Self {
            runtime,
            cluster,
            names,
        }
    }

    fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
    }
}

fn bind() {
    let (rig, none) = (Rig::new(), Dtab::empty());
    let names: Vec<_> = (0..NAMES).map(name).collect();
    count(|| {
        for name in &names {
            let binding = rig.names.binding(name, &none);
            assert!(binding.current().cause().is_none());
        }
    });
}

fn bind_cached() {
    let (rig, none) = (Rig::new(), Dtab::empty());
    let names: Vec<_> = (0..NAMES).map(name).collect();
    for name in &names {
        rig.names.binding(name, &none);
    }
    count(|| {
        for name in &names {
            black_box(rig.names.binding(name, &none).current());
        }
    });
}

/// One of the names that are bound gets an endpoint more.
fn endpoint_change() {
    let (rig, none) = (Rig::new(), Dtab::empty());
    let bound: Vec<_> = (0..NAMES)
        .map(|i| rig.names.binding(&name(i), &none))
        .collect();
    rig.settle();
    count(|| {
        for (i, changed) in bound.iter().enumerate().take(100) {
            rig.cluster.services[&service(i)].set(endpoints(11));
            rig.runtime.block_on(changed.newer_than(1));
        }
    });
}

const REQUEST: &[u8] = b"GET http://web:80/index.html?q=1 HTTP/1.1\r\nHost: web\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, deflate\r\nCookie: session=0123456789abcdef\r\nProxy-Connection: Keep-Alive\r\n\
    Connection: keep-alive\r\nl5d-ctx-trace: AAAAAAAAAAEAAAAAAAAAAQAAAAAAAAABAAAAAAAAAAA=\r\nX-Request-Id: 7c0ffee\r\n\r\n";

const ADDED: &[u8] = b"l5d-dst-service: /svc/web\r\nl5d-dst-client: /#/io.l5d.fs/web\r\n";

/// A proxy's request is read, changed as it is on its way, and written.
fn request_head() {
    let trace = TraceContext::root();
    let (mut head, limits, mut out) = (RequestHead::new(), Limits::default(), Vec::new());
    let mut pass = || {
        assert!(matches!(
            head.parse(black_box(REQUEST), &limits),
            Ok(Parsed::Complete { .. })
        ));
        head.take_absolute_form();
        strip_hop_by_hop(&mut head);
        head.remove("Expect");
        head.remove_where(|name| name.eq_ignore_ascii_case(b"l5d-ctx-trace"));
        head.append(b"Via", b"1.1 rutter");
        out.clear();
        head.write(&mut out);
        out.truncate(out.len() - 2);
        out.extend_from_slice(ADDED);
        trace.write(Formats::default(), Propagation::Default, |name, value| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        });
        out.extend_from_slice(b"\r\n");
        assert!(out.starts_with(b"GET /index.html?q=1 HTTP/1.1\r\nHost: web:80\r\n"));
    };
    pass();
    count(|| (0..HEADS).for_each(|_| pass()));
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nServer: nginx\r\nContent-Type: text/html\r\n\
    Content-Length: 1024\r\nConnection: keep-alive\r\nETag: \"5f0c\"\r\nCache-Control: no-cache\r\n\r\n";

fn response_head() {
    let (mut head, limits, mut out) = (ResponseHead::new(), Limits::default(), Vec::new());
    let mut pass = || {
        assert!(matches!(
            head.parse(black_box(RESPONSE), &limits),
            Ok(Parsed::Complete { .. })
        ));
        strip_hop_by_hop(&mut head);
        head.append(b"Via", b"1.1 rutter");
        out.clear();
        head.write(&mut out);
        assert!(out.starts_with(b"HTTP/1.1 200 OK\r\n"));
    };
    pass();
    count(|| (0..HEADS).for_each(|_| pass()));
}
