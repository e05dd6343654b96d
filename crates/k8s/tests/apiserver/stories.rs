//! What users of such systems were burnt by, done to the namers over a real API server. Each takes seconds; what was
//! ten minutes in life is `RUTTER_OUTAGE_S` seconds here, 15 unless it is set.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtab::{Dtab, Path};
use k8s::status::Phase;
use k8s::{Cluster, NamerConfig, ServiceNamer, Timing};
use naming::namers::{Dns, SystemNamer};
use naming::{Cause, DefaultInterpreter, LeafTarget, Mounted, Names, NamesConfig, NamesLimits};
use naming::{Namer, Outcome, Reads};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::proxies::{Between, Forgetful, Lie, Toxic};
use crate::real::{LONG, Real, alone, ips, setting, until, wanted};

/// Names over a namer, as a router has them.
pub(crate) fn names(namer: &Arc<ServiceNamer>, dtab: &str, idle: Duration) -> Arc<Names> {
    let dns = Dns::system(Handle::current());
    let mounted = vec![Mounted::new(namer.clone(), Vec::new())];
    let interpreter = DefaultInterpreter::new(mounted, Arc::new(SystemNamer::new(dns)), Vec::new());
    Names::new(NamesConfig {
        interpreter: Arc::new(interpreter),
        base: Dtab::read(dtab).unwrap(),
        limits: NamesLimits {
            idle,
            ..NamesLimits::default()
        },
        control: Handle::current(),
    })
}

/// What a request for `path` could be sent to at this moment.
pub(crate) fn addresses(names: &Names, path: &Path) -> Vec<String> {
    let binding = names.binding(path, &Dtab::empty());
    let mut found = Vec::new();
    if let Outcome::Bound(tree) = &*binding.current() {
        tree.for_each_leaf(&mut |leaf: &naming::Leaf| {
            if let LeafTarget::Addr(addr) = &leaf.to {
                found.extend(addr.endpoints().iter().map(|one| one.addr.to_string()));
            }
        });
    }
    found
}

fn outage() -> Duration {
    Duration::from_secs(setting("RUTTER_OUTAGE_S", 15))
}

/// What `work` took to become true; panics when it doesn't.
async fn when(what: &str, limit: Duration, work: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    let done = timeout(limit, async {
        while !work() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(done.await.is_ok(), "{what}: not within {limit:?}");
    begun.elapsed()
}

/// Whether both watches are open.
fn streaming(cluster: &Cluster) -> bool {
    let watches = cluster.watches();
    let open = |status: &Arc<k8s::status::Status>| status.record().phase == Phase::Watching;
    watches.len() == 2 && watches.iter().all(open)
}

fn sum(clusters: &[Cluster], of: impl Fn(&k8s::status::Record) -> u64) -> u64 {
    let watches = clusters.iter().flat_map(Cluster::watches);
    watches.map(|status| of(&status.record())).sum()
}

fn ip(number: usize) -> String {
    format!("10.3.{}.{}", number / 200, number % 200 + 1)
}

fn port_80(ips: &[String]) -> Vec<String> {
    let addrs = ips.iter().map(|ip| format!("{ip}:80"));
    let sorted: BTreeSet<SocketAddr> = addrs.map(|addr| addr.parse().unwrap()).collect();
    sorted.iter().map(ToString::to_string).collect()
}

async fn until_these(namer: &ServiceNamer, path: &str, want: &[String], limit: Duration) {
    let want = port_80(want);
    let want: Vec<&str> = want.iter().map(String::as_str).collect();
    until(namer, path, Some(&want), limit).await;
}

/// F01.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_api_server_takes_nothing_away_and_is_caught_up_with_in_five_seconds() {
    if !wanted("an_outage_of_the_api_server_takes_nothing_away") {
        return;
    }
    const SERVICES: usize = 30;
    let real = Real::beside().await;
    real.namespace("shop").await;
    for i in 0..SERVICES {
        real.slice("shop", &format!("s{i}"), &format!("web{i}"), Some(&[ip(i)]))
            .await;
    }
    let mut clusters = Vec::new();
    for _ in 0..5 {
        clusters.push(real.connect("kubeconfig", &[], Timing::default()).await);
    }
    let namers: Vec<_> = clusters
        .iter()
        .map(|one| one.namer(NamerConfig::everywhere()))
        .collect();
    let path = |i: usize| format!("/shop/http/web{i}");
    for namer in &namers {
        until_these(namer, &path(SERVICES - 1), &[ip(SERVICES - 1)], LONG).await;
    }
    let lists = sum(&clusters, |record| record.lists);

    real.down().await;
    let begun = Instant::now();
    while begun.elapsed() < outage() {
        for namer in &namers {
            for i in 0..SERVICES {
                let found = ips(namer, &path(i), &mut Reads::new());
                assert_eq!(
                    found,
                    Some(port_80(&[ip(i)])),
                    "{:?} into it",
                    begun.elapsed()
                );
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    let age = clusters[0]
        .watches()
        .iter()
        .map(|status| status.age())
        .max()
        .unwrap();
    assert!(
        age + Duration::from_secs(5) > outage(),
        "the age tells of it: {age:?}"
    );
    assert_eq!(
        clusters[0].trouble().len(),
        2,
        "{:?}",
        clusters[0].trouble()
    );

    real.up().await;
    let back = Instant::now();
    // What was waiting to be deployed.
    for i in 0..SERVICES {
        real.slice(
            "shop",
            &format!("s{i}"),
            &format!("web{i}"),
            Some(&[ip(i + 500)]),
        )
        .await;
    }
    let deployed = back.elapsed();
    for namer in &namers {
        for i in 0..SERVICES {
            until_these(namer, &path(i), &[ip(i + 500)], Duration::from_secs(5)).await;
        }
    }
    let caught_up = back.elapsed();
    let more = sum(&clusters, |record| record.lists) - lists;
    eprintln!(
        "F01: {:?} away, nothing lost; after the return 5 routers had all {SERVICES} changes after {caught_up:?} (they took {deployed:?} to be made), with {more} lists in all",
        outage()
    );
    assert!(caught_up.saturating_sub(deployed) < Duration::from_secs(5));
    // Two kinds, at most two lists of each for each router.
    assert!(more <= 2 * 2 * 5, "{more} lists");
    assert_eq!(sum(&clusters, |record| record.repairs), 0);
}

/// F02.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_starts_while_the_api_server_is_away_serves_from_disk_within_two_seconds() {
    if !wanted("a_router_that_starts_while_the_api_server_is_away") {
        return;
    }
    let real = Real::beside().await;
    let state = real.dir.path().join("state");
    real.namespace("shop").await;
    real.service("shop", "web", "web").await;
    real.pod("shop", "w1", "web", "10.1.0.1").await;
    let target = || real.kubeconfig_over(real.port());
    let connect = || real.connect_to(target(), &[], Timing::default(), Some(state.clone()));
    let first = connect().await;
    let namer = first.namer(NamerConfig::everywhere());
    until(&namer, "/shop/80/web", Some(&["10.1.0.1:8080"]), LONG).await;
    let changes = || first.state()["snapshot"]["writes"].as_u64() > Some(0);
    when("the first snapshot", LONG, changes).await;
    // One more: the first may have been written before the service was there.
    real.pod("shop", "w2", "web", "10.1.0.2").await;
    let both = ["10.1.0.1:8080", "10.1.0.2:8080"];
    until(&namer, "/shop/80/web", Some(&both), LONG).await;
    let file = || {
        std::fs::read_dir(&state)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
    };
    let saved = || std::fs::read_to_string(file()).is_ok_and(|text| text.contains("10.1.0.2"));
    when("the second snapshot", LONG, saved).await;
    drop((first, namer));

    real.down().await;
    let begun = Instant::now();
    let second = connect().await;
    let namer = second.namer(NamerConfig::everywhere());
    until(&namer, "/shop/80/web", Some(&both), Duration::from_secs(2)).await;
    let took = begun.elapsed();
    eprintln!("F02: served from the snapshot {took:?} after the start");
    assert!(took < Duration::from_secs(2) && second.ready());
    assert!(
        second.watches().iter().all(|status| status.age() > took),
        "the age is the snapshot's"
    );

    // Damage of all kinds: ignored, with a code.
    let whole = std::fs::read(file()).unwrap();
    let place = file();
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 1;
    let other = String::from_utf8(whole.clone())
        .unwrap()
        .replacen(" 1 ", " 99 ", 1);
    for bytes in [&whole[..whole.len() / 2], &flipped, other.as_bytes(), b"\n"] {
        std::fs::write(&place, bytes).unwrap();
        let damaged = connect().await;
        assert!(!damaged.ready());
        assert_eq!(damaged.state()["snapshot"]["problem"]["code"], "RT-K01");
    }
    std::fs::write(&place, whole).unwrap();

    // What happened meanwhile comes with the first list.
    let third = connect().await;
    let namer = third.namer(NamerConfig::everywhere());
    real.up().await;
    let back = Instant::now();
    real.pod_status("shop", "w1", "10.1.0.1", false).await;
    until(&namer, "/shop/80/web", Some(&["10.1.0.2:8080"]), LONG).await;
    eprintln!(
        "F02: live again {:?} after the API server's return",
        back.elapsed()
    );
    assert!(third.confirmed());
}

/// F03.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_410_on_every_watch_lists_are_ten_seconds_apart_and_nothing_shrinks() {
    if !wanted("with_410_on_every_watch") {
        return;
    }
    let real = Real::beside().await;
    let between = Between::start(real.admin.clone()).await;
    real.namespace("shop").await;
    real.slice("shop", "s1", "web", Some(&[ip(1), ip(2)])).await;
    let cluster = real
        .connect_to(between.target(), &[], Timing::default(), None)
        .await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until_these(&namer, "/shop/http/web", &[ip(1), ip(2)], LONG).await;

    // New watches are refused; the open one ends with the API server's.
    between.lie(Lie::Gone);
    real.down().await;
    real.up().await;
    let (begun, time) = (Instant::now(), outage() + Duration::from_secs(20));
    let before = between.calls().len();
    while begun.elapsed() < time {
        let found = ips(&namer, "/shop/http/web", &mut Reads::new());
        assert_eq!(
            found,
            Some(port_80(&[ip(1), ip(2)])),
            "{:?} into it",
            begun.elapsed()
        );
        sleep(Duration::from_millis(20)).await;
    }
    let calls = between.calls().split_off(before);
    let slices = |call: &&crate::proxies::Call| call.target.contains("endpointslices");
    let lists: Vec<_> = calls
        .iter()
        .filter(slices)
        .filter(|call| call.target.contains("limit="))
        .collect();
    eprintln!(
        "F03: in {time:?} of 410s {} lists of slices and {} calls in all; the endpoints stayed",
        lists.len(),
        calls.len()
    );
    assert!(lists.len() >= 2, "lists are what is left: {calls:?}");
    for pair in lists.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(
            apart > Duration::from_millis(9_900),
            "{apart:?} from one list to the next"
        );
    }
    // Changes come with the lists meanwhile, and at once when watches work again.
    real.slice("shop", "s1", "web", Some(&[ip(2), ip(3)])).await;
    until_these(
        &namer,
        "/shop/http/web",
        &[ip(2), ip(3)],
        Duration::from_secs(20),
    )
    .await;
    between.lie(Lie::None);
    real.slice("shop", "s1", "web", Some(&[ip(4)])).await;
    until_these(&namer, "/shop/http/web", &[ip(4)], Duration::from_secs(20)).await;

    // For real: away while so much happens that the API server, started anew and compacted, knows the version no more.
    real.down().await;
    real.up().await;
    real.compact().await;
    real.slice("shop", "s1", "web", Some(&[ip(5)])).await;
    until_these(&namer, "/shop/http/web", &[ip(5)], LONG).await;
}

/// F04.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_went_silent_is_found_out_within_a_minute() {
    if !wanted("a_watch_that_went_silent") {
        return;
    }
    let real = Real::beside().await;
    real.namespace("shop").await;
    real.slice("shop", "s1", "web", Some(&[ip(1)])).await;
    let mut tasks = Vec::new();
    let mut proxies = Vec::new();
    for both_ways in [true, false] {
        let toxic = Toxic::start(real.port()).await;
        let target = real.kubeconfig_over(toxic.port);
        let cluster = real.connect_to(target, &[], Timing::default(), None).await;
        let namer = cluster.namer(NamerConfig::everywhere());
        until_these(&namer, "/shop/http/web", &[ip(1)], LONG).await;
        when("both watches", LONG, || streaming(&cluster)).await;
        match both_ways {
            true => toxic.silence().await,
            false => toxic.deafen().await,
        }
        proxies.push(toxic);
        let what = if both_ways { "both ways" } else { "one way" };
        tasks.push((what, cluster, namer));
    }
    let forgetful = Forgetful::start(real.port()).await;
    let target = real.kubeconfig_over(forgetful.port);
    let cluster = real.connect_to(target, &[], Timing::default(), None).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until_these(&namer, "/shop/http/web", &[ip(1)], LONG).await;
    when("both watches", LONG, || streaming(&cluster)).await;
    forgetful.forget();
    tasks.push(("established connections", cluster, namer));
    real.slice("shop", "s1", "web", Some(&[ip(1), ip(2)])).await;
    let begun = Instant::now();
    // Nobody tells the connection; new ones would work after a while.
    sleep(Duration::from_secs(10)).await;
    for (_, _, namer) in &tasks {
        assert_eq!(
            ips(namer, "/shop/http/web", &mut Reads::new()),
            Some(port_80(&[ip(1)]))
        );
    }
    sleep(Duration::from_secs(15)).await;
    for toxic in &proxies {
        toxic.heal().await;
    }
    for (what, cluster, namer) in &tasks {
        let left = Duration::from_secs(60).saturating_sub(begun.elapsed());
        until_these(namer, "/shop/http/web", &[ip(1), ip(2)], left).await;
        let silences = sum(std::slice::from_ref(cluster), |record| {
            record.silences + record.errors
        });
        eprintln!(
            "F04: {what} silent: the new endpoint was there {:?} after it was made",
            begun.elapsed()
        );
        assert!(silences > 0, "it was noticed");
    }
}

/// F05.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_doubles_swaps_and_loses_events_ends_in_the_true_state() {
    if !wanted("a_watch_that_doubles_swaps_and_loses_events") {
        return;
    }
    let real = Real::beside().await;
    let between = Between::start(real.admin.clone()).await;
    real.namespace("shop").await;
    between.lie(Lie::Garbled(7));
    let timing = Timing {
        audit: Duration::from_secs(3),
        settle: Duration::from_secs(1),
        ..Timing::default()
    };
    let cluster = real.connect_to(between.target(), &[], timing, None).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    until(&namer, "/shop/http/web", None, LONG).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut last = vec![None; 4];
    for _ in 0..120 {
        let slice = random.usize(..4);
        let ips: Vec<String> = (0..random.usize(..4))
            .map(|_| ip(random.usize(..50)))
            .collect();
        let ips: BTreeSet<String> = ips.into_iter().collect();
        let new = (random.u8(..5) > 0).then(|| ips.into_iter().collect::<Vec<_>>());
        if new.is_none() && last[slice].is_none() {
            continue;
        }
        real.slice("shop", &format!("s{slice}"), "web", new.as_deref())
            .await;
        last[slice] = new;
    }
    // The last changes are lost for certain: no later event makes up for them.
    between.lie(Lie::Lost);
    for (slice, last) in last.iter_mut().enumerate().take(2) {
        let new = vec![ip(100 + slice)];
        real.slice("shop", &format!("s{slice}"), "web", Some(&new))
            .await;
        *last = Some(new);
    }
    let all: Vec<String> = last.iter().flatten().flatten().cloned().collect();
    assert!(between.lost() > 5, "{} events lost", between.lost());
    let begun = Instant::now();
    match last.iter().all(Option::is_none) {
        true => until(&namer, "/shop/http/web", None, LONG).await,
        false => until_these(&namer, "/shop/http/web", &all, LONG).await,
    }
    let repairs = sum(std::slice::from_ref(&cluster), |record| record.repairs);
    eprintln!(
        "F05: 120 changes, {} events lost: the true state {:?} after the last change, {repairs} repairs counted",
        between.lost(),
        begun.elapsed()
    );
    assert!(repairs > 0, "the audit tells of it");
}

/// F05, lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_list_over_a_slow_line_is_taken_whole_and_in_bounded_memory() {
    if !wanted("a_large_list_over_a_slow_line")
        || !alone(a_large_list_over_a_slow_line_is_taken_whole_and_in_bounded_memory).await
    {
        return;
    }
    let real = Real::start().await;
    real.namespace("shop").await;
    // Some 2 MB: 60 slices of 100 endpoints.
    for slice in 0..60 {
        let ips: Vec<String> = (0..100).map(|i| format!("10.4.{slice}.{i}")).collect();
        real.slice("shop", &format!("s{slice}"), "web", Some(&ips))
            .await;
    }
    let toxic = Toxic::start(real.port()).await;
    toxic.slow_down(100).await;
    let before = resident();
    let begun = Instant::now();
    let cluster = real
        .connect_to(
            real.kubeconfig_over(toxic.port),
            &[],
            Timing::default(),
            None,
        )
        .await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let whole =
        || ips(&namer, "/shop/http/web", &mut Reads::new()).is_some_and(|all| all.len() == 6000);
    when("the whole list", LONG, whole).await;
    let grown = resident().saturating_sub(before);
    eprintln!(
        "F05: 6,000 endpoints at 100 KB/s after {:?}; {} MiB more resident",
        begun.elapsed(),
        grown >> 20
    );
    assert!(grown < 40 << 20, "{grown} bytes");
    assert_eq!(sum(&[cluster], |record| record.errors), 0);
}

/// This process's resident memory in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// F06.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_scaled_to_zero_says_so_at_once_and_comes_back_at_once() {
    if !wanted("a_service_scaled_to_zero") {
        return;
    }
    let real = Real::beside().await;
    real.namespace("shop").await;
    real.service("shop", "web", "web").await;
    real.pod("shop", "w1", "web", "10.1.0.1").await;
    let cluster = real.connect("kubeconfig", &[], Timing::default()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let idle = Duration::from_secs(1);
    let names = names(&namer, "/svc => /#/io.l5d.k8s/shop/http", idle);
    let path = Path::read("/svc/web").unwrap();
    let is = |want: &[&str]| addresses(&names, &path) == want;
    when("the first pod", LONG, || is(&["10.1.0.1:8080"])).await;
    // For a second, and for longer than names are kept without use.
    for (round, away) in [Duration::from_secs(1), idle * 4].into_iter().enumerate() {
        let pod = format!("w{}", round + 1);
        real.delete(&format!("/api/v1/namespaces/shop/pods/{pod}"))
            .await;
        let empty = || {
            let outcome = names.binding(&path, &Dtab::empty()).current();
            matches!(outcome.cause(), Some(Cause::AddrEmpty | Cause::Neg))
        };
        let noticed = when("nothing left", LONG, empty).await;
        sleep(away).await;
        assert!(empty());
        let (pod, addr) = (format!("w{}", round + 2), format!("10.1.0.{}", round + 2));
        real.pod("shop", &pod, "web", &addr).await;
        real.has_slice_with("shop", &addr).await;
        let want = format!("{addr}:8080");
        let back = when("the new pod", Duration::from_secs(2), || is(&[&want])).await;
        eprintln!(
            "F06: none left {noticed:?} after the deletion; {away:?} later the new one {back:?} after it was in a slice"
        );
    }
}

/// F07.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_made_again_has_only_its_new_endpoints() {
    if !wanted("a_namespace_made_again") {
        return;
    }
    let real = Real::beside().await;
    let cluster = real.connect("kubeconfig", &[], Timing::default()).await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let names = names(
        &namer,
        "/svc => /#/io.l5d.k8s/shop/http",
        Duration::from_secs(600),
    );
    let path = Path::read("/svc/web").unwrap();
    for round in 1..=3 {
        let ip = format!("10.1.0.{round}");
        let want = [format!("{ip}:8080")];
        real.namespace("shop").await;
        real.service("shop", "web", "web").await;
        let begun = Instant::now();
        real.pod("shop", "w1", "web", &ip).await;
        // An address of an earlier round must never be seen again.
        let seen = std::cell::RefCell::new(Vec::new());
        let is = || {
            let now = addresses(&names, &path);
            seen.borrow_mut().extend(now.clone());
            now == want
        };
        when("the new endpoint", LONG, is).await;
        eprintln!(
            "F07: round {round}: the new endpoint after {:?}",
            begun.elapsed()
        );
        assert!(
            seen.borrow().iter().all(|addr| *addr == want[0]),
            "{seen:?}"
        );
        real.delete("/api/v1/namespaces/shop/pods/w1").await;
        real.delete("/api/v1/namespaces/shop").await;
        when("nothing left", LONG, || addresses(&names, &path).is_empty()).await;
        real.gone("/api/v1/namespaces/shop").await;
    }
}

/// F08.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_another_service_got_is_refused_by_the_router_on_its_node() {
    if !wanted("an_address_that_another_service_got") {
        return;
    }
    let real = Real::beside().await;
    real.namespace("shop").await;
    real.slice("shop", "a", "a", Some(&[ip(1)])).await;
    real.slice("shop", "b", "b", Some(&[ip(2)])).await;
    // The caller's node hears everything half a minute late, the endpoint's does not.
    let toxic = Toxic::start(real.port()).await;
    let target = real.kubeconfig_over(toxic.port);
    let outgoing = real.connect_to(target, &[], Timing::default(), None).await;
    let incoming = real.connect("kubeconfig", &[], Timing::default()).await;
    let namers = [&outgoing, &incoming].map(|one| one.namer(NamerConfig::everywhere()));
    for namer in &namers {
        until_these(namer, "/shop/http/a", &[ip(1)], LONG).await;
    }
    when("both watches", LONG, || streaming(&outgoing)).await;
    toxic.delay(Duration::from_secs(30)).await;
    real.slice("shop", "a", "a", Some(&[])).await;
    real.slice("shop", "b", "b", Some(&[ip(1), ip(2)])).await;
    let begun = Instant::now();
    // The incoming router names the request itself: `a` has nothing here any more.
    until_these(&namers[1], "/shop/http/a", &[], Duration::from_secs(2)).await;
    until_these(
        &namers[1],
        "/shop/http/b",
        &[ip(1), ip(2)],
        Duration::from_secs(2),
    )
    .await;
    let refused = begun.elapsed();
    let mut late = 0;
    while begun.elapsed() < Duration::from_secs(20) {
        assert_eq!(
            ips(&namers[1], "/shop/http/a", &mut Reads::new()),
            Some(Vec::new())
        );
        late += u32::from(
            ips(&namers[0], "/shop/http/a", &mut Reads::new()) == Some(port_80(&[ip(1)])),
        );
        sleep(Duration::from_millis(100)).await;
    }
    assert!(
        late > 0,
        "the caller's node was late: that is what this is about"
    );
    until_these(&namers[0], "/shop/http/a", &[], LONG).await;
    eprintln!(
        "F08: the endpoint's node refused after {refused:?}, the caller's node stopped sending after {:?}",
        begun.elapsed()
    );
}

/// F33.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_unknown_names_cost_the_api_server_nothing() {
    if !wanted("a_million_unknown_names")
        || !alone(a_million_unknown_names_cost_the_api_server_nothing).await
    {
        return;
    }
    let real = Real::start().await;
    let between = Between::start(real.admin.clone()).await;
    real.namespace("shop").await;
    real.slice("shop", "s1", "web", Some(&[ip(1)])).await;
    let cluster = real
        .connect_to(between.target(), &[], Timing::default(), None)
        .await;
    let namer = cluster.namer(NamerConfig::everywhere());
    let names = names(
        &namer,
        "/svc => /#/io.l5d.k8s/shop/http",
        Duration::from_secs(600),
    );
    until_these(&namer, "/shop/http/web", &[ip(1)], LONG).await;
    when("both watches", LONG, || {
        cluster.state()["watches"]
            .as_array()
            .is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["streaming"] == true))
    })
    .await;
    let good = Path::read("/svc/web").unwrap();
    let count = setting("RUTTER_UNKNOWN_NAMES", 200_000);
    let (before, memory) = (between.calls().len(), std::cell::Cell::new(0));
    let mut slowest = Vec::new();
    let begun = Instant::now();
    for i in 0..count {
        let odd = match i % 4 {
            0 => Path::utf8(["svc", &format!("no-{i}")]),
            1 => Path::utf8(["svc", &format!("%{i}\u{1f4a9}\u{0}\n")]),
            2 => Path::utf8(["svc", &format!("{i}{}", "x".repeat(4096))]),
            _ => Path::utf8(["svc", "web", &format!("{i}"), "more"]),
        };
        // What the namers themselves see, and what routers keep of it.
        let rest = Path::utf8([&format!("ns-{i}"), "http", "web"]);
        namer.lookup(&rest, &mut Reads::new());
        drop(names.binding(&odd, &Dtab::empty()));
        if i % 100 == 0 {
            let begun = Instant::now();
            assert_eq!(addresses(&names, &good), port_80(&[ip(1)]));
            slowest.push(begun.elapsed());
        }
        if i == count / 10 {
            memory.set(resident());
        }
        if i % 1000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    slowest.sort();
    let grown = resident().saturating_sub(memory.get());
    let calls = between.calls().len() - before;
    let (known, unknown) = names.sizes();
    eprintln!(
        "F33: {count} unknown names in {:?}: {calls} calls of the API, {} KiB more resident, a good name within {:?} (p99), {known} names and {unknown} unknown ones kept",
        begun.elapsed(),
        grown >> 10,
        slowest[slowest.len() * 99 / 100],
    );
    assert_eq!(calls, 0);
    assert!(grown < 2 << 20, "{grown} bytes");
    assert!(unknown <= 1000);
}

/// F36.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_routers_that_start_with_the_api_server_ask_three_times_each() {
    if !wanted("a_hundred_routers_that_start_with_the_api_server") {
        return;
    }
    const ROUTERS: usize = 100;
    let real = Real::start().await;
    let between = Between::start(real.admin.clone()).await;
    real.namespace("shop").await;
    for i in 0..20 {
        real.slice("shop", &format!("s{i}"), &format!("web{i}"), Some(&[ip(i)]))
            .await;
    }
    real.down().await;
    let mut clusters = Vec::new();
    for _ in 0..ROUTERS {
        clusters.push(
            real.connect_to(between.target(), &[], Timing::default(), None)
                .await,
        );
    }
    let namers: Vec<_> = clusters
        .iter()
        .map(|one| one.namer(NamerConfig::everywhere()))
        .collect();
    sleep(Duration::from_secs(5)).await;
    let before = between.calls().len();
    real.up().await;
    let up = Instant::now();
    for namer in &namers {
        until_these(namer, "/shop/http/web7", &[ip(7)], Duration::from_secs(30)).await;
    }
    let ready = up.elapsed();
    when("all watches", LONG, || {
        clusters
            .iter()
            .flat_map(Cluster::watches)
            .all(|status| status.record().watches > 0)
    })
    .await;
    let calls = between.calls().split_off(before);
    let answered: Vec<_> = calls.iter().filter(|call| call.status < 400).collect();
    let watches: Vec<_> = answered
        .iter()
        .filter(|call| call.target.contains("endpointslices"))
        .collect();
    let begins = || watches.iter().map(|call| call.at);
    let spread = begins().max().unwrap() - begins().min().unwrap();
    let mut kinds = std::collections::BTreeMap::<(String, u16), usize>::new();
    for call in &calls {
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let what = if query.contains("watch=true") {
            "watch"
        } else {
            "get"
        };
        *kinds
            .entry((format!("{what} {path}"), call.status))
            .or_default() += 1;
    }
    eprintln!(
        "F36: {ROUTERS} routers ready {ready:?} after the API server, {} calls ({:.2} each), the first and the last slices' {spread:?} apart: {kinds:?}",
        calls.len(),
        calls.len() as f64 / ROUTERS as f64
    );
    assert!(answered.len() <= 3 * ROUTERS, "{} calls", answered.len());
    assert!(
        spread > Duration::from_millis(200),
        "not all at once: {spread:?}"
    );
    assert_eq!(json!(sum(&clusters, |record| record.doubts)), json!(0));
}
