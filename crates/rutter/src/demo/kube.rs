//! A Kubernetes API on loopback, in memory, as `kubectl proxy` would show it: enough of GET, LIST and WATCH that the
//! namer, the transformers and `kubectl get` cannot tell the difference. The demo changes its objects as a controller would.
//!
//! [`Kube`] holds the objects and their history; [`serve`](Kube::serve) answers requests; [`workload`] makes the objects
//! of an application.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

pub mod serve;
pub mod workload;

/// Events that a watch can be taken up from; an older resourceVersion is answered 410, as by a real server after compaction.
const HISTORY: usize = 1_000;

/// The kinds there are: group and version, plural, kind, whether they live in namespaces.
const KINDS: [(&str, &str, &str, bool); 6] = [
    ("v1", "services", "Service", true),
    ("v1", "endpoints", "Endpoints", true),
    ("v1", "pods", "Pod", true),
    ("v1", "nodes", "Node", false),
    ("v1", "namespaces", "Namespace", false),
    (
        "discovery.k8s.io/v1",
        "endpointslices",
        "EndpointSlice",
        true,
    ),
];

/// A kind of objects, by its place in [`KINDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(usize);

impl Kind {
    /// Services.
    pub const SERVICE: Self = Self(0);
    /// Endpoints, the old form.
    pub const ENDPOINTS: Self = Self(1);
    /// Pods.
    pub const POD: Self = Self(2);
    /// Nodes.
    pub const NODE: Self = Self(3);
    /// Namespaces.
    pub const NAMESPACE: Self = Self(4);
    /// EndpointSlices.
    pub const SLICE: Self = Self(5);

    fn find(version: &str, plural: &str) -> Option<Self> {
        KINDS
            .iter()
            .position(|kind| kind.0 == version && kind.1 == plural)
            .map(Self)
    }

    fn api_version(self) -> &'static str {
        KINDS[self.0].0
    }

    fn plural(self) -> &'static str {
        KINDS[self.0].1
    }

    fn name(self) -> &'static str {
        KINDS[self.0].2
    }

    fn namespaced(self) -> bool {
        KINDS[self.0].3
    }
}

/// Kind, namespace (empty for kinds without), name.
type Key = (Kind, String, String);

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One step of the history.
#[derive(Debug, Clone)]
struct Event {
    version: u64,
    kind: Kind,
    change: Change,
    object: Arc<Value>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Event>,
    /// The last version that is no longer in the history.
    forgotten: u64,
}

/// The cluster's objects. Cheap to clone; all clones are one cluster.
#[derive(Debug, Clone)]
pub struct Kube {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Default for Kube {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Kube {
    /// Creates or replaces an object. Nothing happens when it is there with the same content.
    pub fn apply(&self, kind: Kind, mut object: Value) {
        let text = |field: &str| {
            object["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let key: Key = (kind, text("namespace"), text("name"));
        let mut state = self.lock();
        let version = state.version + 1;
        let before = state.objects.get(&key).cloned();
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.name());
        let uid = match &before {
            Some(before) => before["metadata"]["uid"].clone(),
            None => json!(format!("00000000-0000-4000-8000-{version:012}")),
        };
        object["metadata"]["uid"] = uid;
        if before
            .as_deref()
            .is_some_and(|before| same(before, &object))
        {
            return;
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let change = match before {
            Some(_) => Change::Modified,
            None => Change::Added,
        };
        let object = Arc::new(object);
        state.objects.insert(key, object.clone());
        self.publish(state, kind, change, object);
    }

    /// Deletes an object; false when there is none.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let mut state = self.lock();
        let key: Key = (kind, namespace.to_owned(), name.to_owned());
        let Some(object) = state.objects.remove(&key) else {
            return false;
        };
        let mut object = Value::clone(&object);
        object["metadata"]["resourceVersion"] = json!((state.version + 1).to_string());
        self.publish(state, kind, Change::Deleted, Arc::new(object));
        true
    }

    /// Forgets the history, as a real server does in time: watches that want an older version get 410.
    pub fn compact(&self) {
        let mut state = self.lock();
        state.forgotten = state.version;
        state.history.clear();
    }

    fn publish(
        &self,
        mut state: MutexGuard<'_, State>,
        kind: Kind,
        change: Change,
        object: Arc<Value>,
    ) {
        state.version += 1;
        let version = state.version;
        state.history.push_back(Event {
            version,
            kind,
            change,
            object,
        });
        if state.history.len() > HISTORY
            && let Some(oldest) = state.history.pop_front()
        {
            state.forgotten = oldest.version;
        }
        drop(state);
        self.changed.send_replace(version);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Equal but for the version.
fn same(before: &Value, after: &Value) -> bool {
    let mut before = before.clone();
    if let Some(meta) = before["metadata"].as_object_mut() {
        meta.shift_remove("resourceVersion");
    }
    before == *after
}

#[cfg(test)]
mod tests;
