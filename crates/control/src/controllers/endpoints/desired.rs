//! What a Service asks for: its endpoints, grouped by the ports they have (`pkg/controller/endpointslice`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use policy::workload::{is_finished, is_ready};

use super::super::cache::Change;
use super::slices::Group;
use super::{CONTROLLER, HEADLESS, MANAGED_BY, SERVICE_NAME, is_headless};

/// Whether the pods of that Service are its endpoints. Without a selector somebody else keeps them.
pub(super) fn is_kept(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName")
            && spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
    })
}

pub(in super::super) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
    let labels = pod.metadata.labels.as_ref();
    selector.is_some_and(|selector| selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)))
}

/// Whether a change of a pod can change any endpoint.
pub(in super::super) fn is_affected(change: &Change<Pod>) -> bool {
    let seen = |pod: &Option<Arc<Pod>>| {
        pod.as_ref().map(|pod| {
            let status = pod.status.as_ref();
            let addresses = status.map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
            let meta = &pod.metadata;
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            let going = meta.deletion_timestamp.is_some();
            (addresses, is_ready(pod), is_finished(pod), going, meta.labels.clone(), node, meta.uid.clone())
        })
    };
    seen(&change.old) != seen(&change.new)
}

/// The Service's own labels, and those that say what a slice is.
pub(super) fn labels(service: &Service, name: &str) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()));
    labels.insert(SERVICE_NAME.to_string(), name.to_string());
    labels.insert(MANAGED_BY.to_string(), CONTROLLER.to_string());
    if is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    labels
}

/// Families a Service asks for, the first one first.
pub(super) fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".to_string()] } else { families }
}

/// The address of a pod in that family.
pub(super) fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let v6 = family == "IPv6";
    listed.chain(&status.pod_ip).find(|ip| !ip.is_empty() && ip.contains(':') == v6).cloned()
}

/// The groups of endpoints of a Service: one per family and set of ports.
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: Vec<Group> = Vec::new();
    for family in families(service) {
        let mut found = false;
        for pod in pods.iter().filter(|pod| !is_finished(pod)) {
            let Some(address) = address(pod, &family) else { continue };
            let ports = ports_of(spec.ports.as_deref().unwrap_or_default(), pod);
            let endpoint = endpoint(service, pod, address, publish_all, &zone);
            found = true;
            match groups.iter_mut().find(|group| group.family == family && group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { family: family.clone(), ports, endpoints: vec![endpoint] }),
            }
        }
        if !found {
            // A slice that says that there are none.
            groups.push(Group { family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    for group in &mut groups {
        group.endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    groups
}

fn ports_of(ports: &[ServicePort], pod: &Pod) -> Vec<EndpointPort> {
    let ports = ports.iter().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
        Some(EndpointPort {
            // An unnamed port has the empty name, as the API server keeps it.
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, &protocol, pod)?),
            protocol: Some(protocol),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

pub(super) fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
            let sidecars = spec.init_containers.iter().flatten().filter(stays);
            let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            let is_it = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
                p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(is_it).map(|p| p.container_port)
        }
    }
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_string()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The name of the pod under the Service's, where it asks for one.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|name| same && !name.is_empty())
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    publish_all: bool,
    zone: impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let zone = node_name.as_deref().and_then(zone);
    let ready = publish_all || serving && !terminating;
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    Endpoint {
        addresses: vec![address],
        hints: distribution
            .filter(|_| ready)
            .and_then(|wanted| hints(wanted, node_name.as_ref(), zone.as_ref())),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        zone,
        node_name,
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    }
}

/// Whose traffic an endpoint is for, after the Service's `trafficDistribution` (`endpointslice/trafficdist`). Nodes keep to it
/// where all ready endpoints say so.
fn hints(distribution: &str, node: Option<&String>, zone: Option<&String>) -> Option<EndpointHints> {
    let for_nodes = node.filter(|_| distribution == "PreferSameNode");
    let for_nodes = for_nodes.map(|name| vec![ForNode { name: name.clone() }]);
    let for_zones = zone.map(|name| vec![ForZone { name: name.clone() }]);
    (for_nodes.is_some() || for_zones.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in super::super) fn service(more: Value) -> Service {
        let mut spec =
            json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(
            json!({ "metadata": { "name": "web", "namespace": "a", "uid": "s" }, "spec": spec }),
        )
        .unwrap()
    }

    pub(in super::super) fn pod(name: &str, address: &str, ready: bool, port: u16) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "a", "uid": name, "labels": { "app": "web" } },
                "spec": { "nodeName": "n", "hostname": name, "subdomain": "web",
                          "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": port }] }] },
                "status": { "phase": "Running", "podIP": address,
                            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
            }))
            .unwrap(),
        )
    }

    fn groups_of(service: &Service, pods: &[Arc<Pod>]) -> Vec<Group> {
        groups(service, pods, |node| Some(format!("zone of {node}")))
    }

    #[test]
    fn pods_with_an_address_are_endpoints_and_readiness_is_told() {
        let mut going = (*pod("d", "10.0.0.4", true, 8080)).clone();
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let mut finished = (*pod("e", "10.0.0.5", true, 8080)).clone();
        finished.status.as_mut().unwrap().phase = Some("Succeeded".into());
        let pods = [
            pod("b", "10.0.0.2", false, 8080),
            pod("a", "10.0.0.1", true, 8080),
            pod("c", "", true, 8080),
            Arc::new(going),
            Arc::new(finished),
        ];
        let groups = groups_of(&service(json!({})), &pods);
        assert_eq!((groups.len(), groups[0].ports[0].port), (1, Some(8080)));
        let seen: Vec<_> = groups[0]
            .endpoints
            .iter()
            .map(|e| {
                let c = e.conditions.as_ref().unwrap();
                (e.addresses[0].as_str(), c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("10.0.0.1", true, true, false),
                ("10.0.0.2", false, false, false),
                ("10.0.0.4", false, true, true)
            ]
        );
        let first = &groups[0].endpoints[0];
        assert_eq!((first.zone.as_deref(), first.hostname.as_deref()), (Some("zone of n"), Some("a")));
    }

    #[test]
    fn a_named_port_that_differs_between_pods_makes_a_group_each() {
        let pods = [pod("a", "10.0.0.1", true, 8080), pod("b", "10.0.0.2", true, 9090)];
        assert_eq!(groups_of(&service(json!({})), &pods).len(), 2);
        let none = groups_of(&service(json!({})), &[]);
        assert!(none.len() == 1 && none[0].endpoints.is_empty() && none[0].ports.is_empty());
    }

    #[test]
    fn ready_endpoints_say_whose_traffic_they_are_for_where_the_service_asks() {
        let pods = [pod("a", "10.0.0.1", true, 8080), pod("b", "10.0.0.2", false, 8080)];
        let zone = json!({"forZones": [{"name": "zone of n"}]});
        let node = json!({"forNodes": [{"name": "n"}], "forZones": [{"name": "zone of n"}]});
        for (distribution, expected) in [
            (Value::Null, &Value::Null),
            (json!("PreferClose"), &zone),
            (json!("PreferSameZone"), &zone),
            (json!("PreferSameNode"), &node),
        ] {
            let groups = groups_of(&service(json!({"trafficDistribution": distribution})), &pods);
            let hints: Vec<Value> =
                groups[0].endpoints.iter().map(|e| serde_json::to_value(&e.hints).unwrap()).collect();
            assert_eq!(hints, [expected.clone(), Value::Null], "{distribution}");
        }
    }

    #[test]
    fn services_without_selector_are_left_alone() {
        for more in
            [json!({ "selector": null }), json!({ "selector": {} }), json!({ "type": "ExternalName" })]
        {
            assert!(!is_kept(&service(more)));
        }
        let all = groups_of(
            &service(json!({ "publishNotReadyAddresses": true })),
            &[pod("a", "10.0.0.1", false, 1)],
        );
        assert_eq!(all[0].endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
    }
}
