//! A delegate tree of `/delegator.json` as nested HTML lists: one line a step, the outcome in words at each end.

use serde_json::Value;

use crate::html::escape;

/// More branches than this are counted, not drawn: a page has to stay a page.
const MOST_NODES: usize = 400;

/// The tree as one `<ul>`.
pub(super) fn to_html(tree: &Value) -> String {
    let mut drawn = Drawn {
        out: String::from("<ul class=\"tree\">"),
        nodes: 0,
    };
    drawn.node(tree, None);
    drawn.out.push_str("</ul>");
    if drawn.nodes > MOST_NODES {
        let more = drawn.nodes - MOST_NODES;
        drawn.out.push_str(&format!(
            "<p class=\"note\">and {more} more steps, in the JSON</p>"
        ));
    }
    drawn.out
}

struct Drawn {
    out: String,
    nodes: usize,
}

impl Drawn {
    /// One step and what follows from it. `share` is the part of the traffic, inside a union.
    fn node(&mut self, node: &Value, share: Option<f64>) {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return self.children(node);
        }
        self.out.push_str("<li>");
        self.line(node, share);
        let inner = self.out.len();
        self.out.push_str("<ul>");
        let before = self.out.len();
        self.children(node);
        if self.out.len() == before {
            self.out.truncate(inner);
        } else {
            self.out.push_str("</ul>");
        }
        self.out.push_str("</li>");
    }

    fn children(&mut self, node: &Value) {
        if let Some(next) = node.get("delegate").or_else(|| node.get("tree")) {
            self.node(next, None);
        }
        for branch in list(&node["alt"]) {
            self.node(branch, None);
        }
        let union = list(&node["union"]);
        let weight = |branch: &Value| branch["weight"].as_f64().unwrap_or(0.0);
        let total: f64 = union.iter().map(weight).sum();
        for branch in union {
            let share = (total > 0.0).then(|| weight(branch) / total);
            self.node(&branch["tree"], share);
        }
    }

    fn line(&mut self, node: &Value, share: Option<f64>) {
        if let Some(share) = share {
            let percent = format!("<span class=\"share\">{:.1} %</span> ", share * 100.0);
            self.out.push_str(&percent);
        }
        let kind = text(&node["type"]);
        let path = escape(text(&node["path"]));
        self.out
            .push_str(&format!("<code class=\"path\">{path}</code>"));
        if let Some(dentry) = node.get("dentry") {
            let (prefix, dst) = (
                escape(text(&dentry["prefix"])),
                escape(text(&dentry["dst"])),
            );
            let by = format!(" <span class=\"by\">by <code>{prefix} =&gt; {dst}</code></span>");
            self.out.push_str(&by);
        }
        match kind {
            "neg" => self.mark("bad", "✗", "no such name: the next alternative is tried"),
            "fail" => self.mark("bad", "✗", "fails here: no alternative is tried"),
            "empty" => self.mark("bad", "✗", "bound to nothing"),
            "exception" => self.mark("bad", "✗", text(&node["message"])),
            "leaf" => self.leaf(&node["bound"]),
            "alt" => self.mark("fork", "", "the first of these that leads somewhere"),
            "union" => self.mark("fork", "", "shared among these by weight"),
            "transformation" => {
                let name = format!("transformed by {}", text(&node["name"]));
                self.mark("fork", "", &name);
            }
            _ => {}
        }
    }

    fn leaf(&mut self, bound: &Value) {
        let addr = &bound["addr"];
        let addrs = list(&addr["addrs"]);
        match text(&addr["type"]) {
            "bound" if addrs.is_empty() => self.mark("warn", "‼", "bound, with no endpoint"),
            "bound" => {
                let plural = if addrs.len() == 1 { "" } else { "s" };
                self.mark("good", "✓", &format!("{} endpoint{plural}", addrs.len()));
            }
            "neg" => self.mark("bad", "✗", "bound, but its address set is gone"),
            "pending" => self.mark("warn", "‼", "bound, addresses not known yet"),
            "failed" => self.mark(
                "bad",
                "✗",
                &format!("no addresses: {}", text(&addr["cause"])),
            ),
            _ => self.mark("good", "✓", "bound"),
        }
        let mut lines = Vec::new();
        if let Some(id) = bound["id"].as_str() {
            lines.push(format!("id <code>{}</code>", escape(id)));
        }
        if let Some(rest) = bound["path"].as_str().filter(|rest| *rest != "/") {
            lines.push(format!("residual <code>{}</code>", escape(rest)));
        }
        const MOST_ADDRS: usize = 12;
        let shown = addrs.iter().take(MOST_ADDRS).map(|addr| {
            let ip = text(&addr["ip"]);
            let port = addr["port"].as_u64().unwrap_or(0);
            format!("<code>{}:{port}</code>", escape(ip))
        });
        lines.extend(shown);
        if addrs.len() > MOST_ADDRS {
            lines.push(format!("and {} more", addrs.len() - MOST_ADDRS));
        }
        if !lines.is_empty() {
            let detail = format!("<div class=\"detail\">{}</div>", lines.join(" · "));
            self.out.push_str(&detail);
        }
    }

    fn mark(&mut self, class: &str, sign: &str, words: &str) {
        let sign = if sign.is_empty() {
            String::new()
        } else {
            format!("<span aria-hidden=\"true\">{sign}</span> ")
        };
        let mark = format!(
            " <span class=\"mark {class}\">{sign}{}</span>",
            escape(words)
        );
        self.out.push_str(&mark);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_end_is_said_in_words_and_text_is_escaped() {
        let tree = json!({"type": "alt", "path": "/svc/<b>", "alt": [
            {"type": "neg", "path": "/a", "dentry": {"prefix": "/svc", "dst": "/a"}},
            {"type": "exception", "path": "/x", "message": "no <namer>"},
            {"type": "union", "path": "/u", "union": [
                {"weight": 3.0, "tree": {"type": "fail", "path": "!"}},
                {"weight": 1.0, "tree": {"type": "leaf", "path": "/#/x", "bound": {
                    "id": "/#/x", "path": "/rest", "addr": {"type": "bound", "addrs": [{"ip": "10.0.0.1", "port": 80}]}}}}]}]});
        let html = to_html(&tree);
        for part in [
            "/svc/&lt;b&gt;",
            "no &lt;namer&gt;",
            "by <code>/svc =&gt; /a</code>",
            "75.0 %",
            "1 endpoint<",
            "10.0.0.1:80",
            "residual <code>/rest</code>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert_eq!(html.matches("<ul").count(), html.matches("</ul>").count());
    }
}
