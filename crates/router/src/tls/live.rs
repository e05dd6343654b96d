//! Certificates while the process runs: their files are followed, and what is valid is in force for the next handshake.
//! What is not valid leaves the one before in force, and says so in the log and in a metric.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::select_all;
use naming::file::FollowedFile;
use telemetry::metrics::{Collector, Source};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::TlsFileError;
use super::files::{FromFiles, Made, Validity};
use crate::client::lock;

/// A certificate and its key are seldom written at the same moment: what does not fit is looked at once more.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// What was made of files, and is made anew when they change. Dropping it ends that.
pub(crate) struct Live<F: FromFiles> {
    from: F,
    now: Mutex<Arc<F::Made>>,
    follower: Mutex<Option<AbortHandle>>,
}

impl<F: FromFiles> Live<F> {
    /// Reads the files, and follows them on `control` from now on.
    pub(super) fn start(
        from: F,
        figures: &Arc<Figures>,
        control: &Handle,
    ) -> Result<Arc<Self>, TlsFileError> {
        // Before they are read, so that no change is missed.
        let files = from
            .files()
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>();
        let files: Vec<_> = {
            let _entered = control.enter();
            files.into_iter().map(FollowedFile::new).collect()
        };
        let Made { made, validities } = from.make()?;
        figures.took(&validities);
        let live = Arc::new(Self {
            from,
            now: Mutex::new(made),
            follower: Mutex::default(),
        });
        if !files.is_empty() {
            let task = follow(Arc::downgrade(&live), files, Arc::clone(figures));
            *lock(&live.follower) = Some(control.spawn(task).abort_handle());
        }
        Ok(live)
    }

    /// What the files were when they were last valid.
    pub(crate) fn now(&self) -> Arc<F::Made> {
        Arc::clone(&lock(&self.now))
    }

    pub(super) fn is_of(&self, from: &F) -> bool {
        self.from == *from
    }

    pub(super) fn from(&self) -> &F {
        &self.from
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.from.files()
    }
}

impl<F: FromFiles> Drop for Live<F> {
    fn drop(&mut self) {
        if let Some(follower) = lock(&self.follower).take() {
            follower.abort();
        }
    }
}

async fn follow<F: FromFiles>(
    live: Weak<Live<F>>,
    mut files: Vec<FollowedFile>,
    figures: Arc<Figures>,
) {
    let mut seen = contents(&files).await;
    loop {
        let changes = files.iter_mut().map(|file| file.changed().boxed());
        let ((), changed, _) = select_all(changes).await;
        // Waits until nobody is writing it, and finds out where it is now.
        _ = files[changed].read().await;
        let now = contents(&files).await;
        let Some(live) = live.upgrade() else {
            return;
        };
        if now == seen {
            continue;
        }
        let mut made = live.from.make();
        if made.is_err() {
            tokio::time::sleep(SECOND_LOOK).await;
            made = live.from.make();
        }
        seen = contents(&files).await;
        take(&live, made, &figures);
    }
}

fn take<F: FromFiles>(
    live: &Live<F>,
    made: Result<Made<F::Made>, TlsFileError>,
    figures: &Figures,
) {
    let files = live.from.files();
    match made {
        Ok(Made { made, validities }) => {
            *lock(&live.now) = made;
            figures.took(&validities);
            figures.reloads[0].fetch_add(1, Ordering::Relaxed);
            tracing::info!(what = F::WHAT, ?files, "certificates taken");
        }
        Err(error) => {
            figures.reloads[1].fetch_add(1, Ordering::Relaxed);
            tracing::error!(what = F::WHAT, ?files, %error, "changed certificates not taken, those before stay in force");
        }
    }
}

/// What is in the files, as far as they can be read; an audit finds no change in what is the same.
async fn contents(files: &[FollowedFile]) -> Vec<Option<Vec<u8>>> {
    let mut all = Vec::with_capacity(files.len());
    for file in files {
        all.push(tokio::fs::read(file.path()).await.ok());
    }
    all
}

/// What is told about a router's certificates, through all its configurations.
#[derive(Default)]
pub(super) struct Figures {
    /// Until when what is in these files is valid, in seconds since 1970.
    validities: Mutex<BTreeMap<PathBuf, f64>>,
    /// Taken, and not taken.
    reloads: [AtomicU64; 2],
}

impl Figures {
    fn took(&self, some: &[Validity]) {
        let mut all = lock(&self.validities);
        for one in some {
            let until = one.until.duration_since(UNIX_EPOCH).unwrap_or_default();
            all.insert(one.path.clone(), until.as_secs_f64());
        }
    }

    /// Files that are not used any more are not told about.
    pub(super) fn keep(&self, used: &[PathBuf]) {
        lock(&self.validities).retain(|path, _| used.contains(path));
    }
}

impl Source for Figures {
    fn collect(&self, out: &mut Collector<'_>) {
        for (result, count) in ["ok", "rejected"].into_iter().zip(&self.reloads) {
            let count = count.load(Ordering::Relaxed);
            out.ours("rutter_tls_reloads_total", &[("result", result)], count);
        }
        for (path, until) in lock(&self.validities).iter() {
            let path = path.display().to_string();
            out.our_gauge(
                "rutter_tls_certificate_expiry_timestamp_seconds",
                &[("file", &path)],
                *until,
            );
        }
    }
}
