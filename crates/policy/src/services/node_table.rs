//! What one node does with a packet that comes to it: its maps of Services and host ports, asked in the order of its rules
//! (`node::net::table`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Backends, HostPort, Service, ServiceName, ServicePort, Slice, ports};
use crate::network_policy::PodRecord;
use crate::network_policy::ir::Protocol;
use crate::selector::Selector;

/// What a node translates.
#[derive(Debug)]
pub struct NodeTable {
    /// The node's own addresses.
    own: Vec<IpAddr>,
    addresses: BTreeMap<(IpAddr, Protocol, u16), Entry>,
    /// By whether it is IPv4.
    node_ports: BTreeMap<(bool, Protocol, u16), Entry>,
    host_ports: Vec<(HostPort, IpAddr, By)>,
}

#[derive(Debug)]
struct Entry {
    by: By,
    port: ServicePort,
}

/// Who leads a packet on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Service(ServiceName, Front),
    /// A pod of the node, by namespace and name.
    HostPort(String, String),
}

/// What of a Service a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    ClusterIp,
    /// One of `externalIPs`, or what a load balancer gave.
    External,
    NodePort,
}

/// The first of a connection, as it comes to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub protocol: Protocol,
    pub source: IpAddr,
    pub to: SocketAddr,
    /// By the node's uplink: neither from the node itself nor from one of its pods.
    pub from_outside: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as it is.
    Untranslated,
    /// To one of these.
    Led(By, Vec<SocketAddr>),
    Refused(By),
    Dropped(By, Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// `loadBalancerSourceRanges` has ranges, and the source is in none.
    NotAdmitted,
    /// A traffic policy is `Local`, and there are endpoints, but on other nodes.
    NobodyHere,
}

impl NodeTable {
    /// Of the node of that name, zone and addresses. Where a Service has no EndpointSlices, as in manifests, its endpoints are
    /// the pods that it selects.
    pub fn new(
        (node, zone, own): (&str, Option<&str>, Vec<IpAddr>),
        services: &[ApiService],
        slices: &[EndpointSlice],
        pods: &[Pod],
    ) -> NodeTable {
        let mut of: BTreeMap<ServiceName, Vec<Slice>> = BTreeMap::new();
        for (name, slice) in slices.iter().filter_map(|slice| Slice::from_api(slice, node)) {
            of.entry(name).or_default().push(slice);
        }
        let mut table = NodeTable {
            own,
            addresses: BTreeMap::new(),
            node_ports: BTreeMap::new(),
            host_ports: pods.iter().flat_map(|pod| host_ports(pod, node)).collect(),
        };
        let mut parsed: BTreeMap<ServiceName, (&ApiService, Service)> = BTreeMap::new();
        for service in services {
            if let (Some(name), Some(of_it)) = Service::from_api(service) {
                parsed.insert(name, (service, of_it));
            }
        }
        // The first by name has an address that two name.
        for (name, (object, service)) in parsed {
            let slices = of.remove(&name).unwrap_or_else(|| selected(object, pods, node));
            for port in ports(&service, slices.iter(), zone) {
                table.add(&name, &port);
            }
        }
        table
    }

    fn add(&mut self, name: &ServiceName, port: &ServicePort) {
        let entry = |front| Entry { by: By::Service(name.clone(), front), port: port.clone() };
        let at = |address| (address, port.protocol, port.port);
        self.addresses.entry(at(port.cluster_ip)).or_insert_with(|| entry(Front::ClusterIp));
        for address in &port.external_ips {
            self.addresses.entry(at(*address)).or_insert_with(|| entry(Front::External));
        }
        if let Some(number) = port.node_port {
            let at = (port.cluster_ip.is_ipv4(), port.protocol, number);
            self.node_ports.entry(at).or_insert_with(|| entry(Front::NodePort));
        }
    }

    pub fn fate(&self, packet: &Packet) -> Fate {
        let to = packet.to;
        if let Some(entry) = self.addresses.get(&(to.ip(), packet.protocol, to.port())) {
            return entry.fate(packet);
        }
        let same = |port: &HostPort| port.protocol == packet.protocol && port.host_port == to.port();
        let family = |ip: &IpAddr| ip.is_ipv4() == to.is_ipv4();
        let led = |(port, pod, by): &(HostPort, IpAddr, By)| {
            Fate::Led(by.clone(), vec![SocketAddr::new(*pod, port.container_port)])
        };
        let of_address = self
            .host_ports
            .iter()
            .find(|(port, pod, _)| same(port) && family(pod) && port.host_ip == Some(to.ip()));
        if let Some(found) = of_address {
            return led(found);
        }
        if !self.own.contains(&to.ip()) {
            return Fate::Untranslated;
        }
        let every = |port: &HostPort| port.host_ip.is_none_or(|ip| ip.is_unspecified() && family(&ip));
        if let Some(found) =
            self.host_ports.iter().find(|(port, pod, _)| same(port) && family(pod) && every(port))
        {
            return led(found);
        }
        match self.node_ports.get(&(to.is_ipv4(), packet.protocol, to.port())) {
            Some(entry) => entry.fate(packet),
            None => Fate::Untranslated,
        }
    }
}

impl Entry {
    fn fate(&self, packet: &Packet) -> Fate {
        let guarded = self.port.guarded.as_ref().filter(|guarded| {
            matches!(self.by, By::Service(_, Front::External)) && guarded.addresses.contains(&packet.to.ip())
        });
        if guarded.is_some_and(|guarded| !guarded.admits(&packet.source)) {
            return Fate::Dropped(self.by.clone(), Why::NotAdmitted);
        }
        let backends = match &self.by {
            By::Service(_, Front::ClusterIp) => &self.port.inside,
            _ if packet.from_outside => &self.port.outside,
            _ => &self.port.all,
        };
        match backends {
            Backends::Any(endpoints) => Fate::Led(self.by.clone(), endpoints.iter().copied().collect()),
            Backends::Nobody => Fate::Refused(self.by.clone()),
            Backends::NobodyHere => Fate::Dropped(self.by.clone(), Why::NobodyHere),
        }
    }
}

fn host_ports(pod: &Pod, node: &str) -> Vec<(HostPort, IpAddr, By)> {
    let record = PodRecord::from_api(pod, node);
    if !record.local {
        return Vec::new();
    }
    let ports = HostPort::of(pod).into_iter();
    let each = ports.flat_map(|port| {
        let by = By::HostPort(record.namespace.clone(), record.name.clone());
        record.addresses.iter().map(move |address| (port.clone(), *address, by.clone()))
    });
    each.collect()
}

fn selected(service: &ApiService, pods: &[Pod], node: &str) -> Vec<Slice> {
    selected_pods(service, pods).map(|pod| Slice::of_pod(service, pod, node)).collect()
}

/// Who answers for a Service where nobody keeps EndpointSlices.
pub fn selected_pods<'a>(service: &ApiService, pods: &'a [Pod]) -> impl Iterator<Item = &'a Pod> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.filter(|selector| !selector.is_empty()).map(Selector::equal);
    let namespace = service.metadata.namespace.clone();
    pods.iter().filter(move |pod| {
        pod.metadata.namespace == namespace
            && pod
                .metadata
                .labels
                .as_ref()
                .is_some_and(|labels| selector.as_ref().is_some_and(|s| s.matches(labels)))
    })
}
