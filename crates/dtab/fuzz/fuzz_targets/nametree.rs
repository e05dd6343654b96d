//! Any text: what a tree evaluates to survives being simplified and being printed. Its weights don't: two decimals are
//! printed, as Finagle does, so only the second printing reads as itself.
#![no_main]

use dtab::{NameTree, Path};
use libfuzzer_sys::fuzz_target;

fn value(tree: &NameTree<Path>) -> Option<Vec<Path>> {
    let mut leaves: Vec<_> = tree.eval()?.into_iter().cloned().collect();
    leaves.sort();
    Some(leaves)
}

fuzz_target!(|text: &str| {
    let tree = match NameTree::read(text) {
        Ok(tree) => tree,
        Err(error) => {
            assert!(error.byte <= text.len() && error.position <= error.byte);
            assert!(!error.to_string().is_empty() && error.report(text).contains('^'));
            return;
        }
    };
    let simplified = tree.simplified();
    assert_eq!(simplified.simplified(), simplified);
    assert_eq!(value(&simplified), value(&tree));
    let printed = tree.to_string();
    // An infinite weight is printed as Java prints it, which nobody can read.
    if printed.contains("Infinity*") {
        return;
    }
    let once = NameTree::read(&printed).expect("what was printed can be read");
    assert_eq!(value(&once), value(&tree));
    assert_eq!(NameTree::read(&once.to_string()), Ok(once));
});
