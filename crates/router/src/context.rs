//! What a request brings along besides itself: its own dtab, its trace, its deadline. The headers that say so are taken
//! off here, and written anew for the next hop.

use dtab::Dtab;
use telemetry::trace::{Formats, Headers, Propagation, TraceContext};

use crate::http1::{RequestHead, is_same};
use crate::respond::RouteError;
use crate::settings::TracePropagator;

/// A request's context.
#[derive(Debug)]
pub(crate) struct Context {
    /// `l5d-ctx-dtab`, then `l5d-dtab`, so that the user's entries win.
    pub(crate) dtab: Dtab,
    /// That dtab cannot be read: the request ends with this error.
    pub(crate) refused: Option<RouteError>,
    /// Of the caller, if it sent one that can be read.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) formats: Formats,
    /// `l5d-sample`.
    pub(crate) sample_rate: Option<f64>,
    pub(crate) deadline: Option<Deadline>,
    /// Entries in `Via`: routers that it passed.
    pub(crate) hops: usize,
}

/// `l5d-ctx-deadline`, in ns since 1970. Passed on, made stricter, not enforced, as in Linkerd 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) since: u64,
    pub(crate) until: u64,
}

impl Deadline {
    fn read(text: &[u8]) -> Option<Self> {
        let (since, until) = std::str::from_utf8(text).ok()?.trim().split_once(' ')?;
        Some(Self {
            since: since.parse().ok()?,
            until: until.trim().parse().ok()?,
        })
    }

    /// The stricter of both, as Finagle's `Deadline.combined`.
    pub(crate) fn combined(self, other: Self) -> Self {
        Self {
            since: self.since.max(other.since),
            until: self.until.min(other.until),
        }
    }
}

/// The propagation that a router's `tracePropagator` means.
pub(crate) fn propagation(propagator: TracePropagator) -> Propagation {
    match propagator {
        TracePropagator::Default => Propagation::Default,
        TracePropagator::Zipkin => Propagation::Zipkin,
    }
}

/// Header names that are looked at all begin with one of these letters; most others are done with at a glance.
fn may_matter(name: &[u8]) -> bool {
    matches!(
        name.first().map(u8::to_ascii_lowercase),
        Some(b'l' | b't' | b'b' | b'x' | b'v')
    )
}

/// Takes the context out of the head. With `clear` nothing is believed and every `l5d-*` header goes.
pub(crate) fn take(head: &mut RequestHead, propagator: TracePropagator, clear: bool) -> Context {
    let propagation = propagation(propagator);
    let mut headers = Headers::default();
    let mut deadline: Option<Deadline> = None;
    let (mut has_dtab, mut has_l5d, mut hops, mut has_cert) = (false, false, 0, false);
    for (name, value) in head.iter() {
        if !may_matter(name) {
            continue;
        }
        if is_l5d(name) {
            has_l5d = true;
            has_dtab |= is(name, "l5d-dtab") || is(name, "l5d-ctx-dtab");
            if is(name, "l5d-ctx-deadline")
                && let Some(one) = Deadline::read(value)
            {
                deadline = Some(deadline.map_or(one, |other| other.combined(one)));
            }
        }
        if is(name, "via") {
            hops += value
                .split(|&b| b == b',')
                .filter(|entry| !entry.trim_ascii().is_empty())
                .count();
        } else if is(name, "x-forwarded-client-cert") {
            has_cert = true;
        } else if !clear {
            headers.see(name, value);
        }
    }
    let trace = headers.context(propagation);
    let formats = headers.formats(propagation);
    let sample_rate = headers.asked_rate(propagation);
    let dtab = match has_dtab && !clear {
        true => own_dtab(head),
        false => Ok(Dtab::empty()),
    };
    let (dtab, refused) = match dtab {
        Ok(dtab) => (dtab, None),
        Err(error) => (Dtab::empty(), Some(error)),
    };
    if clear {
        deadline = None;
    }
    if has_l5d || has_cert || formats != Formats::default() {
        let readable_deadline = deadline.is_some();
        head.remove_where(|name| {
            if !may_matter(name) {
                return false;
            }
            let l5d = is_l5d(name);
            (l5d && (clear || is_ours(name, readable_deadline)))
                || is(name, "x-forwarded-client-cert")
                || formats.replaces(name, propagation)
        });
    }
    Context {
        dtab,
        refused,
        trace,
        formats,
        sample_rate,
        deadline,
        hops,
    }
}

/// Headers that this hop takes off, and those that it writes itself. Others that begin with `l5d-` pass.
fn is_ours(name: &[u8], readable_deadline: bool) -> bool {
    const OURS: [&str; 8] = [
        "l5d-dtab",
        "l5d-ctx-dtab",
        "l5d-ctx-trace",
        "l5d-sample",
        "l5d-reqid",
        "l5d-dst-service",
        "l5d-dst-client",
        "l5d-dst-residual",
    ];
    OURS.iter().any(|ours| is(name, ours)) || (readable_deadline && is(name, "l5d-ctx-deadline"))
}

/// Whether the name begins with `l5d-`.
pub(crate) fn is_l5d(name: &[u8]) -> bool {
    name.len() > 4 && is_same(&name[..4], b"l5d-")
}

fn is(name: &[u8], known: &str) -> bool {
    is_same(name, known.as_bytes())
}

/// The request's own dtab: all `l5d-ctx-dtab`, then all `l5d-dtab`.
fn own_dtab(head: &RequestHead) -> Result<Dtab, RouteError> {
    let mut all = Dtab::empty();
    for header in ["l5d-ctx-dtab", "l5d-dtab"] {
        for value in head.values(header) {
            let bad = |report: String| RouteError::BadDtab {
                header,
                report: report.into(),
            };
            let text = std::str::from_utf8(value).map_err(|error| bad(error.to_string()))?;
            let one = Dtab::read(text).map_err(|error| bad(error.report(text).to_string()))?;
            all = all.concat(&one);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    fn head(fields: &str) -> RequestHead {
        let mut head = RequestHead::new();
        head.parse(
            format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes(),
            &Limits::default(),
        )
        .unwrap();
        head
    }

    fn names(head: &RequestHead) -> Vec<String> {
        head.iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn the_users_dtab_comes_behind_the_one_that_travels() {
        let mut head =
            head("l5d-dtab: /a => /c\r\nL5d-Ctx-Dtab: /a => /b\r\nl5d-dtab: /a => /d\r\n");
        let context = take(&mut head, TracePropagator::Default, false);
        assert_eq!(context.dtab.to_string(), "/a=>/b;/a=>/c;/a=>/d");
        assert_eq!(names(&head), ["Host"]);
    }

    #[test]
    fn a_bad_dtab_is_refused_with_its_header() {
        let error = take(
            &mut head("l5d-dtab: /a = /b\r\n"),
            TracePropagator::Default,
            false,
        )
        .refused
        .unwrap();
        assert!(
            matches!(
                error,
                RouteError::BadDtab {
                    header: "l5d-dtab",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_ours_passes() {
        let mut head =
            head("l5d-ctx-foo: 1\r\nl5d-dst-client: /fake\r\nl5d-reqid: 1\r\nx-b3-odd: 2\r\n");
        take(&mut head, TracePropagator::Default, false);
        assert_eq!(names(&head), ["Host", "l5d-ctx-foo", "x-b3-odd"]);
    }

    #[test]
    fn clearing_leaves_no_spelling_of_any_of_them() {
        let mut head = head(
            "L5D-dtab: broken\r\nl5d-ctx-foo: 1\r\nl5D-Other: 1\r\nl5d-ctx-deadline: 1 2\r\nx: 1\r\n",
        );
        let context = take(&mut head, TracePropagator::Default, true);
        assert_eq!(names(&head), ["Host", "x"]);
        assert!(context.dtab.is_empty() && context.deadline.is_none() && context.trace.is_none());
    }

    #[test]
    fn the_strictest_deadline_counts_and_one_that_cannot_be_read_passes() {
        let mut both = head("l5d-ctx-deadline: 10 90\r\nl5d-ctx-deadline: 20 80\r\n");
        let context = take(&mut both, TracePropagator::Default, false);
        assert_eq!(
            context.deadline,
            Some(Deadline {
                since: 20,
                until: 80
            })
        );
        assert_eq!(names(&both), ["Host"]);
        let mut junk = head("l5d-ctx-deadline: junk\r\n");
        assert_eq!(
            take(&mut junk, TracePropagator::Default, false).deadline,
            None
        );
        assert_eq!(names(&junk), ["Host", "l5d-ctx-deadline"]);
    }

    #[test]
    fn hops_are_counted_over_all_via_lines() {
        let mut head = head("Via: 1.1 a, 1.1 b\r\nvia: 1.0 c\r\n");
        assert_eq!(take(&mut head, TracePropagator::Default, false).hops, 3);
    }
}
