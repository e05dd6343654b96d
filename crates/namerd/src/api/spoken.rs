//! What clients may say, read by the very functions that the handlers call, with the laws that hold for it: for the fuzz
//! target `api`, and for its seeds as a plain test. A law that does not hold panics.

use std::net::SocketAddr;

use dtab::{Dtab, Layout};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::bound::Question;
use super::dtabs::{AUTHOR, Form, NOTE, change, from_json, origin, precondition, to_json};
use super::query::Query;
use super::rutter::Manner;
use crate::change::diff::differences;
use crate::change::edit::Edits;
use crate::change::live::{Live, Report};
use crate::change::noted::{Noted, Within};
use crate::change::shapes::{Confirm, Rollback};
use crate::store::{Namespace, Origin, one_line};

/// Reads some bytes as whatever their first one says, which makes seeds readable: `q` a query, `h` heads, `b` a body, `e` edits
/// and the text they are for, `n` a note, `s` a segment.
pub fn read(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    match kind {
        b'q' => text(rest, query),
        b'h' => heads(rest),
        b'b' => body(rest),
        b'e' => text(rest, edits),
        b'n' => text(rest, note),
        b's' => text(rest, segment),
        _ => {}
    }
}

fn text(bytes: &[u8], read: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

/// A name and a dtab are the same, however they are encoded.
fn query(text: &str) {
    let Ok(query) = Query::of(text) else { return };
    _ = query.number("limit");
    _ = query.watch();
    _ = Manner::of(&query, &HeaderMap::new());
    let encoded = |name: &str| {
        let value = utf8_percent_encode(query.get(name).unwrap_or_default(), NON_ALPHANUMERIC);
        format!("{name}={value}")
    };
    let again = Query::of(&format!("{}&{}", encoded("dtab"), encoded("path")));
    let again = again.unwrap_or_else(|refusal| panic!("{text:?}: {}", refusal.reason));
    if let Ok(path) = query.path() {
        assert_eq!(again.path().ok(), Some(path), "{text:?}");
    }
    assert_eq!(again.dtab().ok(), query.dtab().ok(), "{text:?}");
}

/// One value in all places.
fn heads(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let of = |name: HeaderName| HeaderMap::from_iter([(name, value.clone())]);
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        _ = precondition(&of(name));
    }
    _ = Form::accepted(&of(header::ACCEPT));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    for name in [AUTHOR, NOTE] {
        _ = origin(&of(HeaderName::from_static(name)), peer);
    }
}

/// What comes in force is what is kept; a dtab that is told, two decimals of a weight, is read as what it was told as. All that is
/// JSON is read as every shape.
fn body(bytes: &[u8]) {
    for form in [Form::Json, Form::Dtab, Form::Text] {
        if let Ok(change) = change(form, bytes, Origin::now("fuzz", "")) {
            assert!(change.is_as_written(), "{form:?} {change:?}");
        }
    }
    _ = serde_json::from_slice::<Question>(bytes);
    shape::<Rollback>(bytes);
    shape::<Confirm>(bytes);
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        _ = Live::default().report("router", report);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for dtab in [from_json(text).ok(), Dtab::read(text).ok()] {
        let Some(dtab) = dtab else { continue };
        // A weight of 1.001 is told as 1.00, and that as nothing: the second time nothing changes any more.
        let line = one_line(&dtab);
        let told = Dtab::read(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(Dtab::read(&one_line(&told)).as_ref(), Ok(&told), "{line:?}");
        let json = to_json(&dtab).to_string();
        let told = from_json(&json).unwrap_or_else(|refusal| panic!("{json}: {}", refusal.reason));
        let again = from_json(&to_json(&told).to_string());
        assert_eq!(again.ok().as_ref(), Some(&told), "{json}");
    }
}

fn shape<'a, T: Deserialize<'a> + serde::Serialize + PartialEq + std::fmt::Debug>(bytes: &'a [u8]) {
    let Ok(shape) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let told = serde_json::to_value(&shape).and_then(|told| serde_json::to_string(&told));
    assert!(told.is_ok(), "{shape:?}");
}

/// JSON up to the first empty line, then a text. What edits make of a dtab is one, and no edits leave it as it is.
fn edits(text: &str) {
    let (edits, text) = text.split_once("\n\n").unwrap_or((text, ""));
    let Ok(edits) = serde_json::from_str::<Edits>(edits) else {
        return;
    };
    let Ok(edited) = edits.apply(text) else {
        return;
    };
    if edits.edits.is_empty() {
        assert_eq!(edited, text);
        return;
    }
    assert!(Layout::read(&edited).is_ok(), "{text:?} becomes {edited:?}");
    let (Ok(old), Ok(new)) = (Dtab::read(text), Dtab::read(&edited)) else {
        panic!("{text:?} becomes {edited:?}");
    };
    assert_eq!(differences(&old, &new).is_empty(), old == new);
}

/// Whatever its words, what is said beside them is found again.
fn note(words: &str) {
    _ = Noted::of(words).note();
    let noted = Noted {
        words: words.to_owned(),
        via: "api".to_owned(),
        confirm: Some(Within {
            seconds: 5,
            back: None,
        }),
    };
    assert_eq!(Noted::of(&noted.note()), noted);
}

/// A namespace's name comes through a URL as it is.
fn segment(text: &str) {
    _ = super::namespace(text);
    if let Ok(namespace) = Namespace::new(text) {
        let segment = super::encoded(namespace.as_str());
        assert_eq!(super::namespace(&segment).ok(), Some(namespace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_three_decimals_that_came_as_json_is_kept() {
        let json =
            br#"[{"prefix":"/a","dst":"0.001 * /b & .139 * /c"},{"prefix":"/d","dst":"/e"}]"#;
        let change = change(Form::Json, json, Origin::now("test", ""));
        assert!(change.is_ok_and(|change| change.is_as_written()));
    }

    #[test]
    fn the_seeds_are_read() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/api");
        let mut kinds = std::collections::BTreeSet::new();
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            kinds.insert(bytes[0]);
            read(&bytes);
        }
        assert!(kinds.is_superset(&b"qhbens".iter().copied().collect()));
    }
}
