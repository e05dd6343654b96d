//! Zipkin's JSON of version 2 over HTTP, through `opentelemetry-zipkin`'s exporter with a client of ours.
//!
//! That exporter (0.33) knows no service name, no remote endpoint, and writes a parent of zeros for a root. So these travel as
//! attributes, and our client puts them where they belong in the JSON on its way out.
#![allow(
    deprecated,
    reason = "upstream is going to remove this crate; its successor would be our own JSON, about as long as `correct`"
)]

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use opentelemetry_zipkin::ZipkinExporter;
use serde_json::{Map, Value, json};

use super::export::{Carrier, SendError, SetupError};
use super::{Kind, SpanRecord};

const PATH: &str = "/api/v2/spans";
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024;

/// Attributes that are no tags; [`correct`] puts them where they belong.
const SERVICE: &str = "service.name";
const LOCAL: &str = "rutter.local";
const REMOTE: &str = "rutter.remote";
const ERROR: &str = "rutter.error";
const DEBUG: &str = "rutter.debug";

/// A collector that takes Zipkin's JSON.
pub(super) struct Zipkin {
    exporter: ZipkinExporter,
    /// The status of the last answer.
    status: Arc<AtomicU16>,
}

impl Zipkin {
    pub(super) fn new(host: &str, port: u16, path: Option<&str>) -> Result<Self, SetupError> {
        let path = path.unwrap_or(PATH).trim_start_matches('/');
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let url = format!("http://{host}:{port}/{path}");
        let status = Arc::new(AtomicU16::new(0));
        let exporter = ZipkinExporter::builder()
            .with_http_client(CorrectingClient::new(status.clone()))
            .with_collector_endpoint(url.clone())
            .build();
        let exporter = exporter.map_err(|error| SetupError {
            url,
            reason: error.to_string(),
        })?;
        Ok(Self { exporter, status })
    }
}

impl Carrier for Zipkin {
    async fn send(&mut self, spans: &[Arc<SpanRecord>]) -> Result<(), SendError> {
        self.status.store(0, Relaxed);
        let spans = spans.iter().map(|span| span_data(span)).collect();
        let sent = self.exporter.export(spans).await;
        sent.map_err(|error| match self.status.load(Relaxed) {
            // Not now, but perhaps later.
            408 | 429 => SendError::Failed(error.to_string()),
            400..500 => SendError::Refused(error.to_string()),
            _ => SendError::Failed(error.to_string()),
        })
    }
}

/// A record as OpenTelemetry has it.
fn span_data(span: &SpanRecord) -> SpanData {
    let context = &span.context;
    let trace = u128::from(context.trace.high) << 64 | u128::from(context.trace.low);
    let at = |us| UNIX_EPOCH + Duration::from_micros(us);
    let mut events = SpanEvents::default();
    let annotations = span.annotations.iter();
    events.events = annotations
        .map(|(us, value)| Event::new(value.clone(), at(*us), Vec::new(), 0))
        .collect();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace.to_be_bytes()),
            SpanId::from_bytes(context.span.0.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: context.parent.map_or(SpanId::INVALID, |parent| {
            SpanId::from_bytes(parent.0.to_be_bytes())
        }),
        parent_span_is_remote: span.kind == Kind::Server,
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        },
        name: span.name.to_string().into(),
        start_time: at(span.start_us),
        end_time: at(span.start_us + span.duration_us.max(1)),
        attributes: attributes(span),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

fn attributes(span: &SpanRecord) -> Vec<KeyValue> {
    let tags = span.tags.iter();
    let tags = tags.map(|(key, value)| KeyValue::new(key.clone(), value.to_string()));
    let local = span
        .local
        .map(|addr| KeyValue::new(LOCAL, addr.to_string()));
    let remote = span
        .remote
        .map(|addr| KeyValue::new(REMOTE, addr.to_string()));
    let error = span.error_tag().map(|text| KeyValue::new(ERROR, text));
    let debug = span.context.debug.then(|| KeyValue::new(DEBUG, "1"));
    tags.chain([KeyValue::new(SERVICE, span.service.to_string())])
        .chain(local)
        .chain(remote)
        .chain(error)
        .chain(debug)
        .collect()
}

/// An HTTP client that corrects the JSON it is given.
struct CorrectingClient {
    client: Client<HttpConnector, Full<Bytes>>,
    status: Arc<AtomicU16>,
}

impl fmt::Debug for CorrectingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CorrectingClient")
    }
}

impl CorrectingClient {
    fn new(status: Arc<AtomicU16>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        Self { client, status }
    }

    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut spans: Value = serde_json::from_slice(&body)?;
        for span in spans.as_array_mut().into_iter().flatten() {
            span.as_object_mut().map(correct);
        }
        let body = Full::new(serde_json::to_vec(&spans)?.into());
        let answer = self.client.request(http::Request::from_parts(head, body));
        let (head, body) = answer.await?.into_parts();
        self.status.store(head.status.as_u16(), Relaxed);
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(http::Response::from_parts(head, body))
    }
}

impl HttpClient for CorrectingClient {
    // As `async_trait` would write it.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

/// Puts the attributes that are no tags where they belong, and takes out what says nothing.
fn correct(span: &mut Map<String, Value>) {
    let Some(tags) = span.get_mut("tags").and_then(Value::as_object_mut) else {
        return;
    };
    let mut take = |name| match tags.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (service, local, remote) = (take(SERVICE), take(LOCAL), take(REMOTE));
    let (error, debug) = (take(ERROR), take(DEBUG));
    take("otel.library.name");
    if let Some(error) = error {
        tags.insert("error".into(), error.into());
    }
    span.insert("localEndpoint".into(), endpoint(service, local));
    if remote.is_some() {
        span.insert("remoteEndpoint".into(), endpoint(None, remote));
    }
    // Our spans have ids of their own, so they are never shared with the caller's.
    span.remove("shared");
    match debug {
        Some(_) => span.insert("debug".into(), true.into()),
        None => span.remove("debug"),
    };
    let is =
        |span: &Map<String, Value>, key, text| span.get(key).and_then(Value::as_str) == Some(text);
    if is(span, "parentId", "0000000000000000") {
        span.remove("parentId");
    }
    // 64-bit ids as they are written in headers.
    if let Some(Value::String(trace)) = span.get_mut("traceId")
        && trace.len() == 32
        && trace.starts_with("0000000000000000")
    {
        trace.drain(..16);
    }
}

fn endpoint(service: Option<String>, address: Option<String>) -> Value {
    let mut endpoint = Map::new();
    if let Some(service) = service {
        endpoint.insert("serviceName".into(), service.into());
    }
    if let Some(Ok(address)) = address.map(|a| a.parse::<SocketAddr>()) {
        let key = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        endpoint.insert(key.into(), json!(address.ip().to_string()));
        endpoint.insert("port".into(), address.port().into());
    }
    endpoint.into()
}

#[cfg(test)]
mod tests;
