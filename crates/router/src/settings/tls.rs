//! TLS of listeners and towards endpoints: which files, which checks. What is made of the files is [`crate::tls`]'s.

use std::path::PathBuf;
use std::sync::Arc;

use naming::Captures;

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// `certPath`: the certificate, perhaps with others behind it.
    pub cert: PathBuf,
    /// `keyPath`: PKCS#8 as Linkerd 1; PKCS#1 and SEC1 too.
    pub key: PathBuf,
    /// `intermediateCertsPath`: sent behind the certificate.
    pub intermediates: Option<PathBuf>,
}

/// `protocols`; at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}

/// `tls` of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Who the listener is.
    pub identity: TlsIdentity,
    /// `requireClientAuth` with `caCertPath`: a client must show a certificate that one of these authorities has signed.
    pub client_roots: Option<PathBuf>,
    /// `protocols`.
    pub versions: TlsVersions,
    /// `ciphers`, by their names in the RFCs; empty: all that are sound.
    pub ciphers: Vec<Arc<str>>,
}

/// `tls` of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `enabled: false` turns off what an earlier entry turned on.
    pub enabled: bool,
    /// `commonName`: the name for SNI that the endpoint's certificate must have. Captures of the entry's prefix stand in
    /// it as `{name}` until [`ClientTls::filled`].
    pub name: Option<Arc<str>>,
    /// What the endpoint's certificate is checked against.
    pub trust: Trust,
    /// `clientAuth`: who this router is.
    pub identity: Option<TlsIdentity>,
    /// `protocols`.
    pub versions: TlsVersions,
}

/// Which certificates of endpoints are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// `disableValidation`: all, with any name.
    Anything,
    /// Those signed by the authorities that the system trusts.
    System,
    /// `trustCerts`, `trustCertsBundle`: those signed by these.
    Files(Vec<PathBuf>),
}

impl ClientTls {
    /// With the name of the endpoints that a bound name is about.
    pub(super) fn filled(&self, captures: &Captures) -> Self {
        Self {
            name: self
                .name
                .as_ref()
                .map(|name| captures.fill(name).as_str().into()),
            ..self.clone()
        }
    }

    /// The part that is the same whatever the name: what its files are followed for.
    pub(crate) fn nameless(&self) -> Self {
        Self {
            enabled: true,
            name: None,
            ..self.clone()
        }
    }
}

impl TlsIdentity {
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key]
            .into_iter()
            .chain(&self.intermediates)
    }
}
