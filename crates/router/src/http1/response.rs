//! The head of a response.

use std::ops::{Deref, DerefMut};

use super::framing::{Wire, bodiless};
use super::scan::{Scan, Step};
use super::{Fields, Framing, HeadError, Limits, Method, Parsed, Version};

/// A response's head, used again from response to response. Its fields are reached through [`Fields`].
#[derive(Debug)]
pub struct ResponseHead {
    fields: Fields,
    scan: Scan,
    version: Version,
    status: u16,
    reason: (usize, usize),
    wire: Wire,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            scan: Scan::default(),
            version: Version::Http11,
            status: 0,
            reason: (0, 0),
            wire: Wire::default(),
        }
    }
}

impl Deref for ResponseHead {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}

impl DerefMut for ResponseHead {
    fn deref_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }
}

impl ResponseHead {
    /// An empty head.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the head that `buf` begins with, in the way of [`super::RequestHead::parse`]. [`Limits::line`] does not
    /// apply.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Parsed, HeadError> {
        if self.scan.is_stale(buf) {
            self.reset();
        }
        let parsed = self.advance(buf, limits);
        if !matches!(parsed, Ok(Parsed::Partial)) {
            self.scan = Scan::default();
        }
        if parsed.is_err() {
            self.reset();
        }
        parsed
    }

    /// Forgets a head that was begun; needed only when the bytes of a partial head are thrown away.
    pub fn reset(&mut self) {
        self.scan = Scan::default();
        self.fields.clear();
        self.status = 0;
        self.reason = (0, 0);
        self.wire = Wire::default();
    }

    fn advance(&mut self, buf: &[u8], limits: &Limits) -> Result<Parsed, HeadError> {
        let limits = Limits {
            line: limits.head,
            ..limits.clone()
        };
        loop {
            match self.scan.next(buf, &limits)? {
                Step::Partial => {
                    self.fields.adopt(buf, self.scan.lines_end());
                    return Ok(Parsed::Partial);
                }
                Step::Line(1, start, end) => {
                    self.fields.clear();
                    self.fields.start = end + 2;
                    self.status_line(&buf[start..end])?;
                }
                Step::Line(number, start, end) => {
                    self.fields
                        .index_line(buf, (number, start, end), limits.fields)?;
                }
                Step::End(consumed) => {
                    self.fields.adopt(buf, consumed - 2);
                    self.wire = Wire::read(&self.fields, self.version, false)?;
                    return Ok(Parsed::Complete { consumed });
                }
            }
        }
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let refuse = |what| HeadError::malformed(what, 1, line);
        let version = line.get(..8).and_then(Version::read);
        self.version =
            version.ok_or_else(|| refuse("a response begins with HTTP/1.1 or HTTP/1.0"))?;
        let status = match line.get(8..12) {
            Some([b' ', digits @ ..]) if digits.iter().all(u8::is_ascii_digit) => digits
                .iter()
                .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
            _ => 0,
        };
        if status < 100 {
            return Err(refuse(
                "no status of three digits after the version and one space",
            ));
        }
        self.status = status;
        // The space after the status may be missing when there is no reason: some servers leave it out.
        self.reason = match line.get(12) {
            None => (12, 12),
            Some(b' ') => (13, line.len()),
            Some(_) => return Err(refuse("no space after the status")),
        };
        Ok(())
    }

    /// Begins a head by hand, without fields, as for a response that came by HTTP/2; see
    /// [`super::RequestHead::begin`]. A control character in `reason` becomes a space.
    pub fn begin(&mut self, version: Version, status: u16, reason: &str) {
        self.reset();
        self.version = version;
        self.status = status.clamp(100, 999);
        let bytes = &mut self.fields.bytes;
        bytes.extend_from_slice(version.as_str().as_bytes());
        bytes.push(b' ');
        super::push_number(bytes, u64::from(self.status));
        bytes.push(b' ');
        super::scan::push_value(bytes, reason.as_bytes());
        self.reason = (13, bytes.len());
        bytes.extend_from_slice(b"\r\n");
        self.fields.start = bytes.len();
    }

    /// The framing that a head begun by hand is to report; the fields that say so are the caller's to add.
    pub fn set_framing(&mut self, framing: Framing) {
        self.wire.chunked = framing == Framing::Chunked;
        self.wire.length = match framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
    }

    /// The status, 100 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase; may be empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        &self.fields.bytes[self.reason.0..self.reason.1]
    }

    /// The version that came, or that was set.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Gives the response another version, as a proxy does for its own side. What [`ResponseHead::keep_alive`] says
    /// changes with it: ask before.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
        if let Some(place) = self.fields.bytes.get_mut(..8) {
            place.copy_from_slice(version.as_str().as_bytes());
        }
    }

    /// Whether a final response is still to come: 1xx, but not 101, with which HTTP ends on this connection.
    #[must_use]
    pub fn interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    /// Where the body ends in the answer to a request of this method. After a 2xx to CONNECT come a tunnel's bytes,
    /// which last until the connection is closed.
    ///
    /// # Errors
    /// When a response that can have no body says that it is chunked.
    pub fn framing(&self, request: Method) -> Result<Framing, HeadError> {
        if self.wire.chunked && (self.status < 200 || self.status == 204) {
            return Err(HeadError::ambiguous(
                "Transfer-Encoding in a response without a body",
                b"",
            ));
        }
        if request == Method::Head || bodiless(self.status) {
            return Ok(Framing::None);
        }
        if request == Method::Connect && (200..300).contains(&self.status) {
            return Ok(Framing::UntilClose);
        }
        Ok(match self.wire {
            Wire { chunked: true, .. } => Framing::Chunked,
            Wire {
                length: Some(length),
                ..
            } => Framing::Length(length),
            _ => Framing::UntilClose,
        })
    }

    /// Whether the endpoint keeps its connection open, by version and `Connection`; a body until the end of the
    /// connection says otherwise.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.wire.stays(self.version)
    }

    /// Appends the head: the status line, the fields, the empty line.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.fields.write(out, 0);
    }
}
