//! `io.l5d.fs`: a folder with a file of addresses for each name.
//!
//! One thread follows the folder (`watch`), and what it sees goes through the pure [`scan`], which decides what is
//! believed. A lookup reads what was seen; no part of a name ever becomes a path of the file system.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use dtab::{NameTree, Path};
use serde_json::{Value, json};

use crate::namers::Dns;
use crate::{Activity, Addr, Addrs, Bound, Endpoint, Name, Namer, Reads, Var};

mod addresses;
mod scan;
mod watch;

pub use addresses::{LineError, MAX_FILE_BYTES};

use addresses::{Host, Line};
use scan::Scan;

/// Binds names to the addresses in files: a line `host port` or `host port * weight` for each, comments behind `#`.
///
/// A wrong line leaves the file's last good addresses in force; a file without addresses is bound to none; no file, no
/// name.
pub struct FsNamer {
    prefix: Path,
    root: PathBuf,
    entries: Var<Entries>,
    /// Ends the thread when it is dropped.
    _watch: watch::Watch,
}

/// Why there is no namer.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// `rootDir` is not there, or no directory.
    #[error("rootDir {}: {reason}", path.display())]
    NoRoot {
        /// The directory that was asked for.
        path: PathBuf,
        /// Why it can't be used.
        reason: String,
    },
}

/// All folders and files by their names below the root.
type Entries = BTreeMap<Path, Entry>;

#[derive(Clone, Debug)]
enum Entry {
    Folder,
    File(Arc<AddressFile>),
}

impl Entry {
    fn file(&self) -> Option<&Arc<AddressFile>> {
        match self {
            Self::Folder => None,
            Self::File(file) => Some(file),
        }
    }
}

/// One file: its addresses change, the name stays.
#[derive(Debug)]
struct AddressFile {
    content: Var<Content>,
}

/// What is believed of a file.
#[derive(Clone, Debug, Default)]
struct Content {
    /// The last good ones; none while the file never was right.
    lines: Option<Arc<[Line]>>,
    /// What is wrong with the file as it is now.
    problem: Option<Arc<str>>,
}

impl FsNamer {
    /// A namer at `/#` + `prefix` of the files below `root`, which are read before it returns. Host names in them are
    /// followed by `dns`.
    pub fn new(prefix: Path, root: impl Into<PathBuf>, dns: Dns) -> Result<Self, FsError> {
        let root = root.into();
        check_root(&root)?;
        let entries = Var::default();
        let mut scan = Scan::new(root.clone(), dns, entries.clone());
        scan.first();
        let watch = watch::Watch::start(root.clone(), scan);
        Ok(Self {
            prefix,
            root,
            entries,
            _watch: watch,
        })
    }

    fn id(&self, name: &Path) -> Path {
        Path::utf8(["#"]).concat(&self.prefix).concat(name)
    }

    fn files(entries: &Entries) -> impl Iterator<Item = (&Path, &Arc<AddressFile>)> {
        entries
            .iter()
            .filter_map(|(name, entry)| Some((name, entry.file()?)))
    }
}

fn check_root(root: &FsPath) -> Result<(), FsError> {
    let reason = match std::fs::metadata(root) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "it is not a directory".to_owned(),
        Err(error) => error.to_string(),
    };
    let path = root.to_owned();
    Err(FsError::NoRoot { path, reason })
}

impl Namer for FsNamer {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The first segments that name a file, through any folders; the rest is residual.
    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        let entries = self.entries.read(reads);
        for used in 1..=rest.len() {
            let name = rest.take(used);
            match entries.get(&name) {
                None => break,
                Some(Entry::Folder) => {}
                Some(Entry::File(file)) => {
                    let addrs: Arc<dyn Addrs> = file.clone();
                    let target = crate::Target::Endpoints(addrs);
                    let bound = Bound::to(self.id(&name), rest.drop(used), target);
                    return Activity::Ok(NameTree::Leaf(Name::Bound(bound)));
                }
            }
        }
        Activity::Ok(NameTree::Neg)
    }

    fn names(&self) -> Vec<Path> {
        Self::files(&self.entries.get())
            .map(|(name, _)| self.id(name))
            .collect()
    }

    fn state(&self) -> Value {
        let entries = self.entries.get();
        let files: serde_json::Map<_, _> = Self::files(&entries)
            .map(|(name, file)| (name.to_string(), file.content.get().to_json()))
            .collect();
        json!({"rootDir": self.root.to_string_lossy(), "files": files})
    }

    fn why_not(&self, rest: &Path) -> Option<String> {
        let entries = self.entries.get();
        let known = (0..=rest.len()).rev().map(|used| rest.take(used));
        let folder = known
            .into_iter()
            .find(|name| name.is_empty() || entries.contains_key(name))?;
        match rest.segments().get(folder.len()) {
            Some(missing) => Some(format!("no file `{missing}` in {}", self.shown(&folder))),
            None => Some(format!("{} is a folder", self.shown(&folder))),
        }
    }
}

impl FsNamer {
    fn shown(&self, folder: &Path) -> String {
        let root = self.root.display();
        if folder.is_empty() {
            root.to_string()
        } else {
            format!("{root}{folder}")
        }
    }
}

impl fmt::Debug for FsNamer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsNamer")
            .field("prefix", &self.prefix)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Content {
    fn to_json(&self) -> Value {
        let lines = self.lines.as_deref().unwrap_or_default();
        let addresses: Vec<_> = lines.iter().map(ToString::to_string).collect();
        let mut state = json!({"addresses": addresses});
        if let Some(problem) = &self.problem {
            state["error"] = json!(problem);
        }
        state
    }
}

impl Addrs for AddressFile {
    fn addr(&self, reads: &mut Reads) -> Addr {
        let content = self.content.read(reads);
        let Some(lines) = &content.lines else {
            return match &content.problem {
                Some(problem) => Addr::Failed(problem.clone()),
                None => Addr::Pending,
            };
        };
        let mut all: Vec<Endpoint> = Vec::with_capacity(lines.len());
        let mut pending = false;
        let mut seen = std::collections::HashSet::new();
        for line in lines.iter() {
            let addr = line.addr(reads);
            pending |= addr == Addr::Pending;
            all.extend(
                addr.endpoints()
                    .iter()
                    .filter(|e| seen.insert(e.addr))
                    .cloned(),
            );
        }
        // Some hosts without an address are no reason to wait with the others.
        if pending && all.is_empty() {
            Addr::Pending
        } else {
            Addr::bound(all)
        }
    }
}

impl Line {
    fn addr(&self, reads: &mut Reads) -> Addr {
        match &self.host {
            Host::Ip(ip) => {
                Addr::bound([Endpoint::new((*ip, self.port).into()).weighing(self.weight)])
            }
            Host::Name(host) => match host.addr(self.port, reads) {
                Addr::Bound(all) => {
                    Addr::bound(all.iter().map(|e| e.clone().weighing(self.weight)))
                }
                other => other,
            },
        }
    }
}

#[cfg(test)]
mod tests;
