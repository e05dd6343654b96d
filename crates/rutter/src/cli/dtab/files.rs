//! Texts in files and folders: read, laid out, looked over, written.

use std::path::{Path, PathBuf};

use dtab::{Dtab, Layout};
use namerd::change::lint::{Ground, lint};
use namerd::change::shapes::{Linted, Namespaces, Shown};

use super::super::store_client::{Ask, Failure};
use super::super::{Exit, complain, read_text, say};
use super::{Work, print};
use crate::config::lint::unknown_built_in;

/// The first line of what `get` prints; as namerctl's.
const VERSION_LINE: &str = "# version ";
/// How the files of a folder end.
const ENDING: &str = "dtab";

/// A dtab from a file.
pub(super) struct Given {
    /// Without the line of its version.
    pub(super) text: String,
    /// What it was made from.
    pub(super) version: Option<String>,
}

impl Given {
    pub(super) fn of(text: &str) -> Self {
        let Some(rest) = text.strip_prefix(VERSION_LINE) else {
            return Self {
                text: text.to_owned(),
                version: None,
            };
        };
        let (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        let version = line.split_whitespace().next().unwrap_or_default();
        Self {
            text: rest.to_owned(),
            version: Some(version.to_owned()).filter(|version| !version.is_empty()),
        }
    }
}

/// Reads a file, or stdin.
pub(super) fn read(file: &str) -> Result<Given, Failure> {
    let text = read_text(file).map_err(|message| {
        let message = message.replace("config is not a file", "there is no file");
        Failure::new(Exit::Usage, message)
    })?;
    Ok(Given::of(&text))
}

/// The dtab of a text; the error shows the spot.
pub(super) fn parsed(text: &str, file: &str) -> Result<Dtab, Failure> {
    Dtab::read(text).map_err(|error| {
        let message = format!("{file} is no dtab: {}", error.report(text));
        Failure::new(Exit::No, message)
    })
}

/// A text with its version as the first line, from which it is written again.
pub(super) fn with_version(shown: &Shown) -> String {
    let Shown { version, text, .. } = shown;
    format!("{VERSION_LINE}{}\n{text}", version.version)
}

/// Likely mistakes that can be told without a store.
pub(super) fn linted(text: &str) -> Linted {
    let no_namer = |path: &dtab::Path| {
        let first = path.segments().first().and_then(|segment| segment.as_str());
        let unknown = (first == Some("$"))
            .then(|| unknown_built_in(path))
            .flatten();
        unknown.map(|(message, _)| message.replace(" (RT-D04)", ""))
    };
    let ground = Ground {
        roots: vec![dtab::Path::utf8(["svc"])],
        no_namer: &no_namer,
    };
    Linted {
        findings: lint(text, &ground).unwrap_or_default(),
    }
}

impl Work<'_> {
    pub(super) fn fmt(&self, files: &[String], write: bool, check: bool) -> Result<Exit, Failure> {
        let mut exit = Exit::Done;
        for file in files {
            let text = read_text(file).map_err(|message| {
                Failure::new(
                    Exit::Usage,
                    message.replace("config is not a file", "there is no file"),
                )
            })?;
            parsed(&text, file)?;
            let formatted = Layout::read(&text).map(|layout| layout.formatted());
            let formatted = formatted.unwrap_or_else(|_| text.clone());
            let same = formatted == text;
            match (check, write && file != "-") {
                (true, _) if !same => {
                    complain(&format!("{file} is not laid out as `rutter dtab fmt` does"));
                    exit = Exit::No;
                }
                (true, _) => {}
                (false, true) if same => {}
                (false, true) => std::fs::write(file, formatted).map_err(|error| {
                    Failure::new(Exit::No, format!("{file} cannot be written: {error}"))
                })?,
                (false, false) => {
                    _ = say(&formatted)
                        .map_err(|error| Failure::new(Exit::Internal, format!("{error:#}")))?;
                }
            }
        }
        Ok(exit)
    }

    pub(super) async fn export(&self, folder: &Path) -> Result<Exit, Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::new(
                Exit::No,
                format!("{} cannot be written: {error}", path.display()),
            )
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let all: Namespaces = self.store.json(Ask::new("GET", "namespaces")).await?;
        for version in &all.namespaces {
            let shown = self
                .shown_of(&namerd::api::encoded(&version.namespace))
                .await?;
            let path = folder.join(format!(
                "{}.{ENDING}",
                namerd::api::encoded(&version.namespace)
                    .replace("%2D", "-")
                    .replace("%5F", "_")
            ));
            // Without its version: such a file changes when the dtab does.
            let mut text = shown.text;
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        }
        self.answer("export", &all, |all| print::exported(all, folder))?;
        Ok(Exit::Done)
    }
}

/// The dtabs of files and folders, by namespace.
pub(super) fn collected(paths: &[PathBuf]) -> Result<Vec<(String, Given)>, Failure> {
    let failed = |path: &Path, reason: String| {
        Failure::new(Exit::Usage, format!("{}: {reason}", path.display()))
    };
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = path
            .read_dir()
            .map_err(|error| failed(path, error.to_string()))?;
        let inside = entries.flatten().map(|entry| entry.path());
        files.extend(inside.filter(|file| file.extension().is_some_and(|ending| ending == ENDING)));
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let stem = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.unwrap_or_default();
        let name =
            decoded(&stem).ok_or_else(|| failed(&file, "its name is no namespace".to_owned()))?;
        let given = read(&file.to_string_lossy())?;
        parsed(&given.text, &file.to_string_lossy())?;
        all.push((name, given));
    }
    match all.is_empty() {
        true => Err(Failure::new(
            Exit::Usage,
            format!("there is no *.{ENDING} to be read"),
        )),
        false => Ok(all),
    }
}

/// A file's name with its `%2F` taken back.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        match (byte, behind.get(..2)) {
            (b'%', Some(digits)) => {
                let digits = std::str::from_utf8(digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &behind[2..];
            }
            (b'%', None) => return None,
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_s_line_is_taken_off() {
        let given = Given::of("# version AAAAAAAAAAE=\n# mine\n/a => /b");
        assert_eq!(
            (&*given.text, given.version.as_deref()),
            ("# mine\n/a => /b", Some("AAAAAAAAAAE="))
        );
        assert_eq!(Given::of("# versions\n/a => /b").version, None);
        assert_eq!(decoded("a%2Fb-c").as_deref(), Some("a/b-c"));
        assert!(decoded("a%2").is_none() && decoded("%zz").is_none());
    }
}
