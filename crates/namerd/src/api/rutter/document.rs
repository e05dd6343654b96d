//! The API as an OpenAPI document, made of the routes and of the types that it says.

use http::Method;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Action, BASE, ROUTES, Route, Verb};
use crate::change::edit::Edits;
use crate::change::live::Report;
use crate::change::shapes;

/// The document, as JSON.
pub(super) fn document() -> String {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator);
        let at = paths
            .entry(format!("{BASE}{}", route.path))
            .or_insert_with(|| json!({}));
        at[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "rutter namerd: changes of dtabs",
            "version": "1",
            "description": "Beside Linkerd's API `/api/1`. Errors are application/problem+json. Who makes a change, and what for, stands in the headers `rutter-author` and `rutter-note`.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    });
    document.to_string()
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    for name in ["namespace", "id"] {
        if route.path.contains(&format!("{{{name}}}")) {
            parameters.push(
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
            );
        }
    }
    for (name, about) in route.query {
        parameters.push(json!({"name": name, "in": "query", "description": about, "schema": {"type": "string"}}));
    }
    if route.right == Verb::Write && route.action != Action::Confirm {
        for name in ["If-Match", "If-None-Match"] {
            parameters.push(json!({"name": name, "in": "header", "schema": {"type": "string"}}));
        }
    }
    let answer = answer(route.action, generator);
    let problem = reference::<shapes::Problem>(generator);
    let mut responses = json!({
        "200": {"description": "done", "content": {"application/json": {"schema": answer}}},
        "default": {"description": "not done, and why", "content": {"application/problem+json": {"schema": problem}}},
    });
    if matches!(route.action, Action::Put | Action::Rollback) {
        responses["201"] =
            json!({"description": "a new namespace", "content": responses["200"]["content"]});
    }
    let mut operation = json!({
        "operationId": format!("{:?}", route.action).to_ascii_lowercase(),
        "summary": route.about,
        "x-right": format!("{:?}", route.right).to_ascii_lowercase(),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some((media_type, schema)) = body(route, generator) {
        let mut content = Map::new();
        content.insert(media_type.to_owned(), json!({"schema": schema}));
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

fn reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn body(route: &Route, generator: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
    if route.method == Method::GET {
        return None;
    }
    let json = super::JSON;
    Some(match route.action {
        Action::Put | Action::Plan | Action::Lint => {
            ("application/dtab", json!({"type": "string"}))
        }
        Action::Patch => (json, reference::<Edits>(generator)),
        Action::Rollback => (json, reference::<shapes::Rollback>(generator)),
        Action::Confirm => (json, reference::<shapes::Confirm>(generator)),
        Action::Report => (json, reference::<Report>(generator)),
        _ => return None,
    })
}

fn answer(action: Action, generator: &mut SchemaGenerator) -> Value {
    match action {
        Action::Namespaces => reference::<shapes::Namespaces>(generator),
        Action::Show => reference::<shapes::Shown>(generator),
        Action::Put | Action::Patch | Action::Delete | Action::Rollback | Action::Confirm => {
            reference::<shapes::Written>(generator)
        }
        Action::History => reference::<shapes::History>(generator),
        Action::Diff => reference::<shapes::Diff>(generator),
        Action::Blame => reference::<shapes::Blamed>(generator),
        Action::Plan => reference::<shapes::Planned>(generator),
        Action::Lint => reference::<shapes::Linted>(generator),
        Action::Acks => reference::<shapes::Acks>(generator),
        Action::Names => reference::<shapes::NamesInUse>(generator),
        Action::Traffic => reference::<shapes::Traffic>(generator),
        Action::Routers => reference::<shapes::Routers>(generator),
        Action::Report => reference::<shapes::Reported>(generator),
        Action::Document => json!({"type": "object"}),
    }
}
