//! UDP clients that keep their source port.

use std::net::UdpSocket;
use std::time::Duration;

use node::net::Protocol;
use testkit::net::ask_udp;

use super::*;

/// A question is lost that has no answer after this long.
const EACH: Duration = Duration::from_millis(20);
/// So many lost in a row are an outage of a second.
const OUTAGE: usize = 50;

/// Asks until someone answers, without a pause that an entry in conntrack could end in; says who, and how many questions were
/// lost before.
fn first_answer(socket: &UdpSocket) -> Option<(String, usize)> {
    (0..OUTAGE).find_map(|lost| Some((ask_udp(socket, EACH).ok()?.0, lost)))
}

/// Endpoints 0 → 1 → 2 → 1 → 0, while a client of each kind sends from one port all the time.
#[test]
fn udp_clients_with_a_fixed_port_follow_the_endpoints() {
    needs_root!("udp_clients_with_a_fixed_port_follow_the_endpoints");
    let cluster = Cluster::new(2);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(1, pod("foo", "b", &[]));
    for server in [&a, &b] {
        server.netns.tell(&server.net.name, &[], &[8080]).unwrap();
    }
    let client = cluster.pod(0, pod("foo", "client", &[]));
    let outside = cluster.outside();
    let localhost = SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT);
    let clients = [
        ("a pod, the cluster's address", client.netns.udp(at(CLUSTER_IP)).unwrap()),
        ("a pod, an external address", client.netns.udp(at(EXTERNAL_IP)).unwrap()),
        ("a pod, its node's port", client.netns.udp(cluster.node_port(0)).unwrap()),
        ("a pod, another node's port", client.netns.udp(cluster.node_port(1)).unwrap()),
        ("a node, the cluster's address", cluster.nodes[0].netns.udp(at(CLUSTER_IP)).unwrap()),
        ("a node, 127.0.0.1", cluster.nodes[0].netns.udp(localhost).unwrap()),
        ("outside, a node's port", outside.udp(cluster.node_port(0)).unwrap()),
        ("outside, another node's port", outside.udp(cluster.node_port(1)).unwrap()),
    ];
    // Before the Service is there at all.
    for (_, socket) in &clients {
        assert!(ask_udp(socket, EACH).is_err());
    }
    let steps: [(&[SocketAddrV4], &[&str]); 6] = [
        (&[], &[]),
        (&[a.at(8080)], &["a"]),
        (&[a.at(8080), b.at(8080)], &["a"]),
        (&[b.at(8080)], &["b"]),
        (&[], &[]),
        (&[a.at(8080)], &["a"]),
    ];
    for (step, (endpoints, answering)) in steps.into_iter().enumerate() {
        cluster.serve(vec![port(Protocol::Udp, endpoints)]);
        for (what, socket) in &clients {
            if answering.is_empty() {
                for _ in 0..3 {
                    let answer = ask_udp(socket, EACH);
                    assert!(answer.is_err(), "step {step}, {what}: {answer:?}");
                }
            } else {
                // Established clients stay with the endpoint they have as long as it is one. Every answer counts: none may be
                // from one that is none any more.
                for _ in 0..5 {
                    let Some((name, lost)) = first_answer(socket) else {
                        panic!("step {step}, {what}: nobody answers for a second");
                    };
                    assert!(
                        answering.contains(&name.as_str()),
                        "step {step}, {what}: {name} answers after {lost} lost"
                    );
                }
            }
        }
    }
}
