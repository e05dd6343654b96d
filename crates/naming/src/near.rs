//! "Did you mean": the nearest of the words, and of the names, that would have been right.
//!
//! Pure but for [`suggest`], which binds what it is about to suggest. All of it is bounded: an unknown name must not
//! cost more than a known one many times over.

use std::collections::BTreeSet;

use dtab::{Dtab, Elem, NameTree, Path, Segment};

use crate::{Activity, Bound, Interpreter, Reads, Target};

/// No more names than these are compared.
const MOST_KNOWN: usize = 5_000;
/// Longer words are no slips of the keyboard.
const LONGEST: usize = 64;
/// No more names than these are tried by [`suggest`].
const MOST_TRIED: usize = 3;

/// The word of `known` that `typed` was most likely meant to be; `None` when nothing is near enough to be helpful.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = typed.to_lowercase();
    let allowed = allowed(typed);
    known
        .into_iter()
        .map(|word| (distance(&lower, &word.to_lowercase()), word))
        .filter(|&(d, word)| {
            d <= allowed || (typed.len() >= 3 && word.to_lowercase().starts_with(&lower))
        })
        .min_by_key(|&(d, _)| d)
        .map(|(_, word)| word)
}

/// Slips that a word of this length may have: one in three letters, three at the most.
fn allowed(typed: &str) -> usize {
    (typed.chars().count() / 3).clamp(1, 3)
}

/// How many letters to add, drop, change or swap with their neighbour.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut cost = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Names like `wanted` whose last segment is a word that `dtab` or one of the `known` names (those of the namers) has,
/// the nearest first; at most three. Whether they lead anywhere is not asked.
///
/// `dtab` is to be the router's own, without what a request brought along: a suggestion is shown to whoever asked.
pub fn names<'a>(
    wanted: &Path,
    dtab: &Dtab,
    known: impl IntoIterator<Item = &'a Path>,
) -> Vec<Path> {
    let Some(typed) = wanted.segments().last().and_then(|last| last.as_str()) else {
        return Vec::new();
    };
    let typed = typed.to_lowercase();
    if typed.len() > LONGEST {
        return Vec::new();
    }
    let prefixes = dtab
        .entries()
        .iter()
        .filter_map(|dentry| match dentry.prefix.elems().last() {
            Some(Elem::Label(word)) => word.as_str(),
            _ => None,
        });
    let last = |path: &'a Path| path.segments().last().and_then(Segment::as_str);
    let names = known.into_iter().filter_map(last);
    let allowed = allowed(&typed);
    let near: BTreeSet<(usize, String)> = prefixes
        .chain(names)
        .take(MOST_KNOWN)
        .filter(|word| word.len().abs_diff(typed.len()) <= 4 * allowed && word.len() <= LONGEST)
        .filter_map(|word| {
            let far = distance(&typed, &word.to_lowercase());
            (far <= allowed).then(|| (far, word.to_owned()))
        })
        .collect();
    let place = wanted.take(wanted.len() - 1);
    near.into_iter()
        .filter_map(|(_, word)| Some(place.child(Segment::new(&word)?)))
        .filter(|path| path != wanted)
        .take(MOST_TRIED)
        .collect()
}

/// The nearest of [`names`] that leads to endpoints at this moment, as a request without rules of its own would see it.
pub fn suggest<'a>(
    interpreter: &dyn Interpreter,
    base: &Dtab,
    wanted: &Path,
    known: impl IntoIterator<Item = &'a Path>,
) -> Option<Path> {
    names(wanted, base, known).into_iter().find(|path| {
        let mut reads = Reads::new();
        match interpreter.bind(base, &Dtab::empty(), path, &mut reads) {
            Activity::Ok(tree) => has_endpoints(&tree, &mut reads),
            Activity::Pending(_) | Activity::Failed(_) => false,
        }
    })
}

fn has_endpoints(tree: &NameTree<Bound>, reads: &mut Reads) -> bool {
    match tree {
        NameTree::Leaf(bound) => match &bound.target {
            Target::Endpoints(addrs) => !addrs.addr(reads).endpoints().is_empty(),
            Target::Status(_) => false,
        },
        NameTree::Alt(trees) => trees.iter().any(|tree| has_endpoints(tree, reads)),
        NameTree::Union(branches) => branches
            .iter()
            .any(|branch| has_endpoints(&branch.tree, reads)),
        NameTree::Neg | NameTree::Fail | NameTree::Empty => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["port", "ip", "label", "tls", "clearContext"];
        for (typed, want) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("clearcontext", Some("clearContext")),
            ("clear", Some("clearContext")),
            ("lable", Some("label")),
            ("frobnicate", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
    }

    #[test]
    fn swapped_letters_are_one_step() {
        assert_eq!(distance("wrold", "world"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_near_name_has_a_word_of_the_dtab_or_of_a_namer() {
        let dtab = Dtab::read("/host => /srv ; /host/world => /srv/world-v1 ; /a/* => /b").unwrap();
        let known = [
            "/#/io.l5d.fs/hello",
            "/#/io.l5d.fs/help",
            "/#/io.l5d.fs/other",
        ];
        let known = known.map(|path| Path::read(path).unwrap());
        for (wanted, near) in [
            ("/svc/wrold", &["/svc/world"][..]),
            ("/svc/WORLD", &["/svc/world"]),
            (
                "/svc/1.1/GET/helo",
                &["/svc/1.1/GET/hello", "/svc/1.1/GET/help"],
            ),
            ("/svc/world", &[]),
            ("/svc/nothing-like-it", &[]),
            ("/", &[]),
        ] {
            let found = names(&Path::read(wanted).unwrap(), &dtab, &known);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, near, "{wanted}");
        }
    }

    #[test]
    fn a_long_word_is_compared_with_nothing() {
        let dtab = Dtab::read("/svc/world => /a").unwrap();
        let long = Path::utf8(["svc", &"w".repeat(10_000)]);
        assert_eq!(names(&long, &dtab, []), []);
    }
}
