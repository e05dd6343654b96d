//! Upgrades and CONNECT: when a connection becomes a tunnel, what goes through it, and how it ends.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use common::{Backend, Conn, OK, Rig, always, values};
use naming::PathMatcher;
use router::settings::{ClientPart, RouterSettings};

const OFFER: &str =
    "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo, other\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const CONNECT: &str = "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n";

/// Says what it hears, until it hears no more.
fn echo(conn: &mut Conn) {
    loop {
        let heard = std::mem::take(&mut conn.buffer);
        conn.send(&heard);
        if !conn.fill() {
            break;
        }
    }
}

/// An endpoint that upgrades, and then says what it hears.
fn upgrading(conn: &mut Conn, _: usize) {
    if conn.request().is_some() {
        conn.send(SWITCH);
        echo(conn);
        conn.send("bye");
    }
}

fn proxies(settings: &mut RouterSettings) {
    let part = ClientPart {
        proxies: Some(true),
        ..ClientPart::default()
    };
    let all = PathMatcher::new("/").unwrap();
    settings.client.entries.push((all, part));
}

#[test]
fn an_upgrade_is_a_tunnel_after_101_with_half_closes_both_ways() {
    let rig = Rig::new();
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    rig.backend("web", move |conn, _| {
        let request = conn.request().unwrap();
        tell.lock().unwrap().send(request).unwrap();
        conn.send(SWITCH);
        echo(conn);
        conn.send("bye");
    });
    let mut conn = rig.connect();
    conn.send(OFFER);
    let head = conn.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(values(&head, "connection"), ["Upgrade"]);
    assert_eq!(values(&head, "upgrade"), ["echo"]);
    let request = told.recv().unwrap();
    assert_eq!(values(&request, "connection"), ["Upgrade"]);
    assert_eq!(values(&request, "upgrade"), ["echo, other"]);
    let big = vec![7; 3 << 20];
    let mut writer = conn.tcp.try_clone().unwrap();
    let sent = big.clone();
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    assert!(conn.bytes(big.len()) == big);
    writing.join().unwrap();
    conn.tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(conn.rest(), "bye", "it still hears after it has finished");
}

#[test]
fn what_comes_early_reaches_the_endpoint_through_the_tunnel_alone() {
    let rig = Rig::new();
    let early = "GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n";
    rig.backend("web", |conn, _| {
        let request = conn.request().unwrap();
        assert!(request.starts_with("GET /chat "), "{request}");
        std::thread::sleep(Duration::from_millis(50));
        // Nothing came behind the request before it was answered.
        assert_eq!(conn.buffer, b"");
        conn.send(SWITCH);
        echo(conn);
    });
    let mut conn = rig.connect();
    conn.send(format!("{OFFER}{early}"));
    assert!(conn.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(conn.bytes(early.len()), early.as_bytes());
}

#[test]
fn without_101_what_came_early_is_no_request_and_no_connection_is_used_again() {
    let rig = Rig::new();
    let backend = rig.backend("web", always(OK));
    for request in [OFFER, CONNECT.replace("443", "80").as_str()] {
        let mut conn = rig.connect();
        conn.send(format!(
            "{request}GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"
        ));
        let answer = conn.response();
        assert_eq!(values(&answer, "connection"), ["close"], "{answer}");
        assert_eq!(conn.rest(), "");
    }
    assert!(
        rig.ask("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .ends_with("ok")
    );
    assert_eq!(backend.count(), 2, "the upgrade's connection is not pooled");
}

#[test]
fn an_answer_of_101_that_was_not_offered_is_refused() {
    for (request, response) in [
        ("GET / HTTP/1.1\r\nHost: web\r\n\r\n", SWITCH),
        (
            "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ),
        (
            OFFER,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n",
        ),
        (
            OFFER,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nContent-Length: 3\r\n\r\n",
        ),
        (OFFER, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ] {
        let rig = Rig::new();
        rig.backend("web", always(response));
        let answer = rig.ask(request);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(
            values(&answer, "l5d-err")[0].starts_with("RT-E133"),
            "{answer}"
        );
    }
}

#[test]
fn a_200_with_upgrade_is_an_ordinary_answer() {
    let rig = Rig::new();
    rig.backend(
        "web",
        always("HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 2\r\n\r\nok"),
    );
    let answer = rig.ask(OFFER);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"),
        "{answer}"
    );
    assert!(values(&answer, "upgrade").is_empty(), "{answer}");
}

#[test]
fn connect_is_a_tunnel_to_the_endpoint_of_its_name() {
    let rig = Rig::new();
    let backend = Backend::new(|conn, _| {
        let hello = conn.bytes(5);
        assert_eq!(hello, b"hello", "the endpoint gets no request");
        conn.send("world");
        conn.rest();
    });
    rig.table.set("web:443", &[backend.addr]);
    for version in ["1.1", "1.0"] {
        let mut conn = rig.connect();
        conn.send(format!(
            "CONNECT web:443 HTTP/{version}\r\nHost: other\r\n\r\nhello"
        ));
        let head = conn.head().unwrap();
        assert!(head.starts_with(&format!("HTTP/{version} 200 ")), "{head}");
        assert!(values(&head, "content-length").is_empty(), "{head}");
        assert!(values(&head, "transfer-encoding").is_empty(), "{head}");
        assert!(values(&head, "connection").is_empty(), "{head}");
        assert_eq!(conn.bytes(5), b"world");
    }
}

#[test]
fn connect_goes_through_a_second_router() {
    let inner = Rig::new();
    let backend = Backend::new(|conn, _| echo(conn));
    inner.table.set("web:443", &[backend.addr]);
    let outer = Rig::with(proxies);
    outer.table.set("web:443", &[inner.addr]);
    outer.table.set("nobody:443", &[inner.addr]);
    let mut conn = outer.connect();
    conn.send(format!("{CONNECT}early"));
    assert!(conn.head().unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(conn.bytes(5), b"early");
    conn.tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(conn.rest(), "", "the end goes through both, too");
    let answer = outer.ask("CONNECT nobody:443 HTTP/1.1\r\nHost: nobody:443\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        values(&answer, "l5d-err")[0].starts_with("RT-E101"),
        "{answer}"
    );
}

#[test]
fn a_dead_endpoint_of_two_costs_no_tunnel() {
    let rig = Rig::new();
    let backend = Backend::new(|conn, _| echo(conn));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    rig.table.set("web:443", &[nobody, backend.addr]);
    for _ in 0..10 {
        let mut conn = rig.connect();
        conn.send(CONNECT);
        assert!(conn.head().unwrap().starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn who_is_gone_takes_the_other_side_along() {
    let rig = Rig::new();
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Backend::new(move |conn, n| {
        if n == 0 {
            conn.rest();
            tell.lock().unwrap().send(()).unwrap();
        } else {
            conn.bytes(1);
            socket2::SockRef::from(&conn.tcp)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    });
    rig.table.set("web:443", &[backend.addr]);
    let mut conn = rig.connect();
    conn.send(CONNECT);
    conn.head().unwrap();
    socket2::SockRef::from(&conn.tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(conn);
    told.recv_timeout(Duration::from_secs(5)).unwrap();
    let mut conn = rig.connect();
    conn.send(CONNECT);
    conn.head().unwrap();
    conn.send("x");
    let mut part = [0; 1];
    let error = std::io::Read::read(&mut conn.tcp, &mut part).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_idle_tunnel_is_cut_and_a_busy_one_is_not() {
    let rig = Rig::with(|settings| {
        settings.servers[0].tunnel_idle = Duration::from_millis(300);
    });
    let backend = Backend::new(|conn, _| echo(conn));
    rig.table.set("web:443", &[backend.addr]);
    let mut conn = rig.connect();
    conn.send(CONNECT);
    conn.head().unwrap();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        conn.send("x");
        assert_eq!(conn.bytes(1), b"x");
    }
    assert_eq!(conn.rest(), "");
}

#[test]
fn a_tunnel_holds_back_who_writes_when_the_other_does_not_read() {
    let rig = Rig::new();
    let backend = Backend::new(|_, _| std::thread::sleep(Duration::from_secs(20)));
    rig.table.set("web:443", &[backend.addr]);
    let mut conn = rig.connect();
    conn.send(CONNECT);
    conn.head().unwrap();
    conn.tcp
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    while sent < 256 && conn.tcp.write_all(&block).is_ok() {
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB were taken in");
}

#[test]
fn tunnels_end_by_themselves_in_a_drain_or_are_cut_at_its_limit() {
    for cut in [0, 1] {
        let mut rig = Rig::new();
        rig.backend("web", upgrading);
        let mut conn = rig.connect();
        conn.send(OFFER);
        conn.head().unwrap();
        let client = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            conn.send("still");
            let heard = conn.bytes(5);
            if cut == 0 {
                conn.tcp.shutdown(Shutdown::Write).unwrap();
            }
            (heard, conn.rest())
        });
        let limit = Duration::from_millis(if cut == 0 { 5000 } else { 400 });
        assert_eq!(rig.drain(limit).cut, cut);
        let (heard, rest) = client.join().unwrap();
        assert_eq!(heard, b"still");
        assert_eq!(rest, if cut == 0 { "bye" } else { "" });
    }
}
