//! "Did you mean": `/near.json` on the admin port, and through it `rutter why`.

use std::sync::Arc;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use dtab::Path;
use router::Router;
use serde::Deserialize;
use serde_json::json;

/// For which name a suggestion is wanted.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// The router's label; empty: the first one.
    #[serde(default)]
    pub router: String,
    /// The name that leads nowhere.
    #[serde(default)]
    pub path: String,
}

/// The page: `{"path", "near"}`, where `near` is a name one slip away that leads to endpoints now, or null.
pub fn page(routers: Vec<Arc<Router>>) -> MethodRouter {
    get(move |asked: Query<Asked>| {
        let answer = answer(&routers, &asked.0);
        async move { answer }
    })
}

fn answer(routers: &[Arc<Router>], asked: &Asked) -> Response {
    let wanted = match Path::read(&asked.path) {
        Ok(path) => path,
        Err(error) => {
            let body = format!("path: {error}\n");
            return (StatusCode::BAD_REQUEST, body).into_response();
        }
    };
    let router = routers
        .iter()
        .find(|router| asked.router.is_empty() || **router.label() == *asked.router);
    let Some(router) = router else {
        let body = format!("there is no router {}\n", asked.router);
        return (StatusCode::NOT_FOUND, body).into_response();
    };
    let near = router.names().nearest(&wanted);
    let near = near.map(|path| path.to_string());
    axum::Json(json!({"path": wanted.to_string(), "near": near})).into_response()
}
