//! Eight small numbers in one word, a byte each: digits are made of all at once.

/// One in each byte.
pub(super) const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// One in each byte whose value is not less than `least`. Neither may be over 64.
pub(super) const fn at_least(least: u8, values: u64) -> u64 {
    // The byte's highest bit, which the sum reaches.
    (values + ONES * (0x80 - least as u64)) >> 7 & ONES
}
