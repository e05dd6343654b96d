//! What `/api/rutter/1` says, as types: its server writes them, its clients read them, its OpenAPI document is made of them.

use std::time::{Duration, SystemTime};

use dtab::{Dtab, Layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::confirm;
use super::diff::Difference;
use super::lint::Finding;
use super::live::{Ack, Report, ReportedClient};
use super::noted::Noted;
use super::plan::Plan;
use crate::store::{Namespace, Record};

/// One version of a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Which namespace.
    pub namespace: String,
    /// 1 for the first, each is one more; a deletion is a version, too.
    pub number: u64,
    /// The same as `ETag` of `/api/1` and `If-Match` take it.
    pub version: String,
    /// SHA-256 of the text, in hexadecimal; none for a deletion.
    pub hash: Option<String>,
    /// Who wrote it.
    pub author: String,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// What for.
    pub note: String,
    /// How it came: `cli`, `api`; empty when that is not known.
    pub via: String,
    /// How many entries it has.
    pub dentries: usize,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// It ends at that time unless it is confirmed; none when it need not be.
    pub confirm_until: Option<String>,
    /// The version that comes back then.
    pub confirm_back: Option<u64>,
}

impl Version {
    /// What is told about a record.
    pub fn of(namespace: &Namespace, record: &Record) -> Self {
        let noted = Noted::of(&record.origin.note);
        let confirm = confirm::until(record);
        let dtab = record.text.as_deref().map(Dtab::read);
        Self {
            namespace: namespace.to_string(),
            number: record.number,
            version: record.version(),
            hash: record.hash(),
            author: record.origin.author.to_string(),
            time: rfc3339(record.origin.time),
            note: noted.words,
            via: noted.via,
            dentries: dtab.and_then(Result::ok).map_or(0, |dtab| dtab.len()),
            deleted: record.text.is_none(),
            confirm_until: confirm.map(|(until, _)| rfc3339(until)),
            confirm_back: confirm.and_then(|(_, within)| within.back),
        }
    }
}

/// All namespaces, with what is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Namespaces {
    /// By name.
    pub namespaces: Vec<Version>,
}

/// An entry with its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The left-hand side.
    pub prefix: String,
    /// The right-hand side.
    pub dst: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A version with its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// Who, when, what for.
    #[serde(flatten)]
    pub version: Version,
    /// As it was written, with its comments; empty for a deletion.
    pub text: String,
    /// Its entries.
    pub entries: Vec<Entry>,
}

impl Shown {
    /// A record with its text.
    pub fn of(namespace: &Namespace, record: &Record) -> Self {
        let text = record.text.as_deref().unwrap_or_default();
        let layout = Layout::read(text);
        let placed = layout.as_ref().map(Layout::entries).unwrap_or_default();
        let entry = |placed: &dtab::Placed| Entry {
            prefix: placed.dentry.prefix.to_string(),
            dst: placed.dentry.dst.to_string(),
            line: placed.line,
            column: placed.column,
        };
        Self {
            version: Version::of(namespace, record),
            text: text.to_owned(),
            entries: placed.iter().map(entry).collect(),
        }
    }
}

/// A version in a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Who, when, what for.
    #[serde(flatten)]
    pub version: Version,
    /// Entries that came with it.
    pub added: usize,
    /// Entries that went.
    pub removed: usize,
    /// Connected routers that route with it.
    pub routers: usize,
}

/// The versions of a namespace, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Which namespace.
    pub namespace: String,
    /// At most as many as asked for.
    pub versions: Vec<Step>,
    /// `before` of the next page; none when this was the last.
    pub next: Option<u64>,
    /// The number in force; none when the namespace is deleted.
    pub in_force: Option<u64>,
    /// Connected routers that tell versions.
    pub routers: usize,
}

/// What differs between two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Which namespace.
    pub namespace: String,
    /// The older one; 0 is the empty dtab.
    pub from: u64,
    /// The newer one.
    pub to: u64,
    /// What leads from one to the other.
    pub differences: Vec<Difference>,
}

/// An entry and the version that brought it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlamedEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// The version that brought it.
    pub number: u64,
    /// Who wrote that.
    pub author: String,
    /// When.
    pub time: String,
    /// What for.
    pub note: String,
}

/// Which version brought each entry of what is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blamed {
    /// Which namespace.
    pub namespace: String,
    /// The version in force.
    pub number: u64,
    /// Its entries.
    pub entries: Vec<BlamedEntry>,
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Planned {
    /// Which namespace.
    pub namespace: String,
    /// The version it was compared with; none when there is no such namespace yet.
    pub from: Option<u64>,
    /// Likely mistakes in the new dtab.
    pub findings: Vec<Finding>,
    /// What would come of the names in use.
    #[serde(flatten)]
    pub plan: Plan,
    /// Connected routers that report names.
    pub routers: usize,
}

/// Likely mistakes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Linted {
    /// In the order of the text.
    pub findings: Vec<Finding>,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Written {
    /// What is in force now.
    #[serde(flatten)]
    pub version: Version,
    /// What was in force before; none when there was nothing.
    pub before: Option<u64>,
    /// Entries that came.
    pub added: usize,
    /// Entries that went.
    pub removed: usize,
    /// Names in use that break with it, as it was allowed.
    pub would_break: usize,
    /// How far the connected routers are with it.
    pub acks: Vec<Ack>,
}

/// How far routers are with a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acks {
    /// Which namespace.
    pub namespace: String,
    /// Which version.
    pub number: u64,
    /// The connected routers of the namespace.
    pub acks: Vec<Ack>,
}

/// A name in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NameInUse {
    /// What is asked for.
    pub name: String,
    /// The dtab that is put behind the namespace's; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dtab: String,
    /// Requests a second; none when no router says.
    pub rps: Option<f64>,
    /// How many routers report it.
    pub routers: usize,
}

/// The names of a namespace that are in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NamesInUse {
    /// Which namespace.
    pub namespace: String,
    /// Those with most requests first.
    pub names: Vec<NameInUse>,
}

/// What routers counted for bound names, since they started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Which namespace.
    pub namespace: String,
    /// By id.
    pub clients: Vec<ReportedClient>,
}

/// A router that reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Connected {
    /// As it calls itself.
    pub id: String,
    /// What it said last, without its names.
    #[serde(flatten)]
    pub report: Report,
}

/// The routers that report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Routers {
    /// By id.
    pub routers: Vec<Connected>,
}

/// What a router is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reported {
    /// The number in force in its namespace; none when there is no such namespace.
    pub number: Option<u64>,
}

/// Which version is to come back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// Its number; the one before what is in force unless it is given.
    pub to: Option<u64>,
}

/// Which version is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Confirm {
    /// Its number; what is in force unless it is given.
    pub number: Option<u64>,
}

/// Why something is not done (RFC 9457).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Problem {
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What is wrong, for people.
    pub detail: String,
    /// For programs: `would-break`, `changed`, `exists`, `not-found`, `invalid-dtab`, `bad-request`, `unavailable`.
    pub code: String,
    /// What the change would have done, when that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Planned>,
}

/// A time as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar, from days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        (year, left) = (year + 1, left - length);
    }
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, left + 1)
}

/// A length of time as people write it: `500ms`, `5s`, `5m`, `1h`, `0`.
pub fn duration(text: &str) -> Option<Duration> {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let count: u64 = text[..at].parse().ok()?;
    let millis = match &text[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if count == 0 => 0,
        _ => return None,
    };
    Some(Duration::from_millis(count.checked_mul(millis)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths_are_written_as_people_do() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (13_574_563_200, "2400-02-29T00:00:00.000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc3339(time), want);
        }
        for (text, want) in [
            ("5m", Some(300_000)),
            ("10ms", Some(10)),
            ("0", Some(0)),
            ("5", None),
            ("m", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
