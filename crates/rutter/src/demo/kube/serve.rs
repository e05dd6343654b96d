//! The API's requests: which objects a URL means, the list, the watch.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State as Shared};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Event, KINDS, Kind, Kube};

/// As a real server's: often enough that an idle watch learns the version.
const BOOKMARKS: Duration = Duration::from_secs(20);
/// When the client names no `timeoutSeconds`; a real server takes 30 to 60 minutes.
const WATCH_TIME: Duration = Duration::from_secs(1_800);

impl Kube {
    /// Serves until `stop`; open watches end then.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let api = Api {
            kube: self,
            stop: stop.clone(),
        };
        let router = axum::Router::new().fallback(answer).with_state(api);
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }
}

#[derive(Clone)]
struct Api {
    kube: Kube,
    stop: CancellationToken,
}

/// What a URL means.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    kind: Kind,
    namespace: Option<String>,
    name: Option<String>,
    /// The old form `/api/v1/watch/…`.
    watch: bool,
}

impl Place {
    fn read(path: &str) -> Option<Self> {
        let mut segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let version = match segments.as_slice() {
            ["api", version, ..] => (*version).to_owned(),
            ["apis", group, version, ..] => format!("{group}/{version}"),
            _ => return None,
        };
        segments.drain(..if segments[0] == "api" { 2 } else { 3 });
        let watch = segments.first() == Some(&"watch");
        if watch {
            segments.remove(0);
        }
        // `namespaces/NS` alone is the object; with more behind it, the namespace of what follows.
        let namespace = match segments.as_slice() {
            ["namespaces", namespace, _, ..] => Some((*namespace).to_owned()),
            _ => None,
        };
        if namespace.is_some() {
            segments.drain(..2);
        }
        let (plural, name) = match segments.as_slice() {
            [plural] => (*plural, None),
            [plural, name] => (*plural, Some((*name).to_owned())),
            _ => return None,
        };
        let kind = Kind::find(&version, plural)?;
        (kind.namespaced() || namespace.is_none()).then_some(Self {
            kind,
            namespace,
            name,
            watch,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    watch: Option<String>,
    resource_version: Option<String>,
    timeout_seconds: Option<u64>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    label_selector: Option<String>,
    field_selector: Option<String>,
}

fn on(flag: Option<&String>) -> bool {
    flag.is_some_and(|value| value != "false" && value != "0")
}

async fn answer(Shared(api): Shared<Api>, request: Request) -> Response {
    if request.method() != Method::GET {
        return status(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the demo's API is read only",
        );
    }
    let uri = request.uri();
    if let Some(known) = fixed(uri.path()) {
        return axum::Json(known).into_response();
    }
    let Some(place) = Place::read(uri.path()) else {
        return status(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
    };
    let asked = match Query::<Asked>::try_from_uri(uri) {
        Ok(asked) => asked.0,
        Err(error) => return status(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
    };
    let wanted = match Wanted::read(&place, &asked, uri) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    match &place.name {
        _ if place.watch || on(asked.watch.as_ref()) => watch(&api, wanted, &asked),
        Some(name) => get(&api.kube, &wanted, name),
        None => list(&api.kube, &wanted),
    }
}

/// What is asked before anything else: versions, groups, health.
fn fixed(path: &str) -> Option<Value> {
    let resources = |version: &str| {
        let resources: Vec<Value> = KINDS
            .iter()
            .filter(|kind| kind.0 == version)
            .map(|(_, plural, kind, namespaced)| {
                json!({"name": plural, "kind": kind, "namespaced": namespaced, "verbs": ["get", "list", "watch"]})
            })
            .collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
    };
    Some(match path.trim_end_matches('/') {
        "/version" => json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0-rutter-demo"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => {
            let version = json!({"groupVersion": "discovery.k8s.io/v1", "version": "v1"});
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": "discovery.k8s.io", "versions": [version], "preferredVersion": version}]})
        }
        "/api/v1" => resources("v1"),
        "/apis/discovery.k8s.io/v1" => resources("discovery.k8s.io/v1"),
        "/healthz" | "/livez" | "/readyz" => json!("ok"),
        _ => return None,
    })
}

fn status_body(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()})
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    (code, axum::Json(status_body(code, reason, message))).into_response()
}

/// The objects that a request is about.
#[derive(Debug, Clone)]
struct Wanted {
    kind: Kind,
    namespace: Option<String>,
    name: Option<String>,
    labels: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Wanted {
    fn read(place: &Place, asked: &Asked, uri: &Uri) -> Result<Self, Box<Response>> {
        let refuse = |what: &str| {
            let message = format!("the demo's API does not understand {what} of {uri}");
            Box::new(status(StatusCode::BAD_REQUEST, "BadRequest", &message))
        };
        let mut wanted = Self {
            kind: place.kind,
            namespace: place.namespace.clone(),
            name: place.name.clone(),
            labels: Vec::new(),
        };
        for part in parts(asked.label_selector.as_ref()) {
            let requirement = Requirement::read(part).ok_or_else(|| refuse("labelSelector"))?;
            wanted.labels.push(requirement);
        }
        for part in parts(asked.field_selector.as_ref()) {
            match part.split_once('=') {
                Some(("metadata.name", name)) => {
                    wanted.name = Some(name.trim_start_matches('=').to_owned());
                }
                Some(("metadata.namespace", ns)) => {
                    wanted.namespace = Some(ns.trim_start_matches('=').to_owned());
                }
                _ => return Err(refuse("fieldSelector")),
            }
        }
        Ok(wanted)
    }

    fn fits(&self, kind: Kind, object: &Value) -> bool {
        let meta = &object["metadata"];
        let is = |wanted: &Option<String>, field: &str| {
            wanted.as_ref().is_none_or(|wanted| meta[field] == **wanted)
        };
        kind == self.kind
            && is(&self.namespace, "namespace")
            && is(&self.name, "name")
            && self.labels.iter().all(|label| label.fits(&meta["labels"]))
    }
}

fn parts(selector: Option<&String>) -> impl Iterator<Item = &str> {
    let parts = selector.into_iter().flat_map(|text| text.split(','));
    parts.map(str::trim).filter(|part| !part.is_empty())
}

impl Requirement {
    /// The equality-based half of Kubernetes' selectors; sets are refused.
    fn read(part: &str) -> Option<Self> {
        if part.contains('(') || part.contains(' ') {
            return None;
        }
        let own = |text: &str| text.to_owned();
        Some(match part.split_once("!=") {
            Some((name, value)) => Self::IsNot(own(name), own(value)),
            None => match part.split_once('=') {
                Some((name, value)) => Self::Is(own(name), own(value.trim_start_matches('='))),
                None => match part.strip_prefix('!') {
                    Some(name) => Self::HasNot(own(name)),
                    None => Self::Has(own(part)),
                },
            },
        })
    }

    fn fits(&self, labels: &Value) -> bool {
        match self {
            Self::Is(name, value) => labels[name] == **value,
            Self::IsNot(name, value) => labels[name] != **value,
            Self::Has(name) => !labels[name].is_null(),
            Self::HasNot(name) => labels[name].is_null(),
        }
    }
}

fn get(kube: &Kube, wanted: &Wanted, name: &str) -> Response {
    let key = (
        wanted.kind,
        wanted.namespace.clone().unwrap_or_default(),
        name.to_owned(),
    );
    match kube.lock().objects.get(&key) {
        Some(object) => axum::Json(&**object).into_response(),
        None => {
            let message = format!("{} \"{name}\" not found", wanted.kind.plural());
            status(StatusCode::NOT_FOUND, "NotFound", &message)
        }
    }
}

/// The objects wanted, and the version of the moment.
fn snapshot(kube: &Kube, wanted: &Wanted) -> (Vec<Arc<Value>>, u64) {
    let state = kube.lock();
    let objects = state.objects.iter();
    let fitting = objects.filter(|((kind, _, _), object)| wanted.fits(*kind, object));
    (
        fitting.map(|(_, object)| object.clone()).collect(),
        state.version,
    )
}

fn list(kube: &Kube, wanted: &Wanted) -> Response {
    let (objects, version) = snapshot(kube, wanted);
    let items: Vec<&Value> = objects.iter().map(|object| &**object).collect();
    axum::Json(json!({
        "kind": format!("{}List", wanted.kind.name()),
        "apiVersion": wanted.kind.api_version(),
        "metadata": {"resourceVersion": version.to_string()},
        "items": items,
    }))
    .into_response()
}

/// A watch: what is there when no version was named, then what happens, a line each.
fn watch(api: &Api, wanted: Wanted, asked: &Asked) -> Response {
    let initial_events = on(asked.send_initial_events.as_ref());
    let from: Option<u64> = match asked.resource_version.as_deref() {
        _ if initial_events => None,
        None | Some("" | "0") => None,
        Some(text) => match text.parse() {
            Ok(version) => Some(version),
            Err(_) => {
                let message = format!("Invalid value: \"{text}\": resourceVersion");
                return status(StatusCode::BAD_REQUEST, "BadRequest", &message);
            }
        },
    };
    let (lines, body) = mpsc::channel(64);
    let watch = Watch {
        kube: api.kube.clone(),
        wanted,
        bookmarks: on(asked.allow_watch_bookmarks.as_ref()),
        initial_events,
        lines,
    };
    let time = asked
        .timeout_seconds
        .map_or(WATCH_TIME, Duration::from_secs);
    let stop = api.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
            _ = watch.follow(from) => {}
        }
    });
    let kind = [("content-type", "application/json")];
    (kind, Body::new(Lines(body))).into_response()
}

struct Watch {
    kube: Kube,
    wanted: Wanted,
    bookmarks: bool,
    initial_events: bool,
    lines: mpsc::Sender<Bytes>,
}

/// The client is gone, or has been told to begin anew.
struct Ended;

impl Watch {
    async fn follow(self, from: Option<u64>) -> Result<(), Ended> {
        let mut changed = self.kube.changed.subscribe();
        let mut version = match from {
            Some(version) => version,
            None => self.initial().await?,
        };
        let mut next_bookmark = Instant::now() + BOOKMARKS;
        loop {
            changed.borrow_and_update();
            version = self.news(version).await?;
            tokio::select! {
                open = changed.changed() => open.map_err(|_| Ended)?,
                () = self.lines.closed() => return Err(Ended),
                () = sleep_until(next_bookmark) => {
                    next_bookmark += BOOKMARKS;
                    if self.bookmarks {
                        self.bookmark(version, false).await?;
                    }
                }
            }
        }
    }

    /// Everything there is, as ADDED.
    async fn initial(&self) -> Result<u64, Ended> {
        let (objects, version) = snapshot(&self.kube, &self.wanted);
        for object in objects {
            self.send(&json!({"type": "ADDED", "object": *object}))
                .await?;
        }
        if self.initial_events {
            self.bookmark(version, true).await?;
        }
        Ok(version)
    }

    /// What happened after `version`; gives the version reached.
    async fn news(&self, version: u64) -> Result<u64, Ended> {
        let (events, reached) = {
            let state = self.kube.lock();
            let events: Option<Vec<Event>> = (version >= state.forgotten).then(|| {
                let events = state.history.iter();
                events
                    .filter(|event| event.version > version)
                    .cloned()
                    .collect()
            });
            (events, state.version)
        };
        let Some(events) = events else {
            let message = format!("too old resource version: {version}");
            let gone = status_body(StatusCode::GONE, "Expired", &message);
            self.send(&json!({"type": "ERROR", "object": gone})).await?;
            return Err(Ended);
        };
        for event in events {
            if self.wanted.fits(event.kind, &event.object) {
                let line = json!({"type": event.change.name(), "object": *event.object});
                self.send(&line).await?;
            }
        }
        Ok(reached.max(version))
    }

    async fn bookmark(&self, version: u64, end_of_initial: bool) -> Result<(), Ended> {
        let mut object = json!({
            "kind": self.wanted.kind.name(),
            "apiVersion": self.wanted.kind.api_version(),
            "metadata": {"resourceVersion": version.to_string()},
        });
        if end_of_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.send(&json!({"type": "BOOKMARK", "object": object}))
            .await
    }

    async fn send(&self, line: &Value) -> Result<(), Ended> {
        let text = Bytes::from(format!("{line}\n"));
        self.lines.send(text).await.map_err(|_| Ended)
    }
}

/// A body of lines as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_mean_what_they_mean_to_kubernetes() {
        let place = |path: &str| Place::read(path).map(|p| (p.kind, p.namespace, p.name, p.watch));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            place("/api/v1/services"),
            Some((Kind::SERVICE, None, None, false))
        );
        assert_eq!(
            place("/api/v1/namespaces/default/endpoints/web"),
            Some((Kind::ENDPOINTS, some("default"), some("web"), false))
        );
        assert_eq!(
            place("/api/v1/watch/namespaces/default/endpoints"),
            Some((Kind::ENDPOINTS, some("default"), None, true))
        );
        assert_eq!(
            place("/api/v1/namespaces/default"),
            Some((Kind::NAMESPACE, None, some("default"), false))
        );
        assert_eq!(
            place("/apis/discovery.k8s.io/v1/endpointslices"),
            Some((Kind::SLICE, None, None, false))
        );
        assert_eq!(
            place("/api/v1/nodes/node-a"),
            Some((Kind::NODE, None, some("node-a"), false))
        );
        assert_eq!(place("/apis/apps/v1/deployments"), None);
        assert_eq!(place("/api/v1/endpointslices"), None);
        assert_eq!(place("/api"), None);
    }

    #[test]
    fn label_selectors_are_read_and_sets_refused() {
        let labels = json!({"app": "web"});
        for (text, fits) in [
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("app", true),
            ("!app", false),
            ("x!=y", true),
        ] {
            assert_eq!(
                Requirement::read(text).unwrap().fits(&labels),
                fits,
                "{text}"
            );
        }
        assert_eq!(Requirement::read("app in (web)"), None);
    }
}
