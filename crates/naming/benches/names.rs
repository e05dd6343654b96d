//! What names cost under a large dtab: `cargo bench -p naming`. The budgets are in `docs/performance.md`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dtab::{Dtab, NameTree, Path};
use naming::namers::{Dns, SystemNamer};
use naming::{
    Activity, Addr, Bound, DefaultInterpreter, Endpoint, Interpreter, Mounted, Name, Namer, Names,
    NamesConfig, NamesLimits, Reads, Var,
};
use tokio::runtime::Runtime;

const SERVICES: usize = 10_000;

/// Knows ten thousand services of ten endpoints; each is a value of its own.
struct Cluster {
    prefix: Path,
    services: HashMap<Path, Var<Addr>>,
}

impl Cluster {
    fn new() -> Self {
        let services = (0..SERVICES).map(|i| (service(i), Var::new(endpoints(10))));
        Self {
            prefix: Path::utf8(["cluster"]),
            services: services.collect(),
        }
    }
}

impl Namer for Cluster {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        let name = rest.take(2);
        let Some(addrs) = self.services.get(&name) else {
            return Activity::Ok(NameTree::Neg);
        };
        let id = Path::utf8(["#"]).concat(&self.prefix).concat(&name);
        let bound = Bound::new(id, rest.drop(2), addrs.clone());
        Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
    }
}

fn service(i: usize) -> Path {
    Path::utf8([&*format!("team-{}", i % 50), &*format!("service-{i}")])
}

fn endpoints(n: u8) -> Addr {
    Addr::bound((0..n).map(|i| Endpoint::new(([10, 0, 0, i], 8080).into())))
}

fn name(i: usize) -> Path {
    Path::utf8(["svc"]).concat(&service(i))
}

fn dtab() -> Dtab {
    let mut text = String::from("/host => /#/cluster; ");
    for i in 0..SERVICES {
        let at = service(i);
        _ = write!(text, "/svc{at} => /host{at};");
    }
    text.parse().unwrap()
}

struct Rig {
    runtime: Runtime,
    cluster: Arc<Cluster>,
    interpreter: Arc<DefaultInterpreter>,
    base: Dtab,
}

impl Rig {
    fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let cluster = Arc::new(Cluster::new());
        let namers = vec![Mounted::new(cluster.clone(), Vec::new())];
        let system = SystemNamer::new(Dns::system(runtime.handle().clone()));
        let interpreter = DefaultInterpreter::new(namers, Arc::new(system), Vec::new());
        Self {
            runtime,
            cluster,
            interpreter: Arc::new(interpreter),
            base: dtab(),
        }
    }

    fn names(&self) -> Arc<Names> {
        Names::new(NamesConfig {
            interpreter: self.interpreter.clone(),
            base: self.base.clone(),
            limits: NamesLimits {
                paths: SERVICES,
                ..NamesLimits::default()
            },
            control: self.runtime.handle().clone(),
        })
    }

    /// Lets the tasks that follow bindings do what they have to.
    fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
    }
}

fn binding(c: &mut Criterion) {
    let rig = Rig::new();
    let (path, none) = (name(4321), Dtab::empty());
    c.bench_function("evaluate a name under 10,000 dentries", |b| {
        b.iter(|| {
            let bound = rig
                .interpreter
                .bind(&rig.base, &none, black_box(&path), &mut Reads::new());
            assert!(matches!(bound, Activity::Ok(NameTree::Leaf(_))));
            bound
        });
    });
    c.bench_function("bind a name under 10,000 dentries", |b| {
        let fresh = || rig.names();
        b.iter_batched_ref(
            fresh,
            |names| names.binding(black_box(&path), &none),
            BatchSize::SmallInput,
        );
        rig.settle();
    });
    let names = rig.names();
    for i in 0..1_000 {
        names.binding(&name(i), &none);
    }
    let path = name(321);
    c.bench_function("bind a name that is cached", |b| {
        b.iter(|| names.binding(black_box(&path), &none).current());
    });
}

/// The cost is that of the names that use the endpoint, whatever else is bound.
fn change(c: &mut Criterion) {
    let rig = Rig::new();
    let none = Dtab::empty();
    // Goes on from one measurement to the next: a change that is none would be waited for in vain.
    let mut many = false;
    for bound in [1, 100, 10_000] {
        let names = rig.names();
        let all: Vec<_> = (0..bound).map(|i| names.binding(&name(i), &none)).collect();
        rig.settle();
        let addrs = &rig.cluster.services[&service(0)];
        c.bench_function(
            &format!("an endpoint change with {bound} names bound"),
            |b| {
                b.iter(|| {
                    many = !many;
                    let before = all[0].version();
                    addrs.set(endpoints(if many { 11 } else { 10 }));
                    rig.runtime.block_on(all[0].newer_than(before))
                });
            },
        );
    }
}

criterion_group!(benches, binding, change);
criterion_main!(benches);
