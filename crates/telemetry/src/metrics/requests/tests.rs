use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use super::super::collect::{Item, Name, Value, Wanted};
use super::*;
use crate::trace::{Headers, Propagation, Sampler, Sampling, TraceContext};

fn outcome(status: Option<u16>, code: Option<Code>) -> Outcome<'static> {
    Outcome {
        status,
        success: status.is_some_and(|s| s < 500),
        code,
        exception: None,
        latency_us: 1_500,
    }
}

fn counters(source: &dyn Source) -> BTreeMap<String, u64> {
    let mut items = Vec::new();
    source.collect(&mut Collector::new(&mut items, Wanted::ALL));
    let name = |name| match name {
        Name::Linkerd(name) => name.into_string(),
        Name::Ours(family, labels) => {
            let labels: Vec<_> = labels.iter().map(|(_, value)| value.as_ref()).collect();
            format!("{family} {}", labels.join(" "))
        }
    };
    let counter = |item: Item| match item.value {
        Value::Counter(n) => Some((name(item.name), n)),
        _ => None,
    };
    items.into_iter().filter_map(counter).collect()
}

/// How many requests the latency is of.
fn timed(source: &dyn Source) -> u64 {
    let mut items = Vec::new();
    source.collect(&mut Collector::new(&mut items, Wanted::ALL));
    let latency = Name::Linkerd("request_latency_ms".into());
    let mut found = items.iter().filter(|item| item.name == latency);
    match (found.next(), found.next()) {
        (Some(item), None) => match &item.value {
            Value::Stat(_, histo) => histo.count(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_latency_is_of_all_requests_with_statuses_and_without() {
    for requests in [Requests::with_statuses(), Requests::new()] {
        assert_eq!(timed(&requests), 0);
        for status in [Some(200), Some(503), Some(600), None] {
            requests.begin();
            requests.end(&outcome(status, None));
        }
        assert_eq!(timed(&requests), 4);
    }
}

#[test]
fn odd_statuses_and_lost_answers_count_as_error() {
    let requests = Requests::with_statuses();
    for status in [Some(200), Some(204), Some(599), Some(600), Some(99), None] {
        requests.begin();
        requests.end(&outcome(status, None));
    }
    let got = counters(&requests);
    let count = |name: &str| got.get(name).copied().unwrap_or(0);
    assert_eq!((count("requests"), requests.pending()), (6, 0));
    assert_eq!(
        (
            count("status/2XX"),
            count("status/204"),
            count("status/5XX")
        ),
        (2, 1, 1)
    );
    assert_eq!(
        (count("status/error"), count("failures"), count("success")),
        (3, 3, 3)
    );
}

#[test]
fn classes_and_codes_add_up_to_all_requests() {
    let outcomes = Outcomes::new();
    for (status, code) in [
        (Some(200), None),
        (Some(502), Some(Code::E101)),
        (Some(502), None),
        (Some(499), Some(Code::E126)),
        (None, Some(Code::E132)),
        (Some(101), None),
    ] {
        outcomes.end(&outcome(status, code));
    }
    let got = counters(&outcomes);
    let requests = |labels: &str| got[&format!("rutter_requests_total {labels}")];
    for labels in [
        "2xx ",
        "5xx RT-E101",
        "5xx ",
        "4xx RT-E126",
        "error RT-E132",
        "1xx ",
    ] {
        assert_eq!(requests(labels), 1, "{labels}");
    }
    let all = |family: &str| -> u64 {
        let of = got.iter().filter(|(name, _)| name.starts_with(family));
        of.map(|(_, n)| n).sum()
    };
    assert_eq!(
        (all("rutter_requests_total"), all("rutter_errors_total")),
        (6, 3)
    );
}

/// Run with `--ignored --nocapture` to see times.
#[test]
#[ignore = "a measurement: prints what a request costs here"]
fn what_a_request_costs() {
    let show = |what: &str, act: &mut dyn FnMut(u64)| {
        const TIMES: u64 = 2_000_000;
        (0..TIMES / 10).for_each(&mut *act);
        let start = Instant::now();
        (0..TIMES).for_each(act);
        let each = start.elapsed().as_nanos() as f64 / TIMES as f64;
        writeln!(std::io::stderr(), "{what}: {each:.1} ns").unwrap();
    };
    let cell = Cell::new();
    show("Cell::incr", &mut |_| black_box(&cell).incr());
    let histogram = Histogram::new();
    show("Histogram::record", &mut |n| {
        histogram.record(black_box(n & 0xffff));
    });
    let requests = Requests::with_statuses();
    let outcomes = Outcomes::new();
    let end = outcome(Some(200), None);
    show("Requests, begin and end", &mut |_| {
        requests.begin();
        requests.end(black_box(&end));
    });
    show("Outcomes", &mut |_| outcomes.end(black_box(&end)));
    let sampling = Sampling {
        tracers: vec![Sampler::new(0.001, 7)],
        salt: 7,
    };
    let text = b"AAAAAAAAAAUAAAAAAAAABgAAAAAAAAAHAAAAAAAAAAA=";
    show("context: read, child, sample", &mut |_| {
        let mut headers = Headers::default();
        headers.see(b"l5d-ctx-trace", black_box(text));
        let mut context = headers.context(Propagation::Default).unwrap();
        sampling.decide(&mut context, headers.asked_rate(Propagation::Default));
        black_box(context.child());
    });
    let context = TraceContext::root();
    show("context: write", &mut |_| {
        let put = |name, value: &[u8]| _ = black_box((name, value.len()));
        context.write(Default::default(), Propagation::Default, put);
    });
}
