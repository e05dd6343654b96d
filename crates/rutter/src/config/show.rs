//! The effective configuration as YAML: what was given, and the defaults of what was not, each marked as such.

use std::fmt::Write as _;

use super::keys::{Effect, Key, Kinds, Section, Support, Ty, top};
use super::yaml::{Node, Value};

/// `rutter config show`: a file that says the same, with every default written out.
pub fn yaml(tree: &Node) -> String {
    let mut shown = Shown { out: String::new() };
    shown.section(Some(tree), &top::FILE, None, 0, true);
    shown.out
}

struct Shown {
    out: String,
}

impl Shown {
    /// The keys of a mapping. `defaults` is off below `configs`, where a default would override an entry before.
    fn section(
        &mut self,
        node: Option<&Node>,
        section: &Section,
        tag: Option<(&str, &str)>,
        depth: usize,
        defaults: bool,
    ) {
        if let Some((tag, id)) = tag {
            self.line(depth, tag, &quoted(id), "");
        }
        for key in section.all_keys() {
            match node.and_then(|n| n.get(key.name)) {
                Some(given) => self.given(key, given, depth, defaults),
                None if defaults && stands_alone(key, node) => self.default(key, depth),
                None => {}
            }
        }
    }

    fn given(&mut self, key: &Key, node: &Node, depth: usize, defaults: bool) {
        if matches!(key.effect, Effect::Ignored(_)) {
            return self.line(depth, key.name, &flow(node), "no effect");
        }
        let defaults = defaults && key.name != "configs";
        match (key.ty, &node.value) {
            (Ty::Dtab, Value::Text(text)) => self.block(key.name, text, depth),
            (Ty::List(item) | Ty::OneOrMany(item), Value::List(items)) if !items.is_empty() => {
                _ = writeln!(self.out, "{}{}:", pad(depth), key.name);
                for item_node in items {
                    self.item(item_node, *item, depth, defaults);
                }
            }
            (Ty::OneOrMany(item), Value::Map(_)) => {
                _ = writeln!(self.out, "{}{}:", pad(depth), key.name);
                self.mapping(Some(node), *item, depth + 1, defaults);
            }
            (Ty::Section(_) | Ty::Kinds(_), _) => self.nested(key, Some(node), depth, defaults),
            _ => self.line(depth, key.name, &flow(node), ""),
        }
    }

    /// A mapping's lines, with `- ` in front of the first.
    fn item(&mut self, node: &Node, ty: Ty, depth: usize, defaults: bool) {
        if !matches!(ty, Ty::Section(_) | Ty::Kinds(_)) {
            _ = writeln!(self.out, "{}- {}", pad(depth), flow(node));
            return;
        }
        let start = self.out.len();
        self.mapping(Some(node), ty, depth + 1, defaults);
        let at = start + pad(depth).len();
        if self.out.len() > start {
            self.out.replace_range(at..at + 2, "- ");
        }
    }

    fn mapping(&mut self, node: Option<&Node>, ty: Ty, depth: usize, defaults: bool) {
        match ty {
            Ty::Section(section) => self.section(node, section, None, depth, defaults),
            Ty::Kinds(kinds) => {
                let given = node.and_then(|n| n.get(kinds.tag)).and_then(Node::text);
                if let Some((id, section)) =
                    given.or(kinds.default).and_then(|id| supported(kinds, id))
                {
                    self.section(node, section, Some((kinds.tag, id)), depth, defaults);
                }
            }
            _ => {}
        }
    }

    fn nested(&mut self, key: &Key, node: Option<&Node>, depth: usize, defaults: bool) {
        let start = self.out.len();
        self.mapping(node, key.ty, depth + 1, defaults);
        let body = self.out.split_off(start);
        let mark = if node.is_none() && !body.contains("# default") {
            "  # default"
        } else {
            ""
        };
        match (body.is_empty(), node) {
            (true, None) => {}
            (true, Some(_)) => self.line(depth, key.name, "{}", ""),
            (false, _) => _ = write!(self.out, "{}{}:{mark}\n{body}", pad(depth), key.name),
        }
    }

    fn default(&mut self, key: &Key, depth: usize) {
        if matches!(key.effect, Effect::Ignored(_) | Effect::Refused(_)) || key.required {
            return;
        }
        match key.ty {
            Ty::Section(_) if key.default.is_empty() => self.nested(key, None, depth, true),
            Ty::Kinds(kinds) if key.default.is_empty() && kinds.default.is_some() => {
                self.nested(key, None, depth, true);
            }
            Ty::Kinds(kinds) | Ty::OneOrMany(&Ty::Kinds(kinds)) => {
                if let Some((id, _)) = supported(kinds, key.default) {
                    self.line(
                        depth,
                        key.name,
                        &format!("{{{}: {}}}", kinds.tag, quoted(id)),
                        "default",
                    );
                }
            }
            ty if is_value(ty, key.default) => self.line(depth, key.name, key.default, "default"),
            _ => {}
        }
    }

    fn line(&mut self, depth: usize, key: &str, value: &str, comment: &str) {
        let comment = if comment.is_empty() {
            String::new()
        } else {
            format!("  # {comment}")
        };
        _ = writeln!(self.out, "{}{key}: {value}{comment}", pad(depth));
    }

    fn block(&mut self, key: &str, text: &str, depth: usize) {
        let plain = !text.is_empty()
            && text
                .lines()
                .next()
                .is_some_and(|l| !l.starts_with(char::is_whitespace) && !l.is_empty());
        if !plain || text.chars().any(|c| c.is_control() && c != '\n') {
            return self.line(depth, key, &quoted(text), "");
        }
        _ = writeln!(self.out, "{}{key}: |", pad(depth));
        for line in text.lines() {
            _ = writeln!(
                self.out,
                "{}{line}",
                if line.is_empty() {
                    String::new()
                } else {
                    pad(depth + 1)
                }
            );
        }
    }
}

/// A default that says nothing, or the wrong thing, unless another key has the right value.
fn stands_alone(key: &Key, node: Option<&Node>) -> bool {
    let given = |other: &str| node.and_then(|n| n.get(other)).is_some();
    match key.name {
        "streamAfterContentLengthKB" => !given("streamingEnabled"),
        name if name.starts_with("httpAccessLog") => given("httpAccessLog"),
        _ => true,
    }
}

fn supported<'a>(kinds: &'static Kinds, id: &'a str) -> Option<(&'a str, &'static Section)> {
    match kinds.find(id)?.support {
        Support::Yes(section) => Some((id, section)),
        Support::No(_) | Support::NotBuilt(_) => None,
    }
}

/// Whether the words for a default are the value itself, such as `10000`, and not `none` or `the router's`.
fn is_value(ty: Ty, default: &str) -> bool {
    match ty {
        Ty::Bool => matches!(default, "true" | "false"),
        Ty::Count(..) | Ty::CountOrMinusOne(_) | Ty::Port | Ty::Millis => {
            default.parse::<i64>().is_ok()
        }
        Ty::Number(..) => default.parse::<f64>().is_ok(),
        Ty::Ip => default.parse::<std::net::IpAddr>().is_ok(),
        Ty::Path | Ty::Text | Ty::Header | Ty::RollPolicy => {
            !default.contains(' ') && !matches!(default, "" | "none")
        }
        _ => false,
    }
}

fn pad(depth: usize) -> String {
    "  ".repeat(depth)
}

/// A value on one line; JSON is YAML.
fn flow(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => quoted(text),
        _ => node.to_json().to_string(),
    }
}

/// Text that is read back as the same text: in quotes unless it is plainly a word.
fn quoted(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let plain =
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(word);
    let other = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if plain && !other {
        text.into()
    } else {
        serde_json::Value::from(text).to_string()
    }
}
