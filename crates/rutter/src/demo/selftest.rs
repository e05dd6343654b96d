//! `rutter demo --self-test`: each thing that the demo shows, asserted from outside, by sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use telemetry::trace::TraceContext;
use telemetry::trace::{Formats, Propagation};

use super::apps::{self, Answer, POD_HEADER, VIA_HEADER};
use super::cluster::{Cluster, NODES, extra_world, workloads};
use crate::cli::Exit;

/// The budget of the start.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// Spans leave in batches, watches take a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pages of an admin port that the demo names, and what it has for programs.
const PAGES: [&str; 14] = [
    "/",
    "/delegator?path=/svc/world",
    "/requests",
    "/logging",
    "/help",
    "/admin",
    "/admin/ping",
    "/admin/metrics.json",
    "/admin/metrics/prometheus",
    "/metrics",
    "/config.json",
    "/logging.json",
    "/live",
    "/ready",
];

/// Runs all; a line for each on stdout.
pub(super) async fn run(cluster: &Cluster, first: Duration) -> anyhow::Result<Exit> {
    let mut report = Report::default();
    report.take(
        "the first answer came through both hops in time",
        start_was_fast(first),
    )?;
    report.take(
        "hello and world answer through both nodes",
        both_nodes_answer().await,
    )?;
    report.take(
        "each call passed an outgoing and an incoming router",
        both_hops_are_passed().await,
    )?;
    report.take(
        "the routers of both hops reported their spans, parents before children",
        spans_are_in_line(cluster).await,
    )?;
    report.take(
        "a request's own dtab leads to world-v2",
        override_leads_to_v2().await,
    )?;
    report.take(
        "an unknown name is answered 502 RT-E101 with its way",
        unknown_is_explained().await,
    )?;
    report.take(
        "the delegator shows where world goes",
        delegator_shows_the_way().await,
    )?;
    report.take(
        "when world-v1 is scaled, requests follow",
        scaling_is_followed(cluster).await,
    )?;
    report.take(
        "every page of both admin ports answers",
        pages_answer().await,
    )?;
    report.take("the metrics count the requests", metrics_count().await)?;
    report.take(
        "the Kubernetes API shows the Services",
        kube_shows_services().await,
    )?;
    report.take(
        "the span store shows services and the page of traces",
        store_shows_traces().await,
    )?;
    report.take("the load had no failure", load_was_clean(cluster))?;
    super::say(&format!(
        "{} passed, {} failed\n",
        report.passed, report.failed
    ))?;
    Ok(if report.failed == 0 {
        Exit::Done
    } else {
        Exit::No
    })
}

#[derive(Default)]
struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    fn take(&mut self, what: &str, outcome: anyhow::Result<String>) -> anyhow::Result<()> {
        let line = match outcome {
            Ok(detail) => {
                self.passed += 1;
                format!("ok    {what}: {detail}\n")
            }
            Err(error) => {
                self.failed += 1;
                format!("FAIL  {what}: {error:#}\n")
            }
        };
        super::say(&line)
    }
}

fn start_was_fast(first: Duration) -> anyhow::Result<String> {
    ensure!(
        first <= FIRST_ANSWER,
        "{} ms, at most {FIRST_ANSWER:?}",
        first.as_millis()
    );
    Ok(format!("{} ms", first.as_millis()))
}

/// Asks until `right` gives something, or the time is over: then the last complaint.
async fn until<T, F: Future<Output = anyhow::Result<T>>>(
    mut right: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match right().await {
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("still after {PATIENCE:?}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            right => return right,
        }
    }
}

async fn good(peer: SocketAddr, url: &str, headers: &[(String, String)]) -> anyhow::Result<Answer> {
    let answer = apps::get(peer, url, headers).await?;
    ensure!(
        answer.status == 200,
        "{url} by {peer}: {} {}",
        answer.status,
        answer.body.trim_end()
    );
    Ok(answer)
}

/// A page or document, asked for directly rather than by a proxy.
async fn page(host: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    good(host, &format!("http://{host}{path}"), &[]).await
}

async fn json(host: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let answer = page(host, path).await?;
    serde_json::from_str(&answer.body).with_context(|| format!("{path} of {host} is no JSON"))
}

fn pods_of(service: &str) -> BTreeSet<String> {
    let own = workloads()
        .into_iter()
        .filter(|workload| workload.service == service);
    own.flat_map(|workload| workload.pods)
        .map(|pod| pod.name)
        .collect()
}

async fn both_nodes_answer() -> anyhow::Result<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        for node in NODES {
            let answer = good(node.outgoing(), "http://hello/", &[]).await?;
            ensure!(
                answer.body.contains("world (world-v1-"),
                "hello said: {}",
                answer.body
            );
            seen.insert(answer.header(POD_HEADER).to_owned());
        }
    }
    ensure!(seen == pods_of("hello"), "only {seen:?} answered");
    Ok(format!("{seen:?}"))
}

/// `Via` as world got it: two routers on hello's call, whatever nodes the pods are on.
async fn both_hops_are_passed() -> anyhow::Result<String> {
    for node in NODES {
        let answer = good(node.outgoing(), "http://hello/", &[]).await?;
        let via = answer.header(VIA_HEADER);
        ensure!(via.split(',').count() == 2, "world got Via: {via}");
    }
    let answer = good(NODES[0].outgoing(), "http://hello/", &[]).await?;
    Ok(format!("world got Via: {}", answer.header(VIA_HEADER)))
}

async fn spans_are_in_line(cluster: &Cluster) -> anyhow::Result<String> {
    let mut context = TraceContext::root();
    context.sampled = Some(true);
    let mut headers = Vec::new();
    context.write(Formats::default(), Propagation::Default, |name, value| {
        headers.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
    });
    good(NODES[0].outgoing(), "http://hello/", &headers).await?;
    let trace = format!("{:016x}", context.trace.low);
    let line = until(async || in_line(&cluster.spans.trace(&trace))).await?;
    Ok(format!("trace {trace}: {line}"))
}

/// Two calls of two hops are four routers, each with a server span and the client span below it.
fn in_line(trace: &[Value]) -> anyhow::Result<String> {
    let mut routers = Vec::new();
    let mut kinds = Vec::new();
    let root = trace
        .iter()
        .find(|span| trace.iter().all(|other| other["id"] != span["parentId"]));
    let mut next = root;
    while let Some(span) = next {
        let kind = span["kind"].as_str().unwrap_or("none");
        if kind == "SERVER" {
            routers.push(span["tags"]["router.label"].as_str().unwrap_or("none"));
        }
        kinds.push(kind);
        next = trace.iter().find(|child| child["parentId"] == span["id"]);
    }
    let said = format!(
        "{} of {} spans in line, of the routers {routers:?}",
        kinds.len(),
        trace.len()
    );
    ensure!(
        routers == ["outgoing", "incoming", "outgoing", "incoming"],
        "{said}"
    );
    ensure!(kinds == ["SERVER", "CLIENT"].repeat(4), "{said}: {kinds:?}");
    Ok(routers.join(" → "))
}

async fn override_leads_to_v2() -> anyhow::Result<String> {
    let own = [(
        "l5d-dtab".to_owned(),
        "/host/world => /srv/world-v2".to_owned(),
    )];
    let answer = good(NODES[0].outgoing(), "http://hello/", &own).await?;
    ensure!(
        answer.body.contains("world (world-v2-b)"),
        "{}",
        answer.body
    );
    let plain = good(NODES[0].outgoing(), "http://hello/", &[]).await?;
    ensure!(
        plain.body.contains("world (world-v1-"),
        "without it: {}",
        plain.body
    );
    Ok(answer.body.trim_end().to_owned())
}

async fn unknown_is_explained() -> anyhow::Result<String> {
    let answer = apps::get(NODES[0].outgoing(), "http://wrold/", &[]).await?;
    ensure!(answer.status == 502, "status {}", answer.status);
    for part in [
        "RT-E101",
        "/svc/wrold",
        "/host => /srv",
        "no Service `wrold` in namespace `default`",
    ] {
        ensure!(
            answer.body.contains(part),
            "`{part}` is not in the body: {}",
            answer.body
        );
    }
    ensure!(!answer.header("l5d-err").is_empty(), "no l5d-err");
    Ok(answer.body.lines().next().unwrap_or_default().to_owned())
}

async fn delegator_shows_the_way() -> anyhow::Result<String> {
    let config = json(NODES[0].admin(), "/config.json").await?;
    let dtab = config["routers"][0]["dtab"]
        .as_str()
        .context("no dtab in /config.json")?;
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let dtab: String = dtab.bytes().map(escaped).collect();
    let path = format!("/delegator.json?path=/svc/world&namespace=outgoing&dtab={dtab}");
    let tree = json(NODES[0].admin(), &path).await?.to_string();
    ensure!(
        tree.contains("/#/io.l5d.k8s/default/http/world-v1"),
        "{tree}"
    );
    Ok("/svc/world leads to world-v1".to_owned())
}

async fn scaling_is_followed(cluster: &Cluster) -> anyhow::Result<String> {
    let all = workloads();
    let full = all
        .iter()
        .find(|workload| workload.service == "world-v1")
        .context("no world-v1")?;
    let mut scaled = full.clone();
    scaled.pods = vec![extra_world()];
    let began = Instant::now();
    cluster.kube.apply_workload(&scaled);
    let only_the_new = async || {
        for node in NODES.into_iter().cycle().take(8) {
            let answer = good(node.outgoing(), "http://world/", &[]).await?;
            let pod = answer.header(POD_HEADER);
            ensure!(pod == scaled.pods[0].name, "{pod} answered");
        }
        Ok(began.elapsed())
    };
    let outcome = until(only_the_new).await;
    cluster.kube.apply_workload(full);
    let took = outcome?;
    let all_again = async || {
        let mut seen = BTreeSet::new();
        for node in NODES.into_iter().cycle().take(24) {
            let answer = good(node.outgoing(), "http://world/", &[]).await?;
            seen.insert(answer.header(POD_HEADER).to_owned());
        }
        ensure!(seen == pods_of("world-v1"), "{seen:?} answered");
        Ok(())
    };
    until(all_again).await.context("scaled back")?;
    Ok(format!("in use after {} ms, and back", took.as_millis()))
}

async fn pages_answer() -> anyhow::Result<String> {
    for node in NODES {
        for path in PAGES {
            let answer = page(node.admin(), path).await?;
            ensure!(!answer.body.is_empty(), "{path} of {} is empty", node.name);
        }
        let overview = page(node.admin(), "/").await?.body;
        ensure!(
            overview.contains(node.name),
            "the overview of {} does not name it",
            node.name
        );
    }
    Ok(format!("{} each", PAGES.len()))
}

async fn metrics_count() -> anyhow::Result<String> {
    let metrics = json(NODES[0].admin(), "/admin/metrics.json").await?;
    let name = "rt/outgoing/service/svc/hello/requests";
    let Some(requests) = metrics[name].as_u64() else {
        bail!("no {name}");
    };
    ensure!(requests > 0, "{name} is 0");
    Ok(format!("{name} {requests}"))
}

async fn kube_shows_services() -> anyhow::Result<String> {
    let list = json(
        "127.0.0.1:8001".parse()?,
        "/api/v1/namespaces/default/services",
    )
    .await?;
    let names: Vec<&str> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect();
    ensure!(
        names == ["hello", "l5d", "world-v1", "world-v2"],
        "{names:?}"
    );
    Ok(names.join(", "))
}

async fn store_shows_traces() -> anyhow::Result<String> {
    let store: SocketAddr = "127.0.0.1:9411".parse()?;
    let services = json(store, "/api/v2/services").await?;
    let names: Vec<&str> = services
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    // A server span is reported by the server it came to, as Linkerd's.
    for node in NODES {
        for port in [4140, 4141] {
            let server = format!("{}/{port}", node.ip());
            ensure!(
                names.contains(&server.as_str()),
                "no {server} among {names:?}"
            );
        }
    }
    let listed = page(store, "/").await?.body;
    ensure!(listed.contains("/traces/"), "the page lists no trace");
    Ok(format!("{} services", names.len()))
}

fn load_was_clean(cluster: &Cluster) -> anyhow::Result<String> {
    let (good, bad) = (
        cluster.load.good.load(Ordering::Relaxed),
        cluster.load.bad.load(Ordering::Relaxed),
    );
    ensure!(bad == 0, "{bad} of {} requests failed", good + bad);
    Ok(format!("{good} requests"))
}
