//! What is kept of Kubernetes' objects: a few fields each, the rest is skipped while parsing. Everything that the wire
//! allows to be absent or null may be so here.
//!
//! The kept types are also what a snapshot on disk holds: a change of their fields is a new `snapshot::VERSION`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for objects outside namespaces.
    pub namespace: Arc<str>,
    /// The object's own name.
    pub name: Arc<str>,
}

impl Key {
    /// The key of `namespace`/`name`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One object as the API server had it at `version`.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<V> {
    /// Which object.
    pub key: Key,
    /// The object's resourceVersion; 0 when it is absent or no number.
    pub version: u64,
    /// What is kept of it.
    pub value: V,
}

/// A kind that can be listed and watched.
pub trait Wire: serde::de::DeserializeOwned + Send + 'static {
    /// What is kept.
    type Value: Clone + PartialEq + Send + Sync + 'static;
    /// Where the API server has it.
    const RESOURCE: Resource;
    /// A label selector that leaves out what is of no use; empty: all.
    const SELECTOR: &'static str = "";
    /// Splits the object as it came into its identity and what is kept.
    fn read(self) -> Object<Self::Value>;
}

/// A resource's place in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub root: &'static str,
    /// The API group, empty for the core one.
    pub group: &'static str,
    /// As in URLs and RBAC rules.
    pub plural: &'static str,
}

impl Resource {
    /// The URL path of the resource, in one namespace or in all.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.root, self.plural),
            None => format!("{}/{}", self.root, self.plural),
        }
    }
}

/// Of metadata, what identity and selection need.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    name: String,
    namespace: String,
    resource_version: String,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

impl Meta {
    /// Which object this is.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// The version as a number, 0 when it is none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }
}

/// The endpoints that one object (an EndpointSlice, or a whole Endpoints) adds to a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Members {
    /// The service's name, in the object's namespace; empty: of no service.
    pub service: Arc<str>,
    /// The object's labels, which Kubernetes copies from the Service.
    pub labels: BTreeMap<String, String>,
    /// Each with its own ports: one for a slice, one per subset of an Endpoints.
    pub subsets: Vec<Subset>,
}

/// Endpoints that share their port numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subset {
    /// The TCP ports with a number.
    pub ports: Vec<MemberPort>,
    /// In the object's order.
    pub members: Vec<Member>,
}

/// One port of a subset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPort {
    /// The Service's name for the port; empty when it has none.
    pub name: Box<str>,
    /// The number on the pod.
    pub number: u16,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The pod's address.
    pub ip: IpAddr,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// Whether it may be used.
    pub condition: Condition,
}

/// Whether an endpoint takes requests, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    /// Takes requests.
    Ready,
    /// Is going away but still answers: used only when nothing else is there, see [`Leaving`](crate::merge::Leaving).
    Draining,
    /// Is not used.
    NotReady,
}

/// A Service, for its ports and its load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The object's labels.
    pub labels: BTreeMap<String, String>,
    /// The TCP ports.
    pub ports: Vec<ServicePort>,
    /// Addresses of the load balancer: IPs, or host names.
    pub ingress: Vec<Ingress>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty when the Service has a single port without a name.
    pub name: Box<str>,
    /// The number on the Service's own address.
    pub number: u16,
    /// Where it leads on the pods.
    pub target: TargetPort,
}

/// A Service port's `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetPort {
    /// This number on each pod.
    Number(u16),
    /// The port that the pod calls so.
    Name(Box<str>),
}

/// One address of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ingress {
    /// An IP address.
    Ip(IpAddr),
    /// A name for DNS.
    Host(Box<str>),
}

/// `discovery.k8s.io/v1` EndpointSlice as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceWire {
    metadata: Meta,
    #[serde(default, deserialize_with = "null_is_default")]
    endpoints: Vec<SliceEndpoint>,
    #[serde(default, deserialize_with = "null_is_default")]
    ports: Vec<WirePort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    #[serde(default, deserialize_with = "null_is_default")]
    addresses: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    conditions: SliceConditions,
    node_name: Option<Arc<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SliceConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl SliceConditions {
    /// As Kubernetes defines what an absent condition means: ready unless said otherwise, serving as ready is.
    fn condition(&self) -> Condition {
        let ready = self.ready.unwrap_or(true);
        let serving = self.serving.unwrap_or(ready);
        if ready {
            Condition::Ready
        } else if serving && self.terminating == Some(true) {
            Condition::Draining
        } else {
            Condition::NotReady
        }
    }
}

#[derive(Deserialize)]
struct WirePort {
    name: Option<Box<str>>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// TCP, or no word about it: Kubernetes' default.
fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol.eq_ignore_ascii_case("tcp"))
}

fn member_ports(ports: Vec<WirePort>) -> Vec<MemberPort> {
    let tcp = ports
        .into_iter()
        .filter(|port| is_tcp(port.protocol.as_deref()));
    // A port without a number means "all of them": no one number can be chosen, so it is of no use here.
    tcp.filter_map(|port| {
        Some(MemberPort {
            name: port.name.unwrap_or_default(),
            number: port.port?,
        })
    })
    .collect()
}

impl Wire for SliceWire {
    type Value = Members;
    const RESOURCE: Resource = Resource {
        root: "/apis/discovery.k8s.io/v1",
        group: "discovery.k8s.io",
        plural: "endpointslices",
    };
    const SELECTOR: &'static str = SERVICE_NAME;

    fn read(mut self) -> Object<Members> {
        let service = self
            .metadata
            .labels
            .remove(SERVICE_NAME)
            .unwrap_or_default()
            .into();
        let members = self.endpoints.into_iter().filter_map(|endpoint| {
            // All addresses of one endpoint lead to the same pod, the first is the one in use everywhere. A slice of
            // host names (addressType FQDN) has none that can be read: it adds nothing.
            let ip = endpoint.addresses.first()?.parse().ok()?;
            Some(Member {
                ip,
                node: endpoint.node_name,
                condition: endpoint.conditions.condition(),
            })
        });
        let subset = Subset {
            members: members.collect(),
            ports: member_ports(self.ports),
        };
        let (key, version) = (self.metadata.key(), self.metadata.version());
        Object {
            key,
            version,
            value: Members {
                service,
                labels: self.metadata.labels,
                subsets: vec![subset],
            },
        }
    }
}

/// v1 Endpoints as it is read; only for API servers without EndpointSlices.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsWire {
    metadata: Meta,
    #[serde(default, deserialize_with = "null_is_default")]
    subsets: Vec<WireSubset>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSubset {
    #[serde(default, deserialize_with = "null_is_default")]
    addresses: Vec<WireAddress>,
    #[serde(default, deserialize_with = "null_is_default")]
    not_ready_addresses: Vec<WireAddress>,
    #[serde(default, deserialize_with = "null_is_default")]
    ports: Vec<WirePort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAddress {
    ip: String,
    node_name: Option<Arc<str>>,
}

impl WireSubset {
    fn read(self) -> Subset {
        let ready = self
            .addresses
            .into_iter()
            .map(|address| (address, Condition::Ready));
        let not_ready = self
            .not_ready_addresses
            .into_iter()
            .map(|address| (address, Condition::NotReady));
        let members = ready.chain(not_ready).filter_map(|(address, condition)| {
            Some(Member {
                ip: address.ip.parse().ok()?,
                node: address.node_name,
                condition,
            })
        });
        Subset {
            members: members.collect(),
            ports: member_ports(self.ports),
        }
    }
}

impl Wire for EndpointsWire {
    type Value = Members;
    const RESOURCE: Resource = Resource {
        root: "/api/v1",
        group: "",
        plural: "endpoints",
    };

    fn read(self) -> Object<Members> {
        let (key, version) = (self.metadata.key(), self.metadata.version());
        let subsets = self.subsets.into_iter().map(WireSubset::read).collect();
        let value = Members {
            service: key.name.clone(),
            labels: self.metadata.labels,
            subsets,
        };
        Object {
            key,
            version,
            value,
        }
    }
}

/// v1 Service as it is read.
#[derive(Deserialize)]
pub struct ServiceWire {
    metadata: Meta,
    #[serde(default, deserialize_with = "null_is_default")]
    spec: SpecWire,
    #[serde(default, deserialize_with = "null_is_default")]
    status: StatusWire,
}

#[derive(Default, Deserialize)]
struct SpecWire {
    #[serde(default, deserialize_with = "null_is_default")]
    ports: Vec<ServicePortWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePortWire {
    name: Option<Box<str>>,
    port: u16,
    protocol: Option<String>,
    target_port: Option<TargetWire>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TargetWire {
    Number(u16),
    Name(Box<str>),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusWire {
    #[serde(deserialize_with = "null_is_default")]
    load_balancer: BalancerWire,
}

#[derive(Default, Deserialize)]
struct BalancerWire {
    #[serde(default, deserialize_with = "null_is_default")]
    ingress: Vec<IngressWire>,
}

#[derive(Deserialize)]
struct IngressWire {
    hostname: Option<Box<str>>,
    ip: Option<String>,
}

impl ServicePortWire {
    fn read(self) -> ServicePort {
        let target = match self.target_port {
            // Kubernetes writes 0 and absent alike for "the same number".
            None | Some(TargetWire::Number(0)) => TargetPort::Number(self.port),
            Some(TargetWire::Number(number)) => TargetPort::Number(number),
            Some(TargetWire::Name(name)) => TargetPort::Name(name),
        };
        ServicePort {
            name: self.name.unwrap_or_default(),
            number: self.port,
            target,
        }
    }
}

impl IngressWire {
    fn read(self) -> Option<Ingress> {
        if let Some(host) = self.hostname.filter(|host| !host.is_empty()) {
            return Some(Ingress::Host(host));
        }
        self.ip?.parse().ok().map(Ingress::Ip)
    }
}

impl Wire for ServiceWire {
    type Value = Service;
    const RESOURCE: Resource = Resource {
        root: "/api/v1",
        group: "",
        plural: "services",
    };

    fn read(self) -> Object<Service> {
        let (key, version) = (self.metadata.key(), self.metadata.version());
        let tcp = self
            .spec
            .ports
            .into_iter()
            .filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = tcp.map(ServicePortWire::read).collect();
        let ingress = self
            .status
            .load_balancer
            .ingress
            .into_iter()
            .filter_map(IngressWire::read)
            .collect();
        Object {
            key,
            version,
            value: Service {
                labels: self.metadata.labels,
                ports,
                ingress,
            },
        }
    }
}

/// Go writes `null` for an empty list or map.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(json: &str) -> Object<Members> {
        serde_json::from_str::<SliceWire>(json).unwrap().read()
    }

    #[test]
    fn a_slice_keeps_service_ports_and_conditions() {
        let got = slice(
            r#"{"metadata": {"name": "web-x", "namespace": "a", "resourceVersion": "7", "managedFields": [{}],
                  "labels": {"kubernetes.io/service-name": "web", "v": "1"}},
                "addressType": "IPv4",
                "endpoints": [
                  {"addresses": ["10.0.0.1", "10.9.9.9"], "conditions": {}, "nodeName": "n1", "targetRef": {"kind": "Pod"}},
                  {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                  {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": false}},
                  {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "terminating": true}},
                  {"addresses": []}],
                "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"},
                          {"name": "any", "port": null}, {"name": null, "port": 1, "protocol": "TCP"}]}"#,
        );
        assert_eq!((got.key, got.version), (Key::new("a", "web-x"), 7));
        assert_eq!(&*got.value.service, "web");
        assert_eq!(got.value.labels, BTreeMap::from([("v".into(), "1".into())]));
        let subset = &got.value.subsets[0];
        let ports: Vec<_> = subset
            .ports
            .iter()
            .map(|port| (&*port.name, port.number))
            .collect();
        assert_eq!(ports, [("http", 8080), ("", 1)]);
        let members: Vec<_> = subset
            .members
            .iter()
            .map(|m| (m.ip.to_string(), m.condition))
            .collect();
        let want = [
            ("10.0.0.1", Condition::Ready),
            ("10.0.0.2", Condition::Draining),
            ("10.0.0.3", Condition::NotReady),
            ("10.0.0.4", Condition::NotReady),
        ];
        assert_eq!(
            members,
            want.map(|(ip, condition)| (ip.to_owned(), condition))
        );
        assert_eq!(subset.members[0].node.as_deref(), Some("n1"));
    }

    #[test]
    fn null_lists_and_host_names_add_nothing() {
        let got = slice(
            r#"{"metadata": {"name": "e", "labels": null}, "endpoints": null, "ports": null}"#,
        );
        assert_eq!(got.value.subsets, [Subset::default()]);
        let got = slice(
            r#"{"metadata": {"name": "e"}, "addressType": "FQDN", "endpoints": [{"addresses": ["db.example"]}]}"#,
        );
        assert!(got.value.subsets[0].members.is_empty());
    }

    #[test]
    fn endpoints_keep_each_subset_apart() {
        let json = r#"{"metadata": {"name": "web", "namespace": "a"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1", "nodeName": "n"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 1}]},
            {"addresses": null, "ports": [{"name": "x", "port": 2}]}]}"#;
        let got = serde_json::from_str::<EndpointsWire>(json).unwrap().read();
        assert_eq!(&*got.value.service, "web");
        let conditions: Vec<_> = got.value.subsets[0]
            .members
            .iter()
            .map(|member| member.condition)
            .collect();
        assert_eq!(conditions, [Condition::Ready, Condition::NotReady]);
        assert_eq!(got.value.subsets[1].ports[0].number, 2);
        let json = r#"{"metadata": {"name": "web"}, "subsets": null}"#;
        assert!(
            serde_json::from_str::<EndpointsWire>(json)
                .unwrap()
                .read()
                .value
                .subsets
                .is_empty()
        );
    }

    #[test]
    fn a_service_port_leads_to_its_target() {
        let json = r#"{"metadata": {"name": "web"}, "spec": {"ports": [
            {"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 8081},
            {"name": "c", "port": 82}, {"name": "u", "port": 83, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb.example", "ip": "1.1.1.1"}]}}}"#;
        let got = serde_json::from_str::<ServiceWire>(json)
            .unwrap()
            .read()
            .value;
        let targets: Vec<_> = got.ports.into_iter().map(|port| port.target).collect();
        assert_eq!(
            targets,
            [
                TargetPort::Name("http".into()),
                TargetPort::Number(8081),
                TargetPort::Number(82)
            ]
        );
        assert_eq!(
            got.ingress,
            [
                Ingress::Ip("1.2.3.4".parse().unwrap()),
                Ingress::Host("lb.example".into())
            ]
        );
    }
}
