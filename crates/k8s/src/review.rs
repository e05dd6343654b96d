//! Which permissions are there: asked of the API server by SelfSubjectAccessReviews, for people.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::api::{Api, ApiError};
use crate::objects::{Resource, ServiceWire, SliceWire, Wire};
use crate::table::Scope;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// What a list and watch needs.
const VERBS: [&str; 2] = ["list", "watch"];

/// One permission that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// `list` or `watch`.
    pub verb: &'static str,
    /// Of what.
    pub resource: Resource,
    /// Where.
    pub scope: Scope,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let group = if self.resource.group.is_empty() {
            "the core group"
        } else {
            self.resource.group
        };
        let place = crate::cluster::words(&self.scope);
        write!(
            f,
            "verb `{}` on `{}` of {group} in {place}",
            self.verb, self.resource.plural
        )
    }
}

/// What a review found.
#[derive(Clone, Debug, Default)]
pub struct Review {
    /// The permissions that are missing; empty: all are there.
    pub missing: Vec<Missing>,
    /// The API server did not answer, or not to this question.
    pub error: Option<ApiError>,
}

/// Asks for the whole cluster; where that is refused, for each of the namespaces. A permission counts as missing in
/// the cluster when there is no namespace to fall back to.
pub(crate) async fn review(api: &Api, namespaces: &BTreeSet<Arc<str>>) -> Review {
    let mut review = Review::default();
    for resource in [SliceWire::RESOURCE, ServiceWire::RESOURCE] {
        for verb in VERBS {
            if let Err(error) = one(api, resource, verb, namespaces, &mut review.missing).await {
                review.error = Some(error);
                return review;
            }
        }
    }
    review
}

async fn one(
    api: &Api,
    resource: Resource,
    verb: &'static str,
    namespaces: &BTreeSet<Arc<str>>,
    missing: &mut Vec<Missing>,
) -> Result<(), ApiError> {
    if allowed(api, resource, verb, &Scope::Cluster).await? {
        return Ok(());
    }
    if namespaces.is_empty() {
        missing.push(Missing {
            verb,
            resource,
            scope: Scope::Cluster,
        });
    }
    for namespace in namespaces {
        let scope = Scope::Namespace(namespace.clone());
        if !allowed(api, resource, verb, &scope).await? {
            missing.push(Missing {
                verb,
                resource,
                scope,
            });
        }
    }
    Ok(())
}

async fn allowed(
    api: &Api,
    resource: Resource,
    verb: &str,
    scope: &Scope,
) -> Result<bool, ApiError> {
    let mut attributes =
        json!({"verb": verb, "group": resource.group, "resource": resource.plural});
    if let Some(namespace) = scope.namespace() {
        attributes["namespace"] = json!(namespace);
    }
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let answer = api.post(REVIEWS, &question).await?;
    answer["status"]["allowed"]
        .as_bool()
        .ok_or_else(|| ApiError::Garbage("an access review without answer".to_owned()))
}
