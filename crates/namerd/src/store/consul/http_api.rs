//! Calls of Consul's HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use naming::words;

use super::ConsulStoreConfig;

/// For a connection.
const CONNECT: Duration = Duration::from_millis(1_500);
/// The longest answer that is read.
const LONGEST: usize = 256 << 20;

pub(super) struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    host: String,
    token: Option<HeaderValue>,
}

/// What Consul answers.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Of the last change of what was asked for.
    pub(super) index: Option<u64>,
    pub(super) body: Bytes,
}

impl Answer {
    /// The beginning of its body, for messages.
    pub(super) fn text(&self) -> String {
        let start = &self.body[..self.body.len().min(200)];
        String::from_utf8_lossy(start).trim().to_owned()
    }
}

impl Api {
    pub(super) fn new(config: &ConsulStoreConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        // A peer that is gone without a word is noticed while a query blocks.
        connector.set_keepalive(Some(Duration::from_secs(15)));
        let host = match config.host.contains(':') {
            true => format!("[{}]:{}", config.host, config.port),
            false => format!("{}:{}", config.host, config.port),
        };
        // The configuration has been checked for it.
        let token = config.token.as_deref();
        let token = token.and_then(|token| HeaderValue::from_str(token).ok());
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            host,
            token,
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// One call; an error says why there is no answer.
    pub(super) async fn call(
        &self,
        method: Method,
        uri: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, String> {
        let answered = tokio::time::timeout(limit, self.answered(method, uri, body)).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    async fn answered(&self, method: Method, uri: &str, body: Vec<u8>) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{uri}", self.host));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| words(&error))?;
        let answer = self.client.request(request).await;
        let (head, body) = answer.map_err(|error| words(&error))?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        let index = head.headers.get("X-Consul-Index");
        Ok(Answer {
            status: head.status,
            index: index.and_then(|index| index.to_str().ok()?.parse().ok()),
            body: body.map_err(|error| words(&*error))?.to_bytes(),
        })
    }
}
