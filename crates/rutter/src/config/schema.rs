//! JSON Schema of the configuration, from the tables of keys that the parser uses.

use serde_json::{Map, Value, json};

use super::keys::{Effect, Key, Kinds, Section, Support, Ty, top};
use super::validate::wanted;

/// `rutter config schema`.
pub fn schema() -> Value {
    let mut root = section(&top::FILE, None);
    if let Value::Object(map) = &mut root {
        map.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        map.insert(
            "title".into(),
            "Configuration of rutter (and of Linkerd 1)".into(),
        );
    }
    root
}

fn section(section: &Section, tag: Option<(&str, &str)>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    if let Some((tag, id)) = tag {
        properties.insert(tag.into(), json!({ "const": id }));
    }
    for key in section.all_keys() {
        if matches!(key.effect, Effect::Refused(_)) {
            continue;
        }
        properties.insert(key.name.into(), described(key));
        if key.required {
            required.push(key.name);
        }
    }
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn described(key: &Key) -> Value {
    let mut schema = ty(key.ty);
    let about = match key.effect {
        Effect::Ignored(why) => format!("{} (no effect: {why})", key.about),
        _ if key.default.is_empty() => key.about.to_owned(),
        _ => format!("{} Default: {}.", key.about, key.default),
    };
    schema["description"] = about.into();
    schema
}

fn ty(of: Ty) -> Value {
    match of {
        Ty::Bool => json!({ "type": "boolean" }),
        Ty::Count(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Ty::CountOrMinusOne(high) => json!({ "type": "integer", "minimum": -1, "maximum": high }),
        Ty::Number(low, high) => json!({ "type": "number", "minimum": low, "maximum": high }),
        Ty::Port => json!({ "type": "integer", "minimum": 0, "maximum": 65_535 }),
        Ty::Millis => json!({ "type": "integer", "minimum": 0 }),
        Ty::Ip => {
            json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
        }
        Ty::Path | Ty::Pattern => json!({ "type": "string", "pattern": "^/" }),
        Ty::OneOf(words) => json!({ "enum": words }),
        Ty::Text
        | Ty::Dtab
        | Ty::Header
        | Ty::File
        | Ty::ExistingFile
        | Ty::ExistingDir
        | Ty::RollPolicy => {
            json!({ "type": "string", "title": wanted(of) })
        }
        Ty::Section(s) => section(s, None),
        Ty::Kinds(k) => kinds(k),
        Ty::List(item) => json!({ "type": "array", "items": ty(*item) }),
        Ty::Named(item) => json!({ "type": "object", "additionalProperties": ty(*item) }),
        Ty::OneOrMany(item) => {
            json!({ "anyOf": [ty(*item), { "type": "array", "minItems": 1, "items": ty(*item) }] })
        }
    }
}

fn kinds(kinds: &Kinds) -> Value {
    let mut all = Vec::new();
    for kind in kinds.supported() {
        let Support::Yes(of) = kind.support else {
            continue;
        };
        let mut schema = section(of, Some((kinds.tag, kind.id)));
        if kinds.default != Some(kind.id) {
            let tag = Value::from(kinds.tag);
            match schema["required"].as_array_mut() {
                Some(required) => required.insert(0, tag),
                None => schema["required"] = json!([tag]),
            }
        }
        schema["description"] = kind.about.into();
        all.push(schema);
    }
    json!({ "oneOf": all })
}
