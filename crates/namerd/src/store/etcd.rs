//! `io.l5d.etcd`: dtabs in etcd, version 3.
//!
//! A namespace is the key `PREFIX/NAMESPACE`, whose value is the dtab with our record of the version as a comment behind it: it
//! can be read and changed with `etcdctl`. Past versions are `PREFIX.history/NAMESPACE/NUMBER`. Every write is a transaction that
//! compares the key's revision.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

use super::remote::{
    Backend, Item, Meta, Past, Place, Remote, Told, Trouble, open_text, seal_text,
};
use super::{Namespace, Store, base64};

mod client;
mod messages;

use client::Client;
use messages::*;

/// How many dtabs a page of a list has.
const PAGE: i64 = 100;
/// How often a watch is asked how far it is; one that says nothing for three times as long is lost.
const PROGRESS: Duration = Duration::from_secs(3);
const KV_RANGE: &str = "/etcdserverpb.KV/Range";
const KV_TXN: &str = "/etcdserverpb.KV/Txn";
const KV_PUT: &str = "/etcdserverpb.KV/Put";
const KV_DELETE: &str = "/etcdserverpb.KV/DeleteRange";

/// Where dtabs are in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Its members, each `host:port`; at least one.
    pub members: Vec<String>,
    /// What all keys begin with, without a slash at its end.
    pub path_prefix: String,
}

/// A store in etcd, which follows it on `control`.
///
/// # Errors
/// When a member's address is none.
pub fn open(config: EtcdConfig, control: &Handle) -> Result<Arc<dyn Store>, String> {
    let client = {
        let _within = control.enter();
        Client::new(&config.members)?
    };
    Ok(Arc::new(Remote::new(Etcd { config, client }, control)))
}

struct Etcd {
    config: EtcdConfig,
    client: Client,
}

impl Etcd {
    fn heads(&self) -> String {
        format!("{}/", self.config.path_prefix)
    }

    fn head(&self, namespace: &Namespace) -> Vec<u8> {
        format!("{}/{namespace}", self.config.path_prefix).into()
    }

    /// The history of a namespace from that number on: as many digits for each, so that keys are sorted as numbers are.
    fn past(&self, namespace: &Namespace, number: u64) -> Vec<u8> {
        format!(
            "{}.history/{namespace}/{number:020}",
            self.config.path_prefix
        )
        .into()
    }

    /// One transaction on a key that is as it was, when it was changed last in that revision.
    async fn swap(&self, key: Vec<u8>, before: i64, then: Request) -> Result<Option<i64>, Trouble> {
        let compare = Compare {
            result: 0,
            target: 2,
            key,
            value: Some(Target::ModRevision(before)),
        };
        let transaction = Transaction {
            compare: vec![compare],
            success: vec![Operation {
                request: Some(then),
            }],
        };
        let done: Transacted = self.client.call(KV_TXN, &transaction).await?;
        let revision = done.header.map_or(0, |header| header.revision);
        Ok(done.succeeded.then_some(revision))
    }

    fn item(&self, kv: &KeyValue) -> Option<(Namespace, Item<i64>)> {
        let key = std::str::from_utf8(&kv.key).ok()?;
        let name = Namespace::new(key.strip_prefix(&self.heads())?).ok()?;
        let sealed = String::from_utf8_lossy(&kv.value);
        let (text, meta, at_least) = open_text(&sealed);
        let item = Item {
            place: place(kv.mod_revision),
            held: kv.mod_revision,
            text,
            meta,
            at_least,
            outside: None,
        };
        Some((name, item))
    }

    async fn list(&self) -> Result<(i64, Vec<KeyValue>), Trouble> {
        let (mut all, mut revision) = (Vec::new(), 0);
        let mut key: Vec<u8> = self.heads().into();
        loop {
            let range = Range {
                key: key.clone(),
                range_end: end(self.heads().into()),
                limit: PAGE,
                revision,
                sort_order: 0,
            };
            let page: Ranged = self.client.call(KV_RANGE, &range).await?;
            // All pages are of the moment of the first.
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            if let Some(last) = page.kvs.last() {
                key = [&last.key[..], &[0]].concat();
            }
            all.extend(page.kvs);
            if !page.more {
                return Ok((revision, all));
            }
        }
    }

    async fn list_and_watch(
        &self,
        told: &Told<'_, Self>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let newest = told.newest();
        let (revision, listed) = self.list().await?;
        let items = listed.iter().filter_map(|kv| self.item(kv)).collect();
        told.whole(newest, order(revision), items).await;

        let (ask, asked) = mpsc::channel(4);
        let create = WatchCreate {
            key: self.heads().into(),
            range_end: end(self.heads().into()),
            start_revision: revision + 1,
        };
        let create = WatchAsked::Create(create);
        _ = ask
            .send(WatchRequest {
                asked: Some(create),
            })
            .await;
        let requests = futures_util::stream::unfold(asked, |mut asked| async {
            asked.recv().await.map(|request| (request, asked))
        });
        let (member, mut watch) = self.client.watch(requests).await?;
        let (mut heard, mut tick) = (Instant::now(), interval(PROGRESS));
        let lost = |why: &str| Trouble::Unanswered(format!("etcd at {member}: {why}"));
        loop {
            let response = tokio::select! {
                response = watch.message() => response,
                _ = tick.tick() => {
                    if heard.elapsed() > 3 * PROGRESS {
                        return Err(lost("its watch is silent"));
                    }
                    let progress = WatchAsked::Progress(WatchProgress {});
                    _ = ask.try_send(WatchRequest { asked: Some(progress) });
                    continue;
                }
            };
            let response = response.map_err(|status| client::judge(member, &status))?;
            let response = response.ok_or_else(|| lost("it ends the watch"))?;
            heard = Instant::now();
            if response.canceled && response.compact_revision > 0 {
                return Err(lost(
                    "what we have is compacted away: everything is read anew",
                ));
            }
            if response.canceled {
                return Err(lost(&response.cancel_reason));
            }
            for event in response.events {
                let Some(kv) = event.kv else { continue };
                let deleted = event.kind == 1;
                match self.item(&kv) {
                    Some((name, _)) if deleted => told.gone(&name, order(kv.mod_revision)).await,
                    Some((name, item)) => told.came(name, item).await,
                    None => {}
                }
            }
            told.well();
        }
    }
}

/// The first key that does not begin so.
fn end(mut prefix: Vec<u8>) -> Vec<u8> {
    // A prefix ends with a slash, which is not the last of all bytes.
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

fn order(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn place(revision: i64) -> Place {
    Place {
        order: order(revision),
        // As Linkerd's: the revision's digits.
        version: base64(revision.to_string().as_bytes()).into(),
    }
}

impl Backend for Etcd {
    /// The revision of the last change.
    type Held = i64;

    fn kind(&self) -> &'static str {
        "io.l5d.etcd"
    }

    fn place(&self) -> String {
        format!("etcd at {}", self.config.members.join(", "))
    }

    fn fits(&self, _: &Namespace) -> Result<(), String> {
        Ok(())
    }

    async fn read(&self, namespace: &Namespace) -> Result<Option<Item<i64>>, Trouble> {
        // A member asks the leader first, unless it is told not to: nothing that was answered is missed.
        let range = Range {
            key: self.head(namespace),
            ..Range::default()
        };
        let found: Ranged = self.client.call(KV_RANGE, &range).await?;
        Ok(found
            .kvs
            .first()
            .and_then(|kv| self.item(kv))
            .map(|(_, item)| item))
    }

    async fn write(
        &self,
        namespace: &Namespace,
        text: &str,
        meta: &Meta,
        before: Option<&i64>,
    ) -> Result<Option<Place>, Trouble> {
        let key = self.head(namespace);
        let put = Put {
            key: key.clone(),
            value: seal_text(text, meta).into(),
        };
        let before = before.copied().unwrap_or(0);
        let done = self.swap(key, before, Request::Put(put)).await?;
        Ok(done.map(place))
    }

    async fn delete(&self, namespace: &Namespace, before: &i64) -> Result<Option<u64>, Trouble> {
        let key = self.head(namespace);
        let delete = Request::Delete(Delete { key: key.clone() });
        Ok(self.swap(key, *before, delete).await?.map(order))
    }

    async fn archive(&self, namespace: &Namespace, past: &Past) -> Result<(), Trouble> {
        let put = Put {
            key: self.past(namespace, past.number),
            value: serde_json::to_vec(past).expect("texts and numbers are JSON"),
        };
        let _: Answered = self.client.call(KV_PUT, &put).await?;
        Ok(())
    }

    async fn archived(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Past>, Trouble> {
        let range = Range {
            key: self.past(namespace, 0),
            range_end: self.past(namespace, before.unwrap_or(u64::MAX)),
            // 0 would be all.
            limit: i64::try_from(limit).unwrap_or(i64::MAX).max(1),
            revision: 0,
            sort_order: 2,
        };
        let found: Ranged = self.client.call(KV_RANGE, &range).await?;
        let past = found.kvs.iter().take(limit);
        Ok(past
            .filter_map(|kv| serde_json::from_slice(&kv.value).ok())
            .collect())
    }

    async fn forget(&self, namespace: &Namespace, number: u64) -> Result<(), Trouble> {
        let key = self.past(namespace, number);
        let _: Answered = self.client.call(KV_DELETE, &Delete { key }).await?;
        Ok(())
    }

    async fn follow(&self, told: &Told<'_, Self>) -> Trouble {
        let ended = match self.list_and_watch(told).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        };
        self.client.turn_away();
        ended
    }
}

#[cfg(test)]
mod replicas;
#[cfg(test)]
mod tests;
