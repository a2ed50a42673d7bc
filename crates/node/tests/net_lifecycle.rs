//! What lasts, and what must not: restarts of the agent, foreign changes of the rule set, clusters that come and go.

mod net_common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use kernel::netlink::Batch;
use kernel::route::{Mac, Net, Route, VethEnd};
use net_common::*;
use node::net::NetEvent;
use node::net::fabric::Fabric;
use testkit::net::{GRACE, Netns, PATIENCE, echoes};

/// Something outside of the machine, with a link to it: the machine's default route. Returns the world's address and
/// the machine's.
fn world(machine: &Netns) -> (Netns, Ipv4Addr, Ipv4Addr) {
    let world = Netns::new().unwrap();
    let (there, here) = (Ipv4Addr::new(198, 51, 100, 2), Ipv4Addr::new(198, 51, 100, 1));
    let mut socket = machine.route_socket().unwrap();
    let mut batch = Batch::new();
    let end = |name, last| VethEnd { name, mac: Mac([2, 0, 0, 0, 0, last]), netns: None };
    let peer = VethEnd { netns: Some(world.fd.as_fd()), ..end("eth0", 2) };
    kernel::route::add_veth(&mut batch, end("eth0", 1), peer, 1400);
    socket.request(&batch).unwrap();
    let mut inside = world.route_socket().unwrap();
    for (socket, address) in [(&mut socket, here), (&mut inside, there)] {
        let link = kernel::route::index_of(socket, "eth0").unwrap().unwrap();
        let mut batch = Batch::new();
        kernel::route::add_address(&mut batch, link, address, 24);
        kernel::route::set_up(&mut batch, link);
        socket.request(&batch).unwrap();
    }
    let link = kernel::route::index_of(&mut socket, "eth0").unwrap().unwrap();
    let mut batch = Batch::new();
    let to = Net::everything();
    kernel::route::replace_route(&mut batch, Route { to, link, via: Some(there), source: None });
    socket.request(&batch).unwrap();
    (world, there, here)
}

#[test]
fn pods_reach_the_world_as_the_machine_and_the_world_does_not_reach_them() {
    needs_root!("pods_reach_the_world_as_the_machine_and_the_world_does_not_reach_them");
    let machine = machine();
    let (world, there, here) = world(&machine);
    let fabric = machine.run(|| Fabric::create(config("out", Families::Ipv4))).unwrap();
    assert!(fabric.warnings.is_empty(), "{:?}", fabric.warnings);
    let node = Node::new(&fabric, 1);
    assert_eq!(node.addresses.mtu, 1400, "the machine's own, so that no packet needs to be cut");
    node.net.adopted().unwrap();
    node.net.apply(Vec::new()).unwrap();
    let pod = node.pod(pod("foo", "a", &[]));
    let listener = world.run(|| TcpListener::bind("0.0.0.0:443")).unwrap();
    for from in [&pod.netns, &node.netns] {
        let stream = from.connect(SocketAddrV4::new(there, 443), PATIENCE).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), here);
        drop(stream);
    }
    // What listens on the machine is not a neighbour of the pods.
    machine.echo(&[8443], &[]).unwrap();
    assert!(world.connects(SocketAddrV4::new(here, 8443)));
    assert!(pod.netns.connect(SocketAddrV4::new(here, 8443), PATIENCE).is_err());
    // A neighbour of the machine that routes to the fabric gets nowhere.
    let mut socket = world.route_socket().unwrap();
    let link = kernel::route::index_of(&mut socket, "eth0").unwrap().unwrap();
    let mut batch = Batch::new();
    for to in ["100.64.0.0/10", "10.0.0.0/8"] {
        let to = to.parse().unwrap();
        kernel::route::replace_route(&mut batch, Route { to, link, via: Some(here), source: None });
    }
    socket.request(&batch).unwrap();
    pod.netns.echo(&[80], &[]).unwrap();
    assert!(world.connect(pod.at(80), GRACE).is_err());
    // A Service nobody serves, and a pod nobody has, do not leak out.
    for inside in ["10.96.0.1:443", "10.244.9.9:80", "10.88.0.77:80"] {
        let refused = pod.netns.connect(inside.parse::<SocketAddrV4>().unwrap(), PATIENCE).unwrap_err();
        assert_ne!(refused.kind(), std::io::ErrorKind::TimedOut, "{inside}: {refused}");
    }
}

#[test]
fn a_machine_that_drops_what_is_forwarded_lets_the_cluster_through() {
    needs_root!("a_machine_that_drops_what_is_forwarded_lets_the_cluster_through");
    let machine = machine();
    let (world, there, _) = world(&machine);
    world.echo(&[443], &[]).unwrap();
    let foreign =
        "table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }";
    nft(&machine, &[foreign]);
    let before = nft(&machine, &["list", "ruleset"]);
    let fabric = machine.run(|| Fabric::create(config("docker", Families::Ipv4))).unwrap();
    let node = Node::new(&fabric, 1);
    assert!(node.netns.connects(SocketAddrV4::new(there, 443)));
    machine.run(|| Fabric::teardown("docker")).unwrap();
    assert_eq!(nft(&machine, &["list", "ruleset"]), before);
}

/// All of `net` in /proc/sys, links, routes and rules of a namespace.
fn everything(netns: &Netns) -> (BTreeMap<String, String>, String) {
    fn walk(dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if let Ok(value) = std::fs::read_to_string(&path) {
                found.insert(path.display().to_string(), value);
            }
        }
    }
    let rules = nft(netns, &["list", "ruleset"]);
    netns.run(|| {
        let mut sysctls = BTreeMap::new();
        walk(Path::new("/proc/sys/net"), &mut sysctls);
        // Counters, which move by themselves.
        sysctls
            .retain(|name, _| !name.ends_with("_count") && !name.contains("/netfilter/nf_conntrack_buckets"));
        let ip = |arguments: &[&str]| {
            let output = std::process::Command::new("ip").args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let rest =
            [rules, ip(&["-br", "link"]), ip(&["-br", "addr"]), ip(&["route", "show", "table", "all"])];
        (sysctls, rest.join("\n"))
    })
}

#[test]
fn clusters_with_equal_ranges_live_side_by_side_and_leave_nothing() {
    needs_root!("clusters_with_equal_ranges_live_side_by_side_and_leave_nothing");
    let machine = machine();
    let (world, there, _) = world(&machine);
    world.echo(&[443], &[]).unwrap();
    let before = everything(&machine);
    let made: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|id| {
            let fabric = machine.run(|| Fabric::create(config(id, Families::Ipv4))).unwrap();
            let node = Node::new(&fabric, 1);
            node.net.adopted().unwrap();
            node.net.apply(Vec::new()).unwrap();
            let pod = node.pod(pod("foo", "a", &[]));
            (fabric, node, pod)
        })
        .collect();
    for (_, _, pod) in &made {
        assert!(pod.netns.connects(SocketAddrV4::new(there, 443)));
    }
    // The first goes; the second keeps its way out, though the first had turned ip_forward on.
    machine.run(|| Fabric::teardown("one")).unwrap();
    assert!(made[1].2.netns.connects(SocketAddrV4::new(there, 443)));
    // Everything of the second is killed: its namespaces go, and with them its links, but not the table.
    drop(made);
    let done = machine.run(|| Fabric::teardown("two")).unwrap();
    assert!(done.iter().any(|line| line.contains("cofferdam-two")), "{done:?}");
    let after = everything(&machine);
    assert_eq!(after.1, before.1);
    let differs: Vec<_> = before.0.iter().filter(|(name, value)| after.0.get(*name) != Some(value)).collect();
    assert!(differs.is_empty(), "{differs:?}");
    assert_eq!(machine.run(|| Fabric::teardown("two")).unwrap(), [""; 0], "nothing left to do");
}

#[test]
fn a_restarted_agent_takes_over_without_a_gap() {
    needs_root!("a_restarted_agent_takes_over_without_a_gap");
    let mut cluster = Cluster::new(1);
    let open = cluster.pod(0, pod("foo", "open", &[("app", "open")]));
    let closed = cluster.pod(0, pod("foo", "closed", &[("app", "closed")]));
    let lost = cluster.pod(0, pod("foo", "lost", &[]));
    for server in [&open, &closed] {
        server.netns.echo(&[80], &[]).unwrap();
    }
    let deny =
        || policy("{metadata: {name: d, namespace: foo}, spec: {podSelector: {matchLabels: {app: closed}}}}");
    cluster.apply(&[namespace("foo", &[]), deny()]);
    let mut stream = closed.netns.connect(open.at(80), PATIENCE).unwrap();
    assert!(echoes(&mut stream, PATIENCE));
    let rules = cluster.nodes[0].nft(&["list", "ruleset"]);

    let Node { netns, addresses, net, events } = cluster.nodes.remove(0);
    let generation = net.generation();
    drop((net, events));
    let (net, events) = start(&netns, &addresses);
    // Nothing changed, and what held holds.
    assert_eq!(nft(&netns, &["list", "ruleset"]), rules);
    assert!(echoes(&mut stream, PATIENCE));
    assert!(open.netns.connect(closed.at(80), GRACE).is_err());

    let records: Vec<_> =
        [&open, &closed].map(|pod| policy::network_policy::Event::UpsertPod(pod.record())).into();
    assert_eq!(net.adopt(open.net.clone()).unwrap().map(|given| given.v4), Some(open.ip));
    assert_eq!(net.adopt(closed.net.clone()).unwrap().map(|given| given.v4), Some(closed.ip));
    assert_eq!(net.adopt(pod("foo", "never", &[])).unwrap(), None);
    net.adopted().unwrap();
    let mut known = vec![namespace("foo", &[]), deny()];
    known.extend(records.into_iter().map(|event| match event {
        policy::network_policy::Event::UpsertPod(mut record) => {
            record.local = true;
            policy::network_policy::Event::UpsertPod(record)
        }
        other => other,
    }));
    net.apply(known).unwrap();
    assert_eq!(net.verify().unwrap(), [""; 0]);
    // One transaction: the pod that was not adopted went.
    assert_eq!(net.generation(), generation + 1);
    assert!(echoes(&mut stream, PATIENCE));
    assert!(open.netns.connect(closed.at(80), GRACE).is_err());
    assert!(!nft(&netns, &["list", "set", "inet", "cofferdam", "ready"]).contains(&lost.ip.to_string()));
    assert!(events.try_recv().is_err(), "nothing to repair");
    // And the next pod gets an address of its own.
    let node = Node { netns, addresses, net, events };
    let next = node.pod(pod("foo", "next", &[]));
    assert!(next.ip != open.ip && next.ip != closed.ip);
    assert!(next.netns.connects(open.at(80)));
}

#[test]
fn what_others_change_is_seen_and_repaired() {
    needs_root!("what_others_change_is_seen_and_repaired");
    let cluster = Cluster::new(1);
    let a = cluster.pod(0, pod("foo", "a", &[]));
    let b = cluster.pod(0, pod("foo", "b", &[]));
    b.netns.echo(&[80], &[]).unwrap();
    cluster.apply(&[namespace("foo", &[]), policy(DENY_INGRESS)]);
    let node = &cluster.nodes[0];
    let rules = node.nft(&["list", "ruleset"]);
    for change in [
        &["flush", "ruleset"][..],
        &["delete", "table", "inet", "cofferdam"],
        &["flush", "chain", "inet", "cofferdam", "forward"],
        &["insert", "rule", "inet", "cofferdam", "forward", "accept"],
        &["flush", "set", "inet", "cofferdam", "own"],
        &["add", "element", "inet", "cofferdam", "ready", "{ 10.244.1.99 }"],
        &["add", "chain", "inet", "cofferdam", "mine"],
        &["add", "table inet cofferdam { flags dormant; }"],
    ] {
        node.nft(change);
        let event = node.events.recv_timeout(Duration::from_secs(5));
        assert!(matches!(&event, Ok(NetEvent::Repaired { by, .. }) if by == "nft"), "{change:?}: {event:?}");
        assert_eq!(sorted(&node.nft(&["list", "ruleset"])), sorted(&rules), "{change:?}");
        assert_eq!(node.net.verify().unwrap(), [""; 0]);
        assert!(a.netns.connect(b.at(80), GRACE).is_err());
    }
    // What is not ours is not touched, and no reason to say anything.
    node.nft(&["add table ip mine; add chain ip mine c"]);
    cluster.apply(&[policy_gone()]);
    assert!(a.netns.connects(b.at(80)));
    assert!(node.events.try_recv().is_err());
    assert!(node.nft(&["list", "ruleset"]).contains("table ip mine"));
}

/// Chains are listed in the order they were made in.
fn sorted(rules: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = rules.lines().collect();
    lines.sort_unstable();
    lines
}

fn policy_gone() -> policy::network_policy::Event {
    policy::network_policy::Event::RemovePolicy { namespace: "foo".into(), name: "deny".into() }
}

#[test]
fn what_we_write_lists_and_loads_with_nft_and_is_the_same_again() {
    needs_root!("what_we_write_lists_and_loads_with_nft_and_is_the_same_again");
    use node::net::{HostPort, NamedPort, Protocol};
    let cluster = Cluster::new(1);
    let mut server = pod("foo", "server", &[("app", "server")]);
    server.named_ports = vec![NamedPort { name: "web".into(), protocol: Protocol::Tcp, port: 80 }];
    server.host_ports = vec![
        HostPort { host_ip: None, protocol: Protocol::Udp, host_port: 9000, container_port: 53 },
        HostPort {
            host_ip: Some(Ipv4Addr::new(10, 88, 0, 2).into()),
            protocol: Protocol::Tcp,
            host_port: 9001,
            container_port: 80,
        },
    ];
    let _server = cluster.pod(0, server);
    let _client = cluster.pod(0, pod("foo", "client", &[]));
    cluster.apply(&[
        namespace("foo", &[]),
        policy(
            "
metadata: { name: everything, namespace: foo }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {}
    - ipBlock: { cidr: 10.0.0.0/8, except: [10.244.1.0/24, 10.88.0.0/16] }
    ports: [{ port: 80 }, { port: 5000, endPort: 5010, protocol: UDP }, { protocol: SCTP }]
  egress:
  - to: [{ ipBlock: { cidr: 0.0.0.0/0 } }]
    ports: [{ protocol: TCP, port: 443 }]
  - {}",
        ),
    ]);
    let node = &cluster.nodes[0];
    let listed = node.nft(&["list", "ruleset"]);
    for words in [
        "meta l4proto tcp ct original ip saddr @pods-",
        "meta l4proto udp ct original ip saddr @cidr-",
        "ct reply proto-src 5000-5010 return",
        "udp . 9000 : 10.244.1.2 . 53",
        "10.88.0.2 . tcp . 9001 : 10.244.1.2 . 80",
        "flags interval",
        "jump ingress-",
    ] {
        assert!(listed.contains(words), "{words:?} is not in\n{listed}");
    }
    let path = std::env::temp_dir().join(format!("cofferdam-ruleset-{}.nft", std::process::id()));
    std::fs::write(&path, format!("flush ruleset\n{listed}")).unwrap();
    node.nft(&["-f", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    // The same bytes again: so the listener finds nothing to repair.
    assert_eq!(node.net.verify().unwrap(), [""; 0]);
    assert_eq!(node.nft(&["list", "ruleset"]), listed);
    assert!(node.events.recv_timeout(GRACE).is_err());
}
