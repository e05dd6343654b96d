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
    let mut len = 0;
    for (piece, text) in bytes.chunks(48).zip(out.chunks_mut(64)) {
        let mut digits = digits(piece);
        let whole = 4 * piece.len().div_ceil(3);
        digits[(4 * piece.len()).div_ceil(3)..whole].fill(b'=');
        let taken = text.len().min(whole);
        text[..taken].copy_from_slice(&digits[..taken]);
        len += taken;
    }
    len
}

/// The digits of up to 48 bytes. Loops over all that there may be are what a compiler makes a few wide instructions of.
fn digits(piece: &[u8]) -> [u8; 64] {
    let mut bytes = [0; 48];
    bytes[..piece.len()].copy_from_slice(piece);
    let mut digits = [0; 64];
    let eights = digits.as_chunks_mut::<8>().0;
    for (six, eight) in bytes.as_chunks::<6>().0.iter().zip(eights) {
        *eight = values(*six);
    }
    for digit in &mut digits {
        *digit = letter(*digit);
    }
    digits
}

/// The values of the eight digits of six bytes.
fn values([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    // Halved three times, until each byte has its six bits.
    let word = (word & 0x0000_00ff_ffff) | ((word & 0xffff_ff00_0000) << 8);
    let word = (word & 0x0000_0fff_0000_0fff) | ((word & 0x00ff_f000_00ff_f000) << 4);
    let word = (word & 0x003f_003f_003f_003f) | ((word & 0x0fc0_0fc0_0fc0_0fc0) << 2);
    word.to_be_bytes()
}

/// A value's digit: from 'A' on; lower case, digits, '+' and '/' begin elsewhere.
fn letter(value: u8) -> u8 {
    let from = |least: u8, step: u8| if value >= least { step } else { 0 };
    (b'A' + value)
        .wrapping_add(from(26, b'a' - b'Z' - 1))
        .wrapping_add(from(52, b'0'.wrapping_sub(b'z' + 1)))
        .wrapping_add(from(62, b'+'.wrapping_sub(b'9' + 1)))
        .wrapping_add(from(63, b'/' - b'+' - 1))
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
