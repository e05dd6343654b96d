//! Spans as log lines: telemeter `io.l5d.tracelog`.

use std::sync::Arc;

use tracing::Level;

use super::{Kind, Sink, SpanRecord};

/// Logs each span under target `io.l5d.tracelog`.
#[derive(Debug, Clone, Copy)]
pub struct TraceLog(
    /// The level of the lines.
    pub Level,
);

macro_rules! log_span {
    ($level:expr, $span:expr) => {
        tracing::event!(
            target: "io.l5d.tracelog",
            $level,
            trace = %$span.context.trace,
            span = %$span.context.span,
            parent = $span.context.parent.map(|id| id.to_string()),
            kind = match $span.kind { Kind::Server => "server", Kind::Client => "client" },
            name = &*$span.name,
            service = &*$span.service,
            duration_us = $span.duration_us,
            error = $span.error.map(|code| code.as_str()),
            tags = ?$span.tags,
            "span"
        )
    };
}

impl Sink for TraceLog {
    fn offer(&self, span: &Arc<SpanRecord>) {
        // A level is part of a log line's fixed description, so each has its own.
        match self.0 {
            Level::ERROR => log_span!(Level::ERROR, span),
            Level::WARN => log_span!(Level::WARN, span),
            Level::INFO => log_span!(Level::INFO, span),
            Level::DEBUG => log_span!(Level::DEBUG, span),
            Level::TRACE => log_span!(Level::TRACE, span),
        }
    }
}
