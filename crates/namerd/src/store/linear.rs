//! Whether what several clients saw of one namespace can have happened in one order, each operation at some moment between its
//! beginning and its end: linearizability, as Wing and Gong check it.

use std::collections::HashSet;

/// What a client did.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) began: u64,
    /// None: it never learnt what became of it.
    pub(super) ended: Option<u64>,
    pub(super) what: What,
}

/// Values are numbers, 0 stands for none.
#[derive(Clone, Debug)]
pub(super) enum What {
    Read(u32),
    /// A write on the condition that a value is there; whether it was done, if that is known.
    Swap {
        from: u32,
        to: u32,
        done: Option<bool>,
    },
}

impl What {
    /// The value behind it; none when it cannot have happened where `value` was.
    fn after(&self, value: u32) -> Option<u32> {
        match *self {
            Self::Read(seen) => (seen == value).then_some(value),
            Self::Swap { from, to, done } => match (from == value, done) {
                (true, Some(true) | None) => Some(to),
                (false, Some(false)) => Some(value),
                _ => None,
            },
        }
    }
}

/// Whether there is such an order, beginning with no value.
pub(super) fn linearizable(operations: &[Operation]) -> bool {
    let mut seen = HashSet::new();
    let mut ways = vec![(vec![false; operations.len()], 0_u32)];
    while let Some((done, value)) = ways.pop() {
        let open = || (0..operations.len()).filter(|at| !done[*at]);
        let ends = open().filter_map(|at| operations[at].ended);
        let Some(first_end) = ends.min() else {
            return true; // what is left need not have happened
        };
        for at in open() {
            let operation = &operations[at];
            if operation.began > first_end {
                continue;
            }
            let Some(next) = operation.what.after(value) else {
                continue;
            };
            let mut done = done.clone();
            done[at] = true;
            if seen.insert((done.clone(), next)) {
                ways.push((done, next));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(began: u64, ended: u64, seen: u32) -> Operation {
        Operation {
            began,
            ended: Some(ended),
            what: What::Read(seen),
        }
    }

    fn swap(began: u64, ended: u64, from: u32, to: u32, done: Option<bool>) -> Operation {
        let ended = done.map(|_| ended);
        Operation {
            began,
            ended,
            what: What::Swap { from, to, done },
        }
    }

    #[test]
    fn what_can_have_happened_is_told_from_what_cannot() {
        let yes = Some(true);
        for (operations, want) in [
            (vec![], true),
            (vec![read(0, 1, 0)], true),
            (vec![read(0, 1, 7)], false),
            // Side by side, either order.
            (
                vec![swap(0, 9, 0, 1, yes), read(1, 2, 0), read(3, 4, 1)],
                true,
            ),
            // A read behind the end of a write that does not see it.
            (vec![swap(0, 1, 0, 1, yes), read(2, 3, 0)], false),
            // What was seen once goes away again.
            (
                vec![swap(0, 9, 0, 1, yes), read(1, 2, 1), read(3, 4, 0)],
                false,
            ),
            // Two winners over the same value: one of the writes is lost.
            (
                vec![
                    swap(0, 1, 0, 1, yes),
                    swap(2, 5, 1, 2, yes),
                    swap(3, 4, 1, 3, yes),
                ],
                false,
            ),
            (
                vec![
                    swap(0, 1, 0, 1, yes),
                    swap(2, 5, 1, 2, yes),
                    swap(3, 4, 1, 3, Some(false)),
                ],
                true,
            ),
            // A write without an answer was done, or not, or is done later; but once.
            (
                vec![swap(0, 1, 0, 1, None), read(2, 3, 0), read(4, 5, 1)],
                true,
            ),
            (vec![swap(0, 1, 0, 1, None), read(2, 3, 0)], true),
            (
                vec![swap(0, 1, 0, 1, None), read(2, 3, 1), read(4, 5, 0)],
                false,
            ),
            // It failed though nothing stood in its way.
            (vec![swap(0, 1, 0, 1, Some(false))], false),
        ] {
            assert_eq!(linearizable(&operations), want, "{operations:?}");
        }
    }
}
