//! Units and properties. The oracles, hyper and httparse, read what we accept; they may accept more.

mod oracle;

use std::collections::HashMap;

use proptest::prelude::*;

use super::scan::{self, is_token, token_run};
use super::*;

/// A head that was read, and where its body begins.
fn request(text: impl AsRef<[u8]>) -> RequestHead {
    let mut head = RequestHead::new();
    let parsed = head.parse(text.as_ref(), &Limits::default());
    assert!(
        matches!(parsed, Ok(Parsed::Complete { .. })),
        "{parsed:?}: {}",
        text.as_ref().escape_ascii()
    );
    head
}

fn response(text: impl AsRef<[u8]>) -> ResponseHead {
    let mut head = ResponseHead::new();
    let parsed = head.parse(text.as_ref(), &Limits::default());
    assert!(
        matches!(parsed, Ok(Parsed::Complete { .. })),
        "{parsed:?}: {}",
        text.as_ref().escape_ascii()
    );
    head
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// What a message came to, in the words of `smuggling.txt`.
fn verdict(error: &HeadError) -> String {
    match error {
        HeadError::Malformed { .. } => "malformed",
        HeadError::Ambiguous { .. } => "ambiguous",
        HeadError::LineTooLong { .. } => "line",
        HeadError::HeadTooLong { .. } => "head",
        HeadError::TooManyFields { .. } => "fields",
    }
    .into()
}

fn framed(framing: Framing) -> String {
    match framing {
        Framing::None => "ok none".into(),
        Framing::Length(length) => format!("ok length {length}"),
        Framing::Chunked => "ok chunked".into(),
        Framing::UntilClose => "ok close".into(),
    }
}

/// Feeds `bytes` up to each of `cuts` and then whole, as they would come from a socket.
fn pieces<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    cuts.iter().map(|cut| &bytes[..*cut]).chain([bytes])
}

fn judge_request(bytes: &[u8], cuts: &[usize]) -> String {
    let mut head = RequestHead::new();
    for piece in pieces(bytes, cuts) {
        match head.parse(piece, &Limits::default()) {
            Ok(Parsed::Partial) => {}
            Ok(Parsed::Complete { .. }) => return framed(head.framing()),
            Err(error) => return verdict(&error),
        }
    }
    "partial".into()
}

fn judge_response(bytes: &[u8], cuts: &[usize]) -> String {
    let mut head = ResponseHead::new();
    for piece in pieces(bytes, cuts) {
        match head.parse(piece, &Limits::default()) {
            Ok(Parsed::Partial) => {}
            Ok(Parsed::Complete { .. }) => {
                return head
                    .framing(Method::Get)
                    .map_or_else(|e| verdict(&e), framed);
            }
            Err(error) => return verdict(&error),
        }
    }
    "partial".into()
}

/// The data of a chunked body, and how many bytes it took.
fn unchunk(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize), BodyError> {
    let mut scanner = BodyScanner::new(Framing::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    for piece in pieces(bytes, cuts) {
        let scanned = scanner.data(&piece[at..], |piece| data.extend_from_slice(piece))?;
        at += scanned.consumed;
        if scanned.done {
            return Ok((data, at));
        }
        assert_eq!(at, piece.len(), "everything is taken until the body ends");
    }
    scanner.eof()?;
    unreachable!("a chunked body without an end is truncated");
}

fn judge_body(bytes: &[u8], cuts: &[usize]) -> String {
    match unchunk(bytes, cuts) {
        Ok((data, _)) => format!("ok {}", data.escape_ascii()),
        Err(BodyError::ChunkSize) => "size".into(),
        Err(BodyError::ChunkExtension) => "extension".into(),
        Err(BodyError::LineEnd(_)) => "line-end".into(),
        Err(BodyError::Trailer) => "trailer".into(),
        Err(BodyError::ForbiddenTrailer) => "forbidden".into(),
        Err(BodyError::TooLong { .. }) => "long".into(),
        Err(BodyError::Truncated) => "truncated".into(),
    }
}

/// The bytes of a case in `smuggling.txt`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next().unwrap() {
                'r' => out.push(b'\r'),
                'n' => out.push(b'\n'),
                't' => out.push(b'\t'),
                '0' => out.push(0),
                '\\' => out.push(b'\\'),
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                other => panic!("\\{other} in {text}"),
            },
            '{' => {
                let times: String = rest.by_ref().take_while(|c| *c != ':').collect();
                let what: String = rest.by_ref().take_while(|c| *c != '}').collect();
                out.extend(unescape(&what).repeat(times.parse().unwrap()));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

/// Kind, verdict and bytes of all cases.
fn corpus() -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
    include_str!("smuggling.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let [kind, verdict, text] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("three columns: {line}");
            };
            let ending = match (kind, text.as_bytes().last()) {
                ("req", Some(b'H')) => "Host: web\r\n\r\n",
                ("resp", Some(b'E')) | ("req", Some(b'E')) if text.ends_with("\\nE") => "\r\n",
                _ => return (kind, verdict, unescape(text)),
            };
            let mut bytes = unescape(&text[..text.len() - 1]);
            bytes.extend_from_slice(ending.as_bytes());
            (kind, verdict, bytes)
        })
}

#[test]
fn every_case_of_the_corpus_has_its_verdict_however_it_is_cut() {
    let mut cases = 0;
    for (kind, want, bytes) in corpus() {
        let judge = match kind {
            "req" => judge_request,
            "resp" => judge_response,
            _ => judge_body,
        };
        let text = bytes[..bytes.len().min(200)].escape_ascii();
        assert_eq!(judge(&bytes, &[]), want, "{kind} {text}");
        let step = (bytes.len() / 400).max(1);
        for cut in (0..=bytes.len()).step_by(step) {
            assert_eq!(judge(&bytes, &[cut]), want, "{kind} cut at {cut}: {text}");
        }
        let all: Vec<usize> = (0..bytes.len()).step_by(step).collect();
        assert_eq!(judge(&bytes, &all), want, "{kind} in small pieces: {text}");
        cases += 1;
    }
    // So many are promised; those that are cut off count for nothing through a router.
    assert!(cases >= 310, "{cases} cases");
}

#[test]
fn the_request_line_and_the_fields_are_read() {
    let head = request(
        "PUT /a%20b?c#d HTTP/1.1\r\nHost: Web:80\r\nX-A: 1\r\nx-a:\t2 \r\nX-Empty:\r\n\r\nbody",
    );
    assert_eq!(head.method(), b"PUT");
    assert!(head.is_method(Method::Put));
    assert_eq!(head.target(), b"/a%20b?c#d");
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(head.get("host"), Some(&b"Web:80"[..]));
    assert_eq!(head.values("X-A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.get("x-empty"), Some(&b""[..]));
    assert_eq!(head.get("x"), None);
    assert_eq!((head.count("x-A"), head.len()), (2, 4));
}

#[test]
fn a_head_is_written_as_it_came() {
    for text in [
        "GET / HTTP/1.1\r\nhOsT:  web \r\nX:\r\nX:\ta\t b\t\r\n\r\n",
        "POST http://web/p HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(written(|out| request(text).write(out)), text);
    }
    for text in [
        "HTTP/1.1 200\r\nA:b\r\n\r\n",
        "HTTP/1.0 404  Not  There \r\n\r\n",
    ] {
        assert_eq!(written(|out| response(text).write(out)), text);
    }
}

#[test]
fn fields_are_removed_replaced_and_added_in_their_places() {
    let mut head = request(
        "GET / HTTP/1.1\r\nA: 1\r\nHOST: web\r\nB: 2\r\nl5d-x: 3\r\nhost2: h\r\nb: 4\r\n\r\n",
    );
    assert_eq!(head.remove("a"), 1);
    assert_eq!(
        head.remove_where(|name| name.len() > 4 && name[..4].eq_ignore_ascii_case(b"L5D-")),
        1
    );
    head.set("Host", b"other");
    head.set("B", b" five ");
    head.set("New", b"6");
    head.append(b"Via", b"1.1 x");
    head.append(b"l5d-y", b"7");
    head.append(b"Last", b"8");
    assert_eq!(
        written(|out| head.write(out)),
        "GET / HTTP/1.1\r\nHOST: other\r\nB: five\r\nhost2: h\r\nNew: 6\r\nVia: 1.1 x\r\nl5d-y: 7\r\nLast: 8\r\n\r\n"
    );
    assert_eq!(head.get("l5d-y"), Some(&b"7"[..]));
    assert_eq!(head.remove("via"), 1);
    head.set("last", b"9");
    assert!(written(|out| head.write(out)).ends_with("New: 6\r\nl5d-y: 7\r\nLast: 9\r\n\r\n"));
}

#[test]
fn nothing_that_is_added_can_break_its_line() {
    let mut head = request("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    head.append(b"X", b"a\r\nEvil: 1\0");
    head.set("Host", b"b\r\n\r\nGET /");
    let text = written(|out| head.write(out));
    assert_eq!(
        text,
        "GET / HTTP/1.1\r\nHost: b    GET /\r\nX: a  Evil: 1\r\n\r\n"
    );
    let text = written(|out| {
        write_response(
            out,
            Version::Http11,
            502,
            "Bad\r\nGateway",
            &[("A", b"1\n2")],
            b"x",
        );
    });
    assert_eq!(
        text,
        "HTTP/1.1 502 Bad  Gateway\r\nA: 1 2\r\nContent-Length: 1\r\n\r\nx"
    );
    assert!(head.set_target(b"/ HTTP/1.1\r\nA:b").is_err());
    assert!(head.set_target(b"").is_err());
    assert_eq!(head.target(), b"/");
}

#[test]
fn a_head_serves_one_request_after_another() {
    let mut head = RequestHead::new();
    let wire = b"POST /1 HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: b\r\n\r\n";
    let limits = Limits::default();
    let Ok(Parsed::Complete { consumed }) = head.parse(wire, &limits) else {
        panic!()
    };
    assert_eq!(head.framing(), Framing::Length(3));
    assert!(head.keep_alive());
    head.append(b"Long", &[b'x'; 300]);
    let rest = &wire[consumed + 3..];
    assert_eq!(head.parse(&rest[..20], &limits), Ok(Parsed::Partial));
    assert!(matches!(
        head.parse(rest, &limits),
        Ok(Parsed::Complete { .. })
    ));
    assert_eq!(
        (head.target(), head.len(), head.framing()),
        (&b"/2"[..], 1, Framing::None)
    );
    assert_eq!(written(|out| head.write(out)).as_bytes(), rest);
}

#[test]
fn a_half_read_head_that_is_given_up_leaves_nothing() {
    let limits = Limits::default();
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse(b"GET /long HTTP/1.1\r\nContent-Length: 4\r\n", &limits),
        Ok(Parsed::Partial)
    );
    assert_eq!(
        head.parse(b"GET", &limits),
        Ok(Parsed::Partial),
        "shorter than before: another connection's"
    );
    assert_eq!((head.target(), head.is_empty()), (&b""[..], true));
    assert!(head.parse(b"\r\n", &limits).is_err());
    assert!(matches!(
        head.parse(b"GET / HTTP/1.1\r\n\r\n", &limits),
        Ok(Parsed::Complete { .. })
    ));
    assert_eq!(head.framing(), Framing::None);
}

#[test]
fn a_connection_stays_by_version_and_connection_options() {
    for (version, connection, stays) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = request(format!("GET / HTTP/{version}\r\n{connection}\r\n"));
        assert_eq!(head.keep_alive(), stays, "{version} {connection}");
        let head = response(format!("HTTP/{version} 200 OK\r\n{connection}\r\n"));
        assert_eq!(head.keep_alive(), stays, "{version} {connection}");
    }
    assert!(request("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").expects_continue());
    assert!(!request("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue());
}

#[test]
fn hop_by_hop_fields_go_and_the_others_stay() {
    let mut head = request(
        "GET / HTTP/1.1\r\nHost: w\r\nConnection: keep-alive, X-Listed, host, content-length, via, transfer-encoding\r\n\
         Keep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: b\r\nProxy-Connection: keep-alive\r\nX-Listed: 1\r\n\
         x-lIsted: 2\r\nX-Kept: 3\r\nTrailer: t\r\nUpgrade: u\r\nVia: 1.0 a\r\nContent-Length: 0\r\nconnection: x-kept2\r\n\
         X-Kept2: no\r\n\r\n",
    );
    strip_hop_by_hop(&mut head);
    let names: Vec<_> = head
        .iter()
        .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "Host",
            "Proxy-Connection",
            "X-Kept",
            "Via",
            "Content-Length"
        ]
    );

    let mut head = response(
        "HTTP/1.1 401 No\r\nConnection: X-P\r\nX-P: 1\r\nKeep-Alive: 3\r\nProxy-Authenticate: B\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    strip_hop_by_hop(&mut head);
    assert_eq!(
        written(|out| head.write(out)),
        "HTTP/1.1 401 No\r\nKeep-Alive: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn the_framing_of_a_response_depends_on_status_and_method() {
    let length = "Content-Length: 4\r\n";
    for (status, fields, method, want) in [
        (200, length, Method::Get, Framing::Length(4)),
        (200, length, Method::Head, Framing::None),
        (200, "", Method::Get, Framing::UntilClose),
        (200, "", Method::Head, Framing::None),
        (304, length, Method::Get, Framing::None),
        (204, length, Method::Get, Framing::None),
        (103, "", Method::Get, Framing::None),
        (200, length, Method::Connect, Framing::UntilClose),
        (502, length, Method::Connect, Framing::Length(4)),
        (
            200,
            "Transfer-Encoding: chunked\r\n",
            Method::Post,
            Framing::Chunked,
        ),
        (
            200,
            "Transfer-Encoding: chunked\r\n",
            Method::Head,
            Framing::None,
        ),
    ] {
        let head = response(format!("HTTP/1.1 {status} x\r\n{fields}\r\n"));
        assert_eq!(
            head.framing(method),
            Ok(want),
            "{status} {fields} {method:?}"
        );
        assert_eq!(head.interim(), status == 103);
    }
}

#[test]
fn interim_responses_come_to_an_end() {
    let (interim, limits) = (b"HTTP/1.1 100 Continue\r\n\r\n", Limits::default());
    let mut head = ResponseHead::new();
    for _ in 0..3 {
        for _ in 0..64 {
            assert!(head.parse(interim, &limits).is_ok());
        }
        assert!(head.parse(b"HTTP/1.1 200 OK\r\n\r\n", &limits).is_ok());
    }
    for _ in 0..64 {
        assert!(head.parse(interim, &limits).is_ok());
    }
    assert!(head.parse(interim, &limits).is_err());
}

#[test]
fn a_proxy_request_becomes_an_ordinary_one() {
    for (target, host, want) in [
        (
            "http://web/p?q#f",
            "Host: ignored\r\n",
            "GET /p?q#f HTTP/1.1\r\nHost: web\r\n\r\n",
        ),
        (
            "HTTPS://web:8080",
            "",
            "GET / HTTP/1.1\r\nHost: web:8080\r\n\r\n",
        ),
        (
            "http://web?a=|[",
            "A: 1\r\nhost: x\r\n",
            "GET /?a=|[ HTTP/1.1\r\nA: 1\r\nhost: web\r\n\r\n",
        ),
        (
            "http://web/http://b/",
            "",
            "GET /http://b/ HTTP/1.1\r\nHost: web\r\n\r\n",
        ),
    ] {
        let mut head = request(format!("GET {target} HTTP/1.1\r\n{host}\r\n"));
        assert_eq!(head.target_form(), TargetForm::Absolute);
        assert!(head.take_absolute_form());
        assert_eq!(head.target_form(), TargetForm::Origin);
        assert_eq!(written(|out| head.write(out)), want);
        assert!(!head.take_absolute_form());
    }
    let mut head = request("GET /p?u=http://b/c HTTP/1.1\r\n\r\n");
    assert!(!head.take_absolute_form());
    head.set_target(b"/other").unwrap();
    assert_eq!(
        written(|out| head.write(out)),
        "GET /other HTTP/1.1\r\n\r\n"
    );
}

#[test]
fn heads_can_be_begun_by_hand() {
    let mut head = RequestHead::new();
    head.begin(b"GET", b"/h2", Version::Http11).unwrap();
    head.append(b"host", b"web");
    assert_eq!(
        written(|out| head.write(out)),
        "GET /h2 HTTP/1.1\r\nhost: web\r\n\r\n"
    );
    for (method, target) in [
        ("GE T", "/"),
        ("GET", "/ x"),
        ("GET", "/\r\nA: b"),
        ("", "/"),
        ("GET\n", "/"),
        ("GET", ""),
    ] {
        assert!(
            head.begin(method.as_bytes(), target.as_bytes(), Version::Http11)
                .is_err(),
            "{method} {target}"
        );
    }
    let mut head = ResponseHead::new();
    head.begin(Version::Http11, 200, "O\nK");
    head.set_framing(Framing::Length(3));
    assert_eq!(
        (head.status(), head.reason(), head.framing(Method::Get)),
        (200, &b"O K"[..], Ok(Framing::Length(3)))
    );
    head.set_version(Version::Http10);
    assert_eq!(written(|out| head.write(out)), "HTTP/1.0 200 O K\r\n\r\n");
}

#[test]
fn our_own_answers_are_framed() {
    let answer =
        |status| written(|out| write_response(out, Version::Http11, status, "R", &[], b"abc"));
    assert_eq!(
        answer(200),
        "HTTP/1.1 200 R\r\nContent-Length: 3\r\n\r\nabc"
    );
    assert_eq!(answer(204), "HTTP/1.1 204 R\r\n\r\n");
    let head =
        written(|out| write_response_head(out, Version::Http10, 502, "R", &[("A", b"b")], Some(7)));
    assert_eq!(head, "HTTP/1.0 502 R\r\nA: b\r\nContent-Length: 7\r\n\r\n");
    let chunks = written(|out| {
        write_chunk(out, b"");
        write_chunk(out, &[b'x'; 26]);
        out.extend_from_slice(LAST_CHUNK);
    });
    assert_eq!(chunks, format!("1a\r\n{}\r\n0\r\n\r\n", "x".repeat(26)));
}

#[test]
fn bodies_end_where_they_end() {
    let mut scanner = BodyScanner::new(Framing::Length(5));
    assert_eq!(
        scanner.scan(b"abc"),
        Ok(Scanned {
            consumed: 3,
            done: false
        })
    );
    assert_eq!(scanner.remaining(), Some(2));
    assert_eq!(scanner.clone().eof(), Err(BodyError::Truncated));
    assert_eq!(
        scanner.scan(b"deGET"),
        Ok(Scanned {
            consumed: 2,
            done: true
        })
    );
    assert_eq!(
        scanner.scan(b"GET"),
        Ok(Scanned {
            consumed: 0,
            done: true
        })
    );
    assert_eq!(scanner.eof(), Ok(()));

    assert!(BodyScanner::new(Framing::Length(0)).is_done());
    assert!(BodyScanner::new(Framing::None).is_done());

    let mut scanner = BodyScanner::new(Framing::UntilClose);
    assert_eq!(
        scanner.scan(b"abc"),
        Ok(Scanned {
            consumed: 3,
            done: false
        })
    );
    assert_eq!(scanner.eof(), Ok(()));
    assert!(scanner.is_done());
}

#[test]
fn many_small_chunks_with_small_extensions_are_not_too_long() {
    // Each chunk pays for as many bytes of extension as it has data.
    let body = [b"4;abc\r\nwxyz\r\n".repeat(20_000), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(unchunk(&body, &[]).unwrap().0.len(), 80_000);
}

#[test]
fn an_error_says_what_was_found_and_where() {
    let refused = |text: &[u8]| {
        RequestHead::new()
            .parse(text, &Limits::default())
            .unwrap_err()
    };
    for (text, status, want) in [
        (
            "GET / HTTP/1.1\r\nX : 1\r\n",
            400,
            "a space in or after a field's name (line 2 of the head: `X : 1`)",
        ),
        (
            "GET / HTTP/1.1\nX",
            400,
            "a LF without CR (line 1 of the head: `GET / HTTP/1.1\\n`)",
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            400,
            "a Content-Length that is not just digits, or not below 2^63: `+1`",
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "both Content-Length and Transfer-Encoding",
        ),
        (
            "PRI * HTTP/2.0\r\n",
            400,
            "HTTP/2, where HTTP/1 is spoken (line 1 of the head: `PRI * HTTP/2.0`)",
        ),
        (
            "\x16\x03\x01",
            400,
            "TLS, where plain HTTP is spoken (line 1 of the head)",
        ),
    ] {
        let error = refused(text.as_bytes());
        assert_eq!((error.status(), error.to_string().as_str()), (status, want));
        assert!(!error.is_limit());
    }
    let long = refused(&[b'a'; 40_000]);
    assert_eq!(
        (long.status(), long.to_string().as_str()),
        (414, "the first line is longer than 32768 bytes")
    );
    let many = refused(format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(201)).as_bytes());
    assert_eq!((many.status(), many.is_limit()), (431, true));
}

#[test]
fn limits_are_exact() {
    let limits = Limits {
        head: 40,
        line: 16,
        fields: 2,
    };
    let judge = |text: &str| RequestHead::new().parse(text.as_bytes(), &limits);
    assert!(matches!(
        judge("GET /12 HTTP/1.1\r\n\r\n"),
        Ok(Parsed::Complete { .. })
    ));
    assert_eq!(
        judge("GET /123 HTTP/1.1\r\n\r\n"),
        Err(HeadError::LineTooLong { limit: 16 })
    );
    assert!(matches!(
        judge("GET /12 HTTP/1.1\r\nA: 234567890123456\r\n\r\n"),
        Ok(Parsed::Complete { consumed: 40 })
    ));
    assert_eq!(
        judge("GET /12 HTTP/1.1\r\nA: 2345678901234567\r\n\r\n"),
        Err(HeadError::HeadTooLong { limit: 40 })
    );
    assert!(matches!(
        judge("GET /12 HTTP/1.1\r\nA:\r\nB:\r\n\r\n"),
        Ok(Parsed::Complete { .. })
    ));
    assert_eq!(
        judge("GET /12 HTTP/1.1\r\nA:\r\nB:\r\nC:\r\n\r\n"),
        Err(HeadError::TooManyFields { limit: 2 })
    );
}

#[test]
fn a_head_in_single_bytes_costs_no_more_than_its_length() {
    // 64 KB of which each byte is looked at once; if each call began anew, it would be two thousand million looks.
    let text = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(65_000));
    let mut head = RequestHead::new();
    let limits = Limits::default();
    let begun = std::time::Instant::now();
    let done = (0..=text.len())
        .any(|end| head.parse(&text.as_bytes()[..end], &limits) != Ok(Parsed::Partial));
    assert!(done);
    assert!(
        begun.elapsed() < std::time::Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

/// Pieces of which requests and responses are put together: right ones, and wrong ones that differ a little.
fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![30 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n\r\n"), 1 => Just(" \r\n")]
}

fn field() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => "[A-Za-z-]{1,12}",
        2 => Just("Content-Length".to_owned()),
        2 => Just("Transfer-Encoding".to_owned()),
        2 => Just("Connection".to_owned()),
        1 => Just("hOsT".to_owned()),
        1 => "[ -~]{0,6}",
    ];
    let value = prop_oneof![
        4 => "[ -~]{0,20}",
        2 => "[0-9]{1,2}",
        2 => Just("chunked".to_owned()),
        1 => Just("close".to_owned()),
        1 => Just("keep-alive, X".to_owned()),
        1 => "\\PC{0,6}",
    ];
    let colon = prop_oneof![20 => Just(": "), 5 => Just(":"), 3 => Just(":\t"), 1 => Just(" : "), 1 => Just("")];
    (name, colon, value, line_end())
        .prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"))
}

fn start_line() -> impl Strategy<Value = String> {
    let method = prop_oneof![6 => Just("GET"), 4 => Just("POST"), 1 => Just("HEAD"), 1 => Just("X-Y"), 1 => Just("G T")];
    let target = prop_oneof![
        6 => "/[a-z0-9/?&=%.]{0,10}",
        2 => "http://[a-z0-9.]{1,8}(:[0-9]{1,4})?(/[a-z]{0,3})?",
        1 => Just("*".to_owned()),
        1 => "/[ -~]{0,6}",
    ];
    let version = prop_oneof![20 => Just("HTTP/1.1"), 4 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2"), 1 => Just("")];
    (method, target, version, line_end()).prop_map(|(m, t, v, end)| format!("{m} {t} {v}{end}"))
}

fn body() -> impl Strategy<Value = String> {
    let chunk = prop_oneof![
        10 => "[a-z]{1,9}".prop_map(|data| format!("{:x}\r\n{data}\r\n", data.len())),
        2 => "[a-z]{1,9}".prop_map(|data| format!("{:X};e=\"f\"\r\n{data}\r\n", data.len())),
        1 => "[0-9a-fx+ ]{0,3}\r?\n[a-z]{0,3}\r\n",
    ];
    let end = prop_oneof![
        10 => Just("0\r\n\r\n"), 2 => Just("0\r\nT: u\r\n\r\n"), 1 => Just("0\r\n"), 1 => Just("0\n\n"), 1 => Just("")
    ];
    prop_oneof![
        3 => Just(String::new()),
        1 => "[a-z]{0,12}",
        3 => (prop::collection::vec(chunk, 0..4), end).prop_map(|(chunks, end)| chunks.concat() + end),
    ]
}

/// One message after another on a connection, most of them right or nearly so.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let head = (
        start_line(),
        prop::collection::vec(field(), 0..5),
        prop_oneof![9 => Just(true), 1 => Just(false)],
    );
    let framed = (head, body()).prop_map(|((start, fields, host), body)| {
        let host = if host { "Host: web\r\n" } else { "" };
        format!("{start}{host}{}\r\n{body}", fields.concat())
    });
    // Right ones on purpose, as chance alone rarely makes a length fit its body.
    let right = (start_line(), "[a-z]{0,9}", any::<bool>()).prop_map(|(start, data, chunked)| {
        let body = if chunked {
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{data}x\r\n0\r\n\r\n",
                data.len() + 1
            )
        } else {
            format!("Content-Length: {}\r\n\r\n{data}", data.len())
        };
        format!("{start}Host: web\r\n{body}")
    });
    prop::collection::vec(prop_oneof![framed, right], 1..4)
        .prop_map(|all| all.concat().into_bytes())
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..6)
}

fn places(cuts: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    places.sort_unstable();
    places
}

fn responses() -> impl Strategy<Value = Vec<u8>> {
    let status =
        prop_oneof![6 => Just(200), 1 => Just(204), 1 => Just(304), 1 => Just(404), 1 => Just(500)];
    let start = (
        prop_oneof![9 => Just("1.1"), 2 => Just("1.0")],
        status,
        line_end(),
    )
        .prop_map(|(version, status, end)| format!("HTTP/{version} {status} Fine{end}"))
        .boxed();
    let framed = (start.clone(), prop::collection::vec(field(), 0..5), body())
        .prop_map(|(start, fields, body)| format!("{start}{}\r\n{body}", fields.concat()));
    let right = (start, "[a-z]{0,9}", any::<bool>()).prop_map(|(start, data, chunked)| {
        if chunked {
            format!(
                "{start}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{data}x\r\n0\r\n\r\n",
                data.len() + 1
            )
        } else {
            format!("{start}Content-Length: {}\r\n\r\n{data}", data.len())
        }
    });
    prop_oneof![framed, right].prop_map(String::into_bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any bytes, of which some were changed: their case, or a bit.
    #[test]
    fn names_are_the_same_whatever_their_case(
        name in prop_oneof![proptest::collection::vec(any::<u8>(), 0..40), "[@-z{`\\[]{0,40}".prop_map(String::into_bytes)],
        changed in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..4)
    ) {
        let mut other = name.clone();
        for (at, bit) in changed.iter().filter(|_| !name.is_empty()) {
            // Mostly the one that makes 'A' of 'a'.
            other[at.index(name.len())] ^= 1 << if *bit < 3 { *bit } else { 5 };
        }
        for one in [&other[..], &name[..name.len() / 2]] {
            prop_assert_eq!(is_same(&name, one), name.eq_ignore_ascii_case(one));
        }
    }

    #[test]
    fn what_ends_a_line_is_found_wherever_it_is(plain in "[ -~\u{80}-\u{ff}]{0,50}", odd in any::<u8>(), at in any::<prop::sample::Index>()) {
        let mut bytes = plain.into_bytes();
        bytes.insert(at.index(bytes.len() + 1), odd);
        for start in 0..bytes.len() + 2 {
            let is_control = |at: &usize| bytes[*at] < b' ' || bytes[*at] == 0x7f;
            let found = (start..bytes.len()).find(is_control);
            prop_assert_eq!(scan::first(&bytes, start, scan::is_control), found.unwrap_or(start.max(bytes.len())));
        }
    }

    #[test]
    fn a_token_is_as_long_as_its_bytes_are_those_of_tokens(
        bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 0..40), "[-A-Za-z0-9_!#|~@`{:,.^]{0,40}".prop_map(String::into_bytes)],
        name in "[-A-Za-z0-9]{0,30}"
    ) {
        let after = [name.as_bytes(), &bytes].concat();
        for bytes in [&bytes, &after] {
            for start in 0..=bytes.len() {
                let run = bytes[start..].iter().take_while(|byte| is_token(**byte)).count();
                prop_assert_eq!(token_run(bytes, start), run);
            }
        }
    }

    #[test]
    fn how_bytes_are_cut_never_matters(bytes in requests(), cuts in cuts()) {
        let cuts = places(&cuts, bytes.len());
        prop_assert_eq!(judge_request(&bytes, &cuts), judge_request(&bytes, &[]));
    }

    #[test]
    fn how_a_response_is_cut_never_matters(bytes in responses(), cuts in cuts()) {
        let cuts = places(&cuts, bytes.len());
        prop_assert_eq!(judge_response(&bytes, &cuts), judge_response(&bytes, &[]));
    }

    #[test]
    fn how_a_body_is_cut_never_matters(body in body(), cuts in cuts()) {
        let cuts = places(&cuts, body.len());
        prop_assert_eq!(unchunk(body.as_bytes(), &cuts), unchunk(body.as_bytes(), &[]));
    }

    #[test]
    fn any_bytes_at_all_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in cuts()) {
        let cuts = places(&cuts, bytes.len());
        prop_assert_eq!(judge_request(&bytes, &cuts), judge_request(&bytes, &[]));
        prop_assert_eq!(judge_response(&bytes, &cuts), judge_response(&bytes, &[]));
        prop_assert_eq!(judge_body(&bytes, &cuts), judge_body(&bytes, &[]));
    }

    #[test]
    fn written_is_what_was_read(bytes in requests()) {
        let mut head = RequestHead::new();
        if let Ok(Parsed::Complete { consumed }) = head.parse(&bytes, &Limits::default()) {
            let mut out = Vec::new();
            head.write(&mut out);
            prop_assert_eq!(&out[..], &bytes[..consumed]);
        }
    }

    #[test]
    fn chunks_that_we_write_are_read_again(data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let mut wire = Vec::new();
        data.iter().for_each(|chunk| write_chunk(&mut wire, chunk));
        wire.extend_from_slice(LAST_CHUNK);
        wire.extend_from_slice(b"next");
        prop_assert_eq!(unchunk(&wire, &[]), Ok((data.concat(), wire.len() - 4)));
    }

    /// Edits on the index do what they would do to a plain list of fields.
    #[test]
    fn edits_do_what_they_would_do_to_a_list(
        start in prop::collection::vec(("[a-c]{1,2}", "[x-z]{0,3}"), 0..6),
        edits in prop::collection::vec((0..4, "[abAB]{1,3}", "[0-9]{0,3}"), 0..10),
    ) {
        let mut list: Vec<(String, String)> = start;
        let lines: String = list.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut head = request(format!("GET / HTTP/1.1\r\n{lines}\r\n"));
        for (edit, name, value) in &edits {
            match edit {
                0 => {
                    let before = list.len();
                    list.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
                    prop_assert_eq!(head.remove(name), before - list.len());
                }
                1 => {
                    list.push((name.clone(), value.clone()));
                    head.append(name.as_bytes(), value.as_bytes());
                }
                2 => {
                    let values = list.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
                    let values: Vec<_> = values.map(|(_, value)| value.as_bytes()).collect();
                    prop_assert_eq!(head.values(name).collect::<Vec<_>>(), values);
                }
                _ => {
                    match list.iter().position(|(have, _)| have.eq_ignore_ascii_case(name)) {
                        None => list.push((name.clone(), value.clone())),
                        Some(first) => {
                            list[first].1.clone_from(value);
                            let mut at = 0;
                            list.retain(|(have, _)| {
                                at += 1;
                                at <= first + 1 || !have.eq_ignore_ascii_case(name)
                            });
                        }
                    }
                    head.set(name, value.as_bytes());
                }
            }
        }
        let mut out = Vec::new();
        head.write(&mut out);
        let again = request(&out);
        for head in [&head, &again] {
            let have: Vec<_> = head.iter().map(|(n, v)| (String::from_utf8_lossy(n).into(), String::from_utf8_lossy(v).into())).collect();
            prop_assert_eq!(&have, &list);
        }
        let mut counts = HashMap::new();
        list.iter().for_each(|(name, _)| *counts.entry(name.to_ascii_lowercase()).or_insert(0) += 1);
        for (name, count) in counts {
            prop_assert_eq!(head.count(&name), count);
        }
    }
}

#[test]
fn a_target_beyond_ascii_is_sent_in_utf8_and_one_in_utf8_stays() {
    for (came, sent) in [
        (&b"/\xe9?\xff"[..], "/é?ÿ".as_bytes()),
        ("/é".as_bytes(), "/é".as_bytes()),
        (b"/plain", b"/plain"),
    ] {
        let mut head = RequestHead::new();
        let text = [b"GET ", came, b" HTTP/1.1\r\nHost: web\r\n\r\n"].concat();
        head.parse(&text, &Limits::default()).unwrap();
        head.take_latin1_target();
        assert_eq!(head.target(), sent);
    }
}
