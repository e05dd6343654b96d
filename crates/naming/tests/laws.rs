//! What holds for every dtab.

mod common;

use common::{interpreter, show};
use dtab::{Dtab, Path};
use naming::{Activity, BoundTree, Interpreter, Reads};
use proptest::prelude::*;
use serde_json::json;

fn arb_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "#/t/web",
        "#/t/neg",
        "#/t/down",
        "#/t/wait",
        "#/t/split",
        "$/nil",
    ]);
    prop::collection::vec(segment, 1..3).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn arb_tree() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => arb_path(),
        1 => Just("~".to_owned()),
        1 => Just("!".to_owned()),
        1 => Just("$".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|trees| format!("({})", trees.join(" | "))),
            prop::collection::vec((1..9, inner), 2..4).prop_map(|trees| {
                let trees: Vec<_> = trees
                    .iter()
                    .map(|(w, tree)| format!("0.{w} * {tree}"))
                    .collect();
                format!("({})", trees.join(" & "))
            }),
        ]
    })
}

fn arb_dtab() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(vec![
        "/a", "/b", "/c", "/a/*", "/*", "/b/a", "/#/t/neg", "/",
    ]);
    let entry = (prefix, arb_tree()).prop_map(|(prefix, tree)| format!("{prefix} => {tree}"));
    prop::collection::vec(entry, 0..6).prop_map(|entries| entries.join(" ; "))
}

fn summary(tree: &BoundTree) -> String {
    match tree {
        Activity::Ok(tree) => show(tree),
        Activity::Pending(waiting_for) => format!("pending: {waiting_for}"),
        Activity::Failed(error) => format!("failed: {error}"),
    }
}

fn asks_in(runtime: &tokio::runtime::Runtime) -> impl Interpreter + use<> {
    let _inside = runtime.enter();
    interpreter(&json!([{"prefix": "/#/t", "entries": [
        {"path": "/web", "answer": {"bound": ["10.0.0.1:80"]}},
        {"path": "/neg", "answer": "neg"},
        {"path": "/down", "answer": {"failed": "down"}},
        {"path": "/wait", "answer": "pending"},
        {"path": "/split", "answer": {"tree": "1 * /#/t/web & 2 * /b"}},
    ]}]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A page that explains must not tell another story than what requests experience. It may give up earlier, as it
    /// follows branches that binding never looks at.
    #[test]
    fn the_explained_way_is_the_one_that_requests_take(text in arb_dtab(), asked in arb_path()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let interpreter = asks_in(&runtime);
        let (table, path) = (Dtab::read(&text).unwrap(), asked.parse::<Path>().unwrap());
        let bound = interpreter.bind(&table, &Dtab::empty(), &path, &mut Reads::new());
        let delegation = interpreter.delegate(&table, &Dtab::empty(), &path, &mut Reads::new()).unwrap();
        let chosen = summary(&delegation.chosen());
        prop_assume!(!chosen.contains("used up"));
        prop_assert_eq!(summary(&bound), chosen, "{} under {}\n{}", asked, text, delegation);
        prop_assert!(!delegation.steps().is_empty());
    }

    #[test]
    fn a_requests_own_rules_count_as_the_last_of_one_table(text in arb_dtab(), own in arb_dtab(), asked in arb_path()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let interpreter = asks_in(&runtime);
        let (base, local, path) = (Dtab::read(&text).unwrap(), Dtab::read(&own).unwrap(), asked.parse::<Path>().unwrap());
        let apart = interpreter.bind(&base, &local, &path, &mut Reads::new());
        let joined = interpreter.bind(&base.concat(&local), &Dtab::empty(), &path, &mut Reads::new());
        prop_assert_eq!(summary(&apart), summary(&joined));
    }
}
