//! Base64 with the standard alphabet, for the few dozen bytes of a trace context and for scribe.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes `bytes` as padded base64 into `out`, which must have room for four characters for each three bytes begun.
/// Returns the length written.
pub(crate) fn encode(bytes: &[u8], out: &mut [u8]) -> usize {
    let mut len = 0;
    for three in bytes.chunks(3) {
        let word = three
            .iter()
            .enumerate()
            .fold(0u32, |word, (i, b)| word | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            out[len] = match i <= three.len() {
                true => ALPHABET[(word >> (18 - 6 * i)) as usize & 63],
                false => b'=',
            };
            len += 1;
        }
    }
    len
}

/// Reads padded base64 into `out`; the number of bytes, or none when it is no base64 or longer than `out`.
pub(crate) fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text
        .iter()
        .rposition(|b| *b != b'=')
        .map_or(0, |last| last + 1);
    if text.len() - digits > 2 {
        return None;
    }
    let (mut word, mut bits, mut len) = (0u32, 0, 0);
    for digit in &text[..digits] {
        word = word << 6 | digit_value(*digit)?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            *out.get_mut(len)? = (word >> bits) as u8;
            len += 1;
        }
    }
    // Bits left over after the last byte must be zero: one text for one value.
    (word & ((1 << bits) - 1) == 0).then_some(len)
}

fn digit_value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}
