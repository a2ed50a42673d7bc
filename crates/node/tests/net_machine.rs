//! Machines that have something of their own: Docker's bridge and rules, address ranges that are the cluster's too, a
//! network of theirs where clusters have their uplinks. The cluster works, and so does what was there.

mod net_common;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::process::Command;

use net_common::*;
use node::net::fabric::{Fabric, Ranges};
use node::net::overlap::{self, RangeOf};
use testkit::net::Netns;

fn ip(netns: &Netns, arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let output = netns.run(|| Command::new("ip").args(&words).output()).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Something behind a link of the machine's, with a server on port 80.
fn neighbour(machine: &Netns, link: &str, here: &str, there: &str) -> Netns {
    let netns = Netns::new().unwrap();
    ip(machine, &format!("link add {link} type veth peer name {link}-peer"));
    // By descriptor: a namespace of a test has no name.
    let fd = std::os::fd::AsRawFd::as_raw_fd(&netns.fd);
    ip(machine, &format!("link set {link}-peer netns /proc/{}/fd/{fd}", std::process::id()));
    ip(machine, &format!("addr add {here} dev {link}"));
    ip(machine, &format!("link set {link} up"));
    ip(&netns, &format!("addr add {there} dev {link}-peer"));
    ip(&netns, &format!("link set {link}-peer up"));
    netns.echo(&[80], &[]).unwrap();
    netns
}

/// What `dockerd` writes with iptables over nf_tables, as far as it concerns others.
const DOCKER: &str = "
table ip nat {
    chain DOCKER { }
    chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; }
    chain POSTROUTING { type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade; }
}
table ip filter {
    chain DOCKER { }
    chain DOCKER-ISOLATION-STAGE-2 { oifname \"docker0\" drop; return; }
    chain DOCKER-ISOLATION-STAGE-1 {
        iifname \"docker0\" oifname != \"docker0\" jump DOCKER-ISOLATION-STAGE-2; return; }
    chain DOCKER-USER { return; }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        jump DOCKER-USER; jump DOCKER-ISOLATION-STAGE-1;
        oifname \"docker0\" ct state related,established accept;
        oifname \"docker0\" jump DOCKER;
        iifname \"docker0\" oifname != \"docker0\" accept;
        iifname \"docker0\" oifname \"docker0\" accept; }
}";

#[test]
fn beside_docker_pods_reach_the_world_and_containers_stay_as_they_are() {
    needs_root!("beside_docker_pods_reach_the_world_and_containers_stay_as_they_are");
    let machine = machine();
    let world = neighbour(&machine, "eth0", "198.51.100.1/24", "198.51.100.2/24");
    ip(&machine, "route add default via 198.51.100.2");
    ip(&machine, "link add docker0 type bridge");
    ip(&machine, "addr add 172.17.0.1/16 dev docker0");
    ip(&machine, "link set docker0 up");
    let container = Netns::new().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&container.fd);
    ip(&machine, "link add veth1 type veth peer name ceth0");
    ip(&machine, &format!("link set ceth0 netns /proc/{}/fd/{fd}", std::process::id()));
    ip(&machine, "link set veth1 master docker0 up");
    for line in ["addr add 172.17.0.2/16 dev ceth0", "link set ceth0 up", "route add default via 172.17.0.1"]
    {
        ip(&container, line);
    }
    container.echo(&[80], &[]).unwrap();
    nft(&machine, &[DOCKER]);
    let before = nft(&machine, &["list", "ruleset"]);

    let fabric = machine.run(|| Fabric::create(config("dock", Families::Ipv4))).unwrap();
    assert_eq!(fabric.warnings, [""; 0]);
    let node = Node::new(&fabric, 1);
    node.net.adopted().unwrap();
    node.net.apply(Vec::new()).unwrap();
    let pod = node.pod(pod("foo", "a", &[]));
    let at = |a, b, c, d| SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), 80);
    assert!(pod.netns.connects(at(198, 51, 100, 2)), "a pod reaches the world");
    assert!(container.connects(at(198, 51, 100, 2)), "a container still does");
    assert!(machine.connects(at(172, 17, 0, 2)), "the machine still reaches its container");
    drop(world);
    machine.run(|| Fabric::teardown("dock")).unwrap();
    assert_eq!(nft(&machine, &["list", "ruleset"]), before);
}

#[test]
fn ranges_that_the_machine_has_too_are_named_and_both_go_on_working() {
    needs_root!("ranges_that_the_machine_has_too_are_named_and_both_go_on_working");
    let machine = machine();
    // As podman's default network, and as a machine that is itself a pod of a cluster.
    let podman = neighbour(&machine, "podman0", "10.88.0.1/16", "10.88.0.9/16");
    let flannel = neighbour(&machine, "eth0", "10.244.1.1/16", "10.244.1.2/16");
    ip(&machine, "route add 10.96.0.0/24 via 10.244.1.2");
    ip(&machine, "route add default via 10.244.1.2");
    let found = machine.run(|| overlap::overlaps(&Ranges::<Ipv4Addr>::DEFAULT)).unwrap();
    let mut summary: Vec<_> = found
        .iter()
        .map(|one| (one.range.option::<Ipv4Addr>(), one.theirs.to_string(), one.link.as_str()))
        .collect();
    summary.sort();
    assert_eq!(
        summary,
        [
            ("--node-cidr", "10.88.0.0/16".to_string(), "podman0"),
            ("--pod-cidr", "10.244.0.0/16".to_string(), "eth0"),
            ("--service-cidr", "10.96.0.0/24".to_string(), "eth0"),
        ]
    );
    let nodes = found.iter().find(|one| one.range == RangeOf::Nodes).unwrap().to_string();
    assert_eq!(
        nodes,
        "pods cannot reach 10.88.0.0/16 (podman0) of this machine where it overlaps the cluster's range of nodes, \
         10.88.0.0/24: choose another with --node-cidr"
    );
    assert_eq!(machine.run(|| overlap::overlaps(&Ranges::<Ipv6Addr>::DEFAULT)).unwrap(), []);
    if std::fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        ip(&machine, "-6 address add fd00:cf:88::9/64 dev podman0 nodad");
        ip(&machine, "-6 route add fd00:cf:96::/48 dev eth0");
        let found = machine.run(|| overlap::overlaps(&Ranges::<Ipv6Addr>::DEFAULT)).unwrap();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "pods cannot reach fd00:cf:96::/48 (eth0) of this machine where it overlaps the cluster's range of Services, \
                 fd00:cf:96::/112: choose another with --service-cidr-v6",
                "pods cannot reach fd00:cf:88::/64 (podman0) of this machine where it overlaps the cluster's range of \
                 nodes, fd00:cf:88::/64: choose another with --node-cidr-v6",
            ]
        );
    } else {
        eprintln!("SKIPPED the part on IPv6 of this test: this kernel has none");
    }

    let fabric = machine.run(|| Fabric::create(config("both", Families::Ipv4))).unwrap();
    let nodes: Vec<Node> = (1..=2).map(|index| Node::new(&fabric, index)).collect();
    let blocks: Vec<_> = nodes.iter().map(|node| node.addresses.v4.pod_cidr).collect();
    for node in &nodes {
        node.net.set_routes(&blocks, &[]).unwrap();
        node.net.adopted().unwrap();
        node.net.apply(Vec::new()).unwrap();
    }
    let (one, other) = (nodes[0].pod(pod("foo", "a", &[])), nodes[1].pod(pod("foo", "b", &[])));
    other.netns.echo(&[80], &[]).unwrap();
    assert!(one.netns.connects(other.at(80)), "pods of two nodes reach each other");
    let theirs = |a, b, c, d| SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), 80);
    assert!(machine.connects(theirs(10, 88, 0, 9)), "the machine still reaches its own network");
    assert!(machine.connects(theirs(10, 244, 1, 2)), "and the other one");
    assert_eq!(
        one.ip,
        Ipv4Addr::new(10, 244, 1, 2),
        "the same address means the pod inside, the neighbour outside"
    );
    drop((podman, flannel));
    machine.run(|| Fabric::teardown("both")).unwrap();
}

#[test]
fn where_the_uplinks_range_is_taken_there_is_another() {
    needs_root!("where_the_uplinks_range_is_taken_there_is_another");
    let machine = machine();
    let world = neighbour(&machine, "eth0", "198.51.100.1/24", "198.51.100.2/24");
    ip(&machine, "route add default via 198.51.100.2");
    // As a VPN of a whole company may.
    ip(&machine, "route add 100.64.0.0/10 via 198.51.100.2");
    let fabric = machine.run(|| Fabric::create(config("vpn", Families::Ipv4))).unwrap();
    let node = Node::new(&fabric, 1);
    node.net.adopted().unwrap();
    node.net.apply(Vec::new()).unwrap();
    let pod = node.pod(pod("foo", "a", &[]));
    assert!(pod.netns.connects(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 80)));
    drop(world);
    machine.run(|| Fabric::teardown("vpn")).unwrap();
}
