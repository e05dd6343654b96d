//! Request targets as people type them. Linkerd 1's admin port takes `/delegator.json?dtab=/svc=>/host`; the HTTP library
//! here refuses a `>` that is not percent-encoded, before any page is asked. So the connection is read through
//! [`Lenient`], which encodes such bytes of request targets and passes everything else on as it came.
//!
//! Where a target begins depends on where the request before it ends: [`Scanner`] follows heads, lengths and chunks for
//! that. When it meets something that it is not sure about, it changes nothing any more on that connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;

/// Bytes of a target that `http::Uri` refuses and Linkerd's HTTP library takes.
const ENCODED: &[u8] = b"<>\"`^";
/// Of a header line no more is kept: the two that matter are short.
const LINE: usize = 128;
/// Read from the socket at once.
const READ: usize = 4096;

/// A listener whose connections are read through [`Lenient`].
pub(crate) struct LenientListener(pub(crate) TcpListener);

impl Listener for LenientListener {
    type Io = Lenient<<TcpListener as Listener>::Io>;
    type Addr = <TcpListener as Listener>::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, addr) = Listener::accept(&mut self.0).await;
        (Lenient::new(io), addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Listener::local_addr(&self.0)
    }
}

/// A connection whose request targets are put right while they are read; writing is untouched.
#[derive(Debug)]
pub struct Lenient<S> {
    inner: S,
    scanner: Scanner,
    /// Read, put right, and not yet taken.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Lenient<S> {
    /// A connection that requests come in on.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            scanner: Scanner::default(),
            ready: Vec::new(),
            taken: 0,
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let left = &self.ready[self.taken..];
        let now = left.len().min(buf.remaining());
        buf.put_slice(&left[..now]);
        self.taken += now;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken == this.ready.len() {
            if this.scanner.at == At::Unsure {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut space = [0; READ];
            let mut read = ReadBuf::new(&mut space);
            std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            this.ready.clear();
            this.taken = 0;
            this.scanner.pass(read.filled(), &mut this.ready);
        }
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where in a stream of requests the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before or in a method.
    #[default]
    Method,
    Target,
    Version,
    Headers,
    /// So many bytes of a body are left.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers,
    /// Everything passes from here on.
    Unsure,
}

/// How a head says that a body follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    Unclear,
}

/// Follows a stream of requests byte by byte.
#[derive(Debug, Default)]
struct Scanner {
    at: At,
    /// The present line's beginning, without its end.
    line: Vec<u8>,
    framing: Framing,
}

impl Scanner {
    /// Passes `bytes` on to `out`, with targets encoded.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let skipped = match self.at {
                At::Unsure => rest.len(),
                At::Body(left) | At::Chunk(left) => {
                    usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()))
                }
                _ => 0,
            };
            if skipped > 0 {
                out.extend_from_slice(&rest[..skipped]);
                self.skipped(skipped as u64);
                rest = &rest[skipped..];
                continue;
            }
            if self.at == At::Target && ENCODED.contains(&byte) {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                out.push(byte);
                self.step(byte);
            }
            rest = &rest[1..];
        }
    }

    fn skipped(&mut self, bytes: u64) {
        self.at = match self.at {
            At::Body(left) if left > bytes => At::Body(left - bytes),
            At::Body(_) => At::Method,
            At::Chunk(left) if left > bytes => At::Chunk(left - bytes),
            At::Chunk(_) => At::ChunkEnd,
            other => other,
        };
    }

    fn step(&mut self, byte: u8) {
        match (self.at, byte) {
            (At::Method, b'\r' | b'\n') if self.line.is_empty() => {} // blank lines before a request
            (At::Method, b' ') if self.line != b"PRI" => self.go(At::Target),
            (At::Method, b' ' | b'\r' | b'\n') => self.go(At::Unsure),
            (At::Target, b' ') => self.go(At::Version),
            (At::Target, b'\n') => self.go(At::Unsure),
            (At::Target, _) => {}
            (At::Version, b'\n') => {
                self.framing = Framing::None;
                self.go(At::Headers);
            }
            (At::Headers, b'\n') => self.header(),
            (At::ChunkSize, b'\n') => self.chunk(),
            (At::ChunkEnd, b'\r') => {}
            (At::ChunkEnd, b'\n') => self.go(At::ChunkSize),
            (At::ChunkEnd, _) => self.go(At::Unsure),
            (At::Trailers, b'\n') => {
                let last = self.text().is_empty();
                self.go(if last { At::Method } else { At::Trailers });
            }
            _ => {
                if self.line.len() < LINE {
                    self.line.push(byte);
                }
            }
        }
    }

    fn go(&mut self, at: At) {
        self.at = at;
        self.line.clear();
    }

    /// The present line without the `\r` of its end.
    fn text(&self) -> &[u8] {
        self.line.strip_suffix(b"\r").unwrap_or(&self.line)
    }

    fn header(&mut self) {
        if self.text().is_empty() {
            let next = match self.framing {
                Framing::None | Framing::Length(0) => At::Method,
                Framing::Length(bytes) => At::Body(bytes),
                Framing::Chunked => At::ChunkSize,
                Framing::Unclear => At::Unsure,
            };
            return self.go(next);
        }
        if let Some(found) = framing(self.text(), self.line.len() == LINE) {
            self.framing = match self.framing {
                Framing::None => found,
                _ => Framing::Unclear,
            };
        }
        self.go(At::Headers);
    }

    fn chunk(&mut self) {
        let digits = self.text().split(|byte| *byte == b';').next();
        let digits = digits.map(<[u8]>::trim_ascii).unwrap_or_default();
        let size = std::str::from_utf8(digits).ok();
        let size = size
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        self.go(match size {
            Some(0) => At::Trailers,
            Some(bytes) => At::Chunk(bytes),
            None => At::Unsure,
        });
    }
}

/// What a header line says about the body; `cut` when its end is not known.
fn framing(line: &[u8], cut: bool) -> Option<Framing> {
    if line[0].is_ascii_whitespace() {
        return Some(Framing::Unclear); // a line that goes on from the one before
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let name = &line[..colon.unwrap_or(line.len())];
    let value = colon.map_or(&[][..], |at| line[at + 1..].trim_ascii());
    let is = |wanted: &str| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
    if is("transfer-encoding") {
        return Some(if value.eq_ignore_ascii_case(b"chunked") {
            Framing::Chunked
        } else {
            Framing::Unclear
        });
    }
    if !is("content-length") {
        return None;
    }
    let number = std::str::from_utf8(value).ok();
    let number = number
        .filter(|text| !cut && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    Some(number.map_or(Framing::Unclear, Framing::Length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the bytes come in pieces of that size.
    fn passed(text: &str, piece: usize) -> String {
        let mut scanner = Scanner::default();
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            scanner.pass(piece, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    const HEAD: &str = " HTTP/1.1\r\nHost: a\r\n";

    #[test]
    fn targets_are_encoded_and_nothing_else() {
        let get = format!("GET /d?dtab=/svc=>/host;\"<`^|{{}}{HEAD}X: a>b\r\n\r\n");
        let got = format!("GET /d?dtab=/svc=%3E/host;%22%3C%60%5E|{{}}{HEAD}X: a>b\r\n\r\n");
        let post = format!("POST /x>{HEAD}Content-Length: 4\r\n\r\n/>> ");
        let posted = format!("POST /x%3E{HEAD}Content-Length: 4\r\n\r\n/>> ");
        let chunks = format!(
            "PUT /<{HEAD}transfer-encoding: Chunked\r\n\r\n3;a=b\r\n >>\r\nA\r\nGET /> ...\r\n0\r\nT: >\r\n\r\n"
        );
        let chunked = chunks.replacen("/<", "/%3C", 1);
        for piece in [1, 2, 3, 7, 4096] {
            assert_eq!(passed(&get, piece), got, "{piece}");
            assert_eq!(passed(&post, piece), posted, "{piece}");
            assert_eq!(passed(&chunks, piece), chunked, "{piece}");
            let all = format!("{get}{post}\r\n{chunks}{get}");
            let want = format!("{got}{posted}\r\n{chunked}{got}");
            assert_eq!(passed(&all, piece), want, "{piece}");
        }
    }

    #[test]
    fn what_is_not_clear_passes_untouched_from_there_on() {
        for unclear in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: 99999999999999999999999\r\n\r\n",
            "Transfer-Encoding: gzip\r\n\r\n",
            "A: b\r\n Content-Length: 3\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nab",
        ] {
            let text = format!("GET /{HEAD}{unclear}GET /> HTTP/1.1\r\n\r\n");
            assert_eq!(passed(&text, 4096), text, "{unclear}");
            assert_eq!(passed(&text, 1), text, "{unclear}");
        }
        let text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /> HTTP/1.1\r\n";
        assert_eq!(passed(text, 1), text);
    }

    #[tokio::test]
    async fn a_small_reader_gets_all_of_it_and_the_end() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(16);
        let text = format!("GET />>>>>>>>{HEAD}\r\n").repeat(3);
        let sent = text.clone();
        let writing = tokio::spawn(async move { client.write_all(sent.as_bytes()).await });
        let mut lenient = Lenient::new(server);
        let (mut got, mut small) = (Vec::new(), [0; 2]);
        loop {
            match lenient.read(&mut small).await.unwrap() {
                0 => break,
                n => got.extend_from_slice(&small[..n]),
            }
        }
        writing.await.unwrap().unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), text.replace('>', "%3E"));
    }
}
