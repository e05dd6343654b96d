//! Edits of single entries, in a text that otherwise stays as it is.

use dtab::{Dentry, Layout, NameTree, Prefix};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Edits, made one after another; either all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    /// What is done, in order.
    pub edits: Vec<Edit>,
}

/// One edit of one entry. Of several with a prefix the last one is meant, which is the one that is tried first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Edit {
    /// Gives the entry of a prefix another destination; adds one when there is none.
    Set {
        /// Which entry.
        prefix: String,
        /// What it is to lead to.
        dst: String,
        /// Only if it leads there now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<String>,
    },
    /// Adds an entry at the end, where it is tried first.
    Add {
        /// Its left-hand side.
        prefix: String,
        /// Its right-hand side.
        dst: String,
    },
    /// Removes the entry of a prefix.
    Remove {
        /// Which entry.
        prefix: String,
        /// Only if it leads there now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<String>,
    },
}

/// Why an edit is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A text of the edit is none of a dtab.
    #[error("edit {edit}: {reason}")]
    Unreadable {
        /// From 1.
        edit: usize,
        /// What is wrong.
        reason: String,
    },
    /// There is no such entry.
    #[error("edit {edit}: there is no entry {prefix}")]
    Missing {
        /// From 1.
        edit: usize,
        /// What was looked for.
        prefix: String,
    },
    /// The entry is another one by now.
    #[error("edit {edit}: {prefix} leads to {found}, not to {wanted}")]
    Changed {
        /// From 1.
        edit: usize,
        /// Which entry.
        prefix: String,
        /// What it leads to.
        found: String,
        /// What it should have led to.
        wanted: String,
    },
}

impl Edits {
    /// The text after these edits.
    pub fn apply(&self, text: &str) -> Result<String, EditError> {
        let mut all = self.edits.iter().enumerate();
        all.try_fold(text.to_owned(), |text, (at, edit)| {
            edit.apply(at + 1, &text)
        })
    }
}

impl Edit {
    fn apply(&self, number: usize, text: &str) -> Result<String, EditError> {
        let unreadable = |reason: String| EditError::Unreadable {
            edit: number,
            reason,
        };
        let layout = Layout::read(text).map_err(|error| unreadable(error.to_string()))?;
        let of = |prefix: &str| -> Result<(Prefix, Option<usize>), EditError> {
            let prefix = Prefix::read(prefix)
                .map_err(|error| unreadable(format!("prefix {prefix:?}: {}", error.summary())))?;
            let mut entries = layout.entries().iter();
            let at = entries.rposition(|placed| placed.dentry.prefix == prefix);
            Ok((prefix, at))
        };
        let tree = |dst: &str| {
            NameTree::read(dst)
                .map_err(|error| unreadable(format!("dst {dst:?}: {}", error.summary())))
        };
        // Without comments, which would swallow what stands behind it.
        let plain = |dst: &str| -> Result<String, EditError> {
            tree(dst)?;
            let alone = format!("/ => {dst}");
            let layout = Layout::read(&alone).map_err(|error| unreadable(error.summary()))?;
            Ok(layout.entries()[0].dst().to_owned())
        };
        let as_it_was = |at: Option<usize>, prefix: &Prefix, was: &Option<String>| {
            let Some(was) = was else { return Ok(()) };
            let missing = || EditError::Missing {
                edit: number,
                prefix: prefix.to_string(),
            };
            let found: &Dentry = &layout.entries()[at.ok_or_else(missing)?].dentry;
            match found.dst == tree(was)? {
                true => Ok(()),
                false => Err(EditError::Changed {
                    edit: number,
                    prefix: prefix.to_string(),
                    found: found.dst.to_string(),
                    wanted: was.clone(),
                }),
            }
        };
        match self {
            Self::Set { prefix, dst, was } => {
                let (prefix, at) = of(prefix)?;
                as_it_was(at, &prefix, was)?;
                let dst = plain(dst)?;
                Ok(match at {
                    Some(at) => layout.with_dst(at, &dst),
                    None => layout.with_entry(&prefix.to_string(), &dst),
                })
            }
            Self::Add { prefix, dst } => {
                let (prefix, _) = of(prefix)?;
                Ok(layout.with_entry(&prefix.to_string(), &plain(dst)?))
            }
            Self::Remove { prefix, was } => {
                let (prefix, at) = of(prefix)?;
                as_it_was(at, &prefix, was)?;
                let at = at.ok_or_else(|| EditError::Missing {
                    edit: number,
                    prefix: prefix.to_string(),
                })?;
                Ok(layout.without(at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, edits: &str) -> Result<String, EditError> {
        let edits: Edits = serde_json::from_str(&format!("{{\"edits\": [{edits}]}}")).unwrap();
        edits.apply(text)
    }

    #[test]
    fn edits_change_what_they_name_and_nothing_else() {
        let text = "# top\n/a => /1 ;  # one\n/a => /2 ;\n";
        for (edits, want) in [
            (
                r#"{"op": "set", "prefix": "/a", "dst": "/9"}"#,
                "# top\n/a => /1 ;  # one\n/a => /9 ;\n",
            ),
            (
                r#"{"op": "set", "prefix": "/b", "dst": "/9"}"#,
                "# top\n/a => /1 ;  # one\n/a => /2 ;\n/b => /9 ;\n",
            ),
            (
                r#"{"op": "remove", "prefix": "/a", "was": "/2"}, {"op": "add", "prefix": "/a", "dst": "~ | !"}"#,
                "# top\n/a => /1 ;  # one\n/a => ~ | ! ;\n",
            ),
            ("", text),
            (
                r#"{"op": "add", "prefix": "/b", "dst": "/1 # a comment swallows nothing"}"#,
                "# top\n/a => /1 ;  # one\n/a => /2 ;\n/b => /1 ;\n",
            ),
        ] {
            assert_eq!(edited(text, edits).unwrap(), want);
        }
    }

    #[test]
    fn an_edit_that_cannot_be_made_says_why() {
        let text = "/a => /1 ;";
        for (edits, want) in [
            (
                r#"{"op": "remove", "prefix": "/b"}"#,
                "edit 1: there is no entry /b",
            ),
            (
                r#"{"op": "set", "prefix": "/a", "dst": "/3", "was": "/2"}"#,
                "edit 1: /a leads to /1, not to /2",
            ),
            (
                r#"{"op": "add", "prefix": "/x", "dst": "/y"}, {"op": "set", "prefix": "a", "dst": "/3"}"#,
                "edit 2: prefix \"a\": expected",
            ),
            (
                r#"{"op": "set", "prefix": "/a", "dst": "/b ; /c => /d"}"#,
                "edit 1: dst",
            ),
        ] {
            let error = edited(text, edits).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
