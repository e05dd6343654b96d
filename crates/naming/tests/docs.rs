//! Every dtab in `docs/dtab.md` is read, and every example in it is bound.

mod common;

use common::{interpreter, show};
use dtab::{Dtab, Path};
use naming::{Activity, Interpreter, Reads};
use serde_json::json;

const PAGE: &str = include_str!("../../../docs/dtab.md");

#[tokio::test]
async fn the_examples_of_the_page_come_out_as_it_says() {
    let bound = |name: &str| json!({"path": name, "answer": {"bound": ["127.0.0.1:80"]}});
    let entries = json!([bound("/web"), bound("/web-v2"), bound("/api")]);
    let interpreter = interpreter(&json!([{"prefix": "/#/io.l5d.fs", "entries": entries}]));
    let mut examples = 0;
    for block in PAGE.split("```dtab\n").skip(1) {
        let (block, _) = block.split_once("```").expect("the block ends");
        let table = Dtab::read(block).unwrap_or_else(|error| panic!("{}", error.report(block)));
        for (path, want) in block
            .lines()
            .filter_map(|line| line.strip_prefix("# ")?.split_once(" -> "))
        {
            let path: Path = path.parse().unwrap();
            let got = match interpreter.bind(&table, &Dtab::empty(), &path, &mut Reads::new()) {
                Activity::Ok(tree) => show(&tree),
                other => panic!("{path}: {other:?}"),
            };
            assert_eq!(got, want, "{path} under\n{block}");
            examples += 1;
        }
    }
    assert!(examples > 10, "only {examples} examples were found");
}
