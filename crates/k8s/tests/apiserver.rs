//! The namers over a real kube-apiserver with etcd and the controllers that make EndpointSlices, started by
//! `tests/apiserver` at the root of the repository.
//!
//! Runs only with `RUTTER_REAL=1`: the programs must have been built by `tests/apiserver/build.sh`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as File, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtab::{NameTree, Path};
use http::Method;
use k8s::{ApiTarget, Cluster, ClusterConfig, NamerConfig, ServiceNamer, Timing};
use naming::{Activity, Endpoint, Name, Namer, Reads, Target};
use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long the API server and its controllers may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// How far behind what is held may be.
const BEHIND: Duration = Duration::from_secs(2);
const RANDOM_STEPS: usize = 300;

struct Real {
    dir: tempfile::TempDir,
    admin: kube::Client,
}

impl Drop for Real {
    fn drop(&mut self) {
        script("down.sh", self.dir.path(), None);
    }
}

fn script(name: &str, dir: &File, argument: Option<&str>) {
    let file = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/apiserver"
    ))
    .join(name);
    let status = Command::new(&file)
        .arg(dir)
        .args(argument)
        .status()
        .unwrap();
    assert!(status.success(), "{} ended with {status}", file.display());
}

impl Real {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        script("up.sh", dir.path(), None);
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::config::Kubeconfig::read_from(dir.path().join("kubeconfig")).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let admin = kube::Client::try_from(config.unwrap()).unwrap();
        Self { dir, admin }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, kube::Error> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        self.admin.request(request.body(body).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) {
        self.call(Method::POST, path, Some(body)).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        self.call(Method::DELETE, path, Some(json!({"gracePeriodSeconds": 0})))
            .await
            .unwrap();
    }

    async fn namespace(&self, name: &str) {
        self.post("/api/v1/namespaces", json!({"metadata": {"name": name}}))
            .await;
    }

    /// A Service over pods with the label `app` of its name.
    async fn service(&self, namespace: &str, name: &str, app: &str) {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
        let service =
            json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": ports}});
        self.post(&format!("/api/v1/namespaces/{namespace}/services"), service)
            .await;
    }

    /// A pod that is ready, as a kubelet would report it.
    async fn pod(&self, namespace: &str, name: &str, app: &str, ip: &str) {
        let container = json!({"name": "c", "image": "none", "ports": [{"name": "web", "containerPort": 8080}]});
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let spec = json!({"nodeName": "n1", "containers": [container]});
        self.post(
            &pods,
            json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec}),
        )
        .await;
        self.pod_status(namespace, name, ip, true).await;
    }

    async fn pod_status(&self, namespace: &str, name: &str, ip: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                                       "conditions": [{"type": "Ready", "status": ready}]}});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
        self.call(Method::PATCH, &path, Some(status)).await.unwrap();
    }

    async fn connect(&self, kubeconfig: &str, namespaces: &[&str], timing: Timing) -> Cluster {
        let target = ApiTarget::Kubeconfig(self.dir.path().join(kubeconfig));
        let namespaces = namespaces.iter().map(ToString::to_string).collect();
        Cluster::connect(
            ClusterConfig {
                target,
                namespaces,
                timing,
            },
            &Handle::current(),
        )
        .await
        .unwrap()
    }
}

/// The endpoints behind a path; none when it leads nowhere or is not known yet.
fn endpoints(namer: &ServiceNamer, path: &str, reads: &mut Reads) -> Option<Vec<Endpoint>> {
    match namer.lookup(&Path::read(path).unwrap(), reads) {
        Activity::Ok(NameTree::Leaf(Name::Bound(bound))) => {
            let Target::Endpoints(addrs) = bound.target else {
                panic!("no endpoints")
            };
            Some(addrs.addr(reads).endpoints().to_vec())
        }
        _ => None,
    }
}

fn ips(namer: &ServiceNamer, path: &str, reads: &mut Reads) -> Option<Vec<String>> {
    let found = endpoints(namer, path, reads);
    found.map(|found| {
        found
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect()
    })
}

async fn until(namer: &ServiceNamer, path: &str, want: Option<&[&str]>, limit: Duration) {
    let want = want.map(|ips| ips.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut last = None;
    let found = timeout(limit, async {
        loop {
            let mut reads = Reads::new();
            last = ips(namer, path, &mut reads);
            if last == want {
                return;
            }
            reads.changed().await;
        }
    });
    assert!(
        found.await.is_ok(),
        "{path} never led to {want:?} within {limit:?}, but to {last:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_namers_follow_a_real_api_server() {
    if std::env::var("RUTTER_REAL").as_deref() != Ok("1") {
        eprintln!(
            "skipped: the_namers_follow_a_real_api_server needs RUTTER_REAL=1 and tests/apiserver/build.sh"
        );
        return;
    }
    let real = Real::start().await;
    let cluster = real.connect("kubeconfig", &[], Timing::default()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    step("scale", scale(&real, &namer)).await;
    step("rename", rename(&real, &namer)).await;
    step("namespace", recreated_namespace(&real, &namer)).await;
    step("random", random_history(&real, &namer)).await;
    step("permissions", permissions(&real)).await;
    step("outage", outage(&real, &cluster, &namer)).await;
    let records: Vec<_> = cluster
        .watches()
        .iter()
        .map(|status| status.record())
        .collect();
    assert_eq!(
        records.iter().map(|record| record.repairs).sum::<u64>(),
        0,
        "{records:?}"
    );
}

async fn step(name: &str, work: impl Future<Output = ()>) {
    let begun = Instant::now();
    work.await;
    eprintln!("{name}: {:?}", begun.elapsed());
}

async fn scale(real: &Real, namer: &ServiceNamer) {
    // The controller leaves out pods on a node that doesn't exist.
    real.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}}))
        .await;
    real.namespace("shop").await;
    until(namer, "/shop/http/web", None, LONG).await;
    real.service("shop", "web", "web").await;
    real.pod("shop", "w1", "web", "10.1.0.1").await;
    until(namer, "/shop/http/web", Some(&["10.1.0.1:8080"]), LONG).await;
    until(namer, "/shop/80/web", Some(&["10.1.0.1:8080"]), LONG).await;
    let found = endpoints(namer, "/shop/http/web", &mut Reads::new()).unwrap();
    assert_eq!(found[0].node.as_deref(), Some("n1"));
    real.pod("shop", "w2", "web", "10.1.0.2").await;
    until(
        namer,
        "/shop/http/web",
        Some(&["10.1.0.1:8080", "10.1.0.2:8080"]),
        LONG,
    )
    .await;
    real.pod_status("shop", "w1", "10.1.0.1", false).await;
    until(namer, "/shop/http/web", Some(&["10.1.0.2:8080"]), LONG).await;
    // Down to nothing and up again with another address.
    real.delete("/api/v1/namespaces/shop/pods/w1").await;
    real.delete("/api/v1/namespaces/shop/pods/w2").await;
    until(namer, "/shop/http/web", None, LONG).await;
    real.pod("shop", "w3", "web", "10.1.0.3").await;
    until(namer, "/shop/http/web", Some(&["10.1.0.3:8080"]), LONG).await;
}

async fn rename(real: &Real, namer: &ServiceNamer) {
    real.delete("/api/v1/namespaces/shop/services/web").await;
    real.service("shop", "store", "web").await;
    until(namer, "/shop/http/store", Some(&["10.1.0.3:8080"]), LONG).await;
    // Without a garbage collector the old slices stay: their owner is gone, so whoever cleans up deletes them.
    let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
    let old = real
        .call(
            Method::GET,
            &format!("{slices}?labelSelector=kubernetes.io/service-name%3Dweb"),
            None,
        )
        .await;
    for slice in old.unwrap()["items"].as_array().unwrap() {
        real.delete(&format!(
            "{slices}/{}",
            slice["metadata"]["name"].as_str().unwrap()
        ))
        .await;
    }
    until(namer, "/shop/http/web", None, LONG).await;
    until(namer, "/shop/80/web", None, LONG).await;
}

async fn recreated_namespace(real: &Real, namer: &ServiceNamer) {
    // With no kubelet to confirm a pod's end, the namespace would wait for it.
    real.delete("/api/v1/namespaces/shop/pods/w3").await;
    real.delete("/api/v1/namespaces/shop").await;
    until(namer, "/shop/http/store", None, LONG).await;
    let gone = timeout(LONG, async {
        while real
            .call(Method::GET, "/api/v1/namespaces/shop", None)
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    gone.await.unwrap();
    real.namespace("shop").await;
    real.service("shop", "store", "web").await;
    real.pod("shop", "w1", "web", "10.1.0.9").await;
    until(namer, "/shop/http/store", Some(&["10.1.0.9:8080"]), LONG).await;
}

/// Slices written by hand, at random: after each step what is held is what was written.
async fn random_history(real: &Real, namer: &ServiceNamer) {
    real.namespace("random").await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/random/endpointslices";
    let mut held = BTreeMap::<u8, BTreeSet<u8>>::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let steps = (
        0..4u8,
        any::<bool>(),
        proptest::collection::btree_set(1..9u8, 0..4),
    );
    let mut slowest = Duration::ZERO;
    for _ in 0..RANDOM_STEPS {
        let (name, delete, ips) = steps.new_tree(&mut runner).unwrap().current();
        let path = format!("{slices}/s{name}");
        let known = held.contains_key(&name);
        match (delete, known) {
            (true, false) => continue,
            (true, true) => {
                real.delete(&path).await;
                held.remove(&name);
            }
            (false, _) => {
                let endpoint = |ip: &u8| json!({"addresses": [format!("10.2.0.{ip}")], "conditions": {"ready": true}});
                let slice = json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": format!("s{name}"), "labels": {"kubernetes.io/service-name": "web"}},
                    "endpoints": ips.iter().map(endpoint).collect::<Vec<_>>(), "ports": [{"name": "http", "port": 80}],
                });
                let (method, path) = if known {
                    (Method::PUT, path.as_str())
                } else {
                    (Method::POST, slices)
                };
                real.call(method, path, Some(slice)).await.unwrap();
                held.insert(name, ips);
            }
        }
        let begun = Instant::now();
        let all: BTreeSet<_> = held
            .values()
            .flatten()
            .map(|ip| format!("10.2.0.{ip}:80"))
            .collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        until(
            namer,
            "/random/http/web",
            (!held.is_empty()).then_some(all.as_slice()),
            BEHIND,
        )
        .await;
        slowest = slowest.max(begun.elapsed());
    }
    eprintln!("random: the slowest of {RANDOM_STEPS} changes was seen after {slowest:?}");
}

async fn permissions(real: &Real) {
    let timing = Timing {
        watch: Duration::from_secs(3),
        ..Timing::default()
    };
    let cluster = real.connect("kubeconfig-rutter", &["shop"], timing).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let want = ["10.1.0.9:8080"];
    let trouble = timeout(LONG, async {
        while cluster.trouble().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    trouble.await.unwrap();
    let review = cluster.review().await;
    let missing: Vec<_> = review.missing.iter().map(ToString::to_string).collect();
    assert_eq!(missing.len(), 4, "{missing:?}");
    assert_eq!(
        missing[0],
        "verb `list` on `endpointslices` of discovery.k8s.io in namespace `shop`"
    );

    let rules = json!([
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let user = json!([{"kind": "User", "name": "rutter", "apiGroup": "rbac.authorization.k8s.io"}]);
    real.post(
        &format!("{rbac}/clusterroles"),
        json!({"metadata": {"name": "rutter"}, "rules": rules}),
    )
    .await;
    let role =
        json!({"kind": "ClusterRole", "name": "rutter", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "rutter"}, "roleRef": role, "subjects": user});
    // In one namespace first: its watch begins, the others stay unknown.
    real.post(
        &format!("{rbac}/namespaces/shop/rolebindings"),
        binding.clone(),
    )
    .await;
    until(&namer, "/shop/http/store", Some(&want), LONG).await;
    assert!(matches!(
        namer.lookup(&Path::read("/random/http/web").unwrap(), &mut Reads::new()),
        Activity::Pending(_)
    ));
    assert!(cluster.review().await.missing.is_empty());
    real.post(&format!("{rbac}/clusterrolebindings"), binding)
        .await;
    until(&namer, "/none/http/web", None, LONG).await;
    let known = timeout(LONG, async {
        while matches!(
            namer.lookup(&Path::read("/none/http/web").unwrap(), &mut Reads::new()),
            Activity::Pending(_)
        ) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    known.await.unwrap();
    // All taken away again: what was known stays.
    real.delete(&format!("{rbac}/clusterrolebindings/rutter"))
        .await;
    real.delete(&format!("{rbac}/namespaces/shop/rolebindings/rutter"))
        .await;
    let refused = timeout(LONG, async {
        while !cluster.trouble().iter().any(|line| line.contains("403")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    refused.await.unwrap();
    assert_eq!(
        ips(&namer, "/shop/http/store", &mut Reads::new()).unwrap(),
        want
    );
}

async fn outage(real: &Real, cluster: &Cluster, namer: &Arc<ServiceNamer>) {
    let mut reads = Reads::new();
    assert!(ips(namer, "/shop/http/store", &mut reads).is_some());
    script("down.sh", real.dir.path(), Some("apiserver"));
    let noticed = timeout(LONG, async {
        while cluster.trouble().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    noticed.await.unwrap();
    assert!(!reads.stale(), "the outage changed nothing");
    assert!(ips(namer, "/shop/http/store", &mut Reads::new()).is_some());
    script("up.sh", real.dir.path(), Some("apiserver"));
    real.pod("shop", "w2", "web", "10.1.0.10").await;
    until(
        namer,
        "/shop/http/store",
        Some(&["10.1.0.9:8080", "10.1.0.10:8080"]),
        LONG,
    )
    .await;
    assert!(cluster.trouble().is_empty(), "{:?}", cluster.trouble());
}
