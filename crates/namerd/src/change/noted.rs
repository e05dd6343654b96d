//! What is said with a version beside the author's words: how it came, and whether it has to be confirmed.
//!
//! It stands in the last line of the note, so that every storage that keeps notes keeps it:
//! `canary 10 %` and then `~ via=cli confirm=300 back=41`.

use std::fmt::Write as _;

/// How the last line of a note begins that is not the author's.
const MARK: &str = "~ ";

/// A note, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The author's words; may be empty.
    pub words: String,
    /// How the change came: `cli`, `api`; empty when nobody said.
    pub via: String,
    /// It ends by itself unless it is confirmed.
    pub confirm: Option<Within>,
}

/// For how long a change is in force unless it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// Seconds since it was written.
    pub seconds: u64,
    /// The version that comes back then; none when there was no such namespace.
    pub back: Option<u64>,
}

impl Noted {
    /// Takes a note apart. One of anybody else's is all words.
    pub fn of(note: &str) -> Self {
        let (words, last) = note.rsplit_once('\n').unwrap_or(("", note));
        let Some(marks) = last.strip_prefix(MARK) else {
            return Self {
                words: note.to_owned(),
                ..Self::default()
            };
        };
        let mark = |name: &str| {
            let mut marks = marks.split(' ').filter_map(|mark| mark.split_once('='));
            marks.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let seconds = mark("confirm").and_then(|value| value.parse().ok());
        Self {
            words: words.to_owned(),
            via: mark("via").unwrap_or_default().to_owned(),
            confirm: seconds.map(|seconds| Within {
                seconds,
                back: mark("back").and_then(|value| value.parse().ok()),
            }),
        }
    }

    /// The note that is kept.
    pub fn note(&self) -> String {
        let mut marks = String::new();
        if !self.via.is_empty() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let via: String = self.via.chars().filter(|&c| plain(c)).collect();
            _ = write!(marks, " via={via}");
        }
        if let Some(within) = self.confirm {
            _ = write!(marks, " confirm={}", within.seconds);
            if let Some(back) = within.back {
                _ = write!(marks, " back={back}");
            }
        }
        match marks.is_empty() {
            true => self.words.clone(),
            false => format!("{}\n~{marks}", self.words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_taken_apart_as_it_was_put_together() {
        for words in ["", "canary 10 %", "two\nlines", "~ not a mark\nlast"] {
            for via in ["", "cli"] {
                for confirm in [None, Some((300, Some(41))), Some((5, None))] {
                    let confirm = confirm.map(|(seconds, back)| Within { seconds, back });
                    let noted = Noted {
                        words: words.to_owned(),
                        via: via.to_owned(),
                        confirm,
                    };
                    assert_eq!(Noted::of(&noted.note()), noted);
                }
            }
        }
        assert_eq!(Noted::of("a note of namerctl").words, "a note of namerctl");
    }
}
