//! A chunked body is the same, however its bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router::http1::{BodyError, BodyScanner, Framing};

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = in_steps(bytes, bytes.len().max(1));
    let pieces = in_steps(bytes, usize::from(step % 16) + 1);
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(_), Err(_)) => {}
        _ => panic!("whole: {whole:?}, in pieces: {pieces:?}"),
    }
});

/// The data, how much was consumed, and whether the body ended.
fn in_steps(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut scanner = BodyScanner::new(Framing::Chunked);
    let (mut data, mut consumed) = (Vec::new(), 0);
    for piece in bytes.chunks(step) {
        let scanned = scanner.data(piece, |part| data.extend_from_slice(part))?;
        assert!(scanned.consumed <= piece.len());
        consumed += scanned.consumed;
        if scanned.done {
            break;
        }
        assert_eq!(scanned.consumed, piece.len(), "a body that goes on takes all");
    }
    Ok((data, consumed, scanner.is_done()))
}
