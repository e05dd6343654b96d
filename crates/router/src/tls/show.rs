//! A client's certificate in words, for the service behind: the header `x-forwarded-client-cert`, as Linkerd 1 writes it.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Hash;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// `Hash=…;SAN=…;DNS=…;Subject="…"`: the alternative names in the certificate's order, the subject as RFC 2253. `None` for
/// what is no certificate.
pub(super) fn forwarded(der: &[u8]) -> Option<String> {
    let (_, one) = X509Certificate::from_der(der).ok()?;
    let hash = sha256()?.hash(der);
    let mut text = String::from("Hash=");
    for byte in hash.as_ref() {
        text.push_str(&format!("{byte:02X}"));
    }
    let names = one.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => text.push_str(&format!(";SAN={}", sound(uri))),
            GeneralName::DNSName(dns) => text.push_str(&format!(";DNS={}", sound(dns))),
            _ => {}
        }
    }
    let subject = subject(one.subject());
    if !subject.is_empty() {
        let quoted = subject.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!(";Subject=\"{}\"", sound(&quoted)));
    }
    Some(text)
}

/// See [`client_name`](super::client_name).
pub(super) fn name(der: &[u8]) -> Option<String> {
    let (_, one) = X509Certificate::from_der(der).ok()?;
    let names = one.subject_alternative_name().ok().flatten();
    let mut names = names.iter().flat_map(|names| &names.value.general_names);
    let first = names.find_map(|name| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let common = || {
        Some(
            one.subject()
                .iter_common_name()
                .next()?
                .as_str()
                .ok()?
                .to_owned(),
        )
    };
    first.or_else(common)
}

fn sha256() -> Option<&'static dyn Hash> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    Some(suite.common.hash_provider)
}

/// What may stand in a header; a certificate may hold anything.
fn sound(text: &str) -> String {
    let sound = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().map(sound).collect()
}

/// The last part first, without blanks.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |attributes: Vec<String>| attributes.join("+");
    let shown = parts.iter().rev();
    let shown = shown.map(|rdn| part(rdn.iter().map(attribute).collect()));
    shown.collect::<Vec<_>>().join(",")
}

fn attribute(one: &AttributeTypeAndValue<'_>) -> String {
    let oid = one.attr_type().to_id_string();
    let key = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        other => other,
    };
    format!("{key}={}", escaped(one.as_str().unwrap_or_default()))
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::new();
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && at == 0)
            || (c == ' ' && (at == 0 || at == last));
        if special {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_in_rfc_2253() {
        assert_eq!(escaped("Foo, Inc. "), "Foo\\, Inc.\\ ");
        assert_eq!(escaped("#1 a#b"), "\\#1 a#b");
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        assert_eq!(forwarded(b"no certificate"), None);
    }

    #[test]
    fn nothing_in_a_certificate_can_end_a_header() {
        assert_eq!(sound("a\r\nb: ä"), "a??b: ?");
    }
}
