//! Against a real Zipkin: RUTTER_ZIPKIN=host:httpport:scribeport. Without it there is nothing to test, which only counts as
//! passed when RUTTER_REAL is not set.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use telemetry::span::{
    Exporter, ExporterConfig, Kind, Recorder, Sink, SpanRecord, Transport, client_service, deliver,
    now_us,
};
use telemetry::trace::TraceContext;

/// The zipkin to test with: host, HTTP port, scribe port.
fn zipkin() -> Option<(String, u16, u16)> {
    let Ok(place) = std::env::var("RUTTER_ZIPKIN") else {
        assert!(
            std::env::var_os("RUTTER_REAL").is_none(),
            "RUTTER_ZIPKIN is not set"
        );
        return None;
    };
    let mut parts = place.split(':');
    let mut next = || {
        parts
            .next()
            .expect("RUTTER_ZIPKIN=host:httpport:scribeport")
    };
    let (host, http, scribe) = (next().to_owned(), next(), next());
    Some((host, http.parse().unwrap(), scribe.parse().unwrap()))
}

fn span(
    context: TraceContext,
    kind: Kind,
    service: &str,
    at: (u64, u64),
    ends: (&str, &str),
) -> SpanRecord {
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    SpanRecord {
        context,
        kind,
        name: format!("{service} test").into(),
        service: service.into(),
        start_us: at.0,
        duration_us: at.1,
        local: address(ends.0),
        remote: address(ends.1),
        tags: vec![("service".into(), "/svc/web".into())],
        annotations: Vec::new(),
        error: None,
    }
}

/// Makes the spans of one trace as routers would.
struct Trace {
    /// Set apart from the traces of other runs.
    tag: String,
    spans: Vec<SpanRecord>,
}

impl Trace {
    fn new(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            spans: Vec::new(),
        }
    }

    /// A call to `to` over both routers: four spans in a line, the second node's clock two seconds ahead. The context that the
    /// called application gets.
    fn call(&mut self, from: Option<TraceContext>, to: &str) -> TraceContext {
        let gateway = self.outgoing(from, to);
        self.incoming(gateway, to)
    }

    /// The first router's two spans.
    fn outgoing(&mut self, from: Option<TraceContext>, to: &str) -> TraceContext {
        let now = now_us() - 5_000_000;
        let label = self.name("outgoing");
        let mut server = from.map_or_else(TraceContext::root, |from| from.child());
        server.sampled = Some(true);
        let id =
            format!("/%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/default/http/{to}");
        self.span(
            server,
            Kind::Server,
            &label,
            (now, 12_000),
            ("10.0.1.1:4140", "10.0.1.9:4000"),
        );
        let client = server.child();
        let service = client_service(&label, &id);
        self.span(
            client,
            Kind::Client,
            service,
            (now + 100, 11_000),
            ("10.0.1.1:5000", "10.0.2.1:4141"),
        );
        client
    }

    /// The second router's two spans.
    fn incoming(&mut self, from: TraceContext, to: &str) -> TraceContext {
        let ahead = now_us() - 3_000_000;
        let label = self.name("incoming");
        let server = from.child();
        self.span(
            server,
            Kind::Server,
            &label,
            (ahead + 200, 9_500),
            ("10.0.2.1:4141", "10.0.1.1:5000"),
        );
        self.attempt(server, to)
    }

    /// The second router's client span.
    fn attempt(&mut self, server: TraceContext, to: &str) -> TraceContext {
        let ahead = now_us() - 3_000_000;
        let client = server.child();
        let id = format!(
            "/%/io.l5d.k8s.localnode/10.0.2.1/#/io.l5d.k8s/default/http/{}",
            self.name(to)
        );
        let label = self.name("incoming");
        self.span(
            client,
            Kind::Client,
            client_service(&label, &id),
            (ahead + 300, 9_000),
            ("10.0.2.1:5001", "10.0.2.9:80"),
        );
        client
    }

    fn span(
        &mut self,
        context: TraceContext,
        kind: Kind,
        service: &str,
        at: (u64, u64),
        ends: (&str, &str),
    ) {
        self.spans.push(span(context, kind, service, at, ends));
    }

    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.tag)
    }
}

async fn get(url: &str) -> Option<Value> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(url.parse().unwrap()).await.ok()?;
    let found = answer.status().is_success();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    found.then(|| serde_json::from_slice(&body).unwrap())
}

/// Asks again and again until `good`, for a minute at most.
async fn poll(url: &str, good: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    for _ in 0..240 {
        last = get(url).await;
        if let Some(value) = last.take_if(|v| good(v)) {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{url}: {last:?}");
}

/// Sends spans and waits until the collector has taken them.
async fn send(config: &ExporterConfig, spans: &[SpanRecord]) {
    let (recorder, queue) = Recorder::new(100);
    let control = tokio::runtime::Handle::current();
    let counts = recorder.counts().clone();
    let (exporter, task) = Exporter::spawn(config, counts.clone(), &control).unwrap();
    let delivery = tokio::spawn(deliver(queue, vec![Box::new(exporter) as Box<dyn Sink>]));
    for span in spans {
        recorder.record(span.clone());
    }
    drop(recorder);
    delivery.await.unwrap();
    task.await.unwrap();
    assert_eq!(
        (counts.sent.get(), counts.dropped.get()),
        (spans.len() as u64, 0)
    );
}

/// Zipkin's edges between services of this run, as "parent > child", once it has `n` of them.
async fn edges(host: &str, http: u16, tag: &str, n: usize) -> Vec<String> {
    let day = now_us() / 1000 + 86_400_000;
    let url = format!("http://{host}:{http}/api/v2/dependencies?endTs={day}&lookback=172800000");
    let ours = |links: &Value| {
        let links = links.as_array().cloned().unwrap_or_default();
        let tag = format!("-{tag}");
        let name = |link: &Value, end| link[end].as_str().unwrap_or_default().to_owned();
        let mut edges: Vec<_> = links
            .iter()
            .filter(|link| {
                name(link, "parent").ends_with(&tag) || name(link, "child").ends_with(&tag)
            })
            .map(|link| {
                format!("{} > {}", name(link, "parent"), name(link, "child")).replace(&tag, "")
            })
            .collect();
        edges.sort();
        edges
    };
    ours(&poll(&url, |v| ours(v).len() >= n).await)
}

async fn send_and_look(host: &str, http: u16, config: ExporterConfig, tag: &str) {
    let mut trace = Trace::new(tag);
    trace.call(None, "web");
    let spans = trace.spans;
    send(&config, &spans).await;
    let id = spans[0].context.trace;
    let url = format!("http://{host}:{http}/api/v2/trace/{id}");
    let found = poll(&url, |v| v.as_array().is_some_and(|a| a.len() == 4)).await;
    for span in &spans {
        let id = span.context.span.to_string();
        let got = found
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["id"] == id.as_str());
        let got = got.unwrap_or_else(|| panic!("no span {id} in {found:#}"));
        let parent = span.context.parent.map(|id| id.to_string());
        assert_eq!(
            got.get("parentId").and_then(Value::as_str),
            parent.as_deref(),
            "{got:#}"
        );
        let kind = if span.kind == Kind::Server {
            "SERVER"
        } else {
            "CLIENT"
        };
        assert_eq!(got["kind"], kind);
        // Zipkin shows service names in lower case.
        assert_eq!(
            got["localEndpoint"]["serviceName"],
            span.service.to_lowercase().as_str()
        );
        let remote = span.remote.unwrap();
        assert_eq!(got["remoteEndpoint"]["port"], remote.port(), "{got:#}");
        assert_eq!(
            got["remoteEndpoint"]["ipv4"],
            remote.ip().to_string().as_str()
        );
        assert_eq!(
            (&got["tags"]["service"], got.get("shared")),
            (&"/svc/web".into(), None),
            "{got:#}"
        );
        assert_eq!(got["duration"], span.duration_us);
    }
    assert_eq!(
        edges(host, http, tag, 2).await,
        [
            "incoming > #/io.l5d.k8s/default/http/web",
            "outgoing > incoming"
        ]
    );
}

fn config(host: &str, port: u16) -> ExporterConfig {
    ExporterConfig {
        host: host.to_owned(),
        port,
        transport: None,
        path: None,
        queue: 1000,
    }
}

#[tokio::test]
async fn a_request_over_two_routers_is_one_trace_of_four_spans_by_http() {
    let Some((host, http, _)) = zipkin() else {
        return;
    };
    let config = ExporterConfig {
        transport: Some(Transport::Http),
        ..config(&host, http)
    };
    send_and_look(&host, http, config, &format!("h{:x}", now_us())).await;
}

#[tokio::test]
async fn a_request_over_two_routers_is_one_trace_of_four_spans_by_scribe() {
    let Some((host, http, scribe)) = zipkin() else {
        return;
    };
    let config = ExporterConfig {
        transport: Some(Transport::Scribe),
        ..config(&host, scribe)
    };
    send_and_look(&host, http, config, &format!("s{:x}", now_us())).await;
}

#[tokio::test]
async fn zipkins_graph_is_that_of_the_applications_for_chain_fan_out_and_retry() {
    let Some((host, http, _)) = zipkin() else {
        return;
    };
    let config = ExporterConfig {
        transport: Some(Transport::Http),
        ..config(&host, http)
    };
    let chain = |trace: &mut Trace| {
        let web = trace.call(None, "web");
        trace.call(Some(web), "api");
    };
    let fan_out = |trace: &mut Trace| {
        let web = trace.call(None, "web");
        trace.call(Some(web), "api");
        trace.call(Some(web), "db");
    };
    let retry = |trace: &mut Trace| {
        // The first router's first attempt gets nowhere, the second's first attempt fails.
        let client = trace.outgoing(None, "web");
        let mut first = trace.spans[1].clone();
        first.context.span = telemetry::trace::SpanId::random();
        first.error = Some(telemetry::code::Code::E110);
        trace.spans.push(first);
        trace.incoming(client, "web");
        let server = trace.spans[3].context;
        trace.attempt(server, "web");
    };
    let web = "#/io.l5d.k8s/default/http/web";
    let to = |name: &str| format!("incoming > #/io.l5d.k8s/default/http/{name}");
    let routers = "outgoing > incoming".to_owned();
    type Make<'a> = &'a dyn Fn(&mut Trace);
    let cases: [(&str, Make<'_>, Vec<String>); 3] = [
        (
            "chain",
            &chain,
            vec![format!("{web} > outgoing"), to("api"), routers.clone()],
        ),
        (
            "fan",
            &fan_out,
            vec![
                format!("{web} > outgoing"),
                to("api"),
                to("db"),
                routers.clone(),
            ],
        ),
        ("retry", &retry, vec![to("web"), routers]),
    ];
    for (name, make, want) in cases {
        let tag = format!("{name}{:x}", now_us());
        let mut trace = Trace::new(&tag);
        make(&mut trace);
        send(&config, &trace.spans).await;
        assert_eq!(edges(&host, http, &tag, want.len()).await, want, "{name}");
    }
}
