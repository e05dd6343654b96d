//! Finagle's Mux: many questions on one connection, told apart by tags. Only the messages that ThriftMux needs.
//!
//! A frame is its length in four bytes, a type in one, a tag in three, and what the type says. Fragments are an extension
//! that both sides must agree on; we never do.

use bytes::{Buf, BufMut as _, Bytes, BytesMut};

/// Tags have 23 bits; the one above them marks a fragment.
pub const MAX_TAG: u32 = (1 << 23) - 1;
/// What a client of Finagle asks before it says more: whether a server that does not know a message answers.
pub const PROBE: &[u8] = b"tinit check";
/// Of the protocol.
const VERSION: u16 = 1;
/// A frame has at least a type and a tag.
const LEAST: usize = 4;
/// Contexts of a request and dentries of its dtab, at most.
const MOST_PAIRS: usize = 10_000;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A question, and its answer. Its contexts, destination and dtab mean nothing to this service.
    Tdispatch(Bytes),
    /// An answer: how it went and what it is; contexts are left out.
    Rdispatch(Outcome, Bytes),
    /// A question as older clients put it.
    Treq(Bytes),
    /// Its answer.
    Rreq(Outcome, Bytes),
    /// Are you there?
    Tping,
    /// Yes.
    Rping,
    /// The version and headers that a session begins with.
    Tinit(u16, Vec<(Bytes, Bytes)>),
    /// What the server says to that.
    Rinit(u16, Vec<(Bytes, Bytes)>),
    /// Ask nothing more here.
    Tdrain,
    /// I won't.
    Rdrain,
    /// The answer to the question of this tag is not wanted any more.
    Tdiscarded(u32),
    /// There will be none.
    Rdiscarded,
    /// A lease, which tells nothing that we use.
    Tlease,
    /// This was not understood.
    Rerr(Bytes),
    /// Of a type that we do not know.
    Unknown(i8),
}

/// How a question went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Here is the answer.
    Ok = 0,
    /// Here is what went wrong.
    Error = 1,
    /// It was not looked at: ask again, elsewhere.
    Nack = 2,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// It ends too early.
    #[error("a Mux message of type {0} that is cut short")]
    Short(i8),
    /// Part of a message, and fragments were not agreed on.
    #[error("a fragment of a Mux message, and fragments were not agreed on")]
    Fragment,
    /// Longer than is taken.
    #[error("a Mux frame of {length} bytes, the limit is {most}")]
    Long {
        /// As it says.
        length: usize,
        /// What is taken.
        most: usize,
    },
    /// An outcome that there is not.
    #[error("a Mux answer with the status {0}")]
    Outcome(u8),
}

impl Message {
    /// A session's first message, and what answers it, without headers: neither fragments nor TLS.
    pub fn init() -> Self {
        Self::Tinit(VERSION, Vec::new())
    }

    /// The answer to [`Message::init`].
    pub fn init_answer() -> Self {
        Self::Rinit(VERSION, Vec::new())
    }

    const fn kind(&self) -> i8 {
        match self {
            Self::Treq(_) => 1,
            Self::Rreq(..) => -1,
            Self::Tdispatch(_) => 2,
            Self::Rdispatch(..) => -2,
            Self::Tdrain => 64,
            Self::Rdrain => -64,
            Self::Tping => 65,
            Self::Rping => -65,
            Self::Tdiscarded(_) => 66,
            Self::Rdiscarded => -66,
            Self::Tlease => 67,
            Self::Tinit(..) => 68,
            Self::Rinit(..) => -68,
            Self::Rerr(_) => -128,
            Self::Unknown(kind) => *kind,
        }
    }

    /// The frame of a message.
    pub fn frame(&self, tag: u32) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32(0);
        out.put_i8(self.kind());
        put_tag(&mut out, tag);
        match self {
            Self::Tdispatch(body) => {
                // No contexts, no destination, no dtab.
                out.put_bytes(0, 6);
                out.extend_from_slice(body);
            }
            Self::Rdispatch(outcome, body) => {
                out.put_u8(*outcome as u8);
                out.put_u16(0);
                out.extend_from_slice(body);
            }
            Self::Treq(body) => {
                out.put_u8(0);
                out.extend_from_slice(body);
            }
            Self::Rreq(outcome, body) => {
                out.put_u8(*outcome as u8);
                out.extend_from_slice(body);
            }
            Self::Tinit(version, headers) | Self::Rinit(version, headers) => {
                out.put_u16(*version);
                for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
                    out.extend_from_slice(text);
                }
            }
            Self::Tdiscarded(which) => put_tag(&mut out, *which),
            Self::Rerr(reason) => out.extend_from_slice(reason),
            Self::Tping | Self::Rping | Self::Tdrain | Self::Rdrain => {}
            Self::Rdiscarded | Self::Tlease | Self::Unknown(_) => {}
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        out.freeze()
    }

    /// Takes the first message off what has come, with its tag; none while it is not whole.
    ///
    /// # Errors
    /// It cannot be read, or is longer than `most`: the connection is of no use any more.
    pub fn take(buffer: &mut BytesMut, most: usize) -> Result<Option<(u32, Self)>, MuxError> {
        let Some(length) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > most {
            return Err(MuxError::Long { length, most });
        }
        if length < LEAST {
            return Err(MuxError::Short(0));
        }
        if buffer.len() < 4 + length {
            return Ok(None);
        }
        buffer.advance(4);
        let mut frame = buffer.split_to(length).freeze();
        let kind = frame.get_i8();
        let tag = frame.get_uint(3) as u32;
        if tag > MAX_TAG {
            return Err(MuxError::Fragment);
        }
        let message = Self::read(kind, frame).ok_or(MuxError::Short(kind))??;
        Ok(Some((tag, message)))
    }

    /// None when it is cut short.
    fn read(kind: i8, mut body: Bytes) -> Option<Result<Self, MuxError>> {
        Some(Ok(match kind {
            1 => {
                let keys = body.try_get_u8().ok()?;
                for _ in 0..keys {
                    _ = body.try_get_u8().ok()?;
                    let length = body.try_get_u8().ok()?;
                    skip(&mut body, length.into())?;
                }
                Self::Treq(body)
            }
            2 => {
                skip_pairs(&mut body)?;
                let destination = body.try_get_u16().ok()?;
                skip(&mut body, destination.into())?;
                skip_pairs(&mut body)?;
                Self::Tdispatch(body)
            }
            -1 | -2 => {
                let outcome = match body.try_get_u8().ok()? {
                    0 => Outcome::Ok,
                    1 => Outcome::Error,
                    2 => Outcome::Nack,
                    other => return Some(Err(MuxError::Outcome(other))),
                };
                if kind == -1 {
                    return Some(Ok(Self::Rreq(outcome, body)));
                }
                skip_pairs(&mut body)?;
                Self::Rdispatch(outcome, body)
            }
            64 => Self::Tdrain,
            -64 => Self::Rdrain,
            65 => Self::Tping,
            -65 => Self::Rping,
            // The second is what Finagle sent before it knew better.
            66 | -62 => match body.len() {
                3.. => Self::Tdiscarded(body.get_uint(3) as u32 & MAX_TAG),
                _ => return None,
            },
            -66 => Self::Rdiscarded,
            67 => Self::Tlease,
            68 | -68 => {
                let version = body.try_get_u16().ok()?;
                let mut headers = Vec::new();
                while body.has_remaining() {
                    if headers.len() == MOST_PAIRS {
                        return None;
                    }
                    headers.push((long(&mut body)?, long(&mut body)?));
                }
                match kind {
                    68 => Self::Tinit(version, headers),
                    _ => Self::Rinit(version, headers),
                }
            }
            // The second as above.
            -128 | 127 => Self::Rerr(body),
            other => Self::Unknown(other),
        }))
    }
}

fn put_tag(out: &mut BytesMut, tag: u32) {
    out.put_uint(u64::from(tag & MAX_TAG), 3);
}

fn skip(body: &mut Bytes, length: usize) -> Option<()> {
    (body.len() >= length).then(|| body.advance(length))
}

/// Pairs of texts, each with its length in two bytes.
fn skip_pairs(body: &mut Bytes) -> Option<()> {
    let pairs = body.try_get_u16().ok()?;
    for _ in 0..usize::from(pairs) * 2 {
        let length = body.try_get_u16().ok()?;
        skip(body, length.into())?;
    }
    Some(())
}

/// A text with its length in four bytes.
fn long(body: &mut Bytes) -> Option<Bytes> {
    let length = body.try_get_u32().ok()? as usize;
    (body.len() >= length).then(|| body.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<Option<(u32, Message)>, MuxError> {
        Message::take(&mut BytesMut::from(bytes), 1000)
    }

    #[test]
    fn every_message_comes_back_as_it_was_when_it_is_whole() {
        let body = Bytes::from_static(b"body");
        let headers = vec![(Bytes::from_static(b"mux-framer"), body.clone())];
        for message in [
            Message::Tdispatch(body.clone()),
            Message::Rdispatch(Outcome::Nack, body.clone()),
            Message::Treq(body.clone()),
            Message::Rreq(Outcome::Error, body.clone()),
            Message::Tping,
            Message::Rping,
            Message::Tinit(1, headers.clone()),
            Message::Rinit(1, headers),
            Message::Tdrain,
            Message::Rdrain,
            Message::Tdiscarded(7),
            Message::Rdiscarded,
            Message::Rerr(Bytes::from_static(PROBE)),
        ] {
            let frame = message.frame(MAX_TAG);
            for part in 0..frame.len() {
                assert_eq!(take(&frame[..part]), Ok(None));
            }
            assert_eq!(take(&frame), Ok(Some((MAX_TAG, message))));
        }
    }

    #[test]
    fn a_request_of_finagle_is_read_past_its_contexts() {
        let frame =
            b"\0\0\0\x1f\x02\0\0\x05\0\x01\0\x03abc\0\x02de\0\x02/s\0\x01\0\x01a\0\x01bTHRI";
        let dispatch = Message::Tdispatch(Bytes::from_static(b"THRI"));
        assert_eq!(take(frame), Ok(Some((5, dispatch))));
        let frame = b"\0\0\0\x0e\x01\0\0\x02\x02\x01\x01x\x03\0THRI";
        let request = Message::Treq(Bytes::from_static(b"THRI"));
        assert_eq!(take(frame), Ok(Some((2, request))));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, want) in [
            (&b"\0\0\x10\0"[..], "a Mux frame of 4096 bytes"),
            (b"\0\0\0\x03\x41\0\0", "cut short"),
            (b"\0\0\0\x04\x02\x80\0\x01", "a fragment"),
            (b"\0\0\0\x05\x02\0\0\x01\0", "type 2 that is cut short"),
            (b"\0\0\0\x08\x02\0\0\x01\0\x01\xff\xff", "cut short"),
            (b"\0\0\0\x05\xfe\0\0\x01\x09", "the status 9"),
            (b"\0\0\0\x0a\x44\0\0\x01\0\x01\xff\xff\xff\xff", "cut short"),
            (b"\0\0\0\x06\x42\0\0\0\0\x01", "cut short"),
        ] {
            let error = take(bytes).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert_eq!(
            take(b"\0\0\0\x04\x20\0\0\x01"),
            Ok(Some((1, Message::Unknown(32))))
        );
    }
}
