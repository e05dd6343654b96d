//! The pages: the last traces, and one trace as a waterfall. Plain HTML; bars are SVG, so that no inline style is needed.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::super::Spans;

/// The last traces, newest first.
pub(super) fn traces(spans: &Spans) -> String {
    let traces = spans.traces(|_| true, 50);
    let mut main = format!(
        "<h1>Traces</h1><p>{} spans are kept, the last of them in these traces.</p>",
        spans.len()
    );
    if traces.is_empty() {
        main.push_str("<p class=\"empty\">No span has come yet. Routers send theirs to scribe on 9410 or to POST /api/v2/spans.</p>");
        return frame("Traces", &main);
    }
    main.push_str("<table><thead><tr><th>Trace</th><th>First span</th><th class=\"n\">Spans</th><th class=\"n\">Took</th><th>Services</th></tr></thead><tbody>");
    for trace in &traces {
        let Some(first) = trace.first() else { continue };
        let id = escape(text(&first["traceId"]));
        let mut services: Vec<&str> = trace.iter().map(service).collect();
        services.dedup();
        let failed = trace.iter().any(|span| !span["tags"]["error"].is_null());
        let sign = if failed {
            "<span class=\"bad\">✗ </span>"
        } else {
            ""
        };
        let (from, to) = bounds(trace);
        _ = write!(
            main,
            "<tr><td>{sign}<a href=\"/traces/{id}\"><code>{id}</code></a></td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(text(&first["name"])),
            trace.len(),
            took(to - from),
            escape(&services.join(" → ")),
        );
    }
    main.push_str("</tbody></table>");
    frame("Traces", &main)
}

/// One trace.
pub(super) fn trace(spans: &Spans, id: &str) -> String {
    let trace = spans.trace(id);
    let mut main = format!(
        "<p><a href=\"/\">All traces</a></p><h1>Trace <code>{}</code></h1>",
        escape(id)
    );
    if trace.is_empty() {
        main.push_str("<p class=\"empty\">This trace is not kept: it never came, or newer spans took its place.</p>");
        return frame("Trace", &main);
    }
    let (from, to) = bounds(&trace);
    _ = write!(
        main,
        "<p>{} spans in {}. <a href=\"/api/v2/trace/{}\">As JSON</a></p>",
        trace.len(),
        took(to - from),
        escape(id)
    );
    main.push_str("<table class=\"fall\"><thead><tr><th>Service and span</th><th class=\"n\">Took</th><th class=\"bar\">When</th></tr></thead><tbody>");
    for (depth, span) in in_order(&trace) {
        row(&mut main, depth, span, from, (to - from).max(1));
    }
    main.push_str("</tbody></table>");
    frame("Trace", &main)
}

fn row(main: &mut String, depth: usize, span: &Value, from: u64, whole: u64) {
    let begun = span["timestamp"]
        .as_u64()
        .unwrap_or(from)
        .saturating_sub(from);
    let lasted = span["duration"].as_u64().unwrap_or(0);
    let percent = |part: u64| part as f64 * 100.0 / whole as f64;
    let kind = text(&span["kind"]).to_lowercase();
    let class = if span["tags"]["error"].is_null() {
        kind.as_str()
    } else {
        "error"
    };
    let branch = if depth == 0 {
        String::new()
    } else {
        format!("{}└ ", "\u{2003}".repeat(depth - 1))
    };
    let mut tags = String::new();
    for (key, value) in span["tags"].as_object().into_iter().flatten() {
        _ = write!(
            tags,
            "<dt>{}</dt><dd>{}</dd>",
            escape(key),
            escape(text(value))
        );
    }
    _ = write!(
        main,
        "<tr><td><details><summary>{branch}<b>{}</b> {} <small>{kind}</small></summary><dl>{tags}</dl></details></td><td class=\"n\">{}</td>\
         <td class=\"bar\"><svg role=\"img\" aria-label=\"begins after {}, takes {}\" width=\"100%\" height=\"16\">\
         <rect class=\"{class}\" x=\"{:.2}%\" y=\"2\" width=\"{:.2}%\" height=\"12\" rx=\"2\"/></svg></td></tr>",
        escape(service(span)),
        escape(text(&span["name"])),
        took(lasted),
        took(begun),
        took(lasted),
        percent(begun),
        percent(lasted).max(0.3),
    );
}

/// Parents before children, with their depth.
fn in_order(trace: &[Value]) -> Vec<(usize, &Value)> {
    let ids: HashMap<&str, usize> = trace
        .iter()
        .enumerate()
        .map(|(at, span)| (text(&span["id"]), at))
        .collect();
    let parent = |at: usize| {
        let parent = ids.get(text(&trace[at]["parentId"])).copied();
        parent.filter(|parent| *parent != at)
    };
    let mut out = Vec::new();
    let mut open: Vec<(usize, usize)> = (0..trace.len())
        .rev()
        .filter(|at| parent(*at).is_none())
        .map(|at| (0, at))
        .collect();
    while let Some((depth, at)) = open.pop() {
        out.push((depth, &trace[at]));
        // Each span has one parent, so that nothing is reached twice.
        open.extend(
            (0..trace.len())
                .rev()
                .filter(|child| parent(*child) == Some(at))
                .map(|child| (depth + 1, child)),
        );
    }
    out
}

fn bounds(trace: &[Value]) -> (u64, u64) {
    let begins = |span: &Value| span["timestamp"].as_u64().unwrap_or(0);
    let ends = |span: &Value| begins(span) + span["duration"].as_u64().unwrap_or(0);
    let from = trace.iter().map(begins).min().unwrap_or(0);
    (from, trace.iter().map(ends).max().unwrap_or(from))
}

fn took(us: u64) -> String {
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

fn service(span: &Value) -> &str {
    text(&span["localEndpoint"]["serviceName"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escape(text: &str) -> String {
    let pairs = [
        ('&', "&amp;"),
        ('<', "&lt;"),
        ('>', "&gt;"),
        ('"', "&quot;"),
    ];
    pairs
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(*from, to))
}

fn frame(title: &str, main: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} · rutter demo</title><link rel=\"stylesheet\" href=\"/style.css\"></head><body><main>{main}</main></body></html>"
    )
}
