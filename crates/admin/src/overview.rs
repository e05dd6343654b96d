//! `/`: the routers of this process, their services worst first, where they go, and what is missing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::delegator_page::{RouterInfo, Routers};
use crate::html::{self, Site};
use telemetry::metrics::Registry;
use telemetry::metrics::linkerd::{self, JsonOptions};

use crate::{Admin, Readiness};

mod figures;

use figures::{History, Row, Table};

/// Rows of a table until somebody asks for all: a page has to stay a page with a thousand names.
const ROWS: usize = 50;

#[derive(Deserialize)]
struct Asked {
    q: Option<String>,
    router: Option<String>,
    all: Option<String>,
    fragment: Option<String>,
}

/// What the overview is made of.
struct Source {
    metrics: Registry,
    routers: Routers,
    readiness: Readiness,
    history: Mutex<History>,
    started: Instant,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    whole: bool,
    q: String,
    all: bool,
    router: Option<String>,
    routers: Vec<RouterInfo>,
    missing: Vec<(String, String)>,
    uptime: String,
    memory: Option<u64>,
    total: Row,
    services: Table,
    clients: Table,
    servers: Table,
}

impl Admin {
    /// `/`: the overview; and `/overview.json`, the same figures.
    #[must_use]
    pub fn overview(
        self,
        registry: &Registry,
        routers: Arc<dyn Fn() -> Vec<RouterInfo> + Send + Sync>,
        readiness: Readiness,
    ) -> Self {
        let source = Arc::new(Source {
            metrics: registry.clone(),
            routers,
            readiness,
            history: Mutex::default(),
            started: Instant::now(),
        });
        let of_json = source.clone();
        let page = get(
            move |site: Extension<Arc<Site>>, asked: Query<Asked>| async move {
                let fragment = asked.fragment.is_some();
                let page = source.look(asked.0);
                html::page(&site, ("/", "Overview"), Some("live.js"), fragment, &page)
            },
        );
        let json = get(move |asked: Query<Asked>| async move {
            crate::shelf::json_response(&of_json.look(asked.0).to_json())
        });
        self.nav_page("/", "Overview", page)
            .page("/overview.json", json)
    }
}

impl Source {
    fn look(&self, asked: Asked) -> Page {
        let q = asked.q.unwrap_or_default();
        let router = asked.router.filter(|label| !label.is_empty());
        let all = asked.all.is_some();
        let rt = self.tree("rt");
        let mut figures = figures::read(&rt, router.as_deref());
        self.history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rates(&mut figures, Instant::now());
        let limit = if all { usize::MAX } else { ROWS };
        let memory = self.tree("jvm");
        let memory = memory
            .pointer("/mem/current/used/gauge")
            .and_then(Value::as_f64);
        Page {
            whole: asked.fragment.is_none(),
            all,
            routers: (self.routers)(),
            router,
            missing: self.missing(),
            uptime: html::duration(self.started.elapsed().as_secs()),
            memory: memory.map(|bytes| (bytes / 1_048_576.0).round() as u64),
            total: figures::total(&figures.servers),
            services: Table::new(figures.services, &q, limit),
            clients: Table::new(figures.clients, &q, limit),
            servers: Table::new(figures.servers, &q, limit),
            q,
        }
    }

    /// A sub-tree of the metrics; null when there is none.
    fn tree(&self, sub: &str) -> Value {
        let options = JsonOptions {
            pretty: false,
            tree: true,
            under: Some(sub.to_owned()),
        };
        let text = linkerd::json(&self.metrics, &options).ok();
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    fn missing(&self) -> Vec<(String, String)> {
        let state = self.readiness.to_json();
        let conditions = state["conditions"].as_object();
        conditions
            .into_iter()
            .flatten()
            .filter(|(_, condition)| condition["met"] != true)
            .map(|(name, condition)| {
                let detail = condition["detail"].as_str().unwrap_or_default();
                (name.clone(), detail.to_owned())
            })
            .collect()
    }
}

impl Page {
    fn no_traffic(&self) -> bool {
        self.services.known == 0 && self.clients.known == 0
    }

    fn to_json(&self) -> Value {
        let rows = |table: &Table| -> Vec<Value> { table.rows.iter().map(Row::to_json).collect() };
        json!({
            "schema": "rutter/overview/v1",
            "routers": self.routers.iter().map(|r| &r.label).collect::<Vec<_>>(),
            "missing": self.missing.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "total": self.total.to_json(),
            "services": rows(&self.services),
            "clients": rows(&self.clients),
            "servers": rows(&self.servers),
        })
    }
}
