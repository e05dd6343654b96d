use super::*;

fn tree(requests: u64, failures: u64) -> Value {
    json!({"out": {
        "server": {"0.0.0.0/4140": {"requests": {"counter": requests}, "success": {"counter": requests - failures},
            "failures": {"counter": failures}, "connections": {"gauge": 2.0},
            "request_latency_ms": {"stat.p50": 3.0, "stat.p99": 40.0}}},
        "service": {
            "svc/bad": {"requests": {"counter": 10}, "success": {"counter": 5}, "failures": {"counter": 5}},
            "svc/good": {"requests": {"counter": 900}, "success": {"counter": 900}},
            "svc/new": {"requests": {"counter": 0}}},
        "client": {"#/io.l5d.fs/good": {"requests": {"counter": 900}, "loadbalancer": {
            "size": {"gauge": 3.0}, "available": {"gauge": 2.0}}}}}})
}

#[test]
fn rows_come_from_linkerds_tree_worst_first() {
    let figures = read(&tree(100, 1), None);
    let services = Table::new(figures.services, "", 50);
    let names: Vec<&str> = services.rows.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["/svc/bad", "/svc/good", "/svc/new"]);
    assert_eq!(services.rows[0].success_text(), "50.00 %");
    assert_eq!(services.rows[2].success_text(), "–");
    assert_eq!(figures.clients[0].endpoints_text(), "2 of 3");
    assert_eq!(figures.servers[0].name, "0.0.0.0:4140");
    assert_eq!(figures.servers[0].p99_text(), "40 ms");
    assert_eq!(read(&tree(1, 0), Some("in")).services.len(), 0);
    assert_eq!(read(&Value::Null, None).servers.len(), 0);
}

#[test]
fn a_success_below_one_is_never_shown_as_a_hundred_percent() {
    assert_eq!(percent(Some(0.99999)), "99.99 %");
    assert_eq!(percent(Some(1.0)), "100 %");
}

#[test]
fn a_table_is_cut_and_says_by_how_much() {
    let rows = (0..1_000).map(|at| Row {
        name: format!("/svc/s{at}"),
        ..Row::default()
    });
    let table = Table::new(rows.collect(), "S9", 50);
    assert_eq!(
        (table.known, table.matching, table.rows.len(), table.cut()),
        (1_000, 111, 50, 61)
    );
}

#[test]
fn rates_are_differences_between_looks_and_none_at_the_first() {
    let mut history = History::default();
    let start = Instant::now();
    let mut look = |at: u64, requests, failures| {
        let mut figures = read(&tree(requests, failures), None);
        history.rates(&mut figures, start + Duration::from_secs(at));
        (figures.servers[0].rate, figures.servers[0].recent)
    };
    assert_eq!(look(0, 100, 0), (None, None));
    assert_eq!(look(2, 120, 5), (Some(10.0), Some(0.75)));
    assert_eq!(
        look(500, 130, 5),
        (None, None),
        "too long ago to say anything about now"
    );
}
