//! A cluster with both families: what holds for IPv4 holds for IPv6, seen by real packets.

mod net_common;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::time::Duration;

use kernel::conntrack;
use kernel::netlink::{Batch, Family, Socket};
use net_common::*;
use node::net::fabric::Fabric;
use node::net::{HostPort, NamedPort, Protocol};
use policy::network_policy::Event;
use testkit::net::{GRACE, Netns, PATIENCE, echoes, udp_datagram, udp_echoes};
use testkit::wire::{Shot, Wire, ip_packet, pseudo_checksum};

fn v6(ip: Ipv6Addr, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(ip, port, 0, 0)
}

fn node_ip6(node: &Node) -> Ipv6Addr {
    node.addresses.v6.unwrap().node_ip
}

fn addresses6(netns: &Netns) -> Vec<String> {
    let mut socket = netns.route_socket().unwrap();
    let all = kernel::route::addresses::<Ipv6Addr>(&mut socket).unwrap();
    all.into_iter().map(|a| format!("{}/{}", a.address, a.prefix)).collect()
}

#[test]
fn pods_have_the_addresses_they_were_given_and_no_other() {
    needs_root!("pods_have_the_addresses_they_were_given_and_no_other");
    let cluster = Cluster::dual(1);
    let node = &cluster.nodes[0];
    let a = cluster.pod(0, pod("foo", "a", &[]));
    assert_eq!(a.ip6.unwrap().to_string(), "fd00:cf:244:1::2", "the number that it has in IPv4's block");
    assert_eq!(addresses6(&a.netns), ["::1/128".to_string(), format!("{}/128", a.ip6.unwrap())]);
    assert_eq!(addresses6(&node.netns), ["::1/128", "fd00:cf:88::2/128"], "no fe80:: on any link");
    let alone = Cluster::new(1);
    let b = alone.pod(0, pod("foo", "b", &[]));
    assert_eq!(b.ip6, None);
    assert_eq!(addresses6(&b.netns), [""; 0]);
    assert_eq!(addresses6(&alone.nodes[0].netns), [""; 0]);
    assert_eq!(node.net.verify().unwrap(), [""; 0]);
}

#[test]
fn the_first_packets_of_a_pod_pass_in_both_families_across_nodes() {
    needs_root!("the_first_packets_of_a_pod_pass_in_both_families_across_nodes");
    let cluster = Cluster::dual(2);
    let near = cluster.pod(0, pod("foo", "near", &[]));
    let far = cluster.pod(1, pod("foo", "far", &[]));
    for server in [&near, &far] {
        server.netns.echo(&[80], &[53]).unwrap();
    }
    for i in 0..10 {
        let new = cluster.pod(0, pod("foo", &format!("new-{i}"), &[]));
        for server in [&far, &near] {
            for (to, own) in server.each(80).into_iter().zip(new.ips()) {
                // A lost SYN, or a lost answer, costs a second.
                let mut stream = new.netns.connect(to, Duration::from_millis(900)).unwrap();
                assert!(echoes(&mut stream, PATIENCE));
                assert_eq!(
                    stream.local_addr().unwrap().ip(),
                    own,
                    "nobody is translated inside of the cluster"
                );
            }
            for to in server.each(53) {
                assert!(udp_echoes(&new.netns.udp(to).unwrap(), PATIENCE));
            }
        }
    }
    // Nodes and their pods, and a pod and itself.
    for node in &cluster.nodes {
        assert!(node.netns.connects(near.at6(80)) && node.netns.connects(far.at6(80)));
    }
    assert!(near.netns.connects(near.at6(80)));
}

#[test]
fn host_ports_lead_to_the_pod_in_the_families_of_their_host_ip() {
    needs_root!("host_ports_lead_to_the_pod_in_the_families_of_their_host_ip");
    let cluster = Cluster::dual(2);
    let node = &cluster.nodes[0];
    let (ip4, ip6) = (node.addresses.v4.node_ip, node_ip6(node));
    let port = |host_ip: Option<IpAddr>, protocol, host_port, container_port| HostPort {
        host_ip,
        protocol,
        host_port,
        container_port,
    };
    let mut server = pod("foo", "server", &[]);
    server.host_ports = vec![
        port(None, Protocol::Tcp, 9000, 80),
        port(None, Protocol::Udp, 9000, 53),
        port(Some(ip6.into()), Protocol::Tcp, 9001, 80),
        port(Some("::".parse().unwrap()), Protocol::Tcp, 9002, 80),
        port(Some("0.0.0.0".parse().unwrap()), Protocol::Tcp, 9003, 80),
    ];
    let server = cluster.pod(0, server);
    server.netns.echo(&[80], &[53]).unwrap();
    let (near, far) = (cluster.pod(0, pod("foo", "near", &[])), cluster.pod(1, pod("foo", "far", &[])));
    for from in [&far.netns, &near.netns, &node.netns, &cluster.nodes[1].netns, &server.netns] {
        for (port, on_v4, on_v6) in [
            (9000, true, true),
            (9001, false, true),
            (9002, false, true),
            (9003, true, false),
            (80, false, false),
        ] {
            for (ip, open) in [(IpAddr::from(ip4), on_v4), (ip6.into(), on_v6)] {
                let connected = from.connect(SocketAddr::new(ip, port), PATIENCE);
                assert_eq!(connected.is_ok(), open, "{ip} {port}: {connected:?}");
                assert!(connected.map_or(true, |mut stream| echoes(&mut stream, PATIENCE)));
            }
        }
        assert!(udp_echoes(&from.udp(v6(ip6, 9000)).unwrap(), PATIENCE));
    }
    // The other node does not answer, and one family's port may be another pod's in the other family.
    assert!(far.netns.connect(v6(node_ip6(&cluster.nodes[1]), 9000), PATIENCE).is_err());
    let mut second = pod("foo", "second", &[]);
    second.host_ports = vec![port(Some("::".parse().unwrap()), Protocol::Tcp, 9003, 81)];
    let second = cluster.pod(0, second);
    second.netns.echo(&[81], &[]).unwrap();
    assert!(far.netns.connects(v6(ip6, 9003)) && far.netns.connects(SocketAddr::new(ip4.into(), 9003)));
    node.net.detach(&server.net.uid).unwrap();
    assert!(far.netns.connect(v6(ip6, 9000), GRACE).is_err());
}

/// The ends of the wire: `a` and `b` on the first node, `far` on the second, then the first node itself.
fn wire(cluster: &Cluster, pods: &[&Pod]) -> Wire {
    let nodes = [&cluster.nodes[0], &cluster.nodes[1]];
    let mut ends: Vec<&Netns> = pods.iter().map(|pod| &pod.netns).collect();
    ends.push(&nodes[0].netns);
    Wire::new(&ends, nodes.map(|node| (&node.netns, node.addresses.v4.node_ip))).unwrap()
}

fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(rest);
    let sum = pseudo_checksum(source.into(), destination.into(), 58, &message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// Routes, addresses and neighbours of a namespace's IPv6.
fn state6(netns: &Netns) -> String {
    let mut socket = netns.route_socket().unwrap();
    let routes = kernel::route::routes::<Ipv6Addr>(&mut socket).unwrap();
    let neighbours = netns.run(|| std::process::Command::new("ip").args(["-6", "neigh"]).output());
    let neighbours = neighbours.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    format!("{routes:?} {:?} {}", addresses6(netns), neighbours.unwrap_or_default())
}

#[test]
fn a_pod_sends_with_its_own_ipv6_address_only_and_teaches_its_node_nothing() {
    needs_root!("a_pod_sends_with_its_own_ipv6_address_only_and_teaches_its_node_nothing");
    let cluster = Cluster::dual(2);
    let node = &cluster.nodes[0];
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[]));
    let far = cluster.pod(1, pod("foo", "far", &[]));
    // root in a pod can give itself any address, also a link-local one.
    let (extra, link_local) =
        ("fd00:cf:244:1::77".parse::<Ipv6Addr>().unwrap(), "fe80::2".parse::<Ipv6Addr>().unwrap());
    let mut inside = a.netns.route_socket().unwrap();
    let eth0 = kernel::route::index_of(&mut inside, "eth0").unwrap().unwrap();
    let mut batch = Batch::new();
    kernel::route::add_address(&mut batch, eth0, extra, 128);
    kernel::route::add_address(&mut batch, eth0, link_local, 64);
    inside.request(&batch).unwrap();
    let wire = wire(&cluster, &[&a, &b, &far]);
    let own = a.ip6.unwrap();
    let before = state6(&node.netns);
    wire.settle().unwrap();
    for end in 0..4 {
        wire.packets(end).unwrap();
    }
    let at_node = node.netns.run(|| std::net::UdpSocket::bind("[::]:9")).unwrap();
    at_node.set_nonblocking(true).unwrap();
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let lies = [b.ip6.unwrap(), far.ip6.unwrap(), extra, link_local, node_ip6(node), Ipv6Addr::LOCALHOST];
    for (target, end) in [(b.ip6.unwrap(), 1), (far.ip6.unwrap(), 2), (node_ip6(node), 3)] {
        for source in lies {
            let datagram = udp_datagram(v6(source, 1), v6(target, 9), b"lie");
            wire.send_raw(0, target.into(), &ip_packet(source.into(), target.into(), 17, &datagram)).unwrap();
        }
        // The control: the same way with the pod's own address arrives, and nothing else does.
        let datagram = udp_datagram(v6(own, 1), v6(target, 9), b"true");
        wire.send_raw(0, target.into(), &ip_packet(own.into(), target.into(), 17, &datagram)).unwrap();
        wire.settle().unwrap();
        let arrived: Vec<IpAddr> = match end {
            // What comes over a node's link is captured before it is judged: here a socket says what got through.
            3 => {
                let mut buffer = [0; 16];
                std::iter::from_fn(|| at_node.recv_from(&mut buffer).ok())
                    .map(|(_, from)| from.ip())
                    .collect()
            }
            _ => {
                let packets = wire.packets(end).unwrap();
                let datagrams = packets.iter().filter(|packet| packet[0] >> 4 == 6 && packet[6] == 17);
                let source = |packet: &Vec<u8>| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap());
                datagrams.map(|packet| source(packet).into()).collect()
            }
        };
        assert_eq!(arrived, [IpAddr::from(own)], "at {target}");
    }
    // Router and neighbour advertisements, redirects, and answers that nobody asked for: to the node, to everyone on the
    // link, and to another pod. They come to the node's link, and end there.
    let mut target = b.ip6.unwrap().octets().to_vec();
    target.extend([2, 1, 2, 0, 0, 0, 0, 9]);
    let advertisement = [&[0x60, 0, 0, 0], &target[..]].concat();
    let redirect = [&[0; 4], &own.octets()[..], &far.ip6.unwrap().octets()].concat();
    let router = [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let messages: [(u8, &[u8]); 5] = [
        (134, &router),
        (136, &advertisement),
        (137, &redirect),
        (135, &advertisement),
        (129, &[0, 7, 0, 1]),
    ];
    for source in [own, link_local] {
        for destination in [all_nodes, node_ip6(node), b.ip6.unwrap()] {
            for (kind, rest) in messages {
                let mut packet = ip_packet(
                    source.into(),
                    destination.into(),
                    58,
                    &icmpv6(source, destination, kind, rest),
                );
                // Neighbour discovery is taken with this hop limit alone.
                packet[7] = 255;
                let sent = wire.send_raw(0, destination.into(), &packet);
                // Multicast needs a link, which this socket does not name: the kernel may refuse.
                assert!(sent.is_ok() || destination == all_nodes, "{sent:?}");
            }
        }
    }
    wire.settle().unwrap();
    let at_b = wire.packets(1).unwrap();
    assert!(at_b.iter().all(|packet| packet[6] != 58 || packet[8..24] != own.octets()), "{at_b:02x?}");
    assert_eq!(state6(&node.netns), before, "the node learned nothing");
    // It still works, and an echo request is no unsolicited answer.
    let ping = icmpv6(own, b.ip6.unwrap(), 128, &[0, 7, 0, 1]);
    let target = b.ip6.unwrap();
    wire.send_raw(0, target.into(), &ip_packet(own.into(), target.into(), 58, &ping)).unwrap();
    wire.settle().unwrap();
    let pings = wire.packets(1).unwrap();
    assert_eq!(pings.iter().filter(|packet| packet[6] == 58 && packet[40] == 128).count(), 1);
}

#[test]
fn extension_headers_and_fragments_do_not_get_around_a_policy() {
    needs_root!("extension_headers_and_fragments_do_not_get_around_a_policy");
    let cluster = Cluster::dual(2);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[("app", "b")]));
    cluster.apply(&[
        namespace("foo", &[]),
        policy(
            "{metadata: {name: dns, namespace: foo}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: \
             [{port: 53, protocol: UDP}]}]}}",
        ),
    ]);
    let wire = wire(&cluster, &[&a, &b]);
    let (from, to) = (a.ip6.unwrap(), b.ip6.unwrap());
    let send = |first: u8, payload: &[u8]| {
        wire.send_raw(0, to.into(), &ip_packet(from.into(), to.into(), first, payload)).unwrap();
    };
    let arrived = || {
        wire.settle().unwrap();
        let packets = wire.packets(1).unwrap();
        packets.into_iter().filter(|packet| packet[0] >> 4 == 6 && packet[8..24] == from.octets()).count()
    };
    arrived();
    const UDP: u8 = 17;
    for (port, expected) in [(54, 0), (53, 1)] {
        let datagram = udp_datagram(v6(from, 4000), v6(to, port), &[7; 64]);
        send(UDP, &datagram);
        assert_eq!(arrived(), expected, "plain to {port}");
        // Destination options, and hop-by-hop options before them, each filled up with PadN.
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        send(60, &[&options(UDP)[..], &datagram].concat());
        assert_eq!(arrived(), expected, "behind destination options to {port}");
        send(0, &[&options(60)[..], &options(UDP), &datagram].concat());
        assert_eq!(arrived(), expected, "behind two option headers to {port}");
        // In fragments, the second of which has no port in it, and which are judged as one.
        let fragment = |offset: u16, more: bool, id: u8| {
            let word = (offset | u16::from(more)).to_be_bytes();
            [UDP, 0, word[0], word[1], 0, 0, port as u8, id]
        };
        send(44, &[&fragment(0, true, 1)[..], &datagram[..24]].concat());
        send(44, &[&fragment(24, false, 1)[..], &datagram[24..]].concat());
        let count = arrived();
        assert!(if expected == 0 { count == 0 } else { count >= 1 }, "in fragments to {port}: {count}");
        // The last fragment alone begins nothing, and one that overlaps another is not put together with it.
        send(44, &[&fragment(24, false, 2)[..], &datagram[24..]].concat());
        let other = udp_datagram(v6(from, 4000), v6(to, 54), &[7; 64]);
        send(44, &[&fragment(0, true, 3)[..], &datagram[..24]].concat());
        send(44, &[&fragment(16, true, 3)[..], &other[..24]].concat());
        send(44, &[&fragment(24, false, 3)[..], &datagram[24..]].concat());
        assert_eq!(arrived(), 0, "overlapping fragments to {port}");
    }
}

#[test]
fn a_policy_change_stops_flows_of_both_families_direct_and_through_host_ports_for_good() {
    needs_root!("a_policy_change_stops_flows_of_both_families_direct_and_through_host_ports_for_good");
    let cluster = Cluster::dual(2);
    let a = cluster.pod(0, pod("foo", "a", &[("app", "a")]));
    let mut server = pod("foo", "b", &[("app", "b")]);
    let port =
        |protocol, host_port, container_port| HostPort { host_ip: None, protocol, host_port, container_port };
    server.host_ports = vec![port(Protocol::Tcp, 9000, 80), port(Protocol::Udp, 9000, 53)];
    let b = cluster.pod(1, server);
    b.netns.echo(&[80], &[53]).unwrap();
    cluster.apply(&[namespace("foo", &[])]);
    let wire = wire(&cluster, &[&a, &b]);
    let deny_b = "{metadata: {name: deny, namespace: foo}, spec: {podSelector: {matchLabels: {app: b}}}}";
    let deny_a = "{metadata: {name: deny, namespace: foo}, spec: {podSelector: {matchLabels: {app: a}}, \
                  policyTypes: [Egress]}}";
    let node = cluster.nodes[1].ips();
    let ways: Vec<(SocketAddr, SocketAddr)> = b
        .ips()
        .into_iter()
        .map(|ip| (SocketAddr::new(ip, 80), SocketAddr::new(ip, 53)))
        .chain(node.into_iter().map(|ip| (SocketAddr::new(ip, 9000), SocketAddr::new(ip, 9000))))
        .collect();
    for deny in [deny_b, deny_a] {
        let mut flows: Vec<_> = ways
            .iter()
            .map(|(tcp, udp)| (a.netns.connect(*tcp, PATIENCE).unwrap(), a.netns.udp(*udp).unwrap()))
            .collect();
        for (stream, socket) in &mut flows {
            assert!(echoes(stream, PATIENCE) && udp_echoes(socket, PATIENCE));
        }
        cluster.apply(&[policy(deny)]);
        for expired in [false, true] {
            if expired {
                // What begins anew must not be the flow turned round, the client taken for the server.
                for node in &cluster.nodes {
                    let mut socket = Socket::open_in(node.netns.fd.as_fd(), Family::Netfilter).unwrap();
                    conntrack::flush(&mut socket).unwrap();
                }
            }
            for (stream, socket) in &mut flows {
                assert!(!udp_echoes(socket, GRACE), "{expired} {:?}", socket.peer_addr());
                assert!(!echoes(stream, GRACE), "{expired} {:?}", stream.peer_addr());
            }
            // Nor does the server's side bring it back: from the middle of TCP's, whose ports are known.
            let back: Vec<Shot> = flows[..2]
                .iter()
                .zip(b.each(80))
                .map(|((stream, _), from)| {
                    let to = stream.local_addr().unwrap();
                    Shot { client: 1, from, server: 0, to, protocol: 6 }
                })
                .collect();
            assert_eq!(wire.follow_up(&back).unwrap(), [false, false], "{expired}");
        }
        cluster.apply(&[Event::RemovePolicy { namespace: "foo".into(), name: "deny".into() }]);
        for (tcp, _) in &ways {
            assert!(a.netns.connects(*tcp), "allowed again at once: {tcp}");
        }
    }
}

#[test]
fn a_terminating_pod_is_guarded_and_not_cut_off_and_its_address_is_not_its_labels() {
    needs_root!("a_terminating_pod_is_guarded_and_not_cut_off_and_its_address_is_not_its_labels");
    let cluster = Cluster::dual(1);
    let node = &cluster.nodes[0];
    let server = cluster.pod(0, pod("foo", "server", &[("app", "server")]));
    server.netns.echo(&[80], &[]).unwrap();
    let friend = cluster.pod(0, pod("foo", "friend", &[("role", "friend")]));
    let stranger = cluster.pod(0, pod("foo", "stranger", &[]));
    cluster.apply(&[
        namespace("foo", &[]),
        policy(
            "{metadata: {name: friends, namespace: foo}, spec: {podSelector: {matchLabels: {app: server}}, ingress: \
             [{from: [{podSelector: {matchLabels: {role: friend}}}]}]}}",
        ),
    ]);
    let reach = |from: &Pod| {
        [server.at(80).into(), server.at6(80).into()]
            .map(|to: SocketAddr| from.netns.connect(to, GRACE).is_ok())
    };
    let mut stream = friend.netns.connect(server.at6(80), PATIENCE).unwrap();
    // Both are gone from the API, but still run here.
    cluster.apply(&[Event::RemovePod(server.net.uid.clone()), Event::RemovePod(friend.net.uid.clone())]);
    assert!(echoes(&mut stream, PATIENCE), "not cut off");
    assert_eq!((reach(&friend), reach(&stranger)), ([true, true], [false, false]));
    // A pod elsewhere that ended still stands in the API with the address that a younger one has now.
    let mut old = friend.record();
    old.uid = "old".into();
    old.created = "2026-01-01T00:00:00Z".into();
    old.addresses = stranger.ips();
    cluster.nodes[0].net.apply(vec![Event::UpsertPod(old)]).unwrap();
    assert_eq!(reach(&stranger), [false, false], "the address is the stranger's");
    // A pod that starts anew with other addresses: the old ones are nobody's.
    node.net.detach(&friend.net.uid).unwrap();
    let again = cluster.pod(0, pod("foo", "friend", &[("role", "friend")]));
    assert_ne!(again.ips(), friend.ips());
    assert_eq!((reach(&again), reach(&friend)), ([true, true], [false, false]));
    assert_eq!(node.net.verify().unwrap(), [""; 0]);
}

#[test]
fn what_we_write_in_both_families_lists_and_loads_with_nft_and_a_restart_keeps_it() {
    needs_root!("what_we_write_in_both_families_lists_and_loads_with_nft_and_a_restart_keeps_it");
    let mut cluster = Cluster::dual(1);
    let mut server = pod("foo", "server", &[("app", "server")]);
    server.named_ports = vec![NamedPort { name: "web".into(), protocol: Protocol::Sctp, port: 80 }];
    let port =
        |host_ip, host_port| HostPort { host_ip, protocol: Protocol::Sctp, host_port, container_port: 80 };
    server.host_ports = vec![port(None, 9000), port(Some("fd00:cf:88::2".parse().unwrap()), 9001)];
    let server = cluster.pod(0, server);
    let rules = "
metadata: { name: everything, namespace: foo }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {}
    - ipBlock: { cidr: 'fd00::/8', except: ['fd00:cf:244:1::/64'] }
    ports: [{ port: web, protocol: SCTP }, { port: 5000, endPort: 5010, protocol: UDP }]
  egress: [{}]";
    let known = || vec![namespace("foo", &[]), policy(rules)];
    cluster.apply(&known());
    let node = &cluster.nodes[0];
    let listed = node.nft(&["list", "ruleset"]);
    for words in [
        "meta l4proto sctp ct original ip6 saddr @pods-",
        "ct reply ip6 saddr . ct reply proto-src @port-",
        "meta l4proto udp ct original ip6 saddr @cidr-",
        "sctp . 9000 : fd00:cf:244:1::2 . 80",
        "fd00:cf:88::2 . sctp . 9001 : fd00:cf:244:1::2 . 80",
        "fd00:cf:244:1::2 : jump ingress-",
        "ct original ip6 saddr vmap @egress6",
        "reject with icmpv6 port-unreachable",
        "dnat ip6 to",
    ] {
        assert!(listed.contains(words), "{words:?} is not in\n{listed}");
    }
    let fabric = Netns { fd: cluster.fabric.netns().try_clone_to_owned().unwrap() };
    let rules_of_fabric = nft(&fabric, &["list", "ruleset"]);
    assert!(rules_of_fabric.contains("fib saddr . iif oif"), "{rules_of_fabric}");
    let path = std::env::temp_dir().join(format!("cofferdam-dual-{}.nft", std::process::id()));
    std::fs::write(&path, format!("flush ruleset\n{listed}")).unwrap();
    node.nft(&["-f", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(node.net.verify().unwrap(), [""; 0], "the same bytes again");
    assert_eq!(node.nft(&["list", "ruleset"]), listed);

    let Node { netns, addresses, net, events } = cluster.nodes.remove(0);
    drop((net, events));
    let (net, _events) = start(&netns, &addresses);
    let given = net.adopt(server.net.clone()).unwrap().unwrap();
    assert_eq!(given.all(), server.ips());
    net.adopted().unwrap();
    let mut record = server.record();
    record.local = true;
    net.apply([known(), vec![Event::UpsertPod(record)]].concat()).unwrap();
    assert_eq!(net.verify().unwrap(), [""; 0]);
    assert_eq!(nft(&netns, &["list", "ruleset"]), listed, "nothing changed");
}

#[test]
fn pods_reach_the_world_by_ipv6_as_the_machine_which_gets_back_what_it_had() {
    needs_root!("pods_reach_the_world_by_ipv6_as_the_machine_which_gets_back_what_it_had");
    use kernel::route::netns::{read_sysctl, write_sysctl};
    use kernel::route::{Mac, Net, Route, VethEnd};
    let machine = machine();
    let world = Netns::new().unwrap();
    let [here, there]: [Ipv6Addr; 2] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
    let mut socket = machine.route_socket().unwrap();
    let mut batch = Batch::new();
    let end = |last| VethEnd { name: "eth0", mac: Mac([2, 0, 0, 0, 0, last]), netns: None };
    let peer = VethEnd { netns: Some(world.fd.as_fd()), ..end(2) };
    kernel::route::add_veth(&mut batch, end(1), peer, 1500);
    socket.request(&batch).unwrap();
    let mut outside = world.route_socket().unwrap();
    for (socket, own, other, mac) in [(&mut socket, here, there, 2), (&mut outside, there, here, 1)] {
        let link = kernel::route::index_of(socket, "eth0").unwrap().unwrap();
        let mut batch = Batch::new();
        kernel::route::set_up(&mut batch, link);
        kernel::route::add_address(&mut batch, link, own, 64);
        kernel::route::add_local_route(&mut batch, link, own);
        kernel::route::replace_neighbour(&mut batch, link, other, Mac([2, 0, 0, 0, 0, mac]));
        socket.request(&batch).unwrap();
    }
    const SYSCTLS: [&str; 4] = [
        "net/ipv6/conf/all/forwarding",
        "net/ipv6/conf/eth0/accept_ra",
        "net/ipv6/conf/default/accept_ra",
        "net/ipv4/ip_forward",
    ];
    let sysctls = || machine.run(|| SYSCTLS.map(|name| read_sysctl(name).unwrap()));
    machine.run(|| write_sysctl("net/ipv6/conf/all/forwarding", "0")).unwrap();
    // Without a default route the machine has no way out by IPv6: said, and its IPv6 is left alone.
    let before = sysctls();
    let fabric = machine.run(|| Fabric::create(config("none", Families::Dual))).unwrap();
    assert!(fabric.warnings.iter().any(|line| line.contains("by IPv6")), "{:?}", fabric.warnings);
    assert_eq!(sysctls()[..3], before[..3]);
    machine.run(|| Fabric::teardown("none")).unwrap();
    drop(fabric);

    let link = kernel::route::index_of(&mut socket, "eth0").unwrap().unwrap();
    let mut batch = Batch::new();
    kernel::route::replace_route(
        &mut batch,
        Route { to: Net::everything(), link, via: Some(there), source: None },
    );
    socket.request(&batch).unwrap();
    let rules = nft(&machine, &["list", "ruleset"]);
    let made = ["one", "two"].map(|id| {
        let fabric = machine.run(|| Fabric::create(config(id, Families::Dual))).unwrap();
        assert_eq!(fabric.warnings, [""; 0]);
        let node = Node::new(&fabric, 1);
        node.net.adopted().unwrap();
        node.net.apply(Vec::new()).unwrap();
        let pod = node.pod(pod("foo", "a", &[]));
        (fabric, node, pod)
    });
    // A router takes no advertisements, unless it is told to: the machine keeps the default route it got so.
    assert_eq!(sysctls()[..3], ["1", "2", "2"]);
    let listener = world.run(|| std::net::TcpListener::bind("[::]:443")).unwrap();
    for (_, node, pod) in &made {
        for from in [&pod.netns, &node.netns] {
            let stream = from.connect(v6(there, 443), PATIENCE).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), IpAddr::from(here));
            drop(stream);
        }
        // What listens on the machine is not a neighbour of the pods, and what nobody has does not leak out.
        assert!(pod.netns.connect(v6(here, 22), PATIENCE).is_err());
        for inside in ["fd00:cf:96::1", "fd00:cf:244:9::9", "fd00:cf:88::77"] {
            let refused = pod.netns.connect(v6(inside.parse().unwrap(), 80), PATIENCE).unwrap_err();
            assert_ne!(refused.kind(), std::io::ErrorKind::TimedOut, "{inside}: {refused}");
        }
    }
    machine.run(|| Fabric::teardown("one")).unwrap();
    assert!(made[1].2.netns.connects(v6(there, 443)), "the second keeps its way out");
    machine.run(|| Fabric::teardown("two")).unwrap();
    assert_eq!(sysctls(), before);
    assert_eq!(nft(&machine, &["list", "ruleset"]), rules);
}
