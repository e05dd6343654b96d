//! `io.l5d.namerd.http`: a stream of JSON documents for each name, each on a connection of its own.

use std::net::SocketAddr;

use dtab::{Dtab, Path};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use naming::Addr;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::follow::{Ended, Future, Said, Source};
use super::said::{self, Numbered};
use super::store::{HEAD, LONGEST, Remote, Way, connect, connect_to};

/// What is spoken under TLS.
const INSIDE: Option<&str> = Some("http/1.1");
/// Of a refusal so much is told.
const REASON: usize = 2_000;

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
    way: Way,
    /// The one replica that is meant; none: any of them.
    replica: Option<SocketAddr>,
}

impl Api {
    pub(super) const fn new(way: Way) -> Self {
        let replica = None;
        Self { way, replica }
    }

    /// The API of this replica alone.
    pub(super) const fn of(replica: SocketAddr, way: Way) -> Self {
        let replica = Some(replica);
        Self { way, replica }
    }

    fn namespace(&self) -> String {
        crate::api::encoded(&self.way.config.namespace)
    }

    /// Where the tree of a path is said.
    fn bind(&self, dtab: &str, path: &Path) -> String {
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
    fn addresses(&self, id: &Path) -> String {
        let id = id.to_string();
        let id = utf8_percent_encode(&id, VALUE);
        format!("/api/1/addr/{}?path={id}&watch=true", self.namespace())
    }

    async fn get(&self, target: &str) -> Result<(http::Response<Incoming>, Connection), String> {
        self.ask(Method::GET, target, String::new()).await
    }

    /// Sends something, and gives the status that it is answered with.
    pub(super) async fn post(&self, target: &str, body: String) -> Result<StatusCode, String> {
        let (response, _connection) = self.ask(Method::POST, target, body).await?;
        Ok(response.status())
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<(http::Response<Incoming>, Connection), String> {
        let config = &self.way.config;
        let stream = match self.replica {
            Some(replica) => connect_to(replica, &self.way, INSIDE).await?,
            None => connect(&self.way, INSIDE).await?,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = Connection(tokio::spawn(async move { _ = connection.await }));
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, format!("{}:{}", config.host, config.port));
        let request = match &config.token {
            None => request,
            Some(file) => request.header(header::AUTHORIZATION, bearer(file).await?),
        };
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(HEAD, sender.send_request(request)).await;
        let response = response
            .map_err(|_| format!("no answer within {HEAD:?}"))?
            .map_err(|error| error.to_string())?;
        Ok((response, connection))
    }

    fn source<T: Send + 'static>(
        &self,
        target: String,
        read: fn(&Value) -> Result<T, String>,
    ) -> Box<dyn Source<T>> {
        let api = self.clone();
        Box::new(Documents { api, target, read })
    }
}

impl Remote for Api {
    fn tree(&self, local: &Dtab, path: &Path) -> Box<dyn Source<Numbered>> {
        self.source(self.bind(&local.to_string(), path), said::numbered)
    }

    fn addr(&self, id: &Path) -> Box<dyn Source<Addr>> {
        self.source(self.addresses(id), said::addr)
    }
}

/// Where documents are said.
struct Documents<T> {
    api: Api,
    target: String,
    read: fn(&Value) -> Result<T, String>,
}

impl<T: Send + 'static> Source<T> for Documents<T> {
    fn open(&self) -> Future<'_, Result<Box<dyn Said<T>>, Ended>> {
        Box::pin(async {
            let (response, connection) = self.api.get(&self.target).await?;
            if response.status() != StatusCode::OK {
                let refused = response.status().is_client_error();
                let why = refusal(response).await;
                return Err(Ended { why, refused });
            }
            let lines = Lines {
                body: response.into_body(),
                buffer: Vec::new(),
                read: self.read,
                _connection: connection,
            };
            Ok(Box::new(lines) as Box<dyn Said<T>>)
        })
    }
}

/// The token as it is now: Kubernetes writes another one before it expires.
async fn bearer(file: &std::path::Path) -> Result<HeaderValue, String> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| format!("the token {}: {error}", file.display()))?;
    let value = HeaderValue::try_from(format!("Bearer {}", text.trim()));
    value.map_err(|_| format!("the token {} is no text of one line", file.display()))
}

/// Ends with its owner.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
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
struct Lines<T> {
    body: Incoming,
    buffer: Vec<u8>,
    read: fn(&Value) -> Result<T, String>,
    _connection: Connection,
}

impl<T: Send> Said<T> for Lines<T> {
    fn next(&mut self) -> Future<'_, Result<T, Ended>> {
        Box::pin(async {
            let line = self.line().await?;
            let text = String::from_utf8_lossy(&line);
            let value = serde_json::from_str(&text)
                .map_err(|_| format!("the store says: {}", text.trim()))?;
            Ok((self.read)(&value)?)
        })
    }
}

impl<T> Lines<T> {
    /// Cancel safe.
    async fn line(&mut self) -> Result<Vec<u8>, String> {
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
            if searched > LONGEST {
                return Err(format!("a document of more than {LONGEST} bytes"));
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_stands_in_a_url_whatever_it_is() {
        let config = super::super::ClientConfig {
            protocol: super::super::Protocol::Http,
            host: "store".into(),
            port: 4180,
            namespace: "a b/ü".into(),
            retry: (Duration::ZERO, Duration::ZERO),
            liveness: (Duration::MAX, Duration::MAX),
            token: None,
        };
        let api = Api::new(Way {
            config: Arc::new(config),
            secure: None,
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
