//! Base64 with the standard alphabet, for the few dozen bytes of a trace context and for scribe.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A digit's value, or [`NONE`].
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < 64 {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Has a bit that no digit's value has.
const NONE: u8 = 0x80;

/// Writes `bytes` as padded base64 into `out`, which must have room for four characters for each three bytes begun.
/// Returns the length written.
pub(crate) fn encode(bytes: &[u8], out: &mut [u8]) -> usize {
    let mut written = 0;
    for (three, four) in bytes.chunks(3).zip(out.chunks_exact_mut(4)) {
        let byte = |i| u32::from(three.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = |shift: u32| ALPHABET[(word >> shift) as usize & 63];
        let last_two = [b'=', b'='];
        four.copy_from_slice(&[digit(18), digit(12), digit(6), digit(0)]);
        four[three.len() + 1..].copy_from_slice(&last_two[..3 - three.len()]);
        written += 4;
    }
    written
}

/// Reads padded base64 into `out`; the number of bytes, or none when it is no base64 or longer than `out`.
pub(crate) fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let (last, whole) = text
        .split_last_chunk::<4>()
        .map(|(rest, last)| (last, rest))?;
    if !whole.len().is_multiple_of(4) {
        return None;
    }
    let mut len = 0;
    for four in whole.chunks_exact(4) {
        let three = out.get_mut(len..len + 3)?;
        three.copy_from_slice(&word(four)?.to_be_bytes()[1..]);
        len += 3;
    }
    let count = match last {
        [.., b'=', b'='] => 1,
        [.., b'='] => 2,
        _ => 3,
    };
    let mut digits = *last;
    digits[count + 1..].fill(b'A');
    let bytes = word(&digits)?.to_be_bytes();
    // Bits left over after the last byte must be zero: one text for one value.
    if bytes[1 + count..].iter().any(|b| *b != 0) {
        return None;
    }
    out.get_mut(len..len + count)?
        .copy_from_slice(&bytes[1..=count]);
    Some(len + count)
}

/// The 24 bits of four digits.
fn word(digits: &[u8]) -> Option<u32> {
    let (mut word, mut all) = (0, 0);
    for digit in digits {
        let value = VALUES[usize::from(*digit)];
        word = word << 6 | u32::from(value);
        all |= value;
    }
    (all & NONE == 0).then_some(word & 0x00ff_ffff)
}
