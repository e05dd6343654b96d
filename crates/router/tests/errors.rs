//! What a router answers itself, when it tries again, and when it must not.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{Backend, Conn, OK, Rig, always, values};
use dtab::Path;
use naming::PathMatcher;
use router::settings::{
    Backoff, BudgetSettings, Classifier, ClientPart, RouterSettings, ServicePart,
};
use socket2::{Domain, Socket, Type};

fn everywhere() -> PathMatcher {
    PathMatcher::new("/").unwrap()
}

fn service(change: impl FnOnce(&mut ServicePart)) -> impl FnOnce(&mut RouterSettings) {
    let mut part = ServicePart::default();
    change(&mut part);
    |settings| settings.service.entries.push((everywhere(), part))
}

fn client(change: impl FnOnce(&mut ClientPart)) -> impl FnOnce(&mut RouterSettings) {
    let mut part = ClientPart::default();
    change(&mut part);
    |settings| settings.client.entries.push((everywhere(), part))
}

/// A port nobody listens on.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[track_caller]
fn is_error(answer: &str, status: u16, code: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    assert!(
        values(answer, "l5d-err")
            .first()
            .is_some_and(|err| err.starts_with(code)),
        "{answer}"
    );
    assert!(answer.contains(&format!("rutter: {code} ")), "{answer}");
    assert!(
        values(answer, "via").is_empty(),
        "an answer of ours has no Via"
    );
}

#[test]
fn each_way_to_fail_has_its_code() {
    let rig = Rig::new();
    rig.table.set("empty", &[]);
    rig.table.set("refused", &[nobody()]);
    rig.backend("garbage", |conn, _| {
        conn.request();
        conn.send("SMTP ready\r\n\r\n");
    });
    rig.backend("closes", |conn, _| _ = conn.request());
    rig.backend("web", always(OK));
    for (request, status, code) in [
        ("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", 502, "RT-E101"),
        ("GET / HTTP/1.1\r\nHost: empty\r\n\r\n", 502, "RT-E105"),
        ("GET / HTTP/1.1\r\nHost: refused\r\n\r\n", 502, "RT-E110"),
        ("GET / HTTP/1.1\r\nHost: closes\r\n\r\n", 502, "RT-E131"),
        ("GET / HTTP/1.1\r\nHost: garbage\r\n\r\n", 502, "RT-E133"),
        (
            "GET / HTTP/1.1\r\nHost: web\r\nl5d-dtab: /a = /b\r\n\r\n",
            400,
            "RT-E118",
        ),
        (
            "CONNECT web:80 HTTP/1.1\r\nHost: web\r\n\r\n",
            403,
            "RT-E125",
        ),
        (
            "CONNECT nobody:443 HTTP/1.1\r\nHost: nobody:443\r\n\r\n",
            502,
            "RT-E101",
        ),
    ] {
        let answer = rig.ask(request);
        is_error(&answer, status, code);
    }
    let vias = format!(
        "GET / HTTP/1.1\r\nHost: web\r\nVia: {}\r\n\r\n",
        vec!["1.1 x"; 33].join(", ")
    );
    is_error(&rig.ask(&vias), 400, "RT-E115");
}

#[test]
fn a_connection_goes_on_after_an_error() {
    let rig = Rig::new();
    rig.backend("web", always(OK));
    let mut conn = rig.connect();
    conn.send("POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 5\r\n\r\nabcde");
    is_error(&conn.response(), 502, "RT-E101");
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(conn.response().ends_with("ok"));
}

#[test]
fn one_dead_endpoint_of_two_costs_no_request() {
    let rig = Rig::new();
    let backend = Backend::new(always(OK));
    rig.table.set("web", &[nobody(), backend.addr]);
    for n in 0..50 {
        let body = if n % 2 == 0 {
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nab"
        } else {
            "GET / HTTP/1.1\r\nHost: web\r\n\r\n"
        };
        assert!(rig.ask(body).ends_with("ok"), "request {n}");
    }
}

/// A machine that went silent is found out by one data thread's connect. Another thread's connection to it, which looks well, must
/// get no request then: a POST on it would be lost.
#[test]
fn what_one_worker_finds_silent_is_not_reused_by_another() {
    let rig = Rig::on(
        2,
        client(|part| part.connect_timeout = Some(Duration::from_millis(100))),
    );
    // One connection may wait to be accepted; the kernel does not answer further ones.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let listener = TcpListener::from(listener);
    let addr = listener.local_addr().unwrap();
    rig.table.set("web", &[addr]);
    let accept = || Conn::new(listener.accept().unwrap().0);
    // With a connection each, so that they are on different workers.
    let (mut one, mut other) = (rig.connect(), rig.connect());
    let get = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    one.send(get);
    let mut kept = accept();
    kept.request().unwrap();
    kept.send(OK);
    assert!(one.response().ends_with("ok"));
    let waits = TcpStream::connect(addr).unwrap();
    other.send(get);
    is_error(&other.response(), 502, "RT-E111");
    one.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi");
    is_error(&one.response(), 502, "RT-E111");
    assert_eq!(kept.request(), None, "it is closed");
    // It is there again. What it answers now may be reused.
    listener.accept().unwrap();
    drop(waits);
    let mut again = None;
    for _ in 0..2 {
        one.send(get);
        let again = again.get_or_insert_with(accept);
        again.request().unwrap();
        again.send(OK);
        assert!(one.response().ends_with("ok"));
    }
}

#[test]
fn what_was_sent_is_not_sent_again_unless_a_classifier_says_so() {
    for (classifier, method, want) in [
        (Classifier::NonRetryable5xx, "GET", 1),
        (Classifier::RetryableRead5xx, "GET", 3),
        (Classifier::RetryableRead5xx, "POST", 1),
        (Classifier::RetryableIdempotent5xx, "PUT", 3),
        (Classifier::RetryableAll5xx, "POST", 3),
    ] {
        let rig = Rig::with(service(|part| part.classifier = Some(classifier)));
        let backend = rig.backend("web", |conn, n| {
            let request = conn.request().unwrap();
            assert!(
                request.starts_with("GET") || request.ends_with("abc"),
                "the body comes with each attempt"
            );
            if n >= 2 {
                conn.send(OK);
            }
        });
        let body = if method == "GET" {
            "\r\n"
        } else {
            "Content-Length: 3\r\n\r\nabc"
        };
        rig.ask(&format!("{method} / HTTP/1.1\r\nHost: web\r\n{body}"));
        assert_eq!(backend.count(), want, "{classifier:?} {method}");
    }
}

#[test]
fn chunked_and_long_bodies_are_never_repeated() {
    for body in [
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(),
        format!("Content-Length: 6000\r\n\r\n{}", "x".repeat(6000)),
    ] {
        let rig = Rig::with(service(|part| {
            part.classifier = Some(Classifier::RetryableAll5xx);
        }));
        let backend = rig.backend("web", |conn, _| {
            conn.request();
            conn.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        });
        let answer = rig.ask(&format!("POST / HTTP/1.1\r\nHost: web\r\n{body}"));
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert_eq!(values(&answer, "l5d-success-class"), ["0.0"]);
        assert_eq!(backend.count(), 1);
    }
}

#[test]
fn retries_end_with_the_budget_and_the_last_response_is_passed_on() {
    let rig = Rig::with(service(|part| {
        part.classifier = Some(Classifier::RetryableRead5xx);
        part.retry_budget = Some(BudgetSettings {
            min_per_sec: 1,
            percent: 0.0,
            ttl: Duration::from_secs(4),
        });
    }));
    let backend = rig.backend("web", |conn, _| {
        conn.request();
        conn.send("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy");
    });
    let answer = rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("busy"),
        "{answer}"
    );
    assert_eq!(backend.count(), 5, "one request and four repeats");
}

#[test]
fn timeouts_answer_503_and_name_what_was_exceeded() {
    let silent = |conn: &mut Conn, _: usize| while conn.fill() {};
    let rig = Rig::with(client(|part| {
        part.attempt_timeout = Some(Duration::from_millis(100));
    }));
    rig.backend("web", silent);
    let answer = rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    is_error(&answer, 503, "RT-E112");
    assert!(
        answer.contains("100.milliseconds") && answer.contains("an individual request"),
        "{answer}"
    );
    let rig = Rig::with(service(|part| {
        part.total_timeout = Some(Duration::from_millis(150));
        part.classifier = Some(Classifier::RetryableRead5xx);
        part.backoff = Some(Backoff::Constant(Duration::from_millis(40)));
    }));
    rig.backend(
        "web",
        always("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
    );
    let began = Instant::now();
    let answer = rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "the total holds over all attempts"
    );
}

#[test]
fn an_endpoint_that_fails_again_and_again_is_left_out() {
    let rig = Rig::new();
    let bad = Backend::new(always("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"));
    let good = Backend::new(always(OK));
    rig.table.set("web", &[bad.addr, good.addr]);
    let mut failed = 0;
    for _ in 0..100 {
        if rig
            .ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .starts_with("HTTP/1.1 500")
        {
            failed += 1;
        }
    }
    assert_eq!(
        failed, 5,
        "as Linkerd 1: five in a row, then none for seconds"
    );
    let states = rig.router.clients();
    assert_eq!(states[0].id, Path::utf8(["#", "table", "web"]));
    assert_eq!(
        states[0]
            .endpoints
            .iter()
            .filter(|(_, _, ejected)| ejected.is_some())
            .count(),
        1
    );
}

#[test]
fn a_failure_says_that_all_endpoints_are_ejected_or_that_the_budget_is_spent() {
    let rig = Rig::new();
    rig.table.set("web", &[nobody()]);
    let mut last = String::new();
    for _ in 0..4 {
        last = rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    }
    is_error(&last, 502, "RT-E110");
    assert!(last.contains("RT-E113 all endpoints are ejected"), "{last}");
    assert!(values(&last, "l5d-err")[0].contains("RT-E113"), "{last}");
    let rig = Rig::with(client(|part| {
        part.requeue_budget = Some(BudgetSettings {
            min_per_sec: 0,
            percent: 0.0,
            ttl: Duration::from_secs(10),
        });
    }));
    rig.table.set("web", &[nobody()]);
    let answer = rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    is_error(&answer, 502, "RT-E110");
    assert!(
        answer.contains("RT-E114 retry budget exhausted"),
        "{answer}"
    );
}

#[test]
fn new_addresses_are_used_and_old_ones_no_more() {
    let rig = Rig::new();
    let one = rig.backend("web", always(OK));
    let mut conn = rig.connect();
    let ask = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    conn.send(ask);
    conn.response();
    let two = rig.backend(
        "web",
        always("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
    );
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        conn.send(ask);
        if conn.response().ends_with("two") {
            break;
        }
        assert!(Instant::now() < end, "the change is never seen");
    }
    for _ in 0..10 {
        conn.send(ask);
        assert!(conn.response().ends_with("two"));
    }
    assert_eq!((one.count(), two.count()), (1, 1));
}

#[test]
fn too_many_requests_at_once_are_refused() {
    let rig = Rig::with(|settings| settings.servers[0].max_concurrent_requests = Some(1));
    rig.backend("web", |conn, _| {
        conn.request();
        while conn.fill() {}
    });
    let mut first = rig.connect();
    first.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let answer = rig.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
        if answer.starts_with("HTTP/1.1 503") {
            is_error(&answer, 503, "RT-E124");
            break;
        }
        assert!(Instant::now() < end, "the limit is never reached: {answer}");
    }
}

#[test]
fn an_edge_listener_tells_nothing_of_the_inside() {
    let rig = Rig::with(|settings| settings.servers[0].clear_context = true);
    rig.backend("web", |conn, _| {
        let request = conn.request().unwrap();
        assert!(
            values(&request, "l5d-ctx-foo").is_empty()
                && values(&request, "l5d-ctx-dtab").is_empty()
        );
        conn.send(
            "HTTP/1.1 500 No\r\nl5d-err: inner\r\nl5d-x: 1\r\nContent-Length: 6\r\n\r\nsecret",
        );
    });
    let answer = rig.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 502")
            && answer.ends_with("\r\n\r\n")
            && !answer.contains("l5d"),
        "{answer}"
    );
    let answer =
        rig.ask("GET / HTTP/1.1\r\nHost: web\r\nl5d-ctx-foo: 1\r\nl5d-dtab: /svc => /x\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 500")
            && answer.ends_with("\r\n\r\n")
            && !answer.contains("l5d"),
        "{answer}"
    );
}

#[test]
fn a_defect_ends_one_connection_and_is_counted() {
    let rig = Rig::new();
    let _web = rig.backend("web", always(OK));
    let mut other = rig.connect();
    other.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(other.response().starts_with("HTTP/1.1 200 "));
    let mut unlucky = rig.connect();
    unlucky.send("GET / HTTP/1.1\r\nHost: panics\r\n\r\n");
    assert!(unlucky.ends(), "nothing is answered");
    other.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(
        other.response().starts_with("HTTP/1.1 200 "),
        "its worker goes on"
    );
    let page = rig.page();
    assert!(
        page.contains("rutter_errors_total{code=\"RT-E140\"} 1"),
        "{page}"
    );
}
