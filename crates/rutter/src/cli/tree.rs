//! A delegation as a tree for people. It comes as Linkerd's delegate JSON: from `/delegator.json`, or from a dtab alone ([`super::offline`]).

use serde_json::Value;

use super::{Sign, Style};

/// How Linkerd's delegate API words it.
const CIRCLE: &str = "Max recursion level reached.";

/// The tree, drawn.
pub(super) fn draw(tree: &Value, style: Style) -> String {
    let mut lines = vec![text(tree, "path").to_owned()];
    children(tree, "", style, &mut lines, true);
    lines.join("\n")
}

fn children(node: &Value, indent: &str, style: Style, lines: &mut Vec<String>, root: bool) {
    let below: Vec<(Option<f64>, &Value)> = match text(node, "type") {
        "delegate" => node
            .get("delegate")
            .into_iter()
            .map(|n| (None, n))
            .collect(),
        "transformation" => node.get("tree").into_iter().map(|n| (None, n)).collect(),
        "alt" => list(node, "alt").map(|n| (None, n)).collect(),
        "union" => {
            let total: f64 = list(node, "union")
                .filter_map(|w| w["weight"].as_f64())
                .sum();
            list(node, "union")
                .map(|w| {
                    (
                        w["weight"]
                            .as_f64()
                            .map(|x| if total > 0.0 { 100.0 * x / total } else { 0.0 }),
                        &w["tree"],
                    )
                })
                .collect()
        }
        _ => Vec::new(),
    };
    if below.is_empty() && root {
        lines.push(format!("  {}", end(node, style)));
    }
    for (i, (share, child)) in below.iter().enumerate() {
        let last = i + 1 == below.len();
        let (branch, bar) = match (style.unicode, last) {
            (true, true) => ("└─ ", "   "),
            (true, false) => ("├─ ", "│  "),
            (false, true) => ("`- ", "   "),
            (false, false) => ("|- ", "|  "),
        };
        let share = share.map(|s| format!("{s:.0} %  ")).unwrap_or_default();
        lines.push(format!(
            "{indent}{branch}{share}{}",
            label(child, node, style)
        ));
        children(child, &format!("{indent}{bar}"), style, lines, false);
    }
}

/// The entry that leads here (once for all the branches of its own tree), the path there, and what it is when it goes no further.
fn label(node: &Value, parent: &Value, style: Style) -> String {
    let same = node.get("dentry").is_some() && node.get("dentry") == parent.get("dentry");
    let rule = match node.get("dentry").filter(|_| !same) {
        Some(d) => format!("{} => {}   ", text(d, "prefix"), text(d, "dst")),
        None => String::new(),
    };
    let path = text(node, "path");
    match text(node, "type") {
        "alt" if same => "in this order".into(),
        "union" if same => "by weight".into(),
        "neg" if same && path == text(parent, "path") => format!("{} ~", style.sign(Sign::Fail)),
        "fail" if same && path == text(parent, "path") => format!("{} !", style.sign(Sign::Fail)),
        "delegate" | "alt" | "union" => format!("{rule}{path}"),
        "transformation" => format!("{rule}{path}   by {}", text(node, "name")),
        _ => format!("{rule}{}", end(node, style)),
    }
}

/// A branch's end.
fn end(node: &Value, style: Style) -> String {
    let path = text(node, "path");
    let (sign, what) = match text(node, "type") {
        "leaf" => bound(node),
        "unasked" => (
            Sign::Ok,
            "(nobody asked: this is what the dtab alone says)".to_owned(),
        ),
        "neg" if path.starts_with("/#/") => (Sign::Fail, "the namer knows no such name".to_owned()),
        "neg" if path == "~" => (
            Sign::Fail,
            "the rule ends here: the next one is tried".to_owned(),
        ),
        "neg" => (Sign::Fail, "no entry takes it further".to_owned()),
        "fail" => (Sign::Fail, "fail (!): ends the search".to_owned()),
        "empty" => (Sign::Fail, "bound to nothing ($)".to_owned()),
        "exception" if text(node, "message") == CIRCLE => (
            Sign::Fail,
            "the names go in a circle, or further than 100 steps (RT-E116)".to_owned(),
        ),
        "exception" => (Sign::Fail, text(node, "message").to_owned()),
        other => (Sign::Warn, format!("({other})")),
    };
    format!("{} {path}   {what}", style.sign(sign))
}

fn bound(node: &Value) -> (Sign, String) {
    let addr = &node["bound"]["addr"];
    let id = text(&node["bound"], "id");
    let id = if id == text(node, "path") {
        String::new()
    } else {
        format!(", bound as {id}")
    };
    match text(addr, "type") {
        "bound" => {
            let all: Vec<String> = list(addr, "addrs")
                .map(|a| format!("{}:{}", text(a, "ip"), a["port"]))
                .collect();
            match all.len() {
                0 => (Sign::Fail, format!("no endpoints{id}")),
                1 => (Sign::Ok, format!("1 endpoint: {}{id}", all[0])),
                n => (
                    Sign::Ok,
                    format!(
                        "{n} endpoints: {}{}{id}",
                        all[..n.min(5)].join(", "),
                        if n > 5 { ", …" } else { "" }
                    ),
                ),
            }
        }
        "pending" => (Sign::Warn, format!("no answer yet{id}")),
        "failed" => (Sign::Fail, format!("failed: {}{id}", text(addr, "cause"))),
        _ => (Sign::Fail, format!("no endpoints (neg){id}")),
    }
}

/// Whether some branch that would be taken ends in endpoints (or, offline, in a concrete name).
pub(super) fn leads_somewhere(node: &Value) -> bool {
    matches!(outcome(node), Found::Yes)
}

/// As a name tree is evaluated: of alternatives the first that is not neg.
enum Found {
    Yes,
    No,
    /// Goes on with the next alternative.
    Neg,
}

fn outcome(node: &Value) -> Found {
    match text(node, "type") {
        "unasked" => Found::Yes,
        "leaf" => match text(&node["bound"]["addr"], "type") {
            "bound" if list(&node["bound"]["addr"], "addrs").next().is_some() => Found::Yes,
            _ => Found::No,
        },
        "delegate" => outcome(&node["delegate"]),
        "transformation" => outcome(&node["tree"]),
        "alt" => list(node, "alt")
            .map(outcome)
            .find(|o| !matches!(o, Found::Neg))
            .unwrap_or(Found::Neg),
        "union" => {
            let mut all = list(node, "union").map(|w| outcome(&w["tree"]));
            if all.any(|o| matches!(o, Found::Yes)) {
                Found::Yes
            } else {
                Found::Neg
            }
        }
        "neg" => Found::Neg,
        _ => Found::No,
    }
}

/// All ends of a tree.
pub(super) fn ends<'a>(node: &'a Value, into: &mut Vec<&'a Value>) {
    match text(node, "type") {
        "delegate" => ends(&node["delegate"], into),
        "transformation" => ends(&node["tree"], into),
        "alt" => list(node, "alt").for_each(|n| ends(n, into)),
        "union" => list(node, "union").for_each(|w| ends(&w["tree"], into)),
        _ => into.push(node),
    }
}

/// A field's text; empty when it has none.
pub(super) fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'a>(node: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    node.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}
