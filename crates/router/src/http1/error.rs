//! What is wrong with a message.

/// Why a head was refused. The connection cannot be used any further: where the next message begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("{what} (line {line} of the head{})", excerpt(found))]
    Malformed {
        /// What was wanted or is not allowed.
        what: &'static str,
        /// The line, from 1.
        line: usize,
        /// The first bytes of what was found there.
        found: Box<[u8]>,
    },
    /// Two readers may disagree on where this message ends or where it goes.
    #[error("{what}{}", excerpt(found))]
    Ambiguous {
        /// What is ambiguous.
        what: &'static str,
        /// The first bytes of what was found.
        found: Box<[u8]>,
    },
    /// The first line is too long.
    #[error("the first line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The whole head is too long.
    #[error("the head is longer than {limit} bytes")]
    HeadTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// There are too many fields.
    #[error("the head has more than {limit} fields")]
    TooManyFields {
        /// The limit.
        limit: usize,
    },
}

impl HeadError {
    /// The status that a client is answered; an endpoint's head that is refused is always a 502.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed { .. } | Self::Ambiguous { .. } => 400,
            Self::LineTooLong { .. } => 414,
            Self::HeadTooLong { .. } | Self::TooManyFields { .. } => 431,
        }
    }

    /// Whether a limit was passed (RT-E122), and not a rule broken (RT-E121).
    #[must_use]
    pub fn is_limit(&self) -> bool {
        self.status() != 400
    }

    pub(super) fn malformed(what: &'static str, line: usize, found: &[u8]) -> Self {
        let found = shorten(found);
        Self::Malformed { what, line, found }
    }
}

/// Refuses a head that could be read in two ways.
pub(super) fn ambiguous<T>(what: &'static str, found: &[u8]) -> Result<T, HeadError> {
    let found = shorten(found);
    Err(HeadError::Ambiguous { what, found })
}

/// Why a body was refused, or broke off. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk's size is missing, signed, not hexadecimal or too large.
    #[error("the size of a chunk is not a hexadecimal number of at most 16 digits below 2^63")]
    ChunkSize,
    /// A control character in a chunk's extension.
    #[error("a control character in a chunk's extension")]
    ChunkExtension,
    /// A CR LF is missing.
    #[error("no CR LF after {0}")]
    LineEnd(
        /// After what it is missing.
        &'static str,
    ),
    /// A line of the trailers is not a field.
    #[error("a line of the trailers is not a field")]
    Trailer,
    /// A field that says how a message is framed or where it goes stands in the trailers.
    #[error("a field in the trailers that only a head may have, as Content-Length or Host")]
    ForbiddenTrailer,
    /// More extensions or trailers than anybody needs.
    #[error("{what} of more than {limit} bytes")]
    TooLong {
        /// Of what there is too much.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The connection ended before the body.
    #[error("the connection ended in the middle of the body")]
    Truncated,
}

impl BodyError {
    /// The status that a client is answered when its request's body is refused and nothing has been answered yet.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TooLong { .. } => 413,
            _ => 400,
        }
    }

    /// Whether a limit was passed (RT-E122), and not a rule broken (RT-E121).
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::TooLong { .. })
    }
}

/// Enough of the found bytes to find them again in a dump.
const EXCERPT: usize = 48;

fn shorten(found: &[u8]) -> Box<[u8]> {
    found[..found.len().min(EXCERPT)].into()
}

fn excerpt(found: &[u8]) -> String {
    if found.is_empty() {
        return String::new();
    }
    format!(": `{}`", found.escape_ascii())
}
