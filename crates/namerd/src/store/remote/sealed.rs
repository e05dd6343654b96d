//! What is written beside a dtab: its number, and where it comes from. Whoever changes the dtab with another tool breaks the
//! seal, and the version counts as one from outside.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::{Origin, Record, to_millis};

/// Begins the last line of a text: a comment, so that Linkerd's namerd reads the same dtab.
const SEAL: &str = "\n# rutter: ";

/// What stands beside a dtab that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Meta {
    pub(in crate::store) number: u64,
    author: Arc<str>,
    time_ms: u64,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    note: Arc<str>,
    /// By which a writer knows its own write again.
    pub(in crate::store) id: Arc<str>,
    /// Of the dtab that this was written for.
    #[serde(default)]
    pub(in crate::store) hash: String,
    /// The dtab as it was written, where the storage keeps it in a form of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store) text: Option<Arc<str>>,
}

impl Meta {
    pub(super) fn of(record: &Record, id: &Arc<str>) -> Self {
        Self {
            number: record.number,
            author: record.origin.author.clone(),
            time_ms: to_millis(record.origin.time),
            note: record.origin.note.clone(),
            id: id.clone(),
            hash: String::new(),
            text: None,
        }
    }

    pub(super) fn record(&self, text: &Arc<str>, version: &Arc<str>) -> Record {
        Record {
            number: self.number,
            origin: Origin::at(self.author.clone(), self.time_ms, self.note.clone()),
            text: Some(text.clone()),
            tag: Some(version.clone()),
        }
    }
}

/// A version in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Past {
    pub(in crate::store) number: u64,
    author: Arc<str>,
    time_ms: u64,
    #[serde(default)]
    note: Arc<str>,
    #[serde(default)]
    pub(super) id: Option<Arc<str>>,
    #[serde(default)]
    version: Option<Arc<str>>,
    /// None for a deletion.
    #[serde(default)]
    pub(super) dtab: Option<Arc<str>>,
}

impl Past {
    pub(super) fn of(record: &Record, id: Option<&Arc<str>>) -> Self {
        Self {
            number: record.number,
            author: record.origin.author.clone(),
            time_ms: to_millis(record.origin.time),
            note: record.origin.note.clone(),
            id: id.cloned(),
            version: record.tag.clone(),
            dtab: record.text.clone(),
        }
    }

    pub(super) fn record(&self) -> Record {
        Record {
            number: self.number,
            origin: Origin::at(self.author.clone(), self.time_ms, self.note.clone()),
            text: self.dtab.clone(),
            tag: self.version.clone(),
        }
    }
}

/// Of a text, short: it tells apart what was changed by hand, and protects from nobody.
pub(in crate::store) fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A dtab with its seal as a last line.
pub(in crate::store) fn seal_text(text: &str, meta: &Meta) -> String {
    let sealed = Meta {
        hash: hash(text),
        ..meta.clone()
    };
    let json = serde_json::to_string(&sealed).expect("texts and numbers are JSON");
    format!("{text}{SEAL}{json}\n")
}

/// The dtab of such a text, its seal if that is not broken, and the number that stands in it in any case.
pub(in crate::store) fn open_text(sealed: &str) -> (Arc<str>, Option<Meta>, u64) {
    let cut = sealed.rsplit_once(SEAL);
    let read = cut.and_then(|(text, json)| Some((text, serde_json::from_str::<Meta>(json).ok()?)));
    match read {
        None => (sealed.into(), None, 0),
        Some((text, meta)) if meta.hash == hash(text) => {
            let number = meta.number;
            (text.into(), Some(meta), number)
        }
        Some((text, meta)) => (text.into(), None, meta.number),
    }
}

#[cfg(test)]
mod tests {
    use dtab::Dtab;

    use super::*;

    fn meta() -> Meta {
        let record = Record {
            number: 7,
            origin: Origin::now("ann", "line one\nline two # and \" all"),
            text: None,
            tag: None,
        };
        Meta::of(&record, &"1234".into())
    }

    #[test]
    fn a_sealed_text_is_the_same_dtab_and_opens_to_what_it_was() {
        for text in [
            "",
            "/a => /b",
            "/a=>/b;",
            "/a => /b ; # why\n",
            "# nothing\n# more",
            "/a => /b\n\n",
        ] {
            let sealed = seal_text(text, &meta());
            assert_eq!(
                Dtab::read(&sealed).unwrap().to_string(),
                Dtab::read(text).unwrap().to_string(),
                "{sealed}"
            );
            let (opened, found, number) = open_text(&sealed);
            let found = found.expect("the seal is whole");
            assert_eq!((&*opened, &*found.id, number), (text, "1234", 7));
            assert_eq!(found.author, meta().author);
        }
    }

    #[test]
    fn who_changes_the_dtab_breaks_the_seal() {
        let sealed = seal_text("/a => /b", &meta()).replace("/b", "/c");
        let (text, found, number) = open_text(&sealed);
        assert_eq!((&*text, found, number), ("/a => /c", None, 7));
        let (text, found, number) = open_text("/a => /d # by hand");
        assert_eq!((&*text, found, number), ("/a => /d # by hand", None, 0));
    }
}
