//! The process itself: what it is, its configuration, its end; and the page of links.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use askama::Template;
use axum::Extension;
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::Admin;
use crate::html::{self, Site};
use crate::shelf::json_response;

#[derive(Template)]
#[template(path = "help.html")]
struct Help;

impl Admin {
    /// `/admin/server_info`: name, version, revision, start and uptime, with the keys that Finagle's has.
    #[must_use]
    pub fn server_info(self, name: &str, version: &str, revision: &str) -> Self {
        let (name, version, revision) = (name.to_owned(), version.to_owned(), revision.to_owned());
        let started = Instant::now();
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let start_time = since_epoch.map_or(0, |d| d.as_millis() as u64);
        self.json("/admin/server_info", move || {
            json!({
                "name": name,
                "version": version,
                "build": version,
                "build_revision": revision,
                "start_time": start_time,
                "uptime": started.elapsed().as_millis() as u64,
            })
        })
    }

    /// `/config.json`: the configuration as it was given, as JSON.
    #[must_use]
    pub fn config_json(self, config: Value) -> Self {
        let config = Arc::new(config);
        self.page(
            "/config.json",
            get(move || {
                let config = config.clone();
                async move { json_response(&config) }
            }),
        )
    }

    /// `/admin/shutdown`: POST calls `stop`, which begins the graceful end and returns at once.
    #[must_use]
    pub fn shutdown(self, stop: impl Fn() + Send + Sync + 'static) -> Self {
        let stop = Arc::new(stop);
        self.page(
            "/admin/shutdown",
            post(move || {
                let stop = stop.clone();
                async move {
                    stop();
                    "shutting down\n"
                }
            }),
        )
    }

    /// `/help`: what is where on this port.
    #[must_use]
    pub fn help(self) -> Self {
        self.nav_page(
            "/help",
            "Help",
            get(|site: Extension<Arc<Site>>| async move {
                html::page(&site, ("/help", "Help"), None, false, &Help)
            }),
        )
    }
}
