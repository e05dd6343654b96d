use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use super::super::{Collector, Outcome, Outcomes, Registration, RegistryConfig, Requests, Source};
use super::*;
use crate::cells::{Cell, Histogram};
use crate::code::Code;

fn outcome(status: u16, code: Option<Code>, latency_us: u64) -> Outcome<'static> {
    Outcome {
        status: Some(status),
        success: status < 500,
        code,
        exception: None,
        latency_us,
    }
}

fn served(registry: &Registry, service: &str, client: &str) -> Vec<Registration> {
    let (requests, outcomes) = (
        Arc::new(Requests::with_statuses()),
        Arc::new(Outcomes::new()),
    );
    for latency in [800, 12_000, 40_000, 700_000] {
        requests.begin();
        requests.end(&outcome(200, None, latency));
        outcomes.end(&outcome(200, None, latency));
    }
    outcomes.end(&outcome(502, Some(Code::E110), 300));
    vec![
        registry.register(Scope::service("out", service), requests.clone()),
        registry.register(Scope::client("out", client), requests.clone()),
        registry.register(Scope::client_service("out", client, service), requests),
        registry.register(Scope::client_service("out", client, service), outcomes),
    ]
}

#[test]
fn requests_have_their_class_and_code_and_durations_their_buckets() {
    let registry = Registry::new();
    let _kept = served(&registry, "/svc/web", "/#/io.l5d.fs/web");
    let page = page(&registry, Format::Text);
    let labels = r##"router="out",service="svc/web",client="#/io.l5d.fs/web""##;
    for want in [
        format!(r#"rutter_requests_total{{{labels},class="2xx",code=""}} 4"#),
        format!(r#"rutter_requests_total{{{labels},class="5xx",code="RT-E110"}} 1"#),
        format!("rutter_successful_requests_total{{{labels}}} 4"),
        r#"rutter_errors_total{code="RT-E110"} 1"#.to_owned(),
        format!(r#"rutter_request_duration_seconds_bucket{{{labels},class="2xx",le="0.001"}} 1"#),
        format!(r#"rutter_request_duration_seconds_bucket{{{labels},class="2xx",le="0.05"}} 3"#),
        format!(r#"rutter_request_duration_seconds_bucket{{{labels},class="2xx",le="+Inf"}} 4"#),
        format!(r#"rutter_request_duration_seconds_count{{{labels},class="2xx"}} 4"#),
        format!(r#"rutter_request_duration_seconds_sum{{{labels},class="2xx"}} 0.7528"#),
        "rutter_attempts_total{router=\"out\",client=\"#/io.l5d.fs/web\",result=\"success\"} 4"
            .to_owned(),
        "# TYPE rutter_requests_total counter".to_owned(),
    ] {
        assert!(page.lines().any(|line| line == want), "{want}\n{page}");
    }
}

#[test]
fn errors_of_all_services_are_added_up_by_code() {
    let registry = Registry::new();
    let _a = served(&registry, "/svc/a", "/#/io.l5d.fs/a");
    let _b = served(&registry, "/svc/b", "/#/io.l5d.fs/b");
    assert!(page(&registry, Format::Text).contains("rutter_errors_total{code=\"RT-E110\"} 2\n"));
}

#[test]
fn bucket_limits_are_said_as_they_are_counted() {
    for (us, text) in BUCKETS_US.iter().zip(BUCKETS) {
        assert_eq!(text.parse::<f64>().unwrap(), *us as f64 / 1e6);
    }
}

#[test]
fn a_clients_label_is_its_id_without_transformers() {
    for (id, want) in [
        ("#/io.l5d.fs/web", "#/io.l5d.fs/web"),
        ("$/inet/127.0.0.1/80", "$/inet/127.0.0.1/80"),
        ("%/io.l5d.localhost/#/io.l5d.fs/%/#/x", "#/io.l5d.fs/%/#/x"),
        ("%/io.l5d.port/4141/$/inet/a/1", "$/inet/a/1"),
        ("%/odd", "%/odd"),
    ] {
        assert_eq!(bare(id), want);
    }
}

#[test]
fn open_metrics_calls_counters_without_their_suffix_and_ends_with_eof() {
    assert_eq!(
        Format::accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
        Format::OpenMetrics
    );
    assert_eq!(Format::accepted("*/*"), Format::Text);
    let page = page(&Registry::new(), Format::OpenMetrics);
    assert!(page.contains("# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total "));
    assert!(page.ends_with("# EOF\n"));
    assert_eq!(
        to_open_metrics("# HELP a_total x y\n# TYPE a_total counter\na_total 1\n\n"),
        "# HELP a x y\n# TYPE a counter\na_total 1\n"
    );
}

/// A source of everything that is derived from Linkerd's names.
struct Everything;

impl Source for Everything {
    fn collect(&self, out: &mut Collector<'_>) {
        for derived in DERIVED {
            match derived.name.rsplit('/').next() {
                Some("pending" | "connections" | "available" | "busy") => {
                    out.gauge(derived.name, 1.0);
                }
                _ => out.counter(derived.name, 1),
            }
        }
        out.our_gauge("rutter_retry_budget_ratio", &[], 0.5);
        // What the namers' watches and their snapshots report, and what only some listeners do.
        let own = [
            ("rutter_namer_watch_", ("namer", "io.l5d.k8s")),
            ("rutter_snapshot_", ("namer", "io.l5d.k8s")),
            ("rutter_tunnel", ("kind", "connect")),
            ("rutter_tls_", ("result", "ok")),
            ("rutter_broken_", ("sent", "maybe")),
        ];
        for family in FAMILIES {
            let label = own
                .iter()
                .find(|(prefix, _)| family.name.starts_with(prefix));
            let Some((_, label)) = label else {
                continue;
            };
            match family.kind {
                Kind::Counter => out.ours(family.name, &[*label], 1),
                Kind::Gauge => out.our_gauge(family.name, &[*label], 0.5),
                Kind::Histogram => {}
            }
        }
        out.ours("rutter_spans_total", &[("result", "recorded")], 1);
        out.ours("rutter_delegations_total", &[("result", "neg")], 1);
        let labels = [("namespace", ""), ("version", "1")];
        out.our_gauge("rutter_dtab_version_info", &labels, 1.0);
        let applied = Histogram::new();
        applied.record(1_000);
        out.duration("rutter_dtab_apply_seconds", &[], &applied);
    }
}

fn with_everything() -> (Registry, Vec<Registration>) {
    let registry = Registry::new();
    let mut kept = served(&registry, "/svc/web", "/#/io.l5d.fs/web");
    for scope in [
        Scope::router("out"),
        Scope::server("out", "127.0.0.1:4140".parse().unwrap()),
        Scope::service("out", "/svc/all"),
        Scope::client("out", "/#/all"),
    ] {
        kept.push(registry.register(scope, Arc::new(Everything)));
    }
    (registry, kept)
}

#[test]
fn every_family_has_values_when_everything_is_reported() {
    let (registry, _kept) = with_everything();
    let page = page(&registry, Format::Text);
    for family in FAMILIES.iter().filter(|f| !f.control) {
        assert!(
            page.contains(&format!("\n{}", family.name))
                || page.contains(&format!("# TYPE {}", family.name)),
            "{}",
            family.name
        );
    }
}

#[test]
fn derived_families_exist_and_carry_the_labels_of_their_place() {
    for derived in DERIVED {
        let family = FAMILIES.iter().find(|f| f.name == derived.family).unwrap();
        for (label, _) in derived.labels {
            assert!(family.labels.contains(label), "{} {label}", family.name);
        }
        let place = derived.place.name();
        assert!(family.labels.contains(&place), "{} {place}", family.name);
    }
}

/// Runs `promtool check metrics` over a page; its complaints.
fn promtool(page: &str) -> Option<String> {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            assert!(
                std::env::var_os("RUTTER_REAL").is_none(),
                "promtool: {error}"
            );
            return None;
        }
    };
    tool.stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let out = tool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    Some(match out.status.success() {
        true => said,
        false => format!("{}: {said}", out.status),
    })
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    super::super::control::install().unwrap();
    metrics::counter!("rutter_config_reloads_total", "result" => "ok").increment(1);
    metrics::gauge!("rutter_config_last_reload_success_timestamp_seconds").set(1.0);
    metrics::gauge!("rutter_config_last_reload_successful").set(1.0);
    let (registry, _kept) = with_everything();
    let page = page(&registry, Format::Text);
    for family in FAMILIES {
        assert!(
            page.contains(&format!("# TYPE {} ", family.name)),
            "{}",
            family.name
        );
    }
    if let Some(said) = promtool(&page) {
        assert_eq!(said, "");
    }
}

#[test]
fn promtool_can_read_linkerds_page() {
    let (registry, _kept) = with_everything();
    registry.summarise();
    // Status 3 is about names, which are Linkerd's and stay; 1 would be a page that cannot be read.
    if let Some(said) = promtool(&super::super::linkerd::prometheus(&registry, "")) {
        assert!(
            !said.starts_with("exit status: 1") && !said.contains("error while linting"),
            "{said}"
        );
    }
}

/// What a service of a worker has, for the measurement below.
#[derive(Default)]
struct Client {
    requests: Requests,
    outcomes: Outcomes,
    connects: Cell,
    connect_latency: Histogram,
}

impl Source for Client {
    fn collect(&self, out: &mut Collector<'_>) {
        self.requests.collect(out);
        out.gauge("connections", 2.0);
        out.counter("connects", self.connects.get());
        out.stat(
            "connect_latency_ms",
            super::super::Unit::Millis,
            &self.connect_latency,
        );
        out.gauge("loadbalancer/available", 3.0);
        out.gauge("loadbalancer/size", 3.0);
        out.counter("retries/requeues", 0);
    }
}

/// Run with `--release -- --ignored --nocapture` to see times.
#[test]
#[ignore = "a measurement: prints times and sizes of the pages with 3,000 services on four workers"]
fn pages_of_3000_services() {
    let registry = Registry::with(RegistryConfig {
        label_limit: 5_000,
        ..RegistryConfig::default()
    });
    let mut kept = Vec::new();
    for _worker in 0..4 {
        for n in 0..3_000 {
            let service = format!("/svc/service-{n}.namespace-{}", n % 40);
            let client = format!(
                "/%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/namespace-{}/http/service-{n}",
                n % 40
            );
            let client_of = Arc::new(Client::default());
            let of = Arc::new(Requests::new());
            for i in 1..200u64 {
                let outcome = outcome(200, None, i * i * 10);
                of.begin();
                of.end(&outcome);
                client_of.requests.begin();
                client_of.requests.end(&outcome);
                client_of.outcomes.end(&outcome);
            }
            kept.push(registry.register(Scope::service("out", &service), of.clone()));
            kept.push(registry.register(Scope::client_service("out", &client, &service), of));
            let outcomes = Arc::new(OutcomesOf(client_of.clone()));
            kept.push(registry.register(Scope::client_service("out", &client, &service), outcomes));
            kept.push(registry.register(Scope::client("out", &client), client_of));
        }
    }
    let show = |what: &str, make: &dyn Fn() -> usize| {
        let start = Instant::now();
        let bytes = make();
        writeln!(
            std::io::stderr(),
            "{what}: {:?}, {bytes} bytes",
            start.elapsed()
        )
        .unwrap();
    };
    for _ in 0..3 {
        show("/metrics", &|| page(&registry, Format::Text).len());
        show("summarise", &|| {
            registry.summarise();
            0
        });
        show("metrics.json", &|| {
            super::super::linkerd::json(&registry, &Default::default())
                .unwrap()
                .len()
        });
        show("metrics/prometheus", &|| {
            super::super::linkerd::prometheus(&registry, "").len()
        });
    }
}

struct OutcomesOf(Arc<Client>);

impl Source for OutcomesOf {
    fn collect(&self, out: &mut Collector<'_>) {
        self.0.outcomes.collect(out);
    }
}
