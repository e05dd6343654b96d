//! What can be wrong with certificates: in files, and in a handshake.

use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError};

/// Why no TLS can be had of the configured files.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// A file that is not there, or may not be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Not PEM, or not the PEM that belongs there.
    #[error("{} has no {wanted} in PEM: {found}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// `certificate`, `private key`.
        wanted: &'static str,
        /// What is there instead.
        found: String,
    },
    /// PEM, but what is in it is no certificate or key that can be used.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The system has no list of authorities.
    #[error(
        "the system trusts no certificate authority: {reason}; name some with `trustCerts` or `trustCertsBundle`"
    )]
    NoSystemRoots {
        /// What was found.
        reason: String,
    },
    /// No version or cipher suite is left.
    #[error("these `protocols` and `ciphers` leave nothing to speak: {reason}")]
    NothingToSpeak {
        /// What rustls says.
        reason: String,
    },
}

/// Which check ended a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsCheck {
    /// Not signed by an authority that is trusted.
    Trust,
    /// For another name.
    Name,
    /// Expired, or not valid yet.
    Time,
    /// No version, cipher or protocol in common.
    Version,
    /// A client's certificate: missing, or not accepted.
    ClientCertificate,
    /// The other side does not speak TLS.
    NotTls,
    /// It was not done in time.
    Slow,
    /// The configuration says too little.
    Configuration,
    /// The connection broke, or the other side misbehaves.
    Broken,
}

impl TlsCheck {
    /// One word, for metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Name => "name",
            Self::Time => "time",
            Self::Version => "version",
            Self::ClientCertificate => "client_certificate",
            Self::NotTls => "not_tls",
            Self::Slow => "timeout",
            Self::Configuration => "configuration",
            Self::Broken => "broken",
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[error("{what} ({})", check.word())]
pub struct TlsFailure {
    /// Which check.
    pub check: TlsCheck,
    /// What was wanted and what was found.
    pub what: String,
}

impl TlsFailure {
    pub(crate) fn new(check: TlsCheck, what: impl Into<String>) -> Self {
        Self {
            check,
            what: what.into(),
        }
    }

    /// What a broken handshake's error means.
    pub(crate) fn of(error: &io::Error) -> Self {
        match rustls_error(error) {
            Some(error) => Self::new(check(error), say(error)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::new(
                TlsCheck::Broken,
                "the other side closed the connection in the middle of the handshake",
            ),
            None => Self::new(TlsCheck::Broken, error.to_string()),
        }
    }

    /// What a connection's end means if the peer ended it by an alert that is about certificates: with TLS 1.3 a client
    /// learns only after its first request that its certificate is not accepted.
    pub(crate) fn refusal(error: &io::Error) -> Option<Self> {
        match rustls_error(error) {
            Some(error @ rustls::Error::AlertReceived(_)) => {
                Some(Self::new(check(error), say(error)))
            }
            _ => None,
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn check(error: &rustls::Error) -> TlsCheck {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsCheck::Name
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsCheck::Time,
            _ => TlsCheck::Trust,
        },
        Error::NoCertificatesPresented => TlsCheck::ClientCertificate,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsCheck::Version,
        Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => TlsCheck::NotTls,
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => TlsCheck::ClientCertificate,
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::NoApplicationProtocol => TlsCheck::Version,
            AlertDescription::UnrecognisedName => TlsCheck::Name,
            _ => TlsCheck::Broken,
        },
        _ => TlsCheck::Broken,
    }
}

/// In words that say who found what.
fn say(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the other side's certificate is not signed by a trusted authority".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => {
            let presented = match presented.is_empty() {
                true => "none".to_owned(),
                false => presented.join(", "),
            };
            format!(
                "the other side's certificate is not for {}: its names are {presented}",
                expected.to_str()
            )
        }
        Error::InvalidCertificate(error) => format!("the other side's certificate: {error}"),
        Error::NoCertificatesPresented => "the client showed no certificate".into(),
        Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS".into()
        }
        Error::AlertReceived(alert) => match check(error) {
            TlsCheck::ClientCertificate => format!(
                "the other side does not accept the certificate that it was shown, or misses one: alert {alert:?}"
            ),
            _ => format!("the other side ended the handshake: alert {alert:?}"),
        },
        other => other.to_string(),
    }
}
