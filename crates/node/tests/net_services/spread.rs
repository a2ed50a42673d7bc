//! Every address of a Service leads to every ready endpoint, equally often, from everywhere.

use node::net::{HostPort, Protocol};
use testkit::net::PATIENCE;

use super::*;

const CONNECTIONS: usize = 1000;

/// The sum over servers of (seen − expected)² / expected. With four servers it exceeds 60 once in 10^12 runs, if each is
/// equally likely.
fn chi_square(seen: &BTreeMap<String, u32>, servers: usize) -> f64 {
    let expected = CONNECTIONS as f64 / servers as f64;
    let far: f64 = seen.values().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    // Who never answers counts too.
    far + (servers - seen.len()) as f64 * expected
}

#[test]
fn connections_spread_evenly_over_all_endpoints_from_everywhere() {
    needs_root!("connections_spread_evenly_over_all_endpoints_from_everywhere");
    let cluster = Cluster::new(3);
    // Node 2 runs none.
    let servers: Vec<Pod> = [0, 0, 1, 1]
        .iter()
        .enumerate()
        .map(|(i, node)| cluster.pod(*node, pod("foo", &format!("s{i}"), &[])))
        .collect();
    for server in &servers {
        server.netns.tell(&server.net.name, &[8080], &[]).unwrap();
    }
    let endpoints: Vec<SocketAddrV4> = servers.iter().map(|server| server.at(8080)).collect();
    cluster.serve(vec![port(Protocol::Tcp, &endpoints)]);
    let client = cluster.pod(2, pod("foo", "client", &[]));
    let outside = cluster.outside();
    let cases = [
        ("a pod, the cluster's address", &client.netns, at(CLUSTER_IP)),
        ("a node, the cluster's address", &cluster.nodes[2].netns, at(CLUSTER_IP)),
        ("an endpoint, the cluster's address", &servers[0].netns, at(CLUSTER_IP)),
        ("a pod, an external address", &client.netns, at(EXTERNAL_IP)),
        ("a pod, another node's port", &client.netns, cluster.node_port(0)),
        ("a pod, its own node's port", &client.netns, cluster.node_port(2)),
        ("outside, the port of a node with endpoints", &outside, cluster.node_port(0)),
        ("outside, the port of a node without", &outside, cluster.node_port(2)),
        (
            "a node, its own port on 127.0.0.1",
            &cluster.nodes[0].netns,
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT),
        ),
        (
            "a node without, on 127.0.0.1",
            &cluster.nodes[2].netns,
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT),
        ),
    ];
    for (what, from, to) in cases {
        let seen = count(from, to, CONNECTIONS);
        let distance = chi_square(&seen, servers.len());
        assert!(distance < 60.0, "{what}: {seen:?}, chi-square {distance}");
    }
    for node in &cluster.nodes {
        assert_eq!(node.net.verify().unwrap(), [""; 0]);
    }
}

/// The chapter's contrast: a host port is one pod's on its node, a node port is every pod's on every node.
#[test]
fn a_host_port_is_the_pods_of_its_node_and_a_node_port_every_pods_on_every_node() {
    needs_root!("a_host_port_is_the_pods_of_its_node_and_a_node_port_every_pods_on_every_node");
    let cluster = Cluster::new(3);
    let servers: Vec<Pod> = [0, 1]
        .into_iter()
        .map(|node| {
            let mut pod = pod("foo", &format!("on-{node}"), &[]);
            let (protocol, host_port, container_port) = (Protocol::Tcp, 9000, 80);
            pod.host_ports.push(HostPort { host_ip: None, protocol, host_port, container_port });
            cluster.pod(node, pod)
        })
        .collect();
    for server in &servers {
        server.netns.tell(&server.net.name, &[80], &[]).unwrap();
    }
    cluster.serve(vec![port(Protocol::Tcp, &[servers[0].at(80), servers[1].at(80)])]);
    let outside = cluster.outside();
    for (node, expected) in [(0, Some("on-0")), (1, Some("on-1")), (2, None)] {
        let host_port = SocketAddrV4::new(cluster.nodes[node].addresses.v4.node_ip, 9000);
        match expected {
            Some(name) => assert_eq!(count(&outside, host_port, 20), [(name.to_string(), 20)].into()),
            None => assert!(is_refused(&outside.ask(host_port)), "no pod of node {node} has the port"),
        }
        // One side never answers once in 2^59 runs.
        let seen = count(&outside, cluster.node_port(node), 60);
        assert_eq!(seen.len(), 2, "node {node}: {seen:?}");
    }
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    needs_root!("a_pod_reaches_itself_through_its_own_service");
    let cluster = Cluster::new(2);
    let only = cluster.pod(0, pod("foo", "only", &[]));
    only.netns.tell("only", &[8080], &[8080]).unwrap();
    let here = [only.at(8080)];
    cluster.serve(vec![port(Protocol::Tcp, &here), port(Protocol::Udp, &here)]);
    for to in [at(CLUSTER_IP), at(EXTERNAL_IP), cluster.node_port(0), cluster.node_port(1)] {
        assert_eq!(only.netns.ask(to).unwrap().0, "only", "{to}");
        let socket = only.netns.udp(to).unwrap();
        assert_eq!(testkit::net::ask_udp(&socket, PATIENCE).unwrap().0, "only", "{to}, UDP");
    }
}

#[test]
fn a_dual_stack_service_answers_in_both_families() {
    needs_root!("a_dual_stack_service_answers_in_both_families");
    let cluster = Cluster::dual(2);
    let servers: Vec<Pod> = (0..2).map(|i| cluster.pod(i, pod("foo", &format!("s{i}"), &[]))).collect();
    for server in &servers {
        server.netns.tell(&server.net.name, &[8080], &[8080]).unwrap();
    }
    let client = cluster.pod(0, pod("foo", "client", &[]));
    let cluster_ip6: IpAddr = "fd00:cf:96::7".parse().unwrap();
    let endpoints = |servers: &[Pod], protocol: Protocol, affinity: Option<u32>| {
        let v4: Vec<_> = servers.iter().map(|server| server.at(8080)).collect();
        let all = Backends::of(servers.iter().map(|server| SocketAddr::V6(server.at6(8080))));
        let v4 = ServicePort { affinity, ..port(protocol, &v4) };
        let (inside, outside) = (all.clone(), all.clone());
        let v6 = ServicePort {
            cluster_ip: cluster_ip6,
            external_ips: BTreeSet::new(),
            inside,
            outside,
            all,
            ..v4.clone()
        };
        [v4, v6]
    };
    let serve = |servers: &[Pod], affinity| {
        let both = [Protocol::Tcp, Protocol::Udp].map(|protocol| endpoints(servers, protocol, affinity));
        cluster.serve(both.concat());
    };
    let node_ip6 = |node: usize| IpAddr::V6(cluster.nodes[node].addresses.v6.unwrap().node_ip);
    let targets = [
        SocketAddr::V4(at(CLUSTER_IP)),
        SocketAddr::new(cluster_ip6, 80),
        SocketAddr::new(node_ip6(0), NODE_PORT),
        SocketAddr::new(node_ip6(1), NODE_PORT),
    ];
    serve(&servers, None);
    for to in targets {
        for from in [&client.netns, &servers[1].netns, &cluster.nodes[1].netns] {
            // One side never answers once in 2^59 runs.
            assert_eq!(count(from, to, 60).len(), 2, "{to}");
        }
    }
    assert_eq!(
        client.netns.ask(targets[1]).unwrap().1,
        IpAddr::V6(client.ip6.unwrap()),
        "clients keep their address"
    );
    serve(&servers, Some(3600));
    assert_eq!(count(&client.netns, targets[1], 30).len(), 1, "affinity");
    serve(&servers[..1], None);
    let socket = client.netns.udp(targets[1]).unwrap();
    assert_eq!(testkit::net::ask_udp(&socket, PATIENCE).unwrap().0, "s0");
    serve(&servers[1..], None);
    assert_eq!(testkit::net::ask_udp(&socket, PATIENCE).unwrap().0, "s1", "a UDP client follows");
    serve(&[], None);
    for to in &targets[1..] {
        assert!(is_refused(&client.netns.connect(*to, PATIENCE)), "{to}");
    }
    for node in &cluster.nodes {
        assert_eq!(node.net.verify().unwrap(), [""; 0]);
    }
}
