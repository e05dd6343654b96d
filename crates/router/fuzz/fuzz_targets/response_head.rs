//! Any bytes are judged without a panic, in the same way however they are cut, and what is read is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router::http1::{Limits, Method, Parsed, ResponseHead, strip_hop_by_hop};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let limits = Limits::default();
    let mut whole = ResponseHead::new();
    let verdict = whole.parse(bytes, &limits);

    let mut cut_once = ResponseHead::new();
    let first = cut_once.parse(&bytes[..usize::from(cut).min(bytes.len())], &limits);
    match first {
        Ok(Parsed::Partial) => assert_eq!(cut_once.parse(bytes, &limits), verdict),
        decided => assert_eq!(decided, verdict),
    }

    if let Ok(Parsed::Complete { consumed }) = verdict {
        let mut out = Vec::new();
        whole.write(&mut out);
        assert_eq!(out, &bytes[..consumed]);

        strip_hop_by_hop(&mut whole);
        whole.append(b"Via", bytes);
        out.clear();
        whole.write(&mut out);
        let mut again = ResponseHead::new();
        let large = Limits {
            head: usize::MAX,
            line: usize::MAX,
            fields: usize::MAX,
        };
        assert!(
            matches!(again.parse(&out, &large), Ok(Parsed::Complete { consumed }) if consumed == out.len())
        );
        for method in [Method::Get, Method::Head, Method::Connect] {
            assert_eq!(again.framing(method), whole.framing(method));
        }
    }
});
