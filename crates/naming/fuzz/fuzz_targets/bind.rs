//! Any path under any dtab (a line with the path, then the dtab): binding ends soon, in a tree without alternatives, and
//! the explanation tells the same story.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dtab::{Dtab, NameTree, Path};
use libfuzzer_sys::fuzz_target;
use naming::{Activity, Addr, Bound, BoundTree, DefaultInterpreter, Interpreter, Mounted, Name, Namer, NamerError, Reads};

/// Answers by the first segment; the system namer knows `/$/nil` and fails all other classes.
struct FuzzNamer(Path);

impl Namer for FuzzNamer {
    fn prefix(&self) -> &Path {
        &self.0
    }

    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        let first = rest.segments().first().map(|segment| segment.as_bytes());
        match first {
            Some(b"$") if rest.len() > 1 => match rest.segments()[1].as_bytes() {
                b"nil" => Activity::Ok(NameTree::Empty),
                _ => Activity::failed(NamerError::Unfit { message: "no such namer".to_owned() }),
            },
            Some(b"wait") => Activity::pending("the fuzzer"),
            Some(b"back") => Activity::Ok(NameTree::Leaf(Name::Path(rest.drop(1)))),
            Some(b"web") => {
                let id = Path::utf8(["#"]).concat(&self.0).concat(&rest.take(1));
                let bound = Bound::new(id, rest.drop(1), Addr::bound([]));
                Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
            }
            _ => Activity::Ok(NameTree::Neg),
        }
    }
}

fn summary(tree: BoundTree) -> Option<String> {
    match tree {
        Activity::Ok(tree) => Some(tree.map(|bound| bound.id.clone()).to_string()),
        Activity::Pending(waiting_for) => Some(waiting_for.to_string()),
        // Which errors an explanation meets first may differ when the budget ends; that there is one may not.
        Activity::Failed(_) => None,
    }
}

fuzz_target!(|text: &str| {
    let Some((path, table)) = text.split_once('\n') else {
        return;
    };
    let (Ok(path), Ok(table)) = (Path::read(path), Dtab::read(table)) else {
        return;
    };
    let namer = FuzzNamer(Path::utf8(["t"]));
    let system = Arc::new(FuzzNamer(Path::root()));
    let interpreter = DefaultInterpreter::new(vec![Mounted::new(Arc::new(namer), Vec::new())], system, Vec::new());
    let start = Instant::now();
    let bound = interpreter.bind(&table, &Dtab::empty(), &path, &mut Reads::new());
    if let Activity::Ok(tree) = &bound {
        assert!(!tree.map(|bound| bound.id.clone()).to_string().contains('|'));
        assert_eq!(tree.simplified(), *tree);
    }
    let delegation = interpreter.delegate(&table, &Dtab::empty(), &path, &mut Reads::new()).expect("it can delegate");
    assert!(!delegation.steps().is_empty() && delegation.to_string().lines().count() < 100);
    let chosen = delegation.chosen();
    let gave_up = matches!(&chosen, Activity::Failed(error) if **error == naming::BindError::Budget);
    if !gave_up {
        assert_eq!(summary(bound), summary(chosen), "{delegation}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
});
