//! What keeps dtabs: the trait that every engine implements, and what it keeps.
//!
//! A namespace has a row of [`Record`]s, numbered from 1: each write adds one, and so does a deletion. The last one counts.
//! [`Live`] holds what counts now and tells those who watch it. Engines: `memory` and `file` keep records themselves; `remote`
//! keeps them in a storage that other replicas use, too, which is one of `kubernetes`, `etcd`, `zookeeper` and `consul`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dtab::{Dtab, ParseError};
use naming::Var;
use sha2::{Digest, Sha256};

mod audited;
pub mod consul;
pub mod etcd;
mod file;
#[cfg(test)]
mod killed;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(test)]
mod linear;
mod live;
mod memory;
#[cfg(test)]
mod real;
pub mod remote;
#[cfg(test)]
mod suite;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use audited::Audited;
pub use file::{FileStore, OpenError};
pub use live::{Names, Observed, Watch};
pub use memory::MemoryStore;

/// What an engine answers, some time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The longest name of a namespace, in bytes: what every engine can take.
pub const MAX_NAME_BYTES: usize = 253;

/// Keeps dtabs by namespace, with their history.
pub trait Store: Send + Sync {
    /// Its `kind` in the configuration.
    fn kind(&self) -> &'static str;

    /// What is in force in a namespace; none when there is no such namespace.
    fn get<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Option<Arc<Stored>>>;

    /// Puts a dtab in force if `only` allows it. When this answers, the write is durable (as far as the engine is) and
    /// seen by [`Store::get`].
    fn put<'a>(
        &'a self,
        namespace: &'a Namespace,
        change: Change,
        only: Only,
    ) -> Answer<'a, Arc<Stored>>;

    /// Ends a namespace if `only` allows it; its history stays.
    fn delete<'a>(&'a self, namespace: &'a Namespace, origin: Origin, only: Only)
    -> Answer<'a, ()>;

    /// The records of a namespace with numbers below `before`, the newest first, at most `limit`; empty for a
    /// namespace that there never was. Without `before`, from the last one.
    fn history<'a>(
        &'a self,
        namespace: &'a Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'a, Vec<Record>>;

    /// The names of all namespaces. Who is slow in reading sees the newest state.
    fn names(&self) -> Names;

    /// The state of a namespace, which need not be there yet. Who is slow in reading sees the newest state.
    fn watch(&self, namespace: &Namespace) -> Watch;

    /// How things stand with a storage that is elsewhere. Until it has been heard of, [`Store::names`] says nothing.
    fn standing(&self) -> Var<Standing> {
        Var::new(Standing::Good)
    }
}

/// How things stand with the storage behind an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has never answered yet, for this reason: nothing is known.
    Awaited(Arc<str>),
    /// What is known follows it.
    Good,
    /// It does not answer, for this reason; what is known stays.
    Lost(Arc<str>),
}

/// The name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// A text that no namespace can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a namespace is called by 1 to {MAX_NAME_BYTES} bytes without slashes and control characters, found {found}"
)]
pub struct BadName {
    found: String,
}

impl Namespace {
    /// A namespace of that name.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let fits = !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && !name.contains(|c: char| c == '/' || c.is_control());
        match fits {
            true => Ok(Self(name.into())),
            false if name.len() > MAX_NAME_BYTES => Err(BadName {
                found: format!("{} bytes", name.len()),
            }),
            false => Err(BadName {
                found: format!("{name:?}"),
            }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a change comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who made it: what a client says it is, else its address.
    pub author: Arc<str>,
    /// When, to the millisecond.
    pub time: SystemTime,
    /// What for, in the author's words; may be empty.
    pub note: Arc<str>,
}

impl Origin {
    /// A change by `author`, now.
    pub fn now(author: impl Into<Arc<str>>, note: impl Into<Arc<str>>) -> Self {
        Self::at(author, to_millis(SystemTime::now()), note)
    }

    /// A change by `author`, so many milliseconds after 1970 began.
    pub(crate) fn at(author: impl Into<Arc<str>>, millis: u64, note: impl Into<Arc<str>>) -> Self {
        Self {
            author: author.into(),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            note: note.into(),
        }
    }
}

/// A time as milliseconds since 1970.
pub(crate) fn to_millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// A dtab that is to be put in force.
#[derive(Clone, Debug)]
pub struct Change {
    text: Arc<str>,
    dtab: Dtab,
    origin: Origin,
}

impl Change {
    /// A dtab as it is written, with its comments.
    pub fn read(text: &str, origin: Origin) -> Result<Self, ParseError> {
        let dtab = Dtab::read(text)?;
        Ok(Self {
            text: text.into(),
            dtab,
            origin,
        })
    }

    /// Whether what comes in force is what will be read of it again.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_as_written(&self) -> bool {
        Dtab::read(&self.text).as_ref() == Ok(&self.dtab)
    }

    /// A dtab that was not written as text.
    pub fn of(dtab: Dtab, origin: Origin) -> Self {
        Self {
            text: one_line(&dtab).into(),
            dtab,
            origin,
        }
    }
}

/// A dtab as namerd writes it: `/svc=>/a;/host=>/b`.
pub fn one_line(dtab: &Dtab) -> String {
    dtab.to_string()
}

/// When a write is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// In any case.
    Always,
    /// When there is no such namespace.
    Absent,
    /// When there is one.
    Present,
    /// When this version is in force, as [`Record::version`] writes it.
    Version(Arc<str>),
}

/// One write of a namespace's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number: 1 for the first, each is one more, over deletions as well.
    pub number: u64,
    /// Who, when, what for.
    pub origin: Origin,
    /// The dtab as it was written; none for a deletion.
    pub text: Option<Arc<str>>,
    /// The version as the engine's storage has it, for those that have versions of their own.
    pub tag: Option<Arc<str>>,
}

impl Record {
    /// The version as clients see it (`ETag`): the storage's own; otherwise, as in Linkerd's in-memory store, the number in
    /// eight bytes, base64.
    pub fn version(&self) -> String {
        match &self.tag {
            Some(tag) => tag.to_string(),
            None => base64(&self.number.to_be_bytes()),
        }
    }

    /// SHA-256 of the text, in hexadecimal; none for a deletion.
    pub fn hash(&self) -> Option<String> {
        Some(hash_of(self.text.as_ref()?))
    }
}

/// SHA-256 of a text, in hexadecimal.
fn hash_of(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is in force in a namespace.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The last record, which is no deletion.
    pub record: Record,
    /// Its dtab.
    pub dtab: Dtab,
}

/// Why a store does not do what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// To be made, and there already.
    #[error("namespace {namespace} exists already, with version {version}")]
    Exists {
        /// Which.
        namespace: Namespace,
        /// What is in force.
        version: String,
    },
    /// To be changed, and not there.
    #[error("there is no namespace {0}")]
    NotFound(Namespace),
    /// Somebody else was first.
    #[error("namespace {namespace} has version {version} now")]
    Changed {
        /// Which.
        namespace: Namespace,
        /// What is in force.
        version: String,
    },
    /// The engine's own storage does not answer, or cannot write.
    #[error("the storage cannot be used: {0}")]
    Unavailable(String),
    /// The engine's storage does not take this, however often it is asked.
    #[error("{1}")]
    Refused(Refused, String),
}

/// Why a storage does not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing can be called so there.
    Name,
    /// It has a limit of size.
    TooLarge,
    /// It lets us not.
    Forbidden,
}

/// The pure part of every write: what comes of it, given what is in force and the last number that was used.
fn decide(
    namespace: &Namespace,
    now: Option<&Stored>,
    last: u64,
    change: Option<Change>,
    origin: Origin,
    only: &Only,
) -> Result<(Record, Option<Dtab>), StoreError> {
    let changed = |now: &Stored| StoreError::Changed {
        namespace: namespace.clone(),
        version: now.record.version(),
    };
    match (only, now) {
        (Only::Always, Some(_)) | (Only::Present, Some(_)) | (Only::Absent, None) => {}
        (Only::Always, None) if change.is_some() => {}
        (Only::Absent, Some(now)) => {
            return Err(StoreError::Exists {
                namespace: namespace.clone(),
                version: now.record.version(),
            });
        }
        (Only::Version(wanted), Some(now)) if now.record.version() != **wanted => {
            return Err(changed(now));
        }
        (Only::Version(_), Some(_)) => {}
        (_, None) => return Err(StoreError::NotFound(namespace.clone())),
    }
    let (text, dtab) = match change {
        Some(change) => (Some(change.text), Some(change.dtab)),
        None => (None, None),
    };
    let record = Record {
        number: last + 1,
        origin,
        text,
        tag: None,
    };
    Ok((record, dtab))
}

/// In base64, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let wide = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            text.push(match digit <= three.len() {
                true => char::from(ALPHABET[(wide >> (18 - 6 * digit)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_eight_bytes_in_base64() {
        for (number, want) in [
            (1, "AAAAAAAAAAE="),
            (2, "AAAAAAAAAAI="),
            (64, "AAAAAAAAAEA="),
            (10_000, "AAAAAAAAJxA="),
            (u64::MAX, "//////////8="),
        ] {
            assert_eq!(base64(&u64::to_be_bytes(number)), want, "{number}");
        }
        for (text, want) in [("", ""), ("1", "MQ=="), ("10", "MTA="), ("101", "MTAx")] {
            assert_eq!(base64(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn a_namespace_has_a_name_that_fits_one_segment() {
        for good in ["default", "日本語", "a b", "x-1_2.3", "%41"] {
            assert_eq!(Namespace::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a\nb", "\0", &"x".repeat(254)] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
    }
}
