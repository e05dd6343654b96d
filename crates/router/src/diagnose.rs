//! TRACE as Linkerd 1 has it: `Max-Forwards` says how many routers it passes, and with `l5d-add-context: true` each of
//! them adds to the answer how it routed the request. A TRACE with neither is a request like any other.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use dtab::Path;
use naming::Delegation;

use crate::http1::{Method, RequestHead};
use crate::respond::RouteError;

/// What becomes of a request in this regard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// It is a request like any other.
    #[default]
    None,
    /// It goes on, and the answer is told how.
    Tell,
    /// It ends here; whether its answer says how it would have gone on.
    End(bool),
}

/// Reads `Max-Forwards` and `l5d-add-context` of a TRACE, and counts the former down.
pub(crate) fn diagnose(head: &mut RequestHead) -> Result<Diagnosis, RouteError> {
    if !head.is_method(Method::Trace) {
        return Ok(Diagnosis::None);
    }
    let tell = head
        .get("l5d-add-context")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"true"));
    let Some(forwards) = head.get("Max-Forwards") else {
        return Ok(if tell {
            Diagnosis::Tell
        } else {
            Diagnosis::None
        });
    };
    let number = std::str::from_utf8(forwards)
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|_| head.count("Max-Forwards") == 1);
    match number {
        None => Err(RouteError::MaxForwards),
        Some(0) => Ok(Diagnosis::End(tell)),
        Some(left) => {
            head.set("Max-Forwards", (left - 1).to_string().as_bytes());
            Ok(if tell {
                Diagnosis::Tell
            } else {
                Diagnosis::None
            })
        }
    }
}

/// How a request was routed.
pub(crate) struct Way<'a> {
    pub(crate) router: &'a str,
    pub(crate) took: Duration,
    pub(crate) service: &'a Path,
    pub(crate) client: &'a Path,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) selected: Option<SocketAddr>,
    pub(crate) delegation: Option<Delegation>,
}

impl Way<'_> {
    /// The lines that Linkerd 1's `RouterContextFormatter` makes.
    pub(crate) fn text(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let selected = self.selected.map(|addr| addr.to_string());
        let mut text = format!(
            "--- Router: {} ---\nrequest duration: {} ms\nservice name: {}\nclient name: {}\naddresses: [{}]\nselected address: {}\ndtab resolution:\n",
            self.router,
            self.took.as_millis(),
            self.service,
            self.client,
            addresses.join(", "),
            selected.unwrap_or_default(),
        );
        let steps = self.delegation.as_ref().map(Delegation::steps);
        for line in steps.unwrap_or_default().lines() {
            _ = writeln!(text, "  {}", line.trim());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    #[test]
    fn max_forwards_and_add_context_decide_as_in_linkerds_table() {
        for (method, fields, want, left) in [
            ("TRACE", "", Some(Diagnosis::None), None),
            ("TRACE", "Max-Forwards: x\r\n", None, None),
            ("TRACE", "Max-Forwards: -1\r\n", None, None),
            (
                "TRACE",
                "Max-Forwards: 1\r\nMax-Forwards: 0\r\n",
                None,
                None,
            ),
            (
                "TRACE",
                "Max-Forwards: 0\r\n",
                Some(Diagnosis::End(false)),
                Some("0"),
            ),
            (
                "TRACE",
                "Max-Forwards: 0\r\nl5d-add-context: false\r\n",
                Some(Diagnosis::End(false)),
                Some("0"),
            ),
            (
                "TRACE",
                "Max-Forwards: 0\r\nl5d-add-context: true\r\n",
                Some(Diagnosis::End(true)),
                Some("0"),
            ),
            (
                "TRACE",
                "Max-Forwards: 5\r\n",
                Some(Diagnosis::None),
                Some("4"),
            ),
            (
                "TRACE",
                "Max-Forwards: 5\r\nl5d-add-context: TRUE\r\n",
                Some(Diagnosis::Tell),
                Some("4"),
            ),
            (
                "TRACE",
                "l5d-add-context: true\r\n",
                Some(Diagnosis::Tell),
                None,
            ),
            (
                "GET",
                "Max-Forwards: 0\r\nl5d-add-context: true\r\n",
                Some(Diagnosis::None),
                Some("0"),
            ),
        ] {
            let mut head = RequestHead::new();
            let text = format!("{method} / HTTP/1.1\r\nHost: web\r\n{fields}\r\n");
            head.parse(text.as_bytes(), &Limits::default()).unwrap();
            let found = diagnose(&mut head);
            assert_eq!(found.as_ref().ok(), want.as_ref(), "{method} {fields}");
            if found.is_ok() {
                assert_eq!(
                    head.get("Max-Forwards"),
                    left.map(str::as_bytes),
                    "{fields}"
                );
            }
        }
    }
}
