//! What is most likely a mistake in a dtab, with its line and column: what can be told from the text alone.

use std::collections::{HashMap, HashSet, VecDeque};

use dtab::{Dtab, Elem, Layout, NameTree, ParseError, Path, Placed, Prefix};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::code::Lint as Rule;

/// Steps that one look at a dtab may take in all; what is not looked at then is not complained of.
const STEPS: usize = 2_000_000;
/// Hops before names count as going round; as binding's limit.
const HOPS: usize = naming::bind::MAX_DEPTH;
/// Reachable beginnings of paths are cut here: a shorter one reaches more.
const SEGMENTS: usize = 12;

/// A likely mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `RT-D01` and so on; `rutter explain` has a page for each.
    pub code: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Place of the entry among all, from 1.
    pub entry: usize,
    /// What is wrong.
    pub message: String,
}

impl Finding {
    /// A finding at an entry.
    pub fn at(rule: Rule, layout: &Layout<'_>, entry: usize, message: String) -> Self {
        let (line, column) = layout
            .entries()
            .get(entry)
            .map_or((1, 1), |placed| (placed.line, placed.column));
        Self {
            code: rule.entry().code.to_owned(),
            line,
            column,
            entry: entry + 1,
            message,
        }
    }
}

/// What a dtab is looked at with.
pub struct Ground<'a> {
    /// Names begin with one of these: what routers name requests, and the names in use.
    pub roots: Vec<Path>,
    /// Why no namer answers a concrete path, if that can be told.
    pub no_namer: &'a dyn Fn(&Path) -> Option<String>,
}

/// Reads a dtab and looks it over; findings in the order of the text.
pub fn lint(text: &str, ground: &Ground<'_>) -> Result<Vec<Finding>, ParseError> {
    let layout = Layout::read(text)?;
    let mut look = Look {
        dtab: layout.dtab(),
        layout: &layout,
        steps: STEPS,
        findings: Vec::new(),
    };
    look.shadowed();
    look.circles();
    look.unreachable(&ground.roots);
    look.destinations(ground.no_namer);
    let mut findings = look.findings;
    findings.sort_by(|a, b| (a.entry, &a.code, &a.message).cmp(&(b.entry, &b.code, &b.message)));
    findings.dedup();
    Ok(findings)
}

struct Look<'a> {
    layout: &'a Layout<'a>,
    dtab: Dtab,
    steps: usize,
    findings: Vec<Finding>,
}

impl Look<'_> {
    fn entries(&self) -> &[Placed] {
        self.layout.entries()
    }

    fn find(&mut self, rule: Rule, entry: usize, message: String) {
        let finding = Finding::at(rule, self.layout, entry, message);
        self.findings.push(finding);
    }

    /// Whether there is work left.
    fn step(&mut self, work: usize) -> bool {
        self.steps = self.steps.saturating_sub(work);
        self.steps > 0
    }

    /// RT-D01: a later entry takes all of it and passes nothing on, or is the same once more.
    fn shadowed(&mut self) {
        let layout = self.layout;
        let entries = layout.entries();
        let decided: Vec<usize> = (0..entries.len())
            .filter(|&at| !may_be_neg(&entries[at].dentry.dst))
            .collect();
        let mut last: HashMap<&dtab::Dentry, usize> = HashMap::new();
        for (at, placed) in entries.iter().enumerate().rev() {
            let same = last.get(&placed.dentry).copied();
            last.entry(&placed.dentry).or_insert(at);
            if !self.step(decided.len() + 1) {
                return;
            }
            let covering = decided.iter().rev().copied();
            let by = covering
                .take_while(|&later| later > at)
                .find(|&later| covers(&entries[later].dentry.prefix, &placed.dentry.prefix));
            if let Some(by) = by.or(same) {
                let line = entries[by].line;
                let message = match by == same.unwrap_or(usize::MAX) {
                    true => format!(
                        "{} is written again in line {line}: this one changes nothing",
                        placed.dentry.prefix
                    ),
                    false => format!(
                        "{} is never used: {} in line {line} takes all its names and passes none on",
                        placed.dentry.prefix, entries[by].dentry.prefix
                    ),
                };
                self.find(Rule::D01, at, message);
            }
        }
    }

    /// RT-D03: a rule's own names come back to where they were.
    fn circles(&mut self) {
        let mut done: HashSet<Path> = HashSet::new();
        let layout = self.layout;
        for (at, placed) in layout.entries().iter().enumerate() {
            let start = example(&placed.dentry.prefix);
            let mut way = Vec::new();
            if let Some(round) = self.goes_round(&start, &mut way, &mut done) {
                let shown: Vec<String> = round.iter().map(ToString::to_string).collect();
                let message = format!("names go round: {}", shown.join(" -> "));
                self.find(Rule::D03, at, message);
            }
        }
    }

    /// The circle that `path` gets into; paths in `done` lead into none, or one that was found.
    fn goes_round(
        &mut self,
        path: &Path,
        way: &mut Vec<Path>,
        done: &mut HashSet<Path>,
    ) -> Option<Vec<Path>> {
        if let Some(from) = way.iter().position(|before| before == path) {
            way.push(path.clone());
            return Some(way[from..].to_vec());
        }
        if done.contains(path) || !self.step(1) {
            return None;
        }
        way.push(path.clone());
        if way.len() > HOPS {
            let grown = way[way.len() - 4..].to_vec();
            done.extend(way.iter().cloned());
            return Some(grown);
        }
        let mut next = Vec::new();
        self.dtab
            .lookup(path)
            .for_each_leaf(&mut |leaf| next.push(leaf.clone()));
        for leaf in next {
            if let Some(round) = self.goes_round(&leaf, way, done) {
                done.insert(path.clone());
                return Some(round);
            }
        }
        way.pop();
        done.insert(path.clone());
        None
    }

    /// RT-D08: no name gets there.
    fn unreachable(&mut self, roots: &[Path]) {
        if roots.is_empty() {
            return;
        }
        let layout = self.layout;
        let entries = layout.entries();
        let mut reached = vec![false; entries.len()];
        let mut known: HashSet<Prefix> = HashSet::new();
        let mut open: VecDeque<Prefix> = roots.iter().map(Prefix::from).collect();
        while let Some(begin) = open.pop_front() {
            if !known.insert(begin.clone()) {
                continue;
            }
            if !self.step(entries.len()) {
                return;
            }
            for (at, placed) in entries.iter().enumerate() {
                let prefix = placed.dentry.prefix.elems();
                if !meet(prefix, begin.elems()) {
                    continue;
                }
                reached[at] = true;
                let rest = begin.elems().get(prefix.len()..).unwrap_or_default();
                placed.dentry.dst.for_each_leaf(&mut |leaf| {
                    let labels = leaf.segments().iter().cloned().map(Elem::Label);
                    let whole = labels.chain(rest.iter().cloned());
                    open.push_back(Prefix::new(whole.take(SEGMENTS)));
                });
            }
        }
        for (at, placed) in entries.iter().enumerate() {
            if !reached[at] {
                let message = format!("no name gets to {}", placed.dentry.prefix);
                self.find(Rule::D08, at, message);
            }
        }
    }

    /// RT-D02, RT-D04, RT-D06: where destinations lead.
    fn destinations(&mut self, no_namer: &dyn Fn(&Path) -> Option<String>) {
        let layout = self.layout;
        for (at, placed) in layout.entries().iter().enumerate() {
            if let Some(union) = weightless(&placed.dentry.dst) {
                let message = format!("all weights of {union} are zero: no branch can be chosen");
                self.find(Rule::D06, at, message);
            }
            let mut leaves = Vec::new();
            placed
                .dentry
                .dst
                .for_each_leaf(&mut |leaf| leaves.push(leaf));
            for leaf in leaves {
                let first = leaf.segments().first().and_then(|segment| segment.as_str());
                if matches!(first, Some("#" | "$")) {
                    if let Some(why) = no_namer(leaf) {
                        self.find(Rule::D04, at, why);
                    }
                    continue;
                }
                if !self.step(self.entries().len()) {
                    return;
                }
                let labels = Prefix::from(leaf);
                let mut others = self.entries().iter();
                if !others.any(|other| meet(other.dentry.prefix.elems(), labels.elems())) {
                    let message = format!("{leaf} leads nowhere: no entry takes it further");
                    self.find(Rule::D02, at, message);
                }
            }
        }
    }
}

/// Whether there are paths that both take, either being the beginning of the other.
fn meet(one: &[Elem], other: &[Elem]) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Elem::Label(a), Elem::Label(b)) => a == b,
        _ => true,
    })
}

/// Whether `wide` takes every path that `narrow` takes.
fn covers(wide: &Prefix, narrow: &Prefix) -> bool {
    wide.len() <= narrow.len()
        && wide
            .elems()
            .iter()
            .zip(narrow.elems())
            .all(|pair| match pair {
                (Elem::Any, _) => true,
                (Elem::Label(a), Elem::Label(b)) => a == b,
                (Elem::Label(_), Elem::Any) => false,
            })
}

/// A path that a prefix takes, which no more special one of honest rules does.
fn example(prefix: &Prefix) -> Path {
    let segment = |elem: &Elem| match elem {
        Elem::Label(label) => label.clone(),
        Elem::Any => dtab::Segment::new("any").expect("three letters are a segment"),
    };
    let tail = dtab::Segment::new("any").expect("three letters are a segment");
    prefix.elems().iter().map(segment).chain([tail]).collect()
}

/// Whether an alternative behind it may be tried; true unless the tree itself says no.
fn may_be_neg(tree: &NameTree<Path>) -> bool {
    match tree {
        NameTree::Neg => true,
        NameTree::Fail | NameTree::Empty => false,
        NameTree::Leaf(path) => {
            let text = |at: usize| path.segments().get(at).and_then(|s| s.as_str());
            let inet = text(1) == Some("inet") && path.len() >= 4;
            !(text(0) == Some("$") && (inet || matches!(text(1), Some("nil" | "fail"))))
        }
        NameTree::Alt(trees) => trees.iter().all(may_be_neg),
        NameTree::Union(branches) => {
            let fails = |tree: &NameTree<Path>| matches!(tree, NameTree::Fail);
            branches
                .iter()
                .all(|branch| may_be_neg(&branch.tree) || fails(&branch.tree))
        }
    }
}

fn weightless(tree: &NameTree<Path>) -> Option<String> {
    match tree {
        NameTree::Alt(trees) => trees.iter().find_map(weightless),
        NameTree::Union(branches) => match branches.iter().all(|branch| branch.weight == 0.0) {
            true => Some(tree.to_string()),
            false => branches.iter().find_map(|branch| weightless(&branch.tree)),
        },
        _ => None,
    }
}

/// The entry that a name is led on by last, going by the entries that are tried first.
pub fn entry_of(dtab: &Dtab, path: &Path) -> Option<usize> {
    let (mut path, mut found) = (path.clone(), None);
    for _ in 0..HOPS {
        let mut entries = dtab.entries().iter().enumerate().rev();
        let Some((at, dentry)) = entries.find(|(_, dentry)| dentry.prefix.matches(&path)) else {
            break;
        };
        found = Some(at);
        let mut next = None;
        if let Some(tree) = dentry.rewrite(&path) {
            tree.for_each_leaf(&mut |leaf| {
                next.get_or_insert_with(|| leaf.clone());
            });
        }
        match next {
            Some(leaf) => path = leaf,
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        let no_namer = |path: &Path| {
            let known = path.to_string().starts_with("/#/io.l5d.fs")
                || path.to_string().starts_with("/$/inet");
            (!known).then(|| format!("no namer answers {path}"))
        };
        let ground = Ground {
            roots: vec![Path::utf8(["svc"])],
            no_namer: &no_namer,
        };
        let findings = lint(text, &ground).unwrap();
        let one = |f: &Finding| format!("{} {}:{}", &f.code[3..], f.line, f.column);
        findings.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_mistake_is_found_where_it_stands() {
        for (text, want) in [
            ("", ""),
            (
                "/host => /#/io.l5d.fs ;\n/svc => /host ;\n/host/web => /host/web-v1 | /#/io.l5d.fs/web",
                "",
            ),
            // Fallbacks are no shadows.
            ("/svc => /#/io.l5d.fs ; /svc => /#/io.l5d.fs/x", ""),
            (
                "# a\n  /svc => /#/io.l5d.fs ;\n/svc => /#/io.l5d.fs | !",
                "D01 2:3",
            ),
            (
                "/svc/a/b => /#/io.l5d.fs ; /svc/* => /$/inet/127.1/80",
                "D01 1:1",
            ),
            ("/svc/* => /#/io.l5d.fs ; /svc/a => !", ""),
            ("/svc => /#/io.l5d.fs ; /svc => /#/io.l5d.fs", "D01 1:1"),
            ("/svc => 1 * ! & 1 * ~ ;", ""),
            ("/svc => /a ;\n/a => /b ;\n/b => /a/x", "D03 1:1"),
            ("/svc => /svc/x", "D03 1:1"),
            ("/svc => /#/io.l5d.fs ;\n/hots => /#/io.l5d.fs", "D08 2:1"),
            ("/svc => /host", "D02 1:1"),
            ("/svc => /#/io.l5d.sf", "D04 1:1"),
            ("/svc => /$/inte/127.1/80", "D04 1:1"),
            ("/svc => 0 * /#/io.l5d.fs/a & 0 * /#/io.l5d.fs/b", "D06 1:1"),
            ("/svc => 0 * /#/io.l5d.fs/a & 1 * /#/io.l5d.fs/b", ""),
        ] {
            assert_eq!(found(text), want, "{text}");
        }
    }

    #[test]
    fn a_huge_dtab_is_looked_over_in_bounded_time() {
        let chain: String = (0..5000)
            .map(|i| format!("/n{i} => /n{} | /n{} ;\n", i + 1, i + 2))
            .collect();
        _ = found(&chain);
        let fans: String = (0..3000)
            .map(|i| format!("/svc/s{i} => /a/*x{i} ;\n").replace('*', ""))
            .collect();
        _ = found(&fans);
    }

    #[test]
    fn a_name_s_last_entry_is_known() {
        let dtab = Dtab::read("/host => /x ; /svc => /host ; /host/a => ~").unwrap();
        let of = |path: &str| entry_of(&dtab, &Path::read(path).unwrap());
        assert_eq!(
            (of("/svc/a"), of("/svc/b"), of("/y")),
            (Some(2), Some(0), None)
        );
    }
}
