//! Services and EndpointSlices, each parsed once, and what a node makes of them.
//!
//! Source: <https://kubernetes.io/docs/reference/networking/virtual-ips/>, and `pkg/proxy/topology.go` for which endpoints
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Backends, Guarded, HealthCheck, LocalEndpoints, ServiceChange, ServiceName, ServicePort};
use crate::network_policy::PodRecord;
use crate::network_policy::ir::{Cidr, Protocol};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What of a Service concerns a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    cluster_ips: Vec<IpAddr>,
    external_ips: BTreeSet<IpAddr>,
    /// Of `externalIPs`, or beside them.
    balancer_ips: BTreeSet<IpAddr>,
    /// Who may come to these; empty: anybody.
    source_ranges: Vec<Option<Cidr>>,
    inside: TrafficPolicy,
    outside: TrafficPolicy,
    affinity: Option<u32>,
    ports: Vec<Port>,
    /// Where balancers ask for endpoints on this node, under `externalTrafficPolicy: Local`.
    health_check: Option<u16>,
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
    /// Of Services with `trafficDistribution`.
    hints: Option<Box<Hints>>,
}

/// Whose traffic an endpoint is for, as its slice says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hints {
    /// Whether it is for this node; None: no nodes are named.
    node: Option<bool>,
    zones: Vec<String>,
}

impl Hints {
    fn of(endpoint: &ApiEndpoint, node: &str) -> Option<Box<Hints>> {
        let hints = endpoint.hints.as_ref()?;
        let nodes = hints.for_nodes.as_ref().filter(|nodes| !nodes.is_empty());
        Some(Box::new(Hints {
            node: nodes.map(|nodes| nodes.iter().any(|one| one.name == node)),
            zones: hints.for_zones.iter().flatten().map(|zone| zone.name.clone()).collect(),
        }))
    }
}

/// An endpoint of one port.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    to: SocketAddr,
    of: &'a Endpoint,
}

/// Which ready endpoints a node prefers (`topologyModeFromHints`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preference<'a> {
    None,
    SameNode,
    SameZone(&'a str),
}

impl<'a> Preference<'a> {
    /// Hints count only where every ready endpoint has them and one is for here: traffic must have somewhere to go.
    fn of(candidates: &[Candidate<'_>], zone: Option<&'a str>) -> Preference<'a> {
        let ready = || candidates.iter().filter(|one| one.of.state == State::Ready).map(|one| &one.of.hints);
        let nodes = || ready().map(|hints| hints.as_ref().and_then(|hints| hints.node));
        if nodes().all(|node| node.is_some()) && nodes().any(|node| node == Some(true)) {
            return Preference::SameNode;
        }
        let zones = || ready().map(|hints| hints.as_ref().map_or(&[][..], |hints| &hints.zones));
        match zone {
            Some(zone)
                if zones().all(|zones| !zones.is_empty())
                    && zones().any(|zones| zones.iter().any(|one| one == zone)) =>
            {
                Preference::SameZone(zone)
            }
            _ => Preference::None,
        }
    }

    fn takes(self, endpoint: &Endpoint) -> bool {
        let hints = endpoint.hints.as_ref();
        match self {
            Preference::None => true,
            Preference::SameNode => hints.is_some_and(|hints| hints.node == Some(true)),
            Preference::SameZone(zone) => {
                hints.is_some_and(|hints| hints.zones.iter().any(|one| one == zone))
            }
        }
    }
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

    /// Never empty.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        &self.cluster_ips
    }

    /// `externalIPs`, and what a load balancer gave.
    pub fn external_ips(&self) -> &BTreeSet<IpAddr> {
        &self.external_ips
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
        let balancer_ips: BTreeSet<IpAddr> = balancer
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
            .collect();
        let external_ips = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
        // What cannot be read admits nobody. Spaces are from when the ranges stood in an annotation.
        let source_ranges = spec.load_balancer_source_ranges.iter().flatten();
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
            external_ips: external_ips.chain(balancer_ips.iter().copied()).collect(),
            balancer_ips,
            source_ranges: source_ranges.map(|range| Cidr::parse(range.trim()).ok()).collect(),
            inside: policy(&spec.internal_traffic_policy),
            outside: policy(&spec.external_traffic_policy),
            affinity,
            ports: ports.collect(),
            health_check: spec
                .health_check_node_port
                .and_then(port_number)
                .filter(|_| spec.type_.as_deref() == Some("LoadBalancer"))
                .filter(|_| policy(&spec.external_traffic_policy) == TrafficPolicy::Local),
        })
    }
}

impl Service {
    /// What is guarded in that family. A list that has ranges of the other family alone admits nobody: kube-proxy would
    /// take it for no list at all.
    fn guarded(&self, v4: bool) -> Option<Guarded> {
        let of_family = |ip: &IpAddr| ip.is_ipv4() == v4;
        let addresses: BTreeSet<IpAddr> = self.balancer_ips.iter().copied().filter(of_family).collect();
        let ranges = self.source_ranges.iter().flatten().filter(|range| of_family(&range.network));
        let ranges: BTreeSet<Cidr> = ranges.copied().collect();
        let open = self.source_ranges.is_empty() || ranges.iter().any(|range| range.prefix == 0);
        (!open && !addresses.is_empty()).then_some(Guarded { addresses, ranges })
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
                hints: Hints::of(endpoint, node),
            })
        });
        let slice = Slice { ports: ports.collect(), endpoints: endpoints.collect() };
        Some(((meta.namespace.clone()?, service.clone()), slice))
    }
}

impl Slice {
    /// What a pod that a Service selects adds to it, where no EndpointSlices are: in manifests.
    pub fn of_pod(service: &v1::Service, pod: &v1::Pod, node: &str) -> Slice {
        let record = PodRecord::from_api(pod, node);
        let spec = service.spec.as_ref();
        let ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?;
            let target = match &port.target_port {
                None => port_number(port.port)?,
                Some(IntOrString::Int(number)) => port_number(*number)?,
                Some(IntOrString::String(name)) => *record.named_ports.get(&(protocol, name.clone()))?,
            };
            Some((port.name.clone().unwrap_or_default(), protocol, target))
        });
        // On its node's network it has that node's.
        let status = pod.status.as_ref();
        let hosts = status.and_then(|s| s.host_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
        let hosts = hosts.chain(status.and_then(|s| s.host_ip.as_deref())).filter_map(|ip| ip.parse().ok());
        let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let addresses: BTreeSet<IpAddr> =
            if on_host { hosts.collect() } else { record.addresses.iter().copied().collect() };
        let endpoints = addresses.into_iter().map(|address| Endpoint {
            address,
            here: record.local,
            state: State::Ready,
            hints: None,
        });
        Slice { ports: ports.collect(), endpoints: endpoints.collect() }
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

/// All Services of a list as the node of that name programs them if it is in no zone, for those who follow no changes.
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
        let ports = ports(&service, slices.iter(), None);
        ServiceChange { name, ports }
    };
    parsed.map(change).collect()
}

/// The ports of a Service as a node of that zone programs them.
pub fn ports<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    zone: Option<&str>,
) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for port in &service.ports {
        for cluster_ip in &service.cluster_ips {
            let same_family = |ip: &IpAddr| ip.is_ipv4() == cluster_ip.is_ipv4();
            let mut endpoints: Vec<Candidate<'_>> = Vec::new();
            for slice in slices.clone() {
                let named = slice.ports.iter().find(|(name, p, _)| *name == port.name && *p == port.protocol);
                let Some((_, _, target)) = named else { continue };
                let same = slice.endpoints.iter().filter(|endpoint| same_family(&endpoint.address));
                endpoints.extend(same.map(|of| Candidate { to: SocketAddr::new(of.address, *target), of }));
            }
            let all = choose(&endpoints, TrafficPolicy::Cluster, zone);
            ports.push(ServicePort {
                protocol: port.protocol,
                port: port.port,
                cluster_ip: *cluster_ip,
                external_ips: service.external_ips.iter().copied().filter(same_family).collect(),
                guarded: service.guarded(cluster_ip.is_ipv4()),
                node_port: port.node_port,
                affinity: service.affinity,
                inside: choose(&endpoints, service.inside, zone),
                outside: choose(&endpoints, service.outside, zone),
                all,
            });
        }
    }
    ports
}

/// What the Service's health check says on this node; None: it has none.
pub fn health_check<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice>) -> Option<HealthCheck> {
    let port = service.health_check?;
    // The same pod may be in several slices, one for each set of ports.
    let local: BTreeSet<IpAddr> = slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.here && endpoint.state == State::Ready)
        .map(|endpoint| endpoint.address)
        .collect();
    let v4 = local.iter().filter(|address| address.is_ipv4()).count();
    Some(HealthCheck { port, local: LocalEndpoints { v4, v6: local.len() - v4 } })
}

/// Ready endpoints, the preferred ones where there are such; where none is ready, those that end but still answer.
fn choose(candidates: &[Candidate<'_>], policy: TrafficPolicy, zone: Option<&str>) -> Backends {
    // A policy that knows this node alone has nothing to prefer.
    let (here_only, preference) = match policy {
        TrafficPolicy::Local => (true, Preference::None),
        TrafficPolicy::Cluster => (false, Preference::of(candidates, zone)),
    };
    for wanted in [State::Ready, State::Draining] {
        let chosen = candidates.iter().filter(|one| {
            one.of.state == wanted
                && (one.of.here || !here_only)
                && (wanted == State::Draining || preference.takes(one.of))
        });
        match Backends::of(chosen.map(|one| one.to)) {
            Backends::Any(chosen) => return Backends::Any(chosen),
            Backends::Nobody | Backends::NobodyHere => {}
        }
    }
    if candidates.is_empty() { Backends::Nobody } else { Backends::NobodyHere }
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
        let ports = ports(&service, [&slice].into_iter(), None);
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
                let ports = ports(&service(spec), [&slice].into_iter(), None);
                assert_eq!(ports[0].inside, expected, "{policy}: {on_node} here, {elsewhere} elsewhere");
            }
        }
    }

    /// Hints of the endpoints (node-1 in zone a, node-2 in zone a, node-3 in zone b), the zone of node-1, and who of them is
    /// chosen there.
    #[test]
    fn traffic_is_kept_near_where_every_endpoint_says_whom_it_is_for() {
        let near =
            |node: &str, zone: &str| json!({"forNodes": [{"name": node}], "forZones": [{"name": zone}]});
        let zone = |zone: &str| json!({"forZones": [{"name": zone}]});
        let none = Value::Null;
        let cases = [
            ([none.clone(), none.clone(), none.clone()], Some("a"), "1 2 3"),
            ([zone("a"), zone("a"), zone("b")], Some("a"), "1 2"),
            ([zone("a"), zone("a"), zone("b")], Some("c"), "1 2 3"),
            ([zone("a"), zone("a"), zone("b")], None, "1 2 3"),
            ([zone("a"), zone("a"), none.clone()], Some("a"), "1 2 3"),
            ([near("node-1", "a"), near("node-2", "a"), near("node-3", "b")], Some("a"), "1"),
            ([near("node-1", "a"), near("node-2", "a"), near("node-3", "b")], None, "1"),
            // Nobody on this node: its zone.
            ([near("node-4", "a"), near("node-2", "a"), near("node-3", "b")], Some("a"), "1 2"),
        ];
        for (hints, own, expected) in cases {
            let endpoints: Vec<Value> = hints
                .iter()
                .enumerate()
                .map(|(at, hints)| {
                    let (address, node) = (format!("10.244.0.{}", at + 1), format!("node-{}", at + 1));
                    json!({"addresses": [address], "nodeName": node, "hints": hints})
                })
                .collect();
            let slice = slice(json!([{"name": "", "port": 80}]), json!(endpoints));
            let chosen = |policy: &str| -> Vec<String> {
                let spec = json!({"clusterIP": "10.96.0.7", "internalTrafficPolicy": policy, "ports": [{"port": 80}]});
                let ports = ports(&service(spec), [&slice].into_iter(), own);
                ports[0].inside.iter().map(|to| to.ip().to_string().split_off(9)).collect()
            };
            assert_eq!(chosen("Cluster").join(" "), expected, "{hints:?} in {own:?}");
            assert_eq!(chosen("Local").join(" "), "1", "{hints:?}: a policy Local is stronger");
        }
    }

    #[test]
    fn a_health_check_counts_ready_pods_of_this_node() {
        let spec = |policy: &str| {
            json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalTrafficPolicy": policy,
                   "healthCheckNodePort": 30999, "ports": [{"port": 80}]})
        };
        let going = json!({"ready": false, "serving": true, "terminating": true});
        let endpoints = json!([
            {"addresses": ["10.244.1.2"], "nodeName": "node-1"},
            {"addresses": ["10.244.1.3"], "nodeName": "node-1"},
            {"addresses": ["10.244.1.4"], "nodeName": "node-1", "conditions": going},
            {"addresses": ["10.244.2.2"], "nodeName": "node-2"},
        ]);
        let slices = ["a", "b"].map(|name| slice(json!([{"name": name, "port": 80}]), endpoints.clone()));
        let local = LocalEndpoints { v4: 2, v6: 0 };
        let expected = Some(HealthCheck { port: 30999, local });
        assert_eq!(health_check(&service(spec("Local")), slices.iter()), expected);
        assert_eq!(health_check(&service(spec("Cluster")), slices.iter()), None);
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
        let ports = ports(&service, [].into_iter(), None);
        let expected: BTreeSet<IpAddr> = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap()).into();
        assert_eq!((&ports[0].external_ips, ports[0].affinity), (&expected, Some(10_800)));
    }

    /// Ranges, and who is admitted to the balancer's addresses in each family; None: anybody.
    #[test]
    fn source_ranges_are_of_a_family() {
        let cases = [
            (json!([]), None, None),
            (json!([" 198.51.100.7/24 "]), Some("198.51.100.0/24"), Some("")),
            (json!(["198.51.100.0/24", "2001:db8:1::/48"]), Some("198.51.100.0/24"), Some("2001:db8:1::/48")),
            (json!(["0.0.0.0/0", "198.51.100.0/24"]), None, Some("")),
            (json!(["::/0"]), Some(""), None),
            (json!(["what is this"]), Some(""), Some("")),
        ];
        for (ranges, v4, v6) in cases {
            let object = json!({
                "metadata": {"name": "h", "namespace": "foo"},
                "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7", "fd00:cf:96::7"], "externalIPs": ["192.0.2.9"],
                         "loadBalancerSourceRanges": ranges, "ports": [{"port": 1}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "2001:db8::2"}]}},
            });
            let service = Service::from_api(&serde_json::from_value(object).unwrap()).1.unwrap();
            let ports = ports(&service, [].into_iter(), None);
            for (port, expected, address) in [(&ports[0], v4, "192.0.2.2"), (&ports[1], v6, "2001:db8::2")] {
                let guarded = port.guarded.as_ref().map(|guarded| {
                    assert_eq!(guarded.addresses, BTreeSet::from([address.parse().unwrap()]));
                    guarded.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                });
                assert_eq!(guarded.as_deref(), expected, "{ranges}");
            }
            assert_eq!(ports[0].external_ips.len(), 2, "externalIPs are no balancer's");
        }
    }
}
