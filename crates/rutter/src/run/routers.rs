//! The routers of a configuration, and which of them go on when it changes.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use naming::{Delegations, Names, NamesConfig, NamesLimits};
use router::Router;
use telemetry::cells::Histogram;
use telemetry::metrics::{Collector, Registration, Registry, Scope, Source};
use tokio::runtime::Handle;

use super::Identity;
use super::reports::Reports;
use super::sources::Sources;
use super::telling::Telling;
use crate::config::settings::{Config, RouterConfig};

/// Names in use are bound under the new configuration before it is in force, as far as that takes no longer than this.
const WARM_UP: Duration = Duration::from_secs(3);

/// All of a node's routers, in the order of the file.
pub(super) struct Routers(Vec<One>);

/// A router, and what it was made of.
struct One {
    config: RouterConfig,
    router: Arc<Router>,
    /// Of the router's label, through all configurations.
    applied: Arc<Applied>,
    /// What is told about its names, as long as they are the same.
    figures: Arc<Registration>,
    /// Tells a store about them, likewise.
    telling: Option<Arc<Telling>>,
}

/// What routers are made with.
pub(super) struct Parts<'a> {
    pub(super) sources: &'a Sources,
    pub(super) reports: &'a Reports,
    pub(super) registry: &'a Registry,
    pub(super) workers: usize,
    pub(super) control: &'a Handle,
    pub(super) identity: &'a Identity,
}

/// What was there before.
pub(super) struct Before<'a> {
    pub(super) routers: &'a Routers,
    /// Namers are the same as they were.
    pub(super) same_namers: bool,
    /// Exporters are the same as they were.
    pub(super) same_reports: bool,
}

impl Routers {
    /// The routers of a configuration. One that was there `before` in just the same way goes on; one that changes is the
    /// successor of the one with its label.
    pub(super) fn build(
        config: &Config,
        before: Option<&Before<'_>>,
        parts: &Parts<'_>,
    ) -> anyhow::Result<Self> {
        let one = |one: &RouterConfig| {
            let built = match before.and_then(|before| before.known(one)) {
                None => One::new(one, parts),
                Some((known, before)) => known.under(one, before, parts),
            };
            built.with_context(|| format!("router {} cannot be set up", one.router.label))
        };
        Ok(Self(
            config.routers.iter().map(one).collect::<Result<_, _>>()?,
        ))
    }

    /// The routers themselves.
    pub(super) fn list(&self) -> Vec<Arc<Router>> {
        self.0.iter().map(|one| one.router.clone()).collect()
    }

    /// Binds all names that are in use in `before`, so that no request has to wait for that. Cancel safe.
    pub(super) async fn warm_up(&self, before: &Self) {
        let mut bindings = Vec::new();
        for one in &self.0 {
            let Some(known) = before.labelled(&one.config) else {
                continue;
            };
            let (old, new) = (known.router.names(), one.router.names());
            if Arc::ptr_eq(old, new) {
                continue;
            }
            for (path, local, outcome) in old.snapshot() {
                if outcome.cause().is_none() {
                    bindings.push(new.binding(&path, &local));
                }
            }
        }
        let all = async {
            for binding in &bindings {
                binding.settled().await;
            }
        };
        if tokio::time::timeout(WARM_UP, all).await.is_err() {
            tracing::warn!(limit = ?WARM_UP, "not all names in use are known under the new configuration yet; requests for them wait");
        }
    }

    /// Notes for every dtab that is another one than `before` how long that took since it became known.
    pub(super) fn applied(&self, before: &Self, heard: Instant) {
        for one in &self.0 {
            let known = before.labelled(&one.config);
            if known.is_some_and(|known| known.config.dtab != one.config.dtab) {
                let took = heard.elapsed().as_micros() as u64;
                one.applied.times.record(took);
            }
        }
    }

    /// Labels of the routers that are not the same as `before`, those that have gone included.
    pub(super) fn changed(&self, before: &Self) -> Vec<Arc<str>> {
        let goes_on = |one: &One, among: &Self| {
            let mut others = among.0.iter();
            others.any(|other| Arc::ptr_eq(&other.router, &one.router))
        };
        let new = self.0.iter().filter(|one| !goes_on(one, before));
        let gone = before.0.iter();
        let gone = gone.filter(|one| self.labelled(&one.config).is_none());
        new.chain(gone)
            .map(|one| one.router.label().clone())
            .collect()
    }

    fn labelled(&self, config: &RouterConfig) -> Option<&One> {
        let mut all = self.0.iter();
        all.find(|one| one.config.router.label == config.router.label)
    }
}

impl Before<'_> {
    fn known(&self, config: &RouterConfig) -> Option<(&One, &Self)> {
        Some((self.routers.labelled(config)?, self))
    }
}

impl One {
    fn new(config: &RouterConfig, parts: &Parts<'_>) -> anyhow::Result<Self> {
        let router = Router::new(
            config.router.clone(),
            names(config, parts)?,
            parts.reports.reporting.clone(),
            parts.workers,
        )?;
        Ok(Self {
            applied: Applied::register(config, parts),
            figures: Figures::register(&router, parts),
            telling: Telling::start(config, &router, parts),
            config: config.clone(),
            router,
        })
    }

    /// The same router under a configuration that may be another one.
    fn under(
        &self,
        config: &RouterConfig,
        before: &Before<'_>,
        parts: &Parts<'_>,
    ) -> anyhow::Result<Self> {
        let same_names = before.same_namers
            && self.config.dtab == config.dtab
            && self.config.interpreter == config.interpreter
            && self.config.cache == config.cache;
        let same = same_names && before.same_reports && self.config.router == config.router;
        let router = match (same, same_names) {
            (true, _) => self.router.clone(),
            (false, true) => self.successor(config, self.router.names().clone(), parts)?,
            (false, false) => self.successor(config, names(config, parts)?, parts)?,
        };
        let (figures, telling) = match same_names {
            true => (self.figures.clone(), self.telling.clone()),
            false => (
                Figures::register(&router, parts),
                Telling::start(config, &router, parts),
            ),
        };
        Ok(Self {
            config: config.clone(),
            router,
            applied: self.applied.clone(),
            figures,
            telling,
        })
    }

    fn successor(
        &self,
        config: &RouterConfig,
        names: Arc<Names>,
        parts: &Parts<'_>,
    ) -> anyhow::Result<Arc<Router>> {
        let reporting = parts.reports.reporting.clone();
        let successor = self
            .router
            .successor(config.router.clone(), names, reporting);
        Ok(successor?)
    }
}

fn names(config: &RouterConfig, parts: &Parts<'_>) -> anyhow::Result<Arc<Names>> {
    Ok(Names::new(NamesConfig {
        interpreter: parts
            .sources
            .interpreter(&config.interpreter, parts.control)?,
        base: config.dtab.clone(),
        limits: NamesLimits {
            paths: config.cache.paths,
            idle: config.cache.idle_ttl,
            ..NamesLimits::default()
        },
        control: parts.control.clone(),
    }))
}

/// How long changes of a router's dtab took to be in force, in µs.
struct Applied {
    times: Arc<Times>,
    _registration: Registration,
}

#[derive(Default)]
struct Times(Histogram);

impl Applied {
    fn register(config: &RouterConfig, parts: &Parts<'_>) -> Arc<Self> {
        let times = Arc::new(Times::default());
        let scope = Scope::router(&config.router.label);
        Arc::new(Self {
            _registration: parts.registry.register(scope, times.clone()),
            times,
        })
    }
}

impl Times {
    fn record(&self, micros: u64) {
        self.0.record(micros);
    }
}

impl Source for Times {
    fn collect(&self, out: &mut Collector<'_>) {
        out.duration("rutter_dtab_apply_seconds", &[], &self.0);
    }
}

/// What is told about a router's names. What was counted outlives them, as no counter may go backwards.
struct Figures {
    names: Weak<Names>,
    delegations: Arc<Delegations>,
    applied: Option<Arc<Histogram>>,
}

impl Figures {
    fn register(router: &Router, parts: &Parts<'_>) -> Arc<Registration> {
        let names = router.names();
        let figures = Arc::new(Self {
            names: Arc::downgrade(names),
            delegations: names.delegations().clone(),
            applied: names.interpreter().applied(),
        });
        let scope = Scope::router(router.label());
        Arc::new(parts.registry.register(scope, figures))
    }
}

impl Source for Figures {
    fn collect(&self, out: &mut Collector<'_>) {
        for (result, count) in self.delegations.results() {
            out.ours("rutter_delegations_total", &[("result", result)], count);
        }
        if let Some(applied) = &self.applied {
            out.duration("rutter_dtab_apply_seconds", &[], applied);
        }
        let Some(names) = self.names.upgrade() else {
            return;
        };
        version("", &names.base().to_string(), out);
        let state = names.interpreter().state();
        if let (Some(file), Some(dtab)) = (state["file"].as_str(), state["dtab"].as_str()) {
            version(file, dtab, out);
        }
    }
}

/// One dtab in force: `namespace` is the file it is in, empty for the configuration's own.
fn version(namespace: &str, dtab: &str, out: &mut Collector<'_>) {
    let version = format!("{:016x}", fingerprint(dtab));
    let labels = [("namespace", namespace), ("version", version.as_str())];
    out.our_gauge("rutter_dtab_version_info", &labels, 1.0);
}

/// FNV-1a: the same text has the same number on every node and in every version of the program.
fn fingerprint(text: &str) -> u64 {
    let bytes = text.bytes();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use dtab::Dtab;

    use super::*;

    fn called(dtab: &str) -> u64 {
        let dtab: Dtab = dtab.parse().unwrap();
        fingerprint(&dtab.to_string())
    }

    #[test]
    fn a_dtab_has_the_same_version_however_it_is_written() {
        assert_eq!(
            called("/svc=>/a;/b=>/c"),
            called(" /svc => /a ;\n /b => /c ;")
        );
        assert_ne!(called("/svc => /a"), called("/svc => /b"));
        // A published value of FNV-1a.
        assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
    }
}
