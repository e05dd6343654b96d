//! A body ends at the same byte and carries the same data however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router::http1::{BodyError, BodyScanner, Framing};

fn read(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut scanner = BodyScanner::new(framing);
    let (mut data, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let scanned = scanner.data(piece, |bytes| data.extend_from_slice(bytes))?;
        taken += scanned.consumed;
        if scanned.done {
            break;
        }
        assert_eq!(scanned.consumed, piece.len());
    }
    Ok((data, taken, scanner.is_done()))
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (cut, length, bytes) = input;
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for framing in [
        Framing::Chunked,
        Framing::Length(u64::from(length)),
        Framing::UntilClose,
        Framing::None,
    ] {
        let whole = read(framing, &[bytes]);
        assert_eq!(whole, read(framing, &[front, back]));
        if let (Framing::Length(length), Ok((data, taken, done))) = (framing, whole) {
            assert_eq!(data, &bytes[..taken]);
            assert_eq!(done, taken as u64 == length);
        }
    }
});
