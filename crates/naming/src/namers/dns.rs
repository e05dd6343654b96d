//! Host names followed through DNS: each one is asked again when its answer expires, and the last good answer stays
//! when there is none.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::{Addr, Endpoint, Reads, Var};

/// No answer is believed for less: a TTL of zero must not become a flood of questions.
const SHORTEST: Duration = Duration::from_secs(5);
/// No answer is believed for longer.
const LONGEST: Duration = Duration::from_secs(300);
/// The first and the longest wait after a question without an answer.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a name is followed at least, so that asking in quick succession asks DNS once.
const LINGER: Duration = Duration::from_secs(30);
/// How many names are followed at once: names may come from requests.
const MOST_HOSTS: usize = 10_000;

/// Follows host names; a cheap handle.
#[derive(Clone)]
pub struct Dns(Arc<Shared>);

struct Shared {
    resolver: TokioResolver,
    control: Handle,
    hosts: Mutex<HashMap<Key, Weak<Host>>>,
}

/// A host name, and whether it is looked up but once.
type Key = (Arc<str>, bool);

impl Dns {
    /// By the system's configuration, `/etc/resolv.conf` and `/etc/hosts`; without one only the latter is read.
    /// `control` is where questions are asked.
    pub fn system(control: Handle) -> Self {
        let (config, options) =
            hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|error| {
                warn!(%error, "no DNS configuration, only /etc/hosts is used");
                Default::default()
            });
        Self::new(config, options, control)
    }

    /// By a configuration of the resolver.
    pub fn new(config: ResolverConfig, mut options: ResolverOpts, control: Handle) -> Self {
        // As Java, which prefers IPv4: half of a name's addresses would be out of reach in a cluster without IPv6.
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        // Who follows a name is the cache.
        options.cache_size = 0;
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config, provider).with_options(options);
        let resolver = builder
            .build()
            .expect("without TLS there is nothing that can be wrong");
        Self(Arc::new(Shared {
            resolver,
            control,
            hosts: Mutex::default(),
        }))
    }

    /// The host's addresses, kept current as long as somebody holds the result.
    pub fn follow(&self, host: &str) -> Arc<Host> {
        self.get(host, false)
    }

    /// The host's addresses, which don't change once they are known.
    pub fn once(&self, host: &str) -> Arc<Host> {
        self.get(host, true)
    }

    fn get(&self, host: &str, once: bool) -> Arc<Host> {
        let key: Key = (host.into(), once);
        let mut hosts = self.0.hosts();
        if let Some(known) = hosts.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let host = Arc::new(Host {
            key: key.clone(),
            known: Var::new(Known::default()),
            shared: Arc::downgrade(&self.0),
            task: Mutex::default(),
        });
        if hosts.len() >= MOST_HOSTS {
            let problem = format!("{MOST_HOSTS} host names are followed already");
            host.known.set(Known {
                ips: None,
                problem: Some(problem.into()),
            });
            return host;
        }
        hosts.insert(key, Arc::downgrade(&host));
        drop(hosts);
        let task = self
            .0
            .control
            .spawn(follow(self.0.resolver.clone(), Arc::clone(&host)));
        *host.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        host
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("hosts", &self.0.hosts().len())
            .finish()
    }
}

impl Shared {
    fn hosts(&self) -> MutexGuard<'_, HashMap<Key, Weak<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One host name and what is known of it.
pub struct Host {
    key: Key,
    known: Var<Known>,
    shared: Weak<Shared>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    /// The last good answer; empty when DNS says that there is no such name and never said otherwise.
    ips: Option<Arc<[IpAddr]>>,
    /// Why there is no newer one.
    problem: Option<Arc<str>>,
}

impl Host {
    /// The host's name.
    pub fn name(&self) -> &str {
        &self.key.0
    }

    /// The host's addresses, each at this port.
    pub fn addr(&self, port: u16, reads: &mut Reads) -> Addr {
        let known = self.known.read(reads);
        match (&known.ips, &known.problem) {
            (Some(ips), _) if ips.is_empty() => Addr::Neg,
            (Some(ips), _) => Addr::bound(
                ips.iter()
                    .map(|ip| Endpoint::new(SocketAddr::new(*ip, port))),
            ),
            (None, Some(problem)) => Addr::Failed(problem.clone()),
            (None, None) => Addr::Pending,
        }
    }

    /// Takes in an answer, and says after how long to ask again; none for never.
    fn apply(&self, answer: Result<Answer, NetError>, failures: u32) -> Option<Duration> {
        let before = self.known.get();
        let (next, wait) = match answer {
            Ok(answer) => {
                let ips = Some(answer.ips);
                (
                    Known { ips, problem: None },
                    answer.ttl.clamp(SHORTEST, LONGEST),
                )
            }
            Err(error) => {
                // The name may be gone only for DNS; what worked is kept.
                let none = error.is_nx_domain() || error.is_no_records_found();
                let ips = before.ips.clone().or_else(|| none.then(|| [].into()));
                let problem = Some(format!("DNS: {}: {error}", self.name()).into());
                let wait = RETRY.0.saturating_mul(1 << failures.min(5)).min(RETRY.1);
                (
                    Known { ips, problem },
                    if none { wait.max(SHORTEST) } else { wait },
                )
            }
        };
        let settled = self.key.1 && next.ips.as_ref().is_some_and(|ips| !ips.is_empty());
        debug!(host = self.name(), known = ?next, "asked DNS");
        if next.ips != before.ips || next.problem.is_some() != before.problem.is_some() {
            self.known.set(next);
        }
        (!settled).then_some(wait)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(task) = self
            .task
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            task.abort();
        }
        if let Some(shared) = self.shared.upgrade() {
            let mut hosts = shared.hosts();
            // Somebody may have asked for the name again in the meantime.
            if hosts
                .get(&self.key)
                .is_some_and(|host| host.strong_count() == 0)
            {
                hosts.remove(&self.key);
            }
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name())
            .field("known", &self.known)
            .finish()
    }
}

struct Answer {
    ips: Arc<[IpAddr]>,
    ttl: Duration,
}

/// Asks again and again, until nobody holds the host any more.
async fn follow(resolver: TokioResolver, host: Arc<Host>) {
    let name = host.key.0.clone();
    let (started, weak) = (Instant::now(), Arc::downgrade(&host));
    let mut lingering = Some(host);
    let mut failures = 0;
    loop {
        let answer = ask(&resolver, &name).await;
        let Some(host) = weak.upgrade() else {
            return;
        };
        let failed = answer.is_err();
        let Some(wait) = host.apply(answer, failures) else {
            return;
        };
        failures = if failed { failures + 1 } else { 0 };
        drop(host);
        if lingering.is_some() {
            let rest = LINGER.saturating_sub(started.elapsed());
            tokio::time::sleep(wait.min(rest)).await;
            if rest > wait {
                continue;
            }
            lingering = None;
            tokio::time::sleep(wait.saturating_sub(rest)).await;
        } else {
            tokio::time::sleep(wait).await;
        }
    }
}

async fn ask(resolver: &TokioResolver, name: &str) -> Result<Answer, NetError> {
    let found = resolver.lookup_ip(name).await?;
    let mut ips: Vec<_> = found.iter().collect();
    // Servers turn the order round to spread load; ours is spread by the balancer, and the set is the same.
    ips.sort_unstable();
    ips.dedup();
    let ttl = found
        .valid_until()
        .saturating_duration_since(Instant::now());
    Ok(Answer {
        ips: ips.into(),
        ttl,
    })
}

#[cfg(test)]
mod tests;
