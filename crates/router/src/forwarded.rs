//! The `Forwarded` header (RFC 7239), as Linkerd 1's `addForwardedHeader` writes it.

use std::net::SocketAddr;

use crate::settings::{ForwardedLabel, ForwardedSettings};

/// Who is on the two ends, and what stays the same on a connection.
pub(crate) struct Ends<'a> {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) router: &'a str,
    /// Random, for the connection.
    pub(crate) connection: u64,
}

/// `by=…;for=…[;host=…][;proto=…]`.
pub(crate) fn value(
    settings: &ForwardedSettings,
    ends: &Ends<'_>,
    host: Option<&[u8]>,
    proto: Option<&str>,
) -> String {
    let by = label(&settings.by, ends.local, ends);
    let client = label(&settings.client, ends.peer, ends);
    let mut text = format!("by={by};for={client}");
    if let Some(host) = host {
        let host = String::from_utf8_lossy(host);
        text.push_str(&format!(";host={}", quoted(&host)));
    }
    if let Some(proto) = proto {
        text.push_str(&format!(";proto={proto}"));
    }
    text
}

fn label(label: &ForwardedLabel, addr: SocketAddr, ends: &Ends<'_>) -> String {
    match label {
        ForwardedLabel::Ip => match addr {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("\"[{}]\"", v6.ip()),
        },
        ForwardedLabel::IpPort => format!("\"{addr}\""),
        ForwardedLabel::ConnectionRandom => obfuscated(ends.connection),
        ForwardedLabel::RequestRandom => obfuscated(fastrand::u64(..)),
        ForwardedLabel::Router => underscored(ends.router),
        ForwardedLabel::Static(text) => underscored(text),
    }
}

/// An obfuscated identifier: `_` and six letters or digits.
fn obfuscated(mut seed: u64) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::from("_");
    for _ in 0..6 {
        text.push(char::from(LETTERS[(seed % 62) as usize]));
        seed /= 62;
    }
    text
}

fn underscored(text: &str) -> String {
    if text.starts_with('_') {
        text.to_owned()
    } else {
        format!("_{text}")
    }
}

/// As it is when it is a token, else in quotes.
fn quoted(text: &str) -> String {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !text.is_empty() && text.chars().all(token) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_is_written_as_linkerd_writes_it() {
        let ends = Ends {
            local: "192.0.2.1:80".parse().unwrap(),
            peer: "[2001:db8::1]:9".parse().unwrap(),
            router: "out",
            connection: 7,
        };
        for (by, client, want) in [
            (
                ForwardedLabel::Ip,
                ForwardedLabel::Ip,
                "by=192.0.2.1;for=\"[2001:db8::1]\"",
            ),
            (
                ForwardedLabel::IpPort,
                ForwardedLabel::Router,
                "by=\"192.0.2.1:80\";for=_out",
            ),
            (
                ForwardedLabel::Static("_x".into()),
                ForwardedLabel::Static("y".into()),
                "by=_x;for=_y",
            ),
        ] {
            assert_eq!(
                value(&ForwardedSettings { by, client }, &ends, None, None),
                want
            );
        }
        let settings = ForwardedSettings {
            by: ForwardedLabel::Router,
            client: ForwardedLabel::Router,
        };
        assert_eq!(
            value(&settings, &ends, Some(b"web:80"), Some("http")),
            "by=_out;for=_out;host=\"web:80\";proto=http"
        );
        assert_eq!(obfuscated(1).len(), 7);
    }
}
