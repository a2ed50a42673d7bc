//! The node's table `inet cofferdam`: the base chains, which never change while an agent runs, and the chains, sets
//! and verdicts that `policy::network_policy` asks for, in nf_tables' terms.

use std::net::{IpAddr, Ipv4Addr};

use kernel::nft::{
    Base, Chain, ChainKind, Data, DataType, Direction, Elements, Hook, Rule, Set, SetType, Table,
    Transaction, Verdict, interval_elements,
};
use kernel::route::Ipv4Net;
use policy::network_policy::ir::{self, Change, Element, Family, PeerMatch, PortMatch, SetKind};

use super::exprs::*;
use super::pods::{HostPort, NodeNetConfig};
use super::services::{self, ServicePort};

/// The table's name.
pub const TABLE: &str = "cofferdam";
/// Names of the pods' links on the node begin so; nothing else's does.
pub const POD_LINK: &str = "cfp";
/// The node's link to the fabric.
pub const UPLINK: &str = "eth0";

/// (link, address) that may send.
pub const OWN: &str = "own";
/// Pod addresses that may receive: their rules are in.
pub const READY: &str = "ready";
/// (address, address) of each pod: what it sends to itself through the node.
pub const HAIRPIN: &str = "hairpin";
/// (protocol, port) of every address of the node → pod address and port.
pub const HOST_PORTS: &str = "hostports";
/// (node address, protocol, port) → pod address and port.
pub const HOST_PORTS_BY_IP: &str = "hostports-ip";
const CLUSTER: &str = "cluster";
const LOOPBACK: Ipv4Net = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8);

/// The table of a node without pods and policies.
pub fn skeleton(config: &NodeNetConfig) -> Table {
    let mut table = Table::default();
    let mut set = |name: &str, of: SetType, elements: Elements| {
        table.sets.insert(name.to_string(), Set { of, elements });
    };
    let address = DataType::Ipv4Addr;
    let target = [address, DataType::InetService];
    set(OWN, SetType::set(&[DataType::IfaceIndex, address]), Elements::new());
    set(READY, SetType::set(&[address]), Elements::new());
    set(HAIRPIN, SetType::set(&[address, address]), Elements::new());
    set(HOST_PORTS, SetType::map(&[DataType::InetProto, DataType::InetService], &target), Elements::new());
    let by_ip = [address, DataType::InetProto, DataType::InetService];
    set(HOST_PORTS_BY_IP, SetType::map(&by_ip, &target), Elements::new());
    set(map_name(ir::Direction::Egress), SetType::verdict_map(&[address]), Elements::new());
    set(map_name(ir::Direction::Ingress), SetType::verdict_map(&[address]), Elements::new());
    let ranges = [config.cluster_cidr, config.node_cidr].map(|range| (range.network(), range.last()));
    set(CLUSTER, SetType::intervals(address), interval_elements(ranges));

    let mut chain = |name: &str, kind, hook, priority, rules| {
        let base = Some(Base { kind, hook, priority, drop: false });
        table.chains.insert(name.to_string(), Chain { base, rules });
    };
    chain(
        "raw",
        ChainKind::Filter,
        Hook::Prerouting,
        -300,
        vec![
            // A pod with NET_ADMIN can give itself any address: it sends with the one we gave it or not at all.
            rule([iifname_prefix(POD_LINK), iif_saddr_not_in_set(OWN), drop()]),
            rule([iifname_prefix(POD_LINK), not_ipv4(), drop()]),
            // Pods' links have route_localnet, so that the node's 127.0.0.1 reaches host ports. Without these two, pods and
            // neighbours would reach what listens on the node's loopback (CVE-2020-8558).
            rule([iifname_not("lo"), daddr_in(LOOPBACK), drop()]),
            rule([iifname_not("lo"), saddr_in(LOOPBACK), drop()]),
            // Our pods are behind their links, not behind the fabric.
            rule([iifname(UPLINK), saddr_in(config.pod_cidr), drop()]),
        ],
    );
    let translations = || {
        vec![
            rule([vmap_by_address_and_port(services::SERVICES)]),
            rule([dnat_by_address_and_port(HOST_PORTS_BY_IP)]),
            rule([daddr_is_local(), dnat_by_port(HOST_PORTS)]),
            rule([daddr_is_local(), vmap_by_port(services::NODE_PORTS)]),
        ]
    };
    chain("prerouting", ChainKind::Nat, Hook::Prerouting, -100, translations());
    chain("output", ChainKind::Nat, Hook::Output, -100, translations());
    chain(
        "forward",
        ChainKind::Filter,
        Hook::Forward,
        0,
        vec![
            // What conntrack does not know has no tuple to be judged by.
            rule([ct_state(INVALID | UNTRACKED), drop()]),
            rule([daddr_in(config.pod_cidr), daddr_not_in_set(READY), drop()]),
            rule([ct_state(RELATED), accept()]),
            rule([tuple_in_set(HAIRPIN), accept()]),
            rule([tuple_vmap(Direction::Original, map_name(ir::Direction::Egress))]),
            rule([tuple_vmap(Direction::Reply, map_name(ir::Direction::Ingress))]),
            // A Service's address that was not translated has no endpoints.
            rule([daddr_in(config.service_cidr), reject(PORT_UNREACHABLE)]),
        ],
    );
    chain(
        "input",
        ChainKind::Filter,
        Hook::Input,
        0,
        vec![
            // A pod's egress rules hold towards its own node too. What its node began has the node as its client.
            rule([iifname_prefix(POD_LINK), ct_state(INVALID | UNTRACKED), drop()]),
            rule([
                iifname_prefix(POD_LINK),
                tuple_vmap(Direction::Original, map_name(ir::Direction::Egress)),
            ]),
        ],
    );
    chain(
        "postrouting",
        ChainKind::Nat,
        Hook::Postrouting,
        100,
        vec![
            // A pod drops packets that come from its own address.
            rule([saddr_daddr_in_set(HAIRPIN), snat(config.node_ip)]),
            rule([saddr_in(LOOPBACK), oifname_prefix(POD_LINK), snat(config.node_ip)]),
            rule([saddr_in(config.pod_cidr), daddr_not_in_set(CLUSTER), snat(config.node_ip)]),
            // Through this node to another's pod: the answer must come back through here.
            rule([iifname(UPLINK), oifname(UPLINK), ct_status_dnat(), snat(config.node_ip)]),
        ],
    );
    chain(
        "local-out",
        ChainKind::Filter,
        Hook::Output,
        0,
        vec![rule([daddr_in(config.service_cidr), reject(PORT_UNREACHABLE)])],
    );
    add_services(&mut table, &[]);
    table
}

fn map_name(direction: ir::Direction) -> &'static str {
    match direction {
        ir::Direction::Egress => "egress",
        ir::Direction::Ingress => "ingress",
    }
}

/// The elements that a pod with that link and address brings: (set, key, data).
pub fn pod_elements(link: u32, address: Ipv4Addr, ports: &[HostPort]) -> Vec<(&'static str, Vec<u8>, Data)> {
    let ip = address.octets();
    let mut own = link.to_ne_bytes().to_vec();
    own.extend(ip);
    let mut elements = vec![
        (OWN, own, Data::Nothing),
        (READY, ip.to_vec(), Data::Nothing),
        (HAIRPIN, [ip, ip].concat(), Data::Nothing),
    ];
    for port in ports {
        let (set, mut key) = match port.host_ip {
            None => (HOST_PORTS, Vec::new()),
            Some(host) => (HOST_PORTS_BY_IP, host.octets().to_vec()),
        };
        key.extend([port.protocol.number(), 0, 0, 0]);
        key.extend(port_part(port.host_port));
        let mut target = ip.to_vec();
        target.extend(port_part(port.container_port));
        elements.push((set, key, Data::Value(target)));
    }
    elements
}

/// A port as part of a concatenation: it fills a register of four bytes.
pub(super) fn port_part(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Puts Services into a node's table.
pub fn add_services(table: &mut Table, services: &[ServicePort]) {
    let part = services::part(services);
    table.sets.extend(part.sets);
    table.chains.extend(part.chains);
}

/// Adds a node's rule set to its table.
pub fn add_rule_set(table: &mut Table, rule_set: &ir::RuleSet) {
    for (name, set) in &rule_set.sets {
        let elements = elements(&set.elements);
        table.sets.insert(name.to_string(), Set { of: set_type(&set.of), elements });
    }
    for (name, chain) in &rule_set.chains {
        table.chains.insert(name.to_string(), Chain { base: None, rules: chain_rules(chain) });
    }
    for direction in ir::Direction::ALL {
        let verdicts = rule_set.map(direction).iter().filter_map(|(address, chain)| {
            Some(((key(address)?, false), Data::Verdict(Verdict::Jump(chain.to_string()))))
        });
        if let Some(map) = table.sets.get_mut(map_name(direction)) {
            map.elements.extend(verdicts);
        }
    }
}

/// One step of a transaction, as nf_tables takes it.
pub fn put_change(transaction: &mut Transaction, change: &Change) {
    match change {
        Change::AddSet { name, of } => transaction.add_set(&name.0, &set_type(of)),
        Change::AddElements { set, elements: list } => {
            let elements = elements(list);
            transaction
                .add_elements(&set.0, elements.iter().map(|((key, end), data)| (key.as_slice(), *end, data)));
        }
        Change::DeleteElements { set, elements: list } => {
            let elements = elements(list);
            transaction.delete_elements(&set.0, elements.keys().map(|(key, end)| (key.as_slice(), *end)));
        }
        Change::AddChain { name, chain } => {
            transaction.add_chain(&name.0, None);
            chain_rules(chain).iter().for_each(|rule| transaction.add_rule(&name.0, rule));
        }
        Change::ReplaceChain { name, chain } => {
            transaction.flush_chain(&name.0);
            chain_rules(chain).iter().for_each(|rule| transaction.add_rule(&name.0, rule));
        }
        Change::DeleteVerdicts { direction, addresses } => {
            let keys: Vec<Vec<u8>> = addresses.iter().filter_map(key).collect();
            transaction.delete_elements(map_name(*direction), keys.iter().map(|key| (key.as_slice(), false)));
        }
        Change::AddVerdicts { direction, verdicts } => {
            let elements: Vec<(Vec<u8>, Data)> = verdicts
                .iter()
                .filter_map(|(a, chain)| Some((key(a)?, Data::Verdict(Verdict::Jump(chain.to_string())))))
                .collect();
            let elements = elements.iter().map(|(key, data)| (key.as_slice(), false, data));
            transaction.add_elements(map_name(*direction), elements);
        }
        Change::DeleteChain { name } => {
            transaction.flush_chain(&name.0);
            transaction.delete_chain(&name.0);
        }
        Change::DeleteSet { name } => transaction.delete_set(&name.0),
    }
}

/// The verdict maps are IPv4's: a pod of a v4-only cluster has no other address.
fn key(address: &IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(v4) => Some(v4.octets().to_vec()),
        IpAddr::V6(_) => None,
    }
}

fn set_type(of: &ir::SetType) -> SetType {
    let address = match of.family {
        Family::V4 => DataType::Ipv4Addr,
        Family::V6 => DataType::Ipv6Addr,
    };
    match of.kind {
        SetKind::Pods => SetType::set(&[address]),
        SetKind::Cidrs => SetType::intervals(address),
        SetKind::NamedPort => SetType::set(&[address, DataType::InetService]),
    }
}

fn elements<'a>(list: impl IntoIterator<Item = &'a Element>) -> Elements {
    let mut elements = Elements::new();
    let mut blocks: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
    for element in list {
        match element {
            Element::Address(address) => {
                elements.insert((octets(address), false), Data::Nothing);
            }
            Element::Port(address, port) => {
                let mut key = octets(address);
                key.extend(port_part(*port));
                elements.insert((key, false), Data::Nothing);
            }
            Element::Cidr(cidr) => match cidr.range() {
                (IpAddr::V4(first), IpAddr::V4(last)) => blocks.push((first, last)),
                (first, last) => {
                    elements.insert((octets(&first), false), Data::Nothing);
                    if let IpAddr::V6(last) = last
                        && let Some(end) = last.to_bits().checked_add(1)
                    {
                        elements.insert((end.to_be_bytes().to_vec(), true), Data::Nothing);
                    }
                }
            },
        }
    }
    elements.extend(interval_elements(blocks));
    elements
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Any rule allows; behind the last one the chain drops.
fn chain_rules(chain: &ir::Chain) -> Vec<Rule> {
    let mut rules: Vec<Rule> =
        chain.rules.iter().flat_map(|rule| allow_rules(chain.direction, rule)).collect();
    rules.push(rule([drop()]));
    rules
}

/// A list of port ranges is one rule each.
fn allow_rules(direction: ir::Direction, asked: &ir::Rule) -> Vec<Rule> {
    let peer_is = match direction {
        ir::Direction::Egress => Direction::Reply,
        ir::Direction::Ingress => Direction::Original,
    };
    let peer = match &asked.peer {
        PeerMatch::Any => Vec::new(),
        PeerMatch::Pods(set) | PeerMatch::Cidrs(set) => tuple_source_in_set(peer_is, false, &set.0),
    };
    match &asked.port {
        PortMatch::Any => vec![rule([peer, allow()])],
        PortMatch::Protocol(protocol) => vec![rule([l4proto(protocol.number()), peer, allow()])],
        PortMatch::Named(protocol, set) => {
            vec![rule([l4proto(protocol.number()), peer, server_and_port_in_set(false, &set.0), allow()])]
        }
        PortMatch::Ranges(protocol, ranges) => ranges
            .iter()
            .map(|range| {
                let port = server_port(range.first, range.last);
                rule([l4proto(protocol.number()), peer.clone(), port, allow()])
            })
            .collect(),
    }
}
