//! Bound trees and address sets as namerd's API writes them.

use dtab::NameTree;
use naming::{Addr, Bound, Reads};
use serde_json::{Value, json};

use crate::names::addr_of;

/// A bound tree with its addresses; none while one of them is not known yet.
///
/// `{"type": "leaf", "bound": {"addr", "id", "path"}}`, `union` with `[{"weight", "tree"}]`, `neg`, `fail`, `empty`.
pub(crate) fn tree(tree: &NameTree<Bound>, reads: &mut Reads) -> Option<Value> {
    let all = |trees: Vec<Option<Value>>| trees.into_iter().collect::<Option<Vec<_>>>();
    Some(match tree {
        NameTree::Neg => json!({"type": "neg"}),
        NameTree::Fail => json!({"type": "fail"}),
        NameTree::Empty => json!({"type": "empty"}),
        NameTree::Leaf(bound) => {
            let (id, residual) = (bound.id.to_string(), bound.residual.to_string());
            let addr = leaf_addr(bound, reads)?;
            json!({"type": "leaf", "bound": {"addr": addr, "id": id, "path": residual}})
        }
        // A bound tree has none; written all the same, should that change.
        NameTree::Alt(trees) => {
            let trees = all(trees
                .iter()
                .map(|branch| self::tree(branch, reads))
                .collect())?;
            json!({"type": "alt", "alt": trees})
        }
        NameTree::Union(branches) => {
            let branches = branches.iter().map(|branch| {
                let tree = self::tree(&branch.tree, reads)?;
                Some(json!({"weight": branch.weight, "tree": tree}))
            });
            json!({"type": "union", "union": all(branches.collect())?})
        }
    })
}

/// The addresses of a leaf, with the weight of its union's branch as Linkerd notes it; none while they are not known.
pub(crate) fn leaf_addr(bound: &Bound, reads: &mut Reads) -> Option<Value> {
    let addr = addr_of(bound, reads);
    if addr == Addr::Pending {
        return None;
    }
    let mut value = addr.to_json();
    if let (Some(weight), Some(meta)) = (bound.weight, value.get_mut("meta")) {
        *meta = json!({"namer_nametree_weight": weight});
    }
    Some(value)
}
