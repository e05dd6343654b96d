//! A cluster's API server and a router's admin port, as far as `rutter check` asks them: objects that a test changes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

/// An address where nobody listens.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

struct Request {
    method: String,
    path: String,
    query: String,
    host: String,
    body: String,
}

/// Serves on a port of its own until the test's process ends.
fn serve(answer: impl Fn(&Request) -> (u16, String, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || converse(stream, &*answer));
        }
    });
    address
}

fn converse(mut stream: TcpStream, answer: &dyn Fn(&Request) -> (u16, String, String)) {
    while let Some(request) = read(&mut stream) {
        let (status, headers, body) = answer(&request);
        let text = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let method = words.next()?.to_owned();
    let target = words.next()?;
    let target = match target.strip_prefix("http://") {
        Some(rest) => &rest[rest.find('/').unwrap_or(rest.len())..],
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        host: header("host").unwrap_or_default(),
        body: String::from_utf8(body).ok()?,
    })
}

const CONFIG: &str = "\
admin: {ip: 0.0.0.0, port: 9990}
namers:
- kind: io.l5d.k8s
telemetry:
- {kind: io.l5d.zipkin, host: zipkin.default.svc.cluster.local, port: 9410}
routers:
- protocol: http
  label: outgoing
  dtab: |
    /srv => /#/io.l5d.k8s/default/http ;
    /host => /srv ;
    /svc => /host ;
    /host/world => /srv/world-v1 ;
  interpreter:
    kind: default
    transformers:
    - {kind: io.l5d.k8s.daemonset, namespace: mesh, port: incoming, service: rutter}
  servers: [{port: 4140, ip: 0.0.0.0}]
- protocol: http
  label: incoming
  dtab: /svc => /#/io.l5d.k8s/default/http ;
  interpreter:
    kind: default
    transformers: [{kind: io.l5d.k8s.localnode}]
  servers: [{port: 4141, ip: 0.0.0.0}]
";

/// A cluster's objects.
#[derive(Clone, Default)]
pub(crate) struct World {
    /// By the path of their list.
    objects: Vec<(String, Value)>,
    denied: Vec<(String, String)>,
    answers: BTreeMap<String, (u16, String)>,
}

impl World {
    /// Two nodes, nothing installed.
    pub(crate) fn empty() -> Self {
        let mut world = Self::default();
        for namespace in ["default", "mesh"] {
            world.add(
                "/api/v1/namespaces",
                json!({"metadata": {"name": namespace}}),
            );
        }
        for node in ["n1", "n2"] {
            let ready = json!([{"type": "Ready", "status": "True"}]);
            world.add(
                "/api/v1/nodes",
                json!({"metadata": {"name": node}, "spec": {}, "status": {"conditions": ready}}),
            );
        }
        world
    }

    /// Routers on both nodes, an application that uses them, a collector.
    pub(crate) fn healthy() -> Self {
        let mut world = Self::empty();
        let labels = json!({"app.kubernetes.io/name": "rutter"});
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let container = json!({
            "name": "rutter", "image": "rutter:0.1", "args": ["run", "/config/config.yaml"],
            "env": [{"name": "POD_IP", "valueFrom": field("status.podIP")}, {"name": "NODE_NAME", "valueFrom": field("spec.nodeName")}],
            "ports": [{"name": "outgoing", "containerPort": 4140, "hostPort": 4140}, {"name": "incoming", "containerPort": 4141}, {"name": "admin", "containerPort": 9990}],
            "volumeMounts": [{"name": "config", "mountPath": "/config"}],
        });
        world.add("/apis/apps/v1/namespaces/mesh/daemonsets", json!({
            "metadata": {"name": "rutter", "namespace": "mesh", "labels": labels},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "rutter", "containers": [container], "volumes": [{"name": "config", "configMap": {"name": "rutter"}}]}}},
            "status": {"desiredNumberScheduled": 2, "numberReady": 2},
        }));
        world.add("/api/v1/namespaces/mesh/configmaps", json!({"metadata": {"name": "rutter", "namespace": "mesh"}, "data": {"config.yaml": CONFIG}}));
        let own = json!([{"kind": "DaemonSet", "name": "rutter"}]);
        for (node, ip) in [("n1", "10.1.0.2"), ("n2", "10.2.0.2")] {
            let mut pod = pod(
                "mesh",
                &format!("rutter-{node}"),
                node,
                ip,
                container.clone(),
            );
            pod["metadata"]["labels"] =
                json!({"app.kubernetes.io/name": "rutter", "controller-revision-hash": "a1"});
            pod["metadata"]["ownerReferences"] = own.clone();
            world.add("/api/v1/namespaces/mesh/pods", pod);
        }
        world.service(
            "mesh",
            "rutter",
            &labels,
            ("incoming", 4141),
            &[("10.1.0.2", "n1"), ("10.2.0.2", "n2")],
        );
        world.service(
            "default",
            "hello",
            &json!({"app": "hello"}),
            ("http", 80),
            &[("10.1.0.3", "n1")],
        );
        world.service(
            "default",
            "world-v1",
            &json!({"app": "world-v1"}),
            ("http", 80),
            &[("10.2.0.3", "n2")],
        );
        world.service(
            "default",
            "zipkin",
            &json!({"app": "zipkin"}),
            ("scribe", 9410),
            &[("10.2.0.4", "n2")],
        );
        for (name, node) in [("hello-1", "n1"), ("hello-2", "n2")] {
            let env = json!([
                {"name": "RUTTER_NODE_IP", "valueFrom": field("status.hostIP")},
                {"name": "http_proxy", "value": "http://$(RUTTER_NODE_IP):4140"},
                {"name": "no_proxy", "value": "localhost,127.0.0.1,$(RUTTER_NODE_IP)"},
            ]);
            let container = json!({"name": "hello", "image": "hello:1", "env": env});
            let mut pod = pod("default", name, node, "10.1.0.9", container);
            pod["metadata"]["ownerReferences"] =
                json!([{"kind": "ReplicaSet", "name": "hello-5f9"}]);
            world.add("/api/v1/namespaces/default/pods", pod);
        }
        world
    }

    fn service(
        &mut self,
        namespace: &str,
        name: &str,
        selector: &Value,
        port: (&str, u16),
        endpoints: &[(&str, &str)],
    ) {
        let port = json!({"name": port.0, "port": port.1});
        self.add(
            &format!("/api/v1/namespaces/{namespace}/services"),
            json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": selector, "clusterIP": "None", "ports": [port]},
            }),
        );
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(ip, node)| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}))
            .collect();
        self.add(&format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"), json!({
            "metadata": {"name": format!("{name}-x"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [port], "endpoints": endpoints,
        }));
    }

    pub(crate) fn add(&mut self, list: &str, object: Value) {
        self.objects.push((list.to_owned(), object));
    }

    fn find(&mut self, kind: &str, name: &str) -> usize {
        let is = |(list, object): &(String, Value)| {
            list.ends_with(&format!("/{kind}")) && object["metadata"]["name"] == name
        };
        self.objects
            .iter()
            .position(is)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    pub(crate) fn delete(&mut self, kind: &str, name: &str) {
        let at = self.find(kind, name);
        self.objects.remove(at);
    }

    pub(crate) fn change(&mut self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let at = self.find(kind, name);
        change(&mut self.objects[at].1);
    }

    pub(crate) fn deny(&mut self, verb: &str, resource: &str) {
        self.denied.push((verb.to_owned(), resource.to_owned()));
    }

    pub(crate) fn answer(&mut self, path: &str, status: u16, body: &str) {
        self.answers
            .insert(path.to_owned(), (status, body.to_owned()));
    }

    pub(crate) fn dtab(&mut self, from: &str, to: &str) {
        self.change("configmaps", "rutter", |map| {
            let text = map["data"]["config.yaml"].as_str().unwrap();
            assert!(text.contains(from));
            map["data"]["config.yaml"] = json!(text.replacen(from, to, 1));
        });
    }

    pub(crate) fn without_variable(&mut self, name: &str) {
        self.change("daemonsets", "rutter", |set| {
            let env = set["spec"]["template"]["spec"]["containers"][0]["env"]
                .as_array_mut()
                .unwrap();
            env.retain(|one| one["name"] != name);
        });
    }

    /// Sets a variable of an application's container.
    pub(crate) fn variable(&mut self, pod: &str, name: &str, value: Value) {
        self.change("pods", pod, |pod| {
            let env = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
            let mut entry = value;
            entry["name"] = json!(name);
            match env.iter().position(|one| one["name"] == name) {
                Some(at) => env[at] = entry,
                None => env.push(entry),
            }
        });
    }

    pub(crate) fn proxy(&mut self, pod: &str, value: &str) {
        self.variable(pod, "http_proxy", json!({"value": value}));
    }

    /// Serves it; gives the address.
    pub(crate) fn serve(self) -> String {
        serve(move |request| {
            let (status, body) = self.reply(request);
            (status, String::new(), body)
        })
    }

    fn reply(&self, request: &Request) -> (u16, String) {
        if let Some(answer) = self.answers.get(&request.path) {
            return answer.clone();
        }
        if request.method == "POST" {
            let review: Value = serde_json::from_str(&request.body).unwrap();
            let asked = &review["spec"]["resourceAttributes"];
            let denied = self
                .denied
                .iter()
                .any(|(verb, resource)| asked["verb"] == **verb && asked["resource"] == **resource);
            return (201, json!({"status": {"allowed": !denied}}).to_string());
        }
        match request.path.as_str() {
            "/version" => return (200, json!({"gitVersion": "v1.31.0"}).to_string()),
            "/apis/discovery.k8s.io/v1" => return (200, "{}".to_owned()),
            _ => {}
        }
        let one = self.objects.iter().find(|(list, object)| {
            let name = object["metadata"]["name"].as_str().unwrap();
            request.path == format!("{list}/{name}")
        });
        if let Some((_, object)) = one {
            return (200, object.to_string());
        }
        let kind = request.path.rsplit('/').next().unwrap();
        let known = [
            "services",
            "endpointslices",
            "pods",
            "nodes",
            "namespaces",
            "daemonsets",
            "configmaps",
        ];
        if !known.contains(&kind) {
            return (
                404,
                json!({"message": "not found", "code": 404}).to_string(),
            );
        }
        let everywhere = |list: &str| match list.split_once("/namespaces/") {
            Some((root, rest)) => format!("{root}/{}", rest.split_once('/').unwrap().1),
            None => list.to_owned(),
        };
        let labels = labels(&request.query);
        let items = self.objects.iter().filter(|(list, object)| {
            (*list == request.path || everywhere(list) == request.path)
                && labels
                    .iter()
                    .all(|(key, value)| object["metadata"]["labels"][key] == **value)
        });
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        (200, json!({"items": items, "metadata": {}}).to_string())
    }
}

fn labels(query: &str) -> Vec<(String, String)> {
    let selector = query
        .split('&')
        .find_map(|part| part.strip_prefix("labelSelector="));
    let selector = selector
        .unwrap_or_default()
        .replace("%3D", "=")
        .replace("%2F", "/")
        .replace("%2C", ",");
    selector
        .split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn pod(namespace: &str, name: &str, node: &str, ip: &str, container: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running", "podIP": ip, "hostIP": "192.168.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A router: its admin port, its listener, and the collector of its spans.
pub(crate) struct Admin {
    answers: BTreeMap<String, (u16, String)>,
    pub(crate) listener: String,
    pub(crate) collector: String,
}

impl Admin {
    pub(crate) fn healthy() -> Self {
        let listener = serve(|request| match request.host.as_str() {
            "hello" => (200, String::new(), "hi".to_owned()),
            _ => (
                502,
                "l5d-err: RT-E101+no+such+destination%0Amore\r\n".to_owned(),
                String::new(),
            ),
        });
        let collector = serve(|_| (200, String::new(), String::new()));
        let mut admin = Self {
            answers: BTreeMap::new(),
            listener,
            collector,
        };
        let ready =
            r#"{"ready": true, "conditions": {"listeners": {"met": true, "detail": "1 open"}}}"#;
        admin.answer("/admin/ping", 200, "pong");
        admin.answer("/ready", 200, ready);
        admin.answer("/requests.json", 200, r#"{"requests": []}"#);
        admin.answer("/metrics", 200, "process_open_fds 10\nprocess_max_fds 1000\nrutter_namer_watch_age_seconds{namer=\"a\"} 3\nrutter_spans_total{result=\"sent\"} 5\n");
        admin
    }

    pub(crate) fn answer(&mut self, path: &str, status: u16, body: &str) {
        self.answers
            .insert(path.to_owned(), (status, body.to_owned()));
    }

    pub(crate) fn serve(&self) -> String {
        let port = |address: &str| address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let config = json!({
            "telemetry": [{"kind": "io.l5d.zipkin", "host": "127.0.0.1", "port": port(&self.collector)}],
            "routers": [{"protocol": "http", "label": "out", "dtab": "/svc => /$/inet/127.1/80",
                         "servers": [{"ip": "127.0.0.1", "port": port(&self.listener)}]}],
        });
        let mut answers = self.answers.clone();
        answers
            .entry("/config.json".to_owned())
            .or_insert((200, config.to_string()));
        serve(move |request| {
            let found = answers.get(&request.path).cloned();
            let (status, body) = found.unwrap_or((404, String::new()));
            (status, String::new(), body)
        })
    }
}
