//! Real storages for tests. They run only with `RUTTER_REAL=1`, since they need programs that `tests/run stores` makes.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// Whether the test is to run.
pub(super) fn wanted(test: &str) -> bool {
    let wanted = std::env::var("RUTTER_REAL").as_deref() == Ok("1");
    if !wanted {
        eprintln!("skipped: {test} needs RUTTER_REAL=1, as in `tests/run stores`");
    }
    wanted
}

/// A number from the environment, for what is short by default and long by hand.
pub(super) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A file of the repository.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

/// kube-apiserver with its etcd.
pub(super) struct ApiServer {
    pub(super) dir: tempfile::TempDir,
}

impl ApiServer {
    pub(super) fn start() -> Self {
        let server = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        server.script("up.sh", None);
        server.kubectl(
            &[
                "apply",
                "-f",
                file("docs/dtabs.l5d.io.yaml").to_str().unwrap(),
            ],
            "",
        );
        server.script("established.sh", None);
        server
    }

    pub(super) fn script(&self, name: &str, argument: Option<&str>) {
        let script = file("tests/apiserver").join(name);
        let status = Command::new(&script)
            .arg(self.dir.path())
            .args(argument)
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{}", script.display());
    }

    /// What kubectl prints, given `input`.
    pub(super) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let place = Command::new(file("tests/apiserver/build.sh"))
            .arg("--where")
            .output()
            .unwrap();
        let kubectl = Path::new(String::from_utf8(place.stdout).unwrap().trim()).join("kubectl");
        let mut child = Command::new(kubectl)
            .arg("--kubeconfig")
            .arg(self.dir.path().join("kubeconfig"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{arguments:?}");
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.script("down.sh", None);
    }
}

/// A program that is killed when it is dropped.
pub(super) struct Program(pub(super) Child);

impl Program {
    pub(super) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

/// Another process of these tests, which runs `test` alone with a variable in its environment; and what it says on stderr, past
/// the test harness, which keeps what tests print.
pub(super) fn itself(test: &str, (variable, value): (&str, &str)) -> (Program, Said) {
    let mut program = Program::start(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(variable, value)
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    );
    let said = BufReader::new(program.0.stderr.take().unwrap()).lines();
    (program, said)
}

/// The lines that a process says.
pub(super) type Said = Lines<BufReader<ChildStderr>>;

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Ports that nobody listens on now.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|at| listeners[at].local_addr().unwrap().port())
}

/// An etcd of some members, which can be killed and started again.
pub(super) struct Etcd {
    dir: tempfile::TempDir,
    clients: Vec<u16>,
    peers: Vec<u16>,
    running: Vec<Option<Program>>,
}

impl Etcd {
    pub(super) fn start(members: usize) -> Self {
        let ports: [u16; 6] = free_ports();
        let mut etcd = Self {
            dir: tempfile::tempdir().unwrap(),
            clients: ports[..members].to_vec(),
            peers: ports[3..3 + members].to_vec(),
            running: Vec::new(),
        };
        etcd.running.resize_with(members, || None);
        (0..members).for_each(|at| etcd.revive(at));
        etcd
    }

    /// Starts a member, with the data it had.
    pub(super) fn revive(&mut self, at: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster = self.peers.iter().enumerate();
        let cluster: Vec<_> = cluster
            .map(|(at, port)| format!("m{at}={}", url(*port)))
            .collect();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("m{at}.log")))
            .unwrap();
        let mut command = Command::new(std::env::var("ETCD").unwrap_or("etcd".to_owned()));
        command.args(["--name", &format!("m{at}"), "--log-level=warn"]);
        command
            .arg("--data-dir")
            .arg(self.dir.path().join(format!("m{at}")));
        for (flag, port) in [("client", self.clients[at]), ("peer", self.peers[at])] {
            command.arg(format!("--listen-{flag}-urls={}", url(port)));
        }
        command.arg(format!("--advertise-client-urls={}", url(self.clients[at])));
        command.arg(format!(
            "--initial-advertise-peer-urls={}",
            url(self.peers[at])
        ));
        command.arg(format!("--initial-cluster={}", cluster.join(",")));
        command.args(["--heartbeat-interval=100", "--election-timeout=1000"]);
        self.running[at] = Some(Program::start(
            command.stdout(log.try_clone().unwrap()).stderr(log),
        ));
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self, at: usize) {
        self.running[at] = None;
    }

    /// Where its members are.
    pub(super) fn members(&self) -> Vec<String> {
        self.clients
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect()
    }
}

/// A ZooKeeper, which can be killed and started again.
#[cfg(feature = "zookeeper")]
pub(super) struct ZooKeeper {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Program>,
}

#[cfg(feature = "zookeeper")]
impl ZooKeeper {
    pub(super) fn start() -> Self {
        let [port] = free_ports();
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=500\nadmin.enableServer=false\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("zoo.cfg"), config).unwrap();
        let mut server = Self {
            dir,
            port,
            running: None,
        };
        server.revive();
        server
    }

    pub(super) fn revive(&mut self) {
        let home = std::env::var("ZOOKEEPER").expect("ZOOKEEPER names where the server is");
        let log = std::fs::File::create(self.dir.path().join("zookeeper.log")).unwrap();
        let mut command = Command::new("java");
        command.args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            "-cp",
        ]);
        command
            .arg(format!("{home}/lib/*"))
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        command.arg(self.dir.path().join("zoo.cfg"));
        self.running = Some(Program::start(
            command.stdout(log.try_clone().unwrap()).stderr(log),
        ));
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// A Consul of one server, which can be killed and started again.
pub(super) struct Consul {
    program: String,
    dir: tempfile::TempDir,
    ports: [u16; 3],
    running: Option<Program>,
}

impl Consul {
    /// None when there is none on this machine, with a word about it. Given a token, everybody needs it.
    pub(super) fn start(test: &str, token: Option<&str>) -> Option<Self> {
        let Ok(program) = std::env::var("CONSUL") else {
            eprintln!("skipped: {test} needs a real Consul, as in `tests/run consul`");
            return None;
        };
        let mut server = Self {
            program,
            dir: tempfile::tempdir().unwrap(),
            ports: free_ports(),
            running: None,
        };
        let [http, serf, rpc] = server.ports;
        let off = -1;
        let mut config = serde_json::json!({
            "server": true, "bootstrap_expect": 1, "node_name": "one", "datacenter": "dc1",
            "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "data_dir": server.dir.path().join("data"),
            "ports": {"http": http, "serf_lan": serf, "server": rpc, "serf_wan": off, "dns": off, "grpc": off},
            "performance": {"raft_multiplier": 1}, "disable_update_check": true, "log_level": "warn",
            // Of killed connections some are not closed yet on its side.
            "limits": {"http_max_conns_per_client": 2_000},
        });
        if let Some(token) = token {
            config["acl"] = serde_json::json!({
                "enabled": true, "default_policy": "deny", "tokens": {"initial_management": token},
            });
        }
        std::fs::write(server.dir.path().join("consul.json"), config.to_string()).unwrap();
        server.revive();
        Some(server)
    }

    pub(super) fn revive(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("consul.log")).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["agent", "-config-file"])
            .arg(self.dir.path().join("consul.json"));
        self.running = Some(Program::start(
            command.stdout(log.try_clone().unwrap()).stderr(log),
        ));
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// Of its HTTP API.
    pub(super) fn port(&self) -> u16 {
        self.ports[0]
    }
}
