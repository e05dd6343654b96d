//! Three stores, each a process, over three members of etcd, while one of the six is killed every now and then.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use naming::DefaultInterpreter;
use naming::namers::{Dns, SystemNamer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::linear::{Operation, What, linearizable};
use crate::store::real::{self, Program, setting, wanted};
use crate::store::suite;
use crate::{Api, ApiListener, Names};

/// In a replica's process: where etcd is.
const MEMBERS: &str = "NAMERD_TEST_MEMBERS";
const PREFIX: &str = "/replicas";
const CLIENTS: usize = 6;
const NAMESPACES: [&str; 4] = ["one", "two", "three", "four"];

fn at(members: Vec<String>) -> Arc<dyn Store> {
    let config = EtcdConfig {
        members,
        path_prefix: PREFIX.to_owned(),
    };
    open(config, &Handle::current()).unwrap()
}

/// Not a test of its own: the process of a replica, which says where it listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica() {
    let Ok(members) = std::env::var(MEMBERS) else {
        return;
    };
    let store = at(members.split(',').map(str::to_owned).collect());
    let stop = CancellationToken::new();
    let dns = Dns::system(Handle::current());
    let interpreter =
        DefaultInterpreter::new(Vec::new(), Arc::new(SystemNamer::new(dns)), Vec::new());
    let names = Names::new(store.clone(), Arc::new(interpreter));
    let listener = ApiListener::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    suite::good(store.clone()).await;
    // Past the test harness, which keeps what tests print.
    use std::io::Write as _;
    writeln!(std::io::stderr(), "listens {}", listener.addr()).unwrap();
    listener
        .serve(
            crate::Interface::Http(Api::new(store, names, stop.clone())),
            stop,
        )
        .await;
}

/// A store's process, and where its API is.
struct Replica {
    _program: Program,
    addr: SocketAddr,
}

impl Replica {
    fn start(members: &[String]) -> Self {
        let replica = "store::etcd::replicas::replica";
        let (program, mut lines) = real::itself(replica, (MEMBERS, &members.join(",")));
        let addr = lines.find_map(|line| line.unwrap().strip_prefix("listens ")?.parse().ok());
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            _program: program,
            addr: addr.expect("it says where it listens"),
        }
    }
}

struct Answer {
    status: u16,
    etag: Option<String>,
    stale: bool,
    body: String,
}

/// None when nothing was sent; an error when it is not known what became of it.
async fn ask(addr: SocketAddr, head: &str, body: &str) -> Option<Result<Answer, String>> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let request = format!(
        "{head}\r\nHost: store\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let talk = async {
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(|error| error.to_string())?;
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .await
            .map_err(|error| error.to_string())?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("it breaks off")?;
        let field = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields
                .clone()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.ok_or("it has no status")?,
            etag: field("etag"),
            stale: field("warning").is_some(),
            body: body.to_owned(),
        })
    };
    let late = || Err("late".to_owned());
    let answered = tokio::time::timeout(Duration::from_secs(20), talk).await;
    Some(answered.unwrap_or_else(|_| late()))
}

/// What all clients share.
struct World {
    replicas: Mutex<Vec<SocketAddr>>,
    operations: Mutex<HashMap<&'static str, Vec<Operation>>>,
    clock: AtomicU64,
    value: AtomicU32,
    stale: AtomicU32,
    over: AtomicBool,
}

impl World {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, namespace: &'static str, began: u64, known: bool, what: What) {
        let ended = known.then(|| self.now());
        let operation = Operation { began, ended, what };
        self.operations
            .lock()
            .unwrap()
            .entry(namespace)
            .or_default()
            .push(operation);
    }

    /// Reads, and then mostly writes what it has read and one more.
    async fn client(&self) {
        let mut known: HashMap<&str, (u32, Option<String>)> = HashMap::new();
        while !self.over.load(Ordering::Relaxed) {
            let namespace = NAMESPACES[fastrand::usize(..NAMESPACES.len())];
            let addr = self.replicas.lock().unwrap()[fastrand::usize(..3)];
            match known.remove(namespace) {
                Some((from, etag)) if fastrand::u8(..4) > 0 => {
                    self.write(namespace, addr, from, etag).await;
                }
                _ => {
                    if let Some(read) = self.read(namespace, addr).await {
                        known.insert(namespace, read);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(20..120))).await;
        }
    }

    async fn read(
        &self,
        namespace: &'static str,
        addr: SocketAddr,
    ) -> Option<(u32, Option<String>)> {
        let began = self.now();
        let head = format!("GET /api/1/dtabs/{namespace} HTTP/1.1\r\nAccept: application/dtab");
        let answer = ask(addr, &head, "").await?.ok()?;
        let value = match answer.status {
            // Marked as possibly old: that is no answer about now.
            200 if answer.stale => {
                self.stale.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            200 => answer
                .body
                .trim()
                .trim_start_matches("/v=>/")
                .parse()
                .unwrap(),
            404 => 0,
            503 => return None,
            other => panic!("GET: {other}"),
        };
        self.note(namespace, began, true, What::Read(value));
        Some((value, answer.etag))
    }

    async fn write(
        &self,
        namespace: &'static str,
        addr: SocketAddr,
        from: u32,
        etag: Option<String>,
    ) {
        let to = self.value.fetch_add(1, Ordering::SeqCst);
        let line = match &etag {
            Some(etag) => format!("PUT /api/1/dtabs/{namespace} HTTP/1.1\r\nIf-Match: {etag}"),
            None => format!("POST /api/1/dtabs/{namespace} HTTP/1.1"),
        };
        let head = format!("{line}\r\nContent-Type: application/dtab");
        let began = self.now();
        let Some(answered) = ask(addr, &head, &format!("/v => /{to}")).await else {
            return;
        };
        let done = match answered.map(|answer| answer.status) {
            Ok(204) => Some(true),
            Ok(404 | 409 | 412) => Some(false),
            Ok(503) | Err(_) => None,
            Ok(other) => panic!("PUT: {other}"),
        };
        self.note(
            namespace,
            began,
            done.is_some(),
            What::Swap { from, to, done },
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_three_replicas_are_one_store_whoever_of_them_is_killed() {
    if !wanted("real_three_replicas_are_one_store_whoever_of_them_is_killed") {
        return;
    }
    let mut etcd = real::Etcd::start(3);
    let members = etcd.members();
    suite::good(at(members.clone())).await;
    let mut replicas: Vec<_> = (0..3).map(|_| Replica::start(&members)).collect();
    let world = Arc::new(World {
        replicas: Mutex::new(replicas.iter().map(|one| one.addr).collect()),
        operations: Mutex::default(),
        clock: AtomicU64::new(0),
        value: AtomicU32::new(1),
        stale: AtomicU32::new(0),
        over: AtomicBool::new(false),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.client().await })
        })
        .collect();
    let kills = setting("RUTTER_KILLS", 8);
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..1_500))).await;
        let victim = fastrand::usize(..3);
        if kill % 3 == 2 {
            etcd.kill(victim);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(500..2_500))).await;
            etcd.revive(victim);
            // The next one may be another: two of three are to be there.
            tokio::time::sleep(Duration::from_secs(3)).await;
        } else {
            let members = members.clone();
            // The old one is killed as the new one is put in its place.
            replicas[victim] = tokio::task::spawn_blocking(move || Replica::start(&members))
                .await
                .unwrap();
            world.replicas.lock().unwrap()[victim] = replicas[victim].addr;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    let store = suite::good(at(members.clone())).await;
    let operations = world.operations.lock().unwrap().clone();
    let (mut acknowledged, mut all) = (0, 0);
    for (namespace, mut operations) in operations {
        // What is there now, read last.
        let name = Namespace::new(namespace).unwrap();
        let history = store.history(&name, None, usize::MAX).await.unwrap();
        let value = |text: &str| {
            text.trim()
                .trim_start_matches("/v => /")
                .parse::<u32>()
                .unwrap()
        };
        let kept: Vec<_> = history
            .iter()
            .map(|one| value(one.text.as_deref().unwrap()))
            .collect();
        let now = kept.first().copied().unwrap_or(0);
        let (began, ended) = (world.now(), Some(world.now()));
        operations.push(Operation {
            began,
            ended,
            what: What::Read(now),
        });
        assert!(linearizable(&operations), "{namespace}: {operations:#?}");
        all += operations.len();
        for operation in &operations {
            if let What::Swap {
                to,
                done: Some(true),
                ..
            } = operation.what
            {
                acknowledged += 1;
                let out = kept.len() as u64 > super::super::remote::KEPT;
                assert!(
                    out || kept.contains(&to),
                    "{namespace}: {to} is lost: {kept:?}"
                );
            }
        }
        let numbers: Vec<_> = history.iter().map(|one| one.number).collect();
        assert!(
            numbers.is_sorted_by(|a, b| *a == b + 1),
            "{namespace}: {numbers:?}"
        );
    }
    let stale = world.stale.load(Ordering::Relaxed);
    eprintln!(
        "{all} operations, {acknowledged} acknowledged writes, {stale} answers marked as stale, {kills} kills"
    );
    assert!(
        acknowledged > 10 * NAMESPACES.len(),
        "{acknowledged} of {all}"
    );

    // Without a majority nothing can be written, and what is known is served and marked.
    etcd.kill(0);
    etcd.kill(1);
    let addr = replicas[0].addr;
    let put = "PUT /api/1/dtabs/one HTTP/1.1\r\nContent-Type: application/dtab";
    let answer = ask(addr, put, "/v => /0").await.unwrap().unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    let answer = ask(addr, "GET /api/1/dtabs/one HTTP/1.1", "")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (answer.status, answer.stale),
        (200, true),
        "{}",
        answer.body
    );
}
