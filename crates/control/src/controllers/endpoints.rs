//! Keeps the EndpointSlices of Services with a selector: which pods answer, on which ports, and whether they are ready
//! (`pkg/controller/endpointslice`, the simple cases: one slice per set of ports, IPv4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, DeleteParams, PostParams};
use policy::workload::{is_finished, is_ready};

use super::adoption::owner_reference;
use super::cache::{Change, Key};
use super::{Error, World, gone_is_fine};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Name, protocol, and where it is in the pod.
type Port = (Option<String>, String, i32);

/// The API allows no more in one slice.
const MOST: usize = 1000;

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let have = world.endpoint_slices.in_namespace(&key.0);
    let mut have: BTreeMap<String, Arc<EndpointSlice>> = have
        .into_iter()
        .filter(|slice| service_of(slice) == Some(&key.1))
        .map(|slice| (slice.metadata.name.clone().unwrap_or_default(), slice))
        .collect();
    let service = world.services.get(&key).filter(|service| service.metadata.deletion_timestamp.is_none());
    let wanted = match &service {
        Some(service) => slices(service, &world.pods.in_namespace(&key.0)),
        None => Vec::new(),
    };
    let api: Api<EndpointSlice> = Api::namespaced(world.client.clone(), &key.0);
    for slice in wanted {
        let name = slice.metadata.name.clone().unwrap_or_default();
        match have.remove(&name) {
            Some(known) if known.endpoints == slice.endpoints && known.ports == slice.ports => {}
            Some(known) => {
                let changed = EndpointSlice { metadata: known.metadata.clone(), ..slice };
                world.saw(api.replace(&name, &PostParams::default(), &changed).await?);
            }
            None => world.saw(api.create(&PostParams::default(), &slice).await?),
        }
    }
    for name in have.keys() {
        gone_is_fine(api.delete(name, &DeleteParams::default()).await)?;
    }
    Ok(None)
}

/// The Service a slice of ours belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER)).then_some(())?;
    labels.get(SERVICE_NAME).map(String::as_str)
}

/// Without a selector somebody else keeps the endpoints.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector =
        service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|selector| !selector.is_empty());
    let labels = pod.metadata.labels.as_ref();
    selector.is_some_and(|selector| selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)))
}

/// Whether a change of a pod can change any endpoint.
pub(super) fn is_affected(change: &Change<Pod>) -> bool {
    let seen = |pod: &Option<Arc<Pod>>| {
        pod.as_ref().map(|pod| {
            let address = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
            let meta = &pod.metadata;
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            let going = meta.deletion_timestamp.is_some();
            (address, is_ready(pod), is_finished(pod), going, meta.labels.clone(), node, meta.uid.clone())
        })
    };
    seen(&change.old) != seen(&change.new)
}

/// The slices a Service should have, by name.
fn slices(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") || spec.selector.as_ref().is_none_or(BTreeMap::is_empty)
    {
        return Vec::new();
    }
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| selects(service, pod) && !is_finished(pod)) {
        let Some(address) = pod.status.as_ref().and_then(|s| s.pod_ip.clone()).filter(|ip| !ip.is_empty())
        else {
            continue;
        };
        let ports = spec.ports.iter().flatten();
        let ports = ports.filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
            Some((port.name.clone(), protocol.clone(), target_port(port, &protocol, pod)?))
        });
        groups.entry(ports.collect()).or_default().push(endpoint(pod, address, publish_all));
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut used = BTreeSet::new();
    let mut slices = Vec::new();
    for (ports, mut endpoints) in groups {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for chunk in endpoints.chunks(MOST) {
            let mut number = 0;
            let suffix = loop {
                let suffix = short_hash(&(&service.metadata.uid, &ports, number));
                if used.insert(suffix.clone()) {
                    break suffix;
                }
                number += 1;
            };
            slices.push(EndpointSlice {
                metadata: ObjectMeta {
                    name: Some(format!("{name}-{suffix}")),
                    namespace: service.metadata.namespace.clone(),
                    labels: Some(labels_of(service, &name)),
                    owner_references: Some(vec![owner_reference(service)]),
                    ..ObjectMeta::default()
                },
                address_type: "IPv4".to_string(),
                endpoints: chunk.to_vec(),
                ports: Some(
                    ports
                        .iter()
                        .map(|(name, protocol, port)| EndpointPort {
                            // An unnamed port has the empty name, as the API server keeps it.
                            name: Some(name.clone().unwrap_or_default()),
                            protocol: Some(protocol.clone()),
                            port: Some(*port),
                            app_protocol: None,
                        })
                        .collect(),
                ),
            });
        }
    }
    slices
}

fn labels_of(service: &Service, name: &str) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_string(), name.to_string());
    labels.insert(MANAGED_BY.to_string(), CONTROLLER.to_string());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_string(), String::new());
    }
    labels
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
            let mut ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
            let is_it = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
                p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(is_it).map(|p| p.container_port)
        }
    }
}

fn endpoint(pod: &Pod, address: String, publish_all: bool) -> Endpoint {
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_string()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Five letters from the alphabet of generated names; the same for the same words.
fn short_hash(of: &impl std::fmt::Debug) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a: a name, not a secret; a collision takes the next number.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in format!("{of:?}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (0..5)
        .map(|_| {
            let letter = ALPHABET[(hash % 27) as usize];
            hash /= 27;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(more: Value) -> Service {
        let mut spec =
            json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(
            json!({ "metadata": { "name": "web", "namespace": "a", "uid": "s" }, "spec": spec }),
        )
        .unwrap()
    }

    fn pod(name: &str, address: &str, ready: bool, port: u16) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "a", "uid": name, "labels": { "app": "web" } },
                "spec": { "nodeName": "n", "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": port }] }] },
                "status": { "phase": "Running", "podIP": address,
                            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn pods_with_an_address_are_endpoints_and_readiness_is_told() {
        let pods =
            [pod("b", "10.0.0.2", false, 8080), pod("a", "10.0.0.1", true, 8080), pod("c", "", true, 8080)];
        let slices = slices(&service(json!({})), &pods);
        assert_eq!(slices.len(), 1);
        let endpoints = &slices[0].endpoints;
        let seen: Vec<_> = endpoints
            .iter()
            .map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().unwrap().ready))
            .collect();
        assert_eq!(seen, [("10.0.0.1", Some(true)), ("10.0.0.2", Some(false))]);
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
        assert_eq!(service_of(&slices[0]), Some("web"));
    }

    #[test]
    fn a_named_port_that_differs_between_pods_makes_a_slice_each() {
        let pods = [pod("a", "10.0.0.1", true, 8080), pod("b", "10.0.0.2", true, 9090)];
        let made = slices(&service(json!({})), &pods);
        assert_eq!(made.len(), 2);
        assert_ne!(made[0].metadata.name, made[1].metadata.name);
        assert_eq!(made, slices(&service(json!({})), &pods), "and the same next time");
    }

    #[test]
    fn services_without_selector_are_left_alone() {
        let pods = [pod("a", "10.0.0.1", true, 8080)];
        assert!(slices(&service(json!({ "selector": null })), &pods).is_empty());
        assert!(slices(&service(json!({ "type": "ExternalName" })), &pods).is_empty());
        let all =
            slices(&service(json!({ "publishNotReadyAddresses": true })), &[pod("a", "10.0.0.1", false, 1)]);
        assert_eq!(all[0].endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
    }
}
