use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::store::real::{ApiServer, setting, wanted};
use crate::store::remote::KEPT;
use crate::store::{Change, Only, Origin, Standing, StoreError, killed, suite};

fn at(server: &ApiServer, namespace: &str, shape: Shape) -> Arc<dyn Store> {
    by(&kubeconfig(server), namespace, shape)
}

fn kubeconfig(server: &ApiServer) -> PathBuf {
    server.dir.path().join("kubeconfig")
}

fn by(kubeconfig: &Path, namespace: &str, shape: Shape) -> Arc<dyn Store> {
    let config = KubernetesConfig {
        target: ApiTarget::Kubeconfig(kubeconfig.to_owned()),
        namespace: namespace.to_owned(),
        shape,
    };
    open(config, &Handle::current())
}

fn change(text: &str) -> Change {
    Change::read(text, Origin::now("ann", "")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_both_shapes_do_what_every_store_does() {
    if !wanted("real_both_shapes_do_what_every_store_does") {
        return;
    }
    let server = ApiServer::start();
    let limits = suite::Limits {
        versions: setting("RUTTER_VERSIONS", 30),
        kept: Some(KEPT),
        any_name: false,
        large: false,
    };
    let mut made = 0;
    let mut namespace = || {
        made += 1;
        server.kubectl(&["create", "namespace", &format!("s{made}")], "");
        format!("s{made}")
    };
    for shape in [Shape::Dtab, Shape::ConfigMap] {
        suite::every_story(&limits, || at(&server, &namespace(), shape)).await;
        let name = namespace();
        suite::before_a_restart(&*suite::good(at(&server, &name, shape)).await).await;
        suite::after_a_restart(&*suite::good(at(&server, &name, shape)).await).await;
        let name = namespace();
        let mut replicas = Vec::new();
        for _ in 0..3 {
            replicas.push(suite::good(at(&server, &name, shape)).await);
        }
        suite::of_two_writers_with_one_version_one_wins(&replicas).await;
        suite::a_counter_loses_no_increment(&replicas).await;
        for replica in &replicas {
            suite::until_shown(&**replica, "counter", "/count=>/200").await;
        }
        let (victim, name) = ("store::kubernetes::tests::victim", namespace());
        let place = format!("{} {name} {shape:?}", kubeconfig(&server).display());
        let open = || at(&server, &name, shape);
        killed::every_answered_write_is_there(victim, &place, KEPT, open).await;
    }
}

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn victim() {
    let Some(place) = killed::place() else { return };
    let [kubeconfig, namespace, shape] = place.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{place}");
    };
    let shapes = [Shape::Dtab, Shape::ConfigMap];
    let named = |one: &Shape| format!("{one:?}") == shape;
    let shape = shapes.into_iter().find(named).unwrap();
    killed::on_and_on(by(Path::new(kubeconfig), namespace, shape)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_what_kubectl_does_is_in_force_and_in_the_history() {
    if !wanted("real_what_kubectl_does_is_in_force_and_in_the_history") {
        return;
    }
    let server = ApiServer::start();
    let object = |dst: &str| {
        format!(
            "apiVersion: l5d.io/v1alpha1\nkind: DTab\nmetadata: {{name: web}}\ndentries:\n- {{prefix: /svc, dst: {dst}}}\n"
        )
    };
    server.kubectl(&["apply", "-f", "-"], &object("/first"));
    let store = suite::good(at(&server, "default", Shape::Dtab)).await;
    let web = Namespace::new("web").unwrap();
    suite::until_shown(&*store, "web", "/svc=>/first").await;
    store
        .put(&web, change("/svc => /ours ; # why"), Only::Present)
        .await
        .unwrap();
    let applied = Instant::now();
    server.kubectl(&["apply", "-f", "-"], &object("/second"));
    suite::until_shown(&*store, "web", "/svc=>/second").await;
    assert!(
        applied.elapsed() < Duration::from_secs(3),
        "{:?}",
        applied.elapsed()
    );
    server.kubectl(&["apply", "-f", "-"], &object("/third"));
    suite::until_shown(&*store, "web", "/svc=>/third").await;

    // Something that is no dtab changes nothing, and can be replaced.
    server.kubectl(&["apply", "-f", "-"], &object("'no path'"));
    let unread = async {
        loop {
            match store.get(&web).await {
                Err(StoreError::Unavailable(why)) if why.contains("is no dtab") => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), unread)
        .await
        .unwrap();
    suite::until_shown(&*store, "web", "/svc=>/third").await;
    store
        .put(&web, change("/svc => /mended"), Only::Present)
        .await
        .unwrap();
    server.kubectl(&["delete", "dtab", "web"], "");
    suite::until_shown(&*store, "web", "absent").await;

    let history = async {
        loop {
            let history = store.history(&web, None, 99).await.unwrap();
            if history.first().is_some_and(|last| last.text.is_none()) {
                return history;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let history = tokio::time::timeout(Duration::from_secs(30), history)
        .await
        .unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|one| (one.number, one.text.as_deref().unwrap_or("-").trim_end()))
        .collect();
    assert_eq!(
        told,
        [
            (7, "-"),
            (6, "/svc => /mended"),
            (5, "/svc => no path ;"),
            (4, "/svc => /third ;"),
            (3, "/svc => /second ;"),
            (2, "/svc => /ours ; # why"),
            (1, "/svc => /first ;"),
        ]
    );
    assert!(
        history[3].origin.author.contains("kubectl"),
        "{:?}",
        history[3]
    );
    let again = store
        .put(&web, change("/svc => /again"), Only::Absent)
        .await
        .unwrap();
    assert_eq!(again.record.number, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_an_api_server_that_is_away_or_refuses_is_told_apart() {
    if !wanted("real_an_api_server_that_is_away_or_refuses_is_told_apart") {
        return;
    }
    let server = ApiServer::start();
    let store = suite::good(at(&server, "default", Shape::Dtab)).await;
    suite::a_storage_that_is_away_takes_nothing_and_empties_nothing(
        &*store,
        async || server.script("down.sh", Some("apiserver")),
        async || server.script("up.sh", Some("apiserver")),
    )
    .await;

    let config = KubernetesConfig {
        target: ApiTarget::Kubeconfig(server.dir.path().join("kubeconfig-rutter")),
        namespace: "default".to_owned(),
        shape: Shape::Dtab,
    };
    let powerless = open(config, &Handle::current());
    let web = Namespace::new("web").unwrap();
    let refused = powerless
        .put(&web, change("/a => /b"), Only::Always)
        .await
        .unwrap_err();
    let StoreError::Refused(Refused::Forbidden, why) = refused else {
        panic!("{refused}");
    };
    assert!(why.contains("dtabs.l5d.io"), "{why}");
    assert!(matches!(&*powerless.standing().get(), Standing::Awaited(_)));

    server.kubectl(&["delete", "crd", "dtabs.l5d.io"], "");
    let lost = |standing: &Standing| matches!(standing, Standing::Lost(why) if why.contains("CustomResourceDefinition"));
    suite::until_standing(&*at_awaited(&server), |standing| {
        matches!(standing, Standing::Awaited(why) if why.contains("CustomResourceDefinition"))
            || lost(standing)
    })
    .await;
}

fn at_awaited(server: &ApiServer) -> Arc<dyn Store> {
    at(server, "default", Shape::Dtab)
}

/// Without a connection.
fn backend(shape: Shape) -> Kubernetes {
    let config = KubernetesConfig {
        target: ApiTarget::Ambient,
        namespace: "default".to_owned(),
        shape,
    };
    Kubernetes {
        config,
        api: OnceCell::new(),
    }
}

#[test]
fn who_owns_the_dtab_changed_it() {
    let managed = |body: Value| {
        let (second, later) = ("2026-11-23T01:00:00Z", "2026-11-23T01:00:07Z");
        json!([
            {"manager": "kubectl-client-side-apply", "time": second, "fieldsV1": body},
            {"manager": "rutter", "time": second, "fieldsV1": {"f:metadata": {"f:annotations": {}}}},
            {"manager": "labeller", "time": later, "fieldsV1": {"f:metadata": {"f:labels": {}}}},
        ])
    };
    let dtab = json!({
        "metadata": {"name": "web", "managedFields": managed(json!({"f:dentries": {}}))},
        "dentries": [{"prefix": "/svc", "dst": "/third"}],
    });
    let map = json!({
        "metadata": {
            "name": "web",
            "labels": {STORAGE.0: STORAGE.1},
            "managedFields": managed(json!({"f:data": {".": {}, "f:dtab": {}}})),
        },
        "data": {"dtab": "/svc => /third ;\n"},
    });
    for (shape, object) in [(Shape::Dtab, dtab), (Shape::ConfigMap, map)] {
        let (name, item) = backend(shape).item(object).unwrap();
        assert_eq!((name.as_str(), &*item.text), ("web", "/svc => /third ;\n"));
        let author = item.outside.unwrap().author;
        assert_eq!(&*author, "kubectl-client-side-apply, in Kubernetes");
    }
}

#[test]
fn names_are_those_of_objects() {
    let backend = backend(Shape::Dtab);
    let fits = |name: &str| backend.fits(&Namespace::new(name).unwrap());
    for good in ["default", "a", "a-b.c", "0"] {
        fits(good).unwrap();
    }
    for bad in ["Z", "a_b", "-a", "a-", "a..b", ".", "日本", "a b"] {
        assert!(fits(bad).unwrap_err().contains("lower-case"), "{bad}");
    }
}
