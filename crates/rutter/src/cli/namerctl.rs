//! `rutter namerctl`: Linkerd's client of the store, with what it prints on success; errors go to stderr.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::store_address::{Address, Certificates, base_url, bearer};
use super::{Exit, block_on, complain, read_text, say};
use crate::config::Environment;

/// Nobody waits longer for the store.
const PATIENCE: Duration = Duration::from_secs(35);
/// No answer is larger.
const MAX_ANSWER: usize = 64 << 20;
/// The first line of what `dtab get` prints.
const VERSION_LINE: &str = "# version ";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Where the store's API is [default: $NAMERCTL_BASE_URL, the file .namerctl.*, or http://localhost:4180]
    #[arg(long, global = true, value_name = "URL")]
    base_url: Option<String>,
    /// A file with the token that says who you are [default: $RUTTER_TOKEN_FILE; $RUTTER_TOKEN is the token itself]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    certificates: Certificates,
    /// A file with `base-url` [default: .namerctl.yaml, .json or .toml here or in a folder above]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Dtabs of the store
    #[command(subcommand)]
    Dtab(Dtab),
}

#[derive(clap::Subcommand, Debug)]
enum Dtab {
    /// The names of all dtabs, one a line
    #[command(alias = "ls")]
    List,
    /// A dtab with its version
    #[command(alias = "cat")]
    Get {
        /// Its name
        name: String,
        /// As JSON: `{"version", "dtab"}`
        #[arg(long)]
        json: bool,
        /// One rule a line, with the version above
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        pretty: bool,
    },
    /// A new dtab
    #[command(alias = "new")]
    Create {
        /// Its name
        name: String,
        /// The dtab, or JSON as `dtab get --json` prints it; `-` is stdin
        file: String,
    },
    /// Another text for a dtab
    #[command(alias = "up")]
    Update {
        /// Its name
        name: String,
        /// The dtab, or JSON as `dtab get --json` prints it; `-` is stdin
        file: String,
        /// Only if this is the version in force [default: the one in the file: its line `# version …`, or in its JSON]
        #[arg(long)]
        version: Option<String>,
        /// Whatever version is in force
        #[arg(long, conflicts_with = "version")]
        force: bool,
    },
    /// Delete a dtab
    #[command(aliases = ["del", "rm"])]
    Delete {
        /// Its name
        name: String,
    },
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let store = match Store::of(args, environment) {
        Ok(store) => store,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Ok(Exit::Usage);
        }
    };
    let What::Dtab(command) = &args.what;
    match block_on(store.run(command))? {
        Ok(text) => say(&text),
        Err((exit, message)) => {
            complain(&message);
            Ok(exit)
        }
    }
}

/// The store's API, by its address.
struct Store {
    address: Address,
    /// `Bearer …`, when there is a token.
    bearer: Option<String>,
}

/// What is printed, or how it failed.
type Outcome = Result<String, (Exit, String)>;

/// What a file says: the body to send, with its type, and the version it was made from.
struct Given {
    body: String,
    media_type: &'static str,
    version: Option<String>,
}

struct Reply {
    status: http::StatusCode,
    version: Option<String>,
    body: Bytes,
}

impl Store {
    fn of(args: &Args, environment: &Environment) -> anyhow::Result<Self> {
        let url = base_url(
            args.base_url.as_deref(),
            ["NAMERCTL_BASE_URL", "RUTTER_BASE_URL"],
            args.config.as_deref(),
            environment,
        )?;
        Ok(Self {
            address: Address::read(&url, &args.certificates, environment)?,
            bearer: bearer(args.token_file.as_deref(), environment)?,
        })
    }

    async fn run(&self, command: &Dtab) -> Outcome {
        match command {
            Dtab::List => {
                let reply = self.ask("GET", "", Given::nothing(), None).await?;
                let names: Vec<String> = read_json(&reply.body)?;
                Ok(names.join("\n"))
            }
            Dtab::Get { name, json, pretty } => {
                let reply = self.ask("GET", name, Given::nothing(), None).await?;
                let dtab: Vec<Value> = read_json(&reply.body)?;
                Ok(shown(&dtab, reply.version.as_deref(), *json, *pretty))
            }
            Dtab::Create { name, file } => {
                self.ask("POST", name, Given::read(file)?, None).await?;
                Ok(format!("Created {name}"))
            }
            Dtab::Update {
                name,
                file,
                version,
                force,
            } => {
                let given = Given::read(file)?;
                let version = version
                    .clone()
                    .or_else(|| given.version.clone())
                    .filter(|_| !force);
                if version.is_none() {
                    complain(
                        "no version is given: whatever is in force is overwritten (`dtab get` prints the version as its first line)",
                    );
                }
                self.ask("PUT", name, given, version).await?;
                Ok(format!("Updated {name}"))
            }
            Dtab::Delete { name } => {
                self.ask("DELETE", name, Given::nothing(), None).await?;
                Ok(format!("Deleted {name}"))
            }
        }
    }

    /// One exchange; an answer that is none of success is an error.
    async fn ask(
        &self,
        method: &str,
        name: &str,
        given: Given,
        version: Option<String>,
    ) -> Result<Reply, (Exit, String)> {
        let path = match name {
            "" => "/api/1/dtabs".to_owned(),
            name => format!("/api/1/dtabs/{}", namerd::api::encoded(name)),
        };
        let accepted = if method == "GET" {
            "application/json"
        } else {
            "application/problem+json"
        };
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.authority())
            .header("accept", accepted);
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        if !given.media_type.is_empty() {
            request = request.header("content-type", given.media_type);
        }
        if let Some(version) = version {
            request = request.header("if-match", version);
        }
        let request = request.body(Full::new(Bytes::from(given.body)));
        let request = request.map_err(|error| (Exit::Usage, error.to_string()))?;
        let answered = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        let unreachable = |reason: String| {
            let message = format!(
                "no store answers at {} (--base-url, or $NAMERCTL_BASE_URL): {reason}",
                self.address.authority()
            );
            (Exit::Unreachable, message)
        };
        let reply = match answered {
            Ok(reply) => reply.map_err(|error| unreachable(format!("{error:#}")))?,
            Err(_) => {
                return Err(unreachable(format!(
                    "no answer within {} s",
                    PATIENCE.as_secs()
                )));
            }
        };
        match reply.status.as_u16() {
            200 | 201 | 204 => Ok(reply),
            404 => Err((
                Exit::NotFound,
                "resource was not found by ID or name".to_owned(),
            )),
            status => {
                let problem: Option<Value> = serde_json::from_slice(&reply.body).ok();
                let detail = problem
                    .as_ref()
                    .and_then(|problem| problem.get("detail")?.as_str());
                let detail = detail
                    .map(|detail| format!(": {detail}"))
                    .unwrap_or_default();
                let exit = if matches!(status, 409 | 412) {
                    Exit::Conflict
                } else {
                    Exit::No
                };
                Err((
                    exit,
                    format!("unexpected response: {}{detail}", reply.status),
                ))
            }
        }
    }

    async fn exchange(&self, request: hyper::Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let stream = self.address.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let version = response
            .headers()
            .get("etag")
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_owned);
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        driver.abort();
        Ok(Reply {
            status,
            version,
            body,
        })
    }
}

impl Given {
    fn nothing() -> Self {
        Self {
            body: String::new(),
            media_type: "",
            version: None,
        }
    }

    fn read(file: &str) -> Result<Self, (Exit, String)> {
        let text = read_text(file).map_err(|message| {
            (
                Exit::No,
                message.replace("config is not a file", "there is no file"),
            )
        })?;
        Self::of(&text).map_err(|reason| (Exit::No, format!("{file}: {reason}")))
    }

    /// As namerctl tells JSON from dtabs. A bare list is taken, too.
    fn of(text: &str) -> Result<Self, String> {
        if !text.starts_with(['{', '[']) {
            let version = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix(VERSION_LINE));
            return Ok(Self {
                body: text.to_owned(),
                media_type: "application/dtab",
                version: version.map(|version| version.trim().to_owned()),
            });
        }
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let dtab = value.get("dtab").unwrap_or(&value);
        if !dtab.is_array() {
            return Err(
                "expected {\"version\": …, \"dtab\": [{\"prefix\": …, \"dst\": …}]}".to_owned(),
            );
        }
        let version = value
            .get("version")
            .and_then(Value::as_str)
            .filter(|version| !version.is_empty());
        Ok(Self {
            body: dtab.to_string(),
            media_type: "application/json",
            version: version.map(str::to_owned),
        })
    }
}

fn read_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, (Exit, String)> {
    serde_json::from_slice(body).map_err(|error| {
        (
            Exit::No,
            format!("the store's answer cannot be read: {error}"),
        )
    })
}

/// A dtab as namerctl prints it.
fn shown(dtab: &[Value], version: Option<&str>, json: bool, pretty: bool) -> String {
    if json {
        return json!({"version": version.unwrap_or_default(), "dtab": dtab}).to_string();
    }
    let text = |dentry: &Value, field: &str| {
        dentry
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let rules: Vec<_> = dtab
        .iter()
        .map(|dentry| (text(dentry, "prefix"), text(dentry, "dst")))
        .collect();
    if !pretty {
        return rules
            .iter()
            .map(|(prefix, dst)| format!("{prefix} => {dst};"))
            .collect();
    }
    let width = rules
        .iter()
        .map(|(prefix, _)| prefix.len())
        .max()
        .unwrap_or_default();
    let mut out = version
        .map(|version| format!("{VERSION_LINE}{version}\n"))
        .unwrap_or_default();
    for (prefix, dst) in rules {
        let gap = " ".repeat(width - prefix.len());
        out.push_str(&format!("{prefix}{gap}  => {dst} ;\n"));
    }
    out
}

/// Whether the program was called by the client's own name.
pub(super) fn is_called(program: &std::ffi::OsStr) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name == "namerctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dtab_is_printed_as_namerctl_prints_it_and_read_back() {
        let dtab = [
            json!({"prefix": "/svc", "dst": "/#/io.l5d.fs"}),
            json!({"prefix": "/svc/world", "dst": "9.00*/svc/a & /svc/b"}),
        ];
        let text = shown(&dtab, Some("AAAAAAAAAAE="), false, true);
        let want = "# version AAAAAAAAAAE=\n/svc        => /#/io.l5d.fs ;\n/svc/world  => 9.00*/svc/a & /svc/b ;\n";
        assert_eq!(text, want);
        let given = Given::of(&text).unwrap();
        assert_eq!(
            (given.version.as_deref(), given.media_type),
            (Some("AAAAAAAAAAE="), "application/dtab")
        );
        assert!(dtab::Dtab::read(&given.body).is_ok());
        let json = shown(&dtab[..1], Some("v"), true, true);
        assert_eq!(
            json,
            r#"{"version":"v","dtab":[{"prefix":"/svc","dst":"/#/io.l5d.fs"}]}"#
        );
        let given = Given::of(&json).unwrap();
        assert_eq!(given.body, r#"[{"prefix":"/svc","dst":"/#/io.l5d.fs"}]"#);
        assert_eq!(
            (given.version.as_deref(), given.media_type),
            (Some("v"), "application/json")
        );
        assert_eq!(Given::of("[]").unwrap().body, "[]");
        assert!(Given::of("{\"version\":\"v\"}").is_err());
    }

    #[test]
    fn it_answers_to_its_own_name() {
        for (program, want) in [
            ("namerctl", true),
            ("/usr/bin/namerctl", true),
            ("rutter", false),
            ("/x/namerctl/rutter", false),
        ] {
            assert_eq!(is_called(program.as_ref()), want, "{program}");
        }
    }
}
