//! `rutter check`: is everything all right?

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use telemetry::code;
use tokio::net::TcpStream;

use super::admin_client::{AdminClient, Target};
use super::{Exit, Output, Sign, Style, looking, read_text, say, say_json};
use crate::config::settings::{Config, K8sApi, TelemeterSettings, TransformerKind};
use crate::config::{self, Environment, Purpose, lint};

/// A watch that has not been confirmed for longer is stale; routers audit theirs every five minutes.
const STALE_SECONDS: f64 = 660.0;
/// With fewer free descriptors a router is near its end.
const FREE_DESCRIPTORS: f64 = 0.1;
/// Longest wait for a socket to open.
const CONNECT: Duration = Duration::from_secs(2);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A configuration to look over, too; `-` is stdin
    config: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// One thing that was looked at.
struct Finding {
    category: &'static str,
    sign: Sign,
    code: Option<&'static str>,
    message: String,
    effect: Option<String>,
    fix: Option<String>,
}

struct Checkup {
    client: AdminClient,
    findings: Vec<Finding>,
}

pub(super) fn run(args: &Args, environment: Environment) -> anyhow::Result<Exit> {
    let style = Style::of(&environment, std::io::stdout().is_terminal());
    let mut checkup = Checkup {
        client: AdminClient::new(&args.target, &environment),
        findings: Vec::new(),
    };
    super::block_on(checkup.router())?;
    if let Some(file) = &args.config {
        checkup.configuration(file, &looking(environment));
    }
    match args.output {
        Output::Json => _ = say_json(&checkup.to_json())?,
        Output::Table => _ = say(&checkup.tell(style))?,
    }
    Ok(if checkup.count(Sign::Fail) > 0 {
        Exit::No
    } else {
        Exit::Done
    })
}

impl Checkup {
    fn note(
        &mut self,
        category: &'static str,
        sign: Sign,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.findings.push(Finding {
            category,
            sign,
            code: None,
            message: message.into(),
            effect: None,
            fix: None,
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn count(&self, sign: Sign) -> usize {
        self.findings.iter().filter(|f| f.sign == sign).count()
    }

    /// The running router: everything that its admin port tells.
    async fn router(&mut self) {
        let admin = self.client.admin.clone();
        match self.client.get("/admin/ping").await {
            Ok((200, body)) if body.trim_ascii() == b"pong" => {
                _ = self.note("router", Sign::Ok, format!("answers at {admin}"));
            }
            Ok((status, _)) => {
                self.note(
                    "router",
                    Sign::Fail,
                    format!("{admin} answers {status} to /admin/ping: that is no router"),
                );
                return;
            }
            Err(error) => {
                let finding = self.note("router", Sign::Fail, error.to_string());
                finding.fix = Some(
                    "start one with `rutter run FILE`, or say where it is with --admin".into(),
                );
                return;
            }
        }
        self.ready().await;
        if let Some(config) = self.running_configuration().await {
            self.listeners(&config).await;
            self.transformers(&config).await;
            self.metrics(&config).await;
        }
    }

    async fn ready(&mut self) {
        let Ok((status, body)) = self.client.get("/ready").await else {
            return;
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let conditions = body["conditions"].as_object().cloned().unwrap_or_default();
        for (name, state) in &conditions {
            let detail = state["detail"].as_str().unwrap_or_default();
            let (sign, word) = if state["met"] == true {
                (Sign::Ok, "")
            } else {
                (Sign::Fail, "waits: ")
            };
            self.note("router", sign, format!("{name}: {word}{detail}"));
        }
        if status != 200 && conditions.is_empty() {
            self.note(
                "router",
                Sign::Fail,
                format!("not ready: /ready answers {status}"),
            );
        }
    }

    /// The configuration it runs with; only keys that were given, so that it reads as a file does.
    async fn running_configuration(&mut self) -> Option<Config> {
        let given = match self.client.json("/config.json").await {
            Ok(given) => given.to_string(),
            Err(error) => {
                self.note(
                    "router",
                    Sign::Warn,
                    format!("its configuration is not shown: {error}"),
                );
                return None;
            }
        };
        let environment = Environment {
            purpose: Purpose::Text,
            ..Environment::default()
        };
        match config::load("config.json", &given, &environment) {
            Ok(loaded) => Some(loaded.config),
            Err(problems) => {
                self.note(
                    "router",
                    Sign::Warn,
                    format!(
                        "its configuration is of another version: {}",
                        problems.summary()
                    ),
                );
                None
            }
        }
    }

    async fn listeners(&mut self, config: &Config) {
        let host = self
            .client
            .admin
            .rsplit_once(':')
            .map(|(h, _)| h.trim_matches(['[', ']']).to_owned())
            .unwrap_or_default();
        for router in &config.routers {
            let label = router.router.label.clone();
            for server in &router.router.servers {
                let addr = server.addr;
                if addr.port() == 0 {
                    continue;
                }
                if addr.ip().is_loopback() && !is_loopback(&host) {
                    self.note(
                        "router",
                        Sign::Ok,
                        format!("router {label}: {addr} is reachable from its own host only"),
                    );
                    continue;
                }
                let target = if addr.ip().is_unspecified() {
                    format!("{}:{}", bracket(&host), addr.port())
                } else {
                    addr.to_string()
                };
                match connect(&target).await {
                    Ok(_) => {
                        _ = self.note(
                            "router",
                            Sign::Ok,
                            format!("router {label} accepts connections at {addr}"),
                        );
                    }
                    Err(error) => {
                        _ = self.note(
                            "router",
                            Sign::Fail,
                            format!(
                                "router {label} does not accept connections at {target}: {error}"
                            ),
                        );
                    }
                }
            }
        }
    }

    /// RT-C021: a transformer sends everything through a Service; does it exist?
    async fn transformers(&mut self, config: &Config) {
        for (i, router) in config.routers.iter().enumerate() {
            for (j, transformer) in router.interpreter.transformers.iter().enumerate() {
                if let TransformerKind::DaemonSet {
                    api,
                    namespace,
                    service,
                    ..
                } = &transformer.kind
                {
                    let label = router.router.label.to_string();
                    let at = format!("routers[{i}].interpreter.transformers[{j}].service");
                    self.service(&label, &at, api, namespace, service).await;
                }
            }
        }
    }

    async fn service(
        &mut self,
        label: &str,
        at: &str,
        api: &K8sApi,
        namespace: &str,
        service: &str,
    ) {
        let K8sApi::Proxy { host, port } = api else {
            self.note("names", Sign::Warn, format!("router {label}: Service {namespace}/{service} was not looked for: only the router's pod can ask the API server"));
            return;
        };
        let api = AdminClient {
            admin: format!("{}:{port}", bracket(host)),
        };
        match api.get(&format!("/api/v1/namespaces/{namespace}/services/{service}")).await {
            Ok((200, _)) => _ = self.note("names", Sign::Ok, format!("router {label}: Service {namespace}/{service} exists")),
            Ok((404, _)) => {
                let message = format!("router \"{label}\": transformer io.l5d.k8s.daemonset names Service {namespace}/{service}, which does not exist");
                let finding = self.note("names", Sign::Fail, message);
                finding.code = Some(code::Check::C021.entry().code);
                finding.effect = Some("every request that leaves its node fails with RT-E104".into());
                finding.fix = Some(format!("create the Service, or set {at} to the one that selects the routers"));
            }
            Ok((status, _)) => _ = self.note("names", Sign::Warn, format!("router {label}: {} answers {status} when asked for Service {namespace}/{service}", api.admin)),
            Err(error) => _ = self.note("names", Sign::Warn, format!("router {label}: Service {namespace}/{service} was not looked for: {error}")),
        }
    }

    /// What its own metrics say of watches, spans and descriptors.
    async fn metrics(&mut self, config: &Config) {
        let Ok((200, body)) = self.client.get("/metrics").await else {
            self.note(
                "router",
                Sign::Warn,
                "/metrics does not answer: watches, spans and descriptors were not looked at",
            );
            return;
        };
        let page = String::from_utf8_lossy(&body).into_owned();
        self.watches(&page);
        self.spans(&page, config).await;
        self.descriptors(&page);
    }

    fn watches(&mut self, page: &str) {
        for (labels, age) in samples(page, "rutter_namer_watch_age_seconds") {
            if age > STALE_SECONDS {
                self.note(
                    "names",
                    Sign::Warn,
                    format!(
                        "a watch is {age:.0} s old {labels}: the last known endpoints are served"
                    ),
                )
                .fix = Some("is the API server reachable from the router?".into());
            } else {
                self.note(
                    "names",
                    Sign::Ok,
                    format!("watch confirmed {age:.0} s ago {labels}"),
                );
            }
        }
    }

    async fn spans(&mut self, page: &str, config: &Config) {
        let of = |result: &str| -> f64 {
            samples(page, "rutter_spans_total")
                .filter(|(labels, _)| labels.contains(&format!("result=\"{result}\"")))
                .map(|(_, n)| n)
                .sum()
        };
        let (sent, dropped) = (of("sent"), of("dropped"));
        for telemeter in &config.telemetry {
            let TelemeterSettings::Zipkin { host, port, .. } = telemeter else {
                continue;
            };
            let collector = format!("{host}:{port}");
            if dropped > 0.0 {
                self.note(
                    "traces",
                    Sign::Warn,
                    format!("{dropped:.0} spans for {collector} were dropped, {sent:.0} sent"),
                )
                .fix =
                    Some("does the collector keep up, and is it reachable from the router?".into());
            } else if sent > 0.0 {
                self.note(
                    "traces",
                    Sign::Ok,
                    format!("{collector} took {sent:.0} spans, 0 dropped"),
                );
            } else {
                match connect(&collector).await {
                    Ok(_) => _ = self.note("traces", Sign::Ok, format!("{collector} accepts connections; no span has been sent yet")),
                    Err(error) => _ = self.note("traces", Sign::Warn, format!("no span has been sent yet, and {collector} cannot be reached from here: {error}")),
                }
            }
        }
    }

    fn descriptors(&mut self, page: &str) {
        let one = |name: &str| samples(page, name).map(|(_, n)| n).next();
        let (Some(open), Some(max)) = (one("process_open_fds"), one("process_max_fds")) else {
            return;
        };
        if open > max * (1.0 - FREE_DESCRIPTORS) {
            self.note(
                "router",
                Sign::Fail,
                format!("{open:.0} of {max:.0} file descriptors are in use"),
            )
            .fix = Some("raise the limit (ulimit -n, or the container's)".into());
        } else {
            self.note(
                "router",
                Sign::Ok,
                format!("{open:.0} of {max:.0} file descriptors are in use"),
            );
        }
    }

    /// A configuration file, looked over.
    fn configuration(&mut self, file: &str, environment: &Environment) {
        let text = match read_text(file) {
            Ok(text) => text,
            Err(message) => {
                self.note("configuration", Sign::Fail, message);
                return;
            }
        };
        let problems = match config::load(file, &text, environment) {
            Ok(loaded) => lint::lint(&loaded, environment),
            Err(problems) => problems,
        };
        for problem in &problems.all {
            let sign = if problem.severity == config::problem::Severity::Error {
                Sign::Fail
            } else {
                Sign::Warn
            };
            let place = problem
                .place
                .map(|p| format!(":{}:{}", p.line, p.column))
                .unwrap_or_default();
            let message = format!("{file}{place} {}: {}", problem.key, problem.message);
            self.note("configuration", sign, message).fix = problem.help.clone();
        }
        if problems.all.is_empty() {
            self.note("configuration", Sign::Ok, format!("{file} is valid"));
        }
    }

    fn tell(&self, style: Style) -> String {
        let mut lines = Vec::new();
        for category in ["router", "names", "traces", "configuration"] {
            let of: Vec<&Finding> = self
                .findings
                .iter()
                .filter(|f| f.category == category)
                .collect();
            if of.is_empty() {
                continue;
            }
            lines.push(category.to_owned());
            for finding in of {
                let code = finding.code.map(|c| format!("{c}  ")).unwrap_or_default();
                lines.push(format!(
                    "  {} {code}{}",
                    style.sign(finding.sign),
                    finding.message
                ));
                let more = [("effect", &finding.effect), ("fix", &finding.fix)];
                lines.extend(
                    more.iter().filter_map(|(word, text)| {
                        Some(format!("      {word:<8}{}", text.as_ref()?))
                    }),
                );
            }
        }
        let code = self
            .findings
            .iter()
            .find_map(|f| f.code)
            .map(|c| format!(" — rutter explain {c} for more"))
            .unwrap_or_default();
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        lines.push(format!(
            "{}, {}{code}",
            count(self.count(Sign::Fail), "error"),
            count(self.count(Sign::Warn), "warning")
        ));
        lines.join("\n")
    }

    fn to_json(&self) -> Value {
        let word = |sign| match sign {
            Sign::Ok => "ok",
            Sign::Warn => "warning",
            Sign::Fail => "error",
        };
        let checks: Vec<Value> = self
            .findings
            .iter()
            .map(|f| json!({ "category": f.category, "status": word(f.sign), "code": f.code, "message": f.message, "effect": f.effect, "fix": f.fix }))
            .collect();
        json!({
            "schema": "rutter/check/v1",
            "admin": self.client.admin,
            "errors": self.count(Sign::Fail),
            "warnings": self.count(Sign::Warn),
            "checks": checks,
        })
    }
}

/// Label part and value of a metric's samples on a Prometheus page.
fn samples<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (String, f64)> + 'a {
    page.lines().filter_map(move |line| {
        let rest = line
            .strip_prefix(name)
            .filter(|r| r.starts_with(['{', ' ']))?;
        let (labels, value) = rest.rsplit_once(' ')?;
        Some((labels.trim().to_owned(), value.parse().ok()?))
    })
}

async fn connect(target: &str) -> std::io::Result<SocketAddr> {
    match tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
        Ok(stream) => stream?.peer_addr(),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn bracket(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_those_of_the_name_alone() {
        let page = "# HELP x y\nx{a=\"b c\"} 3\nx_more 4\nx 5\nx NaN?\n";
        let found: Vec<_> = samples(page, "x").collect();
        assert_eq!(
            found,
            [("{a=\"b c\"}".to_owned(), 3.0), (String::new(), 5.0)]
        );
    }
}
