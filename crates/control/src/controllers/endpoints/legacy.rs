//! The Endpoints object of a Service, for clients that know no slices (`pkg/controller/endpoint`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use policy::workload::{is_finished, is_ready};

use super::super::cache::Key;
use super::super::{Error, World};
use super::{HEADLESS, LAST_CHANGE, desired, is_headless};

/// Says who writes the object, so that it is not taken for one written by hand.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in one object.
const MOST: usize = 1000;

pub(super) async fn sync(
    world: &World,
    key: &Key,
    service: &Service,
    pods: &[Arc<Pod>],
    changed: Option<String>,
) -> Result<(), Error> {
    let (subsets, truncated) = truncate(subsets(service, pods));
    let have = world.endpoints.get(key);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.to_string(), CONTROLLER.to_string());
    if is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    let mut annotations = have.as_ref().and_then(|e| e.metadata.annotations.clone()).unwrap_or_default();
    let was_truncated = annotations.remove(OVER_CAPACITY).is_some();
    if let Some(have) = &have
        && have.subsets.as_deref().unwrap_or_default() == subsets
        && have.metadata.labels.as_ref() == Some(&labels)
        && was_truncated == truncated
    {
        return Ok(());
    }
    if truncated {
        annotations.insert(OVER_CAPACITY.to_string(), "truncated".to_string());
    }
    match changed {
        Some(changed) => annotations.insert(LAST_CHANGE.to_string(), changed),
        None => annotations.remove(LAST_CHANGE),
    };
    let (labels, annotations) = (Some(labels), (!annotations.is_empty()).then_some(annotations));
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let api: Api<Endpoints> = Api::namespaced(world.clients.endpoints.clone(), &key.0);
    let answer = match have {
        Some(have) => {
            let metadata = ObjectMeta { labels, annotations, ..have.metadata.clone() };
            api.replace(&key.1, &PostParams::default(), &Endpoints { metadata, subsets }).await?
        }
        None => {
            let (name, namespace) = (Some(key.1.clone()), Some(key.0.clone()));
            let metadata = ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() };
            api.create(&PostParams::default(), &Endpoints { metadata, subsets }).await?
        }
    };
    world.saw(answer);
    Ok(())
}

/// Addresses in the Service's first family, by the ports they have. Pods that end are in none of the two lists.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    type Lists = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let Some(spec) = &service.spec else { return Vec::new() };
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let family = desired::families(service).into_iter().next().unwrap_or_default();
    /// Name, protocol, number, `appProtocol`.
    type Port = (String, String, i32, Option<String>);
    let mut groups: BTreeMap<Vec<Port>, Lists> = BTreeMap::new();
    for pod in pods {
        let going = pod.metadata.deletion_timestamp.is_some();
        if is_finished(pod) || going && !publish_all {
            continue;
        }
        let Some(ip) = desired::address(pod, &family) else { continue };
        let address = EndpointAddress {
            hostname: desired::hostname(service, pod),
            ip,
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(desired::reference(pod)),
        };
        let mut ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
                let number = desired::target_port(port, &protocol, pod)?;
                Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
            })
            .collect();
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            // No port of this pod has the name.
            continue;
        }
        ports.sort();
        let (ready, not_ready) = groups.entry(ports).or_default();
        if publish_all || is_ready(pod) { ready } else { not_ready }.push(address);
    }
    let list = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let subset = |(ports, (ready, not_ready)): (Vec<_>, Lists)| {
        let port =
            |(name, protocol, port, app_protocol): (String, String, i32, Option<String>)| EndpointPort {
                name: (!name.is_empty()).then_some(name),
                port,
                protocol: Some(protocol),
                app_protocol,
            };
        let ports: Vec<_> = ports.into_iter().map(port).collect();
        EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(not_ready),
            ports: (!ports.is_empty()).then_some(ports),
        }
    };
    groups.into_iter().map(subset).collect()
}

/// At most [`MOST`] addresses, ready ones first.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let all: usize = subsets.iter().map(|s| count(&s.addresses) + count(&s.not_ready_addresses)).sum();
    if all <= MOST {
        return (subsets, false);
    }
    let mut left = MOST;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            addresses.truncate(left);
            left -= addresses.len();
        }
        list.take_if(|addresses| addresses.is_empty());
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desired::tests::{pod, service};
    use super::*;

    #[test]
    fn ready_and_not_ready_addresses_lie_apart_by_ports() {
        let pods = [
            pod("a", "10.0.0.1", true, 8080),
            pod("b", "10.0.0.2", false, 8080),
            pod("c", "10.0.0.3", true, 9090),
        ];
        let made = serde_json::to_value(subsets(&service(json!({})), &pods)).unwrap();
        let addresses = |subset: usize, list: &str| -> Vec<String> {
            let list = made[subset][list].as_array().cloned().unwrap_or_default();
            list.iter().map(|a| a["ip"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(
            (addresses(0, "addresses"), addresses(0, "notReadyAddresses")),
            (vec!["10.0.0.1".to_string()], vec!["10.0.0.2".to_string()])
        );
        assert_eq!(addresses(1, "addresses"), ["10.0.0.3"]);
        assert_eq!(made[1]["ports"], json!([{ "port": 9090, "protocol": "TCP" }]));
    }

    #[test]
    fn at_most_a_thousand_addresses_ready_ones_first() {
        let pods: Vec<_> = (0..1200)
            .map(|i| pod(&format!("p{i}"), &format!("10.0.{}.{}", i / 250, i % 250), i >= 300, 80))
            .collect();
        let (made, truncated) = truncate(subsets(&service(json!({})), &pods));
        let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
        assert!(truncated);
        assert_eq!((count(&made[0].addresses), count(&made[0].not_ready_addresses)), (900, 100));
    }
}
