//! Zipkin's first span model, as scribe and `/api/v1/spans` bring it, and its way to the second.

use serde_json::{Map, Value, json};

/// A span of the first model: what happened is told by annotations `cs`, `sr`, `ss`, `cr`.
#[derive(Debug, Clone, Default)]
pub struct SpanV1 {
    /// The trace's id, high part.
    pub trace_high: u64,
    /// The trace's id, low part.
    pub trace: u64,
    /// The span's id.
    pub id: u64,
    /// The caller's span.
    pub parent: Option<u64>,
    /// What was called.
    pub name: String,
    /// In µs since 1970.
    pub timestamp: Option<u64>,
    /// In µs.
    pub duration: Option<u64>,
    /// Reported although not sampled.
    pub debug: bool,
    /// When, what, who.
    pub annotations: Vec<(u64, String, Option<Endpoint>)>,
    /// Key, value, who. A value of `None` is an address: `sa`, `ca`.
    pub tags: Vec<(String, Option<String>, Option<Endpoint>)>,
}

/// A host, as spans name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its service name.
    pub service: String,
    /// Its address, as text; empty when unknown.
    pub ip: String,
    /// Its port; 0 when unknown.
    pub port: u16,
}

impl Endpoint {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        if !self.service.is_empty() {
            out.insert("serviceName".into(), json!(self.service));
        }
        if !self.ip.is_empty() {
            let field = if self.ip.contains(':') {
                "ipv6"
            } else {
                "ipv4"
            };
            out.insert(field.into(), json!(self.ip));
        }
        if self.port != 0 {
            out.insert("port".into(), json!(self.port));
        }
        Value::Object(out)
    }
}

impl SpanV1 {
    /// The same span in v2 JSON.
    pub fn to_v2(&self) -> Value {
        let at = |name: &str| self.annotations.iter().find(|a| a.1 == name);
        let (kind, begin, end) = match (at("cs").or(at("cr")), at("sr").or(at("ss"))) {
            (Some(_), _) => (Some("CLIENT"), at("cs"), at("cr")),
            (None, Some(_)) => (Some("SERVER"), at("sr"), at("ss")),
            (None, None) => (None, None, None),
        };
        let begun = self.timestamp.or(begin.map(|a| a.0));
        let lasted = self
            .duration
            .or_else(|| Some(end?.0.saturating_sub(begin?.0)));
        let who = begin.or(end).and_then(|a| a.2.as_ref());
        let who = who.or_else(|| self.annotations.iter().find_map(|a| a.2.as_ref()));
        let who = who.or_else(|| {
            self.tags
                .iter()
                .find_map(|tag| tag.1.as_ref().and(tag.2.as_ref()))
        });
        let remote = if kind == Some("CLIENT") { "sa" } else { "ca" };
        let remote = self
            .tags
            .iter()
            .find(|tag| tag.0 == remote && tag.1.is_none());

        let trace = match self.trace_high {
            0 => format!("{:016x}", self.trace),
            high => format!("{high:016x}{:016x}", self.trace),
        };
        let mut out = json!({"traceId": trace, "id": format!("{:016x}", self.id), "name": self.name.to_lowercase()});
        if let Some(parent) = self.parent {
            out["parentId"] = json!(format!("{parent:016x}"));
        }
        let optional = [
            ("kind", kind.map(Value::from)),
            ("timestamp", begun.map(Value::from)),
            ("duration", lasted.map(Value::from)),
            ("localEndpoint", who.map(Endpoint::to_json)),
            (
                "remoteEndpoint",
                remote.and_then(|tag| tag.2.as_ref()).map(Endpoint::to_json),
            ),
            ("debug", self.debug.then_some(Value::from(true))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                out[name] = value;
            }
        }
        let core = |name: &str| matches!(name, "cs" | "cr" | "sr" | "ss");
        let annotations = self.annotations.iter().filter(|a| !core(&a.1));
        let annotations: Vec<Value> = annotations
            .map(|a| json!({"timestamp": a.0, "value": a.1}))
            .collect();
        if !annotations.is_empty() {
            out["annotations"] = Value::from(annotations);
        }
        for (key, value, _) in &self.tags {
            if let Some(value) = value {
                out["tags"][key] = json!(value);
            }
        }
        out
    }

    /// Reads the JSON form of `/api/v1/spans`.
    pub fn read(json: &Value) -> Option<Self> {
        let hex = |text: &str| u64::from_str_radix(&text[text.len().saturating_sub(16)..], 16).ok();
        let id = |field: &str| json[field].as_str().and_then(hex);
        let list = |field: &str| json[field].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let trace = json["traceId"].as_str()?;
        let high = trace.len().checked_sub(16).filter(|at| *at > 0);
        Some(Self {
            trace_high: high
                .and_then(|at| u64::from_str_radix(trace.get(..at)?, 16).ok())
                .unwrap_or(0),
            trace: id("traceId")?,
            id: id("id")?,
            parent: id("parentId"),
            name: text(&json["name"]),
            timestamp: json["timestamp"].as_u64(),
            duration: json["duration"].as_u64(),
            debug: json["debug"] == true,
            annotations: list("annotations")
                .iter()
                .map(|a| {
                    (
                        a["timestamp"].as_u64().unwrap_or(0),
                        text(&a["value"]),
                        Endpoint::read(&a["endpoint"]),
                    )
                })
                .collect(),
            tags: list("binaryAnnotations")
                .iter()
                .map(|a| {
                    let value = match &a["value"] {
                        Value::Bool(_) => None,
                        Value::String(text) => Some(text.clone()),
                        other => Some(other.to_string()),
                    };
                    (text(&a["key"]), value, Endpoint::read(&a["endpoint"]))
                })
                .collect(),
        })
    }
}

impl Endpoint {
    fn read(json: &Value) -> Option<Self> {
        json.is_object().then(|| Self {
            service: json["serviceName"].as_str().unwrap_or_default().to_owned(),
            ip: json["ipv4"]
                .as_str()
                .or(json["ipv6"].as_str())
                .unwrap_or_default()
                .to_owned(),
            port: json["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(0),
        })
    }
}
