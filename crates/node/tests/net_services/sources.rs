//! `loadBalancerSourceRanges`: who comes to the addresses that a load balancer gave.

use std::net::Ipv6Addr;

use node::net::{Guarded, Protocol};
use policy::network_policy::ir::Cidr;
use testkit::net::{GRACE, PATIENCE, ask_udp};

use super::*;

const CLUSTER_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xcf, 0x96, 0, 0, 0, 0, 7);
const EXTERNAL_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 1);
const FRIEND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 101, 7);
const FRIEND6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 7);
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 4, 0, 0, 0, 7);
/// A length within a byte, one at its border, a single address.
const RANGES: &[&str] = &["198.51.100.0/25", "203.0.113.0/24", "192.0.2.77/32", "2001:db8:1:2::/63"];

/// A pod with one server on each node, in both families; clients from outside have the addresses above.
struct Balanced {
    cluster: Cluster,
    servers: Vec<Pod>,
    outside: Netns,
}

impl Balanced {
    fn new() -> Balanced {
        let cluster = Cluster::dual(2);
        let servers: Vec<Pod> =
            (0..2).map(|node| cluster.pod(node, pod("foo", &format!("on-{node}"), &[]))).collect();
        for server in &servers {
            server.netns.tell(&server.net.name, &[8080], &[8080]).unwrap();
        }
        let outside = cluster.outside();
        let mut socket = outside.route_socket().unwrap();
        let lo = kernel::route::index_of(&mut socket, "lo").unwrap().unwrap();
        let mut batch = kernel::netlink::Batch::new();
        for (address, address6) in [(FRIEND, FRIEND6), (STRANGER, STRANGER6)] {
            kernel::route::add_address(&mut batch, lo, address, 32);
            kernel::route::add_local_route(&mut batch, lo, address);
            kernel::route::add_address(&mut batch, lo, address6, 128);
            kernel::route::add_local_route(&mut batch, lo, address6);
        }
        kernel::route::set_up(&mut batch, lo);
        socket.request(&batch).unwrap();
        drop(socket);
        Balanced { cluster, servers, outside }
    }

    /// `local`: `externalTrafficPolicy`.
    fn serve(&self, ranges: &[&str], local: bool) {
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
                [true, false].map(|v4| self.port(protocol, v4, ranges, local.then_some(index)))
            });
            node.net.change_services(service(ports.concat())).unwrap();
        }
    }

    fn port(&self, protocol: Protocol, v4: bool, ranges: &[&str], here: Option<usize>) -> ServicePort {
        let at = |server: &Pod| match v4 {
            true => SocketAddr::V4(server.at(8080)),
            false => SocketAddr::V6(server.at6(8080)),
        };
        let all = Backends::of(self.servers.iter().map(at));
        let outside = here.map_or(all.clone(), |node| Backends::of([at(&self.servers[node])]));
        let (cluster_ip, external): (IpAddr, IpAddr) = match v4 {
            true => (CLUSTER_IP.into(), EXTERNAL_IP.into()),
            false => (CLUSTER_IP6.into(), EXTERNAL_IP6.into()),
        };
        let ranges = ranges.iter().map(|range| Cidr::parse(range).unwrap());
        let ranges: BTreeSet<Cidr> = ranges.filter(|range| range.network.is_ipv4() == v4).collect();
        let external_ips = BTreeSet::from([external]);
        let guarded = Some(Guarded { addresses: external_ips.clone(), ranges });
        ServicePort {
            cluster_ip,
            external_ips,
            guarded,
            inside: all.clone(),
            outside,
            all,
            ..port(protocol, &[])
        }
    }

    /// From now on what goes to the balancer's addresses comes to that node, from there.
    fn come_as(&self, node: usize, source: Ipv4Addr, source6: Ipv6Addr) {
        let addresses = &self.cluster.nodes[node].addresses;
        route_by(&self.outside, EXTERNAL_IP, addresses.v4.node_ip, Some(source));
        route_by(&self.outside, EXTERNAL_IP6, addresses.v6.unwrap().node_ip, Some(source6));
    }
}

fn balancer() -> [SocketAddr; 2] {
    [SocketAddr::from((EXTERNAL_IP, 80)), SocketAddr::from((EXTERNAL_IP6, 80))]
}

/// Who answers, over TCP and over UDP; None where the packet is dropped, so that nobody hears of it.
fn asked(from: &Netns, to: SocketAddr) -> [Option<(String, IpAddr)>; 2] {
    let tcp = match from.connect(to, 4 * GRACE) {
        Ok(stream) => {
            drop(stream);
            Some(from.ask(to).unwrap())
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{to}: dropped, not refused");
            None
        }
    };
    let socket = from.udp(to).unwrap();
    let patience = if tcp.is_some() { PATIENCE } else { GRACE };
    let udp = match ask_udp(&socket, patience) {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert_ne!(error.kind(), io::ErrorKind::ConnectionRefused, "{to}: dropped, not refused");
            None
        }
    };
    [tcp, udp]
}

#[test]
fn only_sources_in_the_ranges_come_to_a_balancers_address() {
    needs_root!("only_sources_in_the_ranges_come_to_a_balancers_address");
    let balanced = Balanced::new();
    let cluster = &balanced.cluster;
    let friend = [IpAddr::from(FRIEND), IpAddr::from(FRIEND6)];
    for local in [false, true] {
        balanced.serve(RANGES, local);
        for node in 0..2 {
            let what =
                format!("node {node}, externalTrafficPolicy {}", if local { "Local" } else { "Cluster" });
            balanced.come_as(node, FRIEND, FRIEND6);
            for (to, from) in balancer().into_iter().zip(friend) {
                for answer in asked(&balanced.outside, to) {
                    let (name, seen) = answer.unwrap_or_else(|| panic!("{what}: {to} drops who may come"));
                    if local {
                        assert_eq!((name, seen), (format!("on-{node}"), from), "{what}");
                    }
                }
            }
            balanced.come_as(node, STRANGER, STRANGER6);
            for to in balancer() {
                assert_eq!(asked(&balanced.outside, to), [None, None], "{what}: {to} lets strangers in");
            }
            // The node's port and the cluster's address are open as ever.
            let of = &cluster.nodes[node].addresses;
            for ip in [IpAddr::V4(of.v4.node_ip), IpAddr::V6(of.v6.unwrap().node_ip)] {
                let to = SocketAddr::new(ip, NODE_PORT);
                assert!(asked(&balanced.outside, to).iter().all(Option::is_some), "{what}: {to}");
            }
            let client = &balanced.servers[node].netns;
            for to in [SocketAddr::from((CLUSTER_IP, 80)), SocketAddr::from((CLUSTER_IP6, 80))] {
                assert!(asked(client, to).iter().all(Option::is_some), "{what}: {to}");
            }
            // A pod and a node are sources like others.
            for from in [client, &cluster.nodes[node].netns] {
                for to in balancer() {
                    assert_eq!(asked(from, to), [None, None], "{what}: {to} from inside");
                }
            }
        }
    }
    for node in &cluster.nodes {
        assert_eq!(node.net.verify().unwrap(), [""; 0]);
    }
}

#[test]
fn ranges_come_change_and_go_with_their_service() {
    needs_root!("ranges_come_change_and_go_with_their_service");
    let balanced = Balanced::new();
    let node = &balanced.cluster.nodes[0];
    let tables = || nft(&node.netns, &["list", "ruleset"]);
    let has_nft = std::process::Command::new("nft").arg("--version").output().is_ok();
    let empty = has_nft.then(tables);
    balanced.come_as(0, FRIEND, FRIEND6);
    let flow = balanced.outside.udp(balancer()[0]).unwrap();
    let pods = ["10.244.0.0/16", "fd00:cf:244::/56"];
    let nodes = ["10.88.0.0/24", "fd00:cf:88::/64"];
    // (ranges, who gets through in each family: friend, pod, node)
    let steps: [(&[&str], [[bool; 2]; 3]); 6] = [
        (&["198.51.100.7/32"], [[true, false], [false; 2], [false; 2]]),
        (&["198.51.100.8/32", "2001:db8:1::/48"], [[false, true], [false; 2], [false; 2]]),
        (&pods, [[false; 2], [true; 2], [false; 2]]),
        (&nodes, [[false; 2], [false; 2], [true; 2]]),
        (RANGES, [[true; 2], [false; 2], [false; 2]]),
        // The other family's alone.
        (&["2001:db8::/32"], [[false, true], [false; 2], [false; 2]]),
    ];
    for (ranges, expected) in steps {
        balanced.serve(ranges, false);
        // An open flow goes by it too.
        let patience = if expected[0][0] { PATIENCE } else { GRACE };
        assert_eq!(ask_udp(&flow, patience).is_ok(), expected[0][0], "{ranges:?}");
        let clients = [&balanced.outside, &balanced.servers[0].netns, &node.netns];
        for (client, expected) in clients.into_iter().zip(expected) {
            for (to, expected) in balancer().into_iter().zip(expected) {
                let answers = asked(client, to).map(|answer| answer.is_some());
                assert_eq!(answers, [expected; 2], "{ranges:?}: {to}");
            }
        }
        assert_eq!(node.net.verify().unwrap(), [""; 0], "{ranges:?}");
    }
    if let Some(empty) = empty {
        balanced.serve(RANGES, false);
        let text = tables();
        for expected in [
            "meta mark set ip daddr . meta l4proto . th dport map @services-sources jump sources",
            "meta mark . ip saddr & 255.255.255.128 @sources-25 return",
            "meta mark . ip saddr @sources-32 return",
            "meta mark . ip6 saddr & ffff:ffff:ffff:fffe:: @sources6-63 return",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        node.net.set_services(Vec::new()).unwrap();
        assert_eq!(tables(), empty, "nothing stays");
    }
}

/// Two Services of one address: the one that has it says who may come.
#[test]
fn an_address_is_guarded_by_the_service_that_has_it() {
    needs_root!("an_address_is_guarded_by_the_service_that_has_it");
    let balanced = Balanced::new();
    balanced.come_as(0, STRANGER, STRANGER6);
    let guarded = balanced.port(Protocol::Tcp, true, RANGES, None);
    let open =
        ServicePort { guarded: None, cluster_ip: [10, 96, 0, 8].into(), node_port: None, ..guarded.clone() };
    let change = |name: &str, port: &ServicePort| ServiceChange {
        name: ("foo".to_string(), name.to_string()),
        ports: vec![port.clone()],
    };
    let net = &balanced.cluster.nodes[0].net;
    let comes = || balanced.outside.connect(balancer()[0], 4 * GRACE).is_ok();
    net.set_services(vec![change("a", &open), change("b", &guarded)]).unwrap();
    assert!(comes());
    net.set_services(vec![change("a", &guarded), change("b", &open)]).unwrap();
    assert!(!comes());
    assert_eq!(net.verify().unwrap(), [""; 0]);
}

#[test]
fn an_agent_that_restarts_leaves_no_gap() {
    needs_root!("an_agent_that_restarts_leaves_no_gap");
    let mut balanced = Balanced::new();
    balanced.serve(RANGES, false);
    let Node { netns, addresses, net, events } = balanced.cluster.nodes.remove(0);
    drop((net, events));
    let (net, events) = start(&netns, &addresses);
    for server in &balanced.servers[..1] {
        net.adopt(server.net.clone()).unwrap().unwrap();
    }
    net.adopted().unwrap();
    net.apply(Vec::new()).unwrap();
    balanced.cluster.nodes.insert(0, Node { netns, addresses, net, events });
    balanced.come_as(0, STRANGER, STRANGER6);
    for to in balancer() {
        assert_eq!(asked(&balanced.outside, to), [None, None], "{to}: before Services are known again");
    }
    balanced.come_as(0, FRIEND, FRIEND6);
    for to in balancer() {
        assert!(asked(&balanced.outside, to).iter().all(Option::is_some), "{to}");
    }
    assert_eq!(balanced.cluster.nodes[0].net.verify().unwrap(), [""; 0]);
}

/// Some balancers' controllers give the address to a node: what it sends there has that address as its source.
#[test]
fn a_node_that_has_the_balancers_address_reaches_it_where_nodes_may() {
    needs_root!("a_node_that_has_the_balancers_address_reaches_it_where_nodes_may");
    let balanced = Balanced::new();
    let node = &balanced.cluster.nodes[0];
    let mut socket = node.netns.route_socket().unwrap();
    let lo = kernel::route::index_of(&mut socket, "lo").unwrap().unwrap();
    let mut batch = kernel::netlink::Batch::new();
    kernel::route::add_address(&mut batch, lo, EXTERNAL_IP, 32);
    kernel::route::add_local_route(&mut batch, lo, EXTERNAL_IP);
    socket.request(&batch).unwrap();
    let to = balancer()[0];
    for (ranges, expected) in [("10.88.0.0/24", true), ("198.51.100.0/24", false)] {
        // To a pod of this node: nobody else would send an answer to that address here.
        let port = balanced.port(Protocol::Tcp, true, &[ranges], Some(0));
        let all = port.outside.clone();
        node.net.change_services(service(vec![ServicePort { all, ..port }])).unwrap();
        let guarded = node.netns.connect(to, 4 * GRACE);
        assert_eq!(guarded.is_ok(), expected, "{ranges}: {guarded:?}");
    }
}
