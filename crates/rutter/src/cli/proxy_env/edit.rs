//! One document: where its containers are, and which bytes of its text change.

use std::ops::Range;

use serde_json::{Value as Json, json};

use crate::config::yaml::{self, Node, Value};

/// The variable that holds the node's address; what refers to it is ours.
const NODE_IP: &str = "RUTTER_NODE_IP";
/// The variable that holds the Service's name, with `--service`.
const SERVICE: &str = "RUTTER_SERVICE";
const HTTP_PROXY: &str = "http_proxy";
const NO_PROXY: &str = "no_proxy";
/// Asked directly: the pod itself, and the clouds' metadata servers, which answer their own node only.
const DIRECT: [&str; 4] = ["localhost", "127.0.0.1", "::1", "169.254.169.254"];
/// The routers' own pods are labelled so; through themselves they would reach nobody.
const OWN_LABEL: (&str, &str) = ("app.kubernetes.io/name", "rutter");

/// What is to be done.
#[derive(Debug)]
pub(super) enum Change {
    /// Put the variables in.
    Add(Box<Proxy>),
    /// Take them out.
    Undo,
}

/// The variables to be put in, in order: one refers to those before it.
#[derive(Debug)]
pub(super) struct Proxy {
    entries: [Json; 3],
}

impl Proxy {
    /// # Errors
    /// What is wrong with the Service's name or the list.
    pub(super) fn new(
        port: u16,
        service: Option<&str>,
        no_proxy: &[String],
    ) -> Result<Self, String> {
        let marker = match service {
            None => {
                json!({"name": NODE_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}})
            }
            Some(service) => json!({"name": SERVICE, "value": service_name(service)?}),
        };
        let refers = format!("$({})", marker["name"].as_str().unwrap_or_default());
        if let Some(odd) = no_proxy
            .iter()
            .find(|one| one.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            return Err(format!(
                "--no-proxy takes names and addresses separated by commas, not {odd:?}"
            ));
        }
        let given = no_proxy
            .iter()
            .map(String::as_str)
            .filter(|one| !one.is_empty());
        let mut direct: Vec<&str> = DIRECT.into_iter().chain(given).collect();
        direct.push(&refers);
        Ok(Self {
            entries: [
                marker,
                json!({"name": HTTP_PROXY, "value": format!("http://{refers}:{port}")}),
                json!({"name": NO_PROXY, "value": direct.join(",")}),
            ],
        })
    }

    /// Those that a container with these variables gets.
    fn for_container(&self, env: &[Json]) -> Vec<Json> {
        let has = |name: &str| env.iter().any(|one| one["name"] == name);
        let mut entries = self.entries.to_vec();
        entries.retain(|entry| entry["name"] != NO_PROXY || !has(NO_PROXY));
        entries
    }
}

/// `rutter.mesh` → `rutter.mesh.svc.cluster.local`; a longer name stays.
fn service_name(given: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let labels: Vec<&str> = given.split('.').collect();
    if labels.len() < 2 || !labels.iter().all(|one| label(one)) {
        return Err(format!(
            "--service takes NAME.NAMESPACE, such as rutter.mesh, not {given:?}"
        ));
    }
    Ok(match labels.len() {
        2 => format!("{given}.svc.cluster.local"),
        _ => given.to_owned(),
    })
}

/// What became of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edited {
    pub(super) text: String,
    /// Pod specs in it.
    pub(super) pods: usize,
    /// Containers that were changed.
    pub(super) containers: usize,
}

/// Changes a document; `notes` gets what was left alone and why.
///
/// # Errors
/// When the text is written in a way that cannot be edited in place.
pub(super) fn document(
    source: &str,
    tree: &Node,
    change: &Change,
    notes: &mut Vec<String>,
) -> Result<Edited, String> {
    let mut text = source.to_owned();
    let mut tree = tree.clone();
    let mut containers = 0;
    // First out what an earlier run put in and is no longer so, then in what is missing: two plain edits.
    for adding in [false, true] {
        let mut meant = tree.to_json();
        let mut edits = Vec::new();
        let mut changed = 0;
        for pod in pods(&tree) {
            for container in &pod.containers {
                let json = meant
                    .pointer_mut(&container.pointer)
                    .unwrap_or(&mut Json::Null)
                    .take();
                let plan = match (adding, change) {
                    (false, _) => outdated(&json, change),
                    (true, Change::Add(proxy)) => missing(&json, proxy, &pod, container, notes),
                    (true, Change::Undo) => Plan::Nothing,
                };
                changed += usize::from(!matches!(plan, Plan::Nothing));
                let place = meant.pointer_mut(&container.pointer);
                let json = plan.apply(json);
                if let Some(place) = place {
                    *place = json;
                }
                edits.extend(plan.edits(&text, container.node, container.dash_deeper)?);
            }
        }
        if edits.is_empty() {
            continue;
        }
        text = applied(&text, edits);
        tree = yaml::parse(&text).map_err(|e| cannot(&e.message))?;
        if tree.to_json() != meant {
            return Err(cannot(
                "its containers are written in an unusual way, with aliases perhaps",
            ));
        }
        containers = containers.max(changed);
    }
    let pods = pods(&tree).len();
    Ok(Edited {
        text,
        pods,
        containers,
    })
}

fn cannot(why: &str) -> String {
    format!("it cannot be edited in place ({why}); `kubectl … -o json` writes it so that it can be")
}

/// A pod's containers in a document.
struct Pod<'a> {
    /// For people: `deployment/web`.
    name: String,
    containers: Vec<Container<'a>>,
}

struct Container<'a> {
    node: &'a Node,
    /// Where it is in the document as JSON.
    pointer: String,
    /// The list of containers has its dashes deeper than its key: so will the new one.
    dash_deeper: bool,
}

fn pods(tree: &Node) -> Vec<Pod<'_>> {
    let mut found = Vec::new();
    objects(tree, "", &mut found);
    found
}

fn objects<'a>(object: &'a Node, pointer: &str, found: &mut Vec<Pod<'a>>) {
    let kind = object.get("kind").and_then(Node::text).unwrap_or_default();
    let way: &[&str] = match kind {
        "Pod" => &[],
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => &["spec", "template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "PodTemplate" => &["template"],
        _ => {
            if let (true, Some(Value::List(items))) = (
                kind.ends_with("List"),
                object.get("items").map(|n| &n.value),
            ) {
                for (i, item) in items.iter().enumerate() {
                    objects(item, &format!("{pointer}/items/{i}"), found);
                }
            }
            return;
        }
    };
    let mut template = object;
    let mut place = pointer.to_owned();
    for key in way {
        let Some(next) = template.get(key) else {
            return;
        };
        template = next;
        place = format!("{place}/{key}");
    }
    let Some(spec) = template.get("spec") else {
        return;
    };
    if label(template) == Some(OWN_LABEL.1) {
        return;
    }
    let name = object.get("metadata").and_then(|meta| meta.get("name"));
    let name = name.and_then(Node::text).unwrap_or("(no name)");
    let mut pod = Pod {
        name: format!("{}/{name}", kind.to_lowercase()),
        containers: Vec::new(),
    };
    for key in ["initContainers", "containers"] {
        let Some(entry) = spec.entry(key) else {
            continue;
        };
        let Value::List(containers) = &entry.node.value else {
            continue;
        };
        for (i, node) in containers.iter().enumerate() {
            pod.containers.push(Container {
                node,
                pointer: format!("{place}/spec/{key}/{i}"),
                dash_deeper: node.place.column > entry.place.column + 2,
            });
        }
    }
    found.push(pod);
}

fn label(template: &Node) -> Option<&str> {
    template
        .get("metadata")?
        .get("labels")?
        .get(OWN_LABEL.0)?
        .text()
}

fn env(container: &Json) -> &[Json] {
    container["env"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether a variable is one that we put in: the markers, and what refers to them.
fn is_ours(entry: &Json) -> bool {
    let refers = || {
        let value = entry["value"].as_str().unwrap_or_default();
        [NODE_IP, SERVICE]
            .iter()
            .any(|name| value.contains(&format!("$({name})")))
    };
    match entry["name"].as_str() {
        Some(NODE_IP | SERVICE) => true,
        Some(HTTP_PROXY | NO_PROXY) => refers(),
        _ => false,
    }
}

/// What happens to one container.
enum Plan {
    Nothing,
    /// Variables at these places are taken out.
    Remove(Vec<usize>),
    /// These come first.
    Insert(Vec<Json>),
}

fn outdated(container: &Json, change: &Change) -> Plan {
    let env = env(container);
    let ours: Vec<usize> = (0..env.len()).filter(|&i| is_ours(&env[i])).collect();
    let as_meant = |proxy: &Proxy| {
        let others: Vec<Json> = env.iter().filter(|one| !is_ours(one)).cloned().collect();
        proxy
            .for_container(&others)
            .iter()
            .eq(ours.iter().map(|&i| &env[i]))
    };
    match change {
        _ if ours.is_empty() => Plan::Nothing,
        Change::Add(proxy) if as_meant(proxy) => Plan::Nothing,
        _ => Plan::Remove(ours),
    }
}

fn missing(
    container: &Json,
    proxy: &Proxy,
    pod: &Pod<'_>,
    place: &Container<'_>,
    notes: &mut Vec<String>,
) -> Plan {
    let env = env(container);
    if env.iter().any(is_ours) {
        return Plan::Nothing; // as it is meant, or `outdated` would have taken it out
    }
    let who = format!(
        "{}, container {}",
        pod.name,
        container["name"].as_str().unwrap_or(&place.pointer)
    );
    let other = |name: &str| env.iter().find(|one| one["name"] == name);
    if let Some(own) = other(HTTP_PROXY) {
        let value = own["value"].as_str().unwrap_or("a value from elsewhere");
        notes.push(format!("{who}: keeps its own http_proxy ({value})"));
        return Plan::Nothing;
    }
    if other(NO_PROXY).is_some() {
        notes.push(format!(
            "{who}: keeps its own no_proxy; see that localhost is in it"
        ));
    }
    Plan::Insert(proxy.for_container(env))
}

impl Plan {
    /// The container as it is meant to be.
    fn apply(&self, mut container: Json) -> Json {
        match self {
            Self::Nothing => {}
            Self::Remove(places) => {
                let mut left = env(&container).to_vec();
                places.iter().rev().for_each(|&i| _ = left.remove(i));
                match (left.is_empty(), container.as_object_mut()) {
                    (true, Some(container)) => _ = container.shift_remove("env"),
                    _ => container["env"] = left.into(),
                }
            }
            Self::Insert(entries) => {
                let all: Vec<Json> = entries.iter().chain(env(&container)).cloned().collect();
                container["env"] = all.into();
            }
        }
        container
    }

    /// The same as edits of the text.
    fn edits(&self, text: &str, node: &Node, dash_deeper: bool) -> Result<Vec<Edit>, String> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Remove(places) => remove(text, node, places),
            Self::Insert(entries) => {
                insert(text, node, entries, dash_deeper).map(|edit| vec![edit])
            }
        }
    }
}

/// Bytes of the text, and what takes their place.
struct Edit {
    range: Range<usize>,
    text: String,
}

fn applied(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.range.start);
    let mut out = String::new();
    let mut at = 0;
    for edit in edits {
        out.push_str(text.get(at..edit.range.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = at.max(edit.range.end);
    }
    out + &text[at..]
}

fn starts_with(text: &str, node: &Node, sign: char) -> bool {
    text[node.place.offset..].starts_with(sign)
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |i| i + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |i| at + i + 1)
}

fn insert(text: &str, node: &Node, entries: &[Json], dash_deeper: bool) -> Result<Edit, String> {
    let at = |at: usize, text: String| Edit {
        range: at..at,
        text,
    };
    let flow = || {
        entries
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let env = node.entry("env");
    if let Some(entry) = env
        && let Value::List(items) = &entry.node.value
    {
        if starts_with(text, &entry.node, '[') {
            let comma = if items.is_empty() { "" } else { ", " };
            return Ok(at(entry.node.place.offset + 1, flow() + comma));
        }
        let first = items.first().ok_or_else(|| cannot("env is no list"))?;
        let dash = dash_of(text, first)?;
        let indent = &text[line_start(text, dash)..dash];
        return Ok(at(line_start(text, dash), block(entries, indent)));
    }
    if starts_with(text, node, '{') {
        if env.is_some() {
            return Err(cannot("env is there and no list"));
        }
        let comma = if node.entries().is_empty() { "" } else { ", " };
        return Ok(at(
            node.place.offset + 1,
            format!("\"env\": [{}]{comma}", flow()),
        ));
    }
    // Behind a line that is surely whole: of a key with a plain value on it.
    let whole = env
        .or_else(|| node.entry("image"))
        .or_else(|| node.entry("name"));
    let whole = whole.ok_or_else(|| cannot("a container has neither name nor image"))?;
    let spaces = " ".repeat(whole.place.column - 1);
    let deeper = if dash_deeper { "  " } else { "" };
    let lines = block(entries, &format!("{spaces}{deeper}"));
    let end = line_end(text, whole.place.offset.max(whole.node.place.offset));
    let break_before = if text[..end].ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let key = if env.is_some() {
        String::new() // `env:` with nothing behind it
    } else {
        format!("{spaces}env:\n")
    };
    Ok(at(end, format!("{break_before}{key}{lines}")))
}

/// Entries as items of a block list.
fn block(entries: &[Json], indent: &str) -> String {
    let mut lines = String::new();
    for entry in entries {
        let name = entry["name"].as_str().unwrap_or_default();
        lines.push_str(&format!("{indent}- name: {name}\n"));
        match entry["value"].as_str() {
            Some(value) => lines.push_str(&format!("{indent}  value: {}\n", json!(value))),
            None => {
                let path = entry["valueFrom"]["fieldRef"]["fieldPath"].as_str();
                let path = path.unwrap_or_default();
                lines.push_str(&format!(
                    "{indent}  valueFrom:\n{indent}    fieldRef:\n{indent}      fieldPath: {path}\n"
                ));
            }
        }
    }
    lines
}

/// Where the `-` of a list's item is.
fn dash_of(text: &str, item: &Node) -> Result<usize, String> {
    let start = line_start(text, item.place.offset);
    let before = text[start..item.place.offset].trim_end();
    match before.trim_start() {
        "-" => Ok(start + before.len() - 1),
        // Some readers say that an item begins at its dash.
        "" if text[item.place.offset..].starts_with("- ") => Ok(item.place.offset),
        _ => Err(cannot(
            "an item of env does not begin on the line of its dash",
        )),
    }
}

fn remove(text: &str, node: &Node, places: &[usize]) -> Result<Vec<Edit>, String> {
    let entry = node
        .entry("env")
        .ok_or_else(|| cannot("env is not where it was"))?;
    let Value::List(items) = &entry.node.value else {
        return Err(cannot("env is no list"));
    };
    let all = places.len() == items.len();
    if starts_with(text, &entry.node, '[') {
        return remove_flow(
            text,
            node,
            all,
            &entry.place.offset,
            &entry.node,
            items,
            places,
        );
    }
    let mut edits: Vec<Edit> = Vec::new();
    if all {
        let start = line_start(text, entry.place.offset);
        if !text[start..entry.place.offset].trim().is_empty() {
            return Err(cannot("env is its container's first key"));
        }
        edits.push(Edit {
            range: start..line_end(text, entry.place.offset),
            text: String::new(),
        });
    }
    for &i in places {
        let start = line_start(text, dash_of(text, &items[i])?);
        edits.push(Edit {
            range: start..line_end(text, last_offset(&items[i])),
            text: String::new(),
        });
    }
    Ok(edits)
}

fn remove_flow(
    text: &str,
    node: &Node,
    all: bool,
    key: &usize,
    list: &Node,
    items: &[Node],
    places: &[usize],
) -> Result<Vec<Edit>, String> {
    let cut = |range| Edit {
        range,
        text: String::new(),
    };
    if all {
        let end = flow_end(text, list.place.offset)?;
        if starts_with(text, node, '{') {
            return Ok(vec![cut(*key..past_comma(text, *key, end))]);
        }
        return Ok(vec![cut(line_start(text, *key)..line_end(text, end))]);
    }
    let mut edits = Vec::new();
    for &i in places {
        let end = flow_end(text, items[i].place.offset)?;
        edits.push(cut(
            items[i].place.offset..past_comma(text, items[i].place.offset, end)
        ));
    }
    Ok(edits)
}

/// Behind the comma that follows what lies from `start` to `end`; with the blank behind it, or with the whole of the
/// line when nothing else is on it.
fn past_comma(text: &str, start: usize, end: usize) -> usize {
    let Some(rest) = text[end..].trim_start().strip_prefix(',') else {
        return end;
    };
    let at = text.len() - rest.len();
    let alone = text[line_start(text, start)..start].trim().is_empty();
    if rest.starts_with(' ') {
        at + 1
    } else if alone {
        text.len() - rest.trim_start().len()
    } else {
        at
    }
}

/// The end of a flow collection that begins at `start`.
fn flow_end(text: &str, start: usize) -> Result<usize, String> {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (i, c) in text[start..].char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(start + i + 1);
                }
            }
            _ => {}
        }
    }
    Err(cannot("a bracket is not closed"))
}

/// Where the last scalar of a node begins.
fn last_offset(node: &Node) -> usize {
    let below: Box<dyn Iterator<Item = usize>> = match &node.value {
        Value::List(items) => Box::new(items.iter().map(last_offset)),
        Value::Map(entries) => Box::new(
            entries
                .iter()
                .map(|entry| last_offset(&entry.node).max(entry.place.offset)),
        ),
        _ => Box::new(std::iter::empty()),
    };
    below.max().unwrap_or(node.place.offset)
}
