//! `io.l5d.consul`: dtabs in Consul's KV store.
//!
//! A namespace is the key `PREFIX/NAMESPACE`, as in Linkerd; its value is the dtab, with our record of the version as a comment
//! behind it. Past versions are `PREFIX.history/NAMESPACE/NUMBER`. A write names the index of the change that it replaces
//! (`cas`). One blocking query at a time follows all keys.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::remote::{
    Backend, Item, Meta, Past, Place, Remote, Told, Trouble, namespace, node_name, open_text,
    seal_text,
};
use super::{Namespace, Refused, Store, base64};

mod http_api;

use http_api::{Answer, Api};

/// How long a query may block; Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);
/// How long another question may take.
const PLAIN: Duration = Duration::from_secs(3);
/// Between two answers: a busy store is asked that often and no more.
const LEAST: Duration = Duration::from_millis(20);
/// What a value may have, unless Consul is configured otherwise (`kv_max_value_size`).
const LARGEST: usize = 512 << 10;
/// All but letters, digits and these is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// How consistent Consul's answers are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What Consul does unasked: for a moment after its leader has changed, an old answer may come.
    #[default]
    Default,
    /// Any server may answer, with what it knows.
    Stale,
    /// The leader asks the others first.
    Consistent,
}

/// Where dtabs are in Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulStoreConfig {
    /// An agent's name or address.
    pub host: String,
    /// The port of its HTTP API.
    pub port: u16,
    /// What keys begin with, with neither a slash at its beginning nor at its end.
    pub path_prefix: String,
    /// Sent as `X-Consul-Token`.
    pub token: Option<String>,
    /// That of the agent, when none is given.
    pub datacenter: Option<String>,
    /// Of the watch; single questions are never answered by what is stale.
    pub consistency: Consistency,
}

/// A store in Consul, which follows it on `control`.
#[must_use]
pub fn open(config: ConsulStoreConfig, control: &Handle) -> Arc<dyn Store> {
    let api = Api::new(&config);
    Arc::new(Remote::new(Consul { config, api }, control))
}

struct Consul {
    config: ConsulStoreConfig,
    api: Api,
}

/// A key in an answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    /// In base64; null when it is empty.
    value: Option<String>,
    modify_index: u64,
}

impl Consul {
    /// A key's resource; `query` begins with a `&`, or is empty.
    fn uri(&self, segments: &[&str], query: &str) -> String {
        let prefix = self
            .config
            .path_prefix
            .split('/')
            .map(|one| utf8_percent_encode(one, SEGMENT).to_string());
        let below = segments
            .iter()
            .map(|one| utf8_percent_encode(one, SEGMENT).to_string());
        let path: Vec<_> = prefix.chain(below).collect();
        format!("/v1/kv/{}?{}{query}", path.join("/"), self.dc())
    }

    fn past_uri(&self, namespace: &Namespace, number: &str, query: &str) -> String {
        let history = format!("{}.history", self.config.path_prefix);
        let name = node_name(namespace);
        let all = history.split('/').chain([&*name, number]);
        let path: Vec<_> = all
            .map(|one| utf8_percent_encode(one, SEGMENT).to_string())
            .collect();
        format!("/v1/kv/{}?{}{query}", path.join("/"), self.dc())
    }

    fn dc(&self) -> String {
        match &self.config.datacenter {
            Some(dc) => format!("dc={}", utf8_percent_encode(dc, SEGMENT)),
            None => String::new(),
        }
    }

    /// Of single questions: those of a write must not be answered with what is old.
    const fn fresh(&self) -> &'static str {
        match self.config.consistency {
            Consistency::Default => "&",
            Consistency::Stale | Consistency::Consistent => "&consistent",
        }
    }

    async fn call(
        &self,
        method: Method,
        uri: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, Trouble> {
        let answer = self.api.call(method, uri, body, limit).await;
        let answer = answer.map_err(|why| self.unanswered(&why))?;
        let said = || {
            format!(
                "{}: it answers {}: {}",
                self.place(),
                answer.status,
                answer.text()
            )
        };
        match answer.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(answer),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Err(Trouble::Refused(
                Refused::Forbidden,
                format!(
                    "{}; `token` needs `key:write` on {} and {}.history",
                    said(),
                    self.config.path_prefix,
                    self.config.path_prefix
                ),
            )),
            StatusCode::PAYLOAD_TOO_LARGE => Err(Trouble::Refused(Refused::TooLarge, said())),
            _ => Err(Trouble::Unanswered(said())),
        }
    }

    async fn entries(
        &self,
        uri: &str,
        limit: Duration,
    ) -> Result<(Vec<Entry>, Option<u64>), Trouble> {
        let answer = self.call(Method::GET, uri, Vec::new(), limit).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok((Vec::new(), answer.index));
        }
        let entries = serde_json::from_slice(&answer.body);
        let entries = entries
            .map_err(|error| self.unanswered(&format!("its answer cannot be read: {error}")))?;
        Ok((entries, answer.index))
    }

    /// Whether a condition held.
    async fn held(&self, method: Method, uri: &str, body: Vec<u8>) -> Result<bool, Trouble> {
        let answer = self.call(method, uri, body, PLAIN).await?;
        match answer.text().trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(self.unanswered(&format!("neither true nor false: {other}"))),
        }
    }

    fn unanswered(&self, why: &str) -> Trouble {
        Trouble::Unanswered(format!("{}: {why}", self.place()))
    }

    fn item(&self, entry: &Entry) -> Option<(Namespace, Item<u64>)> {
        let name = entry
            .key
            .strip_prefix(&self.config.path_prefix)?
            .strip_prefix('/')?;
        let value = decoded(entry.value.as_deref().unwrap_or_default())?;
        let sealed = String::from_utf8_lossy(&value);
        let (text, meta, at_least) = open_text(&sealed);
        let item = Item {
            place: place(entry.modify_index),
            held: entry.modify_index,
            text,
            meta,
            at_least,
            outside: None,
        };
        Some((namespace(name)?, item))
    }

    async fn query(&self, told: &Told<'_, Self>) -> Result<std::convert::Infallible, Trouble> {
        let mode = match self.config.consistency {
            Consistency::Default => "",
            Consistency::Stale => "&stale",
            Consistency::Consistent => "&consistent",
        };
        let mut index = 0;
        loop {
            let (newest, began) = (told.newest(), Instant::now());
            // 0 does not block.
            let blocks = match index {
                0 => String::new(),
                _ => format!("&index={index}&wait={}s", WAIT.as_secs()),
            };
            let limit = if index == 0 { PLAIN } else { WAIT + WAIT / 8 };
            // The slash of the empty name: other keys may begin as the prefix does.
            let uri = self.uri(&[""], &format!("&recurse{mode}{blocks}"));
            let (entries, now) = self.entries(&uri, limit).await?;
            let now = now.ok_or_else(|| {
                self.unanswered("its answer has no X-Consul-Index: is it Consul?")
            })?;
            if index != 0 && now == index {
                told.well();
                // A server that does not block is not asked in a circle.
                let rest = Duration::from_secs(1).saturating_sub(began.elapsed());
                tokio::time::sleep(rest).await;
                continue;
            }
            let items = entries
                .iter()
                .filter_map(|entry| self.item(entry))
                .collect();
            told.whole(newest, now, items).await;
            // As Consul's documentation wants it when the index goes backwards.
            index = if now < index { 0 } else { now.max(1) };
            tokio::time::sleep(LEAST).await;
        }
    }
}

fn place(index: u64) -> Place {
    Place {
        order: index,
        // As Linkerd's: the index's digits.
        version: base64(index.to_string().as_bytes()).into(),
    }
}

/// Out of base64; none for what is not.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for four in digits.as_bytes().chunks(4) {
        let mut wide = 0_u32;
        for at in 0..4 {
            let digit = match four.get(at) {
                None => 0,
                Some(c @ b'A'..=b'Z') => c - b'A',
                Some(c @ b'a'..=b'z') => c - b'a' + 26,
                Some(c @ b'0'..=b'9') => c - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
            };
            wide = wide << 6 | u32::from(digit);
        }
        if four.len() == 1 {
            return None;
        }
        bytes.extend_from_slice(&wide.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

impl Backend for Consul {
    /// The index of the last change.
    type Held = u64;

    fn kind(&self) -> &'static str {
        "io.l5d.consul"
    }

    fn place(&self) -> String {
        format!("Consul at {}", self.api.host())
    }

    fn fits(&self, _: &Namespace) -> Result<(), String> {
        Ok(())
    }

    async fn read(&self, namespace: &Namespace) -> Result<Option<Item<u64>>, Trouble> {
        let uri = self.uri(&[&node_name(namespace)], self.fresh());
        let (entries, _) = self.entries(&uri, PLAIN).await?;
        Ok(entries
            .first()
            .and_then(|entry| self.item(entry))
            .map(|(_, item)| item))
    }

    async fn write(
        &self,
        namespace: &Namespace,
        text: &str,
        meta: &Meta,
        before: Option<&u64>,
    ) -> Result<Option<Place>, Trouble> {
        let value = seal_text(text, meta);
        check_size(value.len())?;
        let uri = self.uri(
            &[&node_name(namespace)],
            &format!("&cas={}", before.unwrap_or(&0)),
        );
        if !self.held(Method::PUT, &uri, value.into()).await? {
            return Ok(None);
        }
        // It does not say which index that has.
        match self.read(namespace).await? {
            Some(item) if item.meta.as_ref().is_some_and(|found| found.id == meta.id) => {
                Ok(Some(item.place))
            }
            _ => Err(self.unanswered("what was written is replaced already")),
        }
    }

    async fn delete(&self, namespace: &Namespace, before: &u64) -> Result<Option<u64>, Trouble> {
        let uri = self.uri(&[&node_name(namespace)], &format!("&cas={before}"));
        // What it answers does not say where the deletion stands.
        let done = self.held(Method::DELETE, &uri, Vec::new()).await?;
        Ok(done.then_some(*before))
    }

    async fn archive(&self, namespace: &Namespace, past: &Past) -> Result<(), Trouble> {
        let value = serde_json::to_vec(past).expect("texts and numbers are JSON");
        let uri = self.past_uri(namespace, &format!("{:020}", past.number), "");
        self.held(Method::PUT, &uri, value).await.map(|_| ())
    }

    async fn archived(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Past>, Trouble> {
        let uri = self.past_uri(namespace, "", &format!("&keys{}", self.fresh()));
        let answer = self.call(Method::GET, &uri, Vec::new(), PLAIN).await?;
        let keys: Vec<String> = match answer.status {
            StatusCode::NOT_FOUND => Vec::new(),
            _ => serde_json::from_slice(&answer.body)
                .map_err(|error| self.unanswered(&format!("its answer cannot be read: {error}")))?,
        };
        let number = |key: &String| {
            key.rsplit('/')
                .next()
                .and_then(|number| number.parse::<u64>().ok())
        };
        let mut numbers: Vec<_> = keys.iter().filter_map(number).collect();
        numbers.retain(|number| before.is_none_or(|before| *number < before));
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut all = Vec::new();
        for number in numbers {
            if all.len() == limit {
                break;
            }
            let uri = self.past_uri(namespace, &format!("{number:020}"), self.fresh());
            let (entries, _) = self.entries(&uri, PLAIN).await?;
            let value = entries
                .first()
                .and_then(|entry| decoded(entry.value.as_deref()?));
            all.extend(value.and_then(|value| serde_json::from_slice::<Past>(&value).ok()));
        }
        Ok(all)
    }

    async fn forget(&self, namespace: &Namespace, number: u64) -> Result<(), Trouble> {
        let uri = self.past_uri(namespace, &format!("{number:020}"), "");
        self.held(Method::DELETE, &uri, Vec::new())
            .await
            .map(|_| ())
    }

    async fn follow(&self, told: &Told<'_, Self>) -> Trouble {
        match self.query(told).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }
}

fn check_size(bytes: usize) -> Result<(), Trouble> {
    // What becomes a past version is a little longer.
    match bytes > LARGEST - 4096 {
        true => Err(Trouble::Refused(
            Refused::TooLarge,
            format!("the dtab has {bytes} bytes, and Consul takes {LARGEST} for a key"),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
