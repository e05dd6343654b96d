//! `/admin/metrics.json`, Linkerd's Prometheus page and ours.

use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use telemetry::metrics::Registry;
use telemetry::metrics::linkerd::{self, JsonOptions};
use telemetry::metrics::ours::{self, Format};

use crate::Admin;
use crate::shelf::json_text;

#[derive(Deserialize)]
struct Asked {
    pretty: Option<String>,
    tree: Option<String>,
    q: Option<String>,
}

impl Admin {
    /// `/admin/metrics.json`, `/metrics.json` and `/metrics`.
    #[must_use]
    pub fn metrics(self, registry: &Registry) -> Self {
        let (of_json, clean) = (registry.clone(), registry.clone());
        let json = get(move |asked: Query<Asked>| async move { metrics_json(&of_json, asked.0) });
        let clean = get(move |headers: HeaderMap| async move {
            let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
            let format = Format::accepted(accept.unwrap_or_default());
            let kind = [(header::CONTENT_TYPE, format.content_type())];
            (kind, ours::page(&clean, format))
        });
        self.page("/admin/metrics.json", json.clone())
            .page("/metrics.json", json)
            .page("/metrics", clean)
    }

    /// Linkerd's Prometheus page: `io.l5d.prometheus` with its `path` and `prefix`.
    #[must_use]
    pub fn linkerd_prometheus(self, registry: &Registry, path: &str, prefix: &str) -> Self {
        let (registry, prefix) = (registry.clone(), prefix.to_owned());
        let page = get(move || async move {
            let kind = [(header::CONTENT_TYPE, Format::Text.content_type())];
            (kind, linkerd::prometheus(&registry, &prefix))
        });
        self.page(path, page)
    }

    /// Linkerd's page for InfluxDB: `io.l5d.influxdb`. Its lines carry the `Host` they were asked with.
    #[must_use]
    pub fn linkerd_influxdb(self, registry: &Registry) -> Self {
        let registry = registry.clone();
        let page = get(move |headers: HeaderMap| async move {
            let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
            let kind = [(header::CONTENT_TYPE, "text/plain;charset=utf-8")];
            (kind, linkerd::influxdb(&registry, host.unwrap_or("none")))
        });
        self.page("/admin/metrics/influxdb", page)
    }
}

fn metrics_json(registry: &Registry, asked: Asked) -> Response {
    // As Linkerd: any value switches it on but these.
    let on = |value: Option<String>| value.is_some_and(|v| v != "0" && v != "false");
    let options = JsonOptions {
        pretty: on(asked.pretty),
        tree: on(asked.tree),
        under: asked.q,
    };
    match linkerd::json(registry, &options) {
        Ok(text) => json_text(text),
        Err(none) => (StatusCode::NOT_FOUND, json_text(none.json())).into_response(),
    }
}
