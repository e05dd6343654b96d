//! Any header values: a trace context that is read and written is read as the same trace.
#![no_main]

use libfuzzer_sys::fuzz_target;
use telemetry::trace::{Headers, Propagation};

const NAMES: [&str; 9] = [
    "l5d-ctx-trace",
    "l5d-sample",
    "traceparent",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

fuzz_target!(|fields: Vec<(u8, &[u8])>| {
    let mut headers = Headers::default();
    for (name, value) in &fields {
        headers.see(NAMES[usize::from(*name) % NAMES.len()].as_bytes(), value);
    }
    for propagation in [Propagation::Default, Propagation::Zipkin] {
        if let Some(rate) = headers.asked_rate(propagation) {
            assert!((0.0..=1.0).contains(&rate));
        }
        let Some(context) = headers.context(propagation) else { continue };
        let child = context.child();
        assert_eq!((child.trace, child.parent), (context.trace, Some(context.span)));
        let mut written = Vec::new();
        child.write(headers.formats(propagation), propagation, |name, value| written.push((name, value.to_vec())));
        let mut again = Headers::default();
        for (name, value) in &written {
            again.see(name.as_bytes(), value);
        }
        let read = again.context(propagation).expect("what we write we can read");
        assert_eq!((read.trace.low, read.span), (child.trace.low, child.span), "{written:?}");
    }
});
