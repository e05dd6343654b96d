//! The grammar, on nom. Finagle's parser looks one character ahead and never goes back, and error positions have to
//! be the same, so each function decides by the next character and what follows fails for good (`nom::Err::Failure`).

use nom::bytes::complete::{take_till, take_while, take_while1};
use nom::character::complete::{char, satisfy};
use nom::{IResult, Parser};

use crate::error::Expected;
use crate::{
    Dentry, Dtab, Elem, MAX_INPUT_BYTES, MAX_NESTING, MAX_PATH_SEGMENTS, NameTree, ParseError,
    Path, Prefix, Segment, Weighted,
};

/// What failed, and what was left to read there.
struct Fault<'a> {
    rest: &'a str,
    expected: Expected,
    /// The character that Finagle blames when it has already gone past it.
    blamed: Option<char>,
}

impl<'a> nom::error::ParseError<&'a str> for Fault<'a> {
    fn from_error_kind(rest: &'a str, _: nom::error::ErrorKind) -> Self {
        Self {
            rest,
            expected: Expected::End,
            blamed: None,
        }
    }

    fn append(_: &'a str, _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

type Parsed<'a, T> = IResult<&'a str, T, Fault<'a>>;

pub(crate) fn read_path(text: &str) -> Result<Path, ParseError> {
    read(text, path)
}

pub(crate) fn read_prefix(text: &str) -> Result<Prefix, ParseError> {
    read(text, prefix)
}

pub(crate) fn read_tree(text: &str) -> Result<NameTree<Path>, ParseError> {
    read(text, |input| tree(input, 0))
}

pub(crate) fn read_dentry(text: &str) -> Result<Dentry, ParseError> {
    read(text, dentry)
}

pub(crate) fn read_dtab(text: &str) -> Result<Dtab, ParseError> {
    read(text, dentries).map(Dtab::from)
}

/// Reads all of `text`: what the parser leaves may be white space only.
fn read<'a, T>(text: &'a str, parser: impl Fn(&'a str) -> Parsed<'a, T>) -> Result<T, ParseError> {
    if text.len() > MAX_INPUT_BYTES {
        let end = text.floor_char_boundary(MAX_INPUT_BYTES);
        return Err(ParseError::new(
            &text[..end],
            end,
            Expected::InputSize,
            None,
        ));
    }
    let whole = parser(text).and_then(|(rest, value)| {
        let (rest, ()) = white(rest)?;
        if rest.is_empty() {
            Ok(value)
        } else {
            fail(rest, Expected::End)
        }
    });
    whole.map_err(|error| match error {
        nom::Err::Error(fault) | nom::Err::Failure(fault) => {
            let found = fault.blamed.or_else(|| fault.rest.chars().next());
            ParseError::new(text, text.len() - fault.rest.len(), fault.expected, found)
        }
        nom::Err::Incomplete(_) => unreachable!("complete parsers never ask for more"),
    })
}

fn fail<T>(rest: &str, expected: Expected) -> Result<T, nom::Err<Fault<'_>>> {
    blame(rest, expected, None)
}

fn blame<T>(
    rest: &str,
    expected: Expected,
    blamed: Option<char>,
) -> Result<T, nom::Err<Fault<'_>>> {
    Err(nom::Err::Failure(Fault {
        rest,
        expected,
        blamed,
    }))
}

/// Takes this character, or fails for good.
fn eat(wanted: char, input: &str) -> Parsed<'_, char> {
    let taken: Parsed<'_, char> = char(wanted).parse(input);
    taken.or_else(|_| fail(input, Expected::Char(wanted)))
}

/// Takes this character when it is the next.
fn maybe(wanted: char, input: &str) -> Option<&str> {
    input.strip_prefix(wanted)
}

fn next_is(input: &str, test: impl Fn(char) -> bool) -> bool {
    input.chars().next().is_some_and(test)
}

/// White space and comments; a comment ends at LF, not at CR.
fn white(input: &str) -> Parsed<'_, ()> {
    let (mut input, _) = take_while(is_white).parse(input)?;
    while next_is(input, |c| c == '#') {
        (input, _) = take_till(|c| c == '\n').parse(input)?;
        (input, _) = take_while(is_white).parse(input)?;
    }
    Ok((input, ()))
}

fn dentries(input: &str) -> Parsed<'_, Vec<Dentry>> {
    let mut all = Vec::new();
    let (mut input, ()) = white(input)?;
    while !input.is_empty() {
        let (rest, one) = dentry(input)?;
        all.push(one);
        let (rest, ()) = white(rest)?;
        let Some(rest) = maybe(';', rest) else {
            return Ok((rest, all));
        };
        (input, ()) = white(rest)?;
    }
    Ok((input, all))
}

fn dentry(input: &str) -> Parsed<'_, Dentry> {
    let (input, prefix) = prefix(input)?;
    let (input, ()) = white(input)?;
    let (input, _) = eat('=', input)?;
    let (input, _) = eat('>', input)?;
    let (input, dst) = tree(input, 0)?;
    Ok((input, Dentry { prefix, dst }))
}

fn prefix(input: &str) -> Parsed<'_, Prefix> {
    let element = |input| match maybe('*', input) {
        Some(rest) => Ok((rest, Elem::Any)),
        None => label(input).map(|(rest, label)| (rest, Elem::Label(label))),
    };
    let (input, elems) = slashed(input, |c| c == '*' || is_label_char(c), element)?;
    Ok((input, Prefix::new(elems)))
}

fn path(input: &str) -> Parsed<'_, Path> {
    let (input, labels) = slashed(input, is_label_char, label)?;
    Ok((input, labels.into()))
}

/// A slash, and when the character behind it `starts` an element, elements with slashes between them.
fn slashed<'a, T>(
    input: &'a str,
    starts: impl Fn(char) -> bool,
    element: impl Fn(&'a str) -> Parsed<'a, T>,
) -> Parsed<'a, Vec<T>> {
    let mut all = Vec::new();
    let (input, ()) = white(input)?;
    let (mut input, _) = eat('/', input)?;
    if !next_is(input, starts) {
        return Ok((input, all));
    }
    loop {
        let (rest, one) = element(input)?;
        all.push(one);
        match maybe('/', rest) {
            None => return Ok((rest, all)),
            Some(_) if all.len() == MAX_PATH_SEGMENTS => return fail(rest, Expected::PathLength),
            Some(rest) => input = rest,
        }
    }
}

/// One segment: showable characters and escaped bytes.
fn label(input: &str) -> Parsed<'_, Segment> {
    let (mut input, mut bytes) = (input, Vec::new());
    loop {
        if let Some(rest) = maybe('\\', input) {
            let (rest, byte) = escape(rest)?;
            bytes.push(byte);
            input = rest;
        } else {
            let run: Parsed<'_, &str> = take_while1(is_showable).parse(input);
            let Ok((rest, run)) = run else {
                return match Segment::new(&bytes) {
                    Some(segment) => Ok((input, segment)),
                    None => fail(input, Expected::LabelChar),
                };
            };
            // The usual segment is one run, and needs no buffer.
            if bytes.is_empty()
                && !next_is(rest, |c| c == '\\')
                && let Some(segment) = Segment::new(run)
            {
                return Ok((rest, segment));
            }
            bytes.extend_from_slice(run.as_bytes());
            input = rest;
        }
    }
}

/// What stands behind a backslash: `x` and two digits.
fn escape(input: &str) -> Parsed<'_, u8> {
    let (input, _) = eat('x', input)?;
    let (input, high) = hex_digit(input)?;
    let (input, low) = hex_digit(input)?;
    Ok((input, high << 4 | low))
}

fn hex_digit(input: &str) -> Parsed<'_, u8> {
    let digit: Parsed<'_, char> = satisfy(|c| c.is_ascii_hexdigit()).parse(input);
    let Ok((rest, digit)) = digit else {
        return fail(input, Expected::HexChar);
    };
    let value = digit.to_digit(16).unwrap_or_default();
    Ok((rest, value as u8))
}

/// Alternatives: the operator that binds least. `depth` counts the parentheses around.
fn tree(input: &str, depth: usize) -> Parsed<'_, NameTree<Path>> {
    let (mut input, first) = union(input, depth)?;
    if maybe('|', input).is_none() {
        return Ok((input, first));
    }
    let mut all = vec![first];
    while let Some(rest) = maybe('|', input) {
        let (rest, next) = union(rest, depth)?;
        all.push(next);
        input = rest;
    }
    Ok((input, NameTree::Alt(all)))
}

/// Weighted branches, and white space behind them. A lone branch loses its weight, as in Finagle.
fn union(input: &str, depth: usize) -> Parsed<'_, NameTree<Path>> {
    let (input, first) = weighted(input, depth)?;
    let (mut input, ()) = white(input)?;
    if maybe('&', input).is_none() {
        return Ok((input, first.tree));
    }
    let mut all = vec![first];
    while let Some(rest) = maybe('&', input) {
        let (rest, next) = weighted(rest, depth)?;
        all.push(next);
        (input, ()) = white(rest)?;
    }
    Ok((input, NameTree::Union(all)))
}

fn weighted(input: &str, depth: usize) -> Parsed<'_, Weighted<Path>> {
    let (mut input, ()) = white(input)?;
    let mut weight = Weighted::<Path>::DEFAULT;
    if next_is(input, is_number_char) {
        (input, weight) = number(input)?;
        (input, ()) = white(input)?;
        (input, _) = eat('*', input)?;
        (input, ()) = white(input)?;
    }
    let (input, tree) = simple(input, depth)?;
    Ok((input, Weighted { weight, tree }))
}

fn number(input: &str) -> Parsed<'_, f64> {
    let (rest, text) = take_while1(is_number_char).parse(input)?;
    if let Some((second, _)) = text.match_indices('.').nth(1) {
        return fail(&input[second..], Expected::NumberChar);
    }
    if text == "." {
        return blame(rest, Expected::Weight, Some('.'));
    }
    match text.parse() {
        Ok(weight) => Ok((rest, weight)),
        Err(_) => fail(input, Expected::Number),
    }
}

fn simple(input: &str, depth: usize) -> Parsed<'_, NameTree<Path>> {
    let (input, ()) = white(input)?;
    match input.as_bytes().first() {
        Some(b'/') => path(input).map(|(rest, path)| (rest, NameTree::Leaf(path))),
        Some(b'(') if depth == MAX_NESTING => fail(input, Expected::Nesting),
        Some(b'(') => {
            let (input, tree) = tree(&input[1..], depth + 1)?;
            let (input, ()) = white(input)?;
            let (input, _) = eat(')', input)?;
            Ok((input, tree))
        }
        Some(b'!') => Ok((&input[1..], NameTree::Fail)),
        Some(b'~') => Ok((&input[1..], NameTree::Neg)),
        Some(b'$') => Ok((&input[1..], NameTree::Empty)),
        _ => fail(input, Expected::Simple),
    }
}

/// A character that stands for itself in a segment.
pub(crate) fn is_showable(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '#' | '$' | '%' | '-')
}

/// A character that begins or continues a segment.
pub(crate) fn is_label_char(c: char) -> bool {
    is_showable(c) || c == '\\'
}

/// As Java's `Character.isWhitespace`, which differs from Rust's.
pub(crate) fn is_white(c: char) -> bool {
    match c {
        '\t'..='\r' | '\u{1c}'..=' ' => true,
        '\u{a0}' | '\u{2007}' | '\u{202f}' => false,
        '\u{1680}'
        | '\u{2000}'..='\u{200a}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{205f}'
        | '\u{3000}' => true,
        _ => false,
    }
}

/// A dot or a digit of any script, as Java's `Character.isDigit`; those outside ASCII fail when they are converted.
pub(crate) fn is_number_char(c: char) -> bool {
    match c {
        '.' | '0'..='9' => true,
        '\0'..='\u{65f}' => false,
        c => ZEROS
            .iter()
            .any(|&zero| (zero..zero + 10).contains(&u32::from(c))),
    }
}

/// The zeros of the scripts with decimal digits, as far as one UTF-16 unit reaches: Java's parser reads these.
const ZEROS: [u32; 36] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66,
    0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}/a{}", "(/x & /y | ".repeat(depth), ")".repeat(depth))
    }

    #[test]
    fn deep_trees_are_read_simplified_and_printed_up_to_the_limit() {
        let tree = read_tree(&nested(MAX_NESTING)).unwrap();
        assert_eq!(tree.simplified(), tree);
        assert_eq!(tree.eval().unwrap().len(), 2);
        assert_eq!(read_tree(&tree.to_string()).unwrap(), tree);
        let error = read_tree(&nested(MAX_NESTING + 1)).unwrap_err();
        assert_eq!(error.expected, Expected::Nesting);
        assert_eq!(error.kind, crate::ParseErrorKind::Limit);
        assert!(read_tree(&"(".repeat(1_000_000)).is_err());
    }

    #[test]
    fn texts_beyond_the_limits_are_refused() {
        let long = "/a".repeat(MAX_PATH_SEGMENTS);
        assert_eq!(read_path(&long).unwrap().len(), MAX_PATH_SEGMENTS);
        let error = read_path(&format!("{long}/a")).unwrap_err();
        assert_eq!(
            (error.expected, error.byte),
            (Expected::PathLength, long.len())
        );
        let error = read_dtab(&"\u{20ac}".repeat(MAX_INPUT_BYTES / 3 + 1)).unwrap_err();
        assert_eq!(error.expected, Expected::InputSize);
        assert!(error.report("").starts_with("line 1"));
    }

    #[test]
    fn a_hash_in_a_path_is_no_comment() {
        let text = "/k8s => /#/io.l5d.k8s ; # and here is one\n/a => /#/b | /#c#d ;";
        let dtab = read_dtab(text).unwrap();
        assert_eq!(dtab.to_string(), "/k8s=>/#/io.l5d.k8s;/a=>/#/b | /#c#d");
    }

    #[test]
    fn white_space_is_java_s() {
        for white in [
            '\u{b}', '\u{1c}', '\u{1f}', '\u{2003}', '\u{2028}', '\u{3000}',
        ] {
            assert!(is_white(white));
        }
        for other in [
            '\u{85}', '\u{a0}', '\u{2007}', '\u{202f}', '\u{feff}', '\u{180e}',
        ] {
            assert!(!is_white(other));
        }
    }
}
