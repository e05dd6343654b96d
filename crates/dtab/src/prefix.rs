//! Prefixes: the left-hand side of a dentry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{ParseError, Path, Segment, parse, print};

/// One part of a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// `*`: any one segment.
    Any,
    /// This segment alone.
    Label(Segment),
}

impl Elem {
    /// Whether it stands for this segment.
    pub fn matches(&self, segment: &Segment) -> bool {
        match self {
            Self::Any => true,
            Self::Label(label) => label == segment,
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Label(label) => label.fmt(f),
        }
    }
}

/// The beginnings of paths that a dentry applies to, such as `/svc/*`; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(Arc<[Elem]>);

impl Prefix {
    /// A prefix of these elements; without any it is `/` and matches all paths.
    pub fn new(elems: impl IntoIterator<Item = Elem>) -> Self {
        Self(elems.into_iter().collect())
    }

    /// Reads a prefix: a path in which `*` may stand for a whole segment.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        parse::read_prefix(text)
    }

    /// All elements in order.
    pub fn elems(&self) -> &[Elem] {
        &self.0
    }

    /// How many segments of a path it takes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is `/`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The path that it is; none when it has a wildcard.
    pub fn to_path(&self) -> Option<Path> {
        let label = |elem: &Elem| match elem {
            Elem::Label(label) => Some(label.clone()),
            Elem::Any => None,
        };
        let labels: Option<Vec<_>> = self.0.iter().map(label).collect();
        labels.map(|labels| labels.into_iter().collect())
    }

    /// Whether `path` begins so, segment by segment and case-sensitively.
    pub fn matches(&self, path: &Path) -> bool {
        let segments = path.segments();
        self.len() <= segments.len() && self.0.iter().zip(segments).all(|(elem, s)| elem.matches(s))
    }
}

impl From<&Path> for Prefix {
    fn from(path: &Path) -> Self {
        Self::new(path.segments().iter().cloned().map(Elem::Label))
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::path(&self.0, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}
