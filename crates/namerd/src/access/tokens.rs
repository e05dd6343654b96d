//! The file of tokens: who each of them stands for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use naming::file::FollowedFile;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{ANONYMOUS, Subject};

/// What a token must have at least: shorter ones can be guessed.
const TOKEN_BYTES: usize = 16;

/// Tokens by a file of lines `NAME TOKEN [GROUP…]`, where a token can be told as `sha256:` and the hash in hexadecimal.
/// It is followed; one that cannot be read then changes nothing.
pub struct TokenFile {
    table: Arc<Mutex<Arc<Table>>>,
    /// The task that follows the file.
    following: AbortHandle,
}

type Table = HashMap<[u8; 32], Subject>;

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of tokens {}: {reason}", path.display())]
pub struct TokenFileError {
    path: PathBuf,
    reason: String,
}

impl TokenFile {
    /// Reads the file, which must be there, and follows it on `control`.
    pub fn open(path: impl Into<PathBuf>, control: &Handle) -> Result<Self, TokenFileError> {
        let path = path.into();
        // Before it is read, so that no change is missed.
        let file = {
            let _entered = control.enter();
            FollowedFile::new(&path)
        };
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let table = text.and_then(|text| read(&text));
        let table = table.map_err(|reason| TokenFileError { path, reason })?;
        let table = Arc::new(Mutex::new(Arc::new(table)));
        let following = control.spawn(follow(file, table.clone())).abort_handle();
        Ok(Self { table, following })
    }

    /// Whose token this is.
    pub(super) fn subject(&self, token: &str) -> Option<Subject> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let table = lock(&self.table).clone();
        table.get(&hash).cloned()
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn lock(table: &Mutex<Arc<Table>>) -> MutexGuard<'_, Arc<Table>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the table at what the file says.
async fn follow(mut file: FollowedFile, table: Arc<Mutex<Arc<Table>>>) {
    let mut wrong = None;
    loop {
        file.changed().await;
        let (text, _) = file.read().await;
        let path = file.path().display();
        match text.and_then(|text| read(&text)) {
            Ok(new) => {
                wrong = None;
                let mut known = lock(&table);
                if **known != new {
                    tracing::info!(file = %path, tokens = new.len(), "tokens read again");
                    *known = Arc::new(new);
                }
            }
            Err(error) => {
                // Once: the file is looked at again and again.
                if wrong.as_ref() != Some(&error) {
                    tracing::warn!(file = %path, error, "the new tokens are not taken, those known stay");
                }
                wrong = Some(error);
            }
        }
    }
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
    use std::time::Duration;

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
        let tokens = TokenFile::open(file.path(), &Handle::current()).unwrap();
        let ci = tokens.subject("plain-secret-of-ci").unwrap();
        assert_eq!((&*ci.name, ci.groups.len()), ("ci", 0));
        let bob = tokens.subject("hashed-secret-of-bob").unwrap();
        assert_eq!(
            (&*bob.name, bob.groups.join(" ")),
            ("bob", "ops dev".to_owned())
        );
        for nobody in ["", "plain-secret-of-c", &format!("sha256:{hash}"), &hash] {
            assert_eq!(tokens.subject(nobody), None, "{nobody}");
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

    /// Waits until a token stands for somebody, or does not any more.
    async fn until(tokens: &TokenFile, token: &str, known: bool) {
        let seen = async {
            while tokens.subject(token).is_some() != known {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
        seen.unwrap_or_else(|_| panic!("{token}: {known}"));
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ci the-first-secret-of-ci").unwrap();
        let tokens = TokenFile::open(file.path(), &Handle::current()).unwrap();
        std::fs::write(file.path(), "ci the-second-secret-of-ci").unwrap();
        until(&tokens, "the-second-secret-of-ci", true).await;
        assert_eq!(tokens.subject("the-first-secret-of-ci"), None);
        for broken in ["ci", "ci short", "ci the-second-secret-of-ci\nann"] {
            std::fs::write(file.path(), broken).unwrap();
            // Longer than a change takes to be heard of and read.
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(
                tokens.subject("the-second-secret-of-ci").is_some(),
                "{broken}"
            );
        }
        std::fs::write(file.path(), "ci the-third-one-of-ci").unwrap();
        until(&tokens, "the-third-one-of-ci", true).await;
        until(&tokens, "the-second-secret-of-ci", false).await;
        file.close().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(tokens.subject("the-third-one-of-ci").is_some());
    }
}
