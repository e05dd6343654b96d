//! Namers as the vectors describe them: see `tests/vectors/README.md`.

use std::sync::Arc;

use dtab::{NameTree, Path};
use naming::namers::{Dns, SystemNamer};
use naming::{
    Activity, Addr, Bound, DefaultInterpreter, Endpoint, Mounted, Name, Namer, NamerError, Reads,
};
use serde_json::Value;

pub(crate) fn path(value: &Value) -> Path {
    value.as_str().unwrap().parse().unwrap()
}

/// Binds with these namers in front of the system namers.
pub(crate) fn interpreter(namers: &Value) -> DefaultInterpreter {
    let namers = namers.as_array().unwrap().iter().map(|spec| Mounted {
        at: path(&spec["prefix"]),
        namer: Arc::new(VectorNamer::new(spec)),
        transformers: Vec::new(),
    });
    let system = SystemNamer::new(Dns::system(tokio::runtime::Handle::current()));
    DefaultInterpreter::new(namers.collect(), Arc::new(system), Vec::new())
}

struct VectorNamer {
    prefix: Path,
    spec: Value,
}

impl VectorNamer {
    fn new(spec: &Value) -> Self {
        let (prefix, spec) = (path(&spec["prefix"]), spec.clone());
        Self { prefix, spec }
    }

    fn bound(&self, rest: &Path, used: usize, addr: Addr) -> Activity<NameTree<Name>> {
        let id = self.prefix.concat(&rest.take(used));
        Activity::Ok(NameTree::Leaf(Name::Bound(Bound::new(
            id,
            rest.drop(used),
            addr,
        ))))
    }

    fn entry(&self, rest: &Path, entries: &[Value]) -> Activity<NameTree<Name>> {
        let mine = entries
            .iter()
            .map(|entry| (path(&entry["path"]), &entry["answer"]));
        let longest = mine
            .filter(|(at, _)| rest.starts_with(at))
            .max_by_key(|(at, _)| at.len());
        let Some((at, answer)) = longest else {
            return Activity::Ok(NameTree::Neg);
        };
        match answer.as_str() {
            Some("neg") => return Activity::Ok(NameTree::Neg),
            Some("fail") => return Activity::Ok(NameTree::Fail),
            Some("empty") => return Activity::Ok(NameTree::Empty),
            Some("pending") => return Activity::pending("the test"),
            Some(other) => panic!("{other}"),
            None => {}
        }
        if let Some(addrs) = answer.get("bound") {
            return self.bound(rest, at.len(), endpoints(addrs));
        }
        if let Some(message) = answer.get("failed") {
            let message = message.as_str().unwrap().to_owned();
            return Activity::failed(NamerError::Unavailable { message });
        }
        if let Some(tree) = answer.get("tree") {
            let tree: NameTree<Path> = tree.as_str().unwrap().parse().unwrap();
            return Activity::Ok(tree.map(|leaf| Name::Path(leaf.concat(&rest.drop(at.len())))));
        }
        let addr = match &answer["addr"] {
            Value::String(state) if state == "neg" => Addr::Neg,
            Value::String(state) if state == "pending" => Addr::Pending,
            state => Addr::Failed(state["failed"].as_str().unwrap().into()),
        };
        self.bound(rest, at.len(), addr)
    }
}

fn endpoints(addrs: &Value) -> Addr {
    let addrs = addrs.as_array().unwrap().iter();
    Addr::bound(addrs.map(|addr| Endpoint::new(addr.as_str().unwrap().parse().unwrap())))
}

impl Namer for VectorNamer {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        match self.spec["take"].as_u64() {
            Some(n) if rest.len() < n as usize => Activity::Ok(NameTree::Neg),
            Some(n) => self.bound(rest, n as usize, endpoints(&self.spec["addrs"])),
            None => self.entry(rest, self.spec["entries"].as_array().unwrap()),
        }
    }
}

/// The tree with texts for leaves, printed.
#[allow(dead_code, reason = "each test crate uses its part")]
pub(crate) fn show(tree: &NameTree<Bound>) -> String {
    let mut texts = Vec::new();
    let numbered = tree.map(|bound| {
        texts.push(match bound.residual.is_empty() {
            true => bound.id.to_string(),
            false => format!("{}[{}]", bound.id, bound.residual),
        });
        Path::utf8([format!("leaf{}.", texts.len() - 1).as_str()])
    });
    let mut shown = numbered.to_string();
    for (at, text) in texts.iter().enumerate() {
        shown = shown.replace(&format!("/leaf{at}."), text);
    }
    shown
}
