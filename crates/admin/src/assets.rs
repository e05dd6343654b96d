//! The stylesheet, scripts and icon, embedded in the program.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Files;

/// Answers `/files/NAME` and `/admin/files/NAME`.
pub(crate) async fn serve(request: Request) -> Response {
    let name = request.uri().path().rsplit_once("/files/");
    name.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |(_, name)| file(name, request.headers()),
    )
}

/// Answers `/favicon.ico`, with an SVG: every current browser takes it.
pub(crate) async fn favicon(request: Request) -> Response {
    file("icon.svg", request.headers())
}

fn file(name: &str, headers: &header::HeaderMap) -> Response {
    let Some(file) = Files::get(name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = file.metadata.sha256_hash()[..8]
        .iter()
        .fold(String::new(), |tag, byte| format!("{tag}{byte:02x}"));
    let tag = format!("\"{tag}\"");
    // Asked again each time, answered 304: after an upgrade no page runs with the old script.
    let common = [
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|v| v == tag.as_str())
    {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = file.metadata.mimetype().to_owned();
    (common, [(header::CONTENT_TYPE, kind)], file.data).into_response()
}
