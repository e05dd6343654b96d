//! `rutter curl URL`: sends one request through a router, as an application with `http_proxy` would, and tells what became
//! of it. The container image has no other client.

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Exit, complain, say};
use crate::config::Environment;

/// Where a router listens unless it is told otherwise.
const OUTGOING: &str = "127.0.0.1:4140";
/// A larger answer is none for a terminal.
const MAX_ANSWER: usize = 64 << 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What an application would ask for: http://web/path
    url: String,
    /// The router, HOST:PORT [default: $http_proxy, or 127.0.0.1:4140]
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// Rules for this request alone: '/svc/web => /svc/web-v2'
    #[arg(long, value_name = "DTAB")]
    dtab: Option<String>,
    /// The request's method
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// A header; can be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A body; the method is POST then, unless -X says otherwise
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// The status that is wanted [default: any below 400]
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..600))]
    expect: Option<u16>,
    /// Longest time of one try, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    max_time: u64,
    /// Try again, once a second, for so long, until the answer is the wanted one
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    retry_for: u64,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    took: Duration,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let proxy = proxy(args, environment);
    let request = match request(args) {
        Ok(request) => request,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Ok(Exit::Usage);
        }
    };
    match super::block_on(tries(args, &proxy, &request))? {
        Ok(answer) => {
            tell(&answer, &proxy);
            if !answer.body.is_empty() {
                _ = say(&String::from_utf8_lossy(&answer.body))?;
            }
            if args.wants(answer.status) {
                return Ok(Exit::Done);
            }
            if let Some(expected) = args.expect {
                complain(&format!(
                    "status {expected} was expected, the answer has {}",
                    answer.status.as_u16()
                ));
            }
            Ok(Exit::No)
        }
        Err(error) => {
            complain(&format!(
                "no answer from the router at {proxy} (--proxy, or $http_proxy): {error:#}"
            ));
            Ok(Exit::Unreachable)
        }
    }
}

impl Args {
    fn wants(&self, status: StatusCode) -> bool {
        self.expect.map_or(status.as_u16() < 400, |expected| {
            status.as_u16() == expected
        })
    }
}

/// `host:port` of the router.
fn proxy(args: &Args, environment: &Environment) -> String {
    let variable = |name: &str| environment.variables.get(name).cloned();
    let given = args
        .proxy
        .clone()
        .or_else(|| variable("http_proxy"))
        .filter(|proxy| !proxy.is_empty())
        .unwrap_or_else(|| OUTGOING.to_owned());
    let given = given.trim_start_matches("http://").trim_end_matches('/');
    let has_port = given
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        given.to_owned()
    } else {
        format!("{given}:4140")
    }
}

/// In absolute form, as clients send to a proxy.
fn request(args: &Args) -> anyhow::Result<Request<Full<Bytes>>> {
    let url = if args.url.contains("://") {
        args.url.clone()
    } else {
        format!("http://{}", args.url)
    };
    let uri: Uri = url
        .parse()
        .with_context(|| format!("`{}` is no URL: expected http://HOST/PATH", args.url))?;
    let host = match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(host)) => host.to_string(),
        _ => anyhow::bail!(
            "`{}`: expected http://HOST/PATH; only plain HTTP is routed by name",
            args.url
        ),
    };
    let method = args.method.as_deref();
    let method = method.unwrap_or(if args.data.is_some() { "POST" } else { "GET" });
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header("host", host);
    if let Some(dtab) = &args.dtab {
        dtab::Dtab::read(dtab).map_err(|error| anyhow::anyhow!("--dtab: {error}"))?;
        request = request.header("l5d-dtab", dtab);
    }
    for header in &args.headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("-H '{header}': expected 'NAME: VALUE'"))?;
        request = request.header(name.trim(), value.trim());
    }
    let body = args.data.clone().unwrap_or_default();
    request
        .body(Full::from(body))
        .context("the request cannot be sent")
}

/// One try, or more of them until the answer is wanted or the time is over; gives the last one's outcome.
async fn tries(args: &Args, proxy: &str, request: &Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let end = Instant::now() + Duration::from_secs(args.retry_for);
    loop {
        let limit = Duration::from_secs(args.max_time);
        let outcome = match tokio::time::timeout(limit, send(proxy, request.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!(
                "nothing within {} s (--max-time)",
                args.max_time
            )),
        };
        let wanted = outcome
            .as_ref()
            .is_ok_and(|answer| args.wants(answer.status));
        if wanted || Instant::now() + PAUSE > end {
            return outcome;
        }
        match &outcome {
            Ok(answer) => complain(&format!("{}, trying again", answer.status)),
            Err(error) => complain(&format!("{error:#}, trying again")),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn send(proxy: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let began = Instant::now();
    let stream = TcpStream::connect(proxy).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)
        .context("the answer broke off")?;
    driver.abort();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
        took: began.elapsed(),
    })
}

/// On stderr, so that stdout is the body alone.
fn tell(answer: &Answer, proxy: &str) {
    let ms = answer.took.as_secs_f64() * 1000.0;
    complain(&format!("{} through {proxy} in {ms:.1} ms", answer.status));
    if let Some(code) = answer.headers.get("l5d-err").and_then(|v| v.to_str().ok()) {
        let code = code.split([' ', '%', ':']).next().unwrap_or_default();
        if code.starts_with("RT-E") {
            complain(&format!(
                "the router answered this itself: rutter explain {code}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        let line = ["curl"].iter().chain(words);
        Line::try_parse_from(line).unwrap().args
    }

    #[test]
    fn a_request_goes_out_in_absolute_form_with_what_was_given() {
        let given = args(&[
            "web/a?b=1",
            "--dtab",
            "/svc => /x",
            "-H",
            "a: b c",
            "-d",
            "hello",
        ]);
        let sent = request(&given).unwrap();
        assert_eq!(sent.uri(), "http://web/a?b=1");
        assert_eq!(sent.method(), "POST");
        assert_eq!(sent.headers()["host"], "web");
        assert_eq!(sent.headers()["l5d-dtab"], "/svc => /x");
        assert_eq!(sent.headers()["a"], "b c");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_what_was_expected() {
        for (words, message) in [
            (&["https://web/"][..], "only plain HTTP"),
            (&["web", "-H", "no colon"], "expected 'NAME: VALUE'"),
            (&["web", "--dtab", "/svc =>"], "--dtab"),
        ] {
            let error = format!("{:#}", request(&args(words)).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn the_router_is_the_option_then_the_variable_then_this_machines() {
        let with = |value: &str| Environment {
            variables: [("http_proxy".to_owned(), value.to_owned())].into(),
            ..Environment::default()
        };
        for (words, variable, want) in [
            (&["web"][..], "", "127.0.0.1:4140"),
            (&["web"], "http://10.0.0.1:4141/", "10.0.0.1:4141"),
            (&["web"], "node-1", "node-1:4140"),
            (&["web", "--proxy", "[::1]:4140"], "node-1", "[::1]:4140"),
        ] {
            assert_eq!(proxy(&args(words), &with(variable)), want);
        }
    }

    #[test]
    fn any_status_below_400_is_wanted_unless_one_is_named() {
        let wants =
            |words: &[&str], status: u16| args(words).wants(StatusCode::from_u16(status).unwrap());
        assert!(wants(&["web"], 204));
        assert!(!wants(&["web"], 502));
        assert!(wants(&["web", "--expect", "502"], 502));
        assert!(!wants(&["web", "--expect", "502"], 200));
    }
}
