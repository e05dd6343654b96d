//! Responses, and why a request is refused.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::ext::ReasonPhrase;

use crate::change::shapes::{Planned, Problem};
use crate::store::{Refused, StoreError};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Response = http::Response<Body>;

/// What a reason may take on the status line.
const REASON_BYTES: usize = 300;
/// The media type of problems (RFC 9457), for those who ask for it.
const PROBLEM_JSON: &str = "application/problem+json";

/// A request that is not done, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For people, one line.
    pub(super) reason: String,
    /// Whether the reason is the body too, as Linkerd's namerd has it in some places and not in others.
    with_body: bool,
    /// For programs, in problems; made of the status unless something better is known.
    code: Option<&'static str>,
    /// What the change would have done.
    plan: Option<Box<Planned>>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            with_body: false,
            code: None,
            plan: None,
        }
    }

    /// The same with a code for programs.
    pub(super) fn coded(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// The same with what the change would have done.
    pub(super) fn planned(self, plan: Planned) -> Self {
        Self {
            plan: Some(Box::new(plan)),
            ..self
        }
    }

    /// 400 with the reason as body.
    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason).told()
    }

    /// The same with its reason as body.
    pub(super) fn told(self) -> Self {
        Self {
            with_body: true,
            ..self
        }
    }

    pub(super) fn into_response(self, problem_json: bool) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let mut response = match (problem_json, self.with_body) {
            (true, _) => {
                let problem = Problem {
                    title: title.to_owned(),
                    status: self.status.as_u16(),
                    detail: self.reason.clone(),
                    code: self.code.unwrap_or_else(|| code(self.status)).to_owned(),
                    plan: self.plan.map(|plan| *plan),
                };
                let text = serde_json::to_string(&problem);
                typed(PROBLEM_JSON, text.unwrap_or_default())
            }
            (false, true) => plain(self.reason.clone()),
            (false, false) => empty(StatusCode::OK),
        };
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"rutter\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        // namerctl and curl -v print the status line, whatever the body is.
        if self.status != StatusCode::NOT_FOUND {
            let line: String = format!("{title}: {}", self.reason)
                .chars()
                .map(|c| {
                    if c.is_ascii_graphic() || c == ' ' {
                        c
                    } else {
                        '?'
                    }
                })
                .take(REASON_BYTES)
                .collect();
            if let Ok(phrase) = ReasonPhrase::try_from(line) {
                response.extensions_mut().insert(phrase);
            }
        }
        response
    }
}

/// What a status says to programs.
const fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not-found",
        StatusCode::CONFLICT => "exists",
        StatusCode::PRECONDITION_FAILED => "changed",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::INTERNAL_SERVER_ERROR => "internal",
        _ => "bad-request",
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Exists { .. } => StatusCode::CONFLICT,
            StoreError::NotFound(_) => StatusCode::NOT_FOUND,
            StoreError::Changed { .. } => StatusCode::PRECONDITION_FAILED,
            StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Refused(Refused::Name, _) => StatusCode::BAD_REQUEST,
            StoreError::Refused(Refused::TooLarge, _) => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::Refused(Refused::Forbidden, _) => StatusCode::FORBIDDEN,
        };
        let refusal = Self::new(status, error.to_string());
        match error {
            // Linkerd has no such answers, so that no client compares their bodies.
            StoreError::Unavailable(_) | StoreError::Refused(..) => refusal.told(),
            _ => refusal,
        }
    }
}

pub(super) fn wants_problem_json<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(PROBLEM_JSON))
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A text of no stated type, as namerd gives bound trees.
pub(super) fn plain(text: impl Into<Bytes>) -> Response {
    Response::new(Full::new(text.into()).boxed_unsync())
}

/// A text of that type.
pub(super) fn typed(media_type: &'static str, text: impl Into<Bytes>) -> Response {
    with_type(plain(text), Some(media_type))
}

/// The same with a content type.
pub(super) fn with_type(mut response: Response, media_type: Option<&'static str>) -> Response {
    if let Some(media_type) = media_type {
        let value = HeaderValue::from_static(media_type);
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}
