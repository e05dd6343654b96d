//! Patterns of paths with captures: `io.l5d.rewrite`, and which names a part of the configuration is for.

use dtab::{Path, Segment};
use regex::Regex;

/// A pattern such as `/{service}/api` or `/#/io.l5d.k8s/*/http/{svc}`, matched segment by segment against the
/// beginning of a path, in Linkerd 1's language.
///
/// `*` stands for any one segment, `{name}` for text that is kept: as much as possible, several in one segment
/// where other text stands between them. In a segment with captures the other text is a regular expression (a dot
/// is a dot) and is found anywhere in the segment, so `{a}.com` matches `x.company`; one without is compared as it
/// is. All of this is about the *printed* segments. Cases in `tests/vectors/rewrite.jsonl`.
#[derive(Clone, Debug)]
pub struct PathMatcher {
    expr: Box<str>,
    segments: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Any,
    Literal(Box<str>),
    Captures { names: Vec<Box<str>>, regex: Regex },
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the segment `{segment}` of the pattern {pattern} is no regular expression between its captures: {reason}"
)]
pub struct PatternError {
    /// The whole pattern.
    pub pattern: String,
    /// The part that is wrong.
    pub segment: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The path ends where the pattern has a `*`: Linkerd's matcher dies of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path ends before a `*` of the pattern")]
pub struct TooShort;

/// What the captures of a [`PathMatcher`] matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<(Box<str>, String)>);

impl PathMatcher {
    /// Reads a pattern. Slashes at its start and end don't count; the empty one matches every path.
    pub fn new(expr: &str) -> Result<Self, PatternError> {
        let texts = expr
            .trim_end_matches('/')
            .split('/')
            .skip_while(|text| text.is_empty());
        let segments = texts
            .map(|text| piece(expr, text))
            .collect::<Result<_, _>>()?;
        let expr = expr.into();
        Ok(Self { expr, segments })
    }

    /// Whether the path begins as the pattern says.
    pub fn matches(&self, path: &Path) -> bool {
        matches!(self.extract(path), Ok(Some(_)))
    }

    /// What the captures are in this path; none when it does not match.
    pub fn extract(&self, path: &Path) -> Result<Option<Captures>, TooShort> {
        let mut captures = Captures::default();
        let mut given = path.segments().iter();
        for piece in &self.segments {
            let fits = match (piece, given.next()) {
                (Piece::Any, given) => given.map(|_| true).ok_or(TooShort)?,
                (_, None) => false,
                (Piece::Literal(text), Some(given)) => is_printed_as(given, text),
                (Piece::Captures { names, regex }, Some(given)) => {
                    captures.take(names, regex, given)
                }
            };
            if !fits {
                return Ok(None);
            }
        }
        Ok(Some(captures))
    }
}

impl std::fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.expr)
    }
}

impl PartialEq for PathMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

impl Eq for PathMatcher {}

impl Captures {
    /// The text that `{name}` stands for; of several captures of one name the last.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(own, _)| **own == *name);
        found.map(|(_, text)| text.as_str())
    }

    /// `template` with the captures in the place of their names; unknown names stay as they are.
    pub fn fill(&self, template: &str) -> String {
        let last_first = self.0.iter().rev();
        last_first.fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    }

    fn take(&mut self, names: &[Box<str>], regex: &Regex, given: &Segment) -> bool {
        let shown = given.to_string();
        let Some(found) = regex.captures(&shown) else {
            return false;
        };
        for (i, name) in names.iter().enumerate() {
            let text = found.get(i + 1).map_or("", |group| group.as_str());
            self.0.push((name.clone(), text.to_owned()));
        }
        true
    }
}

fn is_printed_as(segment: &Segment, text: &str) -> bool {
    let shown = segment.to_string();
    shown == text
}

fn piece(pattern: &str, text: &str) -> Result<Piece, PatternError> {
    if text == "*" {
        return Ok(Piece::Any);
    }
    let mut names = Vec::new();
    let mut regex = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = next_capture(rest) {
        regex.push_str(&before.replace('.', "\\."));
        regex.push_str("(.*)");
        names.push(name.into());
        rest = after;
    }
    if names.is_empty() {
        return Ok(Piece::Literal(text.into()));
    }
    regex.push_str(&rest.replace('.', "\\."));
    let regex = Regex::new(&regex).map_err(|error| PatternError {
        pattern: pattern.to_owned(),
        segment: text.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(Piece::Captures { names, regex })
}

/// The text before the first capture, its name, and what is behind it.
fn next_capture(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(open, _)| {
        let (name, after) = text[open + 1..].split_once('}')?;
        let valid = !name.is_empty() && name.chars().all(is_name_char);
        valid.then(|| (&text[..open], name, after))
    })
}

/// Linkerd's `[A-Za-z0-9.:-_]`, in which `:-_` is a range of its own: `-` is not in it.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.' || (':'..='_').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extract(pattern: &str, path: &str) -> Option<Captures> {
        let path = path.parse().unwrap();
        PathMatcher::new(pattern).unwrap().extract(&path).unwrap()
    }

    #[test]
    fn captures_are_as_long_as_they_can_be() {
        let captures = extract("/#/k8s/*/{a}-{b}.svc", "/#/k8s/x/one-two-three.svc/rest").unwrap();
        assert_eq!(captures.get("a"), Some("one-two"));
        assert_eq!(captures.get("b"), Some("three"));
        assert_eq!(captures.get("c"), None);
        assert_eq!(captures.fill("/{b}/{a}/{c}"), "/three/one-two/{c}");
    }

    #[test]
    fn captures_may_have_an_underscore() {
        let captures = extract("/#/{service_name}/{_}", "/#/web_one/two").unwrap();
        assert_eq!(captures.fill("/{service_name}_x/{_}"), "/web_one_x/two");
    }

    #[test]
    fn a_pattern_without_segments_matches_all() {
        for pattern in ["", "/", "//"] {
            assert!(extract(pattern, "/any/thing").is_some());
            assert!(extract(pattern, "/").is_some());
        }
    }

    #[test]
    fn a_star_behind_the_end_is_no_match_and_no_panic() {
        let matcher = PathMatcher::new("/a/*").unwrap();
        assert_eq!(matcher.extract(&"/a".parse().unwrap()), Err(TooShort));
        assert!(!matcher.matches(&"/a".parse().unwrap()));
        assert!(matcher.matches(&"/a/b".parse().unwrap()));
    }

    #[test]
    fn a_pattern_that_is_no_regular_expression_is_refused() {
        let error = PathMatcher::new("/a/({x}").unwrap_err();
        assert_eq!(error.segment, "({x}");
    }
}
