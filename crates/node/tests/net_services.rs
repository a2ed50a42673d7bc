//! Services, seen by real packets: cluster addresses, node ports, and policies that hold through them.

mod net_common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use net_common::*;
use node::net::{Protocol, ServicePort};
use testkit::net::{GRACE, PATIENCE, echoes, udp_echoes};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const NODE_PORT: u16 = 30123;

fn set(endpoints: &[SocketAddrV4]) -> BTreeSet<SocketAddrV4> {
    endpoints.iter().copied().collect()
}

fn services(tcp: &[SocketAddrV4], udp: &[SocketAddrV4]) -> Vec<ServicePort> {
    let node_port = Some((NODE_PORT, set(tcp)));
    vec![
        ServicePort {
            cluster_ip: CLUSTER_IP,
            protocol: Protocol::Tcp,
            port: 80,
            endpoints: set(tcp),
            node_port,
        },
        ServicePort {
            cluster_ip: CLUSTER_IP,
            protocol: Protocol::Udp,
            port: 53,
            endpoints: set(udp),
            node_port: None,
        },
    ]
}

#[test]
fn services_spread_connections_over_their_endpoints() {
    needs_root!("services_spread_connections_over_their_endpoints");
    let cluster = Cluster::new(3);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(1, pod("foo", "b", &[]));
    let client = cluster.pod(0, pod("foo", "client", &[]));
    a.netns.echo(&[8080], &[5353]).unwrap();
    b.netns.echo(&[8080], &[5353]).unwrap();
    let apply = |services: Vec<ServicePort>| {
        cluster.nodes.iter().for_each(|node| node.net.set_services(services.clone()).unwrap());
    };
    let (service, dns) = (SocketAddrV4::new(CLUSTER_IP, 80), SocketAddrV4::new(CLUSTER_IP, 53));
    // Nobody answers yet: refused at once, from pods and from nodes.
    for from in [&client.netns, &cluster.nodes[0].netns] {
        let refused = from.connect(service, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    apply(services(&[a.at(8080), b.at(8080)], &[a.at(5353)]));
    // Both are reached, from a pod, from an endpoint itself (hairpin), from a node, and through every node's port.
    let node_ports = cluster.nodes.iter().map(|node| SocketAddrV4::new(node.addresses.v4.node_ip, NODE_PORT));
    let mut targets = vec![service];
    targets.extend(node_ports);
    for target in targets {
        let mut seen = [0; 2];
        let (count_a, count_b) = (a.netns.sniffer(6).unwrap(), b.netns.sniffer(6).unwrap());
        for from in [&client.netns, &a.netns, &cluster.nodes[2].netns] {
            for _ in 0..12 {
                let mut stream = from.connect(target, PATIENCE).unwrap();
                assert!(echoes(&mut stream, PATIENCE));
            }
        }
        for (count, sniffer) in seen.iter_mut().zip([&count_a, &count_b]) {
            let syn = |packet: &testkit::net::Packet| {
                packet.payload[13] == 2 && packet.payload[2..4] == [0x1f, 0x90]
            };
            while sniffer.next(std::time::Duration::ZERO, syn).is_some() {
                *count += 1;
            }
        }
        // 36 throws of a coin: one side has none once in 2^35.
        assert!(seen[0] > 0 && seen[1] > 0, "{target}: {seen:?}");
    }
    let mut through_fabric =
        cluster.fabric.connect(SocketAddrV4::new(cluster.nodes[2].addresses.v4.node_ip, NODE_PORT)).unwrap();
    assert!(echoes(&mut through_fabric, PATIENCE), "a node without endpoints answers too");

    // A UDP client that keeps its port follows when its endpoint goes.
    let socket = client.netns.udp(dns).unwrap();
    assert!(udp_echoes(&socket, PATIENCE));
    apply(services(&[b.at(8080)], &[b.at(5353)]));
    let watched = b.netns.sniffer(17).unwrap();
    assert!(udp_echoes(&socket, PATIENCE));
    assert!(watched.next(PATIENCE, |_| true).is_some());

    // Policies judge what is behind the Service, and established connections too.
    let mut stream = client.netns.connect(service, PATIENCE).unwrap();
    assert!(echoes(&mut stream, PATIENCE));
    cluster.apply(&[namespace("foo", &[]), policy(DENY_INGRESS)]);
    assert!(!echoes(&mut stream, GRACE));
    assert!(client.netns.connect(service, GRACE).is_err());

    for node in &cluster.nodes {
        assert_eq!(node.net.verify().unwrap(), [""; 0]);
        let listed = node.nft(&["list", "ruleset"]);
        assert!(listed.contains("10.96.0.7 . tcp . 80 : goto service-"), "{listed}");
    }
    apply(Vec::new());
    assert!(!cluster.nodes[0].nft(&["list", "ruleset"]).contains("service-"));
}

#[test]
fn services_go_on_while_an_agent_restarts() {
    needs_root!("services_go_on_while_an_agent_restarts");
    let mut cluster = Cluster::new(1);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let client = cluster.pod(0, pod("foo", "client", &[]));
    a.netns.echo(&[8080], &[]).unwrap();
    cluster.nodes[0].net.set_services(services(&[a.at(8080)], &[])).unwrap();
    let service = SocketAddrV4::new(CLUSTER_IP, 80);
    let Node { netns, addresses, net, events } = cluster.nodes.remove(0);
    drop((net, events));
    let (net, _events) = start(&netns, &addresses);
    for pod in [&a, &client] {
        assert_eq!(net.adopt(pod.net.clone()).unwrap().map(|given| given.v4), Some(pod.ip));
    }
    net.adopted().unwrap();
    net.apply(Vec::new()).unwrap();
    assert!(client.netns.connects(service), "the new agent does not know of Services yet");
    net.set_services(services(&[a.at(8080)], &[])).unwrap();
    assert!(client.netns.connects(service));
    net.set_services(Vec::new()).unwrap();
    let refused = client.netns.connect(service, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(net.verify().unwrap(), [""; 0]);
}

#[test]
fn pods_reach_the_api_server_and_nothing_else_of_the_fabric() {
    needs_root!("pods_reach_the_api_server_and_nothing_else_of_the_fabric");
    let cluster = Cluster::new(2);
    let listener = cluster.fabric.listen().unwrap();
    let api = match listener.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => address,
        other => panic!("{other}"),
    };
    assert_eq!(*api.ip(), cluster.nodes[0].addresses.v4.gateway);
    // Something else listens there, which is nobody's business.
    let other = SocketAddrV4::new(*api.ip(), 7000);
    let _other =
        kernel::route::netns::run_in(cluster.fabric.netns(), || TcpListener::bind(other)).unwrap().unwrap();
    let service = ServicePort {
        cluster_ip: "10.96.0.1".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 443,
        endpoints: [api].into(),
        node_port: None,
    };
    for node in &cluster.nodes {
        node.net.set_services(vec![service.clone()]).unwrap();
    }
    let pod = cluster.pod(1, pod("foo", "a", &[]));
    let cluster_ip = SocketAddrV4::new(service.cluster_ip, 443);
    for (from, address) in
        [(&pod.netns, pod.ip), (&cluster.nodes[1].netns, cluster.nodes[1].addresses.v4.node_ip)]
    {
        for to in [cluster_ip, api] {
            let stream = from.connect(to, PATIENCE).unwrap_or_else(|e| panic!("{address} to {to}: {e}"));
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), std::net::IpAddr::V4(address), "the server sees who asks");
            drop(stream);
        }
        assert!(from.connect(other, PATIENCE).is_err(), "{address} reaches {other}");
    }
    // To an egress policy it is an address outside of the pods.
    let egress = |rules: &str| {
        let spec = format!("podSelector: {{}}, policyTypes: [Egress], egress: [{rules}]");
        policy(&format!("{{metadata: {{name: egress, namespace: foo}}, spec: {{{spec}}}}}"))
    };
    cluster.apply(&[namespace("foo", &[]), egress("")]);
    assert!(!pod.netns.connects(cluster_ip) && !pod.netns.connects(api));
    cluster.apply(&[egress("{to: [{ipBlock: {cidr: 10.88.0.1/32}}], ports: [{port: 6443}]}")]);
    assert!(pod.netns.connects(cluster_ip) && pod.netns.connects(api));
}
