//! Every answer that Linkerd's own namers gave: see `tests/vectors/README.md`.

use std::path::PathBuf;

use dtab::{NameTree, Path};
use naming::matcher::PathMatcher;
use naming::namers::{Dns, RewriteNamer, SystemNamer};
use naming::{Activity, Name, Namer, NamerError, Reads};
use serde_json::{Value, json};

#[tokio::test]
async fn namers_vectors() {
    let namer = SystemNamer::new(Dns::system(tokio::runtime::Handle::current()));
    for case in cases("namers") {
        check(&case, &namer);
    }
}

#[test]
fn rewrite_vectors() {
    for case in cases("rewrite") {
        let pattern = PathMatcher::new(case["pattern"].as_str().unwrap()).unwrap();
        let name = case["name"].as_str().unwrap();
        check(&case, &RewriteNamer::new(Path::root(), pattern, name));
    }
}

/// All cases of a file: of the folder that `DTAB_VECTORS` names, or of this repository's.
fn cases(file: &str) -> Vec<Value> {
    let folder = std::env::var_os("DTAB_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")),
        PathBuf::from,
    );
    let path = folder.join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let cases: Vec<_> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!cases.is_empty(), "{} has no cases", path.display());
    cases
}

fn check(case: &Value, namer: &dyn Namer) {
    let path: Path = case["path"].as_str().unwrap().parse().unwrap();
    let answer = namer.lookup(&path, &mut Reads::new());
    let want = &case["result"];
    let got = match answer {
        Activity::Pending(waiting_for) => panic!("waits for {waiting_for}: {case}"),
        Activity::Ok(tree) => json!({"state": "ok", "tree": to_json(&tree)}),
        // Such an error is the Java machine's own (a class that is no namer, an index out of bounds), without a text.
        Activity::Failed(_) if want["error"]["kind"] == "other" => want.clone(),
        Activity::Failed(error) => json!({"state": "failed", "error": error_of(&error)}),
    };
    assert_eq!(*want, got, "{case}");
}

fn error_of(error: &NamerError) -> Value {
    match error {
        NamerError::UnknownNamer { class, .. } => {
            json!({"kind": "unknown_namer", "message": class})
        }
        NamerError::NotAPath { message } | NamerError::Unfit { message } => {
            json!({"kind": "syntax", "message": message})
        }
        other => json!({"kind": "other", "message": other.to_string()}),
    }
}

fn to_json(tree: &NameTree<Name>) -> Value {
    match tree {
        NameTree::Neg => json!("neg"),
        NameTree::Fail => json!("fail"),
        NameTree::Empty => json!("empty"),
        NameTree::Leaf(Name::Path(path)) => json!({"leaf": {"path": path.to_string()}}),
        NameTree::Leaf(Name::Bound(bound)) => {
            json!({"leaf": {"id": bound.id.to_string(), "residual": bound.residual.to_string()}})
        }
        other => panic!("no namer here answers {other:?}"),
    }
}
