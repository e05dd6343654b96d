//! Zipkin's JSON of version 2 over HTTP, through `opentelemetry-zipkin`'s exporter with a client of ours.
//!
//! That exporter (0.33) knows no service name, no remote endpoint, and writes a parent of zeros for a root. It makes ids, kind,
//! name, times and annotations; our client adds the rest from the records themselves on the way out, tags too: as attributes they
//! would go through a map and through JSON twice.
#![allow(
    deprecated,
    reason = "upstream is going to remove this crate; its successor would be our own JSON, a little more than `Completed`"
)]

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use opentelemetry_zipkin::ZipkinExporter;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::export::{Carrier, SendError, SetupError};
use super::{Kind, SpanRecord};
use crate::lock;

const PATH: &str = "/api/v2/spans";
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024;

/// Spans on their way, of which the exporter knows a part.
type Batch = Vec<Arc<SpanRecord>>;

/// A collector that takes Zipkin's JSON.
pub(super) struct Zipkin {
    exporter: ZipkinExporter,
    way_out: Arc<WayOut>,
}

/// What [`Zipkin`] shares with its exporter's client.
#[derive(Default)]
struct WayOut {
    /// What is being sent.
    batch: Mutex<Batch>,
    /// The status of the last answer.
    status: AtomicU16,
}

impl Zipkin {
    pub(super) fn new(host: &str, port: u16, path: Option<&str>) -> Result<Self, SetupError> {
        let path = path.unwrap_or(PATH).trim_start_matches('/');
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let url = format!("http://{host}:{port}/{path}");
        let way_out = Arc::<WayOut>::default();
        let exporter = ZipkinExporter::builder()
            .with_http_client(CompletingClient::new(Arc::clone(&way_out)))
            .with_collector_endpoint(url.clone())
            .build();
        let exporter = exporter.map_err(|error| SetupError {
            url,
            reason: error.to_string(),
        })?;
        Ok(Self { exporter, way_out })
    }
}

impl Carrier for Zipkin {
    async fn send(&mut self, spans: &[Arc<SpanRecord>]) -> Result<(), SendError> {
        let known = spans.iter().map(|span| span_data(span)).collect();
        self.way_out.status.store(0, Relaxed);
        self.way_out.give(spans.to_vec());
        let sent = self.exporter.export(known).await;
        sent.map_err(|error| match self.way_out.status.load(Relaxed) {
            // Not now, but perhaps later.
            408 | 429 => SendError::Failed(error.to_string()),
            400..500 => SendError::Refused(error.to_string()),
            _ => SendError::Failed(error.to_string()),
        })
    }
}

impl WayOut {
    fn give(&self, batch: Batch) {
        *lock(&self.batch) = batch;
    }

    fn take(&self) -> Batch {
        std::mem::take(&mut *lock(&self.batch))
    }
}

/// What OpenTelemetry has of a record, without its tags.
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
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

/// An HTTP client that completes the JSON it is given.
struct CompletingClient {
    client: Client<HttpConnector, Full<Bytes>>,
    way_out: Arc<WayOut>,
}

impl fmt::Debug for CompletingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompletingClient")
    }
}

impl CompletingClient {
    fn new(way_out: Arc<WayOut>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        Self { client, way_out }
    }

    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let body = Full::new(completed(&body, &self.way_out.take())?.into());
        let answer = self.client.request(http::Request::from_parts(head, body));
        let (head, body) = answer.await?.into_parts();
        self.way_out.status.store(head.status.as_u16(), Relaxed);
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(http::Response::from_parts(head, body))
    }
}

impl HttpClient for CompletingClient {
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

/// The exporter's JSON with what it does not know of these records, in the same order.
fn completed(body: &[u8], batch: &[Arc<SpanRecord>]) -> serde_json::Result<Vec<u8>> {
    let written: Vec<Written<'_>> = serde_json::from_slice(body)?;
    let both = written.iter().zip(batch);
    let spans: Vec<_> = both
        .map(|(written, span)| Completed::new(written, span))
        .collect();
    serde_json::to_vec(&spans)
}

/// What is kept of a span as the exporter writes it. `shared` is not: our spans have ids of their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    trace_id: &'a str,
    parent_id: &'a str,
    id: &'a str,
    kind: &'a str,
    #[serde(borrow)]
    name: &'a RawValue,
    timestamp: u64,
    duration: u64,
    #[serde(borrow)]
    annotations: &'a RawValue,
}

/// A span as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Completed<'a> {
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<&'a str>,
    id: &'a str,
    kind: &'a str,
    name: &'a RawValue,
    timestamp: u64,
    duration: u64,
    local_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<Endpoint<'a>>,
    annotations: &'a RawValue,
    tags: Tags<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    debug: bool,
}

impl<'a> Completed<'a> {
    fn new(written: &Written<'a>, span: &'a SpanRecord) -> Self {
        // 64-bit ids as they are written in headers.
        let trace_id = match written.trace_id.strip_prefix("0000000000000000") {
            Some(short) if short.len() == 16 => short,
            _ => written.trace_id,
        };
        Self {
            trace_id,
            parent_id: span.context.parent.map(|_| written.parent_id),
            id: written.id,
            kind: written.kind,
            name: written.name,
            timestamp: written.timestamp,
            duration: written.duration,
            local_endpoint: Endpoint::new(Some(&span.service), span.local),
            remote_endpoint: span.remote.map(|remote| Endpoint::new(None, Some(remote))),
            annotations: written.annotations,
            tags: Tags(span),
            debug: span.context.debug,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl<'a> Endpoint<'a> {
    fn new(service_name: Option<&'a str>, addr: Option<SocketAddr>) -> Self {
        let (ipv4, ipv6) = match addr {
            None => (None, None),
            Some(SocketAddr::V4(addr)) => (Some(*addr.ip()), None),
            Some(SocketAddr::V6(addr)) => (None, Some(*addr.ip())),
        };
        Self {
            service_name,
            ipv4,
            ipv6,
            port: addr.map(|addr| addr.port()),
        }
    }
}

/// A record's tags, and what its error is.
struct Tags<'a>(&'a SpanRecord);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(span) = self;
        let tags = span.tags.iter().map(|(key, value)| (&**key, &**value));
        to.collect_map(tags.chain(span.error_tag().map(|text| ("error", text))))
    }
}

#[cfg(test)]
mod tests;
