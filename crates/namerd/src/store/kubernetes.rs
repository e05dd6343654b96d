//! `io.l5d.k8s` and `io.rutter.k8s.configMap`: dtabs as objects of Kubernetes.
//!
//! A namespace is an object of its name; what `kubectl` does to it is in force when the watch tells of it. Our own record of a
//! version is an annotation. Past versions are ControllerRevisions, which Kubernetes has for that purpose.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use k8s::{Api, ApiError, ApiTarget};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::remote::{Backend, Item, Meta, Past, Place, Remote, Told, Trouble, hash};
use super::{Namespace, Refused, Store};

mod objects;

use objects::{STORAGE, place};

/// On what is past: whose it is, as a hash, since a label is shorter than a name may be.
const OF: &str = "rutter.io/dtab";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a watch is asked to stay open; below the 5 minutes after which many balancers cut it.
const WATCH_S: u64 = 270;
/// After as long without an event the watch is opened anew: bookmarks come about once a minute.
const SILENCE: Duration = Duration::from_secs(90);
/// How many objects a page of a list has.
const PAGE: usize = 200;

/// What a dtab is in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `io.l5d.k8s`, as in Linkerd: a DTab, whose CustomResourceDefinition the cluster must have.
    Dtab,
    /// `io.rutter.k8s.configMap`: a ConfigMap with the label `rutter.io/storage: dtab`, the dtab under its key `dtab`.
    ConfigMap,
}

/// Where dtabs are in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// The API server.
    pub target: ApiTarget,
    /// The namespace of Kubernetes in which the objects are.
    pub namespace: String,
    /// What they are.
    pub shape: Shape,
}

/// A store in Kubernetes, which follows it on `control`.
#[must_use]
pub fn open(config: KubernetesConfig, control: &Handle) -> Arc<dyn Store> {
    let backend = Kubernetes {
        config,
        api: OnceCell::new(),
    };
    Arc::new(Remote::new(backend, control))
}

struct Kubernetes {
    config: KubernetesConfig,
    api: OnceCell<Api>,
}

impl Kubernetes {
    /// Set up when it is first needed: a token or a kubeconfig may come later than we do.
    async fn api(&self) -> Result<&Api, Trouble> {
        let made = self
            .api
            .get_or_try_init(|| Api::new(&self.config.target, PATIENCE));
        made.await
            .map_err(|error| Trouble::Unanswered(format!("{}: {error}", self.config.target)))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failed> {
        let api = self.api().await.map_err(Failed::Trouble)?;
        let answered = api.call(method.clone(), path, body).await;
        answered.map_err(|error| self.failed(&method, error))
    }

    /// What an error means; `method` is named where permissions are missing.
    fn failed(&self, method: &Method, error: ApiError) -> Failed {
        let text = format!("{}: {error}", self.config.target);
        let (verb, resource) = (verb(method), self.resource());
        match &error {
            ApiError::Status { code: 409, .. } => Failed::Conflict,
            ApiError::Status { code: 404, .. } => Failed::Missing,
            ApiError::Status { code, message } => {
                let large = ["too large", "larger than max", "Too long"];
                if *code == 413 || large.iter().any(|words| message.contains(words)) {
                    return Failed::Trouble(Trouble::Refused(Refused::TooLarge, text));
                }
                Failed::Trouble(match code {
                    401 | 403 => Trouble::Refused(
                        Refused::Forbidden,
                        format!(
                            "{text} (needed: `{verb}` on {resource}, and on controllerrevisions.apps for the history)"
                        ),
                    ),
                    400 | 422 => Trouble::Refused(Refused::Name, text),
                    _ => Trouble::Unanswered(text),
                })
            }
            _ => Failed::Trouble(Trouble::Unanswered(text)),
        }
    }

    const fn resource(&self) -> &'static str {
        match self.config.shape {
            Shape::Dtab => "dtabs.l5d.io",
            Shape::ConfigMap => "configmaps",
        }
    }

    fn objects(&self) -> String {
        let namespace = &self.config.namespace;
        match self.config.shape {
            Shape::Dtab => format!("/apis/l5d.io/v1alpha1/namespaces/{namespace}/dtabs"),
            Shape::ConfigMap => format!("/api/v1/namespaces/{namespace}/configmaps"),
        }
    }

    fn selector(&self) -> String {
        match self.config.shape {
            Shape::Dtab => String::new(),
            Shape::ConfigMap => format!("&labelSelector={}%3D{}", STORAGE.0, STORAGE.1),
        }
    }

    fn revisions(&self) -> String {
        format!(
            "/apis/apps/v1/namespaces/{}/controllerrevisions",
            self.config.namespace
        )
    }

    async fn list(&self, path: &str, selector: &str) -> Result<(Value, Vec<Value>), Failed> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let uri = format!("{path}?limit={PAGE}{selector}{token}");
            let mut page = self.call(Method::GET, &uri, None).await?;
            if let Value::Array(items) = page["items"].take() {
                all.extend(items);
            }
            match page["metadata"]["continue"].as_str() {
                Some(more) if !more.is_empty() => {
                    let escaped = percent_encoding::utf8_percent_encode(
                        more,
                        percent_encoding::NON_ALPHANUMERIC,
                    );
                    token = format!("&continue={escaped}");
                }
                _ => return Ok((page["metadata"].take(), all)),
            }
        }
    }
}

/// Why a call brought nothing.
enum Failed {
    /// Somebody else was first, or it is there already.
    Conflict,
    /// There is no such object, or no such kind.
    Missing,
    Trouble(Trouble),
}

impl Failed {
    fn into_trouble(self, what: &str) -> Trouble {
        match self {
            Self::Conflict => Trouble::Unanswered(format!("{what}: conflict")),
            Self::Missing => Trouble::Unanswered(format!("{what}: not found")),
            Self::Trouble(trouble) => trouble,
        }
    }
}

/// What Kubernetes' permissions call a method.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ => "get, list, watch",
    }
}

fn revision_name(namespace: &Namespace, number: u64) -> String {
    format!("dtab-{}-{number}", label(namespace))
}

/// A namespace as a label's value.
fn label(namespace: &Namespace) -> String {
    let both = [namespace.as_str(), "/", namespace.as_str()].concat();
    format!("{}{}", hash(namespace.as_str()), hash(&both))
}

impl Backend for Kubernetes {
    /// The metadata, with the version that is replaced.
    type Held = Value;

    fn kind(&self) -> &'static str {
        match self.config.shape {
            Shape::Dtab => "io.l5d.k8s",
            Shape::ConfigMap => "io.rutter.k8s.configMap",
        }
    }

    fn place(&self) -> String {
        self.config.target.to_string()
    }

    fn fits(&self, namespace: &Namespace) -> Result<(), String> {
        let name = namespace.as_str();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = name.split('.').all(|part| {
            part.starts_with(plain)
                && part.ends_with(plain)
                && part.chars().all(|c| plain(c) || c == '-')
        });
        match good {
            true => Ok(()),
            false => Err(format!(
                "in Kubernetes a namespace of the store is called by lower-case letters, digits, `-` and `.`, as its objects are; found {name:?}"
            )),
        }
    }

    async fn read(&self, namespace: &Namespace) -> Result<Option<Item<Value>>, Trouble> {
        let path = format!("{}/{namespace}", self.objects());
        match self.call(Method::GET, &path, None).await {
            Ok(object) => Ok(self.item(object).map(|(_, item)| item)),
            Err(Failed::Missing) => Ok(None),
            Err(other) => Err(other.into_trouble(&path)),
        }
    }

    async fn write(
        &self,
        namespace: &Namespace,
        text: &str,
        meta: &Meta,
        before: Option<&Value>,
    ) -> Result<Option<Place>, Trouble> {
        let object = self.object(namespace, text, meta, before);
        self.check_size(&object)?;
        let path = self.objects();
        let answered = match before {
            None => self.call(Method::POST, &path, Some(&object)).await,
            Some(_) => {
                let path = format!("{path}/{namespace}");
                self.call(Method::PUT, &path, Some(&object)).await
            }
        };
        match answered {
            Ok(object) => Ok(Some(place(&object["metadata"]))),
            Err(Failed::Missing) if before.is_none() => Err(self.not_there()),
            Err(Failed::Conflict) if before.is_none() && self.read(namespace).await?.is_none() => {
                Err(Trouble::Refused(
                    Refused::Name,
                    format!(
                        "there is a ConfigMap {namespace} that is none of the store's: it has no label {}: {}",
                        STORAGE.0, STORAGE.1
                    ),
                ))
            }
            Err(Failed::Conflict | Failed::Missing) => Ok(None),
            Err(Failed::Trouble(trouble)) => Err(trouble),
        }
    }

    async fn delete(&self, namespace: &Namespace, before: &Value) -> Result<Option<u64>, Trouble> {
        let path = format!("{}/{namespace}", self.objects());
        let version = &before["resourceVersion"];
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": version}});
        match self.call(Method::DELETE, &path, Some(&options)).await {
            // What it answers need not say where the deletion stands.
            Ok(_) => Ok(Some(place(before).order)),
            Err(Failed::Conflict | Failed::Missing) => Ok(None),
            Err(Failed::Trouble(trouble)) => Err(trouble),
        }
    }

    async fn archive(&self, namespace: &Namespace, past: &Past) -> Result<(), Trouble> {
        let name = revision_name(namespace, past.number);
        let data = serde_json::to_value(past).expect("texts and numbers are JSON");
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": name, "labels": {OF: label(namespace)}, "annotations": {OF: namespace.as_str()}},
            "revision": past.number,
            "data": data,
        });
        let path = self.revisions();
        match self.call(Method::POST, &path, Some(&object)).await {
            Ok(_) => return Ok(()),
            Err(Failed::Conflict) => {}
            Err(other) => return Err(other.into_trouble(&path)),
        }
        // Its data cannot be changed. Mostly it is the same, of a try that broke off behind it.
        let own = format!("{path}/{name}");
        match self.call(Method::GET, &own, None).await {
            Ok(there) if there["data"] == object["data"] => return Ok(()),
            Ok(_) => self.forget(namespace, past.number).await?,
            Err(Failed::Missing) => {}
            Err(other) => return Err(other.into_trouble(&own)),
        }
        let made = self.call(Method::POST, &path, Some(&object)).await;
        made.map(|_| ()).map_err(|error| error.into_trouble(&path))
    }

    async fn archived(
        &self,
        namespace: &Namespace,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Past>, Trouble> {
        let path = self.revisions();
        let selector = format!("&labelSelector={OF}%3D{}", label(namespace));
        let (_, objects) = match self.list(&path, &selector).await {
            Ok(listed) => listed,
            Err(other) => return Err(other.into_trouble(&path)),
        };
        let below = |past: &Past| before.is_none_or(|before| past.number < before);
        let mut all: Vec<Past> = objects
            .into_iter()
            .filter_map(|mut object| serde_json::from_value(object["data"].take()).ok())
            .filter(below)
            .collect();
        all.sort_by_key(|past| std::cmp::Reverse(past.number));
        all.truncate(limit);
        Ok(all)
    }

    async fn forget(&self, namespace: &Namespace, number: u64) -> Result<(), Trouble> {
        let path = format!("{}/{}", self.revisions(), revision_name(namespace, number));
        match self.call(Method::DELETE, &path, None).await {
            Ok(_) | Err(Failed::Missing) => Ok(()),
            Err(other) => Err(other.into_trouble(&path)),
        }
    }

    async fn follow(&self, told: &Told<'_, Self>) -> Trouble {
        match self.list_and_watch(told).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }
}

impl Kubernetes {
    fn not_there(&self) -> Trouble {
        Trouble::Unanswered(format!(
            "{} has no {}: apply the CustomResourceDefinition (docs/dtabs.l5d.io.yaml), and make the namespace {}",
            self.config.target,
            self.resource(),
            self.config.namespace
        ))
    }

    async fn list_and_watch(
        &self,
        told: &Told<'_, Self>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let path = self.objects();
        let newest = told.newest();
        let (metadata, objects) = match self.list(&path, &self.selector()).await {
            Ok(listed) => listed,
            // Not the same as an empty list.
            Err(Failed::Missing) => return Err(self.not_there()),
            Err(other) => return Err(other.into_trouble(&path)),
        };
        let mut version = metadata["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let items = objects.into_iter().filter_map(|object| self.item(object));
        told.whole(newest, version.parse().unwrap_or(0), items.collect())
            .await;
        loop {
            let uri = format!(
                "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={version}{}",
                self.selector()
            );
            let api = self.api().await?;
            let failed = |error: ApiError| self.failed(&Method::GET, error).into_trouble(&path);
            let began = tokio::time::Instant::now();
            let mut watch = api.watch_raw(&uri).await.map_err(failed)?;
            told.well();
            while let Some(event) = watch.next(SILENCE).await.map_err(failed)? {
                let metadata = &event.object["metadata"];
                if let Some(now) = metadata["resourceVersion"].as_str() {
                    now.clone_into(&mut version);
                }
                let order = place(metadata).order;
                match (event.r#type.as_str(), self.item(event.object)) {
                    ("ADDED" | "MODIFIED", Some((name, item))) => told.came(name, item).await,
                    ("DELETED", Some((name, _))) => told.gone(&name, order).await,
                    _ => {}
                }
            }
            // One that ends at once is no watch; the server is not to be asked in a circle.
            if began.elapsed() < Duration::from_secs(1) {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
