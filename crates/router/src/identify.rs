//! Which name a request gets: `Host: web` becomes `/svc/web`.

use dtab::{Path, Segment};

use crate::http1::{RequestHead, TargetForm, Version};
use crate::settings::IdentifierSettings;

/// A name in the making: its segments' bytes, in a buffer that is used again. Doubles as the key of the worker's cache.
#[derive(Debug, Default)]
pub struct Identified {
    /// Each segment with its length before it.
    key: Vec<u8>,
    /// Segments of the request's path that the identifier used up (`io.l5d.path` with `consume`).
    consumed: usize,
}

/// Why a request has no name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIdentified {
    /// The header that has the name is not there, or empty.
    #[error("{0} header is absent")]
    NoHeader(Box<str>),
    /// Fewer segments than `io.l5d.path` needs.
    #[error("not enough segments in path: {wanted} wanted, {found} found in {path:?}")]
    TooFewSegments {
        /// As configured.
        wanted: usize,
        /// In the request.
        found: usize,
        /// The request's path.
        path: Box<str>,
    },
    /// `io.l5d.methodAndHost` on HTTP/1.1.
    #[error("HTTP/1.1 request missing hostname")]
    NoHostname,
    /// A header that should hold a path holds something else.
    #[error("the {header} header is not a path: {error}")]
    NotAPath {
        /// The header.
        header: Box<str>,
        /// The parser's message.
        error: Box<str>,
    },
}

impl Identified {
    fn push(&mut self, segment: &[u8]) {
        self.key
            .extend_from_slice(&(segment.len() as u32).to_le_bytes());
        self.key.extend_from_slice(segment);
    }

    fn push_path(&mut self, path: &Path) {
        for segment in path.segments() {
            self.push(segment.as_bytes());
        }
    }

    /// The key: equal for equal names.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn consumed(&self) -> usize {
        self.consumed
    }

    /// The name itself.
    pub fn path(&self) -> Path {
        let mut path = Path::root();
        let mut rest = &self.key[..];
        while let Some((len, more)) = rest.split_first_chunk::<4>() {
            let (segment, more) = more.split_at(u32::from_le_bytes(*len) as usize);
            if let Some(segment) = Segment::new(segment) {
                path = path.child(segment);
            }
            rest = more;
        }
        path
    }
}

/// Names a request into `name`: the first identifier that fits; else the reason of the last one.
pub fn identify_head(
    identifiers: &[IdentifierSettings],
    prefix: &Path,
    head: &RequestHead,
    name: &mut Identified,
) -> Result<(), NotIdentified> {
    let mut reason = None;
    for identifier in identifiers {
        name.key.clear();
        name.consumed = 0;
        name.push_path(prefix);
        match one(identifier, head, name) {
            Ok(()) => return Ok(()),
            Err(error) => reason = Some(error),
        }
    }
    Err(reason.unwrap_or_else(|| NotIdentified::NoHeader("Host".into())))
}

fn one(
    identifier: &IdentifierSettings,
    head: &RequestHead,
    name: &mut Identified,
) -> Result<(), NotIdentified> {
    match identifier {
        IdentifierSettings::HeaderToken { header } => {
            let value = header_or_authority(head, header)?;
            name.push(value);
        }
        IdentifierSettings::Header { header } => {
            let value = header_or_authority(head, header)?;
            let not_a_path = |error: String| NotIdentified::NotAPath {
                header: (&**header).into(),
                error: error.into(),
            };
            let text = std::str::from_utf8(value).map_err(|error| not_a_path(error.to_string()))?;
            let path = Path::read(text).map_err(|error| not_a_path(error.to_string()))?;
            name.push_path(&path);
        }
        IdentifierSettings::MethodAndHost { uri_in_dst } => {
            match head.version() {
                Version::Http10 => {
                    name.push(b"1.0");
                    name.push(head.method());
                }
                Version::Http11 => {
                    let host =
                        header_or_authority(head, "Host").map_err(|_| NotIdentified::NoHostname)?;
                    name.push(b"1.1");
                    name.push(head.method());
                    name.push(&host.to_ascii_lowercase());
                }
            }
            if *uri_in_dst {
                for segment in path_segments(head.target()) {
                    name.push(segment);
                }
            }
        }
        IdentifierSettings::Path { segments, consume } => {
            let found = path_segments(head.target()).take(*segments).count();
            if found < *segments {
                let path = String::from_utf8_lossy(path_of(head.target())).into();
                return Err(NotIdentified::TooFewSegments {
                    wanted: *segments,
                    found,
                    path,
                });
            }
            for segment in path_segments(head.target()).take(*segments) {
                name.push(segment);
            }
            name.consumed = if *consume { *segments } else { 0 };
        }
        IdentifierSettings::Static { path } => name.push_path(path),
    }
    Ok(())
}

/// The header's value; for `Host` of a CONNECT also the authority it asks for.
fn header_or_authority<'a>(head: &'a RequestHead, header: &str) -> Result<&'a [u8], NotIdentified> {
    match head.get(header).map(<[u8]>::trim_ascii) {
        Some(value) if !value.is_empty() => Ok(value),
        _ if header.eq_ignore_ascii_case("host") && head.target_form() == TargetForm::Authority => {
            Ok(head.target())
        }
        _ => Err(NotIdentified::NoHeader(header.into())),
    }
}

/// The target without its query.
fn path_of(target: &[u8]) -> &[u8] {
    let end = target
        .iter()
        .position(|&b| b == b'?' || b == b'#')
        .unwrap_or(target.len());
    &target[..end]
}

/// The segments of the target's path; empty ones (`//`, a slash at the end) are none.
fn path_segments(target: &[u8]) -> impl Iterator<Item = &[u8]> {
    path_of(target)
        .split(|&b| b == b'/')
        .filter(|segment| !segment.is_empty())
}

/// The target without the first `n` segments of its path; what is left begins with a slash, query and trailing slash
/// stay.
pub(crate) fn without_segments(target: &[u8], n: usize) -> Vec<u8> {
    let path = path_of(target);
    let mut at = 0;
    for _ in 0..n {
        at += path[at..].iter().take_while(|&&b| b == b'/').count();
        at += path[at..].iter().take_while(|&&b| b != b'/').count();
    }
    let mut rest = Vec::with_capacity(target.len() - at + 1);
    if path.get(at) != Some(&b'/') {
        rest.push(b'/');
    }
    rest.extend_from_slice(&target[at..]);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Limits, Parsed};

    fn head(text: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let parsed = head.parse(text.as_bytes(), &Limits::default()).unwrap();
        assert!(matches!(parsed, Parsed::Complete { .. }));
        head
    }

    fn name(identifier: IdentifierSettings, text: &str) -> Result<String, String> {
        let mut name = Identified::default();
        identify_head(&[identifier], &Path::utf8(["svc"]), &head(text), &mut name)
            .map(|()| name.path().to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_identifier_names_as_linkerd_does() {
        let token = || IdentifierSettings::HeaderToken {
            header: "Host".into(),
        };
        let method = |uri_in_dst| IdentifierSettings::MethodAndHost { uri_in_dst };
        let path = |segments| IdentifierSettings::Path {
            segments,
            consume: false,
        };
        for (identifier, text, want) in [
            (
                token(),
                "GET / HTTP/1.1\r\nHost: Foo:8080\r\n\r\n",
                "/svc/Foo:8080",
            ),
            (
                token(),
                "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n",
                "/svc/web:443",
            ),
            (
                method(false),
                "PUT /a HTTP/1.1\r\nHost: Foo\r\n\r\n",
                "/svc/1.1/PUT/foo",
            ),
            (
                method(true),
                "PUT /a/b?c HTTP/1.1\r\nHost: Foo\r\n\r\n",
                "/svc/1.1/PUT/foo/a/b",
            ),
            (
                method(false),
                "GET / HTTP/1.0\r\nHost: Foo\r\n\r\n",
                "/svc/1.0/GET",
            ),
            (
                path(2),
                "GET /a/b/c?q HTTP/1.1\r\nHost: h\r\n\r\n",
                "/svc/a/b",
            ),
            (
                IdentifierSettings::Static {
                    path: Path::utf8(["x", "y"]),
                },
                "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
                "/svc/x/y",
            ),
            (
                IdentifierSettings::Header {
                    header: "l5d-name".into(),
                },
                "GET / HTTP/1.1\r\nHost: h\r\nL5D-Name: /a/b\r\n\r\n",
                "/svc/a/b",
            ),
        ] {
            assert_eq!(name(identifier, text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn a_slash_at_the_end_of_a_path_is_no_segment() {
        let path = |segments| IdentifierSettings::Path {
            segments,
            consume: false,
        };
        let text = "GET /foo/?x=1 HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(name(path(1), text).as_deref(), Ok("/svc/foo"));
        let error = name(path(2), text).unwrap_err();
        assert!(error.contains("2 wanted, 1 found"), "{error}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let token = IdentifierSettings::HeaderToken {
            header: "X-Svc".into(),
        };
        assert_eq!(
            name(token, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap_err(),
            "X-Svc header is absent"
        );
        let path = IdentifierSettings::Path {
            segments: 2,
            consume: true,
        };
        let error = name(path, "GET /a?b/c HTTP/1.1\r\nHost: h\r\n\r\n").unwrap_err();
        assert_eq!(
            error,
            "not enough segments in path: 2 wanted, 1 found in \"/a\""
        );
        let header = IdentifierSettings::Header {
            header: "l5d-name".into(),
        };
        let error = name(header, "GET / HTTP/1.1\r\nHost: h\r\nl5d-name: web\r\n\r\n").unwrap_err();
        assert!(
            error.starts_with("the l5d-name header is not a path: "),
            "{error}"
        );
    }

    #[test]
    fn consumed_segments_leave_the_rest_as_it_was() {
        for (target, n, want) in [
            ("/a/b?x=1", 1, "/b?x=1"),
            ("/a?x=1", 1, "/?x=1"),
            ("/a/", 1, "/"),
            ("/a", 1, "/"),
            ("/a/b/", 1, "/b/"),
            ("/a/b/c", 2, "/c"),
        ] {
            assert_eq!(
                String::from_utf8(without_segments(target.as_bytes(), n)).unwrap(),
                want,
                "{target}"
            );
        }
    }
}
