//! What Consul says about a service's instances, and which places come of it.

use serde::Deserialize;
use std::sync::Arc;

use super::api::ApiError;
use super::{ConsulConfig, Health};
use crate::namers::followed::Place;

/// What is made of an answer.
pub(super) struct Wanted<'a> {
    pub(super) config: &'a ConsulConfig,
    /// The host name to ask for at the instances.
    pub(super) authority: Option<Arc<str>>,
}

/// One of `/v1/catalog/service/NAME`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CatalogNode {
    address: Option<String>,
    service_address: Option<String>,
    service_port: Option<u16>,
    service_tags: Option<Vec<String>>,
}

/// One of `/v1/health/service/NAME`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthNode {
    node: Option<Node>,
    service: Option<Service>,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    address: Option<String>,
    port: Option<u16>,
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Check {
    #[serde(rename = "CheckID")]
    id: Option<String>,
    #[serde(rename = "Status")]
    status: Option<String>,
}

/// An instance, whichever way it was asked for.
struct Instance {
    node: Option<String>,
    service: Option<String>,
    port: Option<u16>,
    tags: Vec<String>,
}

impl Wanted<'_> {
    /// The places of an answer's instances. Those without address or port are left out, as in Linkerd.
    pub(super) fn places(&self, body: &[u8]) -> Result<Vec<Place>, ApiError> {
        let instances: Vec<Instance> = match &self.config.statuses {
            None => {
                let nodes: Vec<CatalogNode> = read(body)?;
                nodes.into_iter().map(Instance::from).collect()
            }
            Some(statuses) => {
                let nodes: Vec<HealthNode> = read(body)?;
                let fit = nodes
                    .into_iter()
                    .filter(|node| statuses.contains(&node.health()));
                fit.map(Instance::from).collect()
            }
        };
        let mut places: Vec<Place> = Vec::with_capacity(instances.len());
        for place in instances.into_iter().filter_map(|one| self.place(one)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        Ok(places)
    }

    fn place(&self, instance: Instance) -> Option<Place> {
        let given = |address: Option<String>| address.filter(|address| !address.is_empty());
        let own = given(instance.service).filter(|_| self.config.prefer_service_address);
        let host = own.or(given(instance.node))?;
        let weights = &self.config.weights;
        let heaviest = instance.tags.iter().filter_map(|tag| weights.get(tag));
        Some(Place {
            host: host.into(),
            port: instance.port.filter(|port| *port > 0)?,
            weight: heaviest.copied().reduce(f64::max).unwrap_or(1.0),
            authority: self.authority.clone(),
        })
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Unreadable(error.to_string()))
}

impl HealthNode {
    /// The worst of its checks; one that is not known counts as passing, as in Linkerd.
    fn health(&self) -> Health {
        let checks = self.checks.iter().flatten();
        checks.map(Check::health).max().unwrap_or(Health::Passing)
    }
}

impl Check {
    fn health(&self) -> Health {
        // Maintenance is a check of a certain name, which is critical.
        let by_hand = ["_node_maintenance", "_service_maintenance"];
        let id = self.id.as_deref().unwrap_or_default();
        if by_hand.iter().any(|name| id.starts_with(name)) {
            return Health::Maintenance;
        }
        let status = self.status.as_deref().unwrap_or_default();
        match status.to_ascii_lowercase().as_str() {
            "warning" => Health::Warning,
            "critical" => Health::Critical,
            "maintenance" => Health::Maintenance,
            _ => Health::Passing,
        }
    }
}

impl From<CatalogNode> for Instance {
    fn from(node: CatalogNode) -> Self {
        Self {
            node: node.address,
            service: node.service_address,
            port: node.service_port,
            tags: node.service_tags.unwrap_or_default(),
        }
    }
}

impl From<HealthNode> for Instance {
    fn from(node: HealthNode) -> Self {
        let service = node.service;
        let (address, port, tags) = match service {
            Some(service) => (service.address, service.port, service.tags),
            None => (None, None, None),
        };
        Self {
            node: node.node.and_then(|node| node.address),
            service: address,
            port,
            tags: tags.unwrap_or_default(),
        }
    }
}
