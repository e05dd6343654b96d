//! What passes through a router on real sockets: bodies both ways, framing, early answers, clients that go away.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Backend, Conn, OK, Rig, always, values};

#[test]
fn a_request_is_forwarded_with_name_trace_and_via_and_the_rest_untouched() {
    let rig = Rig::new();
    let (seen, requests) = mpsc::channel();
    rig.backend("web", move |conn, _| {
        while let Some(request) = conn.request() {
            seen.send(request).unwrap();
            conn.send("HTTP/1.1 201 Made\r\nX-Odd-CASE: kept\r\nContent-Length: 3\r\n\r\nabc");
        }
    });
    let answer = rig.ask("POST /p?q=%20#f HTTP/1.1\r\nhOSt: web\r\nX-a: 1\r\nContent-Length: 4\r\nx-A: 2\r\n\r\nbody");
    assert!(
        answer.starts_with("HTTP/1.1 201 Made\r\nX-Odd-CASE: kept\r\nContent-Length: 3\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert_eq!(values(&answer, "l5d-success-class"), ["1.0"]);
    assert_eq!(values(&answer, "via"), ["1.1 rutter"]);
    let request = requests.recv().unwrap();
    let start =
        "POST /p?q=%20#f HTTP/1.1\r\nhOSt: web\r\nX-a: 1\r\nContent-Length: 4\r\nx-A: 2\r\n";
    assert!(request.starts_with(start), "{request}");
    assert!(request.ends_with("\r\n\r\nbody"), "{request}");
    for (name, want) in [
        ("l5d-dst-service", "/svc/web"),
        ("l5d-dst-client", "/#/table/web"),
        ("via", "1.1 rutter"),
    ] {
        assert_eq!(values(&request, name), [want]);
    }
    assert_eq!(values(&request, "l5d-ctx-trace").len(), 1);
    assert_eq!(values(&request, "l5d-reqid")[0].len(), 16);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let rig = Rig::new();
    let backend = rig.backend("web", always(OK));
    let mut conn = rig.connect();
    for _ in 0..20 {
        conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
        assert!(conn.response().ends_with("ok"));
    }
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_response_streams_while_its_request_is_still_being_sent() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Echoes each chunk as it comes.
        while let Some(chunk) = conn.until("\r\n").filter(|size| size != "0\r\n") {
            let data = conn.until("\r\n").unwrap();
            conn.send(format!("{chunk}{data}"));
        }
        conn.until("\r\n");
        conn.send("0\r\n\r\n");
    });
    let mut conn = rig.connect();
    conn.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = conn.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for n in 0..5 {
        let chunk = format!("4\r\nab{n}d\r\n");
        conn.send(&chunk);
        assert_eq!(conn.bytes(chunk.len()), chunk.as_bytes());
    }
    conn.send("0\r\n\r\n");
    assert_eq!(conn.bytes(5), b"0\r\n\r\n");
    conn.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    assert!(
        conn.response().starts_with("HTTP/1.1 502"),
        "the connection goes on"
    );
}

#[test]
fn large_bodies_pass_whole_in_both_directions() {
    let rig = Rig::new();
    const SIZE: usize = 5_000_000;
    rig.backend("web", |conn, _| {
        conn.head();
        let body = conn.bytes(SIZE);
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        conn.send(body);
    });
    let body: Vec<u8> = (0..SIZE).map(|n| (n * 31 % 251) as u8).collect();
    let mut conn = rig.connect();
    let mut writer = conn.tcp.try_clone().unwrap();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        writer
            .write_all(
                format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {SIZE}\r\n\r\n")
                    .as_bytes(),
            )
            .unwrap();
        writer.write_all(&sent).unwrap();
    });
    assert!(conn.head().unwrap().starts_with("HTTP/1.1 200"));
    assert!(conn.bytes(SIZE) == body, "the body came back changed");
    sending.join().unwrap();
}

#[test]
fn bodies_of_every_length_pass_whole_on_connections_that_are_kept() {
    let rig = Rig::new();
    let lengths = [
        1, 900, 16_300, 32_700, 33_000, 65_500, 66_000, 98_304, 131_072, 131_073, 400_000, 3,
    ];
    let backend = rig.backend("web", |conn, _| {
        while let Some(head) = conn.head() {
            let length: usize = values(&head, "content-length")[0].parse().unwrap();
            let body = conn.bytes(length);
            // In pieces, so that some come late.
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ));
            for piece in body.chunks(50_000) {
                conn.send(piece);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let mut conn = rig.connect();
    let mut total = 0;
    for length in lengths.into_iter().chain(lengths) {
        let body: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n");
        let mut writer = conn.tcp.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(head.as_bytes()).unwrap();
                writer.write_all(&body).unwrap();
            });
            assert!(conn.head().unwrap().starts_with("HTTP/1.1 200"));
            assert!(
                conn.bytes(length) == body,
                "{length} bytes came back changed"
            );
        });
        total += length;
    }
    assert_eq!(backend.count(), 1);
    drop(conn);
    let passed = |name: &str| rig.count(name) as usize;
    assert!(
        passed("rutter_received_bytes_total{") >= 2 * total,
        "all are counted"
    );
}

#[test]
fn a_long_response_that_breaks_off_is_passed_on_as_far_as_it_came() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        conn.send(vec![b'x'; 500_000]);
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let answer = conn.rest();
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body.len(), 500_000, "and then the end");
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        conn.head();
        conn.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
    });
    let mut conn = rig.connect();
    conn.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000000\r\n\r\nsome");
    let answer = conn.response();
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.ends_with("big"),
        "{answer}"
    );
    assert_eq!(values(&answer, "connection"), ["close"]);
    assert!(
        conn.ends(),
        "and its connection is closed, since the rest of the request is not going to be read"
    );
}

#[test]
fn a_client_is_told_to_go_on_when_its_body_is_wanted_and_interim_answers_are_relayed() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        let head = conn.head().unwrap();
        assert!(values(&head, "expect").is_empty());
        assert_eq!(conn.bytes(4), b"body");
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        conn.send(OK);
    });
    let mut conn = rig.connect();
    conn.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert!(conn.head().unwrap().starts_with("HTTP/1.1 100"));
    conn.send("body");
    assert!(conn.head().unwrap().starts_with("HTTP/1.1 103"));
    assert!(conn.response().ends_with("ok"));
    conn.send(
        "POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    );
    let answer = conn.response();
    assert!(
        answer.starts_with("HTTP/1.1 502"),
        "a refusal comes before the body is sent: {answer}"
    );
}

#[test]
fn trailers_head_and_bodiless_statuses_stay_what_they_were() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        while let Some(request) = conn.request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            conn.send(match (&path[..], request.starts_with("HEAD")) {
                (_, true) => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                ("/204", _) => "HTTP/1.1 204 No Content\r\n\r\n",
                ("/304", _) => "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2;e=1\r\nab\r\n0\r\nX-T: v\r\n\r\n",
            });
        }
    });
    let mut conn = rig.connect();
    let mut ask = |line: &str| {
        conn.send(format!("{line} HTTP/1.1\r\nHost: web\r\n\r\n"));
        let head = conn.head().unwrap();
        let body = if line == "GET /chunked" {
            conn.until("\r\n\r\n").unwrap()
        } else {
            String::new()
        };
        (head, body)
    };
    assert_eq!(values(&ask("HEAD /").0, "content-length"), ["1000"]);
    assert!(values(&ask("GET /204").0, "content-length").is_empty());
    assert_eq!(values(&ask("GET /304").0, "content-length"), ["77"]);
    assert_eq!(ask("GET /chunked").1, "2;e=1\r\nab\r\n0\r\nX-T: v\r\n\r\n");
    assert_eq!(
        values(&ask("HEAD /").0, "content-length"),
        ["1000"],
        "all on one connection"
    );
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        while let Some(request) = conn.request() {
            let path = request.split(' ').nth(1).unwrap();
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
        }
    });
    let mut conn = rig.connect();
    conn.send("GET /1 HTTP/1.1\r\nHost: web\r\n\r\nPOST /2 HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nxyGET /3 HTTP/1.1\r\nHost: web\r\n\r\n");
    for path in ["/1", "/2", "/3"] {
        assert!(conn.response().ends_with(path), "{path}");
    }
}

#[test]
fn a_client_that_half_closes_is_answered() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        conn.request();
        std::thread::sleep(Duration::from_millis(50));
        conn.send(OK);
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    conn.tcp.shutdown(Shutdown::Write).unwrap();
    assert!(conn.response().ends_with("ok"));
    assert!(conn.ends());
}

#[test]
fn when_a_client_goes_away_its_endpoint_is_let_go() {
    let rig = Rig::new();
    let (ended, end) = mpsc::channel();
    rig.backend("web", move |conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        // Ends when the router closes.
        while conn.fill() {}
        ended.send(()).unwrap();
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    conn.until("a\r\n").unwrap();
    let socket = socket2::SockRef::from(&conn.tcp);
    socket.set_linger(Some(Duration::ZERO)).unwrap(); // RST
    drop(conn);
    end.recv_timeout(Duration::from_secs(5))
        .expect("the endpoint's connection was closed");
}

#[test]
fn server_sent_events_come_one_by_one() {
    let rig = Rig::new();
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    rig.backend("web", move |conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for n in 0..3 {
            gone.lock().unwrap().recv().unwrap();
            conn.send(format!("data: {n}\n\n"));
        }
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert_eq!(
        values(&conn.head().unwrap(), "transfer-encoding"),
        ["chunked"],
        "so that the client can tell their end from a broken connection"
    );
    for n in 0..3 {
        go.send(()).unwrap();
        assert_eq!(
            conn.until("\n\n\r\n").unwrap(),
            format!("9\r\ndata: {n}\n\n\r\n")
        );
    }
    assert_eq!(conn.bytes(5), b"0\r\n\r\n");
    conn.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    assert!(
        conn.response().starts_with("HTTP/1.1 502"),
        "the connection goes on"
    );
}

#[test]
fn a_response_until_close_that_breaks_has_no_last_chunk_and_http_1_0_gets_it_raw() {
    let rig = Rig::new();
    rig.backend("web", |conn, n| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\n\r\nabc");
        if n == 0 {
            std::thread::sleep(Duration::from_millis(50));
            let socket = socket2::SockRef::from(&conn.tcp);
            socket.set_linger(Some(Duration::ZERO)).unwrap(); // RST
        }
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let answer = conn.rest();
    assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n"), "{answer}");
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.0\r\nHost: web\r\n\r\n");
    let answer = conn.rest();
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(values(&answer, "transfer-encoding").is_empty());
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let rig = Rig::new();
    rig.backend(
        "web",
        always(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        ),
    );
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.0\r\nHost: web\r\n\r\n");
    let answer = conn.rest();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabcde"), "{answer}");
    assert!(values(&answer, "transfer-encoding").is_empty());
}

#[test]
fn a_response_that_breaks_off_is_never_made_whole() {
    let rig = Rig::new();
    rig.backend("web", |conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(conn.rest().ends_with("\r\n\r\nabc"), "and then the end");
}

#[test]
fn ambiguous_requests_are_refused_and_their_connection_closed() {
    let rig = Rig::new();
    let backend = rig.backend("web", always(OK));
    for request in [
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "GET / HTTP/1.1\nHost: web\n\n",
        "GET / HTTP/1.1\r\nHost : web\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ] {
        let mut conn = rig.connect();
        conn.send(request);
        let answer = conn.rest();
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?}: {answer}");
        assert!(
            values(&answer, "l5d-err")[0].starts_with("RT-E121+"),
            "{answer}"
        );
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_pooled_connection_with_unasked_bytes_is_not_used_again() {
    let rig = Rig::new();
    let backend = rig.backend("web", |conn, n| {
        while conn.request().is_some() {
            conn.send(OK);
            if n == 0 {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
            }
        }
    });
    let mut conn = rig.connect();
    for _ in 0..3 {
        conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
        assert!(conn.response().ends_with("\r\n\r\nok"));
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(backend.count(), 2);
}

#[test]
fn a_connection_that_closes_as_it_is_used_again_costs_a_get_nothing_and_a_post_is_not_sent_twice() {
    let rig = Rig::new();
    let (seen, requests) = mpsc::channel();
    // The second request on a connection is read, and the connection closed without a word.
    rig.backend("web", move |conn, _| {
        for last in [false, true] {
            let Some(request) = conn.request() else {
                return;
            };
            seen.send(request.split(' ').next().unwrap().to_owned())
                .unwrap();
            if last {
                return;
            }
            conn.send(OK);
        }
    });
    let mut conn = rig.connect();
    let mut ask = |method: &str| {
        conn.send(format!(
            "{method} / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n"
        ));
        conn.response()
    };
    assert!(ask("GET").ends_with("ok"));
    assert!(ask("GET").ends_with("ok"), "on a new connection");
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["GET"; 3]);
    let answer = ask("POST");
    assert!(
        values(&answer, "l5d-err")[0].starts_with("RT-E131+"),
        "{answer}"
    );
    assert!(values(&answer, "l5d-retryable").is_empty());
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["POST"]);
}

#[test]
fn what_a_router_further_on_could_not_deliver_goes_to_another_node() {
    let rig = Rig::new();
    let elsewhere =
        "HTTP/1.1 502 Bad Gateway\r\nl5d-err: RT-E104+no+address\r\nContent-Length: 0\r\n\r\n";
    let (without, with) = (Backend::new(always(elsewhere)), Backend::new(always(OK)));
    rig.table.set("web", &[without.addr, with.addr]);
    for n in 0..40 {
        let answer = rig.ask("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{n}: {answer}");
    }
    assert!(without.count() > 0 && with.count() > 0);
    // Where there is no other, its own answer is passed on at once, as soon as the data thread knows that there is none.
    rig.table.set("web", &[without.addr]);
    let ask = || rig.ask("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi");
    while ask().starts_with("HTTP/1.1 200 ") {}
    let before = settled_attempts(&rig);
    assert_eq!(values(&ask(), "l5d-err"), ["RT-E104+no+address"]);
    assert_eq!(settled_attempts(&rig), before + 1.0);
}

/// Attempts that were counted, as soon as no more come.
fn settled_attempts(rig: &Rig) -> f64 {
    let count = || rig.count("rutter_attempts_total");
    let mut last = count();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        match count() {
            now if now == last => return now,
            now => last = now,
        }
    }
}

#[test]
fn interim_answers_without_end_to_a_client_that_does_not_read_fill_no_memory() {
    let rig = Rig::new();
    let (wrote, written) = mpsc::channel();
    rig.backend("web", move |conn, _| {
        conn.request();
        conn.tcp
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1500);
        let mut sum = 0usize;
        while sum < 1_000_000_000 && conn.tcp.write_all(hints.as_bytes()).is_ok() {
            sum += hints.len();
        }
        wrote.send(sum).unwrap();
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(conn.head().unwrap().starts_with("HTTP/1.1 103"));
    let sum = written.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(
        sum < 50_000_000,
        "{sum} bytes of interim answers were taken that nobody read"
    );
}

#[test]
fn a_slow_reader_slows_the_endpoint_and_fills_no_memory() {
    let rig = Rig::new();
    let (wrote, written) = mpsc::channel();
    rig.backend("web", move |conn, _| {
        conn.request();
        conn.tcp
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let block = vec![b'x'; 65536];
        let mut sum = 0usize;
        while sum < 1_000_000_000 && conn.tcp.write_all(&block).is_ok() {
            sum += block.len();
        }
        wrote.send(sum).unwrap();
    });
    let mut conn = rig.connect();
    conn.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    conn.head().unwrap();
    let sum = written.recv_timeout(Duration::from_secs(20)).unwrap();
    // What the kernel holds in four socket buffers, and our 64 KiB.
    assert!(
        sum < 50_000_000,
        "{sum} bytes were taken from the endpoint that nobody read"
    );
}

#[test]
fn idle_connections_close_at_once_when_draining_and_requests_finish() {
    let mut rig = Rig::new();
    let (begun, begin) = mpsc::channel();
    rig.backend("web", move |conn, _| {
        conn.request();
        begun.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        conn.send(OK);
    });
    let mut idle = rig.connect();
    let mut busy: Conn = rig.connect();
    busy.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    begin.recv().unwrap();
    let began = Instant::now();
    let drained = rig.drain(Duration::from_secs(10));
    assert_eq!(drained.cut, 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    let answer = busy.response();
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(values(&answer, "connection"), ["close"]);
    assert!(idle.ends());
}
