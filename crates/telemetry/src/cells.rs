//! What a data thread counts in: a [`Cell`], a [`Gauge`], a [`Histogram`], each written by one thread and read by any.
//!
//! A single writer needs no locked instruction: a relaxed load and a relaxed store are an ordinary addition. The reader may
//! see a value that is a moment old, never a torn one. [`Counter`] is the exception for the control plane, where several
//! threads write.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

mod histo;

pub use histo::Histo;

/// A counter with one writing thread. From several threads additions get lost, nothing worse.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn incr(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter that any thread may add to; for the control plane, where the price of a locked addition does not matter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn incr(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level (requests in flight, open connections) with one writing thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// A level of zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Replaces the level.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Raises the level, or lowers it by a negative `n`.
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// One more.
    pub fn incr(&self) {
        self.add(1);
    }

    /// One less.
    pub fn decr(&self) {
        self.add(-1);
    }

    /// The level now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// The share of a power of two that a bucket covers, as a number of bits: 32 buckets to an octave are 3.1 % wide, so a
/// bucket's middle is at most 1.6 % off.
const SUB_BITS: u32 = 5;
/// Buckets in one row: all values below 32 exactly in the first, then one row for each octave.
const ROW: usize = 1 << SUB_BITS;
/// Rows: the last one ends at 2^40 µs, twelve days; longer values count as that.
const ROWS: usize = 36;

type Row = [AtomicU64; ROW];

/// How often which value came, in buckets at most 3.2 % wide, with one writing thread; mostly latencies in microseconds.
///
/// An unused histogram, or one of zeros (how often a request was repeated), costs three words; each octave that values fall in
/// costs 256 bytes more. It only ever grows: who wants the values of the last minute takes the difference of two snapshots
/// ([`Histo::since`]).
#[derive(Debug, Default)]
pub struct Histogram {
    zeros: Cell,
    others: OnceLock<Box<Cells>>,
}

#[derive(Debug)]
struct Cells {
    sum: AtomicU64,
    rows: [OnceLock<Box<Row>>; ROWS],
}

impl Histogram {
    /// A histogram without values and without memory.
    pub const fn new() -> Self {
        Self {
            zeros: Cell::new(),
            others: OnceLock::new(),
        }
    }

    /// Takes a value in.
    pub fn record(&self, value: u64) {
        if value == 0 {
            self.zeros.incr();
            return;
        }
        let cells = self.others.get_or_init(|| {
            Box::new(Cells {
                sum: AtomicU64::new(0),
                rows: [const { OnceLock::new() }; ROWS],
            })
        });
        let (row, column) = place(value);
        let row = cells.rows[row].get_or_init(|| Box::new([const { AtomicU64::new(0) }; ROW]));
        let bucket = &row[column];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        cells
            .sum
            .store(cells.sum.load(Relaxed).wrapping_add(value), Relaxed);
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.zeros.get() == 0 && self.others.get().is_none()
    }

    /// A copy of all counts so far.
    pub fn snapshot(&self) -> Histo {
        let mut histo = Histo::default();
        self.add_to(&mut histo);
        histo
    }

    /// Adds all counts so far to `histo`: [`Histo::merge`] without the copy in between.
    pub fn add_to(&self, histo: &mut Histo) {
        let zeros = (0, self.zeros.get());
        let cells = self.others.get();
        let rows = cells.iter().flat_map(|cells| cells.rows.iter().enumerate());
        let counts = rows.flat_map(|(r, row)| {
            let row = row.get().into_iter().flat_map(|row| row.iter());
            let counts = row.map(|bucket| bucket.load(Relaxed)).enumerate();
            counts.map(move |(c, n)| ((r * ROW + c) as u16, n))
        });
        let sum = cells.map_or(0, |cells| cells.sum.load(Relaxed));
        let counts = std::iter::once(zeros).chain(counts);
        histo.add(counts.filter(|(_, n)| *n > 0), sum);
    }
}

/// The row and column of a value's bucket.
fn place(value: u64) -> (usize, usize) {
    let value = value.min((1 << (SUB_BITS as usize + ROWS - 1)) - 1);
    // The position of the highest bit decides the octave; the bits after it the place in the row.
    let octave = (u64::BITS - (value >> SUB_BITS).leading_zeros()) as usize;
    let shift = octave.saturating_sub(1);
    (octave, (value >> shift) as usize & (ROW - 1))
}

/// The smallest value of a bucket, and how many values it has.
fn bounds(index: u16) -> (u64, u64) {
    let (octave, column) = (index as usize / ROW, (index as usize % ROW) as u64);
    match octave {
        0 => (column, 1),
        _ => ((ROW as u64 + column) << (octave - 1), 1 << (octave - 1)),
    }
}

#[cfg(test)]
mod tests;
