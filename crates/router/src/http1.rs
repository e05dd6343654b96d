//! HTTP/1 as bytes: heads, framing, bodies. Bytes in, events out; no I/O, no async, and no allocation per request
//! once the buffers of a [`RequestHead`] or [`ResponseHead`] have grown.
//!
//! A head stays the bytes that came, with a small index of its lines beside it ([`Fields`]); what nobody touched is
//! written out again in runs of the same bytes. A body is never taken apart: [`BodyScanner`] only finds its end.
//!
//! **Strict.** Whatever two implementations might read in two ways is refused, never repaired and passed on: a bare
//! LF or CR, a folded line, a space before a colon, `Content-Length` beside `Transfer-Encoding`, two of either, a coding
//! other than `chunked`, a signed or overflowing size. What is accepted, hyper reads in the same way (`tests.rs`), and
//! the verdict depends on the bytes alone, never on the pieces in which they came.
//!
//! Sources: RFC 9110, RFC 9112; `smuggling.txt` lists what is refused, case by case.

use std::io::Write as _;

mod body;
mod error;
mod fields;
mod framing;
mod request;
mod response;
mod scan;
mod target;
#[cfg(test)]
mod tests;

pub use body::{BodyScanner, Scanned};
pub use error::{BodyError, HeadError};
pub use fields::{Fields, strip_hop_by_hop};
pub use request::RequestHead;
pub use response::ResponseHead;
pub(crate) use scan::is_same;
pub use target::{AbsoluteForm, TargetForm, absolute_form, valid_authority};

/// How much of a head is taken before it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The whole head with its empty line, in bytes. Linkerd 1's `maxHeadersKB` does not count the first line.
    pub head: usize,
    /// The first line without its CR LF, in bytes.
    pub line: usize,
    /// How many field lines.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 * 1024,
            line: 32 * 1024,
            fields: 200,
        }
    }
}

/// The version of a message. All others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`
    Http10,
    /// `HTTP/1.1`
    Http11,
}

impl Version {
    /// As on the wire: `HTTP/1.1`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }

    fn read(text: &[u8]) -> Option<Self> {
        match text {
            b"HTTP/1.0" => Some(Self::Http10),
            b"HTTP/1.1" => Some(Self::Http11),
            _ => None,
        }
    }
}

/// The methods that routing or framing asks for; [`RequestHead::method`] has the bytes of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Connect,
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    /// Reads a method; methods are case-sensitive, so that `get` is [`Method::Other`].
    #[must_use]
    pub fn read(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether a request only asks, so that sending it twice does what sending it once does (RFC 9110 9.2.1).
    #[must_use]
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }
}

/// Where a message's body ends (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// As many bytes, as `Content-Length` says; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// At the end of the connection; responses only.
    UntilClose,
}

/// What became of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Its end has not come yet: call again with the same bytes and more.
    Partial,
    /// The head is whole.
    Complete {
        /// Its length with the empty line; the body begins there.
        consumed: usize,
    },
}

/// Writes a whole response of the router's own, with its `Content-Length`.
///
/// Header values are made safe for a line: a control character becomes a space.
pub fn write_response(
    out: &mut Vec<u8>,
    version: Version,
    status: u16,
    reason: &str,
    headers: &[(&str, &[u8])],
    body: &[u8],
) {
    write_response_head(
        out,
        version,
        status,
        reason,
        headers,
        Some(body.len() as u64),
    );
    if !framing::bodiless(status) {
        out.extend_from_slice(body);
    }
}

/// Writes the head alone, as the answer to HEAD is: `length` is that of the body that GET would have got, `None` when
/// the body's end is told otherwise (by `headers`, or by closing the connection). 1xx and 204 never get a length.
pub fn write_response_head(
    out: &mut Vec<u8>,
    version: Version,
    status: u16,
    reason: &str,
    headers: &[(&str, &[u8])],
    length: Option<u64>,
) {
    out.extend_from_slice(version.as_str().as_bytes());
    out.push(b' ');
    let _ = write!(out, "{status} ");
    scan::push_value(out, reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        fields::push_line(out, name.as_bytes(), value);
    }
    if let Some(length) = length.filter(|_| status >= 200 && status != 204) {
        let _ = write!(out, "Content-Length: {length}\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes `data` as one chunk; nothing when it is empty, for an empty chunk would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        let _ = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
