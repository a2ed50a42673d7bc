//! Which ports are declared, and the nodes that answer on each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use node::net::fabric::node_address;

use super::super::layout::node_name;
use super::Cluster;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn parse(word: Option<&str>) -> Option<Protocol> {
        match word {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some(_) => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// The ports declared by running pods and by services, with the nodes that answer on each.
pub fn declared<'a>(
    cluster: &Cluster,
    pods: impl Iterator<Item = &'a Pod>,
    services: impl Iterator<Item = &'a Service>,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeMap<(Protocol, u16), Vec<IpAddr>> {
    let mut ports: BTreeMap<(Protocol, u16), BTreeSet<IpAddr>> = BTreeMap::new();
    for pod in pods {
        let status = pod.status.as_ref();
        let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        let Some(host) = status.and_then(|status| status.host_ip.as_ref()?.parse().ok()).filter(|_| !ended)
        else {
            continue;
        };
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            if let Some(number) = port.host_port.and_then(|number| u16::try_from(number).ok())
                && let Some(protocol) = Protocol::parse(port.protocol.as_deref())
            {
                ports.entry((protocol, number)).or_default().insert(host);
            }
        }
    }
    let nodes = nodes(cluster);
    let with_endpoints = nodes_with_endpoints(slices);
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        let key = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        // Under `Local` the others drop what comes to them.
        let answers =
            |name: &str| !local || with_endpoints.get(&key).is_some_and(|nodes| nodes.contains(name));
        // Nodes answer at their addresses of the Service's families; 127.0.0.1 leads to either.
        let families = spec.ip_families.as_deref().unwrap_or_default();
        let only_v6 = !families.is_empty() && families.iter().all(|family| family == "IPv6");
        let answering: Vec<IpAddr> = nodes
            .iter()
            .filter(|(name, ..)| answers(name))
            .filter_map(|(_, v4, v6)| if only_v6 { *v6 } else { Some(IpAddr::V4(*v4)) })
            .collect();
        for port in spec.ports.iter().flatten() {
            if let Some(number) = port.node_port.and_then(|number| u16::try_from(number).ok())
                && let Some(protocol) = Protocol::parse(port.protocol.as_deref())
            {
                ports.entry((protocol, number)).or_default().extend(&answering);
            }
        }
    }
    ports
        .into_iter()
        .filter(|((_, port), _)| *port != 0)
        .map(|(port, nodes)| (port, nodes.into_iter().collect()))
        .collect()
}

/// The names and addresses of all nodes.
fn nodes(cluster: &Cluster) -> Vec<(String, Ipv4Addr, Option<IpAddr>)> {
    let Ok((v4, v6)) = cluster.ranges() else { return Vec::new() };
    let address6 = |index| node_address(v6.as_ref()?.nodes, index).map(IpAddr::V6);
    let one = |index| Some((node_name(index), node_address(v4.nodes, index)?, address6(index)));
    (1..=cluster.nodes).filter_map(one).collect()
}

type Name<'a> = (Option<&'a str>, Option<&'a str>);

/// Nodes that run a ready endpoint, by Service.
fn nodes_with_endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeMap<Name<'a>, BTreeSet<&'a str>> {
    let mut nodes: BTreeMap<Name<'a>, BTreeSet<&'a str>> = BTreeMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name")).map(String::as_str);
        let key = (slice.metadata.namespace.as_deref(), service);
        let ready = slice.endpoints.iter().filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        });
        nodes.entry(key).or_default().extend(ready.filter_map(|endpoint| endpoint.node_name.as_deref()));
    }
    nodes
}
