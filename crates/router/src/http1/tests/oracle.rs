//! hyper and httparse as one-way oracles: what we accept they read in the same way, or refuse. If one of them saw
//! another message in the same bytes, a request could be smuggled past one of us.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::*;
use super::{body, corpus, requests, responses};

/// A message as somebody read it. Fields are sorted by name, for hyper does not keep the order between names.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    /// The method and target, or the status.
    start: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

fn sorted<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (lower(name), value.to_vec()))
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn read_body(framing: Framing, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut scanner = BodyScanner::new(framing);
    let mut data = Vec::new();
    let scanned = scanner
        .data(bytes, |piece| data.extend_from_slice(piece))
        .ok()?;
    scanner.eof().ok()?;
    Some((data, scanned.consumed))
}

/// The requests that we find, up to the first that we refuse or that does not end.
fn our_requests(mut bytes: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut head = RequestHead::new();
    while let Ok(Parsed::Complete { consumed }) = head.parse(bytes, &Limits::default()) {
        // hyper sees them as tunnels, whose bytes are nobody's requests.
        if head.is_method(Method::Connect) {
            break;
        }
        let Some((body, taken)) = read_body(head.framing(), &bytes[consumed..]) else {
            break;
        };
        let start = format!(
            "{} {}",
            String::from_utf8_lossy(head.method()),
            String::from_utf8_lossy(head.target())
        );
        seen.push(Seen {
            start,
            fields: sorted(head.iter()),
            body,
        });
        if !head.keep_alive() {
            break;
        }
        bytes = &bytes[consumed + taken..];
    }
    seen
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// The requests that hyper finds in the same bytes; those whose bodies end.
fn hypers_requests(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let fields = head
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
                let (start, fields) = (format!("{} {}", head.method, head.uri), sorted(fields));
                seen.lock().unwrap().push(Seen {
                    start,
                    fields,
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    run(async {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        ours.write_all(bytes).await.unwrap();
        ours.shutdown().await.unwrap();
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(theirs), service)
            .await;
    });
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// A response as hyper's client reads it, when it is whole.
fn hypers_response(method: &str, bytes: &[u8]) -> Option<Seen> {
    run(async {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(theirs))
            .await
            .unwrap();
        let request = hyper::Request::builder()
            .method(method)
            .uri("/")
            .header("host", "web");
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        // A response that comes before its request is refused.
        let serve = async {
            ours.read_u8().await.unwrap();
            ours.write_all(bytes).await.unwrap();
            ours.shutdown().await.unwrap();
        };
        let read = async {
            let (head, body) = answer.await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes().to_vec();
            let fields = head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            Some(Seen {
                start: head.status.as_u16().to_string(),
                fields: sorted(fields),
                body,
            })
        };
        tokio::join!(serve, read, connection).1
    })
}

fn our_response(method: Method, bytes: &[u8]) -> Option<Seen> {
    let mut head = ResponseHead::new();
    let Ok(Parsed::Complete { consumed }) = head.parse(bytes, &Limits::default()) else {
        return None;
    };
    let (body, _) = read_body(head.framing(method).ok()?, &bytes[consumed..])?;
    Some(Seen {
        start: head.status().to_string(),
        fields: sorted(head.iter()),
        body,
    })
}

/// What hyper found must begin with what we found, and end there when it refuses something that we take.
fn agree(bytes: &[u8]) -> usize {
    let (ours, theirs) = (our_requests(bytes), hypers_requests(bytes));
    for (at, (we, they)) in ours.iter().zip(&theirs).enumerate() {
        // hyper normalises an absolute target without a path, nothing else.
        let mut we = we.clone();
        if we.start.contains("://") && they.start == format!("{}/", we.start) {
            we.start.clone_from(&they.start);
        }
        // Its type for targets does not keep a fragment.
        if let Some((method, target)) = we.start.split_once(' ')
            && let Some((before, _)) = target.split_once('#')
        {
            we.start = format!("{method} {before}");
        }
        assert_eq!(we, *they, "request {at} of {}", bytes.escape_ascii());
    }
    ours.len().min(theirs.len())
}

#[test]
fn hyper_reads_the_corpus_as_we_do() {
    let mut compared = 0;
    for (kind, _, bytes) in corpus() {
        match kind {
            "req" => {
                // Something behind it, which must not be taken for its body, nor it for a part of it.
                compared +=
                    agree(&[&bytes[..], b"GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n"].concat());
            }
            "resp" => {
                if let (Some(ours), Some(theirs)) = (
                    our_response(Method::Get, &bytes),
                    hypers_response("GET", &bytes),
                ) {
                    assert_eq!(ours, theirs, "{}", bytes.escape_ascii());
                    compared += 1;
                }
            }
            _ => {
                let head = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
                compared += agree(&[head, &bytes[..]].concat());
            }
        }
    }
    assert!(compared > 25, "only {compared} messages were compared");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hyper_reads_requests_as_we_do(bytes in requests()) {
        agree(&bytes);
    }

    #[test]
    fn hyper_reads_chunks_as_we_do(body in body()) {
        agree(format!("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /b HTTP/1.1\r\n\r\n").as_bytes());
    }

    #[test]
    fn hyper_reads_responses_as_we_do(bytes in responses(), head in any::<bool>()) {
        let (method, name) = if head { (Method::Head, "HEAD") } else { (Method::Get, "GET") };
        if let Some(ours) = our_response(method, &bytes)
            && let Some(theirs) = hypers_response(name, &bytes)
        {
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn httparse_finds_the_fields_that_we_find(bytes in requests()) {
        let mut head = RequestHead::new();
        if let Ok(Parsed::Complete { consumed }) = head.parse(&bytes, &Limits::default()) {
            let mut room = [httparse::EMPTY_HEADER; 64];
            let mut theirs = httparse::Request::new(&mut room);
            prop_assert_eq!(theirs.parse(&bytes), Ok(httparse::Status::Complete(consumed)));
            prop_assert_eq!(theirs.method.unwrap().as_bytes(), head.method());
            prop_assert_eq!(theirs.path.unwrap().as_bytes(), head.target());
            let fields = theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value));
            prop_assert!(fields.eq(head.iter()));
        }
    }
}
