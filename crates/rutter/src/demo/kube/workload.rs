//! The objects of an application, as Kubernetes' controllers would make them: Service, Pods, EndpointSlice, Endpoints.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Kind, Kube};

/// The namespace of everything in the demo.
pub const NAMESPACE: &str = "default";

/// One pod: its name, address and node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The node it runs on.
    pub node: String,
}

/// A Service and the pods behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The Service's name, and the pods' label `app`.
    pub service: String,
    /// The Service's port name.
    pub port_name: String,
    /// The port's number, on the Service and on the pods.
    pub port: u16,
    /// The pods that are ready.
    pub pods: Vec<Pod>,
}

impl Kube {
    /// A node and its own address.
    pub fn add_node(&self, name: &str, ip: IpAddr) {
        let address = json!({"type": "InternalIP", "address": ip.to_string()});
        let node =
            json!({"metadata": {"name": name}, "spec": {}, "status": {"addresses": [address]}});
        self.apply(Kind::NODE, node);
    }

    /// A namespace.
    pub fn add_namespace(&self, name: &str) {
        self.apply(
            Kind::NAMESPACE,
            json!({"metadata": {"name": name}, "spec": {}, "status": {"phase": "Active"}}),
        );
    }

    /// Makes the cluster's objects of `workload` as it says; pods that are no longer in it are deleted.
    pub fn apply_workload(&self, workload: &Workload) {
        self.apply(Kind::SERVICE, workload.service_object());
        for pod in &workload.pods {
            self.apply(Kind::POD, workload.pod_object(pod));
        }
        self.apply(Kind::SLICE, workload.slice_object());
        self.apply(Kind::ENDPOINTS, workload.endpoints_object());
        for name in self.pods_of(&workload.service) {
            if workload.pods.iter().all(|pod| pod.name != name) {
                self.delete(Kind::POD, NAMESPACE, &name);
            }
        }
    }

    fn pods_of(&self, app: &str) -> Vec<String> {
        let state = self.lock();
        let objects = state.objects.iter();
        let own = objects.filter(|((kind, _, _), object)| {
            *kind == Kind::POD && object["metadata"]["labels"]["app"] == app
        });
        own.map(|((_, _, name), _)| name.clone()).collect()
    }
}

impl Workload {
    fn meta(&self, name: &str) -> Value {
        json!({"name": name, "namespace": NAMESPACE, "labels": {"app": self.service}})
    }

    fn service_object(&self) -> Value {
        json!({
            "metadata": self.meta(&self.service),
            "spec": {
                "selector": {"app": self.service},
                "clusterIP": "None",
                "ports": [{"name": self.port_name, "port": self.port, "targetPort": self.port, "protocol": "TCP"}],
            },
            "status": {"loadBalancer": {}},
        })
    }

    fn pod_object(&self, pod: &Pod) -> Value {
        json!({
            "metadata": self.meta(&pod.name),
            "spec": {"nodeName": pod.node, "containers": [{"name": self.service, "ports": [
                {"name": self.port_name, "containerPort": self.port}]}]},
            "status": {"phase": "Running", "podIP": pod.ip.to_string(), "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    fn slice_object(&self) -> Value {
        let endpoints: Vec<Value> = self
            .pods
            .iter()
            .map(|pod| {
                json!({
                    "addresses": [pod.ip.to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": pod.node,
                    "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod.name},
                })
            })
            .collect();
        let mut meta = self.meta(&format!("{}-demo", self.service));
        meta["labels"]["kubernetes.io/service-name"] = json!(self.service);
        json!({
            "metadata": meta,
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": self.port_name, "port": self.port, "protocol": "TCP"}],
        })
    }

    fn endpoints_object(&self) -> Value {
        let addresses: Vec<Value> = self
            .pods
            .iter()
            .map(|pod| {
                json!({"ip": pod.ip.to_string(), "nodeName": pod.node,
                    "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod.name}})
            })
            .collect();
        let subset = json!({
            "addresses": addresses,
            "ports": [{"name": self.port_name, "port": self.port, "protocol": "TCP"}],
        });
        let subsets = if self.pods.is_empty() {
            vec![]
        } else {
            vec![subset]
        };
        json!({"metadata": self.meta(&self.service), "subsets": subsets})
    }
}
