//! Services and EndpointSlices, each parsed once, and what a node makes of them.
//!
//! Source: <https://kubernetes.io/docs/reference/networking/virtual-ips/>, and `pkg/proxy/topology.go` for which endpoints
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};
use policy::network_policy::ir::Protocol;

use super::{Backends, ServiceChange, ServiceName, ServicePort};

/// What of a Service concerns a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    cluster_ips: Vec<IpAddr>,
    external_ips: BTreeSet<IpAddr>,
    inside: TrafficPolicy,
    outside: TrafficPolicy,
    affinity: Option<u32>,
    ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrafficPolicy {
    Cluster,
    Local,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: String,
    protocol: Protocol,
    port: u16,
    node_port: Option<u16>,
}

/// What of an EndpointSlice concerns a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    ports: Vec<(String, Protocol, u16)>,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    address: IpAddr,
    here: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// Terminating, but still answering: used only where nothing is ready.
    Draining,
}

/// Default of `timeoutSeconds`.
const THREE_HOURS: u32 = 10_800;

fn name_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<ServiceName> {
    Some((meta.namespace.clone()?, meta.name.clone()?))
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

impl Service {
    /// None for what nodes translate nothing for: headless Services and names of elsewhere.
    pub fn from_api(service: &v1::Service) -> (Option<ServiceName>, Option<Service>) {
        (name_of(&service.metadata), Service::parse(service))
    }

    fn parse(service: &v1::Service) -> Option<Service> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let first = spec.cluster_ip.iter();
        let listed = spec.cluster_ips.iter().flatten();
        // "None" is no address: the name of such a Service leads to the endpoints themselves.
        let mut cluster_ips: Vec<IpAddr> = Vec::new();
        for ip in first.chain(listed).filter_map(|ip| ip.parse().ok()) {
            if !cluster_ips.contains(&ip) {
                cluster_ips.push(ip);
            }
        }
        if cluster_ips.is_empty() {
            return None;
        }
        let policy = |text: &Option<String>| match text.as_deref() {
            Some("Local") => TrafficPolicy::Local,
            _ => TrafficPolicy::Cluster,
        };
        let balancer = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
        // With `loadBalancerSourceRanges` the balancer's own addresses need a filter that is not here: they stay closed.
        let balancer = balancer
            .filter(|_| spec.load_balancer_source_ranges.as_ref().is_none_or(Vec::is_empty))
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref());
        let external_ips = spec.external_ips.iter().flatten().chain(balancer);
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let seconds = config.and_then(|c| c.timeout_seconds).unwrap_or(THREE_HOURS as i32);
            u32::try_from(seconds).unwrap_or(THREE_HOURS)
        });
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
                port: port_number(port.port)?,
                node_port: port.node_port.and_then(port_number),
            })
        });
        Some(Service {
            cluster_ips,
            external_ips: external_ips.filter_map(|ip| ip.parse().ok()).collect(),
            inside: policy(&spec.internal_traffic_policy),
            outside: policy(&spec.external_traffic_policy),
            affinity,
            ports: ports.collect(),
        })
    }
}

impl Slice {
    /// The Service it belongs to, and what is in it. None for slices of names, and of nobody.
    pub fn from_api(slice: &EndpointSlice, node: &str) -> Option<(ServiceName, Slice)> {
        let meta = &slice.metadata;
        let service = meta.labels.as_ref()?.get("kubernetes.io/service-name")?;
        if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
            return None;
        }
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?;
            Some((port.name.clone().unwrap_or_default(), protocol, port_number(port.port?)?))
        });
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            Some(Endpoint {
                // The first address is the endpoint's; more are for nobody (`EndpointSlice.endpoints.addresses`).
                address: endpoint.addresses.first()?.parse().ok()?,
                here: endpoint.node_name.as_deref() == Some(node),
                state: State::of(endpoint)?,
            })
        });
        let slice = Slice { ports: ports.collect(), endpoints: endpoints.collect() };
        Some(((meta.namespace.clone()?, service.clone()), slice))
    }
}

impl State {
    /// None: it takes no connections.
    fn of(endpoint: &ApiEndpoint) -> Option<State> {
        let conditions = endpoint.conditions.as_ref();
        // No condition is to be taken for ready; `serving` left out is as `ready`.
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        match (ready, serving && terminating) {
            (true, _) => Some(State::Ready),
            (false, true) => Some(State::Draining),
            (false, false) => None,
        }
    }
}

/// All Services of a list as the node of that name programs them, for those who follow no changes.
pub fn from_api<'a>(
    services: impl IntoIterator<Item = &'a v1::Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &str,
) -> Vec<ServiceChange> {
    let mut by_service: BTreeMap<ServiceName, Vec<Slice>> = BTreeMap::new();
    for (name, slice) in slices.into_iter().filter_map(|slice| Slice::from_api(slice, node)) {
        by_service.entry(name).or_default().push(slice);
    }
    let parsed = services.into_iter().filter_map(|service| match Service::from_api(service) {
        (Some(name), Some(service)) => Some((name, service)),
        _ => None,
    });
    let change = |(name, service): (ServiceName, Service)| {
        let slices = by_service.get(&name).map(Vec::as_slice).unwrap_or_default();
        let ports = ports(&service, slices.iter());
        ServiceChange { name, ports }
    };
    parsed.map(change).collect()
}

/// The ports of a Service as a node programs them.
pub fn ports<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice> + Clone) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for port in &service.ports {
        for cluster_ip in &service.cluster_ips {
            let same_family = |ip: &IpAddr| ip.is_ipv4() == cluster_ip.is_ipv4();
            let mut endpoints: Vec<(SocketAddr, bool, State)> = Vec::new();
            for slice in slices.clone() {
                let named = slice.ports.iter().find(|(name, p, _)| *name == port.name && *p == port.protocol);
                let Some((_, _, target)) = named else { continue };
                let same = slice.endpoints.iter().filter(|endpoint| same_family(&endpoint.address));
                endpoints.extend(same.map(|e| (SocketAddr::new(e.address, *target), e.here, e.state)));
            }
            let all = choose(&endpoints, TrafficPolicy::Cluster);
            ports.push(ServicePort {
                protocol: port.protocol,
                port: port.port,
                cluster_ip: *cluster_ip,
                external_ips: service.external_ips.iter().copied().filter(same_family).collect(),
                node_port: port.node_port,
                affinity: service.affinity,
                inside: choose(&endpoints, service.inside),
                outside: choose(&endpoints, service.outside),
                all,
            });
        }
    }
    ports
}

/// Ready endpoints; where there are none, those that end but still answer.
fn choose(endpoints: &[(SocketAddr, bool, State)], policy: TrafficPolicy) -> Backends {
    let here_only = policy == TrafficPolicy::Local;
    for wanted in [State::Ready, State::Draining] {
        let chosen = endpoints.iter().filter(|(_, here, state)| *state == wanted && (*here || !here_only));
        match Backends::of(chosen.map(|(address, _, _)| *address)) {
            Backends::Any(chosen) => return Backends::Any(chosen),
            Backends::Nobody | Backends::NobodyHere => {}
        }
    }
    if endpoints.is_empty() { Backends::Nobody } else { Backends::NobodyHere }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        let object = json!({"metadata": {"name": "web", "namespace": "foo"}, "spec": spec});
        Service::from_api(&serde_json::from_value(object).unwrap()).1.unwrap()
    }

    fn slice(ports: Value, endpoints: Value) -> Slice {
        let object = json!({
            "metadata": {"name": "s", "namespace": "foo", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        });
        let (name, slice) = Slice::from_api(&serde_json::from_value(object).unwrap(), "node-1").unwrap();
        assert_eq!(name, ("foo".to_string(), "web".to_string()));
        slice
    }

    fn any(list: &[&str]) -> Backends {
        Backends::of(list.iter().map(|a| a.parse().unwrap()))
    }

    #[test]
    fn ready_endpoints_of_a_port_are_found_by_its_name() {
        let service = service(json!({
            "clusterIP": "10.96.0.7", "type": "NodePort", "externalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80, "nodePort": 30123}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }));
        let slice = slice(
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}]),
            json!([
                {"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true}},
                {"addresses": ["10.244.2.2"], "nodeName": "node-2"},
                {"addresses": ["10.244.1.3"], "nodeName": "node-1", "conditions": {"ready": false}},
            ]),
        );
        let ports = ports(&service, [&slice].into_iter());
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0].inside, any(&["10.244.1.2:8080", "10.244.2.2:8080"]));
        assert_eq!(ports[0].node_port, Some(30123));
        assert_eq!(ports[0].outside, any(&["10.244.1.2:8080"]));
        assert_eq!(ports[0].all, ports[0].inside);
        assert_eq!((ports[1].protocol, &ports[1].inside), (Protocol::Udp, &Backends::Nobody));
    }

    /// (what is on this node, what is elsewhere) as (ready, serving, terminating), and who answers under either policy.
    #[test]
    fn terminating_endpoints_answer_where_no_other_is_ready() {
        let ready = json!({"ready": true, "serving": true, "terminating": false});
        let draining = json!({"ready": false, "serving": true, "terminating": true});
        let failing = json!({"ready": false, "serving": false, "terminating": true});
        let unready = json!({"ready": false, "serving": false, "terminating": false});
        let (here, away) = ("10.244.1.2:80", "10.244.2.2:80");
        let cases = [
            (&ready, &ready, any(&[here, away]), any(&[here])),
            (&ready, &draining, any(&[here]), any(&[here])),
            (&draining, &ready, any(&[away]), any(&[here])),
            (&draining, &draining, any(&[here, away]), any(&[here])),
            (&unready, &ready, any(&[away]), Backends::NobodyHere),
            (&failing, &draining, any(&[away]), Backends::NobodyHere),
            (&failing, &unready, Backends::Nobody, Backends::Nobody),
        ];
        for (on_node, elsewhere, cluster, local) in cases {
            let slice = slice(
                json!([{"name": "", "port": 80}]),
                json!([
                    {"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": on_node},
                    {"addresses": ["10.244.2.2"], "nodeName": "node-2", "conditions": elsewhere},
                ]),
            );
            for (policy, expected) in [("Cluster", cluster), ("Local", local)] {
                let spec = json!({"clusterIP": "10.96.0.7", "internalTrafficPolicy": policy, "ports": [{"port": 80}]});
                let ports = ports(&service(spec), [&slice].into_iter());
                assert_eq!(ports[0].inside, expected, "{policy}: {on_node} here, {elsewhere} elsewhere");
            }
        }
    }

    #[test]
    fn headless_services_and_names_of_elsewhere_are_not_translated() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 1}]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({"ports": [{"port": 1}]}),
        ] {
            let object = json!({"metadata": {"name": "h", "namespace": "foo"}, "spec": spec});
            assert_eq!(Service::from_api(&serde_json::from_value(object).unwrap()).1, None);
        }
    }

    #[test]
    fn external_addresses_and_affinity_are_read() {
        let object = json!({
            "metadata": {"name": "h", "namespace": "foo"},
            "spec": {"clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.1", "2001:db8::1"], "sessionAffinity": "ClientIP",
                     "ports": [{"port": 1}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}]}},
        });
        let service = Service::from_api(&serde_json::from_value(object).unwrap()).1.unwrap();
        let ports = ports(&service, [].into_iter());
        let expected: BTreeSet<IpAddr> = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap()).into();
        assert_eq!((&ports[0].external_ips, ports[0].affinity), (&expected, Some(10_800)));
    }
}
