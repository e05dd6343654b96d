//! How often names were followed through a dtab, and what came of it.

use dtab::NameTree;
use telemetry::cells::Counter;

use crate::Activity;
use crate::bind::{BindError, BoundTree};

/// Counts of evaluations. A name that is cached is not followed again; one whose sources change is.
#[derive(Debug, Default)]
pub struct Delegations {
    bound: Counter,
    neg: Counter,
    fail: Counter,
    empty: Counter,
    too_deep: Counter,
    error: Counter,
}

impl Delegations {
    /// Counts what came of one evaluation. One that has to wait is not counted: it is done again.
    pub(super) fn count(&self, tree: &BoundTree) {
        let counter = match tree {
            Activity::Pending(_) => return,
            Activity::Ok(tree) => match tree {
                NameTree::Neg => &self.neg,
                NameTree::Fail => &self.fail,
                NameTree::Empty => &self.empty,
                _ => &self.bound,
            },
            Activity::Failed(error) => match **error {
                BindError::TooDeep | BindError::TooLong { .. } | BindError::Budget => {
                    &self.too_deep
                }
                _ => &self.error,
            },
        };
        counter.incr();
    }

    /// Each result with its count.
    pub fn results(&self) -> [(&'static str, u64); 6] {
        [
            ("bound", self.bound.get()),
            ("neg", self.neg.get()),
            ("fail", self.fail.get()),
            ("empty", self.empty.get()),
            ("too_deep", self.too_deep.get()),
            ("error", self.error.get()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn counted(tree: BoundTree) -> Vec<(&'static str, u64)> {
        let counts = Delegations::default();
        counts.count(&tree);
        counts
            .results()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    #[test]
    fn every_result_has_a_name_and_a_wait_is_none() {
        for (tree, want) in [
            (Activity::Ok(NameTree::Neg), "neg"),
            (Activity::Ok(NameTree::Fail), "fail"),
            (Activity::Ok(NameTree::Empty), "empty"),
            (Activity::Ok(NameTree::Union(Vec::new())), "bound"),
            (Activity::Failed(Arc::new(BindError::TooDeep)), "too_deep"),
            (Activity::Failed(Arc::new(BindError::Budget)), "too_deep"),
        ] {
            assert_eq!(counted(tree), [(want, 1)]);
        }
        assert_eq!(counted(Activity::pending("the namer")), []);
    }
}
