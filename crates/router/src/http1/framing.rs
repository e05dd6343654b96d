//! The fields that say how long a message is and whether the connection stays: the rules of RFC 9112 6 and 9.3, without
//! the repairs that it allows.

use super::error::ambiguous;
use super::fields::tokens;
use super::scan::is_same;
use super::{Fields, Framing, HeadError, Version};

/// More names in `Connection` than anybody lists, and few enough to compare each with each field.
const CONNECTION_OPTIONS: usize = 32;

/// What the fields of a head say about its framing, its connection and its host.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wire {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) expects_continue: bool,
}

impl Wire {
    /// Reads and judges the fields.
    pub(super) fn read(
        fields: &Fields,
        version: Version,
        is_request: bool,
    ) -> Result<Self, HeadError> {
        let mut wire = Self::default();
        let (mut hosts, mut options) = (0, 0);
        for (name, value) in fields.iter() {
            match name.len() {
                4 if is_request && is_same(name, b"host") => {
                    hosts += 1;
                    if hosts > 1 {
                        return ambiguous("more than one Host", value);
                    }
                }
                6 if is_request && is_same(name, b"expect") => {
                    wire.expects_continue |=
                        tokens(value).any(|token| is_same(token, b"100-continue"));
                }
                10 if is_same(name, b"connection") => {
                    for token in tokens(value) {
                        options += 1;
                        if options > CONNECTION_OPTIONS {
                            return ambiguous("more than 32 names in Connection", value);
                        }
                        wire.close |= is_same(token, b"close");
                        wire.keep_alive |= is_same(token, b"keep-alive");
                        wire.upgrade |= is_same(token, b"upgrade");
                    }
                }
                14 => wire.content_length(name, value)?,
                17 => wire.transfer_encoding(name, value, version)?,
                _ => {}
            }
        }
        if wire.chunked && wire.length.is_some() {
            return ambiguous("both Content-Length and Transfer-Encoding", b"");
        }
        Ok(wire)
    }

    fn content_length(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if !is_same(name, b"content-length") {
            return match is_same(name, b"content_length") {
                true => ambiguous("a name that CGI reads as Content-Length", name),
                false => Ok(()),
            };
        }
        // Equal copies, too: they show that something on the way is broken, and a list `5, 5` is read in many ways.
        if self.length.is_some() {
            return ambiguous("more than one Content-Length", value);
        }
        let digits = |sum: u64, digit: &u8| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            let sum = sum.checked_mul(10)?.checked_add(digit)?;
            (sum <= i64::MAX as u64).then_some(sum)
        };
        self.length = value
            .iter()
            .try_fold(0, digits)
            .filter(|_| !value.is_empty());
        if self.length.is_none() {
            return ambiguous(
                "a Content-Length that is not just digits, or not below 2^63",
                value,
            );
        }
        Ok(())
    }

    fn transfer_encoding(
        &mut self,
        name: &[u8],
        value: &[u8],
        version: Version,
    ) -> Result<(), HeadError> {
        if !is_same(name, b"transfer-encoding") {
            return match is_same(name, b"transfer_encoding") {
                true => ambiguous("a name that CGI reads as Transfer-Encoding", name),
                false => Ok(()),
            };
        }
        let what = match version {
            _ if self.chunked => "more than one Transfer-Encoding",
            Version::Http10 => "Transfer-Encoding in HTTP/1.0",
            _ if !is_same(value, b"chunked") => "a Transfer-Encoding other than `chunked`",
            Version::Http11 => {
                self.chunked = true;
                return Ok(());
            }
        };
        ambiguous(what, value)
    }

    /// For a head that was begun by hand.
    pub(super) fn set_framing(&mut self, framing: Framing) {
        self.chunked = framing == Framing::Chunked;
        self.length = match framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
    }

    /// Where the body ends; `otherwise` when no field says it.
    pub(super) fn framing(&self, otherwise: Framing) -> Framing {
        match self.length {
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }

    /// Whether the sender means to use the connection again.
    pub(super) fn stays(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// Whether a response of this status never has a body.
pub(super) fn bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}
