use super::*;
use crate::store::real::{self, setting, wanted};
use crate::store::remote::KEPT;
use crate::store::{Change, Only, Origin, killed, suite};

fn at(members: &[String], prefix: &str) -> Arc<dyn Store> {
    let config = EtcdConfig {
        members: members.to_vec(),
        path_prefix: prefix.to_owned(),
    };
    open(config, &Handle::current()).unwrap()
}

fn change(text: &str) -> Change {
    Change::read(text, Origin::now("ann", "")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_it_does_what_every_store_does() {
    if !wanted("real_it_does_what_every_store_does") {
        return;
    }
    let etcd = real::Etcd::start(1);
    let limits = suite::Limits {
        versions: setting("RUTTER_VERSIONS", 210),
        kept: Some(KEPT),
        any_name: true,
        large: true,
    };
    let mut made = 0;
    suite::every_story(&limits, || {
        made += 1;
        at(&etcd.members(), &format!("/test/{made}"))
    })
    .await;
    suite::before_a_restart(&*suite::good(at(&etcd.members(), "/kept")).await).await;
    suite::after_a_restart(&*suite::good(at(&etcd.members(), "/kept")).await).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(suite::good(at(&etcd.members(), "/shared")).await);
    }
    suite::of_two_writers_with_one_version_one_wins(&replicas).await;
    suite::a_counter_loses_no_increment(&replicas).await;
    for replica in &replicas {
        suite::until_shown(&**replica, "counter", "/count=>/200").await;
    }
    let members = etcd.members();
    let (victim, place) = ("store::etcd::tests::victim", members.join(","));
    killed::every_answered_write_is_there(victim, &place, KEPT, || at(&members, KILLED)).await;
}

const KILLED: &str = "/killed";

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn victim() {
    if let Some(members) = killed::place() {
        let members: Vec<_> = members.split(',').map(str::to_owned).collect();
        killed::on_and_on(at(&members, KILLED)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_an_etcd_that_is_away_or_lost_its_leader_takes_nothing() {
    if !wanted("real_an_etcd_that_is_away_or_lost_its_leader_takes_nothing") {
        return;
    }
    let etcd = real::Etcd::start(3);
    let members = etcd.members();
    let etcd = std::cell::RefCell::new(etcd);
    let store = suite::good(at(&members, "/namerd/dtabs")).await;
    // One member stays, which has no majority and so no leader.
    suite::a_storage_that_is_away_takes_nothing_and_empties_nothing(
        &*store,
        async || (1..3).for_each(|at| etcd.borrow_mut().kill(at)),
        async || (1..3).for_each(|at| etcd.borrow_mut().revive(at)),
    )
    .await;
    suite::a_storage_that_is_away_takes_nothing_and_empties_nothing(
        &*store,
        async || (0..3).for_each(|at| etcd.borrow_mut().kill(at)),
        async || (0..3).for_each(|at| etcd.borrow_mut().revive(at)),
    )
    .await;
    // Without one of them all goes on.
    let web = Namespace::new("web").unwrap();
    for gone in 0..3 {
        etcd.borrow_mut().kill(gone);
        let text = format!("/svc=>/{gone}");
        let put = async { while store.put(&web, change(&text), Only::Always).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(60), put)
            .await
            .unwrap();
        suite::until_shown(&*store, "web", &text).await;
        etcd.borrow_mut().revive(gone);
        suite::until_standing(&*store, |standing| {
            *standing == crate::store::Standing::Good
        })
        .await;
    }
}

/// `Compact` of etcd's KV.
#[derive(Clone, PartialEq, prost::Message)]
struct Compact {
    #[prost(int64, tag = "1")]
    revision: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_what_is_compacted_away_meanwhile_is_read_anew() {
    if !wanted("real_what_is_compacted_away_meanwhile_is_read_anew") {
        return;
    }
    let mut etcd = real::Etcd::start(1);
    let follower = suite::good(at(&etcd.members(), "/namerd/dtabs")).await;
    let (kept, gone) = (
        Namespace::new("kept").unwrap(),
        Namespace::new("gone").unwrap(),
    );
    for namespace in [&kept, &gone] {
        follower
            .put(namespace, change("/a=>/1"), Only::Always)
            .await
            .unwrap();
    }
    // While the follower's watch is broken, another replica writes, and etcd forgets how it came.
    etcd.kill(0);
    suite::until_standing(&*follower, |standing| {
        *standing != crate::store::Standing::Good
    })
    .await;
    etcd.revive(0);
    let writer = suite::good(at(&etcd.members(), "/namerd/dtabs")).await;
    for i in 2..20 {
        let put = writer
            .put(&kept, change(&format!("/a=>/{i}")), Only::Always)
            .await;
        put.unwrap();
    }
    writer
        .delete(&gone, Origin::now("ann", ""), Only::Always)
        .await
        .unwrap();
    let client = Client::new(&etcd.members()).unwrap();
    let range = Range {
        key: b"x".to_vec(),
        ..Range::default()
    };
    let now: Ranged = client.call(KV_RANGE, &range).await.unwrap();
    let revision = now.header.unwrap().revision;
    let _: Answered = client
        .call("/etcdserverpb.KV/Compact", &Compact { revision })
        .await
        .unwrap();
    suite::until_shown(&*follower, "kept", "/a=>/19").await;
    suite::until_shown(&*follower, "gone", "absent").await;

    // What etcdctl does is in force, and numbered.
    let put = Put {
        key: b"/namerd/dtabs/kept".to_vec(),
        value: b"/a => /by-hand".to_vec(),
    };
    let _: Answered = client.call(KV_PUT, &put).await.unwrap();
    suite::until_shown(&*follower, "kept", "/a=>/by-hand").await;
    let last = writer.history(&kept, None, 2).await.unwrap();
    assert_eq!((last[0].number, last[1].number), (20, 19));
    assert!(last[0].origin.author.starts_with("outside"), "{last:?}");

    // A watch from a revision that is gone: etcd says so, and where it begins.
    let (ask, asked) = mpsc::channel(1);
    let create = WatchCreate {
        key: b"/".to_vec(),
        range_end: Vec::new(),
        start_revision: 1,
    };
    let create = WatchAsked::Create(create);
    ask.send(WatchRequest {
        asked: Some(create),
    })
    .await
    .unwrap();
    let requests = futures_util::stream::unfold(asked, |mut asked| async {
        asked.recv().await.map(|request| (request, asked))
    });
    let (_, mut watch) = client.watch(requests).await.unwrap();
    let cancelled = async {
        loop {
            let said = watch.message().await.unwrap().unwrap();
            if said.canceled {
                return said.compact_revision;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(30), cancelled)
            .await
            .unwrap(),
        revision
    );
}
