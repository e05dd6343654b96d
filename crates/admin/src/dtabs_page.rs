//! The store's own page: `/`, the namespaces, and `/dtab/NAMESPACE`, which leads to the delegator with its dtab.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::Request;
use axum::response::Redirect;
use axum::routing::get;

use crate::Admin;
use crate::html::{self, Site};

/// A namespace on the store's page.
#[derive(Debug, Clone, Default)]
pub struct DtabRow {
    /// Its name.
    pub namespace: String,
    /// The same as a segment of a URL.
    pub link: String,
    /// The number of its version.
    pub number: u64,
    /// The version as the API names it.
    pub version: String,
    /// How many rules it has.
    pub rules: usize,
    /// Who changed it last.
    pub author: String,
    /// What for.
    pub note: String,
}

#[derive(Template)]
#[template(path = "dtabs.html")]
struct Dtabs {
    storage: String,
    rows: Vec<DtabRow>,
}

impl Admin {
    /// `/`: all namespaces, kept in a storage of that kind. `/dtab/NAMESPACE`: its dtab in the delegator.
    #[must_use]
    pub fn dtabs(
        self,
        storage: &str,
        rows: impl Fn() -> Vec<DtabRow> + Send + Sync + 'static,
    ) -> Self {
        let (storage, rows) = (storage.to_owned(), Arc::new(rows));
        let list = get(move |site: Extension<Arc<Site>>| async move {
            let main = Dtabs {
                storage: storage.clone(),
                rows: rows(),
            };
            html::page(&site, ("/", "Dtabs"), None, false, &main)
        });
        let one = get(|request: Request| async move {
            let path = request.uri().path();
            let namespace = path.strip_prefix("/dtab/").unwrap_or_default();
            Redirect::to(&format!("/delegator?router={namespace}"))
        });
        self.nav_page("/", "Dtabs", list).page("/dtab/", one)
    }
}
