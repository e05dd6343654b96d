//! A store's API, from outside: its address, one exchange, and what an error means for the exit code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use namerd::change::shapes::Problem;
use serde::de::DeserializeOwned;

use super::Exit;
use super::store_address::{Address, Certificates, base_url, bearer};
use crate::config::Environment;

/// Nobody waits longer for the store, beside what was asked for.
const PATIENCE: Duration = Duration::from_secs(35);
/// No answer is larger.
const MAX_ANSWER: usize = 64 << 20;
const BASE: &str = "/api/rutter/1/";

/// Which store is meant.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Target {
    /// Where the store's API is [default: $RUTTER_BASE_URL, $NAMERCTL_BASE_URL, the file .namerctl.*, or http://localhost:4180]
    #[arg(long, visible_alias = "store", global = true, value_name = "URL")]
    base_url: Option<String>,
    /// A file with the token that says who you are [default: $RUTTER_TOKEN_FILE; $RUTTER_TOKEN is the token itself]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    certificates: Certificates,
}

/// How something failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
    /// What the store says.
    pub(super) problem: Option<Box<Problem>>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            problem: None,
        }
    }

    /// Whether the store says that with this code.
    pub(super) fn is(&self, code: &str) -> bool {
        self.problem
            .as_ref()
            .is_some_and(|problem| problem.code == code)
    }
}

/// A request.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    /// Below the API's base, or whole when it begins with a slash; with its query.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// Beside the usual time.
    pub(super) wait: Duration,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: &'a str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: String::new(),
            wait: Duration::ZERO,
        }
    }
}

/// The store.
#[derive(Clone)]
pub(super) struct StoreClient {
    address: Address,
    /// `Bearer …`, when there is a token.
    bearer: Option<String>,
}

impl StoreClient {
    pub(super) fn new(target: &Target, environment: &Environment) -> anyhow::Result<Self> {
        let url = base_url(
            target.base_url.as_deref(),
            ["RUTTER_BASE_URL", "NAMERCTL_BASE_URL"],
            None::<&Path>,
            environment,
        )?;
        Ok(Self {
            address: Address::read(&url, &target.certificates, environment)?,
            bearer: bearer(target.token_file.as_deref(), environment)?,
        })
    }

    /// One exchange whose answer is JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Failure> {
        let body = self.text(ask).await?;
        serde_json::from_str(&body).map_err(|error| {
            let message = format!("the store's answer cannot be read ({error}): is it a rutter namerd of this version?");
            Failure::new(Exit::No, message)
        })
    }

    /// One exchange.
    pub(super) async fn text(&self, ask: Ask<'_>) -> Result<String, Failure> {
        let patience = PATIENCE + ask.wait;
        let answered = tokio::time::timeout(patience, async {
            let (status, body) = self.exchange(ask).await?;
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            Ok::<_, anyhow::Error>((status, body.map_err(anyhow::Error::from_boxed)?.to_bytes()))
        });
        match answered.await {
            Err(_) => Err(self.unreachable(&format!("no answer within {} s", patience.as_secs()))),
            Ok(Err(error)) => Err(self.unreachable(&format!("{error:#}"))),
            Ok(Ok((status, body))) if status.is_success() => {
                Ok(String::from_utf8_lossy(&body).into_owned())
            }
            Ok(Ok((status, body))) => Err(failure(status, &body)),
        }
    }

    /// An answer that goes on: `each` takes its lines, and says whether to go on.
    pub(super) async fn lines(
        &self,
        ask: Ask<'_>,
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<(), Failure> {
        let began = tokio::time::timeout(PATIENCE, self.exchange(ask)).await;
        let (status, mut body) = match began {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(&format!("{error:#}"))),
            Err(_) => return Err(self.unreachable("no answer")),
        };
        if !status.is_success() {
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes);
            return Err(failure(status, &body.unwrap_or_default()));
        }
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(&error.to_string()))?;
            buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(at) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=at).collect();
                if !each(String::from_utf8_lossy(&line).trim_end()) {
                    return Ok(());
                }
            }
        }
        Err(self.unreachable("the store ended the answer"))
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let message = format!(
            "no store answers at {} (--base-url, or $RUTTER_BASE_URL): {reason}",
            self.address.authority()
        );
        Failure::new(Exit::Unreachable, message)
    }

    async fn exchange(&self, ask: Ask<'_>) -> anyhow::Result<(http::StatusCode, Incoming)> {
        let stream = self.address.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the runtime of the command.
        tokio::spawn(connection);
        let path = match ask.path.starts_with('/') {
            true => ask.path,
            false => format!("{BASE}{}", ask.path),
        };
        let mut request = hyper::Request::builder()
            .method(ask.method)
            .uri(path)
            .header("host", self.address.authority());
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        for (name, value) in ask.headers {
            let value = hyper::header::HeaderValue::from_bytes(value.as_bytes())
                .with_context(|| format!("{value:?} cannot be sent"))?;
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(ask.body)))?;
        let response = sender.send_request(request).await?;
        Ok((response.status(), response.into_body()))
    }
}

fn failure(status: http::StatusCode, body: &[u8]) -> Failure {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let body: String = String::from_utf8_lossy(body).chars().take(300).collect();
        let message = format!("the store answers {status}: {body}");
        let exit = if status == 404 {
            Exit::NotFound
        } else {
            Exit::No
        };
        return Failure::new(exit, message);
    };
    let exit = match (problem.code.as_str(), problem.status) {
        ("would-break", _) => Exit::Refused,
        ("invalid-dtab", _) => Exit::No,
        (_, 404) => Exit::NotFound,
        (_, 409 | 412) => Exit::Conflict,
        (_, 503) => Exit::Unreachable,
        (_, 400) => Exit::Usage,
        _ => Exit::No,
    };
    Failure {
        exit,
        message: problem.detail.clone(),
        problem: Some(Box::new(problem)),
    }
}
