use super::*;
use proptest::prelude::*;

#[test]
fn an_unused_histogram_has_no_memory_and_no_values() {
    let histogram = Histogram::new();
    assert!(histogram.is_empty());
    let histo = histogram.snapshot();
    assert_eq!(
        (histo.count(), histo.min(), histo.max(), histo.quantile(0.5)),
        (0, 0, 0, 0)
    );
}

#[test]
fn zeros_are_counted_and_have_no_memory_of_their_own() {
    let histogram = Histogram::new();
    for value in [0, 0, 3, 0] {
        histogram.record(value);
    }
    let histo = histogram.snapshot();
    assert_eq!((histo.count(), histo.sum(), histo.min()), (4, 3, 0));
    assert_eq!(histo.values().collect::<Vec<_>>(), [(0, 3), (3, 1)]);
    let zeros = Histogram::new();
    zeros.record(0);
    assert!(!zeros.is_empty() && zeros.others.get().is_none());
}

#[test]
fn small_values_are_exact() {
    for value in 0..64 {
        let histo: Histo = [value].into_iter().collect();
        assert_eq!(histo.max(), value);
    }
}

#[test]
fn the_greatest_value_lands_in_the_last_bucket() {
    assert_eq!(place(u64::MAX), (ROWS - 1, ROW - 1));
}

#[test]
fn buckets_lie_side_by_side() {
    let mut next = 0;
    for index in 0..(ROW * ROWS) as u16 {
        let (from, width) = bounds(index);
        assert_eq!(from, next, "bucket {index}");
        next = from + width;
    }
}

#[test]
fn cumulative_counts_rise_to_the_whole() {
    let histo: Histo = (1..=1000).map(|n| n * 1000).collect();
    let mut out = Vec::new();
    histo.cumulative(&[999, 10_000, 500_000, 10_000_000], &mut out);
    assert_eq!(out[0], 0);
    assert!((9..=11).contains(&out[1]) && (490..=510).contains(&out[2]));
    assert_eq!(out[3], 1000);
}

proptest! {
    #[test]
    fn a_bucket_holds_the_values_placed_in_it(value in 0u64..1 << 40) {
        let (row, column) = place(value);
        let (from, width) = bounds((row * ROW + column) as u16);
        prop_assert!(from <= value && value < from + width);
    }

    #[test]
    fn quantiles_are_within_two_percent(mut values in prop::collection::vec(0u64..1 << 38, 1..300), q in 0.0f64..=1.0) {
        let histogram = Histogram::new();
        values.iter().for_each(|v| histogram.record(*v));
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let (want, got) = (values[rank - 1], histogram.snapshot().quantile(q));
        prop_assert!(want.abs_diff(got) as f64 <= want as f64 * 0.02, "{want} {got}");
    }

    #[test]
    fn merging_equals_recording_everything_in_one(a in prop::collection::vec(any::<u32>(), 0..50), b in prop::collection::vec(any::<u32>(), 0..50)) {
        let all: Histo = a.iter().chain(&b).map(|v| u64::from(*v)).collect();
        let mut merged: Histo = a.iter().map(|v| u64::from(*v)).collect();
        merged.merge(&b.iter().map(|v| u64::from(*v)).collect());
        prop_assert_eq!(merged, all);
    }

    #[test]
    fn what_a_histogram_absorbs_is_as_recorded_in_it(a in prop::collection::vec(0u64..1 << 41, 0..50), b in prop::collection::vec(0u64..1 << 41, 0..50)) {
        let (one, other) = (Histogram::new(), Histogram::new());
        a.iter().for_each(|v| one.record(*v));
        b.iter().for_each(|v| other.record(*v));
        one.absorb(&other);
        prop_assert_eq!(one.snapshot(), a.iter().chain(&b).copied().collect());
    }

    #[test]
    fn what_came_since_a_snapshot_is_what_was_recorded_since(a in prop::collection::vec(any::<u32>(), 0..50), b in prop::collection::vec(any::<u32>(), 0..50)) {
        let histogram = Histogram::new();
        a.iter().for_each(|v| histogram.record(u64::from(*v)));
        let earlier = histogram.snapshot();
        b.iter().for_each(|v| histogram.record(u64::from(*v)));
        prop_assert_eq!(histogram.snapshot().since(&earlier), b.iter().map(|v| u64::from(*v)).collect());
    }
}
