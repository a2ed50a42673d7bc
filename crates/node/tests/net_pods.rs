//! Pods' links and rules, seen by real packets.

mod net_common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;

use kernel::conntrack;
use kernel::netlink::{Batch, Family, Socket};
use net_common::*;
use node::net::NetError;
use policy::network_policy::Event;
use testkit::net::{
    ACK, FIN, GRACE, Netns, PATIENCE, SYN, echoes, icmp, tcp_segment, udp_datagram, udp_echoes,
};

fn delete_policy(name: &str) -> Event {
    Event::RemovePolicy { namespace: "foo".into(), name: name.into() }
}

#[test]
fn two_pods_of_a_node_and_one_of_another_talk() {
    needs_root!("two_pods_of_a_node_and_one_of_another_talk");
    let cluster = Cluster::new(2);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[]));
    let c = cluster.pod(1, pod("foo", "c", &[]));
    for server in [&a, &b, &c] {
        server.netns.echo(&[80], &[53]).unwrap();
    }
    for (from, to) in [(&a, &b), (&a, &c), (&c, &b)] {
        let mut stream = from.netns.connect(to.at(80), PATIENCE).unwrap();
        assert!(echoes(&mut stream, PATIENCE));
        assert_eq!(stream.local_addr().unwrap().ip(), from.ip, "no pod is translated inside of the cluster");
        assert!(udp_echoes(&from.netns.udp(to.at(53)).unwrap(), PATIENCE));
    }
    assert_eq!(cluster.nodes[0].net.verify().unwrap(), [""; 0]);
}

#[test]
fn a_pod_sends_with_its_own_address_only() {
    needs_root!("a_pod_sends_with_its_own_address_only");
    let cluster = Cluster::new(2);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[]));
    let c = cluster.pod(0, pod("foo", "c", &[]));
    let far = cluster.pod(1, pod("foo", "far", &[]));
    // root in a pod can give itself any address.
    let extra = Ipv4Addr::new(10, 244, 1, 77);
    let mut inside = a.netns.route_socket().unwrap();
    let eth0 = kernel::route::index_of(&mut inside, "eth0").unwrap().unwrap();
    let mut batch = Batch::new();
    kernel::route::add_address(&mut batch, eth0, extra, 32);
    inside.request(&batch).unwrap();

    let raw = a.netns.raw_sender().unwrap();
    for target in [&b, &far] {
        let sniffer = target.netns.sniffer(17).unwrap();
        let node = cluster.nodes[0].addresses.v4.node_ip;
        for (port, source) in [(1, c.ip), (2, extra), (3, far.ip), (4, node), (5, Ipv4Addr::LOCALHOST)] {
            let from = SocketAddrV4::new(source, port);
            raw.send(source, target.ip, 17, &udp_datagram(from, target.at(9), b"lie")).unwrap();
        }
        // The control: the same way with the pod's own address arrives, and nothing before it did.
        raw.send(a.ip, target.ip, 17, &udp_datagram(a.at(6), target.at(9), b"true")).unwrap();
        let first = sniffer.next(PATIENCE, |_| true).expect("the control arrives");
        assert_eq!(first.source, a.ip);
        assert_eq!(sniffer.next(GRACE, |packet| packet.source != a.ip), None);
    }
}

#[test]
fn packets_that_begin_nothing_are_dropped() {
    needs_root!("packets_that_begin_nothing_are_dropped");
    let cluster = Cluster::new(1);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[]));
    let raw = a.netns.raw_sender().unwrap();
    let (tcp, ping) = (b.netns.sniffer(6).unwrap(), b.netns.sniffer(1).unwrap());

    raw.send(a.ip, b.ip, 1, &icmp(0, 7, 1)).unwrap(); // an echo reply nobody asked for
    raw.send(a.ip, b.ip, 1, &icmp(8, 7, 1)).unwrap(); // the control
    let first = ping.next(PATIENCE, |_| true).expect("the control arrives");
    assert_eq!(first.payload[0], 8);

    for (port, flags) in [(1001, SYN | FIN), (1002, ACK), (1003, FIN | ACK), (1004, SYN | ACK)] {
        let from = a.at(port);
        raw.send(a.ip, b.ip, 6, &tcp_segment(from, b.at(80), flags, 1, 1)).unwrap();
    }
    raw.send(a.ip, b.ip, 6, &tcp_segment(a.at(1005), b.at(80), SYN, 1, 0)).unwrap(); // the control
    let first = tcp.next(PATIENCE, |_| true).expect("the control arrives");
    assert_eq!(u16::from_be_bytes([first.payload[0], first.payload[1]]), 1005);
}

#[test]
fn after_a_default_deny_nothing_arrives_but_the_node_probes() {
    needs_root!("after_a_default_deny_nothing_arrives_but_the_node_probes");
    let cluster = Cluster::new(2);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[]));
    let far = cluster.pod(1, pod("bar", "far", &[]));
    b.netns.echo(&[80], &[53]).unwrap();
    cluster.apply(&[namespace("foo", &[]), policy(DENY_INGRESS)]);
    let sniffers = [1, 6, 17].map(|protocol| b.netns.sniffer(protocol).unwrap());
    for from in [&a, &far] {
        let raw = from.netns.raw_sender().unwrap();
        for kind in [0, 3, 5, 8, 11, 13] {
            raw.send(from.ip, b.ip, 1, &icmp(kind, 7, 1)).unwrap();
        }
        for flags in [SYN, SYN | FIN, ACK, SYN | ACK, FIN, 0, 0xff] {
            raw.send(from.ip, b.ip, 6, &tcp_segment(from.at(1000), b.at(80), flags, 1, 1)).unwrap();
        }
        raw.send(from.ip, b.ip, 17, &udp_datagram(from.at(1000), b.at(53), b"x")).unwrap();
    }
    // The kubelet's probes: the node reaches its own pod.
    let node = &cluster.nodes[0];
    assert!(node.netns.connects(b.at(80)));
    for sniffer in &sniffers {
        assert_eq!(sniffer.next(GRACE, |packet| packet.source != node.addresses.v4.node_ip), None);
    }
    // And the pod still reaches others.
    far.netns.echo(&[80], &[]).unwrap();
    assert!(b.netns.connects(far.at(80)));
}

#[test]
fn a_policy_change_stops_established_flows_at_commit_and_for_good() {
    needs_root!("a_policy_change_stops_established_flows_at_commit_and_for_good");
    let cluster = Cluster::new(2);
    let a = cluster.pod(0, pod("foo", "a", &[("app", "a")]));
    let b = cluster.pod(1, pod("foo", "b", &[("app", "b")]));
    b.netns.echo(&[80], &[53]).unwrap();
    cluster.apply(&[namespace("foo", &[])]);
    let deny_b = "{metadata: {name: deny, namespace: foo}, spec: {podSelector: {matchLabels: {app: b}}}}";
    let deny_a = "{metadata: {name: deny, namespace: foo}, spec: {podSelector: {matchLabels: {app: a}}, \
                  policyTypes: [Egress]}}";
    for deny in [deny_b, deny_a] {
        let mut stream = a.netns.connect(b.at(80), PATIENCE).unwrap();
        let socket = a.netns.udp(b.at(53)).unwrap();
        assert!(echoes(&mut stream, PATIENCE) && udp_echoes(&socket, PATIENCE));
        cluster.apply(&[policy(deny)]);
        assert!(!udp_echoes(&socket, GRACE));
        assert!(!echoes(&mut stream, GRACE));
        // After the entries expire a packet from the middle, of either side, must not bring the flow back reversed.
        for node in &cluster.nodes {
            let mut socket = Socket::open_in(node.netns.fd.as_fd(), Family::Netfilter).unwrap();
            conntrack::delete_where(&mut socket, |_| true).unwrap();
        }
        let (tcp, udp) = (a.netns.sniffer(6).unwrap(), a.netns.sniffer(17).unwrap());
        let port = stream.local_addr().unwrap().port();
        let raw = b.netns.raw_sender().unwrap();
        raw.send(b.ip, a.ip, 6, &tcp_segment(b.at(80), a.at(port), ACK, 1, 1)).unwrap();
        assert_eq!(tcp.next(GRACE, |_| true), None);
        assert!(!udp_echoes(&socket, GRACE));
        assert_eq!(udp.next(GRACE, |_| true), None);
        cluster.apply(&[delete_policy("deny")]);
        assert!(a.netns.connects(b.at(80)), "allowed again at once");
    }
}

#[test]
fn egress_rules_hold_towards_the_own_node_and_the_world() {
    needs_root!("egress_rules_hold_towards_the_own_node_and_the_world");
    let cluster = Cluster::new(2);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    for node in &cluster.nodes {
        node.netns.echo(&[10250], &[]).unwrap();
    }
    let (own, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let at = |ip| SocketAddrV4::new(ip, 10250);
    assert!(a.netns.connects(at(own.addresses.v4.node_ip)));
    assert!(a.netns.connects(at(other.addresses.v4.node_ip)));
    cluster.apply(&[namespace("foo", &[]), policy(DENY_ALL)]);
    assert!(a.netns.connect(at(own.addresses.v4.node_ip), GRACE).is_err());
    assert!(a.netns.connect(at(other.addresses.v4.node_ip), GRACE).is_err());
    // What the node itself began is answered.
    a.netns.echo(&[80], &[]).unwrap();
    let mut stream = own.netns.connect(a.at(80), PATIENCE).unwrap();
    assert!(echoes(&mut stream, PATIENCE));
}

#[test]
fn host_ports_lead_to_the_pod_by_protocol_and_address() {
    needs_root!("host_ports_lead_to_the_pod_by_protocol_and_address");
    use node::net::{HostPort, Protocol};
    let cluster = Cluster::new(2);
    let node = &cluster.nodes[0];
    let ip = node.addresses.v4.node_ip;
    let port = |host_ip: Option<Ipv4Addr>, protocol, host_port, container_port| HostPort {
        host_ip: host_ip.map(Into::into),
        protocol,
        host_port,
        container_port,
    };
    let mut server = pod("foo", "server", &[]);
    server.host_ports = vec![
        port(None, Protocol::Tcp, 9000, 80),
        port(None, Protocol::Udp, 9000, 53),
        port(Some(ip), Protocol::Tcp, 9001, 80),
        port(Some(Ipv4Addr::LOCALHOST), Protocol::Tcp, 9002, 80),
        port(Some(Ipv4Addr::new(10, 88, 0, 200)), Protocol::Tcp, 9003, 80),
    ];
    let server = cluster.pod(0, server);
    server.netns.echo(&[80], &[53]).unwrap();
    let client = cluster.pod(1, pod("foo", "client", &[]));
    let near = cluster.pod(0, pod("foo", "near", &[]));
    let at = |ip: Ipv4Addr, port| SocketAddrV4::new(ip, port);

    for from in [&client.netns, &near.netns, &node.netns, &cluster.nodes[1].netns, &server.netns] {
        let mut stream = from.connect(at(ip, 9000), PATIENCE).unwrap();
        assert!(echoes(&mut stream, PATIENCE));
        assert!(from.connects(at(ip, 9001)));
        assert!(udp_echoes(&from.udp(at(ip, 9000)).unwrap(), PATIENCE));
        for closed in [9002, 9003, 80] {
            assert!(from.connect(at(ip, closed), PATIENCE).is_err(), "{closed}");
        }
    }
    let mut through_fabric = cluster.fabric.connect(at(ip, 9000)).unwrap();
    assert!(echoes(&mut through_fabric, PATIENCE));
    // The node's own loopback, and nobody else's.
    assert!(node.netns.connects(at(Ipv4Addr::LOCALHOST, 9000)));
    assert!(node.netns.connects(at(Ipv4Addr::LOCALHOST, 9002)));
    assert!(node.netns.connect(at(Ipv4Addr::LOCALHOST, 9001), PATIENCE).is_err());
    // A node without the pod does not answer.
    assert!(client.netns.connect(at(cluster.nodes[1].addresses.v4.node_ip, 9000), PATIENCE).is_err());

    let mut second = pod("foo", "second", &[]);
    second.host_ports = vec![port(Some(ip), Protocol::Udp, 9000, 1)];
    let netns = Netns::new().unwrap();
    let refused = node.net.prepare(second, &netns.fd, netns.route_fd().unwrap());
    assert!(matches!(&refused, Err(NetError::HostPortInUse(_, user)) if user == "foo/server"), "{refused:?}");

    node.net.detach(&server.net.uid).unwrap();
    assert!(client.netns.connect(at(ip, 9000), GRACE).is_err());
}

#[test]
fn a_neighbour_does_not_reach_the_nodes_loopback() {
    needs_root!("a_neighbour_does_not_reach_the_nodes_loopback");
    let cluster = Cluster::new(1);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let sniffer = cluster.nodes[0].netns.sniffer(17).unwrap();
    // CVE-2020-8558: a packet for 127.0.0.1 that comes over a link, for which a pod needs a route of its own.
    let mut inside = a.netns.route_socket().unwrap();
    let eth0 = kernel::route::index_of(&mut inside, "eth0").unwrap().unwrap();
    a.netns.run(|| kernel::route::netns::write_sysctl("net/ipv4/conf/all/route_localnet", "1")).unwrap();
    let mut batch = Batch::new();
    let to = "127.9.0.0/16".parse().unwrap();
    let via = Some(Ipv4Addr::new(169, 254, 1, 1));
    kernel::route::replace_route(&mut batch, kernel::route::Route { to, link: eth0, via, source: None });
    inside.request(&batch).unwrap();
    let output = a.netns.run(|| {
        std::process::Command::new("ip")
            .args(["route", "del", "local", "127.0.0.0/8", "table", "local"])
            .output()
    });
    assert!(output.unwrap().status.success());
    let raw = a.netns.raw_sender().unwrap();
    let target = Ipv4Addr::new(127, 9, 0, 1);
    raw.send(a.ip, target, 17, &udp_datagram(a.at(1), SocketAddrV4::new(target, 9), b"x")).unwrap();
    let node = cluster.nodes[0].addresses.v4.node_ip;
    raw.send(a.ip, node, 17, &udp_datagram(a.at(2), SocketAddrV4::new(node, 9), b"x")).unwrap();
    let first = sniffer.next(PATIENCE, |packet| packet.source == a.ip).expect("the control arrives");
    assert_eq!(first.destination, node);
}

#[test]
fn named_ports_are_each_servers_own() {
    needs_root!("named_ports_are_each_servers_own");
    use node::net::{NamedPort, Protocol};
    let cluster = Cluster::new(1);
    let server = |name: &str, port| {
        let mut pod = pod("foo", name, &[("app", "server")]);
        pod.named_ports = vec![NamedPort { name: "web".into(), protocol: Protocol::Tcp, port }];
        let pod = cluster.pod(0, pod);
        pod.netns.echo(&[80, 8080], &[]).unwrap();
        pod
    };
    let (one, two) = (server("one", 80), server("two", 8080));
    let client = cluster.pod(0, pod("foo", "client", &[]));
    cluster.apply(&[
        namespace("foo", &[]),
        policy(
            "{metadata: {name: web, namespace: foo}, spec: {podSelector: {matchLabels: {app: server}}, \
             ingress: [{ports: [{port: web}]}]}}",
        ),
    ]);
    for (server, open, closed) in [(&one, 80, 8080), (&two, 8080, 80)] {
        assert!(client.netns.connects(server.at(open)));
        assert!(client.netns.connect(server.at(closed), GRACE).is_err());
    }
    let node = &cluster.nodes[0];
    let listed = node.nft(&["list", "ruleset"]);
    assert!(listed.contains("ct reply proto-src"), "{listed}");
    assert_eq!(node.net.verify().unwrap(), [""; 0]);
}

#[test]
fn a_pod_leaves_nothing_but_a_gap_in_the_addresses() {
    needs_root!("a_pod_leaves_nothing_but_a_gap_in_the_addresses");
    let cluster = Cluster::new(1);
    let node = &cluster.nodes[0];
    let before = node.nft(&["list", "ruleset"]);
    cluster.apply(&[namespace("foo", &[])]);
    let a = node.pod(pod("foo", "a", &[]));
    assert_ne!(node.nft(&["list", "ruleset"]), before);
    let b = node.pod(pod("foo", "b", &[]));
    for gone in [&a, &b] {
        node.net.detach(&gone.net.uid).unwrap();
        node.net.detach(&gone.net.uid).unwrap();
    }
    assert_eq!(node.nft(&["list", "ruleset"]), before);
    assert_eq!(node.net.address(&a.net.uid), None);
    let (first, second) = (a.ip, b.ip);
    drop((a, b));
    let c = node.pod(pod("foo", "c", &[]));
    assert!(c.ip != first && c.ip != second, "no address comes back at once");
}

#[test]
fn no_packet_of_a_new_pod_is_unguarded_and_none_allowed_is_refused() {
    needs_root!("no_packet_of_a_new_pod_is_unguarded_and_none_allowed_is_refused");
    use std::sync::atomic::{AtomicBool, Ordering};
    let cluster = Cluster::new(1);
    let node = &cluster.nodes[0];
    let attacker = cluster.pod(0, pod("foo", "attacker", &[]));
    let friend = cluster.pod(0, pod("foo", "friend", &[("role", "friend")]));
    friend.netns.echo(&[80], &[]).unwrap();
    attacker.netns.echo(&[80], &[]).unwrap();
    // New pods may talk to the friend, both ways, and to nobody else.
    cluster.apply(&[
        namespace("foo", &[]),
        policy(
            "{metadata: {name: new, namespace: foo}, spec: {podSelector: {matchLabels: {app: new}}, policyTypes: \
             [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}], egress: [{to: \
             [{podSelector: {matchLabels: {role: friend}}}]}]}}",
        ),
    ]);
    let first: u32 = friend.ip.to_bits() + 1;
    let done = AtomicBool::new(false);
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        // Also when an assertion fails.
        let _stop = Stop(&done);
        // From before they exist, the attacker sends to the addresses that new pods will get.
        scope.spawn(|| {
            let raw = attacker.netns.raw_sender().unwrap();
            while !done.load(Ordering::Relaxed) {
                for ip in (first..first + 20).map(Ipv4Addr::from_bits) {
                    let to = SocketAddrV4::new(ip, 9);
                    raw.send(attacker.ip, ip, 17, &udp_datagram(attacker.at(1), to, b"x")).unwrap();
                }
            }
        });
        for i in 0..20 {
            let netns = Netns::new().unwrap();
            let sniffer = netns.sniffer(17).unwrap();
            let net = pod("foo", &format!("new-{i}"), &[("app", "new")]);
            let ip = node.net.prepare(net, &netns.fd, netns.route_fd().unwrap()).unwrap().v4;
            assert_eq!(ip.to_bits(), first + i);
            // Its very first packets: what is allowed passes at once, what is not does not.
            let allowed = netns.connect(friend.at(80), std::time::Duration::from_millis(900));
            assert!(allowed.is_ok(), "a SYN was lost: {allowed:?}");
            assert!(netns.connect(attacker.at(80), std::time::Duration::from_millis(5)).is_err());
            netns.echo(&[81], &[]).unwrap();
            assert!(friend.netns.connects(SocketAddrV4::new(ip, 81)));
            assert_eq!(sniffer.next(std::time::Duration::ZERO, |_| true), None);
        }
    });
}

#[test]
fn an_address_is_given_out_again_when_its_link_is_gone() {
    needs_root!("an_address_is_given_out_again_when_its_link_is_gone");
    let machine = machine();
    let fabric = machine.run(|| node::net::fabric::Fabric::create(config("small", Families::Ipv4))).unwrap();
    let netns = Netns::new().unwrap();
    let mut addresses = fabric.add_node(1, netns.fd.as_fd()).unwrap();
    addresses.v4.pod_cidr = "10.244.1.0/29".parse().unwrap();
    let (net, events) = start(&netns, &addresses);
    let node = Node { netns, addresses, net, events };
    let mut pods: Vec<Pod> = (2..7).map(|i| node.pod(pod("foo", &i.to_string(), &[]))).collect();
    let another = || {
        let netns = Netns::new().unwrap();
        node.net.prepare(pod("foo", "late", &[]), &netns.fd, netns.route_fd().unwrap())
    };
    assert!(matches!(another(), Err(NetError::NoAddress(_))));
    let gone = pods.remove(2);
    node.net.detach(&gone.net.uid).unwrap();
    assert!(matches!(another(), Err(NetError::NoAddress(_))), "its link is still there");
    let ip = gone.ip;
    drop(gone);
    let deadline = std::time::Instant::now() + PATIENCE;
    let got = loop {
        match another() {
            Err(NetError::NoAddress(_)) if std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            other => break other,
        }
    };
    assert_eq!(got.unwrap().v4, ip);
}

#[test]
fn a_client_that_keeps_its_udp_port_reaches_the_next_pod_of_a_host_port() {
    needs_root!("a_client_that_keeps_its_udp_port_reaches_the_next_pod_of_a_host_port");
    use node::net::{HostPort, Protocol};
    let cluster = Cluster::new(2);
    let node = &cluster.nodes[0];
    let server = |name| {
        let mut net = pod("foo", name, &[]);
        let port = HostPort { host_ip: None, protocol: Protocol::Udp, host_port: 9000, container_port: 53 };
        net.host_ports = vec![port];
        let pod = node.pod(net);
        pod.netns.echo(&[], &[53]).unwrap();
        pod
    };
    let client = cluster.pod(1, pod("foo", "client", &[]));
    let socket = client.netns.udp(SocketAddrV4::new(node.addresses.v4.node_ip, 9000)).unwrap();
    assert!(!udp_echoes(&socket, GRACE), "nobody there yet, but now there is a conntrack entry");
    for name in ["one", "two"] {
        let pod = server(name);
        // The refusal of an earlier datagram may still be queued on the socket.
        assert!((0..5).any(|_| udp_echoes(&socket, PATIENCE)), "{name}");
        node.net.detach(&pod.net.uid).unwrap();
        assert!(!udp_echoes(&socket, GRACE));
    }
}

#[test]
fn who_must_know_a_new_pod_are_the_nodes_of_the_policies_that_mean_it_or_its_address_before() {
    needs_root!("who_must_know_a_new_pod_are_the_nodes_of_the_policies_that_mean_it_or_its_address_before");
    let machine = machine();
    let fabric = machine.run(|| node::net::fabric::Fabric::create(config("who", Families::Ipv4))).unwrap();
    let netns = Netns::new().unwrap();
    let mut addresses = fabric.add_node(1, netns.fd.as_fd()).unwrap();
    // A few addresses, so that one comes again soon.
    addresses.v4.pod_cidr = "10.244.1.0/29".parse().unwrap();
    let (net, events) = start(&netns, &addresses);
    let node = Node { netns, addresses, net, events };
    let remote = |uid: &str, ip: [u8; 4], labels: &[(&str, &str)]| {
        let net = pod("foo", uid, labels);
        Event::UpsertPod(policy::network_policy::PodRecord {
            uid: uid.into(),
            namespace: "foo".into(),
            name: net.name,
            labels: net.labels,
            local: false,
            addresses: vec![std::net::IpAddr::from(ip)],
            named_ports: Default::default(),
            created: String::new(),
        })
    };
    node.net.adopted().unwrap();
    node.net
        .apply(vec![
            namespace("foo", &[]),
            remote("server", [10, 244, 2, 2], &[("app", "server")]),
            remote("other", [10, 244, 3, 2], &[("app", "other")]),
            policy(
                "{metadata: {name: p, namespace: foo}, spec: {podSelector: {matchLabels: {app: server}}, ingress: \
                 [{from: [{podSelector: {matchLabels: {app: client}}}]}]}}",
            ),
            policy("{metadata: {name: q, namespace: foo}, spec: {podSelector: {matchLabels: {app: other}}}}"),
        ])
        .unwrap();
    let nodes = [("server", "node-2"), ("other", "node-3")];
    let who = |uid: &str| {
        let node_of = |uid: &str| nodes.iter().find(|(of, _)| *of == uid).map(|(_, node)| node.to_string());
        node.net.audience(uid, 2, node_of).into_iter().collect::<Vec<_>>()
    };
    let client = node.pod(pod("foo", "client", &[("app", "client")]));
    assert_eq!(who(&client.net.uid), ["node-2"]);
    let nobody = node.pod(pod("foo", "nobody", &[]));
    assert_eq!(who(&nobody.net.uid), [""; 0], "no policy means it");
    let (address, uid) = (client.ip, client.net.uid.clone());
    drop(client);
    node.net.detach(&uid).unwrap();
    assert_eq!(who(&uid), [""; 0], "it is gone");
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut kept = Vec::new();
    let heir = loop {
        let netns = Netns::new().unwrap();
        let late = pod("foo", "late", &[]);
        match node.net.prepare(late.clone(), &netns.fd, netns.route_fd().unwrap()) {
            Ok(addresses) if addresses.v4 == address => break (netns, late.uid),
            Ok(_) => kept.push(netns),
            // The link of the one before goes in a moment.
            Err(NetError::NoAddress(_)) if std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(who(&heir.1), ["node-2"], "that node may still take it for the pod that was allowed");
}
