//! Answers that the router makes itself: every one has a code, a reason and, where a name was followed, the way it went.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dtab::Path;
use naming::{Cause, Delegation};
use telemetry::code::Code;

use crate::http1::{
    BodyError, HeadError, RequestHead, Version, write_response, write_response_head,
};
use crate::identify::NotIdentified;
use crate::pool::NoPlace;
use crate::tls::TlsFailure;

/// Why a request was not answered by its service.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// RT-E100
    #[error("Unknown destination: {request} / {reason}")]
    NotIdentified {
        /// Method, target and sender.
        request: Box<str>,
        /// What is missing.
        reason: NotIdentified,
    },
    /// RT-E101 to RT-E105, RT-E116, RT-E117: the name leads to no endpoint.
    #[error("{path} leads to no endpoint: {}\n{}{}", why(cause), delegation.as_ref().map(|way| way.steps()).unwrap_or_default(), meant(near))]
    Unbound {
        /// The name.
        path: Path,
        /// Why.
        cause: Cause,
        /// The way it went; none when the interpreter cannot show it.
        delegation: Option<Box<Delegation>>,
        /// The name that was meant, perhaps.
        near: Option<Path>,
    },
    /// RT-E103
    #[error(
        "{path} was not bound within {limit:?} (bindingTimeoutMs): no answer yet from {waiting_for}"
    )]
    BindTimeout {
        /// The name.
        path: Path,
        /// As configured.
        limit: Duration,
        /// What was waited for.
        waiting_for: Box<str>,
    },
    /// RT-E110
    #[error(
        "Unable to establish connection to {endpoint}: {error}\nservice name: {path}\nclient name: {id}"
    )]
    Refused {
        /// The last endpoint that was tried.
        endpoint: SocketAddr,
        /// What the system said.
        error: std::io::Error,
        /// The name.
        path: Path,
        /// The bound name.
        id: Path,
    },
    /// RT-E111
    #[error(
        "no connection to {endpoint} within {limit:?} (connectTimeoutMs)\nservice name: {path}\nclient name: {id}"
    )]
    ConnectTimeout {
        /// The last endpoint that was tried.
        endpoint: SocketAddr,
        /// As configured.
        limit: Duration,
        /// The name.
        path: Path,
        /// The bound name.
        id: Path,
    },
    /// RT-E112
    #[error("exceeded {}.milliseconds to {to} while waiting for a response for {what}", limit.as_millis())]
    Timeout {
        /// As configured.
        limit: Duration,
        /// The bound name, or the service.
        to: Path,
        /// Which timeout: "an individual request, excluding retries" …
        what: &'static str,
    },
    /// RT-E115
    #[error(
        "Maximum number of calls ({limit}) has been exceeded. Please check for proxy loops. (maxCallDepth; Via has {found} entries)"
    )]
    Loop {
        /// As configured.
        limit: usize,
        /// Entries found.
        found: usize,
    },
    /// RT-E118
    #[error("the {header} header is not a dtab: {report}")]
    BadDtab {
        /// Which header.
        header: &'static str,
        /// The spot, with a hint.
        report: Box<str>,
    },
    /// RT-E119
    #[error("{path} leads to {endpoint}, which is {what}")]
    Forbidden {
        /// The name.
        path: Path,
        /// Where it leads.
        endpoint: SocketAddr,
        /// Why that must not be.
        what: &'static str,
    },
    /// RT-E121, RT-E122
    #[error("{0}")]
    BadHead(HeadError),
    /// RT-E121, RT-E122
    #[error("the request's body is refused: {0}")]
    BadBody(BodyError),
    /// RT-E121
    #[error("Invalid value for Max-Forwards header: one whole number, 0 or more, was expected")]
    MaxForwards,
    /// RT-E123
    #[error("{0}")]
    TooSlow(&'static str),
    /// RT-E124
    #[error(
        "more than {0} requests at once (maxConcurrentRequests); it was not processed and is safe to repeat"
    )]
    TooMany(u32),
    /// RT-E125
    #[error("CONNECT {target}: {}", refused_ports(allowed))]
    Connect {
        /// What was asked for.
        target: Box<str>,
        /// As configured.
        allowed: Vec<u16>,
    },
    /// RT-E126; nothing can be answered.
    #[error("the client went away before it was answered")]
    ClientGone,
    /// RT-E127
    #[error(
        "this listener speaks TLS, and plain HTTP came: send to https:// here, or to another port"
    )]
    PlainToTls,
    /// RT-E131
    #[error("{endpoint} closed the connection before its response{}: the request was {}\nservice name: {path}\nclient name: {id}",
        error.as_ref().map(|error| format!(": {error}")).unwrap_or_default(), if *unsent { "not sent" } else { "maybe sent" })]
    Closed {
        /// The endpoint.
        endpoint: SocketAddr,
        /// What the system said, if anything.
        error: Option<std::io::Error>,
        /// The name.
        path: Path,
        /// The bound name.
        id: Path,
        /// The request's head was not wholly handed to the connection.
        unsent: bool,
    },
    /// RT-E133
    #[error(
        "the response of {endpoint} cannot be passed on: {error}\nservice name: {path}\nclient name: {id}"
    )]
    BadResponse {
        /// The endpoint.
        endpoint: SocketAddr,
        /// What is wrong with it.
        error: HeadError,
        /// The name.
        path: Path,
        /// The bound name.
        id: Path,
    },
    /// RT-E135
    #[error("no connection to {endpoint}: {why}\nservice name: {path}\nclient name: {id}")]
    NoPlace {
        /// The endpoint.
        endpoint: SocketAddr,
        /// Which limit.
        why: NoPlace,
        /// The name.
        path: Path,
        /// The bound name.
        id: Path,
    },
    /// RT-E134
    #[error("no TLS with {endpoint}: {failure}\nservice name: {path}\nclient name: {id}")]
    Tls {
        /// The endpoint.
        endpoint: SocketAddr,
        /// Which check, and what was found.
        failure: TlsFailure,
        /// The name.
        path: Path,
        /// The bound name.
        id: Path,
    },
    /// RT-E113, RT-E114: added to a failure, which keeps its own code.
    #[error("{error}\n{code} {}: {note}", code.title())]
    Noted {
        /// The failure.
        error: Box<RouteError>,
        /// What is added.
        code: Code,
        /// In more words.
        note: String,
    },
}

impl RouteError {
    /// Its code in the catalogue.
    pub fn code(&self) -> Code {
        match self {
            Self::NotIdentified { .. } => Code::E100,
            Self::Unbound { cause, .. } => code_of(cause),
            Self::BindTimeout { .. } => Code::E103,
            Self::Refused { .. } => Code::E110,
            Self::ConnectTimeout { .. } => Code::E111,
            Self::Timeout { .. } => Code::E112,
            Self::Loop { .. } => Code::E115,
            Self::BadDtab { .. } => Code::E118,
            Self::Forbidden { .. } => Code::E119,
            Self::BadHead(error) if error.is_limit() => Code::E122,
            Self::BadBody(error) if error.is_limit() => Code::E122,
            Self::BadHead(_) | Self::BadBody(_) | Self::MaxForwards => Code::E121,
            Self::TooSlow(_) => Code::E123,
            Self::TooMany(_) => Code::E124,
            Self::Connect { .. } => Code::E125,
            Self::ClientGone => Code::E126,
            Self::PlainToTls => Code::E127,
            Self::Closed { .. } => Code::E131,
            Self::BadResponse { .. } => Code::E133,
            Self::Tls { .. } => Code::E134,
            Self::NoPlace { .. } => Code::E135,
            Self::Noted { error, .. } => error.code(),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadHead(error) => error.status(),
            Self::BadBody(error) => error.status(),
            Self::Noted { error, .. } => error.status(),
            _ => self.code().status().unwrap_or(502),
        }
    }

    /// Whether the request surely was not processed, so that whoever sent it may send it again.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Noted { error, .. } => error.retryable(),
            Self::TooMany(_) => true,
            _ => matches!(self, Self::Closed { unsent: true, .. }),
        }
    }

    /// Whether the connection cannot be used any further: what follows in it is not known.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadHead(_) | Self::BadBody(_) | Self::TooSlow(_) | Self::ClientGone
        )
    }

    /// What stands behind `failures/` in Linkerd's tree.
    pub(crate) fn exception(&self) -> &'static str {
        self.code().as_str()
    }
}

/// Codes of answers that a router gives when it found nobody to send the request to.
const UNSENT: [Code; 5] = [Code::E104, Code::E105, Code::E110, Code::E111, Code::E135];

/// Whether an answer's `l5d-err` is another rutter's that surely sent the request to nobody. Linkerd 1 has no header for
/// that: its `l5d-retryable` is absent there.
pub(crate) fn says_unsent(l5d_err: &[u8]) -> bool {
    let code = |code: &Code| l5d_err.starts_with(code.as_str().as_bytes());
    UNSENT.iter().any(code)
}

fn meant(near: &Option<Path>) -> String {
    let line = |path| format!("\nDid you mean {path} ?");
    near.as_ref().map_or_else(String::new, line)
}

fn refused_ports(allowed: &[u16]) -> String {
    let ports: Vec<_> = allowed.iter().map(u16::to_string).collect();
    match ports.is_empty() {
        true => "this server makes no tunnels (its connectPorts is empty)".into(),
        false => format!(
            "this server makes tunnels to port {} alone (connectPorts)",
            ports.join(", ")
        ),
    }
}

/// A cause in a few words.
fn why(cause: &Cause) -> String {
    match cause {
        Cause::Neg => "nobody knows this name".into(),
        Cause::Fail => "a rule says `!`".into(),
        Cause::Empty => "a rule says `$`".into(),
        Cause::AddrNeg => "a transformer left no address".into(),
        Cause::AddrEmpty => "it has no endpoint that is ready".into(),
        Cause::AddrFailed(error) => format!("its addresses are not to be had: {error}"),
        Cause::Pending { waiting_for } => format!("no answer yet from {waiting_for}"),
        Cause::TooDeep => "the rules lead round in a circle, or too far".into(),
        Cause::Budget => "the rules branch again and again".into(),
        Cause::Failed(error) => error.to_string(),
    }
}

fn code_of(cause: &Cause) -> Code {
    match cause {
        Cause::Neg => Code::E101,
        Cause::Fail => Code::E102,
        Cause::Pending { .. } => Code::E103,
        Cause::AddrNeg => Code::E104,
        Cause::Empty | Cause::AddrEmpty => Code::E105,
        Cause::TooDeep | Cause::Budget => Code::E116,
        Cause::AddrFailed(_) | Cause::Failed(_) => Code::E117,
    }
}

/// Longest text in `l5d-err`, before it is encoded.
const HEADER_TEXT: usize = 512;
/// Longest text in a body.
const BODY_TEXT: usize = 32 * 1024;

/// Who answers.
pub(crate) struct Answering<'a> {
    pub(crate) router: &'a str,
    pub(crate) node: &'a str,
    /// Say nothing of the inside (`clearContext`).
    pub(crate) terse: bool,
    pub(crate) close: bool,
}

/// Writes the answer to an error. `head` is the request's, when it could be read.
pub(crate) fn to_error(
    out: &mut Vec<u8>,
    error: &RouteError,
    who: &Answering<'_>,
    head: Option<&RequestHead>,
) {
    let status = error.status();
    let version = head.map_or(Version::Http11, RequestHead::version);
    let json = head
        .and_then(|head| head.get("Accept"))
        .is_some_and(|accept| {
            accept
                .windows(16)
                .any(|part| part.eq_ignore_ascii_case(b"application/json"))
        });
    let body = match (who.terse, json) {
        (true, _) => String::new(),
        (false, true) => to_json(error, who),
        (false, false) => to_text(error, who, head),
    };
    let err = url_encoded(&shortened(
        &format!("{} {}", error.code(), one_line(&error.to_string())),
        HEADER_TEXT,
    ));
    let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(5);
    if !who.terse {
        headers.push(("l5d-err", err.as_bytes()));
        if error.retryable() {
            headers.push(("l5d-retryable", b"true"));
        }
        headers.push((
            "Content-Type",
            if json {
                b"application/json"
            } else {
                b"text/plain"
            },
        ));
    }
    if matches!(error, RouteError::TooMany(_)) {
        // What Finagle says, and understands.
        headers.push(("finagle-http-nack", b"true"));
        headers.push(("Retry-After", b"0"));
    }
    if who.close {
        headers.push(("Connection", b"close"));
    }
    let to_head = head.is_some_and(|head| head.method() == b"HEAD");
    if to_head {
        write_response_head(
            out,
            version,
            status,
            reason(status),
            &headers,
            Some(body.len() as u64),
        );
    } else {
        write_response(
            out,
            version,
            status,
            reason(status),
            &headers,
            body.as_bytes(),
        );
    }
}

fn to_text(error: &RouteError, who: &Answering<'_>, head: Option<&RequestHead>) -> String {
    let code = error.code();
    let at = format!("(router {}, {}{})", who.router, node(who.node), clock());
    let mut text = format!("rutter: {code} {:<48} {at}\n\n", code.title());
    for line in shortened(&error.to_string(), BODY_TEXT).lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("\n  More: ");
    if let Some(host) = head
        .and_then(|head| head.get("Host"))
        .filter(|_| matches!(error, RouteError::Unbound { .. }))
    {
        text.push_str(&format!("rutter why http://{}      ", printable(host)));
    }
    text.push_str(&format!("rutter explain {code}\n"));
    text
}

fn to_json(error: &RouteError, who: &Answering<'_>) -> String {
    let code = error.code();
    let value = serde_json::json!({
        "schema": "rutter/error/v1",
        "code": code.as_str(),
        "title": code.title(),
        "status": error.status(),
        "detail": shortened(&error.to_string(), BODY_TEXT),
        "router": who.router,
        "node": who.node,
    });
    format!("{value}\n")
}

fn node(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!("node {name}, ")
    }
}

/// The time of day, as `02:03:04Z`.
fn clock() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
        % 86_400;
    format!(
        "{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(200)
        .map(|&b| {
            if b.is_ascii_graphic() {
                char::from(b)
            } else {
                '?'
            }
        })
        .collect()
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" / ")
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// As Java's `URLEncoder`, which Linkerd 1 uses: blank is `+`, letters, digits and `.-*_` stay.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The usual phrase for a status.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    fn answer(error: &RouteError, fields: &str, method: &str) -> String {
        let mut head = RequestHead::new();
        let text = format!("{method} / HTTP/1.1\r\nHost: web\r\n{fields}\r\n");
        head.parse(text.as_bytes(), &Limits::default()).unwrap();
        let mut out = Vec::new();
        let who = Answering {
            router: "outgoing",
            node: "n1",
            terse: false,
            close: false,
        };
        to_error(&mut out, error, &who, Some(&head));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn code_reason_and_what_to_do_stand_in_body_and_header() {
        let text = answer(
            &RouteError::Loop {
                limit: 32,
                found: 40,
            },
            "",
            "GET",
        );
        assert!(
            text.starts_with("HTTP/1.1 400 Bad Request\r\nl5d-err: RT-E115+Maximum+number"),
            "{text}"
        );
        assert!(text.contains("rutter: RT-E115 "), "{text}");
        assert!(text.contains("(router outgoing, node n1, "), "{text}");
        assert!(text.contains("rutter explain RT-E115"), "{text}");
    }

    #[test]
    fn json_for_those_who_accept_it_and_no_body_for_head() {
        let error = RouteError::Loop {
            limit: 32,
            found: 40,
        };
        let text = answer(&error, "Accept: application/json\r\n", "GET");
        assert!(text.contains("\"code\":\"RT-E115\""), "{text}");
        let text = answer(&error, "", "HEAD");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert!(!text.contains("Content-Length: 0\r\n"), "{text}");
    }

    #[test]
    fn a_terse_answer_says_nothing_of_the_inside() {
        let mut out = Vec::new();
        let who = Answering {
            router: "edge",
            node: "",
            terse: true,
            close: true,
        };
        to_error(
            &mut out,
            &RouteError::Loop { limit: 1, found: 2 },
            &who,
            None,
        );
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_header_is_encoded_as_java_does() {
        assert_eq!(url_encoded("a b/c\n%é"), "a+b%2Fc%0A%25%C3%A9");
    }
}
