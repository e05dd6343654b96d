use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::store::real::{self, setting};
use crate::store::remote::KEPT;
use crate::store::{Change, Only, Origin, StoreError, killed, suite};

/// Consul takes nothing but a UUID.
const TOKEN: &str = "7b06c5a8-5d5a-4c0c-9a3e-0d6f8a0c2f11";

/// A server that behaves as Consul's documentation of `/v1/kv` says: `cas`, `recurse`, `keys`, indexes that only grow, queries
/// that block, and a limit of what a value may have.
struct Server {
    state: Arc<State>,
    addr: SocketAddr,
    running: Mutex<Option<JoinSet<()>>>,
}

struct State {
    keys: Mutex<BTreeMap<String, (Bytes, u64)>>,
    index: watch::Sender<u64>,
    /// Everybody else is refused, if one is given.
    token: Option<&'static str>,
}

impl Server {
    async fn start(token: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            state: Arc::new(State {
                keys: Mutex::default(),
                index: watch::Sender::new(10),
                token,
            }),
            addr: listener.local_addr().unwrap(),
            running: Mutex::default(),
        };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let (mut running, state) = (JoinSet::new(), self.state.clone());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                let answer = service_fn(move |request| state.clone().answer(request));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer);
                connections.spawn(async move { _ = served.await });
            }
        });
        *self.running.lock().unwrap() = Some(running);
    }

    async fn kill(&self) {
        let running = self.running.lock().unwrap().take();
        running.unwrap().shutdown().await;
    }

    async fn revive(&self) {
        loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => return self.serve(listener),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn at(port: u16, prefix: &str, token: Option<&str>) -> Arc<dyn Store> {
    let config = ConsulStoreConfig {
        host: "127.0.0.1".to_owned(),
        port,
        path_prefix: prefix.to_owned(),
        token: token.map(str::to_owned),
        datacenter: Some("dc1".to_owned()),
        consistency: Consistency::Default,
    };
    open(config, &Handle::current())
}

fn said(status: u16, index: Option<u64>, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    if let Some(index) = index {
        response = response.header("X-Consul-Index", index);
    }
    response.body(Full::from(body)).unwrap()
}

impl State {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let token = request
            .headers()
            .get("X-Consul-Token")
            .map(|token| token.to_str().unwrap());
        if self.token.is_some() && token != self.token {
            return Ok(said(
                403,
                None,
                "Permission denied: token lacks permission 'key:read'".to_owned(),
            ));
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let key = uri.path().strip_prefix("/v1/kv/").unwrap();
        let key = percent_decode_str(key).decode_utf8().unwrap().into_owned();
        let query: BTreeMap<_, _> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .collect();
        assert_eq!(query.get("dc"), Some(&"dc1"));
        let cas = query.get("cas").map(|cas| cas.parse::<u64>().unwrap());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(match method {
            Method::GET => self.get(&key, &query).await,
            Method::PUT if body.len() > LARGEST => said(
                413,
                None,
                format!(
                    "Request body({} bytes) too large, max size: {LARGEST} bytes",
                    body.len()
                ),
            ),
            Method::PUT => self.change(key, cas, Some(body)),
            Method::DELETE => self.change(key, cas, None),
            other => panic!("{other}"),
        })
    }

    async fn get(&self, key: &str, query: &BTreeMap<&str, &str>) -> Response<Full<Bytes>> {
        if let Some(index) = query
            .get("index")
            .map(|index| index.parse::<u64>().unwrap())
        {
            let mut now = self.index.subscribe();
            let later = now.wait_for(|now| *now > index);
            _ = tokio::time::timeout(Duration::from_secs(60), later).await;
        }
        let keys = self.keys.lock().unwrap();
        let now = *self.index.borrow();
        let many = query.contains_key("recurse") || query.contains_key("keys");
        let found: Vec<_> = keys
            .iter()
            .filter(|(name, _)| match many {
                true => name.starts_with(key),
                false => *name == key,
            })
            .collect();
        if found.is_empty() {
            return said(404, Some(now), String::new());
        }
        let entry = |(name, (value, index)): &(&String, &(Bytes, u64))| json!({"Key": name, "Value": base64(value), "ModifyIndex": index, "CreateIndex": index, "Flags": 0, "LockIndex": 0});
        let answer: Value = match query.contains_key("keys") {
            true => found.iter().map(|(name, _)| json!(name)).collect(),
            false => found.iter().map(entry).collect(),
        };
        said(200, Some(now), answer.to_string())
    }

    fn change(&self, key: String, cas: Option<u64>, value: Option<Bytes>) -> Response<Full<Bytes>> {
        let mut keys = self.keys.lock().unwrap();
        let there = keys.get(&key).map_or(0, |(_, index)| *index);
        let holds = match (&value, cas) {
            (_, None) => true,
            (Some(_), Some(cas)) => cas == there,
            // As Consul: an index of 0 deletes nothing, and what is not there is deleted.
            (None, Some(cas)) => there == 0 || cas == there,
        };
        if holds {
            let index = *self.index.borrow() + 1;
            match value {
                Some(value) => _ = keys.insert(key, (value, index)),
                None => _ = keys.remove(&key),
            }
            self.index.send_replace(index);
        }
        said(200, None, holds.to_string())
    }
}

fn change(text: &str) -> Change {
    Change::read(text, Origin::now("ann", "")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_every_store_does() {
    let server = Server::start(None).await;
    every_story(server.addr.port()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_is_away_takes_nothing() {
    let server = Server::start(None).await;
    let store = suite::good(at(server.addr.port(), "namerd/dtabs", None)).await;
    suite::a_storage_that_is_away_takes_nothing_and_empties_nothing(
        &*store,
        async || server.kill().await,
        async || server.revive().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_is_in_force_and_who_has_no_token_is_told() {
    let server = Server::start(Some(TOKEN)).await;
    others_and_strangers(server.addr.port()).await;
}

/// What the server here is a copy of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_consul_passes_all_of_it() {
    let Some(server) = real::Consul::start("real_consul_passes_all_of_it", None) else {
        return;
    };
    let port = server.port();
    every_story(port).await;
    let server = std::cell::RefCell::new(server);
    let store = suite::good(at(port, "namerd/dtabs", None)).await;
    suite::a_storage_that_is_away_takes_nothing_and_empties_nothing(
        &*store,
        async || server.borrow_mut().kill(),
        async || server.borrow_mut().revive(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_consul_asks_for_a_token() {
    if let Some(server) = real::Consul::start("real_consul_asks_for_a_token", Some(TOKEN)) {
        others_and_strangers(server.port()).await;
    }
}

async fn every_story(port: u16) {
    let limits = suite::Limits {
        versions: setting("RUTTER_VERSIONS", 210),
        kept: Some(KEPT),
        any_name: true,
        large: false,
    };
    let mut made = 0;
    suite::every_story(&limits, || {
        made += 1;
        at(port, &format!("test/{made}"), None)
    })
    .await;
    suite::before_a_restart(&*suite::good(at(port, "kept", None)).await).await;
    suite::after_a_restart(&*suite::good(at(port, "kept", None)).await).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(suite::good(at(port, "shared", None)).await);
    }
    suite::of_two_writers_with_one_version_one_wins(&replicas).await;
    suite::a_counter_loses_no_increment(&replicas).await;
    for replica in &replicas {
        suite::until_shown(&**replica, "counter", "/count=>/200").await;
    }
    let (victim, place) = ("store::consul::tests::victim", port.to_string());
    killed::every_answered_write_is_there(victim, &place, KEPT, || at(port, KILLED, None)).await;
}

const KILLED: &str = "killed";

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn victim() {
    if let Some(port) = killed::place() {
        killed::on_and_on(at(port.parse().unwrap(), KILLED, None)).await;
    }
}

/// Where everybody needs [`TOKEN`].
async fn others_and_strangers(port: u16) {
    let store = suite::good(at(port, "namerd/dtabs", Some(TOKEN))).await;
    put(port, "namerd/dtabs/web", "/svc=>/linkerd").await;
    suite::until_shown(&*store, "web", "/svc=>/linkerd").await;
    let web = Namespace::new("web").unwrap();
    store
        .put(&web, change("/svc => /ours"), Only::Present)
        .await
        .unwrap();
    put(port, "namerd/dtabs/web", "/svc => | no dtab").await;
    put(port, "namerd/dtabs/web", "/svc=>/linkerd2").await;
    suite::until_shown(&*store, "web", "/svc=>/linkerd2").await;
    let history = store.history(&web, None, 9).await.unwrap();
    assert_eq!(
        history.last().unwrap().text.as_deref(),
        Some("/svc=>/linkerd")
    );

    let stranger = at(port, "namerd/dtabs", None);
    let refused = stranger
        .put(&web, change("/a => /b"), Only::Always)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::Refused(Refused::Forbidden, _)),
        "{refused}"
    );
    assert!(refused.to_string().contains("key:write"), "{refused}");
}

/// Puts a value there as others do, who know nothing of our records.
async fn put(port: u16, key: &str, value: &str) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::put(format!("/v1/kv/{key}?dc=dc1"))
        .header("Host", "consul")
        .header("X-Consul-Token", TOKEN)
        .body(Full::<Bytes>::from(value.to_owned()))
        .unwrap();
    let asked = async move {
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.trim_ascii(), b"true");
    };
    tokio::join!(asked, async { _ = connection.await });
}

#[test]
fn base64_is_read_as_it_is_written() {
    for length in 0..50 {
        let bytes: Vec<u8> = (0..length).map(|_| fastrand::u8(..)).collect();
        assert_eq!(decoded(&base64(&bytes)).unwrap(), bytes);
    }
    assert_eq!(decoded("a b="), None);
    assert_eq!(decoded("A"), None);
}
