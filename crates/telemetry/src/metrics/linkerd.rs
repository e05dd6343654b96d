//! Linkerd 1's pages: `/admin/metrics.json`, `/admin/metrics/prometheus` and `/admin/metrics/influxdb`, with its names, so that
//! its dashboards keep working.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Scope;
use super::collect::{Item, Name, Unit, Value, Wanted};
use super::registry::{Reading, Registry};
use super::text::{Labels, line, number};
use crate::cells::Histo;

mod influx;
mod names;
mod statsd;

pub use influx::influxdb;
pub use names::{Described, NAMES, undescribed};
pub use statsd::{StatsdConfig, push_statsd};

/// How `/admin/metrics.json` is wanted; its query parameters.
#[derive(Debug, Clone, Default)]
pub struct JsonOptions {
    /// Indented.
    pub pretty: bool,
    /// Nested objects with leaves `counter`, `gauge`, `stat.<summary>` instead of one flat object; what dashboards poll.
    pub tree: bool,
    /// Only what lies under this place, named relative to it.
    pub under: Option<String>,
}

/// There is nothing under the place asked for; the page answers 404 with [`NoSubtree::json`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("No such subtree: {0}")]
pub struct NoSubtree(String);

impl NoSubtree {
    /// As Linkerd's answer.
    pub fn json(&self) -> String {
        serde_json::json!({ "error": self.to_string() }).to_string()
    }
}

/// `/admin/metrics.json`. Keys are always sorted; Linkerd sorts them only when pretty.
pub fn json(registry: &Registry, options: &JsonOptions) -> Result<String, NoSubtree> {
    let mut out = JsonWriter {
        text: String::new(),
        pretty: options.pretty,
        depth: 0,
    };
    let metrics = linkerd_metrics(registry);
    if options.under.is_none() && !options.tree {
        write_flat(metrics, &mut out);
        return Ok(out.text);
    }
    let mut tree = Tree::default();
    for metric in metrics {
        tree.insert(metric);
    }
    let tree = match &options.under {
        Some(path) => tree.resolve(path).ok_or_else(|| NoSubtree(path.clone()))?,
        None => &tree,
    };
    match options.tree {
        true => tree.write_nested(&mut out),
        false => out.object(|out| {
            let mut flat = BTreeMap::new();
            tree.flatten("", &mut flat);
            for (name, value) in flat {
                value.write(&name, out);
            }
        }),
    }
    Ok(out.text)
}

/// All metrics as one object: what is polled most, so without a tree in between.
fn write_flat(metrics: Vec<Metric>, out: &mut JsonWriter) {
    let named = metrics.into_iter().map(|metric| {
        let mut name = String::with_capacity(128);
        for node in metric.scope.nodes() {
            name.push_str(node);
            name.push('/');
        }
        name.push_str(&metric.name);
        (name, metric.value)
    });
    let mut named: Vec<_> = named.collect();
    // Stable: of two with one name the first one counts.
    named.sort_by(|one, other| one.0.cmp(&other.0));
    named.dedup_by(|later, earlier| later.0 == earlier.0);
    out.object(|out| {
        for (name, value) in &named {
            value.write(name, out);
        }
    });
}

/// `/admin/metrics/prometheus`: Linkerd's names with colons and labels, lines of one name together. `prefix` stands before every name.
///
/// Unlike Linkerd's, label values are escaped so that they can be read back.
pub fn prometheus(registry: &Registry, prefix: &str) -> String {
    let mut lines: BTreeMap<String, Vec<(Labels, f64)>> = BTreeMap::new();
    let mut whole = String::new();
    let mut put = |name: &str, suffix: &str, labels: Labels, value| {
        whole.clear();
        whole.extend([name, suffix]);
        match lines.get_mut(&whole) {
            Some(known) => known.push((labels, value)),
            None => _ = lines.insert(whole.clone(), vec![(labels, value)]),
        }
    };
    for metric in linkerd_metrics(registry) {
        let (name, labels) = metric.prometheus_name(prefix);
        match metric.value {
            Shown::Counter(n) => put(&name, "", labels, n as f64),
            Shown::Gauge(value) => put(&name, "", labels, value),
            Shown::Stat(unit, histo) if !histo.is_empty() => {
                for (q, share) in QUANTILES {
                    let labels = labels.with(", ", "quantile", q);
                    let value = histo.quantile(share) as f64 / unit.divisor();
                    put(&name, "", labels, value);
                }
                put(&name, "_count", labels.clone(), histo.count() as f64);
                let sum = histo.sum() as f64 / unit.divisor();
                put(&name, "_sum", labels.clone(), sum);
                put(&name, "_avg", labels, histo.avg() / unit.divisor());
            }
            Shown::Stat(..) => {}
        }
    }
    let count: usize = lines.values().map(Vec::len).sum();
    let mut page = String::with_capacity(count * LINE);
    for (name, mut values) in lines {
        // Stable: of two with the same labels the first one counts.
        values.sort_by(|one, other| one.0.cmp(&other.0));
        values.dedup_by(|later, earlier| later.0 == earlier.0);
        for (labels, value) in values {
            line(&name, &labels.0, value, &mut page);
        }
    }
    page
}

/// The quantiles of a summary.
const QUANTILES: [(&str, f64); 8] = [
    ("0", 0.0),
    ("0.5", 0.5),
    ("0.9", 0.9),
    ("0.95", 0.95),
    ("0.99", 0.99),
    ("0.999", 0.999),
    ("0.9999", 0.9999),
    ("1", 1.0),
];

/// About how long a line is.
const LINE: usize = 128;

/// A metric with its whole name.
struct Metric {
    /// Each of its nodes is one label value or word.
    scope: Scope,
    /// The name below the scope, with slashes.
    name: Box<str>,
    value: Shown,
}

#[derive(Debug, Clone)]
enum Shown {
    Counter(u64),
    Gauge(f64),
    /// The summary of the last minute.
    Stat(Unit, Histo),
}

/// Everything that has a name of Linkerd's, the process's own included.
fn linkerd_metrics(registry: &Registry) -> Vec<Metric> {
    let wanted = Wanted {
        linkerd: true,
        ..Wanted::default()
    };
    let mut metrics = Vec::new();
    for Reading {
        scope,
        items,
        stats,
    } in registry.read(wanted)
    {
        let whole = |name, value| Metric {
            scope: scope.clone(),
            name,
            value,
        };
        for Item { name, value } in items {
            let Name::Linkerd(name) = name else { continue };
            match value {
                Value::Counter(n) => metrics.push(whole(name, Shown::Counter(n))),
                Value::Gauge(v) => metrics.push(whole(name, Shown::Gauge(v))),
                Value::Stat(..) => {}
            }
        }
        for (name, unit, histo) in stats {
            metrics.push(whole(name, Shown::Stat(unit, histo)));
        }
    }
    metrics.extend(
        super::process::jvm()
            .into_iter()
            .map(|(name, value)| Metric {
                scope: Scope::new(["jvm"]),
                name: name.into(),
                value: Shown::Gauge(value),
            }),
    );
    metrics
}

impl Metric {
    /// All nodes down to the metric.
    fn nodes(&self) -> impl Iterator<Item = &str> {
        let scope = self.scope.nodes().iter().map(AsRef::as_ref);
        scope.chain(self.name.split('/'))
    }

    /// Name and labels on the Prometheus page.
    fn prometheus_name(&self, prefix: &str) -> (String, Labels) {
        let mut nodes: Vec<&str> = Vec::with_capacity(12);
        nodes.extend(self.nodes());
        let (mut name, mut labels) = (String::with_capacity(64), Labels::long());
        name.push_str(prefix);
        let mut rest = &nodes[..];
        let mut word = |word: &str| {
            if !name.is_empty() && name != prefix {
                name.push(':');
            }
            let ok = |c: char| c.is_ascii_alphanumeric() || c == ':';
            name.extend(word.chars().map(|c| if ok(c) { c } else { '_' }));
        };
        while let [node, after @ ..] = rest {
            // Below a router these words are followed by a label's value.
            let label = match (*node, labels.0.is_empty()) {
                ("rt", true) => Some("rt"),
                ("service" | "client" | "server", false) => Some(*node),
                _ => None,
            };
            let exception = match *node {
                "failures" => Some("exception"),
                "exn" => Some("exceptions"),
                _ => None,
            };
            word(node);
            rest = after;
            match (label, exception) {
                (Some(label), _) if after.len() > 1 => {
                    labels.push(", ", label, after[0]);
                    rest = &after[1..];
                }
                (_, Some(label)) if !after.is_empty() => {
                    labels.push(", ", label, &after.join(":"));
                    rest = &[];
                }
                _ => {}
            }
        }
        (name, labels)
    }
}

/// The tree of all metrics; a node may be a metric and have others below (`failures`).
#[derive(Default)]
struct Tree {
    value: Option<Shown>,
    children: BTreeMap<Box<str>, Tree>,
}

impl Tree {
    fn insert(&mut self, metric: Metric) {
        let mut at = self;
        for node in metric.nodes() {
            at = at.children.entry(node.into()).or_default();
        }
        at.value.get_or_insert(metric.value);
    }

    /// The node at a path of words with slashes between them, some of which may belong to one node.
    fn resolve(&self, path: &str) -> Option<&Tree> {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Some(self);
        }
        self.children.iter().find_map(|(node, child)| {
            let rest = path.strip_prefix(node.as_ref())?;
            match rest.is_empty() || rest.starts_with('/') {
                true => child.resolve(rest),
                false => None,
            }
        })
    }

    fn flatten<'a>(&'a self, prefix: &str, out: &mut BTreeMap<String, &'a Shown>) {
        if let Some(value) = &self.value {
            out.entry(prefix.to_owned()).or_insert(value);
        }
        for (node, child) in &self.children {
            match prefix {
                "" => child.flatten(node, out),
                _ => child.flatten(&format!("{prefix}/{node}"), out),
            }
        }
    }

    fn write_nested(&self, out: &mut JsonWriter) {
        out.object(|out| {
            match &self.value {
                Some(value @ Shown::Counter(_)) => value.write("counter", out),
                Some(value @ Shown::Gauge(_)) => value.write("gauge", out),
                Some(value @ Shown::Stat(..)) => value.write("stat", out),
                None => {}
            }
            for (node, child) in &self.children {
                out.key(node);
                child.write_nested(out);
            }
        });
    }
}

impl Shown {
    /// The fields of this metric, called `name` or starting with it.
    fn write(&self, name: &str, out: &mut JsonWriter) {
        match self {
            Shown::Counter(n) => out.field(name, *n as f64),
            // Linkerd's gauges always have a point; NaN and infinity have no JSON.
            Shown::Gauge(value) if value.is_finite() => {
                out.key(name);
                _ = write!(out.text, "{value:?}");
            }
            Shown::Gauge(_) => {}
            Shown::Stat(unit, histo) => write_summary(name, *unit, histo, out),
        }
    }
}

fn write_summary(name: &str, unit: Unit, histo: &Histo, out: &mut JsonWriter) {
    let mut key = String::with_capacity(name.len() + 6);
    let mut field = |what: &str, value| {
        key.clear();
        key.extend([name, ".", what]);
        out.field(&key, value);
    };
    field("count", histo.count() as f64);
    if histo.is_empty() {
        return;
    }
    let quantile = |q| histo.quantile(q) as f64;
    let fields = [
        ("max", histo.max() as f64),
        ("min", histo.min() as f64),
        ("p50", quantile(0.5)),
        ("p90", quantile(0.9)),
        ("p95", quantile(0.95)),
        ("p99", quantile(0.99)),
        ("p9990", quantile(0.999)),
        ("p9999", quantile(0.9999)),
        ("sum", histo.sum() as f64),
        ("avg", histo.avg()),
    ];
    for (key, value) in fields {
        field(key, value / unit.divisor());
    }
}

/// Writes JSON objects of numbers as Jackson does, flat or indented.
struct JsonWriter {
    text: String,
    pretty: bool,
    depth: usize,
}

impl JsonWriter {
    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.text.push('{');
        self.depth += 1;
        fields(self);
        self.depth -= 1;
        if !self.text.ends_with('{') {
            self.new_line();
        }
        self.text.push('}');
    }

    fn key(&mut self, key: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.new_line();
        match key.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
            true => self.text.extend(["\"", key, "\""]),
            false => _ = write!(self.text, "{}", serde_json::Value::from(key)),
        }
        self.text.push_str(if self.pretty { " : " } else { ":" });
    }

    fn field(&mut self, key: &str, value: f64) {
        self.key(key);
        number(value, &mut self.text);
    }

    fn new_line(&mut self) {
        if self.pretty {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n("  ", self.depth));
        }
    }
}

#[cfg(test)]
mod tests;
