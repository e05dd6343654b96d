//! An API server in a few lines that does wrong on demand: plain HTTP on a loopback port.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// What happens to requests whose path and query contain a text.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status, with an error object.
    Status(u16),
    /// The request is taken and never answered.
    Hang,
    /// The head of a good answer, then nothing.
    HeadOnly,
    /// A good head, then this text, then the end.
    Says(String),
    /// This text, as a whole answer.
    Answers(String),
    /// A good head, then a byte now and then.
    Trickles,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By resource, then `namespace/name`.
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(u64, String, Value)>,
    /// What the target contains, what is done, and whether only to the first such request.
    faults: Vec<(String, Fault, bool)>,
    calls: Vec<String>,
    ended: bool,
    /// Whether a watch may begin with the list, as API servers since 1.32 do it.
    streams: bool,
}

#[derive(Clone)]
enum News {
    Event(String, Value),
    Cut,
}

/// The server; it ends when it is dropped.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    news: broadcast::Sender<News>,
    called: Notify,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.state.lock().unwrap().ended = true;
        _ = self.shared.news.send(News::Cut);
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn on(addr: SocketAddr) -> Self {
        // The one before may not have let go of it yet.
        let listener = loop {
            match TcpListener::bind(addr).await {
                Err(error) if addr.port() != 0 && error.kind() == ErrorKind::AddrInUse => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                bound => break bound.unwrap(),
            }
        };
        let addr = listener.local_addr().unwrap();
        let (news, _) = broadcast::channel(1000);
        let state = Mutex::new(State {
            version: 100,
            ..State::default()
        });
        let shared = Arc::new(Shared {
            state,
            news,
            called: Notify::new(),
        });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(shared.clone().serve(stream));
                }
            }
        });
        Self { addr, shared, task }
    }

    /// Adds or changes a slice of service `web` with endpoints on port 80, named `http`; tells the watches.
    pub(crate) fn slice(&self, namespace: &str, name: &str, ips: &[&str]) {
        self.put(
            "endpointslices",
            namespace,
            name,
            &slice(namespace, name, ips),
        );
    }

    pub(crate) fn put(&self, plural: &str, namespace: &str, name: &str, object: &Value) {
        self.store(plural, namespace, name, Some(object.clone()), true);
    }

    pub(crate) fn delete(&self, namespace: &str, name: &str) {
        self.store("endpointslices", namespace, name, None, true);
    }

    /// Takes any object away; tells the watches.
    pub(crate) fn remove(&self, plural: &str, namespace: &str, name: &str) {
        self.store(plural, namespace, name, None, true);
    }

    /// Changes a slice without a word to any watch.
    pub(crate) fn secretly(&self, namespace: &str, name: &str, ips: Option<&[&str]>) {
        let object = ips.map(|ips| slice(namespace, name, ips));
        self.store("endpointslices", namespace, name, object, false);
    }

    fn store(&self, plural: &str, namespace: &str, name: &str, object: Option<Value>, tell: bool) {
        let mut state = self.shared.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let key = (plural.to_owned(), format!("{namespace}/{name}"));
        let deleted = object.is_none();
        let Some(mut object) = object.or_else(|| state.objects.remove(&key)) else {
            return;
        };
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let old = if deleted {
            None
        } else {
            state.objects.insert(key, object.clone())
        };
        let kind = match (deleted, old) {
            (true, _) => "DELETED",
            (false, None) => "ADDED",
            (false, Some(_)) => "MODIFIED",
        };
        let event = json!({"type": kind, "object": object});
        if tell {
            state.log.push((version, plural.to_owned(), event.clone()));
            _ = self.shared.news.send(News::Event(plural.to_owned(), event));
        }
    }

    /// Sends this as it is to all watches of slices.
    pub(crate) fn say(&self, event: Value) {
        let mut state = self.shared.state.lock().unwrap();
        let version = event["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap();
        let version = version.parse().unwrap();
        let plural = "endpointslices".to_owned();
        state.log.push((version, plural.clone(), event.clone()));
        _ = self.shared.news.send(News::Event(plural, event));
    }

    /// Ends all open watches in the middle.
    pub(crate) fn cut(&self) {
        _ = self.shared.news.send(News::Cut);
    }

    /// From now on a watch may begin with the list.
    pub(crate) fn streams(&self) {
        self.shared.state.lock().unwrap().streams = true;
    }

    /// Everything is gone, without a word to any watch.
    pub(crate) fn wipe_secretly(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.version += 1;
        state.objects.clear();
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        self.add_fault(path, fault, false);
    }

    pub(crate) fn fault_once(&self, path: &str, fault: Fault) {
        self.add_fault(path, fault, true);
    }

    fn add_fault(&self, path: &str, fault: Fault, once: bool) {
        let mut state = self.shared.state.lock().unwrap();
        state.faults.push((path.to_owned(), fault, once));
    }

    pub(crate) fn heal(&self) {
        self.shared.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn calls(&self, containing: &str) -> usize {
        self.shared
            .state
            .lock()
            .unwrap()
            .calls
            .iter()
            .filter(|call| call.contains(containing))
            .count()
    }

    pub(crate) fn last_call(&self, containing: &str) -> Option<String> {
        self.shared
            .state
            .lock()
            .unwrap()
            .calls
            .iter()
            .rfind(|call| call.contains(containing))
            .cloned()
    }

    /// Waits until there were so many calls.
    pub(crate) async fn called(&self, containing: &str, times: usize) {
        loop {
            let called = self.shared.called.notified();
            tokio::pin!(called);
            called.as_mut().enable();
            if self.calls(containing) >= times {
                return;
            }
            called.await;
        }
    }
}

/// A slice of service `web`.
pub(crate) fn slice(namespace: &str, name: &str, ips: &[&str]) -> Value {
    let endpoints: Vec<_> = ips
        .iter()
        .map(|ip| json!({"addresses": [ip], "nodeName": "n1"}))
        .collect();
    json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 80}],
    })
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(target) = read_request(&mut stream).await {
            let fault = {
                let mut state = self.state.lock().unwrap();
                if state.ended {
                    return;
                }
                state.calls.push(target.clone());
                let mut faults = state.faults.iter();
                let found = faults.position(|(path, ..)| target.contains(path));
                found.map(|at| match state.faults[at].2 {
                    true => state.faults.remove(at).1,
                    false => state.faults[at].1.clone(),
                })
            };
            self.called.notify_waiters();
            let done = match fault {
                None => self.answer(&mut stream, &target).await,
                Some(Fault::Status(code)) => {
                    let body = json!({"kind": "Status", "code": code, "message": "on demand"});
                    respond(&mut stream, code, &body.to_string()).await
                }
                Some(Fault::Hang) => std::future::pending().await,
                Some(Fault::HeadOnly) => {
                    _ = chunked_head(&mut stream).await;
                    std::future::pending().await
                }
                Some(Fault::Says(text)) => {
                    _ = chunked_head(&mut stream).await;
                    _ = chunk(&mut stream, &text).await;
                    None
                }
                Some(Fault::Answers(text)) => respond(&mut stream, 200, &text).await,
                Some(Fault::Trickles) => {
                    _ = chunked_head(&mut stream).await;
                    while chunk(&mut stream, " ").await.is_some() {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                    None
                }
            };
            if done.is_none() {
                return;
            }
        }
    }

    async fn answer(&self, stream: &mut BufReader<TcpStream>, target: &str) -> Option<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path.ends_with("selfsubjectaccessreviews") {
            return respond(
                stream,
                201,
                &json!({"status": {"allowed": true}}).to_string(),
            )
            .await;
        }
        if path == "/version" {
            let minor = if self.state.lock().unwrap().streams {
                "34"
            } else {
                "30+"
            };
            let version = json!({"major": "1", "minor": minor});
            return respond(stream, 200, &version.to_string()).await;
        }
        if let Some((_, one)) = path.split_once("/namespaces/")
            && let [namespace, plural, name] = one.split('/').collect::<Vec<_>>()[..]
        {
            let key = (plural.to_owned(), format!("{namespace}/{name}"));
            let found = self.state.lock().unwrap().objects.get(&key).cloned();
            let missing = || json!({"kind": "Status", "code": 404, "message": "not found"});
            let code = if found.is_some() { 200 } else { 404 };
            let body = found.unwrap_or_else(missing);
            return respond(stream, code, &body.to_string()).await;
        }
        let plural = path.rsplit('/').next()?.to_owned();
        let namespace = path
            .split_once("/namespaces/")
            .map(|(_, rest)| rest.split('/').next().unwrap().to_owned());
        let within = move |object: &Value| {
            namespace
                .as_deref()
                .is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
        };
        if !query.contains("watch=true") {
            let body = {
                let state = self.state.lock().unwrap();
                let items = state
                    .objects
                    .iter()
                    .filter(|((own, _), object)| *own == plural && within(object));
                let items: Vec<_> = items.map(|(_, object)| object.clone()).collect();
                json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items})
            };
            return respond(stream, 200, &body.to_string()).await;
        }
        if query.contains("sendInitialEvents=true") {
            return self.stream_list(stream, &plural, within).await;
        }
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .unwrap_or("0");
        let from: u64 = from.parse().unwrap_or(0);
        let (mut news, missed): (_, Vec<Value>) = {
            let state = self.state.lock().unwrap();
            let missed = state
                .log
                .iter()
                .filter(|(at, own, _)| *at > from && *own == plural);
            (
                self.news.subscribe(),
                missed.map(|(_, _, event)| event.clone()).collect(),
            )
        };
        chunked_head(stream).await?;
        self.follow(stream, &plural, within, &missed, &mut news)
            .await
    }

    /// All there is, the bookmark that says so, then what changes.
    async fn stream_list(
        &self,
        stream: &mut BufReader<TcpStream>,
        plural: &str,
        within: impl Fn(&Value) -> bool,
    ) -> Option<()> {
        let (mut news, mut events) = {
            let state = self.state.lock().unwrap();
            let objects = state.objects.iter().filter(|((own, _), _)| own == plural);
            let mut events: Vec<_> = objects
                .map(|(_, object)| json!({"type": "ADDED", "object": object}))
                .filter(|event| within(&event["object"]))
                .collect();
            let meta = json!({"resourceVersion": state.version.to_string(),
                              "annotations": {"k8s.io/initial-events-end": "true"}});
            events.push(json!({"type": "BOOKMARK", "object": {"metadata": meta}}));
            (self.news.subscribe(), events)
        };
        chunked_head(stream).await?;
        let bookmark = events.pop()?;
        for event in events {
            chunk(stream, &format!("{event}\n")).await?;
        }
        chunk(stream, &format!("{bookmark}\n")).await?;
        self.follow(stream, plural, within, &[], &mut news).await
    }

    async fn follow(
        &self,
        stream: &mut BufReader<TcpStream>,
        plural: &str,
        within: impl Fn(&Value) -> bool,
        missed: &[Value],
        news: &mut broadcast::Receiver<News>,
    ) -> Option<()> {
        for event in missed.iter().filter(|event| within(&event["object"])) {
            chunk(stream, &format!("{event}\n")).await?;
        }
        loop {
            match news.recv().await.ok()? {
                News::Event(own, event) if own == plural && within(&event["object"]) => {
                    chunk(stream, &format!("{event}\n")).await?;
                }
                News::Event(..) => {}
                News::Cut => return None,
            }
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first = String::new();
    stream
        .read_line(&mut first)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    first.split(' ').nth(1).map(ToOwned::to_owned)
}

async fn respond(stream: &mut BufReader<TcpStream>, code: u16, body: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .ok()?;
    stream.flush().await.ok()
}

async fn chunked_head(stream: &mut BufReader<TcpStream>) -> Option<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .ok()?;
    stream.flush().await.ok()
}

async fn chunk(stream: &mut BufReader<TcpStream>, text: &str) -> Option<()> {
    stream
        .write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
        .await
        .ok()?;
    stream.flush().await.ok()
}
