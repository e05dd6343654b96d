//! Delegation tables.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use crate::index::Index;
use crate::{NameTree, ParseError, Path, Prefix, parse};

/// One rule, `/svc => /host`: paths that begin with the prefix lead to the destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dentry {
    /// Which paths it applies to.
    pub prefix: Prefix,
    /// What takes the prefix's place.
    pub dst: NameTree<Path>,
}

impl Dentry {
    /// Reads one entry as Finagle's `Dentry.read` does; a `;` behind it is an error.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        parse::read_dentry(text)
    }

    /// The tree that `path` is rewritten to by this rule; none when the prefix does not match.
    ///
    /// What `*` matched is lost: `/svc/* => /x` makes `/x/b` of `/svc/a/b`.
    pub fn rewrite(&self, path: &Path) -> Option<NameTree<Path>> {
        self.prefix.matches(path).then(|| self.applied(path))
    }

    fn applied(&self, path: &Path) -> NameTree<Path> {
        let rest = path.drop(self.prefix.len());
        self.dst.map(|leaf| leaf.concat(&rest))
    }
}

impl FromStr for Dentry {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

impl fmt::Display for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=>{}", self.prefix, self.dst)
    }
}

/// A table of rules, a later one tried first. Cheap to clone, and to append a small one to a large one; the empty one costs
/// nothing, as most requests have one.
#[derive(Clone, Default)]
pub struct Dtab(Option<Arc<Layers>>);

/// The tables that were appended to each other, in order, none of them empty; at least one.
struct Layers {
    tables: Vec<Arc<Table>>,
    /// All entries in one row, made when they are first asked for.
    row: OnceLock<Box<[Dentry]>>,
}

struct Table {
    entries: Box<[Dentry]>,
    index: Option<Index>,
}

/// With more layers than this, or when all is small, appending copies into one table.
const MAX_LAYERS: usize = 4;
const COPIED: usize = 64;

impl Dtab {
    /// The table without entries.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a dtab as Finagle's `Dtab.read` does. The empty text is the empty table.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        parse::read_dtab(text)
    }

    /// All entries, as written.
    pub fn entries(&self) -> &[Dentry] {
        let Some(layers) = &self.0 else { return &[] };
        match layers.tables.as_slice() {
            [lone] => &lone.entries,
            tables => layers.row.get_or_init(|| row(tables)),
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tables().iter().map(|table| table.entries.len()).sum()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// This table followed by `later`, whose entries are tried first.
    #[must_use]
    pub fn concat(&self, later: &Self) -> Self {
        if later.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return later.clone();
        }
        let tables = self.tables().iter().chain(later.tables());
        let tables: Vec<_> = tables.cloned().collect();
        if tables.len() > MAX_LAYERS || self.len() + later.len() <= COPIED {
            return row(&tables).into_vec().into();
        }
        Self(Some(Arc::new(Layers {
            tables,
            row: OnceLock::new(),
        })))
    }

    /// The entries whose prefix matches, last one first.
    pub fn matches<'a>(&'a self, path: &Path) -> impl Iterator<Item = &'a Dentry> + use<'a> {
        let path = path.clone();
        let tables = self.tables().iter().rev();
        tables.flat_map(move |table| table.matching(&path))
    }

    /// The tree of paths that `path` is rewritten to; [`NameTree::Neg`] when no entry matches.
    ///
    /// Later entries come first in it: `/svc => /a ; /svc => /b` gives `/b | /a`. A `*` in a prefix stands for one
    /// whole segment. Nothing is simplified. As Finagle's `Dtab.lookup`; cases in `tests/vectors/lookup.jsonl`.
    pub fn lookup(&self, path: &Path) -> NameTree<Path> {
        let mut trees: Vec<_> = self
            .matches(path)
            .map(|entry| entry.applied(path))
            .collect();
        match trees.len() {
            0 => NameTree::Neg,
            1 => trees.swap_remove(0),
            _ => NameTree::Alt(trees),
        }
    }

    /// The table with each destination simplified, without the entries that lead nowhere then.
    #[must_use]
    pub fn simplified(&self) -> Self {
        let entries = self.entries().iter().map(|entry| Dentry {
            prefix: entry.prefix.clone(),
            dst: entry.dst.simplified(),
        });
        entries.filter(|entry| !entry.dst.is_neg()).collect()
    }
}

fn row(tables: &[Arc<Table>]) -> Box<[Dentry]> {
    tables
        .iter()
        .flat_map(|table| table.entries.iter().cloned())
        .collect()
}

impl Table {
    /// The entries whose prefix matches, last one first.
    fn matching<'a>(&'a self, path: &Path) -> Vec<&'a Dentry> {
        let Some(index) = &self.index else {
            return self
                .entries
                .iter()
                .rev()
                .filter(|entry| entry.prefix.matches(path))
                .collect();
        };
        let mut found = index.matching(path);
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
            .into_iter()
            .map(|at| &self.entries[at as usize])
            .collect()
    }
}

impl From<Vec<Dentry>> for Dtab {
    fn from(entries: Vec<Dentry>) -> Self {
        if entries.is_empty() {
            return Self::empty();
        }
        let index = Index::new(&entries);
        let entries = entries.into();
        Self(Some(Arc::new(Layers {
            tables: vec![Arc::new(Table { entries, index })],
            row: OnceLock::new(),
        })))
    }
}

impl FromIterator<Dentry> for Dtab {
    fn from_iter<I: IntoIterator<Item = Dentry>>(entries: I) -> Self {
        entries.into_iter().collect::<Vec<_>>().into()
    }
}

impl FromStr for Dtab {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

impl Dtab {
    fn tables(&self) -> &[Arc<Table>] {
        self.0.as_ref().map_or(&[], |layers| &layers.tables)
    }

    fn iter(&self) -> impl Iterator<Item = &Dentry> {
        self.tables().iter().flat_map(|table| table.entries.iter())
    }
}

impl PartialEq for Dtab {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same || (self.len() == other.len() && self.iter().eq(other.iter()))
    }
}

impl Eq for Dtab {}

impl Hash for Dtab {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.iter().for_each(|entry| entry.hash(state));
    }
}

impl fmt::Display for Dtab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.iter().enumerate() {
            let separator = if i > 0 { ";" } else { "" };
            write!(f, "{separator}{entry}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Dtab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dtab({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_entry_is_tried_first() {
        for (dtab, path, want) in [
            ("/svc => /a ; /svc => /b", "/svc/web", "/b/web | /a/web"),
            ("/svc/* => /a", "/svc/web/v2", "/a/v2"),
            ("/svc => /a", "/svcs/web", "~"),
        ] {
            let got = dtab.parse::<Dtab>().unwrap().lookup(&path.parse().unwrap());
            assert_eq!(got.to_string(), want, "{path} under {dtab}");
        }
    }

    fn large(entries: usize) -> Dtab {
        let text: String = (0..entries)
            .map(|i| format!("/svc/s{i} => /host/s{i};\n"))
            .collect();
        Dtab::read(&format!("{text} /svc/* => /any; /x => ~")).unwrap()
    }

    #[test]
    fn a_large_table_is_looked_up_as_a_small_one() {
        let got = large(1000).lookup(&Path::utf8(["svc", "s17", "rest"]));
        assert_eq!(got.to_string(), "/any/rest | /host/s17/rest");
    }

    #[test]
    fn a_small_table_appended_to_a_large_one_wins() {
        let base = large(1000);
        let mut dtab = base.clone();
        for i in 0..10 {
            dtab = dtab.concat(&format!("/svc => /l{i}").parse().unwrap());
        }
        let got = dtab.lookup(&Path::utf8(["svc", "s9"])).to_string();
        assert!(
            got.starts_with("/l9/s9 | /l8/s9 | ") && got.ends_with("/l0/s9 | /any | /host/s9"),
            "{got}"
        );
        assert_eq!(dtab.len(), base.len() + 10);
        assert_eq!(dtab.entries().len(), dtab.len());
        assert_eq!(Dtab::read(&dtab.to_string()).unwrap(), dtab);
        assert_eq!(dtab, dtab.entries().iter().cloned().collect());
    }
}
