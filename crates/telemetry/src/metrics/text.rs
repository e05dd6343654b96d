//! Pieces of the text formats that both Prometheus pages share.

use std::fmt::Write;

/// A label set as it stands between the braces, grown one label at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels(pub(super) String);

impl Labels {
    /// None, with room for a service and its client.
    pub(super) fn long() -> Self {
        Self(String::with_capacity(160))
    }

    /// The same with one label more.
    pub(super) fn with(&self, separator: &str, name: &str, value: &str) -> Self {
        // The quotes, the equals sign, and an escaped character perhaps.
        let room = self.0.len() + separator.len() + name.len() + value.len() + 4;
        let mut labels = Self(String::with_capacity(room));
        labels.0.push_str(&self.0);
        labels.push(separator, name, value);
        labels
    }

    /// Adds a label; `separator` stands before it if it is not the first.
    pub(super) fn push(&mut self, separator: &str, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push_str(separator);
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        escape(value, &mut self.0);
        self.0.push('"');
    }
}

/// Escapes a label value: backslash, quote, newline, and nothing else, as the format says.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// A number as both formats take it: whole numbers without a point, others with at most nine digits after it.
pub(super) fn number(value: f64, out: &mut String) {
    let _ = if value.is_nan() {
        write!(out, "NaN")
    } else if value.is_infinite() {
        write!(out, "{}Inf", if value > 0.0 { "+" } else { "-" })
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        write!(out, "{}", value as i64)
    } else {
        write!(out, "{}", (value * 1e9).round() / 1e9)
    };
}

/// One line: `name{labels} value`.
pub(super) fn line(name: &str, labels: &str, value: f64, out: &mut String) {
    out.push_str(name);
    if !labels.is_empty() {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
    out.push(' ');
    number(value, out);
    out.push('\n');
}
