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
/// An unused histogram, or one of zeros (how often a request was repeated), costs five words. The first value brings 1 KiB for
/// the octaves around it, so that most values touch two cache lines, this one and their bucket's; each further octave costs
/// 256 bytes. It only ever grows: who wants the values of the last minute takes the difference of two snapshots
/// ([`Histo::since`]).
#[derive(Debug, Default)]
pub struct Histogram {
    zeros: Cell,
    sum: Cell,
    others: OnceLock<Rows>,
}

/// The buckets of all values but 0.
#[derive(Debug)]
struct Rows {
    /// The octave of the first row of `near`.
    first: usize,
    near: Box<Near>,
}

#[derive(Debug)]
struct Near {
    rows: [Row; NEAR],
    far: OnceLock<Box<[OnceLock<Box<Row>>; ROWS]>>,
}

/// Octaves that lie together: that of the first value, one above it, and two below, as what comes first often takes longest.
const NEAR: usize = 4;
const BELOW: usize = 2;

impl Histogram {
    /// A histogram without values and without memory.
    pub const fn new() -> Self {
        Self {
            zeros: Cell::new(),
            sum: Cell::new(),
            others: OnceLock::new(),
        }
    }

    /// Takes a value in.
    pub fn record(&self, value: u64) {
        if value == 0 {
            self.zeros.incr();
            return;
        }
        let (row, column) = place(value);
        add(self.bucket(row, column), 1);
        self.sum.add(value);
    }

    /// Takes in all that `gone` has counted; to be called by the thread that writes this one.
    pub fn absorb(&self, gone: &Histogram) {
        self.zeros.add(gone.zeros.get());
        self.sum.add(gone.sum.get());
        for (row, column, n) in gone.counts() {
            add(self.bucket(row, column), n);
        }
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
        let zeros = Some((0, self.zeros.get())).filter(|(_, n)| *n > 0);
        let counts = self.counts();
        let counts = counts.map(|(row, column, n)| ((row * ROW + column) as u16, n));
        histo.add(zeros.into_iter().chain(counts), self.sum.get());
    }

    fn bucket(&self, row: usize, column: usize) -> &AtomicU64 {
        let rows = self.others.get_or_init(|| Rows::around(row));
        match rows.near.rows.get(row.wrapping_sub(rows.first)) {
            Some(row) => &row[column],
            None => rows.near.far(row, column),
        }
    }

    /// The buckets that are not empty, in rising order: row, column and count.
    fn counts(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let rows = self.others.get().into_iter();
        let rows = rows.flat_map(|rows| (0..ROWS).filter_map(|at| Some((at, rows.row(at)?))));
        let counts = rows.flat_map(|(at, row)| {
            let counts = row.iter().map(|bucket| bucket.load(Relaxed)).enumerate();
            counts.map(move |(column, n)| (at, column, n))
        });
        counts.filter(|(.., n)| *n > 0)
    }
}

impl Rows {
    /// With a row near to all that are to be expected after a value in `row`.
    fn around(row: usize) -> Self {
        Self {
            first: row.saturating_sub(BELOW),
            near: Box::new(Near {
                rows: [const { [const { AtomicU64::new(0) }; ROW] }; NEAR],
                far: OnceLock::new(),
            }),
        }
    }

    fn row(&self, at: usize) -> Option<&Row> {
        let near = self.near.rows.get(at.wrapping_sub(self.first));
        near.or_else(|| self.near.far.get()?[at].get().map(|row| &**row))
    }
}

impl Near {
    #[cold]
    fn far(&self, row: usize, column: usize) -> &AtomicU64 {
        let far = self
            .far
            .get_or_init(|| Box::new([const { OnceLock::new() }; ROWS]));
        let row = far[row].get_or_init(|| Box::new([const { AtomicU64::new(0) }; ROW]));
        &row[column]
    }
}

fn add(bucket: &AtomicU64, n: u64) {
    bucket.store(bucket.load(Relaxed) + n, Relaxed);
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
