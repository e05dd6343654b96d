//! The weights of a dentry: how a share is shifted, and how it is written.

use dtab::{NameTree, Path, Weighted};

/// Shares are written with so many parts of a percent.
const PARTS: f64 = 100.0;

/// The tree with that share, in percent, for the target; the others keep their proportions.
pub(super) fn shifted(tree: &NameTree<Path>, target: &Path, share: f64) -> NameTree<Path> {
    let leaf = NameTree::Leaf(target.clone());
    let branches = match tree {
        NameTree::Union(branches) => branches.clone(),
        other => vec![Weighted::new(1.0, other.clone())],
    };
    let rest: Vec<_> = branches
        .iter()
        .filter(|branch| branch.tree != leaf)
        .collect();
    let sum: f64 = rest.iter().map(|branch| branch.weight).sum();
    let round = |percent: f64| (percent * PARTS).round() / PARTS;
    let mut shifted: Vec<_> = rest
        .iter()
        .map(|branch| {
            let part = if sum > 0.0 {
                branch.weight / sum
            } else {
                1.0 / rest.len() as f64
            };
            Weighted::new(round((100.0 - share) * part), branch.tree.clone())
        })
        .collect();
    let at = branches.iter().position(|branch| branch.tree == leaf);
    let at = at.unwrap_or(shifted.len()).min(shifted.len());
    shifted.insert(at, Weighted::new(share, leaf.clone()));
    // What gets nothing is left out: a branch without weight is still bound.
    shifted.retain(|branch| branch.weight > 0.0);
    match shifted.as_slice() {
        [] => leaf,
        [lone] => lone.tree.clone(),
        _ => NameTree::Union(shifted),
    }
}

/// A leaf or a union as it is written in a dtab, with exact weights.
pub(super) fn text(tree: &NameTree<Path>) -> String {
    let NameTree::Union(branches) = tree else {
        return tree.to_string();
    };
    let one = |branch: &Weighted<Path>| match &branch.tree {
        tree @ (NameTree::Alt(_) | NameTree::Union(_)) => {
            format!("{} * ({})", branch.weight, text(tree))
        }
        tree => format!("{} * {tree}", branch.weight),
    };
    let all: Vec<_> = branches.iter().map(one).collect();
    all.join(" & ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_others_keep_their_proportions() {
        let target = Path::read("/v2").unwrap();
        for (tree, share, want) in [
            ("/v1", 10.0, "90 * /v1 & 10 * /v2"),
            ("90 * /v1 & 10 * /v2", 50.0, "50 * /v1 & 50 * /v2"),
            ("10 * /v2 & 90 * /v1", 0.5, "0.5 * /v2 & 99.5 * /v1"),
            ("90 * /v1 & 10 * /v2", 100.0, "/v2"),
            ("90 * /v1 & 10 * /v2", 0.0, "/v1"),
            ("2 * /a & 1 * /b", 10.0, "60 * /a & 30 * /b & 10 * /v2"),
            ("0 * /a & 0 * /b", 10.0, "45 * /a & 45 * /b & 10 * /v2"),
            ("1 * (/a | /b) & 1 * /v2", 20.0, "80 * (/a | /b) & 20 * /v2"),
            ("/v2", 10.0, "/v2"),
        ] {
            let tree = NameTree::read(tree).unwrap();
            let got = text(&shifted(&tree, &target, share));
            assert_eq!(got, want, "{tree}");
            assert!(NameTree::read(&got).is_ok());
        }
    }
}
