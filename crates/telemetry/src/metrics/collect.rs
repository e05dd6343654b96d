//! How a source reports, and how reports under one scope are added up.

use crate::cells::{Histo, Histogram};

/// Something that has metrics; usually the very object that a data thread counts in.
pub trait Source: Send + Sync {
    /// Reports all of them. Called on the control runtime, at every scrape: only reads.
    fn collect(&self, out: &mut Collector<'_>);
}

/// What a stat's recorded values mean, and how they are shown: Linkerd's name says the unit, ours are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Recorded in µs, shown by Linkerd's names in ms (`request_latency_ms`).
    Millis,
    /// Recorded and shown in µs (`handletime_us`).
    Micros,
    /// A number: attempts, bytes, requests of a connection.
    Plain,
}

impl Unit {
    /// By what a recorded value is divided to be shown.
    pub(super) fn divisor(self) -> f64 {
        match self {
            Unit::Millis => 1000.0,
            Unit::Micros | Unit::Plain => 1.0,
        }
    }
}

/// A metric's value, added up over all sources of its scope.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Counter(u64),
    Gauge(f64),
    Stat(Unit, Histo),
}

/// A metric below a scope: a name of Linkerd's, or a family and labels of ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) name: Name,
    pub(super) value: Value,
}

/// What a metric is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Linkerd's, relative to the scope: `failures/com.example.Error`.
    Linkerd(Box<str>),
    /// A family of ours and its labels beyond those of the scope.
    Ours(&'static str, Vec<(&'static str, Box<str>)>),
}

/// What a reader is going to use; the rest need not be read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// Linkerd's counters and gauges.
    pub(super) linkerd: bool,
    /// Linkerd's stats, whole since their beginning.
    pub(super) stats: bool,
    /// Families of ours.
    pub(super) ours: bool,
}

impl Wanted {
    pub(super) const ALL: Wanted = Wanted {
        linkerd: true,
        stats: true,
        ours: true,
    };
}

/// Takes the reports of the sources of one scope. What several of them report under one name is summed, histograms are merged.
pub struct Collector<'a> {
    items: &'a mut Vec<Item>,
    wanted: Wanted,
    /// Where the next name probably is: each worker's source reports the same names in the same order.
    at: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(items: &'a mut Vec<Item>, wanted: Wanted) -> Self {
        Self {
            items,
            wanted,
            at: 0,
        }
    }

    /// A counter by Linkerd's name, relative to the scope: `requests`, `failures/<exception>`.
    pub fn counter(&mut self, name: &str, value: u64) {
        if self.wanted.linkerd {
            self.put(
                |have| matches!(have, Name::Linkerd(n) if **n == *name),
                || Name::Linkerd(name.into()),
                Value::Counter(value),
            );
        }
    }

    /// A gauge by Linkerd's name.
    pub fn gauge(&mut self, name: &str, value: f64) {
        if self.wanted.linkerd {
            self.put(
                |have| matches!(have, Name::Linkerd(n) if **n == *name),
                || Name::Linkerd(name.into()),
                Value::Gauge(value),
            );
        }
    }

    /// A stat by Linkerd's name; shown as summary of the last minute.
    pub fn stat(&mut self, name: &str, unit: Unit, histogram: &Histogram) {
        if self.wanted.stats {
            let slot = self.put(
                |have| matches!(have, Name::Linkerd(n) if **n == *name),
                || Name::Linkerd(name.into()),
                Value::Stat(unit, Histo::default()),
            );
            if let Value::Stat(_, histo) = slot {
                histogram.add_to(histo);
            }
        }
    }

    /// A counter of one of our families ([`families`](super::ours::FAMILIES)), with labels beyond those of the scope.
    pub fn ours(&mut self, family: &'static str, labels: &[(&'static str, &str)], value: u64) {
        if self.wanted.ours {
            self.put_ours(family, labels, Value::Counter(value));
        }
    }

    /// A gauge of one of our families.
    pub fn our_gauge(&mut self, family: &'static str, labels: &[(&'static str, &str)], value: f64) {
        if self.wanted.ours {
            self.put_ours(family, labels, Value::Gauge(value));
        }
    }

    /// A histogram of one of our families, recorded in µs and shown in seconds.
    pub fn duration(
        &mut self,
        family: &'static str,
        labels: &[(&'static str, &str)],
        histogram: &Histogram,
    ) {
        if self.wanted.ours && !histogram.is_empty() {
            let slot = self.put_ours(family, labels, Value::Stat(Unit::Millis, Histo::default()));
            if let Value::Stat(_, histo) = slot {
                histogram.add_to(histo);
            }
        }
    }

    fn put_ours(
        &mut self,
        family: &'static str,
        labels: &[(&'static str, &str)],
        value: Value,
    ) -> &mut Value {
        let same = |have: &Name| match have {
            Name::Ours(f, l) => {
                *f == family
                    && l.len() == labels.len()
                    && l.iter()
                        .zip(labels)
                        .all(|(a, b)| a.0 == b.0 && *a.1 == *b.1)
            }
            Name::Linkerd(_) => false,
        };
        let name = || {
            let labels = labels.iter().map(|(k, v)| (*k, Box::from(*v)));
            Name::Ours(family, labels.collect())
        };
        self.put(same, name, value)
    }

    fn put(
        &mut self,
        same: impl Fn(&Name) -> bool,
        name: impl FnOnce() -> Name,
        value: Value,
    ) -> &mut Value {
        let at = match self.items.get(self.at) {
            Some(item) if same(&item.name) => self.at,
            _ => match self.items.iter().position(|item| same(&item.name)) {
                Some(at) => at,
                None => {
                    self.items.push(Item {
                        name: name(),
                        value,
                    });
                    self.at = self.items.len();
                    let last = self.items.len() - 1;
                    return &mut self.items[last].value;
                }
            },
        };
        self.at = at + 1;
        let slot = &mut self.items[at].value;
        slot.add(&value);
        slot
    }
}

impl Value {
    /// Adds what another source reports under the same name.
    pub(super) fn add(&mut self, other: &Value) {
        match (self, other) {
            (Value::Counter(sum), Value::Counter(n)) => *sum = sum.wrapping_add(*n),
            (Value::Gauge(sum), Value::Gauge(n)) => *sum += n,
            (Value::Stat(_, sum), Value::Stat(_, histo)) => sum.merge(histo),
            // A name that is two things at once is a defect of the source; the first one stays.
            _ => debug_assert!(false, "a metric is reported as two kinds"),
        }
    }
}
