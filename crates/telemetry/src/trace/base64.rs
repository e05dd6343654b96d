//! Base64 with the standard alphabet, for the few dozen bytes of a trace context and for scribe.

use super::eight::{ONES, at_least};

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
    let (sixes, rest) = bytes.as_chunks::<6>();
    let (eights, _) = out.as_chunks_mut::<8>();
    for (six, eight) in sixes.iter().zip(eights) {
        *eight = digits(*six);
    }
    let mut last = [0; 6];
    last[..rest.len()].copy_from_slice(rest);
    let mut text = digits(last);
    text[(4 * rest.len()).div_ceil(3)..].fill(b'=');
    let (whole, len) = (8 * sixes.len(), 4 * rest.len().div_ceil(3));
    if let Some(end) = out.get_mut(whole..whole + len) {
        end.copy_from_slice(&text[..len]);
    }
    out.len().min(whole + len)
}

/// The eight digits of six bytes.
fn digits([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    // Halved three times, until each byte has its six bits.
    let word = (word & 0x0000_00ff_ffff) | ((word & 0xffff_ff00_0000) << 8);
    let word = (word & 0x0000_0fff_0000_0fff) | ((word & 0x00ff_f000_00ff_f000) << 4);
    let word = (word & 0x003f_003f_003f_003f) | ((word & 0x0fc0_0fc0_0fc0_0fc0) << 2);
    // From 'A'; lower case, digits, '+' and '/' begin elsewhere.
    let up = ONES * u64::from(b'A') + 6 * at_least(26, word) + 3 * at_least(63, word);
    let text = word + up - 75 * at_least(52, word) - 15 * at_least(62, word);
    text.to_be_bytes()
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
