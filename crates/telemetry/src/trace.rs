//! Trace contexts: which trace and span a request belongs to, read from its headers and written on.
//!
//! ```text
//! [`Headers`]: fields seen  →  context()  →  [`TraceContext`]  →  child() for the server span, child() per attempt  →  write()
//! ```
//! Four spellings are read: `l5d-ctx-trace` (Linkerd's, 32 or 40 bytes in base64), W3C `traceparent`, B3 in one header, B3 in five. Which
//! is believed when several are there: `l5d-ctx-trace`, as it is the one that every router on the way has brought up to date; then W3C, `b3`,
//! `x-b3-*`. What came in is written on, and `l5d-ctx-trace` and `l5d-reqid` always, even with no tracer. What cannot be read
//! is ignored and never fails a request. Nothing here allocates.

use std::fmt;

pub(crate) mod base64;
mod headers;

pub use headers::{Formats, Headers, Propagation};

/// The trace's id; `high` is zero for the 64-bit ids that Linkerd makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceId {
    /// The first eight bytes of a 128-bit id.
    pub high: u64,
    /// The last eight bytes; what Linkerd calls the trace id.
    pub low: u64,
}

/// As Zipkin shows it: 16 hexadecimal digits, 32 for a 128-bit id.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.high != 0 {
            write!(f, "{:016x}", self.high)?;
        }
        write!(f, "{:016x}", self.low)
    }
}

/// A span's id within its trace; not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SpanId(pub u64);

/// 16 hexadecimal digits.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SpanId {
    /// A fresh id.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

/// One span's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace.
    pub trace: TraceId,
    /// This span.
    pub span: SpanId,
    /// The span that caused it; none for the first of a trace.
    pub parent: Option<SpanId>,
    /// The debug flag: sampled whatever the rates are, and kept by collectors.
    pub debug: bool,
    /// Whether the trace is to be recorded; none while nobody has decided.
    pub sampled: Option<bool>,
}

/// Finagle's flag bits.
const DEBUG: u64 = 1;
const SAMPLING_KNOWN: u64 = 2;
const SAMPLED: u64 = 4;

impl TraceContext {
    /// The first span of a new trace. As Finagle's: the trace is called like its first span.
    pub fn root() -> Self {
        let span = SpanId::random();
        Self {
            trace: TraceId {
                high: 0,
                low: span.0,
            },
            span,
            parent: None,
            debug: false,
            sampled: None,
        }
    }

    /// A new span caused by this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span: SpanId::random(),
            parent: Some(self.span),
            ..*self
        }
    }

    /// Whether spans are to be recorded, as far as decided.
    pub fn is_sampled(&self) -> bool {
        self.debug || self.sampled == Some(true)
    }

    /// Finagle's flag word: debug 1, sampling known 2, sampled 4.
    pub fn flags(&self) -> u64 {
        match self.sampled {
            // Finagle sends a bare debug flag on as it came; ours says what it means as well.
            _ if self.debug => SAMPLING_KNOWN | SAMPLED | DEBUG,
            Some(true) => SAMPLING_KNOWN | SAMPLED,
            Some(false) => SAMPLING_KNOWN,
            None => 0,
        }
    }

    fn with_flags(mut self, flags: u64) -> Self {
        self.debug = flags & DEBUG != 0;
        // Sampled without known, as some clients send it, leaves the decision to us, as in Finagle.
        self.sampled = match flags & SAMPLING_KNOWN != 0 {
            _ if self.debug => Some(true),
            true => Some(flags & SAMPLED != 0),
            false => None,
        };
        self
    }

    /// The 32 bytes (40 with a 128-bit trace id) behind `l5d-ctx-trace`: span, parent, trace, flags, high half of the trace.
    fn to_bytes(self) -> ([u8; 40], usize) {
        let mut bytes = [0; 40];
        // A root's parent is itself: the format has no "none".
        let parent = self.parent.unwrap_or(self.span);
        let fields = [
            self.span.0,
            parent.0,
            self.trace.low,
            self.flags(),
            self.trace.high,
        ];
        for (eight, field) in bytes.chunks_exact_mut(8).zip(fields) {
            eight.copy_from_slice(&field.to_be_bytes());
        }
        (bytes, if self.trace.high == 0 { 32 } else { 40 })
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 32 && bytes.len() != 40 {
            return None;
        }
        let mut fields = bytes
            .chunks_exact(8)
            .map(|eight| u64::from_be_bytes(eight.try_into().unwrap_or_default()));
        let mut next = || fields.next().unwrap_or(0);
        let (span, parent, low, flags, high) = (next(), next(), next(), next(), next());
        let context = Self {
            trace: TraceId { high, low },
            span: SpanId(span),
            parent: (parent != span).then_some(SpanId(parent)),
            debug: false,
            sampled: None,
        };
        Some(context.with_flags(flags))
    }
}

/// Decides which traces to record, as Linkerd's: by the trace's id, so that it comes to the same for each span of a trace.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// Of ten thousand.
    limit: u64,
    salt: u64,
}

impl Sampler {
    /// Takes a share `rate` (0 to 1; beyond, the nearer end) of all traces. `salt` is chosen once for a process.
    pub fn new(rate: f64, salt: u64) -> Self {
        let rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        Self {
            limit: (rate * 10_000.0).round() as u64,
            salt,
        }
    }

    /// Whether the trace is to be recorded.
    pub fn takes(&self, trace: TraceId) -> bool {
        ((trace.low ^ self.salt) as i64).unsigned_abs() % 10_000 < self.limit
    }
}

/// Whether a request's trace is recorded: the decision is made once, at the first router that has a tracer, and passed on.
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    /// One for each tracer; a trace is recorded when one of them takes it. Without tracers nothing is decided.
    pub tracers: Vec<Sampler>,
    /// For `l5d-sample`.
    pub salt: u64,
}

impl Sampling {
    /// Settles `context.sampled`: what came with the request, then the rate it asks for (`l5d-sample`), then the tracers.
    ///
    /// As Linkerd, an asked rate also overrides a flag that came in.
    pub fn decide(&self, context: &mut TraceContext, asked: Option<f64>) {
        if context.debug {
            context.sampled = Some(true);
        } else if let Some(rate) = asked {
            context.sampled = Some(Sampler::new(rate, self.salt).takes(context.trace));
        } else if context.sampled.is_none() && !self.tracers.is_empty() {
            context.sampled = Some(self.tracers.iter().any(|t| t.takes(context.trace)));
        }
    }
}

#[cfg(test)]
mod tests;
