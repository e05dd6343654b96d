//! `/admin/metrics/influxdb`: Linkerd's tree in InfluxDB's line protocol, telemeter `io.l5d.influxdb`.

use std::collections::BTreeMap;

use super::super::registry::Registry;
use super::super::text::number;
use super::{Metric, Shown, linkerd_metrics};

/// A measurement's name, and the tags of a line of it.
type Line = (String, BTreeMap<&'static str, String>);

/// A line for each place in the tree, with the metrics of that place as its fields. `host` is the tag that tells processes apart.
///
/// The measurement is the place with colons, or `root`; router, service, client and server are tags. Unlike Linkerd's, commas, blanks
/// and the like are escaped, so that a line can always be read.
pub fn influxdb(registry: &Registry, host: &str) -> String {
    let mut lines: BTreeMap<Line, BTreeMap<String, f64>> = BTreeMap::new();
    for metric in linkerd_metrics(registry) {
        let (measurement, mut tags, field) = metric.influx_place();
        tags.insert("host", host.to_owned());
        let fields = lines.entry((measurement, tags)).or_default();
        let mut put = |suffix: &str, value: f64| {
            // The protocol has no NaN and no infinity.
            if value.is_finite() {
                fields.entry(format!("{field}{suffix}")).or_insert(value);
            }
        };
        match metric.value {
            Shown::Counter(n) => put("", n as f64),
            Shown::Gauge(value) => put("", value),
            Shown::Stat(unit, histo) => {
                let quantile = |q| histo.quantile(q) as f64;
                put("_count", histo.count() as f64);
                for (suffix, value) in [
                    ("_sum", histo.sum() as f64),
                    ("_avg", histo.avg()),
                    ("_min", histo.min() as f64),
                    ("_max", histo.max() as f64),
                    ("_p50", quantile(0.5)),
                    ("_p90", quantile(0.9)),
                    ("_p95", quantile(0.95)),
                    ("_p99", quantile(0.99)),
                    ("_p999", quantile(0.999)),
                    ("_p9999", quantile(0.9999)),
                ] {
                    put(suffix, value / unit.divisor());
                }
            }
        }
    }
    let mut page = String::new();
    for ((measurement, tags), fields) in lines.iter().filter(|(_, fields)| !fields.is_empty()) {
        page.push_str(measurement);
        // The protocol wants no empty values.
        for (name, value) in tags.iter().filter(|(_, value)| !value.is_empty()) {
            page.push(',');
            page.push_str(name);
            page.push('=');
            escape(value, &mut page);
        }
        for (at, (name, value)) in fields.iter().enumerate() {
            page.push(if at == 0 { ' ' } else { ',' });
            escape(name, &mut page);
            page.push('=');
            number(*value, &mut page);
        }
        page.push('\n');
    }
    page
}

impl Metric {
    /// Measurement, tags and field.
    fn influx_place(&self) -> (String, BTreeMap<&'static str, String>, String) {
        let mut nodes: Vec<&str> = self.nodes().collect();
        let field = nodes.pop().unwrap_or_default().to_owned();
        let (mut words, mut tags): (Vec<&str>, BTreeMap<&'static str, String>) = Default::default();
        let mut rest = nodes.into_iter();
        while let Some(word) = rest.next() {
            words.push(word);
            let tag = match &words[..] {
                ["rt"] => "rt",
                ["rt", "service"] | ["rt", "client", "service"] => "service",
                ["rt", "client"] => "client",
                ["rt", "server"] => "server",
                _ => continue,
            };
            if let Some(value) = rest.next() {
                tags.insert(tag, value.to_owned());
            }
        }
        let ok = |c: char| c.is_ascii_alphanumeric() || c == ':';
        let measurement = match words.is_empty() {
            true => "root".to_owned(),
            false => words.join(":").replace(|c| !ok(c), "_"),
        };
        (measurement, tags, field)
    }
}

/// A key or a tag's value as the protocol wants it. A line break cannot be written at all, nor a backslash at the end.
fn escape(text: &str, out: &mut String) {
    for c in text.trim_end_matches('\\').chars() {
        match c {
            ',' | '=' | ' ' => out.extend(['\\', c]),
            c if c.is_control() => out.push('_'),
            c => out.push(c),
        }
    }
}
