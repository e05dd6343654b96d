use std::sync::Arc;

use super::super::{Collector, Outcome, Registration, Requests, Scope, Source};
use super::*;
use crate::code::Code;

/// A source of fixed metrics.
struct Fixed(Vec<(&'static str, Value)>);

impl Source for Fixed {
    fn collect(&self, out: &mut Collector<'_>) {
        for (name, value) in &self.0 {
            match value {
                Value::Counter(n) => out.counter(name, *n),
                Value::Gauge(v) => out.gauge(name, *v),
                Value::Stat(..) => unreachable!("no fixed stats"),
            }
        }
    }
}

fn fixed(registry: &Registry, scope: &[&str], name: &'static str, value: u64) -> Registration {
    let source = Fixed(vec![(name, Value::Counter(value))]);
    registry.register(Scope::new(scope.iter().copied()), Arc::new(source))
}

fn outcome(success: bool, status: u16, latency_us: u64) -> Outcome<'static> {
    Outcome {
        status: Some(status),
        success,
        code: None,
        exception: None,
        latency_us,
    }
}

/// A router with a server, and one service with a client, that has answered a request well and one badly.
fn busy() -> (Registry, Vec<Registration>) {
    let registry = Registry::new();
    let server = Arc::new(Requests::with_statuses());
    let service = Arc::new(Requests::new());
    for requests in [&server, &service] {
        requests.begin();
        requests.end(&outcome(true, 200, 5_000));
        requests.begin();
        requests.end(&Outcome {
            exception: Some("com.example.Sad"),
            ..outcome(false, 503, 7_000)
        });
    }
    let kept = vec![
        registry.register(
            Scope::server("out", "127.0.0.1:4140".parse().unwrap()),
            server,
        ),
        registry.register(Scope::service("out", "/svc/web"), service.clone()),
        registry.register(
            Scope::client_service("out", "/#/io.l5d.fs/web", "/svc/web"),
            service,
        ),
    ];
    (registry, kept)
}

fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
    page.lines()
        .filter(|line| line.starts_with(start))
        .collect()
}

#[test]
fn the_prometheus_page_has_linkerds_names_and_labels() {
    let (registry, _kept) = busy();
    let page = prometheus(&registry, "");
    for want in [
        r#"rt:server:requests{rt="out", server="127.0.0.1/4140"} 2"#,
        r#"rt:server:success{rt="out", server="127.0.0.1/4140"} 1"#,
        r#"rt:server:failures{rt="out", server="127.0.0.1/4140"} 1"#,
        r#"rt:server:failures{rt="out", server="127.0.0.1/4140", exception="com.example.Sad"} 1"#,
        r#"rt:server:status:200{rt="out", server="127.0.0.1/4140"} 1"#,
        r#"rt:server:status:5XX{rt="out", server="127.0.0.1/4140"} 1"#,
        r#"rt:service:requests{rt="out", service="svc/web"} 2"#,
        r##"rt:client:service:success{rt="out", client="#/io.l5d.fs/web", service="svc/web"} 1"##,
    ] {
        assert!(page.lines().any(|line| line == want), "{want}\n{page}");
    }
    assert!(
        !page.contains("# TYPE") && lines(&page, "jvm:uptime ").len() == 1,
        "{page}"
    );
}

#[test]
fn no_line_comes_twice_and_lines_of_a_name_are_together() {
    let (registry, _kept) = busy();
    registry.summarise();
    let page = prometheus(&registry, "");
    let keys: Vec<_> = page
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    let names: Vec<_> = keys
        .iter()
        .map(|key| key.split('{').next().unwrap())
        .collect();
    let mut groups = names.clone();
    groups.dedup();
    let distinct = |of: &[&str]| of.iter().collect::<std::collections::HashSet<_>>().len();
    assert_eq!(distinct(&keys), keys.len());
    assert_eq!(distinct(&names), groups.len());
}

#[test]
fn label_values_are_escaped_so_that_they_can_be_read_back() {
    let registry = Registry::new();
    let _kept = fixed(&registry, &["rt", "a\\b\"c\nd"], "requests", 1);
    let page = prometheus(&registry, "x:");
    assert_eq!(
        lines(&page, "x:rt"),
        [r#"x:rt:requests{rt="a\\b\"c\nd"} 1"#]
    );
}

#[test]
fn stats_show_after_the_first_minute_and_start_anew_each_minute() {
    let registry = Registry::new();
    let requests = Arc::new(Requests::new());
    let _kept = registry.register(Scope::service("out", "/svc/web"), requests.clone());
    let stat = |key: &str| {
        let page = json(&registry, &JsonOptions::default()).unwrap();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        page.get(format!("rt/out/service/svc/web/request_latency_ms.{key}"))
            .cloned()
    };
    requests.begin();
    requests.end(&outcome(true, 200, 20_000));
    assert_eq!(stat("count"), None);
    registry.summarise();
    assert_eq!(stat("count"), Some(1.into()));
    let p50 = stat("p50").unwrap().as_f64().unwrap();
    assert!((19.6..=20.4).contains(&p50), "{p50}");
    assert_eq!(stat("sum"), Some(20.into()));
    registry.summarise();
    assert_eq!((stat("count"), stat("p50")), (Some(0.into()), None));
}

#[test]
fn workers_are_added_up_and_counters_never_go_back() {
    let registry = Registry::new();
    let scope = ["rt", "out", "service", "svc/web"];
    let first = fixed(&registry, &scope, "requests", 3);
    let second = fixed(&registry, &scope, "requests", 4);
    let shown = || lines(&prometheus(&registry, ""), "rt:").join("");
    let want = |n| format!(r#"rt:service:requests{{rt="out", service="svc/web"}} {n}"#);
    assert_eq!(shown(), want(7));
    // One worker lets the service go: what it counted stays.
    drop(first);
    assert_eq!(shown(), want(7));
    // The last one: the service vanishes, and starts at zero when it returns.
    drop(second);
    assert_eq!(shown(), "");
    let _again = fixed(&registry, &scope, "requests", 1);
    assert_eq!(shown(), want(1));
}

#[test]
fn labels_beyond_the_limit_are_folded_and_the_total_stays_exact() {
    let registry = Registry::with(super::super::RegistryConfig {
        label_limit: 3,
        ..Default::default()
    });
    let kept: Vec<_> = (0..100)
        .map(|n| {
            fixed(
                &registry,
                &["rt", "out", "service", &format!("svc/{n}")],
                "requests",
                1,
            )
        })
        .collect();
    let page = prometheus(&registry, "");
    assert_eq!(lines(&page, "rt:").len(), 4);
    assert!(page.contains(r#"rt:service:requests{rt="out", service="__other__"} 97"#));
    let folded = |n: u64| {
        let page = super::super::ours::page(&registry, Default::default());
        page.contains(&format!("\nrutter_metrics_folded_labels {n}\n"))
    };
    assert!(folded(97));
    // What another scope still has keeps its place; the places of all others are free again.
    let also = fixed(
        &registry,
        &["rt", "out", "client", "a", "service", "svc/0"],
        "requests",
        1,
    );
    drop(kept);
    let new: Vec<_> = ["svc/x", "svc/y", "svc/z"]
        .map(|name| {
            let scope = ["rt", "out", "service", name];
            fixed(&registry, &scope, "requests", 1)
        })
        .into_iter()
        .collect();
    let page = prometheus(&registry, "");
    assert!(page.contains(r#"service="svc/0""#) && page.contains(r#"service="svc/y""#));
    assert!(!page.contains(r#"service="svc/z""#) && folded(1));
    drop((also, new));
    assert!(folded(0));
}

#[test]
fn json_is_flat_or_nested_and_pretty() {
    let registry = Registry::new();
    let source = Fixed(vec![
        ("failures", Value::Counter(2)),
        ("failures/com.example.Sad", Value::Counter(2)),
        ("pending", Value::Gauge(1.0)),
    ]);
    let _kept = registry.register(Scope::service("out", "/svc/web"), Arc::new(source));
    let page = |pretty, tree, under: Option<&str>| {
        let under = under.map(str::to_owned);
        json(
            &registry,
            &JsonOptions {
                pretty,
                tree,
                under,
            },
        )
    };
    assert_eq!(
        page(false, false, Some("rt")).unwrap(),
        r#"{"out/service/svc/web/failures":2,"out/service/svc/web/failures/com.example.Sad":2,"out/service/svc/web/pending":1.0}"#
    );
    assert_eq!(
        page(true, false, Some("rt/out/service/svc/web/failures/")).unwrap(),
        "{\n  \"\" : 2,\n  \"com.example.Sad\" : 2\n}"
    );
    assert_eq!(
        page(false, true, Some("rt/out/service")).unwrap(),
        r#"{"svc/web":{"failures":{"counter":2,"com.example.Sad":{"counter":2}},"pending":{"gauge":1.0}}}"#
    );
    let nothing = page(false, false, Some("a/b")).unwrap_err();
    assert_eq!(nothing.json(), r#"{"error":"No such subtree: a/b"}"#);
    assert!(
        page(false, false, None)
            .unwrap()
            .contains(r#""jvm/uptime":"#)
    );
}

#[test]
fn a_failure_without_an_exception_is_called_by_its_code() {
    let registry = Registry::new();
    let requests = Arc::new(Requests::new());
    let _kept = registry.register(Scope::service("out", "/svc/web"), requests.clone());
    requests.begin();
    requests.end(&Outcome {
        code: Some(Code::E105),
        ..outcome(false, 502, 1)
    });
    assert!(prometheus(&registry, "").contains(r#"service="svc/web", exception="RT-E105"} 1"#));
}

#[test]
fn every_name_that_is_served_is_described() {
    let (registry, mut kept) = busy();
    registry.summarise();
    assert_eq!(undescribed(&registry), Vec::<String>::new());
    kept.push(fixed(
        &registry,
        &["rt", "out", "service", "svc/web"],
        "novelties",
        1,
    ));
    assert_eq!(undescribed(&registry), ["service: novelties"]);
}

#[test]
fn the_influxdb_page_has_a_line_for_each_place_with_its_metrics_as_fields() {
    let (registry, _kept) = busy();
    let page = influxdb(&registry, "a:9990");
    let line = |start: &str| {
        let found = lines(&page, start);
        assert_eq!(found.len(), 1, "{start}\n{page}");
        found[0].split_once(' ').unwrap()
    };
    let (_, fields) = line("rt:server,host=a:9990,rt=out,server=127.0.0.1/4140 ");
    for want in ["requests=2", "success=1", "failures=1"] {
        assert!(fields.split(',').any(|field| field == want), "{fields}");
    }
    assert!(!fields.contains("request_latency_ms"), "{fields}");
    let (_, fields) = line("rt:server:status,host=a:9990,rt=out,server=127.0.0.1/4140 ");
    assert_eq!(fields, "200=1,2XX=1,503=1,5XX=1");
    let (_, fields) = line("rt:service:failures,host=a:9990,rt=out,service=svc/web ");
    assert_eq!(fields, "com.example.Sad=1");
    line("rt:client:service,client=#/io.l5d.fs/web,host=a:9990,rt=out,service=svc/web ");
    assert!(line("jvm,host=a:9990 ").1.contains("uptime="), "{page}");
    registry.summarise();
    let page = influxdb(&registry, "none");
    let fields = lines(&page, "rt:service,host=none,")[0];
    for want in [
        "request_latency_ms_count=2",
        "request_latency_ms_sum=12",
        "request_latency_ms_avg=6",
    ] {
        assert!(fields.contains(want), "{fields}");
    }
    for suffix in ["min", "max", "p50", "p90", "p95", "p99", "p999", "p9999"] {
        let name = format!("request_latency_ms_{suffix}=");
        assert!(fields.contains(&name), "{name}: {fields}");
    }
}

#[test]
fn a_line_of_the_influxdb_page_can_be_read_whatever_the_names_are() {
    let registry = Registry::new();
    let _kept = [
        fixed(&registry, &["rt", "a,b c=d\ne\\"], "requests", 1),
        fixed(&registry, &[], "top", 2),
        fixed(&registry, &["namer", "#/io.l5d.k8s"], "x y", 3),
    ];
    let page = influxdb(&registry, "h");
    assert_eq!(
        lines(&page, "rt"),
        [r"rt,host=h,rt=a\,b\ c\=d_e requests=1"]
    );
    assert_eq!(lines(&page, "root"), ["root,host=h top=2"]);
    assert_eq!(lines(&page, "namer"), [r"namer:__io_l5d_k8s,host=h x\ y=3"]);
}
