//! Finds the end of a body without taking it apart.

use super::scan::{is_token, is_value};
use super::{BodyError, Framing};

/// Reads a body's bytes as they pass and knows where it ends. Chunked framing passes with them, validated.
#[derive(Debug, Clone)]
pub struct BodyScanner {
    state: State,
}

/// How far a scan went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// So many bytes belong to the body; what follows them is the next message's.
    pub consumed: usize,
    /// Whether the body ended there.
    pub done: bool,
}

#[derive(Debug, Clone)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Chunked(Chunked),
}

/// More than this of chunk extensions, beyond one byte for each byte of data, is an attack.
const EXTENSIONS: usize = 16 * 1024;
/// All trailers together.
const TRAILERS: usize = 16 * 1024;
/// The longest name that [`is_forbidden`] looks for, and one more byte.
const NAME: usize = 20;

#[derive(Debug, Clone)]
struct Chunked {
    at: At,
    /// Extension bytes so far, less the data that came with them.
    extensions: usize,
    /// Trailer bytes so far.
    trailers: usize,
    /// The begin of a trailer's name, and its length; longer ones are of no interest.
    name: [u8; NAME],
    name_len: usize,
}

/// What the next byte of a chunked body is.
#[derive(Debug, Clone, Copy)]
enum At {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The first byte of a trailer line, or the CR of the last line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

impl BodyScanner {
    /// For a body framed in this way, before its first byte.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Chunked(Chunked::new()),
        };
        Self { state }
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes are still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Takes in the next bytes of the connection, as far as they are the body's. After an error the scanner, as the
    /// connection, is of no more use; the bytes of that call are not to be passed on.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scanned, BodyError> {
        self.data(buf, |_| {})
    }

    /// As [`BodyScanner::scan`], for bytes of a body with a length that passed unseen, at most [`BodyScanner::remaining`].
    pub fn skip(&mut self, n: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(n);
            if *left == 0 {
                self.state = State::Done;
            }
        }
    }

    /// As [`BodyScanner::scan`], and hands each piece of data in `buf` to `sink`, without the chunked framing around it.
    pub fn data(&mut self, buf: &[u8], mut sink: impl FnMut(&[u8])) -> Result<Scanned, BodyError> {
        let consumed = match &mut self.state {
            State::Done => 0,
            State::UntilClose => {
                sink(buf);
                buf.len()
            }
            State::Length(left) => {
                let taken = up_to(*left, buf.len());
                *left -= taken as u64;
                sink(&buf[..taken]);
                if *left == 0 {
                    self.state = State::Done;
                }
                taken
            }
            State::Chunked(chunked) => {
                let taken = chunked.advance(buf, &mut sink)?;
                if matches!(chunked.at, At::End) {
                    self.state = State::Done;
                }
                taken
            }
        };
        Ok(Scanned {
            consumed,
            done: self.is_done(),
        })
    }

    /// The connection ended: well for a body until the end of the connection, too early for one that is not done.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) | State::Chunked(_) => Err(BodyError::Truncated),
        }
    }
}

fn up_to(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

impl Chunked {
    fn new() -> Self {
        Self {
            at: At::Size { size: 0, digits: 0 },
            extensions: 0,
            trailers: 0,
            name: [0; NAME],
            name_len: 0,
        }
    }

    /// How many bytes of `buf` are the body's: all, unless it ends.
    fn advance(&mut self, buf: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<usize, BodyError> {
        let mut at = 0;
        while at < buf.len() && !matches!(self.at, At::End) {
            if let At::Data { left } = &mut self.at {
                let taken = up_to(*left, buf.len() - at);
                *left -= taken as u64;
                if *left == 0 {
                    self.at = At::DataCr;
                }
                self.extensions = self.extensions.saturating_sub(taken);
                sink(&buf[at..at + taken]);
                at += taken;
            } else {
                self.at = self.step(buf[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// The state after one byte of framing.
    fn step(&mut self, byte: u8) -> Result<At, BodyError> {
        Ok(match (self.at, byte) {
            (At::Size { digits: 1.., size }, b';') => At::Extension { size },
            (At::Size { digits: 1.., size } | At::Extension { size }, b'\r') => At::SizeLf { size },
            (At::Size { size, digits }, _) => Self::digit(size, digits, byte)?,
            (At::Extension { size }, _) if is_value(byte) => {
                self.extensions += 1;
                within("chunk extensions", self.extensions, EXTENSIONS)?;
                At::Extension { size }
            }
            (At::Extension { .. }, b'\n') => return Err(BodyError::LineEnd("a chunk's size")),
            (At::Extension { .. }, _) => return Err(BodyError::ChunkExtension),
            (At::SizeLf { size: 0 }, b'\n') => At::Trailer,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::SizeLf { .. }, _) => return Err(BodyError::LineEnd("a chunk's size")),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { size: 0, digits: 0 },
            (At::DataCr | At::DataLf, _) => return Err(BodyError::LineEnd("a chunk's data")),
            (At::Trailer, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => At::End,
            (At::LastLf, _) => return Err(BodyError::LineEnd("the last chunk")),
            _ => self.trailer(byte)?,
        })
    }

    fn digit(size: u64, digits: u8, byte: u8) -> Result<At, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\n' if digits > 0 => return Err(BodyError::LineEnd("a chunk's size")),
            _ => return Err(BodyError::ChunkSize),
        };
        // Below 2^63, as Content-Length; more digits than 16 are refused even when they are zeros.
        if digits == 16 || size >> 59 != 0 {
            return Err(BodyError::ChunkSize);
        }
        Ok(At::Size {
            size: size << 4 | u64::from(digit),
            digits: digits + 1,
        })
    }

    /// A byte of a trailer line.
    fn trailer(&mut self, byte: u8) -> Result<At, BodyError> {
        self.trailers += 1;
        within("trailers", self.trailers, TRAILERS)?;
        match self.at {
            At::Trailer | At::TrailerName if is_token(byte) => {
                if matches!(self.at, At::Trailer) {
                    self.name_len = 0;
                }
                if let Some(place) = self.name.get_mut(self.name_len) {
                    *place = byte;
                    self.name_len += 1;
                }
                Ok(At::TrailerName)
            }
            At::TrailerName if byte == b':' => {
                if is_forbidden(&self.name[..self.name_len]) {
                    return Err(BodyError::ForbiddenTrailer);
                }
                Ok(At::TrailerValue)
            }
            At::TrailerValue if byte == b'\r' => Ok(At::TrailerLf),
            At::TrailerValue if is_value(byte) => Ok(At::TrailerValue),
            At::TrailerLf if byte == b'\n' => Ok(At::Trailer),
            At::TrailerLf => Err(BodyError::LineEnd("a trailer")),
            At::TrailerValue if byte == b'\n' => Err(BodyError::LineEnd("a trailer")),
            _ => Err(BodyError::Trailer),
        }
    }
}

fn within(what: &'static str, seen: usize, limit: usize) -> Result<(), BodyError> {
    if seen > limit {
        return Err(BodyError::TooLong { what, limit });
    }
    Ok(())
}

/// What a server that merges trailers into the head would take for its framing or its destination.
fn is_forbidden(name: &[u8]) -> bool {
    [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "trailer",
        "te",
        "upgrade",
    ]
    .iter()
    .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}
