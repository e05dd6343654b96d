//! The Kubernetes API as `rutter check` asks it: which one, whether it answers, and what may be asked of it.

use std::path::PathBuf;
use std::time::Duration;

use k8s::api::{Api, ApiError, ApiTarget};
use serde_json::{Value, json};
use telemetry::code::Check;

use super::report::{Category, Report};
use crate::cli::tree::text;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Objects of a page; more than one page is asked for.
const PAGE: usize = 500;
/// The oldest version with what is needed, and that of node-local Services.
const OLDEST: (u32, u32) = (1, 21);
const NODE_LOCAL: (u32, u32) = (1, 26);

const K: Category = Category::Kubernetes;

/// An API server that answers.
pub(super) struct Kube {
    api: Api,
}

/// An object that was asked for.
pub(super) enum Found {
    Object(Value),
    Missing,
    /// Not to be had: why, for people.
    Unknown(String),
}

impl Kube {
    /// Connects and asks for the version. `None`, with the finding, when there is no API server.
    pub(super) async fn connect(target: &ApiTarget, report: &mut Report) -> Option<Self> {
        let api = match Api::new(target, PATIENCE).await {
            Ok(api) => api,
            Err(error) => {
                report.fail(Check::C010, K, naming::words(&error));
                return None;
            }
        };
        let kube = Self { api };
        match kube.api.get("/version").await {
            Ok(version) => {
                let version = text(&version, "gitVersion").to_owned();
                report.ok(K, format!("{target} answers ({version})"));
                kube.old(&version, report);
                Some(kube)
            }
            Err(ApiError::Status { code: 401, message }) => {
                report.fail(
                    Check::C012,
                    K,
                    format!("{target} does not know who asks: {message}"),
                );
                None
            }
            // Some proxies hide it; what follows says whether more is hidden.
            Err(ApiError::Status { code, .. }) => {
                report.note(
                    K,
                    format!("{target} answers {code} when asked for its version"),
                );
                Some(kube)
            }
            Err(error) => {
                report.fail(Check::C010, K, format!("{target}: {error}"));
                None
            }
        }
    }

    fn old(&self, version: &str, report: &mut Report) {
        let mut numbers = version.trim_start_matches('v').split('.');
        let mut number = || {
            let digits = numbers.next()?;
            let end = digits.find(|c: char| !c.is_ascii_digit());
            digits[..end.unwrap_or(digits.len())].parse::<u32>().ok()
        };
        let (Some(major), Some(minor)) = (number(), number()) else {
            return;
        };
        if (major, minor) < OLDEST {
            report.fail(
                Check::C082,
                K,
                format!(
                    "Kubernetes {version} is older than {}.{}",
                    OLDEST.0, OLDEST.1
                ),
            );
        } else if (major, minor) < NODE_LOCAL {
            report.warn(Check::C082, K, format!("Kubernetes {version} has no Services that stay on the node: `reach: nodeLocalService` needs {}.{}", NODE_LOCAL.0, NODE_LOCAL.1));
        }
    }

    /// One object.
    pub(super) async fn get(&self, path: &str) -> Found {
        match self.api.get(path).await {
            Ok(object) => Found::Object(object),
            Err(error) if error.missing() => Found::Missing,
            Err(error) => Found::Unknown(error.to_string()),
        }
    }

    /// All objects of a list, page after page. `query` without `?`, may be empty.
    pub(super) async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, ApiError> {
        let mut items = Vec::new();
        let mut go_on = String::new();
        loop {
            let mut page = self
                .api
                .get(&format!(
                    "{path}?limit={PAGE}{}{query}{go_on}",
                    if query.is_empty() { "" } else { "&" }
                ))
                .await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => {
                    go_on = format!("&continue={}", crate::cli::admin_client::escape(token));
                }
                _ => return Ok(items),
            }
        }
    }

    /// Whether somebody may do something; `account` is a service account, and without one it is who asks.
    async fn may(&self, account: Option<&Account>, attributes: Value) -> Result<bool, ApiError> {
        let (kind, mut spec) = match account {
            None => ("SelfSubjectAccessReview", json!({})),
            Some(account) => (
                "SubjectAccessReview",
                json!({
                    "user": format!("system:serviceaccount:{}:{}", account.namespace, account.name),
                    "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", account.namespace), "system:authenticated"],
                }),
            ),
        };
        spec["resourceAttributes"] = attributes;
        let question = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
        let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
        let answer = self.api.post(&path, &question).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// Whether EndpointSlices are served.
    pub(super) async fn slices(&self, report: &mut Report) {
        if let Err(error) = self.api.get("/apis/discovery.k8s.io/v1").await
            && error.missing()
        {
            report.fail(
                Check::C013,
                K,
                "discovery.k8s.io/v1 is not served: there are no EndpointSlices",
            );
        }
    }

    /// RT-C011: everything that routers ask for; in all namespaces, or in each of those that are known.
    pub(super) async fn permissions(
        &self,
        account: Option<&Account>,
        namespaces: &[String],
        report: &mut Report,
    ) {
        let who = account.map_or_else(
            || "whoever asks".to_owned(),
            |a| format!("service account {}/{}", a.namespace, a.name),
        );
        let mut all = true;
        for (group, resource) in [("discovery.k8s.io", "endpointslices"), ("", "services")] {
            for verb in ["list", "watch"] {
                match self.scope(account, verb, group, resource, namespaces).await {
                    Ok(missing) if missing.is_empty() => {}
                    Ok(missing) => {
                        all = false;
                        let of = if group.is_empty() {
                            "the core group"
                        } else {
                            group
                        };
                        let place = missing.join(", ");
                        report
                            .fail(
                                Check::C011,
                                K,
                                format!("{who} may not {verb} {resource} of {of} in {place}"),
                            )
                            .effect(effect(verb, resource));
                    }
                    Err(error) if account.is_some() => {
                        // Only who may ask about others gets an answer; about oneself everybody does.
                        report.note(
                            K,
                            format!("the permissions of {who} were not looked at: {error}"),
                        );
                        return;
                    }
                    Err(error) => {
                        report.note(K, format!("permissions were not looked at: {error}"));
                        return;
                    }
                }
            }
        }
        if all {
            report.ok(
                K,
                format!("{who} may list and watch services and endpointslices"),
            );
        }
    }

    /// Where a permission is missing; empty when it is there.
    async fn scope(
        &self,
        account: Option<&Account>,
        verb: &str,
        group: &str,
        resource: &str,
        namespaces: &[String],
    ) -> Result<Vec<String>, ApiError> {
        let attributes = json!({"verb": verb, "group": group, "resource": resource});
        if self.may(account, attributes.clone()).await? {
            return Ok(Vec::new());
        }
        let mut missing = Vec::new();
        for namespace in namespaces {
            let mut attributes = attributes.clone();
            attributes["namespace"] = json!(namespace);
            if !self.may(account, attributes).await? {
                missing.push(format!("namespace {namespace}"));
            }
        }
        if namespaces.is_empty() {
            missing.push("all namespaces".to_owned());
        }
        Ok(missing)
    }

    /// Whether who asks may create a kind; `None` when the API server does not say.
    pub(super) async fn may_create(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> Option<bool> {
        let mut attributes = json!({"verb": "create", "group": group, "resource": resource});
        if let Some(namespace) = namespace {
            attributes["namespace"] = json!(namespace);
        }
        self.may(None, attributes).await.ok()
    }
}

fn effect(verb: &str, resource: &str) -> &'static str {
    match (verb, resource) {
        ("watch", _) => "changes are not seen until the next whole list",
        (_, "services") => "external names and port numbers cannot be resolved",
        _ => "no name of io.l5d.k8s has endpoints: requests fail with RT-E103 or RT-E117",
    }
}

/// A service account.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The API to ask: what the command line says.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ApiArgs {
    /// Look at the cluster of this kubeconfig's current context
    #[arg(long, value_name = "FILE", conflicts_with = "api", value_hint = clap::ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
    /// Look at the cluster behind this address, as `kubectl proxy` offers it
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    /// The routers' namespace [default: all are searched]
    #[arg(short = 'N', long, value_name = "NAMESPACE")]
    pub(super) rutter_namespace: Option<String>,
}

impl ApiArgs {
    /// What was asked for, if anything was.
    pub(super) fn target(&self) -> Option<ApiTarget> {
        if let Some(file) = &self.kubeconfig {
            return Some(ApiTarget::Kubeconfig(file.clone()));
        }
        if let Some(api) = &self.api {
            let address = api.trim_start_matches("http://").trim_end_matches('/');
            let (host, port) = match address.rsplit_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
                _ => (address, None),
            };
            return Some(ApiTarget::configured(
                Some(host.trim_matches(['[', ']'])),
                port,
            ));
        }
        self.rutter_namespace.as_ref().map(|_| ApiTarget::Ambient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_named_by_address_or_file() {
        let args = |api: Option<&str>, file: Option<&str>| ApiArgs {
            kubeconfig: file.map(PathBuf::from),
            api: api.map(str::to_owned),
            rutter_namespace: None,
        };
        let plain = |host: &str, port| ApiTarget::Plain {
            host: host.into(),
            port,
        };
        assert_eq!(args(None, None).target(), None);
        for (given, host, port) in [
            ("127.0.0.1:8001", "127.0.0.1", 8001),
            ("http://a:80/", "a", 80),
            ("localhost", "localhost", 8001),
            ("[::1]:8001", "::1", 8001),
        ] {
            assert_eq!(
                args(Some(given), None).target(),
                Some(plain(host, port)),
                "{given}"
            );
        }
        assert_eq!(
            args(None, Some("k")).target(),
            Some(ApiTarget::Kubeconfig("k".into()))
        );
    }
}
