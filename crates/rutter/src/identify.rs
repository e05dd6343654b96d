//! Which name a request gets, asked from outside: `/identify.json` on the admin port, and `rutter why`.
//!
//! The request is written out, read by the data plane's own codec and named by its own identifiers.

use axum::extract::Query;
use axum::routing::{MethodRouter, get};
use dtab::Path;
use router::http1::{Limits, Parsed, RequestHead};
use router::settings::RouterSettings;
use router::{Identified, identify_head};
use serde::Deserialize;
use serde_json::{Value, json};

/// A request in short.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// The router's label; empty: all of them.
    #[serde(default)]
    pub router: String,
    /// `Host`; empty: none.
    #[serde(default)]
    pub host: String,
    /// GET unless given.
    #[serde(default)]
    pub method: String,
    /// The path and query, `/` unless given.
    #[serde(default)]
    pub uri: String,
}

/// The page: label → `{"path"}` or `{"error"}`.
pub fn page(routers: Vec<RouterSettings>) -> MethodRouter {
    get(move |asked: Query<Asked>| {
        let answer = answer(&routers, &asked.0);
        async move { axum::Json(answer) }
    })
}

/// What each router, or the one that is asked for, calls the request.
pub fn answer(routers: &[RouterSettings], asked: &Asked) -> Value {
    let named = routers
        .iter()
        .filter(|r| asked.router.is_empty() || *r.label == *asked.router);
    let one = |r: &RouterSettings| {
        let answer = match identify(r, asked) {
            Ok(path) => json!({ "path": path.to_string() }),
            Err(error) => json!({ "error": error }),
        };
        (r.label.to_string(), answer)
    };
    Value::Object(named.map(one).collect())
}

/// The name of a request under a router's identifiers.
///
/// # Errors
/// The reason that the client would get.
pub fn identify(router: &RouterSettings, asked: &Asked) -> Result<Path, String> {
    let or = |given: &str, default: &str| {
        if given.is_empty() {
            default.to_owned()
        } else {
            given.to_owned()
        }
    };
    let mut text = format!(
        "{} {} HTTP/1.1\r\n",
        or(&asked.method, "GET"),
        or(&asked.uri, "/")
    );
    if !asked.host.is_empty() {
        text.push_str(&format!("Host: {}\r\n", asked.host));
    }
    text.push_str("\r\n");
    let limits = Limits {
        head: router.max_head,
        line: router.max_line,
        ..Limits::default()
    };
    let mut head = RequestHead::new();
    match head.parse(text.as_bytes(), &limits) {
        Ok(Parsed::Complete { .. }) => {}
        Ok(_) => return Err("that is no request".into()),
        Err(error) => return Err(error.to_string()),
    }
    let mut name = Identified::default();
    identify_head(&router.identifiers, &router.dst_prefix, &head, &mut name)
        .map_err(|e| e.to_string())?;
    Ok(name.path())
}

#[cfg(test)]
mod tests {
    use router::settings::{IdentifierSettings, ServerSettings};

    use super::*;

    fn ask(identifier: IdentifierSettings, host: &str, uri: &str) -> String {
        let mut router =
            RouterSettings::new("out", ServerSettings::new(([127, 0, 0, 1], 0).into()));
        router.identifiers = vec![identifier];
        let asked = Asked {
            host: host.into(),
            uri: uri.into(),
            ..Asked::default()
        };
        answer(&[router], &asked)["out"].to_string()
    }

    #[test]
    fn a_request_is_named_as_on_its_way() {
        let token = || IdentifierSettings::HeaderToken {
            header: "Host".into(),
        };
        assert_eq!(ask(token(), "web:80", "/a"), r#"{"path":"/svc/web:80"}"#);
        assert_eq!(
            ask(token(), "", "/a"),
            r#"{"error":"Host header is absent"}"#
        );
        let path = IdentifierSettings::Path {
            segments: 2,
            consume: false,
        };
        assert_eq!(ask(path, "web", "/a/b/c?x=1"), r#"{"path":"/svc/a/b"}"#);
        assert_eq!(
            ask(
                IdentifierSettings::MethodAndHost { uri_in_dst: false },
                "Web",
                "/"
            ),
            r#"{"path":"/svc/1.1/GET/web"}"#
        );
        assert!(
            ask(token(), "we b\r\nx: y", "/").contains("path")
                || ask(token(), "we b", "/").contains("error")
        );
    }
}
