//! The two nodes and what is around them: addresses, start, end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use telemetry::log::LogHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apps::{self, LoadCounts, Role};
use super::kube::Kube;
use super::kube::workload::{NAMESPACE, Pod, Workload};
use super::spans::{self, Spans};
use crate::cli::Exit;
use crate::config::settings::Config;
use crate::config::settings::TelemeterSettings;
use crate::config::{Environment, Purpose};
use crate::run::{self, Identity};

/// The published walkthrough's configuration, its text unchanged.
const CONFIG: &str = include_str!("../../tests/walkthrough/config.yaml");

/// The ports that the configuration names, on each node's address: outgoing, incoming, admin.
const NODE_PORTS: [(u16, &str); 3] = [(4140, "outgoing"), (4141, "incoming"), (9990, "admin")];
/// What the configuration calls the collector; the demo's stands in for it.
const COLLECTOR: &str = "zipkin-collector.default.svc.cluster.local";
/// Applications listen here, each on its pod's address.
const HELLO_PORT: u16 = 7777;
const WORLD_PORT: u16 = 7778;
/// Requests under way when the demo ends may take this long.
const GRACE: Duration = Duration::from_secs(1);
/// The longest that the first answer may take before the demo gives up.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// A node: its name, and the third number of its addresses: pods of a node share a /24, as Linkerd 1 expects.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Its name in the cluster.
    pub name: &'static str,
    net: u8,
}

/// The nodes.
pub const NODES: [Node; 2] = [
    Node {
        name: "node-a",
        net: 1,
    },
    Node {
        name: "node-b",
        net: 2,
    },
];

impl Node {
    /// Where its router listens.
    pub fn ip(&self) -> IpAddr {
        self.pod_ip(1)
    }

    /// The address of a pod on this node.
    fn pod_ip(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(127, 1, self.net, last).into()
    }

    /// The server that pods of this node send their requests to.
    pub fn outgoing(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), 4140)
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), 9990)
    }

    fn pod(&self, name: &str, last: u8) -> Pod {
        Pod {
            name: name.to_owned(),
            ip: self.pod_ip(last),
            node: self.name.to_owned(),
        }
    }
}

/// The applications' Services and pods.
pub fn workloads() -> Vec<Workload> {
    let [a, b] = NODES;
    let of = |service: &str, port_name: &str, port, pods| Workload {
        service: service.to_owned(),
        port_name: port_name.to_owned(),
        port,
        pods,
    };
    vec![
        of(
            "hello",
            "http",
            HELLO_PORT,
            vec![a.pod("hello-a", 11), b.pod("hello-b", 11)],
        ),
        of(
            "world-v1",
            "http",
            WORLD_PORT,
            vec![
                a.pod("world-v1-a", 21),
                b.pod("world-v1-b1", 21),
                b.pod("world-v1-b2", 22),
            ],
        ),
        of(
            "world-v2",
            "http",
            WORLD_PORT,
            vec![b.pod("world-v2-b", 31)],
        ),
        of(
            "l5d",
            "incoming",
            4141,
            vec![a.pod("l5d-a", 1), b.pod("l5d-b", 1)],
        ),
    ]
}

/// A pod of `world-v1` that exists only when it is scaled to.
pub fn extra_world() -> Pod {
    NODES[0].pod("world-v1-a2", 23)
}

/// Everything, running.
#[derive(Debug)]
pub struct Cluster {
    /// The Kubernetes API's objects.
    pub kube: Kube,
    /// The traces.
    pub spans: Spans,
    /// What the load saw.
    pub load: Arc<LoadCounts>,
    load_rate: u32,
    began: Instant,
    /// What runs until the end; a name with what it ended with.
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
}

impl Cluster {
    /// Starts everything; nothing is left behind when a part of it cannot start.
    pub async fn start(
        environment: &Environment,
        log: &LogHandle,
        load: u32,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut cluster = Self {
            kube: Kube::default(),
            spans: Spans::default(),
            load: Arc::default(),
            load_rate: load,
            began: Instant::now(),
            tasks: JoinSet::new(),
            stop,
        };
        check_node_ports().await?;
        cluster.start_kube().await?;
        cluster.start_spans().await?;
        for workload in workloads()
            .iter()
            .filter(|workload| workload.service != "l5d")
        {
            for pod in &workload.pods {
                cluster
                    .start_app(&workload.service, workload.port, pod)
                    .await?;
            }
        }
        cluster
            .start_app("world-v1", WORLD_PORT, &extra_world())
            .await?;
        for node in NODES {
            cluster.start_node(node, environment, log.clone()).await?;
        }
        Ok(cluster)
    }

    async fn start_node(
        &mut self,
        node: Node,
        environment: &Environment,
        log: LogHandle,
    ) -> anyhow::Result<()> {
        let (config, environment) = node_config(node, environment)?;
        let identity = Identity {
            node: environment
                .node_name
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
            pod: node.ip().to_string(),
        };
        let stop = self.stop.child_token();
        let mut running = run::Node::start(config, identity, Some(log), stop.clone())
            .await
            .with_context(|| format!("{} does not start", node.name))?;
        self.tasks.spawn(async move {
            stop.cancelled().await;
            _ = running.drain().await;
            (node.name, Ok(()))
        });
        Ok(())
    }

    async fn start_kube(&mut self) -> anyhow::Result<()> {
        self.kube.add_namespace(NAMESPACE);
        for node in NODES {
            self.kube.add_node(node.name, node.ip());
        }
        for workload in workloads() {
            self.kube.apply_workload(&workload);
        }
        let listener = bind(local(8001), "the Kubernetes API").await?;
        let (kube, stop) = (self.kube.clone(), self.stop.clone());
        self.tasks
            .spawn(async move { ("kube", kube.serve(listener, stop).await.map_err(Into::into)) });
        Ok(())
    }

    async fn start_spans(&mut self) -> anyhow::Result<()> {
        let scribe = bind(local(9410), "the span store's scribe").await?;
        let http = bind(local(9411), "the span store's HTTP").await?;
        let (spans, stop) = (self.spans.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            spans::scribe::serve(spans, scribe, stop).await;
            ("scribe", Ok(()))
        });
        let (spans, stop) = (self.spans.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            (
                "spans",
                spans::http::serve(spans, http, stop)
                    .await
                    .map_err(Into::into),
            )
        });
        Ok(())
    }

    async fn start_app(&mut self, service: &str, port: u16, pod: &Pod) -> anyhow::Result<()> {
        let listener = bind(
            SocketAddr::new(pod.ip, port),
            &format!("the pod {}", pod.name),
        )
        .await?;
        let node = NODES.iter().find(|node| node.name == pod.node);
        let role = match (service, node) {
            ("hello", Some(node)) => Role::Hello {
                proxy: node.outgoing(),
            },
            _ => Role::World,
        };
        let (name, stop) = (pod.name.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            (
                "app",
                apps::serve(name, role, listener, stop)
                    .await
                    .map_err(Into::into),
            )
        });
        Ok(())
    }

    /// Waits for the first answer through both hops, then lets the load begin; gives how long it took since the start.
    pub async fn first_answer(&mut self) -> anyhow::Result<Duration> {
        let patience = tokio::time::sleep(FIRST_ANSWER);
        tokio::pin!(patience);
        let mut last;
        for node in NODES {
            loop {
                match apps::get(node.outgoing(), "http://hello/", &[]).await {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => last = format!("{} {}", answer.status, answer.body),
                    Err(error) => last = format!("{error:#}"),
                }
                tokio::select! {
                    () = &mut patience => bail!("no request came through both hops of {} in {FIRST_ANSWER:?}; the last answer was: {last}", node.name),
                    Some(ended) = self.tasks.join_next() => return Err(died(ended)),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        }
        let took = self.began.elapsed();
        if self.load_rate > 0 {
            let proxies = NODES.iter().map(Node::outgoing).collect();
            let load = apps::load(
                self.load_rate,
                proxies,
                self.load.clone(),
                self.stop.clone(),
            );
            self.tasks.spawn(async move {
                load.await;
                ("load", Ok(()))
            });
        }
        Ok(took)
    }

    /// Waits until a part ends by itself, which none should.
    pub async fn failed(&mut self) -> anyhow::Result<Exit> {
        match self.tasks.join_next().await {
            Some(ended) => Err(died(ended)),
            None => Ok(Exit::Done),
        }
    }

    /// Waits for the end of everything, once it is told to stop.
    pub async fn ended(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), all)
            .await
            .is_err()
        {
            self.tasks.abort_all();
        }
    }
}

fn died(
    ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>,
) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow!("{name} ended by itself"),
        Ok((name, Err(error))) => error.context(format!("{name} ended")),
        Err(error) => anyhow!(error).context("a part of the demo broke"),
    }
}

/// The walkthrough's configuration as it runs on `node`: its identity and address, and the collector's address, are
/// given from outside, as a cluster gives them.
fn node_config(node: Node, environment: &Environment) -> anyhow::Result<(Config, Environment)> {
    let environment = Environment {
        pod_ip: Some(node.ip()),
        node_name: Some(node.name.into()),
        in_pod: false,
        variables: environment.variables.clone(),
        purpose: Purpose::Start,
    };
    let loaded = crate::config::load("config.yaml", CONFIG, &environment).map_err(|problems| {
        anyhow!(
            "the walkthrough's configuration is refused:\n{}",
            problems.render()
        )
    })?;
    // Two nodes on one host both ask for 0.0.0.0: each gets the wildcard of its own address.
    let own = |addr: &mut SocketAddr| {
        if addr.ip().is_unspecified() {
            addr.set_ip(node.ip());
        }
    };
    let mut config = loaded.config;
    own(&mut config.admin.addr);
    for router in &mut config.routers {
        router
            .router
            .servers
            .iter_mut()
            .for_each(|server| own(&mut server.addr));
    }
    for telemeter in &mut config.telemetry {
        if let TelemeterSettings::Zipkin { host, .. } = telemeter
            && **host == *COLLECTOR
        {
            *host = "127.0.0.1".into();
        }
    }
    config.workers = Some(1);
    config.admin.shutdown_grace = GRACE;
    Ok((config, environment))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

/// The routers bind these themselves; looked at before anything starts, so that a taken one is named in one line.
async fn check_node_ports() -> anyhow::Result<()> {
    for node in NODES {
        for (port, what) in NODE_PORTS {
            bind(
                SocketAddr::new(node.ip(), port),
                &format!("{} of {}", what, node.name),
            )
            .await?;
        }
    }
    Ok(())
}

async fn bind(addr: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    use std::io::ErrorKind;
    let result = TcpListener::bind(addr).await;
    let kind = result.as_ref().err().map(std::io::Error::kind);
    result.with_context(|| match kind {
        Some(ErrorKind::AddrInUse) => format!(
            "port {} of {} is taken by another process, and the demo needs it for {what}; `ss -ltnp sport = :{}` names that process",
            addr.port(),
            addr.ip(),
            addr.port()
        ),
        Some(ErrorKind::AddrNotAvailable) => format!(
            "{} is no address of this machine, and the demo needs it for {what}: its nodes and pods live in 127.1.0.0/16, which Linux has by itself; elsewhere each address has to be added to the loopback interface (on macOS `sudo ifconfig lo0 alias {}`)",
            addr.ip(),
            addr.ip()
        ),
        _ => format!("cannot listen on {addr} for {what}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = taken.local_addr().unwrap();
        let error = bind(addr, "the test").await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {}", addr.port())) && error.contains("the test"),
            "{error}"
        );
        let elsewhere = bind("192.0.2.1:0".parse().unwrap(), "the test").await;
        assert!(
            elsewhere
                .unwrap_err()
                .to_string()
                .contains("no address of this machine")
        );
    }

    #[test]
    fn the_walkthroughs_text_runs_on_each_nodes_own_address() {
        for node in NODES {
            let (config, environment) = node_config(node, &Environment::default()).unwrap();
            assert_eq!(config.admin.addr, node.admin());
            assert_eq!(config.routers[0].router.servers[0].addr, node.outgoing());
            assert_eq!(environment.node_name.as_deref(), Some(node.name));
            let collectors = config.telemetry.iter().filter(
                |t| matches!(t, TelemeterSettings::Zipkin { host, .. } if **host == *"127.0.0.1"),
            );
            assert_eq!(collectors.count(), 1);
        }
    }

    #[test]
    fn pods_of_a_node_share_its_net_and_no_two_pods_an_address() {
        let mut seen = std::collections::HashSet::new();
        for pod in workloads()
            .into_iter()
            .flat_map(|w| w.pods)
            .chain([extra_world()])
        {
            let node = NODES.iter().find(|node| node.name == pod.node).unwrap();
            let (IpAddr::V4(pod_ip), IpAddr::V4(node_ip)) = (pod.ip, node.ip()) else {
                panic!("IPv4 only");
            };
            assert_eq!(pod_ip.octets()[..3], node_ip.octets()[..3]);
            assert!(seen.insert(pod_ip));
        }
    }
}
