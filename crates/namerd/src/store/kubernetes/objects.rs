//! A dtab as an object of Kubernetes, and back.

use std::sync::Arc;

use dtab::Dtab;
use serde_json::{Map, Value, json};

use super::{Kubernetes, Shape};
use crate::store::remote::{Item, Meta, Place, Trouble, hash};
use crate::store::{Namespace, Origin, Refused, base64, one_line};

/// Our own record of the version in an object.
const RECORD: &str = "rutter.io/record";
/// On a ConfigMap that is a namespace of the store.
pub(super) const STORAGE: (&str, &str) = ("rutter.io/storage", "dtab");
/// The key of such a ConfigMap.
const KEY: &str = "dtab";
/// A text that differs from its dentries, by its comments, is kept up to so many bytes: an object takes 256 KiB of
/// annotations, and kubectl puts the dtab into one of them, too.
const COMMENTED: usize = 64 << 10;
/// What an object may take: etcd refuses requests above 1.5 MiB.
const OBJECT: usize = 1400 << 10;
/// What a ConfigMap may hold.
const CONFIG_MAP: usize = 1 << 20;

impl Kubernetes {
    /// The version, or none for an object that is none of ours.
    pub(super) fn item(&self, mut object: Value) -> Option<(Namespace, Item<Value>)> {
        let name = Namespace::new(object["metadata"]["name"].as_str()?).ok()?;
        let annotations = &object["metadata"]["annotations"];
        let record = annotations[RECORD].as_str();
        let record = record.and_then(|text| serde_json::from_str::<Meta>(text).ok());
        let (text, hashed, body): (Arc<str>, String, &str) = match self.config.shape {
            Shape::Dtab => {
                let text = written(&object["dentries"]);
                let hashed = hash(&canonical(&text));
                (text.into(), hashed, "/f:dentries")
            }
            Shape::ConfigMap => {
                let label = &object["metadata"]["labels"][STORAGE.0];
                if label != STORAGE.1 {
                    return None;
                }
                let text = object["data"][KEY].as_str().unwrap_or_default();
                (text.into(), hash(text), "/f:data/f:dtab")
            }
        };
        let at_least = record.as_ref().map_or(0, |record| record.number);
        let meta = record.filter(|record| record.hash == hashed);
        let text = meta
            .as_ref()
            .and_then(|meta| meta.text.clone())
            .unwrap_or(text);
        let outside = outside(&object["metadata"]["managedFields"], body);
        let mut held = object["metadata"].take();
        if let Some(held) = held.as_object_mut() {
            held.remove("managedFields");
        }
        let place = place(&held);
        Some((
            name,
            Item {
                place,
                held,
                text,
                meta,
                at_least,
                outside,
            },
        ))
    }

    /// The whole object; what others have put beside the dtab stays.
    pub(super) fn object(
        &self,
        namespace: &Namespace,
        text: &str,
        meta: &Meta,
        held: Option<&Value>,
    ) -> Value {
        let mut metadata = held
            .cloned()
            .unwrap_or_else(|| json!({"name": namespace.as_str()}));
        let mut meta = meta.clone();
        let body = match self.config.shape {
            Shape::Dtab => {
                let dentries = dentries(text);
                let shown = written(&dentries);
                meta.hash = hash(&canonical(&shown));
                meta.text = (shown != text && text.len() <= COMMENTED).then(|| text.into());
                json!({"apiVersion": "l5d.io/v1alpha1", "kind": "DTab", "dentries": dentries})
            }
            Shape::ConfigMap => {
                meta.hash = hash(text);
                put(&mut metadata, "labels", STORAGE.0, STORAGE.1.into());
                json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {KEY: text}})
            }
        };
        let record = serde_json::to_string(&meta).expect("texts and numbers are JSON");
        put(&mut metadata, "annotations", RECORD, record);
        let mut object = body;
        object["metadata"] = metadata;
        object
    }

    pub(super) fn check_size(&self, object: &Value) -> Result<(), Trouble> {
        let (bytes, most, what) = match self.config.shape {
            Shape::Dtab => (object.to_string().len(), OBJECT, "a DTab"),
            Shape::ConfigMap => (
                object["data"][KEY].as_str().map_or(0, str::len),
                CONFIG_MAP - COMMENTED,
                "a ConfigMap",
            ),
        };
        match bytes > most {
            true => Err(Trouble::Refused(
                Refused::TooLarge,
                format!(
                    "the dtab takes {bytes} bytes as {what}, and Kubernetes takes {most}: use the storage `file` or io.l5d.etcd, or split the namespace"
                ),
            )),
            false => Ok(()),
        }
    }
}

fn put(metadata: &mut Value, field: &str, key: &str, value: String) {
    let map = &mut metadata[field];
    if !map.is_object() {
        *map = Value::Object(Map::new());
    }
    map[key] = Value::String(value);
}

pub(super) fn place(metadata: &Value) -> Place {
    let version = metadata["resourceVersion"].as_str().unwrap_or_default();
    Place {
        order: version.parse().unwrap_or(0),
        version: base64(version.as_bytes()).into(),
    }
}

/// A list of dentries as a dtab, one a line.
fn written(dentries: &Value) -> String {
    let part = |dentry: &Value, field: &str| dentry[field].as_str().unwrap_or_default().to_owned();
    let lines = dentries.as_array().into_iter().flatten();
    let lines = lines.map(|one| format!("{} => {} ;\n", part(one, "prefix"), part(one, "dst")));
    lines.collect()
}

fn dentries(text: &str) -> Value {
    let dtab = Dtab::read(text).unwrap_or_default();
    let dentry =
        |one: &dtab::Dentry| json!({"prefix": one.prefix.to_string(), "dst": one.dst.to_string()});
    dtab.entries().iter().map(dentry).collect()
}

/// The same for every way to write a dtab; what is no dtab stays as it is.
fn canonical(text: &str) -> String {
    Dtab::read(text).map_or_else(|_| text.to_owned(), |dtab| one_line(&dtab))
}

/// Who changed an object's `body` last, a field as a pointer into `fieldsV1`: whose that field is. Times alone do not say it,
/// since Kubernetes notes them by the second, and since others change a label or an annotation.
fn outside(managed: &Value, body: &str) -> Option<Origin> {
    let last = managed.as_array()?.iter().max_by_key(|one| {
        let owned = one["fieldsV1"].pointer(body).is_some();
        (owned, one["time"].as_str())
    })?;
    let manager = last["manager"].as_str()?;
    Some(Origin::now(format!("{manager}, in Kubernetes"), ""))
}
