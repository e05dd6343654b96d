use std::collections::BTreeMap;

use tokio::net::TcpListener;

use super::super::tests::request;
use super::*;
use crate::trace::{TraceContext, TraceId};

/// A value of thrift's binary protocol, read back.
#[derive(Debug, Clone, PartialEq)]
enum Read {
    Number(i64),
    Text(Vec<u8>),
    Struct(BTreeMap<u16, Read>),
    List(Vec<Read>),
}

impl Read {
    fn field(&self, id: u16) -> &Read {
        match self {
            Read::Struct(fields) => fields.get(&id).unwrap_or_else(|| panic!("no field {id}")),
            other => panic!("{other:?} has no fields"),
        }
    }

    fn has(&self, id: u16) -> bool {
        matches!(self, Read::Struct(fields) if fields.contains_key(&id))
    }

    fn text(&self) -> String {
        match self {
            Read::Text(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{other:?} is no text"),
        }
    }

    fn number(&self) -> i64 {
        match self {
            Read::Number(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    fn list(&self) -> &[Read] {
        match self {
            Read::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = from.split_at(n);
    *from = rest;
    head
}

fn number(from: &mut &[u8], bytes: usize) -> i64 {
    let value = take(from, bytes)
        .iter()
        .fold(0, |v, b| v << 8 | u64::from(*b));
    let unused = 64 - 8 * bytes as u32;
    ((value << unused) as i64) >> unused
}

fn read(from: &mut &[u8], what: u8) -> Read {
    match what {
        kind::BOOL => Read::Number(number(from, 1)),
        kind::I16 => Read::Number(number(from, 2)),
        kind::I32 => Read::Number(number(from, 4)),
        kind::I64 => Read::Number(number(from, 8)),
        kind::STRING => {
            let len = number(from, 4) as usize;
            Read::Text(take(from, len).to_vec())
        }
        kind::LIST => {
            let (of, len) = (number(from, 1) as u8, number(from, 4));
            Read::List((0..len).map(|_| read(from, of)).collect())
        }
        kind::STRUCT => {
            let mut fields = BTreeMap::new();
            loop {
                match number(from, 1) as u8 {
                    0 => return Read::Struct(fields),
                    what => {
                        let id = number(from, 2) as u16;
                        fields.insert(id, read(from, what));
                    }
                }
            }
        }
        other => panic!("type {other}"),
    }
}

/// The spans in a frame of `Log`.
fn spans(frame: &[u8]) -> Vec<Read> {
    let mut rest = frame;
    assert_eq!(number(&mut rest, 4) as usize, rest.len());
    assert_eq!(number(&mut rest, 4) as u32, CALL);
    assert_eq!(read(&mut rest, kind::STRING).text(), "Log");
    number(&mut rest, 4);
    let entries = read(&mut rest, kind::STRUCT);
    assert!(rest.is_empty());
    let decode = |entry: &Read| {
        assert_eq!(entry.field(1).text(), "zipkin");
        let mut bytes = vec![0; 4096];
        let len = base64::decode(entry.field(2).text().as_bytes(), &mut bytes).unwrap();
        let mut rest = &bytes[..len];
        let span = read(&mut rest, kind::STRUCT);
        assert!(rest.is_empty());
        span
    };
    entries.field(1).list().iter().map(decode).collect()
}

#[test]
fn a_server_span_is_encoded_as_finagle_does() {
    let span = &spans(&log_call(1, &[Arc::new(request().0)]))[0];
    assert_eq!(
        (
            span.field(1).number(),
            span.field(4).number(),
            span.field(5).number()
        ),
        (0x77, 0xb, 0xa)
    );
    assert_eq!(span.field(3).text(), "outgoing /svc/web");
    let annotations = span.field(6).list();
    let values: Vec<_> = annotations
        .iter()
        .map(|a| (a.field(2).text(), a.field(1).number()))
        .collect();
    assert_eq!(
        values,
        [
            ("sr".to_owned(), 1_700_000_000_000_000),
            ("ss".to_owned(), 1_700_000_000_005_000)
        ]
    );
    let host = annotations[0].field(3);
    assert_eq!(
        (host.field(1).number(), host.field(2).number()),
        (0x7f00_0102, 4140)
    );
    assert_eq!(host.field(3).text(), "outgoing");
    let tags = span.field(8).list();
    assert_eq!(
        (tags[0].field(1).text(), tags[0].field(2).text()),
        ("service".to_owned(), "/svc/web".to_owned())
    );
    assert_eq!(tags[0].field(3).number(), i64::from(TYPE_STRING));
    assert_eq!(
        (tags[2].field(1).text(), tags[2].field(3).number()),
        ("ca".to_owned(), i64::from(TYPE_BOOL))
    );
    // 33333 does not fit a signed 16-bit number; thrift has no other.
    assert_eq!(tags[2].field(4).field(2).number() as u16, 33333);
    assert!(!span.has(9) && !span.has(12));
}

#[test]
fn a_client_span_has_its_endpoint_its_error_and_a_long_trace_id() {
    let (_, client) = request();
    let client = SpanRecord {
        context: TraceContext {
            trace: TraceId { high: 1, low: 0x77 },
            parent: None,
            debug: true,
            ..client.context
        },
        error: Some(crate::code::Code::E110),
        ..client
    };
    let span = &spans(&log_call(1, &[Arc::new(client)]))[0];
    assert!(!span.has(5));
    assert_eq!((span.field(9).number(), span.field(12).number()), (1, 1));
    let values: Vec<_> = span
        .field(6)
        .list()
        .iter()
        .map(|a| a.field(2).text())
        .collect();
    assert_eq!(values, ["cs", "cr", "ws"]);
    let tags: Vec<_> = span
        .field(8)
        .list()
        .iter()
        .map(|t| t.field(1).text())
        .collect();
    assert_eq!(tags, ["http.rsp.status", "error", "sa"]);
    let to = span.field(8).list()[2].field(4);
    assert_eq!((to.field(1).number(), to.field(2).number()), (0, 80));
    let Read::Text(v6) = to.field(4) else {
        panic!("no address")
    };
    assert_eq!((v6.len(), v6[0]), (16, 0x20));
}

/// Reads one frame and answers with a result code; the frame.
async fn answer(stream: &mut TcpStream, code: i32) -> Vec<u8> {
    let len = stream.read_u32().await.unwrap();
    let mut frame = vec![0; len as usize];
    stream.read_exact(&mut frame).await.unwrap();
    let mut reply = Thrift(vec![0; 4]);
    reply.0.extend(REPLY.to_be_bytes());
    reply.bytes(b"Log");
    reply.i32(1);
    reply.field(0, kind::I32);
    reply.i32(code);
    reply.stop();
    let len = reply.0.len() as u32 - 4;
    reply.0[..4].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&reply.0).await.unwrap();
    [
        &len.to_be_bytes()[..0],
        &(frame.len() as u32).to_be_bytes(),
        &frame,
    ]
    .concat()
}

#[tokio::test]
async fn a_connection_is_kept_and_made_anew_when_the_collector_restarts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut scribe = Scribe::new("127.0.0.1", address.port());
    let batch = [Arc::new(request().0), Arc::new(request().1)];
    let collector = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let first = answer(&mut stream, 0).await;
        answer(&mut stream, 0).await;
        (first, listener)
    });
    scribe.send(&batch).await.unwrap();
    scribe.send(&batch).await.unwrap();
    // The collector's end of the connection is closed; so is its listener, until it comes back at the same place.
    let (first, listener) = collector.await.unwrap();
    assert_eq!(spans(&first).len(), 2);
    drop(listener);
    assert!(matches!(
        scribe.send(&batch).await,
        Err(SendError::Failed(_))
    ));
    assert!(matches!(
        scribe.send(&batch).await,
        Err(SendError::Failed(_))
    ));
    let listener = TcpListener::bind(address).await.unwrap();
    let collector = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, 0).await;
        answer(&mut stream, 1).await;
        answer(&mut stream, 7).await;
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n")
            .await
            .unwrap();
        stream.read_u32().await.ok();
    });
    scribe.send(&batch).await.unwrap();
    assert!(matches!(
        scribe.send(&batch).await,
        Err(SendError::Failed(_))
    ));
    assert!(matches!(
        scribe.send(&batch).await,
        Err(SendError::Refused(_))
    ));
    let error = scribe.send(&batch).await.unwrap_err();
    assert!(error.to_string().contains("no scribe"), "{error}");
    collector.await.unwrap();
}
