//! Answers as lines for people.

use std::path::Path;
use std::time::{Duration, SystemTime};

use namerd::change::diff::{Difference, Sign};
use namerd::change::lint::Finding;
use namerd::change::live::Ack;
use namerd::change::plan::{PlannedName, Verdict};
use namerd::change::shapes::{
    Blamed, Diff, History, Namespaces, Planned, Shown, Step, Version, Written, rfc3339,
};

use super::super::{Sign as Mark, Style};

/// Rows with their columns below each other; columns whose head is in `right` end below each other.
pub(in crate::cli) fn table(head: &[&str], rows: &[Vec<String>], right: &[&str]) -> String {
    let lines = || {
        std::iter::once(head.iter().map(ToString::to_string).collect::<Vec<_>>())
            .chain(rows.iter().cloned())
    };
    let width = |column: usize| {
        let cells =
            lines().map(move |line| line.get(column).map_or(0, |cell| cell.chars().count()));
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for line in lines() {
        let mut text = String::new();
        for (at, cell) in line.iter().enumerate() {
            let gap = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            match right.contains(&head[at]) {
                true => text.push_str(&format!("{gap}{cell}  ")),
                false => text.push_str(&format!("{cell}{gap}  ")),
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// A text of somebody else in one line, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `2m`, `3d`: how long ago; `-` when that cannot be told.
fn age(time: &str, now: SystemTime) -> String {
    // Times of this form are compared as texts: the largest step back that is not before it.
    for (unit, seconds, most) in [
        ("s", 1, 120),
        ("m", 60, 120),
        ("h", 3_600, 48),
        ("d", 86_400, 100_000),
    ] {
        let earliest = now
            - Duration::from_secs(seconds * most).min(
                now.duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default(),
            );
        if rfc3339(earliest).as_str() > time {
            continue;
        }
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            match now.checked_sub(Duration::from_secs(seconds * middle)) {
                Some(back) if rfc3339(back).as_str() >= time => low = middle,
                _ => high = middle - 1,
            }
        }
        return format!("{low}{unit}");
    }
    "-".to_owned()
}

pub(super) fn namespaces(all: &Namespaces) -> String {
    if all.namespaces.is_empty() {
        return "there is no namespace yet: `rutter dtab create NAME FILE` makes one".to_owned();
    }
    let row = |v: &Version| {
        vec![
            v.namespace.clone(),
            v.number.to_string(),
            v.dentries.to_string(),
            plain(&v.author),
            plain(&v.note),
        ]
    };
    let rows: Vec<_> = all.namespaces.iter().map(row).collect();
    table(
        &["NAMESPACE", "VERSION", "DENTRIES", "WHO", "NOTE"],
        &rows,
        &["VERSION", "DENTRIES"],
    )
}

/// A version in one line.
pub(super) fn version_line(v: &Version) -> String {
    let note = if v.note.is_empty() {
        String::new()
    } else {
        format!(": {}", plain(&v.note))
    };
    let entries = if v.dentries == 1 { "entry" } else { "entries" };
    format!(
        "{}@{} by {} at {}, {} {entries}{note}",
        v.namespace,
        v.number,
        plain(&v.author),
        v.time,
        v.dentries
    )
}

pub(super) fn shown(shown: &Shown) -> String {
    let v = &shown.version;
    let mut out = format!("{}@{}\n", v.namespace, v.number);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{name:9} {}\n", plain(value)));
        }
    };
    line("author", &v.author);
    line("time", &v.time);
    line("via", &v.via);
    line("note", &v.note);
    line("version", &v.version);
    line("sha256", v.hash.as_deref().unwrap_or_default());
    line("confirm", v.confirm_until.as_deref().unwrap_or_default());
    if v.deleted {
        return out + "\ndeleted\n";
    }
    out.push('\n');
    let width = shown
        .entries
        .iter()
        .map(|e| e.prefix.chars().count())
        .max()
        .unwrap_or_default();
    for (at, entry) in shown.entries.iter().enumerate() {
        let gap = " ".repeat(width - entry.prefix.chars().count());
        out.push_str(&format!(
            "{:4}  {}{gap} => {}\n",
            at + 1,
            entry.prefix,
            entry.dst
        ));
    }
    out
}

pub(super) fn history(history: &History, now: SystemTime) -> String {
    let row = |step: &Step| {
        let v = &step.version;
        let mark = if history.in_force == Some(v.number) {
            " *"
        } else {
            ""
        };
        let change = match (v.deleted, step.added, step.removed) {
            (true, ..) => "deleted".to_owned(),
            (_, 0, 0) => "0".to_owned(),
            (_, added, 0) => format!("+{added}"),
            (_, 0, removed) => format!("-{removed}"),
            (_, added, removed) if added == removed => format!("~{added}"),
            (_, added, removed) => format!("+{added} -{removed}"),
        };
        let applied = match (step.routers, history.routers) {
            (0, _) | (_, 0) => "-".to_owned(),
            (routers, all) => format!("{routers}/{all}"),
        };
        let via = if v.via.is_empty() { "-" } else { &v.via };
        vec![
            format!("{}{mark}", v.number),
            age(&v.time, now),
            plain(&v.author),
            via.to_owned(),
            change,
            applied,
            plain(&v.note),
        ]
    };
    let rows: Vec<_> = history.versions.iter().map(row).collect();
    let mut text = table(
        &[
            "VERSION", "AGE", "WHO", "VIA", "DENTRIES", "APPLIED", "NOTE",
        ],
        &rows,
        &[],
    );
    let oldest = history
        .versions
        .last()
        .map_or(1, |step| step.version.number);
    if history.next.is_none() && oldest > 1 {
        text.push_str(&format!("versions before {oldest} are no longer kept\n"));
    }
    text
}

pub(super) fn blame(blamed: &Blamed, now: SystemTime) -> String {
    let row = |e: &namerd::change::shapes::BlamedEntry| {
        let entry = format!("{} => {}", e.entry.prefix, e.entry.dst);
        vec![
            e.number.to_string(),
            age(&e.time, now),
            plain(&e.author),
            entry,
            plain(&e.note),
        ]
    };
    let rows: Vec<_> = blamed.entries.iter().map(row).collect();
    table(
        &["VERSION", "AGE", "WHO", "DENTRY", "NOTE"],
        &rows,
        &["VERSION"],
    )
}

/// `  4 - /host/world => /srv/world-v1`, a line each.
pub(super) fn differences(lines: &[Difference]) -> String {
    let line = |d: &Difference| {
        let sign = if d.sign == Sign::Added { '+' } else { '-' };
        format!("{:3} {sign} {} => {}\n", d.entry, d.prefix, d.dst)
    };
    lines.iter().map(line).collect()
}

fn changed(lines: &[Difference]) -> String {
    let added = lines.iter().filter(|line| line.sign == Sign::Added).count();
    match added.max(lines.len() - added) {
        0 => "nothing changed".to_owned(),
        1 => "1 dentry changed".to_owned(),
        count => format!("{count} dentries changed"),
    }
}

pub(super) fn diff(diff: &Diff, file: Option<&str>, style: Style) -> String {
    let to = file.map_or_else(|| format!("{}@{}", diff.namespace, diff.to), str::to_owned);
    let head = format!(
        "{}@{} {} {to}      {}\n",
        diff.namespace,
        diff.from,
        style.arrow(),
        changed(&diff.differences)
    );
    head + &differences(&diff.differences)
}

/// A plan as `ux` shows it: what changes, and what that does to the names in use.
pub(in crate::cli) fn plan(planned: &Planned, file: &str, style: Style) -> String {
    let plan = &planned.plan;
    let from = match planned.from {
        Some(number) => format!("{}@{number}", planned.namespace),
        None => format!("{} (new)", planned.namespace),
    };
    let mut out = format!(
        "{from} {} {file}      {}\n",
        style.arrow(),
        changed(&plan.differences)
    );
    out.push_str(&differences(&plan.differences));
    let others = |f: &&Finding| !matches!(f.code.as_str(), "RT-D05" | "RT-D07");
    let static_findings: Vec<_> = planned.findings.iter().filter(others).cloned().collect();
    if !static_findings.is_empty() {
        out.push('\n');
        out.push_str(&findings(&static_findings, file));
    }
    out.push('\n');
    if plan.names.is_empty() {
        out.push_str("no name is in use: no router has reported or bound one in the last 15 min\n");
        return out;
    }
    let routers = if planned.routers == 1 {
        "router"
    } else {
        "routers"
    };
    let names = if plan.names.len() == 1 {
        "name"
    } else {
        "names"
    };
    out.push_str(&format!(
        "effect on the {} {names} seen in the last 15 min ({} {routers} reporting, {:.1} rps)\n",
        plan.names.len(),
        planned.routers,
        plan.rps
    ));
    let row = |name: &PlannedName| {
        let rps = name
            .rps
            .map_or_else(|| "-".to_owned(), |rps| format!("{rps:.1}"));
        vec![
            name.name.clone(),
            rps,
            name.now.clone(),
            name.then.clone(),
            verdict(name, style),
        ]
    };
    let shown = plan
        .names
        .iter()
        .filter(|name| name.verdict != Verdict::Unchanged);
    let rows: Vec<_> = shown.map(row).collect();
    if rows.is_empty() {
        out.push_str("all unchanged\n");
        return out;
    }
    out.push_str(&table(
        &["NAME", "RPS", "NOW", "THEN", "VERDICT"],
        &rows,
        &["RPS"],
    ));
    let rest = plan.names.len() - rows.len();
    if rest > 0 {
        out.push_str(&format!("{rest} more unchanged\n"));
    }
    out
}

fn verdict(name: &PlannedName, style: Style) -> String {
    match name.verdict {
        Verdict::WouldBreak if name.breaks < 1.0 => {
            format!(
                "{} would break for {:.0} %",
                style.sign(Mark::Fail),
                name.breaks * 100.0
            )
        }
        Verdict::WouldBreak => format!("{} would break", style.sign(Mark::Fail)),
        Verdict::Changed => "changed".to_owned(),
        Verdict::WouldWork => format!("{} would work", style.sign(Mark::Ok)),
        Verdict::Unchanged => "unchanged".to_owned(),
        Verdict::Unknown => "not known".to_owned(),
    }
}

pub(super) fn findings(findings: &[Finding], file: &str) -> String {
    if findings.is_empty() {
        return format!("{file}: nothing to complain of");
    }
    let line = |f: &Finding| {
        format!(
            "{file}:{}:{}: {} {}\n",
            f.line,
            f.column,
            f.code,
            plain(&f.message)
        )
    };
    findings.iter().map(line).collect()
}

/// How a router is called: by its node, else by its id.
pub(in crate::cli) fn router(ack: &Ack) -> String {
    let place = if ack.node.is_empty() {
        &ack.id
    } else {
        &ack.node
    };
    match ack.router.is_empty() {
        true => plain(place),
        false => plain(&format!("{place}/{}", ack.router)),
    }
}

pub(in crate::cli) fn written(written: &Written, style: Style) -> String {
    let v = &written.version;
    if v.deleted {
        let before = written
            .before
            .map(|before| format!(" (was {before})"))
            .unwrap_or_default();
        return format!(
            "{} deleted{before} by {}\nundo   rutter dtab rollback {}\n",
            v.namespace,
            plain(&v.author),
            v.namespace
        );
    }
    let before = written
        .before
        .map_or_else(|| "new".to_owned(), |before| format!("was {before}"));
    let hash: String = v
        .hash
        .as_deref()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect();
    let mut out = format!(
        "{}@{} written ({before}), sha256 {hash}, by {}\n",
        v.namespace,
        v.number,
        plain(&v.author)
    );
    if written.would_break > 0 {
        let names = if written.would_break == 1 {
            "1 name"
        } else {
            &format!("{} names", written.would_break)
        };
        out.push_str(&format!(
            "{} {names} in use breaks with it, as was allowed\n",
            style.sign(Mark::Warn)
        ));
    }
    let tells = written.acks.iter().filter(|ack| ack.tells).count();
    if !written.acks.is_empty() {
        let one = |ack: &Ack| match (ack.applied, ack.tells, ack.after_ms) {
            (true, _, Some(ms)) => format!("{} {} {ms} ms", style.sign(Mark::Ok), router(ack)),
            (true, _, None) => {
                format!("{} {} (no names in use)", style.sign(Mark::Ok), router(ack))
            }
            (false, false, _) => {
                format!("{} {} (does not tell)", style.sign(Mark::Note), router(ack))
            }
            (false, true, _) => format!(
                "{} {} has {}",
                style.sign(Mark::Fail),
                router(ack),
                ack.number
                    .map_or_else(|| "none".to_owned(), |n| n.to_string())
            ),
        };
        let all: Vec<_> = written.acks.iter().map(one).collect();
        let applied = written
            .acks
            .iter()
            .filter(|ack| ack.tells && ack.applied)
            .count();
        out.push_str(&format!(
            "routers  {}   {applied}/{tells} applied\n",
            all.join("   ")
        ));
    }
    match &v.confirm_until {
        Some(until) => out.push_str(&format!(
            "ends   at {until}, unless: rutter dtab confirm {}\n",
            v.namespace
        )),
        None if written.before.is_some() => {
            out.push_str(&format!("undo   rutter dtab rollback {}\n", v.namespace));
        }
        None => {}
    }
    out
}

pub(super) fn exported(all: &Namespaces, folder: &Path) -> String {
    let names = if all.namespaces.len() == 1 {
        "namespace"
    } else {
        "namespaces"
    };
    format!(
        "{} {names} written to {}",
        all.namespaces.len(),
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_history_says_where_it_begins() {
        let told = |number: u64, next: Option<u64>| {
            let history = serde_json::from_value(json!({
                "namespace": "default", "next": next, "in_force": 9, "routers": 0,
                "versions": [{"namespace": "default", "number": number, "version": "", "author": "ann", "time": "", "note": "",
                              "via": "", "dentries": 1, "deleted": false, "added": 1, "removed": 0, "routers": 0}],
            }));
            let told = super::history(&history.unwrap(), SystemTime::UNIX_EPOCH);
            told.lines().nth(2).map(str::to_owned)
        };
        let kept = "versions before 9 are no longer kept".to_owned();
        assert_eq!(told(9, None), Some(kept));
        assert_eq!(told(9, Some(9)), None);
        assert_eq!(told(1, None), None);
    }

    #[test]
    fn an_age_is_as_short_as_it_can_be() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (back, want) in [
            (0, "0s"),
            (5, "5s"),
            (119, "119s"),
            (125, "2m"),
            (7_300, "2h"),
            (86_400 * 3 + 5, "3d"),
        ] {
            assert_eq!(age(&rfc3339(now - Duration::from_secs(back)), now), want);
        }
        assert_eq!(age("", now), "-");
    }
}
