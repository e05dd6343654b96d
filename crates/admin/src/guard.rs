//! Who may see or change what: Linkerd 1's `admin.security`, the same-origin rule for changes, and the headers that
//! keep a browser from running anything that did not come from this port.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use regex::Regex;

/// The configuration key `admin.security`. The default lets everything through, as in Linkerd 1.
#[derive(Debug, Clone)]
pub struct Security {
    /// Pages for people: `/`, `/delegator`, `/metrics.json`, `/logging`, `/help` and the like.
    pub ui: bool,
    /// What changes the process: `/admin/shutdown`, `/logging.json`.
    pub control: bool,
    /// Everything else.
    pub diagnostics: bool,
    /// Paths that pass although their category is off.
    pub whitelist: Vec<PathPattern>,
    /// Paths that never pass; wins over everything.
    pub blacklist: Vec<PathPattern>,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            ui: true,
            control: true,
            diagnostics: true,
            whitelist: Vec::new(),
            blacklist: Vec::new(),
        }
    }
}

/// A path list of `admin.security` holds something that is not a regular expression.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a regular expression: {reason}")]
pub struct SecurityError {
    pattern: String,
    reason: String,
}

/// A regular expression that has to match a whole path.
#[derive(Debug, Clone)]
pub struct PathPattern(Regex);

impl std::str::FromStr for PathPattern {
    type Err = SecurityError;
    fn from_str(pattern: &str) -> Result<Self, SecurityError> {
        // The group keeps `a|b` from binding to the anchors.
        Regex::new(&format!("^(?:{pattern})$"))
            .map(Self)
            .map_err(|error| SecurityError {
                pattern: pattern.to_owned(),
                reason: error.to_string(),
            })
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Category {
    Ui,
    Control,
    Diagnostics,
    /// Asked by the kubelet, not by people: no category closes these.
    Probe,
}

impl Security {
    /// Builds the path lists from the text in the configuration.
    pub fn with_lists<'a>(
        mut self,
        whitelist: impl IntoIterator<Item = &'a str>,
        blacklist: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SecurityError> {
        self.whitelist = whitelist
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        self.blacklist = blacklist
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Whether `path` may be answered at all.
    pub(crate) fn allows(&self, path: &str) -> bool {
        let listed = |list: &[PathPattern]| list.iter().any(|p| p.0.is_match(path));
        if listed(&self.blacklist) {
            return false;
        }
        let open = match category(path) {
            Category::Ui => self.ui,
            Category::Control => self.control,
            Category::Diagnostics => self.diagnostics,
            Category::Probe => true,
        };
        open || listed(&self.whitelist)
    }
}

/// As Linkerd 1's `SecurityFilter`, with our pages beside its own.
fn category(path: &str) -> Category {
    match path {
        "/live" | "/ready" => Category::Probe,
        "/admin/shutdown" | "/logging.json" => Category::Control,
        "/"
        | "/config.json"
        | "/metrics.json"
        | "/admin/metrics.json"
        | "/admin/metrics"
        | "/delegator"
        | "/delegator.json"
        | "/logging"
        | "/help" => Category::Ui,
        _ if path.starts_with("/files/") || path.starts_with("/admin/files/") => Category::Ui,
        _ => Category::Diagnostics,
    }
}

/// Refuses a change that a page of another site sent through somebody's browser.
///
/// Programs send neither `Sec-Fetch-Site` nor `Origin` and pass; so does a POST form of our own pages.
pub(crate) fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Box<Response>> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || same_origin(headers) {
        return Ok(());
    }
    let refusal = (
        StatusCode::FORBIDDEN,
        "this change came from another site's page; the admin port takes changes only from its own pages and from programs\n",
    );
    Err(Box::new(refusal.into_response()))
}

fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == text(header::HOST)
}

/// Headers of every answer. Nothing is cached but the embedded files, which set their own `Cache-Control`.
pub(crate) fn harden(headers: &mut HeaderMap) {
    const FIXED: [(&str, &str); 4] = [
        (
            "content-security-policy",
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ];
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_category_hides_its_paths_only() {
        let closed = Security {
            ui: false,
            ..Security::default()
        };
        for (path, seen) in [
            ("/", false),
            ("/delegator.json", false),
            ("/files/style.css", false),
            ("/logging.json", true),
            ("/admin/ping", true),
            ("/ready", true),
        ] {
            assert_eq!(closed.allows(path), seen, "{path}");
        }
    }

    #[test]
    fn the_blacklist_wins_over_the_whitelist_and_patterns_match_whole_paths() {
        let lists = Security {
            diagnostics: false,
            ..Security::default()
        }
        .with_lists(
            ["/admin/(ping|metrics)", "/a|/b"],
            ["/admin/metrics", "/config.*"],
        )
        .unwrap();
        for (path, seen) in [
            ("/admin/ping", true),
            ("/admin/ping/x", false),
            ("/admin/metrics", false),
            ("/a", true),
            ("/bx", false),
            ("/config.json", false),
        ] {
            assert_eq!(lists.allows(path), seen, "{path}");
        }
        assert!(Security::default().with_lists(["("], []).is_err());
    }

    #[test]
    fn a_change_passes_from_our_page_and_from_programs_only() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            check_origin(&Method::POST, &headers).is_ok()
        };
        assert!(with(&[("host", "n:9990")]));
        assert!(with(&[("host", "n:9990"), ("origin", "http://n:9990")]));
        assert!(with(&[("sec-fetch-site", "same-origin")]));
        assert!(!with(&[("host", "n:9990"), ("origin", "http://evil")]));
        assert!(!with(&[("host", "n:9990"), ("origin", "null")]));
        assert!(!with(&[("sec-fetch-site", "cross-site")]));
    }
}
