use super::*;
use std::collections::HashSet;

#[test]
fn the_catalogue_has_every_promised_code_once() {
    let promised = (100..=105)
        .chain(110..=128)
        .chain(130..=135)
        .chain([140])
        .map(|n| format!("RT-E{n}"));
    let have: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(have, promised.collect::<Vec<_>>());
    let all: Vec<_> = entries().map(|entry| entry.code).collect();
    assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len());
}

#[test]
fn every_code_has_a_page_of_its_own() {
    let mut seen = HashSet::new();
    for entry in entries() {
        assert!(
            !entry.title.is_empty() && entry.what.len() > 60,
            "{}",
            entry.code
        );
        assert!(
            !entry.causes.is_empty() && entry.fix.len() > 20 && entry.see.len() > 10,
            "{}",
            entry.code
        );
        assert!(
            seen.insert(entry.title) && seen.insert(entry.what) && seen.insert(entry.fix),
            "{} repeats",
            entry.code
        );
    }
}

#[test]
fn statuses_are_those_of_linkerd_where_it_has_one() {
    for (code, status) in [
        (Code::E100, Some(400)),
        (Code::E101, Some(502)),
        (Code::E103, Some(502)),
        (Code::E112, Some(503)),
        (Code::E113, None),
        (Code::E115, Some(400)),
        (Code::E122, Some(414)),
        (Code::E126, Some(499)),
        (Code::E132, None),
        (Code::E140, None),
    ] {
        assert_eq!(code.status(), status, "{code}");
    }
}

#[test]
fn codes_are_found_in_any_spelling() {
    assert_eq!("rt-e101".parse(), Ok(Code::E101));
    assert_eq!(find("E112").unwrap().code, "RT-E112");
    assert_eq!(find("C021").unwrap().code, "RT-C021");
    assert_eq!(find("D03").unwrap().code, "RT-D03");
    assert!("RT-E999".parse::<Code>().is_err() && find("").is_none());
}
