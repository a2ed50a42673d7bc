//! How Services lie in the node's table.
//!
//! ```text
//! (address, protocol, port) → @services          → mark: the number of a list of endpoints, and how it is chosen from
//!           (protocol, port) → @nodeports
//! mark & 0x7fff             → @service-kinds     → chain "tcp-3": one of three, or "sticky"
//! (mark, random number)     → @service-endpoints → address and port
//! ```
//!
//! All that grows with the number of Services are maps to data: a chain per Service, or a verdict per Service, would make
//! the kernel look through all of them at every change of any rule. There is a chain per *number* of endpoints in use.
//! Only Services with session affinity have chains and sets of their own, since a client's choice is remembered per endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel::nft::{Chain, Data, DataType, Elements, Rule, Set, SetType, Table, Verdict};
use kernel::route::Ip;
use policy::network_policy::ir::{Family, Protocol};

use super::super::exprs::*;
use super::super::table::{REFUSE, UPLINK, of_family, port_part};
use super::sources;

/// The maps and sets that belong to Services. A Service's elements are in these alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// (address, protocol, port) → mark.
    Services,
    /// (protocol, port) of every address of the node → mark.
    NodePorts,
    /// The same, for clients from outside under `externalTrafficPolicy: Local`; they come first.
    Outside,
    OutsideNodePorts,
    /// (mark, number) → address and port.
    Endpoints,
    /// (address, protocol, port) that only some sources may use → the number of their list (see [`super::sources`]).
    Sources,
    /// (address, protocol, port) without endpoints that are outside the range of cluster addresses: refused.
    Refused,
    RefusedNodePorts,
    /// Endpoints on other nodes only, under a policy `Local`: dropped.
    Dropped,
    /// The same, for clients from outside.
    DroppedOutside,
    DroppedNodePorts,
    /// Low bits of the mark → the chain that chooses.
    Kinds,
    /// The mark of a list with affinity → its chain.
    Sticky,
}

/// Of a mark: how the endpoint is chosen. The number of the list is above them.
const KIND_BITS: u32 = 15;
const KIND_MASK: u32 = (1 << KIND_BITS) - 1;
/// 0: the list has a chain of its own.
const STICKY: u32 = 0;
/// The chain that leads to them.
const STICKY_CHAIN: &str = "sticky";
/// Chains and sets of Services with affinity are named so, and no others.
const STICKY_PREFIX: &str = "sticky-";

/// More endpoints of one port than pods fit into 32 nodes.
pub const MOST_ENDPOINTS: usize = (1 << 13) - 1;
/// Lists there may be at a time.
pub const MOST_LISTS: u32 = 1 << (32 - KIND_BITS);

impl Map {
    pub const ALL: [Map; 13] = [
        Map::Services,
        Map::NodePorts,
        Map::Outside,
        Map::OutsideNodePorts,
        Map::Endpoints,
        Map::Sources,
        Map::Refused,
        Map::RefusedNodePorts,
        Map::Dropped,
        Map::DroppedOutside,
        Map::DroppedNodePorts,
        Map::Kinds,
        Map::Sticky,
    ];

    /// The name of the map of that family: IPv6's have a 6 behind it.
    pub fn name(self, family: Family) -> String {
        match family {
            Family::V4 => self.of_family::<Ipv4Addr>(),
            Family::V6 => self.of_family::<Ipv6Addr>(),
        }
    }

    pub(super) fn of_family<A: Ip>(self) -> String {
        of_family::<A>(self.base_name())
    }

    fn base_name(self) -> &'static str {
        match self {
            Map::Services => "services",
            Map::NodePorts => "nodeports",
            Map::Outside => "services-outside",
            Map::OutsideNodePorts => "nodeports-outside",
            Map::Endpoints => "service-endpoints",
            Map::Sources => "services-sources",
            Map::Refused => "services-refused",
            Map::RefusedNodePorts => "nodeports-refused",
            Map::Dropped => "services-dropped",
            Map::DroppedOutside => "services-outside-dropped",
            Map::DroppedNodePorts => "nodeports-outside-dropped",
            Map::Kinds => "service-kinds",
            Map::Sticky => "service-sticky",
        }
    }

    fn of(self, family: Family) -> SetType {
        let address = match family {
            Family::V4 => DataType::Ipv4Addr,
            Family::V6 => DataType::Ipv6Addr,
        };
        let by_address = [address, DataType::InetProto, DataType::InetService];
        let by_port = [DataType::InetProto, DataType::InetService];
        match self {
            Map::Services | Map::Outside | Map::Sources => SetType::map(&by_address, &[DataType::Mark]),
            Map::NodePorts | Map::OutsideNodePorts => SetType::map(&by_port, &[DataType::Mark]),
            Map::Endpoints => {
                SetType::map(&[DataType::Mark, DataType::Integer], &[address, DataType::InetService])
            }
            Map::Refused | Map::Dropped | Map::DroppedOutside => SetType::set(&by_address),
            Map::RefusedNodePorts | Map::DroppedNodePorts => SetType::set(&by_port),
            Map::Kinds | Map::Sticky => SetType::verdict_map(&[DataType::Mark]),
        }
    }

    pub(super) fn set(self, family: Family, elements: Elements) -> Set {
        Set { of: self.of(family), elements }
    }
}

/// A node without Services.
pub fn skeleton<A: Ip>(table: &mut Table) {
    let family = if A::BITS == 32 { Family::V4 } else { Family::V6 };
    let chain = of_family::<A>(STICKY_CHAIN);
    for map in Map::ALL {
        let mut elements = Elements::new();
        if map == Map::Kinds {
            elements.insert((mark_key(STICKY), false), goto_data(&chain));
        }
        table.sets.insert(map.name(family), map.set(family, elements));
    }
    let rules = vec![rule([mark_vmap(&Map::Sticky.of_family::<A>())])];
    table.chains.insert(chain, Chain { base: None, rules });
    sources::skeleton::<A>(table);
}

/// Where the destination of a new connection is translated; host ports stand between addresses and node ports.
pub fn translate_addresses<A: Ip>() -> Vec<Rule> {
    let kinds = || masked_mark_vmap(KIND_MASK, &Map::Kinds.of_family::<A>());
    vec![
        sources::judge::<A>(),
        rule([iifname(UPLINK), address_and_port_in_set::<A>(&Map::DroppedOutside.of_family::<A>()), allow()]),
        rule([iifname(UPLINK), mark_by_address_and_port::<A>(&Map::Outside.of_family::<A>()), kinds()]),
        rule([mark_by_address_and_port::<A>(&Map::Services.of_family::<A>()), kinds()]),
    ]
}

/// See [`translate_addresses`].
pub fn translate_node_ports<A: Ip>() -> Vec<Rule> {
    let kinds = || masked_mark_vmap(KIND_MASK, &Map::Kinds.of_family::<A>());
    vec![
        rule([
            family::<A>(),
            iifname(UPLINK),
            daddr_is_local(),
            port_in_set::<A>(&Map::DroppedNodePorts.of_family::<A>()),
            allow(),
        ]),
        rule([
            family::<A>(),
            iifname(UPLINK),
            daddr_is_local(),
            mark_by_port::<A>(&Map::OutsideNodePorts.of_family::<A>()),
            kinds(),
        ]),
        rule([family::<A>(), daddr_is_local(), mark_by_port::<A>(&Map::NodePorts.of_family::<A>()), kinds()]),
    ]
}

/// What happens to packets that would have been translated if there were endpoints, where they are forwarded or leave.
pub fn without_endpoints<A: Ip>() -> Vec<Rule> {
    vec![
        rule([iifname(UPLINK), address_and_port_in_set::<A>(&Map::DroppedOutside.of_family::<A>()), drop()]),
        rule([address_and_port_in_set::<A>(&Map::Dropped.of_family::<A>()), drop()]),
        rule([address_and_port_in_set::<A>(&Map::Refused.of_family::<A>()), goto(REFUSE)]),
    ]
}

/// The same for what arrives at the node itself. Refused here rather than by the kernel: it would remember UDP clients
/// as the node's own, and never lead them to an endpoint that comes later.
pub fn node_ports_without_endpoints<A: Ip>() -> Vec<Rule> {
    vec![
        rule([
            family::<A>(),
            iifname(UPLINK),
            ct_state(NEW),
            port_in_set::<A>(&Map::DroppedNodePorts.of_family::<A>()),
            drop(),
        ]),
        rule([
            family::<A>(),
            ct_state(NEW),
            port_in_set::<A>(&Map::RefusedNodePorts.of_family::<A>()),
            goto(REFUSE),
        ]),
    ]
}

fn mark_key(mark: u32) -> Vec<u8> {
    mark.to_ne_bytes().to_vec()
}

fn goto_data(chain: &str) -> Data {
    Data::Verdict(Verdict::Goto(chain.to_string()))
}

/// The mark of a list whose endpoints are equally likely.
pub fn spread_mark(list: u32, protocol: Protocol, endpoints: usize) -> u32 {
    list << KIND_BITS | kind(protocol, endpoints)
}

pub fn sticky_mark(list: u32) -> u32 {
    list << KIND_BITS | STICKY
}

/// Low bits of a mark: what [`spread_chain`] is for.
pub fn kind(protocol: Protocol, endpoints: usize) -> u32 {
    let number = match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
        Protocol::Sctp => 3,
    };
    number << 13 | endpoints as u32
}

/// The chain that chooses one of so many, and the element that leads to it.
pub fn spread_chain(
    family: Family,
    protocol: Protocol,
    endpoints: usize,
) -> (String, Chain, (Vec<u8>, Data)) {
    let count = endpoints as u32;
    let map = Map::Endpoints.name(family);
    let (digit, dnat) = match family {
        Family::V4 => ("", dnat_by_mark_and_number::<Ipv4Addr>(count, &map)),
        Family::V6 => ("6", dnat_by_mark_and_number::<Ipv6Addr>(count, &map)),
    };
    let name = format!("{}{digit}-{endpoints}", protocol.name().to_lowercase());
    let rules = vec![rule([l4proto(protocol.number()), dnat])];
    let element = (mark_key(kind(protocol, endpoints)), goto_data(&name));
    (name, Chain { base: None, rules }, element)
}

/// What is remembered of the clients of one endpoint of one port of a Service.
pub fn sticky_endpoint(
    port: &str,
    protocol: Protocol,
    endpoint: SocketAddr,
    seconds: u32,
) -> (String, Chain, Set) {
    let name = format!("{STICKY_PREFIX}{:016x}", fnv(&format!("{port} {endpoint}")));
    let (learn, address) = match endpoint {
        SocketAddr::V4(_) => (learn_saddr::<Ipv4Addr>(&name, seconds), DataType::Ipv4Addr),
        SocketAddr::V6(_) => (learn_saddr::<Ipv6Addr>(&name, seconds), DataType::Ipv6Addr),
    };
    let rules = vec![
        // A rule of its own: when the set is full, the client is led to the endpoint all the same.
        rule([l4proto(protocol.number()), learn]),
        rule([l4proto(protocol.number()), dnat_to(endpoint)]),
    ];
    let set = Set { of: SetType::learns(&[address]), elements: Elements::new() };
    (name, Chain { base: None, rules }, set)
}

/// The chain of a list with affinity: to the endpoint that knows the client, else to any.
pub fn sticky_list(
    family: Family,
    port: &str,
    of: &str,
    mark: u32,
    endpoints: &[String],
) -> (String, Chain, (Vec<u8>, Data)) {
    let name = format!("{STICKY_PREFIX}{:016x}", fnv(&format!("{port} {of}")));
    let known = endpoints.iter().map(|endpoint| {
        let knows = match family {
            Family::V4 => saddr_in_set::<Ipv4Addr>(endpoint),
            Family::V6 => saddr_in_set::<Ipv6Addr>(endpoint),
        };
        rule([knows, goto(endpoint)])
    });
    let count = endpoints.len() as u32;
    let any = (1..=count).rev().zip(endpoints).map(|(left, endpoint)| {
        let chance = if left > 1 { one_in(left) } else { Vec::new() };
        rule([chance, goto(endpoint)])
    });
    let rules = known.chain(any).collect();
    let element = (mark_key(mark), goto_data(&name));
    (name, Chain { base: None, rules }, element)
}

pub fn endpoint_key(mark: u32, number: u32) -> Vec<u8> {
    [mark.to_ne_bytes(), number.to_ne_bytes()].concat()
}

pub fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = vec![protocol.number(), 0, 0, 0];
    key.extend(port_part(port));
    key
}

pub fn address_key(address: IpAddr, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = bytes(address);
    key.extend(port_key(protocol, port));
    key
}

/// As the data of [`Map::Endpoints`].
pub fn endpoint_data(endpoint: SocketAddr) -> Vec<u8> {
    let mut data = bytes(endpoint.ip());
    data.extend(port_part(endpoint.port()));
    data
}

pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.bytes(),
        IpAddr::V6(v6) => v6.bytes(),
    }
}

pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// FNV-1a: a name, not a secret. Service names are the cluster's own, and two that collide share what they remember of a client.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Takes over what an earlier agent wrote about Services, where nothing is known of them yet.
pub fn keep(is: &Table, wanted: &mut Table) {
    for name in [Family::V4, Family::V6].into_iter().flat_map(|family| Map::ALL.map(|map| map.name(family))) {
        if let (Some(set), Some(wanted)) = (is.sets.get(&name), wanted.sets.get_mut(&name))
            && set.of == wanted.of
        {
            wanted.elements = set.elements.clone();
        }
    }
    let spread = |name: &str| {
        let parts = name.split_once('-');
        parts.is_some_and(|(protocol, count)| {
            matches!(protocol.trim_end_matches('6'), "tcp" | "udp" | "sctp") && count.parse::<u32>().is_ok()
        })
    };
    let ours = |name: &str| name.starts_with(STICKY_PREFIX) || spread(name) || sources::is_ours(name);
    let chains = is.chains.iter().filter(|(name, chain)| ours(name) && chain.base.is_none());
    wanted.chains.extend(chains.map(|(name, chain)| (name.clone(), chain.clone())));
    let sets = is
        .sets
        .iter()
        .filter(|(name, set)| name.starts_with(STICKY_PREFIX) && set.of.learns || sources::is_ours(name));
    wanted.sets.extend(sets.map(|(name, set)| (name.clone(), set.clone())));
}
