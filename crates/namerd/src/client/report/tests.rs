//! A router that reports to several replicas over one storage, each with a listener of its own on loopback.

use std::sync::Mutex;

use naming::DefaultInterpreter;
use naming::Endpoint;
use naming::namers::{Dns, SystemNamer};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::super::Protocol;
use super::*;
use crate::store::{MemoryStore, Namespace, Store};
use crate::{Api as Serving, ApiListener, Interface, Names};

/// How long something may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

struct Replica {
    addr: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replica {
    async fn over(store: &Arc<dyn Store>) -> Self {
        let system = Arc::new(SystemNamer::new(Dns::system(Handle::current())));
        let interpreter = DefaultInterpreter::new(Vec::new(), system, Vec::new());
        let names = Names::new(store.clone(), Arc::new(interpreter));
        let (stop, any) = (CancellationToken::new(), ([127, 0, 0, 1], 0));
        let listener = ApiListener::bind(any.into()).await.unwrap();
        let addr = listener.addr();
        let api = Serving::new(store.clone(), names, stop.clone());
        tokio::spawn(listener.serve(Interface::Http(api), stop.clone()));
        Self { addr, stop }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} /api/rutter/1/{path} HTTP/1.1\r\nhost: store\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The versions that routers report here, by their ids.
    async fn numbers(&self) -> Vec<(String, u64)> {
        let said = self.ask("GET", "routers", "").await;
        let routers = said["routers"].as_array().unwrap().iter();
        routers
            .map(|one| {
                let id = one["id"].as_str().unwrap().to_owned();
                (id, one["number"].as_u64().unwrap_or_default())
            })
            .collect()
    }

    /// Waits until the router says that it routes with this version.
    async fn hears(&self, number: u64) {
        let heard = async {
            while self.numbers().await != [("n1/out".to_owned(), number)] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let heard = tokio::time::timeout(PATIENCE, heard).await;
        heard.unwrap_or_else(|_| panic!("{} does not hear of version {number}", self.addr));
    }
}

/// A router without names, whose version and whose store's addresses a test says.
struct Router {
    routed: Arc<Mutex<Routed>>,
    changes: Var<u64>,
    replicas: Var<Addr>,
    _telling: Telling,
}

impl Router {
    fn start(replicas: &[SocketAddr]) -> Self {
        let routed = Arc::new(Mutex::new(Routed {
            number: Some(1),
            tells: true,
        }));
        let (changes, replicas) = (Var::new(0), Var::new(at(replicas)));
        let says = routed.clone();
        let store = ClientConfig {
            protocol: Protocol::Http,
            host: "store".into(),
            port: 4180,
            namespace: "default".into(),
            retry: (Duration::from_millis(10), Duration::from_millis(10)),
            liveness: (Duration::MAX, Duration::MAX),
            token: None,
        };
        let reporter = Reporter {
            store: (store, None),
            replicas: Arc::new(replicas.clone()),
            id: "n1/out".to_owned(),
            base: Report {
                namespace: "default".to_owned(),
                router: "out".to_owned(),
                ..Report::default()
            },
            figures: Box::new(|_| {}),
            routed: Arc::new(move || Some(*says.lock().unwrap())),
            changes: changes.clone(),
        };
        Self {
            routed,
            changes,
            replicas,
            _telling: Telling(tokio::spawn(reporter.run()).abort_handle()),
        }
    }

    fn routes_with(&self, number: u64) {
        self.routed.lock().unwrap().number = Some(number);
        self.changes.set(number);
    }
}

fn at(replicas: &[SocketAddr]) -> Addr {
    Addr::bound(replicas.iter().copied().map(Endpoint::new))
}

async fn in_force(store: &Arc<dyn Store>) -> u64 {
    let namespace = Namespace::new("default").unwrap();
    let stored = store.get(&namespace).await.unwrap();
    stored.unwrap().record.number
}

#[tokio::test]
async fn a_write_at_any_replica_waits_for_the_router_and_one_that_is_gone_keeps_nobody() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (a, b) = (Replica::over(&store).await, Replica::over(&store).await);
    a.ask("PUT", "dtabs/default", "/svc => /0 ;").await;
    let router = Router::start(&[a.addr, b.addr]);
    for (replica, number) in [(&a, 2), (&b, 3)] {
        router.routes_with(number - 1);
        for each in [&a, &b] {
            each.hears(number - 1).await;
        }
        let text = format!("/svc => /{number} ;");
        let (written, ()) =
            tokio::join!(replica.ask("PUT", "dtabs/default?wait=60s", &text), async {
                // The write has to be there first, as the router hears of it from the store.
                while in_force(&store).await < number {
                    tokio::task::yield_now().await;
                }
                router.routes_with(number);
            });
        let acks = written["acks"].as_array().unwrap();
        assert_eq!(acks.len(), 1, "{written}");
        assert_eq!(
            (&acks[0]["id"], &acks[0]["applied"]),
            (&Value::from("n1/out"), &Value::from(true)),
            "{written}"
        );
    }

    let gone = b.addr;
    drop(b);
    router.routes_with(4);
    a.hears(4).await;
    let c = Replica::over(&store).await;
    router.replicas.set(at(&[a.addr, gone, c.addr]));
    c.hears(4).await;
}

#[tokio::test]
async fn one_that_never_answers_and_one_that_takes_no_reports_delay_nobody() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at_silent, at_refusing) = (silent.local_addr().unwrap(), refusing.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = refusing.accept().await {
            *count.lock().unwrap() += 1;
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            _ = stream.write_all(answer).await;
            _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let replica = Replica::over(&store).await;
    let router = Router::start(&[at_silent, at_refusing, replica.addr]);
    for number in 1..=20 {
        router.routes_with(number);
        replica.hears(number).await;
    }
    assert!(
        *asked.lock().unwrap() <= 1,
        "Linkerd's store is asked once, and again after minutes"
    );
    drop(silent);
}
