use super::*;
use crate::trace::{SpanId, TraceId};

/// A server span of a trace called 0x77 and the client span below it, as a router makes them.
pub(super) fn request() -> (SpanRecord, SpanRecord) {
    let context = TraceContext {
        trace: TraceId { high: 0, low: 0x77 },
        span: SpanId(0xb),
        parent: Some(SpanId(0xa)),
        debug: false,
        sampled: Some(true),
    };
    let server = SpanRecord {
        context,
        kind: Kind::Server,
        name: "outgoing /svc/web".into(),
        service: "outgoing".into(),
        start_us: 1_700_000_000_000_000,
        duration_us: 5_000,
        local: Some("127.0.1.2:4140".parse().unwrap()),
        remote: Some("10.0.0.9:33333".parse().unwrap()),
        tags: vec![
            ("service".into(), "/svc/web".into()),
            ("router.label".into(), "outgoing".into()),
        ],
        annotations: Vec::new(),
        error: None,
    };
    let client = SpanRecord {
        context: TraceContext {
            span: SpanId(0xc),
            parent: Some(SpanId(0xb)),
            ..context
        },
        kind: Kind::Client,
        name: "GET /".into(),
        service: "#/io.l5d.fs/web".into(),
        start_us: 1_700_000_000_001_000,
        duration_us: 3_000,
        local: None,
        remote: Some("[2001:db8::1]:80".parse().unwrap()),
        tags: vec![("http.rsp.status".into(), "200".into())],
        annotations: vec![(1_700_000_000_001_500, "ws".into())],
        error: None,
    };
    (server, client)
}

#[test]
fn a_client_span_belongs_to_its_destination_or_to_its_router_before_another_router() {
    for (id, want) in [
        ("/#/io.l5d.fs/web", "#/io.l5d.fs/web"),
        ("/$/inet/10.0.0.1/80", "$/inet/10.0.0.1/80"),
        (
            "/%/io.l5d.k8s.localnode/10.0.0.1/#/io.l5d.k8s/default/http/web",
            "#/io.l5d.k8s/default/http/web",
        ),
        (
            "/%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/default/http/web",
            "outgoing",
        ),
    ] {
        assert_eq!(client_service("outgoing", id), want);
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (recorder, mut queue) = Recorder::new(2);
    for _ in 0..5 {
        recorder.clone().record(request().0);
    }
    let counts = recorder.counts();
    assert_eq!((counts.recorded.get(), counts.dropped.get()), (2, 3));
    assert!(queue.try_recv().is_ok());
    recorder.record(request().0);
    assert_eq!(counts.recorded.get(), 3);
}

#[test]
fn a_recorder_without_tracers_takes_nothing() {
    let recorder = Recorder::none();
    recorder.record(request().0);
    assert!(!recorder.is_on());
    assert_eq!(
        (
            recorder.counts().recorded.get(),
            recorder.counts().dropped.get()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn every_sink_gets_every_span() {
    let (recorder, queue) = Recorder::new(8);
    let (a, b) = (Recent::new(8), Recent::new(8));
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(a.clone()), Box::new(b.clone())];
    recorder.record(request().0);
    recorder.record(request().0);
    drop(recorder);
    deliver(queue, sinks).await;
    assert_eq!((a.requests().len(), b.requests().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn spans_are_delivered_soon_and_to_the_last() {
    let (recorder, queue) = Recorder::new(100);
    let recent = Recent::new(1000);
    let delivery = tokio::spawn(deliver(queue, vec![Box::new(recent.clone())]));
    for n in 1..=50 {
        recorder.record(request().0);
        recorder.record(request().0);
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert_eq!(recent.requests().len(), 2 * n);
        tokio::time::sleep(LOOK_EVERY * (n as u32 % 4)).await;
    }
    (0..90).for_each(|_| recorder.record(request().0));
    drop(recorder);
    delivery.await.unwrap();
    assert_eq!(recent.requests().len(), 190);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_the_queue_is_delivered_although_recorders_are_left() {
    for before in [0, 3] {
        let (recorder, queue) = Recorder::new(100);
        let recent = Recent::new(1000);
        let (end, ended) = tokio::sync::oneshot::channel();
        let sinks: Vec<Box<dyn Sink>> = vec![Box::new(recent.clone())];
        let delivery = tokio::spawn(deliver_until(queue, sinks, async move {
            _ = ended.await;
        }));
        (0..before).for_each(|_| recorder.record(request().0));
        tokio::task::yield_now().await;
        (0..5).for_each(|_| recorder.record(request().0));
        end.send(()).unwrap();
        delivery.await.unwrap();
        assert_eq!(recent.requests().len(), before + 5);
        recorder.record(request().0);
        assert_eq!(recorder.counts().dropped.get(), 1, "what comes later");
    }
}

#[test]
fn recent_requests_join_a_request_with_its_attempts_newest_first() {
    let recent = Recent::new(2);
    let (server, client) = request();
    let attempt = |span, port| {
        let context = TraceContext {
            span: SpanId(span),
            ..client.context
        };
        let remote = Some(([10, 0, 0, 1], port).into());
        Arc::new(SpanRecord {
            context,
            remote,
            ..client.clone()
        })
    };
    recent.offer(&attempt(0xc, 1));
    recent.offer(&attempt(0xd, 2));
    recent.offer(&Arc::new(server.clone()));
    let got = &recent.requests()[0];
    assert_eq!(got.attempts, 2);
    assert_eq!(got.destination, Some(([10, 0, 0, 1], 2).into()));
    assert_eq!(got.concrete_name.as_deref(), Some("#/io.l5d.fs/web"));
    assert_eq!(
        (got.logical_name.as_deref(), got.status.as_deref()),
        (Some("/svc/web"), Some("200"))
    );
    // A request that got nowhere, and one that pushes the first out.
    for start_us in [1, 2] {
        recent.offer(&Arc::new(SpanRecord {
            start_us,
            error: Some(Code::E101),
            ..server.clone()
        }));
    }
    let got: Vec<_> = recent.requests();
    let times: Vec<_> = got.iter().map(|r| (r.timestamp_us, r.error)).collect();
    assert_eq!(times, [(2, Some("RT-E101")), (1, Some("RT-E101"))]);
    assert_eq!((got[0].attempts, &got[0].destination), (0, &None));
}
