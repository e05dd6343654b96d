//! The reference of keys, in Markdown, from the tables that the parser uses: `docs/configuration.md` holds it between two marks, and
//! a test compares them.

use std::fmt::Write as _;

use super::keys::{Effect, Key, Kinds, Section, Support, Ty, store, top};
use super::validate::wanted;

/// All keys, a table for each section.
pub fn markdown() -> String {
    let mut out = String::new();
    let mut done = Done::default();
    done.section(&top::FILE, &mut out);
    // What the store's file shares with a router's stands above already.
    out.push_str("## The store's file\n\n");
    done.section(&store::FILE, &mut out);
    out
}

/// What has been written already: a section is shown once, where it first belongs.
#[derive(Default)]
struct Done(Vec<*const ()>);

impl Done {
    fn first<T>(&mut self, of: &'static T) -> bool {
        let at = std::ptr::from_ref(of).cast::<()>();
        let new = !self.0.contains(&at);
        if new {
            self.0.push(at);
        }
        new
    }

    fn section(&mut self, section: &'static Section, out: &mut String) {
        if !self.first(section) {
            return;
        }
        if !section.keys.is_empty() {
            _ = writeln!(out, "### {}\n", section.title);
            table(section, out);
        }
        for key in section
            .keys
            .iter()
            .filter(|k| !matches!(k.effect, Effect::Refused(_)))
        {
            self.below(key.ty, out);
        }
        for more in section.also {
            self.section(more, out);
        }
    }

    fn below(&mut self, ty: Ty, out: &mut String) {
        match ty {
            Ty::Section(section) => self.section(section, out),
            Ty::Kinds(kinds) => self.kinds(kinds, out),
            Ty::List(item) | Ty::OneOrMany(item) | Ty::Named(item) => self.below(*item, out),
            _ => {}
        }
    }

    fn kinds(&mut self, kinds: &'static Kinds, out: &mut String) {
        if !self.first(kinds) {
            return;
        }
        if kinds.kinds.len() > 1 {
            _ = writeln!(
                out,
                "### Kinds of {}\n\n| `{}` | |\n| --- | --- |",
                kinds.what, kinds.tag
            );
            for kind in kinds.kinds {
                match kind.support {
                    Support::Yes(_) => {
                        _ = writeln!(
                            out,
                            "| `{}` | {}{} |",
                            kind.id,
                            cell(kind.about),
                            if kinds.default == Some(kind.id) {
                                " The default."
                            } else {
                                ""
                            }
                        );
                    }
                    Support::No(why) | Support::NotBuilt(why) => {
                        _ = writeln!(out, "| `{}` | not supported: {} |", kind.id, cell(why));
                    }
                }
            }
            out.push('\n');
        }
        for kind in kinds.supported() {
            if let Support::Yes(section) = kind.support {
                self.section(section, out);
            }
        }
    }
}

fn table(section: &Section, out: &mut String) {
    out.push_str("| key | value | default | |\n| --- | --- | --- | --- |\n");
    for key in section.keys {
        _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            key.name,
            cell(&value(key.ty)),
            cell(&default(key)),
            cell(&about(key))
        );
    }
    for (name, now) in section.removed {
        _ = writeln!(out, "| ~~`{name}`~~ | | | removed: {} |", cell(now));
    }
    let shared: Vec<_> = section.also.iter().map(|s| s.title).collect();
    if !shared.is_empty() {
        _ = writeln!(out, "\nAnd the keys of: {}.", shared.join("; "));
    }
    out.push('\n');
}

fn value(ty: Ty) -> String {
    match ty {
        Ty::Section(section) => format!("mapping: {}", section.title),
        Ty::Kinds(kinds) => format!("{} by `{}`", kinds.what, kinds.tag),
        Ty::List(item) => format!("list of {}", value(*item)),
        Ty::OneOrMany(item) => format!("{}, or a list", value(*item)),
        scalar => wanted(scalar),
    }
}

fn default(key: &Key) -> String {
    match (key.required, key.default) {
        (true, _) => "**required**".into(),
        (false, default) => default.into(),
    }
}

fn about(key: &Key) -> String {
    match key.effect {
        Effect::Same => key.about.into(),
        Effect::Ours => format!("{} (Not in Linkerd 1.)", key.about),
        Effect::Ignored(why) => format!("{} **Accepted, no effect**: {why}.", key.about),
        Effect::Refused(why) => format!("**Refused**: {why}."),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
