//! Which keys there are: one table for the parser, the JSON Schema and the reference in `docs/configuration.md`.
//!
//! A [`Section`] is a mapping with known keys, a [`Kinds`] a mapping whose `kind` (or `protocol`) says which section it is.
//! The tables themselves: [`top`], [`router`], [`names`], [`report`], [`store`], [`access`].

pub mod access;
pub mod names;
pub mod report;
pub mod router;
pub mod store;
pub mod top;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Ty {
    /// `true` or `false`.
    Bool,
    /// Any text.
    Text,
    /// A whole number in that range.
    Count(u64, u64),
    /// −1, or a whole number up to that; −1 stands for "all" or "automatic".
    CountOrMinusOne(u64),
    /// A number in that range.
    Number(f64, f64),
    /// 0 to 65535, never quoted: as Linkerd 1, which refuses `"80"`.
    Port,
    /// Milliseconds, a whole number.
    Millis,
    /// An IP address, never a name.
    Ip,
    /// A path such as `/svc/web`.
    Path,
    /// A dtab.
    Dtab,
    /// A prefix of names with `*` and `{captures}`.
    Pattern,
    /// A name of a header.
    Header,
    /// A file or directory that is written.
    File,
    /// A file that must be there.
    ExistingFile,
    /// A directory that must be there.
    ExistingDir,
    /// When an access log begins a new file.
    RollPolicy,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A mapping.
    Section(&'static Section),
    /// A mapping whose kind decides.
    Kinds(&'static Kinds),
    /// A list.
    List(&'static Ty),
    /// A list, or one that stands for a list of one.
    OneOrMany(&'static Ty),
    /// A mapping from names of one's own to values of one kind.
    Named(&'static Ty),
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub ty: Ty,
    /// Must be given.
    pub required: bool,
    /// What counts when it is not given, in words.
    pub default: &'static str,
    /// What it does, for the reference; one or two sentences.
    pub about: &'static str,
    /// Whether it works here.
    pub effect: Effect,
}

/// What a key does here, compared with Linkerd 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// As in Linkerd 1.
    Same,
    /// A key that Linkerd 1 does not have.
    Ours,
    /// Accepted so that files work unchanged, and without effect for this reason.
    Ignored(&'static str),
    /// Refused, with this reason: ignoring it would be dangerous.
    Refused(&'static str),
}

impl Key {
    /// An optional key.
    pub const fn new(
        name: &'static str,
        ty: Ty,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            name,
            ty,
            required: false,
            default,
            about,
            effect: Effect::Same,
        }
    }

    /// A key that must be there.
    pub const fn required(name: &'static str, ty: Ty, about: &'static str) -> Self {
        Self {
            name,
            ty,
            required: true,
            default: "",
            about,
            effect: Effect::Same,
        }
    }

    /// The same key with another effect.
    pub const fn but(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }
}

/// A mapping with known keys.
#[derive(Debug)]
pub struct Section {
    /// What it is, for the reference.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Further keys, shared with other sections.
    pub also: &'static [&'static Section],
    /// Keys that Linkerd 1 once had, and what to write now.
    pub removed: &'static [(&'static str, &'static str)],
}

impl Section {
    /// Its own and the shared keys.
    pub fn all_keys(&self) -> Vec<&'static Key> {
        let mut keys: Vec<&'static Key> = self.keys.iter().collect();
        for more in self.also {
            keys.extend(more.all_keys());
        }
        keys
    }

    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys
            .iter()
            .find(|k| k.name == name)
            .or_else(|| self.also.iter().find_map(|more| more.key(name)))
    }

    /// What became of a removed key.
    pub fn removed(&self, name: &str) -> Option<&'static str> {
        let own = self
            .removed
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, now)| *now);
        own.or_else(|| self.also.iter().find_map(|more| more.removed(name)))
    }
}

/// A mapping whose `kind` decides which keys it has.
#[derive(Debug)]
pub struct Kinds {
    /// What it is, in a message: `namer`, `identifier`.
    pub what: &'static str,
    /// `kind` or `protocol`.
    pub tag: &'static str,
    /// The kind when none is given; `None`: one must be given.
    pub default: Option<&'static str>,
    /// All that are known.
    pub kinds: &'static [Kind],
}

/// One kind.
#[derive(Debug)]
pub struct Kind {
    /// As it is written.
    pub id: &'static str,
    /// Its keys, or why it is refused.
    pub support: Support,
    /// What it is, for the reference.
    pub about: &'static str,
}

/// Whether a kind works here.
#[derive(Debug)]
pub enum Support {
    /// It does.
    Yes(&'static Section),
    /// It is known and not supported, for this reason.
    No(&'static str),
    /// The program can be built so that it works.
    NotBuilt(&'static str),
}

impl Kinds {
    /// The kind of that name.
    pub fn find(&self, id: &str) -> Option<&'static Kind> {
        self.kinds.iter().find(|k| k.id == id)
    }

    /// Those that work.
    pub fn supported(&self) -> impl Iterator<Item = &'static Kind> {
        self.kinds
            .iter()
            .filter(|k| matches!(k.support, Support::Yes(_)))
    }
}

/// A kind that works.
pub const fn kind(id: &'static str, section: &'static Section, about: &'static str) -> Kind {
    Kind {
        id,
        support: Support::Yes(section),
        about,
    }
}

/// A kind that is refused.
pub const fn refused(id: &'static str, why: &'static str) -> Kind {
    Kind {
        id,
        support: Support::No(why),
        about: "",
    }
}

/// A kind that this build is without.
pub const fn not_built(id: &'static str, why: &'static str) -> Kind {
    Kind {
        id,
        support: Support::NotBuilt(why),
        about: "",
    }
}

/// A section without keys of its own.
pub static NO_KEYS: Section = Section {
    title: "no keys of its own",
    keys: &[],
    also: &[],
    removed: &[],
};
