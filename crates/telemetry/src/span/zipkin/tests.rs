use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::tests::request;
use super::*;
use crate::trace::TraceContext;

/// Answers one request with a status; its body.
async fn collector(listener: &TcpListener, status: u16) -> (String, Value) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = Vec::new();
    let head = loop {
        assert!(stream.read_buf(&mut text).await.unwrap() > 0);
        if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let lines = String::from_utf8(text[..head].to_vec())
        .unwrap()
        .to_lowercase();
    let len = lines.split("content-length: ").nth(1).unwrap();
    let len: usize = len.split('\r').next().unwrap().parse().unwrap();
    while text.len() < head + len {
        assert!(stream.read_buf(&mut text).await.unwrap() > 0);
    }
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    let first = lines.lines().next().unwrap().to_owned();
    (first, serde_json::from_slice(&text[head..]).unwrap())
}

#[tokio::test]
async fn the_json_has_names_endpoints_parents_and_errors_where_zipkin_looks_for_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut zipkin = Zipkin::new("127.0.0.1", port, None).unwrap();
    let (server, client) = request();
    let root = SpanRecord {
        context: TraceContext {
            parent: None,
            debug: true,
            ..server.context
        },
        error: Some(crate::code::Code::E101),
        ..server.clone()
    };
    let batch = [Arc::new(server), Arc::new(client), Arc::new(root)];
    let (sent, (line, spans)) = tokio::join!(zipkin.send(&batch), collector(&listener, 202));
    sent.unwrap();
    assert_eq!(line, "post /api/v2/spans http/1.1");
    assert_eq!(
        spans[0],
        json!({
            "traceId": "0000000000000077", "id": "000000000000000b", "parentId": "000000000000000a", "kind": "SERVER",
            "name": "outgoing /svc/web", "timestamp": 1_700_000_000_000_000u64, "duration": 5000,
            "localEndpoint": {"serviceName": "outgoing", "ipv4": "127.0.1.2", "port": 4140},
            "remoteEndpoint": {"ipv4": "10.0.0.9", "port": 33333},
            "annotations": [], "tags": {"service": "/svc/web", "router.label": "outgoing"},
        })
    );
    assert_eq!(
        spans[1]["localEndpoint"],
        json!({"serviceName": "#/io.l5d.fs/web"})
    );
    assert_eq!(
        spans[1]["remoteEndpoint"],
        json!({"ipv6": "2001:db8::1", "port": 80})
    );
    assert_eq!(
        spans[1]["annotations"],
        json!([{"timestamp": 1_700_000_000_001_500u64, "value": "ws"}])
    );
    assert_eq!(spans[2].get("parentId"), None);
    assert_eq!(
        (&spans[2]["debug"], &spans[2]["tags"]["error"]),
        (&json!(true), &json!("RT-E101"))
    );
}

#[tokio::test]
async fn a_refused_batch_is_told_from_a_collector_in_trouble() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut zipkin = Zipkin::new("127.0.0.1", port, Some("/x")).unwrap();
    let batch = [Arc::new(request().0)];
    for (status, refused) in [
        (500, false),
        (400, true),
        (429, false),
        (503, false),
        (404, true),
    ] {
        let (sent, (line, _)) = tokio::join!(zipkin.send(&batch), collector(&listener, status));
        assert_eq!(
            matches!(sent, Err(SendError::Refused(_))),
            refused,
            "{status}"
        );
        assert!(sent.is_err() && line.starts_with("post /x "));
    }
    drop(listener);
    assert!(matches!(
        zipkin.send(&batch).await,
        Err(SendError::Failed(_))
    ));
}

#[test]
fn an_address_of_version_6_and_a_bad_host_are_told_apart() {
    assert!(Zipkin::new("::1", 9411, None).is_ok());
    assert!(Zipkin::new("no host", 9411, None).is_err());
}
