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
    let (threes, rest) = bytes.as_chunks::<3>();
    let (fours, _) = out.as_chunks_mut::<4>();
    for (three, four) in threes.iter().zip(&mut *fours) {
        *four = digits(*three);
    }
    if !rest.is_empty()
        && let Some(four) = fours.get_mut(threes.len())
    {
        let mut last = [0; 3];
        last[..rest.len()].copy_from_slice(rest);
        *four = digits(last);
        four[rest.len() + 1..].fill(b'=');
    }
    4 * fours.len().min(bytes.len().div_ceil(3))
}

/// The four digits of three bytes.
fn digits([a, b, c]: [u8; 3]) -> [u8; 4] {
    let word = u32::from_be_bytes([0, a, b, c]);
    [18, 12, 6, 0].map(|shift| ALPHABET[(word >> shift) as usize & 63])
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
