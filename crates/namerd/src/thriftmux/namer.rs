//! The service Namer of Linkerd's `io.l5d.thriftNameInterpreter`: its questions and answers as Thrift values.
//!
//! Every answer has a stamp, and a question that brings one waits until the answer would have another. Ours is made of
//! what the answer says, so that it holds for a store that was restarted, and for another replica.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use dtab::{Dtab, NameTree, Path, Segment};
use naming::delegation::{Delegation, Node, NodeKind};
use naming::{Addr, Bound, Endpoint};
use sha2::{Digest as _, Sha256};

use super::thrift::{Message, MessageKind, Value};
use crate::mesh::convert::rule_or_nop;
use crate::store::Namespace;

/// So much of a hash is a stamp.
const STAMP_BYTES: usize = 16;
/// When to ask again after a failure. Later clients of Linkerd know better.
const RETRY_SECONDS: i32 = 5;
/// `TApplicationException`'s words for a method that there is not, and for arguments that cannot be read.
const UNKNOWN_METHOD: i32 = 1;
const PROTOCOL_ERROR: i32 = 7;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// What a path is bound to.
    Bind {
        /// What the asker knows.
        stamp: Bytes,
        /// Whose dtab counts.
        namespace: Namespace,
        /// Rules behind that.
        local: Dtab,
        /// What is to be bound.
        path: Path,
    },
    /// What a bound name's addresses are.
    Addr {
        /// What the asker knows.
        stamp: Bytes,
        /// Its id.
        id: Path,
    },
    /// The way of a path.
    Delegate {
        /// What the asker knows; later clients ask once, without one.
        stamp: Bytes,
        /// Whose dtab counts.
        namespace: Namespace,
        /// Rules behind that.
        local: Dtab,
        /// What is to be explained.
        path: Path,
    },
    /// What a namespace's dtab is.
    Dtab {
        /// What the asker knows.
        stamp: Bytes,
        /// Whose.
        namespace: Namespace,
    },
}

/// Why a call is no question.
#[derive(Clone, Debug, PartialEq)]
pub enum NoQuestion {
    /// There is no such method.
    Method,
    /// Its arguments are not what they should be.
    Arguments(String),
    /// It can be read, and is refused as the method's own exception.
    Refused(String),
}

impl Question {
    /// What a call asks.
    ///
    /// # Errors
    /// It is none, or is refused.
    pub fn read(call: &Message) -> Result<Self, NoQuestion> {
        let missing = |what: &str| NoQuestion::Arguments(format!("no {what}"));
        let request = super::thrift::field(&call.fields, 1);
        let request = request.ok_or_else(|| missing("argument"))?;
        let get = |value: &Value, number: i16, what: &str| {
            value.field(number).cloned().ok_or_else(|| missing(what))
        };
        let refused = |error: String| NoQuestion::Refused(error);
        let named = |reference: &Value| {
            let name = path(reference.field(2)).map_err(NoQuestion::Arguments)?;
            match name.is_empty() {
                true => Err(refused("empty path".to_owned())),
                false => Ok(name),
            }
        };
        match &*call.name {
            b"bind" => {
                let reference = get(request, 2, "name")?;
                Ok(Self::Bind {
                    stamp: bytes(reference.field(1)),
                    namespace: namespace(reference.field(3)).map_err(refused)?,
                    local: dtab(request.field(1)).map_err(refused)?,
                    path: named(&reference)?,
                })
            }
            b"addr" => {
                let reference = get(request, 1, "name")?;
                Ok(Self::Addr {
                    stamp: bytes(reference.field(1)),
                    id: named(&reference)?,
                })
            }
            b"delegate" => {
                let delegation = get(request, 2, "delegation")?;
                let tree = get(&delegation, 2, "tree")?;
                let root = get(&tree, 1, "root")?;
                let leaf = root.field(3).and_then(|contents| contents.field(7));
                let leaf = leaf.ok_or_else(|| refused("Delegation too complex".to_owned()))?;
                Ok(Self::Delegate {
                    stamp: bytes(delegation.field(1)),
                    namespace: namespace(delegation.field(3)).map_err(refused)?,
                    local: dtab(request.field(1)).map_err(refused)?,
                    path: path(Some(leaf)).map_err(NoQuestion::Arguments)?,
                })
            }
            b"dtab" => Ok(Self::Dtab {
                stamp: bytes(request.field(1)),
                namespace: namespace(request.field(2)).map_err(refused)?,
            }),
            _ => Err(NoQuestion::Method),
        }
    }

    /// What the asker knows.
    pub fn stamp(&self) -> &Bytes {
        match self {
            Self::Bind { stamp, .. }
            | Self::Addr { stamp, .. }
            | Self::Delegate { stamp, .. }
            | Self::Dtab { stamp, .. } => stamp,
        }
    }
}

fn bytes(value: Option<&Value>) -> Bytes {
    match value {
        Some(Value::Bytes(bytes)) => bytes.clone(),
        _ => Bytes::new(),
    }
}

fn text(value: Option<&Value>) -> Result<String, String> {
    String::from_utf8(bytes(value).to_vec()).map_err(|_| "a text that is not UTF-8".to_owned())
}

fn namespace(value: Option<&Value>) -> Result<Namespace, String> {
    Namespace::new(&text(value)?).map_err(|error| error.to_string())
}

fn dtab(value: Option<&Value>) -> Result<Dtab, String> {
    let text = text(value)?;
    Dtab::read(&text).map_err(|error| error.report(&text))
}

/// A path; one that is left out is empty.
fn path(value: Option<&Value>) -> Result<Path, String> {
    let segments = match value {
        None => return Ok(Path::utf8([])),
        Some(Value::List(segments)) => segments,
        Some(_) => return Err("a path that is no list".to_owned()),
    };
    let segment = |value: &Value| match value {
        Value::Bytes(bytes) => Ok(Segment::new(bytes)),
        _ => Err("a path of something else than bytes".to_owned()),
    };
    let segments: Vec<_> = segments.iter().map(segment).collect::<Result<_, _>>()?;
    Ok(segments.into_iter().flatten().collect())
}

fn path_value(path: &Path) -> Value {
    let segments = path.segments().iter();
    Value::List(
        segments
            .map(|segment| Value::Bytes(Bytes::copy_from_slice(segment.as_bytes())))
            .collect(),
    )
}

fn void() -> Value {
    Value::Struct(Vec::new())
}

fn one(number: i16, value: Value) -> Value {
    Value::Struct(vec![(number, value)])
}

fn bound_name(bound: &Bound) -> Value {
    Value::Struct(vec![
        (1, path_value(&bound.id)),
        (2, path_value(&bound.residual)),
    ])
}

/// Nodes of a tree, which is written as a table.
#[derive(Default)]
struct Nodes(Vec<(Value, Value)>);

impl Nodes {
    /// Puts a node into the table; its number.
    fn put(&mut self, node: Value) -> Value {
        let number = Value::Int(i32::try_from(self.0.len()).unwrap_or(i32::MAX));
        self.0.push((number.clone(), node));
        number
    }

    fn weighted(&mut self, weight: f64, node: Value) -> Value {
        Value::Struct(vec![(1, Value::Double(weight)), (2, self.put(node))])
    }

    fn tree(self, root: Value) -> Value {
        Value::Struct(vec![(1, root), (2, Value::Map(self.0))])
    }

    fn bound(&mut self, tree: &NameTree<Bound>) -> Value {
        match tree {
            NameTree::Neg => one(1, void()),
            NameTree::Empty => one(2, void()),
            NameTree::Fail => one(3, void()),
            NameTree::Leaf(bound) => one(4, bound_name(bound)),
            NameTree::Alt(trees) => {
                let mut put = |tree| {
                    let node = self.bound(tree);
                    self.put(node)
                };
                one(5, Value::List(trees.iter().map(&mut put).collect()))
            }
            NameTree::Union(branches) => {
                let mut put = |branch: &dtab::Weighted<Bound>| {
                    let node = self.bound(&branch.tree);
                    self.weighted(branch.weight, node)
                };
                one(6, Value::List(branches.iter().map(&mut put).collect()))
            }
        }
    }

    fn delegate(&mut self, at: &Node) -> Value {
        let (prefix, dst) = rule_or_nop(at.rule.as_deref());
        let contents = match &at.kind {
            NodeKind::Pending(waits_for) => one(1, Value::text(format!("waiting for {waits_for}"))),
            NodeKind::Exception(error) => one(1, Value::text(error.to_string())),
            NodeKind::Empty => one(2, void()),
            NodeKind::Fail => one(3, void()),
            NodeKind::Neg { .. } => one(4, void()),
            NodeKind::Delegate(next) => {
                let node = self.delegate(next);
                one(5, self.put(node))
            }
            NodeKind::Leaf(bound, _) => one(6, bound_name(bound)),
            NodeKind::Alt(branches) => {
                let mut put = |branch| {
                    let node = self.delegate(branch);
                    self.put(node)
                };
                one(8, Value::List(branches.iter().map(&mut put).collect()))
            }
            NodeKind::Union(branches) => {
                let mut put = |(weight, branch): &(f64, Node)| {
                    let node = self.delegate(branch);
                    self.weighted(*weight, node)
                };
                one(9, Value::List(branches.iter().map(&mut put).collect()))
            }
            NodeKind::Transformation { before, tree, .. } => {
                let node = self.delegate(tree);
                let tree = self.put(node);
                one(10, Value::Struct(vec![(1, bound_name(before)), (2, tree)]))
            }
        };
        Value::Struct(vec![
            (1, path_value(&at.path)),
            (2, Value::text(format!("{prefix} => {dst}"))),
            (3, contents),
        ])
    }
}

/// A bound tree.
pub fn bound_tree(tree: &NameTree<Bound>) -> Value {
    let mut nodes = Nodes::default();
    let root = nodes.bound(tree);
    nodes.tree(root)
}

/// A name's way.
pub fn delegation(delegation: &Delegation) -> Value {
    let mut nodes = Nodes::default();
    let root = nodes.delegate(&delegation.root);
    nodes.tree(root)
}

/// An address set; none for one that is not to be had.
pub fn addresses(addr: &Addr) -> Option<Value> {
    Some(match addr {
        Addr::Neg => one(2, void()),
        Addr::Bound(endpoints) => {
            let endpoints = Value::Set(endpoints.iter().map(endpoint).collect());
            one(1, one(1, endpoints))
        }
        Addr::Pending | Addr::Failed(_) => return None,
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let ip = match endpoint.addr.ip() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    let noted = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(Value::text);
    let meta = [
        (1, noted(&endpoint.authority)),
        (2, noted(&endpoint.node)),
        (
            3,
            (endpoint.weight != 1.0).then_some(Value::Double(endpoint.weight)),
        ),
    ];
    let meta = meta
        .into_iter()
        .filter_map(|(at, value)| Some((at, value?)));
    Value::Struct(vec![
        (1, Value::Bytes(ip)),
        (2, Value::Int(endpoint.addr.port().into())),
        (3, Value::Struct(meta.collect())),
    ])
}

/// What an answer says is told from what it said before by this.
pub fn stamp_of(said: &Value) -> Bytes {
    let message = Message {
        kind: MessageKind::Reply,
        name: Bytes::new(),
        sequence: 0,
        fields: vec![(0, said.clone())],
    };
    Bytes::copy_from_slice(&Sha256::digest(message.to_bytes())[..STAMP_BYTES])
}

/// The answer to a call, with its stamp.
pub fn answer(call: &Message, question: &Question, stamp: Bytes, said: Value) -> Message {
    let mut fields = vec![(1, Value::Bytes(stamp)), (2, said)];
    if let Question::Bind { namespace, .. } | Question::Delegate { namespace, .. } = question {
        fields.push((3, Value::text(namespace.as_str())));
    }
    reply(call, MessageKind::Reply, vec![(0, Value::Struct(fields))])
}

/// The method's own exception.
pub fn failure(call: &Message, reason: &str) -> Message {
    let request = super::thrift::field(&call.fields, 1);
    let mut fields = vec![(1, Value::text(reason))];
    let name = match &*call.name {
        b"bind" => request.and_then(|request| request.field(2)),
        b"addr" => request.and_then(|request| request.field(1)),
        _ => None,
    };
    if let Some(name) = name {
        fields.push((2, Value::Int(RETRY_SECONDS)));
        fields.push((3, name.clone()));
        if &*call.name == b"bind" {
            fields.push((4, Value::Bytes(bytes(name.field(3)))));
        }
    }
    reply(call, MessageKind::Reply, vec![(1, Value::Struct(fields))])
}

/// What a call that is no question is answered.
pub fn refusal(call: &Message, why: &NoQuestion) -> Message {
    let (reason, kind) = match why {
        NoQuestion::Refused(reason) => return failure(call, reason),
        NoQuestion::Method => {
            let name = String::from_utf8_lossy(&call.name);
            (format!("Invalid method name: '{name}'"), UNKNOWN_METHOD)
        }
        NoQuestion::Arguments(reason) => (reason.clone(), PROTOCOL_ERROR),
    };
    let fields = vec![(1, Value::text(reason)), (2, Value::Int(kind))];
    reply(call, MessageKind::Exception, fields)
}

fn reply(call: &Message, kind: MessageKind, fields: Vec<(i16, Value)>) -> Message {
    Message {
        kind,
        name: call.name.clone(),
        sequence: call.sequence,
        fields,
    }
}

/// What a client asks: what `path` is bound to.
pub fn ask_bind(namespace: &str, local: &str, path: &Path, stamp: &Bytes) -> Message {
    let name = Value::Struct(vec![
        (1, Value::Bytes(stamp.clone())),
        (2, path_value(path)),
        (3, Value::text(namespace)),
    ]);
    ask("bind", vec![(1, Value::text(local)), (2, name)])
}

/// What a client asks: the addresses of a bound name.
pub fn ask_addr(namespace: &str, id: &Path, stamp: &Bytes) -> Message {
    let name = Value::Struct(vec![
        (1, Value::Bytes(stamp.clone())),
        (2, path_value(id)),
        (3, Value::text(namespace)),
    ]);
    ask("addr", vec![(1, name)])
}

fn ask(name: &'static str, mut request: Vec<(i16, Value)>) -> Message {
    // Who asks; nobody looks.
    let client = i16::try_from(request.len() + 1).unwrap_or(3);
    request.push((client, Value::List(Vec::new())));
    Message {
        kind: MessageKind::Call,
        name: Bytes::from_static(name.as_bytes()),
        sequence: 0,
        fields: vec![(1, Value::Struct(request))],
    }
}

/// The stamp of an answer and what it says; else why not, and whether the store says so itself.
///
/// # Errors
/// It is an exception, or no answer.
pub fn read_answer(bytes: Bytes) -> Result<(Bytes, Value), (String, bool)> {
    let answer = Message::read(bytes).map_err(|error| (error.to_string(), false))?;
    let exception = |value: &Value| match text(value.field(1)) {
        Ok(reason) if !reason.is_empty() => reason,
        _ => "the store does not say why".to_owned(),
    };
    match (answer.kind, &*answer.fields) {
        (MessageKind::Reply, [(0, success), ..]) => {
            let said = success.field(2).cloned();
            let said = said.ok_or(("an answer that says nothing".to_owned(), false))?;
            Ok((bytes_of(success), said))
        }
        (MessageKind::Reply, [(_, failure), ..]) => Err((exception(failure), true)),
        (MessageKind::Exception, _) => Err((exception(&Value::Struct(answer.fields)), true)),
        _ => Err(("an answer that says nothing".to_owned(), false)),
    }
}

fn bytes_of(success: &Value) -> Bytes {
    bytes(success.field(1))
}

/// A node of a bound tree, as a client reads it.
pub enum BoundNode<'a> {
    /// `~`.
    Neg,
    /// `$`.
    Empty,
    /// `!`.
    Fail,
    /// A bound name: its id and its residual.
    Leaf(Path, Path),
    /// Alternatives.
    Alt(Vec<&'a Value>),
    /// Weighted branches.
    Weighted(Vec<(f64, &'a Value)>),
}

/// Reads a node of a bound tree; further ones stand in the tree's table.
///
/// # Errors
/// It is none.
pub fn read_node<'a>(tree: &'a Value, node: &'a Value) -> Result<BoundNode<'a>, String> {
    let at = |number: &Value| match tree.field(2) {
        Some(Value::Map(nodes)) => nodes
            .iter()
            .find(|(key, _)| key == number)
            .map(|(_, node)| node)
            .ok_or_else(|| "a tree that lacks a node".to_owned()),
        _ => Err("a tree without nodes".to_owned()),
    };
    let Value::Struct(fields) = node else {
        return Err("a node that is none".to_owned());
    };
    Ok(match &**fields {
        [(1, _)] => BoundNode::Neg,
        [(2, _)] => BoundNode::Empty,
        [(3, _)] => BoundNode::Fail,
        [(4, leaf)] => {
            let id = path(leaf.field(1))?;
            if id.is_empty() {
                return Err("a leaf without an id".to_owned());
            }
            BoundNode::Leaf(id, path(leaf.field(2))?)
        }
        [(5, Value::List(numbers))] => {
            BoundNode::Alt(numbers.iter().map(at).collect::<Result<_, _>>()?)
        }
        [(6, Value::List(branches))] => {
            let branch = |branch: &'a Value| match (branch.field(1), branch.field(2)) {
                (Some(Value::Double(weight)), Some(number))
                    if *weight >= 0.0 && weight.is_finite() =>
                {
                    Ok((*weight, at(number)?))
                }
                _ => Err("a branch without a weight".to_owned()),
            };
            BoundNode::Weighted(branches.iter().map(branch).collect::<Result<_, _>>()?)
        }
        _ => return Err("a node of a kind that there is not".to_owned()),
    })
}

/// Reads an address set.
///
/// # Errors
/// It is none.
pub fn read_addresses(value: &Value) -> Result<Addr, String> {
    if value.field(2).is_some() {
        return Ok(Addr::Neg);
    }
    match value.field(1).and_then(|bound| bound.field(1)) {
        Some(Value::Set(addresses) | Value::List(addresses)) => {
            let endpoints = addresses.iter().map(read_endpoint);
            Ok(Addr::Bound(endpoints.collect::<Result<_, _>>()?))
        }
        _ => Err("addresses that are none".to_owned()),
    }
}

fn read_endpoint(value: &Value) -> Result<Endpoint, String> {
    let ip = crate::mesh::convert::ip(&bytes(value.field(1)))?;
    let port = match value.field(2) {
        Some(Value::Int(port)) => u16::try_from(*port).map_err(|_| "a port that is none")?,
        _ => return Err("an address without a port".to_owned()),
    };
    let mut endpoint = Endpoint::new(SocketAddr::new(ip, port));
    let meta = value.field(3);
    let noted = |number| {
        let text = text(meta.and_then(|meta| meta.field(number))).ok();
        text.filter(|text| !text.is_empty()).map(Into::into)
    };
    endpoint.authority = noted(1);
    endpoint.node = noted(2);
    if let Some(Value::Double(weight)) = meta.and_then(|meta| meta.field(3))
        && weight.is_finite()
        && *weight >= 0.0
    {
        endpoint.weight = *weight;
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let path = Path::read("/svc/web").unwrap();
        let stamp = Bytes::from_static(b"stamp");
        let call = ask_bind("default", "/svc=>/a", &path, &stamp);
        let call = Message::read(call.to_bytes()).unwrap();
        let want = Question::Bind {
            stamp: stamp.clone(),
            namespace: Namespace::new("default").unwrap(),
            local: Dtab::read("/svc=>/a").unwrap(),
            path: path.clone(),
        };
        assert_eq!(Question::read(&call), Ok(want));
        let call = ask_addr("default", &path, &stamp);
        assert_eq!(
            Question::read(&call),
            Ok(Question::Addr { stamp, id: path })
        );
    }

    #[test]
    fn what_is_no_question_has_an_answer_that_says_why() {
        let root = Path::utf8([]);
        let none = Bytes::new();
        for (call, want) in [
            (ask_bind("default", "/svc=>/a", &root, &none), "empty path"),
            (ask_bind("", "", &root, &none), "a namespace is called by"),
            (ask_bind("default", "/svc", &root, &none), "expected"),
            (ask("steal", Vec::new()), "Invalid method name: 'steal'"),
            (ask("addr", Vec::new()), "empty path"),
            (
                Message {
                    fields: Vec::new(),
                    ..ask("bind", Vec::new())
                },
                "no argument",
            ),
        ] {
            let why = Question::read(&call).unwrap_err();
            let answer = refusal(&call, &why).to_bytes();
            let (reason, by_the_store) = read_answer(answer).unwrap_err();
            assert!(reason.contains(want) && by_the_store, "{call:?} {reason}");
        }
    }

    #[test]
    fn addresses_come_back_as_they_were() {
        let one = Endpoint::new("10.0.0.1:80".parse().unwrap()).on("n");
        let six = Endpoint::new("[::1]:1".parse().unwrap()).weighing(0.5);
        for addr in [Addr::bound([one, six]), Addr::bound([]), Addr::Neg] {
            assert_eq!(read_addresses(&addresses(&addr).unwrap()).unwrap(), addr);
        }
        assert!(read_addresses(&void()).is_err());
    }

    #[test]
    fn a_tree_that_refers_to_what_it_has_not_is_refused() {
        let root = one(5, Value::List(vec![Value::Int(7)]));
        let tree = Nodes::default().tree(root.clone());
        assert!(read_node(&tree, &root).is_err());
        assert!(read_node(&tree, &void()).is_err());
        assert!(read_node(&tree, &Value::Int(1)).is_err());
    }
}
