use std::cell::RefCell;

use super::*;
use crate::store::real::{self, setting, wanted};
use crate::store::remote::KEPT;
use crate::store::{Change, Only, Origin, StoreError, killed, suite};
use naming::namers::zookeeper::client::Acl;

fn config(port: u16, prefix: &str) -> ZkStoreConfig {
    let everything = Acl {
        scheme: "world".to_owned(),
        id: "anyone".to_owned(),
        perms: 31,
    };
    ZkStoreConfig {
        client: ClientConfig {
            servers: vec![("127.0.0.1".into(), port)],
            timeout: Duration::from_secs(10),
            auth: None,
            acls: vec![everything],
        },
        path_prefix: prefix.to_owned(),
    }
}

fn at(port: u16, prefix: &str) -> Arc<dyn Store> {
    open(config(port, prefix), &Handle::current())
}

fn change(text: &str) -> Change {
    Change::read(text, Origin::now("ann", "")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_it_does_what_every_store_does() {
    if !wanted("real_it_does_what_every_store_does") {
        return;
    }
    let server = real::ZooKeeper::start();
    let port = server.port();
    let server = RefCell::new(server);
    let limits = suite::Limits {
        versions: setting("RUTTER_VERSIONS", 210),
        kept: Some(KEPT),
        any_name: true,
        large: false,
    };
    let mut made = 0;
    suite::every_story(&limits, || {
        made += 1;
        at(port, &format!("/test/{made}"))
    })
    .await;
    suite::before_a_restart(&*suite::good(at(port, "/kept")).await).await;
    suite::after_a_restart(&*suite::good(at(port, "/kept")).await).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(suite::good(at(port, "/shared")).await);
    }
    suite::of_two_writers_with_one_version_one_wins(&replicas).await;
    suite::a_counter_loses_no_increment(&replicas).await;
    for replica in &replicas {
        suite::until_shown(&**replica, "counter", "/count=>/200").await;
    }
    let (victim, place) = ("store::zookeeper::tests::victim", port.to_string());
    killed::every_answered_write_is_there(victim, &place, KEPT, || at(port, KILLED)).await;
    let store = suite::good(at(port, "/outage")).await;
    suite::a_storage_that_is_away_takes_nothing_and_empties_nothing(
        &*store,
        async || server.borrow_mut().kill(),
        async || server.borrow_mut().revive(),
    )
    .await;
}

const KILLED: &str = "/killed";

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn victim() {
    if let Some(port) = killed::place() {
        killed::on_and_on(at(port.parse().unwrap(), KILLED)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_what_others_write_is_in_force_and_what_they_forbid_is_said() {
    if !wanted("real_what_others_write_is_in_force_and_what_they_forbid_is_said") {
        return;
    }
    let server = real::ZooKeeper::start();
    let port = server.port();
    let store = suite::good(at(port, "/dtabs")).await;
    let other = ZkClient::new(config(port, "").client, &Handle::current());
    let web = Namespace::new("web").unwrap();
    // As Linkerd's namerd writes it, which then reads what we write.
    let made = async {
        while other.create("/dtabs/web", b"/svc=>/linkerd").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), made)
        .await
        .unwrap();
    suite::until_shown(&*store, "web", "/svc=>/linkerd").await;
    store
        .put(&web, change("/svc => /ours"), Only::Present)
        .await
        .unwrap();
    let (data, _) = other.read("/dtabs/web").await.unwrap().unwrap();
    let text = String::from_utf8(data.to_vec()).unwrap();
    assert_eq!(dtab::Dtab::read(&text).unwrap().to_string(), "/svc=>/ours");
    other
        .set("/dtabs/web", b"/svc=>/linkerd2", -1)
        .await
        .unwrap();
    suite::until_shown(&*store, "web", "/svc=>/linkerd2").await;
    other.delete("/dtabs/web", -1).await.unwrap();
    suite::until_shown(&*store, "web", "absent").await;
    let history = async {
        loop {
            let history = store.history(&web, None, 9).await.unwrap();
            if history.len() == 4 {
                return history;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let history = tokio::time::timeout(Duration::from_secs(30), history)
        .await
        .unwrap();
    let texts: Vec<_> = history
        .iter()
        .rev()
        .map(|one| one.text.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(
        texts,
        ["/svc=>/linkerd", "/svc => /ours", "/svc=>/linkerd2", "-"]
    );

    // Only its owner may write what it makes.
    let mut owned = config(port, "/owned");
    owned.client.auth = Some(("digest".to_owned(), "ann:secret".to_owned()));
    owned.client.acls = vec![
        Acl {
            scheme: "auth".to_owned(),
            id: String::new(),
            perms: 31,
        },
        Acl {
            scheme: "world".to_owned(),
            id: "anyone".to_owned(),
            perms: 1,
        },
    ];
    let owner = suite::good(open(owned, &Handle::current())).await;
    owner
        .put(&web, change("/a => /b"), Only::Always)
        .await
        .unwrap();
    let stranger = suite::good(at(port, "/owned")).await;
    suite::until_shown(&*stranger, "web", "/a=>/b").await;
    let refused = stranger
        .put(&web, change("/a => /c"), Only::Always)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::Refused(Refused::Forbidden, _)),
        "{refused}"
    );
    owner
        .put(&web, change("/a => /d"), Only::Always)
        .await
        .unwrap();
}
