//! What a request costs in allocations, counted: on open connections none, but for the histograms that grow.

#![allow(unsafe_code)] // a global allocator cannot be written without

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Conn, OK, Rig};

/// Counts what threads other than the test's own allocate.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !OURS.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations per request, of `n` requests that one client sends one after the other over one connection.
fn per_request(client: &mut Conn, request: &str, n: u64) -> f64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..n {
        client.send(request);
        assert!(client.response().starts_with("HTTP/1.1 200 "));
    }
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / n as f64
}

#[test]
fn a_request_on_open_connections_allocates_nothing() {
    OURS.set(true);
    let rig = Rig::new();
    let _web = rig.backend("web", |conn, _| {
        OURS.set(true);
        while conn.request().is_some() {
            conn.send(OK);
        }
    });
    let mut client = rig.connect();
    let get = "GET /index.html?q=1 HTTP/1.1\r\nHost: web\r\nUser-Agent: costs/1.0\r\nAccept: */*\r\nCookie: a=b\r\n\r\n";
    let post = "POST /form HTTP/1.1\r\nHost: web\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    for (what, request, most) in [("GET", get, 0.1), ("POST", post, 0.1)] {
        // What is kept from then on is made for the first ones.
        per_request(&mut client, request, 100);
        let each = per_request(&mut client, request, 2_000);
        eprintln!("{what}: {each} allocations");
        assert!(
            each <= most,
            "{what}: {each} allocations a request, not {most}"
        );
    }
}
