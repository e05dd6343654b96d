//! What a store says, read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dtab::Path;
use naming::{Addr, Endpoint};
use serde_json::Value;

/// Trees inside each other, at most: bounds the recursion.
pub(super) const MAX_NESTED: usize = 64;

/// A bound tree as it was said. A bound one has no alternatives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Neg,
    Fail,
    Empty,
    Leaf {
        id: Path,
        residual: Path,
        addr: Addr,
    },
    Union(Vec<(f64, Tree)>),
}

impl Tree {
    /// What alternatives come to, should somebody say some: the first that is not `~`.
    pub(super) fn first(trees: Vec<Self>) -> Self {
        let mut trees = trees.into_iter();
        trees.find(|tree| *tree != Self::Neg).unwrap_or(Self::Neg)
    }

    /// Whether it leads nowhere, as all names do in a store that has lost its dtabs.
    pub(super) fn says_nothing(&self) -> bool {
        match self {
            Self::Neg | Self::Fail | Self::Empty => true,
            Self::Leaf { .. } => false,
            Self::Union(branches) => branches.iter().all(|(_, tree)| tree.says_nothing()),
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neg => f.write_str("~"),
            Self::Fail => f.write_str("!"),
            Self::Empty => f.write_str("$"),
            Self::Leaf { id, .. } => write!(f, "{id}"),
            Self::Union(branches) => {
                for (at, (weight, tree)) in branches.iter().enumerate() {
                    let and = if at == 0 { "" } else { " & " };
                    write!(f, "{and}{weight} * {tree}")?;
                }
                Ok(())
            }
        }
    }
}

/// A tree with the number of the version that it was bound under; none when the store does not say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbered {
    pub(super) tree: Tree,
    pub(super) number: Option<u64>,
}

impl Numbered {
    /// A tree from a protocol that has no numbers.
    pub(super) const fn without(tree: Tree) -> Self {
        Self { tree, number: None }
    }

    pub(super) fn says_nothing(&self) -> bool {
        self.tree.says_nothing()
    }
}

/// A document of `/api/1/bind`.
pub(super) fn numbered(value: &Value) -> Result<Numbered, String> {
    Ok(Numbered {
        tree: tree(value)?,
        number: value.get("number").and_then(Value::as_u64),
    })
}

fn tree(value: &Value) -> Result<Tree, String> {
    nested(value, MAX_NESTED)
}

fn nested(value: &Value, depth: usize) -> Result<Tree, String> {
    let depth = depth.checked_sub(1).ok_or("a tree nested too deep")?;
    match text(value, "type")? {
        "neg" => Ok(Tree::Neg),
        "fail" => Ok(Tree::Fail),
        "empty" => Ok(Tree::Empty),
        "leaf" => {
            let bound = field(value, "bound")?;
            Ok(Tree::Leaf {
                id: path(bound, "id")?,
                residual: path(bound, "path")?,
                addr: addr(field(bound, "addr")?)?,
            })
        }
        "union" => {
            let branches = list(value, "union")?.iter().map(|branch| {
                let weight = field(branch, "weight")?
                    .as_f64()
                    .filter(|weight| *weight >= 0.0);
                let weight = weight.ok_or("a weight that is no number")?;
                Ok((weight, nested(field(branch, "tree")?, depth)?))
            });
            Ok(Tree::Union(branches.collect::<Result<_, String>>()?))
        }
        other => Err(format!("a tree of type {other}")),
    }
}

/// A document of `/api/1/addr`.
pub(super) fn addr(value: &Value) -> Result<Addr, String> {
    match text(value, "type")? {
        "neg" => Ok(Addr::Neg),
        "pending" => Ok(Addr::Pending),
        "failed" => {
            let cause = value.get("cause").and_then(Value::as_str);
            Ok(Addr::Failed(
                cause.unwrap_or("the store does not say why").into(),
            ))
        }
        "bound" => {
            let addrs = list(value, "addrs")?.iter().map(endpoint);
            Ok(Addr::Bound(addrs.collect::<Result<_, String>>()?))
        }
        other => Err(format!("addresses of type {other}")),
    }
}

fn endpoint(value: &Value) -> Result<Endpoint, String> {
    let ip: IpAddr = text(value, "ip")?
        .parse()
        .map_err(|_| "an ip that is none")?;
    let port = field(value, "port")?
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let mut endpoint = Endpoint::new(SocketAddr::new(ip, port.ok_or("a port that is none")?));
    let meta = |name: &str| value.get("meta").and_then(|meta| meta.get(name));
    if let Some(weight) = meta("endpoint_addr_weight").and_then(Value::as_f64) {
        endpoint.weight = weight;
    }
    endpoint.node = meta("nodeName").and_then(Value::as_str).map(Into::into);
    endpoint.authority = meta("authority").and_then(Value::as_str).map(Into::into);
    Ok(endpoint)
}

fn field<'a>(value: &'a Value, name: &str) -> Result<&'a Value, String> {
    value
        .get(name)
        .ok_or_else(|| format!("something without `{name}`"))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    let found = field(value, name)?.as_str();
    found.ok_or_else(|| format!("a `{name}` that is no text"))
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>, String> {
    let found = field(value, name)?.as_array();
    found.ok_or_else(|| format!("a `{name}` that is no list"))
}

fn path(value: &Value, name: &str) -> Result<Path, String> {
    Path::read(text(value, name)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_store_says_is_read_and_nonsense_is_an_error() {
        let one = json!({"type": "bound", "addrs": [{"ip": "127.0.0.1", "port": 80, "meta": {"endpoint_addr_weight": 2.0, "nodeName": "n"}}], "meta": {}});
        let leaf =
            json!({"type": "leaf", "bound": {"addr": one, "id": "/#/io.l5d.fs/a", "path": "/x"}});
        let union = json!({"type": "union", "union": [{"weight": 3.0, "tree": leaf}, {"weight": 1.0, "tree": {"type": "neg"}}]});
        let read = tree(&union).unwrap();
        assert_eq!(read.to_string(), "3 * /#/io.l5d.fs/a & 1 * ~");
        assert!(!read.says_nothing());
        let endpoint = addr(&one).unwrap().endpoints()[0].clone();
        assert_eq!(
            (endpoint.weight, endpoint.node.as_deref()),
            (2.0, Some("n"))
        );
        let mut deep = json!({"type": "neg"});
        for _ in 0..100 {
            deep = json!({"type": "union", "union": [{"weight": 1.0, "tree": deep}]});
        }
        for wrong in [
            json!("neg"),
            json!({}),
            json!({"type": "leaf"}),
            json!({"type": "what"}),
            json!({"type": "union", "union": [{"weight": "x", "tree": {"type": "neg"}}]}),
            deep,
        ] {
            assert!(tree(&wrong).is_err(), "{wrong}");
        }
        assert!(
            addr(&json!({"type": "bound", "addrs": [{"ip": "localhost", "port": 1}]})).is_err()
        );
        assert!(addr(&json!({"type": "bound", "addrs": [{"ip": "::1", "port": 70000}]})).is_err());
    }
}
