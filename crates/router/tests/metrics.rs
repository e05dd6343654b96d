//! What is counted under Linkerd 1's names when something happens.

mod common;

use std::collections::HashMap;
use std::net::TcpListener;

use common::{OK, Rig, always};
use telemetry::metrics::linkerd::{JsonOptions, json};

/// All metrics as they are now, with the stats up to now.
fn metrics(rig: &Rig) -> HashMap<String, f64> {
    rig.registry.summarise();
    let page = json(&rig.registry, &JsonOptions::default()).unwrap();
    serde_json::from_str(&page).unwrap()
}

/// Those of the client of `web`, which have to be there.
fn client(metrics: &HashMap<String, f64>, name: &str) -> f64 {
    let name = format!("rt/out/client/#/table/web/{name}");
    *metrics.get(&name).unwrap_or_else(|| panic!("no {name}"))
}

/// An address where nobody listens.
fn nobody() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn a_client_whose_endpoint_answers_is_available_and_names_its_balancer() {
    let rig = Rig::new();
    let _web = rig.backend("web", always(OK));
    rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let now = metrics(&rig);
    for (name, want) in [
        ("available", 1.0),
        ("loadbalancer/meanweight", 1.0),
        ("loadbalancer/algorithm/p2c_least_loaded", 1.0),
        ("loadbalancer/updates", 1.0),
        ("loadbalancer/rebuilds", 1.0),
        ("loadbalancer/max_effort_exhausted", 0.0),
        ("retries/request_limit", 0.0),
        ("retries/requeues_per_request.count", 1.0),
        ("retries/requeues_per_request.max", 0.0),
        ("failure_accrual/removed_for_ms", 0.0),
    ] {
        assert_eq!(client(&now, name), want, "{name}");
    }
}

#[test]
fn who_has_an_answer_finds_it_counted() {
    let rig = Rig::new();
    let _web = rig.backend("web", |conn, _| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            conn.send("hello");
        }
    });
    let mut client = rig.connect();
    for (n, host) in (0..1_000).map(|n| (n, ["web", "nowhere"][n % 2])) {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response();
        assert_eq!(rig.count("rutter_requests_total"), (n + 1) as f64);
    }
}

#[test]
fn a_request_that_nobody_takes_is_requeued_to_its_limit_and_its_endpoint_ejected() {
    let rig = Rig::new();
    rig.table.set("web", &[nobody()]);
    rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let now = metrics(&rig);
    for (name, want) in [
        ("retries/requeues", 5.0),
        ("retries/request_limit", 1.0),
        ("retries/requeues_per_request.count", 1.0),
        ("retries/requeues_per_request.max", 5.0),
        ("failure_accrual/removals", 1.0),
        // The sixth attempt finds the one endpoint ejected.
        ("loadbalancer/max_effort_exhausted", 1.0),
        ("loadbalancer/rebuilds", 2.0),
        ("available", 0.0),
    ] {
        assert_eq!(client(&now, name), want, "{name}");
    }
    // Between half of the first backoff's five seconds and all of it.
    let for_ms = client(&now, "failure_accrual/removed_for_ms");
    assert!((2_500.0..=5_000.0).contains(&for_ms), "{for_ms}");
}

#[test]
fn the_cache_of_names_counts_what_it_does_not_keep_and_what_it_gives_up() {
    let rig = Rig::new();
    let _web = rig.backend("web", always(OK));
    let mut conn = rig.connect();
    let mut ask = |host: &str, dtab: &str| {
        conn.send(format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nl5d-dtab: {dtab}\r\n\r\n"
        ));
        conn.response()
    };
    let count = |name: &str| metrics(&rig)[&format!("rt/out/bindcache/{name}")];
    assert!(ask("web", "").starts_with("HTTP/1.1 200"));
    let before = count("path/oneshots");
    (0..3).for_each(|_| _ = ask("nowhere", ""));
    assert_eq!(count("path/oneshots") - before, 3.0);
    assert_eq!(count("path/evicts"), 0.0);
    // More of them under dtabs of their own than a worker keeps.
    for n in 0..501 {
        assert!(ask("web", &format!("/x => /{n}")).starts_with("HTTP/1.1 200"));
    }
    assert!(count("path/evicts") > 0.0);
    assert_eq!(count("client/misses"), 1.0);
}
