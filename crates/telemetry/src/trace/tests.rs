use super::*;
use proptest::prelude::*;

type Pairs = Vec<(&'static str, Vec<u8>)>;

fn written(context: &TraceContext, formats: Formats, propagation: Propagation) -> Pairs {
    let mut out = Vec::new();
    context.write(formats, propagation, |name, value| {
        out.push((name, value.to_vec()));
    });
    out
}

fn headers<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Headers<'a> {
    let mut headers = Headers::default();
    for (name, value) in pairs {
        assert!(headers.see(name.as_bytes(), value.as_bytes()), "{name}");
    }
    headers
}

fn read(pairs: &[(&str, &str)]) -> Option<TraceContext> {
    headers(pairs.iter().copied()).context(Propagation::Default)
}

#[test]
fn linkerds_header_is_read_as_linkerd_reads_it() {
    // Span 5, parent 6, trace 7; sampling known, and sampled.
    let context = read(&[(
        "L5d-Ctx-Trace",
        "AAAAAAAAAAUAAAAAAAAABgAAAAAAAAAHAAAAAAAAAAY=",
    )])
    .unwrap();
    assert_eq!(
        (context.span, context.parent, context.trace.low),
        (SpanId(5), Some(SpanId(6)), 7)
    );
    assert_eq!(
        (context.sampled, context.debug, context.flags()),
        (Some(true), false, 6)
    );
}

#[test]
fn sampled_without_known_leaves_the_decision_open() {
    let context = read(&[(
        "l5d-ctx-trace",
        "AAAAAAAADe8AAAAAAAAN71VVVVVVVVVVAAAAAAAAAAQ=",
    )])
    .unwrap();
    assert_eq!((context.sampled, context.parent), (None, None));
}

#[test]
fn what_cannot_be_read_is_no_context() {
    for (name, value) in [
        ("l5d-ctx-trace", "garbage!"),
        ("l5d-ctx-trace", ""),
        (
            "l5d-ctx-trace",
            "AAAAAAAAAAUAAAAAAAAABgAAAAAAAAAHAAAAAAAAAAY",
        ),
        ("l5d-ctx-trace", "AAAA"),
        ("l5d-ctx-trace", "===="),
        (
            "traceparent",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ),
        (
            "traceparent",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        (
            "traceparent",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c"),
        ("traceparent", "é"),
        ("b3", "0"),
        ("b3", "d"),
        ("b3", "463ac35c9f6413ad"),
        ("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312-7"),
        ("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312-1-1-1"),
        ("b3", "463ac35c9f6413ag-a2fb4a1d1a96d312"),
        ("x-b3-traceid", "463ac35c9f6413ad"),
        ("x-b3-spanid", "463ac35c9f6413ad"),
    ] {
        assert_eq!(read(&[(name, value)]), None, "{name}: {value}");
    }
}

#[test]
fn a_later_version_of_traceparent_is_read_as_far_as_known() {
    let context = read(&[(
        "traceparent",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings",
    )])
    .unwrap();
    assert_eq!(
        context.trace.to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(context.sampled, Some(true));
}

#[test]
fn linkerds_header_goes_before_w3c_and_w3c_before_b3() {
    let l5d = (
        "l5d-ctx-trace",
        "AAAAAAAAAAUAAAAAAAAABgAAAAAAAAAHAAAAAAAAAAY=",
    );
    let w3c = (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    );
    let b3 = ("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312-1");
    let multi = [("X-B3-TraceId", "00000000000000aa"), ("X-B3-SpanId", "bb")];
    let low = |pairs: &[_]| read(pairs).unwrap().trace.low;
    assert_eq!(low(&[multi[0], multi[1], b3, w3c, l5d]), 7);
    assert_eq!(low(&[multi[0], multi[1], b3, w3c]), 0x8448_eb21_1c80_319c);
    assert_eq!(low(&[multi[0], multi[1], b3]), 0x463a_c35c_9f64_13ad);
    assert_eq!(low(&multi), 0xaa);
    // An unreadable one does not hide the next.
    assert_eq!(low(&[("l5d-ctx-trace", "?"), b3]), 0x463a_c35c_9f64_13ad);
}

#[test]
fn only_what_came_in_readable_is_written_on() {
    let seen = headers([
        ("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312"),
        ("traceparent", "x"),
    ]);
    let names: Vec<_> = written(
        &TraceContext::root(),
        seen.formats(Propagation::Default),
        Propagation::Default,
    )
    .into_iter()
    .map(|(name, _)| name)
    .collect();
    assert_eq!(names, ["l5d-ctx-trace", "l5d-reqid", "b3"]);
}

#[test]
fn fields_that_could_not_be_read_pass_through() {
    let seen = headers([
        ("B3", "463ac35c9f6413ad-a2fb4a1d1a96d312"),
        ("traceparent", "x"),
    ]);
    let formats = seen.formats(Propagation::Default);
    let out = |name: &str| formats.replaces(name.as_bytes(), Propagation::Default);
    assert!(out("B3") && out("L5d-Ctx-Trace") && out("l5d-sample") && out("l5d-reqid"));
    assert!(!out("traceparent") && !out("X-B3-TraceId") && !out("tracestate") && !out(""));
}

#[test]
fn a_root_is_called_like_its_trace_and_is_its_childs_parent() {
    let root = TraceContext::root();
    assert_eq!(
        (root.trace.high, root.trace.low, root.parent),
        (0, root.span.0, None)
    );
    let child = root.child();
    assert_eq!((child.trace, child.parent), (root.trace, Some(root.span)));
    assert_ne!(child.span, root.span);
}

#[test]
fn the_zipkin_propagator_writes_all_five_and_nothing_else() {
    let text = |pairs: Pairs| -> Vec<_> {
        let text = |(n, v): (&'static str, Vec<u8>)| (n, String::from_utf8(v).unwrap());
        pairs.into_iter().map(text).collect()
    };
    let formats = Headers::default().formats(Propagation::Zipkin);
    let context = TraceContext {
        trace: TraceId { high: 0, low: 1 },
        span: SpanId(1),
        parent: None,
        debug: false,
        sampled: None,
    };
    assert_eq!(
        text(written(&context, formats, Propagation::Zipkin)),
        [
            ("x-b3-traceid", "0000000000000001".to_owned()),
            ("x-b3-spanid", "0000000000000001".to_owned()),
            ("x-b3-parentspanid", "0000000000000001".to_owned()),
            ("x-b3-sampled", "0".to_owned()),
            ("x-b3-flags", "0".to_owned())
        ]
    );
}

#[test]
fn no_stale_context_is_left_beside_the_one_that_is_written() {
    let seen = headers([
        ("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312-1"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ),
        (
            "l5d-ctx-trace",
            "AAAAAAAAAAUAAAAAAAAABgAAAAAAAAAHAAAAAAAAAAY=",
        ),
    ]);
    for (propagation, trace) in [
        (Propagation::Default, 7),
        (Propagation::Zipkin, 0x463a_c35c_9f64_13ad),
    ] {
        let context = seen.context(propagation).unwrap();
        assert_eq!(context.trace.low, trace);
        let formats = seen.formats(propagation);
        let out = written(&context.child(), formats, propagation);
        for name in ["b3", "traceparent", "l5d-ctx-trace"] {
            assert!(formats.replaces(name.as_bytes(), propagation), "{name}");
            let expected = name != "l5d-ctx-trace" || propagation == Propagation::Default;
            assert_eq!(out.iter().any(|(n, _)| *n == name), expected, "{name}");
        }
    }
}

#[test]
fn b3_debug_means_sampled_whatever_the_sampled_header_says() {
    let seen = headers([
        ("X-B3-TraceId", "463ac35c9f6413ad"),
        ("X-B3-SpanId", "a2fb4a1d1a96d312"),
        ("X-B3-Sampled", "0"),
        ("X-B3-Flags", "1"),
    ]);
    let mut context = seen.context(Propagation::Zipkin).unwrap();
    Sampling::default().decide(&mut context, seen.asked_rate(Propagation::Zipkin));
    assert!(context.debug && context.is_sampled());
    let out = written(
        &context.child(),
        Formats {
            b3_multi: true,
            ..Formats::default()
        },
        Propagation::Zipkin,
    );
    assert!(
        out.contains(&("x-b3-sampled", b"1".to_vec()))
            && out.contains(&("x-b3-flags", b"1".to_vec()))
    );
}

#[test]
fn an_asked_rate_is_cut_to_its_range_and_garbage_is_ignored() {
    for (text, want) in [
        ("1.0", Some(1.0)),
        ("-3", Some(0.0)),
        ("5", Some(1.0)),
        ("0.25", Some(0.25)),
        ("abc", None),
        ("NaN", None),
    ] {
        assert_eq!(
            headers([("l5d-sample", text)]).asked_rate(Propagation::Default),
            want,
            "{text}"
        );
    }
}

#[test]
fn sampling_is_decided_once_and_only_with_a_tracer() {
    let all = Sampling {
        tracers: vec![Sampler::new(0.0, 1), Sampler::new(1.0, 1)],
        salt: 1,
    };
    let decided = |sampling: &Sampling, came: Option<bool>, asked| {
        let mut context = TraceContext {
            sampled: came,
            ..TraceContext::root()
        };
        sampling.decide(&mut context, asked);
        context.sampled
    };
    assert_eq!(decided(&Sampling::default(), None, None), None);
    assert_eq!(decided(&all, None, None), Some(true));
    assert_eq!(decided(&all, Some(false), None), Some(false));
    assert_eq!(decided(&all, Some(true), Some(0.0)), Some(false));
    assert_eq!(decided(&Sampling::default(), None, Some(1.0)), Some(true));
}

#[test]
fn the_sampler_takes_its_share_by_the_traces_id() {
    let sampler = Sampler::new(0.25, 0x1234_5678_9abc_def0);
    let taken = (0..40_000u64)
        .filter(|n| {
            sampler.takes(TraceId {
                high: 0,
                low: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            })
        })
        .count();
    assert!((9_000..11_000).contains(&taken), "{taken}");
    // abs(i64::MIN) must not overflow.
    Sampler::new(0.5, 0).takes(TraceId {
        high: 0,
        low: 1 << 63,
    });
}

fn contexts() -> impl Strategy<Value = TraceContext> {
    let sampled = prop::option::of(any::<bool>());
    let ids = (0u64.., 1u64.., 1u64.., prop::option::of(1u64..));
    (ids, any::<bool>(), sampled).prop_map(|((high, low, span, parent), debug, sampled)| {
        TraceContext {
            trace: TraceId { high, low },
            span: SpanId(span),
            parent: parent.filter(|p| *p != span).map(SpanId),
            debug,
            sampled: if debug { Some(true) } else { sampled },
        }
    })
}

/// What one spelling alone brings over.
fn round_trip(context: &TraceContext, keep: &str, formats: Formats) -> Option<TraceContext> {
    let pairs = written(context, formats, Propagation::Default);
    let mut headers = Headers::default();
    for (name, value) in pairs.iter().filter(|(name, _)| name.starts_with(keep)) {
        headers.see(name.as_bytes(), value);
    }
    headers.context(Propagation::Default)
}

proptest! {
    #[test]
    fn linkerds_header_brings_everything_over(context in contexts()) {
        prop_assert_eq!(round_trip(&context, "l5d-ctx-trace", Formats::default()), Some(context));
    }

    #[test]
    fn five_b3_headers_bring_everything_over(context in contexts()) {
        let formats = Formats { b3_multi: true, ..Formats::default() };
        prop_assert_eq!(round_trip(&context, "x-b3-", formats), Some(context));
    }

    #[test]
    fn one_b3_header_brings_over_all_but_an_undecided_parent(context in contexts()) {
        let formats = Formats { b3_single: true, ..Formats::default() };
        let parent = context.sampled.and(context.parent);
        prop_assert_eq!(round_trip(&context, "b3", formats), Some(TraceContext { parent, ..context }));
    }

    #[test]
    fn traceparent_brings_over_ids_and_decision(context in contexts()) {
        let formats = Formats { w3c: true, ..Formats::default() };
        let want = TraceContext { parent: None, debug: false, sampled: Some(context.is_sampled()), ..context };
        prop_assert_eq!(round_trip(&context, "traceparent", formats), Some(want));
    }

    #[test]
    fn any_bytes_may_stand_in_any_field(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 9)) {
        let names = ["l5d-ctx-trace", "l5d-sample", "traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"];
        let mut headers = Headers::default();
        for (name, value) in names.iter().zip(&values) {
            headers.see(name.as_bytes(), value);
        }
        headers.context(Propagation::Default);
        headers.context(Propagation::Zipkin);
        headers.asked_rate(Propagation::Zipkin);
    }

    #[test]
    fn base64_has_one_text_for_one_value(text in "[A-C+/=]{0,9}") {
        let (mut bytes, mut back) = ([0; 12], [0; 12]);
        if let Some(len) = base64::decode(text.as_bytes(), &mut bytes) {
            let len = base64::encode(&bytes[..len], &mut back);
            prop_assert_eq!(&back[..len], text.as_bytes());
        }
    }

    #[test]
    fn base64_reads_what_it_writes(bytes in prop::collection::vec(any::<u8>(), 1..60)) {
        let (mut text, mut back) = ([0; 80], [0; 60]);
        let len = base64::encode(&bytes, &mut text);
        let len = base64::decode(&text[..len], &mut back).unwrap();
        prop_assert_eq!(&back[..len], &bytes[..]);
    }

    #[test]
    fn ids_are_written_in_hexadecimal(id in any::<u64>()) {
        let context = TraceContext { trace: TraceId { high: 0, low: id }, ..TraceContext::root() };
        let mut written = None;
        context.write(Formats::default(), Propagation::Default, |name, value| {
            if name == "l5d-reqid" {
                written = Some(String::from_utf8(value.to_vec()).unwrap());
            }
        });
        prop_assert_eq!(written, Some(format!("{id:016x}")));
    }
}
