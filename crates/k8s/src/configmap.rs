//! A dtab in a ConfigMap, followed: interpreter `io.l5d.k8s.configMap`.

use std::collections::BTreeMap;
use std::sync::Arc;

use naming::{DefaultInterpreter, LiveDtab, LiveInterpreter, LiveSource, Var};
use serde::Deserialize;
use telemetry::cells::Histogram;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::api::{Api, ApiError, ApiTarget, WatchEvent};
use crate::backoff::Backoff;
use crate::feed::Timing;
use crate::objects::{Key, Meta, Object, Resource, Wire, null_is_default};

/// Where a dtab lies.
#[derive(Clone, Debug)]
pub struct ConfigMapConfig {
    /// The API server.
    pub target: ApiTarget,
    /// The ConfigMap's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The key whose value is the dtab.
    pub key: String,
    /// All waits.
    pub timing: Timing,
}

/// An interpreter over `inner` with the dtab of a ConfigMap, which is followed on `control`.
///
/// As Linkerd's: without ConfigMap or key the dtab is empty, an invalid one keeps the last good one in force. Names wait until
/// the API server has answered once; from then on its errors change nothing.
pub fn interpreter(
    config: ConfigMapConfig,
    inner: DefaultInterpreter,
    control: &Handle,
) -> LiveInterpreter {
    let live = Var::new(LiveDtab::awaited());
    let applied = Arc::new(Histogram::new());
    let place = format!("ConfigMap {}/{}", config.namespace, config.name);
    let name = config.key.clone();
    let task = Task {
        config,
        live: live.clone(),
        applied: applied.clone(),
    };
    let source = LiveSource {
        kind: "io.l5d.k8s.configMap",
        place,
        name,
        live,
        applied,
        follow: control.spawn(task.follow()).abort_handle(),
    };
    LiveInterpreter::new(inner, source)
}

/// A ConfigMap as it is read.
#[derive(Deserialize)]
struct ConfigMapWire {
    metadata: Meta,
    #[serde(default, deserialize_with = "null_is_default")]
    data: BTreeMap<String, String>,
}

impl Wire for ConfigMapWire {
    type Value = BTreeMap<String, String>;
    const RESOURCE: Resource = Resource {
        root: "/api/v1",
        group: "",
        plural: "configmaps",
    };

    fn read(self) -> Object<Self::Value> {
        Object {
            key: self.metadata.key(),
            version: self.metadata.version(),
            value: self.data,
        }
    }
}

/// What the API server says about the ConfigMap.
enum Told {
    Data(BTreeMap<String, String>),
    Absent,
}

struct Task {
    config: ConfigMapConfig,
    live: Var<LiveDtab>,
    applied: Arc<Histogram>,
}

impl Task {
    /// For ever.
    async fn follow(self) {
        let timing = &self.config.timing;
        let mut backoff = Backoff::new(timing.retry_first, timing.retry_most);
        let mut api = None;
        loop {
            let error = match &api {
                None => match Api::new(&self.config.target, timing.patience).await {
                    Ok(made) => {
                        api = Some(made);
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Some(api) => match self.read_and_watch(api, &mut backoff).await {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
            };
            self.failed(error);
            sleep(backoff.wait()).await;
        }
    }

    /// Reads the object and watches it until the watch ends, which it may at any time.
    async fn read_and_watch(&self, api: &Api, backoff: &mut Backoff) -> Result<(), ApiError> {
        let ConfigMapConfig {
            namespace,
            name,
            timing,
            ..
        } = &self.config;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        // Without the object the watch begins with it, should it be there by then.
        let mut version = String::new();
        match api.get(&path).await {
            Ok(object) => {
                if let Some(text) = object["metadata"]["resourceVersion"].as_str() {
                    text.clone_into(&mut version);
                }
                let wire: ConfigMapWire =
                    serde_json::from_value(object).map_err(ApiError::garbage)?;
                self.told(Told::Data(wire.data));
            }
            Err(error) if error.missing() => self.told(Told::Absent),
            Err(error) => return Err(error),
        }
        backoff.reset();
        let own = Key::new(namespace, name);
        let opened = Instant::now();
        let mut watch = api
            .watch_one::<ConfigMapWire>(namespace, name, &version, timing.watch)
            .await?;
        loop {
            let event = match timeout(timing.silence, watch.next::<ConfigMapWire>()).await {
                // Whether the server is still there shows in the next reading.
                Err(_) => return Ok(()),
                Ok(Err(error)) if error.gone() => return Ok(()),
                Ok(event) => event?,
            };
            match event {
                Some(WatchEvent::Apply(object, _)) if object.key == own => {
                    self.told(Told::Data(object.value));
                }
                Some(WatchEvent::Delete(key, _)) if key == own => self.told(Told::Absent),
                Some(_) => {}
                None => break,
            }
        }
        // One that ends at once is no watch; the server is not to be asked in a circle.
        if opened.elapsed() < timing.retry_most {
            sleep(backoff.wait()).await;
        }
        Ok(())
    }

    fn told(&self, told: Told) {
        let heard = Instant::now();
        let before = self.live.get();
        let (map, key) = (
            format!("{}/{}", self.config.namespace, self.config.name),
            &self.config.key,
        );
        let now = match told {
            Told::Data(mut data) => match data.remove(key) {
                Some(text) => {
                    let now = before.apply(Ok(text));
                    match now.dtab {
                        Some(_) => now,
                        // As Linkerd: there is no last good one.
                        None => LiveDtab {
                            problem: now.problem,
                            ..LiveDtab::default().apply(Ok(String::new()))
                        },
                    }
                }
                None => empty(format!("it has no key `{key}`")),
            },
            Told::Absent => empty("it is not there".to_owned()),
        };
        if *before == now {
            return;
        }
        match &now.problem {
            Some(problem) => {
                warn!(config_map = %map, %problem, "the ConfigMap's dtab is not taken: without one, it is empty; an invalid one keeps the last good one");
            }
            None => info!(config_map = %map, key, "the ConfigMap's dtab is taken"),
        }
        let changed = now.dtab != before.dtab;
        self.live.set(now);
        if changed {
            self.applied.record(heard.elapsed().as_micros() as u64);
        }
    }

    /// No answer: what is known stays.
    fn failed(&self, error: String) {
        let before = self.live.get();
        let now = before.failed(error);
        if before.problem.is_none() {
            let problem = now.problem.as_deref().unwrap_or_default();
            let (namespace, name) = (&self.config.namespace, &self.config.name);
            warn!(%namespace, %name, problem, "the ConfigMap cannot be read, its last dtab stays in force");
        }
        if *before != now {
            self.live.set(now);
        }
    }
}

/// No dtab, for this reason.
fn empty(problem: String) -> LiveDtab {
    LiveDtab {
        problem: Some(problem),
        ..LiveDtab::default().apply(Ok(String::new()))
    }
}
