//! What a policy costs a packet: `cargo run --release -p node --example data-path-bench` as root. Connect latency,
//! established round trip and throughput between two pods of a node: nothing in between, conntrack alone, conntrack with
//! NAT's chains empty, our table at 10, 1 000 and 100 000 set elements, and a chain per policy, one after the other, as
//! kube-router lays them out. All in one run, interleaved: ratios can be trusted on a loaded machine, numbers less.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::netlink::{Batch, Family, Socket};
use kernel::nft::{
    self, Base, Chain, ChainKind, Ct, Data, DataType, Expr, Header, Hook, Meta, Op, Rule, Set, SetType,
    Table, Transaction, Verdict,
};
use kernel::route::{self, Mac, Net, Route, VethEnd};
use node::net::fabric::{Fabric, FabricConfig, Ranges};
use node::net::{NodeNet, NodeNetConfig, PodNet};
use policy::network_policy::{Event, PodRecord, Policy};
use testkit::net::Netns;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}

fn main() -> Result<()> {
    let machine = Netns::new()?;
    let config = FabricConfig { cluster_id: "bench".into(), v4: Ranges::<Ipv4Addr>::DEFAULT, v6: None };
    let fabric = machine.run(|| Fabric::create(config))?;
    let netns = Netns::new()?;
    let addresses = fabric.add_node(1, netns.fd.as_fd())?;
    let node = NodeNetConfig {
        node_name: "node-1".into(),
        v4: addresses.v4,
        v6: addresses.v6,
        mtu: addresses.mtu,
        on_event: Box::new(|event| println!("{event:?}")),
    };
    let net = netns.run(|| NodeNet::start(node))?;
    net.adopted()?;
    net.apply(vec![Event::UpsertNamespace("ns".into(), BTreeMap::new())])?;
    let pod = |name: &str| -> Result<(Netns, Ipv4Addr)> {
        let netns = Netns::new()?;
        let pod = PodNet { uid: name.into(), namespace: "ns".into(), name: name.into(), ..PodNet::default() };
        let ip = net.prepare(pod, &netns.fd, netns.route_fd()?)?.v4;
        Ok((netns, ip))
    };
    let (client, _) = pod("client")?;
    let (server, server_ip) = pod("server")?;
    server.echo(&[80], &[])?;
    net.apply(vec![Event::UpsertPolicy(parse(serde_json::json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                 "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}],
                 "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 80}]}]},
    })))])?;

    let pairs = [
        ("nothing", routed_pair(None)?),
        ("conntrack", routed_pair(Some(tracked()))?),
        ("conntrack, NAT's chains empty", routed_pair(Some(translated()))?),
        ("1 000 policies in a line", routed_pair(Some(linear(1000)))?),
    ];
    for (_, pair) in &pairs {
        pair.server.echo(&[80], &[])?;
    }
    println!(
        "{:<32} {:>12} {:>8} {:>12} {:>10}",
        "between client and server", "connect µs", "×", "round trip µs", "MB/s"
    );
    let mut elements = 2;
    for size in [10u32, 1_000, 100_000] {
        let before = testkit::memory();
        let started = Instant::now();
        net.apply((elements..size).map(|i| Event::UpsertPod(remote(i))).collect())?;
        let took = started.elapsed();
        elements = size;
        let after = testkit::memory();
        let ours = format!("ours, {size} elements");
        let mut cases: Vec<(&str, &Netns, Ipv4Addr)> =
            pairs.iter().map(|(name, pair)| (*name, &pair.client, SERVER)).collect();
        cases.push((&ours, &client, server_ip));
        report(&cases)?;
        println!(
            "{:<32} {:.1} ms to write; kernel {:+.1} MiB, this process {:+.1} MiB",
            "",
            took.as_secs_f64() * 1e3,
            (after.0 - before.0) / 1024.0,
            (after.1 - before.1) / 1024.0
        );
    }
    ensure!(net.verify()?.is_empty(), "the kernel holds something else");
    drop(net);
    machine.run(|| Fabric::teardown("bench"))?;
    Ok(())
}

fn report(cases: &[(&str, &Netns, Ipv4Addr)]) -> Result<()> {
    let mut connects: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    let mut trips: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    let mut rates: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for _ in 0..15 {
        for (case, (_, from, to)) in cases.iter().enumerate() {
            let to = SocketAddrV4::new(*to, 80);
            let (connect, trip, rate) = from.run(|| -> Result<_> {
                let mut connect = Vec::new();
                for _ in 0..100 {
                    let started = Instant::now();
                    drop(TcpStream::connect(to)?);
                    connect.push(started.elapsed());
                }
                let mut stream = TcpStream::connect(to)?;
                stream.set_nodelay(true)?;
                let mut trip = Vec::new();
                for _ in 0..100 {
                    let started = Instant::now();
                    stream.write_all(b"x")?;
                    stream.read_exact(&mut [0])?;
                    trip.push(started.elapsed());
                }
                const BYTES: usize = 4 << 20;
                let mut reader = stream.try_clone()?;
                let started = Instant::now();
                let reading = std::thread::spawn(move || reader.read_exact(&mut vec![0; BYTES]));
                stream.write_all(&vec![0; BYTES])?;
                reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
                Ok((connect, trip, BYTES as f64 / 1e6 / started.elapsed().as_secs_f64()))
            })?;
            connects.entry(case).or_default().extend(connect);
            trips.entry(case).or_default().extend(trip);
            rates.entry(case).or_default().push(rate);
        }
    }
    let bare = median(connects[&0].clone());
    for (case, (name, ..)) in cases.iter().enumerate() {
        let connect = median(connects[&case].clone());
        let mut rate = rates[&case].clone();
        rate.sort_by(f64::total_cmp);
        println!(
            "{name:<32} {connect:>12.1} {:>8.2} {:>12.1} {:>10.0}",
            connect / bare,
            median(trips[&case].clone()),
            rate[rate.len() / 2]
        );
    }
    Ok(())
}

fn remote(i: u32) -> PodRecord {
    PodRecord {
        uid: format!("remote-{i}"),
        namespace: "ns".into(),
        name: format!("remote-{i}"),
        labels: BTreeMap::new(),
        local: false,
        addresses: vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a80_0000 + i))],
        named_ports: BTreeMap::new(),
        created: String::new(),
    }
}

fn parse(value: serde_json::Value) -> Policy {
    let object = serde_json::from_value(value).expect("a policy");
    let (policy, error) = Policy::from_api(&object);
    assert!(error.is_none(), "{error:?}");
    policy
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind, hook, priority, drop: false })
}

/// A rule that asks conntrack on every packet.
fn tracked() -> Table {
    let mut table = Table::default();
    let rules = vec![Rule(vec![
        Expr::Ct { key: Ct::State, to: 1 },
        Expr::Bitwise { from: 1, to: 1, mask: 1u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { op: Op::Neq, from: 1, data: vec![0; 4] },
        Expr::Verdict(Verdict::Drop),
    ])];
    table.chains.insert("forward".into(), Chain { base: base(ChainKind::Filter, Hook::Forward, 0), rules });
    table
}

/// What every cluster with Services has: NAT looks at each new connection.
fn translated() -> Table {
    let mut table = tracked();
    for (name, hook, priority) in
        [("prerouting", Hook::Prerouting, -100), ("postrouting", Hook::Postrouting, 100)]
    {
        let chain = Chain { base: base(ChainKind::Nat, hook, priority), rules: Vec::new() };
        table.chains.insert(name.into(), chain);
    }
    table
}

/// A chain and a set per policy, jumped to one after the other; the last one allows. Established connections are let
/// through first, as such layouts do.
fn linear(policies: u32) -> Table {
    let mut table = translated();
    let mut rules = vec![Rule(vec![
        Expr::Ct { key: Ct::State, to: 1 },
        Expr::Bitwise { from: 1, to: 1, mask: 2u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { op: Op::Neq, from: 1, data: vec![0; 4] },
        Expr::Verdict(Verdict::Accept),
    ])];
    for i in 0..policies {
        let (set, chain) = (format!("src-{i}"), format!("policy-{i}"));
        let address = if i + 1 == policies { Ipv4Addr::new(10, 9, 0, 1) } else { Ipv4Addr::from_bits(i + 1) };
        let elements = [((address.octets().to_vec(), false), Data::Nothing)].into();
        table.sets.insert(set.clone(), Set { of: SetType::set(&[DataType::Ipv4Addr]), elements });
        let allow = Rule(vec![
            Expr::Meta { key: Meta::NfProto, to: 1 },
            Expr::Cmp { op: Op::Eq, from: 1, data: vec![2] },
            Expr::Payload { base: Header::Network, offset: 12, len: 4, to: 1 },
            Expr::Lookup { set, from: 1, to: None, inverted: false },
            Expr::Verdict(Verdict::Accept),
        ]);
        table.chains.insert(chain.clone(), Chain { base: None, rules: vec![allow] });
        rules.push(Rule(vec![Expr::Verdict(Verdict::Jump(chain))]));
    }
    rules.push(Rule(vec![Expr::Verdict(Verdict::Drop)]));
    table.chains.insert("forward".into(), Chain { base: base(ChainKind::Filter, Hook::Forward, 0), rules });
    table
}

struct Pair {
    client: Netns,
    server: Netns,
    _router: Netns,
}

/// Two namespaces behind a router with that table.
fn routed_pair(table: Option<Table>) -> Result<Pair> {
    let (client, server, router) = (Netns::new()?, Netns::new()?, Netns::new()?);
    let mut middle = router.route_socket()?;
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    for (name, end, last) in [("c", &client, 1u8), ("s", &server, 2)] {
        let address = Ipv4Addr::new(10, 9, 0, last);
        let (here, there) = (Mac([2, 0, 0, 0, 0, last]), Mac([2, 0, 0, 0, 1, last]));
        let mut batch = Batch::new();
        let peer = VethEnd { name: "eth0", mac: there, netns: Some(end.fd.as_fd()) };
        route::add_veth(&mut batch, VethEnd { name, mac: here, netns: None }, peer, 1500);
        middle.request(&batch)?;
        let link = route::index_of(&mut middle, name)?.context("the link just made")?;
        let mut batch = Batch::new();
        route::set_up(&mut batch, link);
        route::replace_neighbour(&mut batch, link, address, there);
        route::replace_route(&mut batch, Route { to: Net::single(address), link, via: None, source: None });
        middle.request(&batch)?;
        let mut inside = end.route_socket()?;
        let eth0 = route::index_of(&mut inside, "eth0")?.context("the peer just made")?;
        let mut batch = Batch::new();
        route::add_address(&mut batch, eth0, address, 32);
        route::set_up(&mut batch, eth0);
        route::replace_neighbour(&mut batch, eth0, gateway, here);
        route::replace_route(
            &mut batch,
            Route { to: Net::everything(), link: eth0, via: Some(gateway), source: None },
        );
        inside.request(&batch)?;
    }
    router.run(|| route::netns::write_sysctl("net/ipv4/ip_forward", "1"))?;
    if let Some(table) = table {
        let mut transaction = Transaction::new(nft::Family::Inet, "t");
        transaction.add_table(None);
        transaction.add_all(&table);
        transaction.commit(&mut Socket::open_in(router.fd.as_fd(), Family::Netfilter)?)?;
    }
    Ok(Pair { client, server, _router: router })
}
