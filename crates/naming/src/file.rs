//! A file that is followed while it changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

/// The file is looked at again after this time, in case an event was lost.
const AUDIT: Duration = Duration::from_secs(60);
/// The same where a folder on the way to it can't be watched.
const POLL: Duration = Duration::from_secs(2);
/// A file is read when nothing happened to it for so long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(20);
/// But after this time in any case: other files of its folder may be written all the time.
const LONGEST: Duration = Duration::from_millis(500);
/// An emptied file is believed after this time: most are just being written.
const EMPTY: Duration = Duration::from_millis(250);
/// As many links as Linux follows.
const LINKS: usize = 40;

/// Follows one file through everything that may become of it: written in place, replaced by another one, behind links
/// that are set anew, as Kubernetes does with mounted ConfigMaps (`config.yaml` → `..data/config.yaml`, and `..data` is
/// what changes).
pub struct FollowedFile {
    path: PathBuf,
    events: Arc<Notify>,
    folders: Vec<Folder>,
    watcher: Option<RecommendedWatcher>,
    /// When a change was first heard of that nobody has read yet.
    heard: Option<Instant>,
}

/// A folder on the way to the file, and which one it was when it was last looked at.
#[derive(Debug, PartialEq)]
struct Folder {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl FollowedFile {
    /// Begins to follow it; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut followed = Self {
            path: path.into(),
            events: Arc::new(Notify::new()),
            folders: Vec::new(),
            watcher: None,
            heard: None,
        };
        followed.watch();
        followed
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the file may be another one than before. Cancel safe.
    pub async fn changed(&mut self) {
        let period = if self.watcher.is_some() { AUDIT } else { POLL };
        // Both ends of the wait are a reason to look.
        _ = timeout(period, self.events.notified()).await;
        self.heard.get_or_insert_with(Instant::now);
    }

    /// The file's text once nobody is writing it, and when the change was first heard of; the system's message when it
    /// cannot be read.
    pub async fn read(&mut self) -> (Result<String, String>, Instant) {
        let heard = *self.heard.get_or_insert_with(Instant::now);
        let until = Instant::now() + LONGEST;
        while Instant::now() < until && timeout(QUIET, self.events.notified()).await.is_ok() {}
        self.watch();
        let mut text = self.text().await;
        if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
            tokio::time::sleep(EMPTY).await;
            text = self.text().await;
        }
        self.heard = None;
        (text, heard)
    }

    async fn text(&self) -> Result<String, String> {
        let text = tokio::fs::read_to_string(&self.path).await;
        text.map_err(|error| error.to_string())
    }

    /// Watches all folders on the way to the file, unless it does that already. Folders are watched, not the file: the
    /// watch of a file dies with the file when another takes its place.
    fn watch(&mut self) {
        let folders = folders(&self.path);
        if self.watcher.is_some() && folders == self.folders {
            return;
        }
        let was_watched = self.watcher.is_some() || self.folders.is_empty();
        let events = self.events.clone();
        let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| is_reading(event.kind)) {
                events.notify_one();
            }
        })
        .and_then(|mut watcher| {
            for folder in &folders {
                watcher.watch(&folder.path, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        self.watcher = started
            .inspect_err(|error| {
                if was_watched {
                    warn!(file = %self.path.display(), %error, "can't watch the file's folder, looking at it now and then");
                }
            })
            .ok();
        self.folders = folders;
    }
}

impl std::fmt::Debug for FollowedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowedFile")
            .field("path", &self.path)
            .field("watched", &self.watcher.is_some())
            .finish_non_exhaustive()
    }
}

/// The folder of the file, and those of everything that links on the way to it point at.
fn folders(path: &Path) -> Vec<Folder> {
    let mut folders: Vec<Folder> = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let folder = folder(&path);
        let target = std::fs::read_link(&path).map(|target| folder.join(target));
        if !folders.iter().any(|known| known.path == folder) {
            let identity = identify(&folder);
            folders.push(Folder {
                path: folder,
                identity,
            });
        }
        match target {
            Ok(target) => path = target,
            Err(_) => break,
        }
    }
    folders
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn identify(folder: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(folder).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Our own reading makes events, too.
const fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The next text that differs from `before`.
    async fn next(followed: &mut FollowedFile, before: &str) -> String {
        let waiting = async {
            loop {
                followed.changed().await;
                if let (Ok(text), _) = followed.read().await
                    && text != before
                {
                    return text;
                }
            }
        };
        // Well below the audit: an event was heard.
        timeout(Duration::from_secs(20), waiting).await.unwrap()
    }

    #[tokio::test]
    async fn a_change_is_heard_whichever_way_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, "1").unwrap();
        let mut followed = FollowedFile::new(&file);
        assert_eq!(followed.read().await.0.unwrap(), "1");
        fs::write(&file, "2").unwrap();
        assert_eq!(next(&mut followed, "1").await, "2");
        fs::write(folder.path().join("new"), "3").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert_eq!(next(&mut followed, "2").await, "3");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "4").unwrap();
        assert_eq!(next(&mut followed, "3").await, "4");
    }

    #[tokio::test]
    async fn a_mounted_config_map_is_followed_through_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let version = |n: u32| {
            let own = format!("..2026_{n}");
            fs::create_dir(at(&own)).unwrap();
            fs::write(at(&own).join("config.yaml"), n.to_string()).unwrap();
            symlink(&own, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        version(0);
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        let mut followed = FollowedFile::new(at("config.yaml"));
        for n in 1..5 {
            let before = followed.read().await.0.unwrap();
            version(n);
            fs::remove_dir_all(at(&format!("..2026_{}", n - 1))).unwrap();
            assert_eq!(next(&mut followed, &before).await, n.to_string());
        }
    }

    #[tokio::test]
    async fn a_link_to_a_file_elsewhere_is_followed_to_there() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, file) = (here.path().join("link"), there.path().join("file"));
        fs::write(&file, "1").unwrap();
        symlink(&file, &link).unwrap();
        let mut followed = FollowedFile::new(&link);
        assert_eq!(followed.read().await.0.unwrap(), "1");
        fs::write(&file, "2").unwrap();
        assert_eq!(next(&mut followed, "1").await, "2");
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("file"), "3").unwrap();
        symlink(other.path().join("file"), here.path().join("new")).unwrap();
        fs::rename(here.path().join("new"), &link).unwrap();
        assert_eq!(next(&mut followed, "2").await, "3");
        fs::write(other.path().join("file"), "4").unwrap();
        assert_eq!(next(&mut followed, "3").await, "4");
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_steps_is_not_read_empty_and_one_that_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "").unwrap();
        let mut followed = FollowedFile::new(&file);
        let reading = tokio::spawn(async move {
            let text = followed.read().await.0;
            (followed, text)
        });
        tokio::time::sleep(EMPTY / 2).await;
        fs::write(&file, "whole").unwrap();
        let (mut followed, text) = reading.await.unwrap();
        assert_eq!(text.unwrap(), "whole");
        fs::remove_file(&file).unwrap();
        assert!(followed.read().await.0.is_err());
    }
}
