//! A histogram at rest: what was counted up to some moment, to merge, subtract and ask.

use super::{bounds, place};

/// Counts of values by bucket, merged from any number of [`Histogram`](super::Histogram)s. Units are those of the values
/// recorded; a value read out of it is at most 1.6 % off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histo {
    /// Bucket and count, in rising order, without empty buckets.
    counts: Vec<(u16, u64)>,
    count: u64,
    sum: u64,
}

impl Histo {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, exact.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The mean; zero without values.
    pub fn avg(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum as f64 / self.count as f64
    }

    /// The smallest value; zero without values.
    pub fn min(&self) -> u64 {
        self.counts.first().map_or(0, |(bucket, _)| middle(*bucket))
    }

    /// The greatest value; zero without values.
    pub fn max(&self) -> u64 {
        self.counts.last().map_or(0, |(bucket, _)| middle(*bucket))
    }

    /// The value that a share `q` (0 to 1) of all values do not exceed; zero without values.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for (bucket, n) in &self.counts {
            below += n;
            if below >= rank {
                return middle(*bucket);
            }
        }
        0
    }

    /// Each value and how often it was counted, in rising order.
    pub fn values(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(bucket, n)| (middle(*bucket), *n))
    }

    /// As [`quantile`](Self::quantile), in percent: `percentile(99.9)`.
    pub fn percentile(&self, percent: f64) -> u64 {
        self.quantile(percent / 100.0)
    }

    /// Takes in all values of `other`.
    pub fn merge(&mut self, other: &Histo) {
        self.add(other.counts.iter().copied(), other.sum);
    }

    /// The values that came after `earlier`, an older snapshot of the same histogram. Where `earlier` has more, because a
    /// source has gone since, nothing is left.
    #[must_use]
    pub fn since(&self, earlier: &Histo) -> Histo {
        let mut old = earlier.counts.iter().copied().peekable();
        let counts: Vec<_> = self
            .counts
            .iter()
            .map(|&(bucket, n)| {
                while old.next_if(|(b, _)| *b < bucket).is_some() {}
                let before = old.next_if(|(b, _)| *b == bucket).map_or(0, |(_, n)| n);
                (bucket, n.saturating_sub(before))
            })
            .filter(|(_, n)| *n > 0)
            .collect();
        Histo {
            count: counts.iter().map(|(_, n)| n).sum(),
            sum: self.sum.saturating_sub(earlier.sum),
            counts,
        }
    }

    /// For each of `limits`, in rising order, how many values are not above it: the cumulative buckets of Prometheus. A bucket that a
    /// limit cuts through counts as below when its middle is.
    pub fn cumulative(&self, limits: &[u64], out: &mut Vec<u64>) {
        out.clear();
        let mut counts = self.counts.iter().peekable();
        let mut below = 0;
        for limit in limits {
            while let Some((_, n)) = counts.next_if(|(bucket, _)| middle(*bucket) <= *limit) {
                below += n;
            }
            out.push(below);
        }
    }

    /// Adds counts, given in rising order of their buckets.
    pub(super) fn add(&mut self, counts: impl Iterator<Item = (u16, u64)>, sum: u64) {
        let mut at = 0;
        for (bucket, n) in counts {
            while self.counts.get(at).is_some_and(|(b, _)| *b < bucket) {
                at += 1;
            }
            match self.counts.get_mut(at) {
                Some((b, count)) if *b == bucket => *count += n,
                _ => self.counts.insert(at, (bucket, n)),
            }
            self.count += n;
        }
        self.sum = self.sum.wrapping_add(sum);
    }
}

impl FromIterator<u64> for Histo {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut histo = Histo::default();
        for value in values {
            let (row, column) = place(value);
            let bucket = (row * super::ROW + column) as u16;
            histo.add(std::iter::once((bucket, 1)), value);
        }
        histo
    }
}

/// The value that stands for a bucket.
fn middle(bucket: u16) -> u64 {
    let (from, width) = bounds(bucket);
    from + width / 2
}
