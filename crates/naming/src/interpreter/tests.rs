use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, NameTree, Path};
use tokio::runtime::Handle;

use super::{DefaultInterpreter, Interpreter, LiveInterpreter};
use crate::test_support::{TestNamer, path};
use crate::{Activity, Mounted, Reads};

fn inner() -> DefaultInterpreter {
    let namer = TestNamer::new("/t", &["a", "b"]);
    DefaultInterpreter::new(
        vec![Mounted::new(Arc::new(namer), Vec::new())],
        Arc::new(TestNamer::system()),
        Vec::new(),
    )
}

fn bound_id(interpreter: &LiveInterpreter, asked: &str, reads: &mut Reads) -> Option<Path> {
    let router = Dtab::read("/svc => /nowhere").unwrap();
    match interpreter.bind(&router, &Dtab::empty(), &path(asked), reads) {
        Activity::Ok(NameTree::Leaf(bound)) => Some(bound.id),
        _ => None,
    }
}

async fn until_bound_to(interpreter: &LiveInterpreter, want: &str) {
    let wait = async {
        loop {
            let mut reads = Reads::new();
            if bound_id(interpreter, "/svc/x", &mut reads) == Some(path(want)) {
                return;
            }
            reads.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the file's change is seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dtab_file_is_followed_and_an_invalid_one_keeps_the_last_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.dtab");
    std::fs::write(&file, "/svc => /#/t/a").unwrap();
    let interpreter = LiveInterpreter::file(&file, inner(), &Handle::current()).unwrap();
    assert_eq!(
        bound_id(&interpreter, "/svc/x", &mut Reads::new()),
        Some(path("/#/t/a"))
    );

    std::fs::write(&file, "/svc => /#/t/b;\n").unwrap();
    until_bound_to(&interpreter, "/#/t/b").await;

    let mut reads = Reads::new();
    assert_eq!(
        bound_id(&interpreter, "/svc/x", &mut reads),
        Some(path("/#/t/b"))
    );
    std::fs::write(&file, "/svc => broken dtab ;;;").unwrap();
    tokio::time::timeout(Duration::from_secs(10), reads.changed())
        .await
        .expect("the problem is seen");
    assert_eq!(
        bound_id(&interpreter, "/svc/x", &mut Reads::new()),
        Some(path("/#/t/b"))
    );
    assert!(interpreter.state()["problem"].is_string());

    // A file that another takes the place of, as editors and ConfigMap mounts do.
    let other = folder.path().join("new");
    std::fs::write(&other, "/svc => /#/t/a").unwrap();
    std::fs::rename(&other, &file).unwrap();
    until_bound_to(&interpreter, "/#/t/a").await;

    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        bound_id(&interpreter, "/svc/x", &mut Reads::new()),
        Some(path("/#/t/a"))
    );
}

#[tokio::test]
async fn a_missing_dtab_file_is_an_error_at_the_start() {
    let error =
        LiveInterpreter::file("/nonexistent/dtab", inner(), &Handle::current()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("dtabFile /nonexistent/dtab: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_rule_in_a_file_is_called_by_the_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.dtab");
    std::fs::write(&file, "/svc => /host;\n/host => /#/t").unwrap();
    let interpreter = LiveInterpreter::file(&file, inner(), &Handle::current()).unwrap();
    let delegation = interpreter.delegate(
        &Dtab::empty(),
        &Dtab::empty(),
        &path("/svc/a"),
        &mut Reads::new(),
    );
    let text = delegation.unwrap().to_string();
    assert!(
        text.contains("live.dtab:1") && text.contains("live.dtab:2"),
        "{text}"
    );
}
