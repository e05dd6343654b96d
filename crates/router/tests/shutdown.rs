//! The end of a data plane, also when a part of it hangs.

mod common;

use std::time::{Duration, Instant};

use common::{OK, Rig, always};

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
