//! The four forms of a request's target (RFC 9112 3.2). Only what decides where a request goes is judged; path and
//! query are the endpoint's business.

use super::Method;

/// The form of a request's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`, as sent to a proxy.
    Absolute,
    /// `host:port`, for CONNECT only.
    Authority,
    /// `*`
    Asterisk,
}

/// The parts of a target in absolute form, as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsoluteForm<'a> {
    /// `http`, in any case.
    pub scheme: &'a [u8],
    /// `host` or `host:port`; never empty, and without user information.
    pub authority: &'a [u8],
    /// What is behind it: may be empty or begin with `?`.
    pub path_and_query: &'a [u8],
}

/// Takes a target in absolute form apart; `None` when it has another form, or no authority that a host could have.
#[must_use]
pub fn absolute_form(target: &[u8]) -> Option<AbsoluteForm<'_>> {
    let scheme = target
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        .count();
    if !target.first()?.is_ascii_alphabetic() || !target[scheme..].starts_with(b"://") {
        return None;
    }
    let rest = &target[scheme + 3..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    valid_authority(authority).then_some(AbsoluteForm {
        scheme: &target[..scheme],
        authority,
        path_and_query,
    })
}

/// Whether this may be the value of `Host`: a name or an address, and maybe a port. User information is refused
/// (RFC 9110 4.2.4), and so is every character by which one reader might see another host than the next one.
#[must_use]
pub fn valid_authority(authority: &[u8]) -> bool {
    let (host, port) = match authority
        .iter()
        .rposition(|byte| matches!(byte, b':' | b']'))
    {
        Some(at) if authority[at] == b':' => (&authority[..at], &authority[at + 1..]),
        _ => (authority, &b""[..]),
    };
    let host_is_valid = match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty()
                && inner
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b":.%-_~".contains(byte))
        }
        _ => {
            !host.is_empty()
                && host
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte))
        }
    };
    host_is_valid && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// The form of `target` in a request of this method; `None` when it has none.
pub(super) fn form_of(method: Method, target: &[u8]) -> Option<TargetForm> {
    if method == Method::Connect {
        return valid_authority(target).then_some(TargetForm::Authority);
    }
    match target {
        [b'/', ..] => Some(TargetForm::Origin),
        b"*" => Some(TargetForm::Asterisk),
        _ => absolute_form(target).map(|_| TargetForm::Absolute),
    }
}
