//! The head of a request.

use std::ops::{Deref, DerefMut};

use super::error::ambiguous;
use super::framing::Wire;
use super::scan::token_run;
use super::target::{TargetForm, form_of};
use super::{Fields, Framing, HeadError, Limits, Method, Parsed, Version, absolute_form};

/// A request's head, used again from request to request. Its fields are reached through [`Fields`].
///
/// Right after [`RequestHead::new`] it is empty and worth nothing until [`RequestHead::parse`] says
/// [`Parsed::Complete`], or [`RequestHead::begin`] began one by hand.
#[derive(Debug, Default)]
pub struct RequestHead {
    fields: Fields,
    line: RequestLine,
    wire: Wire,
}

/// What the first line says, as places in the head's bytes.
#[derive(Debug, Clone, Copy)]
struct RequestLine {
    method: Method,
    method_end: usize,
    target: (usize, usize),
    form: TargetForm,
    version: Version,
}

impl Default for RequestLine {
    fn default() -> Self {
        Self {
            method: Method::Other,
            method_end: 0,
            target: (0, 0),
            form: TargetForm::Origin,
            version: Version::Http11,
        }
    }
}

impl Deref for RequestHead {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}

impl DerefMut for RequestHead {
    fn deref_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }
}

impl RequestHead {
    /// An empty head.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the head that `buf` begins with. After [`Parsed::Partial`] it is called with the same bytes and more behind
    /// them; only the new ones are looked at. After a head was completed or refused, the next call begins anew.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Parsed, HeadError> {
        let parsed = self.read(buf, limits);
        if parsed.is_err() {
            self.reset();
        }
        parsed
    }

    fn read(&mut self, buf: &[u8], limits: &Limits) -> Result<Parsed, HeadError> {
        let line = &mut self.line;
        let parsed = self.fields.take_in(buf, limits, |bytes| {
            *line = RequestLine::read(bytes)?;
            Ok(())
        })?;
        if parsed != Parsed::Partial {
            self.wire = Wire::read(&self.fields, self.line.version, true)?;
            self.refuse_tunnel_body()?;
        }
        Ok(parsed)
    }

    /// Forgets a head that was begun; needed only when the bytes of a partial head are thrown away.
    pub fn reset(&mut self) {
        self.fields.clear();
        self.line = RequestLine::default();
        self.wire = Wire::default();
    }

    /// RFC 9110 9.3.6: what a body of CONNECT means is not defined; it might as well be the tunnel's first bytes.
    fn refuse_tunnel_body(&self) -> Result<(), HeadError> {
        if self.line.method == Method::Connect
            && (self.wire.chunked || self.wire.length.unwrap_or(0) > 0)
        {
            return ambiguous("CONNECT with a body", b"");
        }
        Ok(())
    }

    /// Begins a head by hand, without fields, as for a request that came by HTTP/2. Its framing and what its connection
    /// wants are those of a request without any field; see [`RequestHead::set_framing`].
    ///
    /// # Errors
    /// When `method` is no token, or `target` would break the request line or has no known form.
    pub fn begin(
        &mut self,
        method: &[u8],
        target: &[u8],
        version: Version,
    ) -> Result<(), HeadError> {
        self.reset();
        let version = version.as_str().as_bytes();
        // A control character becomes a space there, and with that the line one that is refused.
        self.fields.begin(&[method, b" ", target, b" ", version]);
        let line = &self.fields.bytes[..self.fields.start - 2];
        match RequestLine::read(line) {
            Ok(line) => self.line = line,
            Err(error) => {
                self.reset();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The framing that a head begun by hand is to report; the fields that say so are the caller's to add.
    pub fn set_framing(&mut self, framing: Framing) {
        self.wire.set_framing(framing);
    }

    /// The method as it came.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.fields.part((0, self.line.method_end))
    }

    /// The method, if it is one of those that matter.
    #[must_use]
    pub fn known_method(&self) -> Method {
        self.line.method
    }

    /// Whether the method is this one.
    #[must_use]
    pub fn is_method(&self, method: Method) -> bool {
        self.line.method == method
    }

    /// The target as it came, or as it was set.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.fields.part(self.line.target)
    }

    /// Which of the four forms the target has.
    #[must_use]
    pub fn target_form(&self) -> TargetForm {
        self.line.form
    }

    /// Gives the request another target.
    ///
    /// # Errors
    /// When `target` is empty, has a space or control character, or no known form; then nothing has changed.
    pub fn set_target(&mut self, target: &[u8]) -> Result<(), HeadError> {
        let refuse = |what| HeadError::malformed(what, 1, target);
        if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return Err(refuse("a space or control character in the target"));
        }
        self.line.form =
            form_of(self.line.method, target).ok_or_else(|| refuse("a target of no known form"))?;
        let start = self.fields.bytes.len();
        self.fields.bytes.extend_from_slice(target);
        self.line.target = (start, start + target.len());
        Ok(())
    }

    /// Writes a target in UTF-8 whose bytes beyond ASCII are Latin-1, as Linkerd 1 does. One that is UTF-8 already, as curl
    /// sends it, stays as it is (Linkerd 1 takes it for Latin-1, too, and sends another target).
    pub fn take_latin1_target(&mut self) {
        let target = self.target();
        if target.is_ascii() || std::str::from_utf8(target).is_ok() {
            return;
        }
        let text: String = target.iter().copied().map(char::from).collect();
        // A valid target, spelled otherwise, is one.
        _ = self.set_target(text.as_bytes());
    }

    /// Makes a proxy's request (`GET http://web:80/p?q`) an ordinary one, as Linkerd 1 does: the target becomes `/p?q`,
    /// `Host` becomes `web:80` whatever it was, the scheme is dropped. Says whether there was anything to do.
    pub fn take_absolute_form(&mut self) -> bool {
        let Some(parts) = absolute_form(self.target()) else {
            return false;
        };
        let start = self.line.target.0 + parts.scheme.len() + "://".len();
        let authority = start..start + parts.authority.len();
        let rest = authority.end..self.line.target.1;
        let rest_is_path = parts.path_and_query.starts_with(b"/");
        self.line.target.0 = self.fields.bytes.len();
        if !rest_is_path {
            self.fields.bytes.push(b'/');
        }
        self.fields.bytes.extend_from_within(rest);
        self.line.target.1 = self.fields.bytes.len();
        self.line.form = TargetForm::Origin;
        self.fields.set_from_within("Host", authority);
        true
    }

    /// The version that came.
    #[must_use]
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// Where the body ends, as the head said when it came.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.wire.framing(Framing::None)
    }

    /// Whether the client means to send more requests on its connection, by version and `Connection`.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.wire.stays(self.line.version)
    }

    /// Whether the client offers to go on in another protocol: `Connection` lists `Upgrade`, and the version has such.
    #[must_use]
    pub fn offers_upgrade(&self) -> bool {
        self.wire.upgrade && self.line.version == Version::Http11
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.wire.expects_continue && self.line.version == Version::Http11
    }

    /// Appends the head: the request line, the fields, the empty line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let target_is_in_place = self.line.target.1 <= self.fields.start;
        if target_is_in_place {
            return self.fields.write(out, 0);
        }
        out.extend_from_slice(self.method());
        out.push(b' ');
        out.extend_from_slice(self.target());
        // The space, the version and the line's end are the last eleven bytes of the line that came.
        self.fields
            .write(out, self.fields.start - " HTTP/1.1\r\n".len());
    }
}

impl RequestLine {
    fn read(line: &[u8]) -> Result<Self, HeadError> {
        let refuse = |what| HeadError::malformed(what, 1, line);
        let method = token_run(line, 0);
        if line.is_empty() {
            return Err(refuse("an empty line before the request"));
        }
        if method == 0 || line.get(method) != Some(&b' ') {
            return Err(refuse("a request line begins with a method and one space"));
        }
        if line == b"PRI * HTTP/2.0" {
            return Err(refuse("HTTP/2, where HTTP/1 is spoken"));
        }
        let rest = &line[method + 1..];
        let target = rest
            .iter()
            .take_while(|byte| !matches!(byte, b' ' | b'\t'))
            .count();
        if target == 0 {
            return Err(refuse("no target after the method and one space"));
        }
        if rest.get(target) != Some(&b' ') {
            return Err(refuse("no version after the target and one space"));
        }
        let known = Method::read(&line[..method]);
        Ok(Self {
            method: known,
            method_end: method,
            target: (method + 1, method + 1 + target),
            form: form_of(known, &rest[..target])
                .ok_or_else(|| refuse("a target of no known form"))?,
            version: Version::read(&rest[target + 1..])
                .ok_or_else(|| refuse("a version other than HTTP/1.0 and HTTP/1.1"))?,
        })
    }
}
