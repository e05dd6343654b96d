//! `/delegator` and `/delegator.json`: the way a name goes under a dtab.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, Query, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::Value;

use crate::html::{self, Site};
use crate::{Admin, BoxFuture};

mod tree;

/// As Linkerd 1's delegator: an answer that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked: the way of `path` under `dtab`, as router `namespace` sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DelegateRequest {
    /// The router's label. An unknown one is the handler's matter.
    #[serde(default)]
    pub namespace: String,
    /// The dtab, as text; absent means an empty one, as in Linkerd 1.
    #[serde(default)]
    pub dtab: String,
    /// The path, as text.
    #[serde(default)]
    pub path: String,
}

/// A text that could not be read: Linkerd's message, and the report with the place marked for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadText {
    /// One line, with Finagle's words.
    pub message: String,
    /// Several lines: the source, a caret below the place, a hint.
    pub report: String,
}

/// Why there is no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelegateError {
    /// The dtab is not one.
    #[error("Invalid dtab: {}", .0.message)]
    Dtab(BadText),
    /// The path is not one.
    #[error("Invalid path: {}", .0.message)]
    Path(BadText),
    /// The router's interpreter does not explain itself.
    #[error("Name Interpreter for {0} cannot show delegations")]
    Unable(String),
    /// No answer in two seconds.
    #[error("Request timed out.")]
    TimedOut,
}

impl DelegateError {
    /// As Linkerd 1 answers.
    fn status(&self) -> StatusCode {
        match self {
            Self::Dtab(_) | Self::Path(_) => StatusCode::BAD_REQUEST,
            Self::Unable(_) => StatusCode::NOT_IMPLEMENTED,
            Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn report(&self) -> &str {
        match self {
            Self::Dtab(text) | Self::Path(text) => &text.report,
            Self::Unable(_) | Self::TimedOut => "",
        }
    }
}

/// A router, as the pages name it.
#[derive(Debug, Clone, Default)]
pub struct RouterInfo {
    /// Its label.
    pub label: String,
    /// `http`, `h2`.
    pub protocol: String,
    /// Its dtab as text; empty when the store has it.
    pub dtab: String,
    /// Where its servers listen, `ip:port`.
    pub servers: Vec<String>,
    /// The interpreter's kind, with the transformers behind it.
    pub interpreter: String,
}

pub(crate) type Routers = Arc<dyn Fn() -> Vec<RouterInfo> + Send + Sync>;

/// The two closures that the wiring gives.
#[derive(Clone)]
struct Delegator {
    routers: Routers,
    ask: Arc<dyn Fn(DelegateRequest) -> BoxFuture<Result<Value, DelegateError>> + Send + Sync>,
}

impl Delegator {
    async fn ask(&self, request: DelegateRequest) -> Result<Value, DelegateError> {
        tokio::time::timeout(PATIENCE, (self.ask)(request))
            .await
            .unwrap_or(Err(DelegateError::TimedOut))
    }
}

impl Admin {
    /// `/delegator` (page) and `/delegator.json` (GET with `path`, `dtab`, `namespace`; POST of the same as JSON).
    /// `delegate` gives Linkerd's delegate tree.
    #[must_use]
    pub fn delegator(
        self,
        routers: Arc<dyn Fn() -> Vec<RouterInfo> + Send + Sync>,
        delegate: impl Fn(DelegateRequest) -> BoxFuture<Result<Value, DelegateError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let delegator = Delegator {
            routers,
            ask: Arc::new(delegate),
        };
        let (by_query, by_body) = (delegator.clone(), delegator.clone());
        let json = get(move |request: Query<DelegateRequest>| async move {
            answer(by_query.ask(request.0).await)
        })
        .post(move |request: Request| async move { post(&by_body, request).await });
        let page = get(
            move |site: Extension<Arc<Site>>, asked: Query<Asked>| async move {
                show(&delegator, &site, asked.0).await
            },
        );
        self.page("/delegator.json", json)
            .nav_page("/delegator", "Delegator", page)
    }
}

fn answer(result: Result<Value, DelegateError>) -> Response {
    match result {
        Ok(tree) => axum::Json(tree).into_response(),
        Err(error) => (error.status(), error.to_string()).into_response(),
    }
}

async fn post(delegator: &Delegator, request: Request) -> Response {
    if !is_json(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    match serde_json::from_slice(&body) {
        Ok(request) => answer(delegator.ask(request).await),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            format!("Malformed delegation request: {error}"),
        )
            .into_response(),
    }
}

/// Linkerd wants the bare media type; a charset beside it does no harm.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    kind.and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"))
}

/// The page's URL. `dtab` absent: the router's own.
#[derive(Deserialize)]
struct Asked {
    router: Option<String>,
    path: Option<String>,
    dtab: Option<String>,
    fragment: Option<String>,
}

#[derive(Template)]
#[template(path = "delegator.html")]
struct Page {
    routers: Vec<RouterInfo>,
    router: RouterInfo,
    path: String,
    dtab: String,
    result: String,
}

#[derive(Template)]
#[template(path = "delegator_result.html")]
struct Outcome {
    tree: String,
    error: String,
    report: String,
    url: String,
    path: String,
}

async fn show(delegator: &Delegator, site: &Site, asked: Asked) -> Response {
    let routers = (delegator.routers)();
    let wanted = asked.router.as_deref();
    let router = routers
        .iter()
        .find(|router| Some(router.label.as_str()) == wanted)
        .or(routers.first())
        .cloned()
        .unwrap_or_default();
    // A textarea sends CRLF; positions in messages count what people see.
    let dtab = asked.dtab.map(|text| text.replace("\r\n", "\n"));
    let dtab = dtab.unwrap_or_else(|| router.dtab.clone());
    let path = asked.path.unwrap_or_default();
    let outcome = outcome(delegator, &router, &dtab, &path).await;
    if asked.fragment.is_some() {
        return html::page(site, ("/delegator", "Delegator"), None, true, &outcome);
    }
    let page = Page {
        result: outcome.render().unwrap_or_default(),
        routers,
        router,
        path,
        dtab,
    };
    html::page(
        site,
        ("/delegator", "Delegator"),
        Some("delegator.js"),
        false,
        &page,
    )
}

async fn outcome(delegator: &Delegator, router: &RouterInfo, dtab: &str, path: &str) -> Outcome {
    let mut outcome = Outcome {
        tree: String::new(),
        error: String::new(),
        report: String::new(),
        url: String::new(),
        path: path.to_owned(),
    };
    if path.is_empty() {
        return outcome;
    }
    let query = [
        ("namespace", router.label.as_str()),
        ("path", path),
        ("dtab", dtab),
    ];
    outcome.url = format!("/delegator.json?{}", encode(&query));
    let asked = DelegateRequest {
        namespace: router.label.clone(),
        dtab: dtab.to_owned(),
        path: path.to_owned(),
    };
    match delegator.ask(asked).await {
        Ok(tree) => outcome.tree = tree::to_html(&tree),
        Err(error) => {
            error.report().clone_into(&mut outcome.report);
            outcome.error = error.to_string();
        }
    }
    outcome
}

fn encode(pairs: &[(&str, &str)]) -> String {
    let escaped = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    pairs.join("&")
}
