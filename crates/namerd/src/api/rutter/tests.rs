//! The API over its own listener, on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use dtab::{Dtab, NameTree, Path};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use naming::namers::{Dns, SystemNamer};
use naming::{Activity, Addr, Bound, DefaultInterpreter, Endpoint, Mounted, Name, Namer, Reads};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::super::Api;
use super::{BASE, ROUTES, document};
use crate::Names;
use crate::serve::ApiListener;
use crate::store::{FileStore, MemoryStore, Store};

/// Knows `a`, `b` and `c`, with so many endpoints; `none` has none.
struct Few(Path);

impl Namer for Few {
    fn prefix(&self) -> &Path {
        &self.0
    }

    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        let first = rest.segments().first().and_then(|segment| segment.as_str());
        let count = match first {
            Some("a") => 1,
            Some("b") => 2,
            Some("c") => 3,
            Some("none") => 0,
            _ => return Activity::Ok(NameTree::Neg),
        };
        let endpoint = |port: u16| Endpoint::new(([127, 0, 0, 1], port).into());
        let addr = Addr::bound((1..=count).map(endpoint));
        let id = Path::utf8(["#"]).concat(&self.0).concat(&rest.take(1));
        let bound = Bound::new(id, rest.drop(1), addr);
        Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
    }
}

struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    async fn over(store: Arc<dyn Store>) -> Self {
        let system = Arc::new(SystemNamer::new(Dns::system(Handle::current())));
        let few = Mounted::new(Arc::new(Few(Path::utf8(["few"]))), Vec::new());
        let interpreter = DefaultInterpreter::new(vec![few], system, Vec::new());
        let names = Names::new(store.clone(), Arc::new(interpreter));
        let stop = CancellationToken::new();
        let confirms = names.confirms().clone();
        tokio::spawn(confirms.run(store.clone(), stop.clone()));
        let listener = ApiListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.addr();
        let api = Api::new(store, names, stop.clone());
        tokio::spawn(listener.serve(crate::Interface::Http(api), stop.clone()));
        Self { addr, stop }
    }

    async fn start() -> Self {
        Self::over(Arc::new(MemoryStore::default())).await
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender }
    }
}

struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// `METHOD path`, headers, body; the answer's status and JSON.
    async fn ask(&mut self, what: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let (status, text) = self.text(what, headers, body).await;
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        (status, value)
    }

    async fn text(&mut self, what: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let (method, path) = what.split_once(' ').unwrap();
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{BASE}{path}"),
        };
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "store");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.into()).unwrap())
    }

    async fn put(&mut self, text: &str) {
        let (status, said) = self
            .ask("PUT dtabs/default?allow-break=true", &[], text)
            .await;
        assert!(matches!(status, 200 | 201), "{said}");
    }
}

#[tokio::test]
async fn every_version_is_kept_shown_compared_and_brought_back() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let said = [
        ("rutter-author", "ops"),
        ("rutter-note", "canary 10 %"),
        ("rutter-via", "cli"),
    ];
    let first = "# who\n/svc => /#/few ;\n";
    let (status, written) = client.ask("PUT dtabs/default", &said, first).await;
    assert_eq!(
        (status, &written["number"], &written["before"]),
        (201, &json!(1), &Value::Null)
    );
    let second = "# who\n/svc => /#/few ;\n/svc/x => /#/few/a ;\n";
    let (status, written) = client.ask("PUT dtabs/default", &[], second).await;
    assert_eq!(
        (status, &written["number"], &written["added"]),
        (200, &json!(2), &json!(1))
    );
    assert_eq!(written["author"], "127.0.0.1");

    let (_, shown) = client.ask("GET dtabs/default@1", &[], "").await;
    assert_eq!(shown["text"], first);
    assert_eq!(
        (&shown["note"], &shown["via"], &shown["author"]),
        (&json!("canary 10 %"), &json!("cli"), &json!("ops"))
    );
    assert_eq!(shown["hash"].as_str().unwrap().len(), 64);
    assert_eq!(shown["entries"][0]["line"], 2);
    let (_, text) = client
        .text("GET dtabs/default", &[("accept", "application/dtab")], "")
        .await;
    assert_eq!(text, second);

    let (_, diff) = client.ask("GET dtabs/default/diff", &[], "").await;
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(2)));
    assert_eq!(
        diff["differences"],
        json!([{"sign": "+", "entry": 2, "prefix": "/svc/x", "dst": "/#/few/a"}])
    );
    let (_, blame) = client.ask("GET dtabs/default/blame", &[], "").await;
    let numbers: Vec<_> = blame["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["number"].clone())
        .collect();
    assert_eq!(numbers, [1, 2]);

    let (status, back) = client.ask("POST dtabs/default/rollback", &[], "").await;
    assert_eq!(
        (status, &back["number"], &back["note"]),
        (200, &json!(3), &json!("back to 1"))
    );
    let (status, _) = client.ask("DELETE dtabs/default", &[], "").await;
    assert_eq!(status, 200);
    let (_, history) = client
        .ask("GET dtabs/default/history?limit=3", &[], "")
        .await;
    let rows: Vec<_> = history["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| format!("{} {}+{}-", v["number"], v["added"], v["removed"]))
        .collect();
    assert_eq!(rows, ["4 0+1-", "3 0+1-", "2 1+0-"]);
    assert_eq!(
        (&history["next"], &history["in_force"]),
        (&json!(2), &Value::Null)
    );
    let (_, rest) = client
        .ask("GET dtabs/default/history?before=2", &[], "")
        .await;
    assert_eq!(rest["versions"][0]["number"], 1);
    let (status, again) = client
        .ask("POST dtabs/default/rollback", &[], r#"{"to": 2}"#)
        .await;
    assert_eq!(
        (status, &again["number"]),
        (201, &json!(5)),
        "a namespace comes back"
    );
}

#[tokio::test]
async fn what_is_wrong_is_told_as_a_problem() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.put("/svc => /#/few").await;
    for (what, headers, body, status, code, detail) in [
        ("GET nothing", &[][..], "", 404, "not-found", "openapi.json"),
        ("POST namespaces", &[], "", 405, "bad-request", "takes GET"),
        (
            "GET dtabs/none",
            &[],
            "",
            404,
            "not-found",
            "no namespace none",
        ),
        (
            "GET dtabs/default@9",
            &[],
            "",
            404,
            "not-found",
            "no version 9",
        ),
        (
            "GET dtabs/default@x",
            &[],
            "",
            400,
            "bad-request",
            "a version is a number",
        ),
        (
            "GET dtabs/default@18446744073709551615",
            &[],
            "",
            404,
            "not-found",
            "no version",
        ),
        (
            "PUT dtabs/default@1",
            &[],
            "",
            400,
            "bad-request",
            "for GET",
        ),
        ("GET dtabs/%ff", &[], "", 400, "bad-request", "not UTF-8"),
        (
            "PUT dtabs/default",
            &[],
            "/svc => | ;",
            400,
            "invalid-dtab",
            "line 1, column 9",
        ),
        (
            "PUT dtabs/default?wait=soon",
            &[],
            "/svc => /a",
            400,
            "bad-request",
            "`wait` is a length",
        ),
        (
            "PUT dtabs/default?max-break=2",
            &[],
            "/svc => /a",
            400,
            "bad-request",
            "from 0 to 1",
        ),
        (
            "PUT dtabs/default?confirm-within=3d",
            &[],
            "/svc => /a",
            400,
            "bad-request",
            "confirm-within",
        ),
        (
            "PUT dtabs/default",
            &[("if-match", "AAAAAAAAAAk=")],
            "/svc => /a",
            412,
            "changed",
            "has version",
        ),
        (
            "PUT dtabs/default",
            &[("if-none-match", "*")],
            "/svc => /a",
            409,
            "exists",
            "exists already",
        ),
        (
            "PATCH dtabs/default",
            &[],
            "{\"edits\": 1}",
            400,
            "bad-request",
            "not what this takes",
        ),
        (
            "PATCH dtabs/default",
            &[],
            r#"{"edits": [{"op": "remove", "prefix": "/x"}]}"#,
            409,
            "changed",
            "no entry /x",
        ),
        (
            "PATCH dtabs/default",
            &[],
            r#"{"edits": [{"op": "grow"}]}"#,
            400,
            "bad-request",
            "grow",
        ),
        (
            "PATCH dtabs/none",
            &[],
            r#"{"edits": []}"#,
            404,
            "not-found",
            "none",
        ),
        (
            "POST dtabs/default/rollback",
            &[],
            "",
            400,
            "bad-request",
            "no version before",
        ),
        (
            "POST dtabs/default/rollback",
            &[],
            r#"{"to": 7}"#,
            404,
            "not-found",
            "no version 7",
        ),
        (
            "POST dtabs/default/confirm",
            &[],
            "",
            409,
            "changed",
            "does not wait",
        ),
        (
            "POST dtabs/default/plan",
            &[],
            "/a",
            400,
            "invalid-dtab",
            "expected",
        ),
        ("POST routers/x", &[], "7", 400, "bad-request", "no report"),
        (
            "POST routers/x",
            &[],
            r#"{"namespace": "default", "names": [{"path": "x"}]}"#,
            400,
            "bad-request",
            "no path",
        ),
        ("DELETE dtabs/none", &[], "", 404, "not-found", "none"),
    ] {
        let (got, problem) = client.ask(what, headers, body).await;
        assert_eq!(got, status, "{what} {body}: {problem}");
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!(code), &json!(status)),
            "{what}: {problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{what}: {problem}"
        );
    }
    let huge = "x".repeat(dtab::MAX_INPUT_BYTES + 1);
    let mut other = server.client().await;
    let (status, _) = other.ask("POST dtabs/default/plan", &[], &huge).await;
    assert_eq!(status, 413);
    let (_, shown) = client.ask("GET dtabs/default", &[], "").await;
    assert_eq!(shown["number"], 1, "nothing of it changed anything");
}

#[tokio::test]
async fn a_change_that_breaks_names_in_use_needs_to_be_allowed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.put("/svc => /#/few ;").await;
    let report = json!({"namespace": "default", "router": "outgoing", "versions": true, "number": 1, "interval": 10.0,
        "names": [{"path": "/svc/a", "rps": 42.06}, {"path": "/svc/b", "rps": 1.0}, {"path": "/svc/typo", "rps": 0.5}]});
    let (status, said) = client
        .ask("POST routers/n1", &[], &report.to_string())
        .await;
    assert_eq!((status, said), (200, json!({"number": 1})));

    let new =
        "/svc => /#/few ;\n/svc/a => /#/few/a | ! ;\n/svc/b => 9 * /#/few/c & 1 * /#/few/none ;\n";
    let (_, plan) = client.ask("POST dtabs/default/plan", &[], new).await;
    let shown: Vec<_> = plan["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| {
            format!(
                "{} {} {}: {} -> {}",
                n["name"], n["rps"], n["verdict"], n["now"], n["then"]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            r##""/svc/b" 1.0 "would-break": "/#/few/b (2)" -> "90 % /#/few/c (3), 10 % /#/few/none (0)""##,
            r##""/svc/a" 42.06 "unchanged": "/#/few/a (1)" -> "/#/few/a (1)""##,
            r##""/svc/typo" 0.5 "unchanged": "no match" -> "no match""##,
        ]
    );
    assert_eq!(
        (
            &plan["would_break"],
            &plan["share_broken"],
            &plan["routers"]
        ),
        (&json!(1), &json!(0.5), &json!(1))
    );
    let found: Vec<_> = plan["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| format!("{} {}:{}", f["code"], f["line"], f["column"]))
        .collect();
    assert_eq!(found, [r#""RT-D05" 1:1"#, r#""RT-D07" 3:1"#]);

    let (status, problem) = client.ask("PUT dtabs/default", &[], new).await;
    assert_eq!((status, &problem["code"]), (409, &json!("would-break")));
    assert_eq!(problem["plan"]["would_break"], 1);
    let (status, _) = client
        .ask("PUT dtabs/default?max-break=0.4", &[], new)
        .await;
    assert_eq!(status, 409);
    let (status, _) = client.ask("DELETE dtabs/default", &[], "").await;
    assert_eq!(status, 409);
    let (status, dry) = client.ask("PUT dtabs/default?dry-run=true", &[], new).await;
    assert_eq!((status, &dry["would_break"]), (200, &json!(1)));
    let (status, written) = client
        .ask("PUT dtabs/default?max-break=0.5", &[], new)
        .await;
    assert_eq!(
        (status, &written["number"], &written["would_break"]),
        (200, &json!(2), &json!(1))
    );
    let (status, _) = client
        .ask("DELETE dtabs/default?allow-break=true", &[], "")
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_write_waits_for_routers_and_names_those_that_lag() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.put("/svc => /#/few ;").await;
    let report = |node: &str, number: u64| {
        json!({"namespace": "default", "router": "outgoing", "node": node, "versions": true, "number": number, "interval": 10.0}).to_string()
    };
    for node in ["n1", "n2"] {
        client
            .ask(&format!("POST routers/{node}"), &[], &report(node, 1))
            .await;
    }
    let mut other = server.client().await;
    let writing = tokio::spawn(async move {
        other
            .ask(
                "PUT dtabs/default?wait=30s",
                &[],
                "/svc => /#/few ; /x => /y",
            )
            .await
    });
    loop {
        let (_, acks) = client.ask("GET dtabs/default/acks", &[], "").await;
        if acks["number"] == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(!writing.is_finished());
    for node in ["n1", "n2"] {
        client
            .ask(&format!("POST routers/{node}"), &[], &report(node, 2))
            .await;
    }
    let (_, written) = writing.await.unwrap();
    assert!(
        written["acks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|ack| ack["applied"] == true && ack["after_ms"].is_u64()),
        "{written}"
    );
    let (_, lag) = client
        .ask("PUT dtabs/default?wait=10ms", &[], "/svc => /#/few ;")
        .await;
    let lagging: Vec<_> = lag["acks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ack| (ack["node"].clone(), ack["applied"].clone()))
        .collect();
    assert_eq!(
        lagging,
        [(json!("n1"), json!(false)), (json!("n2"), json!(false))]
    );
    let (_, history) = client.ask("GET dtabs/default/history", &[], "").await;
    assert_eq!(
        (&history["versions"][1]["routers"], &history["routers"]),
        (&json!(2), &json!(2))
    );
}

#[tokio::test]
async fn a_change_is_confirmed_or_ends() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.put("/svc => /#/few ;").await;
    let (_, written) = client
        .ask(
            "PUT dtabs/default?confirm-within=1h",
            &[],
            "/svc => /#/few/a ;",
        )
        .await;
    assert!(
        written["confirm_until"].is_string() && written["confirm_back"] == 1,
        "{written}"
    );
    let (status, kept) = client
        .ask("POST dtabs/default/confirm", &[], r#"{"number": 2}"#)
        .await;
    assert_eq!(
        (status, &kept["number"], &kept["confirm_until"]),
        (200, &json!(3), &Value::Null)
    );
    client
        .ask(
            "PUT dtabs/default?confirm-within=1s",
            &[],
            "/svc => /#/few/b ;",
        )
        .await;
    for _ in 0..1_000 {
        let (_, shown) = client.ask("GET dtabs/default", &[], "").await;
        if shown["number"] == 5 {
            assert_eq!(
                (&shown["text"], &shown["author"]),
                (&json!("/svc => /#/few/a ;"), &json!("rutter"))
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the change never ended");
}

/// A dtab of a few rules over few names, with circles and dead ends in it.
fn random_dtab() -> String {
    let path = || match fastrand::u32(0..9) {
        0..=3 => format!(
            "/#/few/{}",
            ["a", "b", "c", "none", "x"][fastrand::usize(0..5)]
        ),
        4 => "/#/few".to_owned(),
        5 => "/$/inet/127.0.0.1/80".to_owned(),
        6 => "/$/nil".to_owned(),
        _ => format!("/{}", ["s", "t", "s/a"][fastrand::usize(0..3)]),
    };
    let simple = || match fastrand::u32(0..12) {
        0 => "~".to_owned(),
        1 => "!".to_owned(),
        2 => "$".to_owned(),
        _ => path(),
    };
    let tree = || match fastrand::u32(0..4) {
        0 => format!("{} | {}", simple(), simple()),
        1 => format!(
            "{} * {} & {} * {}",
            fastrand::u32(0..4),
            simple(),
            fastrand::u32(0..4),
            simple()
        ),
        _ => simple(),
    };
    let prefix =
        || ["/svc", "/svc/a", "/svc/b", "/s", "/t", "/t/a", "/svc/*"][fastrand::usize(0..7)];
    (0..fastrand::usize(0..7))
        .map(|_| format!("{} => {} ;\n", prefix(), tree()))
        .collect()
}

/// A bound tree of `/api/1/bind`, as plans write them.
fn said_tree(value: &Value) -> String {
    match value["type"].as_str() {
        Some("leaf") => {
            let bound = &value["bound"];
            let residual = match bound["path"].as_str() {
                Some("/") => String::new(),
                Some(path) => format!(" + {path}"),
                None => "?".to_owned(),
            };
            format!("{}{residual}", bound["id"].as_str().unwrap())
        }
        Some("union") => {
            let branches = value["union"].as_array().unwrap().iter();
            let branches: Vec<_> = branches
                .map(|b| {
                    format!(
                        "{} * {}",
                        b["weight"].as_f64().unwrap(),
                        said_tree(&b["tree"])
                    )
                })
                .collect();
            format!("({})", branches.join(" & "))
        }
        Some("neg") => "~".to_owned(),
        Some("fail") => "!".to_owned(),
        Some("empty") => "$".to_owned(),
        _ => format!("{value}"),
    }
}

#[tokio::test]
async fn a_plan_says_what_names_are_bound_to_after_the_write_in_a_thousand_random_cases() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.put("").await;
    let names = ["/svc/a", "/svc/b", "/svc/x", "/svc/a/rest", "/other"];
    let report = json!({"namespace": "default", "interval": 60.0,
        "names": names.iter().map(|name| json!({"path": name, "rps": 1.0})).collect::<Vec<_>>()});
    let (mut cases, mut rounds, mut bound) = (0, 0, HashMap::new());
    while cases < 1_000 {
        client.ask("POST routers/r", &[], &report.to_string()).await;
        let text = random_dtab();
        rounds += 1;
        let (status, plan) = client.ask("POST dtabs/default/plan", &[], &text).await;
        assert_eq!(status, 200, "{plan}");
        client.put(&text).await;
        for name in plan["names"].as_array().unwrap() {
            let path = name["name"].as_str().unwrap();
            let (status, answer) = client
                .text(&format!("GET /api/1/bind/default?path={path}"), &[], "")
                .await;
            let after = match status {
                200 => match serde_json::from_str(&answer) {
                    Ok(tree) => said_tree(&tree),
                    // A union that leads round in itself is deeper than this parser goes.
                    Err(error) if error.to_string().contains("recursion") => continue,
                    Err(error) => panic!("{error}: {answer}"),
                },
                // A circle, which is refused.
                _ => "!".to_owned(),
            };
            assert_eq!(name["then_tree"], after, "{path} under {text}");
            let dead = matches!(after.as_str(), "~" | "!" | "$");
            if dead && name["verdict"] == "unchanged" {
                assert!(name["now_tree"] == name["then_tree"]);
            }
            if let Some((round, before)) = bound.insert(path.to_owned(), (rounds, after))
                && round + 1 == rounds
            {
                assert_eq!(name["now_tree"], before, "{path} before {text}");
            }
            cases += 1;
        }
    }
}

/// `RUTTER_WRITERS` and `RUTTER_INCREMENTS` of the environment make it as large as one likes; 50 and 200 is the whole of it.
fn size(variable: &str, small: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(small)
}

async fn counted(store: Arc<dyn Store>) {
    let (writers, increments) = (size("RUTTER_WRITERS", 8), size("RUTTER_INCREMENTS", 10));
    let server = Server::over(store).await;
    let mut client = server.client().await;
    client.put("/count => /0 ;").await;
    let began = std::time::Instant::now();
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let mut client = server.client().await;
        tasks.push(tokio::spawn(async move {
            let mut conflicts = 0;
            for increment in 1..=increments {
                // An entry of its own by PATCH, which needs no version.
                let edit = json!({"edits": [{"op": "set", "prefix": format!("/w{writer}"), "dst": format!("/{increment}")}]});
                let (status, said) = client.ask("PATCH dtabs/default", &[], &edit.to_string()).await;
                assert_eq!(status, 200, "{said}");
                // One that all share, by the version that was read.
                loop {
                    let (_, shown) = client.ask("GET dtabs/default", &[], "").await;
                    let text = shown["text"].as_str().unwrap();
                    let dtab = Dtab::read(text).unwrap();
                    let count: usize = dtab.entries()[0].dst.to_string()[1..].parse().unwrap();
                    let new = text.replacen(&format!("/count => /{count} ;"), &format!("/count => /{} ;", count + 1), 1);
                    let version = [("if-match", shown["version"].as_str().unwrap())];
                    let (status, said) = client.ask("PUT dtabs/default", &version, &new).await;
                    match status {
                        200 => break,
                        412 => conflicts += 1,
                        _ => panic!("{said}"),
                    }
                }
            }
            conflicts
        }));
    }
    let mut conflicts = 0;
    for task in tasks {
        conflicts += task.await.unwrap();
    }
    eprintln!(
        "{writers} writers, {increments} increments of two entries each: {} writes and {conflicts} conflicts in {:?}",
        2 * writers * increments,
        began.elapsed()
    );
    // The first one was closed if that took longer than a connection may be idle.
    let mut client = server.client().await;
    let (_, shown) = client.ask("GET dtabs/default", &[], "").await;
    let entries: HashMap<_, _> = shown["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["prefix"].as_str().unwrap(), e["dst"].as_str().unwrap()))
        .collect();
    assert_eq!(entries["/count"], format!("/{}", writers * increments));
    for writer in 0..writers {
        assert_eq!(entries[&*format!("/w{writer}")], format!("/{increments}"));
    }
    assert_eq!(
        shown["number"],
        json!(1 + 2 * writers * increments),
        "each write is a version"
    );
}

#[tokio::test]
async fn concurrent_writers_lose_no_increment_in_memory() {
    counted(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn concurrent_writers_lose_no_increment_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    counted(Arc::new(
        FileStore::open(folder.path().join("dtabs.redb")).unwrap(),
    ))
    .await;
}

#[tokio::test]
async fn the_document_has_every_route_and_every_answer_is_of_its_schema() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let (_, document) = client.ask("GET openapi.json", &[], "").await;
    assert_eq!(
        document,
        serde_json::from_str::<Value>(&document::document()).unwrap()
    );
    for route in ROUTES {
        let operation = &document["paths"][format!("{BASE}{}", route.path)]
            [route.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["summary"], route.about);
    }
    let known = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    let references = text.split("#/components/schemas/").skip(1);
    for reference in references.map(|rest| rest.split('"').next().unwrap()) {
        assert!(known.contains_key(reference), "{reference}");
    }
    client.put("/svc => /#/few").await;
    client
        .ask(
            "POST routers/r",
            &[],
            r#"{"namespace": "default", "names": [{"path": "/svc/a", "rps": 1}]}"#,
        )
        .await;
    for (path, of) in [
        ("namespaces", "namespaces"),
        ("dtabs/default", "dtabs/{namespace}"),
        ("dtabs/default/history", "dtabs/{namespace}/history"),
        ("dtabs/default/diff", "dtabs/{namespace}/diff"),
        ("dtabs/default/blame", "dtabs/{namespace}/blame"),
        ("dtabs/default/names", "dtabs/{namespace}/names"),
        ("dtabs/default/acks", "dtabs/{namespace}/acks"),
        ("dtabs/default/traffic", "dtabs/{namespace}/traffic"),
        ("routers", "routers"),
    ] {
        let (status, answer) = client.ask(&format!("GET {path}"), &[], "").await;
        assert_eq!(status, 200, "{path}: {answer}");
        let schema = &document["paths"][format!("{BASE}{of}")]["get"]["responses"]["200"]["content"]
            ["application/json"]["schema"];
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let required = known[name]["required"].as_array().unwrap();
        for field in required {
            assert!(
                answer.get(field.as_str().unwrap()).is_some(),
                "{path} lacks {field}: {answer}"
            );
        }
    }
}
