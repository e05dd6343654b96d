//! The file as a tree: every key and value knows the line and column where it stands.
//!
//! The only place that knows the YAML library. What comes out is a [`Node`]; the typed reading is in [`super::read`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Options, Spanned, UserMessageFormatter};

/// Larger documents are refused: a router's file has some hundreds of nodes.
const MAX_NODES: usize = 60_000;
/// Deeper nesting is refused; Linkerd 1's deepest key is the ninth level.
const MAX_DEPTH: usize = 40;
/// Longer files are refused; a dtab of ten thousand entries fits.
const MAX_BYTES: usize = 4 << 20;

/// Where something stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// From the file's start, in bytes.
    pub offset: usize,
    /// In bytes; 0 when only the start is known.
    pub len: usize,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
}

impl Place {
    /// The place of a byte offset of `source`.
    pub fn of(source: &str, offset: usize, len: usize) -> Self {
        let offset = floor(source, offset.min(source.len()));
        let before = &source[..offset];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            offset,
            len: len.min(source.len() - offset),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn from_location(source: &str, at: Location) -> Self {
        let span = at.span();
        match (span.byte_offset(), span.byte_len()) {
            (Some(offset), Some(len)) => Self::of(source, to_usize(offset), to_usize(len)),
            _ => Self {
                offset: 0,
                len: 0,
                line: to_usize(at.line()),
                column: to_usize(at.column()),
            },
        }
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn floor(source: &str, mut offset: usize) -> usize {
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node holds. Kinds are those that YAML itself tells apart: `80` is a number, `"80"` and `no` are text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text, quoted or not.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys differ.
    Map(Vec<Entry>),
}

/// One line of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The entry of a mapping with that key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value of a mapping's key, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key)
            .map(|e| &e.node)
            .filter(|n| n.value != Value::Null)
    }

    /// The entries of a mapping; nothing for any other value.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Text, when it is that.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, in words for messages: `a list`, `the text "soon"`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Int(n) => format!("the number {n}"),
            Value::Float(n) => format!("the number {n}"),
            Value::Text(t) => {
                let mut short: String = t.chars().take(40).collect();
                if short.len() < t.len() {
                    short.push('…');
                }
                format!("the text {short:?}")
            }
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping (`key: value`)".into(),
        }
    }

    /// The same as JSON: only what was given, in the file's order.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(n) => i64::try_from(*n)
                .map(Into::into)
                .or_else(|_| u64::try_from(*n).map(Into::into))
                .unwrap_or(serde_json::Value::Null),
            Value::Float(n) => (*n).into(),
            Value::Text(t) => t.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|e| (e.key.clone(), e.node.to_json()))
                .collect(),
        }
    }

    /// The place in the file of byte `at` of this text: of an error inside `dtab: |`, for one.
    ///
    /// Block scalars lose their indentation and folded ones their line ends on the way from the file to the text. What both
    /// have in the same order is everything else, so the place is found by counting what is not white space.
    pub fn place_within(&self, source: &str, at: usize) -> Place {
        let Some(text) = self.text() else {
            return self.place;
        };
        let at = floor(text, at.min(text.len()));
        let wanted = text[..at].chars().filter(|c| !c.is_whitespace()).count();
        let start = content_start(source, self.place);
        let Some(raw) = source.get(start..) else {
            return self.place;
        };
        let mut after = start;
        let words = raw.char_indices().filter(|(_, c)| !c.is_whitespace());
        for (seen, (i, c)) in words.enumerate() {
            if seen == wanted {
                // What is asked for is white space or the end of the text: the error belongs behind the last word.
                let here = text[at..]
                    .chars()
                    .next()
                    .is_some_and(|next| !next.is_whitespace());
                return Place::of(source, if here { start + i } else { after }, 1);
            }
            after = start + i + c.len_utf8();
        }
        Place::of(source, after, 1)
    }
}

/// Where a scalar's text begins: behind a quote, or on the line behind `|` or `>`.
fn content_start(source: &str, place: Place) -> usize {
    let raw = source.get(place.offset..).unwrap_or_default();
    match raw.chars().next() {
        Some('"' | '\'') => place.offset + 1,
        Some('|' | '>') => raw
            .find('\n')
            .map_or(source.len(), |i| place.offset + i + 1),
        _ => place.offset,
    }
}

/// The text is neither YAML nor JSON, or more than a configuration may be.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotADocument {
    /// What is wrong, on one line.
    pub message: String,
    /// Where.
    pub place: Place,
}

/// Reads a document: JSON when its first character that is not blank is `{`, otherwise YAML, as Linkerd 1 decides.
pub fn parse(source: &str) -> Result<Node, NotADocument> {
    if source.len() > MAX_BYTES {
        let message = format!(
            "the file has {} bytes, more than the {MAX_BYTES} that a configuration may have",
            source.len()
        );
        return Err(NotADocument {
            message,
            place: Place::of(source, 0, 0),
        });
    }
    if source.trim_start().starts_with('{') {
        strict_json(source)?;
    }
    if source
        .lines()
        .all(|l| l.trim_start().is_empty() || l.trim_start().starts_with('#'))
    {
        return Err(NotADocument {
            message: "the file is empty".into(),
            place: Place::of(source, 0, 0),
        });
    }
    let spanned: Spanned<Raw> = serde_saphyr::from_str_with_options(source, options())
        .map_err(|e| from_saphyr(source, &e))?;
    Ok(spanned_node(source, spanned))
}

/// A JSON text must be JSON, not only what YAML takes in braces. Places are the YAML reader's, of which JSON is a subset.
fn strict_json(source: &str) -> Result<(), NotADocument> {
    serde_json::from_str::<serde::de::IgnoredAny>(source)
        .map(|_| ())
        .map_err(|e| {
            let line_start: usize = source
                .split_inclusive('\n')
                .take(e.line().saturating_sub(1))
                .map(str::len)
                .sum();
            let place = Place::of(source, line_start + e.column().saturating_sub(1), 1);
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            NotADocument {
                message: format!("the file begins with `{{`, so it is read as JSON: {what}"),
                place,
            }
        })
}

fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_depth: MAX_DEPTH, max_events: 4 * MAX_NODES, max_documents: 1 },
    }
}

fn from_saphyr(source: &str, error: &serde_saphyr::Error) -> NotADocument {
    let place = error.location().map_or(Place::of(source, 0, 0), |at| {
        Place::from_location(source, at)
    });
    let whole = error
        .without_snippet()
        .render_with_formatter(&UserMessageFormatter);
    let message = whole
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    NotADocument { message, place }
}

/// The tree as the library gives it: with its own kind of places.
enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn spanned_node(source: &str, spanned: Spanned<Raw>) -> Node {
    let mut lines = Lines::new(source);
    convert(&mut lines, spanned)
}

/// Places of many offsets of one source, each in logarithmic time.
struct Lines<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(source: &'a str) -> Self {
        let starts = std::iter::once(0)
            .chain(source.match_indices('\n').map(|(i, _)| i + 1))
            .collect();
        Self { source, starts }
    }

    fn place(&self, at: Location) -> Place {
        let span = at.span();
        let (Some(offset), Some(len)) = (span.byte_offset(), span.byte_len()) else {
            return Place::from_location(self.source, at);
        };
        let offset = floor(self.source, to_usize(offset).min(self.source.len()));
        let line = self.starts.partition_point(|&s| s <= offset);
        let start = self.starts[line - 1];
        Place {
            offset,
            len: to_usize(len).min(self.source.len() - offset),
            line,
            column: self.source[start..offset].chars().count() + 1,
        }
    }
}

fn convert(lines: &mut Lines<'_>, spanned: Spanned<Raw>) -> Node {
    let place = lines.place(spanned.referenced);
    let value = match spanned.value {
        Raw::Null => Value::Null,
        Raw::Bool(b) => Value::Bool(b),
        Raw::Int(n) => Value::Int(n),
        Raw::Float(n) => Value::Float(n),
        Raw::Text(t) => Value::Text(t),
        Raw::List(items) => Value::List(items.into_iter().map(|i| convert(lines, i)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    place: lines.place(key.referenced),
                    key: key.value,
                    node: convert(lines, value),
                })
                .collect(),
        ),
    };
    Node { place, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
                Ok(Raw::Int(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
                Ok(Raw::Int(v.into()))
            }
            fn visit_i128<E>(self, v: i128) -> Result<Raw, E> {
                Ok(Raw::Int(v))
            }
            fn visit_u128<E>(self, v: u128) -> Result<Raw, E> {
                Ok(i128::try_from(v).map_or(Raw::Float(v as f64), Raw::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
                Ok(Raw::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
                Ok(Raw::Text(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Raw, E> {
                Ok(Raw::Text(v))
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(RawVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &Node, key: &str) -> (usize, usize) {
        let e = node.entry(key).unwrap();
        (e.place.line, e.place.column)
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let n = parse("a: 1\nbb:\n  - c: no\n    d: \"80\"\n  - {e: 1.5, f: ~}\n").unwrap();
        assert_eq!(at(&n, "bb"), (2, 1));
        let Value::List(items) = &n.get("bb").unwrap().value else {
            panic!()
        };
        assert_eq!(at(&items[0], "d"), (4, 5));
        assert_eq!(items[0].get("c").unwrap().value, Value::Text("no".into()));
        let d = items[0].get("d").unwrap();
        assert_eq!(
            (&d.value, d.place.line, d.place.column),
            (&Value::Text("80".into()), 4, 8)
        );
        assert_eq!(at(&items[1], "f"), (5, 14));
        assert_eq!(items[1].get("f"), None);
        assert_eq!(
            n.to_json().to_string(),
            r#"{"a":1,"bb":[{"c":"no","d":"80"},{"e":1.5,"f":null}]}"#
        );
    }

    #[test]
    fn a_spot_inside_a_text_is_found_in_the_file() {
        for (source, needle, line, column) in [
            ("dtab: |\n  /a => /b;\n\n  /c = /d;\n", "= /d", 4, 6),
            (
                "x: 1\ndtab: |-\n    /a => /b;\n    # é\n    /c ; /d\n",
                "; /d",
                5,
                8,
            ),
            ("dtab: >\n  /a => /b;\n  /c ; /d\n", "; /d", 3, 6),
            ("dtab: '/svc = /x'\n", "= /x", 1, 13),
            ("dtab: \"/svc = /x\"\n", "= /x", 1, 13),
            ("dtab: /svc = /x\n", "= /x", 1, 12),
            ("a: {dtab: /svc = /x}\n", "= /x", 1, 16),
            ("dtab:\n  /a => /b;\n  /c = /x\n", "= /x", 3, 6),
            ("dtab: | # why\n  /c = /x\n", "= /x", 2, 6),
        ] {
            let n = parse(source).unwrap();
            let n = n.get("a").unwrap_or(&n).get("dtab").unwrap().clone();
            let p = n.place_within(source, n.text().unwrap().find(needle).unwrap());
            assert_eq!((p.line, p.column), (line, column), "{source}");
            let end = n.place_within(source, n.text().unwrap().len());
            assert_eq!(
                end.offset,
                source.trim_end().trim_end_matches(['\'', '"', '}']).len(),
                "{source}"
            );
        }
    }

    #[test]
    fn what_is_no_document_says_why_and_where() {
        for (source, message, line, column) in [
            ("", "empty", 1, 1),
            ("# nothing\n", "empty", 1, 1),
            ("routers: [\n", "unclosed", 1, 10),
            ("a: 1\nb: 2\na: 3\n", "duplicate", 3, 1),
            ("a:\n  b: {c: 1, c: 2}\n", "duplicate", 2, 13),
            ("{\"a\": 1,}", "JSON", 1, 9),
            ("{a: 1}", "JSON", 1, 2),
            ("a: 1\n---\nb: 2\n", "", 2, 1),
        ] {
            let e = parse(source).unwrap_err();
            assert!(e.message.contains(message), "{source:?}: {}", e.message);
            assert!(
                !e.message.contains('\n') && !e.message.is_empty(),
                "{}",
                e.message
            );
            assert_eq!(
                (e.place.line, e.place.column),
                (line, column),
                "{source:?}: {}",
                e.message
            );
        }
    }

    #[test]
    fn anchors_and_merges_do_not_run_away() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        let started = std::time::Instant::now();
        assert!(parse(&bomb).is_err());
        assert!(started.elapsed().as_secs() < 5);
        let deep = "[".repeat(500);
        assert!(parse(&format!("a: {deep}")).is_err());
    }
}
