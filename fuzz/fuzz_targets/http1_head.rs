//! Any bytes as a message head: a head that is accepted is accepted again, with the same meaning, when it is written out; and
//! it is accepted however it arrives in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router::http1::{Limits, Method, Parsed, RequestHead, ResponseHead};

fuzz_target!(|bytes: &[u8]| {
    request(bytes);
    response(bytes);
});

fn request(bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = RequestHead::new();
    let Ok(Parsed::Complete { consumed }) = head.parse(bytes, &limits) else { return };
    assert!(consumed <= bytes.len());
    for end in [consumed / 2, consumed.saturating_sub(1)] {
        let mut partial = RequestHead::new();
        assert!(matches!(partial.parse(&bytes[..end], &limits), Ok(Parsed::Partial)), "a head is whole only at its end");
    }
    let mut written = Vec::new();
    head.write(&mut written);
    let mut again = RequestHead::new();
    let parsed = again.parse(&written, &Limits { head: usize::MAX, ..limits });
    assert_eq!(parsed, Ok(Parsed::Complete { consumed: written.len() }), "{:?}", String::from_utf8_lossy(&written));
    assert_eq!((again.method(), again.target(), again.framing()), (head.method(), head.target(), head.framing()));
}

fn response(bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = ResponseHead::new();
    let Ok(Parsed::Complete { consumed }) = head.parse(bytes, &limits) else { return };
    assert!(consumed <= bytes.len());
    let Ok(framing) = head.framing(Method::read(b"GET")) else { return };
    let mut written = Vec::new();
    head.write(&mut written);
    let mut again = ResponseHead::new();
    let parsed = again.parse(&written, &Limits { head: usize::MAX, ..limits });
    assert_eq!(parsed, Ok(Parsed::Complete { consumed: written.len() }), "{:?}", String::from_utf8_lossy(&written));
    assert_eq!((again.status(), again.framing(Method::read(b"GET")).ok()), (head.status(), Some(framing)));
}
