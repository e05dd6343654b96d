//! `--probe HOST`: a real request through the router, as an application's would be.

use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use telemetry::code::Check;

use super::installation::outgoing;
use super::report::{Category, Report};
use super::router::{connect, host_of, reachable};
use crate::cli::admin_client::AdminClient;
use crate::config::settings::Config;

const P: Category = Category::Probe;
/// Longest wait for an answer's head.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a request to each of these hosts.
pub(super) async fn look(
    client: &AdminClient,
    config: &Config,
    hosts: &[String],
    report: &mut Report,
) {
    let host = host_of(&client.admin);
    let loopback = config.routers.iter().flat_map(|r| &r.router.servers).next();
    let server = config
        .routers
        .iter()
        .flat_map(|r| &r.router.servers)
        .find(|server| outgoing(config).contains(&server.addr.port()))
        .or(loopback);
    let Some(server) = server.filter(|server| server.addr.port() != 0) else {
        return report.note(P, "no probe was sent: the router's port is not known");
    };
    let target = reachable(host, server.addr);
    for asked in hosts {
        let url = if asked.contains("://") {
            asked.clone()
        } else {
            format!("http://{asked}/")
        };
        let begun = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, get(&target, &url)).await;
        let took = begun.elapsed().as_millis();
        match answer {
            Ok(Ok(answer)) if answer.status < 500 && answer.error.is_none() => {
                report.ok(
                    P,
                    format!(
                        "GET {url} through {target}: {} after {took} ms",
                        answer.status
                    ),
                );
            }
            Ok(Ok(answer)) => {
                let by = match &answer.error {
                    Some(error) => format!(", by the router: {error}"),
                    None => ", by the service".to_owned(),
                };
                report
                    .fail(
                        Check::C070,
                        P,
                        format!("GET {url} through {target}: {}{by}", answer.status),
                    )
                    .fix(format!("rutter why {url} --admin {}", client.admin));
            }
            Ok(Err(error)) => {
                report.fail(
                    Check::C070,
                    P,
                    format!("GET {url} through {target}: {error:#}"),
                );
            }
            Err(_) => {
                report.fail(
                    Check::C070,
                    P,
                    format!(
                        "GET {url} through {target}: no answer within {} s",
                        PATIENCE.as_secs()
                    ),
                );
            }
        }
    }
}

struct Answer {
    status: u16,
    /// The first line of the router's own error.
    error: Option<String>,
}

async fn get(target: &str, url: &str) -> anyhow::Result<Answer> {
    let stream = connect(target).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let uri: http::Uri = url.parse()?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = hyper::Request::get(uri)
        .header("host", host)
        .header(
            "user-agent",
            concat!("rutter-check/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let error = response.headers().get("l5d-err").map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let text = decoded(&text);
        let first = text.lines().next().unwrap_or_default();
        first.split(" / ").next().unwrap_or_default().to_owned()
    });
    let status = response.status().as_u16();
    driver.abort();
    Ok(Answer { status, error })
}

/// `l5d-err` is URL-encoded, with `+` for blanks.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair: Vec<u8> = bytes.by_ref().take(2).collect();
                let pair = std::str::from_utf8(&pair).unwrap_or_default();
                out.extend(u8::from_str_radix(pair, 16));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routers_error_is_read_as_it_was_written() {
        assert_eq!(decoded("RT-E101%3A+no+such%0A%zz"), "RT-E101: no such\n");
    }
}
