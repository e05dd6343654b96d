//! States of names and namers, as Linkerd 1 shows them: JSON that the owners make.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::Value;

use crate::Admin;
use crate::shelf::json_response;

impl Admin {
    /// `/bound-names.json`: the names that enumerable namers know, as an array of paths. With none, Linkerd
    /// answers one empty name; so do we.
    #[must_use]
    pub fn bound_names(self, names: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        self.json("/bound-names.json", move || {
            let names = names();
            if names.is_empty() {
                return Value::from(vec![""]);
            }
            Value::from(names)
        })
    }

    /// `/client_state.json`: client id → `{"state", "addresses"}`.
    #[must_use]
    pub fn client_state(self, state: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.json("/client_state.json", state)
    }

    /// `/namer_state/PREFIX.json`: `state` gets the prefix without its leading slash (`io.l5d.k8s`), and gives
    /// `None` for a namer that there is not.
    #[must_use]
    pub fn namer_state(
        self,
        state: impl Fn(&str) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(state);
        self.page(
            "/namer_state/",
            get(move |request: Request| {
                let state = state.clone();
                async move {
                    let path = request.uri().path();
                    let prefix = path
                        .strip_prefix("/namer_state/")
                        .and_then(|rest| rest.strip_suffix(".json"));
                    match prefix.and_then(|prefix| state(prefix)) {
                        Some(value) => json_response(&value),
                        None => StatusCode::NOT_FOUND.into_response(),
                    }
                }
            }),
        )
    }
}
