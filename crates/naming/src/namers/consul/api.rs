//! Calls of Consul's HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::ConsulConfig;
use crate::words;

/// As Linkerd's. Consul blocks for five minutes when it is not told otherwise, and up to a sixteenth longer.
pub(super) const BLOCKING: Duration = Duration::from_secs(600);
/// For a question that is answered at once, or that Consul does not block.
const PLAIN: Duration = Duration::from_secs(30);
/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const LONGEST: usize = 32 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("it answers {status}: {message}")]
    Status { status: StatusCode, message: String },
    /// As it has no index, nobody could wait for the next one.
    #[error("its answer has no X-Consul-Index: is it Consul?")]
    NoIndex,
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
}

/// An answer, and the state of the catalogue that it is of.
#[derive(Debug)]
pub(super) struct Indexed<T> {
    pub(super) value: T,
    pub(super) index: u64,
}

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) datacenter: Option<String>,
    /// Of names in Consul's DNS, without dots around it.
    pub(super) domain: String,
}

pub(super) struct Api {
    client: Client<HttpConnector, Empty<Bytes>>,
    host: String,
    token: Option<HeaderValue>,
    /// For a question that blocks.
    limit: Duration,
}

impl Api {
    pub(super) fn new(config: &ConsulConfig, limit: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        // A peer that is gone without a word is noticed while a query blocks.
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let host = match config.host.contains(':') {
            true => format!("[{}]:{}", config.host, config.port),
            false => format!("{}:{}", config.host, config.port),
        };
        // The configuration has been checked for it.
        let token = config.token.as_deref();
        let token = token.and_then(|token| HeaderValue::from_str(token).ok());
        Self {
            client,
            host,
            token,
            limit,
        }
    }

    /// The answer to a GET, with its index when one is expected.
    pub(super) async fn get(&self, uri: &str, indexed: bool) -> Result<Indexed<Bytes>, ApiError> {
        // Only the parameter looks like this: in texts the sign is encoded.
        let limit = match uri.contains("index=") {
            true => self.limit,
            false => self.limit.min(PLAIN),
        };
        let call = tokio::time::timeout(limit, self.call(uri, indexed));
        call.await.unwrap_or(Err(ApiError::Silent(limit)))
    }

    async fn call(&self, uri: &str, indexed: bool) -> Result<Indexed<Bytes>, ApiError> {
        let unreachable =
            |error: &(dyn std::error::Error + 'static)| ApiError::Unreachable(words(error));
        let mut request = Request::get(format!("http://{}{uri}", self.host))
            .header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| unreachable(&error))?;
        let answer = self.client.request(request).await;
        let (head, body) = answer.map_err(|error| unreachable(&error))?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|error| unreachable(&*error))?.to_bytes();
        if !head.status.is_success() {
            let start = &body[..body.len().min(200)];
            return Err(ApiError::Status {
                status: head.status,
                message: String::from_utf8_lossy(start).trim().to_owned(),
            });
        }
        let index = head.headers.get("X-Consul-Index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        match index {
            Some(index) => Ok(Indexed { value: body, index }),
            None if !indexed => Ok(Indexed {
                value: body,
                index: 0,
            }),
            None => Err(ApiError::NoIndex),
        }
    }
}

impl Agent {
    /// Of `/v1/agent/self`. Newer agents tell the domain in another place than older ones.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Own {
            config: Option<Config>,
            debug_config: Option<DebugConfig>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Config {
            datacenter: Option<String>,
            domain: Option<String>,
        }
        #[derive(Deserialize)]
        struct DebugConfig {
            #[serde(rename = "DNSDomain")]
            domain: Option<String>,
        }
        let own: Own = serde_json::from_slice(body)
            .map_err(|error| ApiError::Unreadable(error.to_string()))?;
        let (datacenter, domain) = match own.config {
            Some(config) => (config.datacenter, config.domain),
            None => (None, None),
        };
        let domain = domain.or(own.debug_config.and_then(|debug| debug.domain));
        let domain = domain.unwrap_or_else(|| "consul".to_owned());
        Ok(Self {
            datacenter,
            domain: domain.trim_matches('.').to_owned(),
        })
    }
}

/// A text as a part of a path or of a query.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}
