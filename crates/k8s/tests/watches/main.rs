//! The namers over an API server that does wrong: real sockets, real HTTP.

mod fake;

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
        retry_first: ms(5),
        retry_most: ms(40),
        retry_forbidden: ms(30),
        relist: ms(100),
        watch: ms(60_000),
        silence: ms(60_000),
        audit: ms(60_000),
        settle: ms(20),
    }
}

async fn cluster(fake: &Fake, timing: Timing) -> Cluster {
    let target = ApiTarget::Plain {
        host: fake.addr.ip().to_string(),
        port: fake.addr.port(),
    };
    let namespaces = ["own".to_owned()].into();
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
