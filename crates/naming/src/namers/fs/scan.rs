//! What is believed of a folder's files. Editors and copying programs empty a file and then write it, or remove it
//! and then put another in its place; what was seen in such a moment is looked at again before it counts.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtab::{Path, Segment};
use tracing::{debug, warn};

use super::addresses::{MAX_FILE_BYTES, parse};
use super::{AddressFile, Content, Entries, Entry};
use crate::Var;
use crate::namers::Dns;

/// How long a doubtful sight has to stay the same: a file without its last line end, or with a wrong line.
const SETTLE: Duration = Duration::from_millis(100);
/// The same for an empty or missing file: to believe it costs all endpoints.
const SETTLE_LOSS: Duration = Duration::from_millis(250);
/// How deep folders may be nested.
const MAX_DEPTH: usize = 16;

/// Follows a folder by looking at it, again and again.
pub(super) struct Scan {
    root: PathBuf,
    dns: Dns,
    files: BTreeMap<Path, Known>,
    folders: HashSet<Path>,
    /// What the namer's lookups see.
    published: Var<Entries>,
    root_problem: Option<String>,
}

/// One file, as believed and as seen since.
struct Known {
    place: PathBuf,
    stamp: Option<Stamp>,
    /// Of what `entry` says; none when the file is not published yet.
    believed: Option<Sight>,
    doubtful: Option<(Sight, Instant)>,
    entry: Arc<AddressFile>,
}

/// What tells that a file was written or replaced, without reading it.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            written: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// A look at a file.
#[derive(Clone, Copy, PartialEq)]
enum Sight {
    Gone,
    Unreadable,
    /// The hash and length of the bytes.
    Bytes(u64, usize),
}

impl Sight {
    fn is_loss(self) -> bool {
        matches!(self, Self::Gone | Self::Unreadable | Self::Bytes(_, 0))
    }
}

/// Which files are read although they look the same as before.
pub(super) enum Reread {
    /// Those that an event named.
    Touched(HashSet<PathBuf>),
    /// All of them.
    All,
}

impl Scan {
    pub(super) fn new(root: PathBuf, dns: Dns, published: Var<Entries>) -> Self {
        Self {
            root,
            dns,
            files: BTreeMap::new(),
            folders: HashSet::new(),
            published,
            root_problem: None,
        }
    }

    /// The first look, which believes all that it sees: there is nothing older to keep.
    pub(super) fn first(&mut self) {
        if self.look(&Reread::All, Instant::now()).is_none() {
            return; // Nothing is in doubt: ten thousand files need not be read once more before the first request.
        }
        let now = Instant::now() + SETTLE_LOSS;
        self.look(&Reread::All, now);
    }

    /// Looks at the folder. Gives when to look again because something is in doubt.
    pub(super) fn look(&mut self, reread: &Reread, now: Instant) -> Option<Instant> {
        let mut found = Found::default();
        if let Err(error) = found.walk(&self.root, &Path::root(), &mut Vec::new()) {
            self.complain(&error);
            return None;
        }
        self.root_problem = None;
        let mut changed = found.folders != self.folders;
        for (name, (place, stamp)) in &found.files {
            let known = self
                .files
                .entry(name.clone())
                .or_insert_with(|| Known::new(place.clone()));
            let same =
                known.stamp == Some(*stamp) && known.doubtful.is_none() && known.believed.is_some();
            let touched = match reread {
                Reread::All => true,
                Reread::Touched(places) => places.contains(place),
            };
            known.place.clone_from(place);
            known.stamp = Some(*stamp);
            if !same || touched {
                changed |= known.read(&self.dns, now);
            }
        }
        for (name, known) in &mut self.files {
            // A folder that can't be listed keeps its files.
            if !found.files.contains_key(name)
                && !found.unlisted.iter().any(|folder| name.starts_with(folder))
            {
                known.stamp = None;
                changed |= known.see(Sight::Gone, None, now);
            }
        }
        let over = |known: &Known| {
            matches!(known.believed, None | Some(Sight::Gone)) && known.doubtful.is_none()
        };
        self.files.retain(|_, known| !over(known));
        self.folders = found.folders;
        if changed {
            self.publish();
        }
        self.files.values().filter_map(Known::due).min()
    }

    fn publish(&self) {
        let folders = self
            .folders
            .iter()
            .map(|name| (name.clone(), Entry::Folder));
        let files = self.files.iter().filter(|(_, known)| known.is_there());
        let files = files.map(|(name, known)| (name.clone(), Entry::File(known.entry.clone())));
        self.published.set(folders.chain(files).collect());
    }

    /// A folder that is gone or closed for us is no reason to forget its files.
    fn complain(&mut self, error: &io::Error) {
        let problem = error.to_string();
        if self.root_problem.as_ref() != Some(&problem) {
            warn!(namer = "io.l5d.fs", root = %self.root.display(), %error, "can't list the folder, keeping what was in it");
            self.root_problem = Some(problem);
        }
    }
}

/// What one walk through the folders found.
#[derive(Default)]
struct Found {
    files: BTreeMap<Path, (PathBuf, Stamp)>,
    folders: HashSet<Path>,
    unlisted: Vec<Path>,
}

impl Found {
    /// Adds what is in a folder. `above` are the folders on the way to it, so that a link to one of them is no circle.
    fn walk(
        &mut self,
        folder: &FsPath,
        name: &Path,
        above: &mut Vec<(u64, u64)>,
    ) -> io::Result<()> {
        let meta = std::fs::metadata(folder)?;
        let identity = (meta.dev(), meta.ino());
        if above.contains(&identity) || above.len() > MAX_DEPTH {
            return Ok(());
        }
        above.push(identity);
        let walked = self.walk_entries(folder, name, above);
        above.pop();
        walked
    }

    fn walk_entries(
        &mut self,
        folder: &FsPath,
        name: &Path,
        above: &mut Vec<(u64, u64)>,
    ) -> io::Result<()> {
        for entry in folder.read_dir()? {
            let entry = entry?;
            let file_name = entry.file_name();
            let bytes = file_name.as_bytes();
            // Kubernetes mounts a volume's versions as `..2026_01_02`, `..data`; the files themselves are links to there.
            if bytes.starts_with(b"..") {
                continue;
            }
            let (Some(segment), place) = (Segment::new(bytes), entry.path()) else {
                continue;
            };
            // Through links; what is gone in the meantime was not there.
            let Ok(meta) = std::fs::metadata(&place) else {
                continue;
            };
            let name = name.child(segment);
            if meta.is_dir() {
                self.folders.insert(name.clone());
                match self.walk(&place, &name, above) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => self.unlisted.push(name),
                    Ok(()) => {}
                }
            } else if meta.is_file() {
                self.files.insert(name, (place, Stamp::from(&meta)));
            }
        }
        Ok(())
    }
}

impl Known {
    fn new(place: PathBuf) -> Self {
        Self {
            place,
            stamp: None,
            believed: None,
            doubtful: None,
            entry: Arc::new(AddressFile {
                content: Var::default(),
            }),
        }
    }

    fn is_there(&self) -> bool {
        !matches!(self.believed, None | Some(Sight::Gone))
    }

    fn due(&self) -> Option<Instant> {
        let (sight, since) = self.doubtful?;
        Some(since + settle(sight))
    }

    /// True when the list of files has changed by it.
    fn read(&mut self, dns: &Dns, now: Instant) -> bool {
        match read(&self.place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.see(Sight::Gone, None, now)
            }
            Err(error) => {
                let problem = error.to_string();
                self.see(Sight::Unreadable, Some(Err(problem)), now)
            }
            Ok(bytes) => {
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                let sight = Sight::Bytes(hasher.finish(), bytes.len());
                if self.believed == Some(sight) {
                    self.doubtful = None;
                    return false;
                }
                let lines = match std::str::from_utf8(&bytes) {
                    Ok(text) => parse(text, dns).map_err(|error| error.to_string()),
                    Err(error) => Err(format!("malformed address: {error}")),
                };
                let whole = bytes.ends_with(b"\n") && lines.is_ok();
                if whole {
                    return self.believe(sight, Some(lines));
                }
                self.see(sight, Some(lines), now)
            }
        }
    }

    /// Takes in a sight that has to stay for a while before it counts.
    fn see(&mut self, sight: Sight, lines: Option<Lines>, now: Instant) -> bool {
        if self.believed == Some(sight) || (sight == Sight::Gone && self.believed.is_none()) {
            self.doubtful = None;
            return false;
        }
        match self.doubtful {
            Some((before, since)) if before == sight => {
                if now >= since + settle(sight) {
                    return self.believe(sight, lines);
                }
            }
            _ => self.doubtful = Some((sight, now)),
        }
        false
    }

    fn believe(&mut self, sight: Sight, lines: Option<Lines>) -> bool {
        let was_there = self.is_there();
        self.believed = Some(sight);
        self.doubtful = None;
        let before = self.entry.content.get();
        match lines {
            None => {}
            Some(Ok(lines)) => {
                debug!(namer = "io.l5d.fs", file = %self.place.display(), addresses = lines.len(), "read");
                let lines = Some(lines.into());
                self.entry.content.set(Content {
                    lines,
                    problem: None,
                });
            }
            Some(Err(problem)) => {
                warn!(namer = "io.l5d.fs", file = %self.place.display(), error = problem, "keeping the last good addresses");
                let (lines, problem) = (before.lines.clone(), Some(problem.into()));
                self.entry.content.set(Content { lines, problem });
            }
        }
        was_there != self.is_there()
    }
}

type Lines = Result<Vec<super::Line>, String>;

fn settle(sight: Sight) -> Duration {
    if sight.is_loss() { SETTLE_LOSS } else { SETTLE }
}

fn read(place: &FsPath) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(place)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::other(message));
    }
    Ok(bytes)
}
