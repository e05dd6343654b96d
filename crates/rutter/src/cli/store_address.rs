//! Where a store's API is, who asks, and the way there, with TLS or without.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use namerd::client::Stream;
use router::settings::{ClientTls, TlsIdentity, TlsVersions, Trust};
use router::tls::{EndpointKeys, examine_client};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::config::{Environment, yaml};

/// As namerctl's.
const BASE_URL: &str = "http://localhost:4180";

/// What an `https://` address is asked with.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Certificates {
    /// The authorities that an https:// store's certificate may be of, PEM [default: $RUTTER_CA_FILE, or what the system trusts]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A certificate that says who you are, PEM [default: $RUTTER_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Its key, PEM [default: $RUTTER_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Certificates {
    fn tls(&self, environment: &Environment) -> anyhow::Result<ClientTls> {
        let file = |given: &Option<PathBuf>, variable: &str| {
            let variable = environment.variables.get(variable);
            let variable = variable.filter(|value| !value.is_empty());
            given.clone().or_else(|| variable.map(PathBuf::from))
        };
        let identity = match (
            file(&self.cert_file, "RUTTER_CERT_FILE"),
            file(&self.key_file, "RUTTER_KEY_FILE"),
        ) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(TlsIdentity {
                cert,
                key,
                intermediates: None,
            }),
            (Some(_), None) => bail!("--cert-file needs --key-file with the certificate's key"),
            (None, Some(_)) => bail!("--key-file needs --cert-file with the key's certificate"),
        };
        let authorities = file(&self.ca_file, "RUTTER_CA_FILE");
        let tls = ClientTls {
            enabled: true,
            name: None,
            trust: authorities.map_or(Trust::System, |file| Trust::Files(vec![file])),
            identity,
            versions: TlsVersions::default(),
        };
        examine_client(&tls)?;
        Ok(tls)
    }

    fn given(&self) -> bool {
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        files.into_iter().any(Option::is_some)
    }
}

/// A store's address.
#[derive(Clone)]
pub(super) struct Address {
    /// `host:port`, or `host`.
    authority: String,
    host: String,
    port: u16,
    tls: Option<ClientTls>,
}

impl Address {
    /// The address in a base URL, and the certificates for it.
    pub(super) fn read(
        url: &str,
        certificates: &Certificates,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            bail!("the base URL must be http://HOST:PORT or https://HOST:PORT, found {url}");
        };
        let secure = scheme == "https";
        if !secure && certificates.given() {
            bail!("certificates are for https://HOST:PORT only, and the base URL is {url}");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            authority: authority.to_string(),
            host,
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
            tls: secure.then(|| certificates.tls(environment)).transpose()?,
        })
    }

    /// `HOST:PORT`, as it was given.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// A connection to it.
    pub(super) async fn connect(&self) -> anyhow::Result<Stream> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let keys = EndpointKeys::open(tls, None, &Handle::current())?;
        let stream = keys.connect(tcp, &self.host, Some("http/1.1")).await;
        let stream = stream.with_context(|| match &tls.trust {
            Trust::Files(files) => format!(
                "TLS, trusting {}",
                files
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            _ => "TLS, trusting the system's authorities (--ca-file names others)".to_owned(),
        });
        Ok(Box::new(stream?))
    }
}

/// What is shown to the store as `Authorization`: the token of `file`, else of `$RUTTER_TOKEN` or `$RUTTER_TOKEN_FILE`.
pub(super) fn bearer(
    file: Option<&Path>,
    environment: &Environment,
) -> anyhow::Result<Option<String>> {
    let variable = |name: &str| {
        environment
            .variables
            .get(name)
            .filter(|value| !value.is_empty())
    };
    let read = |file: &Path| {
        let text = std::fs::read_to_string(file);
        text.with_context(|| format!("the token {} cannot be read", file.display()))
    };
    let token = match (
        file,
        variable("RUTTER_TOKEN"),
        variable("RUTTER_TOKEN_FILE"),
    ) {
        (Some(file), _, _) => read(file)?,
        (None, Some(token), _) => token.clone(),
        (None, None, Some(file)) => read(Path::new(file))?,
        (None, None, None) => return Ok(None),
    };
    Ok(Some(format!("Bearer {}", token.trim())))
}

/// Where the store's API is: what was given, a variable, a file, or the usual place.
pub(super) fn base_url(
    given: Option<&str>,
    variables: [&str; 2],
    file: Option<&Path>,
    environment: &Environment,
) -> anyhow::Result<String> {
    let mut set = variables
        .iter()
        .filter_map(|name| environment.variables.get(*name));
    let variable = || set.find(|url| !url.is_empty()).cloned();
    match given.map(str::to_owned).or_else(variable) {
        Some(url) => Ok(url),
        None => Ok(from_file(file)?.unwrap_or_else(|| BASE_URL.to_owned())),
    }
}

/// `base-url` of the file that is named, or of the nearest one upward.
fn from_file(named: Option<&Path>) -> anyhow::Result<Option<String>> {
    let here = std::env::current_dir().unwrap_or_default();
    let nearest = || {
        let files = here.ancestors().flat_map(|folder| {
            ["yaml", "json", "toml"].map(|kind| folder.join(format!(".namerctl.{kind}")))
        });
        files.into_iter().find(|file| file.is_file())
    };
    let Some(file) = named.map(Path::to_owned).or_else(nearest) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    if file.extension().is_some_and(|kind| kind == "toml") {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let mut values = lines.filter(|(key, _)| key.trim().trim_matches('"') == "base-url");
        return Ok(values
            .next()
            .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned()));
    }
    let tree =
        yaml::parse(&text).map_err(|error| anyhow!("{}: {}", file.display(), error.message))?;
    Ok(tree
        .to_json()
        .get("base-url")
        .and_then(Value::as_str)
        .map(str::to_owned))
}
