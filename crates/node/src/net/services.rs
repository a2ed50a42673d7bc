//! Services on a node: cluster addresses and node ports are translated to endpoints, chosen at random for each
//! connection. One verdict map entry per address and port, one chain per list of endpoints.
//!
//! Not here yet: session affinity, SCTP's multi-homing, IPv6.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kernel::nft::{Chain, Data, DataType, Elements, Set, SetType, Table, Verdict};
use policy::network_policy::ir::Protocol;

use super::exprs::{dnat_to, l4proto, one_in, rule};
use super::table::port_part;

/// (cluster address, protocol, port) → chain.
pub const SERVICES: &str = "services";
/// (protocol, port) of every address of the node → chain.
pub const NODE_PORTS: &str = "nodeports";

/// Chains of endpoints are named so, and no others.
const CHAIN: &str = "service-";

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub cluster_ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    /// Who answers on the cluster address. Nobody: connections are refused.
    pub endpoints: BTreeSet<SocketAddrV4>,
    /// The node's port and who answers on it: under `externalTrafficPolicy: Local` the endpoints of this node only.
    pub node_port: Option<(u16, BTreeSet<SocketAddrV4>)>,
}

/// The ports of Services with a cluster address, and the endpoints that are ready, for the node of that name.
///
/// Source: <https://kubernetes.io/docs/reference/networking/virtual-ips/>.
pub fn from_api<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &str,
) -> Vec<ServicePort> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices.into_iter().filter(|slice| slice.address_type == "IPv4") {
        let meta = &slice.metadata;
        let name = meta.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        if let (Some(namespace), Some(name)) = (&meta.namespace, name) {
            by_service.entry((namespace, name)).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services {
        let (Some(spec), Some(namespace), Some(name)) =
            (&service.spec, &service.metadata.namespace, &service.metadata.name)
        else {
            continue;
        };
        // "None" is headless: its name leads to the endpoints themselves.
        let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) else { continue };
        let slices =
            by_service.get(&(namespace.as_str(), name.as_str())).map(Vec::as_slice).unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            let word = port.protocol.as_deref().unwrap_or("TCP");
            let (Some(protocol), Ok(number)) = (Protocol::parse(word), u16::try_from(port.port)) else {
                continue;
            };
            let own = |policy: &Option<String>| policy.as_deref() == Some("Local");
            let answering = |own_only: bool| -> BTreeSet<SocketAddrV4> {
                let here = |endpoint: &&Endpoint| !own_only || endpoint.node_name.as_deref() == Some(node);
                slices.iter().flat_map(|slice| answering(slice, port.name.as_deref(), word, here)).collect()
            };
            let node_port =
                port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
            ports.push(ServicePort {
                cluster_ip,
                protocol,
                port: number,
                endpoints: answering(own(&spec.internal_traffic_policy)),
                node_port: node_port.map(|port| (port, answering(own(&spec.external_traffic_policy)))),
            });
        }
    }
    ports
}

fn answering(
    slice: &EndpointSlice,
    name: Option<&str>,
    protocol: &str,
    here: impl Fn(&&Endpoint) -> bool,
) -> Vec<SocketAddrV4> {
    let same = |other: Option<&str>| other.unwrap_or_default() == name.unwrap_or_default();
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|port| same(port.name.as_deref()) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else { return Vec::new() };
    // No condition is to be taken for ready.
    let ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let endpoints = slice.endpoints.iter().filter(ready).filter(here);
    endpoints
        .filter_map(|endpoint| Some(SocketAddrV4::new(endpoint.addresses.first()?.parse().ok()?, port)))
        .collect()
}

/// The part of the node's table that is about Services.
pub fn part(services: &[ServicePort]) -> Table {
    let mut table = Table::default();
    let mut chain = |protocol: Protocol, endpoints: &BTreeSet<SocketAddrV4>| -> Option<Data> {
        if endpoints.is_empty() {
            // The address is not translated, and the cluster's range is rejected where it arrives untranslated.
            return None;
        }
        let name = chain_name(protocol, endpoints);
        table.chains.entry(name.clone()).or_insert_with(|| chain_of(protocol, endpoints));
        Some(Data::Verdict(Verdict::Goto(name)))
    };
    let (mut clusters, mut nodes) = (Elements::new(), Elements::new());
    for service in services {
        let mut rest = vec![service.protocol.number(), 0, 0, 0];
        rest.extend(port_part(service.port));
        if let Some(goto) = chain(service.protocol, &service.endpoints) {
            clusters.insert(([&service.cluster_ip.octets()[..], &rest].concat(), false), goto);
        }
        if let Some((port, endpoints)) = &service.node_port
            && let Some(goto) = chain(service.protocol, endpoints)
        {
            let mut key = vec![service.protocol.number(), 0, 0, 0];
            key.extend(port_part(*port));
            nodes.insert((key, false), goto);
        }
    }
    let by_port = [DataType::InetProto, DataType::InetService];
    let by_address = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    let set = |key: &[DataType], elements| Set { of: SetType::verdict_map(key), elements };
    table.sets.insert(SERVICES.into(), set(&by_address, clusters));
    table.sets.insert(NODE_PORTS.into(), set(&by_port, nodes));
    table
}

/// Takes over what an earlier agent wrote about Services, where nothing is known of them yet.
pub fn keep(is: &Table, wanted: &mut Table) {
    for name in [SERVICES, NODE_PORTS] {
        if let (Some(set), Some(wanted)) = (is.sets.get(name), wanted.sets.get_mut(name)) {
            wanted.elements = set.elements.clone();
        }
    }
    let chains = is.chains.iter().filter(|(name, chain)| name.starts_with(CHAIN) && chain.base.is_none());
    wanted.chains.extend(chains.map(|(name, chain)| (name.clone(), chain.clone())));
}

/// Each endpoint is as likely as the others: one in n, else one in n − 1, …, else the last.
fn chain_of(protocol: Protocol, endpoints: &BTreeSet<SocketAddrV4>) -> Chain {
    let count = endpoints.len() as u32;
    let rules = (1..=count).rev().zip(endpoints).map(|(left, endpoint)| {
        let chance = if left > 1 { one_in(left) } else { Vec::new() };
        rule([l4proto(protocol.number()), chance, dnat_to(*endpoint)])
    });
    Chain { base: None, rules: rules.collect() }
}

/// FNV-1a, 128 bits: nobody gains by two lists with one name, since both belong to the cluster's own controller.
fn chain_name(protocol: Protocol, endpoints: &BTreeSet<SocketAddrV4>) -> String {
    let text =
        endpoints.iter().fold(protocol.name().to_string(), |text, endpoint| format!("{text} {endpoint}"));
    let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{CHAIN}{hash:032x}")
}

/// UDP endpoints of `old` that `new` has no more: their conntrack entries must go, or clients talk to them for ever.
pub fn gone(old: &[ServicePort], new: &[ServicePort]) -> BTreeSet<SocketAddrV4> {
    let udp = |services: &[ServicePort]| -> BTreeSet<SocketAddrV4> {
        let services = services.iter().filter(|service| service.protocol == Protocol::Udp);
        let all = services.flat_map(|s| s.endpoints.iter().chain(s.node_port.iter().flat_map(|(_, e)| e)));
        all.copied().collect()
    };
    udp(old).difference(&udp(new)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_endpoints_of_a_port_are_found_by_its_name() {
        let service = json!({
            "metadata": {"name": "web", "namespace": "foo"},
            "spec": {"clusterIP": "10.96.0.7", "type": "NodePort", "externalTrafficPolicy": "Local",
                "ports": [{"name": "http", "port": 80, "nodePort": 30123}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
        });
        let headless = json!({"metadata": {"name": "h", "namespace": "foo"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        let slice = |service: &str| {
            json!({
                "metadata": {"name": "s", "namespace": "foo", "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "endpoints": [
                    {"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true}},
                    {"addresses": ["10.244.2.2"], "nodeName": "node-2"},
                    {"addresses": ["10.244.1.3"], "nodeName": "node-1", "conditions": {"ready": false}},
                ],
            })
        };
        let services: Vec<Service> = [service, headless].map(|v| serde_json::from_value(v).unwrap()).into();
        let slices: Vec<EndpointSlice> =
            [slice("web"), slice("other")].map(|v| serde_json::from_value(v).unwrap()).into();
        let ports = from_api(&services, &slices, "node-1");
        let set =
            |list: &[&str]| -> BTreeSet<SocketAddrV4> { list.iter().map(|a| a.parse().unwrap()).collect() };
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0].endpoints, set(&["10.244.1.2:8080", "10.244.2.2:8080"]));
        assert_eq!(ports[0].node_port, Some((30123, set(&["10.244.1.2:8080"]))));
        assert_eq!((ports[1].protocol, ports[1].endpoints.len()), (Protocol::Udp, 0));
    }

    #[test]
    fn a_service_without_endpoints_is_in_no_map() {
        let service = |endpoints: &[&str]| ServicePort {
            cluster_ip: Ipv4Addr::new(10, 96, 0, 7),
            protocol: Protocol::Udp,
            port: 53,
            endpoints: endpoints.iter().map(|a| a.parse().unwrap()).collect(),
            node_port: None,
        };
        assert_eq!(part(&[service(&[])]), part(&[]));
        let three = part(&[service(&["10.244.1.2:53", "10.244.1.3:53", "10.244.1.4:53"])]);
        assert_eq!(three.chains.values().next().unwrap().rules.len(), 3);
        let gone = gone(&[service(&["10.244.1.2:53", "10.244.1.3:53"])], &[service(&["10.244.1.3:53"])]);
        assert_eq!(gone.into_iter().collect::<Vec<_>>(), ["10.244.1.2:53".parse().unwrap()]);
    }
}
