//! The file of tokens: who each of them stands for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::{ANONYMOUS, Subject};

/// Whether the file has changed is looked at this often, at most.
const LOOK: Duration = Duration::from_secs(1);
/// What a token must have at least: shorter ones can be guessed.
const TOKEN_BYTES: usize = 16;

/// Tokens by a file of lines `NAME TOKEN [GROUP…]`, where a token can be told as `sha256:` and the hash in hexadecimal.
/// It is read again when it changes; one that cannot be read then changes nothing.
pub struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    looked: Instant,
    stamp: Stamp,
    table: Arc<Table>,
}

type Stamp = (Option<SystemTime>, u64);
type Table = HashMap<[u8; 32], Subject>;

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of tokens {}: {reason}", path.display())]
pub struct TokenFileError {
    path: PathBuf,
    reason: String,
}

impl TokenFile {
    /// Reads the file, which must be there.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokenFileError> {
        let path = path.into();
        let failed = |reason: String| TokenFileError {
            path: path.clone(),
            reason,
        };
        let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let stamp = std::fs::metadata(&path).map_err(|error| failed(error.to_string()))?;
        let stamp = (stamp.modified().ok(), stamp.len());
        let table = Arc::new(read(&text).map_err(failed)?);
        Ok(Self {
            path,
            state: Mutex::new(State {
                looked: Instant::now(),
                stamp,
                table,
            }),
        })
    }

    /// Whose token this is.
    pub(super) async fn subject(&self, token: &str) -> Option<Subject> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.current().await.get(&hash).cloned()
    }

    async fn current(&self) -> Arc<Table> {
        let (table, stamp) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.looked.elapsed() < LOOK {
                return state.table.clone();
            }
            state.looked = Instant::now();
            (state.table.clone(), state.stamp)
        };
        match again(&self.path, stamp).await {
            Ok(None) => table,
            Ok(Some((stamp, text))) => self.take(stamp, &text, table),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), error, "the tokens cannot be read again, those known stay");
                table
            }
        }
    }

    fn take(&self, stamp: Stamp, text: &str, before: Arc<Table>) -> Arc<Table> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stamp = stamp;
        match read(text) {
            Ok(table) => {
                tracing::info!(file = %self.path.display(), tokens = table.len(), "tokens read again");
                state.table = Arc::new(table);
                state.table.clone()
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), error, "the new tokens are not taken, those known stay");
                before
            }
        }
    }
}

/// The file's text, if it is not that of `stamp`.
async fn again(path: &Path, stamp: Stamp) -> Result<Option<(Stamp, String)>, String> {
    let about = tokio::fs::metadata(path).await.map_err(|e| e.to_string())?;
    let now = (about.modified().ok(), about.len());
    if now == stamp {
        return Ok(None);
    }
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|e| e.to_string())?;
    Ok(Some((now, text)))
}

fn read(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        let mut words = line.split_whitespace();
        let (Some(name), Some(token)) = (words.next(), words.next()) else {
            return Err(wrong(
                "wanted `NAME TOKEN [GROUP…]`, found one word; a token can be written as `sha256:` and its hash in hexadecimal",
            ));
        };
        if name == ANONYMOUS || name == "*" || name.contains(':') {
            return Err(wrong(&format!(
                "nobody can be called {name}: `{ANONYMOUS}`, `*` and colons have meanings of their own in grants"
            )));
        }
        let hash = match token.strip_prefix("sha256:") {
            Some(hash) => from_hex(hash)
                .ok_or_else(|| wrong("`sha256:` takes the 64 hexadecimal digits of a hash"))?,
            None if token.len() < TOKEN_BYTES => {
                return Err(wrong(&format!(
                    "the token has {} bytes, at least {TOKEN_BYTES} are wanted",
                    token.len()
                )));
            }
            None => Sha256::digest(token.as_bytes()).into(),
        };
        let subject = Subject {
            name: name.into(),
            groups: words.map(Into::into).collect(),
        };
        if let Some(other) = table.insert(hash, subject) {
            return Err(wrong(&format!("this is {}'s token, too", other.name)));
        }
    }
    Ok(table)
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_stands_for_its_name_and_groups_also_as_a_hash() {
        let hash = Sha256::digest(b"hashed-secret-of-bob")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("# who\n\nci  plain-secret-of-ci\nbob sha256:{hash} ops dev\n");
        std::fs::write(file.path(), text).unwrap();
        let tokens = TokenFile::open(file.path()).unwrap();
        let ci = tokens.subject("plain-secret-of-ci").await.unwrap();
        assert_eq!((&*ci.name, ci.groups.len()), ("ci", 0));
        let bob = tokens.subject("hashed-secret-of-bob").await.unwrap();
        assert_eq!(
            (&*bob.name, bob.groups.join(" ")),
            ("bob", "ops dev".to_owned())
        );
        for nobody in ["", "plain-secret-of-c", &format!("sha256:{hash}"), &hash] {
            assert_eq!(tokens.subject(nobody).await, None, "{nobody}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        for (text, want) in [
            ("ci", "line 1: wanted `NAME TOKEN [GROUP…]`"),
            ("\nci short", "line 2: the token has 5 bytes, at least 16"),
            ("ci sha256:12", "64 hexadecimal digits"),
            (
                "anonymous a-secret-of-16-bytes",
                "nobody can be called anonymous",
            ),
            (
                "group:a a-secret-of-16-bytes",
                "nobody can be called group:a",
            ),
            (
                "a a-secret-of-16-bytes\nb a-secret-of-16-bytes",
                "line 2: this is a's token, too",
            ),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(want), "{text}: {said}");
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ci the-first-secret-of-ci").unwrap();
        let tokens = TokenFile::open(file.path()).unwrap();
        let soon = || tokens.state.lock().unwrap().looked = Instant::now() - 2 * LOOK;
        for (text, known) in [
            ("ci the-second-secret-of-ci-1", "the-second-secret-of-ci-1"),
            ("ci", "the-second-secret-of-ci-1"),
            ("ci the-third-one-of-ci", "the-third-one-of-ci"),
        ] {
            std::fs::write(file.path(), text).unwrap();
            soon();
            assert!(tokens.subject(known).await.is_some(), "{text}");
            assert!(tokens.subject("the-first-secret-of-ci").await.is_none());
        }
        file.close().unwrap();
        soon();
        assert!(tokens.subject("the-third-one-of-ci").await.is_some());
    }
}
