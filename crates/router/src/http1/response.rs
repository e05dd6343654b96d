//! The head of a response.

use std::ops::{Deref, DerefMut};

use super::error::ambiguous;
use super::framing::{Wire, bodiless};
use super::{Fields, Framing, HeadError, Limits, Method, Parsed, Version};

/// A response's head, used again from response to response. Its fields are reached through [`Fields`].
#[derive(Debug, Default)]
pub struct ResponseHead {
    fields: Fields,
    line: StatusLine,
    wire: Wire,
    /// Interim responses since the last final one.
    interims: u8,
    /// The request has offered an upgrade.
    upgrade_offered: bool,
}

/// Endless ones would keep a request, and fill memory where the client does not read them.
const INTERIMS: u8 = 64;

/// What the first line says.
#[derive(Debug, Clone, Copy)]
struct StatusLine {
    version: Version,
    status: u16,
    /// Where the reason begins in the head's bytes, and where it ends.
    reason: (usize, usize),
}

impl Default for StatusLine {
    fn default() -> Self {
        Self {
            version: Version::Http11,
            status: 0,
            reason: (0, 0),
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
        let parsed = self.read(buf, limits);
        if parsed.is_err() {
            self.reset();
        }
        parsed
    }

    fn read(&mut self, buf: &[u8], limits: &Limits) -> Result<Parsed, HeadError> {
        let limits = Limits {
            line: limits.head,
            ..limits.clone()
        };
        let line = &mut self.line;
        let parsed = self.fields.take_in(buf, &limits, |bytes| {
            *line = StatusLine::read(bytes)?;
            Ok(())
        })?;
        if parsed != Parsed::Partial {
            self.wire = Wire::read(&self.fields, self.line.version, false)?;
            self.refuse_needless_framing()?;
            self.interims = if self.interim() { self.interims + 1 } else { 0 };
            if self.interims > INTERIMS {
                return ambiguous("more than 64 interim responses before the final one", b"");
            }
        }
        Ok(parsed)
    }

    /// What can have no body must not seem to have one, and 101 must not turn the connection into another protocol's
    /// unless that was offered.
    fn refuse_needless_framing(&self) -> Result<(), HeadError> {
        let framed = self.wire.chunked || self.wire.length.is_some_and(|length| length > 0);
        match self.line.status {
            101 if !self.upgrade_offered => ambiguous("101, though no Upgrade was asked for", b""),
            100..=199 if framed => ambiguous("an interim response with a body", b""),
            204 if self.wire.chunked => {
                ambiguous("Transfer-Encoding in a response without a body", b"")
            }
            _ => Ok(()),
        }
    }

    /// Forgets a head that was begun, and the interim ones before it: for another connection's response.
    pub fn reset(&mut self) {
        self.fields.clear();
        self.line = StatusLine::default();
        self.wire = Wire::default();
        self.interims = 0;
        self.upgrade_offered = false;
    }

    /// The request that is answered offers an upgrade: 101 is a final response. Until [`ResponseHead::reset`].
    pub fn allow_upgrade(&mut self) {
        self.upgrade_offered = true;
    }

    /// Begins a head by hand, without fields, as for a response that came by HTTP/2; see
    /// [`super::RequestHead::begin`]. A control character in `reason` becomes a space.
    pub fn begin(&mut self, version: Version, status: u16, reason: &str) {
        self.reset();
        let status = status.clamp(100, 999);
        let digits =
            [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + (digit % 10) as u8);
        self.fields.begin(&[
            version.as_str().as_bytes(),
            b" ",
            &digits,
            b" ",
            reason.as_bytes(),
        ]);
        self.line = StatusLine {
            version,
            status,
            reason: (13, self.fields.start - 2),
        };
    }

    /// The framing that a head begun by hand is to report; the fields that say so are the caller's to add.
    pub fn set_framing(&mut self, framing: Framing) {
        self.wire.set_framing(framing);
    }

    /// The status, 100 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.line.status
    }

    /// The reason phrase; may be empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.fields.part(self.line.reason)
    }

    /// The version that came, or that was set.
    #[must_use]
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// Gives the response another version, as a proxy does for its own side. What [`ResponseHead::keep_alive`] says
    /// changes with it: ask before.
    pub fn set_version(&mut self, version: Version) {
        self.line.version = version;
        if let Some(place) = self.fields.bytes.get_mut(..8) {
            place.copy_from_slice(version.as_str().as_bytes());
        }
    }

    /// Whether a final response is still to come: 1xx. 101 is final, and refused when no upgrade was offered.
    #[must_use]
    pub fn interim(&self) -> bool {
        matches!(self.line.status, 100 | 102..=199)
    }

    /// Where the body ends in the answer to a request of this method. After a 2xx to CONNECT come a tunnel's bytes,
    /// which last until the connection is closed.
    ///
    /// # Errors
    /// For a head begun by hand whose framing does not fit its status; what was parsed has been judged.
    pub fn framing(&self, request: Method) -> Result<Framing, HeadError> {
        self.refuse_needless_framing()?;
        if request == Method::Head || bodiless(self.line.status) {
            return Ok(Framing::None);
        }
        if request == Method::Connect && (200..300).contains(&self.line.status) {
            return Ok(Framing::UntilClose);
        }
        Ok(self.wire.framing(Framing::UntilClose))
    }

    /// Whether the endpoint keeps its connection open, by version and `Connection`; a body until the end of the
    /// connection says otherwise.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.wire.stays(self.line.version)
    }

    /// Appends the head: the status line, the fields, the empty line.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.fields.write(out, 0);
    }
}

impl StatusLine {
    fn read(line: &[u8]) -> Result<Self, HeadError> {
        let refuse = |what| HeadError::malformed(what, 1, line);
        let version = line.get(..8).and_then(Version::read);
        let version =
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
        // The space after the status may be missing when there is no reason: some servers leave it out.
        let reason = match line.get(12) {
            None => (12, 12),
            Some(b' ') => (13, line.len()),
            Some(_) => return Err(refuse("no space after the status")),
        };
        Ok(Self {
            version,
            status,
            reason,
        })
    }
}
