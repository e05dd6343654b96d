//! Talking to the API server: lists in pages, watches as a stream of events, and questions about permissions.
//!
//! kube's client builds the connection (TLS, tokens, kubeconfig) and the requests. The watch itself is read here, since
//! its callers must see every status, and notice silence.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::core::params::{ListParams, WatchParams};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::objects::{Key, Meta, Object, Wire};
use crate::table::Scope;

/// How many objects a page of a list has. Some 100 endpoints in each of 500 slices are about 10 MB of JSON.
const PAGE: u32 = 500;
/// A page beyond this is refused: something that is no API server answers.
const PAGE_BYTES: usize = 256 << 20;
/// A watch event beyond this is refused; etcd takes no object above 1.5 MB.
const EVENT_BYTES: usize = 16 << 20;
/// What a page of a list may take at most, however steadily it trickles.
const PAGE_TIME: u32 = 6;
/// The first minor version of Kubernetes 1 that sends a list as the beginning of a watch unless told not to.
const STREAMS_SINCE: u32 = 32;
/// The annotation of the bookmark behind the last object of such a list.
const LIST_ENDS: &str = "k8s.io/initial-events-end";
/// How long an established connection may be quiet before the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Which API server to talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ApiTarget {
    /// Plain HTTP to this address: what `kubectl proxy` offers, as Linkerd 1's `host` and `port`.
    Plain {
        /// Host name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The current context of this kubeconfig.
    Kubeconfig(std::path::PathBuf),
    /// The cluster that this process runs in (its service account), else the kubeconfig's current context.
    #[default]
    Ambient,
}

impl ApiTarget {
    /// The target of a configuration's `host` and `port`; what is missing of the two is Linkerd 1's default,
    /// `localhost` and 8001.
    #[must_use]
    pub fn configured(host: Option<&str>, port: Option<u16>) -> Self {
        match (host, port) {
            (None, None) => Self::Ambient,
            _ => Self::Plain {
                host: host.unwrap_or("localhost").to_owned(),
                port: port.unwrap_or(8001),
            },
        }
    }
}

impl std::fmt::Display for ApiTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Plain { host, port } => write!(f, "{host}:{port}"),
            Self::Kubeconfig(file) => write!(f, "the API server of {}", file.display()),
            Self::Ambient => f.write_str("the cluster's API server"),
        }
    }
}

/// Why no client could be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configured address is none.
    #[error("`{target}` is no address of an API server")]
    Address {
        /// As configured.
        target: String,
        /// What is wrong with it.
        source: http::Error,
    },
    /// The kubeconfig that was named can't be used.
    #[error("the kubeconfig {} cannot be used", file.display())]
    Kubeconfig {
        /// Where it should be.
        file: std::path::PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a service account nor a kubeconfig.
    #[error(
        "no Kubernetes API is configured: not in a pod ({in_cluster}), and no usable kubeconfig; set host and port, or KUBECONFIG"
    )]
    NoTarget {
        /// Why there is no service account.
        in_cluster: String,
        /// Why there is no kubeconfig.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Certificates or credentials are unusable.
    #[error("the credentials for the Kubernetes API cannot be used")]
    Credentials(#[source] Box<kube::Error>),
}

/// Why a call to the API server brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// It answered with an error.
    #[error("the API server answers {code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// The HTTP status, or the code of an error event.
        code: u16,
        /// In the API server's words.
        message: String,
    },
    /// There was no connection, or it broke.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came for too long.
    #[error("the API server was silent for {0:?}")]
    Silent(Duration),
    /// It trickled: a part of a list took longer than the whole may take.
    #[error("the API server took more than {0:?} for a part of a list")]
    Slow(Duration),
    /// What came is not what an API server sends.
    #[error("the API server's answer cannot be read: {0}")]
    Garbage(String),
}

impl ApiError {
    /// Whether permissions are missing.
    #[must_use]
    pub fn forbidden(&self) -> bool {
        matches!(
            self,
            Self::Status {
                code: 401 | 403,
                ..
            }
        )
    }

    /// Whether there is no such thing.
    #[must_use]
    pub fn missing(&self) -> bool {
        matches!(self, Self::Status { code: 404, .. })
    }

    /// Whether the version asked for is too old (410), or one the API server never had.
    #[must_use]
    pub fn gone(&self) -> bool {
        matches!(self, Self::Status { code: 410, .. })
    }

    /// Whether the question itself is what was refused: asking again is of no use.
    #[must_use]
    pub fn misunderstood(&self) -> bool {
        matches!(
            self,
            Self::Status {
                code: 400 | 405 | 406 | 422 | 500 | 501,
                ..
            }
        )
    }

    /// Whether nobody was there who could have answered: the same question may be answered soon.
    #[must_use]
    pub fn passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status { code, .. } => matches!(code, 429 | 502 | 503 | 504),
            Self::Silent(_) | Self::Slow(_) | Self::Garbage(_) => false,
        }
    }

    pub(crate) fn garbage(error: impl std::fmt::Display) -> Self {
        Self::Garbage(error.to_string())
    }

    fn unreachable(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Unreachable(naming::words(error))
    }
}

/// A client of one API server. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: Client,
    patience: Duration,
    /// Whether a watch may begin with the list; asked once, and taken back when it is refused.
    streams: Arc<OnceCell<bool>>,
    refused: Arc<AtomicBool>,
}

/// A whole list, and the version to watch from.
pub(crate) struct List<T> {
    pub(crate) version: String,
    pub(crate) items: Vec<T>,
}

/// What a watch tells.
pub(crate) enum WatchEvent<V> {
    Apply(Object<V>, String),
    Delete(Key, String),
    Bookmark(String),
    /// All objects that there were when the watch was opened have come.
    Whole(String),
}

#[derive(Deserialize)]
struct PageWire<T> {
    #[serde(default)]
    metadata: PageMeta,
    // Go writes null for an empty list.
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct Identity {
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusWire {
    code: u16,
    message: String,
}

impl Api {
    /// A client for `target`; nothing is asked yet. `patience` is how long an answer, or the next piece of a list, may
    /// take.
    ///
    /// # Errors
    /// When the configuration, the service account or the kubeconfig can't be used.
    pub async fn new(target: &ApiTarget, patience: Duration) -> Result<Self, ConnectError> {
        // Refused when it is there already, which is as good.
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = config(target).await?;
        let client = client(&config).map_err(|error| ConnectError::Credentials(Box::new(error)))?;
        Ok(Self {
            client,
            patience,
            streams: Arc::default(),
            refused: Arc::default(),
        })
    }

    /// Whether this API server sends a list as the beginning of a watch: one request in the place of several, and no
    /// page of it has to be held in memory, here or there.
    pub(crate) async fn streams(&self) -> Result<bool, ApiError> {
        if self.refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let asked = self.streams.get_or_try_init(|| async {
            match self.get("/version").await {
                Ok(version) => Ok(streams(&version)),
                Err(error) if error.missing() || error.forbidden() => Ok(false),
                Err(error) => Err(error),
            }
        });
        match asked.await {
            Ok(streams) => Ok(*streams),
            // Nobody was there, as a proxy says in the API server's place: a list would fare no better, and one that
            // comes through at its return is one more than needed.
            Err(error) if error.passing() => Err(error),
            // It is there and doesn't want to tell: lists are always understood.
            Err(ApiError::Status { .. } | ApiError::Garbage(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// From now on lists are fetched by themselves.
    pub(crate) fn stop_streaming(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// All objects of a kind within `scope`.
    pub(crate) async fn list<W: Wire>(
        &self,
        scope: &Scope,
    ) -> Result<List<Object<W::Value>>, ApiError> {
        let list = self.pages::<W, W>(scope, false).await?;
        Ok(List {
            version: list.version,
            items: list.items.into_iter().map(W::read).collect(),
        })
    }

    /// Names and versions of all objects of a kind within `scope`: all that an audit needs, at a fraction of the cost.
    pub(crate) async fn list_versions<W: Wire>(
        &self,
        scope: &Scope,
    ) -> Result<List<(Key, u64)>, ApiError> {
        let list = self.pages::<W, Identity>(scope, true).await?;
        let items = list
            .items
            .into_iter()
            .map(|item| (item.metadata.key(), item.metadata.version()));
        Ok(List {
            version: list.version,
            items: items.collect(),
        })
    }

    async fn pages<W: Wire, T: serde::de::DeserializeOwned>(
        &self,
        scope: &Scope,
        metadata_only: bool,
    ) -> Result<List<T>, ApiError> {
        let path = kube::core::Request::new(W::RESOURCE.path(scope.namespace()));
        let mut params = ListParams {
            limit: Some(PAGE),
            label_selector: selector::<W>(),
            ..ListParams::default()
        };
        let mut whole = List {
            version: String::new(),
            items: Vec::new(),
        };
        loop {
            let request = if metadata_only {
                path.list_metadata(&params)
            } else {
                path.list(&params)
            };
            let bytes = self.read(request.map_err(ApiError::garbage)?).await?;
            let page: PageWire<T> = serde_json::from_slice(&bytes).map_err(ApiError::garbage)?;
            whole.items.extend(page.items.unwrap_or_default());
            whole.version = page.metadata.resource_version;
            params.continue_token = page.metadata.r#continue.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(whole);
            }
        }
    }

    /// Opens a watch from `version` on; it ends by itself after about `limit`.
    pub(crate) async fn watch<W: Wire>(
        &self,
        scope: &Scope,
        version: &str,
        limit: Duration,
    ) -> Result<Watch, ApiError> {
        self.open::<W>(scope, version, limit, false).await
    }

    /// The same, beginning with all objects there are; [`WatchEvent::Whole`] comes behind the last of them.
    pub(crate) async fn list_and_watch<W: Wire>(
        &self,
        scope: &Scope,
        limit: Duration,
    ) -> Result<Watch, ApiError> {
        self.open::<W>(scope, "", limit, true).await
    }

    /// Opens a watch of one object from `version` on; with none it begins with the object, if it is there.
    pub(crate) async fn watch_one<W: Wire>(
        &self,
        namespace: &str,
        name: &str,
        version: &str,
        limit: Duration,
    ) -> Result<Watch, ApiError> {
        let params = WatchParams {
            field_selector: Some(format!("metadata.name={name}")),
            timeout: u32::try_from(limit.as_secs()).ok(),
            bookmarks: true,
            ..WatchParams::default()
        };
        let path = kube::core::Request::new(W::RESOURCE.path(Some(namespace)));
        self.begin(path.watch(&params, version)).await
    }

    async fn open<W: Wire>(
        &self,
        scope: &Scope,
        version: &str,
        limit: Duration,
        with_list: bool,
    ) -> Result<Watch, ApiError> {
        let params = WatchParams {
            label_selector: selector::<W>(),
            timeout: u32::try_from(limit.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: with_list,
            ..WatchParams::default()
        };
        let path = kube::core::Request::new(W::RESOURCE.path(scope.namespace()));
        self.begin(path.watch(&params, version)).await
    }

    async fn begin(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Watch, ApiError> {
        self.opened(request.map_err(ApiError::garbage)?).await
    }

    pub(crate) async fn opened(&self, request: Request<Vec<u8>>) -> Result<Watch, ApiError> {
        let response = self.answer(request).await?;
        Ok(Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
        })
    }

    /// Posts an object and reads the answer.
    ///
    /// # Errors
    /// What the API server answers, or why it doesn't.
    pub async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, ApiError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        let request = request
            .body(body.to_string().into_bytes())
            .map_err(ApiError::garbage)?;
        serde_json::from_slice(&self.read(request).await?).map_err(ApiError::garbage)
    }

    /// The object at `path`, which may have a query.
    ///
    /// # Errors
    /// What the API server answers, or why it doesn't.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value, ApiError> {
        let request = Request::get(path)
            .body(Vec::new())
            .map_err(ApiError::garbage)?;
        serde_json::from_slice(&self.read(request).await?).map_err(ApiError::garbage)
    }

    async fn answer(&self, mut request: Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        const AGENT: HeaderValue =
            HeaderValue::from_static(concat!("rutter/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        let sent = self.client.send(request.map(Body::from));
        let response = match tokio::time::timeout(self.patience, sent).await {
            Err(_) => return Err(ApiError::Silent(self.patience)),
            Ok(Err(error)) => return Err(ApiError::unreachable(&error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::CREATED {
            return Ok(response);
        }
        let body = self
            .collect(response.into_body(), 64 << 10)
            .await
            .unwrap_or_default();
        let told: StatusWire = serde_json::from_slice(&body).unwrap_or_default();
        Err(ApiError::Status {
            code: status.as_u16(),
            message: told.message,
        })
    }

    pub(crate) async fn read(&self, request: Request<Vec<u8>>) -> Result<Vec<u8>, ApiError> {
        let response = self.answer(request).await?;
        self.collect(response.into_body(), PAGE_BYTES).await
    }

    async fn collect(&self, mut body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        let (begun, most) = (Instant::now(), self.patience * PAGE_TIME);
        loop {
            let patience = self.patience.min(most.saturating_sub(begun.elapsed()));
            let frame = tokio::time::timeout(patience, body.frame());
            let late = || match begun.elapsed() < most {
                true => ApiError::Silent(self.patience),
                false => ApiError::Slow(most),
            };
            match frame.await.map_err(|_| late())? {
                None => return Ok(bytes),
                Some(Err(error)) => return Err(ApiError::unreachable(&error)),
                Some(Ok(frame)) => {
                    bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                }
            }
            if bytes.len() > limit {
                return Err(ApiError::Garbage(format!(
                    "a list of more than {limit} bytes"
                )));
            }
        }
    }
}

fn selector<W: Wire>() -> Option<String> {
    Some(W::SELECTOR)
        .filter(|selector| !selector.is_empty())
        .map(ToOwned::to_owned)
}

async fn config(target: &ApiTarget) -> Result<kube::Config, ConnectError> {
    let config = match target {
        ApiTarget::Plain { .. } => {
            let uri = http::Uri::builder()
                .scheme("http")
                .authority(target.to_string())
                .path_and_query("/")
                .build();
            kube::Config::new(uri.map_err(|source| ConnectError::Address {
                target: target.to_string(),
                source,
            })?)
        }
        ApiTarget::Kubeconfig(file) => {
            kubeconfig(file)
                .await
                .map_err(|source| ConnectError::Kubeconfig {
                    file: file.clone(),
                    source: Box::new(source),
                })?
        }
        ApiTarget::Ambient => match kube::Config::incluster() {
            Ok(config) => config,
            Err(in_cluster) => {
                let found =
                    kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default())
                        .await;
                found.map_err(|source| ConnectError::NoTarget {
                    in_cluster: in_cluster.to_string(),
                    source: Box::new(source),
                })?
            }
        },
    };
    Ok(config)
}

async fn kubeconfig(file: &std::path::Path) -> Result<kube::Config, kube::config::KubeconfigError> {
    let read = kube::config::Kubeconfig::read_from(file)?;
    kube::Config::from_custom_kubeconfig(read, &kube::config::KubeConfigOptions::default()).await
}

/// kube's client on our own connector: it asks the kernel to notice a peer that is gone without a word, and has no
/// retries or time limits of its own.
fn client(config: &kube::Config) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(Duration::from_secs(5)));
    connector.set_keepalive_retries(Some(3));
    if config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTP) {
        // No certificates are looked for, either: an image need not have any.
        return client_on(config, connector);
    }
    client_on(
        config,
        config.rustls_https_connector_with_connector(connector)?,
    )
}

fn client_on<C>(config: &kube::Config, connector: C) -> Result<Client, kube::Error>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let http: legacy::Client<C, Body> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    let http = tower::ServiceBuilder::new()
        .map_err(tower::BoxError::from)
        .service(http);
    let builder = ClientBuilder::new(http, config.default_namespace.clone());
    let builder = builder.with_layer(&config.extra_headers_layer()?);
    Ok(match config.auth_layer()? {
        Some(auth) => builder
            .with_layer(&auth)
            .with_layer(&config.base_uri_layer())
            .build(),
        None => builder.with_layer(&config.base_uri_layer()).build(),
    })
}

/// An open watch.
pub(crate) struct Watch {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to have no line end.
    searched: usize,
}

impl Watch {
    /// The next event; none when the API server ends the watch, as it does every few minutes. Cancel safe.
    pub(crate) async fn next<W: Wire>(&mut self) -> Result<Option<WatchEvent<W::Value>>, ApiError> {
        match self.filled().await? {
            Some(line) => event::<W>(&line).map(Some),
            None => Ok(None),
        }
    }

    /// The next line that is not empty.
    pub(crate) async fn filled(&mut self) -> Result<Option<BytesMut>, ApiError> {
        loop {
            match self.line().await? {
                Some(line) if line.trim_ascii().is_empty() => {}
                line => return Ok(line),
            }
        }
    }

    async fn line(&mut self) -> Result<Option<BytesMut>, ApiError> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > EVENT_BYTES {
                return Err(ApiError::Garbage(format!(
                    "an event of more than {EVENT_BYTES} bytes"
                )));
            }
            match self.body.frame().await {
                // What is left without a line end is half an event: the next watch brings it whole.
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::unreachable(&error)),
                Some(Ok(frame)) => self
                    .buffer
                    .extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
            }
        }
    }
}

#[derive(Deserialize)]
struct EventWire<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionOnly<'a> {
    #[serde(borrow)]
    metadata: VersionMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionMeta<'a> {
    resource_version: String,
    /// Large in some objects, and of use in bookmarks only.
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
}

impl VersionMeta<'_> {
    fn ends_list(&self) -> bool {
        let all = self.annotations.map(|all| serde_json::from_str(all.get()));
        let all: Option<HashMap<String, String>> = all.and_then(Result::unwrap_or_default);
        all.is_some_and(|all| all.contains_key(LIST_ENDS))
    }
}

/// What `/version` says about [`Api::streams`]; the minor version may have a `+` behind it.
fn streams(version: &serde_json::Value) -> bool {
    let number = |field: &str| -> Option<u32> {
        let text = version[field].as_str()?;
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok()
    };
    match (number("major"), number("minor")) {
        (Some(1), Some(minor)) => minor >= STREAMS_SINCE,
        (Some(major), Some(_)) => major > 1,
        _ => false,
    }
}

fn event<W: Wire>(line: &[u8]) -> Result<WatchEvent<W::Value>, ApiError> {
    let event: EventWire<'_> = serde_json::from_slice(line).map_err(ApiError::garbage)?;
    let object = event.object.get();
    if event.r#type == "ERROR" {
        let told: StatusWire = serde_json::from_str(object).unwrap_or_default();
        return Err(ApiError::Status {
            code: told.code,
            message: told.message,
        });
    }
    let meta = serde_json::from_str::<VersionOnly<'_>>(object)
        .map_err(ApiError::garbage)?
        .metadata;
    let ends_list = event.r#type == "BOOKMARK" && meta.ends_list();
    let version = meta.resource_version;
    let read = || {
        serde_json::from_str::<W>(object)
            .map(W::read)
            .map_err(ApiError::garbage)
    };
    match event.r#type {
        "ADDED" | "MODIFIED" => Ok(WatchEvent::Apply(read()?, version)),
        "DELETED" => Ok(WatchEvent::Delete(read()?.key, version)),
        "BOOKMARK" if ends_list => Ok(WatchEvent::Whole(version)),
        "BOOKMARK" => Ok(WatchEvent::Bookmark(version)),
        other => Err(ApiError::Garbage(format!("an event of type `{other}`"))),
    }
}

impl List<(Key, u64)> {
    /// The list as a map, and its own version as a number.
    pub(crate) fn by_key(self) -> (HashMap<Key, u64>, u64) {
        (
            self.items.into_iter().collect(),
            self.version.parse().unwrap_or(0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::SliceWire;

    #[test]
    fn host_and_port_fill_each_other_with_the_proxys_address() {
        let plain = |host: &str, port| ApiTarget::Plain {
            host: host.into(),
            port,
        };
        assert_eq!(ApiTarget::configured(None, None), ApiTarget::Ambient);
        assert_eq!(ApiTarget::configured(Some("h"), None), plain("h", 8001));
        assert_eq!(ApiTarget::configured(None, Some(1)), plain("localhost", 1));
        assert_eq!(plain("::1", 80).to_string(), "[::1]:80");
    }

    #[test]
    fn an_error_event_is_an_error_with_its_code() {
        let line = br#"{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}"#;
        let Err(error) = event::<SliceWire>(line) else {
            panic!("no error")
        };
        assert!(error.gone());
        assert_eq!(error.to_string(), "the API server answers 410: too old");
    }

    #[test]
    fn the_version_tells_whether_lists_are_streamed() {
        for (major, minor, want) in [
            ("1", "34", true),
            ("1", "32+", true),
            ("1", "31", false),
            ("1", "9+", false),
            ("2", "0", true),
            ("0", "99", false),
            ("", "", false),
        ] {
            let version = serde_json::json!({"major": major, "minor": minor});
            assert_eq!(streams(&version), want, "{version}");
        }
        assert!(!streams(&serde_json::json!({"items": []})));
    }

    #[test]
    fn the_bookmark_behind_a_streamed_list_is_told_apart() {
        let line = |annotations: &str| {
            format!(
                r#"{{"type": "BOOKMARK", "object": {{"metadata": {{"resourceVersion": "7"{annotations}}}}}}}"#
            )
        };
        let end = line(r#", "annotations": {"k8s.io/initial-events-end": "true"}"#);
        for (line, whole) in [
            (line(""), false),
            (line(r#", "annotations": null"#), false),
            (end, true),
        ] {
            let event = event::<SliceWire>(line.as_bytes()).unwrap();
            assert_eq!(matches!(event, WatchEvent::Whole(_)), whole, "{line}");
        }
    }

    #[test]
    fn what_is_no_event_is_garbage() {
        for line in [
            &b"not json"[..],
            br#"{"type": "ADDED"}"#,
            br#"{"type": "ODD", "object": {"metadata": {"resourceVersion": "1"}}}"#,
            br#"{"type": "ADDED", "object": {"metadata": {"resourceVersion": "1"}, "endpoints": 5}}"#,
        ] {
            assert!(matches!(event::<SliceWire>(line), Err(ApiError::Garbage(_))));
        }
    }
}
