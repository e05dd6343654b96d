//! `/api/1/dtabs`: namespaces listed, read and written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtab::{Dentry, Dtab, MAX_INPUT_BYTES, NameTree, Prefix};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use naming::Reads;
use serde_json::{Value, json};

use super::Api;
use super::answer::{self, Refusal, Response};
use super::query::Query;
use super::stream::{Next, documents};
use crate::access::Subject;
use crate::store::{
    Change, Namespace, Observed, Only, Origin, Standing, StoreError, Stored, one_line,
};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Who a change is by, when it says so; otherwise the client's address.
pub(super) const AUTHOR: &str = "rutter-author";
/// What a change is for.
pub(super) const NOTE: &str = "rutter-note";
/// On a dtab that may have been changed since (RFC 9111).
const STALE: HeaderValue = HeaderValue::from_static("110 - \"the storage cannot be asked\"");
/// Of both, at most.
const NOTE_BYTES: usize = 1024;

/// How a dtab is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Dtab,
    Text,
}

impl Form {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Dtab => "application/dtab",
            Self::Text => "text/plain",
        }
    }

    fn of(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let all = [Self::Json, Self::Dtab, Self::Text];
        all.into_iter()
            .find(|form| form.media_type().eq_ignore_ascii_case(essence))
    }

    /// The first one that the client takes, in the order of its header; JSON when there is none.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let values = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut types = values.flat_map(|value| value.split(','));
        types.find_map(Self::of).unwrap_or(Self::Json)
    }

    fn write(self, dtab: &Dtab) -> String {
        match self {
            Self::Json => to_json(dtab).to_string(),
            Self::Dtab | Self::Text => one_line(dtab),
        }
    }
}

impl Api {
    pub(super) fn list(&self, who: Subject, watch: bool) -> Result<Response, Refusal> {
        let (names, access) = (self.store.names(), self.access.clone());
        let text = move |names: &std::collections::BTreeSet<Namespace>| {
            let seen = names.iter().filter(|name| access.sees(&who, name));
            Value::from_iter(seen.map(Namespace::as_str)).to_string()
        };
        let standing = self.store.standing();
        if watch {
            let said = move |reads: &mut _| match &*standing.read(reads) {
                Standing::Awaited(why) => Next::Wait(why.to_string()),
                Standing::Good | Standing::Lost(_) => Next::Say(text(&names.read(reads))),
            };
            let response = documents(said, self.stop.clone());
            return Ok(answer::with_type(response, Some(Form::Json.media_type())));
        }
        // Not knowing any is not the same as that there are none.
        if let Standing::Awaited(why) = &*standing.get() {
            return Err(StoreError::Unavailable(why.to_string()).into());
        }
        Ok(answer::typed(
            Form::Json.media_type(),
            text(&names.get()) + "\n",
        ))
    }

    pub(super) async fn dtab(
        &self,
        request: Request<Incoming>,
        namespace: &Namespace,
        query: &Query,
        peer: SocketAddr,
    ) -> Result<Response, Refusal> {
        match *request.method() {
            Method::GET if query.watch() => {
                Ok(self.watch_dtab(namespace, Form::accepted(request.headers())))
            }
            Method::GET => self.get_dtab(namespace, request.headers()).await,
            Method::HEAD => {
                // As Finagle: nothing of the body is told, and the connection closes.
                let answered = self.get_dtab(namespace, request.headers()).await;
                let (status, tag) = match answered {
                    Ok(full) => (full.status(), full.headers().get(header::ETAG).cloned()),
                    Err(refusal) => (refusal.status, None),
                };
                let mut response = answer::empty(status);
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
                if let Some(tag) = tag {
                    response.headers_mut().insert(header::ETAG, tag);
                }
                Ok(response)
            }
            Method::POST => self.post_dtab(request, namespace, peer).await,
            Method::PUT => self.put_dtab(request, namespace, peer).await,
            Method::DELETE => {
                let only = precondition(request.headers())?;
                let origin = origin(request.headers(), peer)?;
                self.store.delete(namespace, origin, only).await?;
                tracing::info!(%namespace, %peer, "dtab deleted");
                Ok(answer::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "dtabs take GET, HEAD, POST, PUT and DELETE",
            )),
        }
    }

    fn watch_dtab(&self, namespace: &Namespace, form: Form) -> Response {
        let watch = self.store.watch(namespace);
        // A deletion says nothing, as in Linkerd: the last dtab is to be kept.
        let said = move |reads: &mut _| match watch.read(reads) {
            Observed::Present(stored) => Next::Say(form.write(&stored.dtab)),
            Observed::Absent => Next::Wait("a namespace of that name".to_owned()),
            Observed::Unknown(why) => Next::Wait(why.to_string()),
        };
        let response = documents(said, self.stop.clone());
        answer::with_type(response, Some(form.media_type()))
    }

    async fn get_dtab(
        &self,
        namespace: &Namespace,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let (stored, stale) = match self.store.get(namespace).await {
            Err(error @ StoreError::Unavailable(_)) => (Some(self.known(namespace, error)?), true),
            other => (other?, false),
        };
        let stored = stored.ok_or_else(|| StoreError::NotFound(namespace.clone()))?;
        let form = Form::accepted(headers);
        let version = stored.record.version();
        let known = tags(headers, header::IF_NONE_MATCH)?;
        let mut response = match known.iter().any(|tag| *tag == "*" || *tag == version) {
            true => answer::empty(StatusCode::NOT_MODIFIED),
            false => answer::typed(form.media_type(), form.write(&stored.dtab) + "\n"),
        };
        let tag = HeaderValue::try_from(version).expect("base64 is a header's value");
        response.headers_mut().insert(header::ETAG, tag);
        if stale {
            response.headers_mut().insert(header::WARNING, STALE);
        }
        Ok(response)
    }

    /// What routers are served while the storage cannot be asked; the error where nothing is.
    fn known(&self, namespace: &Namespace, error: StoreError) -> Result<Arc<Stored>, Refusal> {
        match self.store.watch(namespace).read(&mut Reads::new()) {
            Observed::Present(stored) => Ok(stored),
            Observed::Absent | Observed::Unknown(_) => Err(error.into()),
        }
    }

    async fn post_dtab(
        &self,
        request: Request<Incoming>,
        namespace: &Namespace,
        peer: SocketAddr,
    ) -> Result<Response, Refusal> {
        let form = written_form(request.headers())?;
        let origin = origin(request.headers(), peer)?;
        let change = change(form, &read_body(request).await?, origin)?;
        let stored = self.store.put(namespace, change, Only::Absent).await?;
        tracing::info!(%namespace, version = stored.record.number, %peer, "dtab created");
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// Without `If-Match` it makes a namespace that is not there, as Linkerd's namerd does (its manual says otherwise).
    async fn put_dtab(
        &self,
        request: Request<Incoming>,
        namespace: &Namespace,
        peer: SocketAddr,
    ) -> Result<Response, Refusal> {
        let form = written_form(request.headers()).map_err(Refusal::told)?;
        let only = precondition(request.headers())?;
        let absent = only == Only::Absent;
        let origin = origin(request.headers(), peer)?;
        let change =
            change(form, &read_body(request).await?, origin).map_err(|refusal| match form {
                // namerd tells why a dtab is none, but not JSON.
                Form::Json => refusal,
                Form::Dtab | Form::Text => refusal.told(),
            })?;
        let stored = match self.store.put(namespace, change, only).await {
            Err(error @ StoreError::Exists { .. }) if absent => {
                return Err(Refusal::new(
                    StatusCode::PRECONDITION_FAILED,
                    error.to_string(),
                ));
            }
            other => other?,
        };
        tracing::info!(%namespace, version = stored.record.number, %peer, "dtab updated");
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }
}

fn written_form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    // In namerd's words.
    given.and_then(Form::of).ok_or_else(|| {
        let given = given.unwrap_or_default();
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("Invalid Content-Type \"{given}\". "),
        )
    })
}

/// `If-Match`, then `If-None-Match: *`. Linkerd's versions are not quoted; quoted ones are understood.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Only, Refusal> {
    match tags(headers, header::IF_MATCH)?.as_slice() {
        [] => {}
        ["*"] => return Ok(Only::Present),
        [version] => return Ok(Only::Version((*version).into())),
        _ => return Err(Refusal::bad("If-Match takes one version")),
    }
    match tags(headers, header::IF_NONE_MATCH)?.as_slice() {
        [] => Ok(Only::Always),
        ["*"] => Ok(Only::Absent),
        _ => Err(Refusal::bad("a change takes `If-None-Match: *` alone")),
    }
}

fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Vec<&str>, Refusal> {
    let mut tags = Vec::new();
    for value in headers.get_all(&name) {
        let value = value
            .to_str()
            .map_err(|_| Refusal::bad(format!("{name} is no text")))?;
        tags.extend(value.split(',').map(|tag| {
            let tag = tag.trim();
            tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
        }));
    }
    tags.retain(|tag| !tag.is_empty());
    Ok(tags)
}

pub(super) fn origin(headers: &HeaderMap, peer: SocketAddr) -> Result<Origin, Refusal> {
    let text = |name: &str| -> Result<Option<String>, Refusal> {
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value.as_bytes())
            .unwrap_or_default()
            .trim();
        match text.len() {
            1..=NOTE_BYTES => Ok(Some(text.to_owned())),
            _ => Err(Refusal::bad(format!(
                "{name} takes 1 to {NOTE_BYTES} bytes of UTF-8"
            ))),
        }
    };
    let author = text(AUTHOR)?.unwrap_or_else(|| peer.ip().to_string());
    Ok(Origin::now(author, text(NOTE)?.unwrap_or_default()))
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    read_bytes(request, MAX_INPUT_BYTES).await
}

/// A dtab as text, whatever the request calls it.
pub(super) async fn read_text(request: Request<Incoming>) -> Result<String, Refusal> {
    let body = read_body(request).await?;
    String::from_utf8(body.into()).map_err(|_| Refusal::bad("the dtab is not UTF-8"))
}

/// A body of at most so many bytes.
pub(super) async fn read_bytes(request: Request<Incoming>, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let reason = match limit {
            MAX_INPUT_BYTES => format!("a dtab has at most {limit} bytes"),
            _ => format!("such a body has at most {limit} bytes"),
        };
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason).told()
    };
    let body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect());
    match collected.await {
        Err(_) => {
            let reason = format!("the body did not arrive within {BODY_TIME:?}");
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, reason).told())
        }
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::bad(format!("the body broke off: {error}"))),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

pub(super) fn change(form: Form, body: &[u8], origin: Origin) -> Result<Change, Refusal> {
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let text = std::str::from_utf8(body).map_err(|_| bad("the dtab is not UTF-8".to_owned()))?;
    match form {
        Form::Json => {
            let text = exactly(&from_json(text)?, text);
            Change::read(&text, origin).map_err(|error| bad(error.to_string()))
        }
        Form::Dtab | Form::Text => {
            Change::read(text, origin).map_err(|error| bad(error.to_string()))
        }
    }
}

pub(super) fn to_json(dtab: &Dtab) -> Value {
    let dentry = |dentry: &Dentry| json!({"prefix": dentry.prefix.to_string(), "dst": dentry.dst.to_string()});
    dtab.entries().iter().map(dentry).collect()
}

/// A dtab that came as JSON, as a text that means the same. Finagle's way of writing has two decimals of a weight; where that
/// is too few, the destination stays as it was written.
fn exactly(dtab: &Dtab, json: &str) -> String {
    let line = one_line(dtab);
    if Dtab::read(&line).as_ref() == Ok(dtab) {
        return line;
    }
    let given: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    let written = dtab.entries().iter().zip(&given).map(|(dentry, given)| {
        let dst = given.get("dst").and_then(Value::as_str).unwrap_or_default();
        // Behind a comment of it stands the end of the line.
        format!("{} => {dst}\n;", dentry.prefix)
    });
    written.collect::<Vec<_>>().join("\n")
}

pub(super) fn from_json(text: &str) -> Result<Dtab, Refusal> {
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let value: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let entries = value.as_array().ok_or_else(|| {
        bad("expected a list such as [{\"prefix\":\"/svc\",\"dst\":\"/#/io.l5d.fs\"}]".to_owned())
    })?;
    let dentry = |(at, entry): (usize, &Value)| {
        let field = |name: &str| entry.get(name).and_then(Value::as_str);
        let (Some(prefix), Some(dst)) = (field("prefix"), field("dst")) else {
            // In namerd's words, and its one case of a body here.
            return Err(bad(format!(
                "The dtab contains invalid dentries: entry {} is {entry}",
                at + 1
            ))
            .told());
        };
        let wrong = |error: dtab::ParseError| bad(format!("entry {}: {error}", at + 1));
        Ok(Dentry {
            prefix: Prefix::read(prefix).map_err(wrong)?,
            dst: NameTree::read(dst).map_err(wrong)?,
        })
    };
    entries.iter().enumerate().map(dentry).collect()
}
