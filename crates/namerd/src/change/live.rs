//! Names in use, and which routers route with which version: what routers report, and what is bound through the store.
//!
//! A router of ours reports every few seconds, and at once when it routes with another version. One that never reports, as
//! Linkerd 1, is known by the names that it has bound here; these have no rates. All is bounded, and nothing is stored.

#![expect(
    clippy::mutable_key_type,
    reason = "what a dtab keeps for later is no part of its hash"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use dtab::{Dtab, Path};
use naming::{Reads, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::store::Namespace;

/// A name counts as in use for so long after it was asked for last.
pub const SINCE: Duration = Duration::from_secs(15 * 60);
/// Names of a report, and its clients; what is more is not believed.
pub const MOST_REPORTED: usize = 2_000;
/// Names in use in one namespace that nobody reported; the oldest goes when there are more.
const MOST_SEEN: usize = 5_000;
/// Namespaces that names are seen in.
const MOST_NAMESPACES: usize = 10_000;
/// Routers that report.
const MOST_ROUTERS: usize = 5_000;
/// A router counts as connected for so many of its intervals.
const INTERVALS: f64 = 3.0;
/// The longest interval that is believed, in seconds.
const LONGEST: f64 = 60.0;

/// What a router says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Report {
    /// The namespace it routes by.
    pub namespace: String,
    /// Its label.
    pub router: String,
    /// The node it runs on; may be empty.
    pub node: String,
    /// Name and version of the program.
    pub program: String,
    /// The number of the oldest version that one of its names in use is routed with; none when it cannot tell, or has no names.
    pub number: Option<u64>,
    /// It knows of versions: without names it routes with any.
    pub versions: bool,
    /// Its own dtab, which is put behind the namespace's.
    pub dtab: String,
    /// Seconds until its next report.
    pub interval: f64,
    /// It ends: its next report will not come.
    pub leaving: bool,
    /// Names that it had requests for within 15 minutes.
    pub names: Vec<ReportedName>,
    /// What they are bound to, with what was counted since it started.
    pub clients: Vec<ReportedClient>,
}

/// A name that requests come for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReportedName {
    /// Such as `/svc/web`.
    pub path: String,
    /// Requests a second, over the last minute.
    pub rps: f64,
}

/// A bound name that requests go to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReportedClient {
    /// Its id, without the transformers in front.
    pub id: String,
    /// Requests since the router started.
    pub requests: u64,
    /// Of these, such as its classifier calls successes.
    pub successes: u64,
    /// Of these, such as it calls failures.
    pub failures: u64,
    /// The 99th percentile of the last minute, in milliseconds; none when there is none.
    pub p99_ms: Option<f64>,
}

/// A name in use.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveName {
    /// What is asked for.
    pub path: Path,
    /// The dtab that is put behind the namespace's.
    pub local: Dtab,
    /// Requests a second of all routers; none when nobody reports it.
    pub rps: Option<f64>,
    /// How many routers report it.
    pub routers: usize,
}

/// How far a router is with a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// As the router calls itself to the store.
    pub id: String,
    /// Its label.
    pub router: String,
    /// The node it runs on; may be empty.
    pub node: String,
    /// The version that it routes with; none when it has no names in use, or cannot tell.
    pub number: Option<u64>,
    /// Whether it routes with the version asked for, or with a later one.
    pub applied: bool,
    /// Whether it tells versions at all.
    pub tells: bool,
    /// Milliseconds from the write until the router said so; none when it has not, or had before.
    pub after_ms: Option<u64>,
}

/// What is known of routers and their names. Clones are handles of the same.
#[derive(Clone, Default)]
pub struct Live(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tables: Mutex<Tables>,
    /// Counts reports that changed a version.
    reports: Var<u64>,
}

#[derive(Default)]
struct Tables {
    seen: HashMap<Namespace, HashMap<(Path, Dtab), Seen>>,
    routers: HashMap<String, Router>,
}

/// A name that was bound here.
struct Seen {
    last: Instant,
    /// Who has it bound at present.
    holders: usize,
}

struct Router {
    report: Report,
    namespace: Namespace,
    local: Dtab,
    names: Vec<(Path, f64)>,
    until: Instant,
    /// When it said that it routes with its version.
    since: SystemTime,
}

impl Router {
    fn applied(&self, number: u64) -> bool {
        match self.report.number {
            Some(has) => has >= number,
            None => self.report.versions,
        }
    }
}

/// A name that somebody has bound here, as long as this lives.
pub struct Held {
    live: Live,
    namespace: Namespace,
    key: (Path, Dtab),
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut tables = self.live.tables();
        let seen = tables
            .seen
            .get_mut(&self.namespace)
            .and_then(|names| names.get_mut(&self.key));
        if let Some(seen) = seen {
            seen.holders = seen.holders.saturating_sub(1);
            seen.last = Instant::now();
        }
    }
}

impl Live {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a name is bound here, and is in use as long as the answer lives, and a while longer.
    pub fn hold(&self, namespace: &Namespace, path: &Path, local: &Dtab) -> Held {
        let key = (path.clone(), local.clone());
        let now = Instant::now();
        let mut tables = self.tables();
        let full = tables.seen.len() >= MOST_NAMESPACES && !tables.seen.contains_key(namespace);
        if !full {
            let names = tables.seen.entry(namespace.clone()).or_default();
            if names.len() >= MOST_SEEN && !names.contains_key(&key) {
                make_room(names, now);
            }
            if names.len() < MOST_SEEN || names.contains_key(&key) {
                let seen = names.entry(key.clone()).or_insert(Seen {
                    last: now,
                    holders: 0,
                });
                (seen.holders, seen.last) = (seen.holders + 1, now);
            }
        }
        drop(tables);
        Held {
            live: self.clone(),
            namespace: namespace.clone(),
            key,
        }
    }

    /// Takes in what a router says. An error is what is wrong with it.
    pub fn report(&self, id: &str, mut report: Report) -> Result<Namespace, String> {
        let namespace = Namespace::new(&report.namespace).map_err(|error| error.to_string())?;
        let local = Dtab::read(&report.dtab)
            .map_err(|error| format!("`dtab` is none: {}", error.summary()))?;
        if report.names.len() > MOST_REPORTED || report.clients.len() > MOST_REPORTED {
            return Err(format!(
                "a report has at most {MOST_REPORTED} names and {MOST_REPORTED} clients"
            ));
        }
        let read = |name: ReportedName| {
            let path = Path::read(&name.path).map_err(|error| {
                format!("the name {:?} is no path: {}", name.path, error.summary())
            })?;
            let rps = if name.rps.is_finite() {
                name.rps.max(0.0)
            } else {
                0.0
            };
            Ok((path, rps))
        };
        let names = std::mem::take(&mut report.names).into_iter().map(read);
        let names = names.collect::<Result<Vec<_>, String>>()?;
        let now = Instant::now();
        let mut tables = self.tables();
        tables.routers.retain(|_, router| router.until > now);
        if report.leaving {
            tables.routers.remove(id);
        } else {
            if tables.routers.len() >= MOST_ROUTERS && !tables.routers.contains_key(id) {
                return Err(format!("{MOST_ROUTERS} routers report already"));
            }
            let interval = if report.interval.is_finite() {
                report.interval
            } else {
                LONGEST
            };
            let interval = interval.clamp(1.0, LONGEST);
            let before = tables.routers.get(id);
            let same = before.is_some_and(|router| router.report.number == report.number);
            let since = match before {
                Some(router) if same => router.since,
                _ => SystemTime::now(),
            };
            let router = Router {
                namespace: namespace.clone(),
                local,
                names,
                until: now + Duration::from_secs_f64(interval * INTERVALS),
                since,
                report,
            };
            tables.routers.insert(id.to_owned(), router);
        }
        drop(tables);
        self.0.reports.set(self.0.reports.get().wrapping_add(1));
        Ok(namespace)
    }

    /// The names of a namespace that are in use, those with most requests first.
    pub fn names(&self, namespace: &Namespace) -> Vec<LiveName> {
        let now = Instant::now();
        let mut tables = self.tables();
        let mut found: HashMap<(Path, Dtab), (Option<f64>, usize)> = HashMap::new();
        if let Some(names) = tables.seen.get_mut(namespace) {
            names.retain(|_, seen| seen.holders > 0 || now - seen.last < SINCE);
            found.extend(names.keys().map(|key| (key.clone(), (None, 0))));
        }
        let routers = tables.routers.values();
        for router in routers.filter(|r| r.namespace == *namespace && r.until > now) {
            for (path, rps) in &router.names {
                let name = found
                    .entry((path.clone(), router.local.clone()))
                    .or_default();
                *name = (Some(name.0.unwrap_or_default() + rps), name.1 + 1);
            }
        }
        drop(tables);
        let mut names: Vec<_> = found
            .into_iter()
            .map(|((path, local), (rps, routers))| LiveName {
                path,
                local,
                rps,
                routers,
            })
            .collect();
        names.sort_by(|a, b| {
            let rates = b.rps.unwrap_or(-1.0).total_cmp(&a.rps.unwrap_or(-1.0));
            let texts = || (&a.path, a.local.to_string()).cmp(&(&b.path, b.local.to_string()));
            rates.then_with(texts)
        });
        names
    }

    /// How far the routers of a namespace are with a version that was written at `written`.
    pub fn acks(&self, namespace: &Namespace, number: u64, written: SystemTime) -> Vec<Ack> {
        let now = Instant::now();
        let tables = self.tables();
        let routers = tables.routers.iter();
        let mut acks: Vec<_> = routers
            .filter(|(_, router)| router.namespace == *namespace && router.until > now)
            .map(|(id, router)| {
                let applied = router.applied(number);
                let after = router.since.duration_since(written).ok();
                Ack {
                    id: id.clone(),
                    router: router.report.router.clone(),
                    node: router.report.node.clone(),
                    number: router.report.number,
                    applied,
                    tells: router.report.versions,
                    after_ms: after
                        .filter(|_| applied && router.report.number.is_some())
                        .map(|after| after.as_millis() as u64),
                }
            })
            .collect();
        acks.sort_by(|a, b| (&a.node, &a.router, &a.id).cmp(&(&b.node, &b.router, &b.id)));
        acks
    }

    /// Waits until all connected routers of a namespace that can tell route with a version, or the time is over. Cancel safe.
    pub async fn applied(&self, namespace: &Namespace, number: u64, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            let mut reads = Reads::new();
            _ = self.0.reports.read(&mut reads);
            let acks = self.acks(namespace, number, SystemTime::UNIX_EPOCH);
            if acks.iter().all(|ack| ack.applied || !ack.tells) {
                return;
            }
            if tokio::time::timeout_at(until, reads.changed())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// What routers counted for the bound names of a namespace, added up; the percentile is the worst router's.
    pub fn clients(&self, namespace: &Namespace) -> Vec<ReportedClient> {
        let now = Instant::now();
        let tables = self.tables();
        let mut sums: std::collections::BTreeMap<&str, ReportedClient> = Default::default();
        let routers = tables.routers.values();
        for router in routers.filter(|r| r.namespace == *namespace && r.until > now) {
            for client in &router.report.clients {
                let sum = sums.entry(&client.id).or_default();
                sum.requests += client.requests;
                sum.successes += client.successes;
                sum.failures += client.failures;
                sum.p99_ms = match (sum.p99_ms, client.p99_ms) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    (one, other) => one.or(other),
                };
            }
        }
        let named = sums.into_iter().map(|(id, sum)| ReportedClient {
            id: id.to_owned(),
            ..sum
        });
        named.collect()
    }

    /// The routers that report, with what they said last; their names are left out.
    pub fn routers(&self) -> Vec<(String, Report)> {
        let now = Instant::now();
        let tables = self.tables();
        let present = tables.routers.iter().filter(|(_, r)| r.until > now);
        let mut all: Vec<_> = present
            .map(|(id, router)| {
                let report = Report {
                    clients: Vec::new(),
                    ..router.report.clone()
                };
                (id.clone(), report)
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Takes out what is not in use any more, and the oldest name that nobody has bound at present.
fn make_room(names: &mut HashMap<(Path, Dtab), Seen>, now: Instant) {
    names.retain(|_, seen| seen.holders > 0 || now - seen.last < SINCE);
    let free = names.iter().filter(|(_, seen)| seen.holders == 0);
    let oldest = free
        .min_by_key(|(_, seen)| seen.last)
        .map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        names.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        Namespace::new("default").unwrap()
    }

    fn report(number: Option<u64>, names: &[(&str, f64)]) -> Report {
        let name = |(path, rps): &(&str, f64)| ReportedName {
            path: (*path).to_owned(),
            rps: *rps,
        };
        Report {
            namespace: "default".to_owned(),
            number,
            versions: true,
            interval: 10.0,
            names: names.iter().map(name).collect(),
            ..Report::default()
        }
    }

    fn shown(live: &Live) -> String {
        let names = live.names(&namespace());
        let one = |name: &LiveName| format!("{} {:?} {}", name.path, name.rps, name.routers);
        names.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[tokio::test(start_paused = true)]
    async fn rates_of_routers_add_up_and_end_with_them() {
        let live = Live::default();
        live.report("a", report(Some(1), &[("/svc/x", 1.0), ("/svc/y", 5.0)]))
            .unwrap();
        live.report("b", report(Some(1), &[("/svc/x", 2.0)]))
            .unwrap();
        assert_eq!(shown(&live), "/svc/y Some(5.0) 1, /svc/x Some(3.0) 2");
        tokio::time::advance(Duration::from_secs(29)).await;
        live.report("a", report(Some(1), &[("/svc/x", 1.0)]))
            .unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(shown(&live), "/svc/x Some(1.0) 1");
        live.report(
            "a",
            Report {
                leaving: true,
                ..report(None, &[])
            },
        )
        .unwrap();
        assert_eq!(shown(&live), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_was_bound_here_is_in_use_for_a_quarter_of_an_hour() {
        let live = Live::default();
        let path = Path::read("/svc/x").unwrap();
        let held = live.hold(&namespace(), &path, &Dtab::empty());
        tokio::time::advance(SINCE * 2).await;
        assert_eq!(shown(&live), "/svc/x None 0", "as long as it is bound");
        drop(held);
        tokio::time::advance(SINCE - Duration::from_secs(1)).await;
        assert_eq!(shown(&live), "/svc/x None 0");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(shown(&live), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_every_router_routes_with_the_version() {
        let live = Live::default();
        live.report("a", report(Some(1), &[])).unwrap();
        live.report("idle", report(None, &[])).unwrap();
        live.report(
            "other",
            Report {
                versions: false,
                ..report(None, &[])
            },
        )
        .unwrap();
        let wait = Duration::from_secs(5);
        let began = Instant::now();
        live.applied(&namespace(), 2, wait).await;
        assert_eq!(began.elapsed(), wait, "one router lags behind");
        let (name, waiting) = (namespace(), live.clone());
        let waits = tokio::spawn(async move { waiting.applied(&name, 2, wait).await });
        tokio::task::yield_now().await;
        live.report("a", report(Some(2), &[])).unwrap();
        waits.await.unwrap();
        let acks = live.acks(&namespace(), 2, SystemTime::UNIX_EPOCH);
        let applied: Vec<_> = acks.iter().map(|ack| (&*ack.id, ack.applied)).collect();
        assert_eq!(applied, [("a", true), ("idle", true), ("other", false)]);
    }

    #[tokio::test]
    async fn what_is_no_report_is_refused_and_nothing_grows_without_bound() {
        let live = Live::default();
        for (wrong, want) in [
            (
                Report {
                    namespace: "a/b".to_owned(),
                    ..report(None, &[])
                },
                "a namespace is called",
            ),
            (
                Report {
                    dtab: "/a =>".to_owned(),
                    ..report(None, &[])
                },
                "`dtab` is none",
            ),
            (report(None, &[("svc", 1.0)]), "the name \"svc\" is no path"),
            (
                report(None, &[("/svc", 1.0); MOST_REPORTED + 1]),
                "a report has at most",
            ),
        ] {
            let error = live.report("a", wrong).unwrap_err();
            assert!(error.starts_with(want), "{error}");
        }
        live.report("a", report(None, &[("/svc", f64::NAN), ("/svc/a", -1.0)]))
            .unwrap();
        for i in 0..MOST_SEEN + 50 {
            live.hold(
                &namespace(),
                &Path::utf8(["svc", &i.to_string()]),
                &Dtab::empty(),
            );
        }
        assert!(live.names(&namespace()).len() <= MOST_SEEN + 2);
    }
}
