//! The spellings of a context in header fields.

use super::{SpanId, TraceContext, TraceId, base64};

/// Which spellings a request came with, to be written on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats {
    /// W3C `traceparent`.
    pub w3c: bool,
    /// B3 in the one header `b3`.
    pub b3_single: bool,
    /// B3 in `x-b3-traceid` and its sisters.
    pub b3_multi: bool,
}

impl Formats {
    /// Whether a field of the request that came is left out of the request that is sent, because [`TraceContext::write`] writes its
    /// successor or it was meant for this router only. Fields that could not be read pass through untouched.
    pub fn replaces(&self, name: &[u8], propagation: Propagation) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'l') => {
                is("l5d-ctx-trace")
                    || is("l5d-sample")
                    || (is("l5d-reqid") && propagation == Propagation::Default)
            }
            Some(b't') => self.w3c && is("traceparent"),
            Some(b'b') => self.b3_single && is("b3"),
            Some(b'x') => self.b3_multi && B3_MULTI.iter().any(|known| is(known)),
            _ => false,
        }
    }
}

const B3_MULTI: [&str; 5] = [
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// A router's `tracePropagator`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// `io.l5d.default`: all spellings are read, `l5d-ctx-trace` is written always and the others when they came in.
    #[default]
    Default,
    /// `io.l5d.zipkin`: B3 is read first and always written in five headers, as Linkerd's; `l5d-ctx-trace`, `l5d-sample` and `l5d-reqid` are
    /// neither read nor written.
    Zipkin,
}

/// The trace fields of one request's head, as they are found while going through it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    l5d: Option<&'a [u8]>,
    sample: Option<&'a [u8]>,
    w3c: Option<&'a [u8]>,
    b3: Option<&'a [u8]>,
    b3_trace: Option<&'a [u8]>,
    b3_span: Option<&'a [u8]>,
    b3_parent: Option<&'a [u8]>,
    b3_sampled: Option<&'a [u8]>,
    b3_flags: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// Takes note of a field; true when it is a trace field. The first of several with the same name counts.
    pub fn see(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        let slot = match name.len() {
            2 if name.eq_ignore_ascii_case(b"b3") => &mut self.b3,
            10 if name.eq_ignore_ascii_case(b"l5d-sample") => &mut self.sample,
            9 if name.eq_ignore_ascii_case(b"l5d-reqid") => return true,
            10 if name.eq_ignore_ascii_case(b"x-b3-flags") => &mut self.b3_flags,
            11 if name.eq_ignore_ascii_case(b"traceparent") => &mut self.w3c,
            11 if name.eq_ignore_ascii_case(b"x-b3-spanid") => &mut self.b3_span,
            12 if name.eq_ignore_ascii_case(b"x-b3-traceid") => &mut self.b3_trace,
            12 if name.eq_ignore_ascii_case(b"x-b3-sampled") => &mut self.b3_sampled,
            13 if name.eq_ignore_ascii_case(b"l5d-ctx-trace") => &mut self.l5d,
            17 if name.eq_ignore_ascii_case(b"x-b3-parentspanid") => &mut self.b3_parent,
            _ => return false,
        };
        slot.get_or_insert(value);
        true
    }

    /// The context the request came with; none when there is none or it cannot be read.
    pub fn context(&self, propagation: Propagation) -> Option<TraceContext> {
        let b3 = || self.b3_single().or_else(|| self.b3_multi());
        match propagation {
            Propagation::Zipkin => b3().or_else(|| self.w3c()),
            Propagation::Default => self.l5d().or_else(|| self.w3c()).or_else(b3),
        }
    }

    /// The sampling rate that the request asks for: `l5d-sample`, or, as Linkerd's B3 propagator does, `x-b3-sampled` as a number.
    pub fn asked_rate(&self, propagation: Propagation) -> Option<f64> {
        let field = match propagation {
            Propagation::Default => self.sample,
            Propagation::Zipkin => self.b3_sampled,
        };
        let rate: f64 = std::str::from_utf8(field?).ok()?.trim().parse().ok()?;
        (!rate.is_nan()).then(|| rate.clamp(0.0, 1.0))
    }

    /// The spellings to write on, besides Linkerd's own: those that came in readable.
    pub fn formats(&self, propagation: Propagation) -> Formats {
        Formats {
            w3c: self.w3c().is_some(),
            b3_single: self.b3_single().is_some(),
            b3_multi: self.b3_multi().is_some() || propagation == Propagation::Zipkin,
        }
    }

    fn l5d(&self) -> Option<TraceContext> {
        let mut bytes = [0; 40];
        let len = base64::decode(self.l5d?, &mut bytes)?;
        TraceContext::from_bytes(&bytes[..len])
    }

    /// `00-<32 hex>-<16 hex>-<2 hex>`; later versions may go on after a further dash.
    fn w3c(&self) -> Option<TraceContext> {
        let text = self.w3c?;
        let (version, rest) = (text.get(..2)?, text.get(55..)?);
        let known = version == b"00" && rest.is_empty();
        let later = version != b"00"
            && version != b"ff"
            && hex(version).is_some()
            && (rest.is_empty() || rest[0] == b'-');
        let dashes = [2, 35, 52].iter().all(|at| text[*at] == b'-');
        if !(known || later) || !dashes {
            return None;
        }
        // The standard demands lower case.
        if text[..55].iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let flags = hex(&text[53..55])?;
        let context = context(&text[3..35], &text[36..52], None)?;
        Some(TraceContext {
            sampled: Some(flags & 1 == 1),
            ..context
        })
    }

    /// `<trace>-<span>[-<sampled>[-<parent>]]`, or the decision alone, which has no ids and so is no context.
    fn b3_single(&self) -> Option<TraceContext> {
        let mut parts = self.b3?.split(|b| *b == b'-');
        let (trace, span, sampled, parent) = (
            parts.next()?,
            parts.next()?,
            parts.next(),
            parts.next().filter(|p| !p.is_empty()),
        );
        if parts.next().is_some() {
            return None;
        }
        let context = context(trace, span, parent)?;
        let (debug, sampled) = match sampled {
            None => (false, None),
            Some(b"d") => (true, Some(true)),
            Some(b"1" | b"true") => (false, Some(true)),
            Some(b"0" | b"false") => (false, Some(false)),
            Some(_) => return None,
        };
        Some(TraceContext {
            debug,
            sampled,
            ..context
        })
    }

    fn b3_multi(&self) -> Option<TraceContext> {
        let context = context(self.b3_trace?, self.b3_span?, self.b3_parent)?;
        let debug = self.b3_flags == Some(b"1");
        let sampled = match self.b3_sampled {
            _ if debug => Some(true),
            Some(b"1") => Some(true),
            Some(b"0") => Some(false),
            Some(text) if text.eq_ignore_ascii_case(b"true") => Some(true),
            Some(text) if text.eq_ignore_ascii_case(b"false") => Some(false),
            _ => None,
        };
        Some(TraceContext {
            debug,
            sampled,
            ..context
        })
    }
}

impl TraceContext {
    /// Gives each header to write, name and value, to `put`: `l5d-ctx-trace`, `l5d-reqid` and the spellings in `formats`; under
    /// [`Propagation::Zipkin`] only the five of B3.
    pub fn write(
        &self,
        formats: Formats,
        propagation: Propagation,
        mut put: impl FnMut(&'static str, &[u8]),
    ) {
        if propagation == Propagation::Default {
            let (bytes, len) = self.to_bytes();
            let mut text = [0; 56];
            let len = base64::encode(&bytes[..len], &mut text);
            put("l5d-ctx-trace", &text[..len]);
            put("l5d-reqid", &hex16(self.trace.low));
        }
        if formats.w3c {
            put("traceparent", &self.w3c_text());
        }
        if formats.b3_single {
            let mut text = [0; 68];
            let len = self.b3_text(&mut text);
            put("b3", &text[..len]);
        }
        if formats.b3_multi {
            self.write_b3_multi(propagation, put);
        }
    }

    fn write_b3_multi(&self, propagation: Propagation, mut put: impl FnMut(&'static str, &[u8])) {
        let (trace, len) = self.trace_text();
        put("x-b3-traceid", &trace[..len]);
        put("x-b3-spanid", &hex16(self.span.0));
        // Linkerd's propagator writes all five whatever is known: a root's parent is itself, undecided is "0".
        let linkerd = propagation == Propagation::Zipkin;
        match self.parent {
            Some(parent) => put("x-b3-parentspanid", &hex16(parent.0)),
            None if linkerd => put("x-b3-parentspanid", &hex16(self.span.0)),
            None => {}
        }
        match self.sampled {
            Some(sampled) => put("x-b3-sampled", if sampled { b"1" } else { b"0" }),
            None if linkerd => put("x-b3-sampled", b"0"),
            None => {}
        }
        match self.debug {
            true => put("x-b3-flags", b"1"),
            false if linkerd => put("x-b3-flags", b"0"),
            false => {}
        }
    }

    fn w3c_text(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..19].copy_from_slice(&hex16(self.trace.high));
        text[19..35].copy_from_slice(&hex16(self.trace.low));
        text[36..52].copy_from_slice(&hex16(self.span.0));
        text[54] = if self.is_sampled() { b'1' } else { b'0' };
        text
    }

    fn b3_text(&self, out: &mut [u8; 68]) -> usize {
        let (trace, len) = self.trace_text();
        out[..len].copy_from_slice(&trace[..len]);
        out[len] = b'-';
        out[len + 1..len + 17].copy_from_slice(&hex16(self.span.0));
        let mut len = len + 17;
        let decision = match (self.debug, self.sampled) {
            (true, _) => b'd',
            (_, Some(true)) => b'1',
            (_, Some(false)) => b'0',
            // Without a decision there is no place for the parent either.
            (_, None) => return len,
        };
        out[len..len + 2].copy_from_slice(&[b'-', decision]);
        len += 2;
        if let Some(parent) = self.parent {
            out[len] = b'-';
            out[len + 1..len + 17].copy_from_slice(&hex16(parent.0));
            len += 17;
        }
        len
    }

    /// 16 digits, or 32 for a 128-bit id.
    fn trace_text(&self) -> ([u8; 32], usize) {
        let mut text = [0; 32];
        if self.trace.high == 0 {
            text[..16].copy_from_slice(&hex16(self.trace.low));
            return (text, 16);
        }
        text[..16].copy_from_slice(&hex16(self.trace.high));
        text[16..].copy_from_slice(&hex16(self.trace.low));
        (text, 32)
    }
}

/// A context from hexadecimal ids; none unless trace and span are proper and not zero. An unreadable parent counts as none.
fn context(trace: &[u8], span: &[u8], parent: Option<&[u8]>) -> Option<TraceContext> {
    let (high, low) = match trace.len() {
        17..=32 => (
            hex(&trace[..trace.len() - 16])?,
            hex(&trace[trace.len() - 16..])?,
        ),
        _ => (0, hex(trace)?),
    };
    let span = SpanId(hex(span).filter(|id| *id != 0)?);
    if high == 0 && low == 0 {
        return None;
    }
    let parent = parent.and_then(hex).map(SpanId);
    Some(TraceContext {
        trace: TraceId { high, low },
        span,
        parent: parent.filter(|id| id.0 != 0 && *id != span),
        debug: false,
        sampled: None,
    })
}

/// 1 to 16 hexadecimal digits.
fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0, |value, digit| {
        Some(value << 4 | u64::from((*digit as char).to_digit(16)?))
    })
}

fn hex16(value: u64) -> [u8; 16] {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&hex8((value >> 32) as u32));
    text[8..].copy_from_slice(&hex8(value as u32));
    text
}

/// One in each byte of a word.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

fn hex8(value: u32) -> [u8; 8] {
    // Halved three times, until each byte has its four bits.
    let word = u64::from(value);
    let word = (word & 0xffff) | ((word & 0xffff_0000) << 16);
    let word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    let word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // A byte's highest bit is what the sum reaches from ten on.
    let tens = (word + ONES * (0x80 - 10)) >> 7 & ONES;
    (word + ONES * u64::from(b'0') + tens * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}
