//! Any text: what is read as a dtab, a tree or a path is printed in a form that reads as the same; an error's place lies
//! within the text; a lookup ends.
#![no_main]

use dtab::{Dtab, NameTree, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = Path::read(text) {
        assert_eq!(Path::read(&path.to_string()).as_ref(), Ok(&path), "{text:?}");
    }
    if let Ok(tree) = NameTree::read(text) {
        assert_eq!(NameTree::read(&tree.to_string()).as_ref(), Ok(&tree), "{text:?}");
    }
    match Dtab::read(text) {
        Ok(read) => {
            let printed = read.to_string();
            let again = Dtab::read(&printed).expect("a printed dtab can be read");
            assert_eq!(again.to_string(), printed, "{text:?}");
            for entry in read.entries().iter().take(8) {
                let name = entry.prefix.to_string().replace('*', "any");
                let _ = read.lookup(&Path::read(&name).expect("a prefix without wildcards is a path"));
            }
        }
        Err(error) => {
            assert!(error.byte <= text.len(), "{text:?}: {error:?}");
            assert!(!error.report(text).is_empty());
        }
    }
});
