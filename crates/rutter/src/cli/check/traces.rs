//! Spans: whether the collector is there and takes them, and whether applications pass traces on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use telemetry::code::Check;

use super::api::{Found, Kube};
use super::names::ready_endpoints;
use super::report::{Category, Report};
use super::router::{connect, samples};
use crate::cli::admin_client::AdminClient;
use crate::cli::tree::{list, text};
use crate::config::settings::{Config, TelemeterSettings};

const T: Category = Category::Traces;
/// Fewer requests of a pod say nothing about what it does with headers.
const ENOUGH: usize = 3;

fn collectors(config: &Config) -> impl Iterator<Item = (&str, u16)> {
    config
        .telemetry
        .iter()
        .filter_map(|telemeter| match telemeter {
            TelemeterSettings::Zipkin { host, port, .. } => Some((&**host, *port)),
            _ => None,
        })
}

/// RT-C040, RT-C043: what the router's metrics say of its spans. True when the collector takes them.
pub(super) async fn spans(page: &str, config: &Config, report: &mut Report) -> bool {
    let of = |result: &str| -> f64 {
        samples(page, "rutter_spans_total")
            .filter(|(labels, _)| labels.contains(&format!("result=\"{result}\"")))
            .map(|(_, n)| n)
            .sum()
    };
    let (sent, dropped) = (of("sent"), of("dropped"));
    for (host, port) in collectors(config) {
        let collector = format!("{host}:{port}");
        if dropped > 0.0 {
            report
                .warn(
                    Check::C040,
                    T,
                    format!("{dropped:.0} spans for {collector} were dropped, {sent:.0} sent"),
                )
                .effect("traces have gaps");
        } else if sent > 0.0 {
            report.ok(T, format!("{collector} took {sent:.0} spans, 0 dropped"));
        } else {
            match connect(&collector).await {
                Ok(_) => report.ok(
                    T,
                    format!("{collector} accepts connections; no span has been sent yet"),
                ),
                Err(error) => {
                    report.warn(Check::C043, T, format!("no span has been sent yet, and {collector} cannot be reached from here: {error}"));
                }
            }
        }
    }
    sent > 0.0 && dropped == 0.0
}

/// RT-C042, RT-C043: a collector that is a Service of the cluster.
pub(super) async fn collector_services(kube: &Kube, config: &Config, report: &mut Report) {
    for (host, port) in collectors(config) {
        let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
        let (name, namespace) = match labels.as_slice() {
            [name, namespace]
            | [name, namespace, "svc"]
            | [name, namespace, "svc", "cluster", "local"] => (*name, *namespace),
            _ => continue,
        };
        let full = format!("{namespace}/{name}");
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        match kube.get(&path).await {
            Found::Unknown(why) => report.note(
                T,
                format!("Service {full} of the collector was not looked for: {why}"),
            ),
            Found::Missing => {
                report.warn(
                    Check::C042,
                    T,
                    format!("the collector is {host}:{port}, and there is no Service {full}"),
                );
            }
            Found::Object(service)
                if !list(&service["spec"], "ports").any(|p| p["port"] == port) =>
            {
                report.warn(
                    Check::C043,
                    T,
                    format!("Service {full} of the collector has no port {port}"),
                );
            }
            Found::Object(service) => {
                let external = text(&service["spec"], "type") == "ExternalName";
                match ready_endpoints(kube, namespace, name).await {
                    Some(0) if !external => {
                        report.warn(
                            Check::C043,
                            T,
                            format!("Service {full} of the collector has no ready endpoint"),
                        );
                    }
                    _ => report.ok(T, format!("Service {full} of the collector is there")),
                }
            }
        }
    }
}

/// RT-C041: what the last requests say about each application.
pub(super) async fn forwarding(client: &AdminClient, report: &mut Report) {
    let Ok(page) = client.json("/requests.json").await else {
        return;
    };
    for (service, received) in not_forwarding(&page["requests"]) {
        report.warn(
            Check::C041,
            T,
            format!("{service} received {received} traces and went on with none of them: traces end there"),
        );
    }
}

/// Services whose pods received traces and made requests, none of which was of a trace they had received; with how many.
fn not_forwarding(requests: &Value) -> Vec<(String, usize)> {
    let ip = |address: &str| address.rsplit_once(':').map(|(ip, _)| ip.to_owned());
    let mut received: BTreeMap<String, (BTreeSet<&str>, String)> = BTreeMap::new();
    let mut made: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for one in requests.as_array().into_iter().flatten() {
        let trace = text(one, "trace");
        if trace.is_empty() {
            continue;
        }
        if let Some(to) = ip(text(one, "destination")) {
            let entry = received.entry(to).or_default();
            entry.0.insert(trace);
            entry.1 = text(one, "logical").to_owned();
        }
        if let Some(from) = ip(text(one, "source")) {
            made.entry(from).or_default().insert(trace);
        }
    }
    let mut found = BTreeMap::new();
    for (pod, (received, service)) in &received {
        let Some(made) = made.get(pod) else { continue };
        if received.len() >= ENOUGH && made.len() >= ENOUGH && received.is_disjoint(made) {
            *found.entry(service.clone()).or_insert(0) += received.len();
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_that_goes_on_with_none_of_its_traces_is_found() {
        let one = |source: &str, destination: &str, trace: &str, logical: &str| json!({"source": source, "destination": destination, "trace": trace, "logical": logical});
        let mut requests = Vec::new();
        for i in 0..4 {
            let (a, b) = (format!("a{i}"), format!("b{i}"));
            // `deaf` gets traces a… and makes requests with traces of its own; `good` passes them on.
            requests.push(one("9.9.9.9:1", "10.0.0.1:80", &a, "/svc/deaf"));
            requests.push(one("10.0.0.1:5", "10.0.0.7:80", &b, "/svc/world"));
            requests.push(one("9.9.9.9:1", "10.0.0.2:80", &b, "/svc/good"));
            requests.push(one("10.0.0.2:5", "10.0.0.7:80", &b, "/svc/world"));
        }
        assert_eq!(
            not_forwarding(&json!(requests)),
            [("/svc/deaf".to_owned(), 4)]
        );
        assert_eq!(not_forwarding(&json!(requests[..8])), []);
        assert_eq!(not_forwarding(&Value::Null), []);
    }
}
