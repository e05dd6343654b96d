//! `rutter explain CODE`, without a network.

use std::io::IsTerminal as _;

use telemetry::code;

use super::{Exit, Style, complain, say};
use crate::config::Environment;
use crate::near;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A code such as RT-E101; without one all are listed
    code: Option<String>,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let Some(asked) = &args.code else {
        let lines: Vec<String> = code::entries()
            .map(|e| format!("{}  {}", e.code, e.title))
            .collect();
        return say(&lines.join("\n"));
    };
    if let Some(entry) = code::find(asked) {
        let style = Style::of(environment, std::io::stdout().is_terminal());
        return say(&fitting(&entry.page(), style));
    }
    let near = near::nearest(asked, code::entries().map(|e| e.code))
        .map(|n| format!(" (did you mean {n}?)"))
        .unwrap_or_default();
    complain(&format!(
        "there is no code {asked}{near}; `rutter explain` lists all"
    ));
    Ok(Exit::NotFound)
}

/// A page with its lines broken where the terminal ends; those that go on keep their indent.
fn fitting(page: &str, style: Style) -> String {
    let line = |line: &str| {
        let text = line.trim_start_matches([' ', '-']);
        let indent = line.len() - text.len();
        style.wrapped(&line[..indent], indent, text)
    };
    page.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_a_narrow_terminal() {
        let style = |width| Style {
            unicode: false,
            colour: false,
            width,
        };
        let page = code::find("C021").map(code::Entry::page).unwrap();
        let narrow = fitting(&page, style(Some(40)));
        assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
        assert!(
            narrow.contains("\n  - the Service was never created: the\n    published"),
            "{narrow}"
        );
        assert_eq!(fitting(&page, style(None)), page);
    }
}
