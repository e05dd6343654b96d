//! Finds the lines of a head, once over each byte, and knows which bytes may stand where.

use wide::u8x16;

use super::{HeadError, Limits};

/// Places in a head are kept in 32 bits; whatever the configuration says, no head is larger.
const MAX_HEAD: usize = 1 << 30;

/// How far a head was read, so that more bytes are looked at and no byte twice.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    line_start: usize,
    lines: usize,
}

/// What a scan came to.
pub(super) enum Step {
    /// More bytes are needed.
    Partial,
    /// A line without its CR LF: number from 1, begin and end.
    Line(usize, usize, usize),
    /// The empty line; the head's length with it.
    End(usize),
}

impl Scan {
    /// Whether `buf` cannot be what was scanned before with more bytes after it.
    pub(super) fn is_stale(&self, buf: &[u8]) -> bool {
        buf.len() < self.at
    }

    /// Where the last line that was found ends.
    pub(super) fn lines_end(&self) -> usize {
        self.line_start
    }

    /// The next line of the head that `buf` begins with. Refuses control characters, a bare CR and a bare LF as soon as
    /// they are seen, and a head over its limits.
    pub(super) fn next(&mut self, buf: &[u8], limits: &Limits) -> Result<Step, HeadError> {
        let head = limits.head.min(MAX_HEAD);
        let line = limits.line.saturating_add(2);
        let (limit, over) = if self.lines == 0 && line < head {
            (line, HeadError::LineTooLong { limit: limits.line })
        } else {
            (head, HeadError::HeadTooLong { limit: head })
        };
        let seen = &buf[..buf.len().min(limit)];
        loop {
            self.at = first(seen, self.at, is_control);
            match seen.get(self.at) {
                None if seen.len() < limit => return Ok(Step::Partial),
                None => return Err(over),
                Some(b'\t') => self.at += 1,
                Some(b'\r') => match seen.get(self.at + 1) {
                    // The CR is looked at again when there is something behind it.
                    None if seen.len() < limit => return Ok(Step::Partial),
                    Some(b'\n') => return Ok(self.line()),
                    None => return Err(over),
                    Some(_) => return Err(self.refuse("a CR without LF", seen)),
                },
                Some(b'\n') => return Err(self.refuse("a LF without CR", seen)),
                Some(0x16) if self.at == 0 => {
                    return Err(self.refuse("TLS, where plain HTTP is spoken", &[]));
                }
                Some(_) => return Err(self.refuse("a control character", seen)),
            }
        }
    }

    fn line(&mut self) -> Step {
        let (start, end) = (self.line_start, self.at);
        self.at += 2;
        self.line_start = self.at;
        self.lines += 1;
        if start == end && self.lines > 1 {
            return Step::End(self.at);
        }
        Step::Line(self.lines, start, end)
    }

    #[cold]
    fn refuse(&self, what: &'static str, seen: &[u8]) -> HeadError {
        let found = seen.get(self.line_start..=self.at).unwrap_or_default();
        HeadError::malformed(what, self.lines + 1, found)
    }
}

/// One in each byte.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
/// The highest bit of each byte.
const HIGH: u64 = ONES << 7;

/// Where the first byte is, from `at` on, of which `is` says so: sixteen are asked about at a time. Where there is none, it is where
/// the bytes end, or `at` behind that.
#[inline]
pub(super) fn first(bytes: &[u8], mut at: usize, is: impl Fn(u8x16) -> u8x16) -> usize {
    let ask = |block: [u8; 16]| is(u8x16::new(block)).to_bitmask();
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let found = ask(*block);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    let left = bytes.len().saturating_sub(at);
    // The last ones are asked about together with some before them, which are left out again.
    let found = match bytes.last_chunk() {
        _ if left == 0 => 0,
        Some(last) => ask(*last) >> (16 - left),
        None => {
            let mut block = [0; 16];
            block[..bytes.len()].copy_from_slice(bytes);
            ask(block) >> at
        }
    };
    at + left.min(found.trailing_zeros() as usize)
}

/// The control characters and DEL.
pub(super) fn is_control(bytes: u8x16) -> u8x16 {
    bytes.simd_lt(u8x16::splat(b' ')) | bytes.simd_eq(u8x16::splat(0x7f))
}

/// All but letters, digits and `-`, which most tokens are of.
fn is_rare(bytes: u8x16) -> u8x16 {
    let within = |bytes: u8x16, from: u8, to: u8| {
        (bytes - u8x16::splat(from)).simd_le(u8x16::splat(to - from))
    };
    let letter = within(bytes | u8x16::splat(b' '), b'a', b'z');
    !(letter | within(bytes, b'0', b'9') | bytes.simd_eq(u8x16::splat(b'-')))
}

/// Whether a value may have this byte: visible ASCII, space, tab, and all above 0x7f.
pub(super) fn is_value(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Whether a name or method may have this byte (`tchar` in RFC 9110 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// [`is_token`] of each byte: one look is less than a dozen comparisons.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        token[byte] = is_token(byte as u8);
        byte += 1;
    }
    token
};

/// How many bytes from `start` on are of a token.
pub(super) fn token_run(bytes: &[u8], start: usize) -> usize {
    let at = first(bytes, start, is_rare);
    let rest = bytes[at..].iter();
    at - start + rest.take_while(|byte| TOKEN[usize::from(**byte)]).count()
}

/// Appends a value that one of ours made, without what is blank around it; what would break its line becomes a space.
pub(super) fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    let has_blank_end = matches!(value, [b' ', ..] | [.., b' ']);
    if !has_blank_end && first(value, 0, is_control) == value.len() {
        out.extend_from_slice(value);
        return;
    }
    let is_visible = |byte: &u8| is_value(*byte) && !matches!(byte, b' ' | b'\t');
    let first = value.iter().position(is_visible).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(is_visible)
        .map_or(first, |last| last + 1);
    let start = out.len();
    out.extend_from_slice(&value[first..end]);
    for byte in &mut out[start..] {
        if !is_value(*byte) {
            *byte = b' ';
        }
    }
}

/// Whether two names or tokens are the same but for the case of their letters. Eight bytes at a time: the standard library's
/// [`eq_ignore_ascii_case`](slice::eq_ignore_ascii_case) takes what is shorter than 16 bytes, as most names are, one by one.
#[inline]
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let words = |a, b| lower(u64::from_le_bytes(a)) == lower(u64::from_le_bytes(b));
    if a.len() != b.len() {
        return false;
    }
    // What is no multiple of eight ends with a word that looks at some bytes again.
    if let (Some(a_end), Some(b_end)) = (a.last_chunk(), b.last_chunk()) {
        let (a, b) = (a.as_chunks().0, b.as_chunks().0);
        return words(*a_end, *b_end) && a.iter().zip(b).all(|(a, b)| words(*a, *b));
    }
    let halves = |text: &[u8]| -> Option<[u8; 8]> {
        let (&[a, b, c, d], &[e, f, g, h]) = (text.first_chunk()?, text.last_chunk()?);
        Some([a, b, c, d, e, f, g, h])
    };
    match (halves(a), halves(b)) {
        (Some(a), Some(b)) => words(a, b),
        _ => a.eq_ignore_ascii_case(b),
    }
}

/// The word with its bytes from 'A' to 'Z' in lower case.
fn lower(word: u64) -> u64 {
    let low = word & !HIGH;
    // The highest bit of each byte says it.
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    let upper = (from_a ^ beyond_z) & !word & HIGH;
    word | upper >> 2
}
