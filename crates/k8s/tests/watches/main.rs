//! The namers over an API server that does wrong: real sockets, real HTTP.

mod configmap;
mod fake;

use std::net::SocketAddr;
use std::path::Path as File;
use std::sync::Arc;
use std::time::Duration;

use dtab::{NameTree, Path};
use fake::{Fake, Fault, SLICES};
use k8s::{ApiTarget, Cluster, ClusterConfig, NamerConfig, ServiceNamer, Timing};
use naming::{Activity, Name, Namer, Reads, Target};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        patience: ms(400),
        stream: ms(2_000),
        retry_first: ms(5),
        retry_most: ms(40),
        retry_forbidden: ms(30),
        relist: ms(100),
        watch: ms(60_000),
        silence: ms(60_000),
        audit: ms(60_000),
        settle: ms(20),
        save: ms(20),
        save_anyway: ms(60_000),
    }
}

async fn cluster(fake: &Fake, timing: Timing) -> Cluster {
    cluster_at(fake.addr, timing, None).await
}

async fn cluster_at(addr: SocketAddr, timing: Timing, state_dir: Option<&File>) -> Cluster {
    let target = ApiTarget::Plain {
        host: addr.ip().to_string(),
        port: addr.port(),
    };
    let namespaces = ["own".to_owned()].into();
    Cluster::connect(
        ClusterConfig {
            target,
            namespaces,
            state_dir: state_dir.map(ToOwned::to_owned),
            timing,
        },
        &Handle::current(),
    )
    .await
    .unwrap()
}

async fn namer(fake: &Fake, timing: Timing) -> Arc<ServiceNamer> {
    cluster(fake, timing).await.namer(NamerConfig::everywhere())
}

/// What a path leads to, in words: `pending: …`, `neg`, or the endpoints.
fn look(namer: &ServiceNamer, path: &str, reads: &mut Reads) -> String {
    match namer.lookup(&Path::read(path).unwrap(), reads) {
        Activity::Pending(waiting_for) => format!("pending: {waiting_for}"),
        Activity::Failed(error) => format!("failed: {error}"),
        Activity::Ok(NameTree::Neg) => "neg".to_owned(),
        Activity::Ok(NameTree::Leaf(Name::Bound(bound))) => {
            let Target::Endpoints(addrs) = bound.target else {
                panic!("no endpoints")
            };
            let addr = addrs.addr(reads);
            let addrs: Vec<_> = addr
                .endpoints()
                .iter()
                .map(|endpoint| endpoint.addr.ip().to_string())
                .collect();
            addrs.join(" ")
        }
        Activity::Ok(other) => panic!("{other:?}"),
    }
}

/// Waits until the path leads there; all that was seen on the way.
async fn until(namer: &ServiceNamer, path: &str, want: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let found = timeout(LONG, async {
        loop {
            let mut reads = Reads::new();
            let got = look(namer, path, &mut reads);
            if seen.last() != Some(&got) {
                seen.push(got.clone());
            }
            if got == want {
                return;
            }
            reads.changed().await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("{path} never led to `{want}`, but to {seen:?}"));
    seen
}

/// Waits until slices and services were listed: names that are looked up now change only with what is listed.
async fn both_listed(fake: &Fake) {
    for kind in ["endpointslices?&watch", "services?&watch"] {
        timeout(LONG, fake.called(kind, 1)).await.unwrap();
    }
}

const WEB: &str = "/a/http/web";

#[tokio::test]
async fn endpoints_follow_every_change() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    fake.slice("a", "s2", &["10.0.0.2", "10.0.0.1"]);
    until(&namer, WEB, "10.0.0.1 10.0.0.2").await;
    fake.delete("a", "s1");
    fake.slice("a", "s2", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.2").await;
    fake.slice("a", "s2", &[]);
    until(&namer, WEB, "").await;
    fake.delete("a", "s2");
    until(&namer, WEB, "neg").await;
    fake.slice("a", "s3", &["10.0.0.3"]);
    until(&namer, WEB, "10.0.0.3").await;
    assert_eq!(
        look(&namer, "/A/HTTP/WEB/rest", &mut Reads::new()),
        "10.0.0.3"
    );
    assert_eq!(
        fake.calls("watch=true"),
        2,
        "one watch of slices, one of services"
    );
}

#[tokio::test]
async fn a_cut_watch_goes_on_from_the_last_version() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    fake.slice("a", "s1", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.2").await;
    let watch = "endpointslices?&watch=true";
    let watches = fake.calls(watch);
    fake.cut();
    timeout(LONG, fake.called(watch, watches + 1))
        .await
        .unwrap();
    assert!(
        fake.last_call(watch)
            .unwrap()
            .contains("resourceVersion=102")
    );
    fake.slice("a", "s1", &["10.0.0.3"]);
    assert_eq!(
        until(&namer, WEB, "10.0.0.3").await.last().unwrap(),
        "10.0.0.3"
    );
    assert_eq!(
        fake.calls(&format!("{SLICES}?&labelSelector")),
        1,
        "no second list"
    );
}

#[tokio::test]
async fn with_410_on_every_watch_lists_are_rare_and_endpoints_stay() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.fault("watch=true", Fault::Status(410));
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    let lists = || fake.calls(&format!("{SLICES}?&labelSelector"));
    let (before, begun) = (lists(), std::time::Instant::now());
    both_listed(&fake).await;
    let mut reads = Reads::new();
    look(&namer, WEB, &mut reads);
    timeout(
        LONG,
        fake.called(&format!("{SLICES}?&labelSelector"), before + 4),
    )
    .await
    .unwrap();
    assert!(
        begun.elapsed() >= timing().relist * 3,
        "{:?} for four lists",
        begun.elapsed()
    );
    assert!(!reads.stale(), "nothing changed meanwhile");
    fake.slice("a", "s1", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.2").await;
}

#[tokio::test]
async fn an_expired_event_lists_again_and_keeps_the_endpoints() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    timeout(LONG, fake.called(&format!("{SLICES}?&watch"), 1))
        .await
        .unwrap();
    fake.secretly("a", "s1", Some(&["10.0.0.2"]));
    fake.fault("endpointslices?&watch", Fault::Says(gone()));
    fake.cut();
    assert_eq!(
        until(&namer, WEB, "10.0.0.2").await.len(),
        2,
        "from the old to the new and nothing between"
    );
}

fn gone() -> String {
    format!(
        "{}\n",
        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
    )
}

#[tokio::test]
async fn garbage_in_a_watch_changes_nothing() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    both_listed(&fake).await;
    let mut reads = Reads::new();
    look(&namer, WEB, &mut reads);
    for garbage in [
        "<html>\n",
        "{\"type\": \"ADDED\", \"object\"",
        "\n\n",
        "{\"type\":\"ADDED\",\"object\":{}}\n",
    ] {
        let calls = fake.calls("endpointslices?&watch");
        fake.fault("endpointslices?&watch", Fault::Says(garbage.to_owned()));
        fake.cut();
        timeout(LONG, fake.called("endpointslices?&watch", calls + 3))
            .await
            .unwrap();
        fake.heal();
    }
    assert!(!reads.stale());
    fake.slice("a", "s1", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.2").await;
}

#[tokio::test]
async fn duplicated_and_late_events_end_in_the_true_state() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    let event = |kind: &str, name: &str, version: u64, ips: &[&str]| {
        let mut object = fake::slice("a", name, ips);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        json!({"type": kind, "object": object})
    };
    fake.say(event("ADDED", "s2", 205, &["10.0.0.5"]));
    fake.say(event("ADDED", "s2", 205, &["10.0.0.5"]));
    fake.say(event("MODIFIED", "s2", 203, &["10.0.0.3"]));
    fake.say(event("DELETED", "s1", 207, &[]));
    fake.say(event("MODIFIED", "s1", 206, &["10.0.0.6"]));
    fake.say(event("MODIFIED", "s2", 209, &["10.0.0.9"]));
    let seen = until(&namer, WEB, "10.0.0.9").await;
    assert!(
        seen.iter()
            .all(|step| !step.contains("10.0.0.3") && !step.contains("10.0.0.6")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn errors_at_first_are_pending_and_say_why() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.fault("", Fault::Status(500));
    let namer = namer(&fake, timing()).await;
    timeout(LONG, fake.called(SLICES, 3)).await.unwrap();
    assert_eq!(
        look(&namer, WEB, &mut Reads::new()),
        "pending: the first list of endpointslices in all namespaces (the API server answers 500: on demand)"
    );
    fake.heal();
    until(&namer, WEB, "10.0.0.1").await;
}

#[tokio::test]
async fn errors_afterwards_leave_everything_as_it_was() {
    for fault in [
        Fault::Status(500),
        Fault::Status(403),
        Fault::Status(404),
        Fault::Hang,
        Fault::HeadOnly,
    ] {
        let fake = Fake::start().await;
        fake.slice("a", "s1", &["10.0.0.1"]);
        let namer = namer(&fake, timing()).await;
        until(&namer, WEB, "10.0.0.1").await;
        both_listed(&fake).await;
        let mut reads = Reads::new();
        look(&namer, WEB, &mut reads);
        let calls = fake.calls(SLICES);
        fake.fault("", fault.clone());
        fake.cut();
        let few = if matches!(fault, Fault::HeadOnly) {
            1
        } else {
            2
        };
        timeout(LONG, fake.called(SLICES, calls + few))
            .await
            .unwrap();
        assert!(!reads.stale(), "{fault:?}");
        if !matches!(fault, Fault::HeadOnly) {
            fake.heal();
            fake.slice("a", "s1", &["10.0.0.2"]);
            until(&namer, WEB, "10.0.0.2").await;
        }
    }
}

#[tokio::test]
async fn an_api_server_that_went_away_and_came_back_is_believed_again() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1").await;
    let addr = fake.addr;
    drop(fake);
    timeout(LONG, async {
        while cluster.trouble().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(look(&namer, WEB, &mut Reads::new()), "10.0.0.1");
    let fake = Fake::on(addr).await;
    // It begins with other versions, as after a restored backup.
    fake.fault("resourceVersion=101", Fault::Status(410));
    fake.slice("a", "s9", &["10.0.0.9"]);
    until(&namer, WEB, "10.0.0.9").await;
    timeout(LONG, fake.called("endpointslices?&watch", 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_silent_watch_is_opened_anew() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.fault("watch=true", Fault::HeadOnly);
    let cluster = cluster(
        &fake,
        Timing {
            silence: Duration::from_millis(100),
            ..timing()
        },
    )
    .await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1").await;
    fake.slice("a", "s1", &["10.0.0.2"]);
    timeout(LONG, fake.called("endpointslices?&watch", 2))
        .await
        .unwrap();
    fake.heal();
    until(&namer, WEB, "10.0.0.2").await;
    assert!(
        cluster
            .watches()
            .iter()
            .any(|status| status.record().silences > 0)
    );
}

#[tokio::test]
async fn a_watch_that_lies_is_found_out_by_the_audit() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.slice("a", "s2", &["10.0.0.2"]);
    let cluster = cluster(
        &fake,
        Timing {
            audit: Duration::from_millis(200),
            ..timing()
        },
    )
    .await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1 10.0.0.2").await;
    fake.secretly("a", "s1", None);
    fake.secretly("a", "s2", Some(&["10.0.0.3"]));
    until(&namer, WEB, "10.0.0.3").await;
    let repairs = || {
        cluster
            .watches()
            .iter()
            .map(|status| status.record().repairs)
            .sum::<u64>()
    };
    assert!(repairs() >= 2, "{}", repairs());
}

#[tokio::test]
async fn without_the_permission_for_all_each_known_namespace_is_watched() {
    let fake = Fake::start().await;
    fake.slice("own", "s1", &["10.0.0.1"]);
    fake.slice("a", "s1", &["10.0.0.2"]);
    fake.fault("/v1/endpointslices", Fault::Status(403));
    fake.fault("/v1/services", Fault::Status(403));
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, "/own/http/web", "10.0.0.1").await;
    let waiting = look(&namer, WEB, &mut Reads::new());
    assert!(
        waiting.contains("403") && waiting.contains("namespace `a` is not among"),
        "{waiting}"
    );
    assert_eq!(fake.calls("/namespaces/a/"), 0);
    cluster.expect(["a"]);
    until(&namer, WEB, "10.0.0.2").await;
    // With the permission there is one watch again.
    fake.heal();
    fake.slice("third", "s1", &["10.0.0.3"]);
    until(&namer, "/third/http/web", "10.0.0.3").await;
    fake.slice("a", "s1", &["10.0.0.4"]);
    until(&namer, WEB, "10.0.0.4").await;
}

#[tokio::test]
async fn without_endpoint_slices_endpoints_are_watched() {
    let fake = Fake::start().await;
    fake.fault("discovery.k8s.io", Fault::Status(404));
    let endpoints = |ip: &str| {
        json!({"metadata": {"name": "web", "namespace": "a"},
               "subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 80}]}]})
    };
    fake.put("endpoints", "a", "web", &endpoints("10.0.0.1"));
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    fake.put("endpoints", "a", "web", &endpoints("10.0.0.2"));
    until(&namer, WEB, "10.0.0.2").await;
}

#[tokio::test]
async fn a_number_goes_through_the_service_and_its_changes() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let service = |number: u16| {
        json!({"metadata": {"name": "web", "namespace": "a"},
               "spec": {"ports": [{"name": "http", "port": number, "targetPort": 80}]},
               "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    };
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, "/a/8080/web", "neg").await;
    fake.put("services", "a", "web", &service(8080));
    until(&namer, "/a/8080/web", "10.0.0.1").await;
    until(
        &cluster.namer(NamerConfig::external()),
        "/a/http/web",
        "192.0.2.1",
    )
    .await;
    until(
        &cluster.namer(NamerConfig::namespace("a")),
        "/8080/web",
        "10.0.0.1",
    )
    .await;
    fake.put("services", "a", "web", &service(9090));
    until(&namer, "/a/8080/web", "neg").await;
    until(&namer, "/a/9090/web", "10.0.0.1").await;
}

#[tokio::test]
async fn a_label_is_one_more_segment() {
    let fake = Fake::start().await;
    let mut object = fake::slice("a", "s1", &["10.0.0.1"]);
    object["metadata"]["labels"]["version"] = json!("v1");
    fake.put("endpointslices", "a", "s1", &object);
    fake.slice("a", "s2", &["10.0.0.2"]);
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere().selecting("version"));
    until(&namer, "/a/http/web/v1/rest", "10.0.0.1").await;
    for path in ["/a/http/web/v2", "/a/http/web"] {
        assert_eq!(look(&namer, path, &mut Reads::new()), "neg", "{path}");
    }
    assert_eq!(
        namer.why_not(&Path::read("/a/http/web").unwrap()).unwrap(),
        "the path has too few segments"
    );
}

#[tokio::test]
async fn unknown_names_cost_no_call() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    timeout(LONG, fake.called("watch=true", 2)).await.unwrap();
    let calls = fake.calls("");
    for i in 0..10_000 {
        assert_eq!(
            look(&namer, &format!("/a/http/no-{i}"), &mut Reads::new()),
            "neg"
        );
        assert_eq!(
            look(&namer, &format!("/no-{i}/http/web"), &mut Reads::new()),
            "neg"
        );
    }
    assert_eq!(fake.calls(""), calls);
    let why = |path: &str| namer.why_not(&Path::read(path).unwrap()).unwrap();
    assert_eq!(why("/a/http/nope"), "no Service `nope` in namespace `a`");
    assert_eq!(
        why("/a/nope/web"),
        "no port `nope` of Service `web` in namespace `a`, which has `http`"
    );
}

#[tokio::test]
async fn the_review_names_the_missing_permission() {
    let fake = Fake::start().await;
    let cluster = cluster(&fake, timing()).await;
    let review = cluster.review().await;
    assert!(
        review.missing.is_empty() && review.error.is_none(),
        "{review:?}"
    );
    fake.fault(
        "selfsubjectaccessreviews",
        Fault::Says("{\"status\": {\"allowed\": false}}".to_owned()),
    );
    let review = cluster.review().await;
    assert!(review.error.is_some(), "half an answer is none: {review:?}");
}

#[tokio::test]
async fn the_state_page_shows_names_in_use_and_every_watch() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1").await;
    let held = namer.lookup(&Path::read(WEB).unwrap(), &mut Reads::new());
    let state = namer.state();
    assert_eq!(
        state["endpoints"]["a/web"]["http"]["state"]["value"]["addrs"][0]["ip"],
        "10.0.0.1"
    );
    let mut resources: Vec<_> = state["watches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|watch| watch["resource"].as_str())
        .collect();
    resources.sort();
    assert_eq!(resources, [Some("endpointslices"), Some("services")]);
    drop(held);
    assert!(namer.state()["endpoints"].as_object().unwrap().is_empty());
    assert!(cluster.ready());
}

const STREAMED: &str = "sendInitialEvents=true";

#[tokio::test]
async fn a_list_and_its_watch_are_one_request_where_the_api_server_can_do_it() {
    let fake = Fake::start().await;
    fake.streams();
    for i in 0..50 {
        fake.slice("a", &format!("s{i}"), &[&format!("10.0.0.{i}")]);
    }
    let namer = namer(&fake, timing()).await;
    let all: std::collections::BTreeSet<std::net::Ipv4Addr> =
        (0..50).map(|i| [10, 0, 0, i].into()).collect();
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    until(&namer, WEB, &all.join(" ")).await;
    fake.slice("a", "more", &["10.0.0.99"]);
    until(&namer, WEB, &format!("{} 10.0.0.99", all.join(" "))).await;
    timeout(LONG, fake.called(STREAMED, 2)).await.unwrap();
    assert_eq!(fake.calls("/version"), 1);
    assert_eq!(fake.calls(""), 3, "the version, slices, services");
    // A watch that ends goes on as before, without another list.
    fake.cut();
    timeout(LONG, fake.called("watch=true", 4)).await.unwrap();
    assert_eq!(fake.calls(STREAMED), 2);
}

#[tokio::test]
async fn a_streamed_list_that_breaks_off_removes_nothing() {
    let fake = Fake::start().await;
    fake.streams();
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.slice("a", "s2", &["10.0.0.2"]);
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1 10.0.0.2").await;
    both_listed(&fake).await;
    let mut reads = Reads::new();
    look(&namer, WEB, &mut reads);
    let half = format!(
        "{}\n",
        json!({"type": "ADDED", "object": fake::slice("a", "s1", &["10.0.0.1"])})
    );
    let calls = fake.calls(STREAMED);
    fake.fault(STREAMED, Fault::Says(half));
    fake.fault("resourceVersion=", Fault::Status(410));
    fake.fault("limit=", Fault::Status(500));
    fake.cut();
    timeout(LONG, fake.called(STREAMED, calls + 4))
        .await
        .unwrap();
    assert!(!reads.stale());
    fake.heal();
    fake.slice("a", "s1", &["10.0.0.3"]);
    until(&namer, WEB, "10.0.0.2 10.0.0.3").await;
}

#[tokio::test]
async fn what_holds_back_a_streamed_list_does_not_hold_back_the_list() {
    for fault in [
        Fault::Status(422),
        Fault::Status(400),
        Fault::Status(410),
        Fault::Status(503),
        Fault::HeadOnly,
        Fault::Says(String::new()),
    ] {
        let fake = Fake::start().await;
        fake.streams();
        fake.slice("a", "s1", &["10.0.0.1"]);
        fake.fault(STREAMED, fault.clone());
        let namer = namer(&fake, timing()).await;
        until(&namer, WEB, "10.0.0.1").await;
        timeout(LONG, fake.called("&watch=true", 1)).await.unwrap();
        if matches!(fault, Fault::Status(400 | 422)) {
            assert!(fake.calls(STREAMED) <= 2, "asked once for each kind");
        }
        fake.slice("a", "s1", &["10.0.0.2"]);
        until(&namer, WEB, "10.0.0.2").await;
    }
}

/// A hundred routers that come back with the API server would each ask once more.
#[tokio::test]
async fn a_streamed_list_that_failed_in_passing_is_asked_for_again() {
    let fake = Fake::start().await;
    fake.streams();
    fake.slice("a", "s1", &["10.0.0.1"]);
    let slices = "endpointslices";
    fake.fault_once(slices, Fault::Status(502));
    let namer = namer(&fake, timing()).await;
    until(&namer, WEB, "10.0.0.1").await;
    both_listed(&fake).await;
    assert_eq!(fake.calls("limit="), 0, "no list by itself");
    assert_eq!(fake.calls(STREAMED), 3, "slices twice, services once");
}

/// A proxy answers for an API server that is away: whether it streams is not known by that.
#[tokio::test]
async fn while_nobody_says_whether_lists_are_streamed_none_is_asked_for() {
    let fake = Fake::start().await;
    fake.streams();
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.fault("/version", Fault::Status(502));
    let namer = namer(&fake, timing()).await;
    timeout(LONG, fake.called("/version", 4)).await.unwrap();
    assert_eq!(fake.calls("limit="), 0, "no list by itself");
    fake.heal();
    until(&namer, WEB, "10.0.0.1").await;
    both_listed(&fake).await;
    assert_eq!(fake.calls("limit="), 0, "no list by itself");
    assert_eq!(fake.calls(STREAMED), 2, "slices, services");
}

#[tokio::test]
async fn a_list_that_is_empty_by_mistake_removes_nothing() {
    for streams in [false, true] {
        let fake = Fake::start().await;
        if streams {
            fake.streams();
        }
        fake.slice("a", "s1", &["10.0.0.1"]);
        fake.slice("b", "s1", &["10.0.0.2"]);
        let slow = Timing {
            relist: Duration::from_secs(2),
            ..timing()
        };
        let cluster = cluster(&fake, slow).await;
        let namer = cluster.namer(NamerConfig::everywhere());
        until(&namer, WEB, "10.0.0.1").await;
        // The next list is empty; the one after it is right again.
        let empty = json!({"metadata": {"resourceVersion": "400"}, "items": []}).to_string();
        let end = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "400",
                        "annotations": {"k8s.io/initial-events-end": "true"}}}});
        fake.fault(STREAMED, Fault::Says(format!("{end}\n")));
        fake.fault("limit=", Fault::Answers(empty));
        fake.fault("resourceVersion=10", Fault::Status(410));
        fake.cut();
        let doubts = || {
            let all = cluster.watches();
            all.iter().map(|status| status.record().doubts).sum::<u64>()
        };
        let doubted = timeout(LONG, async {
            while doubts() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        doubted.await.unwrap();
        fake.heal();
        let mut reads = Reads::new();
        assert_eq!(look(&namer, WEB, &mut reads), "10.0.0.1");
        let lists = |status: &Arc<k8s::status::Status>| status.record().lists;
        let before: u64 = cluster.watches().iter().map(lists).sum();
        let listed = timeout(LONG, async {
            while cluster.watches().iter().map(lists).sum::<u64>() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        listed.await.unwrap();
        assert_eq!(look(&namer, WEB, &mut Reads::new()), "10.0.0.1");
        assert!(!reads.stale(), "nothing changed at any time");
    }
}

#[tokio::test]
async fn what_a_second_list_lacks_too_is_gone() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1").await;
    fake.wipe_secretly();
    fake.secretly("a", "s2", Some(&["10.0.0.2"]));
    fake.fault("resourceVersion=101", Fault::Status(410));
    fake.cut();
    // The new one at once, the old one a list later.
    let seen = until(&namer, WEB, "10.0.0.2").await;
    assert_eq!(seen, ["10.0.0.1", "10.0.0.1 10.0.0.2", "10.0.0.2"]);
}

/// A directory with the snapshot of one slice, and where its API server was.
async fn snapshot() -> (tempfile::TempDir, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.put(
        "services",
        "a",
        "web",
        &json!({"metadata": {"name": "web", "namespace": "a"},
             "spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 80}]}}),
    );
    let cluster = cluster_at(fake.addr, timing(), Some(dir.path())).await;
    until(
        &cluster.namer(NamerConfig::everywhere()),
        "/a/8080/web",
        "10.0.0.1",
    )
    .await;
    let saved = timeout(LONG, async {
        loop {
            let written = cluster.state()["snapshot"]["writes"].as_u64() > Some(0);
            let text = written.then(|| std::fs::read_to_string(snapshot_file(dir.path())));
            if text.is_some_and(|text| text.unwrap().contains(r#""services":[{"#)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    saved.await.unwrap();
    (dir, fake.addr)
}

fn snapshot_file(dir: &File) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    files
        .find(|file| file.extension().is_some_and(|kind| kind == "snapshot"))
        .unwrap()
}

#[tokio::test]
async fn without_the_api_server_the_snapshot_serves_at_once() {
    let (dir, addr) = snapshot().await;
    let cluster = cluster_at(addr, timing(), Some(dir.path())).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    assert_eq!(look(&namer, WEB, &mut Reads::new()), "10.0.0.1");
    assert_eq!(look(&namer, "/a/8080/web", &mut Reads::new()), "10.0.0.1");
    assert_eq!(look(&namer, "/a/http/other", &mut Reads::new()), "neg");
    assert!(cluster.ready() && cluster.restored() && !cluster.confirmed());
    assert_eq!(cluster.state()["source"], "snapshot");
    // The first list that another one needs not confirm takes its place.
    let fake = Fake::on(addr).await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    fake.slice("a", "s2", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.1 10.0.0.2").await;
    assert_eq!(cluster.state()["source"], "live");
}

#[tokio::test]
async fn what_a_snapshot_has_too_much_goes_when_lists_agree() {
    let (dir, addr) = snapshot().await;
    let fake = Fake::on(addr).await;
    fake.slice("a", "new", &["10.0.0.7"]);
    let cluster = cluster_at(addr, timing(), Some(dir.path())).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let seen = until(&namer, WEB, "10.0.0.7").await;
    assert_eq!(seen[0], "10.0.0.1", "{seen:?}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_ignored_with_its_code() {
    let (dir, addr) = snapshot().await;
    let file = snapshot_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 4;
    let text = String::from_utf8(whole.clone()).unwrap();
    let older = text.replacen("snapshot 1 ", "snapshot 0 ", 1);
    for (damage, bytes) in [
        ("cut off", &whole[..whole.len() - 3]),
        ("a bit flipped", &flipped[..]),
        ("an older format", older.as_bytes()),
        ("empty", &[][..]),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let cluster = cluster_at(addr, timing(), Some(dir.path())).await;
        let namer = cluster.namer(NamerConfig::everywhere());
        assert!(!cluster.restored() && !cluster.ready(), "{damage}");
        let looked = look(&namer, WEB, &mut Reads::new());
        assert!(looked.starts_with("pending"), "{damage}: {looked}");
        let problem = &cluster.state()["snapshot"]["problem"];
        assert_eq!(problem["code"], "RT-K01", "{damage}: {problem}");
    }
    // With an API server the next one is whole again.
    let fake = Fake::on(addr).await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let cluster = cluster_at(addr, timing(), Some(dir.path())).await;
    let healed = timeout(LONG, async {
        while cluster.state()["snapshot"]["writes"] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    healed.await.unwrap();
    assert!(cluster.state()["snapshot"]["problem"].is_null());
}

#[tokio::test]
async fn a_state_directory_that_can_not_be_written_costs_nothing_but_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in-the-way");
    std::fs::write(&file, "").unwrap();
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let cluster = cluster_at(fake.addr, timing(), Some(&file)).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1").await;
    let failed = timeout(LONG, async {
        while cluster.state()["snapshot"]["failures"].as_u64() < Some(2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    failed.await.unwrap();
    assert_eq!(cluster.state()["snapshot"]["problem"]["code"], "RT-K02");
    fake.slice("a", "s1", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.2").await;
}

#[tokio::test]
async fn a_list_that_trickles_is_given_up_and_removes_nothing() {
    let fake = Fake::start().await;
    fake.slice("a", "s1", &["10.0.0.1"]);
    let cluster = cluster(&fake, timing()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, WEB, "10.0.0.1").await;
    both_listed(&fake).await;
    let mut reads = Reads::new();
    look(&namer, WEB, &mut reads);
    fake.fault("resourceVersion=", Fault::Status(410));
    fake.fault("", Fault::Trickles);
    fake.cut();
    let slow = timeout(LONG, async {
        while !cluster
            .trouble()
            .iter()
            .any(|line| line.contains("more than"))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    slow.await.unwrap();
    assert!(!reads.stale());
    fake.heal();
    fake.slice("a", "s1", &["10.0.0.2"]);
    until(&namer, WEB, "10.0.0.2").await;
}

#[tokio::test]
async fn a_load_balancer_with_a_host_name_is_resolved() {
    let fake = Fake::start().await;
    let service = |ingress: serde_json::Value| {
        json!({"metadata": {"name": "web", "namespace": "a"},
               "spec": {"ports": [{"name": "http", "port": 8080}]},
               "status": {"loadBalancer": {"ingress": ingress}}})
    };
    fake.put(
        "services",
        "a",
        "web",
        &service(json!([{"hostname": "localhost"}])),
    );
    let cluster = cluster(&fake, timing()).await;
    let dns = naming::namers::Dns::system(Handle::current());
    let namer = cluster.namer(NamerConfig::external().resolving(dns));
    until(&namer, WEB, "127.0.0.1").await;
    let both = json!([{"hostname": "localhost", "ip": "192.0.2.9"}, {"ip": "192.0.2.1"}]);
    fake.put("services", "a", "web", &service(both));
    until(&namer, WEB, "127.0.0.1 192.0.2.1").await;
    fake.put(
        "services",
        "a",
        "web",
        &service(json!([{"ip": "192.0.2.1"}])),
    );
    until(&namer, WEB, "192.0.2.1").await;
    fake.put("services", "a", "web", &service(json!([])));
    until(&namer, WEB, "neg").await;
}

#[tokio::test]
async fn the_own_node_is_learnt_from_the_slices() {
    let fake = Fake::start().await;
    let cluster = cluster(&fake, timing()).await;
    let node = naming::Var::new(None);
    cluster.learn_node("10.0.0.1".parse().unwrap(), node.clone());
    fake.slice("a", "s1", &["10.0.0.1"]);
    let learnt = timeout(LONG, async {
        let mut reads = Reads::new();
        while node.read(&mut reads).is_none() {
            reads.changed().await;
            reads.clear();
        }
    });
    learnt.await.unwrap();
    assert_eq!(node.get().as_deref(), Some("n1"));
}
