//! A router's admin port, from outside.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::Environment;

/// Nobody waits longer for an answer of an admin page.
const PATIENCE: Duration = Duration::from_secs(5);
/// No page of ours is larger.
const MAX_ANSWER: usize = 64 << 20;

/// Where a router's admin port is.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Target {
    /// The router's admin port, HOST:PORT [default: $RUTTER_ADMIN, or 127.0.0.1:9990]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nobody listens, or not in time.
    #[error("no router answers at {admin} (--admin, or $RUTTER_ADMIN): {reason}")]
    Unreachable {
        /// Whom we asked.
        admin: String,
        /// What happened.
        reason: String,
    },
    /// An answer that is none.
    #[error("{admin} answers {status} to {path}: {body}")]
    Status {
        /// Whom we asked.
        admin: String,
        /// For what.
        path: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// Not JSON.
    #[error("{admin} does not answer JSON to {path}: {reason}")]
    NotJson {
        /// Whom we asked.
        admin: String,
        /// For what.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl NoAnswer {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::NotJson { .. } => None,
        }
    }
}

/// One admin port.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    /// `host:port`.
    pub(super) admin: String,
}

impl AdminClient {
    /// Whether somebody said which admin port is meant.
    pub(super) fn is_named(target: &Target, environment: &Environment) -> bool {
        let variable = environment.variables.get("RUTTER_ADMIN");
        target.admin.is_some() || variable.is_some_and(|admin| !admin.is_empty())
    }

    pub(super) fn new(target: &Target, environment: &Environment) -> Self {
        let given = target
            .admin
            .clone()
            .or_else(|| environment.variables.get("RUTTER_ADMIN").cloned());
        let admin = given
            .filter(|a| !a.is_empty())
            .unwrap_or_else(|| "127.0.0.1:9990".into());
        let admin = admin
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Self {
            admin: if admin.contains(':') {
                admin
            } else {
                format!("{admin}:9990")
            },
        }
    }

    /// Status and body of a page.
    pub(super) async fn get(&self, path: &str) -> Result<(u16, Bytes), NoAnswer> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(path)).await;
        let unreachable = |reason: String| NoAnswer::Unreachable {
            admin: self.admin.clone(),
            reason,
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unreachable(format!("{error:#}"))),
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn exchange(&self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        let stream = TcpStream::connect(&self.admin).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header("host", &self.admin)
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?;
        driver.abort();
        Ok((status, body.to_bytes()))
    }

    /// A page as JSON.
    pub(super) async fn json(&self, path: &str) -> Result<Value, NoAnswer> {
        let (status, body) = self.get(path).await?;
        let (admin, path) = (self.admin.clone(), path.to_owned());
        if status != 200 {
            let body = String::from_utf8_lossy(&body).chars().take(300).collect();
            return Err(NoAnswer::Status {
                admin,
                path,
                status,
                body,
            });
        }
        serde_json::from_slice(&body).map_err(|e| NoAnswer::NotJson {
            admin,
            path,
            reason: e.to_string(),
        })
    }
}

/// Text in a query: everything that is not plainly a letter or digit as `%HH`.
pub(super) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_');
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
