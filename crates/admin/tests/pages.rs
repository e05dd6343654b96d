//! The shelf as a client sees it: each page asked for by a request, without a socket.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use admin::{
    Admin, AdminConfig, BadText, DelegateError, DelegateRequest, Instance, LogLevels, Logger,
    Readiness, RequestRow, RequestsView, RouterInfo, Security,
};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use telemetry::metrics::{Collector, Registry, Scope, Source};
use tower::ServiceExt;

fn config(security: Security) -> AdminConfig {
    AdminConfig {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        security,
        instance: Instance {
            program: "rutter".into(),
            version: "1.2.3".into(),
            node: "node-a".into(),
            pod: "10.8.1.8".into(),
        },
    }
}

fn shelf() -> Admin {
    Admin::new(config(Security::default()))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn kind(&self) -> Option<&str> {
        self.headers
            .get("content-type")
            .map(|v| v.to_str().unwrap())
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let answer = router.clone().oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(router: &Router, path: &str, kind: &str, body: &str) -> Answer {
    let request = Request::post(path).header("content-type", kind);
    send(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn an_unknown_path_is_404_with_nothing_and_head_is_get_without_its_body() {
    let router = shelf().into_router();
    let unknown = get(&router, "/no/such").await;
    assert_eq!(
        (unknown.status, unknown.body.as_str(), unknown.kind()),
        (StatusCode::NOT_FOUND, "", None)
    );
    let ping = get(&router, "/admin/ping").await;
    assert_eq!(
        (ping.body.as_str(), ping.kind()),
        ("pong", Some("text/plain; charset=utf-8"))
    );
    let head = send(
        &router,
        Request::head("/admin/ping").body(Body::empty()).unwrap(),
    )
    .await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn the_index_lists_the_pages_sorted_and_every_answer_has_the_browser_rules() {
    let router = shelf().help().json("/state", || json!({})).into_router();
    let index = get(&router, "/admin").await;
    let listed: Vec<&str> = index.body.lines().collect();
    assert!(listed.is_sorted());
    for path in ["/admin/ping", "/help", "/state", "/live"] {
        assert!(listed.contains(&path), "{path}");
    }
    let rule = index.headers["content-security-policy"].to_str().unwrap();
    assert!(rule.contains("default-src 'self'") && !rule.contains("unsafe"));
    let page = get(&router, "/help").await;
    assert!(
        page.body.contains("node-a")
            && !page.body.contains("<style")
            && !page.body.contains(" style=")
    );
}

#[tokio::test]
async fn the_longest_path_answers() {
    let router = shelf()
        .namer_state(|prefix| (prefix == "io.l5d.k8s").then(|| json!({"watch": "open"})))
        .json("/namer_state/own.json", || json!({"own": true}))
        .into_router();
    assert_eq!(
        get(&router, "/namer_state/io.l5d.k8s.json").await.json()["watch"],
        "open"
    );
    assert_eq!(
        get(&router, "/namer_state/own.json").await.json()["own"],
        true
    );
    assert_eq!(
        get(&router, "/namer_state/none.json").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_closed_category_answers_404_with_nothing() {
    let closed = Security {
        control: false,
        ..Security::default()
    };
    let router = Admin::new(config(closed))
        .shutdown(|| panic!("closed"))
        .into_router();
    let answer = post(&router, "/admin/shutdown", "text/plain", "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::NOT_FOUND, "")
    );
}

#[tokio::test]
async fn shutdown_is_a_post_and_not_from_another_sites_page() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let router = shelf()
        .shutdown(move || _ = counted.fetch_add(1, Ordering::SeqCst))
        .into_router();
    assert_eq!(
        get(&router, "/admin/shutdown").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let foreign = Request::post("/admin/shutdown")
        .header("host", "n:9990")
        .header("origin", "http://evil");
    let foreign = send(&router, foreign.body(Body::empty()).unwrap()).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(
        post(&router, "/admin/shutdown", "text/plain", "")
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn ready_says_what_is_missing() {
    let readiness = Readiness::default();
    let namer = readiness.condition("namer", "first answer");
    let router = shelf().readiness(readiness).into_router();
    let answer = get(&router, "/ready").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["missing"], json!(["namer"]));
    namer.met("ok");
    assert_eq!(get(&router, "/ready").await.status, StatusCode::OK);
    assert_eq!(get(&router, "/live").await.status, StatusCode::OK);
}

struct Counts(Vec<(&'static str, u64)>);

impl Source for Counts {
    fn collect(&self, out: &mut Collector<'_>) {
        for (name, value) in &self.0 {
            out.counter(name, *value);
        }
    }
}

fn one_router() -> Arc<dyn Fn() -> Vec<RouterInfo> + Send + Sync> {
    Arc::new(|| {
        vec![RouterInfo {
            label: "out".into(),
            protocol: "http".into(),
            dtab: "/svc => /host".into(),
            servers: vec!["127.0.0.1:4140".into()],
            interpreter: "default".into(),
        }]
    })
}

#[tokio::test]
async fn metrics_json_has_a_tree_and_names_a_missing_subtree() {
    let registry = Registry::new();
    let _kept = registry.register(
        Scope::service("out", "/svc/web"),
        Arc::new(Counts(vec![("requests", 3)])),
    );
    let router = shelf()
        .metrics(&registry)
        .linkerd_prometheus(&registry, "/admin/metrics/prometheus", "")
        .linkerd_influxdb(&registry)
        .into_router();
    assert_eq!(
        get(&router, "/admin/metrics.json").await.json()["rt/out/service/svc/web/requests"],
        3
    );
    let tree = get(&router, "/admin/metrics.json?tree=1&q=rt/out")
        .await
        .json();
    assert_eq!(tree["service"]["svc/web"]["requests"]["counter"], 3);
    let none = get(&router, "/admin/metrics.json?q=a/b").await;
    assert_eq!(
        (none.status, none.json()),
        (
            StatusCode::NOT_FOUND,
            json!({"error": "No such subtree: a/b"})
        )
    );
    let lines = get(&router, "/admin/metrics/prometheus").await.body;
    assert!(
        lines.contains("rt:service:requests{rt=\"out\", service=\"svc/web\"} 3"),
        "{lines}"
    );
    for (host, want) in [(Some("node-a:9990"), "node-a:9990"), (None, "none")] {
        let mut request = Request::get("/admin/metrics/influxdb");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = send(&router, request.body(Body::empty()).unwrap()).await;
        let line = format!("rt:service,host={want},rt=out,service=svc/web requests=3\n");
        assert!(answer.body.contains(&line), "{}", answer.body);
        assert!(answer.kind().unwrap().starts_with("text/plain"));
    }
    assert!(
        get(&router, "/metrics")
            .await
            .kind()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
}

#[tokio::test]
async fn the_overview_explains_no_routers_no_traffic_and_bears_a_thousand_names() {
    let registry = Registry::new();
    let none = shelf()
        .overview(&registry, Arc::new(Vec::new), Readiness::default())
        .into_router();
    assert!(get(&none, "/").await.body.contains("has no router"));

    let readiness = Readiness::default();
    let _waiting = readiness.condition("namer <k8s>", "first list");
    let router = shelf()
        .overview(&registry, one_router(), readiness)
        .into_router();
    let quiet = get(&router, "/").await;
    assert_eq!(quiet.kind(), Some("text/html;charset=UTF-8"));
    assert!(
        quiet.body.contains("No request has passed")
            && quiet.body.contains("http_proxy=127.0.0.1:4140")
    );
    assert!(quiet.body.contains("namer &#60;k8s&#62;") || quiet.body.contains("namer &lt;k8s&gt;"));

    let kept: Vec<_> = (0..1_000)
        .map(|at| {
            let failures = u64::from(at == 777);
            let counts = Counts(vec![
                ("requests", 10),
                ("success", 10 - failures),
                ("failures", failures),
            ]);
            registry.register(
                Scope::service("out", &format!("/svc/s{at}")),
                Arc::new(counts),
            )
        })
        .collect();
    let busy = get(&router, "/").await.body;
    assert!(busy.len() < 60_000, "{}", busy.len());
    assert!(
        busy.find("/svc/s777").unwrap() < busy.find("/svc/s0").unwrap(),
        "worst first"
    );
    assert!(busy.contains("950 healthier ones are not shown"));
    let all = get(&router, "/?all=1&q=s12").await.body;
    assert!(all.contains("/svc/s129") && !all.contains("/svc/s777"));
    assert!(!get(&router, "/?fragment=1").await.body.contains("<html"));
    assert_eq!(
        get(&router, "/overview.json?q=s777").await.json()["services"][0]["failures"],
        1
    );
    drop(kept);
}

fn delegating() -> Router {
    let delegate = |request: DelegateRequest| -> admin::BoxFuture<Result<Value, DelegateError>> {
        Box::pin(async move {
            match (request.namespace.as_str(), request.dtab.as_str()) {
                ("slow", _) => std::future::pending().await,
                ("mute", _) => Err(DelegateError::Unable(request.namespace)),
                (_, "bad") => Err(DelegateError::Dtab(BadText {
                    message: "'/' expected".into(),
                    report: "bad\n^".into(),
                })),
                _ if !request.path.starts_with('/') => Err(DelegateError::Path(BadText::default())),
                _ => Ok(json!({"type": "neg", "path": request.path})),
            }
        })
    };
    shelf().delegator(one_router(), delegate).into_router()
}

#[tokio::test]
async fn the_delegator_answers_with_linkerds_statuses() {
    let router = delegating();
    for (query, status, body) in [
        (
            "path=/svc/a&namespace=out&dtab=/a%3D%3E/b",
            200,
            r#"{"type":"neg","path":"/svc/a"}"#,
        ),
        ("path=/svc/a", 200, r#"{"type":"neg","path":"/svc/a"}"#),
        ("path=/svc/a&dtab=bad", 400, "Invalid dtab: '/' expected"),
        ("path=x", 400, "Invalid path: "),
        ("path=/a&namespace=slow", 503, "Request timed out."),
        (
            "path=/a&namespace=mute",
            501,
            "Name Interpreter for mute cannot show delegations",
        ),
    ] {
        let answer = get(&router, &format!("/delegator.json?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (status, body),
            "{query}"
        );
    }
    let body = r#"{"namespace":"out","dtab":"","path":"/svc/a"}"#;
    assert_eq!(
        post(&router, "/delegator.json", "application/json", body)
            .await
            .json()["path"],
        "/svc/a"
    );
    assert_eq!(
        post(&router, "/delegator.json", "text/plain", body)
            .await
            .status
            .as_u16(),
        415
    );
    let malformed = post(&router, "/delegator.json", "application/json", "{").await;
    assert_eq!(malformed.status.as_u16(), 400);
    assert!(malformed.body.starts_with("Malformed delegation request: "));
    let put = send(
        &router,
        Request::put("/delegator.json").body(Body::empty()).unwrap(),
    )
    .await;
    assert_eq!(put.status.as_u16(), 405);
}

#[tokio::test]
async fn the_delegator_page_opens_with_the_routers_dtab_and_marks_the_spot_of_an_error() {
    let router = delegating();
    assert!(
        get(&router, "/delegator")
            .await
            .body
            .contains("/svc =&#62; /host</textarea>")
    );
    let edited = get(&router, "/delegator?path=/svc/a&dtab=bad").await.body;
    assert!(edited.contains("bad\n^</pre>") && edited.contains(">bad</textarea>"));
    let fragment = get(&router, "/delegator?path=/svc/%3Cx%3E&fragment=1")
        .await
        .body;
    assert!(
        fragment.contains("no such name")
            && !fragment.contains("<x>")
            && !fragment.contains("<form")
    );
}

fn row(request: &str, status: u16) -> RequestRow {
    RequestRow {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(3_723_004),
        source: "10.0.0.9:4000".into(),
        server: "0.0.0.0:4140".into(),
        router: "out".into(),
        logical: "/svc/web".into(),
        concrete: "/#/io.l5d.fs/web".into(),
        destination: "10.0.0.1:80".into(),
        request: request.into(),
        status,
        code: String::new(),
        latency: Duration::from_millis(12),
        trace: "463ac35c9f6413ad".into(),
    }
}

#[tokio::test]
async fn requests_are_a_table_and_json_and_can_be_filtered() {
    let view = || RequestsView {
        rows: vec![row("GET /<b>", 200), row("GET /slow", 503)],
        sample_rate: 0.25,
        capacity: 10,
        passed: 9,
    };
    let router = shelf().requests(view).into_router();
    let page = get(&router, "/requests").await.body;
    for part in ["01:02:03.004", "12 ms", "GET /&#60;b&#62;", "10.0.0.1:80"] {
        assert!(page.contains(part), "{part}");
    }
    let failed = get(&router, "/requests.json?q=5xx").await.json();
    assert_eq!(failed["requests"].as_array().unwrap().len(), 1);
    assert_eq!(failed["requests"][0]["timestamp"], 3_723_004);
    let accept = Request::get("/requests").header("accept", "application/json");
    let as_json = send(&router, accept.body(Body::empty()).unwrap()).await;
    assert_eq!(as_json.json()["requests"].as_array().unwrap().len(), 2);
    assert!(
        get(&router, "/requests?q=nothing")
            .await
            .body
            .contains("None of the 2 kept")
    );
}

#[derive(Default)]
struct Levels(Mutex<Vec<(String, String)>>);

impl LogLevels for Levels {
    fn list(&self) -> Vec<Logger> {
        vec![Logger {
            logger: "root".into(),
            level: "INFO".into(),
        }]
    }

    fn set(&self, logger: &str, level: &str) {
        self.0.lock().unwrap().push((logger.into(), level.into()));
    }
}

#[tokio::test]
async fn log_levels_are_listed_and_set_by_a_form() {
    let levels = Arc::new(Levels::default());
    let router = shelf().logging(levels.clone()).into_router();
    assert_eq!(
        get(&router, "/logging.json").await.json(),
        json!([{"logger": "root", "level": "INFO"}])
    );
    let form = "application/x-www-form-urlencoded";
    let set = post(
        &router,
        "/logging.json",
        form,
        "logger=naming%3A%3Abind&level=DEBUG",
    )
    .await;
    assert_eq!(set.status, StatusCode::OK);
    assert_eq!(
        *levels.0.lock().unwrap(),
        [("naming::bind".to_owned(), "DEBUG".to_owned())]
    );
    let back = post(
        &router,
        "/logging.json",
        form,
        "logger=root&level=INFO&next=/logging",
    )
    .await;
    assert_eq!(
        (back.status, &back.headers["location"]),
        (StatusCode::SEE_OTHER, &"/logging".parse().unwrap())
    );
    let away = post(
        &router,
        "/logging.json",
        form,
        "logger=root&level=INFO&next=//evil",
    )
    .await;
    assert_eq!(away.status, StatusCode::OK);
    assert_eq!(
        post(&router, "/logging.json", form, "logger=root")
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
    let delete = Request::delete("/logging.json")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        send(&router, delete).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(
        get(&router, "/logging")
            .await
            .body
            .contains("<option selected>INFO")
    );
}

#[tokio::test]
async fn states_have_linkerds_shapes() {
    let router = shelf()
        .bound_names(Vec::new)
        .client_state(
            || json!({"/#/io.l5d.fs/web": {"state": "bound", "addresses": ["10.0.0.1:80"]}}),
        )
        .config_json(json!({"routers": [{"protocol": "http"}]}))
        .server_info("rutter", "1.2.3", "abc")
        .into_router();
    assert_eq!(get(&router, "/bound-names.json").await.json(), json!([""]));
    let state = get(&router, "/client_state.json").await;
    assert_eq!(state.kind(), Some("application/json;charset=UTF-8"));
    assert_eq!(state.json()["/#/io.l5d.fs/web"]["state"], "bound");
    assert_eq!(
        get(&router, "/config.json").await.json()["routers"][0]["protocol"],
        "http"
    );
    assert_eq!(
        get(&router, "/admin/server_info").await.json()["version"],
        "1.2.3"
    );
}

#[tokio::test]
async fn files_are_embedded_and_asked_for_again_with_their_tag() {
    let router = shelf().into_router();
    let style = get(&router, "/files/style.css").await;
    assert_eq!(
        (style.status, style.kind()),
        (StatusCode::OK, Some("text/css"))
    );
    let again = Request::get("/files/style.css").header("if-none-match", &style.headers["etag"]);
    let again = send(&router, again.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (again.status, again.body.as_str()),
        (StatusCode::NOT_MODIFIED, "")
    );
    assert_eq!(
        get(&router, "/files/../Cargo.toml").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&router, "/favicon.ico").await.kind(),
        Some("image/svg+xml")
    );
}

#[tokio::test]
async fn the_port_is_opened_and_a_taken_one_is_named() {
    let listening = shelf().bind().await.unwrap();
    let mut taken = config(Security::default());
    taken.port = listening.addr().port();
    let error = Admin::new(taken).bind().await.unwrap_err().to_string();
    assert!(error.contains(&listening.addr().to_string()), "{error}");
}

#[tokio::test]
async fn a_target_as_people_type_it_is_understood_on_a_pipelined_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let echo = axum::routing::any(|uri: http::Uri, body: String| async move {
        format!("[{}|{body}]", uri.query().unwrap_or_default())
    });
    let listening = shelf().page("/echo", echo).bind().await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(listening.addr())
        .await
        .unwrap();
    tokio::spawn(listening.serve(tokio_util::sync::CancellationToken::new()));
    let posted = "POST /echo?a=>b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGET /c=>d";
    let got = "GET /echo?e=>f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{posted}{got}").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("[a=%3Eb|GET /c=>d]"), "{answer}");
    assert!(answer.ends_with("[e=%3Ef|]"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
}
