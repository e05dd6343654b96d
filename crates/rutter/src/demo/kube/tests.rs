use std::net::Ipv4Addr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::workload::{Pod, Workload};
use super::*;

fn web(pods: usize) -> Workload {
    let pods = (0..pods).map(|at| Pod {
        name: format!("web-{at}"),
        ip: Ipv4Addr::new(127, 1, 1, 10 + at as u8).into(),
        node: "node-a".into(),
    });
    Workload {
        service: "web".into(),
        port_name: "http".into(),
        port: 7777,
        pods: pods.collect(),
    }
}

async fn started(kube: &Kube) -> (std::net::SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(kube.clone().serve(listener, stop.clone()));
    (addr, stop.drop_guard())
}

async fn ask(addr: std::net::SocketAddr, path: &str) -> (u16, Incoming) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", "demo")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    (response.status().as_u16(), response.into_body())
}

async fn json_of(addr: std::net::SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = ask(addr, path).await;
    (
        status,
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap(),
    )
}

/// The next line of a watch; each event is one frame.
async fn line(body: &mut Incoming) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await;
    let frame = frame
        .expect("an event in time")
        .expect("an open watch")
        .unwrap();
    serde_json::from_slice(&frame.into_data().unwrap()).unwrap()
}

#[tokio::test]
async fn objects_are_found_one_by_one_and_as_lists() {
    let kube = Kube::default();
    kube.apply_workload(&web(2));
    let (addr, _stop) = started(&kube).await;
    let (status, service) = json_of(addr, "/api/v1/namespaces/default/services/web").await;
    assert_eq!(
        (status, &service["spec"]["ports"][0]["name"]),
        (200, &json!("http"))
    );
    let (_, slices) = json_of(
        addr,
        "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dweb",
    )
    .await;
    assert_eq!(slices["kind"], "EndpointSliceList");
    assert_eq!(slices["items"][0]["endpoints"].as_array().unwrap().len(), 2);
    let (_, none) = json_of(addr, "/api/v1/namespaces/other/pods").await;
    assert_eq!(none["items"], json!([]));
    let (status, missing) = json_of(addr, "/api/v1/namespaces/default/services/none").await;
    assert_eq!((status, &missing["reason"]), (404, &json!("NotFound")));
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_version() {
    let kube = Kube::default();
    kube.apply_workload(&web(1));
    let (addr, _stop) = started(&kube).await;
    let (_, list) = json_of(addr, "/api/v1/endpoints").await;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, mut watch) = ask(
        addr,
        &format!("/api/v1/endpoints?watch=true&resourceVersion={version}"),
    )
    .await;
    kube.apply_workload(&web(1));
    kube.apply_workload(&web(3));
    let event = line(&mut watch).await;
    assert_eq!(event["type"], "MODIFIED", "the same again is no event");
    assert_eq!(
        event["object"]["subsets"][0]["addresses"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    kube.delete(Kind::ENDPOINTS, "default", "web");
    assert_eq!(line(&mut watch).await["type"], "DELETED");
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let kube = Kube::default();
    kube.apply_workload(&web(1));
    let (addr, _stop) = started(&kube).await;
    let (_, mut old) = ask(addr, "/api/v1/watch/namespaces/default/services").await;
    assert_eq!(line(&mut old).await["type"], "ADDED");
    let path = "/api/v1/services?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let (_, mut streamed) = ask(addr, path).await;
    assert_eq!(line(&mut streamed).await["type"], "ADDED");
    let end = line(&mut streamed).await;
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_version_that_is_forgotten_is_answered_410() {
    let kube = Kube::default();
    kube.apply_workload(&web(1));
    kube.compact();
    let (addr, _stop) = started(&kube).await;
    let (_, mut watch) = ask(addr, "/api/v1/services?watch=true&resourceVersion=1").await;
    let event = line(&mut watch).await;
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert!(watch.frame().await.is_none(), "the watch ends");
}

#[test]
fn pods_that_are_scaled_away_are_deleted() {
    let kube = Kube::default();
    kube.apply_workload(&web(3));
    kube.apply_workload(&web(1));
    assert_eq!(
        kube.lock()
            .objects
            .keys()
            .filter(|key| key.0 == Kind::POD)
            .count(),
        1
    );
}
