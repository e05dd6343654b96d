//! What a router tells the store that it binds by: its names, how many requests they have, and with which version it routes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use namerd::change::live::{MOST_REPORTED, Report, ReportedClient, ReportedName, SINCE};
use namerd::client::Protocol;
use namerd::client::report::Reporter;
use naming::Names;
use router::Router;
use serde_json::Value;
use telemetry::metrics::Registry;
use telemetry::metrics::linkerd::{JsonOptions, json};
use tokio::task::AbortHandle;

use super::routers::Parts;
use crate::config::settings::RouterConfig;

/// A rate is one of the last minute, roughly.
const SMOOTH: Duration = Duration::from_secs(60);

/// The task that tells; it ends with this.
pub(super) struct Telling(AbortHandle);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Telling {
    /// None when the router binds by itself, or by a protocol that takes no reports.
    pub(super) fn start(
        config: &RouterConfig,
        router: &Router,
        parts: &Parts<'_>,
    ) -> Option<Arc<Self>> {
        let store = config.interpreter.store.clone()?;
        if store.protocol != Protocol::Http {
            return None;
        }
        let secure = parts.sources.secure(&config.interpreter, parts.control);
        let secure = secure
            .inspect_err(|error| tracing::warn!(%error, "the store is told nothing"))
            .ok()?;
        let names = router.names();
        let (_, changes) = names.interpreter().routed()?;
        let label = router.label().to_string();
        let identity = parts.identity;
        let host = std::env::var("HOSTNAME").unwrap_or_default();
        let places = [&identity.pod, &identity.node, &host];
        let place = places.into_iter().find(|place| !place.is_empty());
        // Two routers of one machine have different listeners.
        let ports: Vec<_> = config
            .router
            .servers
            .iter()
            .map(|server| server.addr.to_string())
            .collect();
        let id = match place {
            Some(place) => format!("{place}/{label}"),
            None => format!("{}/{label}", ports.join(",")),
        };
        let base = Report {
            namespace: store.namespace.to_string(),
            router: label.clone(),
            node: identity.node.clone(),
            program: concat!("rutter ", env!("CARGO_PKG_VERSION")).to_owned(),
            dtab: names.base().to_string(),
            ..Report::default()
        };
        let mut rates = Rates::default();
        let registry = parts.registry.clone();
        let names: Weak<Names> = Arc::downgrade(names);
        let reporter = Reporter {
            replicas: parts.sources.addresses(&store.host, store.port),
            store: (store, secure),
            id,
            base,
            figures: Box::new(move |report| figures(&registry, &label, &mut rates, report)),
            routed: Arc::new(move || Some(names.upgrade()?.interpreter().routed()?.0)),
            changes,
        };
        Some(Arc::new(Self(
            parts.control.spawn(reporter.run()).abort_handle(),
        )))
    }
}

/// Fills in what a router counted, from its own metrics.
fn figures(registry: &Registry, label: &str, rates: &mut Rates, report: &mut Report) {
    let options = JsonOptions {
        under: Some(format!("rt/{label}")),
        ..JsonOptions::default()
    };
    let counted = json(registry, &options).ok();
    let counted = counted.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let Some(Value::Object(counted)) = counted else {
        return;
    };
    let number = |name: &str| {
        counted
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let (mut services, mut clients) = (Vec::new(), Vec::new());
    for (name, value) in &counted {
        let Some(place) = name.strip_suffix("/requests") else {
            continue;
        };
        let requests = value.as_u64().unwrap_or_default();
        if let Some(service) = place.strip_prefix("service/") {
            services.push((format!("/{}", service.trim_start_matches('/')), requests));
        } else if let Some(id) = place.strip_prefix("client/")
            && !id.contains("/service/")
        {
            clients.push(ReportedClient {
                id: plain_id(id),
                requests,
                successes: number(&format!("{place}/success")),
                failures: number(&format!("{place}/failures")),
                p99_ms: counted
                    .get(&format!("{place}/request_latency_ms.p99"))
                    .and_then(Value::as_f64),
            });
        }
    }
    report.names = rates.take(services, Instant::now());
    clients.sort_by_key(|client| std::cmp::Reverse(client.requests));
    clients.truncate(MOST_REPORTED);
    report.clients = clients;
}

/// A bound name's id as the store has it: without the transformers in front.
fn plain_id(id: &str) -> String {
    let id = format!("/{}", id.trim_start_matches('/'));
    if !id.starts_with("/%/") {
        return id;
    }
    let namer = [id.find("/#/"), id.find("/$/")].into_iter().flatten().min();
    id[namer.unwrap_or(0)..].to_owned()
}

/// Requests a second of each name, from counters.
#[derive(Default)]
struct Rates(HashMap<String, Rate>);

struct Rate {
    requests: u64,
    at: Instant,
    /// When it had requests last.
    used: Option<Instant>,
    rps: f64,
}

impl Rates {
    /// Takes in counters; the names that had requests within the last quarter of an hour, those with most first.
    fn take(&mut self, counters: Vec<(String, u64)>, now: Instant) -> Vec<ReportedName> {
        for (name, requests) in counters {
            let rate = self.0.entry(name).or_insert(Rate {
                requests: 0,
                at: now,
                used: None,
                rps: 0.0,
            });
            let more = requests.saturating_sub(rate.requests);
            let passed = now.saturating_duration_since(rate.at).as_secs_f64();
            // A name that is new has been counted for no longer than a report's interval.
            let passed = if passed > 0.0 { passed } else { 10.0 };
            let old = (-passed / SMOOTH.as_secs_f64()).exp();
            let now_rps = more as f64 / passed;
            rate.rps = match rate.used {
                None => now_rps,
                Some(_) => rate.rps * old + now_rps * (1.0 - old),
            };
            if more > 0 {
                rate.used = Some(now);
            }
            (rate.requests, rate.at) = (requests, now);
        }
        self.0
            .retain(|_, rate| now.saturating_duration_since(rate.at) < SINCE);
        let recent = |rate: &Rate| {
            rate.used
                .is_some_and(|used| now.saturating_duration_since(used) < SINCE)
        };
        let used = self.0.iter().filter(|(_, rate)| recent(rate));
        let mut names: Vec<_> = used
            .map(|(path, rate)| ReportedName {
                path: path.clone(),
                rps: (rate.rps * 1000.0).round() / 1000.0,
            })
            .collect();
        names.sort_by(|a, b| b.rps.total_cmp(&a.rps).then_with(|| a.path.cmp(&b.path)));
        names.truncate(MOST_REPORTED);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_rate_while_it_is_used_and_a_quarter_of_an_hour_longer() {
        let mut rates = Rates::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let counted = |requests| vec![("/svc/a".to_owned(), requests), ("/svc/idle".to_owned(), 0)];
        let names = rates.take(counted(100), at(0));
        assert_eq!(
            (names.len(), &*names[0].path, names[0].rps),
            (1, "/svc/a", 10.0)
        );
        for step in 1..100 {
            rates.take(counted(100 + step * 200), at(step * 10));
        }
        let names = rates.take(counted(100 + 99 * 200), at(991));
        assert!((19.0..20.1).contains(&names[0].rps), "{names:?}");
        let names = rates.take(counted(100 + 99 * 200), at(990 + 899));
        assert!(names[0].rps < 0.01, "{names:?}");
        assert!(
            rates
                .take(counted(100 + 99 * 200), at(990 + 901))
                .is_empty()
        );
    }

    #[test]
    fn ids_are_those_of_the_store() {
        for (id, want) in [
            ("#/io.l5d.fs/web", "/#/io.l5d.fs/web"),
            ("/#/io.l5d.fs/web", "/#/io.l5d.fs/web"),
            (
                "%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/default/http/web",
                "/#/io.l5d.k8s/default/http/web",
            ),
            ("$/inet/127.1/80", "/$/inet/127.1/80"),
        ] {
            assert_eq!(plain_id(id), want);
        }
    }
}
