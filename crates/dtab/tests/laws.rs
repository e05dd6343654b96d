//! Laws that hold for all paths, trees and tables, tried on random ones.

use dtab::{Dentry, Dtab, Elem, Layout, NameTree, Path, Prefix, Segment, Weighted};
use proptest::collection::vec;
use proptest::prelude::*;

fn label() -> impl Strategy<Value = Segment> {
    let usual = "[a-c]".prop_map(String::into_bytes);
    let any = vec(any::<u8>(), 1..30);
    prop_oneof![6 => usual, 1 => any].prop_map(|bytes| Segment::new(bytes).unwrap())
}

fn path() -> impl Strategy<Value = Path> {
    vec(label(), 0..5).prop_map(Path::from)
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let elem = prop_oneof![3 => label().prop_map(Elem::Label), 1 => Just(Elem::Any)];
    vec(elem, 0..4).prop_map(Prefix::new)
}

/// Trees as the parser makes them: no node has fewer than two branches, weights survive being printed.
fn tree() -> impl Strategy<Value = NameTree<Path>> {
    let end = prop_oneof![
        4 => path().prop_map(NameTree::Leaf),
        1 => Just(NameTree::Neg),
        1 => Just(NameTree::Fail),
        1 => Just(NameTree::Empty),
    ];
    end.prop_recursive(4, 40, 4, |inner| {
        let weight = (0_u32..1000).prop_map(|hundredths| f64::from(hundredths) / 100.0);
        let branch = (weight, inner.clone()).prop_map(|(weight, tree)| Weighted { weight, tree });
        prop_oneof![
            vec(inner, 2..4).prop_map(NameTree::Alt),
            vec(branch, 2..4).prop_map(NameTree::Union),
        ]
    })
}

fn entries(
    count: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = Vec<Dentry>> {
    vec(
        (prefix(), tree()).prop_map(|(prefix, dst)| Dentry { prefix, dst }),
        count,
    )
}

/// The rule of a lookup, word by word.
fn naive_lookup(entries: &[Dentry], path: &Path) -> NameTree<Path> {
    let matching = entries.iter().rev().filter(|entry| {
        let elems = entry.prefix.elems();
        elems.len() <= path.len()
            && elems
                .iter()
                .zip(path.segments())
                .all(|(elem, segment)| match elem {
                    Elem::Any => true,
                    Elem::Label(label) => label.as_bytes() == segment.as_bytes(),
                })
    });
    let mut trees: Vec<_> = matching
        .map(|entry| {
            let rest = &path.segments()[entry.prefix.elems().len()..];
            entry
                .dst
                .map(|leaf| leaf.segments().iter().chain(rest).cloned().collect())
        })
        .collect();
    match trees.len() {
        0 => NameTree::Neg,
        1 => trees.remove(0),
        _ => NameTree::Alt(trees),
    }
}

fn values(tree: &NameTree<Path>) -> Option<Vec<Path>> {
    let mut leaves: Vec<_> = tree.eval()?.into_iter().cloned().collect();
    leaves.sort();
    Some(leaves)
}

/// What may stand between entries, and between the parts of one.
fn between() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(" ".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("\n\n\n".to_owned()),
        1 => "\n# [a-c/;=>$ ]{0,8}\n",
        1 => " # [a-c/;=>$ ]{0,8}\n",
        1 => "\n\n#x [a-c]{0,3}\n\n",
    ]
}

/// The comments of a text that has no `#` elsewhere.
fn comments(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once('#'));
    let mut all: Vec<_> = lines
        .map(|(_, comment)| comment.trim_end().to_owned())
        .collect();
    all.sort();
    all
}

proptest! {
    #[test]
    fn a_dtab_that_is_laid_out_means_the_same_and_keeps_its_comments(
        parts in vec((between(), "/[a-c*]", between(), "(/[a-c/]{0,3}|~|2 \\* /a & 3.5\\*\\(/b \\| !\\))", between(), between()), 0..6),
        closed in any::<bool>(),
        end in between(),
    ) {
        let mut text = String::new();
        let last = parts.len().saturating_sub(1);
        for (at, (one, prefix, two, dst, three, four)) in parts.iter().enumerate() {
            let close = if at < last || closed { ";" } else { "" };
            text.push_str(&format!("{one}{prefix}{two}=>{three}{dst}{four}{close}"));
        }
        text.push_str(&end);
        let Ok(dtab) = Dtab::read(&text) else { return Ok(()) };
        let layout = Layout::read(&text).unwrap();
        let formatted = layout.formatted();
        prop_assert_eq!(Dtab::read(&formatted).unwrap(), dtab.clone());
        prop_assert_eq!(comments(&formatted), comments(&text));
        prop_assert_eq!(Layout::read(&formatted).unwrap().formatted(), formatted);
        for at in 0..dtab.len() {
            let mut want: Vec<_> = dtab.entries().to_vec();
            want[at].dst = NameTree::Fail;
            let got = Dtab::read(&layout.with_dst(at, "!")).unwrap();
            prop_assert_eq!(got, Dtab::from(want.clone()), "{} of {}", at, text);
            want.remove(at);
            prop_assert_eq!(Dtab::read(&layout.without(at)).unwrap(), Dtab::from(want), "{} of {}", at, text);
        }
        let more = Dtab::read(&layout.with_entry("/z", "/y")).unwrap();
        prop_assert_eq!(more.len(), dtab.len() + 1);
    }

    #[test]
    fn a_printed_path_reads_as_itself(path in path()) {
        prop_assert_eq!(Path::read(&path.to_string()).unwrap(), path);
    }

    #[test]
    fn a_printed_prefix_reads_as_itself(prefix in prefix()) {
        prop_assert_eq!(Prefix::read(&prefix.to_string()).unwrap(), prefix);
    }

    #[test]
    fn a_printed_tree_reads_as_itself(tree in tree()) {
        prop_assert_eq!(NameTree::read(&tree.to_string()).unwrap(), tree);
    }

    #[test]
    fn a_printed_dtab_reads_as_itself(entries in entries(0..40)) {
        let dtab = Dtab::from(entries);
        prop_assert_eq!(Dtab::read(&dtab.to_string()).unwrap(), dtab);
    }

    #[test]
    fn simplifying_twice_is_simplifying_once(tree in tree()) {
        let once = tree.simplified();
        prop_assert_eq!(once.simplified(), once);
    }

    #[test]
    fn a_simplified_tree_evaluates_to_the_same(tree in tree()) {
        prop_assert_eq!(values(&tree.simplified()), values(&tree));
    }

    #[test]
    fn a_lookup_is_the_naive_one(entries in entries(0..80), path in path()) {
        let want = naive_lookup(&entries, &path);
        prop_assert_eq!(Dtab::from(entries).lookup(&path), want);
    }

    #[test]
    fn appended_tables_are_looked_up_as_one(
        tables in vec(entries(0..50), 0..8),
        path in path(),
    ) {
        let all: Vec<_> = tables.concat();
        let appended = tables.into_iter().fold(Dtab::empty(), |base, local| base.concat(&local.into()));
        prop_assert_eq!(appended.lookup(&path), naive_lookup(&all, &path));
        prop_assert_eq!(appended, Dtab::from(all));
    }

    #[test]
    fn no_text_makes_a_parser_or_its_report_panic(text in "[/a*#$~!|&;=>()0-9.\\\\x \n\u{e9}\u{1f600}]{0,40}") {
        let errors = [Path::read(&text).err(), NameTree::read(&text).err(), Dtab::read(&text).err()];
        for error in errors.into_iter().flatten() {
            prop_assert!(error.byte <= text.len());
            prop_assert!(!error.to_string().is_empty());
            let report = error.report(&text);
            prop_assert!(report.contains('^'));
            // Of another text, there may be nothing at that place.
            let other = error.report("/\u{1f600}");
            prop_assert!(other.contains('^'));
        }
    }
}
