//! `internalTrafficPolicy`, `externalTrafficPolicy`, and whom a server sees.

use node::net::Protocol;
use testkit::net::{GRACE, PATIENCE};

use super::*;

/// (who, where to) and which server answers with which client's address.
#[test]
fn clients_keep_their_address_but_for_outsiders_that_are_led_on() {
    needs_root!("clients_keep_their_address_but_for_outsiders_that_are_led_on");
    let cluster = Cluster::new(3);
    let server = cluster.pod(1, pod("foo", "server", &[]));
    server.netns.tell("server", &[8080], &[]).unwrap();
    let near = cluster.pod(1, pod("foo", "near", &[]));
    let far = cluster.pod(0, pod("foo", "far", &[]));
    cluster.serve(vec![port(Protocol::Tcp, &[server.at(8080)])]);
    let outside = cluster.outside();
    let gateway = cluster.nodes[0].addresses.v4.gateway;
    let node = |index: usize| cluster.nodes[index].addresses.v4.node_ip;
    let cases = [
        ("a pod of the same node", &near.netns, at(CLUSTER_IP), near.ip),
        ("a pod of another node", &far.netns, at(CLUSTER_IP), far.ip),
        ("a pod, external address", &far.netns, at(EXTERNAL_IP), far.ip),
        ("a pod, its own node's port", &far.netns, cluster.node_port(0), far.ip),
        ("a pod, the server's node's port", &far.netns, cluster.node_port(1), far.ip),
        // Led on by a third node, to which the answer has to come back.
        ("a pod, a third node's port", &far.netns, cluster.node_port(2), node(2)),
        ("a node", &cluster.nodes[0].netns, at(CLUSTER_IP), node(0)),
        ("outside, the server's node", &outside, cluster.node_port(1), gateway),
        ("outside, another node", &outside, cluster.node_port(0), node(0)),
    ];
    for (what, from, to, expected) in cases {
        assert_eq!(
            from.ask(to).map_err(|e| e.kind()),
            Ok(("server".to_string(), IpAddr::V4(expected))),
            "{what}"
        );
    }
}

#[test]
fn local_policies_stay_on_the_node_and_drop_where_nobody_is() {
    needs_root!("local_policies_stay_on_the_node_and_drop_where_nobody_is");
    let cluster = Cluster::new(3);
    let servers: Vec<Pod> =
        (0..2).map(|node| cluster.pod(node, pod("foo", &format!("on-{node}"), &[]))).collect();
    for server in &servers {
        server.netns.tell(&server.net.name, &[8080], &[]).unwrap();
    }
    let clients: Vec<Pod> =
        (0..3).map(|node| cluster.pod(node, pod("foo", &format!("client-{node}"), &[]))).collect();
    let both = [servers[0].at(8080), servers[1].at(8080)];
    for (index, node) in cluster.nodes.iter().enumerate() {
        let mut port = port(Protocol::Tcp, &both);
        let here =
            servers.get(index).map_or(Backends::NobodyHere, |server| Backends::of([server.at(8080).into()]));
        (port.inside, port.outside) = (here.clone(), here);
        node.net.set_services(service(vec![port])).unwrap();
    }
    let outside = cluster.outside();
    // What comes to the external address from outside arrives where it is routed to.
    let by_node =
        |node: usize| route_by(&outside, EXTERNAL_IP, cluster.nodes[node].addresses.v4.node_ip, None);
    for (node, client) in clients.iter().enumerate().take(2) {
        let own = || BTreeMap::from([(format!("on-{node}"), 30)]);
        assert_eq!(count(&client.netns, at(CLUSTER_IP), 30), own(), "internal policy, node {node}");
        assert_eq!(count(&outside, cluster.node_port(node), 30), own(), "external policy, node {node}");
        let (_, seen) = outside.ask(cluster.node_port(node)).unwrap();
        assert_eq!(seen, IpAddr::V4(cluster.nodes[0].addresses.v4.gateway), "the client keeps its address");
        // The policy is for clients from outside: pods of this node and the node itself reach all of them.
        for from in [&client.netns, &cluster.nodes[node].netns] {
            assert_eq!(count(from, cluster.node_port(node), 60).len(), 2, "from inside, node {node}");
        }
        assert_eq!(count(&client.netns, at(EXTERNAL_IP), 60).len(), 2, "external address, from a pod");
        by_node(node);
        assert_eq!(count(&outside, at(EXTERNAL_IP), 30), own(), "external address, from outside");
    }
    by_node(2);
    // Dropped, not refused: a balancer in front shall not tell its client.
    for (from, to) in [
        (&clients[2].netns, at(CLUSTER_IP)),
        (&cluster.nodes[2].netns, at(CLUSTER_IP)),
        (&outside, cluster.node_port(2)),
        (&clients[0].netns, cluster.node_port(2)),
        (&outside, at(EXTERNAL_IP)),
    ] {
        let error = from.connect(to, 4 * GRACE).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{to}");
    }
    for node in &cluster.nodes {
        assert_eq!(node.net.verify().unwrap(), [""; 0]);
    }
    // And refused where there is nobody anywhere.
    cluster.serve(vec![port(Protocol::Tcp, &[])]);
    assert!(is_refused(&outside.connect(cluster.node_port(2), PATIENCE)));
}
