//! Routers that are exchanged while they serve.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Backend, Conn, OK, Rig, always, values};
use router::Swapped;
use router::settings::{Accrual, Backoff, ClientPart, IdentifierSettings, ServicePart};

/// Adds `x-at` to requests: whoever has it was served under the changed settings.
fn stamped(settings: &mut router::RouterSettings) {
    settings.servers[0].timestamp_header = Some("x-at".into());
}

fn everywhere() -> naming::PathMatcher {
    naming::PathMatcher::new("/").unwrap()
}

/// Answers with the request's head.
fn echo(conn: &mut Conn, _: usize) {
    while let Some(request) = conn.request() {
        let head = request.split("\r\n\r\n").next().unwrap_or_default();
        let length = head.len();
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}"
        ));
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

#[test]
fn an_open_connections_next_request_is_served_under_the_new_settings() {
    let mut rig = Rig::new();
    let backend = rig.backend("web", echo);
    let mut conn = rig.connect();
    conn.send(GET);
    assert!(!conn.response().contains("x-at"));
    let swapped = rig.swap(vec![rig.successor(stamped)]);
    assert_eq!(swapped, Swapped::default());
    for _ in 0..3 {
        conn.send(GET);
        assert!(conn.response().contains("x-at"));
    }
    assert_eq!(
        backend.count(),
        1,
        "the connection to the endpoint was kept"
    );
}

#[test]
fn a_request_under_way_ends_with_what_it_began_with() {
    let mut rig = Rig::with(|settings| settings.servers[0].max_concurrent_requests = Some(2));
    let (go, gone) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (told, arrived) = (go.clone(), gone.clone());
    let _backend = rig.backend("web", move |conn, _| {
        while let Some(request) = conn.request() {
            arrived.store(true, Ordering::SeqCst);
            while !told.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!request.contains("x-at"));
            conn.send(OK);
        }
    });
    let mut conn = rig.connect();
    conn.send(GET);
    while !gone.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..3 {
        let swapped = rig.swap(vec![rig.successor(stamped)]);
        assert_eq!(swapped.late, 0);
    }
    go.store(true, Ordering::SeqCst);
    assert!(conn.response().ends_with("ok"));
}

#[test]
fn an_ejected_endpoint_stays_ejected_and_what_has_other_settings_begins_anew() {
    let mut rig = Rig::with(|settings| {
        let part = ClientPart {
            accrual: Some(Accrual::Consecutive {
                failures: 1,
                backoff: Backoff::Constant(Duration::from_secs(600)),
            }),
            ..ClientPart::default()
        };
        settings.client.entries.push((everywhere(), part));
    });
    let bad = Backend::new(always(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    ));
    let good = Backend::new(always(OK));
    rig.table.set("web", &[bad.addr, good.addr]);
    let failures = (0..200).filter(|_| rig.ask(GET).contains(" 500 ")).count();
    assert_eq!(failures, 1, "then it is ejected");
    // Names are bound anew, clients are as they were.
    rig.swap(vec![rig.successor(stamped)]);
    assert!((0..50).all(|_| rig.ask(GET).contains(" 200 ")));
    // Other settings for clients: their connections are made anew, the endpoint's record stays.
    rig.swap(vec![rig.successor(|settings| {
        let part = ClientPart {
            attempt_timeout: Some(Duration::from_secs(5)),
            ..ClientPart::default()
        };
        settings.client.entries.push((everywhere(), part));
    })]);
    assert!((0..50).all(|_| rig.ask(GET).contains(" 200 ")));
}

/// What is counted once an answer is out comes to this.
#[track_caller]
fn settles(rig: &Rig, name: &str, want: f64) {
    let end = Instant::now() + Duration::from_secs(10);
    while rig.count(name) < want && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rig.count(name), want, "{name}");
}

#[test]
fn counters_go_on_through_a_change() {
    let mut rig = Rig::new();
    let _backend = rig.backend("web", always(OK));
    let mut conn = rig.connect();
    for turn in 1..=6 {
        conn.send(GET);
        conn.response();
        settles(&rig, "rutter_requests_total", f64::from(turn));
        settles(&rig, "rutter_attempts_total", f64::from(turn));
        settles(&rig, "rutter_accepted_connections_total", 1.0);
        let successor = match turn % 2 {
            0 => rig.successor(stamped),
            _ => rig.successor(|settings| {
                let part = ServicePart {
                    total_timeout: Some(Duration::from_secs(5 + turn as u64)),
                    ..ServicePart::default()
                };
                settings.service.entries.push((everywhere(), part));
                let part = ClientPart {
                    attempt_timeout: Some(Duration::from_secs(5 + turn as u64)),
                    ..ClientPart::default()
                };
                settings.client.entries.push((everywhere(), part));
            }),
        };
        rig.swap(vec![successor]);
        assert_eq!(rig.count("rutter_requests_total"), f64::from(turn));
        assert_eq!(rig.count("rutter_attempts_total"), f64::from(turn));
    }
    assert_eq!(rig.count("rutter_connections{router=\"out\",server"), 1.0);
    let answered = 6.0 * OK.len() as f64;
    let received = "rutter_received_bytes_total{router=\"out\",client";
    assert_eq!(rig.count(received), answered);
    let asked = 6.0 * GET.len() as f64;
    let sent = "rutter_sent_bytes_total{router=\"out\",client";
    assert!(rig.count(sent) > asked, "with what a router adds");
}

#[test]
fn counters_of_a_client_nobody_asks_for_outlive_a_change_and_the_sweeps_after_it() {
    let mut rig = Rig::new();
    let _backend = rig.backend("web", always(OK));
    let mut conn = rig.connect();
    conn.send(GET);
    conn.response();
    settles(&rig, "rutter_attempts_total", 1.0);
    let successor = rig.successor(|settings| {
        let part = ClientPart {
            attempt_timeout: Some(Duration::from_secs(5)),
            ..ClientPart::default()
        };
        settings.client.entries.push((everywhere(), part));
    });
    rig.swap(vec![successor]);
    // Every ten seconds what no name leads to is given up.
    for _ in 0..12 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(rig.count("rutter_attempts_total"), 1.0);
    }
    conn.send(GET);
    conn.response();
    settles(&rig, "rutter_attempts_total", 2.0);
}

#[test]
fn a_router_that_goes_on_is_left_alone() {
    let mut rig = Rig::new();
    let backend = rig.backend("web", echo);
    let mut conn = rig.connect();
    conn.send(GET);
    conn.response();
    let (same, new) = (Arc::clone(&rig.router), rig.another("new"));
    let swapped = rig.swap(vec![same, Arc::clone(&new)]);
    assert_eq!(swapped.opened, new.listeners());
    assert!(swapped.closed.is_empty());
    conn.send(GET);
    conn.response();
    assert_eq!(backend.count(), 1);
    let mut other = Conn::new(std::net::TcpStream::connect(new.listeners()[0]).unwrap());
    other.send(GET);
    assert!(other.response().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_listener_that_vanishes_ends_its_connections_politely() {
    let mut rig = Rig::new();
    let go = Arc::new(AtomicBool::new(false));
    let told = go.clone();
    let _backend = rig.backend("web", move |conn, _| {
        while conn.request().is_some() {
            while !told.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            conn.send(OK);
        }
    });
    let (mut busy, mut idle) = (rig.connect(), rig.connect());
    busy.send(GET);
    std::thread::sleep(Duration::from_millis(100));
    let addr = rig.addr;
    let new = rig.another("new");
    let swapped = rig.swap(vec![new]);
    assert_eq!(swapped.closed, [addr]);
    assert!(idle.ends(), "an idle connection is closed");
    let refused = || std::net::TcpStream::connect(addr).is_err();
    let end = Instant::now() + Duration::from_secs(5);
    while !refused() {
        assert!(Instant::now() < end, "the listener is still open");
    }
    go.store(true, Ordering::SeqCst);
    let answer = busy.response();
    assert!(answer.ends_with("ok"), "the request under way is finished");
    assert_eq!(values(&answer, "connection"), ["close"]);
    assert!(busy.ends());
}

#[test]
fn a_listener_may_belong_to_another_router_and_keep_its_connections() {
    let mut rig = Rig::with(|settings| settings.servers[0].addr.set_port(free_port()));
    let _backend = rig.backend("web", echo);
    let mut conn = rig.connect();
    conn.send(GET);
    conn.response();
    let addr = rig.addr;
    let server = router::settings::ServerSettings::new(addr);
    let other = rig.successor(|settings| {
        settings.label = "renamed".into();
        settings.servers = vec![server];
        settings.identifiers = vec![IdentifierSettings::Static {
            path: dtab::Path::utf8(["web"]),
        }];
    });
    assert_eq!(rig.swap(vec![other]), Swapped::default());
    conn.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    assert!(conn.response().starts_with("HTTP/1.1 200 "));
    let page = rig.page();
    let open = |label: &str| {
        page.contains(&format!(
            "rutter_connections{{router=\"{label}\",server=\"{}/{}\"}} 1\n",
            addr.ip(),
            addr.port()
        ))
    };
    assert!(open("renamed") && !open("out"), "{page}");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_listener_that_cannot_be_had_changes_nothing() {
    let rig = Rig::new();
    let _backend = rig.backend("web", echo);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let _held = std::net::TcpListener::bind(taken);
    let new = rig.another("new");
    let bad = rig.successor(|settings| {
        settings
            .servers
            .push(router::settings::ServerSettings::new(taken));
    });
    let refused = rig.plane.as_ref().unwrap().prepare(vec![bad, new]).err();
    assert!(refused.unwrap().to_string().contains(&taken.to_string()));
    assert!(!rig.ask(GET).contains("x-at"));
}

#[test]
fn a_wildcard_in_the_way_stays_and_is_said() {
    let port = free_port();
    let mut rig = Rig::with(|settings| settings.servers[0].addr = ([0, 0, 0, 0], port).into());
    let _backend = rig.backend("web", echo);
    let wanted: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    let new = rig.successor(|settings| settings.servers[0].addr = wanted);
    let plane = rig.plane.as_mut().unwrap();
    let prepared = plane.prepare(vec![new]).unwrap();
    let kept = &prepared.kept[0];
    assert_eq!(
        (kept.wanted, kept.has),
        (wanted, ([0, 0, 0, 0], port).into())
    );
    assert_eq!((&*kept.router, kept.server), ("out", 0));
}

#[test]
fn nothing_is_lost_through_a_hundred_changes_under_load() {
    let mut rig = Rig::on(2, |_| {});
    let _backend = rig.backend("web", echo);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|n| {
            let (stop, addr) = (Arc::clone(&stop), rig.addr);
            std::thread::spawn(move || {
                let connect = || Conn::new(std::net::TcpStream::connect(addr).unwrap());
                let (mut conn, mut served) = (connect(), 0);
                while !stop.load(Ordering::SeqCst) {
                    if n % 2 == 0 {
                        conn = connect();
                    }
                    match n % 3 {
                        0 => conn
                            .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"),
                        _ => conn.send(GET),
                    }
                    let answer = conn.response();
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for turn in 0..100 {
        let changed = rig.successor(|settings| match turn % 3 {
            0 => stamped(settings),
            1 => settings.servers[0].timestamp_header = None,
            _ => {
                let part = ClientPart {
                    attempt_timeout: Some(Duration::from_millis(10_000 + turn)),
                    ..ClientPart::default()
                };
                settings.client.entries = vec![(everywhere(), part)];
            }
        });
        let more = (turn % 4 == 0).then(|| rig.another("more"));
        let swapped = rig.swap(std::iter::once(changed).chain(more).collect());
        assert_eq!(swapped.late, 0);
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, Ordering::SeqCst);
    let served: usize = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(served > 100, "{served}");
}
