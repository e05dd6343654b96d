//! `rutter shift`: moves a share of a name's traffic by the weights of one dentry, step by step, and back when the routers' own
//! numbers say so.

use std::time::Duration;

use dtab::{Dtab, NameTree, Path};
use namerd::change::edit::{Edit, Edits};
use namerd::change::shapes::{Shown, Traffic, Written, duration};
use serde_json::Value;

use super::dtab::{Manner, print};
use super::store_client::{Ask, Failure, StoreClient, Target};
use super::{Exit, Style, block_on, complain, say};
use crate::config::Environment;

mod guard;
mod weights;

use guard::{Guard, Numbers};
use weights::{shifted, text};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The prefix of the dentry whose weights change, such as /host/world
    prefix: String,
    /// Where a share goes, and which in percent: /srv/world-v2=10; without a share the steps say it
    #[arg(long, value_name = "TARGET[=PERCENT]")]
    to: String,
    /// The namespace
    #[arg(short, long, default_value = "default", value_name = "NS")]
    namespace: String,
    /// Shares in percent, one after another
    #[arg(long, value_delimiter = ',', value_name = "PERCENT,…")]
    steps: Vec<f64>,
    /// How long each step is watched
    #[arg(long, default_value = "1m", value_name = "TIME")]
    every: String,
    /// Go back when this becomes true: `success<99`, `p99>500ms`, and against the rest over the same time `success < old - 1`,
    /// `p99 > old * 2`
    #[arg(long, value_name = "CONDITION")]
    abort_if: Vec<String>,
    /// Show the routers' numbers of each step as they come
    #[arg(long)]
    watch: bool,
    /// Conditions are judged with so many requests
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    min_requests: u64,
    /// How often the routers' numbers are asked for while a step is watched; they report every 10 s
    #[arg(long, default_value = "5s", value_name = "TIME", hide = true)]
    poll: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    manner: Manner,
}

/// Which way a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forth,
    Back,
    /// Although names in use break.
    BackAllTheSame,
}

/// What is to be done, read and checked.
struct Shift<'a> {
    args: &'a Args,
    store: StoreClient,
    environment: &'a Environment,
    style: Style,
    target: Path,
    steps: Vec<f64>,
    every: Duration,
    poll: Duration,
    guards: Vec<Guard>,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let shift = match Shift::read(args, environment) {
        Ok(shift) => shift,
        Err(message) => {
            complain(&message);
            return Ok(Exit::Usage);
        }
    };
    let ended = block_on(async {
        tokio::select! {
            ended = shift.run() => ended,
            _ = tokio::signal::ctrl_c() => {
                complain(&format!("stopped at this step; `rutter dtab history {}` shows the steps, `rutter dtab rollback` goes back", args.namespace));
                Ok(Exit::Interrupted)
            }
        }
    })?;
    Ok(ended.unwrap_or_else(|failure| {
        complain(&failure.message);
        failure.exit
    }))
}

impl<'a> Shift<'a> {
    fn read(args: &'a Args, environment: &'a Environment) -> Result<Self, String> {
        use std::io::IsTerminal as _;
        let time = |name: &str, text: &str| {
            duration(text).ok_or_else(|| format!("--{name} takes a time such as 5m, found {text}"))
        };
        let (target, share) = match args.to.rsplit_once('=') {
            None => (args.to.as_str(), None),
            Some((target, share)) => {
                let read = share.trim_end_matches('%').parse::<f64>();
                (
                    target,
                    Some(read.map_err(|_| {
                        format!("--to takes TARGET=PERCENT, found {share:?} as the share")
                    })?),
                )
            }
        };
        let target = Path::read(target)
            .map_err(|error| format!("--to: {target} is no path: {}", error.summary()))?;
        let steps = match (share, args.steps.as_slice()) {
            (Some(share), []) => vec![share],
            (None, [_, ..]) => args.steps.clone(),
            (Some(_), _) => {
                return Err("give the share either with --to or with --steps".to_owned());
            }
            (None, []) => {
                return Err(format!(
                    "how much? such as --to {target}=10, or --steps 1,10,50,100"
                ));
            }
        };
        if let Some(wrong) = steps.iter().find(|share| !(0.0..=100.0).contains(*share)) {
            return Err(format!("a share is from 0 to 100 percent, found {wrong}"));
        }
        let guards = args
            .abort_if
            .iter()
            .map(|text| Guard::read(text))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            store: StoreClient::new(&args.target, environment)
                .map_err(|error| format!("{error:#}"))?,
            style: Style::of(environment, std::io::stdout().is_terminal()),
            every: time("every", &args.every)?,
            poll: time("poll", &args.poll)?.max(Duration::from_millis(50)),
            environment,
            args,
            target,
            steps,
            guards,
        })
    }

    async fn run(&self) -> Result<Exit, Failure> {
        let first = self.entry().await?;
        let mut now = first.clone();
        // The version that the way back leads to.
        let mut began = None;
        let last = self.steps.len() - 1;
        for (at, &share) in self.steps.iter().enumerate() {
            let next = shifted(&now, &self.target, share);
            let next_text = text(&next);
            let words = format!("shift {} -> {} {share} %", self.args.prefix, self.target);
            let before = self.numbers(&next).await?;
            let before_it = self.write(&now, &next_text, &words, Way::Forth).await?;
            began = began.or(before_it);
            now = next;
            // The last step of an unguarded shift has nothing to be watched for, unless somebody looks.
            if !self.counts() && at == last {
                break;
            }
            if let Some(why) = self.watch(&now, &before).await? {
                complain(&format!("aborted at {share} %: {why}"));
                let words = format!("shift {} aborted at {share} %: {why}", self.args.prefix);
                self.back(&now, &text(&first), &words, began).await?;
                return Ok(Exit::Refused);
            }
        }
        Ok(Exit::Done)
    }

    /// Goes back to what was there first, which may break names: a target's endpoints may have gone meanwhile. That needs a
    /// right of its own, which is asked for only then. A failure says what to do by hand.
    async fn back(
        &self,
        now: &NameTree<Path>,
        first: &str,
        words: &str,
        began: Option<u64>,
    ) -> Result<(), Failure> {
        let mut went = self.write(now, first, words, Way::Back).await;
        if let Err(failure) = &went
            && failure.is("would-break")
        {
            complain(&format!(
                "the way back breaks names in use, it is written all the same: {}",
                failure.message
            ));
            went = self.write(now, first, words, Way::BackAllTheSame).await;
        }
        let Err(failure) = went else {
            return Ok(());
        };
        let Args {
            prefix, namespace, ..
        } = self.args;
        let rights = match failure.problem.as_ref().map(|problem| problem.status) {
            Some(403) => ", by somebody who has the right `force`",
            _ => "",
        };
        let to = began.map_or_else(String::new, |number| format!(" --to {number}"));
        let message = format!(
            "NOT taken back: {}\n{prefix} still leads to {}; it was {first}. By hand{rights}: `rutter dtab rollback {namespace}{to} --allow-break`, \
             or `rutter dtab edit {namespace} --allow-break` when others have changed the dtab meanwhile",
            failure.message,
            text(now)
        );
        Err(Failure { message, ..failure })
    }

    /// Where the dentry leads now.
    async fn entry(&self) -> Result<NameTree<Path>, Failure> {
        let (name, prefix) = (&self.args.namespace, &self.args.prefix);
        let path = format!("dtabs/{}", namerd::api::encoded(name));
        let shown: Shown = self.store.json(Ask::new("GET", path)).await?;
        let unreadable = |error: ::dtab::ParseError| {
            Failure::new(
                Exit::Usage,
                format!("{prefix} is no prefix: {}", error.summary()),
            )
        };
        let wanted = ::dtab::Prefix::read(prefix).map_err(unreadable)?;
        let dtab =
            Dtab::read(&shown.text).map_err(|error| Failure::new(Exit::No, error.to_string()))?;
        let found = dtab
            .entries()
            .iter()
            .rev()
            .find(|dentry| dentry.prefix == wanted);
        let dst = found.map(|dentry| dentry.dst.clone()).ok_or_else(|| {
            let all: Vec<_> = dtab.entries().iter().map(|dentry| dentry.prefix.to_string()).collect();
            let near = crate::near::nearest(prefix, all.iter().map(String::as_str));
            let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            Failure::new(Exit::NotFound, format!("{name} has no dentry {prefix}{near}; add one first, such as {prefix} => /srv/world-v1"))
        })?;
        match dst {
            NameTree::Leaf(_) | NameTree::Union(_) => Ok(dst),
            other => Err(Failure::new(
                Exit::No,
                format!(
                    "{prefix} leads to {other}: only a path or a weighted union can be shifted"
                ),
            )),
        }
    }

    /// Sets the dentry's destination; gives the version that was in force before.
    async fn write(
        &self,
        was: &NameTree<Path>,
        dst: &str,
        words: &str,
        way: Way,
    ) -> Result<Option<u64>, Failure> {
        let mut manner = self.args.manner.clone();
        if way != Way::Forth {
            manner = manner.for_the_way_back();
        }
        manner.allow_break |= way == Way::BackAllTheSame;
        manner.note.get_or_insert_with(|| words.to_owned());
        let path = format!("dtabs/{}", namerd::api::encoded(&self.args.namespace));
        let mut ask = manner.ask("PATCH", &path, self.environment)?;
        let edit = Edit::Set {
            prefix: self.args.prefix.clone(),
            dst: dst.to_owned(),
            was: Some(text(was)),
        };
        ask.body = serde_json::to_string(&Edits { edits: vec![edit] }).unwrap_or_default();
        if manner.dry_run {
            let planned = self.store.json(ask).await?;
            self.say(&print::plan(&planned, dst, self.style));
            return Ok(None);
        }
        let written: Written = self.store.json(ask).await?;
        self.say(&format!(
            "{} => {dst}\n{}",
            self.args.prefix,
            print::written(&written, self.style)
        ));
        let late: Vec<_> = written
            .acks
            .iter()
            .filter(|ack| ack.tells && !ack.applied)
            .map(print::router)
            .collect();
        if !late.is_empty() && way == Way::Forth {
            complain(&format!("not in force yet on: {}", late.join(", ")));
        }
        Ok(written.before)
    }

    /// Whether the routers' numbers matter.
    fn counts(&self) -> bool {
        self.args.watch || !self.guards.is_empty()
    }

    fn say(&self, text: &str) {
        _ = say(text);
    }

    /// Watches a step; why it has to be taken back.
    async fn watch(
        &self,
        tree: &NameTree<Path>,
        before: &Numbers,
    ) -> Result<Option<String>, Failure> {
        let until = tokio::time::Instant::now() + self.every;
        let mut shown = String::new();
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            tokio::time::sleep(self.poll.min(left)).await;
            if !self.counts() || self.args.manner.dry_run() {
                if left.is_zero() {
                    return Ok(None);
                }
                continue;
            }
            let window = self.numbers(tree).await?.since(before);
            if self.args.watch || left.is_zero() {
                let line = format!("       {window}");
                if line != shown {
                    self.say(&line);
                }
                shown = line;
            }
            if self.guards.is_empty() {
                if left.is_zero() {
                    return Ok(None);
                }
                continue;
            }
            let enough = window.target.requests >= self.args.min_requests;
            let broken = enough
                .then(|| self.guards.iter().find_map(|guard| guard.broken(&window)))
                .flatten();
            if let Some(why) = broken {
                return Ok(Some(why));
            }
            if left.is_zero() {
                let why = format!(
                    "only {} requests went to {}, too few to judge (--min-requests {})",
                    window.target.requests, self.target, self.args.min_requests
                );
                return Ok((!enough).then_some(why));
            }
        }
    }

    /// What routers have counted for the target and for the rest of the union.
    async fn numbers(&self, tree: &NameTree<Path>) -> Result<Numbers, Failure> {
        if !self.counts() {
            return Ok(Numbers::default());
        }
        let mut leaves = Vec::new();
        tree.for_each_leaf(&mut |leaf| leaves.push(leaf.clone()));
        let path = format!(
            "dtabs/{}/traffic",
            namerd::api::encoded(&self.args.namespace)
        );
        let traffic: Traffic = self.store.json(Ask::new("GET", path)).await?;
        let mut numbers = Numbers::default();
        for leaf in leaves {
            let ids = self.ids(&leaf).await?;
            let counted = traffic
                .clients
                .iter()
                .filter(|client| ids.contains(&client.id));
            let side = if leaf == self.target {
                &mut numbers.target
            } else {
                &mut numbers.rest
            };
            counted.for_each(|client| side.add(client));
        }
        Ok(numbers)
    }

    /// The ids that a path is bound to.
    async fn ids(&self, path: &Path) -> Result<Vec<String>, Failure> {
        let namespace = namerd::api::encoded(&self.args.namespace);
        let path = namerd::api::encoded(&path.to_string());
        let ask = Ask::new("GET", format!("/api/1/bind/{namespace}?path={path}"));
        let tree: Value = self.store.json(ask).await?;
        let mut ids = Vec::new();
        collect(&tree, &mut ids);
        Ok(ids)
    }
}

/// The ids of a bound tree of `/api/1/bind`.
fn collect(tree: &Value, ids: &mut Vec<String>) {
    if let Some(id) = tree["bound"]["id"].as_str() {
        // Without the transformers in front, as routers report.
        let namer = [id.find("/#/"), id.find("/$/")].into_iter().flatten().min();
        let id = if id.starts_with("/%/") {
            &id[namer.unwrap_or(0)..]
        } else {
            id
        };
        ids.push(id.to_owned());
    }
    for branch in tree["union"].as_array().into_iter().flatten() {
        collect(&branch["tree"], ids);
    }
}
