//! One stream of a store's API, begun again whenever it ends.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use dtab::Path;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tracing::{info, warn};

use super::{ClientConfig, Followed, Known};

/// Until a store takes a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until it begins to answer.
const HEAD: Duration = Duration::from_secs(30);
/// A store that is gone without a word is noticed after some three of these.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The longest document.
const DOCUMENT: usize = 16 * 1024 * 1024;
/// Of a refusal so much is told.
const REASON: usize = 2_000;
/// A stream that has said something is begun again this soon, at the latest.
const SOON: Duration = Duration::from_millis(200);
/// A store that has just come back may not know everything yet: that a name is gone counts after this.
const DOUBT: Duration = Duration::from_secs(10);

/// All that is not a part of a value in a query.
const VALUE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'^')
    .add(b'?')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\')
    .add(b'[')
    .add(b']');

/// A store's API as a client sees it.
#[derive(Clone)]
pub(super) struct Api {
    config: ClientConfig,
}

impl Api {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self { config }
    }

    fn namespace(&self) -> String {
        crate::api::encoded(&self.config.namespace)
    }

    /// Where the tree of a path is said.
    pub(super) fn bind(&self, dtab: &str, path: &Path) -> String {
        let path = path.to_string();
        let (path, dtab) = (
            utf8_percent_encode(&path, VALUE),
            utf8_percent_encode(dtab, VALUE),
        );
        format!(
            "/api/1/bind/{}?path={path}&dtab={dtab}&watch=true&versions=true",
            self.namespace()
        )
    }

    /// Where the addresses of a bound name are said.
    pub(super) fn addr(&self, id: &Path) -> String {
        let id = id.to_string();
        let id = utf8_percent_encode(&id, VALUE);
        format!("/api/1/addr/{}?path={id}&watch=true", self.namespace())
    }

    async fn get(&self, target: &str) -> Result<(http::Response<Incoming>, Connection), String> {
        self.ask(http::Method::GET, target, String::new()).await
    }

    /// Sends something, and gives the status that it is answered with.
    pub(super) async fn post(&self, target: &str, body: String) -> Result<StatusCode, String> {
        let (response, _connection) = self.ask(http::Method::POST, target, body).await?;
        Ok(response.status())
    }

    async fn ask(
        &self,
        method: http::Method,
        target: &str,
        body: String,
    ) -> Result<(http::Response<Incoming>, Connection), String> {
        let config = &self.config;
        let connecting = TcpStream::connect((&*config.host, config.port));
        let stream = tokio::time::timeout(CONNECT, connecting).await;
        let stream = stream
            .map_err(|_| format!("no connection within {CONNECT:?}"))?
            .map_err(|error| error.to_string())?;
        _ = stream.set_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(3));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = Connection(tokio::spawn(async move { _ = connection.await }));
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, format!("{}:{}", config.host, config.port))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(HEAD, sender.send_request(request)).await;
        let response = response
            .map_err(|_| format!("no answer within {HEAD:?}"))?
            .map_err(|error| error.to_string())?;
        Ok((response, connection))
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientConfig {
            host,
            port,
            namespace,
            ..
        } = &self.config;
        write!(f, "{host}:{port}, namespace {namespace}")
    }
}

/// Ends with its owner.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a stream ended.
struct Ended {
    why: String,
    /// The store understood and says no: whoever knows nothing else is told.
    refused: bool,
    /// It has said something that could be read.
    said: bool,
}

/// Keeps `followed` at what the store says at `target`, as long as anybody holds it.
pub(super) async fn follow<T: Clone + PartialEq + Send + Sync>(
    api: Api,
    target: String,
    followed: Weak<Followed<T>>,
    read: fn(&Value) -> Result<T, String>,
    says_nothing: fn(&T) -> bool,
) {
    let (first, most) = api.config.retry;
    let mut failures: u32 = 0;
    loop {
        let ended = stream(&api, &target, &followed, read, says_nothing).await;
        if ended.said {
            if failures > 0 {
                info!(store = %api, target, "the store answers again");
            }
            failures = 0;
        }
        let Some(followed) = followed.upgrade() else {
            return;
        };
        if ended.refused && !matches!(*followed.known.get(), Known::Said(_)) {
            followed
                .known
                .set_if_new(Known::Refused(ended.why.as_str().into()));
        }
        drop(followed);
        let wait = match ended.said {
            true => SOON.mul_f64(fastrand::f64()),
            false => backoff(first, most, failures),
        };
        failures = failures.saturating_add(1);
        warn!(store = %api, target, error = ended.why, retry_in_ms = wait.as_millis() as u64, "a stream of the store ended, what it said last stays");
        tokio::time::sleep(wait).await;
    }
}

/// Twice as long each time, up to the longest, with a share of luck so that not all come back at once.
fn backoff(first: Duration, most: Duration, failures: u32) -> Duration {
    let whole = first.saturating_mul(1 << failures.min(20)).min(most);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

async fn stream<T: Clone + PartialEq + Send + Sync>(
    api: &Api,
    target: &str,
    followed: &Weak<Followed<T>>,
    read: fn(&Value) -> Result<T, String>,
    says_nothing: fn(&T) -> bool,
) -> Ended {
    let mut ended = Ended {
        why: String::new(),
        refused: false,
        said: false,
    };
    let (response, _connection) = match api.get(target).await {
        Ok(answered) => answered,
        Err(why) => return Ended { why, ..ended },
    };
    if response.status() != StatusCode::OK {
        ended.refused = response.status().is_client_error();
        ended.why = refusal(response).await;
        return ended;
    }
    let mut lines = Lines {
        body: response.into_body(),
        buffer: Vec::new(),
    };
    let mut doubted: Option<T> = None;
    loop {
        let line = match doubted.take() {
            None => lines.next().await,
            Some(nothing) => match tokio::time::timeout(DOUBT, lines.next()).await {
                Ok(line) => line,
                Err(_) => {
                    if let Some(followed) = followed.upgrade() {
                        followed.known.set_if_new(Known::Said(nothing));
                    }
                    continue;
                }
            },
        };
        let value = line.and_then(|line| {
            let text = String::from_utf8_lossy(&line);
            let value = serde_json::from_str(&text)
                .map_err(|_| format!("the store says: {}", text.trim()))?;
            read(&value)
        });
        let value = match value {
            Ok(value) => value,
            Err(why) => return Ended { why, ..ended },
        };
        let Some(followed) = followed.upgrade() else {
            return ended;
        };
        let had = match &*followed.known.get() {
            Known::Said(before) => !says_nothing(before),
            Known::Nothing | Known::Refused(_) => false,
        };
        match !ended.said && had && says_nothing(&value) {
            true => doubted = Some(value),
            false => _ = followed.known.set_if_new(Known::Said(value)),
        }
        ended.said = true;
    }
}

async fn refusal(response: http::Response<Incoming>) -> String {
    let status = response.status();
    let body =
        tokio::time::timeout(HEAD, Limited::new(response.into_body(), REASON).collect()).await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes);
    let reason = String::from_utf8_lossy(body.as_deref().unwrap_or_default())
        .trim()
        .to_owned();
    format!("the store answers {status}: {reason}")
}

/// A body line by line.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// Cancel safe.
    async fn next(&mut self) -> Result<Vec<u8>, String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..]
                .iter()
                .position(|&byte| byte == b'\n')
            {
                let rest = self.buffer.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            searched = self.buffer.len();
            if searched > DOCUMENT {
                return Err(format!("a document of more than {DOCUMENT} bytes"));
            }
            match self.body.frame().await {
                None => return Err("the store ended the stream".to_owned()),
                Some(Err(error)) => return Err(format!("the stream broke off: {error}")),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_each_time_up_to_the_limit() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(30));
        for (failures, least, longest) in [
            (0, 0.5, 1.0),
            (1, 1.0, 2.0),
            (5, 15.0, 30.0),
            (u32::MAX, 15.0, 30.0),
        ] {
            let wait = backoff(first, most, failures).as_secs_f64();
            assert!((least..=longest).contains(&wait), "{failures}: {wait}");
        }
    }

    #[test]
    fn a_name_stands_in_a_url_whatever_it_is() {
        let api = Api::new(ClientConfig {
            host: "store".into(),
            port: 4180,
            namespace: "a b/ü".into(),
            retry: (Duration::ZERO, Duration::ZERO),
        });
        let path = Path::read("/svc/a%b").unwrap_or_else(|_| Path::utf8(["svc", "a%b"]));
        let target = api.bind("/x=>/y | /z;/a=>3.00*/b & /c", &path);
        let uri: http::Uri = target.parse().unwrap();
        assert!(
            uri.path().starts_with("/api/1/bind/a%20b%2F%C3%BC"),
            "{uri}"
        );
        let query = uri.query().unwrap();
        assert!(
            query.contains(
                "dtab=/x=%3E/y%20%7C%20/z%3B/a=%3E3.00*/b%20%26%20/c&watch=true&versions=true"
            ),
            "{query}"
        );
    }
}
