//! Between the messages of `io.linkerd.mesh` and our own types.

use std::net::{IpAddr, SocketAddr};

use dtab::{Elem, NameTree, Prefix, Segment, Weighted};
use naming::delegation::{Delegation, Node, NodeKind, Rule};
use naming::{Addr, Bound};

use super::messages::bound_delegate_tree as delegate;
use super::messages::{self as wire, BoundDelegateTree, BoundNameTree, Nothing, PathNameTree};
use super::messages::{bound_name_tree as bound, path_name_tree as tree, replicas};

/// Where the rule that led here should stand and there is none, Linkerd has this: `/\x2f => ~`.
const NO_RULE: &[u8] = b"/";
/// Linkerd 1's keys of an endpoint's metadata.
const WEIGHT: &str = "endpoint_addr_weight";
const NODE_NAME: &str = "nodeName";
const AUTHORITY: &str = "authority";

/// A path; empty segments are no segments.
pub(crate) fn read_path(path: &wire::Path) -> dtab::Path {
    path.elems.iter().filter_map(Segment::new).collect()
}

/// A path's message.
pub(crate) fn path(path: &dtab::Path) -> wire::Path {
    let elems = path.segments().iter();
    wire::Path {
        elems: elems.map(|segment| segment.as_bytes().to_vec()).collect(),
    }
}

/// A dtab; what is wrong with it in words.
pub(crate) fn read_dtab(message: &wire::Dtab) -> Result<dtab::Dtab, String> {
    message.dentries.iter().map(dentry_of).collect()
}

fn dentry_of(message: &wire::Dentry) -> Result<dtab::Dentry, String> {
    let prefix = message.prefix.as_ref().ok_or("a dentry without a prefix")?;
    let elem = |elem: &wire::Elem| match &elem.value {
        Some(wire::ElemValue::Wildcard(_)) => Ok(Elem::Any),
        Some(wire::ElemValue::Label(label)) => Segment::new(label)
            .map(Elem::Label)
            .ok_or("a prefix with an empty segment"),
        None => Err("a prefix with an element that is nothing"),
    };
    let elems: Vec<_> = prefix.elems.iter().map(elem).collect::<Result<_, _>>()?;
    let dst = message
        .dst
        .as_ref()
        .ok_or("a dentry without a destination")?;
    Ok(dtab::Dentry {
        prefix: Prefix::new(elems),
        dst: read_tree(dst)?,
    })
}

/// A tree of paths; the decoder has bounded how deep it is.
pub(crate) fn read_tree(message: &PathNameTree) -> Result<NameTree<dtab::Path>, String> {
    Ok(
        match message.node.as_ref().ok_or("a tree that is nothing")? {
            tree::Node::Neg(_) => NameTree::Neg,
            tree::Node::Fail(_) => NameTree::Fail,
            tree::Node::Empty(_) => NameTree::Empty,
            tree::Node::Leaf(leaf) => {
                NameTree::Leaf(read_path(leaf.id.as_ref().ok_or("a leaf without a path")?))
            }
            tree::Node::Alt(alt) => {
                NameTree::Alt(alt.trees.iter().map(read_tree).collect::<Result<_, _>>()?)
            }
            tree::Node::Union(union) => {
                let branch = |branch: &tree::Weighted| {
                    let tree = branch.tree.as_ref().ok_or("a branch without a tree")?;
                    Ok(Weighted::new(weight(branch.weight)?, read_tree(tree)?))
                };
                let branches = union.trees.iter().map(branch);
                NameTree::Union(branches.collect::<Result<_, String>>()?)
            }
        },
    )
}

/// A weight as it came; a sender that leaves out 0 means it.
pub(crate) fn weight(weight: Option<f64>) -> Result<f64, String> {
    match weight.unwrap_or_default() {
        weight if weight >= 0.0 && weight.is_finite() => Ok(weight),
        weight => Err(format!("a weight of {weight}")),
    }
}

/// A dtab's message.
pub(crate) fn dtab(dtab: &dtab::Dtab) -> wire::Dtab {
    let dentries = dtab.entries().iter();
    wire::Dtab {
        dentries: dentries
            .map(|dentry| dentry_message(&dentry.prefix, &dentry.dst))
            .collect(),
    }
}

fn dentry_message(prefix: &Prefix, dst: &NameTree<dtab::Path>) -> wire::Dentry {
    let elem = |elem: &Elem| wire::Elem {
        value: Some(match elem {
            Elem::Any => wire::ElemValue::Wildcard(Nothing {}),
            Elem::Label(label) => wire::ElemValue::Label(label.as_bytes().to_vec()),
        }),
    };
    wire::Dentry {
        prefix: Some(wire::Prefix {
            elems: prefix.elems().iter().map(elem).collect(),
        }),
        dst: Some(path_tree(dst)),
    }
}

/// The message of a tree of paths.
pub(crate) fn path_tree(names: &NameTree<dtab::Path>) -> PathNameTree {
    let node = match names {
        NameTree::Neg => tree::Node::Neg(Nothing {}),
        NameTree::Fail => tree::Node::Fail(Nothing {}),
        NameTree::Empty => tree::Node::Empty(Nothing {}),
        NameTree::Leaf(leaf) => tree::Node::Leaf(tree::Leaf {
            id: Some(path(leaf)),
        }),
        NameTree::Alt(trees) => tree::Node::Alt(tree::Alt {
            trees: trees.iter().map(path_tree).collect(),
        }),
        NameTree::Union(branches) => {
            let branch = |branch: &Weighted<dtab::Path>| tree::Weighted {
                weight: Some(branch.weight),
                tree: Some(path_tree(&branch.tree)),
            };
            tree::Node::Union(tree::Union {
                trees: branches.iter().map(branch).collect(),
            })
        }
    };
    PathNameTree { node: Some(node) }
}

fn leaf(name: &Bound) -> wire::BoundLeaf {
    wire::BoundLeaf {
        id: Some(path(&name.id)),
        residual: Some(path(&name.residual)),
    }
}

/// A bound tree's message.
pub(crate) fn bound_tree(names: &NameTree<Bound>) -> BoundNameTree {
    let node = match names {
        NameTree::Neg => bound::Node::Neg(Nothing {}),
        NameTree::Fail => bound::Node::Fail(Nothing {}),
        NameTree::Empty => bound::Node::Empty(Nothing {}),
        NameTree::Leaf(name) => bound::Node::Leaf(leaf(name)),
        NameTree::Alt(trees) => bound::Node::Alt(bound::Alt {
            trees: trees.iter().map(bound_tree).collect(),
        }),
        NameTree::Union(branches) => {
            let branch = |branch: &Weighted<Bound>| bound::Weighted {
                weight: Some(branch.weight),
                tree: Some(bound_tree(&branch.tree)),
            };
            bound::Node::Union(bound::Union {
                trees: branches.iter().map(branch).collect(),
            })
        }
    };
    BoundNameTree { node: Some(node) }
}

/// An address set's message.
pub(crate) fn replicas(addr: &Addr) -> wire::Replicas {
    let result = match addr {
        Addr::Pending => replicas::Result::Pending(Nothing {}),
        Addr::Neg => replicas::Result::Neg(Nothing {}),
        Addr::Failed(why) => replicas::Result::Failed(replicas::Failed {
            message: Some(why.to_string()),
        }),
        Addr::Bound(endpoints) => replicas::Result::Bound(replicas::Bound {
            endpoints: endpoints.iter().map(endpoint).collect(),
            metadata: Default::default(),
        }),
    };
    wire::Replicas {
        result: Some(result),
    }
}

fn endpoint(endpoint: &naming::Endpoint) -> wire::Endpoint {
    let (family, address) = match endpoint.addr.ip() {
        IpAddr::V4(ip) => (0, ip.octets().to_vec()),
        IpAddr::V6(ip) => (1, ip.octets().to_vec()),
    };
    let node = endpoint.node.as_deref().map(str::to_owned);
    let authority = endpoint.authority.as_deref().map(str::to_owned);
    let weight = (endpoint.weight != 1.0).then(|| endpoint.weight.to_string());
    let known = [
        (NODE_NAME, node.clone()),
        (AUTHORITY, authority),
        (WEIGHT, weight),
    ];
    let metadata = known.into_iter();
    wire::Endpoint {
        inet_af: Some(family),
        address: Some(address),
        port: Some(endpoint.addr.port().into()),
        meta: Some(wire::EndpointMeta { node_name: node }),
        metadata: metadata
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
    }
}

/// An address set; what is wrong with it in words.
pub(crate) fn read_replicas(message: wire::Replicas) -> Result<Addr, String> {
    match message.result {
        // As Linkerd reads it.
        None | Some(replicas::Result::Neg(_)) => Ok(Addr::Neg),
        Some(replicas::Result::Pending(_)) => Ok(Addr::Pending),
        Some(replicas::Result::Failed(failed)) => {
            let why = failed.message.unwrap_or_default();
            let why = match why.as_str() {
                "" => "the store does not say why",
                why => why,
            };
            Ok(Addr::Failed(why.into()))
        }
        Some(replicas::Result::Bound(bound)) => {
            let endpoints = bound.endpoints.iter().map(read_endpoint);
            Ok(Addr::Bound(endpoints.collect::<Result<_, _>>()?))
        }
    }
}

fn read_endpoint(message: &wire::Endpoint) -> Result<naming::Endpoint, String> {
    let ip = ip(message.address.as_deref().unwrap_or_default())?;
    let port = u16::try_from(message.port.unwrap_or_default());
    let port = port.map_err(|_| "a port that is none")?;
    let mut endpoint = naming::Endpoint::new(SocketAddr::new(ip, port));
    let noted = |name: &str| message.metadata.get(name).map(String::as_str);
    let weight = noted(WEIGHT).and_then(|weight| weight.parse::<f64>().ok());
    if let Some(weight) = weight.filter(|weight| weight.is_finite() && *weight >= 0.0) {
        endpoint.weight = weight;
    }
    let meta = message.meta.as_ref();
    let node = meta.and_then(|meta| meta.node_name.as_deref());
    endpoint.node = node.or(noted(NODE_NAME)).map(Into::into);
    endpoint.authority = noted(AUTHORITY).map(Into::into);
    Ok(endpoint)
}

/// An address of four or sixteen bytes.
pub(crate) fn ip(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| format!("an ip of {} bytes", bytes.len()))
}

/// A name's way; none of it may be pending.
pub(crate) fn delegation(delegation: &Delegation) -> BoundDelegateTree {
    node(&delegation.root)
}

/// The rule that led to a place: its prefix and destination, or what Linkerd has where there is none.
pub(crate) fn rule_or_nop(rule: Option<&Rule>) -> (Prefix, NameTree<dtab::Path>) {
    match rule {
        Some(rule) => (rule.prefix.clone(), rule.dst.clone()),
        None => (
            Prefix::new(Segment::new(NO_RULE).map(Elem::Label)),
            NameTree::Neg,
        ),
    }
}

fn node(at: &Node) -> BoundDelegateTree {
    let (prefix, dst) = rule_or_nop(at.rule.as_deref());
    // A transformation comes without a rule in Linkerd.
    let ruled = !matches!(at.kind, NodeKind::Transformation { .. });
    let kind = match &at.kind {
        NodeKind::Neg { .. } => delegate::Node::Neg(Nothing {}),
        NodeKind::Fail => delegate::Node::Fail(Nothing {}),
        NodeKind::Empty => delegate::Node::Empty(Nothing {}),
        NodeKind::Pending(waits_for) => {
            delegate::Node::Exception(format!("waiting for {waits_for}"))
        }
        NodeKind::Exception(error) => {
            delegate::Node::Exception(format!("BoundDelegateTree Exception: {error}"))
        }
        NodeKind::Delegate(next) => delegate::Node::Delegate(Box::new(node(next))),
        NodeKind::Alt(branches) => delegate::Node::Alt(delegate::Alt {
            trees: branches.iter().map(node).collect(),
        }),
        NodeKind::Union(branches) => {
            let branch = |(weight, branch): &(f64, Node)| delegate::Weighted {
                weight: Some(*weight),
                tree: Some(node(branch)),
            };
            delegate::Node::Union(delegate::Union {
                trees: branches.iter().map(branch).collect(),
            })
        }
        NodeKind::Leaf(name, _) => delegate::Node::Leaf(leaf(name)),
        NodeKind::Transformation {
            name, before, tree, ..
        } => delegate::Node::Transformation(Box::new(delegate::Transformation {
            name: Some(name.clone()),
            leaf: Some(leaf(before)),
            tree: Some(Box::new(node(tree))),
        })),
    };
    BoundDelegateTree {
        path: Some(path(&at.path)),
        dentry: ruled.then(|| dentry_message(&prefix, &dst)),
        node: Some(kind),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_dtab_comes_back_as_it_was() {
        for text in [
            "",
            "/svc=>/a",
            "/svc/*/x=>3.00*/a & 0.00*/b | ~;/x=>!;/y=>$;/z=>/a\\x2fb",
        ] {
            let read = dtab::Dtab::read(text).unwrap();
            let bytes = dtab(&read).encode_to_vec();
            let message = wire::Dtab::decode(&*bytes).unwrap();
            assert_eq!(read_dtab(&message).unwrap().to_string(), read.to_string());
        }
    }

    #[test]
    fn an_endpoints_family_and_a_branchs_weight_are_written_when_they_are_zero() {
        let one = naming::Endpoint::new("10.0.0.1:80".parse().unwrap()).on("n");
        let bytes = endpoint(&one).encode_to_vec();
        assert_eq!(bytes[..9], [0x08, 0, 0x12, 4, 10, 0, 0, 1, 0x18]);
        let six = naming::Endpoint::new("[::1]:1".parse().unwrap()).weighing(0.5);
        let addr = Addr::bound([one, six]);
        assert_eq!(read_replicas(replicas(&addr)).unwrap(), addr);
        let zero = tree::Weighted {
            weight: Some(0.0),
            tree: None,
        };
        assert_eq!(zero.encode_to_vec(), [9, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (address, port) in [
            (vec![1, 2, 3], 80),
            (vec![1, 2, 3, 4], 70_000),
            (vec![1, 2, 3, 4], -1),
        ] {
            let message = wire::Endpoint {
                address: Some(address),
                port: Some(port),
                ..wire::Endpoint::default()
            };
            assert!(read_endpoint(&message).is_err(), "{message:?}");
        }
        assert!(weight(Some(f64::NAN)).is_err() && weight(Some(-1.0)).is_err());
    }
}
