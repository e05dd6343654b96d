//! A tree against the tables of keys: unknown and removed keys, missing ones, types, ranges, kinds. All that is wrong is found, not
//! only the first.

use std::net::IpAddr;

use router::settings::RollPolicy;

use super::Environment;
use super::keys::{Effect, Key, Kinds, Section, Support, Ty};
use super::problem::{Problems, Remedy};
use super::yaml::{Entry, Node, Place, Value};
use crate::near::nearest;

/// Reads one value as what it may be, and says what is wrong with it.
pub(super) struct Validator<'a> {
    pub(super) environment: &'a Environment,
    pub(super) problems: Problems,
}

impl Validator<'_> {
    /// Checks `node`, the value of the key `at`.
    pub(super) fn check(&mut self, node: &Node, ty: Ty, at: &str) {
        match ty {
            Ty::Section(section) => self.section(node, section, at, &[]),
            Ty::Kinds(kinds) => self.kinds(node, kinds, at),
            Ty::List(item) => match &node.value {
                Value::List(items) => self.items(items, *item, at),
                _ => self.wrong(node, at, "a list (lines that begin with `- `)"),
            },
            Ty::OneOrMany(item) => match &node.value {
                Value::List(items) if items.is_empty() => {
                    self.problems
                        .error(at, node.place, format!("empty {} list", last(at)), None);
                }
                Value::List(items) => self.items(items, *item, at),
                _ => self.check(node, *item, at),
            },
            Ty::Named(item) => match &node.value {
                Value::Map(entries) => {
                    for entry in entries.iter() {
                        self.check(&entry.node, *item, &join(at, &entry.key));
                    }
                }
                _ => self.wrong(node, at, &wanted(ty)),
            },
            scalar => self.scalar(node, scalar, at),
        }
    }

    fn items(&mut self, items: &[Node], ty: Ty, at: &str) {
        for (i, item) in items.iter().enumerate() {
            self.check(item, ty, &format!("{at}[{i}]"));
        }
    }

    /// A mapping: `tags` are keys that somebody else has read.
    fn section(&mut self, node: &Node, section: &'static Section, at: &str, tags: &[&str]) {
        let Value::Map(entries) = &node.value else {
            return self.wrong(node, at, "a mapping (`key: value`)");
        };
        for entry in entries.iter().filter(|e| !tags.contains(&e.key.as_str())) {
            let path = join(at, &entry.key);
            match section.key(&entry.key) {
                Some(key) => self.entry(entry, key, &path),
                None => self.unknown(entry, section, &path, tags),
            }
        }
        for key in section.all_keys() {
            if key.required && node.get(key.name).is_none() {
                self.missing(node, at, key.name, key.about);
            }
        }
    }

    fn entry(&mut self, entry: &Entry, key: &Key, path: &str) {
        if entry.node.value == Value::Null {
            return; // as absent, as Linkerd 1
        }
        match key.effect {
            Effect::Refused(why) => {
                let help = Some("see docs/linkerd1.md".into());
                let message = format!("`{}` is not supported: {why}", key.name);
                self.problems
                    .not_here(path, entry.place, message, help, Remedy::WithoutKey);
            }
            Effect::Ignored(why) => {
                self.check(&entry.node, key.ty, path);
                let message = format!("`{}` has no effect: {why}", key.name);
                self.problems.warning(path, entry.place, message, None);
            }
            Effect::Same | Effect::Ours => self.check(&entry.node, key.ty, path),
        }
    }

    fn unknown(&mut self, entry: &Entry, section: &Section, path: &str, tags: &[&str]) {
        if let Some(now) = section.removed(&entry.key) {
            let message = format!("`{}` is not a key here any more", entry.key);
            return self.problems.not_here(
                path,
                entry.place,
                message,
                Some(now.into()),
                Remedy::WithoutKey,
            );
        }
        let known: Vec<&str> = section
            .all_keys()
            .iter()
            .map(|k| k.name)
            .chain(tags.iter().copied())
            .collect();
        let help = match nearest(&entry.key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "there are no keys here".into(),
            None => format!("known keys here: {}", known.join(", ")),
        };
        let message = format!("unknown key `{}`", entry.key);
        self.problems
            .not_here(path, entry.place, message, Some(help), Remedy::WithoutKey);
    }

    fn missing(&mut self, node: &Node, at: &str, key: &str, about: &str) {
        let place = first_line(node);
        let message = if at.is_empty() {
            format!("`{key}` is missing")
        } else {
            format!("{at} has no `{key}`")
        };
        self.problems.error(
            at,
            place,
            message,
            Some(format!("`{key}` must be given. {about}")),
        );
    }

    /// A mapping whose tag says which keys it has.
    fn kinds(&mut self, node: &Node, kinds: &'static Kinds, at: &str) {
        let Value::Map(_) = &node.value else {
            let wanted = format!("a mapping with a `{}`", kinds.tag);
            return self.wrong(node, at, &wanted);
        };
        let id = match (
            node.entry(kinds.tag)
                .filter(|e| e.node.value != Value::Null),
            kinds.default,
        ) {
            (Some(entry), _) => match entry.node.text() {
                Some(id) => (id, entry.node.place),
                None => {
                    return self.wrong(
                        &entry.node,
                        &join(at, kinds.tag),
                        &format!("the name of a {}", kinds.what),
                    );
                }
            },
            (None, Some(default)) => (default, node.place),
            (None, None) => {
                let known: Vec<&str> = kinds.supported().map(|k| k.id).collect();
                let help = format!("one of: {}", known.join(", "));
                let message = format!("{at} has no `{}`", kinds.tag);
                return self
                    .problems
                    .error(at, first_line(node), message, Some(help));
            }
        };
        self.kind(node, kinds, at, id);
    }

    fn kind(&mut self, node: &Node, kinds: &'static Kinds, at: &str, (id, place): (&str, Place)) {
        let path = join(at, kinds.tag);
        match kinds.find(id).map(|k| &k.support) {
            Some(Support::Yes(section)) => self.section(node, section, at, &[kinds.tag]),
            Some(support @ (Support::No(why) | Support::NotBuilt(why))) => {
                let here = match support {
                    Support::NotBuilt(_) => " by this build",
                    _ => "",
                };
                let message = format!("{id} is not supported{here}: {why}; see docs/linkerd1.md");
                self.problems
                    .not_here(&path, place, message, None, Remedy::WithoutPart);
            }
            None => {
                let known: Vec<&str> = kinds.supported().map(|k| k.id).collect();
                let help = match nearest(id, known.iter().copied()).or_else(|| suffix(id, &known)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of: {}", known.join(", ")),
                };
                self.problems.error(
                    &path,
                    place,
                    format!("unknown {} `{id}`", kinds.what),
                    Some(help),
                );
            }
        }
    }

    fn scalar(&mut self, node: &Node, ty: Ty, at: &str) {
        let raw = scalar_text(node);
        match (ty, &node.value, raw.as_deref()) {
            (_, Value::List(_) | Value::Map(_) | Value::Null, _) | (_, _, None) => {
                self.wrong(node, at, &wanted(ty));
            }
            (Ty::Bool, _, Some(text)) => {
                self.verify(matches!(text, "true" | "false"), node, at, ty);
            }
            (Ty::Port, Value::Int(n), _) => {
                if !(0..=65_535).contains(n) {
                    self.problems.error(
                        at,
                        node.place,
                        format!("{n} outside valid range for ports"),
                        Some("a port is a whole number from 0 to 65535".into()),
                    );
                }
            }
            (Ty::Port, Value::Text(t), _) if t.parse::<u16>().is_ok() => {
                let help = format!("write {t} without quotes");
                self.problems.error(
                    at,
                    node.place,
                    format!("`{}` is a number, found the text \"{t}\"", last(at)),
                    Some(help),
                );
            }
            (Ty::Count(low, high), _, Some(text)) => self.verify(
                whole(text).is_some_and(|n| n >= low.into() && n <= high.into()),
                node,
                at,
                ty,
            ),
            (Ty::CountOrMinusOne(high), _, Some(text)) => self.verify(
                whole(text).is_some_and(|n| n >= -1 && n <= high.into()),
                node,
                at,
                ty,
            ),
            (Ty::Millis, _, Some(text)) => self.verify(
                whole(text).is_some_and(|n| (0..=MAX_MILLIS).contains(&n)),
                node,
                at,
                ty,
            ),
            (Ty::Number(low, high), _, Some(text)) => {
                self.verify(
                    text.parse::<f64>().is_ok_and(|n| n >= low && n <= high),
                    node,
                    at,
                    ty,
                );
            }
            (Ty::Ip, _, Some(text)) => self.verify(text.parse::<IpAddr>().is_ok(), node, at, ty),
            (Ty::OneOf(words), _, Some(text)) => {
                if !words.contains(&text) {
                    self.verify(false, node, at, ty);
                }
            }
            (Ty::Header, _, Some(text)) => self.verify(
                http::HeaderName::from_bytes(text.as_bytes()).is_ok() || text.starts_with(':'),
                node,
                at,
                ty,
            ),
            (Ty::RollPolicy, _, Some(text)) => {
                self.verify(roll_policy(text).is_some(), node, at, ty);
            }
            (Ty::Path, _, Some(text)) => {
                self.language(node, at, "path", dtab::Path::read(text).err(), text);
            }
            (Ty::Dtab, _, Some(text)) => {
                self.language(node, at, "dtab", dtab::Dtab::read(text).err(), text);
            }
            (Ty::Pattern, _, Some(text)) => {
                let help = || Some("a prefix such as `/svc/{name}/*`; `/` matches all".to_owned());
                if !text.starts_with('/') {
                    self.problems.error(
                        at,
                        node.place,
                        format!("`{}` is no pattern: it must begin with `/`", last(at)),
                        help(),
                    );
                } else if let Err(e) = naming::PathMatcher::new(text) {
                    self.problems.error(
                        at,
                        node.place,
                        format!("`{}` is no pattern: {e}", last(at)),
                        help(),
                    );
                }
            }
            (Ty::ExistingDir, _, Some(text)) => self.verify_file(
                self.environment.is_dir(text),
                node,
                at,
                format!("{text} is not a directory"),
            ),
            (Ty::ExistingFile, _, Some(text)) => self.verify_file(
                self.environment.is_file(text),
                node,
                at,
                format!("{text} is not a file"),
            ),
            (Ty::Text | Ty::File, _, Some(_)) => {}
            (
                Ty::Port
                | Ty::Section(_)
                | Ty::Kinds(_)
                | Ty::List(_)
                | Ty::OneOrMany(_)
                | Ty::Named(_),
                _,
                _,
            ) => {
                self.wrong(node, at, &wanted(ty));
            }
        }
    }

    fn verify(&mut self, right: bool, node: &Node, at: &str, ty: Ty) {
        if !right {
            self.wrong(node, at, &wanted(ty));
        }
    }

    fn verify_file(&mut self, right: bool, node: &Node, at: &str, message: String) {
        if !right {
            let help = "it must be there when the router starts".to_owned();
            self.problems.error(
                at,
                node.place,
                format!("`{}`: {message}", last(at)),
                Some(help),
            );
        }
    }

    /// A path or dtab with a mistake: the place is inside the text.
    fn language(
        &mut self,
        node: &Node,
        at: &str,
        what: &str,
        error: Option<dtab::ParseError>,
        text: &str,
    ) {
        let Some(error) = error else { return };
        let place = node.place_within(&self.problems.source, error.byte);
        self.problems.error(
            at,
            place,
            format!("invalid {what}: {}", error.summary()),
            error.hint(text),
        );
    }

    fn wrong(&mut self, node: &Node, at: &str, wanted: &str) {
        let name = if at.is_empty() {
            "the file".to_owned()
        } else {
            format!("`{}`", last(at))
        };
        let message = format!("{name} must be {wanted}, found {}", node.describe());
        self.problems.error(at, node.place, message, None);
    }
}

/// About 68 years: beyond it a timer's arithmetic is no concern of anybody.
const MAX_MILLIS: i128 = 1 << 41;

/// What a value must be, in words.
pub(super) fn wanted(ty: Ty) -> String {
    match ty {
        Ty::Bool => "true or false".into(),
        Ty::Text | Ty::File => "a text".into(),
        Ty::Count(0, high) if high >= 1 << 30 => "a whole number, 0 or more".into(),
        Ty::Count(low, high) if high >= u64::from(u32::MAX) => format!("a whole number, {low} or more"),
        Ty::Count(low, high) => format!("a whole number from {low} to {high}"),
        Ty::CountOrMinusOne(high) if high >= u64::from(u32::MAX) => "-1 or a whole number".into(),
        Ty::CountOrMinusOne(high) => format!("a whole number from -1 to {high}"),
        Ty::Number(low, high) if high >= 1e9 => format!("a number, {low} or more"),
        Ty::Number(low, high) => format!("a number from {low} to {high}"),
        Ty::Port => "a port, a whole number from 0 to 65535".into(),
        Ty::Millis => "a number of milliseconds, 0 or more".into(),
        Ty::Ip => "an IP address, not a name".into(),
        Ty::Path => "a path such as `/svc/web`".into(),
        Ty::Dtab => "a dtab such as `/svc => /host`".into(),
        Ty::Pattern => "a prefix such as `/svc/{name}/*`".into(),
        Ty::Header => "a header's name".into(),
        Ty::ExistingFile => "a file".into(),
        Ty::ExistingDir => "a directory".into(),
        Ty::RollPolicy => "`never`, `hourly`, `daily`, `weekly(1)` to `weekly(7)`, a size such as `3.megabytes`, or `sighup`".into(),
        Ty::OneOf(words) => format!("one of {}", words.join(", ")),
        Ty::Section(_) | Ty::Kinds(_) => "a mapping".into(),
        Ty::List(_) => "a list".into(),
        Ty::OneOrMany(_) => "a mapping or a list".into(),
        Ty::Named(item) => format!("a mapping of names to {}", wanted(*item)),
    }
}

/// A scalar as text: `80` and `"80"` are the same where Linkerd 1 takes both.
pub(super) fn scalar_text(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(t) => Some(t.clone()),
        Value::Int(n) => Some(n.to_string()),
        Value::Float(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

fn whole(text: &str) -> Option<i128> {
    text.parse()
        .ok()
        .or_else(|| text.strip_suffix(".0")?.parse().ok())
}

/// As twitter-util's `Policy.parse`, sizes in its `3.megabytes`.
pub(super) fn roll_policy(text: &str) -> Option<RollPolicy> {
    match text {
        "never" => Some(RollPolicy::Never),
        "hourly" => Some(RollPolicy::Hourly),
        "daily" => Some(RollPolicy::Daily),
        "sighup" => Some(RollPolicy::Sighup),
        _ => match text
            .strip_prefix("weekly(")
            .and_then(|t| t.strip_suffix(')'))
        {
            Some(day) => day
                .parse()
                .ok()
                .filter(|d| (1..=7).contains(d))
                .map(RollPolicy::Weekly),
            None => size(text).map(RollPolicy::Size),
        },
    }
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once('.')?;
    let shift = match unit.strip_suffix('s').unwrap_or(unit) {
        "byte" => 0,
        "kilobyte" => 10,
        "megabyte" => 20,
        "gigabyte" => 30,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|n| *n > 0)?
        .checked_mul(1 << shift)
}

/// `header.token` for `io.l5d.header.token`.
fn suffix<'a>(id: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .copied()
        .find(|k| !id.is_empty() && k.ends_with(&format!(".{id}")))
}

/// The place of a mapping's first key: its own place may be as long as the file.
pub(super) fn first_line(node: &Node) -> Place {
    node.entries().first().map_or(
        Place {
            len: 1,
            ..node.place
        },
        |e| e.place,
    )
}

/// `routers[0]` and `label` make `routers[0].label`.
pub(super) fn join(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.into()
    } else {
        format!("{at}.{key}")
    }
}

/// The last key of `routers[0].servers[1].port`: `port`.
fn last(at: &str) -> &str {
    at.rsplit('.').next().unwrap_or(at)
}
