//! Conditions under which a shift goes back, over what routers counted while a step was in force.

use std::fmt;

use namerd::change::live::ReportedClient;
use namerd::change::shapes::duration;

/// What is counted for one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    pub(super) requests: u64,
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) p99_ms: Option<f64>,
}

/// Both sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) target: Side,
    pub(super) rest: Side,
}

/// A condition such as `success < 99` or `p99 > old * 2`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Guard {
    text: String,
    metric: Metric,
    below: bool,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// In percent.
    Success,
    /// In milliseconds.
    P99,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Fixed(f64),
    /// What the rest has, times that, plus that.
    Rest(f64, f64),
}

impl Side {
    pub(super) fn add(&mut self, client: &ReportedClient) {
        self.requests += client.requests;
        self.successes += client.successes;
        self.failures += client.failures;
        self.p99_ms = match (self.p99_ms, client.p99_ms) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
    }

    /// What came since; a router that is gone or new makes no count negative.
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            successes: self.successes.saturating_sub(before.successes),
            failures: self.failures.saturating_sub(before.failures),
            p99_ms: self.p99_ms,
        }
    }

    fn success(&self) -> Option<f64> {
        let judged = self.successes + self.failures;
        (judged > 0).then(|| 100.0 * self.successes as f64 / judged as f64)
    }
}

impl Numbers {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            target: self.target.since(&before.target),
            rest: self.rest.since(&before.rest),
        }
    }
}

impl Metric {
    fn of(self, side: &Side) -> Option<f64> {
        match self {
            Self::Success => side.success(),
            Self::P99 => side.p99_ms,
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Success => format!("{value:.1} %"),
            Self::P99 => format!("{value:.0} ms"),
        }
    }
}

impl Guard {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "--abort-if takes `success<99`, `p99>500ms`, `success < old - 1` or `p99 > old * 2`, found {text:?}"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let metric = match text[..at].trim() {
            "success" => Metric::Success,
            "p99" => Metric::P99,
            _ => return Err(wrong()),
        };
        let limit = text[at + 1..].trim();
        let number = |text: &str| -> Option<f64> {
            let text = text.trim();
            let plain = text.trim_end_matches('%').trim();
            let number = plain
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite());
            match metric {
                Metric::Success => number,
                Metric::P99 => {
                    number.or_else(|| duration(text).map(|time| time.as_secs_f64() * 1e3))
                }
            }
        };
        let limit = match limit
            .strip_prefix("old")
            .or_else(|| limit.strip_prefix("v1"))
        {
            None => number(limit).map(Limit::Fixed),
            Some(rest) => match rest.trim().split_at_checked(1) {
                None => Some(Limit::Rest(1.0, 0.0)),
                Some(("-", by)) => number(by).map(|by| Limit::Rest(1.0, -by)),
                Some(("+", by)) => number(by).map(|by| Limit::Rest(1.0, by)),
                Some(("*", by)) => by.trim().parse().ok().map(|by| Limit::Rest(by, 0.0)),
                Some(_) => None,
            },
        };
        Ok(Self {
            text: text.to_owned(),
            metric,
            below: text.as_bytes()[at] == b'<',
            limit: limit.ok_or_else(wrong)?,
        })
    }

    /// Why a step has to be taken back; none as long as there are no numbers.
    pub(super) fn broken(&self, numbers: &Numbers) -> Option<String> {
        let value = self.metric.of(&numbers.target)?;
        let limit = match self.limit {
            Limit::Fixed(limit) => limit,
            Limit::Rest(times, plus) => self.metric.of(&numbers.rest)? * times + plus,
        };
        let broken = if self.below {
            value < limit
        } else {
            value > limit
        };
        let sign = if self.below { "below" } else { "above" };
        broken.then(|| {
            format!(
                "{} is {sign} {} after {} requests ({})",
                self.metric.shown(value),
                self.metric.shown(limit),
                numbers.target.requests,
                self.text
            )
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.requests)?;
        if let Some(success) = self.success() {
            write!(f, ", success {success:.1} %")?;
        }
        if let Some(p99) = self.p99_ms {
            write!(f, ", p99 {p99:.0}ms")?;
        }
        Ok(())
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target: {}; rest: {}", self.target, self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(successes: u64, failures: u64, p99_ms: f64) -> Side {
        Side {
            requests: successes + failures,
            successes,
            failures,
            p99_ms: Some(p99_ms),
        }
    }

    #[test]
    fn conditions_compare_with_numbers_and_with_the_rest() {
        let numbers = Numbers {
            target: side(97, 3, 200.0),
            rest: side(990, 10, 90.0),
        };
        for (text, broken) in [
            ("success<97", false),
            ("success < 97.5%", true),
            ("success>96", true),
            ("success < old - 1", true),
            ("success < v1 - 3", false),
            ("p99>500ms", false),
            ("p99 > 150", true),
            ("p99>1s", false),
            ("p99 > old * 2", true),
            ("p99 > old * 3", false),
            ("p99 > old + 200ms", false),
            ("p99 > old", true),
        ] {
            let guard = Guard::read(text).unwrap();
            assert_eq!(guard.broken(&numbers).is_some(), broken, "{text}");
            assert_eq!(guard.broken(&Numbers::default()), None);
        }
        for text in [
            "",
            "success",
            "sucess<99",
            "success<",
            "p99>fast",
            "p99>old/2",
            "success<NaN",
            "success < old -",
        ] {
            assert!(Guard::read(text).is_err(), "{text}");
        }
    }
}
