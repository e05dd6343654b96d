//! Pushing to a StatsD server: telemeter `io.l5d.statsd`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::net::UdpSocket;
use tracing::{info, warn};

use super::super::collect::{Item, Name, Unit, Value, Wanted};
use super::super::registry::Registry;
use super::super::text::number;
use crate::cells::Histo;

/// Where metrics are pushed to.
#[derive(Debug, Clone, PartialEq)]
pub struct StatsdConfig {
    /// In front of every name, with a dot behind it; may be empty.
    pub prefix: String,
    /// The server's name or address; resolved anew for each push.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Between two pushes.
    pub interval: Duration,
    /// The share of values that is sent of each stat, 0 to 1.
    pub sample_rate: f64,
}

/// Bytes of a datagram that pass every usual network whole.
const DATAGRAM: usize = 1_432;

/// At most so many values of a stat go into one push; then the rate that is sent along is lower.
const MOST_VALUES: u64 = 1_000;

/// Pushes at every interval until `end`, and then once more. To be spawned on the control runtime.
///
/// Counters are sent as what has come since the last push, which is exact; Linkerd sends a share `sample_rate` of single
/// increments. Stats are sent as values, a share `sample_rate` of them, gauges as they are. What a dead server does not take is lost.
pub async fn push_statsd(registry: Registry, config: StatsdConfig, end: impl Future<Output = ()>) {
    let mut pushed = Pushed::now(&registry);
    let mut end = pin!(end);
    let mut ticks = tokio::time::interval(config.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut failed = false;
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = &mut end => true,
        };
        let datagrams = datagrams(pushed.lines(&registry, &config));
        let (host, port) = (&config.host, config.port);
        match send(&config, &datagrams).await {
            Ok(()) if failed => {
                info!(%host, port, "metrics reach the StatsD server again");
                failed = false;
            }
            Ok(()) => {}
            Err(error) if !failed => {
                warn!(%host, port, %error, "metrics don't reach the StatsD server, they are lost (io.l5d.statsd)");
                failed = true;
            }
            Err(_) => {}
        }
        if last {
            return;
        }
    }
}

async fn send(config: &StatsdConfig, datagrams: &[String]) -> std::io::Result<()> {
    let mut found = tokio::net::lookup_host((config.host.as_str(), config.port)).await?;
    let to = found
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))?;
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from).await?;
    // A connected socket hears of a closed port; the next datagram then fails.
    socket.connect(to).await?;
    for datagram in datagrams {
        socket.send(datagram.as_bytes()).await?;
    }
    Ok(())
}

/// Lines put together, as many as fit into a datagram.
fn datagrams(lines: Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in lines {
        match all.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= DATAGRAM => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => all.push(line),
        }
    }
    all
}

/// What was pushed already.
struct Pushed(HashMap<Key, Before>);

/// A metric's place in the tree.
type Key = String;

enum Before {
    Counter(u64),
    Stat(Histo),
}

impl Pushed {
    /// Everything up to now counts as pushed.
    fn now(registry: &Registry) -> Self {
        let mut pushed = Self(HashMap::new());
        pushed.each(registry, |_, _| {});
        pushed
    }

    /// The lines of the next push.
    fn lines(&mut self, registry: &Registry, config: &StatsdConfig) -> Vec<String> {
        let mut lines = Vec::new();
        self.each(registry, |key, news| {
            let name = name(&config.prefix, key);
            let mut line = |value: f64, kind: &str| {
                let mut line = format!("{name}:");
                number(value, &mut line);
                line.push_str(kind);
                lines.push(line);
            };
            match news {
                News::Counter(0) => {}
                News::Counter(more) => line(more as f64, "|c"),
                // A sign in front of a gauge would change it by that much; so it is set to zero first.
                News::Gauge(value) if value < 0.0 => {
                    line(0.0, "|g");
                    line(value, "|g");
                }
                News::Gauge(value) if value.is_finite() => line(value, "|g"),
                News::Gauge(_) => {}
                News::Stat(unit, histo) => {
                    let rate = config
                        .sample_rate
                        .min(MOST_VALUES as f64 / histo.count().max(1) as f64);
                    let mut kind = String::from("|ms");
                    if rate < 1.0 {
                        kind.push_str("|@");
                        number(rate, &mut kind);
                    }
                    for (value, count) in histo.values() {
                        for _ in 0..sampled(count, rate) {
                            line(value as f64 / unit.divisor(), &kind);
                        }
                    }
                }
            }
        });
        lines
    }

    /// Shows what is new of each metric. A metric that has gone is forgotten.
    fn each(&mut self, registry: &Registry, mut show: impl FnMut(&str, News)) {
        let wanted = Wanted {
            linkerd: true,
            stats: true,
            ..Wanted::default()
        };
        let mut before = std::mem::take(&mut self.0);
        for reading in registry.read(wanted) {
            let scope = reading.scope.to_string();
            for Item { name, value } in reading.items {
                let Name::Linkerd(name) = name else { continue };
                let key = match scope.is_empty() {
                    true => name.into_string(),
                    false => format!("{scope}/{name}"),
                };
                let known = before.remove(&key);
                match value {
                    Value::Gauge(value) => show(&key, News::Gauge(value)),
                    Value::Counter(now) => {
                        // Less than before: it has gone and come again in between.
                        let more = match known {
                            Some(Before::Counter(then)) => now.checked_sub(then).unwrap_or(now),
                            _ => now,
                        };
                        show(&key, News::Counter(more));
                        self.0.insert(key, Before::Counter(now));
                    }
                    Value::Stat(unit, now) => {
                        let more = match known {
                            Some(Before::Stat(then)) if then.count() <= now.count() => {
                                now.since(&then)
                            }
                            _ => now.clone(),
                        };
                        show(&key, News::Stat(unit, more));
                        self.0.insert(key, Before::Stat(now));
                    }
                }
            }
        }
        for (name, value) in super::super::process::jvm() {
            show(&format!("jvm/{name}"), News::Gauge(value));
        }
    }
}

/// What has happened to a metric since the last push.
enum News {
    Counter(u64),
    Gauge(f64),
    Stat(Unit, Histo),
}

/// How many of `count` equal values are sent: on average a share `rate`.
fn sampled(count: u64, rate: f64) -> u64 {
    let exact = count as f64 * rate;
    exact as u64 + u64::from(fastrand::f64() < exact.fract())
}

/// As Linkerd: slashes become dots, and what is no letter, digit or slash an underscore.
fn name(prefix: &str, key: &str) -> String {
    let mut name = String::with_capacity(prefix.len() + 1 + key.len());
    if !prefix.is_empty() {
        _ = write!(name, "{prefix}.");
    }
    let begins = name.len();
    for c in key.chars() {
        match c {
            '/' if name[begins..].ends_with('.') => {}
            '/' => name.push('.'),
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ => name.push('_'),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::{Outcome, Requests, Scope};
    use super::*;

    fn config(sample_rate: f64) -> StatsdConfig {
        StatsdConfig {
            prefix: "linkerd".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 0,
            interval: Duration::from_secs(10),
            sample_rate,
        }
    }

    fn request(requests: &Requests) {
        requests.begin();
        requests.end(&Outcome {
            status: Some(200),
            success: true,
            code: None,
            exception: None,
            latency_us: 5_000,
        });
    }

    fn of<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
        let start = format!("{name}:");
        let own = lines.iter().filter_map(|line| line.strip_prefix(&start));
        own.collect()
    }

    #[test]
    fn names_have_dots_for_slashes_and_underscores_for_the_rest() {
        for (key, want) in [
            (
                "rt/out/service/svc/web/requests",
                "linkerd.rt.out.service.svc.web.requests",
            ),
            (
                "rt/out/client/#/io.l5d.fs/web/status/5XX",
                "linkerd.rt.out.client._.io_l5d_fs.web.status.5XX",
            ),
            (
                "rt/out/server/0.0.0.0/4140/requests",
                "linkerd.rt.out.server.0_0_0_0.4140.requests",
            ),
            ("a//b|c:d", "linkerd.a.b_c_d"),
        ] {
            assert_eq!(name("linkerd", key), want);
        }
        assert_eq!(name("", "a/b"), "a.b");
    }

    #[test]
    fn counters_are_sent_as_what_has_come_since_the_last_push() {
        let registry = Registry::new();
        let requests = Arc::new(Requests::new());
        let kept = registry.register(Scope::service("out", "/svc/web"), requests.clone());
        request(&requests);
        let mut pushed = Pushed::now(&registry);
        let name = "linkerd.rt.out.service.svc.web.requests";
        let mut next = || of(&pushed.lines(&registry, &config(0.0)), name).join(" ");
        assert_eq!(next(), "", "what was there before the first push");
        request(&requests);
        request(&requests);
        assert_eq!(next(), "2|c");
        assert_eq!(next(), "");
        // The service is forgotten, and comes again with counters that begin at zero.
        drop(kept);
        let requests = Arc::new(Requests::new());
        let _kept = registry.register(Scope::service("out", "/svc/web"), requests.clone());
        request(&requests);
        assert_eq!(next(), "1|c");
    }

    #[test]
    fn values_of_stats_are_sampled_and_say_so() {
        let registry = Registry::new();
        let requests = Arc::new(Requests::new());
        let _kept = registry.register(Scope::service("out", "/svc/web"), requests.clone());
        let mut pushed = Pushed::now(&registry);
        let mut next = |many: usize, rate: f64| {
            (0..many).for_each(|_| request(&requests));
            let lines = pushed.lines(&registry, &config(rate));
            let name = "linkerd.rt.out.service.svc.web.request_latency_ms";
            let lines = of(&lines, name);
            lines.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let all = next(3, 1.0);
        assert_eq!(all.len(), 3);
        let (value, kind) = all[0].split_once('|').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!((value - 5.0).abs() < 0.1 && kind == "ms", "{all:?}");
        let some = next(1_000, 0.01);
        assert!((9..=11).contains(&some.len()), "{}", some.len());
        assert!(some[0].ends_with("|ms|@0.01"), "{}", some[0]);
        // Busy services don't flood the server.
        let bounded = next(4_000, 1.0);
        assert!((999..=1_001).contains(&bounded.len()), "{}", bounded.len());
        assert!(bounded[0].ends_with("|ms|@0.25"), "{}", bounded[0]);
        assert_eq!(next(100, 0.0).len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn gauges_come_at_every_interval_and_the_last_counts_at_the_end() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let config = StatsdConfig {
            port: server.local_addr().unwrap().port(),
            ..config(1.0)
        };
        let registry = Registry::new();
        let requests = Arc::new(Requests::new());
        let _kept = registry.register(Scope::service("out", "/svc/web"), requests.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let end = async move { _ = stopped.await };
        let pushing = tokio::spawn(push_statsd(registry, config, end));
        let mut bytes = [0; 2_000];
        for _ in 0..2 {
            let (n, _) = server.recv_from(&mut bytes).await.unwrap();
            let text = std::str::from_utf8(&bytes[..n]).unwrap();
            assert!(
                n <= DATAGRAM && text.contains("linkerd.rt.out.service.svc.web.pending:0|g"),
                "{text}"
            );
            assert!(!text.contains(".requests:"), "{text}");
        }
        request(&requests);
        stop.send(()).unwrap();
        pushing.await.unwrap();
        let (n, _) = server.recv_from(&mut bytes).await.unwrap();
        let text = std::str::from_utf8(&bytes[..n]).unwrap();
        assert!(
            text.contains("linkerd.rt.out.service.svc.web.requests:1|c"),
            "{text}"
        );
    }

    #[test]
    fn no_datagram_is_longer_than_what_passes_whole() {
        let lines: Vec<_> = (0..200)
            .map(|n| format!("linkerd.a.counter{n}:1|c"))
            .collect();
        let datagrams = datagrams(lines.clone());
        assert!(datagrams.len() > 2 && datagrams.iter().all(|one| one.len() <= DATAGRAM));
        assert_eq!(datagrams.join("\n"), lines.join("\n"));
    }
}
