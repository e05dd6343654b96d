//! Scribe: a framed thrift call `Log` with a base64 thrift struct for each span, as Finagle's tracer sends them.
//!
//! Field numbers are those of Zipkin's `zipkinCore.thrift` and scribe's `scribe.thrift`; only what these two need of the binary protocol is here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::export::{Carrier, SendError};
use super::{Kind, SpanRecord};
use crate::trace::base64;

/// For one of the collector's addresses; the next is tried after it.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// An answer is a few dozen bytes; more is no scribe.
const MAX_ANSWER: usize = 4096;

/// A collector that speaks scribe, and the connection to it.
pub(super) struct Scribe {
    host: String,
    port: u16,
    connection: Option<TcpStream>,
    sequence: i32,
}

impl Scribe {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            connection: None,
            sequence: 0,
        }
    }

    async fn exchange(&mut self, call: &[u8]) -> io::Result<Vec<u8>> {
        // Taken out, so that a failed or abandoned exchange leaves none behind.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.host, self.port).await?,
        };
        connection.write_all(call).await?;
        let len = connection.read_u32().await? as usize;
        if len > MAX_ANSWER {
            return Err(io::Error::other(format!(
                "an answer of {len} bytes is no scribe's"
            )));
        }
        let mut answer = vec![0; len];
        connection.read_exact(&mut answer).await?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::other(format!("{address} does not answer")),
        }
    }
    Err(last)
}

impl Carrier for Scribe {
    async fn send(&mut self, spans: &[Arc<SpanRecord>]) -> Result<(), SendError> {
        self.sequence = self.sequence.wrapping_add(1);
        let call = log_call(self.sequence, spans);
        let answer = self.exchange(&call).await;
        let answer =
            answer.map_err(|e| SendError::Failed(format!("{}:{}: {e}", self.host, self.port)))?;
        match result_code(&answer) {
            Some(0) => Ok(()),
            Some(1) => Err(SendError::Failed("the collector says to try later".into())),
            Some(code) => Err(SendError::Refused(format!("the collector answers {code}"))),
            None => Err(SendError::Refused(
                "the collector does not speak scribe".into(),
            )),
        }
    }
}

/// Thrift's type numbers.
mod kind {
    pub(super) const BOOL: u8 = 2;
    pub(super) const I16: u8 = 6;
    pub(super) const I32: u8 = 8;
    pub(super) const I64: u8 = 10;
    pub(super) const STRING: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
    pub(super) const LIST: u8 = 15;
}

const CALL: u32 = 0x8001_0001;
const REPLY: u32 = 0x8001_0002;

/// Zipkin's annotation types.
const TYPE_BOOL: i32 = 0;
const TYPE_STRING: i32 = 6;

/// Room for a span, in bytes: most need less.
const SPAN: usize = 2048;

/// The frame of `Log([LogEntry("zipkin", span), …])`.
fn log_call(sequence: i32, spans: &[Arc<SpanRecord>]) -> Vec<u8> {
    let mut out = Thrift(Vec::with_capacity(64 + spans.len() * SPAN));
    let mut encoded = Thrift(Vec::with_capacity(SPAN));
    out.0.extend([0; 4]);
    out.0.extend(CALL.to_be_bytes());
    out.bytes(b"Log");
    out.i32(sequence);
    out.list(1, kind::STRUCT, spans.len());
    for span in spans {
        out.field(1, kind::STRING);
        out.bytes(b"zipkin");
        encoded.0.clear();
        encoded.span(span);
        out.field(2, kind::STRING);
        out.base64(&encoded.0);
        out.stop();
    }
    out.stop();
    let len = out.0.len() as u32 - 4;
    out.0[..4].copy_from_slice(&len.to_be_bytes());
    out.0
}

/// The result code in a reply to `Log`; none when it is no such reply.
fn result_code(answer: &[u8]) -> Option<i32> {
    let (version, rest) = answer.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let rest = rest.get(u32::from_be_bytes(*len) as usize..)?;
    let (_sequence, rest) = rest.split_first_chunk::<4>()?;
    // The result is the struct's field 0, an i32.
    let code = rest.strip_prefix(&[kind::I32, 0, 0])?.first_chunk()?;
    (u32::from_be_bytes(*version) == REPLY).then_some(i32::from_be_bytes(*code))
}

/// A writer of thrift's binary protocol.
struct Thrift(Vec<u8>);

impl Thrift {
    fn field(&mut self, id: i16, kind: u8) {
        self.0.push(kind);
        self.0.extend(id.to_be_bytes());
    }

    fn stop(&mut self) {
        self.0.push(0);
    }

    fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    fn i64_field(&mut self, id: i16, value: u64) {
        self.field(id, kind::I64);
        self.0.extend(value.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.i32(bytes.len() as i32);
        self.0.extend(bytes);
    }

    fn text_field(&mut self, id: i16, text: &str) {
        self.field(id, kind::STRING);
        self.bytes(text.as_bytes());
    }

    fn base64(&mut self, bytes: &[u8]) {
        let len = bytes.len().div_ceil(3) * 4;
        self.i32(len as i32);
        let start = self.0.len();
        self.0.resize(start + len, 0);
        base64::encode(bytes, &mut self.0[start..]);
    }

    fn list(&mut self, id: i16, kind: u8, len: usize) {
        self.field(id, kind::LIST);
        self.0.push(kind);
        self.i32(len as i32);
    }

    fn span(&mut self, span: &SpanRecord) {
        let context = &span.context;
        self.i64_field(1, context.trace.low);
        self.text_field(3, &span.name);
        self.i64_field(4, context.span.0);
        if let Some(parent) = context.parent {
            self.i64_field(5, parent.0);
        }
        self.annotations(span);
        self.binary_annotations(span);
        if context.debug {
            self.field(9, kind::BOOL);
            self.0.push(1);
        }
        self.i64_field(10, span.start_us);
        self.i64_field(11, span.duration_us.max(1));
        if context.trace.high != 0 {
            self.i64_field(12, context.trace.high);
        }
        self.stop();
    }

    /// Beginning and end as Finagle calls them, and what happened between.
    fn annotations(&mut self, span: &SpanRecord) {
        let (begin, end) = match span.kind {
            Kind::Server => ("sr", "ss"),
            Kind::Client => ("cs", "cr"),
        };
        let core = [
            (span.start_us, begin),
            (span.start_us + span.duration_us.max(1), end),
        ];
        let other = span.annotations.iter();
        let other = other.map(|(at, value)| (*at, value.as_ref()));
        self.list(6, kind::STRUCT, 2 + span.annotations.len());
        for (at, value) in core.into_iter().chain(other) {
            self.i64_field(1, at);
            self.text_field(2, value);
            self.field(3, kind::STRUCT);
            self.endpoint(span.local, &span.service);
            self.stop();
        }
    }

    /// Tags, and the address of the other side.
    fn binary_annotations(&mut self, span: &SpanRecord) {
        let error = span.error_tag();
        let tags = span.tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref()));
        let tags = tags.chain(error.map(|text| ("error", text)));
        let count = span.tags.len() + usize::from(error.is_some());
        self.list(8, kind::STRUCT, count + usize::from(span.remote.is_some()));
        for (key, value) in tags {
            self.binary_annotation(key, value.as_bytes(), TYPE_STRING);
            self.endpoint(span.local, &span.service);
            self.stop();
        }
        if span.remote.is_some() {
            let key = match span.kind {
                Kind::Server => "ca",
                Kind::Client => "sa",
            };
            self.binary_annotation(key, &[1], TYPE_BOOL);
            // Nameless: with a name Zipkin would draw a second edge to it.
            self.endpoint(span.remote, "");
            self.stop();
        }
    }

    /// All but the end, with the field for the endpoint begun.
    fn binary_annotation(&mut self, key: &str, value: &[u8], value_kind: i32) {
        self.text_field(1, key);
        self.field(2, kind::STRING);
        self.bytes(value);
        self.field(3, kind::I32);
        self.i32(value_kind);
        self.field(4, kind::STRUCT);
    }

    fn endpoint(&mut self, address: Option<SocketAddr>, service: &str) {
        let ip = address.map(|a| a.ip());
        self.field(1, kind::I32);
        match ip {
            Some(IpAddr::V4(ip)) => self.0.extend(ip.octets()),
            _ => self.i32(0),
        }
        self.field(2, kind::I16);
        self.0.extend(address.map_or(0, |a| a.port()).to_be_bytes());
        self.text_field(3, service);
        if let Some(IpAddr::V6(ip)) = ip {
            self.field(4, kind::STRING);
            self.bytes(&ip.octets());
        }
        self.stop();
    }
}

#[cfg(test)]
mod tests;
