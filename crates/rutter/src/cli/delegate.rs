//! `rutter delegate PATH`: what the dtab does to a path.

use std::io::IsTerminal as _;

use dtab::{Dtab, Path};
use serde_json::{Value, json};

use super::admin_client::{AdminClient, NoAnswer, Target, escape};
use super::offline::Offline;
use super::{Exit, Output, Style, complain, load, say, say_json, tree};
use crate::config::settings::Config;
use crate::config::{Environment, Purpose};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The path, such as /svc/web
    path: String,
    /// Another dtab than the router's: a text, or a file's name
    #[arg(long, value_name = "FILE|TEXT")]
    dtab: Option<String>,
    /// Look at this configuration instead of asking a router; namers are not asked
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<String>,
    /// Which router, by its label [default: the first]
    #[arg(long, value_name = "LABEL")]
    router: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, environment: Environment) -> anyhow::Result<Exit> {
    let path = match Path::read(&args.path) {
        Ok(path) => path,
        Err(error) => {
            complain(&format!("not a path:\n{}", error.report(&args.path)));
            return Ok(Exit::Usage);
        }
    };
    let dtab = match args.dtab.as_deref().map(given_dtab).transpose() {
        Ok(dtab) => dtab,
        Err(message) => {
            complain(&message);
            return Ok(Exit::Usage);
        }
    };
    let style = Style::of(&environment, std::io::stdout().is_terminal());
    let tree = match (&args.config, dtab) {
        (Some(file), dtab) => match from_config(file, args.router.as_deref(), dtab, environment)? {
            Ok((config, dtab)) => {
                super::block_on(async { Offline::new(&config).delegate(&dtab, &path) })?
            }
            Err(exit) => return Ok(exit),
        },
        (None, dtab) => match super::block_on(from_router(args, &path, dtab, &environment))? {
            Ok(tree) => tree,
            Err((exit, message)) => {
                complain(&message);
                return Ok(exit);
            }
        },
    };
    let good = tree::leads_somewhere(&tree);
    match args.output {
        Output::Json => {
            _ = say_json(
                &json!({ "schema": "rutter/delegate/v1", "path": path.to_string(), "bound": good, "tree": tree }),
            )?;
        }
        Output::Table => _ = say(&tree::draw(&tree, style))?,
    }
    Ok(if good { Exit::Done } else { Exit::No })
}

/// A dtab from the command line: a file when there is one of that name, else the text itself.
fn given_dtab(given: &str) -> Result<Dtab, String> {
    let file = !given.contains("=>") && std::path::Path::new(given).is_file();
    let text = if file {
        std::fs::read_to_string(given).map_err(|e| format!("{given} cannot be read: {e}"))?
    } else {
        given.to_owned()
    };
    Dtab::read(&text).map_err(|e| format!("not a dtab:\n{}", e.report(&text)))
}

fn from_config(
    file: &str,
    label: Option<&str>,
    dtab: Option<Dtab>,
    environment: Environment,
) -> anyhow::Result<Result<(Config, Dtab), Exit>> {
    let environment = environment.for_purpose(Purpose::Text);
    let loaded = match load(file, &environment) {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(Err(exit)),
    };
    if let Some(dtab) = dtab {
        return Ok(Ok((loaded.config, dtab)));
    }
    let routers = &loaded.config.routers;
    let found = routers
        .iter()
        .find(|r| label.is_none_or(|l| &*r.router.label == l));
    let found = found.map(|r| r.dtab.clone());
    let found = found.ok_or_else(|| {
        let labels: Vec<&str> = routers.iter().map(|r| &*r.router.label).collect();
        complain(&format!(
            "no router with that label; there are: {}",
            labels.join(", ")
        ));
        Exit::NotFound
    });
    Ok(found.map(|dtab| (loaded.config, dtab)))
}

/// Asks a running router, with its own dtab unless another was given.
async fn from_router(
    args: &Args,
    path: &Path,
    dtab: Option<Dtab>,
    environment: &Environment,
) -> Result<Value, (Exit, String)> {
    let client = AdminClient::new(&args.target, environment);
    let (label, own) = router(&client, args.router.as_deref()).await?;
    let dtab = dtab.map_or(own, |d| d.to_string());
    ask(&client, &label, path, &dtab)
        .await
        .map_err(|e| failed(&e))
}

/// The delegation of a path by a router's own functions.
pub(super) async fn ask(
    client: &AdminClient,
    label: &str,
    path: &Path,
    dtab: &str,
) -> Result<Value, NoAnswer> {
    let query = format!(
        "/delegator.json?namespace={}&path={}&dtab={}",
        escape(label),
        escape(&path.to_string()),
        escape(dtab)
    );
    client.json(&query).await
}

/// Label and dtab of a router, from its own configuration.
pub(super) async fn router(
    client: &AdminClient,
    label: Option<&str>,
) -> Result<(String, String), (Exit, String)> {
    let config = client.json("/config.json").await.map_err(|e| failed(&e))?;
    let routers: Vec<(String, String)> = config["routers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|r| {
            let label = Some(tree::text(r, "label"))
                .filter(|l| !l.is_empty())
                .unwrap_or_else(|| tree::text(r, "protocol"));
            (label.to_owned(), tree::text(r, "dtab").to_owned())
        })
        .collect();
    let labels: Vec<&str> = routers.iter().map(|(l, _)| l.as_str()).collect();
    let none = (
        Exit::NotFound,
        format!(
            "no router with that label at {}; there are: {}",
            client.admin,
            labels.join(", ")
        ),
    );
    routers
        .iter()
        .find(|(l, _)| label.is_none_or(|wanted| l == wanted))
        .cloned()
        .ok_or(none)
}

/// A failure to ask, as a command's end.
pub(super) fn failed(error: &NoAnswer) -> (Exit, String) {
    let exit = match error.status() {
        Some(400) => Exit::Usage,
        Some(_) => Exit::No,
        None => Exit::Unreachable,
    };
    (exit, error.to_string())
}
