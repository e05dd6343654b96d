//! The applications of the demo: `hello` calls `world` through the router of its own node, as a pod with `http_proxy` set
//! does; `world` answers with its name. And a little load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// An answer that takes longer is given up, by `hello` and by the load.
const PATIENCE: Duration = Duration::from_secs(5);
/// What an answer may be at most; the demo's are some bytes.
const LONGEST_BODY: usize = 1 << 20;
/// Requests of the load under way at once: when answers stay away, the load does, too.
const LOAD_AT_ONCE: usize = 8;
/// The header in which an application says which pod answered.
pub const POD_HEADER: &str = "demo-pod";
/// The header in which `world` says what `Via` it got: the routers that the request passed.
pub const VIA_HEADER: &str = "demo-world-via";

/// What an application on a pod does.
#[derive(Debug, Clone)]
pub enum Role {
    /// Answers with the pod's name.
    World,
    /// Asks `http://world/` through this router and answers with what it said.
    Hello {
        /// The outgoing server of the pod's node.
        proxy: SocketAddr,
    },
}

#[derive(Debug)]
struct App {
    pod: String,
    role: Role,
}

/// Serves `pod` until `stop`.
pub async fn serve(
    pod: String,
    role: Role,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Arc::new(App { pod, role });
    let router = axum::Router::new().fallback(answer).with_state(app);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn answer(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let pod = [(POD_HEADER, app.pod.clone())];
    match &app.role {
        Role::World => {
            // A little work, so that a trace has something to show.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let via: Vec<&str> = headers
                .get_all("via")
                .iter()
                .filter_map(|v| v.to_str().ok())
                .collect();
            let via = [(VIA_HEADER, via.join(", "))];
            (pod, via, format!("world ({})\n", app.pod)).into_response()
        }
        Role::Hello { proxy } => match get(*proxy, "http://world/", &passed_on(&headers)).await {
            Ok(world) if world.status == 200 => {
                let via = [(VIA_HEADER, world.header(VIA_HEADER).to_owned())];
                (pod, via, format!("hello ({}), {}", app.pod, world.body)).into_response()
            }
            Ok(world) => {
                let code = StatusCode::from_u16(world.status).unwrap_or(StatusCode::BAD_GATEWAY);
                (code, pod, world.body).into_response()
            }
            Err(error) => (
                StatusCode::BAD_GATEWAY,
                pod,
                format!("world did not answer: {error:#}\n"),
            )
                .into_response(),
        },
    }
}

/// The headers that an application has to copy from the request it got to those it sends, or a trace ends in it.
fn passed_on(headers: &HeaderMap) -> Vec<(String, String)> {
    let copied = |name: &str| {
        name.starts_with("l5d-ctx-")
            || name.starts_with("x-b3-")
            || matches!(name, "b3" | "traceparent" | "tracestate" | "l5d-reqid")
    };
    headers
        .iter()
        .filter(|(name, _)| copied(name.as_str()))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as text.
    pub body: String,
}

impl Answer {
    /// A header's value; empty when it is not there or no text.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default()
    }
}

/// `GET url` by way of `peer`, in the absolute form that proxies take; on a connection of its own.
pub async fn get(
    peer: SocketAddr,
    url: &str,
    headers: &[(String, String)],
) -> anyhow::Result<Answer> {
    let answer = tokio::time::timeout(PATIENCE, exchange(peer, url, headers)).await;
    answer.with_context(|| format!("no answer from {peer} in {PATIENCE:?}"))?
}

async fn exchange(
    peer: SocketAddr,
    url: &str,
    headers: &[(String, String)],
) -> anyhow::Result<Answer> {
    let host = url.split('/').nth(2).context("a URL without a host")?;
    let stream = TcpStream::connect(peer)
        .await
        .with_context(|| format!("connect to {peer}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = hyper::Request::get(url)
        .header("host", host)
        .header("connection", "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?;
    let (head, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, LONGEST_BODY)
        .collect()
        .await;
    connection.abort();
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// What the load saw.
#[derive(Debug, Default)]
pub struct LoadCounts {
    /// Requests answered 200.
    pub good: AtomicU64,
    /// Requests answered otherwise, or not.
    pub bad: AtomicU64,
}

/// `GET http://hello/` so often a second, at each of `proxies` in turn, until `stop`.
pub async fn load(
    per_second: u32,
    proxies: Vec<SocketAddr>,
    counts: Arc<LoadCounts>,
    stop: CancellationToken,
) {
    let at_once = Arc::new(Semaphore::new(LOAD_AT_ONCE));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for proxy in proxies.into_iter().cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Ok(place) = at_once.clone().try_acquire_owned() else {
            continue;
        };
        let counts = counts.clone();
        tokio::spawn(async move {
            let answer = get(proxy, "http://hello/", &[]).await;
            let good = answer.is_ok_and(|answer| answer.status == 200);
            let count = if good { &counts.good } else { &counts.bad };
            count.fetch_add(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hello_asks_world_by_its_proxy_and_hands_the_context_on() {
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        // In place of a router: what comes in absolute form is answered with what came.
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_addr = proxy.local_addr().unwrap();
        let echo = axum::Router::new().fallback(async |headers: HeaderMap| {
            let text = |name: &str| {
                headers
                    .get(name)
                    .map_or("", |v| v.to_str().unwrap())
                    .to_owned()
            };
            format!(
                "{} {} {}",
                text("host"),
                text("l5d-ctx-trace"),
                text("accept")
            )
        });
        tokio::spawn(async move { axum::serve(proxy, echo).await });
        let hello = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = hello.local_addr().unwrap();
        tokio::spawn(serve(
            "hello-a".into(),
            Role::Hello { proxy: proxy_addr },
            hello,
            stop,
        ));
        let headers = [
            ("l5d-ctx-trace".to_owned(), "abc".to_owned()),
            ("accept".to_owned(), "x/y".to_owned()),
        ];
        let answer = get(addr, "http://hello/", &headers).await.unwrap();
        assert_eq!(answer.body, "hello (hello-a), world abc ");
        assert_eq!(answer.header(POD_HEADER), "hello-a");
    }
}
