//! From files to what a handshake needs. All of it is pure but for reading the files, and each error says which file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    version,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsFileError;
use super::verify::{AnyServer, EndpointVerifier};
use crate::settings::{ClientTls, ServerTls, TlsIdentity, TlsVersions, Trust};

/// What is spoken inside; HTTP/2 is not among it.
const ALPN: &[u8] = b"http/1.1";

/// A certificate of ours, or of an authority, and until when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The file it is in.
    pub path: PathBuf,
    /// Since when it is valid.
    pub from: SystemTime,
    /// Until when it is valid; of several in the file, of the first one that ends.
    pub until: SystemTime,
}

/// Something that is made of files.
pub(crate) trait FromFiles: Clone + PartialEq + Send + Sync + 'static {
    /// What is made.
    type Made: Send + Sync + 'static;
    /// What it is for, in the log.
    const WHAT: &'static str;
    /// All the files, each once or more often.
    fn files(&self) -> Vec<PathBuf>;
    /// Reads them.
    fn make(&self) -> Result<Made<Self::Made>, TlsFileError>;
}

/// What was made, and how long the certificates in it are valid.
pub(crate) struct Made<T> {
    pub(crate) made: Arc<T>,
    pub(crate) validities: Vec<Validity>,
}

impl FromFiles for ServerTls {
    type Made = ServerConfig;
    const WHAT: &'static str = "a listener";

    fn files(&self) -> Vec<PathBuf> {
        self.identity
            .files()
            .chain(&self.client_roots)
            .cloned()
            .collect()
    }

    fn make(&self) -> Result<Made<ServerConfig>, TlsFileError> {
        let provider = provider(&self.ciphers);
        let mut validities = Vec::new();
        let key = identity(&self.identity, &provider, &mut validities)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(self.versions))
            .map_err(nothing_to_speak)?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(std::slice::from_ref(path), &mut validities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| unusable(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.client_roots.is_some() {
            // A resumed session shows no certificate: each connection is to be checked anew.
            config.send_tls13_tickets = 0;
        } else if let Ok(ticketer) = Ticketer::new() {
            config.ticketer = ticketer;
            config.send_tls13_tickets = 1;
        }
        Ok(Made {
            made: Arc::new(config),
            validities,
        })
    }
}

impl FromFiles for ClientTls {
    type Made = ClientConfig;
    const WHAT: &'static str = "a client";

    fn files(&self) -> Vec<PathBuf> {
        let mut files = match &self.trust {
            Trust::Files(files) => files.clone(),
            Trust::Anything | Trust::System => Vec::new(),
        };
        files.extend(self.identity.iter().flat_map(TlsIdentity::files).cloned());
        files
    }

    fn make(&self) -> Result<Made<ClientConfig>, TlsFileError> {
        let provider = provider(&[]);
        let mut validities = Vec::new();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(self.versions))
            .map_err(nothing_to_speak)?
            .dangerous();
        let algorithms = provider.signature_verification_algorithms;
        let builder = match &self.trust {
            Trust::Anything => {
                builder.with_custom_certificate_verifier(Arc::new(AnyServer(algorithms)))
            }
            Trust::System => builder.with_custom_certificate_verifier(verifier(
                system_roots()?,
                &[],
                algorithms,
            )?),
            Trust::Files(files) => {
                let given = given(files, &mut validities)?;
                let roots = store(&given)?;
                let pinned: Vec<_> = given.into_iter().map(|(_, der)| der).collect();
                builder.with_custom_certificate_verifier(verifier(roots, &pinned, algorithms)?)
            }
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = identity(own, &provider, &mut validities)?;
                builder
                    .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Made {
            made: Arc::new(config),
            validities,
        })
    }
}

fn verifier(
    roots: RootCertStore,
    pinned: &[CertificateDer<'static>],
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<Arc<EndpointVerifier>, TlsFileError> {
    Ok(Arc::new(EndpointVerifier::new(
        roots,
        pinned.to_vec(),
        algorithms,
    )))
}

/// aws-lc-rs, with these cipher suites only, if any are named.
fn provider(ciphers: &[Arc<str>]) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if !ciphers.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| ciphers.iter().any(|name| is_called(suite, name)));
    }
    Arc::new(provider)
}

fn is_called(suite: &SupportedCipherSuite, name: &str) -> bool {
    // rustls calls those of TLS 1.3 `TLS13_…`, the RFC and Java `TLS_…`.
    let own = suite.suite();
    let own = own
        .as_str()
        .unwrap_or_default()
        .replacen("TLS13_", "TLS_", 1);
    own == name
}

/// The cipher suites there are, by their names in the RFCs.
pub fn cipher_names() -> Vec<String> {
    let all = aws_lc_rs::ALL_CIPHER_SUITES.iter();
    let names = all.filter_map(|suite| suite.suite().as_str());
    names
        .map(|name| name.replacen("TLS13_", "TLS_", 1))
        .collect()
}

fn versions(versions: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
    static TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
    match (versions.tls12, versions.tls13) {
        (true, false) => TLS12,
        (false, true) => TLS13,
        _ => rustls::ALL_VERSIONS,
    }
}

fn nothing_to_speak(error: rustls::Error) -> TlsFileError {
    TlsFileError::NothingToSpeak {
        reason: error.to_string(),
    }
}

fn unusable(path: &Path, reason: impl ToString) -> TlsFileError {
    TlsFileError::Unusable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    std::fs::read(path).map_err(|error| TlsFileError::Unreadable {
        path: path.to_owned(),
        error,
    })
}

/// All certificates in a file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let text = read(path)?;
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| unusable(path, error))?;
    match all.is_empty() {
        false => Ok(all),
        true => Err(not_pem(path, "certificate", &text)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => not_pem(path, "private key", &text),
        error => unusable(path, error),
    })
}

fn not_pem(path: &Path, wanted: &'static str, text: &[u8]) -> TlsFileError {
    let text = String::from_utf8_lossy(text);
    let label = text
        .lines()
        .find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let found = match label {
        None if text.trim().is_empty() => "it is empty".to_owned(),
        None => "it has no `-----BEGIN` line".to_owned(),
        Some("ENCRYPTED PRIVATE KEY") => {
            "the key is encrypted, and nobody is there to ask for its password: decrypt it with `openssl pkey`".to_owned()
        }
        Some(label) => format!("it has `{label}`"),
    };
    TlsFileError::NotPem {
        path: path.to_owned(),
        wanted,
        found,
    }
}

/// Certificate, chain and key that belong together.
fn identity(
    own: &TlsIdentity,
    provider: &CryptoProvider,
    validities: &mut Vec<Validity>,
) -> Result<CertifiedKey, TlsFileError> {
    let mut chain = certificates(&own.cert)?;
    validities.extend(validity(&own.cert, &chain[..1])?);
    if let Some(path) = &own.intermediates {
        chain.extend(certificates(path)?);
    }
    let key = private_key(&own.key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsFileError::Mismatch {
            cert: own.cert.clone(),
            key: own.key.clone(),
        },
        rustls::Error::InvalidCertificate(error) => unusable(&own.cert, error),
        error => unusable(&own.key, error),
    })
}

type Given = Vec<(PathBuf, CertificateDer<'static>)>;

/// The certificates of authorities in these files.
fn given(files: &[PathBuf], validities: &mut Vec<Validity>) -> Result<Given, TlsFileError> {
    let mut all = Vec::new();
    for path in files {
        let some = certificates(path)?;
        validities.extend(validity(path, &some)?);
        all.extend(some.into_iter().map(|der| (path.clone(), der)));
    }
    Ok(all)
}

fn store(given: &Given) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for (path, der) in given {
        roots
            .add(der.clone())
            .map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn roots(files: &[PathBuf], validities: &mut Vec<Validity>) -> Result<RootCertStore, TlsFileError> {
    store(&given(files, validities)?)
}

fn system_roots() -> Result<RootCertStore, TlsFileError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(error)) => Err(TlsFileError::NoSystemRoots {
            reason: error.to_string(),
        }),
        (0, None) => Err(TlsFileError::NoSystemRoots {
            reason: "no file of them was found".into(),
        }),
        _ => Ok(roots),
    }
}

/// Until when the certificates of a file are valid; none for what cannot be read that closely.
fn validity(path: &Path, some: &[CertificateDer<'_>]) -> Result<Option<Validity>, TlsFileError> {
    let mut first: Option<Validity> = None;
    for der in some {
        let (_, one) = X509Certificate::from_der(der).map_err(|error| unusable(path, error))?;
        let own = Validity {
            path: path.to_owned(),
            from: time(one.validity().not_before.timestamp()),
            until: time(one.validity().not_after.timestamp()),
        };
        if first.as_ref().is_none_or(|first| own.until < first.until) {
            first = Some(own);
        }
    }
    Ok(first)
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.unsigned_abs());
    match seconds < 0 {
        true => UNIX_EPOCH - since,
        false => UNIX_EPOCH + since,
    }
}
