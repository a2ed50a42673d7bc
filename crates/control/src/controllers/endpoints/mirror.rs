//! Endpoints that somebody writes for a Service without a selector, mirrored into slices, which is what nodes and DNS read
//! (`pkg/controller/endpointslicemirroring`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use super::super::adoption::owner_reference;
use super::super::cache::Key;
use super::super::{Error, World};
use super::slices::{self, Group, Shape};
use super::{
    HEADLESS, LAST_CHANGE, MANAGED_BY, SERVICE_NAME, carry_out, delete_all, is_headless, of_service,
};

pub(super) const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// `--mirroring-max-endpoints-per-subset`, which is also the most that one slice may hold.
const MOST: usize = 1000;

pub(super) async fn sync(world: &World, key: &Key, service: &Service) -> Result<(), Error> {
    let selects =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|s| !s.is_empty());
    let endpoints = world.endpoints.get(key).filter(|endpoints| !selects && is_mirrored(endpoints));
    let Some(endpoints) = endpoints else { return delete_all(world, key, CONTROLLER).await };
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_string(), key.1.clone());
    labels.insert(MANAGED_BY.to_string(), CONTROLLER.to_string());
    if is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let changed = annotations.remove(LAST_CHANGE);
    let shape = Shape {
        labels,
        annotations,
        owner: owner_reference(&*endpoints),
        namespace: key.0.clone(),
        name: key.1.clone(),
        most: MOST,
        changed,
    };
    let have = of_service(world, key, CONTROLLER);
    carry_out(world, key, CONTROLLER, slices::plan(&have, groups(&endpoints), &shape)).await
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let has = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned()
    };
    meta.deletion_timestamp.is_none()
        && has(&meta.labels, SKIP).as_deref() != Some("true")
        && has(&meta.annotations, LEADER).is_none()
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_string())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        for (list, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
            for address in list.iter().flatten().take(MOST) {
                let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
                let same = groups.iter_mut().find(|group| group.family == family && group.ports == ports);
                match same {
                    Some(group) => group.endpoints.push(endpoint(address, ready)),
                    None => groups.push(Group {
                        family: family.to_string(),
                        ports: ports.clone(),
                        endpoints: vec![endpoint(address, ready)],
                    }),
                }
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
