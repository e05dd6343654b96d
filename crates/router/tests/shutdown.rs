//! The end of a data plane: who is still served, and that it ends also when a part of it hangs.

mod common;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Backend, Conn, OK, Rig, always, values};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
/// More than any of these ends needs.
const LONG: Duration = Duration::from_secs(20);

/// An endpoint that answers `/slow` once it is told to, all else at once.
fn slow(rig: &Rig) -> (Backend, Arc<AtomicBool>) {
    let go = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&go);
    let backend = rig.backend("web", move |conn, _| {
        while let Some(request) = conn.request() {
            while request.contains("/slow") && !told.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            conn.send(OK);
        }
    });
    (backend, go)
}

/// A connection on which `/slow` has reached its endpoint.
fn waiting(rig: &Rig, backend: &Backend) -> Conn {
    let mut conn = rig.connect();
    let before = backend.count();
    conn.send("GET /slow HTTP/1.1\r\nHost: web\r\n\r\n");
    while backend.count() == before {
        std::thread::sleep(Duration::from_millis(1));
    }
    conn
}

#[test]
fn new_connections_are_served_until_what_was_under_way_has_ended() {
    let rig = Rig::new();
    let (backend, go) = slow(&rig);
    let mut busy = waiting(&rig, &backend);
    let (addr, mut told) = (rig.addr, 0);
    let end = rig.end(LONG);
    let begun = Instant::now();
    // For longer than idle connections are kept: it is the request under way that keeps the listener open.
    while begun.elapsed() < Duration::from_millis(1500) {
        let mut conn = Conn::new(TcpStream::connect(addr).unwrap());
        conn.send(GET);
        let answer = conn.response();
        assert!(answer.ends_with("ok"), "{answer}");
        told += usize::from(values(&answer, "connection") == ["close"]);
    }
    assert!(
        told > 2,
        "every answer since says that its connection closes"
    );
    go.store(true, Ordering::SeqCst);
    assert!(busy.response().ends_with("ok"));
    let (drained, took) = end.join().unwrap();
    assert_eq!(drained.cut, 0);
    assert!(took < LONG / 2, "{took:?}");
    assert!(TcpStream::connect(addr).is_err(), "the listener is closed");
}

#[test]
fn a_kept_connection_has_a_second_for_a_request_that_is_on_its_way() {
    let rig = Rig::new();
    let _backend = rig.backend("web", always(OK));
    let (mut idle, mut late) = (rig.connect(), rig.connect());
    for conn in [&mut idle, &mut late] {
        conn.send(GET);
        assert!(values(&conn.response(), "connection").is_empty());
    }
    let end = rig.end(LONG);
    std::thread::sleep(Duration::from_millis(300));
    late.send(GET);
    let answer = late.response();
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(values(&answer, "connection"), ["close"]);
    assert!(late.ends());
    assert!(idle.ends(), "who says nothing is closed in the end");
    let (drained, took) = end.join().unwrap();
    assert_eq!(drained.cut, 0);
    assert!(took < LONG / 2, "{took:?}");
}

#[test]
fn new_requests_do_not_hold_up_the_end() {
    let rig = Rig::on(2, |_| {});
    let _backend = rig.backend("web", always(OK));
    let addr = rig.addr;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut served = 0;
                while let Ok(tcp) = TcpStream::connect(addr) {
                    let mut conn = Conn::new(tcp);
                    conn.send(GET);
                    match conn.head() {
                        Some(_) => served += 1,
                        // The kernel had taken it while the listener closed: there is nobody any more.
                        None => {
                            let again = TcpStream::connect(addr);
                            assert!(again.is_err(), "accepted, and not answered");
                            break;
                        }
                    }
                }
                served
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let (drained, took) = rig.end(LONG).join().unwrap();
    assert_eq!(drained.cut, 0);
    assert!(took < LONG / 2, "{took:?}");
    let served: usize = clients.into_iter().map(|one| one.join().unwrap()).sum();
    assert!(served > 20, "{served}");
}

#[test]
fn what_outlives_the_limit_is_cut_and_what_came_last_is_not() {
    let rig = Rig::new();
    let (backend, _never) = slow(&rig);
    let mut busy = waiting(&rig, &backend);
    let addr = rig.addr;
    let limit = Duration::from_secs(3);
    let end = rig.end(limit);
    let begun = Instant::now();
    let mut last = Duration::ZERO;
    while let Ok(tcp) = TcpStream::connect(addr) {
        last = begun.elapsed();
        let mut conn = Conn::new(tcp);
        conn.send(GET);
        assert!(
            conn.response().ends_with("ok"),
            "accepted, and not answered"
        );
    }
    assert!(last > Duration::from_millis(1500), "refused since {last:?}");
    let (drained, took) = end.join().unwrap();
    assert_eq!(drained.cut, 1);
    assert!((limit..LONG).contains(&took), "{took:?}");
    assert!(busy.ends(), "cut");
}

#[test]
fn a_data_thread_that_is_stuck_delays_the_end_by_the_limit_and_a_little() {
    let mut rig = Rig::new();
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: stuck\r\n\r\n");
    rig.table.until_stuck();
    let began = Instant::now();
    let drained = rig.drain(Duration::from_millis(300));
    assert_eq!(drained.cut, 1);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_swap_does_not_wait_for_a_thread_that_is_stuck() {
    let mut rig = Rig::new();
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: stuck\r\n\r\n");
    rig.table.until_stuck();
    let swapped = rig.swap(vec![rig.successor(|_| {})]);
    assert_eq!(swapped.late, 1);
    assert_eq!(rig.drain(Duration::ZERO).cut, 1);
}

#[test]
fn a_drain_ends_at_once_when_nothing_is_under_way() {
    let mut rig = Rig::new();
    let _backend = rig.backend("web", always(OK));
    rig.ask("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    let began = Instant::now();
    assert_eq!(rig.drain(Duration::from_secs(30)).cut, 0);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
