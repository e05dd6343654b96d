//! What large tables cost. The limits here are loose, for busy machines and builds without optimisation;
//! `cargo test --release -p dtab --test cost -- --nocapture` shows the real times.

use std::time::{Duration, Instant};

use dtab::{Dtab, NameTree, Path};

fn text(entries: usize) -> String {
    let rule = |i| {
        format!(
            "/svc/team-{}/service-{i} => /#/io.l5d.k8s/team-{}/http/service-{i};\n",
            i % 50,
            i % 50
        )
    };
    (0..entries).map(rule).collect()
}

fn best<T>(mut what: impl FnMut() -> T) -> Duration {
    let time = |_| {
        let start = Instant::now();
        std::hint::black_box(what());
        start.elapsed()
    };
    (0..5).map(time).min().unwrap()
}

#[test]
fn ten_thousand_entries_are_read_quickly() {
    let text = text(10_000);
    let time = best(|| Dtab::read(&text).unwrap());
    eprintln!("10,000 entries read in {time:?}");
    assert!(time < Duration::from_millis(400), "{time:?}");
}

#[test]
fn a_lookup_does_not_get_slower_with_the_table() {
    let path = Path::utf8(["svc", "team-7", "service-57", "rest"]);
    let time =
        |dtab: &Dtab| best(|| (0..1000).map(|_| dtab.lookup(&path)).collect::<Vec<_>>()) / 1000;
    let small = Dtab::read(&text(100)).unwrap();
    let large = Dtab::read(&text(10_000)).unwrap();
    assert!(matches!(large.lookup(&path), NameTree::Leaf(_)));
    let (few, many) = (time(&small), time(&large));
    eprintln!("a lookup in 100 entries {few:?}, in 10,000 {many:?}");
    assert!(many < few * 10, "{few:?} {many:?}");
}

#[test]
fn appending_an_override_does_not_copy_a_large_table() {
    let large = Dtab::read(&text(10_000)).unwrap();
    let local = Dtab::read("/svc/team-7 => /mine").unwrap();
    let time = best(|| large.concat(&local));
    eprintln!("one entry appended to 10,000 in {time:?}");
    assert!(time < Duration::from_micros(200), "{time:?}");
}
