//! Our own page, `/metrics`: names after Prometheus' conventions, seconds and bytes, aggregatable histograms.
//!
//! [`FAMILIES`] is the whole list. A family gets its values from what sources report for it ([`Collector::ours`](super::Collector::ours)), from
//! Linkerd's names by the table [`DERIVED`], from the control plane's recorder, or from the process.

use std::collections::BTreeMap;

use super::collect::{Item, Name, Value, Wanted};
use super::registry::{Reading, Registry};
use super::text::{Labels, line, number};
use super::{Scope, bare, process};
use crate::cells::Histo;

mod families;

use families::DERIVED;
pub use families::{FAMILIES, Family, Kind, Since};

/// The upper limits of the buckets of request durations, in µs; few, because every service has them all.
const BUCKETS_US: [u64; 12] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];
const BUCKETS: [&str; 12] = [
    "0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "10.0", "60.0",
];

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a scraper's Accept header asks for.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    /// For the answer's Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// `/metrics`.
pub fn page(registry: &Registry, format: Format) -> String {
    let mut series = Series::default();
    let wanted = Wanted {
        linkerd: true,
        ours: true,
        stats: false,
    };
    for reading in registry.read(wanted) {
        series.take(reading);
    }
    series.take_process();
    series.gauge("rutter_metrics_folded_labels", registry.folded() as f64);
    let count = series.count() + 1;
    series.gauge("rutter_metrics_series", count as f64);
    let mut page = series.text(format);
    let control = super::control::render();
    match format {
        Format::Text => page.push_str(&control),
        Format::OpenMetrics => {
            page.push_str(&to_open_metrics(&control));
            page.push_str("# EOF\n");
        }
    }
    page
}

/// The values of all families, by the family's place in the list and its labels.
#[derive(Default)]
struct Series(BTreeMap<usize, BTreeMap<Labels, Value>>);

impl Series {
    fn take(&mut self, reading: Reading) {
        let scope = ScopeLabels::of(&reading.scope);
        for Item { name, value } in reading.items {
            match name {
                Name::Ours(family, labels) => {
                    let labels = labels.iter().map(|(name, value)| (*name, value.as_ref()));
                    self.add(family, &scope, labels, value);
                }
                Name::Linkerd(name) => {
                    let same = |d: &&families::Derived| d.place == scope.place && *d.name == *name;
                    for derived in DERIVED.iter().filter(same) {
                        let labels = derived.labels.iter().copied();
                        self.add(derived.family, &scope, labels, value.clone());
                    }
                }
            }
        }
    }

    fn add<'a>(
        &mut self,
        family: &str,
        scope: &ScopeLabels<'_>,
        own: impl Iterator<Item = (&'static str, &'a str)>,
        value: Value,
    ) {
        let Some(at) = FAMILIES.iter().position(|f| f.name == family) else {
            debug_assert!(false, "{family} is not in the list of families");
            return;
        };
        let mut labels = Labels::long();
        for (name, value) in &scope.labels {
            if FAMILIES[at].labels.contains(name) {
                labels.push(",", name, value);
            }
        }
        for (name, value) in own {
            labels.push(",", name, value);
        }
        let family = self.0.entry(at).or_default();
        match family.get_mut(&labels) {
            Some(have) => have.add(&value),
            None => _ = family.insert(labels, value),
        }
    }

    /// A series of a family without labels from a scope.
    fn gauge(&mut self, family: &str, value: f64) {
        self.add(
            family,
            &ScopeLabels::default(),
            [].into_iter(),
            Value::Gauge(value),
        );
    }

    fn take_process(&mut self) {
        let info = process::info();
        self.gauge("process_cpu_seconds_total", info.cpu_seconds);
        self.gauge("process_resident_memory_bytes", info.resident_bytes);
        self.gauge("process_virtual_memory_bytes", info.virtual_bytes);
        self.gauge("process_open_fds", info.open_fds);
        self.gauge("process_max_fds", info.max_fds);
        self.gauge("process_threads", info.threads);
        self.gauge("process_start_time_seconds", info.started);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let scope = ScopeLabels::default();
        self.add(
            "rutter_build_info",
            &scope,
            version.into_iter(),
            Value::Gauge(1.0),
        );
    }

    /// Lines, as far as they are not comments.
    fn count(&self) -> usize {
        let lines = |value: &Value| match value {
            Value::Stat(..) => BUCKETS.len() + 3,
            _ => 1,
        };
        self.0.values().flat_map(BTreeMap::values).map(lines).sum()
    }

    fn text(&self, format: Format) -> String {
        let mut page = String::with_capacity(128 * self.count());
        for (at, series) in &self.0 {
            let family = &FAMILIES[*at];
            family.head(format, &mut page);
            for (labels, value) in series {
                match value {
                    Value::Counter(n) => line(family.name, &labels.0, *n as f64, &mut page),
                    Value::Gauge(value) => line(family.name, &labels.0, *value, &mut page),
                    Value::Stat(_, histo) => buckets(family.name, labels, histo, &mut page),
                }
            }
        }
        page
    }
}

impl Family {
    fn head(&self, format: Format, page: &mut String) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // OpenMetrics calls the family of a counter without its suffix.
        let name = match format {
            Format::OpenMetrics => self.name.trim_end_matches("_total"),
            Format::Text => self.name,
        };
        page.push_str(&format!(
            "# HELP {name} {}\n# TYPE {name} {kind}\n",
            self.help
        ));
    }
}

fn buckets(name: &str, labels: &Labels, histo: &Histo, page: &mut String) {
    let mut counts = Vec::with_capacity(BUCKETS_US.len());
    histo.cumulative(&BUCKETS_US, &mut counts);
    let whole = ("+Inf", histo.count());
    let separator = if labels.0.is_empty() { "" } else { "," };
    for (limit, count) in BUCKETS.into_iter().zip(counts).chain([whole]) {
        page.extend([name, "_bucket{", &labels.0, separator, "le=\"", limit]);
        page.push_str("\"} ");
        number(count as f64, page);
        page.push('\n');
    }
    page.push_str(name);
    line("_sum", &labels.0, histo.sum() as f64 / 1e6, page);
    page.push_str(name);
    line("_count", &labels.0, histo.count() as f64, page);
}

/// Takes `_total` from the names in comments about counters: the one difference that matters in the recorder's text.
fn to_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line
            .split_once(' ')
            .map(|(hash, rest)| (hash, rest.splitn(3, ' ').collect::<Vec<_>>()))
        {
            Some(("#", words)) if words.len() == 3 => {
                let name = words[1].trim_end_matches("_total");
                out.push_str(&format!("# {} {name} {}\n", words[0], words[2]));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Where in the tree a scope is, as far as ours care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    Router,
    Server,
    Service,
    Client,
    ClientService,
    #[default]
    Elsewhere,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Router => "router",
            Place::Server => "server",
            Place::Service => "service",
            Place::Client => "client",
            Place::ClientService => "client service",
            Place::Elsewhere => "elsewhere",
        }
    }
}

#[derive(Default)]
struct ScopeLabels<'a> {
    place: Place,
    labels: Vec<(&'static str, &'a str)>,
}

impl<'a> ScopeLabels<'a> {
    fn of(scope: &'a Scope) -> Self {
        let nodes: Vec<&str> = scope.nodes().iter().map(AsRef::as_ref).collect();
        let (place, labels) = match nodes[..] {
            ["rt", router] => (Place::Router, vec![("router", router)]),
            ["rt", router, "server", server] => {
                (Place::Server, vec![("router", router), ("server", server)])
            }
            ["rt", router, "service", service] => (
                Place::Service,
                vec![("router", router), ("service", service)],
            ),
            ["rt", router, "client", client] => (
                Place::Client,
                vec![("router", router), ("client", bare(client))],
            ),
            ["rt", router, "client", client, "service", service] => {
                let labels = vec![
                    ("router", router),
                    ("service", service),
                    ("client", bare(client)),
                ];
                (Place::ClientService, labels)
            }
            ["rt", router, ..] => (Place::Elsewhere, vec![("router", router)]),
            _ => (Place::Elsewhere, Vec::new()),
        };
        Self { place, labels }
    }
}

#[cfg(test)]
mod tests;
