//! A real kube-apiserver with etcd and the controllers that make EndpointSlices, and what tests do with it.

use std::path::{Path as File, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dtab::{NameTree, Path};
use http::Method;
use k8s::{ApiTarget, Cluster, ClusterConfig, ServiceNamer, Timing};
use naming::{Activity, Endpoint, Name, Namer, Reads, Target};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// How long the API server and its controllers may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How far behind what is held may be.
pub(crate) const BEHIND: Duration = Duration::from_secs(2);

/// Whether the tests are to run: they need programs that `tests/apiserver/build.sh` makes.
pub(crate) fn wanted(test: &str) -> bool {
    let wanted = std::env::var("RUTTER_REAL").as_deref() == Ok("1");
    if !wanted {
        eprintln!("skipped: {test} needs RUTTER_REAL=1 and tests/apiserver/build.sh");
    }
    wanted
}

/// Whether this process runs `test` and nothing else, as what measures memory needs: what tests before it left behind
/// decides how much an allocator takes anew. If not, such a process is run, and what it found is found here.
pub(crate) async fn alone<T>(_test: T) -> bool {
    const ALONE: &str = "RUTTER_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let _turn = turn(AT_ONCE).await;
    let (_, test) = std::any::type_name::<T>().split_once("::").unwrap();
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{test} alone ended with {}: {said}",
        run.status
    );
    false
}

/// A number from the environment, for what is short by default and long by hand.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

pub(crate) struct Real {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) admin: kube::Client,
    _turn: SemaphorePermit<'static>,
}

/// So many API servers at a time: they are heavy to start, and most tests wait most of their time.
const AT_ONCE: u32 = 4;

async fn turn(share: u32) -> SemaphorePermit<'static> {
    static TURN: Semaphore = Semaphore::const_new(AT_ONCE as usize);
    TURN.acquire_many(share).await.expect("it is never closed")
}

impl Drop for Real {
    fn drop(&mut self) {
        script("down.sh", self.dir.path(), None);
    }
}

pub(crate) fn script(name: &str, dir: &File, argument: Option<&str>) {
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
    /// One that has the machine for itself, for tests that measure it or do much at once.
    pub(crate) async fn start() -> Self {
        Self::when(AT_ONCE).await
    }

    /// One beside those of other tests.
    pub(crate) async fn beside() -> Self {
        Self::when(1).await
    }

    async fn when(share: u32) -> Self {
        let turn = turn(share).await;
        let dir = tempfile::tempdir().unwrap();
        script("up.sh", dir.path(), None);
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::config::Kubeconfig::read_from(dir.path().join("kubeconfig")).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let admin = kube::Client::try_from(config.unwrap()).unwrap();
        let real = Self {
            dir,
            admin,
            _turn: turn,
        };
        // The controller leaves out pods on a node that doesn't exist.
        real.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}}))
            .await;
        real
    }

    pub(crate) async fn call(
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

    pub(crate) async fn post(&self, path: &str, body: Value) {
        self.call(Method::POST, path, Some(body)).await.unwrap();
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.call(Method::DELETE, path, Some(json!({"gracePeriodSeconds": 0})))
            .await
            .unwrap();
    }

    pub(crate) async fn namespace(&self, name: &str) {
        self.post("/api/v1/namespaces", json!({"metadata": {"name": name}}))
            .await;
    }

    /// A Service over pods with the label `app` of its name.
    pub(crate) async fn service(&self, namespace: &str, name: &str, app: &str) {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
        let service =
            json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": ports}});
        self.post(&format!("/api/v1/namespaces/{namespace}/services"), service)
            .await;
    }

    /// A pod that is ready, as a kubelet would report it.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, app: &str, ip: &str) {
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

    pub(crate) async fn pod_status(&self, namespace: &str, name: &str, ip: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                                       "conditions": [{"type": "Ready", "status": ready}]}});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
        self.call(Method::PATCH, &path, Some(status)).await.unwrap();
    }

    /// The API server's port.
    pub(crate) fn port(&self) -> u16 {
        let text = std::fs::read_to_string(self.dir.path().join("apiserver.port")).unwrap();
        text.trim().parse().unwrap()
    }

    /// A kubeconfig that leads to the API server over another port.
    pub(crate) fn kubeconfig_over(&self, port: u16) -> ApiTarget {
        let text = std::fs::read_to_string(self.dir.path().join("kubeconfig")).unwrap();
        let text = text.replace(&format!(":{}", self.port()), &format!(":{port}"));
        let file = self.dir.path().join(format!("kubeconfig-{port}"));
        std::fs::write(&file, text).unwrap();
        ApiTarget::Kubeconfig(file)
    }

    /// Waits until nothing is at `path` any more.
    pub(crate) async fn gone(&self, path: &str) {
        let gone = timeout(LONG, async {
            while self.call(Method::GET, path, None).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        gone.await.unwrap();
    }

    /// Waits until the controllers have put an address into a slice.
    pub(crate) async fn has_slice_with(&self, namespace: &str, ip: &str) {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let there = timeout(LONG, async {
            loop {
                let list = self.call(Method::GET, &path, None).await.unwrap();
                if list["items"].to_string().contains(&format!("\"{ip}\"")) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        there.await.unwrap();
    }

    /// Makes etcd forget all versions but the newest.
    pub(crate) async fn compact(&self) {
        let text = std::fs::read_to_string(self.dir.path().join("etcd.port")).unwrap();
        let url = format!("http://127.0.0.1:{}/v3/kv", text.trim());
        let ask = |path: &str, body: String| {
            let output = Command::new("curl")
                .args(["-fsS", "-d", &body, &format!("{url}/{path}")])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let range = ask("range", json!({"key": "Lw=="}).to_string());
        let revision = range["header"]["revision"].as_str().unwrap();
        ask(
            "compaction",
            json!({"revision": revision, "physical": true}).to_string(),
        );
    }

    /// Takes the API server away.
    pub(crate) async fn down(&self) {
        let dir = self.dir.path().to_owned();
        let script = move || script("down.sh", &dir, Some("apiserver"));
        tokio::task::spawn_blocking(script).await.unwrap();
    }

    /// Brings it back; returns when it answers.
    pub(crate) async fn up(&self) {
        let dir = self.dir.path().to_owned();
        let script = move || script("up.sh", &dir, Some("apiserver"));
        tokio::task::spawn_blocking(script).await.unwrap();
    }

    /// Writes a slice of `service` by hand, endpoints on port 80 called `http`; none: deletes it.
    pub(crate) async fn slice(
        &self,
        namespace: &str,
        name: &str,
        service: &str,
        ips: Option<&[String]>,
    ) {
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let path = format!("{slices}/{name}");
        let Some(ips) = ips else {
            self.delete(&path).await;
            return;
        };
        let endpoint = |ip: &String| json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "n1"});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "endpoints": ips.iter().map(endpoint).collect::<Vec<_>>(), "ports": [{"name": "http", "port": 80}],
        });
        if self
            .call(Method::PUT, &path, Some(slice.clone()))
            .await
            .is_err()
        {
            self.post(&slices, slice).await;
        }
    }

    pub(crate) async fn connect(
        &self,
        kubeconfig: &str,
        namespaces: &[&str],
        timing: Timing,
    ) -> Cluster {
        let target = ApiTarget::Kubeconfig(self.dir.path().join(kubeconfig));
        self.connect_to(target, namespaces, timing, None).await
    }

    pub(crate) async fn connect_to(
        &self,
        target: ApiTarget,
        namespaces: &[&str],
        timing: Timing,
        state_dir: Option<PathBuf>,
    ) -> Cluster {
        let namespaces = namespaces.iter().map(ToString::to_string).collect();
        Cluster::connect(
            ClusterConfig {
                target,
                namespaces,
                state_dir,
                timing,
            },
            &Handle::current(),
        )
        .await
        .unwrap()
    }
}

/// The endpoints behind a path; none when it leads nowhere or is not known yet.
pub(crate) fn endpoints(
    namer: &ServiceNamer,
    path: &str,
    reads: &mut Reads,
) -> Option<Vec<Endpoint>> {
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

pub(crate) fn ips(namer: &ServiceNamer, path: &str, reads: &mut Reads) -> Option<Vec<String>> {
    let found = endpoints(namer, path, reads);
    found.map(|found| {
        found
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect()
    })
}

pub(crate) async fn until(
    namer: &ServiceNamer,
    path: &str,
    want: Option<&[&str]>,
    limit: Duration,
) {
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
