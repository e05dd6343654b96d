//! Names that a source is asked for again and again, each in a task of its own as long as somebody uses it. What of its answers
//! is believed is decided here.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dtab::{NameTree, Path};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::namers::Dns;
use crate::namers::dns;
use crate::namers::system::literal;
use crate::{Activity, Addr, Addrs, Bound, Endpoint, Name, NamerError, Reads, Target, Var};

/// So many names are followed at the same time; whoever makes names up gets no further.
const MOST: usize = 10_000;
/// How often unused names are looked for; one that is unused twice in a row is given up.
const SWEEP: Duration = Duration::from_secs(30);

/// What a source answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// These places, at least one.
    Places(Vec<Place>),
    /// That there is nothing of that name.
    Nothing,
    /// An error: that says nothing about the name.
    Failed(Arc<str>),
}

/// One place as the source writes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// A name or an address.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) weight: f64,
    /// The host name to ask for there, if not the request's.
    pub(super) authority: Option<Arc<str>>,
}

/// How a source is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Belief {
    /// So many answers in a row have to say that a name is gone which was there.
    pub(super) to_lose: u32,
    /// What an error says to who has no answer yet.
    pub(super) unanswered: Unanswered,
}

/// What becomes of a name when the first thing that its source says is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It counts as not there, so that an alternative is taken.
    Nothing,
    /// It fails with the error.
    Fails,
    /// It is waited for, as long as a binding may take.
    #[cfg_attr(not(any(test, feature = "zookeeper")), expect(dead_code))]
    Waits,
}

/// A name and what is known of it.
pub(super) struct Followed {
    existence: Var<Existence>,
    places: Var<Places>,
    record: Mutex<Record>,
}

#[derive(Clone, Debug, PartialEq)]
enum Existence {
    /// Not answered yet; what went wrong so far.
    Unknown(Option<Arc<str>>),
    Failed(Arc<str>),
    Nothing,
    There,
}

/// The last good answer, and the host names in it.
#[derive(Default)]
struct Places(Vec<(Place, Host)>);

enum Host {
    Ip(IpAddr),
    Name(Arc<dns::Host>),
}

/// For pages and messages.
#[derive(Default)]
struct Record {
    /// Answers in a row that don't know the name any more.
    losses: u32,
    /// Why the last question had no answer.
    trouble: Option<Arc<str>>,
    asked: Option<Instant>,
    answered: Option<Instant>,
    /// What was asked last.
    question: String,
}

impl Followed {
    fn new() -> Self {
        Self {
            existence: Var::new(Existence::Unknown(None)),
            places: Var::default(),
            record: Mutex::default(),
        }
    }

    /// A question is put now.
    pub(super) fn asks(&self, question: &str) {
        let mut record = lock(&self.record);
        record.asked = Some(Instant::now());
        question.clone_into(&mut record.question);
    }

    /// Takes in an answer. Host names in it are followed by `dns`.
    pub(super) fn apply(&self, answer: Answer, belief: Belief, dns: &Dns) {
        let mut record = lock(&self.record);
        if !matches!(answer, Answer::Failed(_)) {
            record.answered = Some(Instant::now());
            record.trouble = None;
        }
        let before = self.existence.get();
        match answer {
            Answer::Places(places) => {
                record.losses = 0;
                let known = self.places.get();
                // The order says nothing.
                let same = known.0.len() == places.len()
                    && known.0.iter().all(|(place, _)| places.contains(place));
                if !same {
                    self.places.set(Places::new(places, dns));
                }
                self.existence.set_if_new(Existence::There);
            }
            Answer::Nothing => {
                record.losses += 1;
                if *before != Existence::There || record.losses >= belief.to_lose {
                    self.existence.set_if_new(Existence::Nothing);
                    // Else an old place would be there for a moment when the name comes again.
                    if !self.places.get().0.is_empty() {
                        self.places.set(Places::default());
                    }
                }
            }
            Answer::Failed(problem) => {
                if matches!(*before, Existence::Unknown(_) | Existence::Failed(_)) {
                    self.existence.set_if_new(match belief.unanswered {
                        Unanswered::Nothing => Existence::Nothing,
                        Unanswered::Fails => Existence::Failed(problem.clone()),
                        Unanswered::Waits => Existence::Unknown(Some(problem.clone())),
                    });
                }
                record.trouble = Some(problem);
            }
        }
    }

    /// Whether the last question had no answer.
    pub(super) fn in_trouble(&self) -> bool {
        lock(&self.record).trouble.is_some()
    }

    /// Whether somebody holds it beside the table and its task, or looks at what it says.
    fn in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 2 || self.existence.is_read() || self.places.is_read()
    }

    fn to_json(&self) -> Value {
        let record = lock(&self.record);
        let age = |then: Option<Instant>| then.map(|then| then.elapsed().as_secs_f64());
        json!({
            "state": {
                "running": true,
                "value": self.now(&mut Reads::new()).to_json(),
                "lastUpdatedSecondsAgo": age(record.answered),
            },
            "poll": {
                "request": record.question,
                "lastRequestSecondsAgo": age(record.asked),
                "lastResponseSecondsAgo": age(record.answered),
                "error": record.trouble,
            },
        })
    }

    fn now(&self, reads: &mut Reads) -> Addr {
        match &*self.existence.read(reads) {
            Existence::Unknown(_) => Addr::Pending,
            Existence::Failed(problem) => Addr::Failed(problem.clone()),
            Existence::Nothing => Addr::Neg,
            Existence::There => self.places.read(reads).addr(reads),
        }
    }
}

impl Addrs for Followed {
    fn addr(&self, reads: &mut Reads) -> Addr {
        self.now(reads)
    }
}

impl Places {
    fn new(places: Vec<Place>, dns: &Dns) -> Self {
        let host = |place: &Place| match literal(&place.host) {
            Some(ip) => Host::Ip(ip),
            None => Host::Name(dns.follow(&place.host)),
        };
        let with_host = |place: Place| {
            let host = host(&place);
            (place, host)
        };
        Self(places.into_iter().map(with_host).collect())
    }

    fn addr(&self, reads: &mut Reads) -> Addr {
        let mut all: Vec<Endpoint> = Vec::with_capacity(self.0.len());
        let (mut pending, mut seen) = (false, std::collections::HashSet::new());
        for (place, host) in &self.0 {
            let found = match host {
                Host::Ip(ip) => Addr::bound([Endpoint::new(SocketAddr::new(*ip, place.port))]),
                Host::Name(host) => host.addr(place.port, reads),
            };
            pending |= found == Addr::Pending;
            for endpoint in found.endpoints() {
                if seen.insert(endpoint.addr) {
                    let authority = place.authority.clone();
                    let endpoint = endpoint.clone().weighing(place.weight);
                    all.push(Endpoint {
                        authority,
                        ..endpoint
                    });
                }
            }
        }
        // Some hosts without an address are no reason to wait with the others.
        match pending && all.is_empty() {
            true => Addr::Pending,
            false => Addr::bound(all),
        }
    }
}

/// All names of a source that are followed, by what is asked for.
pub(super) struct Table {
    entries: Mutex<HashMap<Path, Entry>>,
    /// Where the tasks run.
    control: Handle,
    sweeper: Mutex<Option<AbortHandle>>,
}

struct Entry {
    followed: Arc<Followed>,
    task: AbortHandle,
    /// Sweeps since it was used.
    unused: u32,
}

impl Table {
    pub(super) fn new(control: Handle) -> Arc<Self> {
        let table = Arc::new(Self {
            entries: Mutex::default(),
            control,
            sweeper: Mutex::default(),
        });
        let sweeper = table.control.spawn(sweep(Arc::downgrade(&table)));
        *lock(&table.sweeper) = Some(sweeper.abort_handle());
        table
    }

    /// What is known of `key`; when nobody asked for it yet, `follow` is the task that is to ask the source. None when too
    /// many names are followed already.
    pub(super) fn get<F: Future<Output = ()> + Send + 'static>(
        &self,
        key: &Path,
        follow: impl FnOnce(Arc<Followed>) -> F,
    ) -> Option<Arc<Followed>> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(key) {
            entry.unused = 0;
            return Some(entry.followed.clone());
        }
        if entries.len() >= MOST {
            return None;
        }
        let followed = Arc::new(Followed::new());
        let task = self.control.spawn(follow(followed.clone()));
        let entry = Entry {
            followed: followed.clone(),
            task: task.abort_handle(),
            unused: 0,
        };
        entries.insert(key.clone(), entry);
        Some(followed)
    }

    /// A namer's answer to who asks for `key`.
    pub(super) fn lookup<F: Future<Output = ()> + Send + 'static>(
        &self,
        key: &Path,
        (id, residual): (Path, Path),
        reads: &mut Reads,
        follow: impl FnOnce(Arc<Followed>) -> F,
    ) -> Activity<NameTree<Name>> {
        let Some(followed) = self.get(key, follow) else {
            let message = format!("{MOST} names are followed already");
            return Activity::failed(NamerError::Unavailable { message });
        };
        match &*followed.existence.read(reads) {
            Existence::Unknown(None) => Activity::pending(format!("the first answer about {id}")),
            Existence::Unknown(Some(problem)) => Activity::pending(problem.clone()),
            Existence::Failed(problem) => Activity::failed(NamerError::Unavailable {
                message: problem.to_string(),
            }),
            Existence::Nothing => Activity::Ok(NameTree::Neg),
            Existence::There => {
                let target = Target::Endpoints(followed.clone());
                let bound = Bound::to(id, residual, target);
                Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
            }
        }
    }

    /// What is known of a name that is followed.
    pub(super) fn trouble(&self, key: &Path) -> Option<Arc<str>> {
        let entries = self.entries();
        lock(&entries.get(key)?.followed.record).trouble.clone()
    }

    /// Everything, by key.
    pub(super) fn to_json(&self) -> Value {
        let entries = self.entries();
        let mut all: Vec<_> = entries.iter().collect();
        all.sort_by_key(|(key, _)| key.to_string());
        let shown = all.into_iter();
        let shown = shown.map(|(key, entry)| (key.to_string(), entry.followed.to_json()));
        Value::Object(shown.collect::<Map<_, _>>())
    }

    fn sweep(&self) {
        self.entries().retain(|_, entry| {
            entry.unused = match entry.followed.in_use() {
                true => 0,
                false => entry.unused + 1,
            };
            let keep = entry.unused < 2;
            if !keep {
                entry.task.abort();
            }
            keep
        });
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Path, Entry>> {
        lock(&self.entries)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for (_, entry) in self.entries().drain() {
            entry.task.abort();
        }
        if let Some(sweeper) = lock(&self.sweeper).take() {
            sweeper.abort();
        }
    }
}

async fn sweep(table: Weak<Table>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(table) = table.upgrade() else { return };
        table.sweep();
    }
}

/// Says in the log that a source has begun or ceased to fail, once for each time.
pub(super) fn tell(namer: &Path, key: &Path, failed_before: bool, answer: &Answer) {
    match answer {
        Answer::Failed(error) if !failed_before => {
            warn!(%namer, path = %key, %error, "no answer, what is known stays");
        }
        Answer::Failed(_) => {}
        _ if failed_before => info!(%namer, path = %key, "answers again"),
        _ => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
