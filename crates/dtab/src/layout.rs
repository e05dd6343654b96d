//! A dtab as it is written: where each entry stands, with its comments, and the same text laid out anew.

use std::ops::Range;

use crate::parse::{is_label_char, is_number_char, is_white};
use crate::{Dentry, Dtab, ParseError};

/// A dtab with its places and comments.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    source: &'a str,
    entries: Vec<Placed>,
    /// Comments behind the last entry, each with its blank line in front of it or not.
    after: Vec<Remark>,
}

/// An entry and its place in the text.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What it says.
    pub dentry: Dentry,
    /// Its bytes, without white space around it and without its `;`.
    pub bytes: Range<usize>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    prefix: Range<usize>,
    dst: String,
    /// Comments on lines of their own above it, and those within it.
    above: Vec<Remark>,
    /// The comment behind it on its line.
    behind: Option<Range<usize>>,
    /// A blank line stands between the last comment above it and it, or the entry before it and it.
    apart: bool,
}

/// A comment on a line of its own.
#[derive(Clone, Debug)]
struct Remark {
    text: Range<usize>,
    /// A blank line stands before it.
    apart: bool,
}

/// What a text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Path,
    Number,
    Sign(char),
    Arrow,
    Comment,
}

struct Token {
    kind: Kind,
    bytes: Range<usize>,
    /// Line feeds between the token before and this one.
    feeds: usize,
}

impl Placed {
    /// The destination as [`Layout::formatted`] writes it, without comments.
    pub fn dst(&self) -> &str {
        &self.dst
    }
}

impl<'a> Layout<'a> {
    /// Reads a dtab as [`Dtab::read`] does, and notes where everything stands.
    pub fn read(source: &'a str) -> Result<Self, ParseError> {
        let dtab = Dtab::read(source)?;
        let mut layout = Self {
            source,
            entries: Vec::with_capacity(dtab.len()),
            after: Vec::new(),
        };
        let mut dentries = dtab.entries().iter();
        let mut open: Vec<Token> = Vec::new();
        let mut remarks: Vec<Remark> = Vec::new();
        let mut counted = Counted::default();
        for token in tokens(source) {
            match token.kind {
                Kind::Comment if open.is_empty() => match layout.entries.last_mut() {
                    Some(last)
                        if token.feeds == 0 && last.behind.is_none() && remarks.is_empty() =>
                    {
                        last.behind = Some(token.bytes);
                    }
                    _ => remarks.push(Remark {
                        text: token.bytes,
                        apart: token.feeds > 1,
                    }),
                },
                Kind::Sign(';') => {
                    if let Some(dentry) = dentries.next() {
                        let placed = placed(source, dentry, &mut open, &mut remarks, &mut counted);
                        layout.entries.push(placed);
                    }
                }
                _ => open.push(token),
            }
        }
        if let Some(dentry) = dentries.next() {
            // The last entry needs no `;`: a comment on its line is the one behind it.
            let mut tail: Vec<Token> = Vec::new();
            while open.last().is_some_and(|token| token.kind == Kind::Comment) {
                tail.extend(open.pop());
            }
            tail.reverse();
            let mut entry = placed(source, dentry, &mut open, &mut remarks, &mut counted);
            for token in tail {
                if token.feeds == 0 && entry.behind.is_none() && remarks.is_empty() {
                    entry.behind = Some(token.bytes);
                } else {
                    remarks.push(Remark {
                        text: token.bytes,
                        apart: token.feeds > 1,
                    });
                }
            }
            layout.entries.push(entry);
        }
        layout.after = remarks;
        Ok(layout)
    }

    /// All entries in order.
    pub fn entries(&self) -> &[Placed] {
        &self.entries
    }

    /// The table.
    pub fn dtab(&self) -> Dtab {
        self.entries
            .iter()
            .map(|placed| placed.dentry.clone())
            .collect()
    }

    /// The same dtab laid out: an entry a line, arrows below each other, comments and single blank lines where they were.
    /// Comments within an entry come to stand above it.
    pub fn formatted(&self) -> String {
        let mut out = String::with_capacity(self.source.len() + 64);
        let mut at = 0;
        while at < self.entries.len() {
            let end = self.paragraph(at);
            let width = |placed: &Placed| self.source[placed.prefix.clone()].chars().count();
            let widest = self.entries[at..end].iter().map(width).max();
            for placed in &self.entries[at..end] {
                for remark in &placed.above {
                    self.remark(remark, &mut out);
                }
                if placed.apart && !out.is_empty() {
                    out.push('\n');
                }
                let gap = widest.unwrap_or_default() - width(placed);
                out.push_str(&self.source[placed.prefix.clone()]);
                out.extend(std::iter::repeat_n(' ', gap));
                out.push_str(" => ");
                out.push_str(&placed.dst);
                out.push_str(" ;");
                if let Some(behind) = &placed.behind {
                    out.push_str("  ");
                    out.push_str(self.source[behind.clone()].trim_end());
                }
                out.push('\n');
            }
            at = end;
        }
        for remark in &self.after {
            self.remark(remark, &mut out);
        }
        out
    }

    /// The end of the entries that stand together from `at` on: up to a blank line or a comment of its own line.
    fn paragraph(&self, at: usize) -> usize {
        let rest = self.entries[at + 1..].iter();
        let together = rest.take_while(|placed| !placed.apart && placed.above.is_empty());
        at + 1 + together.count()
    }

    fn remark(&self, remark: &Remark, out: &mut String) {
        if remark.apart && !out.is_empty() {
            out.push('\n');
        }
        out.push_str(self.source[remark.text.clone()].trim_end());
        out.push('\n');
    }

    /// The text with another destination for one entry; everything else stays as it is.
    pub fn with_dst(&self, at: usize, dst: &str) -> String {
        let placed = &self.entries[at];
        let mut text = self.source[..placed.prefix.end].to_owned();
        text.push_str(" => ");
        text.push_str(dst);
        text.push_str(&self.source[placed.bytes.end..]);
        text
    }

    /// The text without one entry, its `;` and the comment behind it; comments above it stay.
    pub fn without(&self, at: usize) -> String {
        let placed = &self.entries[at];
        let from = placed.bytes.end;
        let closing = tokens(&self.source[from..]).find(|token| token.kind == Kind::Sign(';'));
        let mut end = closing.map_or(self.source.len(), |token| from + token.bytes.end);
        if let Some(behind) = &placed.behind {
            end = end.max(behind.end);
        }
        let mut start = placed.bytes.start;
        let alone = self.source[..start]
            .rsplit('\n')
            .next()
            .is_none_or(|line| line.trim().is_empty());
        let rest = &self.source[end..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
        if alone && rest[blank..].starts_with('\n') {
            end += blank + 1;
            start = self.source[..start].rfind('\n').map_or(0, |feed| feed + 1);
        }
        format!("{}{}", &self.source[..start], &self.source[end..])
    }

    /// The text with one more entry at its end.
    pub fn with_entry(&self, prefix: &str, dst: &str) -> String {
        let mut text = self.source.to_owned();
        if let Some(last) = self.entries.last() {
            let closed =
                tokens(&self.source[last.bytes.end..]).any(|token| token.kind == Kind::Sign(';'));
            if !closed {
                text.insert_str(last.bytes.end, " ;");
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{prefix} => {dst} ;\n"));
        text
    }
}

/// Lines and columns, counted on from place to place.
#[derive(Default)]
struct Counted {
    byte: usize,
    line: usize,
    start: usize,
}

impl Counted {
    fn place(&mut self, source: &str, byte: usize) -> (usize, usize) {
        for (at, _) in source[self.byte..byte].match_indices('\n') {
            self.line += 1;
            self.start = self.byte + at + 1;
        }
        self.byte = byte;
        (self.line + 1, source[self.start..byte].chars().count() + 1)
    }
}

/// The entry that these tokens are, all up to its `;`.
fn placed(
    source: &str,
    dentry: &Dentry,
    open: &mut Vec<Token>,
    remarks: &mut Vec<Remark>,
    counted: &mut Counted,
) -> Placed {
    let mut above = std::mem::take(remarks);
    let tokens = std::mem::take(open);
    let first_feeds = tokens.first().map_or(0, |token| token.feeds);
    let within = tokens.iter().filter(|token| token.kind == Kind::Comment);
    let apart = first_feeds > 1;
    above.extend(within.map(|token| Remark {
        text: token.bytes.clone(),
        apart: false,
    }));
    let mut parts = tokens.iter().filter(|token| token.kind != Kind::Comment);
    let prefix = parts.next().map_or(0..0, |token| token.bytes.clone());
    let mut dst = String::new();
    let mut end = prefix.end;
    for token in parts {
        end = token.bytes.end;
        let text = &source[token.bytes.clone()];
        match token.kind {
            Kind::Arrow | Kind::Comment => {}
            Kind::Sign(sign @ ('|' | '&' | '*')) => {
                dst.push(' ');
                dst.push(sign);
                dst.push(' ');
            }
            Kind::Path | Kind::Number | Kind::Sign(_) => dst.push_str(text),
        }
    }
    let (line, column) = counted.place(source, prefix.start);
    Placed {
        dentry: dentry.clone(),
        bytes: prefix.start..end,
        line,
        column,
        prefix,
        dst,
        above,
        behind: None,
        apart,
    }
}

/// The tokens of a text that the parser takes; of others, something that ends.
fn tokens(source: &str) -> impl Iterator<Item = Token> {
    let (mut at, mut feeds) = (0, 0);
    std::iter::from_fn(move || {
        loop {
            let c = source[at..].chars().next()?;
            if !is_white(c) {
                break;
            }
            feeds += usize::from(c == '\n');
            at += c.len_utf8();
        }
        let rest = &source[at..];
        let (kind, length) = token(rest);
        let token = Token {
            kind,
            bytes: at..at + length,
            feeds: std::mem::take(&mut feeds),
        };
        at += length;
        Some(token)
    })
}

/// The token that a text begins with, and its length.
fn token(rest: &str) -> (Kind, usize) {
    let run = |test: fn(char) -> bool| rest.find(|c| !test(c)).unwrap_or(rest.len());
    match rest.chars().next().unwrap_or('\n') {
        '#' => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
        '/' => (Kind::Path, path(rest)),
        '=' if rest.starts_with("=>") => (Kind::Arrow, 2),
        c if is_number_char(c) => (Kind::Number, run(is_number_char)),
        c => (Kind::Sign(c), c.len_utf8()),
    }
}

/// Slashes with segments behind them; a `*` is a whole segment.
fn path(rest: &str) -> usize {
    let mut at = 0;
    while rest[at..].starts_with('/') {
        at += 1;
        let segment = &rest[at..];
        at += match segment.starts_with('*') {
            true => 1,
            false => segment.find(|c| !is_label_char(c)).unwrap_or(segment.len()),
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_laid_out_and_keeps_its_comments() {
        let text = "\n\n# who is who\n/svc=>/host;/host/world   =>9*/srv/v1&1.50 *( /srv/v2|~ ) ; # canary\n\n\n\n# last\n/x/* # why\n => ! | /#/io.l5d.fs # and\n# end\n\n\n# really";
        let want = "# who is who\n/svc        => /host ;\n/host/world => 9 * /srv/v1 & 1.50 * (/srv/v2 | ~) ;  # canary\n\n# last\n# why\n/x/* => ! | /#/io.l5d.fs ;  # and\n# end\n\n# really\n";
        let got = Layout::read(text).unwrap().formatted();
        assert_eq!(got, want);
        assert_eq!(Layout::read(&got).unwrap().formatted(), want);
        assert_eq!(Dtab::read(&got).unwrap(), Dtab::read(text).unwrap());
    }

    #[test]
    fn entries_know_where_they_stand() {
        let text = "/svc => /a ;\n# ü\n  /ü => /b";
        assert!(Layout::read(text).is_err());
        let text = "/svc => /a ; /b => /c;\n# ü\n  /d => /e";
        let layout = Layout::read(text).unwrap();
        let places: Vec<_> = layout
            .entries()
            .iter()
            .map(|p| (p.line, p.column, &text[p.bytes.clone()]))
            .collect();
        assert_eq!(
            places,
            [
                (1, 1, "/svc => /a"),
                (1, 14, "/b => /c"),
                (3, 3, "/d => /e")
            ]
        );
    }

    #[test]
    fn one_entry_changes_and_the_rest_stays() {
        let text = "# top\n/a => /1 ;  # one\n/b => /2 # two";
        let layout = Layout::read(text).unwrap();
        assert_eq!(
            layout.with_dst(0, "/9"),
            "# top\n/a => /9 ;  # one\n/b => /2 # two"
        );
        assert_eq!(
            layout.with_entry("/c", "/3"),
            "# top\n/a => /1 ;  # one\n/b => /2 ; # two\n/c => /3 ;\n"
        );
        assert_eq!(layout.without(0), "# top\n/b => /2 # two");
        let second = layout.without(1);
        assert_eq!(Dtab::read(&second).unwrap().to_string(), "/a=>/1");
        let one_line = Layout::read("/a=>/1;/b=>/2;/c=>/3").unwrap();
        assert_eq!(
            Dtab::read(&one_line.without(1)).unwrap().to_string(),
            "/a=>/1;/c=>/3"
        );
        assert_eq!(
            Layout::read("").unwrap().with_entry("/a", "/b"),
            "/a => /b ;\n"
        );
    }
}
