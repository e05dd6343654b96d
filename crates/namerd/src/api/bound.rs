//! `/api/1/bind`, `addr`, `resolve`, `delegate`, `bound-names`: what names lead to.

use std::time::Duration;

use dtab::{Dtab, NameTree, Path};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use naming::{Activity, Bound, Reads};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::{self, Refusal, Response};
use super::query::Query;
use super::stream::{Next, documents};
use crate::json;
use crate::store::Namespace;

/// How long a name may be waited for that is asked for once. Linkerd waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// As Linkerd's: a delegation that takes longer is given up.
const DELEGATION_PATIENCE: Duration = Duration::from_secs(2);
/// A question for a delegation.
const QUESTION_BYTES: usize = 1024 * 1024;
/// How often it is looked whether there are other names: namers tell their names, but not when they change.
const NAMES_INTERVAL: Duration = Duration::from_secs(1);
const JSON: &str = "application/json";

impl Api {
    pub(super) async fn bind(
        &self,
        namespace: &Namespace,
        query: &Query,
    ) -> Result<Response, Refusal> {
        let (path, local) = (query.path()?, query.dtab()?);
        let scope = self.names.of(namespace);
        // Our routers ask for it: so they can tell which version they route with.
        let versions = query.is_true("versions");
        let said = move |reads: &mut Reads| {
            // Before the tree, so that it is never newer than that.
            let number = versions.then(|| scope.number(reads)).flatten();
            said(scope.bind(&local, &path, reads), |tree| {
                let mut tree = json::tree(&tree, reads).ok_or("addresses")?;
                if let Some(number) = number {
                    tree["number"] = number.into();
                }
                Ok(tree)
            })
        };
        self.answer(said, query.watch(), None).await
    }

    pub(super) async fn addr(&self, query: &Query) -> Result<Response, Refusal> {
        let (id, names) = (query.path()?, self.names.clone());
        let said = move |reads: &mut Reads| {
            said(names.addr(&id, reads), |addr| match addr {
                naming::Addr::Pending => Err("addresses"),
                addr => Ok(addr.to_json()),
            })
        };
        self.answer(said, query.watch(), None).await
    }

    pub(super) async fn resolve(
        &self,
        namespace: &Namespace,
        query: &Query,
    ) -> Result<Response, Refusal> {
        let (path, local) = (query.path()?, query.dtab()?);
        let scope = self.names.of(namespace);
        // A stream stays with its branch of a union while the weights are what they are.
        let lot = fastrand::f64();
        let said = move |reads: &mut Reads| {
            said(scope.bind(&local, &path, reads), |tree| {
                match drawn(&tree, lot) {
                    Some(bound) => json::leaf_addr(bound, reads).ok_or("addresses"),
                    None => Ok(json!({"type": "neg"})),
                }
            })
        };
        self.answer(said, query.watch(), Some(JSON)).await
    }

    /// One state, once it is known; or all of them.
    async fn answer(
        &self,
        mut said: impl FnMut(&mut Reads) -> Next + Send + 'static,
        watch: bool,
        media_type: Option<&'static str>,
    ) -> Result<Response, Refusal> {
        if watch {
            return Ok(answer::with_type(
                documents(said, self.stop.clone()),
                media_type,
            ));
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut reads = Reads::new();
            let waits_for = match said(&mut reads) {
                Next::Say(text) => {
                    return Ok(answer::with_type(answer::plain(text + "\n"), media_type));
                }
                Next::End(reason) => {
                    return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason).told());
                }
                Next::Wait(waits_for) => waits_for,
            };
            if tokio::time::timeout_at(until, reads.changed())
                .await
                .is_err()
            {
                let reason = format!("not known within {PATIENCE:?}: waiting for {waits_for}");
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).told());
            }
        }
    }

    /// GET with a query, or POST with the same as JSON.
    pub(super) async fn delegate(
        &self,
        request: Request<Incoming>,
        namespace: Option<Namespace>,
        query: Query,
    ) -> Result<Response, Refusal> {
        let query = match *request.method() {
            Method::GET => query,
            Method::POST => question(request).await?,
            _ => {
                return Err(Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "delegate takes GET and POST",
                )
                .told());
            }
        };
        let namespace = match (namespace, query.get("namespace")) {
            (Some(namespace), _) => namespace,
            (None, given) => {
                let given = given.filter(|given| !given.is_empty()).unwrap_or("default");
                Namespace::new(given).map_err(|error| Refusal::bad(error.to_string()))?
            }
        };
        let (path, local) = (query.path()?, query.dtab()?);
        let found = tokio::time::timeout(
            DELEGATION_PATIENCE,
            self.explained(&namespace, &local, &path),
        );
        match found.await {
            Ok(Some(tree)) => Ok(answer::typed(JSON, tree.to_string())),
            Ok(None) => {
                let reason = format!("Name Interpreter for {namespace} cannot show delegations");
                Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, reason).told())
            }
            Err(_) => {
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Request timed out.").told())
            }
        }
    }

    async fn explained(&self, namespace: &Namespace, local: &Dtab, path: &Path) -> Option<Value> {
        let scope = self.names.of(namespace);
        let delegation = crate::names::explained(&scope, local, path).await?;
        Some(delegation.to_json())
    }

    pub(super) fn bound_names(&self, watch: bool) -> Result<Response, Refusal> {
        let names = self.names.clone();
        let text = move || Value::from(names.enumerated()).to_string();
        if !watch {
            return Ok(answer::typed(JSON, text() + "\n"));
        }
        let clock = naming::Var::new(());
        let (ticks, ended) = (clock.clone(), self.stop.child_token());
        let running = ended.clone().drop_guard();
        tokio::spawn(async move {
            while ended
                .run_until_cancelled(tokio::time::sleep(NAMES_INTERVAL))
                .await
                .is_some()
            {
                ticks.set(());
            }
        });
        let said = move |reads: &mut Reads| {
            // Dropped with the stream, which ends the clock.
            let _running = &running;
            clock.read(reads);
            Next::Say(text())
        };
        Ok(answer::with_type(
            documents(said, self.stop.clone()),
            Some(JSON),
        ))
    }
}

/// What is said of a state: what `show` makes of its value, or what it waits for.
fn said<T>(
    state: Activity<T, naming::BindError>,
    show: impl FnOnce(T) -> Result<Value, &'static str>,
) -> Next {
    match state {
        Activity::Pending(waits_for) => Next::Wait(waits_for.to_string()),
        Activity::Failed(error) => Next::End(error.to_string()),
        Activity::Ok(value) => match show(value) {
            Ok(value) => Next::Say(value.to_string()),
            Err(waits_for) => Next::Wait(waits_for.to_owned()),
        },
    }
}

/// The leaf that is drawn with a lot from 0 to 1, branches of a union by their weights.
fn drawn(tree: &NameTree<Bound>, lot: f64) -> Option<&Bound> {
    match tree {
        NameTree::Leaf(bound) => Some(bound),
        NameTree::Neg | NameTree::Fail | NameTree::Empty => None,
        NameTree::Alt(trees) => trees.iter().find_map(|tree| drawn(tree, lot)),
        NameTree::Union(branches) => {
            let all: f64 = branches.iter().map(|branch| branch.weight).sum();
            let mut left = lot * all;
            for branch in branches {
                if left < branch.weight {
                    return drawn(&branch.tree, left / branch.weight);
                }
                left -= branch.weight;
            }
            drawn(&branches.last()?.tree, 0.0)
        }
    }
}

/// The body of a POST.
#[derive(Deserialize)]
pub(super) struct Question {
    namespace: Option<String>,
    dtab: Option<String>,
    path: Option<String>,
}

/// The body of a POST, as the query that it stands for.
async fn question(request: Request<Incoming>) -> Result<Query, Refusal> {
    // As Linkerd: this very type and no other.
    if request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|value| value != JSON)
    {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json",
        )
        .told());
    }
    let malformed =
        |reason: String| Refusal::bad(format!("Malformed delegation request: {reason}"));
    let body = Limited::new(request.into_body(), QUESTION_BYTES).collect();
    let body = tokio::time::timeout(PATIENCE, body).await;
    let body = body.map_err(|_| malformed("it did not arrive".to_owned()))?;
    let body = body
        .map_err(|error| malformed(error.to_string()))?
        .to_bytes();
    let question: Question =
        serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
    let fields = [
        ("namespace", question.namespace),
        ("dtab", question.dtab),
        ("path", question.path),
    ];
    let given = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Query(given.collect()))
}
