//! Typed reading of a tree that [`super::validate`] has been through. What is wrong has been reported there; here it reads as absent.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, Path};
use naming::PathMatcher;

use super::problem::Problems;
use super::validate::{first_line, join, scalar_text};
use super::yaml::{Node, Place, Value};

/// What the readers of one file share: what they found wrong, and which keys they asked for.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) problems: RefCell<Problems>,
    asked: RefCell<HashSet<usize>>,
}

impl Reading {
    pub(super) fn new(problems: Problems) -> Self {
        Self {
            problems: RefCell::new(problems),
            asked: RefCell::default(),
        }
    }

    /// The keys below `node` that nobody has asked for.
    #[cfg(test)]
    pub(super) fn unread(&self, node: &Node, at: &str, found: &mut Vec<String>) {
        for entry in node.entries() {
            let path = join(at, &entry.key);
            if !self.asked.borrow().contains(&entry.place.offset) {
                found.push(path.clone());
            }
            self.unread(&entry.node, &path, found);
        }
        if let Value::List(items) = &node.value {
            for (i, item) in items.iter().enumerate() {
                self.unread(item, &format!("{at}[{i}]"), found);
            }
        }
    }
}

/// A value, given or not, and which key it belongs to.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    node: Option<&'a Node>,
    parent: Option<&'a Node>,
    path: String,
    reading: &'a Reading,
}

impl<'a> At<'a> {
    pub(super) fn root(node: &'a Node, reading: &'a Reading) -> Self {
        Self {
            node: Some(node),
            parent: None,
            path: String::new(),
            reading,
        }
    }

    /// The value of a key; reading what is not there gives nothing.
    pub(super) fn get(&self, key: &str) -> Self {
        let entry = self.node.and_then(|n| n.entry(key));
        if let Some(entry) = entry {
            self.reading.asked.borrow_mut().insert(entry.place.offset);
        }
        let node = entry.map(|e| &e.node).filter(|n| n.value != Value::Null);
        Self {
            node,
            parent: self.node,
            path: join(&self.path, key),
            reading: self.reading,
        }
    }

    /// The items of a list; one value alone is a list of one.
    pub(super) fn items(&self) -> Vec<Self> {
        match self.node.map(|n| (n, &n.value)) {
            None => Vec::new(),
            Some((_, Value::List(items))) => {
                let item = |(i, n)| Self {
                    node: Some(n),
                    parent: self.node,
                    path: format!("{}[{i}]", self.path),
                    reading: self.reading,
                };
                items.iter().enumerate().map(item).collect()
            }
            Some(_) => vec![self.clone()],
        }
    }

    pub(super) fn is_given(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the value stands, or where it would.
    pub(super) fn place(&self) -> Place {
        match (self.node, self.parent) {
            (Some(node), _) if node.entries().is_empty() => node.place,
            (Some(node), _) => first_line(node),
            (None, Some(parent)) => first_line(parent),
            (None, None) => Place::default(),
        }
    }

    /// The node's text as the file has it.
    pub(super) fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// `kind` (or `protocol`), or what stands for it when it is absent.
    pub(super) fn tag(&self, tag: &str, default: &str) -> String {
        self.get(tag).string().unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn string(&self) -> Option<String> {
        self.node.and_then(scalar_text)
    }

    pub(super) fn text(&self) -> Option<Arc<str>> {
        self.string().map(Into::into)
    }

    fn parsed<T: std::str::FromStr>(&self) -> Option<T> {
        self.string().and_then(|s| s.parse().ok())
    }

    /// A whole number; `8.0` is one.
    fn whole<T: std::str::FromStr>(&self) -> Option<T> {
        self.string()
            .and_then(|s| s.strip_suffix(".0").unwrap_or(&s).parse().ok())
    }

    pub(super) fn bool(&self) -> Option<bool> {
        self.parsed()
    }

    pub(super) fn u16(&self) -> Option<u16> {
        self.whole()
    }

    pub(super) fn u32(&self) -> Option<u32> {
        self.whole()
    }

    pub(super) fn u64(&self) -> Option<u64> {
        self.whole()
    }

    pub(super) fn i64(&self) -> Option<i64> {
        self.whole()
    }

    pub(super) fn usize(&self) -> Option<usize> {
        self.whole()
    }

    pub(super) fn f64(&self) -> Option<f64> {
        self.parsed()
    }

    pub(super) fn millis(&self) -> Option<Duration> {
        self.u64().map(Duration::from_millis)
    }

    pub(super) fn seconds(&self) -> Option<Duration> {
        self.u64().map(Duration::from_secs)
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.parsed()
    }

    pub(super) fn name(&self) -> Option<Path> {
        self.string().and_then(|s| Path::read(&s).ok())
    }

    pub(super) fn dtab(&self) -> Option<Dtab> {
        self.string().and_then(|s| Dtab::read(&s).ok())
    }

    pub(super) fn pattern(&self) -> Option<PathMatcher> {
        self.string().and_then(|s| PathMatcher::new(&s).ok())
    }

    pub(super) fn error(&self, message: impl Into<String>, help: impl Into<String>) {
        self.reading.problems.borrow_mut().error(
            &self.path,
            self.place(),
            message,
            Some(help.into()),
        );
    }

    pub(super) fn warning(&self, message: impl Into<String>, help: impl Into<String>) {
        self.reading.problems.borrow_mut().warning(
            &self.path,
            self.place(),
            message,
            Some(help.into()),
        );
    }
}
