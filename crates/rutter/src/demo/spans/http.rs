//! The store over HTTP: Zipkin's API, and two small pages to look at a trace.

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Spans;
use super::v1::SpanV1;

mod page;

/// Serves until `stop`.
pub async fn serve(
    spans: Spans,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(spans))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// The API and the pages; the API also under `/zipkin`, where links to a real Zipkin point.
pub(crate) fn router(spans: Spans) -> Router {
    let api = Router::new()
        .route("/api/v1/spans", post(take_v1))
        .route("/api/v2/spans", post(take_v2).get(names))
        .route(
            "/api/v2/services",
            get(async |State(spans): State<Spans>| Json(spans.services())),
        )
        .route("/api/v2/traces", get(traces))
        .route("/api/v2/trace/{id}", get(trace))
        .route(
            "/api/v2/dependencies",
            get(async |State(spans): State<Spans>| Json(spans.dependencies())),
        );
    Router::new()
        .nest("/zipkin", api.clone())
        .merge(api)
        .route("/health", get(async || Json(json!({"status": "UP"}))))
        .route(
            "/",
            get(async |State(spans): State<Spans>| shown(page::traces(&spans))),
        )
        .route(
            "/traces/{id}",
            get(async |State(spans): State<Spans>, Path(id): Path<String>| {
                shown(page::trace(&spans, &id))
            }),
        )
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .route(
            "/style.css",
            get(async || {
                (
                    [(header::CONTENT_TYPE, "text/css")],
                    include_str!("style.css"),
                )
            }),
        )
        .with_state(spans)
}

fn shown(page: String) -> Response {
    (
        [("content-security-policy", "default-src 'self'")],
        Html(page),
    )
        .into_response()
}

fn refused(what: &str) -> Response {
    (
        StatusCode::BAD_REQUEST,
        format!("expected a JSON array of spans: {what}\n"),
    )
        .into_response()
}

async fn take_v2(State(spans): State<Spans>, body: String) -> Response {
    match serde_json::from_str::<Vec<Value>>(&body) {
        Ok(batch) => {
            spans.add(batch);
            StatusCode::ACCEPTED.into_response()
        }
        Err(error) => refused(&error.to_string()),
    }
}

async fn take_v1(State(spans): State<Spans>, body: String) -> Response {
    match serde_json::from_str::<Vec<Value>>(&body) {
        Ok(batch) => {
            let batch: Vec<Value> = batch
                .iter()
                .filter_map(SpanV1::read)
                .map(|span| span.to_v2())
                .collect();
            spans.add(batch);
            StatusCode::ACCEPTED.into_response()
        }
        Err(error) => refused(&error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    service_name: Option<String>,
    span_name: Option<String>,
    min_duration: Option<u64>,
    max_duration: Option<u64>,
    annotation_query: Option<String>,
    limit: Option<usize>,
}

impl Search {
    fn fits(&self, span: &Value) -> bool {
        let is = |wanted: &Option<String>, found: &Value| {
            wanted.as_ref().is_none_or(|wanted| {
                wanted == "all" || found.as_str() == Some(wanted.to_lowercase().as_str())
            })
        };
        let duration = span["duration"].as_u64().unwrap_or(0);
        let tagged = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => span["tags"][key] == *value,
            None => !span["tags"][wanted].is_null(),
        };
        let service = self.service_name.as_ref().filter(|name| *name != "all");
        service.is_none_or(|name| span["localEndpoint"]["serviceName"].as_str() == Some(name))
            && is(&self.span_name, &span["name"])
            && self.min_duration.is_none_or(|least| duration >= least)
            && self.max_duration.is_none_or(|most| duration <= most)
            && self
                .annotation_query
                .iter()
                .flat_map(|q| q.split(" and "))
                .all(tagged)
    }
}

async fn traces(State(spans): State<Spans>, search: Query<Search>) -> Response {
    let limit = search.limit.unwrap_or(10).min(1_000);
    Json(spans.traces(|span| search.fits(span), limit)).into_response()
}

async fn trace(State(spans): State<Spans>, Path(id): Path<String>) -> Response {
    match spans.trace(&id) {
        none if none.is_empty() => (StatusCode::NOT_FOUND, "no such trace\n").into_response(),
        found => Json(found).into_response(),
    }
}

async fn names(State(spans): State<Spans>, search: Query<Search>) -> Response {
    Json(spans.names(search.service_name.as_deref().unwrap_or_default())).into_response()
}
