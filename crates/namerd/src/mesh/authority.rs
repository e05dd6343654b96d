//! Requests without an authority, as Linkerd 1's gRPC client sends them.
//!
//! It writes `:authority` with an empty value, which our HTTP/2 takes for malformed and resets the stream. Its HPACK
//! encoder has one byte for that, the first entry of the static table; here that byte is taken out of the head before
//! anybody else sees it, which changes no table. Written out with its empty value, it gets one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client begins with.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
/// Longer heads than a frame takes unless told otherwise pass as they are.
const MAX_HEAD: usize = 16_384;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index 1 of the static table: `:authority` with nothing.
const NO_AUTHORITY: u8 = 0x81;

/// A connection whose client may leave the authority empty.
#[derive(Debug)]
pub(crate) struct WithoutAuthority<S> {
    inner: S,
    heads: Heads,
    /// What has come and may be read, from `at` on.
    ready: Vec<u8>,
    at: usize,
}

impl<S> WithoutAuthority<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self {
            inner,
            heads: Heads::new(),
            ready: Vec::new(),
            at: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithoutAuthority<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.at == this.ready.len() {
            this.ready.clear();
            this.at = 0;
            let mut space = [0; 8192];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // What was held back of a frame that never became whole.
                this.ready.append(&mut this.heads.held);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.heads.pass(read.filled(), &mut this.ready);
            }
        }
        let rest = &this.ready[this.at..];
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        this.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithoutAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
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
}

/// The pure part: what a client sent, with its heads put right.
#[derive(Debug)]
pub struct Heads {
    /// Of the preface, or of a frame that passes, so much is still to come.
    passing: usize,
    /// A frame's head, and all of a frame of headers, until they are whole.
    held: Vec<u8>,
}

impl Default for Heads {
    fn default() -> Self {
        Self::new()
    }
}

impl Heads {
    /// The begin of a connection.
    pub const fn new() -> Self {
        Self {
            passing: PREFACE,
            held: Vec::new(),
        }
    }

    /// Takes in what came, and writes what may be read of it.
    pub fn pass(&mut self, mut came: &[u8], out: &mut Vec<u8>) {
        while !came.is_empty() {
            if self.passing > 0 {
                let taken = self.passing.min(came.len());
                out.extend_from_slice(&came[..taken]);
                self.passing -= taken;
                came = &came[taken..];
                continue;
            }
            let wanted = self.wanted() - self.held.len();
            let taken = wanted.min(came.len());
            self.held.extend_from_slice(&came[..taken]);
            came = &came[taken..];
            if self.held.len() < FRAME_HEAD {
                continue;
            }
            let length = frame_length(&self.held);
            if self.held[3] != HEADERS || length > MAX_HEAD {
                out.append(&mut self.held);
                self.passing = length;
            } else if self.held.len() == FRAME_HEAD + length {
                out.append(&mut with_an_authority_or_none(std::mem::take(
                    &mut self.held,
                )));
            }
        }
    }

    /// How much is to be held.
    fn wanted(&self) -> usize {
        match self.held.len() {
            less if less < FRAME_HEAD => FRAME_HEAD,
            _ => FRAME_HEAD + frame_length(&self.held),
        }
    }
}

fn frame_length(frame: &[u8]) -> usize {
    usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])
}

/// A frame of headers, put right. One whose block goes on in further frames, or cannot be followed, stays as it is: who
/// reads it says what is wrong.
fn with_an_authority_or_none(frame: Vec<u8>) -> Vec<u8> {
    let flags = frame[4];
    let padding = match flags & PADDED {
        0 => 0,
        _ => usize::from(frame.get(FRAME_HEAD).copied().unwrap_or_default()),
    };
    let begin =
        FRAME_HEAD + usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let Some(end) = frame.len().checked_sub(padding).filter(|end| begin <= *end) else {
        return frame;
    };
    if flags & END_HEADERS == 0 {
        return frame;
    }
    let Some(place) = find(&frame[begin..end]) else {
        return frame;
    };
    let mut frame = frame;
    match place {
        Place::Index(at) => _ = frame.remove(begin + at),
        Place::Value(at) => {
            // `:authority: -`, wherever later heads refer to it.
            frame[begin + at] = 1;
            frame.insert(begin + at + 1, b'-');
        }
    }
    let length = frame.len() - FRAME_HEAD;
    // At most one byte more than it was, and that was at most 16,384.
    frame[..3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    frame
}

/// Where an empty authority is.
enum Place {
    /// This byte is all of it.
    Index(usize),
    /// Its value's length is here.
    Value(usize),
}

/// Goes through a block of headers field by field (RFC 7541, 6).
fn find(block: &[u8]) -> Option<Place> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        if first == NO_AUTHORITY {
            return Some(Place::Index(at));
        }
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, after) = integer(block, at, bits)?;
        at = after;
        if !literal {
            continue;
        }
        let (name, after) = match index {
            0 => string(block, at)?,
            _ => (&[][..], at),
        };
        let (value, next) = string(block, after)?;
        if value.is_empty() && (index == 1 || name == b":authority") {
            return Some(Place::Value(after));
        }
        at = next;
    }
    None
}

/// A number whose first byte has so many bits for it, and what comes behind it.
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1_usize << bits) - 1;
    let first = usize::from(*block.get(at)?) & most;
    if first < most {
        return Some((first, at + 1));
    }
    let mut number = most;
    for (more, shift) in (at + 1..).zip((0..28).step_by(7)) {
        let byte = usize::from(*block.get(more)?);
        number += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((number, more + 1));
        }
    }
    None
}

/// A string as it is written, and what comes behind it.
fn string(block: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, begin) = integer(block, at, 7)?;
    let end = begin.checked_add(length)?;
    Some((block.get(begin..end)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[HEADERS, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    fn passed(frames: &[u8], step: usize) -> Vec<u8> {
        let mut heads = Heads::new();
        let mut out = Vec::new();
        let all = [&[b'-'; PREFACE], frames].concat();
        for part in all.chunks(step) {
            heads.pass(part, &mut out);
        }
        assert!(heads.held.is_empty(), "nothing is held back");
        out.split_off(PREFACE)
    }

    #[test]
    fn an_empty_authority_is_taken_out_however_the_bytes_come() {
        // POST, http, an empty authority, `:path: /a`.
        let block = [0x83, 0x86, 0x81, 0x44, 2, b'/', b'a'];
        let without = [0x83, 0x86, 0x44, 2, b'/', b'a'];
        let padded = [&[2, 0, 0, 0, 0, 16][..], &block, &[0, 0]].concat();
        let padded_without = [&[2, 0, 0, 0, 0, 16][..], &without, &[0, 0]].concat();
        let data = [0, 0, 3, 0, 1, 0, 0, 0, 1, 0x81, 0x81, 0x81];
        let sent = [&frame(4, &block)[..], &data, &frame(0x2c, &padded)].concat();
        let want = [
            &frame(4, &without)[..],
            &data,
            &frame(0x2c, &padded_without),
        ]
        .concat();
        for step in [1, 2, 7, 1000] {
            assert_eq!(passed(&sent, step), want, "{step}");
        }
    }

    #[test]
    fn an_authority_that_is_written_out_gets_a_value() {
        for (block, want) in [
            (&[0x41, 0, 0x83][..], &[0x41, 1, b'-', 0x83][..]),
            (&[0x01, 0], &[0x01, 1, b'-']),
            (&[0x41, 1, b'a'], &[0x41, 1, b'a']),
        ] {
            assert_eq!(passed(&frame(4, block), 3), frame(4, want));
        }
    }

    #[test]
    fn what_is_not_understood_passes_as_it_is() {
        for sent in [
            frame(0, &[0x81]),
            frame(4, &[]),
            frame(0x0c, &[200, 0x81]),
            frame(4, &[0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]),
            frame(4, &[0x44, 5, 0x81, 0x81]),
            vec![0, 0, 0, 4, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(passed(&sent, 4), sent);
        }
    }
}
