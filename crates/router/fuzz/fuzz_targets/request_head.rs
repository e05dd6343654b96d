//! Any bytes are judged without a panic, in the same way however they are cut, and what is read is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router::http1::{Limits, Parsed, RequestHead, strip_hop_by_hop};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let limits = Limits::default();
    let mut whole = RequestHead::new();
    let verdict = whole.parse(bytes, &limits);

    let mut cut_once = RequestHead::new();
    let first = cut_once.parse(&bytes[..usize::from(cut).min(bytes.len())], &limits);
    match first {
        Ok(Parsed::Partial) => assert_eq!(cut_once.parse(bytes, &limits), verdict),
        decided => assert_eq!(decided, verdict),
    }

    if let Ok(Parsed::Complete { consumed }) = verdict {
        let mut out = Vec::new();
        whole.write(&mut out);
        assert_eq!(out, &bytes[..consumed]);

        // Whatever is done to it, it stays a head that is read again, with the same framing.
        whole.take_absolute_form();
        strip_hop_by_hop(&mut whole);
        whole.set("Via", &bytes[..bytes.len().min(20)]);
        whole.append(b"l5d-dst-service", bytes);
        out.clear();
        whole.write(&mut out);
        let mut again = RequestHead::new();
        let large = Limits {
            head: usize::MAX,
            line: usize::MAX,
            fields: usize::MAX,
        };
        assert!(
            matches!(again.parse(&out, &large), Ok(Parsed::Complete { consumed }) if consumed == out.len())
        );
        assert_eq!(again.framing(), whole.framing());
        assert_eq!(again.target(), whole.target());
        assert!(again.iter().eq(whole.iter()));
    }
});
