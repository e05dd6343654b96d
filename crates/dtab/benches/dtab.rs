//! What a large dtab costs: `cargo bench -p dtab`. The budgets are in `docs/performance.md`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dtab::{Dtab, Path};

/// A rule for each of so many services of fifty teams, as a large cluster has them.
fn text(entries: usize) -> String {
    let rule = |i| {
        let team = i % 50;
        format!("/svc/team-{team}/service-{i} => /#/io.l5d.k8s/team-{team}/http/service-{i};\n")
    };
    (0..entries).map(rule).collect()
}

fn table(c: &mut Criterion) {
    let text = text(10_000);
    c.bench_function("read 10,000 dentries", |b| {
        b.iter(|| Dtab::read(black_box(&text)).unwrap());
    });
    let dtab = Dtab::read(&text).unwrap();
    let path = Path::utf8(["svc", "team-7", "service-57", "rest"]);
    c.bench_function("look a path up in 10,000 dentries", |b| {
        b.iter(|| dtab.lookup(black_box(&path)));
    });
    let local = Dtab::read("/svc/team-7 => /mine").unwrap();
    c.bench_function("append an override to 10,000 dentries", |b| {
        b.iter(|| dtab.concat(black_box(&local)));
    });
    c.bench_function("print 10,000 dentries", |b| {
        b.iter(|| dtab.to_string());
    });
}

criterion_group!(benches, table);
criterion_main!(benches);
