//! The configuration file while the process runs: it is followed, and what is valid comes into force without a pause.
//!
//! All of it is read, checked and built first; only then is anything exchanged. What cannot be had, or is not valid,
//! leaves everything as it is, and says so in the log, in a metric and in `/ready`.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use admin::Condition;
use naming::file::FollowedFile;
use tokio::signal::unix::Signal;

use super::{Node, Reloaded};
use crate::config::{self, Environment};

/// The condition on `/ready`, which is always met: the old configuration works.
const CONDITION: &str = "configuration";
const RELOADS: &str = "rutter_config_reloads_total";
const LAST_SUCCESS: &str = "rutter_config_last_reload_success_timestamp_seconds";
const SUCCESSFUL: &str = "rutter_config_last_reload_successful";

/// Follows the configuration file of a node.
pub(super) struct Follower {
    /// None when the configuration came from stdin or a pipe.
    file: Option<FollowedFile>,
    /// The text that was looked at last, valid or not.
    seen: Result<String, String>,
    hangup: Signal,
    environment: Environment,
    condition: Condition,
}

impl Follower {
    /// Begins to follow the file, if it is one; `text` is in force already.
    pub(super) fn new(
        node: &Node,
        file: Option<PathBuf>,
        text: &str,
        hangup: Signal,
        environment: Environment,
    ) -> Self {
        // What comes out of a pipe comes once.
        let file = file.filter(|file| std::fs::metadata(file).is_ok_and(|meta| meta.is_file()));
        let follower = Self {
            hangup,
            condition: node
                .surroundings
                .readiness
                .condition(CONDITION, "not read yet"),
            file: file.map(FollowedFile::new),
            seen: Ok(text.to_owned()),
            environment,
        };
        for result in ["ok", "rejected"] {
            metrics::counter!(RELOADS, "result" => result).increment(0);
        }
        follower.in_force();
        follower
    }

    /// Keeps the node's configuration the one of the file, for ever. May be dropped at any moment.
    pub(super) async fn run(mut self, node: &mut Node) {
        // The first look is for what happened since the start.
        let mut asked = false;
        loop {
            self.look(node, asked).await;
            asked = self.next().await;
            if asked {
                node.routers().iter().for_each(|router| router.hangup());
            }
        }
    }

    /// Takes in the file if it is another one, or if somebody asked for it.
    async fn look(&mut self, node: &mut Node, asked: bool) {
        match &mut self.file {
            Some(file) => {
                let (text, heard) = file.read().await;
                if asked || text != self.seen {
                    self.seen.clone_from(&text);
                    self.take(node, text, heard).await;
                }
            }
            None if asked => {
                tracing::warn!(
                    "SIGHUP: the configuration came from stdin or a pipe and cannot be read again"
                );
            }
            None => {}
        }
    }

    /// Waits for a reason to look; true when somebody asked for it.
    async fn next(&mut self) -> bool {
        let changed = async {
            match &mut self.file {
                Some(file) => file.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => false,
            _ = self.hangup.recv() => true,
        }
    }

    async fn take(&self, node: &mut Node, text: Result<String, String>, heard: Instant) {
        let path = self
            .file
            .as_ref()
            .map_or(Path::new("-"), FollowedFile::path);
        let name = path.display().to_string();
        let loaded = text
            .map_err(|error| format!("{name} cannot be read: {error}"))
            .and_then(|text| {
                let loaded = config::load(&name, &text, &self.environment);
                loaded.map_err(|problems| problems.only_errors().render())
            });
        let taken = match loaded {
            Err(problem) => Err(problem),
            Ok(loaded) => {
                if loaded.problems.warnings() > 0 {
                    tracing::warn!(file = %name, problems = %loaded.problems.render(), "the configuration has warnings");
                }
                let taken = node.reload(loaded.config, heard).await;
                taken.map_err(|error| format!("{error:#}"))
            }
        };
        match taken {
            Ok(reloaded) => {
                say(&name, &reloaded, heard);
                self.in_force();
                metrics::counter!(RELOADS, "result" => "ok").increment(1);
            }
            Err(problem) => {
                let problem = problem.trim_end();
                tracing::error!(file = %name, %problem, "configuration not taken, the one before stays in force");
                self.condition.met(format!(
                    "the file as it is now is not taken, the configuration before it stays in force: {problem}"
                ));
                metrics::gauge!(SUCCESSFUL).set(0.0);
                metrics::counter!(RELOADS, "result" => "rejected").increment(1);
            }
        }
    }

    /// Says that the file as it is now is in force.
    fn in_force(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_secs_f64();
        metrics::gauge!(LAST_SUCCESS).set(since);
        metrics::gauge!(SUCCESSFUL).set(1.0);
        self.condition.met(match &self.file {
            Some(file) => format!("as in {}", file.path().display()),
            None => "as it was at the start".to_owned(),
        });
    }
}

fn say(file: &str, reloaded: &Reloaded, heard: Instant) {
    for key in &reloaded.restart {
        tracing::warn!(%file, %key, "this change takes effect with the next start only");
    }
    if reloaded.late > 0 {
        tracing::error!(%file, workers = reloaded.late, "data threads that are busy have not taken the configuration yet");
    }
    tracing::info!(
        %file,
        routers = ?reloaded.changed,
        opened = ?reloaded.opened,
        closed = ?reloaded.closed,
        elapsed_ms = heard.elapsed().as_millis() as u64,
        "configuration taken"
    );
}
