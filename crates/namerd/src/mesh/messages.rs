//! The messages of gRPC package `io.linkerd.mesh`, field by field as Linkerd 1.7 numbers them.
//!
//! Linkerd 1's decoder tells a field that is not there from one with its default value, and leaves out what lacks a field
//! (an IPv4 endpoint without its family, which is 0): such fields are `optional` here, so that they are always written.

use std::collections::BTreeMap;

/// A path; a segment may be any bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Path {
    /// Its segments.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub elems: Vec<Vec<u8>>,
}

/// Nothing but that it is there.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Nothing {}

/// A tree of paths: a dentry's destination.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PathNameTree {
    /// What it is.
    #[prost(oneof = "path_name_tree::Node", tags = "1, 2, 3, 4, 5, 6")]
    pub node: Option<path_name_tree::Node>,
}

/// Inside [`PathNameTree`].
pub mod path_name_tree {
    /// What a tree is.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Node {
        /// `~`.
        #[prost(message, tag = "1")]
        Neg(super::Nothing),
        /// `!`.
        #[prost(message, tag = "2")]
        Fail(super::Nothing),
        /// `$`.
        #[prost(message, tag = "3")]
        Empty(super::Nothing),
        /// Alternatives.
        #[prost(message, tag = "4")]
        Alt(Alt),
        /// Weighted branches.
        #[prost(message, tag = "5")]
        Union(Union),
        /// A path.
        #[prost(message, tag = "6")]
        Leaf(Leaf),
    }

    /// Alternatives.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Alt {
        /// The first one first.
        #[prost(message, repeated, tag = "1")]
        pub trees: Vec<super::PathNameTree>,
    }

    /// Weighted branches.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Union {
        /// All of them.
        #[prost(message, repeated, tag = "1")]
        pub trees: Vec<Weighted>,
    }

    /// A branch.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Weighted {
        /// Its share.
        #[prost(double, optional, tag = "1")]
        pub weight: Option<f64>,
        /// The branch itself.
        #[prost(message, optional, tag = "2")]
        pub tree: Option<super::PathNameTree>,
    }

    /// A path.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Leaf {
        /// The path.
        #[prost(message, optional, tag = "1")]
        pub id: Option<super::Path>,
    }
}

/// A dtab.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dtab {
    /// Its rules in order.
    #[prost(message, repeated, tag = "1")]
    pub dentries: Vec<Dentry>,
}

/// A rule.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dentry {
    /// What it applies to.
    #[prost(message, optional, tag = "1")]
    pub prefix: Option<Prefix>,
    /// What takes the prefix's place.
    #[prost(message, optional, tag = "2")]
    pub dst: Option<PathNameTree>,
}

/// A rule's prefix.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Prefix {
    /// Its elements.
    #[prost(message, repeated, tag = "1")]
    pub elems: Vec<Elem>,
}

/// An element of a prefix.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Elem {
    /// What it is.
    #[prost(oneof = "ElemValue", tags = "1, 2")]
    pub value: Option<ElemValue>,
}

/// What an element is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ElemValue {
    /// This segment.
    #[prost(bytes, tag = "1")]
    Label(Vec<u8>),
    /// `*`.
    #[prost(message, tag = "2")]
    Wildcard(Nothing),
}

/// A dtab with its version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionedDtab {
    /// The version.
    #[prost(message, optional, tag = "1")]
    pub version: Option<Version>,
    /// The dtab.
    #[prost(message, optional, tag = "2")]
    pub dtab: Option<Dtab>,
}

/// A version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Version {
    /// Opaque.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub id: Option<Vec<u8>>,
}

/// What Interpreter binds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BindReq {
    /// The namespace, as its only segment.
    #[prost(message, optional, tag = "1")]
    pub root: Option<Path>,
    /// What is to be bound.
    #[prost(message, optional, tag = "2")]
    pub name: Option<Path>,
    /// Rules behind the namespace's.
    #[prost(message, optional, tag = "3")]
    pub dtab: Option<Dtab>,
}

/// What it is bound to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundTreeRsp {
    /// The tree.
    #[prost(message, optional, tag = "1")]
    pub tree: Option<BoundNameTree>,
}

/// A bound tree.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundNameTree {
    /// What it is.
    #[prost(oneof = "bound_name_tree::Node", tags = "1, 2, 3, 4, 5, 6")]
    pub node: Option<bound_name_tree::Node>,
}

/// A bound name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundLeaf {
    /// The cluster's id.
    #[prost(message, optional, tag = "1")]
    pub id: Option<Path>,
    /// What the namer did not use up.
    #[prost(message, optional, tag = "2")]
    pub residual: Option<Path>,
}

/// Inside [`BoundNameTree`].
pub mod bound_name_tree {
    /// What a bound tree is.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Node {
        /// `~`.
        #[prost(message, tag = "1")]
        Neg(super::Nothing),
        /// `!`.
        #[prost(message, tag = "2")]
        Fail(super::Nothing),
        /// `$`.
        #[prost(message, tag = "3")]
        Empty(super::Nothing),
        /// Alternatives.
        #[prost(message, tag = "4")]
        Alt(Alt),
        /// Weighted branches.
        #[prost(message, tag = "5")]
        Union(Union),
        /// A bound name.
        #[prost(message, tag = "6")]
        Leaf(super::BoundLeaf),
    }

    /// Alternatives.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Alt {
        /// The first one first.
        #[prost(message, repeated, tag = "1")]
        pub trees: Vec<super::BoundNameTree>,
    }

    /// Weighted branches.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Union {
        /// All of them.
        #[prost(message, repeated, tag = "1")]
        pub trees: Vec<Weighted>,
    }

    /// A branch.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Weighted {
        /// Its share.
        #[prost(double, optional, tag = "1")]
        pub weight: Option<f64>,
        /// The branch itself.
        #[prost(message, optional, tag = "2")]
        pub tree: Option<super::BoundNameTree>,
    }
}

/// What Resolver resolves.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplicasReq {
    /// A bound name's id.
    #[prost(message, optional, tag = "1")]
    pub id: Option<Path>,
}

/// One endpoint.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Endpoint {
    /// 0 for IPv4, 1 for IPv6.
    #[prost(int32, optional, tag = "1")]
    pub inet_af: Option<i32>,
    /// Four or sixteen bytes.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub address: Option<Vec<u8>>,
    /// The port.
    #[prost(int32, optional, tag = "3")]
    pub port: Option<i32>,
    /// What else is known.
    #[prost(message, optional, tag = "4")]
    pub meta: Option<EndpointMeta>,
    /// The same and more, by name.
    #[prost(btree_map = "string, string", tag = "5")]
    pub metadata: BTreeMap<String, String>,
}

/// What is known of an endpoint.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndpointMeta {
    /// The node that it runs on.
    #[prost(string, optional, tag = "1")]
    pub node_name: Option<String>,
}

/// An address set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Replicas {
    /// Its state.
    #[prost(oneof = "replicas::Result", tags = "1, 2, 3, 4")]
    pub result: Option<replicas::Result>,
}

/// Inside [`Replicas`].
pub mod replicas {
    use std::collections::BTreeMap;

    /// An address set's state.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Result {
        /// Not known yet.
        #[prost(message, tag = "1")]
        Pending(super::Nothing),
        /// There is no such thing.
        #[prost(message, tag = "2")]
        Neg(super::Nothing),
        /// Not to be had.
        #[prost(message, tag = "3")]
        Failed(Failed),
        /// These.
        #[prost(message, tag = "4")]
        Bound(Bound),
    }

    /// Why not.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Failed {
        /// In words.
        #[prost(string, optional, tag = "1")]
        pub message: Option<String>,
    }

    /// Endpoints.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bound {
        /// All of them.
        #[prost(message, repeated, tag = "1")]
        pub endpoints: Vec<super::Endpoint>,
        /// Of the set.
        #[prost(btree_map = "string, string", tag = "2")]
        pub metadata: BTreeMap<String, String>,
    }
}

/// Which dtab.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DtabReq {
    /// The namespace, as its only segment.
    #[prost(message, optional, tag = "1")]
    pub root: Option<Path>,
}

/// A namespace's dtab.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DtabRsp {
    /// With its version.
    #[prost(message, optional, tag = "1")]
    pub dtab: Option<VersionedDtab>,
}

/// What is to be explained.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DelegateTreeReq {
    /// The namespace, as its only segment.
    #[prost(message, optional, tag = "1")]
    pub root: Option<Path>,
    /// Most often a single path.
    #[prost(message, optional, tag = "2")]
    pub tree: Option<PathNameTree>,
    /// Rules behind the namespace's.
    #[prost(message, optional, tag = "3")]
    pub dtab: Option<Dtab>,
}

/// The explanation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DelegateTreeRsp {
    /// The way.
    #[prost(message, optional, tag = "1")]
    pub tree: Option<BoundDelegateTree>,
}

/// A place on a name's way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundDelegateTree {
    /// What is looked up here.
    #[prost(message, optional, tag = "1")]
    pub path: Option<Path>,
    /// The rule that led here.
    #[prost(message, optional, tag = "2")]
    pub dentry: Option<Dentry>,
    /// What comes of it.
    #[prost(
        oneof = "bound_delegate_tree::Node",
        tags = "3, 4, 5, 6, 7, 8, 9, 10, 11"
    )]
    pub node: Option<bound_delegate_tree::Node>,
}

/// Inside [`BoundDelegateTree`].
pub mod bound_delegate_tree {
    /// What comes of a path.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Node {
        /// `~`.
        #[prost(message, tag = "3")]
        Neg(super::Nothing),
        /// `!`.
        #[prost(message, tag = "4")]
        Fail(super::Nothing),
        /// `$`.
        #[prost(message, tag = "5")]
        Empty(super::Nothing),
        /// Alternatives.
        #[prost(message, tag = "6")]
        Alt(Alt),
        /// Weighted branches.
        #[prost(message, tag = "7")]
        Union(Union),
        /// A bound name.
        #[prost(message, tag = "8")]
        Leaf(super::BoundLeaf),
        /// It leads on.
        #[prost(message, tag = "9")]
        Delegate(Box<super::BoundDelegateTree>),
        /// A transformer changed a bound name.
        #[prost(message, tag = "10")]
        Transformation(Box<Transformation>),
        /// An error ends it.
        #[prost(string, tag = "11")]
        Exception(String),
    }

    /// Alternatives.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Alt {
        /// The first one first.
        #[prost(message, repeated, tag = "1")]
        pub trees: Vec<super::BoundDelegateTree>,
    }

    /// Weighted branches.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Union {
        /// All of them.
        #[prost(message, repeated, tag = "1")]
        pub trees: Vec<Weighted>,
    }

    /// A branch.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Weighted {
        /// Its share.
        #[prost(double, optional, tag = "1")]
        pub weight: Option<f64>,
        /// The branch itself.
        #[prost(message, optional, tag = "2")]
        pub tree: Option<super::BoundDelegateTree>,
    }

    /// What a transformer did.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Transformation {
        /// Its kind.
        #[prost(string, optional, tag = "1")]
        pub name: Option<String>,
        /// What it got.
        #[prost(message, optional, tag = "2")]
        pub leaf: Option<super::BoundLeaf>,
        /// What it made of it.
        #[prost(message, optional, boxed, tag = "3")]
        pub tree: Option<Box<super::BoundDelegateTree>>,
    }
}

/// A text: a request of Codec's Read methods, an answer of its Show methods.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    /// The text.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// A dtab alone, in Codec's methods.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OneDtab {
    /// The dtab.
    #[prost(message, optional, tag = "1")]
    pub dtab: Option<Dtab>,
}

/// A path alone, in Codec's methods.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OnePath {
    /// The path.
    #[prost(message, optional, tag = "1")]
    pub path: Option<Path>,
}
