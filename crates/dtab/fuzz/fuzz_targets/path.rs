//! Any text: a path or prefix that is read is printed as a text that reads as the same, its parts make up the whole,
//! and an error's place lies within the text.
#![no_main]

use dtab::{Path, Prefix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Path::read(text) {
        Ok(path) => {
            assert_eq!(Path::read(&path.to_string()).as_ref(), Ok(&path));
            for n in 0..=path.len().min(4) {
                assert_eq!(path.take(n).concat(&path.drop(n)), path);
            }
            // What is a path is a prefix, too, and it matches that path.
            assert!(Prefix::read(text).expect("every path is a prefix").matches(&path));
        }
        Err(error) => {
            assert!(error.byte <= text.len() && error.position <= error.byte);
            assert!(!error.to_string().is_empty() && error.report(text).contains('^'));
        }
    }
    if let Ok(prefix) = Prefix::read(text) {
        assert_eq!(Prefix::read(&prefix.to_string()).as_ref(), Ok(&prefix));
    }
});
