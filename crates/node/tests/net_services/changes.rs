//! Services that change: nobody answers, policies forbid, agents restart.

use node::net::Protocol;
use testkit::net::{GRACE, PATIENCE, echoes, udp_echoes};

use super::*;

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    needs_root!("a_service_without_endpoints_refuses_at_once");
    let cluster = Cluster::new(2);
    let client = cluster.pod(0, pod("foo", "client", &[]));
    cluster.serve(vec![port(Protocol::Tcp, &[]), port(Protocol::Udp, &[])]);
    let outside = cluster.outside();
    let (pod, node) = (&client.netns, &cluster.nodes[0].netns);
    let localhost = SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT);
    let cases = [
        ("a pod", pod, vec![at(CLUSTER_IP), at(EXTERNAL_IP), cluster.node_port(0), cluster.node_port(1)]),
        (
            "a node",
            node,
            vec![at(CLUSTER_IP), at(EXTERNAL_IP), cluster.node_port(0), cluster.node_port(1), localhost],
        ),
        ("outside", &outside, vec![cluster.node_port(0), cluster.node_port(1)]),
    ];
    for (who, from, targets) in cases {
        for to in targets {
            assert!(is_refused(&from.connect(to, PATIENCE)), "{who} → {to}: TCP");
            let socket = from.udp(to).unwrap();
            let answer = testkit::net::ask_udp(&socket, PATIENCE);
            // A node's own datagram is refused by the call that sends it.
            let by_call = matches!(&answer, Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
            assert!(is_refused(&answer) || by_call, "{who} → {to}: UDP: {answer:?}");
        }
    }
    // A port that the Service does not have.
    assert!(is_refused(&pod.connect(SocketAddrV4::new(CLUSTER_IP, 81), PATIENCE)));
}

#[test]
fn policies_judge_what_is_behind_a_service() {
    needs_root!("policies_judge_what_is_behind_a_service");
    let cluster = Cluster::new(2);
    let a = cluster.pod(1, pod("foo", "a", &[]));
    let client = cluster.pod(0, pod("foo", "client", &[]));
    a.netns.echo(&[8080], &[]).unwrap();
    cluster.serve(vec![port(Protocol::Tcp, &[a.at(8080)])]);
    let mut stream = client.netns.connect(at(CLUSTER_IP), PATIENCE).unwrap();
    assert!(echoes(&mut stream, PATIENCE));
    cluster.apply(&[namespace("foo", &[]), policy(DENY_INGRESS)]);
    assert!(!echoes(&mut stream, GRACE), "the established connection too");
    assert!(client.netns.connect(at(CLUSTER_IP), GRACE).is_err());
}

#[test]
fn flows_through_an_ipv6_service_end_with_what_allows_them() {
    needs_root!("flows_through_an_ipv6_service_end_with_what_allows_them");
    let cluster = Cluster::dual(2);
    let server = cluster.pod(1, pod("foo", "server", &[]));
    let client = cluster.pod(0, pod("foo", "client", &[]));
    server.netns.echo(&[8080], &[8080]).unwrap();
    let cluster_ip: IpAddr = "fd00:cf:96::7".parse().unwrap();
    let service = |protocol: Protocol| {
        let all = Backends::of([SocketAddr::V6(server.at6(8080))]);
        let (inside, outside, external_ips) = (all.clone(), all.clone(), BTreeSet::new());
        ServicePort { cluster_ip, external_ips, inside, outside, all, ..port(protocol, &[]) }
    };
    cluster.serve([Protocol::Tcp, Protocol::Udp].map(service).into());
    let to = SocketAddr::new(cluster_ip, 80);
    let mut stream = client.netns.connect(to, PATIENCE).unwrap();
    let socket = client.netns.udp(to).unwrap();
    assert!(echoes(&mut stream, PATIENCE) && udp_echoes(&socket, PATIENCE));
    cluster.apply(&[namespace("foo", &[]), policy(DENY_INGRESS)]);
    assert!(!echoes(&mut stream, GRACE), "the established connection");
    assert!(!udp_echoes(&socket, GRACE), "datagrams of a known port");
    assert!(client.netns.connect(to, GRACE).is_err(), "a new connection");
    assert!(client.netns.connect(server.at6(8080), GRACE).is_err(), "nor past the Service");
}

#[test]
fn what_is_written_lists_and_goes_again() {
    needs_root!("what_is_written_lists_and_goes_again");
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        testkit::skip!("what_is_written_lists_and_goes_again", "there is no nft program");
    }
    let cluster = Cluster::new(1);
    let list = |arguments: &[&str]| cluster.nodes[0].nft(arguments);
    let empty = list(&["list", "ruleset"]);
    let a = SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, 9), 8080);
    let b = SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 9), 8080);
    let mut sticky = port(Protocol::Udp, &[a, b]);
    sticky.affinity = Some(10_800);
    cluster.serve(vec![port(Protocol::Tcp, &[a, b]), sticky]);
    let text = list(&["list", "ruleset"]);
    for expected in [
        "dnat ip to meta mark . numgen random mod 2 map @service-endpoints",
        "meta mark set ip daddr . meta l4proto . th dport map @services meta mark & 0x00007fff vmap @service-kinds",
        "{ ip saddr timeout 3h }",
        ": 10.244.0.9 . 8080",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    // nft can read what it printed.
    let scratch = testkit::net::Netns::new().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    nft(&scratch, &["-f", file.path().to_str().unwrap()]);
    assert_eq!(nft(&scratch, &["list", "ruleset"]), text);
    assert_eq!(cluster.nodes[0].net.verify().unwrap(), [""; 0]);
    cluster.nodes[0].net.set_services(Vec::new()).unwrap();
    assert_eq!(list(&["list", "ruleset"]), empty, "nothing stays");
}

#[test]
fn services_go_on_while_an_agent_restarts() {
    needs_root!("services_go_on_while_an_agent_restarts");
    let mut cluster = Cluster::new(1);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let client = cluster.pod(0, pod("foo", "client", &[]));
    a.netns.echo(&[8080], &[]).unwrap();
    let mut sticky = port(Protocol::Tcp, &[a.at(8080)]);
    (sticky.port, sticky.node_port, sticky.affinity) = (81, None, Some(60));
    let ports = vec![port(Protocol::Tcp, &[a.at(8080)]), sticky];
    cluster.serve(ports.clone());
    let (plain, sticky) = (at(CLUSTER_IP), SocketAddrV4::new(CLUSTER_IP, 81));
    assert!(client.netns.connects(sticky));
    let Node { netns, addresses, net, events } = cluster.nodes.remove(0);
    drop((net, events));
    let (net, _events) = start(&netns, &addresses);
    for pod in [&a, &client] {
        assert_eq!(net.adopt(pod.net.clone()).unwrap().map(|given| given.v4), Some(pod.ip));
    }
    net.adopted().unwrap();
    net.apply(Vec::new()).unwrap();
    for to in [plain, sticky] {
        assert!(client.netns.connects(to), "the new agent does not know of Services yet");
    }
    assert_eq!(net.verify().unwrap(), [""; 0]);
    // Others are listed first: the numbers of lists differ from those of the earlier agent.
    let mut all = service(ports);
    all.insert(
        0,
        ServiceChange {
            name: ("a".into(), "a".into()),
            ports: vec![ServicePort {
                cluster_ip: [10, 96, 0, 9].into(),
                node_port: None,
                external_ips: BTreeSet::new(),
                ..port(Protocol::Tcp, &[a.at(8080)])
            }],
        },
    );
    net.set_services(all).unwrap();
    for to in [plain, sticky, SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 9), 80)] {
        assert!(client.netns.connects(to));
    }
    assert_eq!(net.verify().unwrap(), [""; 0]);
    net.set_services(Vec::new()).unwrap();
    assert!(is_refused(&client.netns.connect(plain, PATIENCE)));
    assert_eq!(net.verify().unwrap(), [""; 0]);
}
