//! `rutter proxy-env`: adds `http_proxy` and `no_proxy` to the pod specs of Kubernetes objects, or takes them out again.
//!
//! The text is edited, not written anew: comments, order and spelling of everything else stay (`0644` would not survive
//! a YAML writer). [`edit`] finds the places; every edited document is read again and compared with what was meant.

use std::io::Write as _;

use super::{Exit, complain, read_text};
use crate::config::yaml;

mod edit;

use edit::{Change, Proxy};

/// What `rutter proxy-env --help` says.
pub(super) const ABOUT: &str = "\
Reads Kubernetes objects (YAML with any number of documents, or JSON), and writes them with these variables in every \
container and init container of their pods:

  RUTTER_NODE_IP  the node's address, from status.hostIP
  http_proxy      http://$(RUTTER_NODE_IP):4140
  no_proxy        localhost,127.0.0.1,::1,169.254.169.254,$(RUTTER_NODE_IP)

So curl, Go, Python, Ruby and most others send their http:// requests to the router on their own node. (Java wants \
-Dhttp.proxyHost, Node.js its own agent or NODE_USE_ENV_PROXY=1.)

Changed are Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, PodTemplate, and \
lists of them; everything else passes as it came, and so do comments and order. A container that has an http_proxy of \
its own keeps it, which is said. Doing it twice changes nothing more; --undo takes out exactly what was put in.";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The objects; `-`, and no file at all, is stdin. Several are written one after the other
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Take out again what an earlier run has put in
    #[arg(long)]
    undo: bool,
    /// The router's port on the node
    #[arg(long, value_name = "PORT", default_value_t = 4140, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Send requests to this Service rather than to the node's address (for reach: nodeLocalService), NAME.NAMESPACE
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Names and addresses that are asked without the proxy, too; separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    no_proxy: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let proxy = match Proxy::new(args.port, args.service.as_deref(), &args.no_proxy) {
        Ok(proxy) => proxy,
        Err(message) => {
            complain(&message);
            return Ok(Exit::Usage);
        }
    };
    let change = if args.undo {
        Change::Undo
    } else {
        Change::Add(Box::new(proxy))
    };
    let stdin = ["-".to_owned()];
    let files = if args.files.is_empty() {
        &stdin[..]
    } else {
        &args.files
    };
    let mut texts = Vec::new();
    let mut notes = Vec::new();
    for file in files {
        let done = read_text(file).and_then(|text| changed(&text, &change, &mut notes));
        match done {
            Ok(text) => texts.push(text),
            Err(message) => {
                // Nothing is written: half of what was asked for would be applied as if it were all.
                complain(&format!(
                    "{}: {message}",
                    if file == "-" { "stdin" } else { file }
                ));
                return Ok(Exit::No);
            }
        }
    }
    write(&texts)?;
    for note in notes {
        complain(&note);
    }
    Ok(Exit::Done)
}

fn write(texts: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (i, text) in texts.iter().enumerate() {
        if i > 0 && !text.starts_with("---") {
            out.write_all(b"---\n")?;
        }
        out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// A whole file with all its documents changed. `notes` gets what people should know.
///
/// # Errors
/// Which document is not YAML, or cannot be changed, and why.
fn changed(text: &str, change: &Change, notes: &mut Vec<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 512);
    let (mut pods, mut containers) = (0, 0);
    for document in documents(text) {
        out.push_str(&text[document.before.clone()]);
        let source = &text[document.content.clone()];
        if says_nothing(source) {
            out.push_str(source);
            continue;
        }
        let line = text[..document.content.start].matches('\n').count();
        let tree = yaml::parse(source).map_err(|e| {
            format!(
                "line {}, column {}: {}",
                line + e.place.line,
                e.place.column,
                e.message
            )
        })?;
        let edited = edit::document(source, &tree, change, notes)
            .map_err(|message| format!("the document at line {}: {message}", line + 1))?;
        pods += edited.pods;
        containers += edited.containers;
        out.push_str(&edited.text);
    }
    notes.push(match (pods, containers) {
        (0, _) => "no pods in it: nothing was changed".to_owned(),
        (_, 0) => "nothing was left to change".to_owned(),
        (_, 1) => "1 container changed".to_owned(),
        (_, n) => format!("{n} containers changed"),
    });
    Ok(out)
}

/// A document of a stream: the separator in front of it, and itself.
#[derive(Debug, PartialEq, Eq)]
struct Document {
    before: std::ops::Range<usize>,
    content: std::ops::Range<usize>,
}

/// Splits a stream at its `---` and `...` lines. Within a document nothing of that kind stands in the first column.
fn documents(text: &str) -> Vec<Document> {
    let mut found = Vec::new();
    let (mut before, mut start, mut at) = (0..0, 0, 0);
    for line in text.split_inclusive('\n') {
        let mark = ["---", "..."].iter().any(|mark| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        });
        if mark {
            found.push(Document {
                before: before.clone(),
                content: start..at,
            });
            before = at..at + 3;
            start = at + 3;
        }
        at += line.len();
    }
    found.push(Document {
        before,
        content: start..text.len(),
    });
    found
}

/// Blank lines, comments and directives only.
fn says_nothing(document: &str) -> bool {
    let mut lines = document.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with(['#', '%']))
}

#[cfg(test)]
mod tests;
