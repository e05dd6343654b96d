//! Every case that Finagle printed, every field of it: see `tests/vectors/README.md`.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::PathBuf;

use dtab::{Dentry, Dtab, Elem, NameTree, ParseError, ParseErrorKind, Path, Prefix, Weighted};
use serde_json::{Value, json};

#[test]
fn path_vectors() {
    for case in cases("path") {
        let Some((path, ok)) = case.parsed(Path::read) else {
            continue;
        };
        let segments: Vec<_> = path.segments().iter().map(|s| hex(s.as_bytes())).collect();
        case.check("segments", &ok["segments"], &json!(segments));
        let texts: Vec<_> = path.segments().iter().map(dtab::Segment::as_str).collect();
        case.check("utf8", &ok["utf8"], &json!(texts));
        case.check("show", &ok["show"], &json!(path.to_string()));
        case.check(
            "reading what was printed",
            &path,
            &path.to_string().parse().unwrap(),
        );
        case.no_other_fields(&ok, &["segments", "utf8", "show"]);
    }
}

#[test]
fn nametree_vectors() {
    for case in cases("nametree") {
        let Some((tree, ok)) = case.parsed(NameTree::read) else {
            continue;
        };
        let shown = tree.to_string();
        case.check_tree("tree", &ok["tree"], &tree);
        case.check_shown("show", &ok["show"], &shown);
        let roundtrip = match NameTree::read(&shown) {
            Err(_) => "error",
            Ok(again) if again == tree => "same",
            Ok(_) => "different",
        };
        case.check_shown("roundtrip", &ok["roundtrip"], roundtrip);
        let simplified = tree.simplified();
        case.check_tree("simplified", &ok["simplified"], &simplified);
        case.check_shown(
            "simplified_show",
            &ok["simplified_show"],
            &simplified.to_string(),
        );
        case.check("eval", &ok["eval"], &evaluated(&tree));
        case.check(
            "eval of the simplified tree",
            &ok["eval"],
            &evaluated(&simplified),
        );
        case.no_other_fields(
            &ok,
            &[
                "tree",
                "show",
                "roundtrip",
                "simplified",
                "simplified_show",
                "eval",
            ],
        );
    }
}

#[test]
fn dtab_vectors() {
    for case in cases("dtab") {
        let Some((dtab, ok)) = case.parsed(Dtab::read) else {
            continue;
        };
        let entries = ok["entries"].as_array().unwrap();
        case.check("number of entries", &entries.len(), &dtab.entries().len());
        for (want, entry) in entries.iter().zip(dtab.entries()) {
            check_entry(&case, want, entry);
        }
        case.check_shown("show", &ok["show"], &dtab.to_string());
        case.check_shown(
            "simplified_show",
            &ok["simplified_show"],
            &dtab.simplified().to_string(),
        );
        case.no_other_fields(&ok, &["entries", "show", "simplified_show"]);
    }
}

fn check_entry(case: &Case, want: &Value, entry: &Dentry) {
    case.check("prefix", &want["prefix"], &json!(entry.prefix.to_string()));
    case.check(
        "reading the prefix",
        &Ok(entry.prefix.clone()),
        &Prefix::read(&entry.prefix.to_string()),
    );
    let elems = entry.prefix.elems().iter().map(|elem| match elem {
        Elem::Any => "*".to_owned(),
        Elem::Label(label) => hex(label.as_bytes()),
    });
    case.check("elems", &want["elems"], &json!(elems.collect::<Vec<_>>()));
    case.check_tree("dst", &want["dst"], &entry.dst);
    case.check_shown("dst_show", &want["dst_show"], &entry.dst.to_string());
    case.no_other_fields(want, &["prefix", "elems", "dst", "dst_show"]);
}

#[test]
fn lookup_vectors() {
    for case in cases("lookup") {
        let dtab = Dtab::read(case.text("dtab")).unwrap();
        let path = Path::read(case.text("path")).unwrap();
        let tree = dtab.lookup(&path);
        case.check_tree("tree", &case.json["tree"], &tree);
        case.check_shown("show", &case.json["show"], &tree.to_string());
        // Among many entries that do not match, the same by way of an index.
        let mut entries: Vec<_> = (0..100)
            .map(|i| Dentry::read(&format!("/no-such-{i}/x => /y")).unwrap())
            .collect();
        entries.extend_from_slice(dtab.entries());
        case.check_tree(
            "tree with an index",
            &case.json["tree"],
            &Dtab::from(entries).lookup(&path),
        );
        case.no_other_fields(
            &case.json,
            &["id", "class", "source", "dtab", "path", "tree", "show"],
        );
    }
}

/// One line of a file.
struct Case {
    json: Value,
    file: &'static str,
}

/// All cases of a file: of the folder that `DTAB_VECTORS` names, or of this repository's.
fn cases(file: &'static str) -> Vec<Case> {
    let folder = std::env::var_os("DTAB_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")),
        PathBuf::from,
    );
    let path = folder.join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let cases: Vec<_> = lines
        .map(|line| Case {
            json: serde_json::from_str(line).unwrap(),
            file,
        })
        .collect();
    assert!(!cases.is_empty(), "{} has no cases", path.display());
    let ids: HashSet<_> = cases.iter().map(|case| case.text("id")).collect();
    assert_eq!(ids.len(), cases.len(), "ids are unique");
    cases
}

impl Case {
    fn text(&self, field: &str) -> &str {
        self.json[field]
            .as_str()
            .unwrap_or_else(|| panic!("no text `{field}` in {}", self.json))
    }

    fn shows_weights(&self) -> bool {
        !self.text("class").ends_with("-extreme")
    }

    fn check<T: PartialEq + std::fmt::Debug>(&self, what: &str, want: &T, got: &T) {
        assert!(
            want == got,
            "{}: {what}\n want {want:?}\n  got {got:?}\n case {}",
            self.file,
            self.json
        );
    }

    fn check_shown(&self, what: &str, want: &Value, got: &str) {
        assert!(want.is_string(), "{what} in {}", self.json);
        if self.shows_weights() {
            self.check(what, want, &json!(got));
        }
    }

    fn check_tree(&self, what: &str, want: &Value, got: &NameTree<Path>) {
        self.check(what, &tree_of(want), got);
    }

    /// A field that nobody looks at is a check that is missing.
    fn no_other_fields(&self, object: &Value, known: &[&str]) {
        for field in object.as_object().unwrap().keys() {
            assert!(
                known.contains(&field.as_str()),
                "unknown field `{field}` in {}",
                self.json
            );
        }
    }

    /// What reading the input gives, and what it should; none when both agree that it is an error.
    fn parsed<T>(&self, read: impl Fn(&str) -> Result<T, ParseError>) -> Option<(T, Value)> {
        self.no_other_fields(
            &self.json,
            &["id", "class", "source", "input", "ok", "error"],
        );
        let input = self.text("input");
        match (read(input), self.json.get("ok"), self.json.get("error")) {
            (Ok(value), Some(ok), None) => return Some((value, ok.clone())),
            (Err(error), None, Some(want)) => self.check_error(input, &error, want),
            (Ok(_), ..) => panic!("{}: accepted {}", self.file, self.json),
            (Err(error), ..) => panic!("{}: refused {}: {error}", self.file, self.json),
        }
        None
    }

    fn check_error(&self, input: &str, error: &ParseError, want: &Value) {
        let kind = match error.kind {
            ParseErrorKind::Syntax => "syntax",
            ParseErrorKind::Number => "number",
            ParseErrorKind::Limit => "limit",
        };
        self.check("kind", &want["kind"], &json!(kind));
        self.check_unless_null("message", &want["message"], &json!(error.to_string()));
        self.check_unless_null("pos", &want["pos"], &json!(error.position));
        self.check_unless_null("byte", &want["byte"], &json!(error.byte));
        self.no_other_fields(want, &["kind", "message", "pos", "byte"]);
        let report = error.report(input);
        assert!(
            report.lines().count() >= 3 && report.contains('^'),
            "{report}"
        );
    }

    fn check_unless_null(&self, what: &str, want: &Value, got: &Value) {
        if !want.is_null() {
            self.check(what, want, got);
        }
    }
}

fn evaluated(tree: &NameTree<Path>) -> Value {
    let Some(leaves) = tree.eval() else {
        return Value::Null;
    };
    sorted(leaves)
}

fn sorted(leaves: impl IntoIterator<Item = impl Display>) -> Value {
    let mut texts: Vec<_> = leaves.into_iter().map(|leaf| leaf.to_string()).collect();
    texts.sort();
    json!(texts)
}

/// The tree that a TREE stands for; its leaves are read by [`Path::read`], which the path vectors check.
fn tree_of(json: &Value) -> NameTree<Path> {
    match json.as_str() {
        Some("neg") => return NameTree::Neg,
        Some("fail") => return NameTree::Fail,
        Some("empty") => return NameTree::Empty,
        Some(other) => panic!("unknown tree {other}"),
        None => {}
    }
    if let Some(path) = json["leaf"].as_str() {
        return NameTree::Leaf(path.parse().unwrap());
    }
    if let Some(trees) = json["alt"].as_array() {
        return NameTree::Alt(trees.iter().map(tree_of).collect());
    }
    let branches = json["union"].as_array().expect("no other kind of tree");
    let branch = |json: &Value| Weighted::new(weight_of(&json["w"]), tree_of(&json["t"]));
    NameTree::Union(branches.iter().map(branch).collect())
}

fn weight_of(json: &Value) -> f64 {
    match json.as_str() {
        Some("Infinity") => f64::INFINITY,
        _ => json.as_f64().expect("a weight is a number"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
