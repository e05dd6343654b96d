//! What differs between two dtabs, entry by entry, and which version brought an entry.

use std::ops::Range;

use dtab::{Dentry, Dtab};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Comparing more pairs than this is not worth its time: everything in between counts as replaced.
const MOST_PAIRS: usize = 4_000_000;

/// Whether an entry came, went or stayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sign {
    /// It is in the new dtab alone.
    #[serde(rename = "+")]
    Added,
    /// It was in the old dtab alone.
    #[serde(rename = "-")]
    Removed,
}

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Which way.
    pub sign: Sign,
    /// Its place among the entries of its dtab, from 1.
    pub entry: usize,
    /// The left-hand side.
    pub prefix: String,
    /// The right-hand side.
    pub dst: String,
}

/// What leads from `old` to `new`, in the order of the new dtab.
pub fn differences(old: &Dtab, new: &Dtab) -> Vec<Difference> {
    let (old, new) = (old.entries(), new.entries());
    let line = |sign, at: usize, dentry: &Dentry| Difference {
        sign,
        entry: at + 1,
        prefix: dentry.prefix.to_string(),
        dst: dentry.dst.to_string(),
    };
    let (mut lines, mut from, mut to) = (Vec::new(), 0, 0);
    let ends = std::iter::once((old.len(), new.len()));
    for (same_old, same_new) in same(old, new).into_iter().chain(ends) {
        lines.extend((from..same_old).map(|at| line(Sign::Removed, at, &old[at])));
        lines.extend((to..same_new).map(|at| line(Sign::Added, at, &new[at])));
        (from, to) = (same_old + 1, same_new + 1);
    }
    lines
}

/// Pairs of places of entries that stayed, in order: a longest common row.
pub fn same(old: &[Dentry], new: &[Dentry]) -> Vec<(usize, usize)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let pairs = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = pairs.take_while(|(a, b)| a == b).count();
    let middle_old = head..old.len() - tail;
    let middle_new = head..new.len() - tail;
    let mut all: Vec<_> = (0..head).map(|at| (at, at)).collect();
    if middle_old.len().saturating_mul(middle_new.len()) <= MOST_PAIRS {
        all.extend(longest(old, new, middle_old, middle_new));
    }
    all.extend(
        (0..tail)
            .rev()
            .map(|back| (old.len() - 1 - back, new.len() - 1 - back)),
    );
    all
}

fn longest(
    old: &[Dentry],
    new: &[Dentry],
    in_old: Range<usize>,
    in_new: Range<usize>,
) -> Vec<(usize, usize)> {
    let (rows, columns) = (in_old.len(), in_new.len());
    let (old, new) = (&old[in_old.clone()], &new[in_new.clone()]);
    // `best[r][c]`: how long a row there is from here on.
    let mut best = vec![0_u32; (rows + 1) * (columns + 1)];
    let at = |row: usize, column: usize| row * (columns + 1) + column;
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            best[at(row, column)] = match old[row] == new[column] {
                true => best[at(row + 1, column + 1)] + 1,
                false => best[at(row + 1, column)].max(best[at(row, column + 1)]),
            };
        }
    }
    let (mut row, mut column, mut pairs) = (0, 0, Vec::new());
    while row < rows && column < columns {
        if old[row] == new[column] {
            pairs.push((in_old.start + row, in_new.start + column));
            (row, column) = (row + 1, column + 1);
        } else if best[at(row + 1, column)] >= best[at(row, column + 1)] {
            row += 1;
        } else {
            column += 1;
        }
    }
    pairs
}

/// Finds for each entry of a dtab the version that brought it, given the versions before it one by one.
pub struct Blame {
    /// For each entry of the newest dtab: where it is in the one that was looked at last; none when its version is found.
    open: Vec<Option<usize>>,
    found: Vec<u64>,
    looked_at: (u64, Dtab),
}

impl Blame {
    /// Begins with what is in force.
    pub fn new(number: u64, dtab: Dtab) -> Self {
        Self {
            open: (0..dtab.len()).map(Some).collect(),
            found: vec![number; dtab.len()],
            looked_at: (number, dtab),
        }
    }

    /// Takes in the version before the last one that was given; a deletion is an empty dtab.
    pub fn before(&mut self, number: u64, dtab: Dtab) {
        let (later, newer) = &self.looked_at;
        let mut stayed = vec![None; newer.len()];
        for (old, new) in same(dtab.entries(), newer.entries()) {
            stayed[new] = Some(old);
        }
        for (open, found) in self.open.iter_mut().zip(&mut self.found) {
            let Some(at) = *open else { continue };
            *open = stayed[at];
            *found = *later;
        }
        self.looked_at = (number, dtab);
    }

    /// Whether all is found.
    pub fn is_done(&self) -> bool {
        self.open.iter().all(Option::is_none)
    }

    /// The versions, an entry each; who is still open came with the oldest version that was given, or before.
    pub fn versions(mut self) -> Vec<u64> {
        for (open, found) in self.open.iter().zip(&mut self.found) {
            if open.is_some() {
                *found = self.looked_at.0;
            }
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Dtab {
        Dtab::read(text).unwrap()
    }

    fn shown(old: &str, new: &str) -> String {
        let lines = differences(&read(old), &read(new));
        let line = |d: &Difference| {
            let sign = if d.sign == Sign::Added { '+' } else { '-' };
            format!("{}{sign}{}=>{} ", d.entry, d.prefix, d.dst)
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_difference_names_what_came_and_went() {
        for (old, new, want) in [
            ("", "", ""),
            ("", "/a=>/b", "1+/a=>/b "),
            ("/a=>/b", "", "1-/a=>/b "),
            ("/a=>/b;/c=>/d", "/a=>/b;/c=>/e", "2-/c=>/d 2+/c=>/e "),
            ("/a=>/1;/b=>/2;/c=>/3", "/a=>/1;/c=>/3", "2-/b=>/2 "),
            ("/a=>/1;/b=>/2", "/b=>/2;/a=>/1", "1-/a=>/1 2+/a=>/1 "),
            ("/a=>/1;/a=>/1", "/a=>/1", "2-/a=>/1 "),
        ] {
            assert_eq!(shown(old, new), want, "{old} to {new}");
        }
    }

    #[test]
    fn what_differs_leads_from_one_to_the_other() {
        let random = || -> Dtab {
            let entry = |_| format!("/a=>/{};", fastrand::usize(0..6));
            read(&(0..fastrand::usize(0..12)).map(entry).collect::<String>())
        };
        for _ in 0..500 {
            let (old, new) = (random(), random());
            let mut built = old.entries().to_vec();
            let lines = differences(&old, &new);
            for line in lines.iter().rev().filter(|line| line.sign == Sign::Removed) {
                built.remove(line.entry - 1);
            }
            for line in lines.iter().filter(|line| line.sign == Sign::Added) {
                let text = format!("{}=>{}", line.prefix, line.dst);
                built.insert(line.entry - 1, Dentry::read(&text).unwrap());
            }
            assert_eq!(Dtab::from(built), new, "from {old}");
        }
    }

    #[test]
    fn each_entry_has_the_version_that_brought_it() {
        let mut blame = Blame::new(5, read("/a=>/1;/new=>/5;/b=>/2"));
        blame.before(4, read("/a=>/1;/b=>/2;/c=>/3"));
        blame.before(3, read("/b=>/2"));
        assert!(!blame.is_done());
        blame.before(2, Dtab::empty());
        assert!(blame.is_done());
        assert_eq!(blame.versions(), [4, 5, 3]);
        let lost = Blame::new(9, read("/a=>/1"));
        assert_eq!(lost.versions(), [9]);
    }
}
