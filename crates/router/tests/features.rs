//! TRACE diagnostics, compression, the limit of a request's body, `maxConcurrentRequests`: what a client sees.

mod common;

use std::io::Read;

use common::{OK, Rig, always, values};

const TEXT: &str = "All work and no play makes Jack a dull boy. ";

fn trace(fields: &str) -> String {
    format!("TRACE /x HTTP/1.1\r\nHost: web\r\n{fields}\r\n")
}

#[test]
fn a_trace_with_no_forwards_left_is_answered_here() {
    let rig = Rig::new();
    let backend = rig.backend("web", always(OK));
    let answer = rig.ask(&trace("Max-Forwards: 0\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = rig.ask(&trace("Max-Forwards: 0\r\nl5d-add-context: true\r\n"));
    for part in [
        "--- Router: out ---\n",
        "service name: /svc/web\n",
        "client name: /#/table/web\n",
        &format!("addresses: [{}]\n", backend.addr),
        "dtab resolution:\n",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    let answer = rig.ask(&trace("Max-Forwards: many\r\n"));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("Invalid value for Max-Forwards header"),
        "{answer}"
    );
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_trace_goes_on_with_one_forward_less_and_each_router_adds_its_lines() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ] {
        let inner = Rig::new();
        let (tell, told) = std::sync::mpsc::channel();
        let tell = std::sync::Mutex::new(tell);
        let backend = inner.backend("web", move |conn, _| {
            let request = conn.request().unwrap();
            tell.lock().unwrap().send(request).unwrap();
            conn.send(response);
        });
        let outer = Rig::new();
        outer.table.set("web", &[inner.addr]);
        let mut conn = outer.connect();
        conn.send(trace(
            "Max-Forwards: 7\r\nl5d-add-context: true\r\nConnection: close\r\n",
        ));
        let answer = conn.rest();
        let request = told.recv().unwrap();
        assert_eq!(values(&request, "max-forwards"), ["5"]);
        assert_eq!(values(&answer, "transfer-encoding"), ["chunked"]);
        let at = |part: &str| {
            answer
                .find(part)
                .unwrap_or_else(|| panic!("{part} in {answer}"))
        };
        let selected = format!("selected address: {}\n", backend.addr);
        assert!(at("llo\r\n") < at(&selected), "{answer}");
        assert_eq!(answer.matches("--- Router: out ---").count(), 2);
        assert!(at(&selected) < at(&format!("selected address: {}\n", inner.addr)));
        assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    }
}

#[test]
fn an_edge_listener_shows_nothing_of_the_inside_to_a_trace() {
    let rig = Rig::with(|settings| settings.servers[0].clear_context = true);
    rig.backend("web", always(OK));
    let answer = rig.ask(&trace("Max-Forwards: 0\r\nl5d-add-context: true\r\n"));
    assert!(!answer.contains("Router"), "{answer}");
}

/// The body of a response in chunks.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
}

#[test]
fn text_is_compressed_when_configured_and_asked_for() {
    let body = TEXT.repeat(5000);
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for (level, accept, coding) in [
        (None, "gzip", None),
        (Some(6), "gzip", Some("gzip")),
        (Some(1), "deflate", Some("deflate")),
        (Some(6), "identity", None),
    ] {
        let rig = Rig::with(|settings| settings.compression = level);
        let response = response.clone();
        rig.backend("web", move |conn, _| {
            while conn.request().is_some() {
                conn.send(&response);
            }
        });
        let mut conn = rig.connect();
        conn.send(format!(
            "GET / HTTP/1.1\r\nHost: web\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n\r\n"
        ));
        let head = conn.head().unwrap();
        assert_eq!(
            values(&head, "content-encoding").first().copied(),
            coding,
            "{head}"
        );
        while conn.fill() {}
        let mut found = String::new();
        match coding {
            None => found = String::from_utf8(conn.buffer).unwrap(),
            Some("gzip") => {
                let bytes = unchunked(&conn.buffer);
                assert!(bytes.len() < body.len() / 20);
                _ = flate2::read::GzDecoder::new(&bytes[..])
                    .read_to_string(&mut found)
                    .unwrap();
            }
            Some(_) => {
                let bytes = unchunked(&conn.buffer);
                _ = flate2::read::ZlibDecoder::new(&bytes[..])
                    .read_to_string(&mut found)
                    .unwrap();
            }
        }
        assert!(found == body, "{level:?} {accept}");
    }
}

#[test]
fn what_is_compressed_still_streams() {
    let rig = Rig::with(|settings| settings.compression = Some(6));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    rig.backend("web", move |conn, _| {
        conn.request().unwrap();
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        wait.lock().unwrap().recv().unwrap();
        conn.send("4\r\nlast\r\n0\r\n\r\n");
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = conn.head().unwrap();
    assert_eq!(values(&head, "content-encoding"), ["gzip"]);
    let size = conn.until("\r\n").unwrap();
    let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
    let bytes = conn.bytes(size);
    let mut first = [0; 5];
    flate2::read::GzDecoder::new(&bytes[..])
        .read_exact(&mut first)
        .unwrap();
    assert_eq!(&first, b"first");
    go.send(()).unwrap();
    conn.until("\r\n0\r\n\r\n").unwrap();
    // And the connection goes on.
    conn.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    assert!(conn.response().starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_request_over_its_limit_is_413() {
    let rig = Rig::with(|settings| settings.max_request = Some(2048));
    let backend = rig.backend("web", always(OK));
    let length = |n: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {n}\r\n\r\n{}",
            "x".repeat(n)
        )
    };
    assert!(rig.ask(&length(2048)).starts_with("HTTP/1.1 200 "));
    let answer = rig.ask(&length(2049));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        values(&answer, "l5d-err")[0].starts_with("RT-E122"),
        "{answer}"
    );
    assert!(answer.contains("maxRequestKB"), "{answer}");
    assert_eq!(values(&answer, "connection"), ["close"]);
    let answer = rig.ask(
        "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(backend.count(), 1, "nothing of these was sent");
    let mut chunked =
        String::from("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.push_str("400\r\n");
    chunked.push_str(&"x".repeat(1024));
    chunked.push_str("\r\n");
    let mut conn = rig.connect();
    conn.send(&chunked);
    conn.send(format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024)));
    let answer = conn.response();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
