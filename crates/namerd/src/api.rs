//! Linkerd's HTTP controller API, `/api/1/…`: dtabs to read and write, names to bind, and streams of both; beside it ours,
//! `/api/rutter/1/…` ([`rutter`]).
//!
//! [`Api::handle`] is the way of one request; `dtabs` reads and writes the store, `bound` asks for names, `stream` is an
//! answer that goes on, `answer` makes responses. What Linkerd answers with an empty body has the reason behind the status.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use self::answer::{Refusal, Response};
use self::query::Query;
use crate::access::{Access, Denied, Subject, Verb};
use crate::names::Names;
use crate::serve::Certificate;
use crate::store::{Namespace, Store};

mod answer;
mod bound;
mod dtabs;
mod query;
mod rutter;
#[cfg(any(test, feature = "fuzzing"))]
pub mod spoken;
mod stream;

/// The API over a store and its names.
#[derive(Clone)]
pub struct Api {
    store: Arc<dyn Store>,
    names: Names,
    /// Ends the streams.
    stop: CancellationToken,
    access: Arc<Access>,
}

impl Api {
    /// The API, open to everybody; `stop` ends the answers that go on.
    pub fn new(store: Arc<dyn Store>, names: Names, stop: CancellationToken) -> Self {
        Self {
            store,
            names,
            stop,
            access: Arc::new(Access::open()),
        }
    }

    /// The same API for those whom `access` lets in.
    #[must_use]
    pub fn with_access(self, access: Arc<Access>) -> Self {
        Self { access, ..self }
    }

    /// Answers one request of the client at `peer`.
    pub(crate) async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let ours = request.uri().path().starts_with(rutter::BASE);
        let problem_json = ours || answer::wants_problem_json(&request);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match self.route(request, peer).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(%method, path, %peer, status = refusal.status.as_u16(), reason = %refusal.reason, "refused");
                refusal.into_response(problem_json)
            }
        }
    }

    async fn route(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response, Refusal> {
        same_origin(&request)?;
        let path = request.uri().path().to_owned();
        let query = Query::of(request.uri().query().unwrap_or_default())?;
        let nowhere = || Refusal::new(StatusCode::NOT_FOUND, "there is no such thing in this API");
        let who = self.who(&mut request).await?;
        if let Some(ours) = path.strip_prefix(rutter::BASE) {
            return self.rutter(request, ours, &query, (&who, peer)).await;
        }
        let rest = path.strip_prefix("/api/1/").ok_or_else(nowhere)?;
        let (what, below) = rest
            .split_once('/')
            .map_or((rest, None), |(what, below)| (what, Some(below)));
        let below = below.filter(|below| !below.is_empty());
        if below.is_some_and(|below| below.contains('/')) {
            return Err(nowhere());
        }
        let namespace = below.map(namespace).transpose()?;
        let reads = request.method() == Method::GET;
        let changes = what == "dtabs" && !matches!(*request.method(), Method::GET | Method::HEAD);
        let verb = if changes { Verb::Write } else { Verb::Read };
        self.access.check(&who, verb, namespace.as_ref())?;
        match (what, namespace) {
            ("dtabs", None) => self.list(who, query.watch()),
            ("dtabs", Some(namespace)) => self.dtab(request, &namespace, &query, peer).await,
            ("bind", Some(namespace)) if reads => self.bind(&namespace, &query).await,
            ("resolve", Some(namespace)) if reads => self.resolve(&namespace, &query).await,
            ("addr", Some(_)) if reads => self.addr(&query).await,
            ("delegate", namespace) => self.delegate(request, namespace, query).await,
            ("bound-names", None) if reads => self.bound_names(query.watch()),
            _ => Err(nowhere()),
        }
    }
}

impl Api {
    /// Who sends this. What is known of them, changes are by, whatever they say.
    async fn who(&self, request: &mut Request<Incoming>) -> Result<Subject, Refusal> {
        let certificate = request.extensions().get::<Certificate>();
        let certificate = certificate.map(|Certificate(name)| &**name);
        let who = self.access.who(request.headers(), certificate).await?;
        if !who.is_anonymous() {
            let author = HeaderValue::from_bytes(who.name.as_bytes());
            let author = author.map_err(|_| Refusal::bad("your name is no text of one line"))?;
            request.headers_mut().insert(dtabs::AUTHOR, author);
        }
        Ok(who)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match &denied {
            Denied::Unknown(_) => StatusCode::UNAUTHORIZED,
            Denied::Forbidden(_) => StatusCode::FORBIDDEN,
            Denied::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, denied.to_string()).told()
    }
}

fn namespace(segment: &str) -> Result<Namespace, Refusal> {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    let name = decoded.map_err(|_| Refusal::bad("the namespace is not UTF-8"))?;
    Namespace::new(&name).map_err(|error| Refusal::bad(error.to_string()))
}

/// A page of another site must not change rules through somebody's browser. Programs send none of these headers.
fn same_origin<B>(request: &Request<B>) -> Result<(), Refusal> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let foreign = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site != "same-origin" && site != "none",
        (None, Some(origin)) => {
            origin.split_once("://").map(|(_, host)| host) != text(header::HOST.as_str())
        }
        (None, None) => false,
    };
    match foreign {
        true => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "this change came from another site's page",
        )),
        false => Ok(()),
    }
}

/// A namespace's name as a segment of a URL.
pub fn encoded(namespace: &str) -> String {
    percent_encoding::utf8_percent_encode(namespace, percent_encoding::NON_ALPHANUMERIC).to_string()
}
