//! Linkerd's JSON of a delegation.

use dtab::Path;
use serde_json::{Map, Value, json};

use super::{Delegation, Node, NodeKind, Rule};
use crate::bind::BindError;
use crate::{Addr, Bound};

/// As Linkerd words it in a delegation; [`BindError::TooDeep`] has Finagle's words, for binding.
const TOO_DEEP: &str = "Max recursion level reached.";

impl Delegation {
    /// As Linkerd's `/delegator.json` and namerd's `/api/1/delegate` answer.
    ///
    /// [`Delegation::failed`] and [`Delegation::pending`] come first: there is no such answer then.
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// The message that Linkerd's API fails with, see [`Delegation::failed`].
    pub fn failure(&self) -> Option<String> {
        self.failed().map(message)
    }
}

fn message(error: &BindError) -> String {
    match error {
        BindError::TooDeep => TOO_DEEP.to_owned(),
        other => other.to_string(),
    }
}

impl Node {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| _ = object.insert(key.to_owned(), value);
        put("type", json!(self.kind_name()));
        put("path", json!(self.shown_path()));
        if let Some(rule) = &self.rule {
            put("dentry", rule.to_json());
        }
        match &self.kind {
            NodeKind::Neg { .. } | NodeKind::Fail | NodeKind::Empty => {}
            NodeKind::Pending(waiting_for) => {
                put("message", json!(format!("waiting for {waiting_for}")));
            }
            NodeKind::Exception(error) => put("message", json!(message(error))),
            NodeKind::Delegate(next) => put("delegate", next.to_json()),
            NodeKind::Alt(branches) => put("alt", branches.iter().map(Self::to_json).collect()),
            NodeKind::Union(branches) => {
                let branches = branches.iter();
                let branch = |(weight, node): &(f64, Self)| json!({"weight": weight, "tree": node.to_json()});
                put("union", branches.map(branch).collect());
            }
            NodeKind::Leaf(bound, addr) => put("bound", bound_json(bound, addr.as_ref())),
            NodeKind::Transformation {
                name,
                before,
                addr,
                tree,
            } => {
                put("name", json!(name));
                put("bound", bound_json(before, addr.as_ref()));
                put("tree", tree.to_json());
            }
        }
        Value::Object(object)
    }

    const fn kind_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Neg { .. } => "neg",
            NodeKind::Fail => "fail",
            NodeKind::Empty => "empty",
            NodeKind::Pending(_) | NodeKind::Exception(_) => "exception",
            NodeKind::Delegate(_) => "delegate",
            NodeKind::Alt(_) => "alt",
            NodeKind::Union(_) => "union",
            NodeKind::Leaf(..) => "leaf",
            NodeKind::Transformation { .. } => "transformation",
        }
    }

    /// Linkerd prints some ends by their sign.
    fn shown_path(&self) -> String {
        match &self.kind {
            NodeKind::Neg { .. } if self.path.is_empty() => "~".to_owned(),
            NodeKind::Fail if !self.path.starts_with(&Path::utf8(["$", "fail"])) => "!".to_owned(),
            _ => self.path.to_string(),
        }
    }
}

impl Rule {
    fn to_json(&self) -> Value {
        json!({"prefix": self.prefix.to_string(), "dst": self.dst.to_string()})
    }
}

fn bound_json(bound: &Bound, addr: Option<&Addr>) -> Value {
    // A local service has no address set; Linkerd shows an empty one.
    let addr = addr.map_or_else(|| Addr::bound([]).to_json(), Addr::to_json);
    json!({"addr": addr, "id": bound.id.to_string(), "path": bound.residual.to_string()})
}
