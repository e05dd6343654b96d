//! What was found, and the forms in which it is written.

use std::fmt::Write as _;

use serde_json::{Value, json};
use telemetry::code;

use crate::cli::{Sign, Style};

/// What a finding is about, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Category {
    /// The Kubernetes API, and what may be asked of it.
    Kubernetes,
    /// The installation: DaemonSet, ConfigMap, Services, nodes.
    Routers,
    /// The router that was asked.
    Router,
    /// What the dtab leads to.
    Names,
    /// The pods that use the router.
    Applications,
    /// Spans and their collector.
    Traces,
    /// Configuration files.
    Configuration,
    /// Requests that were sent.
    Probe,
}

impl Category {
    const ALL: [Self; 8] = [
        Self::Kubernetes,
        Self::Routers,
        Self::Router,
        Self::Names,
        Self::Applications,
        Self::Traces,
        Self::Configuration,
        Self::Probe,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Routers => "routers",
            Self::Router => "router",
            Self::Names => "names",
            Self::Applications => "applications",
            Self::Traces => "traces",
            Self::Configuration => "configuration",
            Self::Probe => "probe",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    category: Category,
    sign: Sign,
    code: Option<code::Check>,
    message: String,
    effect: Option<String>,
    fix: Option<String>,
}

impl Finding {
    /// What follows from it.
    pub(super) fn effect(&mut self, effect: impl Into<String>) -> &mut Self {
        self.effect = Some(effect.into());
        self
    }

    /// What to do, when more can be said than the code's page does.
    pub(super) fn fix(&mut self, fix: impl Into<String>) -> &mut Self {
        self.fix = Some(fix.into());
        self
    }
}

/// All that was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    only: Vec<Category>,
}

impl Report {
    /// One that keeps what is of these categories; of all when there are none.
    pub(super) fn only(only: &[Category]) -> Self {
        Self {
            findings: Vec::new(),
            only: only.to_vec(),
        }
    }

    /// Whether anything of that category is wanted.
    pub(super) fn wants(&self, category: Category) -> bool {
        self.only.is_empty() || self.only.contains(&category)
    }

    fn push(
        &mut self,
        category: Category,
        sign: Sign,
        code: Option<code::Check>,
        message: String,
    ) -> &mut Finding {
        self.findings.push(Finding {
            category,
            sign,
            code,
            message,
            effect: None,
            fix: None,
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    /// All that another one has.
    pub(super) fn take(&mut self, other: Self) {
        self.findings.extend(other.findings);
    }

    /// It is as it should be.
    pub(super) fn ok(&mut self, category: Category, message: impl Into<String>) {
        self.push(category, Sign::Ok, None, message.into());
    }

    /// It could not be looked at, and nobody can be blamed for that.
    pub(super) fn note(&mut self, category: Category, message: impl Into<String>) {
        self.push(category, Sign::Note, None, message.into());
    }

    /// It works, and should be looked at.
    pub(super) fn warn(
        &mut self,
        code: code::Check,
        category: Category,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.push(category, Sign::Warn, Some(code), message.into())
    }

    /// It is wrong.
    pub(super) fn fail(
        &mut self,
        code: code::Check,
        category: Category,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.push(category, Sign::Fail, Some(code), message.into())
    }

    fn shown(&self) -> impl Iterator<Item = &Finding> {
        let of = move |category: Category| {
            self.findings
                .iter()
                .filter(move |f| f.category == category && self.wants(category))
        };
        Category::ALL.into_iter().flat_map(of)
    }

    fn count(&self, sign: Sign) -> usize {
        self.shown().filter(|f| f.sign == sign).count()
    }

    /// How many things are wrong.
    pub(super) fn errors(&self) -> usize {
        self.count(Sign::Fail)
    }

    fn sums(&self) -> String {
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        format!(
            "{}, {}",
            count(self.errors(), "error"),
            count(self.count(Sign::Warn), "warning")
        )
    }

    /// For people: category by category, cause and fix below each finding.
    pub(super) fn table(&self, style: Style) -> String {
        let mut out = String::new();
        let mut category = None;
        for finding in self.shown() {
            if category != Some(finding.category) {
                category = Some(finding.category);
                _ = writeln!(out, "{}", finding.category.as_str());
            }
            out.push_str(&finding.lines(style));
        }
        let worst = self.shown().filter(|f| f.code.is_some());
        let worst = worst
            .min_by_key(|f| f.sign != Sign::Fail)
            .and_then(|f| f.code);
        let more = worst.map(|c| {
            format!(
                " {} rutter explain {} for more",
                style.dash(),
                c.entry().code
            )
        });
        out + &self.sums() + &more.unwrap_or_default()
    }

    /// A line for each error and warning.
    pub(super) fn short(&self) -> String {
        let mut out = String::new();
        for finding in self
            .shown()
            .filter(|f| matches!(f.sign, Sign::Warn | Sign::Fail))
        {
            let code = finding.code.map_or("", |c| c.entry().code);
            _ = writeln!(
                out,
                "{:<7} {code:<7} {}: {}",
                word(finding.sign),
                finding.category.as_str(),
                finding.message
            );
        }
        out + &self.sums()
    }

    /// For programs.
    pub(super) fn json(&self, admin: &str) -> Value {
        let checks: Vec<Value> = self
            .shown()
            .map(|f| {
                json!({
                    "category": f.category.as_str(),
                    "status": word(f.sign),
                    "code": f.code.map(|c| c.entry().code),
                    "message": f.message,
                    "effect": f.effect,
                    "fix": f.advice(),
                })
            })
            .collect();
        json!({
            "schema": "rutter/check/v1",
            "admin": admin,
            "errors": self.errors(),
            "warnings": self.count(Sign::Warn),
            "checks": checks,
        })
    }

    /// For build servers: a suite for each category, a failure for each error.
    pub(super) fn junit(&self) -> String {
        let mut out = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"rutter check\" tests=\"{}\" failures=\"{}\">\n",
            self.shown().count(),
            self.errors()
        );
        for category in Category::ALL {
            let of: Vec<&Finding> = self.shown().filter(|f| f.category == category).collect();
            if of.is_empty() {
                continue;
            }
            let failures = of.iter().filter(|f| f.sign == Sign::Fail).count();
            let skipped = of.iter().filter(|f| f.sign == Sign::Note).count();
            _ = writeln!(
                out,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">",
                category.as_str(),
                of.len()
            );
            for finding in of {
                out.push_str(&finding.junit());
            }
            out.push_str("  </testsuite>\n");
        }
        out + "</testsuites>"
    }
}

fn word(sign: Sign) -> &'static str {
    match sign {
        Sign::Ok => "ok",
        Sign::Note => "skipped",
        Sign::Warn => "warning",
        Sign::Fail => "error",
    }
}

impl Finding {
    /// Its own fix, or that of its code.
    fn advice(&self) -> Option<&str> {
        self.fix
            .as_deref()
            .or_else(|| self.code.map(|c| c.entry().fix))
    }

    fn lines(&self, style: Style) -> String {
        let code = self.code.map(|c| format!("{}  ", c.entry().code));
        let mut out = style.wrapped(
            &format!("  {} {}", style.sign(self.sign), code.unwrap_or_default()),
            6,
            &self.message,
        );
        if matches!(self.sign, Sign::Warn | Sign::Fail) {
            if let Some(effect) = &self.effect {
                out += &style.wrapped("      effect  ", 14, effect);
            }
            if let Some(fix) = self.advice() {
                out += &style.wrapped("      fix     ", 14, fix);
            }
        }
        out
    }

    fn junit(&self) -> String {
        let name = xml(&self.message);
        let code = self.code.map_or("", |c| c.entry().code);
        let class = self.category.as_str();
        let inner = match self.sign {
            Sign::Ok => return format!("    <testcase classname=\"{class}\" name=\"{name}\"/>\n"),
            Sign::Note => "<skipped/>".to_owned(),
            Sign::Warn => format!(
                "<system-out>{code} {}</system-out>",
                xml(self.advice().unwrap_or_default())
            ),
            Sign::Fail => format!(
                "<failure type=\"{code}\" message=\"{name}\">{}</failure>",
                xml(self.advice().unwrap_or_default())
            ),
        };
        format!("    <testcase classname=\"{class}\" name=\"{name}\">{inner}</testcase>\n")
    }
}

fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML 1.0 at all.
            c if c.is_control() && !matches!(c, '\t' | '\n') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.ok(Category::Router, "answers");
        report.note(Category::Kubernetes, "not looked at");
        report
            .fail(code::Check::C021, Category::Names, "Service \"a\" <b> & c")
            .effect("nothing works")
            .fix("create it");
        report.warn(code::Check::C040, Category::Traces, "3 spans were dropped");
        report
    }

    #[test]
    fn categories_come_in_order_and_the_fix_of_the_code_is_the_default() {
        let style = Style {
            unicode: false,
            colour: false,
            width: None,
        };
        let table = report().table(style);
        let want = "\
kubernetes
  [-] not looked at
router
  [ok] answers
names
  [FAIL] RT-C021  Service \"a\" <b> & c
      effect  nothing works
      fix     create it
traces
  [warn] RT-C040  3 spans were dropped
      fix     Repair the collector, or lower `sampleRate`.
1 error, 1 warning - rutter explain RT-C021 for more";
        assert_eq!(table, want);
    }

    #[test]
    fn a_narrow_terminal_gets_lines_that_fit_it() {
        let style = Style {
            unicode: false,
            colour: false,
            width: Some(40),
        };
        let table = report().table(style);
        assert!(
            table
                .lines()
                .all(|line| line.len() <= 40 || line.starts_with("1 error")),
            "{table}"
        );
        assert!(
            table.contains("\n              lower `sampleRate`."),
            "{table}"
        );
    }

    #[test]
    fn a_category_alone_is_counted_alone() {
        let mut report = report();
        report.only = vec![Category::Traces];
        assert_eq!(
            report.short(),
            "warning RT-C040 traces: 3 spans were dropped\n0 errors, 1 warning"
        );
        assert_eq!(report.json("x")["checks"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn junit_is_xml_with_a_failure_for_each_error() {
        let xml = report().junit();
        assert!(xml.contains("tests=\"4\" failures=\"1\""), "{xml}");
        assert!(xml.contains("<failure type=\"RT-C021\" message=\"Service &quot;a&quot; &lt;b&gt; &amp; c\">create it</failure>"), "{xml}");
    }
}
