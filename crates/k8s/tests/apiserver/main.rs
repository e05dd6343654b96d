//! The namers over a real kube-apiserver with etcd and the controllers that make EndpointSlices, started by
//! `tests/apiserver` at the root of the repository.
//!
//! Runs only with `RUTTER_REAL=1`: the programs must have been built by `tests/apiserver/build.sh`.

mod proxies;
mod real;
mod stories;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dtab::Path;
use http::Method;
use k8s::{ApiTarget, Cluster, NamerConfig, ServiceNamer, Timing, Tokens};
use naming::{Activity, Namer, Reads};
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::strategy::ValueTree;
use serde_json::json;
use tokio::time::timeout;

use crate::real::{BEHIND, LONG, Real, endpoints, ips, setting, until, wanted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_namers_follow_a_real_api_server() {
    if !wanted("the_namers_follow_a_real_api_server") {
        return;
    }
    let real = Real::start().await;
    let cluster = real.connect("kubeconfig", &[], Timing::default()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    step("scale", scale(&real, &namer)).await;
    step("rename", rename(&real, &namer)).await;
    step("namespace", recreated_namespace(&real, &namer)).await;
    step("permissions", permissions(&real)).await;
    step("tokens", tokens(&real)).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_of_many_random_changes_what_is_held_is_what_is_listed() {
    if !wanted("after_each_of_many_random_changes_what_is_held_is_what_is_listed") {
        return;
    }
    let steps = setting("RUTTER_RANDOM_STEPS", 300);
    let real = Real::start().await;
    let cluster = real.connect("kubeconfig", &[], Timing::default()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let watched = Watched::start(&namer);
    let mut world = World::new(&real).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut slowest = Duration::ZERO;
    let mut all = Vec::new();
    for step in 0..steps {
        let change = change(step).new_tree(&mut runner).unwrap().current();
        world.apply(&change, &watched).await;
        let begun = Instant::now();
        let listed = world.listed().await;
        for service in SERVICES {
            let mut want: Option<Vec<&str>> = listed
                .get(&service)
                .map(|all| all.iter().map(String::as_str).collect());
            // In the order of addresses, not of texts.
            let order = |addr: &&str| addr.parse::<std::net::SocketAddr>().unwrap();
            want.iter_mut().for_each(|all| all.sort_by_key(order));
            let path = format!("/{}/http/{}", service.0, service.1);
            until(&namer, &path, want.as_deref(), BEHIND).await;
        }
        all.push(begun.elapsed());
        slowest = slowest.max(begun.elapsed());
    }
    all.sort();
    let (median, p99) = (all[all.len() / 2], all[all.len() * 99 / 100]);
    let (requests, late) = watched.end();
    eprintln!(
        "{steps} random changes: held = listed after {median:?} (median), {p99:?} (p99), {slowest:?} (slowest); {requests} requests, {late} to an address removed more than 2 s before"
    );
    assert_eq!(late, 0);
    assert!(requests > steps, "requests were made all the time");
    let repairs = |status: &Arc<k8s::status::Status>| status.record().repairs;
    assert_eq!(cluster.watches().iter().map(repairs).sum::<u64>(), 0);
}

/// Namespace and name.
type Service = (&'static str, &'static str);
const SERVICES: [Service; 4] = [
    ("east", "web"),
    ("east", "api"),
    ("west", "web"),
    ("west", "api"),
];

/// What somebody does to the cluster.
#[derive(Clone, Debug)]
enum Change {
    /// A slice gets these endpoints; it is made when it is not there.
    Scale(usize, BTreeSet<u8>),
    /// A slice is deleted.
    Delete(usize),
    /// A slice is deleted and made again at once, with these endpoints.
    Recreate(usize, BTreeSet<u8>),
    /// A slice goes to the other service of its namespace.
    Rename(usize),
    /// All slices of a namespace go, with it; then it is made again.
    Namespace(usize),
}

fn change(step: u64) -> impl Strategy<Value = Change> {
    let ips = || proptest::collection::btree_set(1..20u8, 0..5);
    // Deleting a namespace takes the API server seconds.
    let namespace = u32::from(step % 100 == 99) * 1000;
    prop_oneof![
        6 => (0..8usize, ips()).prop_map(|(slice, ips)| Change::Scale(slice, ips)),
        2 => (0..8usize).prop_map(Change::Delete),
        2 => (0..8usize, ips()).prop_map(|(slice, ips)| Change::Recreate(slice, ips)),
        2 => (0..8usize).prop_map(Change::Rename),
        1 => (0..8usize).prop_map(|slice| Change::Scale(slice, BTreeSet::new())),
        namespace + 1 => match namespace {
            0 => Just(Change::Scale(0, BTreeSet::new())).boxed(),
            _ => (0..2usize).prop_map(Change::Namespace).boxed(),
        },
    ]
}

/// The slices as they were written: eight of them, the even ones in `east`.
struct World<'a> {
    real: &'a Real,
    slices: BTreeMap<usize, (&'static str, BTreeSet<u8>)>,
}

impl<'a> World<'a> {
    async fn new(real: &'a Real) -> Self {
        for namespace in ["east", "west"] {
            real.namespace(namespace).await;
        }
        Self {
            real,
            slices: BTreeMap::new(),
        }
    }

    fn namespace(slice: usize) -> &'static str {
        ["east", "west"][slice % 2]
    }

    async fn apply(&mut self, change: &Change, watched: &Watched) {
        let mut after = self.slices.clone();
        let service = |slice: &usize| after.get(slice).map_or("web", |(service, _)| *service);
        match change {
            Change::Scale(slice, ips) | Change::Recreate(slice, ips) => {
                let service = service(slice);
                after.insert(*slice, (service, ips.clone()));
            }
            Change::Delete(slice) => _ = after.remove(slice),
            Change::Rename(slice) => {
                let other = if service(slice) == "web" {
                    "api"
                } else {
                    "web"
                };
                let ips = after.remove(slice).map(|(_, ips)| ips);
                after.insert(*slice, (other, ips.unwrap_or_default()));
            }
            Change::Namespace(one) => after.retain(|slice, _| slice % 2 != *one),
        }
        watched.will_have(&addresses(&after));
        match change {
            Change::Namespace(one) => self.recreate(["east", "west"][*one]).await,
            Change::Recreate(slice, _) if self.slices.contains_key(slice) => {
                self.write(*slice, None).await;
                self.write(*slice, after.get(slice)).await;
            }
            Change::Delete(slice) if !self.slices.contains_key(slice) => {}
            Change::Scale(slice, _)
            | Change::Delete(slice)
            | Change::Recreate(slice, _)
            | Change::Rename(slice) => self.write(*slice, after.get(slice)).await,
        }
        watched.have_no_more(&addresses(&self.slices), &addresses(&after));
        self.slices = after;
    }

    async fn write(&self, slice: usize, to: Option<&(&'static str, BTreeSet<u8>)>) {
        let ips = to.map(|(_, ips)| {
            ips.iter()
                .map(|ip| format!("10.2.{slice}.{ip}"))
                .collect::<Vec<_>>()
        });
        let service = to.map_or("web", |(service, _)| *service);
        let name = format!("s{slice}");
        self.real
            .slice(Self::namespace(slice), &name, service, ips.as_deref())
            .await;
    }

    async fn recreate(&self, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}");
        self.real.delete(&path).await;
        self.real.gone(&path).await;
        self.real.namespace(namespace).await;
    }

    /// What the API server lists: the addresses of each service that has a slice.
    async fn listed(&self) -> HashMap<Service, BTreeSet<String>> {
        let path =
            "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=kubernetes.io/service-name";
        let list = self.real.call(Method::GET, path, None).await.unwrap();
        let mut found = HashMap::<Service, BTreeSet<String>>::new();
        for slice in list["items"].as_array().unwrap() {
            let meta = &slice["metadata"];
            let own = |service: &&Service| {
                meta["namespace"] == service.0
                    && meta["labels"]["kubernetes.io/service-name"] == service.1
            };
            let Some(service) = SERVICES.iter().find(own) else {
                continue;
            };
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let ips = endpoints
                .map(|endpoint| format!("{}:80", endpoint["addresses"][0].as_str().unwrap()));
            found.entry(*service).or_default().extend(ips);
        }
        found
    }
}

type Addresses = BTreeSet<(Service, String)>;

fn addresses(slices: &BTreeMap<usize, (&'static str, BTreeSet<u8>)>) -> Addresses {
    let mut all = Addresses::new();
    for (slice, (service, ips)) in slices {
        let own = SERVICES
            .into_iter()
            .find(|own| *own == (World::namespace(*slice), *service));
        all.extend(
            ips.iter()
                .map(|ip| (own.unwrap(), format!("10.2.{slice}.{ip}:80"))),
        );
    }
    all
}

/// Requests, all the time: what a router's worker would send to, looked at where it looks, and how long ago that was
/// taken away.
struct Watched {
    removed: Arc<Mutex<HashMap<(Service, String), Instant>>>,
    requests: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Watched {
    fn start(namer: &Arc<ServiceNamer>) -> Self {
        let watched = Self {
            removed: Arc::default(),
            requests: Arc::default(),
            late: Arc::default(),
            end: Arc::default(),
        };
        let (removed, requests) = (watched.removed.clone(), watched.requests.clone());
        let (late, end) = (watched.late.clone(), watched.end.clone());
        let names = stories::names(namer, "/svc => /#/io.l5d.k8s", Duration::from_secs(600));
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for service in SERVICES {
                    let path = Path::utf8(["svc", service.0, "http", service.1]);
                    let begun = Instant::now();
                    for address in stories::addresses(&names, &path) {
                        requests.fetch_add(1, Ordering::Relaxed);
                        let removed = removed.lock().unwrap();
                        let at = removed.get(&(service, address.clone()));
                        if at.is_some_and(|at| begun.duration_since(*at) > BEHIND) {
                            eprintln!(
                                "{service:?}: {address} was removed {:?} ago",
                                at.unwrap().elapsed()
                            );
                            late.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        watched
    }

    fn will_have(&self, after: &Addresses) {
        self.removed
            .lock()
            .unwrap()
            .retain(|address, _| !after.contains(address));
    }

    fn have_no_more(&self, before: &Addresses, after: &Addresses) {
        let gone = before.difference(after).cloned();
        let mut removed = self.removed.lock().unwrap();
        removed.extend(gone.map(|address| (address, Instant::now())));
    }

    /// How many requests there were, and how many of them too late.
    fn end(self) -> (u64, u64) {
        self.end.store(true, Ordering::Relaxed);
        (
            self.requests.load(Ordering::Relaxed),
            self.late.load(Ordering::Relaxed),
        )
    }
}

async fn step(name: &str, work: impl Future<Output = ()>) {
    let begun = Instant::now();
    work.await;
    eprintln!("{name}: {:?}", begun.elapsed());
}

async fn scale(real: &Real, namer: &ServiceNamer) {
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

/// A service account's token is its own for those whom it is meant for, and nobody's for all others.
async fn tokens(real: &Real) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    real.post(accounts, json!({"metadata": {"name": "robot"}}))
        .await;
    let wanted = json!({"spec": {"audiences": ["rutter"]}});
    let path = format!("{accounts}/robot/token");
    let given = real.call(Method::POST, &path, Some(wanted)).await.unwrap();
    let token = given["status"]["token"].as_str().unwrap();
    let asked = |kubeconfig: &str, audiences: &[&str]| {
        let target = ApiTarget::Kubeconfig(real.dir.path().join(kubeconfig));
        let audiences = audiences.iter().map(ToString::to_string).collect();
        Tokens::new(target, audiences, LONG)
    };
    let robot = asked("kubeconfig", &["others", "rutter"]).user(token).await;
    let robot = robot.unwrap().expect("it is the robot's");
    assert_eq!(robot.name, "system:serviceaccount:default:robot");
    assert!(
        robot
            .groups
            .contains(&"system:serviceaccounts:default".to_owned()),
        "{robot:?}"
    );
    for (audiences, token) in [
        (&["others"][..], token),
        (&[], token),
        (&["rutter"], "made.up.token"),
    ] {
        let user = asked("kubeconfig", audiences).user(token).await;
        assert_eq!(user, Ok(None), "{audiences:?}");
    }
    let refused = asked("kubeconfig-rutter", &["rutter"]).user(token).await;
    assert!(refused.unwrap_err().contains("tokenreviews"));
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
        namer.lookup(&Path::read("/default/http/web").unwrap(), &mut Reads::new()),
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
    real.down().await;
    let noticed = timeout(LONG, async {
        while cluster.trouble().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    noticed.await.unwrap();
    assert!(!reads.stale(), "the outage changed nothing");
    assert!(ips(namer, "/shop/http/store", &mut Reads::new()).is_some());
    real.up().await;
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
