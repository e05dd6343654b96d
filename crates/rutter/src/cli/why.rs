//! `rutter why URL`: identify, delegate, bind, and a verdict.

use std::io::IsTerminal as _;

use dtab::Path;
use serde_json::{Value, json};
use telemetry::code::Code;

use super::admin_client::{AdminClient, Target, escape};
use super::delegate::{ask, failed, router};
use super::{Exit, Output, Sign, Style, complain, say, say_json, tree};
use crate::config::{self, Environment, Purpose};
use crate::identify::{self, Asked};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What a client would ask for: http://web/path, or only the host
    url: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    /// Which router, by its label [default: the first]
    #[arg(long, value_name = "LABEL")]
    router: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What was found out, step by step.
struct Story {
    url: String,
    method: String,
    admin: String,
    router: String,
    named: Result<Path, String>,
    tree: Option<Value>,
    verdict: Option<(Code, String)>,
    near: Option<String>,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let style = Style::of(environment, std::io::stdout().is_terminal());
    match super::block_on(investigate(args, environment))? {
        Ok(story) => {
            match args.output {
                Output::Json => _ = say_json(&story.to_json())?,
                Output::Table => _ = say(&story.tell(style))?,
            }
            Ok(if story.verdict.is_none() {
                Exit::Done
            } else {
                Exit::No
            })
        }
        Err((exit, message)) => {
            complain(&message);
            Ok(exit)
        }
    }
}

async fn investigate(args: &Args, environment: &Environment) -> Result<Story, (Exit, String)> {
    let client = AdminClient::new(&args.target, environment);
    let (host, uri) = split(&args.url);
    let (label, dtab) = router(&client, args.router.as_deref()).await?;
    let asked = Asked {
        router: label.clone(),
        host,
        method: args.method.clone(),
        uri,
    };
    let named = name(&client, &asked).await?;
    let mut story = Story {
        url: args.url.clone(),
        method: args.method.clone(),
        admin: client.admin.clone(),
        router: label.clone(),
        named,
        tree: None,
        verdict: None,
        near: None,
    };
    match story.named.clone() {
        Err(reason) => story.verdict = Some((Code::E100, reason)),
        Ok(path) => {
            let found = ask(&client, &label, &path, &dtab)
                .await
                .map_err(|e| failed(&e))?;
            if !tree::leads_somewhere(&found) {
                story.verdict = Some(verdict(&found));
                story.near = near_name(&client, &label, &path).await;
            }
            story.tree = Some(found);
        }
    }
    Ok(story)
}

/// Host and request target of what was typed.
fn split(url: &str) -> (String, String) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, uri) = rest.split_at(at);
    let uri = if uri.starts_with('/') {
        uri.to_owned()
    } else {
        format!("/{uri}")
    };
    (host.to_owned(), uri)
}

/// The request's name: the router is asked; one without that page has at least its configuration, and the functions are the same.
async fn name(client: &AdminClient, asked: &Asked) -> Result<Result<Path, String>, (Exit, String)> {
    let fields = [
        ("router", &asked.router),
        ("host", &asked.host),
        ("method", &asked.method),
        ("uri", &asked.uri),
    ];
    let query: Vec<String> = fields
        .iter()
        .map(|(k, v)| format!("{k}={}", escape(v)))
        .collect();
    let answer = match client
        .json(&format!("/identify.json?{}", query.join("&")))
        .await
    {
        Ok(answer) => answer,
        Err(error) if error.status() == Some(404) => by_configuration(client, asked).await?,
        Err(error) => return Err(failed(&error)),
    };
    let one = &answer[&asked.router];
    match one["path"].as_str() {
        Some(path) => Ok(Path::read(path).map_err(|e| e.to_string())),
        None => Ok(Err(tree::text(one, "error").to_owned())),
    }
}

async fn by_configuration(client: &AdminClient, asked: &Asked) -> Result<Value, (Exit, String)> {
    let given = client.json("/config.json").await.map_err(|e| failed(&e))?;
    let environment = Environment {
        purpose: Purpose::Text,
        ..Environment::default()
    };
    let loaded = config::load("config.json", &given.to_string(), &environment);
    let loaded = loaded.map_err(|p| {
        (
            Exit::Internal,
            format!("the router's configuration cannot be read:\n{}", p.render()),
        )
    })?;
    let routers: Vec<_> = loaded
        .config
        .routers
        .into_iter()
        .map(|r| r.router)
        .collect();
    Ok(identify::answer(&routers, asked))
}

/// Which error the client gets, from the branches' ends.
fn verdict(found: &Value) -> (Code, String) {
    let mut ends = Vec::new();
    tree::ends(found, &mut ends);
    let worst = ends
        .iter()
        .map(|end| judge(end))
        .min_by_key(|(rank, _, _)| *rank);
    worst.map_or(
        (Code::E101, "no such destination".into()),
        |(_, code, why)| (code, why),
    )
}

/// A branch's end: how much it says (0 most), its code, and why.
fn judge(end: &Value) -> (u8, Code, String) {
    let path = tree::text(end, "path");
    let addr = &end["bound"]["addr"];
    match (tree::text(end, "type"), tree::text(addr, "type")) {
        ("exception", _) => (
            0,
            Code::E117,
            format!("{path}: {}", tree::text(end, "message")),
        ),
        ("fail", _) => (1, Code::E102, format!("{path} ends in an explicit fail")),
        ("leaf", "pending") => (2, Code::E103, format!("{path} has not been answered yet")),
        ("leaf", "failed") => (
            0,
            Code::E117,
            format!("{path}: {}", tree::text(addr, "cause")),
        ),
        ("leaf", _) if tree::text(&end["bound"], "id").starts_with("/%/") => (
            1,
            Code::E104,
            format!("{path} exists, and a transformer left no endpoint of it"),
        ),
        ("leaf", _) => (1, Code::E105, format!("{path} exists and has no endpoint")),
        ("empty", _) => (1, Code::E105, format!("{path} is bound to nothing")),
        _ if path.starts_with("/#/") => (
            3,
            Code::E101,
            format!("the namer of {path} knows no such name"),
        ),
        _ => (
            4,
            Code::E101,
            format!("no entry of the dtab takes {path} further"),
        ),
    }
}

/// A name one slip away that does lead somewhere: the router knows.
async fn near_name(client: &AdminClient, label: &str, path: &Path) -> Option<String> {
    let page = format!(
        "/near.json?router={}&path={}",
        escape(label),
        escape(&path.to_string())
    );
    let answer = client.json(&page).await.ok()?;
    answer["near"].as_str().map(str::to_owned)
}

impl Story {
    fn tell(&self, style: Style) -> String {
        let mut lines = vec![format!(
            "request    {} {}   as seen by {}, router {}",
            self.method, self.url, self.admin, self.router
        )];
        match &self.named {
            Ok(path) => lines.push(format!("1 identify {} {path}", style.arrow())),
            Err(reason) => lines.push(format!("1 identify {} {reason}", style.sign(Sign::Fail))),
        }
        if let Some(found) = &self.tree {
            lines.push("2 delegate and bind".into());
            lines.extend(tree::draw(found, style).lines().map(|l| format!("  {l}")));
        }
        match (&self.verdict, self.tree.as_ref()) {
            (None, _) => lines.push(format!(
                "verdict    {} it leads to endpoints",
                style.sign(Sign::Ok)
            )),
            (Some((code, why)), _) => {
                lines.push(format!(
                    "verdict    {} {code} {}: {why}",
                    style.sign(Sign::Fail),
                    code.title()
                ));
                if let Some(status) = code.status() {
                    lines.push(format!(
                        "           the client gets {status} with l5d-err; rutter explain {code}"
                    ));
                }
            }
        }
        if let Some(near) = &self.near {
            lines.push(format!(
                "near       {near} leads to endpoints: did you mean that? rutter delegate {near} --admin {}",
                self.admin
            ));
        }
        lines.join("\n")
    }

    fn to_json(&self) -> Value {
        json!({
            "schema": "rutter/why/v1",
            "url": self.url,
            "method": self.method,
            "admin": self.admin,
            "router": self.router,
            "path": self.named.as_ref().ok().map(ToString::to_string),
            "not_identified": self.named.as_ref().err(),
            "tree": self.tree,
            "code": self.verdict.as_ref().map(|(code, _)| code.as_str()),
            "reason": self.verdict.as_ref().map(|(_, why)| why),
            "near": self.near,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_a_host_alone_may_be_typed() {
        for (typed, host, uri) in [
            ("http://web/", "web", "/"),
            ("web", "web", "/"),
            ("http://web:80/a?b=c", "web:80", "/a?b=c"),
            ("web?x", "web", "/?x"),
        ] {
            assert_eq!(split(typed), (host.to_owned(), uri.to_owned()), "{typed}");
        }
    }

    #[test]
    fn the_verdict_is_the_branch_that_says_most() {
        let leaf = |addr: Value, id: &str| json!({"type": "leaf", "path": "/#/x/y", "bound": {"id": id, "addr": addr}});
        let neg = |path: &str| json!({"type": "neg", "path": path});
        for (tree, code) in [
            (neg("/svc/x"), Code::E101),
            (
                json!({"type": "alt", "path": "/a", "alt": [neg("/b"), leaf(json!({"type": "neg"}), "/%/d/#/x/y")]}),
                Code::E104,
            ),
            (
                leaf(json!({"type": "bound", "addrs": []}), "/#/x/y"),
                Code::E105,
            ),
            (leaf(json!({"type": "pending"}), "/#/x/y"), Code::E103),
            (
                leaf(json!({"type": "failed", "cause": "401"}), "/#/x/y"),
                Code::E117,
            ),
            (json!({"type": "fail", "path": "/svc/x"}), Code::E102),
        ] {
            assert_eq!(verdict(&tree).0, code, "{tree}");
        }
    }
}
