//! What a change would do to the names in use: each is bound under the old dtab and under the new one, by the function that
//! routers' names are bound with.

use std::time::Duration;

use dtab::{Dtab, NameTree};
use naming::{Activity, Bound, BoundTree, Reads, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diff::{Difference, differences};
use super::live::LiveName;
use crate::names::{Names, addr_of};

/// How long namers are waited for, for all names together.
const PATIENCE: Duration = Duration::from_secs(3);
/// Shares that differ by less are the same.
const SMALL: f64 = 1e-9;

/// What comes of a name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Requests that are answered now would not be.
    WouldBreak,
    /// It would lead elsewhere.
    Changed,
    /// It leads nowhere now, or in part, and would lead somewhere.
    WouldWork,
    /// Everything as it is.
    Unchanged,
    /// A namer has not answered, so that it cannot be told.
    Unknown,
}

/// A name under the old dtab and the new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedName {
    /// What is asked for.
    pub name: String,
    /// The dtab that is put behind the namespace's; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dtab: String,
    /// Requests a second; none when no router says.
    pub rps: Option<f64>,
    /// Where it leads now, for people: `90 % /#/io.l5d.fs/v1 (3), 10 % …` with the number of endpoints, or `no match`.
    pub now: String,
    /// Where it would lead.
    pub then: String,
    /// The tree it is bound to now, as Linkerd writes trees.
    pub now_tree: String,
    /// The tree it would be bound to.
    pub then_tree: String,
    /// The share of its requests that would be answered with an error and are not now, from 0 to 1.
    pub breaks: f64,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The entries that differ.
    pub differences: Vec<Difference>,
    /// All names in use, those that would break first.
    pub names: Vec<PlannedName>,
    /// Requests a second, of all names whose rate is known.
    pub rps: f64,
    /// How many names would break, wholly or in part.
    pub would_break: usize,
    /// How many would lead elsewhere.
    pub changed: usize,
    /// How many cannot be told.
    pub unknown: usize,
    /// The share of the names in use that are bound now and would break, from 0 to 1.
    pub share_broken: f64,
}

/// Where a name leads, at one moment.
#[derive(Clone, Debug, PartialEq)]
struct Way {
    tree: String,
    shown: String,
    /// The share of requests that end with an error; none when it is not known.
    dead: Option<f64>,
}

impl Plan {
    /// Evaluates both dtabs for all these names. Waits for namers for a bounded time. Cancel safe.
    pub async fn make(names: &Names, old: &Dtab, new: &Dtab, live: &[LiveName]) -> Self {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut planned = Vec::with_capacity(live.len());
        for name in live {
            let now = way(names, old, name, until).await;
            let then = way(names, new, name, until).await;
            planned.push(PlannedName::of(name, now, then));
            // Thousands of names are a long computation for a thread that others need too.
            tokio::task::yield_now().await;
        }
        Self::of(differences(old, new), planned)
    }

    fn of(differences: Vec<Difference>, mut names: Vec<PlannedName>) -> Self {
        names.sort_by(|a, b| {
            let rates = b.rps.unwrap_or(-1.0).total_cmp(&a.rps.unwrap_or(-1.0));
            a.verdict.cmp(&b.verdict).then(rates)
        });
        let count = |verdict| names.iter().filter(|name| name.verdict == verdict).count();
        let bound = names
            .iter()
            .filter(|name| name.breaks > 0.0 || name.leads_somewhere());
        let (would_break, bound) = (count(Verdict::WouldBreak), bound.count());
        Self {
            rps: names.iter().filter_map(|name| name.rps).sum(),
            would_break,
            changed: count(Verdict::Changed),
            unknown: count(Verdict::Unknown),
            share_broken: would_break as f64 / bound.max(1) as f64,
            differences,
            names,
        }
    }
}

impl PlannedName {
    fn of(name: &LiveName, now: Way, then: Way) -> Self {
        let (breaks, verdict) = match (now.dead, then.dead) {
            (Some(now), Some(then)) if then > now + SMALL => (then - now, Verdict::WouldBreak),
            (Some(now), Some(then)) if then < now - SMALL => (0.0, Verdict::WouldWork),
            (Some(_), Some(_)) => (0.0, Verdict::Changed),
            _ => (0.0, Verdict::Unknown),
        };
        let same = now.tree == then.tree && verdict == Verdict::Changed;
        Self {
            name: name.path.to_string(),
            dtab: name.local.to_string(),
            rps: name.rps,
            now: now.shown,
            then: then.shown,
            now_tree: now.tree,
            then_tree: then.tree,
            breaks,
            verdict: if same { Verdict::Unchanged } else { verdict },
        }
    }

    /// Whether it is bound now.
    pub fn leads_somewhere(&self) -> bool {
        !matches!(self.now_tree.as_str(), "~" | "!" | "$" | "?")
    }
}

/// Binds a name as soon as all that it needs is known.
async fn way(names: &Names, base: &Dtab, name: &LiveName, until: tokio::time::Instant) -> Way {
    loop {
        let mut reads = Reads::new();
        let bound = names.bind_under(base, &name.local, &name.path, &mut reads);
        let way = Way::of(&bound, &mut reads);
        if way.dead.is_some() || reads.is_empty() {
            return way;
        }
        if tokio::time::timeout_at(until, reads.changed())
            .await
            .is_err()
        {
            return way;
        }
    }
}

impl Way {
    fn of(bound: &BoundTree, reads: &mut Reads) -> Self {
        match bound {
            Activity::Pending(waiting_for) => Self {
                tree: "?".to_owned(),
                shown: format!("not known yet: waiting for {waiting_for}"),
                dead: None,
            },
            Activity::Failed(error) => Self {
                tree: "!".to_owned(),
                shown: format!("fails: {error}"),
                dead: Some(1.0),
            },
            Activity::Ok(tree) => {
                let mut leaves = Vec::new();
                let dead = follow(tree, 1.0, &mut leaves, reads);
                let whole = matches!(leaves.as_slice(), [(share, _)] if *share == 1.0);
                let leaf = |(share, text): &(f64, String)| match whole {
                    true => text.clone(),
                    false => format!("{} % {text}", percent(*share)),
                };
                let shown: Vec<String> = leaves.iter().map(leaf).collect();
                Self {
                    tree: written(tree),
                    shown: match (tree, shown.is_empty()) {
                        (NameTree::Fail, _) => "fails (!)".to_owned(),
                        (NameTree::Empty, _) => "nothing ($)".to_owned(),
                        (_, true) => "no match".to_owned(),
                        _ => shown.join(", "),
                    },
                    dead,
                }
            }
        }
    }
}

/// Where a tree leads, with the share of each leaf; the share that ends with an error, none when that is not known.
fn follow(
    tree: &NameTree<Bound>,
    share: f64,
    leaves: &mut Vec<(f64, String)>,
    reads: &mut Reads,
) -> Option<f64> {
    match tree {
        NameTree::Neg | NameTree::Fail | NameTree::Empty => Some(share),
        NameTree::Leaf(bound) => {
            let id = format!("{}{}", bound.id, residual(bound));
            if let Target::Status(status) = bound.target {
                leaves.push((share, format!("answers {status}")));
                return Some(0.0);
            }
            let addr = addr_of(bound, reads);
            let count = addr.endpoints().len();
            leaves.push((share, format!("{id} ({count})")));
            match addr {
                naming::Addr::Pending => None,
                _ if count == 0 => Some(share),
                _ => Some(0.0),
            }
        }
        // A bound tree has none.
        NameTree::Alt(trees) => match trees.first() {
            Some(first) => follow(first, share, leaves, reads),
            None => Some(share),
        },
        NameTree::Union(branches) => {
            let sum: f64 = branches.iter().map(|branch| branch.weight).sum();
            if sum <= 0.0 {
                return Some(share);
            }
            let mut dead = Some(0.0);
            for branch in branches.iter().filter(|branch| branch.weight > 0.0) {
                let part = follow(&branch.tree, share * branch.weight / sum, leaves, reads);
                dead = dead.zip(part).map(|(one, other)| one + other);
            }
            dead
        }
    }
}

fn residual(bound: &Bound) -> String {
    match bound.residual.is_empty() {
        true => String::new(),
        false => format!(" + {}", bound.residual),
    }
}

fn percent(share: f64) -> String {
    let percent = (share * 1000.0).round() / 10.0;
    format!("{percent}")
}

/// A bound tree as text, with exact weights.
pub(crate) fn written(tree: &NameTree<Bound>) -> String {
    match tree {
        NameTree::Neg => "~".to_owned(),
        NameTree::Fail => "!".to_owned(),
        NameTree::Empty => "$".to_owned(),
        NameTree::Leaf(bound) => format!("{}{}", bound.id, residual(bound)),
        NameTree::Alt(trees) => {
            let all: Vec<_> = trees.iter().map(written).collect();
            format!("({})", all.join(" | "))
        }
        NameTree::Union(branches) => {
            let one = |branch: &dtab::Weighted<Bound>| {
                format!("{} * {}", branch.weight, written(&branch.tree))
            };
            let all: Vec<_> = branches.iter().map(one).collect();
            format!("({})", all.join(" & "))
        }
    }
}
