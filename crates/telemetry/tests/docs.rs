//! `docs/metrics.md` and `docs/errors.md` are made of the lists in this crate. `UPDATE_DOCS=1 cargo test -p telemetry --test docs` writes them.

use std::fmt::Write;
use std::path::Path;

use telemetry::code::{Check, Code, Entry, Lint, Watching};
use telemetry::metrics::linkerd::NAMES;
use telemetry::metrics::ours::{FAMILIES, Family, Kind};

/// Compares a page with what it should be, or writes it.
fn keep(name: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, want).unwrap();
        return;
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = have.lines().zip(want.lines()).position(|(a, b)| a != b);
    assert!(
        have == want,
        "docs/{name} is stale from line {differs:?} on: UPDATE_DOCS=1 cargo test -p telemetry --test docs"
    );
}

#[test]
fn the_page_of_errors_is_that_of_the_catalogue() {
    let mut page = String::from(include_str!("docs/errors.md"));
    let table = |page: &mut String, title: &str, entries: Vec<&'static Entry>| {
        writeln!(page, "\n## {title}").unwrap();
        if entries.iter().all(|entry| entry.statuses.is_empty()) {
            page.push_str("\n| code | what |\n| --- | --- |\n");
            for entry in &entries {
                writeln!(
                    page,
                    "| [{}](#{}) | {} |",
                    entry.code,
                    anchor(entry),
                    entry.title
                )
                .unwrap();
            }
        }
        for entry in entries {
            write_entry(page, entry);
        }
    };
    page.push_str("\n| code | what | status |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        let entry = code.entry();
        writeln!(
            page,
            "| [{}](#{}) | {} | {} |",
            entry.code,
            anchor(entry),
            entry.title,
            status(entry)
        )
        .unwrap();
    }
    table(
        &mut page,
        "Errors",
        Code::ALL.iter().map(|c| c.entry()).collect(),
    );
    table(
        &mut page,
        "Findings of `rutter check`",
        Check::ALL.iter().map(|c| c.entry()).collect(),
    );
    table(
        &mut page,
        "Findings of `rutter config check` in a dtab",
        Lint::ALL.iter().map(|c| c.entry()).collect(),
    );
    table(
        &mut page,
        "What a router says of its watches",
        Watching::ALL.iter().map(|c| c.entry()).collect(),
    );
    keep("errors.md", &page);
}

fn anchor(entry: &Entry) -> String {
    entry.code.to_lowercase()
}

fn status(entry: &Entry) -> String {
    let statuses: Vec<_> = entry.statuses.iter().map(u16::to_string).collect();
    match entry.code {
        "RT-E113" | "RT-E114" => "as the failure it is added to".to_owned(),
        "RT-E132" | "RT-E140" => "connection closed".to_owned(),
        "RT-E126" => "499, in log and metrics only".to_owned(),
        _ => statuses.join(" / "),
    }
}

fn write_entry(page: &mut String, entry: &Entry) {
    writeln!(page, "\n### {}\n\n**{}**", entry.code, entry.title).unwrap();
    if entry.code.starts_with("RT-E") {
        writeln!(page, "\nStatus: {}", status(entry)).unwrap();
    }
    writeln!(page, "\n{}\n\nUsual causes:\n", entry.what).unwrap();
    for cause in entry.causes {
        writeln!(page, "- {cause}").unwrap();
    }
    writeln!(
        page,
        "\nWhat to do: {}\n\nWhere it shows: {}",
        entry.fix, entry.see
    )
    .unwrap();
}

#[test]
fn the_page_of_metrics_has_every_family_and_every_name_of_linkerds() {
    let template = include_str!("docs/metrics.md");
    let page = template
        .replace("{{families}}\n", &families(|f| !f.control))
        .replace("{{control}}\n", &families(|f| f.control))
        .replace("{{names}}\n", &names());
    assert!(!page.contains("{{"));
    keep("metrics.md", &page);
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn families(pick: impl Fn(&Family) -> bool) -> String {
    let mut table = String::from(
        "| name | kind | labels | what | from | Linkerd 1's |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for family in FAMILIES.iter().filter(|f| pick(f)) {
        let from: Vec<_> = family
            .derived_from()
            .map(|from| format!("`{from}`"))
            .collect();
        let labels = family.labels.join(", ");
        let Family { name, help, .. } = family;
        writeln!(
            table,
            "| `{name}` | {} | {labels} | {help} | {} | {} |",
            kind(family.kind),
            family.since.words(),
            from.join(", ")
        )
        .unwrap();
    }
    table
}

fn names() -> String {
    let mut page = String::new();
    for (place, scope) in [
        ("router", "rt/<label>/"),
        ("server", "rt/<label>/server/<ip>/<port>/"),
        ("service", "rt/<label>/service/<svc>/"),
        ("client", "rt/<label>/client/<id>/"),
        ("client service", "rt/<label>/client/<id>/service/<svc>/"),
        ("jvm", "jvm/"),
    ] {
        writeln!(
            page,
            "### `{scope}`\n\n| name | kind | what |\n| --- | --- | --- |"
        )
        .unwrap();
        for name in NAMES.iter().filter(|name| name.place == place) {
            let kind = match name.kind {
                Kind::Histogram => "stat",
                other => kind(other),
            };
            writeln!(page, "| `{}` | {kind} | {} |", name.name, name.help).unwrap();
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}
