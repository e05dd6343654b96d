//! `io.l5d.serversets` and `io.l5d.zkLeader`: groups of nodes in ZooKeeper.
//!
//! `session` keeps a connection and puts questions, `wire` writes and reads the messages, `member` says what the nodes mean.
//! [`client`] reads, follows and writes single nodes, for who keeps something in ZooKeeper.
//! Here each name that is asked for has a task that reads its group and then waits for the watches it has set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dtab::{NameTree, Path};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::followed::{Answer, Belief, Followed, Table, Unanswered, tell};
use crate::namers::Dns;
use crate::{Activity, Name, Namer, Reads};

pub mod client;
mod member;
mod session;
mod wire;

use member::{Group, Member};
use session::{Connection, Session, ZkError, backoff};
use wire::{Event, Op};

/// What ZooKeeper says holds at once; while it says nothing nobody is told that there is nothing.
const BELIEF: Belief = Belief {
    to_lose: 1,
    unanswered: Unanswered::Waits,
};
/// Changes that come so soon after another are read together.
const GATHER: Duration = Duration::from_millis(20);

/// Which groups a namer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZkKind {
    /// `io.l5d.serversets`: all members that are alive, each with an endpoint and perhaps more that have names.
    Serverset,
    /// `io.l5d.zkLeader`: the member with the lowest number.
    Leader,
}

/// The settings of a namer.
#[derive(Clone, Debug, PartialEq)]
pub struct ZkConfig {
    /// Its place behind `/#`.
    pub prefix: Path,
    /// What it reads.
    pub kind: ZkKind,
    /// ZooKeeper's servers, by name or address, with their ports; at least one.
    pub servers: Vec<(Arc<str>, u16)>,
}

/// Binds `/PATH`, or for serversets `/PATH:ENDPOINT#SHARD`, to a group in ZooKeeper; of a path whose group does not exist, the
/// longest one before it, and what is behind it is residual.
///
/// A group without members is none. Watches tell of changes. While there is no connection, what is known stays, and what is
/// not known is waited for.
pub struct ZkNamer {
    table: Arc<Table>,
    shared: Arc<Shared>,
}

struct Shared {
    config: ZkConfig,
    session: Session,
    dns: Dns,
}

impl ZkNamer {
    /// A namer that asks on `control`, and connects at once. Host names of members are followed by `dns`.
    pub fn new(config: ZkConfig, dns: Dns, control: Handle) -> Self {
        let session = Session::new(config.servers.clone(), &control);
        let shared = Shared {
            config,
            session,
            dns,
        };
        Self {
            table: Table::new(control),
            shared: Arc::new(shared),
        }
    }
}

impl Namer for ZkNamer {
    fn prefix(&self) -> &Path {
        &self.shared.config.prefix
    }

    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        let config = &self.shared.config;
        for used in (1..=rest.len()).rev() {
            let key = rest.take(used);
            let Some(group) = Group::of(config.kind, &key) else {
                continue;
            };
            let id = Path::utf8(["#"]).concat(&config.prefix).concat(&key);
            let follow = |followed| follow(self.shared.clone(), key.clone(), group, followed);
            let found = self
                .table
                .lookup(&key, (id, rest.drop(used)), reads, follow);
            if !matches!(found, Activity::Ok(NameTree::Neg)) {
                return found;
            }
        }
        Activity::Ok(NameTree::Neg)
    }

    fn state(&self) -> Value {
        self.table.to_json()
    }

    fn why_not(&self, rest: &Path) -> Option<String> {
        for used in (1..=rest.len()).rev() {
            if let Some(problem) = self.table.trouble(&rest.take(used)) {
                return Some(problem.to_string());
            }
        }
        Some(match Group::of(self.shared.config.kind, rest) {
            Some(group) => format!(
                "ZooKeeper has no {} with a member, and none above it",
                group.describe()
            ),
            None => "ZooKeeper can have no node of that name".to_owned(),
        })
    }
}

impl fmt::Debug for ZkNamer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkNamer")
            .field("prefix", &self.shared.config.prefix)
            .finish_non_exhaustive()
    }
}

/// Follows one group, for ever.
async fn follow(shared: Arc<Shared>, key: Path, group: Group, followed: Arc<Followed>) {
    let prefix = &shared.config.prefix;
    let take = |answer| followed.apply(answer, BELIEF, &shared.dns);
    let mut standing = shared.session.standing();
    // Of this name: what all of them suffer from, the session says in the log.
    let (mut failures, mut in_trouble) = (0, false);
    loop {
        let now = standing.borrow_and_update().clone();
        let Some(connection) = now.connection else {
            if let Some(problem) = now.problem {
                take(Answer::Failed(problem));
            }
            if standing.changed().await.is_err() {
                return;
            }
            continue;
        };
        let answered = |answer| {
            tell(prefix, &key, in_trouble, &answer);
            in_trouble = matches!(answer, Answer::Failed(_));
            failures = 0;
            take(answer);
        };
        let Err(error) = observe(&connection, &group, &followed, answered).await;
        match error {
            // The next standing says why.
            ZkError::Gone => {
                if standing.changed().await.is_err() {
                    return;
                }
            }
            ZkError::Wire(error) => {
                let problem = format!("ZooKeeper, {}: {error}", group.describe());
                let answer = Answer::Failed(problem.into());
                tell(prefix, &key, in_trouble, &answer);
                in_trouble = true;
                take(answer);
                tokio::time::sleep(backoff(failures, fastrand::f64())).await;
                failures += 1;
            }
        }
    }
}

/// Reads a group, and what changes of it, until that fails.
async fn observe(
    connection: &Connection,
    group: &Group,
    followed: &Followed,
    mut answered: impl FnMut(Answer),
) -> Result<std::convert::Infallible, ZkError> {
    let (told, mut events) = mpsc::unbounded_channel();
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    let mut due = Due::all();
    loop {
        followed.asks(&group.describe());
        if due.list {
            let names = list(connection, group, &told).await?;
            members.retain(|name, _| names.contains(name));
            due.members.retain(|name| names.contains(name));
            let new = names.into_iter().filter(|name| !members.contains_key(name));
            due.members.extend(new);
        }
        // All are asked for before the first answer is waited for.
        let asked: Vec<_> = std::mem::take(&mut due.members)
            .into_iter()
            .map(|name| {
                let node = format!("{}/{name}", group.node);
                (name, connection.ask(Op::Data, node, &told))
            })
            .collect();
        let mut vanished = false;
        for (name, pending) in asked {
            match pending.answer().await? {
                Some(body) => {
                    let member = group.read(&name, &wire::data(body)?);
                    members.insert(name, member);
                }
                None => vanished = true,
            }
        }
        if vanished {
            // The list is out of date: without it there would be a moment without a leader, or without any member.
            due = Due::all();
            continue;
        }
        answered(group.answer(&members));
        due = Due::default();
        let first = tokio::select! {
            event = events.recv() => event,
            () = connection.gone() => return Err(ZkError::Gone),
        };
        tokio::time::sleep(GATHER).await;
        let mut next = first;
        while let Some(event) = next {
            due.note(&event, group, &members);
            next = events.try_recv().ok();
        }
    }
}

/// The wanted members' names; none when there is no such group. Either way a watch is set.
async fn list(
    connection: &Connection,
    group: &Group,
    told: &mpsc::UnboundedSender<Event>,
) -> Result<BTreeSet<String>, ZkError> {
    loop {
        let ask = |op| connection.ask(op, group.node.clone(), told).answer();
        if let Some(body) = ask(Op::Children).await? {
            let names = wire::children(body)?;
            return Ok(group.wanted(names).into_iter().collect());
        }
        if ask(Op::Exists).await?.is_none() {
            return Ok(BTreeSet::new());
        }
        // It was made between the two questions.
    }
}

/// What has to be read again.
#[derive(Debug, Default, PartialEq)]
struct Due {
    list: bool,
    members: BTreeSet<String>,
}

impl Due {
    fn all() -> Self {
        Self {
            list: true,
            members: BTreeSet::new(),
        }
    }

    /// Takes in that a watch went off, which now has to be set anew.
    fn note(&mut self, event: &Event, group: &Group, members: &BTreeMap<String, Member>) {
        if event.path == group.node {
            self.list = true;
            return;
        }
        let below = event.path.strip_prefix(&group.node);
        if let Some(name) = below.and_then(|below| below.strip_prefix('/'))
            && members.contains_key(name)
        {
            self.members.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
