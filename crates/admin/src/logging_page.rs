//! `/logging` and `/logging.json`: which modules log how much.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::Admin;
use crate::html::{self, Site};

/// A logger and its level, as `/logging.json` lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logger {
    /// The module; the one above all is `root`.
    pub logger: String,
    /// `ERROR`, `WARNING`, `INFO`, `DEBUG`, `TRACE` or `OFF`.
    pub level: String,
}

/// The log filter, as the page sees it.
pub trait LogLevels: Send + Sync {
    /// All loggers that have a level of their own, `root` first.
    fn list(&self) -> Vec<Logger>;
    /// Sets a level. What cannot be set is left as it is: Linkerd answers 200 then, too.
    fn set(&self, logger: &str, level: &str);
}

impl LogLevels for telemetry::log::LogHandle {
    fn list(&self) -> Vec<Logger> {
        serde_json::from_value(self.json()).unwrap_or_default()
    }

    fn set(&self, logger: &str, level: &str) {
        if let Err(error) = telemetry::log::LogHandle::set(self, logger, level) {
            tracing::warn!(logger, level, %error, "log level not set");
        }
    }
}

const LEVELS: [&str; 6] = ["OFF", "ERROR", "WARNING", "INFO", "DEBUG", "TRACE"];

/// The fields of the form. `next` is where our page wants to go afterwards.
#[derive(Deserialize)]
struct Change {
    logger: Option<String>,
    level: Option<String>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "logging.html")]
struct Logging {
    loggers: Vec<Logger>,
    levels: [&'static str; 6],
}

impl Admin {
    /// `/logging` (page) and `/logging.json` (GET lists, POST of a form with `logger` and `level` sets).
    #[must_use]
    pub fn logging(self, levels: Arc<dyn LogLevels>) -> Self {
        let (shown, listed, changed) = (levels.clone(), levels.clone(), levels);
        let page = get(move |site: Extension<Arc<Site>>| async move {
            let main = Logging {
                loggers: shown.list(),
                levels: LEVELS,
            };
            html::page(&site, ("/logging", "Logging"), None, false, &main)
        });
        let json = get(move || async move { axum::Json(listed.list()) })
            .post(move |body: String| async move { change(&*changed, &body) });
        self.nav_page("/logging", "Logging", page)
            .page("/logging.json", json)
    }
}

fn change(levels: &dyn LogLevels, body: &str) -> Response {
    match form(body) {
        Some(Change {
            logger: Some(logger),
            level: Some(level),
            next,
        }) => {
            levels.set(&logger, &level);
            // Only to our own page: a `next` from elsewhere would make this an open redirect.
            match next.as_deref() {
                Some("/logging") => Redirect::to("/logging").into_response(),
                _ => StatusCode::OK.into_response(),
            }
        }
        _ => (
            StatusCode::BAD_REQUEST,
            "wanted a form with the fields `logger` and `level`\n",
        )
            .into_response(),
    }
}

/// A form's body has the syntax of a query.
fn form(body: &str) -> Option<Change> {
    let uri: Uri = format!("/?{}", body.trim()).parse().ok()?;
    Query::<Change>::try_from_uri(&uri)
        .ok()
        .map(|query| query.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_with_its_escapes() {
        let change = form("logger=rutter%3A%3Anamer&level=DEBUG").unwrap();
        assert_eq!(change.logger.as_deref(), Some("rutter::namer"));
        assert_eq!(change.level.as_deref(), Some("DEBUG"));
        assert!(form("logger=%zz\n x").is_none_or(|c| c.level.is_none()));
    }
}
