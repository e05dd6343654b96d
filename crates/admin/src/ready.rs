//! `/live` and `/ready`: whether the process runs, and what it still waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a process needs before it should get traffic: each owner reports its own, by name.
///
/// Cheap to clone. With no condition reported the process counts as ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, State>>>);

#[derive(Debug, Clone)]
struct State {
    met: bool,
    detail: String,
}

/// One owner's handle on one condition. Dropping it withdraws the condition.
#[derive(Debug)]
pub struct Condition {
    name: String,
    all: Readiness,
}

impl Readiness {
    /// Adds a condition that is not met yet; `waiting_for` says what is missing, for people.
    pub fn condition(&self, name: impl Into<String>, waiting_for: impl Into<String>) -> Condition {
        let condition = self.named(name);
        condition.unmet(waiting_for);
        condition
    }

    /// Adds a condition that is met from the beginning: never, not even for a moment, is the process not ready for it.
    pub fn condition_met(&self, name: impl Into<String>, detail: impl Into<String>) -> Condition {
        let condition = self.named(name);
        condition.met(detail);
        condition
    }

    fn named(&self, name: impl Into<String>) -> Condition {
        Condition {
            name: name.into(),
            all: self.clone(),
        }
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.states().values().all(|state| state.met)
    }

    /// `{"ready": …, "missing": […], "conditions": {name: {"met", "detail"}}}`.
    pub fn to_json(&self) -> Value {
        let states = self.states();
        let missing: Vec<&String> = states
            .iter()
            .filter(|(_, s)| !s.met)
            .map(|(n, _)| n)
            .collect();
        let conditions: serde_json::Map<String, Value> = states
            .iter()
            .map(|(name, s)| (name.clone(), json!({"met": s.met, "detail": s.detail})))
            .collect();
        json!({"ready": missing.is_empty(), "missing": missing, "conditions": conditions})
    }

    /// The answer of `/ready`: 200 or 503, with the same JSON.
    pub(crate) fn respond(&self) -> Response {
        let body = self.to_json();
        let status = if body["ready"] == true {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, axum::Json(body)).into_response()
    }

    fn states(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// The condition holds; `detail` says what was found (`2 listeners`).
    pub fn met(&self, detail: impl Into<String>) {
        self.set(true, detail.into());
    }

    /// The condition does not hold; `waiting_for` says what is missing.
    pub fn unmet(&self, waiting_for: impl Into<String>) {
        self.set(false, waiting_for.into());
    }

    fn set(&self, met: bool, detail: String) {
        self.all
            .states()
            .insert(self.name.clone(), State { met, detail });
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.all.states().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_condition_is_met_and_names_the_missing_ones() {
        let ready = Readiness::default();
        assert!(ready.is_ready());
        let namer = ready.condition("namer io.l5d.k8s", "first list of services");
        let listeners = ready.condition("listeners", "bind");
        listeners.met("2 bound");
        assert!(!ready.is_ready());
        assert_eq!(ready.to_json()["missing"], json!(["namer io.l5d.k8s"]));
        namer.met("31 services");
        assert!(ready.is_ready());
        namer.unmet("watch lost");
        assert_eq!(ready.respond().status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(namer);
        assert!(ready.is_ready());
    }
}
