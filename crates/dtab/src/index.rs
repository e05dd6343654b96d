//! Which entries of a table match a path, without looking at all of them.

use std::collections::HashMap;

use crate::{Dentry, Elem, Path, Segment};

/// Tables up to this size are simply walked through: that is faster than following an index.
const WALKED: usize = 24;

/// The prefixes of a table as a tree of their elements, so that a lookup costs as much as the path is long.
#[derive(Debug, Default)]
pub(crate) struct Index {
    nodes: Vec<Node>,
    /// From a node by a label to the next one; in one map, as most nodes have no or few of them.
    labels: HashMap<(u32, Segment), u32>,
}

#[derive(Debug, Default)]
struct Node {
    /// The entries whose prefix ends here.
    entries: Vec<u32>,
    /// Where `*` leads.
    any: Option<u32>,
}

impl Index {
    /// An index over these entries; none when they are few.
    pub(crate) fn new(entries: &[Dentry]) -> Option<Self> {
        if entries.len() <= WALKED {
            return None;
        }
        let mut index = Self {
            nodes: vec![Node::default()],
            labels: HashMap::with_capacity(entries.len()),
        };
        for (at, entry) in entries.iter().enumerate() {
            let end = entry
                .prefix
                .elems()
                .iter()
                .fold(0, |node, elem| index.step(node, elem));
            index.nodes[end as usize].entries.push(at as u32);
        }
        Some(index)
    }

    fn step(&mut self, from: u32, elem: &Elem) -> u32 {
        let fresh = self.nodes.len() as u32;
        let next = match elem {
            Elem::Any => *self.nodes[from as usize].any.get_or_insert(fresh),
            Elem::Label(label) => *self.labels.entry((from, label.clone())).or_insert(fresh),
        };
        if next == fresh {
            self.nodes.push(Node::default());
        }
        next
    }

    /// The numbers of the entries whose prefix matches, in no order.
    pub(crate) fn matching(&self, path: &Path) -> Vec<u32> {
        let mut found = self.nodes[0].entries.clone();
        let mut reached = vec![0];
        for segment in path.segments() {
            let mut next = Vec::new();
            for node in reached {
                next.extend(self.nodes[node as usize].any);
                next.extend(self.labels.get(&(node, segment.clone())));
            }
            if next.is_empty() {
                break;
            }
            for node in &next {
                found.extend(&self.nodes[*node as usize].entries);
            }
            reached = next;
        }
        found
    }
}
