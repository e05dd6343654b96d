//! A delegation for people.

use std::fmt::{self, Write};

use dtab::{NameTree, Path};

use super::{Delegation, Node, NodeKind};
use crate::bind::{BindError, MAX_DEPTH};
use crate::{Activity, Addr};

/// A way of more lines is cut: it goes into error answers and terminals.
const MAX_LINES: usize = 60;
/// Steps shown of a way that goes round in a circle.
const MAX_STEPS: usize = 8;
/// Rules longer than this are cut in the column of rules.
const MAX_RULE: usize = 60;

/// The whole way as a tree: each path with the rule that rewrites it and the rule's number, and what each branch ends
/// in.
impl fmt::Display for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Page {
            of: self,
            lines: Vec::new(),
        };
        page.push((self.path.to_string(), String::new()));
        page.node(&self.root, "");
        write_lines(f, &page.lines)
    }
}

impl Delegation {
    /// The way that a request takes, a line for each step, as it stands in an error answer: the rules with their
    /// numbers, and at the end why it leads nowhere.
    pub fn steps(&self) -> String {
        let mut lines = vec![(self.path.to_string(), String::new())];
        let mut node = &self.root;
        let end = loop {
            match &node.kind {
                NodeKind::Delegate(next) => {
                    self.push_step(&mut lines, next);
                    node = next;
                }
                NodeKind::Neg {
                    beyond: Some(next), ..
                } => node = next,
                NodeKind::Alt(branches) => match Node::alternative(branches) {
                    Ok(Some(next)) => {
                        self.push_step(&mut lines, next);
                        node = next;
                    }
                    Ok(None) => {
                        for branch in branches {
                            self.push_step(&mut lines, branch);
                        }
                        break end_of_all(branches);
                    }
                    Err(_) => break BindError::Budget.to_string(),
                },
                NodeKind::Transformation { tree, .. } => node = tree,
                _ => break node.end(),
            }
        };
        let steps = lines.len();
        if steps > MAX_STEPS + 1 {
            lines.truncate(MAX_STEPS);
            lines.push((
                format!("  … {} more steps", steps - MAX_STEPS),
                String::new(),
            ));
        }
        let mut text = String::new();
        _ = write_lines(&mut text, &lines);
        _ = write!(text, "✗ {end}");
        text
    }

    fn push_step(&self, lines: &mut Vec<(String, String)>, node: &Node) {
        if let Some(rule) = &node.rule {
            let step = (format!("  {}", cut(&rule_text(rule))), self.place(rule));
            if lines.last() != Some(&step) {
                lines.push(step);
            }
        }
    }
}

/// What is said when no alternative leads anywhere: the last path that was tried in each.
fn end_of_all(branches: &[Node]) -> String {
    let ends: Vec<_> = branches.iter().map(|branch| branch.last().end()).collect();
    ends.join("; ")
}

struct Page<'a> {
    of: &'a Delegation,
    lines: Vec<(String, String)>,
}

impl Page<'_> {
    fn push(&mut self, line: (String, String)) {
        match self.lines.len() {
            written if written < MAX_LINES => self.lines.push(line),
            MAX_LINES => self.lines.push(("… and more".to_owned(), String::new())),
            _ => {}
        }
    }

    /// Writes what is below a path.
    fn node(&mut self, node: &Node, indent: &str) {
        if self.lines.len() > MAX_LINES {
            return;
        }
        match &node.kind {
            NodeKind::Delegate(next) => self.branch(next, indent, "", true),
            NodeKind::Alt(branches) => {
                let winner = Node::alternative(branches).ok().flatten();
                for (at, branch) in branches.iter().enumerate() {
                    let mark = match winner {
                        Some(winner) if std::ptr::eq(winner, branch) => "→ ",
                        _ => "| ",
                    };
                    self.branch(branch, indent, mark, at + 1 == branches.len());
                }
            }
            NodeKind::Union(branches) => {
                let sum: f64 = branches.iter().map(|(weight, _)| weight).sum();
                for (at, (weight, branch)) in branches.iter().enumerate() {
                    let share = match sum > 0.0 {
                        true => 100.0 * weight / sum,
                        false => 100.0 / branches.len() as f64,
                    };
                    self.branch(
                        branch,
                        indent,
                        &format!("{share:.0} % "),
                        at + 1 == branches.len(),
                    );
                }
            }
            NodeKind::Transformation {
                name, before, tree, ..
            } => {
                self.push((
                    format!("{indent}   {} through {name}", before.id),
                    String::new(),
                ));
                self.node(tree, indent);
            }
            NodeKind::Neg {
                beyond: Some(beyond),
                ..
            } => {
                self.push((
                    format!("{indent}   ~ (the namers are asked all the same)"),
                    String::new(),
                ));
                self.node(beyond, indent);
            }
            _ => self.push((
                format!("{indent}   {} {}", node.sign(), node.end()),
                String::new(),
            )),
        }
    }

    fn branch(&mut self, node: &Node, indent: &str, mark: &str, last: bool) {
        let arm = if last { "└─ " } else { "├─ " };
        let (head, place) = match &node.rule {
            Some(rule) => (cut(&rule_text(rule)), self.of.place(rule)),
            None => (node.path.to_string(), String::new()),
        };
        let path = match node.path.is_empty() {
            true => String::new(),
            false => format!("  → {}", node.path),
        };
        let path = if node.rule.is_some() {
            path
        } else {
            String::new()
        };
        self.push((format!("{indent}{arm}{mark}{head}{path}"), place));
        let indent = format!("{indent}{}", if last { "   " } else { "│  " });
        self.node(node, &indent);
    }
}

impl Node {
    fn last(&self) -> &Self {
        let mut node = self;
        while let NodeKind::Delegate(next) | NodeKind::Transformation { tree: next, .. } =
            &node.kind
        {
            node = next;
        }
        node
    }

    fn sign(&self) -> &'static str {
        match &self.kind {
            NodeKind::Leaf(_, Some(Addr::Bound(endpoints))) if !endpoints.is_empty() => "✓",
            NodeKind::Leaf(_, None) => "✓",
            NodeKind::Pending(_) | NodeKind::Leaf(_, Some(Addr::Pending)) => "…",
            _ => "✗",
        }
    }

    /// What the way ends in here, in words.
    fn end(&self) -> String {
        match &self.kind {
            NodeKind::Neg {
                reason: Some(reason),
                ..
            } => reason.to_string(),
            NodeKind::Neg { .. } if self.path.is_empty() => {
                "the rule says there is no such name (~)".to_owned()
            }
            NodeKind::Neg { .. } if concrete(&self.path) => {
                format!("no such name: no namer knows {}", self.path)
            }
            NodeKind::Neg { .. } => format!("no such name: no rule applies to {}", self.path),
            NodeKind::Fail => "the rules refuse this name (!)".to_owned(),
            NodeKind::Empty => "the rules say that nothing is behind this name ($)".to_owned(),
            NodeKind::Pending(waiting_for) => format!("not known yet: waiting for {waiting_for}"),
            NodeKind::Exception(error) if **error == BindError::TooDeep => {
                format!(
                    "the rules lead on for more than {MAX_DEPTH} steps, most likely round in a circle"
                )
            }
            NodeKind::Exception(error) => error.to_string(),
            NodeKind::Leaf(bound, None) => format!("{}   answered here", bound.id),
            NodeKind::Leaf(bound, Some(addr)) => format!("{}   {}", bound.id, addr_text(addr)),
            NodeKind::Union(_) => match self.chosen() {
                Ok(Activity::Ok(NameTree::Neg)) => {
                    "no branch of the union leads anywhere".to_owned()
                }
                _ => "a union: see its branches".to_owned(),
            },
            NodeKind::Alt(_) | NodeKind::Delegate(_) | NodeKind::Transformation { .. } => {
                self.path.to_string()
            }
        }
    }
}

/// Whether only namers can answer: `/#/…`, `/$/…`.
fn concrete(path: &Path) -> bool {
    let first = path.segments().first().map(dtab::Segment::as_bytes);
    matches!(first, Some(b"#" | b"$"))
}

fn addr_text(addr: &Addr) -> String {
    match addr {
        Addr::Pending => "addresses not known yet".to_owned(),
        Addr::Neg => "no address is left".to_owned(),
        Addr::Failed(cause) => format!("addresses unknown: {cause}"),
        Addr::Bound(endpoints) => match endpoints.len() {
            0 => "exists, with no endpoint ready".to_owned(),
            1 => "1 endpoint".to_owned(),
            n => format!("{n} endpoints"),
        },
    }
}

fn rule_text(rule: &super::Rule) -> String {
    format!("{} => {}", rule.prefix, rule.dst)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_RULE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Two columns, the second one aligned.
fn write_lines(out: &mut impl Write, lines: &[(String, String)]) -> fmt::Result {
    let with_place = lines.iter().filter(|(_, place)| !place.is_empty());
    let width = with_place
        .map(|(text, _)| text.chars().count())
        .max()
        .unwrap_or(0);
    for (text, place) in lines {
        match place.is_empty() {
            true => writeln!(out, "{text}")?,
            false => writeln!(out, "{text:width$}   {place}")?,
        }
    }
    Ok(())
}
