//! Paths: what requests and services are named.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::{ParseError, parse, print};

/// What fits beside length and tag into the space of three words.
const INLINE: usize = 22;

/// One part of a [`Path`]: a non-empty string of bytes, any bytes, also NUL, `/` and invalid UTF-8.
///
/// Up to 22 bytes are stored in place, longer ones are shared: a clone never copies much.
#[derive(Clone)]
pub struct Segment(Bytes);

#[derive(Clone)]
enum Bytes {
    Inline { len: u8, buf: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

impl Segment {
    /// A segment of these bytes; none when there are no bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Option<Self> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return None;
        }
        if bytes.len() > INLINE {
            return Some(Self(Bytes::Shared(bytes.into())));
        }
        let mut buf = [0; INLINE];
        buf[..bytes.len()].copy_from_slice(bytes);
        let len = bytes.len() as u8;
        Some(Self(Bytes::Inline { len, buf }))
    }

    /// The bytes themselves, not escaped.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { len, buf } => &buf[..usize::from(*len)],
            Bytes::Shared(bytes) => bytes,
        }
    }

    /// The segment as text, not escaped; none when it is not valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }
}

impl PartialEq for Segment {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Segment {}

impl PartialEq<str> for Segment {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Segment {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Hash for Segment {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Segment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Segment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::segment(self.as_bytes(), f)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({self})")
    }
}

/// A list of segments such as `/svc/web`; the root `/` has none.
///
/// Equality, order and hash are those of the bytes, never of the text: `/\x61` is `/a`. Clones, [`Path::drop`] and
/// [`Path::take`] share the segments with the path they came from.
#[derive(Clone, Default)]
pub struct Path {
    /// None stands for no segments, so that the root costs nothing.
    all: Option<Arc<[Segment]>>,
    from: u32,
    to: u32,
}

impl Path {
    /// The path without segments, `/`.
    pub const fn root() -> Self {
        Self {
            all: None,
            from: 0,
            to: 0,
        }
    }

    /// Reads a path as Finagle's `Path.read` does: white space and comments may stand around it.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        parse::read_path(text)
    }

    /// A path of text segments; empty ones are skipped.
    pub fn utf8<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        segments.into_iter().filter_map(Segment::new).collect()
    }

    /// All segments in order.
    pub fn segments(&self) -> &[Segment] {
        match &self.all {
            Some(all) => &all[self.from as usize..self.to as usize],
            None => &[],
        }
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// Whether this is the root.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Whether the first segments are those of `prefix`; every path starts with the root.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.segments().starts_with(prefix.segments())
    }

    /// What is left behind the first `n` segments; the root when there are no more than these.
    #[must_use]
    pub fn drop(&self, n: usize) -> Self {
        let n = n.min(self.len()) as u32;
        self.slice(self.from + n, self.to)
    }

    /// The first `n` segments, or all when there are fewer.
    #[must_use]
    pub fn take(&self, n: usize) -> Self {
        let n = n.min(self.len()) as u32;
        self.slice(self.from, self.from + n)
    }

    fn slice(&self, from: u32, to: u32) -> Self {
        if from == to {
            return Self::root();
        }
        let all = self.all.clone();
        Self { all, from, to }
    }

    /// This path followed by `rest`.
    #[must_use]
    pub fn concat(&self, rest: &Self) -> Self {
        if rest.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return rest.clone();
        }
        let mut all = Vec::with_capacity(self.len() + rest.len());
        all.extend_from_slice(self.segments());
        all.extend_from_slice(rest.segments());
        all.into()
    }

    /// This path with one more segment.
    #[must_use]
    pub fn child(&self, segment: Segment) -> Self {
        let mut all = Vec::with_capacity(self.len() + 1);
        all.extend_from_slice(self.segments());
        all.push(segment);
        all.into()
    }
}

impl From<Vec<Segment>> for Path {
    fn from(segments: Vec<Segment>) -> Self {
        if segments.is_empty() {
            return Self::root();
        }
        // Four thousand million segments are 96 GiB: no machine gets here.
        let to = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let all = Some(segments.into());
        Self { all, from: 0, to }
    }
}

impl FromIterator<Segment> for Path {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        segments.into_iter().collect::<Vec<_>>().into()
    }
}

impl FromStr for Path {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.segments() == other.segments()
    }
}

impl Eq for Path {}

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.segments().hash(state);
    }
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Path {
    fn cmp(&self, other: &Self) -> Ordering {
        self.segments().cmp(other.segments())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::path(self.segments(), f)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_takes_three_words() {
        assert_eq!(size_of::<Segment>(), 24);
        assert_eq!(size_of::<Path>(), 24);
    }

    #[test]
    fn long_and_short_segments_are_compared_by_their_bytes() {
        for text in ["a", "exactly-22-bytes-long.", "one-more-than-fits-in-p"] {
            let segment = Segment::new(text).unwrap();
            assert_eq!(segment.as_str(), Some(text));
            assert_eq!(segment, text);
            assert_eq!(segment, segment.clone());
        }
        assert!(Segment::new("").is_none());
        assert!(Segment::new("b") > Segment::new("a-long-segment-that-is-shared"));
    }

    #[test]
    fn parts_of_a_path_are_paths() {
        let path = Path::utf8(["svc", "", "web", "v1"]);
        assert_eq!(path.to_string(), "/svc/web/v1");
        assert_eq!(path.drop(1).to_string(), "/web/v1");
        assert_eq!(path.drop(1).take(1).to_string(), "/web");
        assert_eq!(path.drop(9), Path::root());
        assert_eq!(path.take(9), path);
        assert_eq!(path.take(1).concat(&path.drop(1)), path);
        assert!(path.starts_with(&path.take(2)));
        assert!(!path.take(2).starts_with(&path));
        assert_eq!(path.take(2).child(Segment::new("v1").unwrap()), path);
    }
}
