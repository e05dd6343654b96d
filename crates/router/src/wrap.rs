//! What is done to a response's body on its way, where it does not just pass: compression (`compressionLevel`), and the
//! lines that a diagnostic TRACE adds at its end. Whatever it is, the body goes in chunks.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::http1::{Fields, Framing, LAST_CHUNK, Method, RequestHead, ResponseHead, write_chunk};

/// A body of a known length below this is not worth compressing.
const LEAST: u64 = 256;

/// A body's way to the client: each piece, and the end. Streams: what came in has gone out before more is waited for.
pub(crate) enum Wrapper {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    /// The body as it is, and this behind it.
    Tail(Vec<u8>),
}

/// A content coding that we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

impl Wrapper {
    /// Takes in a piece of the body.
    pub(crate) fn data(&mut self, data: &[u8], out: &mut Vec<u8>) {
        // Writing into memory does not fail.
        match self {
            Self::Gzip(encoder) => _ = encoder.write_all(data),
            Self::Deflate(encoder) => _ = encoder.write_all(data),
            Self::Tail(_) => write_chunk(out, data),
        }
    }

    /// No more has come for the moment: what is there goes out.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        let packed = match self {
            Self::Gzip(encoder) => {
                _ = encoder.flush();
                encoder.get_mut()
            }
            Self::Deflate(encoder) => {
                _ = encoder.flush();
                encoder.get_mut()
            }
            Self::Tail(_) => return,
        };
        write_chunk(out, packed);
        packed.clear();
    }

    /// The body has ended.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        let last = match self {
            Self::Gzip(encoder) => encoder.finish().unwrap_or_default(),
            Self::Deflate(encoder) => encoder.finish().unwrap_or_default(),
            Self::Tail(tail) => tail,
        };
        write_chunk(out, &last);
        out.extend_from_slice(LAST_CHUNK);
    }

    /// The lines behind a body; `framing` is that of the body as it comes.
    pub(crate) fn tail(response: &mut ResponseHead, tail: Vec<u8>) -> Self {
        chunked(response);
        Self::Tail(tail)
    }

    /// Compression at this level (1 to 9) of the response to a request, when it can be and its client wants it; its head
    /// says so then. Never of events, ranges and what is encoded already, nor of anything but text.
    pub(crate) fn compress(
        level: u32,
        request: &RequestHead,
        response: &mut ResponseHead,
        framing: Framing,
    ) -> Option<Self> {
        let short =
            matches!(framing, Framing::None) || matches!(framing, Framing::Length(n) if n < LEAST);
        if short || request.is_method(Method::Head) || !is_compressible(response) {
            return None;
        }
        vary(response);
        let level = Compression::new(level);
        let coding = wanted(request)?;
        let (name, wrapper): (&[u8], _) = match coding {
            Coding::Gzip => (b"gzip", Self::Gzip(GzEncoder::new(Vec::new(), level))),
            Coding::Deflate => (
                b"deflate",
                Self::Deflate(ZlibEncoder::new(Vec::new(), level)),
            ),
        };
        response.append(b"Content-Encoding", name);
        // Digests and ranges are of the bytes that the endpoint sent.
        for name in ["Accept-Ranges", "Content-MD5", "Content-Digest", "Digest"] {
            response.remove(name);
        }
        if let Some(tag) = response.get("ETag").filter(|tag| !tag.starts_with(b"W/")) {
            let weak = [b"W/", tag].concat();
            response.set("ETag", &weak);
        }
        chunked(response);
        Some(wrapper)
    }
}

fn chunked(response: &mut ResponseHead) {
    response.remove("Content-Length");
    response.remove("Transfer-Encoding");
    response.append(b"Transfer-Encoding", b"chunked");
}

/// Caches are to know that another client may get another body.
fn vary(response: &mut ResponseHead) {
    let names = |name: &str| response.contains_token("Vary", name);
    if !names("*") && !names("Accept-Encoding") {
        response.append(b"Vary", b"Accept-Encoding");
    }
}

fn is_compressible(response: &ResponseHead) -> bool {
    let whole = matches!(response.status(), 200..=299 | 400..=599)
        && !matches!(response.status(), 204..=206);
    let as_it_is = response.get("Content-Encoding").is_none()
        && response.get("Content-Range").is_none()
        && response.get("Trailer").is_none()
        && !response.contains_token("Cache-Control", "no-transform");
    whole && as_it_is && response.get("Content-Type").is_some_and(is_text)
}

/// As Finagle's list of textual types; of `text/*` all but events, which would be held up.
fn is_text(value: &[u8]) -> bool {
    let end = value.iter().position(|byte| *byte == b';');
    let kind = value[..end.unwrap_or(value.len())].trim_ascii();
    let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => false,
        "application/json"
        | "application/javascript"
        | "application/x-javascript"
        | "application/xml"
        | "application/x-www-form-urlencoded"
        | "image/svg+xml" => true,
        kind => {
            kind.starts_with("text/")
                || kind.starts_with("application/")
                    && (kind.ends_with("+json") || kind.ends_with("+xml"))
        }
    }
}

/// The coding that the client likes best, of those we have; gzip among equals.
fn wanted(request: &RequestHead) -> Option<Coding> {
    let mut rest = None;
    let (mut gzip, mut deflate) = (None, None);
    for one in listed(request) {
        let mut parts = one.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts
            .find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")))
            .map_or(Some(1.0), |q| {
                std::str::from_utf8(q).ok()?.parse::<f32>().ok()
            })
            .unwrap_or(0.0);
        let is = |coding: &[u8]| name.eq_ignore_ascii_case(coding);
        match () {
            () if is(b"gzip") || is(b"x-gzip") => gzip = Some(weight),
            () if is(b"deflate") => deflate = Some(weight),
            () if is(b"*") => rest = Some(weight),
            () => {}
        }
    }
    let weight = |own: Option<f32>| own.or(rest).unwrap_or(0.0);
    let (gzip, deflate) = (weight(gzip), weight(deflate));
    match () {
        () if gzip > 0.0 && gzip >= deflate => Some(Coding::Gzip),
        () if deflate > 0.0 => Some(Coding::Deflate),
        () => None,
    }
}

fn listed(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let all = fields.values("Accept-Encoding");
    all.flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    fn request(accept: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let text = format!("GET / HTTP/1.1\r\nHost: web\r\nAccept-Encoding: {accept}\r\n\r\n");
        head.parse(text.as_bytes(), &Limits::default()).unwrap();
        head
    }

    fn response(fields: &str) -> ResponseHead {
        let mut head = ResponseHead::new();
        let text = format!("HTTP/1.1 {fields}\r\n");
        head.parse(text.as_bytes(), &Limits::default()).unwrap();
        head
    }

    #[test]
    fn the_coding_that_the_client_likes_best_is_made() {
        for (accept, want) in [
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("deflate, gzip;q=0.5", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("*", Some(Coding::Gzip)),
            ("gzip;q=0, *;q=0.1", Some(Coding::Deflate)),
            ("identity", None),
            ("br", None),
            ("gzip;q=nonsense", None),
            ("", None),
        ] {
            assert_eq!(wanted(&request(accept)), want, "{accept}");
        }
    }

    #[test]
    fn only_text_that_is_whole_and_not_encoded_is_compressed() {
        let text = "Content-Type: text/html; charset=utf-8\r\n";
        for (status, fields, framing, want) in [
            ("200 OK", text, Framing::Length(5000), true),
            ("200 OK", text, Framing::Chunked, true),
            ("404 Not Found", text, Framing::Length(5000), true),
            (
                "200 OK",
                "Content-Type: application/problem+json\r\n",
                Framing::Chunked,
                true,
            ),
            (
                "200 OK",
                "Content-Type: text/event-stream\r\n",
                Framing::Chunked,
                false,
            ),
            (
                "200 OK",
                "Content-Type: image/png\r\n",
                Framing::Length(5000),
                false,
            ),
            ("200 OK", "", Framing::Length(5000), false),
            ("200 OK", text, Framing::Length(100), false),
            ("200 OK", text, Framing::None, false),
            ("206 Partial Content", text, Framing::Length(5000), false),
        ] {
            let mut head = response(&format!("{status}\r\n{fields}"));
            let found = Wrapper::compress(6, &request("gzip"), &mut head, framing).is_some();
            assert_eq!(found, want, "{status} {fields} {framing:?}");
        }
        for more in [
            "Content-Encoding: br",
            "Content-Range: bytes 0-1/2",
            "Trailer: a",
            "Cache-Control: public, no-transform",
        ] {
            let mut head = response(&format!("200 OK\r\n{text}{more}\r\n"));
            assert!(
                Wrapper::compress(6, &request("gzip"), &mut head, Framing::Chunked).is_none(),
                "{more}"
            );
        }
    }

    #[test]
    fn the_head_says_what_became_of_the_body() {
        let mut head = response(
            "200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\n",
        );
        Wrapper::compress(6, &request("gzip"), &mut head, Framing::Length(5000)).unwrap();
        for (name, want) in [
            ("Content-Encoding", Some("gzip")),
            ("Content-Length", None),
            ("Transfer-Encoding", Some("chunked")),
            ("ETag", Some("W/\"a\"")),
            ("Accept-Ranges", None),
            ("Vary", Some("Accept-Encoding")),
        ] {
            assert_eq!(head.get(name), want.map(str::as_bytes), "{name}");
        }
        let mut plain = response("200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n");
        assert!(
            Wrapper::compress(6, &request("identity"), &mut plain, Framing::Length(5000)).is_none()
        );
        assert_eq!(plain.get("Vary"), Some(&b"Accept-Encoding"[..]));
    }
}
