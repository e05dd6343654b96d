//! The admin port of a router: whoever owns a state gives its page.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use admin::{
    Admin, AdminConfig, BadText, BoxFuture, DelegateError, DelegateRequest, Instance, Readiness,
    RequestRow, RequestsView, RouterInfo, Security,
};
use dtab::{Dtab, Path};
use naming::{Delegation, Namer, Reads};
use router::Router;
use serde_json::{Map, Value, json};
use telemetry::log::LogHandle;
use telemetry::metrics::Registry;
use telemetry::metrics::linkerd::{self, JsonOptions};
use telemetry::span::RecentRequest;
use tokio_util::sync::CancellationToken;

use super::Identity;
use super::reports::Reports;
use super::sources::Sources;
use crate::config::settings::{Config, SecuritySettings};

/// Everything that has a page.
pub(super) struct Shown<'a> {
    pub(super) config: &'a Config,
    pub(super) identity: &'a Identity,
    pub(super) routers: &'a [Arc<Router>],
    pub(super) sources: &'a Sources,
    pub(super) reports: &'a Reports,
    pub(super) registry: &'a Registry,
    pub(super) readiness: &'a Readiness,
    pub(super) log: Option<LogHandle>,
    /// What `/admin/shutdown` cancels.
    pub(super) stop: &'a CancellationToken,
}

/// The shelf, filled. With another configuration it is filled anew.
pub(super) fn shelf(shown: &Shown<'_>) -> anyhow::Result<Admin> {
    let Shown {
        config,
        identity,
        routers,
        sources,
        reports,
        registry,
        readiness,
        ..
    } = *shown;
    let security = security(&config.admin.security)?;
    let version = env!("CARGO_PKG_VERSION");
    let stop = shown.stop.clone();
    let mut admin = Admin::new(AdminConfig {
        ip: config.admin.addr.ip(),
        port: config.admin.addr.port(),
        security,
        instance: Instance {
            program: "rutter".to_owned(),
            version: version.to_owned(),
            node: identity.node.clone(),
            pod: identity.pod.clone(),
        },
    });
    let infos = infos(config, routers);
    admin = admin
        .overview(registry, infos.clone(), readiness.clone())
        .delegator(infos, delegate(routers.to_vec()))
        .requests(recent(reports, registry.clone()))
        .help()
        .metrics(registry)
        .readiness(readiness.clone())
        .config_json(config.given.clone())
        .server_info("rutter", version, "")
        .shutdown(move || stop.cancel())
        .client_state(client_state(routers.to_vec()))
        .bound_names(bound_names(sources.namers()))
        .namer_state(namer_state(sources.namers()))
        .json("/state", state(sources))
        .page("/near.json", crate::suggest::page(routers.to_vec()))
        .page(
            "/identify.json",
            crate::identify::page(
                routers
                    .iter()
                    .map(|router| router.settings().clone())
                    .collect(),
            ),
        );
    for (path, prefix) in &reports.prometheus {
        admin = admin.linkerd_prometheus(registry, path, prefix);
    }
    if reports.influxdb {
        admin = admin.linkerd_influxdb(registry);
    }
    for router in routers {
        let names = router.names().clone();
        admin = admin.json(
            format!("/{}/interpreter_state/default.json", router.label()),
            move || names.interpreter().state(),
        );
        let interpreter = router.names().interpreter().clone();
        let kind = interpreter.kind().to_lowercase();
        if kind != "default" {
            admin = admin.json(
                format!("/{}/interpreter_state/{kind}.json", router.label()),
                move || interpreter.state(),
            );
        }
    }
    if let Some(log) = &shown.log {
        admin = admin.logging(Arc::new(log.clone()));
    }
    Ok(admin)
}

/// Which pages are served.
pub(super) fn security(settings: &SecuritySettings) -> anyhow::Result<Security> {
    let security = Security {
        ui: settings.ui,
        control: settings.control,
        diagnostics: settings.diagnostics,
        ..Security::default()
    };
    let (white, black) = (settings.whitelist.iter(), settings.blacklist.iter());
    Ok(security.with_lists(white.map(AsRef::as_ref), black.map(AsRef::as_ref))?)
}

fn infos(
    config: &Config,
    routers: &[Arc<Router>],
) -> Arc<dyn Fn() -> Vec<RouterInfo> + Send + Sync> {
    let routers: Vec<_> = routers
        .iter()
        .zip(&config.routers)
        .map(|(router, one)| {
            let kinds = one
                .interpreter
                .transformers
                .iter()
                .map(|transformer| format!(" → {}", transformer.prefix));
            let kind = router.names().interpreter().kind().to_owned();
            (
                router.clone(),
                format!("{kind}{}", kinds.collect::<String>()),
            )
        })
        .collect();
    Arc::new(move || {
        let info = |(router, interpreter): &(Arc<Router>, String)| RouterInfo {
            label: router.label().to_string(),
            protocol: "http".to_owned(),
            dtab: pretty(router.names().base()),
            servers: router.listeners().iter().map(ToString::to_string).collect(),
            interpreter: interpreter.clone(),
        };
        routers.iter().map(info).collect()
    })
}

/// A dtab with one dentry a line.
pub(super) fn pretty(dtab: &Dtab) -> String {
    dtab.entries()
        .iter()
        .map(|dentry| format!("{} => {} ;\n", dentry.prefix, dentry.dst))
        .collect()
}

/// `/delegator.json`: asks the very names that requests ask.
fn delegate(
    routers: Vec<Arc<Router>>,
) -> impl Fn(DelegateRequest) -> BoxFuture<Result<Value, DelegateError>> + Send + Sync + 'static {
    move |request| {
        let router = routers
            .iter()
            .find(|router| **router.label() == *request.namespace)
            .or(routers.first())
            .cloned();
        Box::pin(async move {
            let unable = || DelegateError::Unable(request.namespace.clone());
            let interpreter = router.as_ref().ok_or_else(unable)?.names().interpreter();
            explained(&request, |dtab, path, reads| {
                interpreter.delegate(dtab, &Dtab::empty(), path, reads)
            })
            .await
        })
    }
}

/// The delegation that is asked for, once all of it is known. The dtab that is asked with stands for the router's own,
/// as in Linkerd 1; its page sends the whole.
pub(super) async fn explained(
    request: &DelegateRequest,
    delegate: impl Fn(&Dtab, &Path, &mut Reads) -> Option<Delegation>,
) -> Result<Value, DelegateError> {
    let bad = |text: &str, error: &dtab::ParseError| BadText {
        message: error.to_string(),
        report: error.report(text).to_string(),
    };
    let dtab = Dtab::read(&request.dtab)
        .map_err(|error| DelegateError::Dtab(bad(&request.dtab, &error)))?;
    let path = Path::read(&request.path)
        .map_err(|error| DelegateError::Path(bad(&request.path, &error)))?;
    loop {
        let mut reads = Reads::new();
        let delegation = delegate(&dtab, &path, &mut reads)
            .ok_or_else(|| DelegateError::Unable(request.namespace.clone()))?;
        if delegation.pending().is_none() {
            return Ok(delegation.to_json());
        }
        reads.changed().await;
    }
}

fn client_state(routers: Vec<Arc<Router>>) -> impl Fn() -> Value + Send + Sync + 'static {
    move || {
        let clients = routers.iter().flat_map(|router| router.clients());
        let state = clients.map(|client| (client.id.to_string(), client.addr.client_state()));
        Value::Object(state.collect::<Map<_, _>>())
    }
}

fn bound_names(namers: Vec<Arc<dyn Namer>>) -> impl Fn() -> Vec<String> + Send + Sync + 'static {
    move || {
        let mut names: Vec<_> = namers
            .iter()
            .flat_map(|namer| namer.names())
            .map(|name| name.to_string())
            .collect();
        names.sort();
        names
    }
}

pub(super) fn namer_state(
    namers: Vec<Arc<dyn Namer>>,
) -> impl Fn(&str) -> Option<Value> + Send + Sync + 'static {
    move |prefix| {
        let is =
            |namer: &&Arc<dyn Namer>| namer.prefix().to_string().trim_start_matches('/') == prefix;
        namers.iter().find(is).map(|namer| namer.state())
    }
}

fn state(sources: &Sources) -> impl Fn() -> Value + Send + Sync + 'static {
    let clusters = sources.clusters();
    let namers = sources.namers();
    move || {
        let of_namers = namers
            .iter()
            .map(|namer| (namer.prefix().to_string(), namer.state()));
        json!({
            "schema": "rutter/state/v1",
            "kubernetes": clusters.iter().map(k8s::Cluster::state).collect::<Vec<_>>(),
            "namers": of_namers.collect::<Map<_, _>>(),
        })
    }
}

/// How many requests the listeners took since the start.
fn requests_taken(registry: &Registry) -> u64 {
    let options = JsonOptions {
        under: Some("rt".to_owned()),
        ..JsonOptions::default()
    };
    let all = linkerd::json(registry, &options).ok();
    let all: Map<String, Value> = all
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let of_server = |name: &String| name.contains("/server/") && name.ends_with("/requests");
    all.iter()
        .filter(|(name, _)| of_server(name))
        .filter_map(|(_, count)| count.as_u64())
        .sum()
}

fn recent(
    reports: &Reports,
    registry: Registry,
) -> impl Fn() -> RequestsView + Send + Sync + 'static {
    let (recent, sample_rate, capacity) = (
        reports.recent.clone(),
        reports.recent_rate,
        reports.recent_capacity,
    );
    move || RequestsView {
        rows: recent.requests().into_iter().map(row).collect(),
        sample_rate,
        capacity,
        passed: requests_taken(&registry),
    }
}

fn row(request: RecentRequest) -> RequestRow {
    let addr =
        |addr: Option<std::net::SocketAddr>| addr.map(|addr| addr.to_string()).unwrap_or_default();
    RequestRow {
        time: UNIX_EPOCH + Duration::from_micros(request.timestamp_us + request.duration_us),
        source: addr(request.source),
        server: addr(request.server),
        router: request.router,
        logical: request.logical_name.unwrap_or_default(),
        concrete: request.concrete_name.unwrap_or_default(),
        destination: addr(request.destination),
        request: request.request.unwrap_or_default(),
        status: request
            .status
            .and_then(|status| status.parse().ok())
            .unwrap_or(0),
        code: request.error.unwrap_or_default().to_owned(),
        latency: Duration::from_micros(request.duration_us),
        trace: request.trace,
    }
}
