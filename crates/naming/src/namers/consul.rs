//! `io.l5d.consul`: services of Consul's catalogue.
//!
//! Each name that is asked for has a task with one blocking query at a time (`api` makes it, [`Pace`] says what is asked next);
//! what of its answers is believed, `followed` decides.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dtab::{NameTree, Path, Segment};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::debug;

use super::followed::{Answer, Belief, Followed, Table, Unanswered, tell};
use crate::namers::Dns;
use crate::{Activity, Name, Namer, Reads, Var};

mod api;
mod nodes;

use api::{Api, Indexed};
use nodes::Wanted;

/// As Linkerd: one answer takes a name away, and a first error lets an alternative be taken.
const BELIEF: Belief = Belief {
    to_lose: 1,
    unanswered: Unanswered::Nothing,
};
/// As Linkerd's, the first and the longest wait after an error; jittered.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// Between two answers of the same name: a busy catalogue is asked that often and no more.
const LEAST: Duration = Duration::from_millis(50);
/// When an answer with the same index comes so soon, the server does not block: it is asked again after as long.
const BLOCKS: Duration = Duration::from_secs(1);
/// The data centre of the agent that is asked.
const LOCAL: &str = ".local";

/// The settings of a namer; defaults are Linkerd's.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulConfig {
    /// Its place behind `/#`.
    pub prefix: Path,
    /// Consul's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Paths have a tag before the service: `/DC/TAG/SERVICE`.
    pub include_tag: bool,
    /// Only instances whose checks have these statuses; none: the catalogue's, whatever their checks say.
    pub statuses: Option<Vec<Health>>,
    /// Sent as `X-Consul-Token`.
    pub token: Option<String>,
    /// Requests are sent with the service's name in Consul's DNS as host.
    pub set_host: bool,
    /// How consistent answers are to be.
    pub consistency: Consistency,
    /// The address of the service counts rather than the node's, where it has one.
    pub prefer_service_address: bool,
    /// What instances with a tag weigh.
    pub weights: HashMap<String, f64>,
}

/// What a node's or service's checks say, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is well.
    Passing,
    /// Not all is well.
    Warning,
    /// Something is not well at all.
    Critical,
    /// Taken out of service by hand.
    Maintenance,
}

/// `consistencyMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What Consul does unasked.
    #[default]
    Default,
    /// Any server may answer.
    Stale,
    /// The leader asks the others first.
    Consistent,
}

/// Binds `/DC/SERVICE`, or `/DC/TAG/SERVICE`, to a service's instances; case does not matter, and `.local` is the data centre
/// of the agent that is asked.
///
/// A service without instances is none, so that an alternative is taken. Errors keep what is known.
pub struct ConsulNamer {
    table: Arc<Table>,
    shared: Arc<Shared>,
}

struct Shared {
    config: ConsulConfig,
    api: Api,
    dns: Dns,
    /// What the agent says of itself; none before it did.
    agent: Var<Option<api::Agent>>,
}

impl ConsulNamer {
    /// A namer that asks on `control`. Host names in Consul's answers are followed by `dns`.
    pub fn new(config: ConsulConfig, dns: Dns, control: Handle) -> Self {
        Self::within(api::BLOCKING, config, dns, control)
    }

    /// A namer that gives up questions after `limit`.
    fn within(limit: Duration, config: ConsulConfig, dns: Dns, control: Handle) -> Self {
        let api = Api::new(&config, limit);
        let shared = Shared {
            config,
            api,
            dns,
            agent: Var::default(),
        };
        Self {
            table: Table::new(control),
            shared: Arc::new(shared),
        }
    }
}

/// What a path asks for.
#[derive(Clone, Debug)]
struct Service {
    dc: String,
    tag: Option<String>,
    name: String,
}

impl Service {
    /// None when the path is too short, or no text.
    fn of(path: &Path, tagged: bool) -> Option<Self> {
        let text = |segment: &Segment| segment.as_str().map(str::to_owned);
        let (dc, tag, name) = match (tagged, path.segments()) {
            (false, [dc, name, ..]) => (dc, None, name),
            (true, [dc, tag, name, ..]) => (dc, Some(tag), name),
            _ => return None,
        };
        Some(Self {
            dc: text(dc)?,
            tag: match tag {
                Some(tag) => Some(text(tag)?.to_lowercase()),
                None => None,
            },
            name: text(name)?.to_lowercase(),
        })
    }
}

impl Namer for ConsulNamer {
    fn prefix(&self) -> &Path {
        &self.shared.config.prefix
    }

    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        let config = &self.shared.config;
        let Some(service) = Service::of(rest, config.include_tag) else {
            return Activity::Ok(NameTree::Neg);
        };
        let used = if config.include_tag { 3 } else { 2 };
        let key = rest.take(used);
        let id = Path::utf8(["#"]).concat(&config.prefix).concat(&key);
        let follow = |followed| follow(self.shared.clone(), key.clone(), service, followed);
        self.table
            .lookup(&key, (id, rest.drop(used)), reads, follow)
    }

    fn state(&self) -> Value {
        self.table.to_json()
    }

    fn why_not(&self, rest: &Path) -> Option<String> {
        let tagged = self.shared.config.include_tag;
        let Some(service) = Service::of(rest, tagged) else {
            return Some("the path has too few segments".to_owned());
        };
        let key = rest.take(if tagged { 3 } else { 2 });
        if let Some(problem) = self.table.trouble(&key) {
            return Some(problem.to_string());
        }
        let Service { dc, tag, name } = service;
        let tag = tag.map(|tag| format!(" with tag `{tag}`"));
        Some(format!(
            "Consul has no instance of `{name}`{} in data centre `{dc}`",
            tag.unwrap_or_default()
        ))
    }
}

impl fmt::Debug for ConsulNamer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulNamer")
            .field("prefix", &self.shared.config.prefix)
            .finish_non_exhaustive()
    }
}

/// Asks for one service, for ever.
async fn follow(shared: Arc<Shared>, key: Path, service: Service, followed: Arc<Followed>) {
    let mut pace = Pace::default();
    loop {
        let asked = Instant::now();
        let outcome = ask(&shared, &service, pace.index, &followed).await;
        let (answer, wait) = match outcome {
            Ok(Indexed { value, index }) => {
                let wait = pace.answered(index, asked.elapsed());
                (value, wait)
            }
            Err(error) => {
                let wait = pace.failed(fastrand::f64());
                debug!(namer = %shared.config.prefix, path = %key, %error, ?wait, "Consul fails");
                (Answer::Failed(format!("Consul: {error}").into()), wait)
            }
        };
        tell(&shared.config.prefix, &key, followed.in_trouble(), &answer);
        followed.apply(answer, BELIEF, &shared.dns);
        tokio::time::sleep(wait).await;
    }
}

async fn ask(
    shared: &Shared,
    service: &Service,
    index: Option<u64>,
    followed: &Followed,
) -> Result<Indexed<Answer>, api::ApiError> {
    let config = &shared.config;
    let agent = match service.dc == LOCAL || config.set_host {
        true => Some(shared.agent().await?),
        false => None,
    };
    let local = agent.as_ref().filter(|_| service.dc == LOCAL);
    let dc = match local {
        // An agent that does not say where it is answers for where it is when it is not told.
        Some(agent) => agent.datacenter.clone(),
        None => Some(service.dc.clone()),
    };
    let uri = config.service_uri(service, dc.as_deref(), index);
    followed.asks(&uri);
    let Indexed { value, index } = shared.api.get(&uri, true).await?;
    let authority = agent.filter(|_| config.set_host).map(|agent| {
        let tag = service.tag.as_deref().map(|tag| format!("{tag}."));
        let (tag, dc) = (tag.unwrap_or_default(), dc.as_deref().unwrap_or(LOCAL));
        format!("{tag}{}.service.{dc}.{}", service.name, agent.domain)
    });
    let wanted = Wanted {
        config,
        authority: authority.map(Into::into),
    };
    let places = wanted.places(&value)?;
    let value = match places.is_empty() {
        true => Answer::Nothing,
        false => Answer::Places(places),
    };
    Ok(Indexed { value, index })
}

impl Shared {
    /// What the agent says of itself; asked for once.
    async fn agent(&self) -> Result<api::Agent, api::ApiError> {
        if let Some(known) = &*self.agent.get() {
            return Ok(known.clone());
        }
        let answer = self.api.get("/v1/agent/self", false).await?;
        let agent = api::Agent::read(&answer.value)?;
        self.agent.set(Some(agent.clone()));
        Ok(agent)
    }
}

impl ConsulConfig {
    fn service_uri(&self, service: &Service, dc: Option<&str>, index: Option<u64>) -> String {
        let what = match self.statuses {
            Some(_) => "health",
            None => "catalog",
        };
        let mut uri = format!("/v1/{what}/service/{}", api::encoded(&service.name));
        let mut begun = false;
        let mut put = |name: &str, value: &str| {
            uri.push(if begun { '&' } else { '?' });
            begun = true;
            uri.push_str(name);
            uri.push('=');
            uri.push_str(&api::encoded(value));
        };
        match self.consistency {
            Consistency::Default => {}
            Consistency::Stale => put("stale", "true"),
            Consistency::Consistent => put("consistent", "true"),
        }
        if let Some(index) = index {
            put("index", &index.to_string());
        }
        if let Some(dc) = dc {
            put("dc", dc);
        }
        if let Some(tag) = &service.tag {
            put("tag", tag);
        }
        if let Some(statuses) = &self.statuses {
            let only_passing = statuses[..] == [Health::Passing];
            put("passing", if only_passing { "true" } else { "false" });
        }
        uri
    }
}

/// What is asked next, and when: as Consul's documentation wants it of who blocks.
#[derive(Debug, Default)]
struct Pace {
    /// The next question blocks until Consul is past this; none: it is answered at once.
    index: Option<u64>,
    failures: u32,
}

impl Pace {
    /// How long to wait after an answer that took `took`.
    fn answered(&mut self, index: u64, took: Duration) -> Duration {
        self.failures = 0;
        let before = self.index;
        self.index = match before {
            // Consul was restored from a snapshot, or its agent changed servers: what it says now is asked for anew.
            Some(before) if index < before => None,
            // 0 would not block; 1 does.
            _ => Some(index.max(1)),
        };
        match before.is_some() && before == self.index && took < BLOCKS {
            true => BLOCKS,
            false => LEAST,
        }
    }

    /// How long to wait after an error; `jitter` is between 0 and 1. The next question does not block.
    fn failed(&mut self, jitter: f64) -> Duration {
        let longest = BACKOFF
            .0
            .saturating_mul(1 << self.failures.min(16))
            .min(BACKOFF.1);
        self.failures += 1;
        self.index = None;
        longest.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests;
