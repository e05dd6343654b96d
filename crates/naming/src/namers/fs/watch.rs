//! Says when to look: after an event, when something was in doubt, and every minute.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::scan::{Reread, Scan};

/// Everything is read again after this time, in case an event was lost.
const AUDIT: Duration = Duration::from_secs(60);
/// The same where the folder can't be watched (no inotify instances left, a network file system).
const POLL: Duration = Duration::from_secs(2);
/// Events come in bursts.
const BURST: Duration = Duration::from_millis(5);

enum Message {
    Seen(notify::Result<Event>),
    Stop,
}

/// The thread that follows a folder; it ends after this is dropped, not waited for: a slow disk must not hold up who
/// drops it.
pub(super) struct Watch {
    messages: Sender<Message>,
}

impl Watch {
    pub(super) fn start(root: PathBuf, scan: Scan) -> Self {
        let (messages, received) = channel();
        let own = messages.clone();
        let spawned = std::thread::Builder::new()
            .name("io.l5d.fs".to_owned())
            .spawn(move || follow(&root, scan, &own, &received));
        if let Err(error) = spawned {
            warn!(%error, "no thread to follow address files");
        }
        Self { messages }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        _ = self.messages.send(Message::Stop);
    }
}

fn follow(root: &Path, mut scan: Scan, messages: &Sender<Message>, received: &Receiver<Message>) {
    let mut watcher = watch(root, messages);
    let mut identity = identify(root);
    // What happened between the first look and the watch.
    let mut again = scan.look(&Reread::All, Instant::now());
    let mut audit = Instant::now();
    loop {
        let period = if watcher.is_some() { AUDIT } else { POLL };
        let next = again
            .into_iter()
            .chain([audit + period])
            .min()
            .unwrap_or(audit);
        let Some(touched) = wait(received, next) else {
            return;
        };
        let now_identity = identify(root);
        if now_identity != identity || watcher.is_none() {
            // Another folder at the same place, which the old watch knows nothing of.
            watcher = watch(root, messages);
            identity = now_identity;
        }
        let reread = if Instant::now() >= audit + period {
            audit = Instant::now();
            Reread::All
        } else {
            Reread::Touched(touched)
        };
        again = scan.look(&reread, Instant::now());
    }
}

fn identify(root: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(root).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The whole folder is watched, never a file: the watch of a file dies with the file when another takes its place.
fn watch(root: &Path, messages: &Sender<Message>) -> Option<RecommendedWatcher> {
    let messages = messages.clone();
    let started = notify::recommended_watcher(move |event| _ = messages.send(Message::Seen(event)))
        .and_then(|mut watcher| {
            watcher
                .watch(root, RecursiveMode::Recursive)
                .map(|()| watcher)
        });
    started.inspect_err(|error| warn!(root = %root.display(), %error, "can't watch the folder, looking at it now and then")).ok()
}

/// Waits for events, and for the rest of their burst. Gives the places they name; none when it is over.
fn wait(received: &Receiver<Message>, until: Instant) -> Option<HashSet<PathBuf>> {
    let mut touched = HashSet::new();
    let mut until = until;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        match received.recv_timeout(rest) {
            Err(RecvTimeoutError::Timeout) => return Some(touched),
            Err(RecvTimeoutError::Disconnected) | Ok(Message::Stop) => return None,
            Ok(Message::Seen(Ok(event))) if is_reading(event.kind) => {}
            Ok(Message::Seen(event)) => {
                touched.extend(event.map(|event| event.paths).unwrap_or_default());
                until = until.min(Instant::now() + BURST);
            }
        }
    }
}

/// Our own reading makes events, too.
fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}
