//! `io.l5d.rewrite`: names made of parts of other names.

use dtab::{NameTree, Path};

use crate::matcher::{PathMatcher, TooShort};
use crate::{Activity, Name, Namer, NamerError, Reads};

/// Rewrites what matches a pattern, to be looked up again from the top.
#[derive(Clone, Debug)]
pub struct RewriteNamer {
    prefix: Path,
    pattern: PathMatcher,
    name: String,
}

impl RewriteNamer {
    /// A namer at `/#` + `prefix`. `name` holds the pattern's captures in braces: `/k8s/{ns}/{port}/{svc}`.
    pub fn new(prefix: Path, pattern: PathMatcher, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            prefix,
            pattern,
            name,
        }
    }
}

impl Namer for RewriteNamer {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// What is behind the pattern is thrown away, as in Linkerd.
    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        let captures = match self.pattern.extract(rest) {
            Ok(Some(captures)) => captures,
            Ok(None) => return Activity::Ok(NameTree::Neg),
            Err(TooShort) => {
                let message = format!("{rest} ends before a `*` of {}", self.pattern);
                return Activity::failed(NamerError::Unfit { message });
            }
        };
        match captures.fill(&self.name).parse() {
            Ok(path) => Activity::Ok(NameTree::Leaf(Name::Path(path))),
            Err(error) => Activity::failed(NamerError::NotAPath {
                message: error.to_string(),
            }),
        }
    }

    fn why_not(&self, rest: &Path) -> Option<String> {
        (!self.pattern.matches(rest)).then(|| format!("{rest} does not match {}", self.pattern))
    }
}
