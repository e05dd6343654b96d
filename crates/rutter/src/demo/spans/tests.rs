use super::v1::SpanV1;
use super::*;

fn span(trace: &str, id: &str, parent: Option<&str>, service: &str, at: u64) -> Value {
    json!({"traceId": trace, "id": id, "parentId": parent, "name": "get", "timestamp": at, "duration": 5,
        "kind": "SERVER", "localEndpoint": {"serviceName": service}})
}

#[test]
fn traces_are_found_by_short_and_long_ids_in_order_of_time() {
    let spans = Spans::default();
    spans.add([
        span("000000000000000a463ac35c9f6413ad", "2", Some("1"), "b", 20),
        span(
            "000000000000000a463ac35c9f6413ad",
            "1",
            Some("0000000000000000"),
            "a",
            10,
        ),
        json!("no span"),
    ]);
    let trace = spans.trace("463ac35c9f6413ad");
    assert_eq!(trace.len(), 2);
    assert_eq!(trace[0]["localEndpoint"]["serviceName"], "a");
    assert_eq!(trace[0].get("parentId"), None, "a parent of zeros is none");
    assert_eq!(trace[1]["parentId"], "0000000000000001");
    assert_eq!(spans.services().into_iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        spans.dependencies(),
        [json!({"parent": "a", "child": "b", "callCount": 1, "errorCount": 0})]
    );
}

#[test]
fn the_oldest_spans_go_first_and_a_span_that_comes_twice_is_one() {
    let spans = Spans::default();
    spans.add((1..=CAPACITY as u64 + 10).map(|at| span(&format!("{at:x}"), "1", None, "a", at)));
    assert_eq!(spans.len(), CAPACITY);
    assert!(spans.trace("1").is_empty());
    spans.add([span(&format!("{:x}", CAPACITY + 10), "1", None, "a", 1)]);
    assert_eq!(spans.len(), CAPACITY);
}

#[test]
fn the_first_model_becomes_the_second() {
    let v1 = json!({"traceId": "a", "id": "b", "parentId": "c", "name": "GET /", "annotations": [
            {"timestamp": 100, "value": "sr", "endpoint": {"serviceName": "outgoing", "ipv4": "127.1.1.1", "port": 4140}},
            {"timestamp": 150, "value": "ss"}, {"timestamp": 120, "value": "wr"}],
        "binaryAnnotations": [{"key": "service", "value": "/svc/web"},
            {"key": "ca", "value": true, "endpoint": {"ipv4": "10.0.0.1"}}]});
    let v2 = SpanV1::read(&v1).unwrap().to_v2();
    assert_eq!(
        v2,
        json!({"traceId": "000000000000000a", "id": "000000000000000b", "name": "get /", "parentId": "000000000000000c",
        "kind": "SERVER", "timestamp": 100, "duration": 50,
        "localEndpoint": {"serviceName": "outgoing", "ipv4": "127.1.1.1", "port": 4140},
        "remoteEndpoint": {"ipv4": "10.0.0.1"},
        "annotations": [{"timestamp": 120, "value": "wr"}], "tags": {"service": "/svc/web"}})
    );
}
