//! The Service `kubernetes`, which leads out of the cluster's nodes.

use std::net::TcpListener;

use node::net::Protocol;
use testkit::net::PATIENCE;

use super::*;

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
    let cluster_ip = Ipv4Addr::new(10, 96, 0, 1);
    let service = ServicePort {
        cluster_ip: cluster_ip.into(),
        port: 443,
        node_port: None,
        ..port(Protocol::Tcp, &[api])
    };
    cluster.serve(vec![service]);
    let pod = cluster.pod(1, pod("foo", "a", &[]));
    let cluster_ip = SocketAddrV4::new(cluster_ip, 443);
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
