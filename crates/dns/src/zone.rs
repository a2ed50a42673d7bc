//! What names of the cluster lead to: an index of Services, EndpointSlices, Namespaces and pods, looked up by the labels of
//! a name (Kubernetes DNS-Based Service Discovery, version 1.1.0). It grows with the cluster and with nothing else.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    config::Range,
    objects::{Endpoint, EndpointSlice, Namespace, Pod, Port, Service},
};

/// The version of the specification that the records follow.
pub const SCHEMA_VERSION: &str = "1.1.0";

/// What is watched, each with its own first list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Namespaces,
    Services,
    Slices,
    Pods,
}

/// A namespace and a name in it.
pub type Key = (String, String);

#[derive(Debug)]
pub struct Zone {
    /// The labels of the cluster's domain, lower case.
    pub domain: Vec<String>,
    ranges: Vec<Range>,
    namespaces: HashMap<String, Names>,
    /// Services by their cluster addresses.
    by_address: HashMap<IpAddr, BTreeSet<Key>>,
    /// Headless Services by the addresses of their endpoints, and how often each has it.
    by_endpoint: HashMap<IpAddr, HashMap<Key, usize>>,
    synced: [bool; 4],
    whole: std::rc::Rc<tokio::sync::Notify>,
    /// Grows with every change: the serial number of the zone.
    pub serial: u32,
}

/// What is known of one namespace.
#[derive(Debug, Default)]
struct Names {
    exists: bool,
    services: HashMap<String, Entry>,
    /// Addresses by pod, and pods by address.
    pods: HashMap<String, Vec<IpAddr>>,
    pod_addresses: HashMap<IpAddr, HashSet<String>>,
}

impl Names {
    fn is_empty(&self) -> bool {
        !self.exists && self.services.is_empty() && self.pods.is_empty()
    }
}

/// A Service and its slices, which may come in any order.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Target>,
    slices: HashMap<String, Slice>,
}

#[derive(Debug)]
struct Target {
    addressing: Addressing,
    ports: Vec<Port>,
    publish_not_ready: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Addressing {
    Cluster(Vec<IpAddr>),
    Headless,
    External(String),
}

#[derive(Debug)]
struct Slice {
    endpoints: Vec<Known>,
    ports: Vec<Port>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    /// The name within the Service: its own, else the address with dashes.
    name: String,
    ready: bool,
}

/// What a name leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such name.
    Nothing,
    /// It exists, with nothing at it: names lie below it.
    Empty,
    /// The zone itself.
    Apex,
    Addresses(Vec<IpAddr>),
    /// A Service: its addresses, and its ports for who asks for SRV.
    Service {
        addresses: Vec<IpAddr>,
        ports: Vec<ServicePort>,
    },
    /// Ports alone: a name with `_port._proto`.
    Ports(Vec<ServicePort>),
    /// Another name takes its place.
    Alias(String),
    Text(&'static str),
}

/// A port and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub port: u16,
    /// The endpoint's name below the Service's; None: the Service itself.
    pub endpoint: Option<String>,
    pub addresses: Vec<IpAddr>,
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// `10.0.0.1` as the label `10-0-0-1`.
fn dashed(address: &str) -> String {
    address.replace(['.', ':'], "-")
}

impl Zone {
    pub fn new(domain: &str, ranges: Vec<Range>) -> Zone {
        Zone {
            domain: domain.trim_matches('.').to_lowercase().split('.').map(str::to_owned).collect(),
            ranges,
            namespaces: HashMap::new(),
            by_address: HashMap::new(),
            by_endpoint: HashMap::new(),
            synced: [false; 4],
            whole: std::rc::Rc::default(),
            serial: 1,
        }
    }

    /// Every kind was listed: what is not here does not exist.
    pub fn is_synced(&self) -> bool {
        self.synced.iter().all(|synced| *synced)
    }

    pub fn set_synced(&mut self, kind: Kind) {
        self.synced[kind as usize] = true;
        if self.is_synced() {
            self.whole.notify_waiters();
        }
    }

    /// Tells when it becomes so.
    pub fn whole(&self) -> std::rc::Rc<tokio::sync::Notify> {
        self.whole.clone()
    }

    /// Whether the cluster decides about this address, so that nobody else is asked for its name.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    fn names(&mut self, namespace: &str) -> &mut Names {
        self.serial = self.serial.wrapping_add(1);
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.to_owned(), Names::default());
        }
        self.namespaces.entry(namespace.to_owned()).or_default()
    }

    fn tidy(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(Names::is_empty) {
            self.namespaces.remove(namespace);
        }
    }

    pub fn set_namespace(&mut self, namespace: &Namespace) {
        self.names(&namespace.metadata.name).exists = true;
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.names(name).exists = false;
        self.tidy(name);
    }

    pub fn set_service(&mut self, service: &Service) {
        let meta = &service.metadata;
        self.remove_service(&meta.namespace, &meta.name);
        let spec = &service.spec;
        let mut cluster = addresses(&spec.cluster_ips);
        if cluster.is_empty() {
            cluster.extend(spec.cluster_ip.parse::<IpAddr>());
        }
        let key = (meta.namespace.clone(), meta.name.clone());
        for address in &cluster {
            self.by_address.entry(*address).or_default().insert(key.clone());
        }
        let addressing = match spec.kind.as_str() {
            "ExternalName" => Addressing::External(spec.external_name.clone()),
            _ if cluster.is_empty() => Addressing::Headless,
            _ => Addressing::Cluster(cluster),
        };
        let target = Target {
            addressing,
            ports: spec.ports.clone(),
            publish_not_ready: spec.publish_not_ready_addresses,
        };
        self.names(&meta.namespace).services.entry(meta.name.clone()).or_default().service = Some(target);
    }

    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let names = self.names(namespace);
        let Some(entry) = names.services.get_mut(name) else { return self.tidy(namespace) };
        let old = entry.service.take();
        if entry.slices.is_empty() {
            names.services.remove(name);
        }
        if let Some(Target { addressing: Addressing::Cluster(addresses), .. }) = old {
            let key = (namespace.to_owned(), name.to_owned());
            for address in addresses {
                if let Some(keys) = self.by_address.get_mut(&address) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.by_address.remove(&address);
                    }
                }
            }
        }
        self.tidy(namespace);
    }

    /// An EndpointSlice; one that has moved to another Service leaves the first.
    pub fn set_slice(&mut self, slice: &EndpointSlice) {
        let (namespace, service) = (&slice.metadata.namespace, &slice.metadata.labels.service);
        self.remove_slice(namespace, &slice.metadata.name);
        if service.is_empty() {
            return;
        }
        let endpoints: Vec<Known> = slice.endpoints.iter().flatten().filter_map(known).collect();
        let key = (namespace.clone(), service.clone());
        for address in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            *self.by_endpoint.entry(*address).or_default().entry(key.clone()).or_default() += 1;
        }
        let slice_of = Slice { endpoints, ports: slice.ports.clone().unwrap_or_default() };
        let entry = self.names(namespace).services.entry(service.clone()).or_default();
        entry.slices.insert(slice.metadata.name.clone(), slice_of);
    }

    pub fn remove_slice(&mut self, namespace: &str, slice: &str) {
        let names = self.names(namespace);
        let holder = names.services.iter_mut().find(|(_, entry)| entry.slices.contains_key(slice));
        let Some((service, entry)) = holder else { return self.tidy(namespace) };
        let key = (namespace.to_owned(), service.clone());
        let old = entry.slices.remove(slice);
        if entry.slices.is_empty() && entry.service.is_none() {
            names.services.remove(&key.1);
        }
        for address in old.iter().flat_map(|slice| &slice.endpoints).flat_map(|one| &one.addresses) {
            let Some(keys) = self.by_endpoint.get_mut(address) else { continue };
            if let Some(count) = keys.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    keys.remove(&key);
                }
            }
            if keys.is_empty() {
                self.by_endpoint.remove(address);
            }
        }
        self.tidy(namespace);
    }

    pub fn set_pod(&mut self, pod: &Pod) {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        self.remove_pod(namespace, name);
        let over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        let mut ips: Vec<IpAddr> = pod.status.pod_ips.iter().map(|one| one.ip).collect();
        if ips.is_empty() {
            ips.extend(pod.status.pod_ip);
        }
        if over || ips.is_empty() {
            return;
        }
        let names = self.names(namespace);
        for ip in &ips {
            names.pod_addresses.entry(*ip).or_default().insert(name.clone());
        }
        names.pods.insert(name.clone(), ips);
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let names = self.names(namespace);
        for ip in names.pods.remove(name).into_iter().flatten() {
            if let Some(pods) = names.pod_addresses.get_mut(&ip) {
                pods.remove(name);
                if pods.is_empty() {
                    names.pod_addresses.remove(&ip);
                }
            }
        }
        self.tidy(namespace);
    }

    /// The keys of a kind that are known: what a new list does not name is gone.
    pub fn keys(&self, kind: Kind) -> Vec<Key> {
        let mut keys = Vec::new();
        for (namespace, names) in &self.namespaces {
            let mut add = |name: &String| keys.push((namespace.clone(), name.clone()));
            match kind {
                Kind::Namespaces if names.exists => keys.push((String::new(), namespace.clone())),
                Kind::Namespaces => {}
                Kind::Services => {
                    let known = names.services.iter().filter(|(_, entry)| entry.service.is_some());
                    known.for_each(|(name, _)| add(name));
                }
                Kind::Slices => names.services.values().flat_map(|entry| entry.slices.keys()).for_each(add),
                Kind::Pods => names.pods.keys().for_each(add),
            }
        }
        keys
    }

    pub fn remove(&mut self, kind: Kind, (namespace, name): &Key) {
        match kind {
            Kind::Namespaces => self.remove_namespace(name),
            Kind::Services => self.remove_service(namespace, name),
            Kind::Slices => self.remove_slice(namespace, name),
            Kind::Pods => self.remove_pod(namespace, name),
        }
    }

    /// What the name with these labels leads to: lower case, from the left, without the cluster's domain.
    pub fn find(&self, labels: &[&str]) -> Found {
        match labels {
            [] => Found::Apex,
            ["dns-version"] => Found::Text(SCHEMA_VERSION),
            // The server itself, as the zone's SOA record names it.
            ["ns", "dns"] => match self.find(&["kube-dns", "kube-system", "svc"]) {
                Found::Service { addresses, .. } => Found::Addresses(addresses),
                _ => Found::Nothing,
            },
            ["svc"] | ["pod"] | ["dns"] => Found::Empty,
            [namespace, "svc" | "pod"] => match self.namespaces.get(*namespace) {
                Some(names) if names.exists => Found::Empty,
                _ => Found::Nothing,
            },
            [address, namespace, "pod"] => self.pod(address, namespace),
            [service, namespace, "svc"] => self.with(namespace, service, |entry, target| entry.whole(target)),
            [label, service, namespace, "svc"] => self.with(namespace, service, |entry, target| {
                match label.strip_prefix('_') {
                    // No record, but the ports below it.
                    Some(protocol) if !entry.ports(target, None, Some(protocol)).is_empty() => Found::Empty,
                    Some(_) => Found::Nothing,
                    None => entry.endpoint(target, label),
                }
            }),
            [port, protocol, service, namespace, "svc"] => {
                let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_'))
                else {
                    return Found::Nothing;
                };
                self.with(namespace, service, |entry, target| {
                    match entry.ports(target, Some(port), Some(protocol)) {
                        ports if ports.is_empty() => Found::Nothing,
                        ports => Found::Ports(ports),
                    }
                })
            }
            _ => Found::Nothing,
        }
    }

    fn with(&self, namespace: &str, service: &str, then: impl FnOnce(&Entry, &Target) -> Found) -> Found {
        let entry = self.namespaces.get(namespace).and_then(|names| names.services.get(service));
        match entry.and_then(|entry| Some((entry, entry.service.as_ref()?))) {
            Some((entry, target)) => then(entry, target),
            None => Found::Nothing,
        }
    }

    /// `10-0-0-1.ns.pod`: only of a pod that is there, so that nobody gets a name under the cluster's domain for an address
    /// of their choice.
    fn pod(&self, label: &str, namespace: &str) -> Found {
        let Some(names) = self.namespaces.get(namespace) else { return Found::Nothing };
        let address = label.replace('-', ".").parse().or_else(|_| label.replace('-', ":").parse::<IpAddr>());
        match address {
            Ok(address) if names.pod_addresses.contains_key(&address) => Found::Addresses(vec![address]),
            _ => Found::Nothing,
        }
    }

    /// The names of an address, as labels below the cluster's domain.
    pub fn reverse(&self, address: IpAddr) -> Vec<Vec<String>> {
        let below = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
        if let Some(keys) = self.by_address.get(&address) {
            return keys.iter().map(|(namespace, name)| below(&[name, namespace, "svc"])).collect();
        }
        let mut found = Vec::new();
        for (namespace, name) in self.by_endpoint.get(&address).into_iter().flat_map(HashMap::keys) {
            let entry = self.namespaces.get(namespace).and_then(|names| names.services.get(name));
            let Some((entry, target)) = entry.and_then(|entry| Some((entry, entry.service.as_ref()?))) else {
                continue;
            };
            if target.addressing == Addressing::Headless {
                let endpoints = entry.endpoints(target).filter(|(_, one)| one.addresses.contains(&address));
                found.extend(endpoints.map(|(_, one)| below(&[&one.name, name, namespace, "svc"])));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

fn known(endpoint: &Endpoint) -> Option<Known> {
    let hostname = endpoint.hostname.as_ref().filter(|name| !name.is_empty());
    let name = hostname.cloned().or_else(|| endpoint.addresses.first().map(|address| dashed(address)))?;
    Some(Known {
        addresses: addresses(&endpoint.addresses),
        name: name.to_lowercase(),
        ready: endpoint.conditions.ready.unwrap_or(true),
    })
}

impl Entry {
    /// Endpoints to be shown, with their slice.
    fn endpoints<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = (&'a Slice, &'a Known)> {
        let all = self.slices.values().flat_map(|slice| slice.endpoints.iter().map(move |one| (slice, one)));
        all.filter(|(_, one)| one.ready || target.publish_not_ready)
    }

    fn whole(&self, target: &Target) -> Found {
        let addresses = match &target.addressing {
            Addressing::External(name) => return Found::Alias(name.clone()),
            Addressing::Cluster(addresses) => addresses.clone(),
            Addressing::Headless => {
                let all: BTreeSet<IpAddr> =
                    self.endpoints(target).flat_map(|(_, one)| one.addresses.iter().copied()).collect();
                all.into_iter().collect()
            }
        };
        // A headless Service without endpoints is no name (specification, 2.4.1).
        if addresses.is_empty() {
            return Found::Nothing;
        }
        Found::Service { addresses, ports: self.ports(target, None, None) }
    }

    fn endpoint(&self, target: &Target, name: &str) -> Found {
        if matches!(target.addressing, Addressing::External(_)) {
            return Found::Nothing;
        }
        let found: BTreeSet<IpAddr> = self
            .endpoints(target)
            .filter(|(_, one)| one.name == name)
            .flat_map(|(_, one)| one.addresses.iter().copied())
            .collect();
        if found.is_empty() { Found::Nothing } else { Found::Addresses(found.into_iter().collect()) }
    }

    /// The ports of that name and protocol (None: of any), of the Service, or of each endpoint of a headless one. A port
    /// without a name is found only by who asks for any.
    fn ports(&self, target: &Target, name: Option<&str>, protocol: Option<&str>) -> Vec<ServicePort> {
        let wanted = |port: &&Port| {
            let own = port.name.as_deref().unwrap_or_default();
            name.is_none_or(|name| !own.is_empty() && own.eq_ignore_ascii_case(name))
                && protocol.is_none_or(|protocol| {
                    (name.is_some() || !own.is_empty())
                        && port.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol)
                })
        };
        match &target.addressing {
            Addressing::External(_) => Vec::new(),
            Addressing::Cluster(addresses) => target
                .ports
                .iter()
                .filter(wanted)
                .filter_map(|port| {
                    Some(ServicePort { port: port.port?, endpoint: None, addresses: addresses.clone() })
                })
                .collect(),
            Addressing::Headless => {
                let mut found: Vec<ServicePort> = Vec::new();
                for (slice, one) in self.endpoints(target) {
                    for number in slice.ports.iter().filter(wanted).filter_map(|port| port.port) {
                        // Two slices of two families have the same endpoint.
                        let same = found.iter_mut().find(|known| {
                            known.port == number && known.endpoint.as_deref() == Some(&one.name)
                        });
                        match same {
                            Some(known) => known.addresses.extend(&one.addresses),
                            None => found.push(ServicePort {
                                port: number,
                                endpoint: Some(one.name.clone()),
                                addresses: one.addresses.clone(),
                            }),
                        }
                    }
                }
                found.sort_by(|a, b| (&a.endpoint, a.port).cmp(&(&b.endpoint, b.port)));
                found
            }
        }
    }
}
