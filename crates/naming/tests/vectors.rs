//! Binding and delegation as Finagle and Linkerd do it: see `tests/vectors/README.md`.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{interpreter, path, show};
use dtab::{Dtab, NameTree};
use naming::{Activity, Addr, BindError, Bound, Interpreter, Reads, Target};
use serde_json::{Map, Value, json};

#[tokio::test]
async fn bind_vectors() {
    check_all("bind", |case| {
        let (base, local) = (dtab(&case["dtab"]), dtab(&case["local"]));
        let bound = interpreter(&case["namers"]).bind(
            &base,
            &local,
            &path(&case["path"]),
            &mut Reads::new(),
        );
        match bound {
            Activity::Pending(_) => json!({"state": "pending"}),
            Activity::Failed(error) => json!({"state": "failed", "error": failure(&error)}),
            Activity::Ok(tree) => ok(&tree),
        }
    });
}

#[tokio::test]
async fn delegate_vectors() {
    check_all("delegate", |case| {
        let interpreter = interpreter(&case["namers"]);
        let delegation = interpreter
            .delegate(
                &dtab(&case["dtab"]),
                &Dtab::empty(),
                &path(&case["path"]),
                &mut Reads::new(),
            )
            .unwrap();
        match delegation.failure() {
            Some(message) => json!({"state": "failed", "message": message}),
            None => json!({"state": "ok", "tree": without_addresses(delegation.to_json())}),
        }
    });
}

fn dtab(text: &Value) -> Dtab {
    Dtab::read(text.as_str().unwrap_or_default()).unwrap()
}

fn failure(error: &Arc<BindError>) -> Value {
    match &**error {
        BindError::TooDeep => json!({"kind": "max_depth", "message": error.to_string()}),
        BindError::UnknownNamer { class, .. } => json!({"kind": "unknown_namer", "message": class}),
        BindError::Namer { error, .. } => match &**error {
            naming::NamerError::Unavailable { message } => {
                json!({"kind": "namer", "message": message})
            }
            // The Java machine's own.
            _ => json!({"kind": "other", "message": null}),
        },
        other => panic!("{other}"),
    }
}

fn ok(tree: &NameTree<Bound>) -> Value {
    let mut system = false;
    tree.for_each_leaf(&mut |leaf| system |= is_system(leaf));
    let eval = tree.eval();
    let ids = eval.as_ref().map(|set| {
        let mut ids: Vec<_> = set.iter().map(|bound| bound.id.to_string()).collect();
        ids.sort();
        ids
    });
    let mut result =
        json!({"state": "ok", "tree": tree_json(tree), "show": show(tree), "eval": ids});
    if !system {
        result["resolved"] = resolved(eval);
    }
    result
}

fn tree_json(tree: &NameTree<Bound>) -> Value {
    match tree {
        NameTree::Neg => json!("neg"),
        NameTree::Fail => json!("fail"),
        NameTree::Empty => json!("empty"),
        NameTree::Alt(_) => panic!("a bound tree has no alternatives"),
        NameTree::Leaf(bound) => json!({"leaf": leaf_json(bound)}),
        NameTree::Union(branches) => {
            let branches = branches
                .iter()
                .map(|b| json!({"w": weight(b.weight), "t": tree_json(&b.tree)}));
            json!({"union": branches.collect::<Vec<_>>()})
        }
    }
}

fn leaf_json(bound: &Bound) -> Value {
    let mut leaf = Map::new();
    leaf.insert("id".to_owned(), json!(bound.id.to_string()));
    leaf.insert("residual".to_owned(), json!(bound.residual.to_string()));
    if !is_system(bound) {
        let addr = addr(bound);
        let weighed = matches!(addr, Addr::Bound(_))
            .then_some(bound.weight)
            .flatten();
        leaf.insert("addr".to_owned(), addr_json(&addr));
        leaf.insert("weight".to_owned(), weighed.map_or(Value::Null, weight));
    }
    Value::Object(leaf)
}

fn is_system(bound: &Bound) -> bool {
    bound
        .id
        .segments()
        .first()
        .is_some_and(|first| first.as_bytes() == b"$")
}

fn weight(weight: f64) -> Value {
    match weight.is_infinite() {
        true => json!("Infinity"),
        false => json!(weight),
    }
}

fn addr(bound: &Bound) -> Addr {
    match &bound.target {
        Target::Endpoints(addrs) => addrs.addr(&mut Reads::new()),
        Target::Status(code) => panic!("a status {code}"),
    }
}

fn addr_json(addr: &Addr) -> Value {
    match addr {
        Addr::Pending => json!("pending"),
        Addr::Neg => json!("neg"),
        Addr::Failed(message) => json!({"failed": message}),
        Addr::Bound(endpoints) => {
            bound_json(endpoints.iter().map(|e| e.addr.to_string()).collect())
        }
    }
}

fn bound_json(mut addrs: Vec<String>) -> Value {
    addrs.sort();
    addrs.dedup();
    json!({"bound": addrs})
}

/// The address set of the whole, `dtab.md` §5.
fn resolved(eval: Option<Vec<&Bound>>) -> Value {
    let Some(set) = eval else {
        return json!("neg");
    };
    let addrs: Vec<_> = set.iter().map(|bound| addr(bound)).collect();
    match addrs.as_slice() {
        [] => json!({"bound": []}),
        [lone] => addr_json(lone),
        all if all.iter().any(|addr| matches!(addr, Addr::Bound(_))) => {
            let endpoints = all.iter().flat_map(Addr::endpoints);
            bound_json(endpoints.map(|e| e.addr.to_string()).collect())
        }
        all if all.iter().all(|addr| *addr == Addr::Neg) => json!("neg"),
        all if all.iter().all(|addr| matches!(addr, Addr::Failed(_))) => addr_json(&all[0]),
        _ => json!("pending"),
    }
}

/// The vectors have no addresses.
fn without_addresses(mut node: Value) -> Value {
    match &mut node {
        Value::Object(fields) => {
            if let Some(Value::Object(bound)) = fields.get_mut("bound") {
                assert!(
                    bound
                        .remove("addr")
                        .is_some_and(|addr| addr["type"].is_string())
                );
            }
            for field in fields.values_mut() {
                *field = without_addresses(field.take());
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = without_addresses(item.take())),
        _ => {}
    }
    node
}

/// 1 and 1.0 are the same number.
fn floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(floats).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, field)| (key.clone(), floats(field)))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn check_all(file: &str, result: impl Fn(&Value) -> Value) {
    let cases = cases(file);
    let mut wrong = Vec::new();
    for case in &cases {
        let (got, want) = (floats(&result(case)), floats(&case["result"]));
        if got != want {
            wrong.push(format!(
                "{} {} on {}\n  want {want}\n  got  {got}",
                case["id"], case["dtab"], case["path"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
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
    let cases: Vec<_> = lines.map(case).collect();
    assert!(!cases.is_empty(), "{} has no cases", path.display());
    cases
}

fn case(line: &str) -> Value {
    let mut line = serde_json::Deserializer::from_str(line);
    // Unions lie deep inside each other in some.
    line.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut line).unwrap()
}
