//! The shelf: pages by path, the way from a request to its page, and the listener.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::html::{Instance, NavItem, Site};
use crate::request_line::LenientListener;
use crate::{Readiness, Security, assets, guard};

/// A boxed future, as handlers that are kept behind a pointer give it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where the admin port listens and who it speaks for.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Address to listen on; Linkerd 1's default is loopback.
    pub ip: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// The key `admin.security`.
    pub security: Security,
    /// Program, version, node: shown on every page.
    pub instance: Instance,
}

/// The admin port could not be opened, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken or not on this machine.
    #[error("the admin port cannot listen on {addr}: {error}")]
    Bind {
        /// What was asked for.
        addr: SocketAddr,
        /// What the system answered.
        error: std::io::Error,
    },
    /// The listener failed while serving.
    #[error("the admin port stopped serving")]
    Serve(#[source] std::io::Error),
}

/// The shelf while it is filled. A page put on a path that is taken replaces the page there.
#[derive(Debug)]
pub struct Admin {
    config: AdminConfig,
    pages: BTreeMap<String, MethodRouter>,
    nav: Vec<NavItem>,
}

impl Admin {
    /// A shelf with what every process has: `/admin` (the list), `/admin/ping`, `/live`, `/files/*`, `/favicon.ico`.
    pub fn new(config: AdminConfig) -> Self {
        let mut admin = Self {
            config,
            pages: BTreeMap::new(),
            nav: Vec::new(),
        };
        for path in ["/files/", "/admin/files/"] {
            admin = admin.page(path, get(assets::serve));
        }
        admin
            .page("/favicon.ico", get(assets::favicon))
            .page("/admin/ping", get(|| async { "pong" }))
            .page("/live", get(|| async { "live\n" }))
    }

    /// Puts a page on `path`: exact, or everything below it when `path` ends in `/`. The longest path that fits
    /// answers; HEAD is answered like GET.
    #[must_use]
    pub fn page(mut self, path: impl Into<String>, methods: MethodRouter) -> Self {
        self.pages.insert(path.into(), methods);
        self
    }

    /// Puts a page on `path` and a link to it, `title`, into the navigation of all pages.
    #[must_use]
    pub fn nav_page(mut self, path: &str, title: &str, methods: MethodRouter) -> Self {
        self.nav.retain(|item| item.path != path);
        self.nav.push(NavItem {
            path: path.to_owned(),
            title: title.to_owned(),
        });
        self.page(path, methods)
    }

    /// A JSON document, made anew for each request. Linkerd's content type.
    #[must_use]
    pub fn json(
        self,
        path: impl Into<String>,
        state: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(state);
        self.page(
            path,
            get(move || {
                let state = state.clone();
                async move { json_response(&state()) }
            }),
        )
    }

    /// `/ready`, from the conditions that owners report.
    #[must_use]
    pub fn readiness(self, readiness: Readiness) -> Self {
        self.page(
            "/ready",
            get(move || {
                let readiness = readiness.clone();
                async move { readiness.respond() }
            }),
        )
    }

    /// The whole shelf as one service: for tests, and for who has a listener of his own.
    pub fn into_router(self) -> axum::Router {
        Current::new(self.fill()).into_router()
    }

    fn fill(mut self) -> Shelf {
        // Links in the order in which pages came; help is looked for at the end.
        self.nav.sort_by_key(|item| item.path == "/help");
        let site = Arc::new(Site {
            instance: self.config.instance,
            nav: self.nav,
        });
        let mut listed: Vec<String> = self.pages.keys().cloned().collect();
        listed.extend(["/admin".to_owned(), "/admin/index.txt".to_owned()]);
        listed.sort();
        let index: Arc<str> = listed
            .iter()
            .filter(|path| !path.starts_with("/files"))
            .fold(String::new(), |text, path| text + path + "\n")
            .into();
        for path in ["/admin", "/admin/index.txt"] {
            let index = index.clone();
            let list = get(move || {
                let index = index.clone();
                async move { index.to_string() }
            });
            self.pages.entry(path.to_owned()).or_insert(list);
        }
        Shelf {
            pages: self.pages,
            security: self.config.security,
            site,
        }
    }

    /// Opens the port. From here on connections queue up, and [`Listening::serve`] answers them.
    pub async fn bind(self) -> Result<Listening, AdminError> {
        let addr = SocketAddr::new(self.config.ip, self.config.port);
        let fail = |error| AdminError::Bind { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(fail)?;
        let addr = listener.local_addr().map_err(fail)?;
        Ok(Listening {
            listener,
            addr,
            current: Current::new(self.fill()),
        })
    }
}

/// The open admin port.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    addr: SocketAddr,
    current: Current,
}

/// What is on the shelf now; cheap to clone.
#[derive(Clone)]
pub struct Current(Arc<RwLock<Arc<Shelf>>>);

impl Current {
    fn new(shelf: Shelf) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(shelf))))
    }

    /// Puts another shelf in its place: the next request is answered from there. Address and port stay as they are.
    pub fn replace(&self, admin: Admin) {
        let shelf = Arc::new(admin.fill());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shelf;
    }

    fn shelf(&self) -> Arc<Shelf> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn into_router(self) -> axum::Router {
        axum::Router::new().fallback(dispatch).with_state(self)
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

impl Listening {
    /// Where it listens, with the port that the system chose.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A handle for exchanging what is served.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Serves until `stop`, then lets running answers end. The caller bounds that time.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), AdminError> {
        axum::serve(LenientListener(self.listener), self.current.into_router())
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .map_err(AdminError::Serve)
    }
}

/// The shelf once it is full.
struct Shelf {
    pages: BTreeMap<String, MethodRouter>,
    security: Security,
    site: Arc<Site>,
}

impl Shelf {
    /// The longest path that fits: exact, or a prefix that ends in `/` (and is not the root page).
    fn find(&self, path: &str) -> Option<&MethodRouter> {
        if let Some(page) = self.pages.get(path) {
            return Some(page);
        }
        let ends = path.rmatch_indices('/').map(|(at, _)| at + 1);
        ends.filter(|&end| end > 1)
            .find_map(|end| self.pages.get(&path[..end]))
    }
}

async fn dispatch(State(current): State<Current>, mut request: Request) -> Response {
    let shelf = current.shelf();
    let path = request.uri().path();
    let mut response = match shelf.find(path).filter(|_| shelf.security.allows(path)) {
        // Linkerd answers 404 with nothing, for unknown and for closed pages alike.
        None => StatusCode::NOT_FOUND.into_response(),
        Some(page) => match guard::check_origin(request.method(), request.headers()) {
            Err(refusal) => *refusal,
            Ok(()) => {
                request.extensions_mut().insert(shelf.site.clone());
                page.clone().call(request, ()).await
            }
        },
    };
    guard::harden(response.headers_mut());
    response
}

/// Linkerd's spelling of the content type.
pub(crate) fn json_response(value: &Value) -> Response {
    json_text(value.to_string())
}

/// JSON that is text already.
pub(crate) fn json_text(text: String) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json;charset=UTF-8")],
        text,
    )
        .into_response()
}
