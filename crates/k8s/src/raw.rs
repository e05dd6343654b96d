//! Objects of the API server as JSON, for who writes them: any method, and a watch with every event as it comes.

use std::time::Duration;

use http::{Method, Request, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::api::{Api, ApiError, Watch};

/// What a watch tells of an object.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct RawEvent {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub r#type: String,
    /// The object; of a bookmark only its version.
    pub object: Value,
}

/// A watch that is open.
pub struct RawWatch(Watch);

impl Api {
    /// Sends an object, or nothing, and reads the answer.
    ///
    /// # Errors
    /// What the API server answers, or why it doesn't.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(bytes)
            .map_err(ApiError::garbage)?;
        serde_json::from_slice(&self.read(request).await?).map_err(ApiError::garbage)
    }

    /// Opens the watch of `path`, which has `watch=true` and a version in its query.
    ///
    /// # Errors
    /// What the API server answers, or why it doesn't.
    pub async fn watch_raw(&self, path: &str) -> Result<RawWatch, ApiError> {
        let request = Request::get(path)
            .body(Vec::new())
            .map_err(ApiError::garbage)?;
        Ok(RawWatch(self.opened(request).await?))
    }
}

impl RawWatch {
    /// The next event; none when the API server ends the watch, or is silent for so long.
    ///
    /// # Errors
    /// [`ApiError::gone`] when the version is too old; others when the connection breaks.
    pub async fn next(&mut self, silence: Duration) -> Result<Option<RawEvent>, ApiError> {
        let line = match timeout(silence, self.0.filled()).await {
            Err(_) => return Ok(None),
            Ok(line) => line?,
        };
        let Some(line) = line else { return Ok(None) };
        let event: RawEvent = serde_json::from_slice(&line).map_err(ApiError::garbage)?;
        if event.r#type == "ERROR" {
            let code = event.object["code"].as_u64().unwrap_or(0);
            return Err(ApiError::Status {
                code: u16::try_from(code).unwrap_or(0),
                message: event.object["message"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
        Ok(Some(event))
    }
}
