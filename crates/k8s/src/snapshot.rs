//! What is held, on disk: so that a router that starts while the API server is away serves what the one before it knew.
//!
//! One file for each API server, `kubernetes-TARGET.snapshot` in the state directory: a line with the format's version,
//! a checksum and the length, then JSON. It is written under another name first and moved into place, so that there is
//! always a whole one. What cannot be read is ignored with a reason, never an error of the router. Reading and writing
//! is all that is here; when it happens is `cluster`'s matter.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::objects::{Key, Members, Object, Service};
use crate::table::Scope;
use crate::view::Kind;

/// The format's version: to be raised with every change of [`Content`] or of what it holds.
pub const VERSION: u32 = 1;
/// What a file begins with.
const MAGIC: &str = "rutter-kubernetes-snapshot";
/// What was confirmed longer ago is not served: pods' addresses have new owners by then.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// A file beyond this is none of ours.
const MAX_BYTES: u64 = 1 << 30;
/// A half-written file of a process that is gone is removed after this.
const ABANDONED: Duration = Duration::from_secs(60);

/// What is held of one API server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Content {
    /// The API server, as [`crate::ApiTarget`] shows it.
    pub target: String,
    /// When the API server last confirmed all of it, in seconds since 1970.
    pub confirmed: u64,
    /// What was listed as a whole: kinds, and a namespace or all.
    pub listed: Vec<Listed>,
    /// EndpointSlices, or Endpoints.
    pub members: Vec<Saved<Members>>,
    /// Services.
    pub services: Vec<Saved<Service>>,
}

/// One kind in one scope that was listed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which kind.
    pub kind: Kind,
    /// Absent: all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Listed {
    pub(crate) fn new(kind: Kind, scope: &Scope) -> Self {
        let namespace = scope.namespace().map(ToOwned::to_owned);
        Self { kind, namespace }
    }

    pub(crate) fn scope(&self) -> Scope {
        match &self.namespace {
            None => Scope::Cluster,
            Some(namespace) => Scope::Namespace(namespace.as_str().into()),
        }
    }
}

/// An object with its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved<V> {
    namespace: String,
    name: String,
    version: u64,
    value: V,
}

impl<V> Saved<V> {
    pub(crate) fn new(key: &Key, version: u64, value: V) -> Self {
        Self {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            version,
            value,
        }
    }

    pub(crate) fn object(self) -> Object<V> {
        Object {
            key: Key::new(&self.namespace, &self.name),
            version: self.version,
            value: self.value,
        }
    }
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It can't be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It begins with something else.
    #[error("it does not begin as a snapshot does")]
    Foreign,
    /// Another version of the program wrote it.
    #[error("its format is version {found}, this program reads {VERSION}")]
    Version {
        /// What it says.
        found: String,
    },
    /// It is shorter or longer than its head says.
    #[error("it has {found} bytes behind its first line instead of {wanted}")]
    Length {
        /// As its head says.
        wanted: u64,
        /// As it is.
        found: u64,
    },
    /// Some of it is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the content is not.
    #[error("its content cannot be understood: {0}")]
    Content(#[from] serde_json::Error),
    /// It is of another API server.
    #[error("it is of {found}")]
    OtherTarget {
        /// What it is of.
        found: String,
    },
    /// What it has was confirmed too long ago.
    #[error("what it has was confirmed {} hours ago, and after {} hours addresses have new owners", .0.as_secs() / 3600, MAX_AGE.as_secs() / 3600)]
    TooOld(Duration),
}

/// Where the snapshot of one API server is.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
    name: String,
    target: String,
}

impl Place {
    /// In the state directory `dir`, for the API server that shows itself as `target`.
    #[must_use]
    pub fn new(dir: &Path, target: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = target.chars().map(plain).take(100).collect();
        Self {
            dir: dir.to_owned(),
            name: format!("kubernetes-{name}.snapshot"),
            target: target.to_owned(),
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// What is there; none when no snapshot was ever written.
    ///
    /// # Errors
    /// When there is one and it must not be used.
    pub fn read(&self) -> Result<Option<Content>, Unusable> {
        let file = match std::fs::File::open(self.file()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES), &mut bytes)?;
        let content = decode(&bytes)?;
        if content.target != self.target {
            return Err(Unusable::OtherTarget {
                found: content.target,
            });
        }
        match age(content.confirmed) {
            age if age > MAX_AGE => Err(Unusable::TooOld(age)),
            _ => Ok(Some(content)),
        }
    }

    /// Puts `content` in place, in whole or not at all; how many bytes that were. The directory is made when it is not
    /// there. Blocks.
    ///
    /// # Errors
    /// When the disk is full, may not be written to, and so on; the snapshot before stays then.
    pub fn write(&self, content: &Content) -> std::io::Result<u64> {
        std::fs::create_dir_all(&self.dir)?;
        self.clean();
        let bytes = encode(content)?;
        let part = self
            .dir
            // In pods, the router before and the one after have the same process id.
            .join(format!(".{}.{:08x}.part", self.name, fastrand::u32(..)));
        let written = (|| {
            let mut file = std::fs::File::create(&part)?;
            file.write_all(&bytes)?;
            // Otherwise a power cut could leave the new name with nothing in it.
            file.sync_all()?;
            std::fs::rename(&part, self.file())?;
            std::fs::File::open(&self.dir)?.sync_all()
        })();
        if written.is_err() {
            _ = std::fs::remove_file(&part);
        }
        written.map(|()| bytes.len() as u64)
    }

    /// Removes what processes that are gone left half-written.
    fn clean(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        let begin = format!(".{}.", self.name);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name
                .to_str()
                .is_some_and(|name| name.starts_with(&begin) && name.ends_with(".part"));
            let modified = entry.metadata().and_then(|about| about.modified());
            let old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
            if ours && old {
                _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// How long ago that was; nothing when the clock was turned back since.
pub(crate) fn age(unix_seconds: u64) -> Duration {
    let at = UNIX_EPOCH + Duration::from_secs(unix_seconds);
    SystemTime::now().duration_since(at).unwrap_or_default()
}

/// That long ago, in seconds since 1970.
pub(crate) fn unix_seconds_ago(age: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(age).as_secs()
}

fn encode(content: &Content) -> std::io::Result<Vec<u8>> {
    let body = serde_json::to_vec(content)?;
    let head = format!(
        "{MAGIC} {VERSION} {:016x} {}\n",
        checksum(&body),
        body.len()
    );
    Ok([head.into_bytes(), body].concat())
}

/// Reads a whole file.
///
/// # Errors
/// When it is damaged, or not of this version.
pub fn decode(bytes: &[u8]) -> Result<Content, Unusable> {
    let end = bytes.iter().take(200).position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(end.ok_or(Unusable::Foreign)?);
    let body = &body[1..];
    let mut words = std::str::from_utf8(head)
        .map_err(|_| Unusable::Foreign)?
        .split(' ');
    if words.next() != Some(MAGIC) {
        return Err(Unusable::Foreign);
    }
    let found = words.next().unwrap_or_default();
    if found != VERSION.to_string() {
        let found = found.to_owned();
        return Err(Unusable::Version { found });
    }
    let sum = words
        .next()
        .and_then(|sum| u64::from_str_radix(sum, 16).ok());
    let length = words.next().and_then(|length| length.parse::<u64>().ok());
    let (Some(sum), Some(wanted), None) = (sum, length, words.next()) else {
        return Err(Unusable::Foreign);
    };
    let found = body.len() as u64;
    if found != wanted {
        return Err(Unusable::Length { wanted, found });
    }
    if checksum(body) != sum {
        return Err(Unusable::Checksum);
    }
    Ok(serde_json::from_slice(body)?)
}

/// FNV-1a of 64 bits: against damage, not against forgery. Who can write here can write anything.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::{Condition, Ingress, Member, MemberPort, ServicePort, Subset, TargetPort};

    fn content() -> Content {
        let member = |ip: &str, condition| Member {
            ip: ip.parse().unwrap(),
            node: Some("n1".into()),
            condition,
        };
        let ports = vec![MemberPort {
            name: "http".into(),
            number: 8080,
        }];
        let members = Members {
            service: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            subsets: vec![Subset {
                ports,
                members: vec![
                    member("10.0.0.1", Condition::Ready),
                    member("fd00::1", Condition::Draining),
                ],
            }],
        };
        let port = |name: &str, target| ServicePort {
            name: name.into(),
            number: 80,
            target,
        };
        let service = Service {
            ports: vec![
                port("http", TargetPort::Name("web".into())),
                port("by-number", TargetPort::Number(8080)),
            ],
            ingress: vec![
                Ingress::Ip("192.0.2.1".parse().unwrap()),
                Ingress::Host("lb.example".into()),
            ],
            ..Service::default()
        };
        Content {
            target: "localhost:8001".to_owned(),
            confirmed: unix_seconds_ago(Duration::from_secs(60)),
            listed: vec![
                Listed::new(Kind::Members, &Scope::Cluster),
                Listed::new(Kind::Services, &Scope::Namespace("shop".into())),
            ],
            members: vec![Saved::new(&Key::new("shop", "web-1"), 17, members)],
            services: vec![Saved::new(&Key::new("shop", "web"), 12, service)],
        }
    }

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        // A directory that is not there yet.
        let place = Place::new(&dir.path().join("state"), "localhost:8001");
        (dir, place)
    }

    #[test]
    fn what_was_written_is_read() {
        let (dir, place) = place();
        assert!(place.read().unwrap().is_none(), "there was none yet");
        place.write(&content()).unwrap();
        assert_eq!(place.read().unwrap(), Some(content()));
        // Again, over the old one; nothing else is left behind.
        place.write(&content()).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path().join("state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["kubernetes-localhost-8001.snapshot"]);
    }

    /// The format that is in the field: when this fails, [`VERSION`] must be raised.
    #[test]
    fn a_snapshot_of_this_version_looks_like_this() {
        let content = Content {
            confirmed: 1_700_000_000,
            ..content()
        };
        let text = String::from_utf8(encode(&content).unwrap()).unwrap();
        let (head, body) = text.split_once('\n').unwrap();
        assert!(head.starts_with("rutter-kubernetes-snapshot 1 "), "{head}");
        let want = concat!(
            r#"{"target":"localhost:8001","confirmed":1700000000,"#,
            r#""listed":[{"kind":"members"},{"kind":"services","namespace":"shop"}],"#,
            r#""members":[{"namespace":"shop","name":"web-1","version":17,"value":{"service":"web","labels":{"app":"web"},"#,
            r#""subsets":[{"ports":[{"name":"http","number":8080}],"members":["#,
            r#"{"ip":"10.0.0.1","node":"n1","condition":"Ready"},{"ip":"fd00::1","node":"n1","condition":"Draining"}]}]}}],"#,
            r#""services":[{"namespace":"shop","name":"web","version":12,"value":{"labels":{},"#,
            r#""ports":[{"name":"http","number":80,"target":{"Name":"web"}},{"name":"by-number","number":80,"target":{"Number":8080}}],"#,
            r#""ingress":[{"Ip":"192.0.2.1"},{"Host":"lb.example"}]}}]}"#
        );
        assert_eq!(body, want);
    }

    #[test]
    fn another_version_another_api_server_and_an_old_snapshot_are_not_used() {
        let (_dir, place) = place();
        place.write(&content()).unwrap();
        let text = std::fs::read_to_string(place.file()).unwrap();
        for version in ["0", "2", "1.0", ""] {
            let other = text.replacen(" 1 ", &format!(" {version} "), 1);
            std::fs::write(place.file(), other).unwrap();
            assert!(
                matches!(place.read(), Err(Unusable::Version { found }) if found == version),
                "{version}"
            );
        }
        let other = Content {
            target: "elsewhere".to_owned(),
            ..content()
        };
        place.write(&other).unwrap();
        assert!(
            matches!(place.read(), Err(Unusable::OtherTarget { found }) if found == "elsewhere")
        );
        let old = Content {
            confirmed: unix_seconds_ago(MAX_AGE + Duration::from_secs(5)),
            ..content()
        };
        place.write(&old).unwrap();
        assert!(matches!(place.read(), Err(Unusable::TooOld(_))));
        // A clock that was turned back is no reason.
        let tomorrow = unix_seconds_ago(Duration::ZERO) + 86_400;
        place
            .write(&Content {
                confirmed: tomorrow,
                ..content()
            })
            .unwrap();
        assert!(place.read().unwrap().is_some());
    }

    #[test]
    fn what_can_not_be_written_leaves_nothing_behind() {
        let (dir, place) = place();
        // A directory where the file should be, and a file where the directory should be.
        std::fs::create_dir_all(place.file().join("x")).unwrap();
        assert!(place.write(&content()).is_err());
        let left = std::fs::read_dir(dir.path().join("state")).unwrap().count();
        assert_eq!(left, 1, "only the directory in the way");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(Place::new(&file, "x").write(&content()).is_err());
        assert!(matches!(
            Place::new(&file, "x").read(),
            Err(Unusable::Io(_))
        ));
    }

    proptest! {
        #[test]
        fn damage_of_any_kind_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
            let whole = encode(&content()).unwrap();
            let mut flipped = whole.clone();
            flipped[at.index(whole.len())] ^= 1 << bit;
            // A digit of the checksum in the other case is the same number.
            let same_sum = flipped.eq_ignore_ascii_case(&whole);
            prop_assert!(decode(&flipped).is_err() || same_sum);
            prop_assert!(decode(&whole[..cut.index(whole.len())]).is_err());
            prop_assert!(decode(&[whole.clone(), b"x".to_vec()].concat()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
