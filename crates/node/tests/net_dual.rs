//! A cluster with both families: what holds for IPv4 holds for IPv6, seen by real packets.

mod net_common;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use net_common::*;
use node::net::{HostPort, Protocol};
use testkit::net::{GRACE, Netns, PATIENCE, echoes, udp_echoes};

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
