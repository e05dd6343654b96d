//! `/api/rutter/1/…`: what Linkerd's API has not. History, plans, lint, edits of entries, and how far routers are.
//!
//! Every request passes [`Api::rutter`], which finds its [`Route`] in [`ROUTES`]: there is the right that it takes, and the OpenAPI
//! document is made of the same table. `read` looks, `write` changes, `routers` is for routers, `document` is OpenAPI.

use std::net::SocketAddr;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::answer::{self, Refusal, Response};
use super::query::Query;
use super::{Api, namespace};
use crate::access::{Subject, Verb};
use crate::store::Namespace;

mod document;
mod read;
mod routers;
#[cfg(test)]
mod tests;
mod write;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use write::Manner;

/// Where all this begins.
pub(super) const BASE: &str = "/api/rutter/1/";
const JSON: &str = "application/json";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Namespaces,
    Show,
    Put,
    Patch,
    Delete,
    History,
    Diff,
    Blame,
    Rollback,
    Confirm,
    Plan,
    Lint,
    Acks,
    Names,
    Traffic,
    Routers,
    Report,
    Document,
}

/// One thing that this API does.
pub(super) struct Route {
    pub(super) method: Method,
    /// Below [`BASE`]; `{namespace}` and `{id}` stand for one segment.
    pub(super) path: &'static str,
    pub(super) action: Action,
    pub(super) right: Verb,
    /// What it is for, in a sentence.
    pub(super) about: &'static str,
    /// Its parameters, with what they mean.
    pub(super) query: &'static [(&'static str, &'static str)],
}

const WATCH: (&str, &str) = (
    "watch",
    "`true`: the answer goes on, a document for each version",
);
const VERSION: (&str, &str) = (
    "version",
    "a number; what is in force unless it is given. `NS@41` in the path is the same",
);
const WAIT: (&str, &str) = (
    "wait",
    "so long connected routers are waited for, such as `5s`; at most `60s`",
);
const ALLOW: (&str, &str) = ("allow-break", "`true`: also when names in use break");
const MOST: (&str, &str) = (
    "max-break",
    "the share of the names in use that may break, from 0 to 1; 0 unless it is given",
);
const DRY: (&str, &str) = (
    "dry-run",
    "`true`: nothing is written, the answer is the plan",
);
const WITHIN: (&str, &str) = (
    "confirm-within",
    "the change ends after this time unless it is confirmed, such as `5m`",
);
const WRITES: &[(&str, &str)] = &[WAIT, ALLOW, MOST, DRY, WITHIN];

const fn route(
    method: Method,
    path: &'static str,
    action: Action,
    right: Verb,
    about: &'static str,
    query: &'static [(&'static str, &'static str)],
) -> Route {
    Route {
        method,
        path,
        action,
        right,
        about,
        query,
    }
}

/// All that there is.
pub(super) const ROUTES: &[Route] = &[
    route(
        Method::GET,
        "namespaces",
        Action::Namespaces,
        Verb::Read,
        "All namespaces, with the version in force.",
        &[],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}",
        Action::Show,
        Verb::Read,
        "A version with its text; `Accept: application/dtab` gives the text alone.",
        &[VERSION, WATCH],
    ),
    route(
        Method::PUT,
        "dtabs/{namespace}",
        Action::Put,
        Verb::Write,
        "Another text, planned first; `If-Match` and `If-None-Match: *` as in `/api/1`.",
        WRITES,
    ),
    route(
        Method::PATCH,
        "dtabs/{namespace}",
        Action::Patch,
        Verb::Write,
        "Edits of single entries, all or none; others may write at the same time.",
        WRITES,
    ),
    route(
        Method::DELETE,
        "dtabs/{namespace}",
        Action::Delete,
        Verb::Write,
        "Ends a namespace, planned first; its history stays.",
        &[ALLOW, MOST, DRY],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}/history",
        Action::History,
        Verb::Read,
        "The versions, the newest first.",
        &[
            ("before", "a number: older ones than this"),
            (
                "limit",
                "at most so many; 50 unless it is given, at most 1000",
            ),
        ],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}/diff",
        Action::Diff,
        Verb::Read,
        "What differs between two versions.",
        &[
            (
                "from",
                "a number; the one before `to` unless it is given, 0 is the empty dtab",
            ),
            ("to", "a number; what is in force unless it is given"),
        ],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}/blame",
        Action::Blame,
        Verb::Read,
        "The version that brought each entry.",
        &[],
    ),
    route(
        Method::POST,
        "dtabs/{namespace}/rollback",
        Action::Rollback,
        Verb::Write,
        "An older text as a new version, planned first.",
        WRITES,
    ),
    route(
        Method::POST,
        "dtabs/{namespace}/confirm",
        Action::Confirm,
        Verb::Write,
        "Keeps a change that would end by itself.",
        &[],
    ),
    route(
        Method::POST,
        "dtabs/{namespace}/plan",
        Action::Plan,
        Verb::Plan,
        "What a text would do to the names in use. Writes nothing.",
        &[],
    ),
    route(
        Method::POST,
        "dtabs/{namespace}/lint",
        Action::Lint,
        Verb::Plan,
        "Likely mistakes in a text, with the names in use.",
        &[],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}/acks",
        Action::Acks,
        Verb::Read,
        "How far the connected routers are with a version.",
        &[
            ("number", "the version; what is in force unless it is given"),
            WAIT,
        ],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}/names",
        Action::Names,
        Verb::Read,
        "The names in use, with their rates.",
        &[],
    ),
    route(
        Method::GET,
        "dtabs/{namespace}/traffic",
        Action::Traffic,
        Verb::Read,
        "What routers counted for bound names since they started.",
        &[],
    ),
    route(
        Method::GET,
        "routers",
        Action::Routers,
        Verb::Read,
        "The routers that report.",
        &[],
    ),
    route(
        Method::POST,
        "routers/{id}",
        Action::Report,
        Verb::Report,
        "A router reports its names and its version.",
        &[],
    ),
    route(
        Method::GET,
        "openapi.json",
        Action::Document,
        Verb::Read,
        "This API as an OpenAPI document.",
        &[],
    ),
];

/// What stands in the path of a request.
pub(super) struct Named {
    /// `{namespace}`.
    namespace: Option<Namespace>,
    /// The number in `NS@41`.
    number: Option<u64>,
    /// `{id}`.
    id: String,
}

impl Named {
    fn namespace(&self) -> Result<&Namespace, Refusal> {
        let missing = || Refusal::bad("the namespace is missing");
        self.namespace.as_ref().ok_or_else(missing)
    }
}

impl Api {
    /// Answers one request below [`BASE`]: finds its route, and does what that says. `path` is what stands behind the base.
    pub(super) async fn rutter(
        &self,
        request: Request<Incoming>,
        path: &str,
        query: &Query,
        (who, peer): (&Subject, SocketAddr),
    ) -> Result<Response, Refusal> {
        let (route, named) = find(request.method(), path)?;
        let rights: &[Verb] = match route.right {
            Verb::Write if query.is_true("dry-run") => &[Verb::Plan],
            // Who sets a share of their own may as well set all.
            Verb::Write if query.is_true("allow-break") || query.get("max-break").is_some() => {
                &[Verb::Write, Verb::Force]
            }
            _ => &[route.right],
        };
        for &right in rights {
            self.access.check(who, right, named.namespace.as_ref())?;
        }
        match route.action {
            Action::Namespaces => self.namespaces(who).await,
            Action::Show => self.show(&named, query, request.headers()).await,
            Action::Put | Action::Patch | Action::Delete | Action::Rollback | Action::Confirm => {
                self.change(route.action, request, &named, query, peer)
                    .await
            }
            Action::History => self.history(&named, query).await,
            Action::Diff => self.diff(&named, query).await,
            Action::Blame => self.blame(&named).await,
            Action::Plan => self.plan(request, &named).await,
            Action::Lint => self.lint(request, &named).await,
            Action::Acks => self.acks(&named, query).await,
            Action::Names => self.names_in_use(&named),
            Action::Traffic => self.traffic(&named),
            Action::Routers => self.connected(),
            Action::Report => self.report(request, &named).await,
            Action::Document => Ok(answer::typed(JSON, document::document())),
        }
    }
}

/// The route of a request; what is not there is 404, and 405 with another method.
fn find(method: &Method, path: &str) -> Result<(&'static Route, Named), Refusal> {
    let asked: Vec<&str> = path.split('/').collect();
    let fits = |route: &&Route| {
        let template: Vec<&str> = route.path.split('/').collect();
        let same = |(part, asked): (&&str, &&str)| {
            part.starts_with('{') && !asked.is_empty() || part == asked
        };
        template.len() == asked.len() && template.iter().zip(&asked).all(same)
    };
    let mut fitting = ROUTES.iter().filter(fits).peekable();
    if fitting.peek().is_none() {
        let reason = format!(
            "there is no such thing in this API; GET {BASE}openapi.json lists what there is"
        );
        return Err(Refusal::new(StatusCode::NOT_FOUND, reason));
    }
    let Some(route) = fitting.find(|route| route.method == *method) else {
        let taken: Vec<_> = ROUTES
            .iter()
            .filter(fits)
            .map(|r| r.method.as_str())
            .collect();
        let reason = format!("this takes {}, not {method}", taken.join(", "));
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason));
    };
    let mut named = Named {
        namespace: None,
        number: None,
        id: String::new(),
    };
    for (part, asked) in route.path.split('/').zip(asked) {
        match part {
            "{namespace}" => {
                // A `@` of the name itself is percent-encoded.
                let (name, number) = asked.split_once('@').unwrap_or((asked, ""));
                named.namespace = Some(namespace(name)?);
                if !number.is_empty() {
                    let read = number.parse();
                    named.number = Some(read.map_err(|_| {
                        Refusal::bad(format!(
                            "a version is a number, such as {name}@41, found {number:?}"
                        ))
                    })?);
                }
            }
            "{id}" => {
                let decoded = percent_encoding::percent_decode_str(asked).decode_utf8();
                let id = decoded.map_err(|_| Refusal::bad("the id is not UTF-8"))?;
                if id.len() > 200 || id.contains(char::is_control) {
                    return Err(Refusal::bad(
                        "an id has at most 200 bytes and no control characters",
                    ));
                }
                named.id = id.into_owned();
            }
            _ => {}
        }
    }
    if named.number.is_some() && route.action != Action::Show {
        return Err(Refusal::bad("a version in the path is for GET of a dtab"));
    }
    Ok((route, named))
}

/// An answer as JSON.
fn json(value: &impl Serialize) -> Result<Response, Refusal> {
    json_with(StatusCode::OK, value)
}

fn json_with(status: StatusCode, value: &impl Serialize) -> Result<Response, Refusal> {
    let text = serde_json::to_string(value)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut response = answer::typed(JSON, text + "\n");
    *response.status_mut() = status;
    Ok(response)
}
