//! Configuration files, looked over.

use telemetry::code::Check;

use super::report::{Category, Report};
use crate::cli::read_text;
use crate::config::problem::{Problems, Severity};
use crate::config::settings::Config;
use crate::config::{self, Environment, lint};

/// A file named on the command line; its configuration when it is valid.
pub(super) fn file(file: &str, environment: &Environment, report: &mut Report) -> Option<Config> {
    let category = Category::Configuration;
    let text = match read_text(file) {
        Ok(text) => text,
        Err(message) => {
            report.fail(Check::C060, category, message);
            return None;
        }
    };
    match config::load(file, &text, environment) {
        Ok(loaded) => {
            tell(file, &lint::lint(&loaded, environment), category, report);
            Some(loaded.config)
        }
        Err(problems) => {
            tell(file, &problems, category, report);
            None
        }
    }
}

/// What is wrong with a configuration, as findings.
pub(super) fn tell(name: &str, problems: &Problems, category: Category, report: &mut Report) {
    for problem in &problems.all {
        let place = problem
            .place
            .map(|p| format!(":{}:{}", p.line, p.column))
            .unwrap_or_default();
        let key = if problem.key.is_empty() {
            String::new()
        } else {
            format!(" {}", problem.key)
        };
        let message = format!("{name}{place}{key}: {}", problem.message);
        let finding = match problem.severity {
            Severity::Error => report.fail(Check::C060, category, message),
            Severity::Warning => report.warn(Check::C061, category, message),
        };
        if let Some(help) = &problem.help {
            finding.fix(help.clone());
        }
    }
    if problems.all.is_empty() {
        report.ok(category, format!("{name} is valid"));
    }
}
