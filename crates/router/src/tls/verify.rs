//! Whether an endpoint is who its name says: as webpki decides it, and in two ways as Java, and so Linkerd 1, does: a
//! certificate that has no alternative names at all is for the common name of its subject, and a certificate that stands in
//! the list of those that are trusted needs nobody's signature.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks the signatures up to a trusted authority, the time and the name.
#[derive(Debug)]
pub(super) struct EndpointVerifier {
    roots: Arc<RootCertStore>,
    /// Trusted as they are.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl EndpointVerifier {
    pub(super) fn new(
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            roots: Arc::new(roots),
            pinned,
            algorithms,
        }
    }

    fn signed(
        &self,
        parsed: &ParsedCertificate<'_>,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let signed = verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        );
        match signed {
            Err(Error::InvalidCertificate(_)) if self.pinned.iter().any(|one| one == own) => {
                in_time(own, now)
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(own)?;
        self.signed(&parsed, own, intermediates, now)?;
        match verify_server_name(&parsed, name) {
            Err(Error::InvalidCertificate(_)) if is_common_name(own, name) => {}
            other => other?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// `disableValidation`: whoever answers. It must still have the key to what it shows.
#[derive(Debug)]
pub(super) struct AnyServer(pub(super) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _own: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn in_time(own: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, one) = X509Certificate::from_der(own)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (from, until) = (one.validity().not_before, one.validity().not_after);
    let wrong = match now {
        now if now < from.timestamp() => CertificateError::NotValidYet,
        now if now > until.timestamp() => CertificateError::Expired,
        _ => return Ok(()),
    };
    Err(Error::InvalidCertificate(wrong))
}

/// Whether the certificate has no alternative names, and this one as the common name of its subject.
fn is_common_name(own: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Ok((_, one)) = X509Certificate::from_der(own) else {
        return false;
    };
    let has_others = !matches!(one.subject_alternative_name(), Ok(None));
    // The most specific one stands last.
    let last = one.subject().iter_common_name().last();
    let last = last.and_then(|last| last.as_str().ok());
    let ServerName::DnsName(name) = name else {
        return false;
    };
    !has_others && last.is_some_and(|text| matches_name(text, name.as_ref()))
}

/// As RFC 6125: without regard to case, a `*` stands for the whole first label.
fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => name
            .split_once('.')
            .is_some_and(|(_, tail)| tail.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label_and_case_does_not_count() {
        for (pattern, name, want) in [
            ("web.test", "WEB.test", true),
            ("*.test", "web.test", true),
            ("*.test", "a.web.test", false),
            ("*.test", "test", false),
            ("web.test", "web.test.evil", false),
            ("w*.test", "web.test", false),
        ] {
            assert_eq!(matches_name(pattern, name), want, "{pattern} {name}");
        }
    }
}
