//! What every engine must do, whatever it keeps its records in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dtab::Dtab;
use naming::Reads;

use super::{
    Change, Namespace, Observed, Only, Origin, Record, Refused, Standing, Store, StoreError,
};

/// What an engine takes and keeps.
pub(super) struct Limits {
    /// So many versions are written.
    pub(super) versions: u64,
    /// So many of them are kept behind the present one; all, if none is given.
    pub(super) kept: Option<u64>,
    /// A namespace can be called as one likes.
    pub(super) any_name: bool,
    /// A dtab of more than a MiB is taken.
    pub(super) large: bool,
}

/// Of engines that keep their records themselves.
pub(super) const NONE: Limits = Limits {
    versions: 10_000,
    kept: None,
    any_name: true,
    large: true,
};

fn called(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn change(text: &str) -> Change {
    Change::read(text, Origin::now("ann", "as a test")).unwrap()
}

fn is(version: &str) -> Only {
    Only::Version(version.into())
}

/// Runs every story, each on a store of its own.
pub(super) async fn every_story(limits: &Limits, mut fresh: impl FnMut() -> Arc<dyn Store>) {
    let mut fresh = async || good(fresh()).await;
    a_write_answers_its_preconditions(&*fresh().await).await;
    of_two_writers_with_one_version_one_wins(&[fresh().await]).await;
    a_counter_loses_no_increment(&[fresh().await]).await;
    a_watch_sees_each_state_and_a_slow_one_the_newest(&*fresh().await).await;
    a_change_wakes_nobody_who_watches_another_namespace(&*fresh().await).await;
    names_are_sorted_and_watched(&*fresh().await, limits).await;
    history_has_everything_and_survives_a_deletion(&*fresh().await).await;
    many_versions_are_one_namespace(&*fresh().await, limits).await;
    large_dtabs_and_all_of_unicode_fit_or_are_refused(&*fresh().await, limits).await;
    of_large_versions_fewer_are_kept(&*fresh().await, limits).await;
    what_is_too_large_for_the_history_is_in_nobodys_way(&*fresh().await).await;
}

/// The store once its storage has been heard of.
pub(super) async fn good(store: Arc<dyn Store>) -> Arc<dyn Store> {
    until_standing(&*store, |standing| *standing == Standing::Good).await;
    store
}

pub(super) async fn until_standing(store: &dyn Store, wanted: impl Fn(&Standing) -> bool) {
    let standing = store.standing();
    let waits = async {
        loop {
            let mut reads = Reads::new();
            if wanted(&standing.read(&mut reads)) {
                return;
            }
            reads.changed().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waits).await;
    waited.unwrap_or_else(|_| panic!("{:?}", standing.get()));
}

async fn a_change_wakes_nobody_who_watches_another_namespace(store: &dyn Store) {
    let (mine, missing, other) = (called("mine"), called("missing"), called("other"));
    store
        .put(&mine, change("/a=>/b"), Only::Absent)
        .await
        .unwrap();
    let (mine, missing) = (store.watch(&mine), store.watch(&missing));
    let mut reads = Reads::new();
    assert!(matches!(mine.read(&mut reads), Observed::Present(_)));
    assert!(matches!(missing.read(&mut reads), Observed::Absent));
    for i in 0..50 {
        let change = change(&format!("/a=>/b{i}"));
        store.put(&other, change, Only::Always).await.unwrap();
        if i % 10 == 9 {
            let origin = Origin::now("ann", "");
            store.delete(&other, origin, Only::Always).await.unwrap();
        }
        assert!(!reads.stale(), "woken by a change of another namespace");
    }
}

async fn a_write_answers_its_preconditions(store: &dyn Store) {
    let ns = called("one");
    assert!(store.get(&ns).await.unwrap().is_none());
    let missing = StoreError::NotFound(ns.clone());
    assert_eq!(
        store
            .put(&ns, change("/a=>/b"), Only::Present)
            .await
            .unwrap_err(),
        missing
    );
    assert_eq!(
        store
            .put(&ns, change("/a=>/b"), is("AAAAAAAAAAE="))
            .await
            .unwrap_err(),
        missing
    );
    assert_eq!(
        store
            .delete(&ns, Origin::now("ann", ""), Only::Always)
            .await
            .unwrap_err(),
        missing
    );

    let first = store
        .put(&ns, change("/a=>/b"), Only::Absent)
        .await
        .unwrap();
    let first = (first.record.number, first.record.version());
    assert_eq!(first.0, 1);
    let exists = store
        .put(&ns, change("/a=>/c"), Only::Absent)
        .await
        .unwrap_err();
    assert!(matches!(exists, StoreError::Exists { .. }), "{exists}");
    let second = store
        .put(&ns, change("/a=>/c"), is(&first.1))
        .await
        .unwrap();
    let second = second.record.version();
    assert_ne!(first.1, second);
    let changed = store
        .put(&ns, change("/a=>/d"), is(&first.1))
        .await
        .unwrap_err();
    assert_eq!(
        changed.to_string(),
        format!("namespace one has version {second} now")
    );
    let changed = store
        .delete(&ns, Origin::now("ann", ""), is(&first.1))
        .await
        .unwrap_err();
    assert!(matches!(changed, StoreError::Changed { .. }), "{changed}");
    let now = store.get(&ns).await.unwrap().unwrap();
    assert_eq!(
        (now.dtab.to_string().as_str(), now.record.number),
        ("/a=>/c", 2)
    );
    assert_eq!(now.record.version(), second);

    let third = store
        .put(&ns, change("/a=>/e"), Only::Present)
        .await
        .unwrap();
    store
        .delete(&ns, Origin::now("ann", ""), is(&third.record.version()))
        .await
        .unwrap();
    assert!(store.get(&ns).await.unwrap().is_none());
}

/// Of several replicas, too.
pub(super) async fn of_two_writers_with_one_version_one_wins(stores: &[Arc<dyn Store>]) {
    let (ns, store) = (called("raced"), &stores[0]);
    store
        .put(&ns, change("/n=>/0"), Only::Always)
        .await
        .unwrap();
    for round in 1..20_u64 {
        let version = store.get(&ns).await.unwrap().unwrap().record.version();
        let racers = (0..8).map(|racer| {
            let store = stores[racer % stores.len()].clone();
            let (ns, version) = (ns.clone(), version.clone());
            tokio::spawn(async move {
                store
                    .put(&ns, change(&format!("/n=>/{racer}")), is(&version))
                    .await
            })
        });
        let mut won = 0;
        for racer in racers.collect::<Vec<_>>() {
            won += usize::from(racer.await.unwrap().is_ok());
        }
        assert_eq!(won, 1, "round {round}");
    }
}

pub(super) async fn a_counter_loses_no_increment(stores: &[Arc<dyn Store>]) {
    const WRITERS: usize = 10;
    const EACH: usize = 20;
    let (ns, store) = (called("counter"), &stores[0]);
    store
        .put(&ns, change("/count=>/0"), Only::Always)
        .await
        .unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let (store, ns) = (stores[writer % stores.len()].clone(), ns.clone());
        tokio::spawn(async move {
            for _ in 0..EACH {
                loop {
                    let now = store.get(&ns).await.unwrap().unwrap();
                    let count: usize = now.dtab.entries()[0].dst.to_string()[1..].parse().unwrap();
                    let next = change(&format!("/count=>/{}", count + 1));
                    match store.put(&ns, next, is(&now.record.version())).await {
                        Ok(_) => break,
                        Err(StoreError::Changed { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let now = store.get(&ns).await.unwrap().unwrap();
    assert_eq!(now.dtab.to_string(), format!("/count=>/{}", WRITERS * EACH));
}

fn text(observed: &Observed) -> String {
    match observed {
        Observed::Unknown(why) => format!("unknown: {why}"),
        Observed::Absent => "absent".to_owned(),
        Observed::Present(stored) => stored.dtab.to_string(),
    }
}

async fn a_watch_sees_each_state_and_a_slow_one_the_newest(store: &dyn Store) {
    let ns = called("watched");
    let (quick, slow) = (store.watch(&ns), store.watch(&ns));
    let mut slow_reads = Reads::new();
    assert_eq!(text(&slow.read(&mut slow_reads)), "absent");
    let mut reads = Reads::new();
    assert_eq!(text(&quick.read(&mut reads)), "absent");
    for i in 0..5 {
        store
            .put(&ns, change(&format!("/a=>/{i}")), Only::Always)
            .await
            .unwrap();
        let told = tokio::time::timeout(Duration::from_secs(5), reads.changed());
        told.await.expect("a watch is told of a change");
        reads = Reads::new();
        assert_eq!(text(&quick.read(&mut reads)), format!("/a=>/{i}"));
    }
    store
        .put(&called("other"), change("/a=>/x"), Only::Always)
        .await
        .unwrap();
    assert!(!reads.stale(), "another namespace is none of its business");
    assert!(slow_reads.stale());
    assert_eq!(text(&slow.read(&mut Reads::new())), "/a=>/4");
    store
        .delete(&ns, Origin::now("ann", ""), Only::Always)
        .await
        .unwrap();
    assert!(reads.stale());
    assert_eq!(text(&quick.read(&mut Reads::new())), "absent");
    assert_eq!(
        text(&store.watch(&called("other")).read(&mut Reads::new())),
        "/a=>/x"
    );
}

async fn names_are_sorted_and_watched(store: &dyn Store, limits: &Limits) {
    let called_so = match limits.any_name {
        true => ["Z", "a", "b", "日本"],
        false => ["0", "a", "b", "b-1"],
    };
    let names = store.names();
    let mut reads = Reads::new();
    assert!(names.read(&mut reads).is_empty());
    for name in called_so.iter().rev() {
        store
            .put(&called(name), change("/a=>/b"), Only::Absent)
            .await
            .unwrap();
    }
    assert!(reads.stale());
    let mut reads = Reads::new();
    let seen: BTreeSet<_> = names
        .read(&mut reads)
        .iter()
        .map(|name| name.as_str().to_owned())
        .collect();
    assert_eq!(
        seen.iter().map(String::as_str).collect::<Vec<_>>(),
        called_so
    );
    store
        .put(&called("a"), change("/a=>/c"), Only::Always)
        .await
        .unwrap();
    assert!(!reads.stale(), "another version is no other name");
    store
        .delete(&called("a"), Origin::now("ann", ""), Only::Always)
        .await
        .unwrap();
    assert!(reads.stale());
    assert!(!names.get().contains(&called("a")));
}

async fn history_has_everything_and_survives_a_deletion(store: &dyn Store) {
    let ns = called("told");
    assert!(store.history(&ns, None, 10).await.unwrap().is_empty());
    let as_written = "# why\n/svc => /a ; # here\n";
    store
        .put(&ns, change(as_written), Only::Always)
        .await
        .unwrap();
    store
        .delete(&ns, Origin::now("bob", "no longer used"), Only::Always)
        .await
        .unwrap();
    let again = store
        .put(&ns, change("/svc => /b"), Only::Absent)
        .await
        .unwrap();
    assert_eq!(
        again.record.number, 3,
        "a version never comes back as another dtab"
    );

    let history = store.history(&ns, None, 10).await.unwrap();
    assert_eq!(
        history
            .iter()
            .map(|record| record.number)
            .collect::<Vec<_>>(),
        [3, 2, 1]
    );
    let [_, deleted, first] = &history[..] else {
        panic!()
    };
    assert_eq!(
        (
            &*deleted.origin.author,
            &*deleted.origin.note,
            &deleted.text
        ),
        ("bob", "no longer used", &None)
    );
    assert_eq!(
        (&*first.origin.author, first.text.as_deref()),
        ("ann", Some(as_written))
    );
    let sha256 = "75655e70855ca9cffa36aab7088138d4793370e42787901b848b941f7a6eea87";
    assert_eq!(first.hash().as_deref(), Some(sha256));
    assert!(first.origin.time <= deleted.origin.time);
    assert_eq!(store.history(&ns, Some(3), 1).await.unwrap(), history[1..2]);
    assert_eq!(store.history(&ns, Some(1), 5).await.unwrap(), []);
    assert!(
        store
            .history(&called("tol"), None, 5)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn many_versions_are_one_namespace(store: &dyn Store, limits: &Limits) {
    let (ns, versions) = (called("busy"), limits.versions);
    for i in 1..=versions {
        let stored = store
            .put(&ns, change(&format!("/v=>/{i}")), Only::Always)
            .await
            .unwrap();
        assert_eq!(stored.record.number, i);
    }
    let texts = |records: Vec<Record>| -> Vec<String> {
        let texts = records
            .iter()
            .map(|one| one.text.as_deref().unwrap().to_owned());
        texts.collect()
    };
    let middle = versions - 5;
    let some = store.history(&ns, Some(middle + 1), 3).await.unwrap();
    let wanted = [middle, middle - 1, middle - 2].map(|i| format!("/v=>/{i}"));
    assert_eq!(texts(some), wanted);
    let all = store.history(&ns, None, usize::MAX).await.unwrap();
    let kept = limits.kept.map_or(versions, |kept| versions.min(kept + 1));
    assert_eq!(all.len() as u64, kept);
    assert_eq!(texts(all)[0], format!("/v=>/{versions}"));
}

async fn large_dtabs_and_all_of_unicode_fit_or_are_refused(store: &dyn Store, limits: &Limits) {
    let large: String = (0..20_000)
        .map(|i| format!("/svc/service-{i} => /#/io.l5d.k8s/default/http/x{i} ;\n"))
        .collect();
    assert!(large.len() > 1 << 20);
    let odd = ["日本語の名前", "🦀", "a b%2Fc", "..", &"é".repeat(126)];
    for name in odd {
        let put = store
            .put(&called(name), change("/a=>/b"), Only::Always)
            .await;
        if !limits.any_name {
            let refused = put.unwrap_err();
            assert!(
                matches!(refused, StoreError::Refused(Refused::Name, _)),
                "{refused}"
            );
            assert!(store.get(&called(name)).await.unwrap().is_none());
            continue;
        }
        put.unwrap_or_else(|error| panic!("{name}: {error}"));
        let now = store.get(&called(name)).await.unwrap().unwrap();
        assert_eq!(now.record.text.as_deref(), Some("/a=>/b"), "{name}");
        assert!(store.names().get().contains(&called(name)), "{name}");
        store
            .put(&called(name), change("/a=>/c"), Only::Present)
            .await
            .unwrap();
        let past = store.history(&called(name), Some(2), 9).await.unwrap();
        assert_eq!(past[0].text.as_deref(), Some("/a=>/b"), "{name}");
    }
    let ns = called("large");
    store
        .put(&ns, change("/a=>/b"), Only::Always)
        .await
        .unwrap();
    let put = store.put(&ns, change(&large), Only::Always).await;
    if limits.large {
        assert_eq!(put.unwrap().dtab.len(), 20_000);
        let now = store.get(&ns).await.unwrap().unwrap();
        assert_eq!(now.record.text.as_deref(), Some(&*large));
    } else {
        let refused = put.unwrap_err();
        assert!(
            matches!(refused, StoreError::Refused(Refused::TooLarge, _)),
            "{refused}"
        );
        let now = store.get(&ns).await.unwrap().unwrap();
        assert_eq!(now.record.text.as_deref(), Some("/a=>/b"));
    }
    // What was replaced is in the history, however large.
    store
        .put(&ns, change("/a=>/d"), Only::Present)
        .await
        .unwrap();
    let past = store.history(&ns, None, 9).await.unwrap();
    let before = if limits.large { &*large } else { "/a=>/b" };
    assert_eq!(past[1].text.as_deref(), Some(before));
}

async fn of_large_versions_fewer_are_kept(store: &dyn Store, limits: &Limits) {
    if limits.kept.is_none() {
        return;
    }
    let (ns, size, versions) = (called("heavy"), 400_000, 50);
    let text = |i: u64| format!("/v=>/{i}/{}", "x".repeat(size));
    for i in 1..=versions {
        let put = store.put(&ns, change(&text(i)), Only::Always).await;
        assert_eq!(put.unwrap().record.number, i);
    }
    let history = store.history(&ns, None, usize::MAX).await.unwrap();
    let numbers: Vec<u64> = history.iter().map(|record| record.number).collect();
    let kept = super::remote::KEPT_BYTES / (size as u64 + 10);
    assert_eq!(
        numbers,
        (versions - kept..=versions).rev().collect::<Vec<_>>()
    );
    // One that is small again takes none away.
    store
        .put(&ns, change("/a=>/b"), Only::Present)
        .await
        .unwrap();
    let history = store.history(&ns, None, usize::MAX).await.unwrap();
    assert_eq!(history.len(), numbers.len());
    // Long texts are not kept as they are written everywhere.
    let last = history[1].text.as_deref().map(Dtab::read);
    assert_eq!(last, Some(Dtab::read(&text(versions))));
}

async fn what_is_too_large_for_the_history_is_in_nobodys_way(store: &dyn Store) {
    let ns = called("quoted");
    // Twice as long in JSON, which past versions are kept in.
    let text = |size: usize| format!("# {}\n/a=>/b", "\"".repeat(size));
    let mut sizes = [1_400_000, 950_000, 500_000, 60_000].into_iter();
    let size = loop {
        let size = sizes.next().expect("60 KB fit everywhere");
        match store.put(&ns, change(&text(size)), Only::Always).await {
            Err(StoreError::Refused(Refused::TooLarge, _)) => {}
            put => {
                assert_eq!(put.unwrap().record.number, 1);
                break size;
            }
        }
    };
    for (number, dtab) in [(2, "/a=>/c"), (3, "/a=>/d")] {
        let put = store.put(&ns, change(dtab), Only::Present).await;
        assert_eq!(put.unwrap().record.number, number);
    }
    let history = store.history(&ns, None, 9).await.unwrap();
    assert_eq!(history[1].text.as_deref(), Some("/a=>/c"));
    if let Some(first) = history.get(2) {
        // Long comments are not kept everywhere.
        let dtab = Dtab::read(first.text.as_deref().unwrap()).unwrap();
        assert_eq!(dtab.to_string(), "/a=>/b");
    }
    store
        .put(&ns, change(&text(size)), Only::Present)
        .await
        .unwrap();
    let origin = Origin::now("bob", "");
    store.delete(&ns, origin, Only::Always).await.unwrap();
    assert!(store.get(&ns).await.unwrap().is_none());
    let put = store.put(&ns, change("/a=>/e"), Only::Absent).await;
    assert_eq!(put.unwrap().record.number, 6);
}

/// Fills a store that is then opened again and given to [`after_a_restart`].
pub(super) async fn before_a_restart(store: &dyn Store) {
    store
        .put(&called("kept"), change("/a=>/b # first"), Only::Always)
        .await
        .unwrap();
    store
        .put(&called("kept"), change("/a=>/c"), Only::Always)
        .await
        .unwrap();
    store
        .put(&called("gone"), change("/a=>/b"), Only::Always)
        .await
        .unwrap();
    store
        .delete(&called("gone"), Origin::now("bob", ""), Only::Always)
        .await
        .unwrap();
}

/// Looks whether all is as [`before_a_restart`] left it.
pub(super) async fn after_a_restart(store: &dyn Store) {
    let kept = store.get(&called("kept")).await.unwrap().unwrap();
    assert_eq!(
        (kept.dtab.to_string().as_str(), kept.record.number),
        ("/a=>/c", 2)
    );
    assert!(store.get(&called("gone")).await.unwrap().is_none());
    assert_eq!(store.names().get().len(), 1);
    assert_eq!(
        text(&store.watch(&called("kept")).read(&mut Reads::new())),
        "/a=>/c"
    );
    let history = store.history(&called("kept"), None, 9).await.unwrap();
    assert_eq!(history[1].text.as_deref(), Some("/a=>/b # first"));
    assert_eq!(&*history[1].origin.note, "as a test");
    let again = store
        .put(&called("gone"), change("/a=>/d"), Only::Always)
        .await
        .unwrap();
    assert_eq!(again.record.number, 3);
}

/// A storage that goes away: nothing is written, what is known stays, and writing works again when it is back.
pub(super) async fn a_storage_that_is_away_takes_nothing_and_empties_nothing(
    store: &dyn Store,
    away: impl AsyncFnOnce(),
    back: impl AsyncFnOnce(),
) {
    let ns = called("outage");
    store
        .put(&ns, change("/a=>/b"), Only::Always)
        .await
        .unwrap();
    let (watch, names) = (store.watch(&ns), store.names());
    away().await;
    let refused = store
        .put(&ns, change("/a=>/c"), Only::Always)
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let unread = store.get(&ns).await.unwrap_err();
    assert!(matches!(unread, StoreError::Unavailable(_)), "{unread}");
    until_standing(store, |standing| matches!(standing, Standing::Lost(_))).await;
    assert_eq!(text(&watch.read(&mut Reads::new())), "/a=>/b");
    assert!(names.get().contains(&ns));
    back().await;
    until_standing(store, |standing| *standing == Standing::Good).await;
    let again = async {
        while store
            .put(&ns, change("/a=>/d"), Only::Always)
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again)
        .await
        .unwrap();
    assert_eq!(text(&watch.read(&mut Reads::new())), "/a=>/d");
}

/// Waits until a watch shows that dtab, and says how long it took.
pub(super) async fn until_shown(store: &dyn Store, namespace: &str, wanted: &str) -> Duration {
    let (watch, began) = (store.watch(&called(namespace)), std::time::Instant::now());
    let waits = async {
        loop {
            let mut reads = Reads::new();
            if text(&watch.read(&mut reads)) == wanted {
                return;
            }
            reads.changed().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waits).await;
    waited.unwrap_or_else(|_| panic!("{wanted}: {}", text(&watch.read(&mut Reads::new()))));
    began.elapsed()
}
