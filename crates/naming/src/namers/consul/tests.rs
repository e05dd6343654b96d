use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::{Addr, Endpoint, Target};

/// A server that behaves as Consul's documentation says: an answer has the index of the catalogue, and a question with an index
/// waits until the catalogue is past it.
#[derive(Clone)]
struct Server {
    port: u16,
    state: Arc<watch::Sender<State>>,
    /// Request lines and tokens, in order.
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Asked = (String, Option<String>);

#[derive(Clone)]
struct State {
    index: u64,
    nodes: Value,
    /// Instead of the nodes: a whole answer, sent at once.
    instead: Option<String>,
    /// Nothing is answered.
    silent: bool,
}

impl Server {
    async fn start(nodes: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            index: 10,
            nodes,
            instead: None,
            silent: false,
        };
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(watch::Sender::new(state)),
            asked: Arc::default(),
        };
        let own = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(own.clone().serve(stream));
            }
        });
        server
    }

    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        loop {
            while !bytes.ends_with(b"\r\n\r\n") {
                bytes.push(stream.read_u8().await.ok()?);
            }
            let head = String::from_utf8(std::mem::take(&mut bytes)).unwrap();
            let line = head.lines().next().unwrap().to_owned();
            let token = head
                .lines()
                .find_map(|line| line.strip_prefix("x-consul-token: "));
            self.asked
                .lock()
                .unwrap()
                .push((line.clone(), token.map(str::to_owned)));
            let answer = self.answer(&line).await;
            stream.write_all(answer.as_bytes()).await.ok()?;
            if answer.contains("Connection: close") {
                return None;
            }
        }
    }

    async fn answer(&self, line: &str) -> String {
        let whole = |status: &str, extra: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        if line.contains(" /v1/agent/self ") {
            let own =
                json!({"Config": {"Datacenter": "dc9"}, "DebugConfig": {"DNSDomain": "mesh."}});
            return whole("200 OK", "", &own.to_string());
        }
        let (_, query) = line.split_once('?').unwrap_or_default();
        let index = query
            .split(['&', ' '])
            .find_map(|one| one.strip_prefix("index="));
        let index: Option<u64> = index.map(|index| index.parse().unwrap());
        let mut states = self.state.subscribe();
        let passed = |state: &State| {
            // An index that the catalogue never had is answered at once, as by Consul.
            let newer = index.is_none_or(|index| state.index != index || index == 0);
            !state.silent && (newer || state.instead.is_some())
        };
        let state = states.wait_for(passed).await.unwrap().clone();
        match state.instead {
            Some(answer) => answer,
            None => {
                let index = format!("X-Consul-Index: {}\r\n", state.index);
                whole("200 OK", &index, &state.nodes.to_string())
            }
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(line, _)| line.clone()).collect()
    }

    fn config(&self) -> ConsulConfig {
        ConsulConfig {
            prefix: Path::read("/io.l5d.consul").unwrap(),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            include_tag: false,
            statuses: None,
            token: None,
            set_host: false,
            consistency: Consistency::Default,
            prefer_service_address: true,
            weights: HashMap::new(),
        }
    }

    fn namer(&self) -> ConsulNamer {
        namer(self.config())
    }
}

fn namer(config: ConsulConfig) -> ConsulNamer {
    let dns = Dns::system(Handle::current());
    ConsulNamer::new(config, dns, Handle::current())
}

fn node(address: &str, service: &str, port: u16, tags: &[&str]) -> Value {
    json!({"Node": "n", "Address": address, "ServiceAddress": service, "ServicePort": port, "ServiceTags": tags})
}

fn endpoints(
    namer: &ConsulNamer,
    path: &str,
    reads: &mut Reads,
) -> Result<(String, Vec<Endpoint>), String> {
    match namer.lookup(&Path::read(path).unwrap(), reads) {
        Activity::Ok(NameTree::Leaf(Name::Bound(bound))) => {
            let Target::Endpoints(addrs) = &bound.target else {
                panic!("a status");
            };
            match addrs.addr(reads) {
                Addr::Bound(all) => Ok((format!("{} {}", bound.id, bound.residual), all.to_vec())),
                other => Err(format!("{other:?}")),
            }
        }
        other => Err(format!("{other:?}")),
    }
}

fn shown(namer: &ConsulNamer, path: &str, reads: &mut Reads) -> String {
    match endpoints(namer, path, reads) {
        Ok((_, all)) => {
            let all: Vec<_> = all.iter().map(|one| one.addr.to_string()).collect();
            all.join(" ")
        }
        Err(other) => other,
    }
}

async fn leads_to(namer: &ConsulNamer, path: &str, want: &str) {
    let mut last = String::new();
    let wait = async {
        loop {
            let mut reads = Reads::new();
            last = shown(namer, path, &mut reads);
            if last == want {
                return;
            }
            reads.changed().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .is_err()
    {
        panic!("{path} leads to {last}, not to {want}");
    }
}

/// Waits until there are so many questions.
async fn questions(server: &Server, many: usize) -> Vec<String> {
    for _ in 0..2_000 {
        if server.asked().len() >= many {
            return server.asked();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", server.asked());
}

#[tokio::test]
async fn a_service_is_followed_by_questions_that_wait_for_the_next_index() {
    let server = Server::start(json!([node("10.0.0.1", "", 80, &[])])).await;
    let namer = server.namer();
    assert!(matches!(
        namer.lookup(&Path::read("/dc1/web").unwrap(), &mut Reads::new()),
        Activity::Pending(_)
    ));
    leads_to(&namer, "/dc1/Web/v1/x", "10.0.0.1:80").await;
    let (bound, _) = endpoints(&namer, "/dc1/Web/v1/x", &mut Reads::new()).unwrap();
    assert_eq!(bound, "/#/io.l5d.consul/dc1/Web /v1/x");
    leads_to(&namer, "/dc1/web", "10.0.0.1:80").await;
    // Both waiting now; the change is one answer to each.
    questions(&server, 4).await;
    server.set(|state| {
        state.index = 11;
        state.nodes = json!([
            node("10.0.0.1", "10.9.0.1", 81, &[]),
            node("10.0.0.2", "", 82, &[])
        ]);
    });
    leads_to(&namer, "/dc1/web", "10.9.0.1:81 10.0.0.2:82").await;
    let asked = questions(&server, 6).await;
    for (line, many) in [
        ("GET /v1/catalog/service/web?dc=dc1 HTTP/1.1", 2),
        ("GET /v1/catalog/service/web?index=10&dc=dc1 HTTP/1.1", 2),
        ("GET /v1/catalog/service/web?index=11&dc=dc1 HTTP/1.1", 2),
    ] {
        assert_eq!(
            asked.iter().filter(|asked| *asked == line).count(),
            many,
            "{asked:#?}"
        );
    }
    let state = namer.state();
    assert_eq!(
        state["/dc1/web"]["state"]["value"]["addrs"][0]["ip"],
        "10.9.0.1"
    );
    assert_eq!(
        state["/dc1/web"]["poll"]["request"],
        "/v1/catalog/service/web?index=11&dc=dc1"
    );
}

#[tokio::test]
async fn a_service_without_instances_is_no_name_so_that_an_alternative_is_taken() {
    let server = Server::start(json!([])).await;
    let namer = server.namer();
    leads_to(&namer, "/dc1/web", "Ok(Neg)").await;
    let why = namer.why_not(&Path::read("/dc1/web").unwrap()).unwrap();
    assert_eq!(why, "Consul has no instance of `web` in data centre `dc1`");
    server.set(|state| {
        state.index = 11;
        state.nodes = json!([node("10.0.0.1", "", 80, &[])]);
    });
    leads_to(&namer, "/dc1/web", "10.0.0.1:80").await;
    server.set(|state| {
        state.index = 12;
        state.nodes = json!([]);
    });
    leads_to(&namer, "/dc1/web", "Ok(Neg)").await;
    assert_eq!(shown(&namer, "/dc1", &mut Reads::new()), "Ok(Neg)");
}

#[tokio::test]
async fn errors_keep_what_is_known_and_end_with_a_fresh_answer() {
    let server = Server::start(json!([node("10.0.0.1", "", 80, &[])])).await;
    let namer = server.namer();
    leads_to(&namer, "/dc1/web", "10.0.0.1:80").await;
    let failing = |answer: &str| server.set(|state| state.instead = Some(answer.to_owned()));
    for (answer, problem) in [
        (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 21\r\n\r\nNo path to datacenter",
            "500 Internal Server Error: No path to datacenter",
        ),
        (
            "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
            "429",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nPermission denied",
            "Permission denied",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
            "X-Consul-Index",
        ),
        (
            "HTTP/1.1 200 OK\r\nX-Consul-Index: 3\r\nContent-Length: 4\r\n\r\n[{]]",
            "cannot be read",
        ),
        (
            "HTTP/1.1 200 OK\r\nX-Consul-Index: 3\r\nConnection: close\r\nContent-Length: 50\r\n\r\n[]",
            "",
        ),
    ] {
        let before = server.asked().len();
        failing(answer);
        questions(&server, before + 2).await;
        assert_eq!(
            shown(&namer, "/dc1/web", &mut Reads::new()),
            "10.0.0.1:80",
            "{answer}"
        );
        let told = namer.state()["/dc1/web"]["poll"]["error"].to_string();
        assert!(told != "null" && told.contains(problem), "{answer}: {told}");
    }
    server.set(|state| {
        state.instead = None;
        state.nodes = json!([node("10.0.0.2", "", 80, &[])]);
    });
    // What is asked after an error does not wait: the index is the same as before.
    leads_to(&namer, "/dc1/web", "10.0.0.2:80").await;
    assert!(namer.state()["/dc1/web"]["poll"]["error"].is_null());
}

#[tokio::test]
async fn a_first_error_lets_an_alternative_be_taken_until_there_is_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().port();
    drop(listener);
    let server = Server::start(json!([node("10.0.0.1", "", 80, &[])])).await;
    let refused = namer(ConsulConfig {
        port: nobody,
        ..server.config()
    });
    leads_to(&refused, "/dc1/web", "Ok(Neg)").await;
    let why = refused.why_not(&Path::read("/dc1/web").unwrap()).unwrap();
    assert!(
        why.starts_with("Consul: ") && why.contains("onnection refused"),
        "{why}"
    );
    server.set(|state| {
        state.instead = Some("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".to_owned());
    });
    let namer = server.namer();
    leads_to(&namer, "/nowhere/web", "Ok(Neg)").await;
    server.set(|state| state.instead = None);
    leads_to(&namer, "/nowhere/web", "10.0.0.1:80").await;
}

#[tokio::test]
async fn an_index_that_goes_back_is_not_waited_for() {
    let server = Server::start(json!([node("10.0.0.1", "", 80, &[])])).await;
    let namer = server.namer();
    leads_to(&namer, "/dc1/web", "10.0.0.1:80").await;
    questions(&server, 2).await;
    // Restored from a snapshot.
    server.set(|state| {
        state.index = 3;
        state.nodes = json!([node("10.0.0.3", "", 80, &[])]);
    });
    leads_to(&namer, "/dc1/web", "10.0.0.3:80").await;
    let asked = questions(&server, 4).await;
    assert!(asked[2].contains("web?dc=dc1 "), "{asked:#?}");
    assert!(asked[3].contains("index=3&"), "{asked:#?}");
}

#[test]
fn the_pace_is_as_consuls_documentation_wants_it() {
    let slow = Duration::from_secs(60);
    let mut pace = Pace::default();
    assert_eq!((pace.answered(0, LEAST), pace.index), (LEAST, Some(1)));
    assert_eq!((pace.answered(7, slow), pace.index), (LEAST, Some(7)));
    assert_eq!((pace.answered(7, slow), pace.index), (LEAST, Some(7)));
    // A server that does not block is not asked in a circle.
    assert_eq!((pace.answered(7, LEAST), pace.index), (BLOCKS, Some(7)));
    assert_eq!((pace.answered(6, slow), pace.index), (LEAST, None));
    assert_eq!((pace.answered(6, slow), pace.index), (LEAST, Some(6)));
    let waits: Vec<u128> = (0..11).map(|_| pace.failed(1.0).as_millis()).collect();
    assert_eq!(
        waits,
        [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]
    );
    assert_eq!(pace.index, None);
    pace.answered(6, slow);
    assert_eq!(pace.failed(0.0), BACKOFF.0 / 2);
}

#[tokio::test]
async fn health_checks_choose_instances_by_the_worst_of_them() {
    let entry = |ip: &str, checks: &[(&str, &str)]| {
        let checks: Vec<_> = checks
            .iter()
            .map(|(id, status)| json!({"CheckID": id, "Status": status}))
            .collect();
        json!({"Node": {"Node": "n", "Address": ip}, "Service": {"Service": "web", "Address": "", "Port": 80, "Tags": []}, "Checks": checks})
    };
    let all = json!([
        entry("10.0.0.1", &[("serfHealth", "passing"), ("a", "passing")]),
        entry("10.0.0.2", &[("serfHealth", "passing"), ("a", "warning")]),
        entry("10.0.0.3", &[("serfHealth", "critical"), ("a", "warning")]),
        entry(
            "10.0.0.4",
            &[("_node_maintenance", "critical"), ("a", "passing")]
        ),
        entry("10.0.0.5", &[("a", "odd")]),
        entry("10.0.0.6", &[]),
    ]);
    for (statuses, passing, want) in [
        (
            vec![Health::Passing],
            "true",
            "10.0.0.1:80 10.0.0.5:80 10.0.0.6:80",
        ),
        (
            vec![Health::Warning, Health::Critical],
            "false",
            "10.0.0.2:80 10.0.0.3:80",
        ),
        (vec![Health::Maintenance], "false", "10.0.0.4:80"),
    ] {
        let server = Server::start(all.clone()).await;
        let namer = namer(ConsulConfig {
            statuses: Some(statuses),
            ..server.config()
        });
        leads_to(&namer, "/dc1/web", want).await;
        let line = format!("GET /v1/health/service/web?dc=dc1&passing={passing} HTTP/1.1");
        assert_eq!(server.asked()[0], line);
    }
}

#[tokio::test]
async fn keys_show_in_questions_and_places() {
    let server = Server::start(json!([
        node("10.0.0.1", "10.9.0.1", 80, &["big", "small", "x"]),
        node("10.0.0.2", "10.9.0.2", 80, &["small"]),
        node("10.0.0.3", "", 80, &[]),
        node("", "", 80, &[]),
        node("10.0.0.4", "", 0, &[]),
        node("localhost", "", 81, &[]),
    ]))
    .await;
    let namer = namer(ConsulConfig {
        include_tag: true,
        token: Some("secret".to_owned()),
        set_host: true,
        consistency: Consistency::Stale,
        prefer_service_address: false,
        weights: HashMap::from([("big".to_owned(), 2.0), ("small".to_owned(), 0.5)]),
        ..server.config()
    });
    leads_to(
        &namer,
        "/.local/Prod/web/rest",
        "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80 127.0.0.1:81",
    )
    .await;
    let (bound, all) = endpoints(&namer, "/.local/Prod/web/rest", &mut Reads::new()).unwrap();
    assert_eq!(bound, "/#/io.l5d.consul/.local/Prod/web /rest");
    let weights: Vec<f64> = all.iter().map(|one| one.weight).collect();
    assert_eq!(weights, [2.0, 0.5, 1.0, 1.0]);
    // The agent's own data centre and domain.
    assert_eq!(
        all[0].authority.as_deref(),
        Some("prod.web.service.dc9.mesh")
    );
    let asked = server.asked.lock().unwrap().clone();
    let secret = Some("secret".to_owned());
    assert_eq!(
        asked[0],
        ("GET /v1/agent/self HTTP/1.1".to_owned(), secret.clone())
    );
    assert_eq!(
        asked[1],
        (
            "GET /v1/catalog/service/web?stale=true&dc=dc9&tag=prod HTTP/1.1".to_owned(),
            secret
        )
    );
    assert_eq!(shown(&namer, "/.local/prod", &mut Reads::new()), "Ok(Neg)");
}

#[tokio::test]
async fn a_name_cannot_reach_beyond_its_place_in_the_question() {
    let server = Server::start(json!([])).await;
    let namer = server.namer();
    leads_to(&namer, r"/d\x26c/a\x2f..\x3fx", "Ok(Neg)").await;
    let line = "GET /v1/catalog/service/a%2F..%3Fx?dc=d%26c HTTP/1.1";
    assert_eq!(server.asked()[0], line);
}

#[tokio::test]
async fn a_question_that_is_never_answered_is_cut_off_and_put_again() {
    let server = Server::start(json!([node("10.0.0.1", "", 80, &[])])).await;
    let limit = Duration::from_millis(100);
    let dns = Dns::system(Handle::current());
    let namer = ConsulNamer::within(limit, server.config(), dns, Handle::current());
    leads_to(&namer, "/dc1/web", "10.0.0.1:80").await;
    server.set(|state| state.silent = true);
    let before = server.asked().len();
    questions(&server, before + 3).await;
    let told = namer.state()["/dc1/web"]["poll"]["error"].to_string();
    assert!(told.contains("no answer within 100ms"), "{told}");
    assert_eq!(shown(&namer, "/dc1/web", &mut Reads::new()), "10.0.0.1:80");
    server.set(|state| {
        state.silent = false;
        state.nodes = json!([node("10.0.0.2", "", 80, &[])]);
    });
    leads_to(&namer, "/dc1/web", "10.0.0.2:80").await;
}
