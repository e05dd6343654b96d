//! What the nodes of a group say, and which places come of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtab::Path;
use serde::Deserialize;
use tracing::warn;

use super::ZkKind;
use crate::namers::followed::{Answer, Place};

/// What the nodes of a serverset are called, with a number behind it.
const MEMBER: &str = "member_";
/// As many digits has the number that ZooKeeper gives.
const DIGITS: usize = 10;

/// A group of nodes that a path asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    kind: ZkKind,
    /// Its place in ZooKeeper.
    pub(super) node: String,
    /// Which of its members' additional endpoints; none: the one of the service.
    endpoint: Option<String>,
    /// Only members of this shard.
    shard: Option<i64>,
}

/// A serverset's member as Twitter's library writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    service_endpoint: Option<HostPort>,
    #[serde(default)]
    additional_endpoints: BTreeMap<String, HostPort>,
    status: Option<String>,
    shard: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
struct HostPort {
    host: String,
    port: u16,
}

impl Group {
    /// What `path` asks for; none when ZooKeeper can have no such node.
    pub(super) fn of(kind: ZkKind, path: &Path) -> Option<Self> {
        let mut node = String::new();
        for segment in path.segments() {
            let text = segment.as_str()?;
            if matches!(text, "." | "..") || text.contains(['/', '\0']) {
                return None;
            }
            node.push('/');
            node.push_str(text);
        }
        let (mut endpoint, mut shard) = (None, None);
        if kind == ZkKind::Serverset {
            if let Some((rest, number)) = node.rsplit_once('#')
                && let Ok(number) = number.parse()
            {
                shard = Some(number);
                node.truncate(rest.len());
            }
            let last = node.rfind('/')? + 1;
            if let Some(colon) = node[last..].find(':') {
                endpoint = Some(node.split_off(last + colon)[1..].to_owned());
            }
        }
        (!node.is_empty() && !node.ends_with('/')).then_some(Self {
            kind,
            node,
            endpoint,
            shard,
        })
    }

    /// Which of the nodes below it are to be read.
    pub(super) fn wanted(&self, children: Vec<String>) -> Vec<String> {
        match self.kind {
            ZkKind::Serverset => {
                let members = children.into_iter();
                members.filter(|name| name.starts_with(MEMBER)).collect()
            }
            // The others' contents do not matter.
            ZkKind::Leader => {
                let numbered = children.into_iter();
                let numbered = numbered.filter_map(|name| Some((sequence(&name)?, name)));
                numbered.min().map(|(_, name)| name).into_iter().collect()
            }
        }
    }

    /// What the contents of the wanted nodes come to.
    pub(super) fn answer(&self, members: &BTreeMap<String, Member>) -> Answer {
        let mut places = Vec::with_capacity(members.len());
        for member in members.values() {
            match member {
                Member::Place(place) => places.push(place.clone()),
                Member::NotServing => {}
                // One of many is left out; who leads is the only one.
                Member::Unreadable(problem) if self.kind == ZkKind::Leader => {
                    return Answer::Failed(problem.clone());
                }
                Member::Unreadable(_) => {}
            }
        }
        match places.is_empty() {
            true => Answer::Nothing,
            false => Answer::Places(places),
        }
    }

    /// What a member's node says.
    pub(super) fn read(&self, name: &str, contents: &[u8]) -> Member {
        let read = match self.kind {
            ZkKind::Serverset => self.serving(contents),
            ZkKind::Leader => leading(contents).map(Some),
        };
        match read {
            Ok(Some(HostPort { host, port })) => Member::Place(Place {
                host: host.into(),
                port,
                weight: 1.0,
                authority: None,
            }),
            Ok(None) => Member::NotServing,
            Err(problem) => {
                let problem = format!("ZooKeeper's {}/{name} cannot be read: {problem}", self.node);
                warn!(%problem, "a member is left out");
                Member::Unreadable(problem.into())
            }
        }
    }

    /// Where a serverset's member serves what is asked for; none when it does not.
    fn serving(&self, contents: &[u8]) -> Result<Option<HostPort>, String> {
        let written: Written =
            serde_json::from_slice(contents).map_err(|error| error.to_string())?;
        let alive = written.status.as_deref() == Some("ALIVE");
        if !alive || self.shard.is_some() && self.shard != written.shard {
            return Ok(None);
        }
        let served = match &self.endpoint {
            Some(name) => written.additional_endpoints.get(name).cloned(),
            None => written.service_endpoint,
        };
        match served {
            Some(served) if served.host.is_empty() || served.port == 0 => {
                Err("an endpoint without host or port".to_owned())
            }
            served => Ok(served),
        }
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        let what = match self.kind {
            ZkKind::Serverset => "serverset",
            ZkKind::Leader => "leader group",
        };
        let endpoint = self.endpoint.as_ref();
        let endpoint = endpoint.map(|name| format!(" with endpoint `{name}`"));
        let shard = self.shard.map(|number| format!(" of shard {number}"));
        format!(
            "{what} {}{}{}",
            self.node,
            endpoint.unwrap_or_default(),
            shard.unwrap_or_default()
        )
    }
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Member {
    /// It serves there.
    Place(Place),
    /// It is not alive, of another shard, or has no such endpoint.
    NotServing,
    /// What stands in its node makes no sense.
    Unreadable(Arc<str>),
}

/// `HOST:PORT`.
fn leading(contents: &[u8]) -> Result<HostPort, String> {
    let text = std::str::from_utf8(contents).unwrap_or("").trim();
    let wrong = || "expected HOST:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0);
    let fits =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    match port {
        Some(port) if !host.is_empty() && host.chars().all(fits) => Ok(HostPort {
            host: host.to_owned(),
            port,
        }),
        _ => Err(wrong()),
    }
}

/// The number at the end of a name that ZooKeeper has numbered.
fn sequence(name: &str) -> Option<u64> {
    let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[text.len()..];
    (digits.len() >= DIGITS || text == MEMBER)
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(path: &str) -> Group {
        Group::of(ZkKind::Serverset, &path.parse().unwrap()).unwrap()
    }

    fn leader(path: &str) -> Group {
        Group::of(ZkKind::Leader, &path.parse().unwrap()).unwrap()
    }

    fn place(member: &Member) -> String {
        match member {
            Member::Place(place) => format!("{}:{}", place.host, place.port),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_path_may_name_an_endpoint_and_a_shard() {
        for (path, node, endpoint, shard) in [
            ("/discovery/prod/web", "/discovery/prod/web", None, None),
            ("/prod/web:http", "/prod/web", Some("http"), None),
            ("/prod/web:http#3", "/prod/web", Some("http"), Some(3)),
            ("/prod/web#0", "/prod/web", None, Some(0)),
            // No number: part of the name.
            ("/prod/web#x", "/prod/web#x", None, None),
            // Only in the last segment.
            ("/a:b/web", "/a:b/web", None, None),
        ] {
            let found = group(path);
            assert_eq!(found.node, node, "{path}");
            assert_eq!(found.endpoint.as_deref(), endpoint, "{path}");
            assert_eq!(found.shard, shard, "{path}");
        }
        assert_eq!(leader("/a:b#1").node, "/a:b#1");
    }

    #[test]
    fn what_zookeeper_cannot_have_is_not_asked_for() {
        for path in ["/", "/a/..", "/.", "/a\\x2fb", "/a\\x00", "/a/:http", "/#1"] {
            let path: Path = path.parse().unwrap();
            assert_eq!(Group::of(ZkKind::Serverset, &path), None, "{path}");
        }
    }

    #[test]
    fn only_members_that_are_alive_serve() {
        let member = |status: &str| {
            format!(
                r#"{{"serviceEndpoint": {{"host": "10.0.0.1", "port": 80}},
                "additionalEndpoints": {{"http": {{"host": "web.local", "port": 8080}}}}, {status} "shard": 3}}"#
            )
        };
        let alive = member(r#""status": "ALIVE","#);
        for (path, contents, want) in [
            ("/web", &alive, "10.0.0.1:80"),
            ("/web:http", &alive, "web.local:8080"),
            ("/web:http#3", &alive, "web.local:8080"),
            ("/web#4", &alive, "NotServing"),
            ("/web:admin", &alive, "NotServing"),
            ("/web", &member(r#""status": "STOPPING","#), "NotServing"),
            ("/web", &member(""), "NotServing"),
        ] {
            let read = group(path).read("member_0", contents.as_bytes());
            assert_eq!(place(&read), want, "{path} {contents}");
        }
    }

    #[test]
    fn a_member_that_cannot_be_read_does_not_take_the_others_along() {
        let web = group("/web");
        let good = web.read(
            "member_1",
            br#"{"serviceEndpoint": {"host": "a", "port": 80}, "status": "ALIVE"}"#,
        );
        for bad in [
            &b"junk"[..],
            b"",
            br#"{"serviceEndpoint": {"host": "", "port": 80}, "status": "ALIVE"}"#,
            br#"{"serviceEndpoint": {"host": "a", "port": 70000}, "status": "ALIVE"}"#,
        ] {
            let read = web.read("member_0", bad);
            assert!(matches!(read, Member::Unreadable(_)), "{read:?}");
            let members = [("member_0", read), ("member_1", good.clone())];
            let members = members.map(|(name, member)| (name.to_owned(), member));
            let Answer::Places(places) = web.answer(&members.into()) else {
                panic!("one serves")
            };
            assert_eq!(places.len(), 1);
        }
        assert_eq!(web.answer(&BTreeMap::new()), Answer::Nothing);
    }

    #[test]
    fn the_lowest_number_leads() {
        let names = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        for (children, want) in [
            (
                &["member_0000000012", "member_0000000009"][..],
                vec!["member_0000000009"],
            ),
            (&["b-0000000001", "a-0000000002"], vec!["b-0000000001"]),
            (&["member_7", "member_10"], vec!["member_7"]),
            (&["v1", "config"], vec![]),
            (&[], vec![]),
        ] {
            assert_eq!(leader("/l").wanted(names(children)), want, "{children:?}");
        }
    }

    #[test]
    fn a_leader_is_a_host_and_a_port() {
        let lead = leader("/l");
        for (contents, want) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("web.local:8080\n", "web.local:8080"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let read = lead.read("member_0", contents.as_bytes());
            assert_eq!(place(&read), want);
        }
        for contents in ["", "host", "host:", ":80", "host:0", "host:99999", "a b:80"] {
            let read = lead.read("member_0", contents.as_bytes());
            assert!(matches!(read, Member::Unreadable(_)), "{contents}");
            let members = BTreeMap::from([("member_0".to_owned(), read)]);
            assert!(matches!(lead.answer(&members), Answer::Failed(_)));
        }
    }
}
