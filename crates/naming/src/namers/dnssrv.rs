//! `io.l5d.dnssrv`: names that DNS has SRV records for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dtab::{NameTree, Path};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use serde_json::Value;
use tokio::runtime::Handle;

use super::followed::{Answer, Belief, Followed, Place, Table, Unanswered, tell};
use crate::namers::Dns;
use crate::{Activity, Name, Namer, Reads};

/// DNS has errors beyond those that it calls so: one answer without records takes no name away.
const BELIEF: Belief = Belief {
    to_lose: 2,
    unanswered: Unanswered::Fails,
};

/// Binds `/NAME` to the targets of the SRV records of that name; further segments are residual.
///
/// As Linkerd's: asked again at each interval whatever the records' TTL, with all targets alike whatever their priority and
/// weight; a name without records is none, so that an alternative is taken. A name that was there is gone when two answers
/// in a row say so.
pub struct DnsSrvNamer {
    prefix: Path,
    table: Arc<Table>,
    asker: Asker,
}

/// How names are asked for.
#[derive(Clone)]
struct Asker {
    resolver: TokioResolver,
    refresh: Duration,
    /// For targets that came without an address.
    dns: Dns,
    prefix: Path,
}

/// The settings of a namer.
#[derive(Clone, Debug)]
pub struct DnsSrvConfig {
    /// Its place behind `/#`.
    pub prefix: Path,
    /// Between two questions.
    pub refresh: Duration,
    /// The servers that are asked; none: the system's.
    pub servers: Vec<SocketAddr>,
}

impl DnsSrvNamer {
    /// A namer that asks on `control`. `dns` is what follows other names; the targets', too, unless servers are given.
    pub fn new(config: DnsSrvConfig, dns: Dns, control: Handle) -> Self {
        let (servers, mut options) = match config.servers.is_empty() {
            true => hickory_resolver::system_conf::read_system_conf().unwrap_or_default(),
            false => (servers(&config.servers), ResolverOpts::default()),
        };
        let dns = match config.servers.is_empty() {
            true => dns,
            false => Dns::new(servers.clone(), options.clone(), control.clone()),
        };
        // What is asked is asked now.
        options.cache_size = 0;
        let resolver = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .expect("without TLS there is nothing that can be wrong");
        let asker = Asker {
            resolver,
            refresh: config.refresh,
            dns,
            prefix: config.prefix.clone(),
        };
        Self {
            prefix: config.prefix,
            table: Table::new(control),
            asker,
        }
    }
}

/// These servers by UDP, and by TCP when an answer does not fit.
fn servers(addrs: &[SocketAddr]) -> ResolverConfig {
    let server = |addr: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let at_port = connections.into_iter().map(|mut connection| {
            connection.port = addr.port();
            connection
        });
        NameServerConfig::new(addr.ip(), true, at_port.collect())
    };
    ResolverConfig::from_name_servers(addrs.iter().map(server).collect())
}

impl Namer for DnsSrvNamer {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        let key = rest.take(1);
        let Some(name) = key.segments().first().and_then(|one| one.as_str()) else {
            return Activity::Ok(NameTree::Neg);
        };
        let id = Path::utf8(["#"]).concat(&self.prefix).concat(&key);
        let follow = |followed| {
            let name = name.to_owned();
            self.asker.clone().follow(name, key.clone(), followed)
        };
        self.table.lookup(&key, (id, rest.drop(1)), reads, follow)
    }

    fn state(&self) -> Value {
        self.table.to_json()
    }

    fn why_not(&self, rest: &Path) -> Option<String> {
        let name = rest.segments().first()?;
        Some(match self.table.trouble(&rest.take(1)) {
            Some(problem) => problem.to_string(),
            None => format!("DNS has no SRV record for `{name}`"),
        })
    }
}

impl fmt::Debug for DnsSrvNamer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsSrvNamer")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Asker {
    /// Asks at each interval, for ever.
    async fn follow(self, name: String, key: Path, followed: Arc<Followed>) {
        // As Linkerd, whole: no search domain is tried.
        let absolute = format!("{}.", name.trim_end_matches('.'));
        loop {
            followed.asks(&format!("SRV {absolute}"));
            let answer = match self.resolver.srv_lookup(absolute.as_str()).await {
                Ok(found) => places(&found),
                Err(error) if is_nothing(&error) => Answer::Nothing,
                Err(error) => Answer::Failed(format!("DNS: SRV {name}: {error}").into()),
            };
            tell(&self.prefix, &key, followed.in_trouble(), &answer);
            followed.apply(answer, BELIEF, &self.dns);
            tokio::time::sleep(self.refresh).await;
        }
    }
}

/// Whether the answer is that there is no such name, or nothing of the kind under it: other codes say nothing about it.
fn is_nothing(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none))
        if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError))
}

/// The targets; with the addresses that came along, where some did.
fn places(found: &Lookup) -> Answer {
    let mut places = Vec::new();
    for record in found.answers() {
        let RData::SRV(srv) = &record.data else {
            continue;
        };
        // RFC 2782: a root as target says that the service is decidedly not there.
        if srv.target.is_root() {
            continue;
        }
        let place = |host: String| Place {
            host: host.into(),
            port: srv.port,
            weight: 1.0,
            authority: None,
        };
        let brought = found.additionals().iter();
        let brought: Vec<IpAddr> = brought
            .filter(|one| one.name == srv.target)
            .filter_map(|one| match &one.data {
                RData::A(a) => Some(a.0.into()),
                RData::AAAA(aaaa) => Some(aaaa.0.into()),
                _ => None,
            })
            .collect();
        // As everywhere: IPv6 only where there is no IPv4.
        let only_v6 = brought.iter().all(IpAddr::is_ipv6);
        let usable = brought.iter().filter(|ip| ip.is_ipv4() || only_v6);
        match brought.is_empty() {
            true => places.push(place(srv.target.to_ascii())),
            false => places.extend(usable.map(|ip| place(ip.to_string()))),
        }
    }
    match places.is_empty() {
        true => Answer::Nothing,
        false => Answer::Places(places),
    }
}

#[cfg(test)]
mod tests;
