//! Where a text is wrong: in Finagle's words, and for people.

use std::fmt;

use crate::parse::{is_label_char, is_number_char, is_showable, is_white};
use crate::{MAX_INPUT_BYTES, MAX_NESTING, MAX_PATH_SEGMENTS};

/// Why a text is not a path, a name tree or a dtab. The parser stops at the first error.
///
/// `Display` is the message of Finagle's parser, which namerd's and Linkerd's clients know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct ParseError {
    /// What sort of error it is.
    pub kind: ParseErrorKind,
    /// Where it is, in UTF-16 code units from the start, as Java counts; the text's length when it ends too early.
    pub position: usize,
    /// Where it is, in bytes of UTF-8 from the start.
    pub byte: usize,
    /// What would have been right there.
    pub expected: Expected,
    /// What stands there; none at the end of the text.
    pub found: Option<char>,
    /// The whole text, for Finagle's message.
    text: Box<str>,
}

/// The sorts of [`ParseError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseErrorKind {
    /// A character that can't stand there.
    Syntax,
    /// A weight that passes for a number and is none (digits outside ASCII).
    Number,
    /// More than one of this crate's limits allows; Finagle has none.
    Limit,
}

/// What a parser wanted to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// This very character.
    Char(char),
    /// Nothing more.
    End,
    /// A character of a segment.
    LabelChar,
    /// A hexadecimal digit.
    HexChar,
    /// A path, `~`, `!`, `$` or `(`.
    Simple,
    /// A digit in a weight that is a lone dot.
    Weight,
    /// A digit where a weight has its second dot.
    NumberChar,
    /// A weight of ASCII digits.
    Number,
    /// No deeper parentheses.
    Nesting,
    /// No longer text.
    InputSize,
    /// No more segments.
    PathLength,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Char(c) => write!(f, "'{c}'"),
            Self::End => f.write_str("end of input"),
            Self::LabelChar => f.write_str("label char"),
            Self::HexChar => f.write_str("hex char"),
            Self::Simple => f.write_str("simple"),
            Self::Weight | Self::Number => f.write_str("weight"),
            Self::NumberChar => f.write_str("number char"),
            Self::Nesting => write!(f, "at most {MAX_NESTING} nested parentheses"),
            Self::InputSize => write!(f, "at most {MAX_INPUT_BYTES} bytes"),
            Self::PathLength => write!(f, "at most {MAX_PATH_SEGMENTS} segments"),
        }
    }
}

impl Expected {
    fn kind(self) -> ParseErrorKind {
        match self {
            Self::Number => ParseErrorKind::Number,
            Self::Nesting | Self::InputSize | Self::PathLength => ParseErrorKind::Limit,
            _ => ParseErrorKind::Syntax,
        }
    }

    fn for_people(self) -> String {
        match self {
            Self::Char('/') => "a path, beginning with `/`".to_owned(),
            Self::Char('=' | '>') => "`=>`".to_owned(),
            Self::Char('x') => "`x` and two hexadecimal digits".to_owned(),
            Self::Char('*') => "`*` after a weight".to_owned(),
            Self::Char(c) => format!("`{c}`"),
            Self::End => "`;` or the end".to_owned(),
            Self::LabelChar => "a segment".to_owned(),
            Self::HexChar => "a hexadecimal digit".to_owned(),
            Self::Simple => "a path, `~`, `!`, `$` or `(`".to_owned(),
            Self::Weight | Self::NumberChar => "a digit".to_owned(),
            Self::Number => "a weight of the digits 0 to 9".to_owned(),
            limit => limit.to_string(),
        }
    }
}

impl ParseError {
    /// An error at a byte of `source`; `found` is what Finagle names, at times not what stands there.
    pub(crate) fn new(source: &str, byte: usize, expected: Expected, found: Option<char>) -> Self {
        Self {
            kind: expected.kind(),
            position: source[..byte].encode_utf16().count(),
            byte,
            expected,
            found,
            text: source.into(),
        }
    }

    fn message(&self) -> String {
        match self.kind {
            ParseErrorKind::Number => {
                let rest = &self.text[self.byte..];
                let end = rest.find(|c| !is_number_char(c)).unwrap_or(rest.len());
                format!("For input string: \"{}\"", &rest[..end])
            }
            // The context would be as long as what is too long.
            ParseErrorKind::Limit => format!("{} expected at {}", self.expected, self.position),
            ParseErrorKind::Syntax => self.syntax_message(),
        }
    }

    fn syntax_message(&self) -> String {
        let found = match self.found {
            // Finagle's parser uses this character as its mark for the end.
            None | Some('\u{ffff}') => "end of input".to_owned(),
            Some(c) => format!("'{c}'"),
        };
        let (before, at) = self.text.split_at(self.byte);
        let mut after = at.chars();
        let bracket = after.next().map(String::from).unwrap_or_default();
        let (expected, after) = (self.expected, after.as_str());
        format!("{expected} expected but {found} found at '{before}[{bracket}]{after}'")
    }

    /// Line and column of the error in the text that was read, both counted from 1, columns in characters.
    pub fn line_column(&self, source: &str) -> (usize, usize) {
        let before = before(source, self.byte);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// What was expected and what was found, in one line.
    pub fn summary(&self) -> String {
        let expected = self.expected.for_people();
        match self.found {
            _ if self.kind == ParseErrorKind::Limit => format!("too much: expected {expected}"),
            None => format!("expected {expected}, found the end"),
            Some(c) if c != ' ' && (is_white(c) || c.is_control()) => {
                format!("expected {expected}, found U+{:04X}", u32::from(c))
            }
            Some(' ') => format!("expected {expected}, found a blank"),
            Some(c) => format!("expected {expected}, found `{c}`"),
        }
    }

    /// The error for people: line and column, what was expected and found, the line with a caret under the spot, and
    /// where there is one a hint. `source` is the text that was read.
    pub fn report(&self, source: &str) -> String {
        let (line, column) = self.line_column(source);
        let (text, caret) = excerpt(source, self.byte);
        let mut report = format!(
            "line {line}, column {column}: {}\n  {text}\n  {caret}^",
            self.summary()
        );
        if let Some(hint) = self.hint(source) {
            report.push_str("\nhint: ");
            report.push_str(&hint);
        }
        report
    }

    /// What most likely went wrong, where that can be told.
    pub fn hint(&self, source: &str) -> Option<String> {
        if self.kind != ParseErrorKind::Syntax {
            return None;
        }
        let before = before(source, self.byte);
        let last = before.chars().next_back();
        let word = |text: &str| Some(text.to_owned());
        match (self.expected, self.found) {
            (Expected::Char('x'), Some('X')) => word("an escape has a small `x`: `\\x2f`"),
            (Expected::Char('x') | Expected::HexChar, _) => {
                word("an escape is `\\x` and two hexadecimal digits")
            }
            (Expected::Char('/'), Some(';')) => {
                word("there is one `;` between two entries, and none at the start")
            }
            (Expected::Char('/') | Expected::Simple, Some(c))
                if is_label_char(c) && !is_number_char(c) =>
            {
                word("a path begins with `/`")
            }
            (Expected::Simple, Some('*')) => {
                word("a weight stands before `*`: `0.5 * /a`; a path has no wildcards")
            }
            (Expected::Simple, Some(c)) if is_number_char(c) => {
                word("a weight stands once, before `*`; a path begins with `/`")
            }
            (Expected::Simple, None | Some(';' | '|' | '&' | ')')) => {
                word("something is missing behind this operator")
            }
            (Expected::LabelChar, Some('/')) => word("a segment is never empty: one `/` is enough"),
            (Expected::LabelChar, Some('*')) => {
                word("`*` stands for a segment in a prefix only, left of `=>`")
            }
            (Expected::LabelChar, Some(c)) if !c.is_ascii() => Some(escape_hint(c)),
            (Expected::LabelChar, _) => word("a path does not end in `/`"),
            (Expected::Char('='), Some('*')) if last.is_some_and(is_showable) => {
                word("`*` stands for a whole segment, never for a part of one")
            }
            (Expected::Char('>'), _) => word("the arrow is `=>`, in one piece"),
            (Expected::Char('*'), _) => word("a number is the weight of what follows: `0.5 * /a`"),
            (Expected::Char(')'), None) => word("a `(` is not closed"),
            (Expected::End, Some('/')) if last == Some('/') => {
                word("a segment is never empty: one `/` is enough")
            }
            (Expected::End, Some('/')) => {
                word("between two entries stands a `;`, also when each has its line")
            }
            (Expected::End, Some('*')) => {
                word("`*` stands for a segment in a prefix only, left of `=>`")
            }
            (Expected::End, Some(')')) => word("this `)` has no `(`"),
            (Expected::End, Some(',')) => word("entries are separated by `;`, alternatives by `|`"),
            (_, Some(c)) if !c.is_ascii() && !c.is_whitespace() => Some(escape_hint(c)),
            (Expected::Char('='), _) => word("an entry is `/prefix => destination`"),
            _ => None,
        }
    }
}

fn escape_hint(c: char) -> String {
    let escaped: String = c
        .encode_utf8(&mut [0; 4])
        .bytes()
        .map(|b| format!("\\x{b:02x}"))
        .collect();
    format!("other characters are written as the bytes of their UTF-8: {escaped}")
}

/// The text before a byte; of another text than the one that was read, as much as there is.
fn before(source: &str, byte: usize) -> &str {
    source.get(..byte).unwrap_or(source)
}

/// How much of a line is shown on either side of the error.
const SHOWN: usize = 60;

/// The line around a byte, cut when it is long, and blanks up to the column of the byte.
fn excerpt(source: &str, byte: usize) -> (String, String) {
    let before = before(source, byte);
    let left = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
    let right = source[before.len()..]
        .split('\n')
        .next()
        .unwrap_or_default();
    let columns = left.chars().count();
    let cut = columns.saturating_sub(SHOWN);
    let mut text = String::new();
    if cut > 0 {
        text.push('…');
    }
    text.extend(left.chars().skip(cut).map(printable));
    let caret = " ".repeat(text.chars().count());
    text.extend(right.chars().take(SHOWN).map(printable));
    if right.chars().nth(SHOWN).is_some() {
        text.push('…');
    }
    (text.trim_end().to_owned(), caret)
}

/// Control characters must neither move the caret nor reach a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use crate::Dtab;

    fn report(text: &str) -> String {
        Dtab::read(text).unwrap_err().report(text)
    }

    #[test]
    fn a_report_shows_the_spot() {
        assert_eq!(
            report("# mine\n/svc => /host | ;\n"),
            "line 2, column 17: expected a path, `~`, `!`, `$` or `(`, found `;`\n  \
             /svc => /host | ;\n                  ^\nhint: something is missing behind this operator"
        );
    }

    #[test]
    fn common_mistakes_get_a_hint() {
        for (text, hint) in [
            ("/a => /b\n/c => /d", "stands a `;`"),
            ("/a => /b;; /c => /d", "one `;`"),
            ("/a => /b/*", "in a prefix only"),
            ("/a => /*", "in a prefix only"),
            ("/web* => /b", "whole segment"),
            ("/a => b", "begins with `/`"),
            ("a => /b", "begins with `/`"),
            ("/a => /\\X61", "small `x`"),
            ("/a => /\\x6", "two hexadecimal digits"),
            ("/a => /b/", "does not end in `/`"),
            ("/a => /b//c", "never empty"),
            ("/a => //c", "never empty"),
            ("/a -> /b", "/prefix => destination"),
            ("/a = > /b", "in one piece"),
            ("/a => /caf\u{e9}", "\\xc3\\xa9"),
            ("/a => (/b | /c", "not closed"),
            ("/a => /b)", "has no `(`"),
            ("/a => 3 /b & /c", "weight of what follows"),
        ] {
            let report = report(text);
            assert!(
                report.contains("\nhint: ") && report.contains(hint),
                "{text}\n{report}"
            );
        }
    }

    #[test]
    fn a_report_of_a_long_line_is_short() {
        let text = format!("/svc => {}/\u{7}", "/a/b".repeat(900));
        let report = report(&text);
        assert!(report.contains('…') && report.len() < 400, "{report}");
        assert!(!report.contains('\u{7}'));
    }

    #[test]
    fn an_error_is_as_finagle_words_it() {
        let error = Dtab::read("/a => /\u{1f600}").unwrap_err();
        assert_eq!((error.position, error.byte), (7, 7));
        let error = Dtab::read("# \u{1f600}\n/a").unwrap_err();
        assert_eq!((error.position, error.byte), (7, 9));
        assert_eq!(
            error.to_string(),
            "'=' expected but end of input found at '# \u{1f600}\n/a[]'"
        );
    }
}
