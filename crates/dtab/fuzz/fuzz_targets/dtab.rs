//! Any text: a dtab that is read is printed as one with the same entries, and looking a path up in it gives the same with
//! an index as without one.
#![no_main]

use dtab::{Dentry, Dtab, Elem, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let dtab = match Dtab::read(text) {
        Ok(dtab) => dtab,
        Err(error) => {
            assert!(error.byte <= text.len() && error.position <= error.byte);
            assert!(!error.to_string().is_empty() && error.report(text).contains('^'));
            return;
        }
    };
    let printed = dtab.to_string();
    if !printed.contains("Infinity*") {
        let again = Dtab::read(&printed).expect("what was printed can be read");
        assert_eq!(again.len(), dtab.len());
    }
    let never = Dentry::read("/never/seen/here/for/sure => ~").expect("this is an entry");
    let mut many = vec![never; 30];
    many.extend_from_slice(dtab.entries());
    let indexed = Dtab::from(many);
    for entry in dtab.entries().iter().take(8) {
        let label = |elem: &Elem| match elem {
            Elem::Any => dtab::Segment::new("any").expect("it is not empty"),
            Elem::Label(label) => label.clone(),
        };
        let path: Path = entry.prefix.elems().iter().map(label).collect();
        let tree = dtab.lookup(&path);
        assert!(!tree.is_neg() || entry.dst.is_neg());
        assert_eq!(indexed.lookup(&path), tree);
        assert_eq!(dtab.concat(&dtab).lookup(&path).eval().is_some(), tree.eval().is_some());
    }
    assert_eq!(dtab.simplified().simplified(), dtab.simplified());
});
