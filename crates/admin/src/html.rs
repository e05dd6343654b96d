//! The frame of every page, and the small words that templates use.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Who this process is; shown on every page, so that nobody reads the wrong node's numbers.
#[derive(Debug, Clone, Default)]
pub struct Instance {
    /// `rutter`, or the store's name.
    pub program: String,
    /// Version of the program.
    pub version: String,
    /// The node's name; empty when unknown.
    pub node: String,
    /// The pod's name or address; empty when unknown.
    pub pod: String,
}

#[derive(Debug, Clone)]
pub(crate) struct NavItem {
    pub(crate) path: String,
    pub(crate) title: String,
}

/// What every page's frame shows.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) instance: Instance,
    pub(crate) nav: Vec<NavItem>,
}

/// A page's inner part in the frame.
#[derive(Template)]
#[template(path = "frame.html")]
struct Frame<'a> {
    site: &'a Site,
    path: &'a str,
    title: &'a str,
    script: Option<&'a str>,
    main: &'a str,
}

/// A page: its `main` alone when the page's own script asks for news (`?fragment`), else in the frame.
pub(crate) fn page(
    site: &Site,
    (path, title): (&str, &str),
    script: Option<&str>,
    fragment: bool,
    main: &impl Template,
) -> Response {
    let main = match main.render() {
        Ok(main) => main,
        Err(error) => return broken(&error),
    };
    if fragment {
        return html(main);
    }
    let frame = Frame {
        site,
        path,
        title,
        script,
        main: &main,
    };
    frame.render().map_or_else(|error| broken(&error), html)
}

fn html(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/html;charset=UTF-8")], text).into_response()
}

fn broken(error: &askama::Error) -> Response {
    tracing::error!(%error, "page not rendered");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// A whole number with thin groups: `12 345`. The blank is one that does not break.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `1 d 3 h`, `5 min 2 s`: the two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let at = UNITS
        .iter()
        .position(|(size, _)| seconds >= *size)
        .unwrap_or(3);
    let (size, name) = UNITS[at];
    let first = format!("{} {name}", seconds / size);
    match UNITS.get(at + 1) {
        Some((small, name)) if seconds % size >= *small => {
            format!("{first} {} {name}", seconds % size / small)
        }
        _ => first,
    }
}

/// Milliseconds as `0.4 ms`, `12 ms`, `1.3 s`.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        _ if ms >= 1_000.0 => format!("{:.1} s", ms / 1_000.0),
        _ if ms >= 10.0 => format!("{ms:.0} ms"),
        _ => format!("{ms:.1} ms"),
    }
}

/// Text for HTML's text and attributes, for the few places that no template makes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(302), "5 min 2 s");
        assert_eq!(duration(90_000), "1 d 1 h");
        assert_eq!(millis(0.42), "0.4 ms");
        assert_eq!(millis(12.3), "12 ms");
        assert_eq!(millis(1_300.0), "1.3 s");
    }
}
