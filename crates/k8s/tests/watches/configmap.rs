//! A dtab in a ConfigMap, through all that can happen to it and to the API server.

use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, NameTree, Path};
use k8s::{ApiTarget, ConfigMapConfig, Timing, configmap};
use naming::namers::{Dns, SystemNamer};
use naming::{Activity, DefaultInterpreter, Interpreter, LiveInterpreter, Reads};
use serde_json::json;
use tokio::runtime::Handle;

use crate::fake::{Fake, Fault};

const PLURAL: &str = "configmaps";
const OBJECT: &str = "/configmaps/dtabs";

fn interpreter(fake: &Fake) -> LiveInterpreter {
    let control = Handle::current();
    let system = SystemNamer::new(Dns::system(control.clone()));
    let inner = DefaultInterpreter::new(Vec::new(), Arc::new(system), Vec::new());
    let config = ConfigMapConfig {
        target: ApiTarget::Plain {
            host: fake.addr.ip().to_string(),
            port: fake.addr.port(),
        },
        namespace: "shop".to_owned(),
        name: "dtabs".to_owned(),
        key: "live".to_owned(),
        timing: Timing {
            retry_first: Duration::from_millis(5),
            retry_most: Duration::from_millis(50),
            patience: Duration::from_millis(500),
            silence: Duration::from_secs(5),
            ..Timing::default()
        },
    };
    configmap::interpreter(config, inner, &control)
}

fn put(fake: &Fake, name: &str, data: &serde_json::Value) {
    let map = json!({"metadata": {"namespace": "shop", "name": name}, "data": data});
    fake.put(PLURAL, "shop", name, &map);
}

fn now(interpreter: &LiveInterpreter, reads: &mut Reads) -> String {
    // What the router has itself is tried before the map's.
    let router = Dtab::read("/svc/own => /$/inet/127.0.0.9/9").unwrap();
    let path = Path::read("/svc/web").unwrap();
    match interpreter.bind(&router, &Dtab::empty(), &path, reads) {
        Activity::Pending(waiting_for) => format!("pending: {waiting_for}"),
        Activity::Failed(error) => format!("failed: {error}"),
        Activity::Ok(NameTree::Leaf(bound)) => bound.id.to_string(),
        Activity::Ok(tree) => format!("{tree:?}"),
    }
}

async fn leads_to(interpreter: &LiveInterpreter, want: &str) {
    let mut last = String::new();
    let wait = async {
        loop {
            let mut reads = Reads::new();
            last = now(interpreter, &mut reads);
            if last == want {
                return;
            }
            reads.changed().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .is_err()
    {
        panic!("leads to {last}, not to {want}: {}", interpreter.state());
    }
}

/// Waits until the problem that is shown has this in it.
async fn says(interpreter: &LiveInterpreter, part: &str) {
    for _ in 0..4_000 {
        if interpreter.state()["problem"].to_string().contains(part) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no `{part}`: {}", interpreter.state());
}

#[tokio::test]
async fn a_config_maps_dtab_is_followed_and_an_invalid_one_keeps_the_last_good() {
    let fake = Fake::start().await;
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/1", "other": "not a dtab"}),
    );
    let interpreter = interpreter(&fake);
    assert_eq!(
        now(&interpreter, &mut Reads::new()),
        "pending: ConfigMap shop/dtabs"
    );
    leads_to(&interpreter, "/$/inet/127.0.0.1/1").await;
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/2;\n"}),
    );
    leads_to(&interpreter, "/$/inet/127.0.0.1/2").await;
    put(&fake, "dtabs", &json!({"live": "/svc => | ;"}));
    says(&interpreter, "expected").await;
    assert_eq!(now(&interpreter, &mut Reads::new()), "/$/inet/127.0.0.1/2");
    // Another map of the namespace is none of its business.
    put(
        &fake,
        "others",
        &json!({"live": "/svc => /$/inet/127.0.0.1/7"}),
    );
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/3"}),
    );
    leads_to(&interpreter, "/$/inet/127.0.0.1/3").await;
    assert!(interpreter.state()["problem"].is_null());
    assert!(!interpreter.applied().unwrap().is_empty());
}

#[tokio::test]
async fn without_map_or_key_or_at_first_a_valid_dtab_it_is_empty() {
    let fake = Fake::start().await;
    let interpreter = interpreter(&fake);
    leads_to(&interpreter, "Neg").await;
    says(&interpreter, "it is not there").await;
    put(&fake, "dtabs", &json!({"live": "/svc =>"}));
    says(&interpreter, "expected").await;
    assert_eq!(now(&interpreter, &mut Reads::new()), "Neg");
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/1"}),
    );
    leads_to(&interpreter, "/$/inet/127.0.0.1/1").await;
    put(
        &fake,
        "dtabs",
        &json!({"dead": "/svc => /$/inet/127.0.0.1/1"}),
    );
    leads_to(&interpreter, "Neg").await;
    says(&interpreter, "it has no key `live`").await;
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/2"}),
    );
    leads_to(&interpreter, "/$/inet/127.0.0.1/2").await;
    fake.remove(PLURAL, "shop", "dtabs");
    leads_to(&interpreter, "Neg").await;
}

#[tokio::test]
async fn an_api_server_that_fails_changes_nothing_and_names_wait_for_its_first_answer() {
    let fake = Fake::start().await;
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/1"}),
    );
    fake.fault(OBJECT, Fault::Status(500));
    let interpreter = interpreter(&fake);
    says(&interpreter, "500").await;
    let pending = now(&interpreter, &mut Reads::new());
    assert!(
        pending.starts_with("pending: ConfigMap shop/dtabs: "),
        "{pending}"
    );
    fake.heal();
    leads_to(&interpreter, "/$/inet/127.0.0.1/1").await;
    for fault in [
        Fault::Status(403),
        Fault::Status(500),
        Fault::Hang,
        Fault::Answers("no JSON".to_owned()),
    ] {
        fake.fault(OBJECT, fault.clone());
        fake.cut();
        says(&interpreter, "").await;
        while interpreter.state()["problem"].is_null() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            now(&interpreter, &mut Reads::new()),
            "/$/inet/127.0.0.1/1",
            "{fault:?}"
        );
        fake.heal();
        while !interpreter.state()["problem"].is_null() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // What changed meanwhile is seen.
    fake.fault("/configmaps", Fault::Status(500));
    fake.cut();
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/2"}),
    );
    fake.heal();
    leads_to(&interpreter, "/$/inet/127.0.0.1/2").await;
}

#[tokio::test]
async fn a_version_that_is_gone_is_read_anew() {
    let fake = Fake::start().await;
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/1"}),
    );
    let interpreter = interpreter(&fake);
    leads_to(&interpreter, "/$/inet/127.0.0.1/1").await;
    let gone =
        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}});
    fake.fault("watch=true", Fault::Says(format!("{gone}\n")));
    fake.cut();
    put(
        &fake,
        "dtabs",
        &json!({"live": "/svc => /$/inet/127.0.0.1/2"}),
    );
    leads_to(&interpreter, "/$/inet/127.0.0.1/2").await;
}
