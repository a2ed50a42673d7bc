//! What one port of a Service brings into the table, once its lists have numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use kernel::nft::{Chain, Data, Elements, Set};
use policy::network_policy::ir::{Cidr, Family, Protocol};

use super::layout::{self, Map, family_of};
use super::{Backends, ServiceName, ServicePort, sources};

/// How many endpoints are chosen from.
pub type Kind = (Family, Protocol, usize);
/// The length of a prefix that some range has.
pub type Length = (Family, u8);

/// A port with the numbers of its lists.
#[derive(Clone, Debug)]
pub struct Placed {
    pub port: ServicePort,
    pub lists: Vec<List>,
    /// The number of the list of sources, of a port that is guarded.
    pub sources: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    pub number: u32,
    pub endpoints: BTreeSet<SocketAddr>,
}

/// What an element of [`Services`] maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// There is no element: the first by name that has something to say of the key says so.
    Absent,
    Nothing,
    Mark(u32),
    Endpoint(SocketAddr),
}

/// What a port brings into the table.
#[derive(Debug, Default)]
pub struct Part {
    pub elements: Vec<(Map, Vec<u8>, Value)>,
    pub kinds: Vec<Kind>,
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
    pub sticky: Elements,
    pub sources: Vec<(Length, Vec<u8>)>,
}

impl Value {
    pub fn data(self) -> Data {
        match self {
            Value::Absent | Value::Nothing => Data::Nothing,
            Value::Mark(mark) => Data::Value(mark.to_ne_bytes().to_vec()),
            Value::Endpoint(endpoint) => Data::Value(layout::endpoint_data(endpoint)),
        }
    }
}

/// What a port of that Service brings.
pub fn part(name: &ServiceName, placed: &Placed) -> Part {
    let Placed { port, lists, sources } = placed;
    let mut part = Part::default();
    let family = family_of(port.cluster_ip);
    let who = format!("{}/{} {} {} {}", name.0, name.1, port.protocol.name(), port.port, port.cluster_ip);
    for (at, list) in lists.iter().enumerate() {
        let endpoints = || list.endpoints.iter().take(layout::MOST_ENDPOINTS);
        let mark = mark(port, list);
        match port.affinity {
            None => {
                part.kinds.push((family, port.protocol, endpoints().count()));
                part.elements.extend(endpoints().zip(0..).map(|(endpoint, number)| {
                    (Map::Endpoints, layout::endpoint_key(mark, number), Value::Endpoint(*endpoint))
                }));
            }
            Some(seconds) => {
                let mut chains = Vec::new();
                for endpoint in endpoints() {
                    let (name, chain, set) = layout::sticky_endpoint(&who, port.protocol, *endpoint, seconds);
                    part.chains.insert(name.clone(), chain);
                    part.sets.insert(name.clone(), set);
                    chains.push(name);
                }
                let (name, chain, (key, data)) =
                    layout::sticky_list(family, &who, &at.to_string(), mark, &chains);
                part.chains.insert(name, chain);
                part.sticky.insert((key, false), data);
            }
        }
    }
    let guarded = || port.guarded.as_ref().zip(*sources);
    if let Some((guarded, number)) = guarded() {
        let of = |range: &Cidr| ((family, range.prefix), sources::key(number, range));
        part.sources = guarded.ranges.iter().map(of).collect();
    }
    let mark_of = |backends: &Backends| {
        let Backends::Any(endpoints) = backends else { return None };
        lists.iter().find(|list| list.endpoints == *endpoints).map(|list| Value::Mark(mark(port, list)))
    };
    let mut add = |map: Map, key: Vec<u8>, value: Value| part.elements.push((map, key, value));
    let by_address = |address| layout::address_key(address, port.protocol, port.port);
    let cluster = || by_address(port.cluster_ip);
    match (&port.inside, mark_of(&port.inside)) {
        (_, Some(mark)) => add(Map::Services, cluster(), mark),
        (Backends::NobodyHere, None) => add(Map::Dropped, cluster(), Value::Nothing),
        // The whole range of cluster addresses is refused where it is not translated.
        (_, None) => {}
    }
    let differs = port.outside != port.all;
    for address in &port.external_ips {
        // In each map something is said, so that another Service of that address has a say in none.
        let mut say =
            |map, value: Option<Value>| add(map, by_address(*address), value.unwrap_or(Value::Absent));
        let list = guarded().filter(|(guarded, _)| guarded.addresses.contains(address));
        say(Map::Sources, list.map(|(_, number)| Value::Mark(number)));
        let (all, outside) = (mark_of(&port.all), mark_of(&port.outside));
        say(Map::Services, all);
        say(Map::Refused, all.is_none().then_some(Value::Nothing));
        say(Map::Outside, outside.filter(|_| differs));
        say(Map::DroppedOutside, (differs && outside.is_none()).then_some(Value::Nothing));
    }
    if let Some(number) = port.node_port {
        let key = || layout::port_key(port.protocol, number);
        match mark_of(&port.all) {
            Some(mark) => add(Map::NodePorts, key(), mark),
            None => add(Map::RefusedNodePorts, key(), Value::Nothing),
        }
        if differs {
            match mark_of(&port.outside) {
                Some(mark) => add(Map::OutsideNodePorts, key(), mark),
                None => add(Map::DroppedNodePorts, key(), Value::Nothing),
            }
        }
    }
    part
}

fn mark(port: &ServicePort, list: &List) -> u32 {
    match port.affinity {
        None => {
            let endpoints = list.endpoints.len().min(layout::MOST_ENDPOINTS);
            layout::spread_mark(list.number, port.protocol, endpoints)
        }
        Some(_) => layout::sticky_mark(list.number),
    }
}
