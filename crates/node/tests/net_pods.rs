//! Pods' links and rules, seen by real packets.

mod net_common;

use net_common::*;
use testkit::net::{GRACE, PATIENCE, echoes, icmp, tcp_segment, udp_datagram, udp_echoes};

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
    println!("{}", cluster.nodes[0].nft(&["list", "ruleset"]));
    assert_eq!(cluster.nodes[0].net.verify().unwrap(), [""; 0]);
}
