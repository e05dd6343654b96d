use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dtab::{Dtab, NameTree, Path};
use tokio::runtime::Handle;

use super::{Binding, Cause, LeafTarget, Names, NamesConfig, NamesLimits, Outcome};
use crate::test_support::{Says, TestNamer, one_endpoint, path};
use crate::{Addr, BindError, DefaultInterpreter, Mounted};

struct Bench {
    names: Arc<Names>,
    namer: Arc<TestNamer>,
}

fn bench(base: &str, limits: NamesLimits) -> Bench {
    let namer = Arc::new(TestNamer::new("/t", &["a", "b", "c"]));
    let namers = vec![Mounted::new(namer.clone(), Vec::new())];
    let interpreter = DefaultInterpreter::new(namers, Arc::new(TestNamer::system()), Vec::new());
    let names = Names::new(NamesConfig {
        interpreter: Arc::new(interpreter),
        base: Dtab::read(base).unwrap(),
        limits,
        control: Handle::current(),
    });
    Bench { names, namer }
}

impl Bench {
    fn binding(&self, asked: &str) -> Arc<Binding> {
        self.names.binding(&path(asked), &Dtab::empty())
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it comes to an end")
}

fn ports(outcome: &Outcome) -> Vec<u16> {
    let mut ports = Vec::new();
    if let Outcome::Bound(tree) = outcome {
        tree.for_each_leaf(&mut |leaf| {
            if let LeafTarget::Addr(addr) = &leaf.to {
                ports.extend(addr.endpoints().iter().map(|e| e.addr.port()));
            }
        });
    }
    ports
}

#[tokio::test]
async fn a_changed_endpoint_is_seen_without_another_lookup() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    let binding = bench.binding("/svc/a");
    let (version, lookups) = (
        binding.version(),
        bench.namer.lookups.load(Ordering::Relaxed),
    );
    bench.namer.addr("a").set(one_endpoint(81));
    assert_eq!(ports(&*soon(binding.newer_than(version)).await), [81]);
    assert_eq!(bench.namer.lookups.load(Ordering::Relaxed), lookups);
    assert!(Arc::ptr_eq(&binding, &bench.binding("/svc/a")));
}

#[tokio::test]
async fn what_changes_nothing_makes_no_new_version() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    let binding = bench.binding("/svc/a");
    let version = binding.version();
    for _ in 0..100 {
        bench.namer.says("a").set(Says::Bound);
        bench.namer.addr("a").set(one_endpoint(80));
        tokio::task::yield_now().await;
    }
    // A real change behind them shows that they were worked through.
    bench.namer.addr("a").set(one_endpoint(81));
    soon(binding.newer_than(version)).await;
    assert_eq!(binding.version(), version + 1);
}

#[tokio::test]
async fn a_failing_namer_and_lost_addresses_do_not_unbind() {
    let bench = bench("/svc => /#/t | /#/t/b", NamesLimits::default());
    let binding = bench.binding("/svc/a");
    for says in [Says::Failed, Says::Pending] {
        bench.namer.says("a").set(says);
        let version = binding.version();
        bench.namer.addr("a").set(one_endpoint(81));
        bench.namer.addr("a").set(Addr::Failed("gone".into()));
        bench.namer.addr("a").set(Addr::Pending);
        bench.namer.addr("a").set(one_endpoint(82));
        while ports(&binding.current()) != [82] {
            soon(binding.newer_than(version)).await;
        }
        bench.namer.addr("a").set(one_endpoint(80));
        while ports(&binding.current()) != [80] {
            tokio::task::yield_now().await;
        }
    }
    // "No such name" is an answer, not a failure.
    let version = binding.version();
    bench.namer.says("a").set(Says::Neg);
    let outcome = soon(binding.newer_than(version)).await;
    let Outcome::Bound(NameTree::Leaf(leaf)) = &*outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(leaf.id, path("/#/t/b"));
}

#[tokio::test]
async fn a_failure_before_the_first_answer_is_shown_and_heals() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    bench.namer.says("a").set(Says::Failed);
    let binding = bench.binding("/svc/a");
    let Some(Cause::Failed(error)) = binding.current().cause() else {
        panic!("{binding:?}");
    };
    assert!(matches!(&*error, BindError::Namer { path: asked, .. } if *asked == path("/#/t/a")));
    let version = binding.version();
    bench.namer.says("a").set(Says::Bound);
    assert_eq!(soon(binding.newer_than(version)).await.cause(), None);
}

#[tokio::test]
async fn settled_waits_for_the_name_and_for_its_addresses() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    bench.namer.says("a").set(Says::Pending);
    bench.namer.addr("a").set(Addr::Pending);
    let binding = bench.binding("/svc/a");
    assert!(
        matches!(&*binding.current(), Outcome::Pending { waiting_for } if &**waiting_for == "a test")
    );
    let waiting = tokio::spawn({
        let binding = binding.clone();
        async move { binding.settled().await }
    });
    bench.namer.says("a").set(Says::Bound);
    soon(binding.newer_than(binding.version())).await;
    assert!(binding.current().is_pending() && !waiting.is_finished());
    bench.namer.addr("a").set(one_endpoint(80));
    assert_eq!(ports(&soon(waiting).await.unwrap()), [80]);
}

#[tokio::test]
async fn an_unknown_name_that_comes_to_exist_is_bound() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    bench.namer.says("a").set(Says::Neg);
    let binding = bench.binding("/svc/a");
    assert_eq!(binding.current().cause(), Some(Cause::Neg));
    assert_eq!(bench.names.sizes(), (0, 1));
    let version = binding.version();
    bench.namer.says("a").set(Says::Bound);
    assert_eq!(soon(binding.newer_than(version)).await.cause(), None);
}

#[tokio::test]
async fn a_million_unknown_names_leave_no_lasting_memory() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    for n in 0..1_000_000_u32 {
        let name = Path::utf8(["svc", &n.to_string()]);
        assert_eq!(
            bench.names.binding(&name, &Dtab::empty()).current().cause(),
            Some(Cause::Neg)
        );
    }
    assert_eq!(bench.names.sizes(), (0, 1000));
    assert!(bench.names.kept().oldest.len() <= 1000);
}

/// The control runtime does not come to run while this goes on, as on a machine that is short of processors.
#[tokio::test]
async fn what_forgotten_names_held_is_given_up_at_once() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    bench.namer.says("b").set(Says::Neg);
    let binders = || Arc::strong_count(&bench.names.interpreter);
    let before = binders();
    for n in 0..5_000 {
        bench.binding(&format!("/svc/a/{n}"));
        bench.binding(&format!("/svc/b/{n}"));
    }
    assert_eq!(bench.names.sizes(), (1000, 1000));
    // Each name that is followed holds who binds it.
    assert_eq!(binders() - before, 2000);
    let oneshot = bench.binding("/svc/c");
    assert_eq!(binders() - before, 2000);
    bench.namer.addr("c").set(one_endpoint(99));
    assert_eq!(ports(&*soon(oneshot.newer_than(1)).await), [99]);
}

#[tokio::test]
async fn a_name_whose_following_fails_takes_no_other_name_with_it() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    let (doomed, other) = (bench.binding("/svc/a"), bench.binding("/svc/b"));
    bench.namer.says("a").set(Says::Panic);
    bench.namer.addr("b").set(one_endpoint(81));
    assert_eq!(ports(&*soon(other.newer_than(1)).await), [81]);
    assert_eq!(ports(&doomed.current()), [80]);
}

#[tokio::test]
async fn a_full_cache_gives_up_the_unused_and_binds_for_one_request_when_all_are_in_use() {
    let limits = NamesLimits {
        paths: 2,
        ..NamesLimits::default()
    };
    let bench = bench("/svc => /#/t", limits);
    let held = [bench.binding("/svc/a"), bench.binding("/svc/b")];
    let oneshot = bench.binding("/svc/c");
    assert_eq!(
        (
            bench.names.oneshots(),
            bench.names.evicted(),
            bench.names.sizes()
        ),
        (1, 0, (2, 0))
    );
    // It is kept current all the same, as long as it is held.
    bench.namer.addr("c").set(one_endpoint(99));
    assert_eq!(ports(&*soon(oneshot.newer_than(1)).await), [99]);
    drop(held);
    bench.binding("/svc/c");
    assert_eq!(
        (
            bench.names.oneshots(),
            bench.names.evicted(),
            bench.names.sizes()
        ),
        (1, 1, (2, 0))
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_binding_is_given_up_and_a_used_one_stays() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    let used = bench.binding("/svc/a");
    bench.binding("/svc/b");
    bench.binding("/svc/nothing");
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        used.touch();
    }
    assert_eq!(bench.names.sizes(), (1, 0));
    assert!(Arc::ptr_eq(&used, &bench.binding("/svc/a")));
}

#[tokio::test]
async fn a_requests_own_dtab_has_its_own_binding() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    let local = Dtab::read("/svc/a => /#/t/b").unwrap();
    let own = bench.names.binding(&path("/svc/a"), &local);
    assert!(!Arc::ptr_eq(&own, &bench.binding("/svc/a")));
    assert!(Arc::ptr_eq(
        &own,
        &bench.names.binding(&path("/svc/a"), &local)
    ));
    let Outcome::Bound(NameTree::Leaf(leaf)) = &*own.current() else {
        panic!("{own:?}");
    };
    assert_eq!(leaf.id, path("/#/t/b"));
}

#[tokio::test]
async fn rules_that_branch_without_end_are_refused_within_the_budget() {
    let bench = bench("/svc => /#/t", NamesLimits::default());
    let local = Dtab::read("/a => /a & /a").unwrap();
    let start = Instant::now();
    let binding = bench.names.binding(&path("/a"), &local);
    let took = start.elapsed();
    assert_eq!(binding.current().cause(), Some(Cause::Budget));
    assert!(took < Duration::from_millis(50), "{took:?}");
    let delegation = bench.names.explain(&path("/a"), &local).unwrap();
    assert!(
        matches!(delegation.chosen(), crate::Activity::Failed(error) if *error == BindError::Budget)
    );
    assert!(delegation.to_string().lines().count() < 100);
}

#[test]
fn deep_rules_and_long_paths_do_not_overflow_a_small_stack() {
    let nested = format!("/a => {}/a{}", "(/b | ".repeat(200), ")".repeat(200));
    let both = format!("/a => {}/a{}", "(/b & ".repeat(200), ")".repeat(200));
    let long = format!("/a => /a{} & /a", "/x".repeat(999));
    let circle = "/a => /b ; /b => /a".to_owned();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let bench = bench("", NamesLimits::default());
        for text in [nested, both, long, circle] {
            let local = Dtab::read(&text).unwrap();
            let start = Instant::now();
            let outcome = bench.names.binding(&path("/a"), &local).current();
            assert!(outcome.cause().is_some(), "{outcome:?}");
            let delegation = bench.names.explain(&path("/a"), &local).unwrap();
            _ = (
                delegation.to_json(),
                delegation.to_string(),
                delegation.steps(),
            );
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    };
    // Half of what a thread usually has.
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_a_burst_of_changes_is_always_seen() {
    let bench = Arc::new(bench("/svc => /#/t", NamesLimits::default()));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let binding = bench.binding("/svc/a");
            tokio::spawn(async move {
                while ports(&binding.current()) != [65_000] {
                    let version = binding.version();
                    if ports(&binding.current()) != [65_000] {
                        binding.newer_than(version).await;
                    }
                }
            })
        })
        .collect();
    let writer = std::thread::spawn({
        let bench = bench.clone();
        move || {
            for n in 0..20_000_u16 {
                match n % 3 {
                    0 => bench
                        .namer
                        .says("a")
                        .set(Says::Tree(NameTree::Leaf(path("/#/t/b")))),
                    1 => bench.namer.says("a").set(Says::Bound),
                    _ => bench.namer.addr("a").set(one_endpoint(n)),
                }
            }
            bench.namer.says("a").set(Says::Bound);
            bench.namer.addr("a").set(one_endpoint(65_000));
        }
    });
    for reader in readers {
        soon(reader).await.unwrap();
    }
    writer.join().unwrap();
}

#[tokio::test]
async fn what_a_request_is_told_of_an_unknown_name_shows_the_way() {
    let bench = bench("/host => /#/t ; /svc => /host", NamesLimits::default());
    let delegation = bench
        .names
        .explain(&path("/svc/wrold"), &Dtab::empty())
        .unwrap();
    assert_eq!(
        delegation.steps(),
        "/svc/wrold\n  /svc => /host   dtab:2\n  /host => /#/t   dtab:1\n✗ no such name: no namer knows /#/t/wrold"
    );
}

#[tokio::test(start_paused = true)]
async fn a_near_name_is_found_for_one_asker_at_a_time() {
    let rules = "/host/world => /#/t/a ; /host/wild => /#/t/none ; /svc => /host";
    let bench = bench(rules, NamesLimits::default());
    bench.namer.says("a").set(Says::Bound);
    bench.namer.addr("a").set(one_endpoint(1));
    let world = Some(path("/svc/world"));
    let asked = path("/svc/wrold");
    let (first, second) = tokio::join!(bench.names.near(&asked), bench.names.near(&asked));
    assert_eq!(
        (first, second),
        (world.clone(), None),
        "the second one came too soon"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.names.near(&asked).await, world);
    assert_eq!(
        bench.names.nearest(&path("/svc/wilt")),
        None,
        "it leads nowhere itself"
    );
}

#[tokio::test]
async fn a_name_among_ten_thousand_rules_is_bound_without_looking_at_all_of_them() {
    let mut rules: String = (0..10_000)
        .map(|n| format!("/svc/n{n} => /host/n{n} ;\n"))
        .collect();
    rules.push_str("/host/n5000 => /#/t/a ; /#/l => /nowhere");
    let bench = bench(&rules, NamesLimits::default());
    let start = Instant::now();
    for n in 0..1000 {
        // A name of its own each time, so that nothing comes from the cache.
        let asked = Path::utf8(["svc", "n5000", &n.to_string()]);
        let binding = bench.names.binding(&asked, &Dtab::empty());
        assert_eq!(binding.current().cause(), None);
    }
    // Without optimisation and beside other tests; walking through the rules would take some 100 times as long.
    let each = start.elapsed() / 1000;
    assert!(each < Duration::from_millis(1), "{each:?}");
}

#[tokio::test]
async fn requests_own_dtabs_are_kept_within_so_many_bytes() {
    let limits = NamesLimits {
        own_bytes: 1_000,
        ..NamesLimits::default()
    };
    let bench = bench("/svc => /#/t", limits);
    // Some 300 bytes each.
    let own = |n: usize| {
        let long = "x".repeat(280);
        Dtab::read(&format!("/{long}{n} => /other")).unwrap()
    };
    let held = || -> usize {
        let kept = bench.names.snapshot();
        kept.iter()
            .map(|(_, local, _)| local.to_string().len())
            .sum()
    };
    let name = path("/svc/a");
    let in_use = bench.names.binding(&name, &own(0));
    for n in 1..50 {
        bench.names.binding(&name, &own(n));
        assert!(held() <= 1_000, "{}", held());
    }
    assert!(
        Arc::ptr_eq(&in_use, &bench.names.binding(&name, &own(0))),
        "one in use stays"
    );
    assert!(bench.names.evicted() > 0);
    // When all are in use, the next is for one request; names without a dtab have nothing to do with it.
    let others: Vec<_> = (100..103)
        .map(|n| bench.names.binding(&name, &own(n)))
        .collect();
    let before = bench.names.oneshots();
    bench.names.binding(&name, &own(200));
    assert!(bench.names.oneshots() > before, "{}", others.len());
    let plain = bench.names.binding(&name, &Dtab::empty());
    assert!(Arc::ptr_eq(
        &plain,
        &bench.names.binding(&name, &Dtab::empty())
    ));
}
