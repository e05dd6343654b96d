//! `io.l5d.zk`: dtabs in ZooKeeper.
//!
//! A namespace is the node `PREFIX/NAMESPACE`, as in Linkerd; it holds the dtab, with our record of the version as a comment
//! behind it. Past versions are `PREFIX.history/NAMESPACE/NUMBER`. A write names the version of the node that it replaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use naming::namers::zookeeper::client::{ClientConfig, Followed, Node, NodeError, Stat, ZkClient};
use tokio::runtime::Handle;

use super::remote::{
    Backend, Item, Meta, Past, Place, Remote, Told, Trouble, namespace, node_name, open_text,
    seal_text,
};
use super::{Namespace, Refused, Store, base64};

/// Changes that come so soon after another are read together.
const GATHER: Duration = Duration::from_millis(20);

/// Where dtabs are in ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZkStoreConfig {
    /// Its servers, who we are there, and who may do what with what we make.
    pub client: ClientConfig,
    /// The node above all, without a slash at its end.
    pub path_prefix: String,
}

/// A store in ZooKeeper, which follows it on `control`.
#[must_use]
pub fn open(config: ZkStoreConfig, control: &Handle) -> Arc<dyn Store> {
    let servers = config
        .client
        .servers
        .iter()
        .map(|(host, port)| format!("{host}:{port}"));
    let servers = servers.collect::<Vec<_>>().join(", ");
    let backend = ZooKeeper {
        client: ZkClient::new(config.client, control),
        prefix: config.path_prefix,
        servers,
    };
    Arc::new(Remote::new(backend, control))
}

struct ZooKeeper {
    client: ZkClient,
    prefix: String,
    servers: String,
}

impl ZooKeeper {
    fn head(&self, namespace: &Namespace) -> String {
        format!("{}/{}", self.prefix, node_name(namespace))
    }

    fn history(&self, namespace: &Namespace) -> String {
        format!("{}.history/{}", self.prefix, node_name(namespace))
    }

    async fn watch_all(&self, told: &Told<'_, Self>) -> Result<std::convert::Infallible, Trouble> {
        let mut followed = self.client.follow().await?;
        self.client.create(&self.prefix, b"").await?;
        let mut first = true;
        let mut due = Due::all();
        loop {
            if due.list {
                self.list(told, &followed, &mut first, &mut due).await?;
            }
            for name in std::mem::take(&mut due.nodes) {
                let path = format!("{}/{name}", self.prefix);
                match self.client.watch(&followed, &path).await? {
                    Some(node) => {
                        if let Some((name, item)) = item(&name, node) {
                            told.came(name, item).await;
                        }
                    }
                    // The watch on the children tells of that.
                    None => due.list = true,
                }
            }
            if due.list {
                continue;
            }
            told.well();
            self.wait(&mut followed, &mut due).await?;
        }
    }

    /// Reads which nodes there are, and the first time what is in them.
    async fn list(
        &self,
        told: &Told<'_, Self>,
        followed: &Followed,
        first: &mut bool,
        due: &mut Due,
    ) -> Result<(), Trouble> {
        let newest = told.newest();
        let listed = self.client.watch_children(followed, &self.prefix).await?;
        let (names, stat) = listed.ok_or_else(|| self.unanswered("its node is gone"))?;
        due.list = false;
        let mut items = Vec::new();
        for name in &names {
            // What was read before and is not due has its watch still.
            if !*first && due.known.contains_key(name) && !due.nodes.contains(name) {
                continue;
            }
            due.nodes.remove(name);
            let path = format!("{}/{name}", self.prefix);
            match self.client.watch(followed, &path).await? {
                Some(node) => {
                    due.known.insert(name.clone(), node.1.changed);
                    items.extend(item(name, node));
                }
                None => due.list = true,
            }
        }
        let gone: Vec<_> = due
            .known
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        if std::mem::take(first) {
            // As of the last time that a node was made or deleted: what was deleted up to then is gone.
            let order = items.iter().map(|(_, item)| item.place.order).max();
            told.whole(newest, order.unwrap_or(0).max(stat.children), items)
                .await;
        } else {
            for (name, item) in items {
                told.came(name, item).await;
            }
            for name in &gone {
                if let Some(namespace) = namespace(name) {
                    told.gone(&namespace, stat.children).await;
                }
            }
        }
        for name in gone {
            due.known.remove(&name);
        }
        Ok(())
    }

    async fn wait(&self, followed: &mut Followed, due: &mut Due) -> Result<(), Trouble> {
        let lost = || self.unanswered("the connection broke");
        let mut paths = followed.changed().await.ok_or_else(lost)?;
        tokio::time::sleep(GATHER).await;
        loop {
            for path in paths {
                match path
                    .strip_prefix(&self.prefix)
                    .and_then(|below| below.strip_prefix('/'))
                {
                    Some(name) => _ = due.nodes.insert(name.to_owned()),
                    None => due.list = true,
                }
            }
            match followed.changed_already() {
                Some(more) => paths = more,
                None => return Ok(()),
            }
        }
    }

    fn unanswered(&self, why: &str) -> Trouble {
        Trouble::Unanswered(format!("ZooKeeper at {}: {why}", self.servers))
    }
}

/// What has to be read.
struct Due {
    list: bool,
    nodes: BTreeSet<String>,
    /// Nodes that are watched.
    known: BTreeMap<String, u64>,
}

impl Due {
    const fn all() -> Self {
        Self {
            list: true,
            nodes: BTreeSet::new(),
            known: BTreeMap::new(),
        }
    }
}

fn item(name: &str, (data, stat): Node) -> Option<(Namespace, Item<i32>)> {
    let sealed = String::from_utf8_lossy(&data);
    let (text, meta, at_least) = open_text(&sealed);
    let item = Item {
        place: place(stat),
        held: stat.version,
        text,
        meta,
        at_least,
        outside: None,
    };
    Some((namespace(name)?, item))
}

fn place(stat: Stat) -> Place {
    Place {
        order: stat.changed,
        // Linkerd's is the node's own version, which begins anew when a node is made again: this never comes back.
        version: base64(&stat.changed.to_be_bytes()).into(),
    }
}

impl From<NodeError> for Trouble {
    fn from(error: NodeError) -> Self {
        let text = error.to_string();
        match error {
            NodeError::Unanswered(_) => Self::Unanswered(text),
            NodeError::Forbidden(_) => Self::Refused(Refused::Forbidden, text),
            NodeError::TooLarge(_) => Self::Refused(Refused::TooLarge, text),
        }
    }
}

impl Backend for ZooKeeper {
    /// The node's version.
    type Held = i32;

    fn kind(&self) -> &'static str {
        "io.l5d.zk"
    }

    fn place(&self) -> String {
        format!("ZooKeeper at {}", self.servers)
    }

    fn fits(&self, _: &Namespace) -> Result<(), String> {
        Ok(())
    }

    async fn read(&self, namespace: &Namespace) -> Result<Option<Item<i32>>, Trouble> {
        let node = self.client.read(&self.head(namespace)).await?;
        let name = node_name(namespace);
        Ok(node
            .and_then(|node| item(&name, node))
            .map(|(_, item)| item))
    }

    async fn write(
        &self,
        namespace: &Namespace,
        text: &str,
        meta: &Meta,
        before: Option<&i32>,
    ) -> Result<Option<Place>, Trouble> {
        let (path, data) = (self.head(namespace), seal_text(text, meta));
        let done = match before {
            None => self.client.create(&path, data.as_bytes()).await?,
            Some(version) => self.client.set(&path, data.as_bytes(), *version).await?,
        };
        Ok(done.map(place))
    }

    async fn delete(&self, namespace: &Namespace, before: &i32) -> Result<Option<u64>, Trouble> {
        let path = self.head(namespace);
        let Some((_, stat)) = self.client.read(&path).await? else {
            return Ok(None);
        };
        let done = stat.version == *before && self.client.delete(&path, *before).await?;
        // It does not say where the deletion stands.
        Ok(done.then_some(stat.changed))
    }

    async fn archive(&self, namespace: &Namespace, past: &Past) -> Result<(), Trouble> {
        let path = format!("{}/{}", self.history(namespace), past.number);
        let data = serde_json::to_vec(past).expect("texts and numbers are JSON");
        if self.client.create(&path, &data).await?.is_none() {
            self.client.set(&path, &data, -1).await?;
        }
        Ok(())
    }

    async fn archived(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Past>, Trouble> {
        let path = self.history(namespace);
        let names = self.client.children(&path).await?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.retain(|number| before.is_none_or(|before| *number < before));
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut all = Vec::new();
        for number in numbers {
            if all.len() == limit {
                break;
            }
            // Some may be gone by now.
            if let Some((data, _)) = self.client.read(&format!("{path}/{number}")).await? {
                all.extend(serde_json::from_slice::<Past>(&data).ok());
            }
        }
        Ok(all)
    }

    async fn forget(&self, namespace: &Namespace, number: u64) -> Result<(), Trouble> {
        let path = format!("{}/{number}", self.history(namespace));
        self.client.delete(&path, -1).await?;
        Ok(())
    }

    async fn follow(&self, told: &Told<'_, Self>) -> Trouble {
        match self.watch_all(told).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }
}

#[cfg(test)]
mod tests;
