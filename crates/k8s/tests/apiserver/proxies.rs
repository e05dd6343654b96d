//! What stands between the namers and the API server, and does wrong: `Between` understands HTTP and lies, `Toxic` is
//! toxiproxy and treats bytes badly, `Forgetful` lets connections die without a word.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s::ApiTarget;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Body = BoxBody<Bytes, Infallible>;

/// What is done to watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// Each is answered 410.
    Gone,
    /// Events are doubled, swapped and lost; this seeds the choice.
    Garbled(u64),
    /// All events are lost, of watches that were garbled so far.
    Lost,
}

/// One request that was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) target: String,
    pub(crate) status: u16,
}

/// A proxy that speaks plain HTTP, as `kubectl proxy` does, counts, and lies on demand.
pub(crate) struct Between {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    client: kube::Client,
    calls: Mutex<Vec<Call>>,
    lie: Mutex<Lie>,
    lost: Mutex<u64>,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Between {
    pub(crate) async fn start(client: kube::Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            client,
            calls: Mutex::default(),
            lie: Mutex::new(Lie::None),
            lost: Mutex::default(),
        });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { Ok::<_, Infallible>(shared.answer(request).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    _ = connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { addr, shared, task }
    }

    pub(crate) fn target(&self) -> ApiTarget {
        ApiTarget::Plain {
            host: self.addr.ip().to_string(),
            port: self.addr.port(),
        }
    }

    pub(crate) fn lie(&self, lie: Lie) {
        *self.shared.lie.lock().unwrap() = lie;
    }

    /// The requests so far that got an answer of the API server, or one that was made up.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let calls = self.shared.calls.lock().unwrap();
        calls
            .iter()
            .filter(|call| call.status != 502)
            .cloned()
            .collect()
    }

    /// How many events were lost on purpose.
    pub(crate) fn lost(&self) -> u64 {
        *self.shared.lost.lock().unwrap()
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (at, target) = (Instant::now(), request.uri().to_string());
        let lie = *self.lie.lock().unwrap();
        let watch = target.contains("watch=true");
        let response = if watch && lie == Lie::Gone {
            let status =
                json!({"kind": "Status", "code": 410, "message": "too old resource version"});
            plain(StatusCode::GONE, status.to_string())
        } else {
            self.clone().forward(request, watch, lie).await
        };
        let status = response.status().as_u16();
        self.calls.lock().unwrap().push(Call { at, target, status });
        response
    }

    async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
        watch: bool,
        lie: Lie,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let mut to = Request::builder()
            .method(parts.method)
            .uri(parts.uri.path_and_query().unwrap().as_str());
        copy(&parts.headers, to.headers_mut().unwrap());
        let to = to
            .body(kube::client::Body::from(body.unwrap_or_default().to_vec()))
            .unwrap();
        let Ok(answer) = self.client.send(to).await else {
            return plain(StatusCode::BAD_GATEWAY, "the API server is away".to_owned());
        };
        let (parts, mut from) = answer.into_parts();
        let (send, receive) = mpsc::channel::<Bytes>(16);
        let garbler = match lie {
            Lie::Garbled(seed) if watch => Some(Garbler::new(seed)),
            _ => None,
        };
        tokio::spawn(async move {
            let mut garbler = garbler;
            loop {
                let frame = match (&mut garbler, timeout(HELD_BACK, from.frame()).await) {
                    (_, Ok(Some(Ok(frame)))) => frame.into_data().unwrap_or_default(),
                    (_, Ok(_)) => return,
                    // What is held back comes late, but it comes.
                    (Some(garbler), Err(_)) => garbler.held.take().unwrap_or_default(),
                    (None, Err(_)) => Bytes::new(),
                };
                let pieces = match &mut garbler {
                    Some(garbler) => {
                        let all = *self.lie.lock().unwrap() == Lie::Lost;
                        garbler.garble(&frame, &self.lost, all)
                    }
                    None => vec![frame],
                };
                for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                    if send.send(piece).await.is_err() {
                        return;
                    }
                }
                if send.is_closed() {
                    return;
                }
            }
        });
        let frames = stream::unfold(receive, |mut receive| async move {
            let bytes = receive.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(bytes)), receive))
        });
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        *response.status_mut() = parts.status;
        copy(&parts.headers, response.headers_mut());
        response
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed(Full::from(text)));
    *response.status_mut() = status;
    response
}

const HELD_BACK: Duration = Duration::from_millis(200);

/// Takes a watch's lines and makes a mess of them.
struct Garbler {
    random: fastrand::Rng,
    rest: Vec<u8>,
    /// A line that is told after the next one.
    held: Option<Bytes>,
}

impl Garbler {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            rest: Vec::new(),
            held: None,
        }
    }

    fn garble(&mut self, bytes: &[u8], lost: &Mutex<u64>, all: bool) -> Vec<Bytes> {
        // A line that was held back and comes by itself has been garbled already.
        if bytes.last() == Some(&b'\n') && self.rest.is_empty() && bytes.starts_with(b" ") {
            return vec![Bytes::copy_from_slice(bytes)];
        }
        self.rest.extend_from_slice(bytes);
        let mut told = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap_or_default();
            // A space in front marks what is through here.
            let line = Bytes::from([b" ".to_vec(), line].concat());
            let bookmark = event["type"] == "BOOKMARK";
            match self.random.u8(..10) {
                _ if bookmark => told.push(line),
                _ if all => *lost.lock().unwrap() += 1,
                0 | 1 => told.extend([line.clone(), line]),
                2 | 3 if self.held.is_none() => self.held = Some(line),
                4 => *lost.lock().unwrap() += 1,
                _ => {
                    told.push(line);
                    told.extend(self.held.take());
                }
            }
        }
        told
    }
}

/// toxiproxy before the API server's port.
pub(crate) struct Toxic {
    process: Child,
    api: u16,
    pub(crate) port: u16,
}

impl Drop for Toxic {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Toxic {
    /// In front of `upstream` on this machine. The program is the one that `$TOXIPROXY` names.
    pub(crate) async fn start(upstream: u16) -> Self {
        let program = std::env::var("TOXIPROXY").expect("TOXIPROXY names toxiproxy's server");
        let (api, port) = (free_port().await, free_port().await);
        let process = Command::new(&program)
            .args(["-host", "127.0.0.1", "-port", &api.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let toxic = Self { process, api, port };
        let listening = timeout(Duration::from_secs(30), async {
            while TcpStream::connect(("127.0.0.1", api)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        listening.await.unwrap();
        let proxy = json!({"name": "api", "listen": format!("127.0.0.1:{port}"),
                           "upstream": format!("127.0.0.1:{upstream}"), "enabled": true});
        toxic.call("POST", "/proxies", &proxy).await;
        toxic
    }

    /// Bytes go through in neither direction, and nobody is told.
    pub(crate) async fn silence(&self) {
        for stream in ["upstream", "downstream"] {
            self.add(stream, "timeout", json!({"timeout": 0})).await;
        }
    }

    /// What the API server says is not passed on; what is said to it is.
    pub(crate) async fn deafen(&self) {
        self.add("downstream", "timeout", json!({"timeout": 0}))
            .await;
    }

    /// What the API server says comes this much later.
    pub(crate) async fn delay(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.add("downstream", "latency", json!({"latency": by}))
            .await;
    }

    /// What the API server says comes at so many KB a second.
    pub(crate) async fn slow_down(&self, kilobytes: u64) {
        self.add("downstream", "bandwidth", json!({"rate": kilobytes}))
            .await;
    }

    async fn add(&self, stream: &str, kind: &str, attributes: Value) {
        let name = format!("{kind}-{stream}");
        let toxic = json!({"name": name, "type": kind, "stream": stream, "attributes": attributes});
        self.call("POST", "/proxies/api/toxics", &toxic).await;
    }

    /// Everything is well again.
    pub(crate) async fn heal(&self) {
        self.call("POST", "/reset", &json!({})).await;
    }

    async fn call(&self, method: &str, path: &str, body: &Value) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: t\r\nuser-agent: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 2"),
            "toxiproxy says to {method} {path}: {answer}"
        );
    }
}

/// A way to the API server whose established connections can die without a word, as behind a firewall that has
/// forgotten them; new ones work.
pub(crate) struct Forgetful {
    pub(crate) port: u16,
    /// Connections with a lower number are dead.
    dead: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forgetful {
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (dead, accepted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (all_dead, count) = (dead.clone(), accepted.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let far = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, number, all_dead.clone()));
                tokio::spawn(pass(far_in, near_out, number, all_dead.clone()));
            }
        });
        Self {
            port,
            dead,
            accepted,
            task,
        }
    }

    /// All connections that there are go dead.
    pub(crate) fn forget(&self) {
        let accepted = self.accepted.load(Ordering::SeqCst);
        self.dead.store(accepted, Ordering::SeqCst);
    }
}

/// Passes bytes on as long as the connection lives; after that they vanish, and so does the news of its end.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, dead: Arc<AtomicU64>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let dead = number < dead.load(Ordering::SeqCst);
        match (dead, read) {
            (true, 0) => std::future::pending::<()>().await,
            (true, _) => {}
            (false, 0) => return,
            (false, read) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}
