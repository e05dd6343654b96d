//! A router on loopback with names from a table, scripted endpoints behind it, and clients that speak bytes.

#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses its part

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dtab::{Dtab, NameTree, Path};
use naming::{
    Activity, Addr, BindError, Bound, Delegation, Endpoint, Interpreter, Names, NamesConfig,
    NamesLimits, Reads, Var,
};
use router::settings::{RouterSettings, ServerSettings};
use router::{DataPlane, Reporting, Router, Swapped};
use telemetry::metrics::Registry;
use telemetry::span::Recorder;
use telemetry::trace::Sampling;

/// Binds `/svc/NAME` to the addresses a test gave NAME; `stuck` holds up the thread that asks for it, for ever, and `panics` panics.
#[derive(Default)]
pub struct Table(Mutex<HashMap<String, Arc<Var<Addr>>>>, AtomicBool);

impl Table {
    /// Waits until a thread is stuck.
    pub fn until_stuck(&self) {
        while !self.1.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn set(&self, name: &str, addrs: &[SocketAddr]) {
        let addr = Addr::bound(addrs.iter().map(|&addr| Endpoint::new(addr)));
        let mut names = self.0.lock().unwrap();
        match names.get(name) {
            Some(var) => var.set(addr),
            None => _ = names.insert(name.to_owned(), Arc::new(Var::new(addr))),
        }
    }
}

struct Shared(Arc<Var<Addr>>);

impl naming::Addrs for Shared {
    fn addr(&self, reads: &mut Reads) -> Addr {
        self.0.read(reads).as_ref().clone()
    }
}

impl Interpreter for Table {
    fn bind(
        &self,
        _: &Dtab,
        _: &Dtab,
        path: &Path,
        _: &mut Reads,
    ) -> Activity<NameTree<Bound>, BindError> {
        let name = path
            .segments()
            .get(1)
            .map(ToString::to_string)
            .unwrap_or_default();
        assert_ne!(name, "panics", "as a defect would");
        if name == "stuck" {
            self.1.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        Activity::Ok(match self.0.lock().unwrap().get(&name) {
            None => NameTree::Neg,
            Some(var) => {
                let id = Path::utf8(["#", "table", &name]);
                NameTree::Leaf(Bound::new(id, Path::root(), Shared(Arc::clone(var))))
            }
        })
    }

    fn delegate(&self, _: &Dtab, _: &Dtab, _: &Path, _: &mut Reads) -> Option<Delegation> {
        None
    }
}

/// A router under test.
pub struct Rig {
    pub addr: SocketAddr,
    pub table: Arc<Table>,
    pub router: Arc<Router>,
    pub plane: Option<DataPlane>,
    pub registry: Registry,
    reporting: Reporting,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A router whose settings a test changes.
    pub fn with(change: impl FnOnce(&mut RouterSettings)) -> Self {
        Self::on(1, change)
    }

    /// The same on so many workers.
    pub fn on(workers: usize, change: impl FnOnce(&mut RouterSettings)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let table = Arc::new(Table::default());
        let names = names(&table, &runtime);
        let mut settings =
            RouterSettings::new("out", ServerSettings::new(([127, 0, 0, 1], 0).into()));
        change(&mut settings);
        let registry = Registry::new();
        let reporting = Reporting {
            registry: registry.clone(),
            recorder: Recorder::none(),
            sampling: Sampling::default(),
            node: "n1".into(),
        };
        let router = Router::new(settings, names, reporting.clone(), workers).unwrap();
        let plane = DataPlane::start(vec![Arc::clone(&router)], workers, || {}).unwrap();
        Self {
            addr: router.listeners()[0],
            table,
            router,
            plane: Some(plane),
            registry,
            reporting,
            runtime,
        }
    }

    /// The same router under changed settings, not served yet. Its names are bound anew.
    pub fn successor(&self, change: impl FnOnce(&mut RouterSettings)) -> Arc<Router> {
        let mut settings = self.router.settings().clone();
        change(&mut settings);
        let names = names(&self.table, &self.runtime);
        let reporting = self.reporting.clone();
        self.router.successor(settings, names, reporting).unwrap()
    }

    /// Another router, not served yet.
    pub fn another(&self, label: &str) -> Arc<Router> {
        let server = ServerSettings::new(([127, 0, 0, 1], 0).into());
        let settings = RouterSettings::new(label, server);
        let names = names(&self.table, &self.runtime);
        Router::new(settings, names, self.reporting.clone(), 1).unwrap()
    }

    /// Serves these routers from now on; the first of them is `router` then.
    pub fn swap(&mut self, routers: Vec<Arc<Router>>) -> Swapped {
        let plane = self.plane.as_mut().unwrap();
        let prepared = plane.prepare(routers).unwrap();
        let swapped = self.runtime.block_on(plane.swap(prepared));
        self.router = Arc::clone(&plane.routers()[0]);
        swapped
    }

    /// An endpoint for `name` that answers each connection by `script`.
    pub fn backend(
        &self,
        name: &str,
        script: impl Fn(&mut Conn, usize) + Send + Sync + 'static,
    ) -> Backend {
        let backend = Backend::new(script);
        self.table.set(name, &[backend.addr]);
        backend
    }

    /// Our page of metrics.
    pub fn page(&self) -> String {
        telemetry::metrics::ours::page(&self.registry, Default::default())
    }

    /// The sum over all series of our page whose names begin like this.
    pub fn count(&self, name: &str) -> f64 {
        let page = self.page();
        let lines = page.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    pub fn connect(&self) -> Conn {
        Conn::new(TcpStream::connect(self.addr).unwrap())
    }

    /// One request on a connection of its own; the whole answer.
    pub fn ask(&self, request: &str) -> String {
        let mut conn = self.connect();
        conn.send(request);
        conn.response()
    }

    pub fn drain(&mut self, limit: Duration) -> router::Drained {
        let mut plane = self.plane.take().unwrap();
        let drained = self.runtime.block_on(plane.drain(limit));
        drop(plane);
        drained
    }

    /// Both parts of an end, in a thread of its own; what it gives comes with the time that it took.
    pub fn end(mut self, limit: Duration) -> std::thread::JoinHandle<(router::Drained, Duration)> {
        let mut plane = self.plane.take().unwrap();
        std::thread::spawn(move || {
            let began = std::time::Instant::now();
            let left = || limit.saturating_sub(began.elapsed());
            self.runtime.block_on(plane.leave(limit));
            let drained = self.runtime.block_on(plane.drain(left()));
            (drained, began.elapsed())
        })
    }
}

fn names(table: &Arc<Table>, runtime: &tokio::runtime::Runtime) -> Arc<Names> {
    Names::new(NamesConfig {
        interpreter: Arc::clone(table) as _,
        base: Dtab::empty(),
        limits: NamesLimits::default(),
        control: runtime.handle().clone(),
    })
}

/// A scripted endpoint: each connection is a thread that runs the script.
pub struct Backend {
    pub addr: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Backend {
    pub fn new(script: impl Fn(&mut Conn, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut Conn::new(tcp.unwrap()), n));
            }
        });
        Self { addr, connections }
    }

    pub fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Answers every request on a connection with this response.
pub fn always(response: &'static str) -> impl Fn(&mut Conn, usize) + Send + Sync {
    move |conn, _| {
        while conn.request().is_some() {
            conn.send(response);
        }
    }
}

/// A connection as bytes. All reads give up after some seconds, so that a defect is a failure and not a hang.
pub struct Conn {
    pub tcp: TcpStream,
    pub buffer: Vec<u8>,
}

impl Conn {
    pub fn new(tcp: TcpStream) -> Self {
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tcp.set_write_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        tcp.set_nodelay(true).unwrap();
        Self {
            tcp,
            buffer: Vec::new(),
        }
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        // The other side may have closed already; then its answer tells.
        _ = self.tcp.write_all(text.as_ref());
    }

    /// Reads more; false at the end.
    pub fn fill(&mut self) -> bool {
        let mut part = [0; 65536];
        match self.tcp.read(&mut part) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&part[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!(
                "nothing came: {error}; so far {:?}",
                String::from_utf8_lossy(&self.buffer)
            ),
        }
    }

    /// Reads until `until` has come and gives everything up to its end; `None` at the end of the connection.
    pub fn until(&mut self, until: &str) -> Option<String> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(until.len())
                .position(|part| part == until.as_bytes())
            {
                let rest = self.buffer.split_off(at + until.len());
                return Some(
                    String::from_utf8_lossy(&std::mem::replace(&mut self.buffer, rest))
                        .into_owned(),
                );
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// As many bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            assert!(
                self.fill(),
                "the connection ended {} bytes early",
                n - self.buffer.len()
            );
        }
        let rest = self.buffer.split_off(n);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// The rest, up to the end of the connection.
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// A head, up to its empty line.
    pub fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n")
    }

    /// A whole request, with its body.
    pub fn request(&mut self) -> Option<String> {
        let head = self.head()?;
        Some(self.with_body(head))
    }

    /// A whole response, with its body (not one that ends with the connection).
    pub fn response(&mut self) -> String {
        let head = self.head().expect("a response");
        self.with_body(head)
    }

    fn with_body(&mut self, head: String) -> String {
        let lower = head.to_ascii_lowercase();
        if lower.contains("transfer-encoding: chunked") {
            let body = self.until("0\r\n\r\n").expect("a last chunk");
            return head + &body;
        }
        let length = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let length = length.map_or(0, |text| text.parse().unwrap());
        let body = self.bytes(length);
        head + &String::from_utf8_lossy(&body)
    }

    /// Whether the other side closes, with nothing more before it.
    pub fn ends(&mut self) -> bool {
        !self.fill()
    }
}

/// The values of a header.
pub fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let line = |line: &'a str| {
        line.split_once(": ")
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    };
    head.split("\r\n").filter_map(line).collect()
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
