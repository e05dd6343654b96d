//! The running router: everything that its admin port tells.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use telemetry::code::Check;
use tokio::net::TcpStream;

use super::report::{Category, Report};
use crate::cli::admin_client::AdminClient;
use crate::config;
use crate::config::settings::Config;

const R: Category = Category::Router;
/// A watch that has not been confirmed for longer is stale; routers audit theirs every five minutes.
const STALE_SECONDS: f64 = 660.0;
/// With fewer free descriptors a router is near its end.
const FREE_DESCRIPTORS: f64 = 0.1;
/// Longest wait for a socket to open.
const CONNECT: Duration = Duration::from_secs(2);

/// Whether there is a router; with the finding when there is none.
pub(super) async fn answers(client: &AdminClient, report: &mut Report) -> bool {
    let admin = &client.admin;
    match client.get("/admin/ping").await {
        Ok((200, body)) if body.trim_ascii() == b"pong" => {
            report.ok(R, format!("answers at {admin}"));
            true
        }
        Ok((status, _)) => {
            report.fail(
                Check::C002,
                R,
                format!("{admin} answers {status} to /admin/ping: that is no router's admin port"),
            );
            false
        }
        Err(error) => {
            report
                .fail(Check::C001, R, error.to_string())
                .fix("start one with `rutter run FILE`, or say where it is with --admin");
            false
        }
    }
}

/// What a router that answers runs with.
#[derive(Default)]
pub(super) struct Running {
    pub(super) config: Option<Config>,
    /// Its spans arrive: nobody has to look for the collector.
    pub(super) spans_arrive: bool,
}

/// Looks at a router that answers.
pub(super) async fn look(client: &AdminClient, report: &mut Report) -> Running {
    let configuration = ready(client, report).await;
    let config = running_configuration(client, report).await;
    if let Some(config) = &config {
        listeners(client, config, report).await;
    }
    let Ok((200, body)) = client.get("/metrics").await else {
        report.note(
            R,
            "/metrics does not answer: watches, spans and descriptors were not looked at",
        );
        return Running {
            config,
            spans_arrive: false,
        };
    };
    let page = String::from_utf8_lossy(&body).into_owned();
    watches(&page, report);
    reloads(&page, configuration.as_deref(), report);
    descriptors(&page, report);
    let spans_arrive = match &config {
        Some(config) => super::traces::spans(&page, config, report).await,
        None => false,
    };
    Running {
        config,
        spans_arrive,
    }
}

/// Looks at what it waits for; what it says of its configuration, for [`reloads`].
async fn ready(client: &AdminClient, report: &mut Report) -> Option<String> {
    let (status, body) = client.get("/ready").await.ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let conditions = body["conditions"].as_object().cloned().unwrap_or_default();
    for (name, state) in &conditions {
        let detail = state["detail"].as_str().unwrap_or_default();
        if name == "configuration" && state["met"] == true {
            continue;
        }
        if state["met"] == true {
            report.ok(R, format!("{name}: {detail}"));
        } else {
            report.fail(Check::C003, R, format!("{name}: waits: {detail}"));
        }
    }
    if status != 200 && conditions.is_empty() {
        report.fail(
            Check::C003,
            R,
            format!("not ready: /ready answers {status}"),
        );
    }
    let configuration = conditions.get("configuration")?["detail"].as_str()?;
    Some(configuration.to_owned())
}

/// The configuration it runs with; only keys that were given, so that it reads as a file does.
async fn running_configuration(client: &AdminClient, report: &mut Report) -> Option<Config> {
    let given = match client.json("/config.json").await {
        Ok(given) => given.to_string(),
        Err(error) => {
            report.warn(
                Check::C006,
                R,
                format!("its configuration is not shown: {error}"),
            );
            return None;
        }
    };
    let environment = super::of_a_pod(HashMap::new());
    match config::load("config.json", &given, &environment) {
        Ok(loaded) => Some(loaded.config),
        Err(problems) => {
            report.warn(
                Check::C006,
                R,
                format!(
                    "its configuration is of another version: {}",
                    problems.summary()
                ),
            );
            None
        }
    }
}

async fn listeners(client: &AdminClient, config: &Config, report: &mut Report) {
    let host = host_of(&client.admin);
    for router in &config.routers {
        let label = &router.router.label;
        for server in &router.router.servers {
            let addr = server.addr;
            if addr.port() == 0 {
                continue;
            }
            if addr.ip().is_loopback() && !is_loopback(host) {
                report.note(
                    R,
                    format!("router {label}: {addr} is reachable from its own host only"),
                );
                continue;
            }
            let target = reachable(host, addr);
            match connect(&target).await {
                Ok(_) => report.ok(R, format!("router {label} accepts connections at {addr}")),
                Err(error) => {
                    report.fail(
                        Check::C004,
                        R,
                        format!("router {label} does not accept connections at {target}: {error}"),
                    );
                }
            }
        }
    }
}

/// Where a listener is for somebody who reaches the admin port at `host`.
pub(super) fn reachable(host: &str, addr: SocketAddr) -> String {
    if addr.ip().is_unspecified() {
        format!("{}:{}", bracket(host), addr.port())
    } else {
        addr.to_string()
    }
}

/// The host of `host:port`.
pub(super) fn host_of(address: &str) -> &str {
    address
        .rsplit_once(':')
        .map_or(address, |(host, _)| host.trim_matches(['[', ']']))
}

fn watches(page: &str, report: &mut Report) {
    for (labels, age) in samples(page, "rutter_namer_watch_age_seconds") {
        if age > STALE_SECONDS {
            report
                .warn(
                    Check::C050,
                    Category::Names,
                    format!("a watch was confirmed {age:.0} s ago {labels}"),
                )
                .effect("the last known endpoints are served, right or not");
        } else {
            report.ok(
                Category::Names,
                format!("watch confirmed {age:.0} s ago {labels}"),
            );
        }
    }
}

/// RT-C007: the file as it is now was refused. `/ready` says why, unless the router is older than that.
fn reloads(page: &str, why: Option<&str>, report: &mut Report) {
    let successful = samples(page, "rutter_config_last_reload_successful").map(|(_, n)| n);
    if successful.min_by(f64::total_cmp) == Some(0.0) {
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        report
            .warn(
                Check::C007,
                R,
                format!("a changed configuration was refused{why}"),
            )
            .effect("the configuration from before stays in force until the router is restarted");
    } else if let Some(why) = why {
        report.ok(R, format!("configuration: {why}"));
    }
}

fn descriptors(page: &str, report: &mut Report) {
    let one = |name: &str| samples(page, name).map(|(_, n)| n).next();
    let (Some(open), Some(max)) = (one("process_open_fds"), one("process_max_fds")) else {
        return;
    };
    let told = format!("{open:.0} of {max:.0} file descriptors are in use");
    if open > max * (1.0 - FREE_DESCRIPTORS) {
        report.fail(Check::C005, R, told);
    } else {
        report.ok(R, told);
    }
}

/// Label part and value of a metric's samples on a Prometheus page.
pub(super) fn samples<'a>(
    page: &'a str,
    name: &'a str,
) -> impl Iterator<Item = (String, f64)> + 'a {
    page.lines().filter_map(move |line| {
        let rest = line
            .strip_prefix(name)
            .filter(|r| r.starts_with(['{', ' ']))?;
        let (labels, value) = rest.rsplit_once(' ')?;
        Some((labels.trim().to_owned(), value.parse().ok()?))
    })
}

pub(super) async fn connect(target: &str) -> std::io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
        Ok(stream) => stream,
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", CONNECT.as_secs()),
        )),
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
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

    #[test]
    fn a_wildcard_listener_is_reached_where_the_admin_port_is() {
        let wild = "0.0.0.0:4140".parse().unwrap();
        assert_eq!(reachable(host_of("10.0.0.1:9990"), wild), "10.0.0.1:4140");
        assert_eq!(reachable(host_of("[::1]:9990"), wild), "[::1]:4140");
        let own = "127.0.0.1:4140".parse().unwrap();
        assert_eq!(reachable("10.0.0.1", own), "127.0.0.1:4140");
    }
}
