//! The configuration file: Linkerd 1's, key by key, with our additions.
//!
//! In reading order: [`yaml`] makes a tree of the text in which everything has its place; [`keys`] says which keys there are, and
//! `validate` holds the tree against it and finds all that is wrong; one conversion per section then makes the [`settings`]; [`lint`] looks for what
//! is valid and still dangerous; [`show`] and [`schema`] are the way back, for people and editors. [`problem`] tells what is
//! wrong. Nothing here reads the environment: see [`Environment`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use self::keys::Ty;
use self::problem::Problems;
use self::read::{At, Reading};
use self::settings::Config;
use self::validate::Validator;
use self::yaml::Node;

pub mod access;
mod client;
pub mod convert;
pub mod keys;
pub mod lint;
pub mod manifest;
mod names;
pub mod problem;
mod read;
pub mod reference;
mod router_section;
pub mod schema;
pub mod settings;
pub mod show;
pub mod storage;
pub mod store;
#[cfg(test)]
mod tests;
mod tls;
mod top;
mod validate;
pub mod yaml;

/// With the value `direct`, no namer and no transformer asks a `kubectl proxy` in the own pod: files of Linkerd 1 name one
/// (`host: localhost`) that is not needed here.
pub(crate) const KUBERNETES_API: &str = "RUTTER_KUBERNETES_API";

/// What a configuration needs to know and does not say itself. `main` takes it from the process.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// POD_IP.
    pub pod_ip: Option<IpAddr>,
    /// NODE_NAME.
    pub node_name: Option<Arc<str>>,
    /// Whether this runs in a pod.
    pub in_pod: bool,
    /// All variables, for keys that name one (`envVar`).
    pub variables: HashMap<String, String>,
    /// What the file is read for.
    pub purpose: Purpose,
}

/// What the file is read for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To start a router here: what only a pod has must be there.
    #[default]
    Start,
    /// To look it over, perhaps elsewhere: what only a pod has is a warning when it is missing.
    Check,
    /// To look at the text alone: files need not exist, either.
    Text,
}

impl Environment {
    /// The process's, for that purpose.
    pub fn of_process(purpose: Purpose) -> Self {
        let variables: HashMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self {
            pod_ip: variables.get("POD_IP").and_then(|v| v.parse().ok()),
            node_name: variables
                .get("NODE_NAME")
                .filter(|v| !v.is_empty())
                .map(|v| v.as_str().into()),
            in_pod: variables.contains_key("KUBERNETES_SERVICE_HOST"),
            variables,
            purpose,
        }
    }

    /// Addresses of this pod, its node and the Kubernetes API, as far as the process was told: no request may name them.
    fn protected(&self) -> Vec<IpAddr> {
        let told = ["HOST_IP", "NODE_NAME", "KUBERNETES_SERVICE_HOST"];
        let told = told.iter().filter_map(|name| self.variables.get(*name));
        let told = told.filter_map(|value| value.parse().ok());
        self.pod_ip.into_iter().chain(told).collect()
    }

    /// Whether a kubeconfig says where a Kubernetes API is: `KUBECONFIG`, else `~/.kube/config`.
    fn has_kubeconfig(&self) -> bool {
        let given = |name: &str| self.variables.get(name).filter(|value| !value.is_empty());
        given("KUBECONFIG").is_some()
            || given("HOME").is_some_and(|home| {
                let file = std::path::Path::new(home).join(".kube/config");
                self.purpose != Purpose::Text && file.is_file()
            })
    }

    /// Whether a `kubectl proxy` in the own pod, which a file may name, is not there: the API server is asked instead.
    fn asks_directly(&self) -> bool {
        self.variables.get(KUBERNETES_API).map(String::as_str) == Some("direct")
    }

    /// The same for another purpose.
    pub fn for_purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    fn is_dir(&self, path: &str) -> bool {
        self.purpose == Purpose::Text || std::path::Path::new(path).is_dir()
    }

    fn is_file(&self, path: &str) -> bool {
        self.purpose == Purpose::Text || std::path::Path::new(path).is_file()
    }
}

/// A file that has been read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The tree it came from.
    pub tree: Node,
    /// Warnings only.
    pub problems: Problems,
}

/// Reads a configuration. `name` is what the user calls the file.
///
/// # Errors
/// All that is wrong with it, warnings included.
pub fn load(name: &str, source: &str, environment: &Environment) -> Result<Loaded, Problems> {
    let mut problems = Problems::of(name, source);
    let tree = match yaml::parse(source) {
        Ok(tree) => tree,
        Err(e) => {
            problems.error("", e.place, e.message, None);
            return Err(problems);
        }
    };
    let mut validator = Validator {
        environment,
        problems,
    };
    validator.check(&tree, Ty::Section(&keys::top::FILE), "");
    let reading = Reading::new(validator.problems);
    let config = top::file(&At::root(&tree, &reading), environment);
    let mut problems = reading.problems.into_inner();
    problems.sort();
    match config {
        Some(config) if problems.errors() == 0 => Ok(Loaded {
            config,
            tree,
            problems,
        }),
        _ => Err(problems),
    }
}
