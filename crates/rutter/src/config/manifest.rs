//! Configurations in ConfigMaps, where Linkerd 1's usually are.

use serde::Deserialize as _;
use serde_yaml::Value;

/// A configuration that stands in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// `ConfigMap l5d-config, config.yaml`.
    pub whose: String,
    /// Its text at the lines and columns where the manifest has it: what stands before it is blank.
    pub text: String,
    /// False when the manifest does not have it line by line, as a quoted text: then the lines are its own.
    pub in_place: bool,
}

/// The configurations of a router or a store in a manifest, or in several in one file; none when it is no manifest.
pub fn embedded(manifest: &str) -> Vec<Embedded> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(manifest) {
        let Ok(object) = Value::deserialize(document) else {
            // Whatever it is, it says itself what is wrong with it.
            return Vec::new();
        };
        object_of(&object, manifest, &mut found);
    }
    found
}

fn object_of(object: &Value, manifest: &str, found: &mut Vec<Embedded>) {
    let kind = object.get("kind").and_then(Value::as_str);
    for item in object
        .get("items")
        .and_then(Value::as_sequence)
        .into_iter()
        .flatten()
    {
        object_of(item, manifest, found);
    }
    let (Some("ConfigMap"), Some(data)) = (kind, object.get("data").and_then(Value::as_mapping))
    else {
        return;
    };
    let name = object.get("metadata").and_then(|meta| meta.get("name"));
    let name = name.and_then(Value::as_str).unwrap_or_default();
    for (key, text) in data {
        let (Some(key), Some(text)) = (key.as_str(), text.as_str()) else {
            continue;
        };
        if is_configuration(text) {
            let there = in_place(manifest, text);
            found.push(Embedded {
                whose: format!("ConfigMap {name}, {key}"),
                in_place: there.is_some(),
                text: there.unwrap_or_else(|| text.to_owned()),
            });
        }
    }
}

/// A router's file has routers, a store's has interfaces.
fn is_configuration(text: &str) -> bool {
    let tree: Result<Value, _> = serde_yaml::from_str(text);
    tree.is_ok_and(|tree| tree.get("routers").is_some() || tree.get("interfaces").is_some())
}

/// The block of lines that is `text`, with blank lines in place of what stands before it.
fn in_place(manifest: &str, text: &str) -> Option<String> {
    let lines: Vec<&str> = manifest.lines().collect();
    let wanted: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let first = wanted.iter().position(|line| !line.is_empty())?;
    let is_here = |start: &usize| {
        let Some(block) = lines.get(*start..start + wanted.len()) else {
            return false;
        };
        let Some(deeper) = indent(block[first]).checked_sub(indent(wanted[first])) else {
            return false;
        };
        block
            .iter()
            .zip(&wanted)
            .all(|(line, wanted)| match wanted.is_empty() {
                true => line.trim().is_empty(),
                false => {
                    line.get(deeper..).map(str::trim_end) == Some(*wanted)
                        && line[..deeper].trim().is_empty()
                }
            })
    };
    let start = (1..lines.len()).find(is_here)?;
    Some("\n".repeat(start) + &lines[start..start + wanted.len()].join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: l5d}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: l5d-config
data:
  config.yaml: |-
    admin:
      port: 9990

    routers:
    - protocol: http
  other: text
---
kind: List
items:
- kind: ConfigMap
  metadata: {name: namerd-config}
  data:
    config.yml: \"interfaces: [{kind: io.l5d.httpController}]\"
";

    #[test]
    fn configurations_are_found_where_they_stand() {
        let found = embedded(MANIFEST);
        let whose: Vec<&str> = found.iter().map(|one| one.whose.as_str()).collect();
        assert_eq!(
            whose,
            [
                "ConfigMap l5d-config, config.yaml",
                "ConfigMap namerd-config, config.yml"
            ]
        );
        assert_eq!(
            found[0].text,
            "\n".repeat(10)
                + "    admin:\n      port: 9990\n\n    routers:\n    - protocol: http\n"
        );
        assert_eq!(found[1].text, "interfaces: [{kind: io.l5d.httpController}]");
    }

    #[test]
    fn what_is_no_manifest_has_none() {
        for text in [
            "",
            "routers: []",
            "kind: Service",
            "a: [",
            "- 1\n- 2",
            "kind: ConfigMap\ndata: 7",
        ] {
            assert_eq!(embedded(text), [], "{text}");
        }
    }
}
