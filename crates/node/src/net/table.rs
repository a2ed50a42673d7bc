//! The node's table `inet cofferdam`: the base chains, which never change while an agent runs, and the chains, sets
//! and verdicts that `policy::network_policy` asks for, in nf_tables' terms.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::nft::{
    Base, Chain, ChainKind, Data, DataType, Direction, Elements, Expr, Hook, Rule, Set, SetType, Table,
    Transaction, Verdict, interval_elements,
};
use kernel::route::{Ip, Ipv4Net, Net};
use policy::network_policy::ir::{self, Change, Element, Family, PeerMatch, PortMatch, SetKind};

use super::exprs::*;
use super::pods::{HostPort, Network, NodeNetConfig, PodAddresses};
use super::services::layout;

/// The table's name.
pub const TABLE: &str = "cofferdam";
/// Names of the pods' links on the node begin so; nothing else's does.
pub const POD_LINK: &str = "cfp";
/// The node's link to the fabric.
pub const UPLINK: &str = "eth0";

// Sets that each family has for itself; IPv6's have a 6 behind the name (see `of_family`).

/// (link, address) that may send.
const OWN: &str = "own";
/// Pod addresses that may receive: their rules are in.
const READY: &str = "ready";
/// (address, address) of each pod: what it sends to itself through the node.
const HAIRPIN: &str = "hairpin";
/// (protocol, port) of every address of the node → pod address and port.
const HOST_PORTS: &str = "hostports";
/// (node address, protocol, port) → pod address and port.
const HOST_PORTS_BY_IP: &str = "hostports-ip";
/// The chain of packets that begin nothing and belong to nothing.
const UNUSUAL: &str = "unusual";
/// The chain that refuses, at once: a TCP client by a reset, all else by port unreachable. A TCP socket takes an ICMP error
/// that comes while it is still in `connect` for a passing one and waits for its next attempt, a second later (RFC 1122
/// 4.2.3.9).
pub(super) const REFUSE: &str = "refuse";
/// The cluster's pods and nodes.
const CLUSTER: &str = "cluster";

const LOOPBACK: Ipv4Net = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8);

/// The name of a set that holds addresses of this family.
pub(super) fn of_family<A: Ip>(name: &str) -> String {
    if A::BITS == 32 { name.to_string() } else { format!("{name}6") }
}

/// What a function says of IPv4, then what it says of IPv6 where the cluster has it.
macro_rules! both {
    ($config:expr, $rules:ident) => {{
        let mut rules: Vec<Rule> = $rules(&$config.v4);
        rules.extend($config.v6.iter().flat_map($rules));
        rules
    }};
}

/// The table of a node without pods and policies.
pub fn skeleton(config: &NodeNetConfig) -> Table {
    let mut table = Table::default();
    add_sets(&mut table, &config.v4);
    if let Some(v6) = &config.v6 {
        add_sets(&mut table, v6);
    }
    let mut chain = |name: &str, kind, hook, priority, rules| {
        let base = Some(Base { kind, hook, priority, drop: false });
        table.chains.insert(name.to_string(), Chain { base, rules });
    };
    // Most packets come from pods, and each rule costs every one of them: what a pod may send is done with after two.
    //
    // Pods' links have route_localnet, so that the node's 127.0.0.1 reaches host ports. Without these, pods and
    // neighbours would reach what listens on the node's loopback (CVE-2020-8558). IPv6 has no such way to ::1.
    let mut raw = vec![rule([daddr_in(LOOPBACK), iifname_not("lo"), drop()])];
    raw.extend(both!(config, own_addresses));
    raw.push(rule([iifname_prefix(POD_LINK), drop()]));
    raw.push(rule([saddr_in(LOOPBACK), iifname_not("lo"), drop()]));
    raw.extend(both!(config, ours_are_not_outside));
    chain("raw", ChainKind::Filter, Hook::Prerouting, -300, raw);

    chain("prerouting", ChainKind::Nat, Hook::Prerouting, -100, both!(config, translations));
    chain("output", ChainKind::Nat, Hook::Output, -100, both!(config, translations));

    // What is part of a connection asks its state once.
    let mut forward = vec![rule([ct_state(INVALID | UNTRACKED | RELATED), goto(UNUSUAL)])];
    forward.extend(both!(config, only_ready));
    forward.extend(both!(config, verdicts));
    forward.extend(both!(config, no_endpoints));
    chain("forward", ChainKind::Filter, Hook::Forward, 0, forward);
    // What conntrack does not know has no tuple to be judged by.
    let mut unusual = vec![rule([ct_state(INVALID | UNTRACKED), drop()])];
    unusual.extend(both!(config, only_ready));
    // Among them ICMPv6's "packet too big", without which no large packet gets through.
    unusual.push(rule([accept()]));

    // A pod's egress rules hold towards its own node too. What its node began has the node as its client. Neighbour
    // discovery is untracked: the node needs none of a pod's.
    let mut input = vec![rule([iifname_prefix(POD_LINK), ct_state(INVALID | UNTRACKED), drop()])];
    input.extend(both!(config, egress_to_node));
    input.extend(both!(config, no_endpoints_here));
    chain("input", ChainKind::Filter, Hook::Input, 0, input);

    let mut postrouting = both!(config, as_they_are);
    postrouting.extend([
        rule([saddr_in(LOOPBACK), oifname_prefix(POD_LINK), snat(config.v4.node_ip)]),
        rule([saddr_in(LOOPBACK), oifname(UPLINK), snat(config.v4.node_ip)]),
    ]);
    postrouting.extend(both!(config, sources));
    chain("postrouting", ChainKind::Nat, Hook::Postrouting, 100, postrouting);
    chain("local-out", ChainKind::Filter, Hook::Output, 0, both!(config, no_endpoints));
    table.chains.insert(UNUSUAL.to_string(), Chain { base: None, rules: unusual });
    let mut refuse = vec![rule([reset_tcp()])];
    refuse.extend(both!(config, refusal));
    table.chains.insert(REFUSE.to_string(), Chain { base: None, rules: refuse });
    table
}

fn add_sets<A: Ip>(table: &mut Table, network: &Network<A>) {
    let mut set = |name: &str, of: SetType, elements: Elements| {
        table.sets.insert(of_family::<A>(name), Set { of, elements });
    };
    let address = DataType::address::<A>();
    let target = [address, DataType::InetService];
    set(OWN, SetType::set(&[DataType::IfaceIndex, address]), Elements::new());
    set(READY, SetType::set(&[address]), Elements::new());
    set(HAIRPIN, SetType::set(&[address, address]), Elements::new());
    set(HOST_PORTS, SetType::map(&[DataType::InetProto, DataType::InetService], &target), Elements::new());
    let by_ip = [address, DataType::InetProto, DataType::InetService];
    set(HOST_PORTS_BY_IP, SetType::map(&by_ip, &target), Elements::new());
    set(base_name(ir::Direction::Egress), SetType::verdict_map(&[address]), Elements::new());
    set(base_name(ir::Direction::Ingress), SetType::verdict_map(&[address]), Elements::new());
    let ranges = [network.cluster_cidr, network.node_cidr].map(|range| (range.network(), range.last()));
    set(CLUSTER, SetType::intervals(address), interval_elements(ranges));
    layout::skeleton::<A>(table);
}

/// A pod with NET_ADMIN can give itself any address: it sends with the one we gave it or not at all. In IPv6 that drops
/// router advertisements and neighbour discovery from link-local addresses too.
fn own_addresses<A: Ip>(_: &Network<A>) -> Vec<Rule> {
    vec![rule([iif_saddr_in_set::<A>(&of_family::<A>(OWN)), accept()])]
}

/// Our pods are behind their links, not behind the fabric.
fn ours_are_not_outside<A: Ip>(network: &Network<A>) -> Vec<Rule> {
    let mut rules = vec![rule([iifname(UPLINK), saddr_in(network.pod_cidr), drop()])];
    if A::BITS == 128 {
        // The kernel itself drops what comes with the node's own address, but in IPv4 only.
        rules.push(rule([iifname(UPLINK), saddr_is(network.node_ip), drop()]));
    }
    rules
}

fn translations<A: Ip>(network: &Network<A>) -> Vec<Rule> {
    let name = of_family::<A>;
    let mut rules = layout::translate_addresses::<A>();
    rules.push(rule([dnat_by_address_and_port::<A>(&name(HOST_PORTS_BY_IP))]));
    // No address of the node is a pod's: to ask the routes whether it is costs more than all else here.
    rules.push(rule([daddr_in(network.cluster_cidr), accept()]));
    rules.push(rule([family::<A>(), daddr_is_local(), dnat_by_port::<A>(&name(HOST_PORTS))]));
    rules.extend(layout::translate_node_ports::<A>());
    rules
}

fn only_ready<A: Ip>(network: &Network<A>) -> Vec<Rule> {
    vec![rule([daddr_in(network.pod_cidr), daddr_not_in_set::<A>(&of_family::<A>(READY)), drop()])]
}

fn verdicts<A: Ip>(_: &Network<A>) -> Vec<Rule> {
    vec![
        // Nothing but a Service or a host port leads a pod to itself by way of its node.
        rule([ct_status_dnat(), tuple_in_set::<A>(&of_family::<A>(HAIRPIN)), accept()]),
        rule([tuple_vmap::<A>(Direction::Original, &map_name::<A>(ir::Direction::Egress))]),
        rule([tuple_vmap::<A>(Direction::Reply, &map_name::<A>(ir::Direction::Ingress))]),
    ]
}

fn egress_to_node<A: Ip>(_: &Network<A>) -> Vec<Rule> {
    vec![rule([
        iifname_prefix(POD_LINK),
        tuple_vmap::<A>(Direction::Original, &map_name::<A>(ir::Direction::Egress)),
    ])]
}

fn refusal<A: Ip>(_: &Network<A>) -> Vec<Rule> {
    vec![rule([family::<A>(), reject::<A>(Unreachable::Port)])]
}

/// A Service's address that was not translated has no endpoints.
fn no_endpoints<A: Ip>(network: &Network<A>) -> Vec<Rule> {
    // What goes to a pod was translated, or goes to no Service.
    let mut rules = vec![rule([daddr_in(network.cluster_cidr), accept()])];
    rules.extend(layout::without_endpoints::<A>());
    rules.push(rule([daddr_in(network.service_cidr), goto(REFUSE)]));
    rules
}

fn no_endpoints_here<A: Ip>(_: &Network<A>) -> Vec<Rule> {
    layout::node_ports_without_endpoints::<A>()
}

/// Between pods and nodes of the cluster nothing is hidden but who came through a Service or a host port.
fn as_they_are<A: Ip>(network: &Network<A>) -> Vec<Rule> {
    vec![rule([daddr_in(network.cluster_cidr), ct_status_not_dnat(), accept()])]
}

/// As whom the others see a packet.
fn sources<A: Ip>(network: &Network<A>) -> Vec<Rule> {
    let outside = daddr_not_in_set::<A>(&of_family::<A>(CLUSTER));
    vec![
        // A pod drops packets that come from its own address.
        rule([saddr_daddr_in_set::<A>(&of_family::<A>(HAIRPIN)), snat(network.node_ip)]),
        rule([saddr_in(network.pod_cidr), outside, snat(network.node_ip)]),
        // Through this node to another's pod: the answer must come back through here.
        rule([family::<A>(), iifname(UPLINK), oifname(UPLINK), ct_status_dnat(), snat(network.node_ip)]),
    ]
}

fn base_name(direction: ir::Direction) -> &'static str {
    match direction {
        ir::Direction::Egress => "egress",
        ir::Direction::Ingress => "ingress",
    }
}

fn map_name<A: Ip>(direction: ir::Direction) -> String {
    of_family::<A>(base_name(direction))
}

/// The elements that a pod with that link and these addresses brings: (set, key, data).
pub fn pod_elements(link: u32, pod: PodAddresses, ports: &[HostPort]) -> Vec<(String, Vec<u8>, Data)> {
    let mut elements = elements_of(link, pod.v4, ports);
    elements.extend(pod.v6.into_iter().flat_map(|v6| elements_of(link, v6, ports)));
    elements
}

fn elements_of<A: Ip>(link: u32, address: A, ports: &[HostPort]) -> Vec<(String, Vec<u8>, Data)> {
    let name = of_family::<A>;
    let ip = address.bytes();
    let mut elements = vec![
        (name(OWN), [&link.to_ne_bytes()[..], &ip].concat(), Data::Nothing),
        (name(READY), ip.clone(), Data::Nothing),
        (name(HAIRPIN), [&ip[..], &ip].concat(), Data::Nothing),
    ];
    for port in ports {
        let host = match port.host_ip.map(A::of) {
            None => None,
            Some(Some(host)) => Some(host).filter(|host| *host != A::UNSPECIFIED),
            // Of the other family.
            Some(None) => continue,
        };
        let (set, mut key) = match host {
            None => (HOST_PORTS, Vec::new()),
            Some(host) => (HOST_PORTS_BY_IP, host.bytes()),
        };
        key.extend([port.protocol.number(), 0, 0, 0]);
        key.extend(port_part(port.host_port));
        let target = [&ip[..], &port_part(port.container_port)].concat();
        elements.push((name(set), key, Data::Value(target)));
    }
    elements
}

/// A port as part of a concatenation: it fills a register of four bytes.
pub(super) fn port_part(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
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
        for (address, chain) in rule_set.map(direction) {
            let verdict = Data::Verdict(Verdict::Jump(chain.to_string()));
            if let Some(map) = table.sets.get_mut(&map_of(direction, address)) {
                map.elements.insert((octets(address), false), verdict);
            }
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
            for (map, addresses) in by_family(*direction, addresses, |address| address) {
                let keys: Vec<Vec<u8>> = addresses.into_iter().map(octets).collect();
                transaction.delete_elements(&map, keys.iter().map(|key| (key.as_slice(), false)));
            }
        }
        Change::AddVerdicts { direction, verdicts } => {
            for (map, verdicts) in by_family(*direction, verdicts, |(address, _)| address) {
                let elements: Vec<(Vec<u8>, Data)> = verdicts
                    .into_iter()
                    .map(|(a, chain)| (octets(a), Data::Verdict(Verdict::Jump(chain.to_string()))))
                    .collect();
                let elements = elements.iter().map(|(key, data)| (key.as_slice(), false, data));
                transaction.add_elements(&map, elements);
            }
        }
        Change::DeleteChain { name } => {
            transaction.flush_chain(&name.0);
            transaction.delete_chain(&name.0);
        }
        Change::DeleteSet { name } => transaction.delete_set(&name.0),
    }
}

/// The verdict map that has the address.
fn map_of(direction: ir::Direction, address: &IpAddr) -> String {
    match address {
        IpAddr::V4(_) => map_name::<Ipv4Addr>(direction),
        IpAddr::V6(_) => map_name::<Ipv6Addr>(direction),
    }
}

/// The items for each of the two maps of a direction.
fn by_family<T>(
    direction: ir::Direction,
    items: &[T],
    address: impl Fn(&T) -> &IpAddr,
) -> [(String, Vec<&T>); 2] {
    let (v4, v6) = items.iter().partition(|item| address(item).is_ipv4());
    [(map_name::<Ipv4Addr>(direction), v4), (map_name::<Ipv6Addr>(direction), v6)]
}

fn set_type(of: &ir::SetType) -> SetType {
    let address = match of.family {
        Family::V4 => DataType::Ipv4Addr,
        Family::V6 => DataType::Ipv6Addr,
    };
    match of.kind {
        SetKind::Pods | SetKind::Nodes => SetType::set(&[address]),
        SetKind::Cidrs => SetType::intervals(address),
        SetKind::NamedPort => SetType::set(&[address, DataType::InetService]),
    }
}

fn elements<'a>(list: impl IntoIterator<Item = &'a Element>) -> Elements {
    let mut elements = Elements::new();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
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
            Element::Cidr(cidr) => match cidr.network {
                IpAddr::V4(network) => v4.push(Net::of(network, cidr.prefix)),
                IpAddr::V6(network) => v6.push(Net::of(network, cidr.prefix)),
            },
        }
    }
    elements.extend(interval_elements(v4.iter().map(|block| (block.network(), block.last()))));
    elements.extend(interval_elements(v6.iter().map(|block| (block.network(), block.last()))));
    elements
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The first rule that matches decides; behind the last one stands what the chain's end says.
fn chain_rules(chain: &ir::Chain) -> Vec<Rule> {
    let behind = match &chain.end {
        ir::End::Drop => drop(),
        ir::End::Allow => allow(),
        // Not a jump: who returns there returns from here, which allows.
        ir::End::Goto(next) => goto(&next.0),
    };
    let action = |action: ir::Action| match action {
        ir::Action::Allow => allow(),
        ir::Action::Deny => drop(),
        ir::Action::Pass => behind.clone(),
    };
    let each = chain.rules.iter().flat_map(|rule| asked_rules(chain.direction, rule, action(rule.action)));
    let mut rules: Vec<Rule> = each.collect();
    rules.push(rule([behind.clone()]));
    rules
}

/// A list of port ranges is one rule each.
fn asked_rules(direction: ir::Direction, asked: &ir::Rule, then: Vec<Expr>) -> Vec<Rule> {
    let peer_is = match direction {
        ir::Direction::Egress => Direction::Reply,
        ir::Direction::Ingress => Direction::Original,
    };
    let peer = match &asked.peer {
        PeerMatch::Any => Vec::new(),
        PeerMatch::Pods(set) | PeerMatch::Nodes(set) | PeerMatch::Cidrs(set) => match set.1 {
            Family::V4 => tuple_source_in_set::<Ipv4Addr>(peer_is, &set.0),
            Family::V6 => tuple_source_in_set::<Ipv6Addr>(peer_is, &set.0),
        },
    };
    match &asked.port {
        PortMatch::Any => vec![rule([peer, then])],
        PortMatch::Protocol(protocol) => vec![rule([l4proto(protocol.number()), peer, then])],
        PortMatch::Named(protocol, set) => {
            let server = match set.1 {
                Family::V4 => server_and_port_in_set::<Ipv4Addr>(&set.0),
                Family::V6 => server_and_port_in_set::<Ipv6Addr>(&set.0),
            };
            vec![rule([l4proto(protocol.number()), peer, server, then])]
        }
        PortMatch::Ranges(protocol, ranges) => ranges
            .iter()
            .map(|range| {
                let port = server_port(range.first, range.last);
                rule([l4proto(protocol.number()), peer.clone(), port, then.clone()])
            })
            .collect(),
    }
}
