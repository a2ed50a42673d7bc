//! Measures the pod network: `cargo run --release -p node --example net-bench` as root. Medians of one run; ratios can be
//! trusted on a loaded machine, absolute numbers less.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::netlink::{Batch, Family, Socket};
use kernel::nft::{self, Base, Chain, ChainKind, Ct, Expr, Hook, Op, Rule, Table, Transaction, Verdict};
use kernel::route::{self, Ipv4Net, Mac, Route, VethEnd};
use node::net::fabric::{Fabric, FabricConfig, Ranges};
use node::net::{NetEvent, NodeNet, NodeNetConfig, PodNet};
use policy::network_policy::{Compiler, Event, PodRecord, Policy, ir};
use testkit::net::Netns;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn p90(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 9 / 10).copied().unwrap_or_default()
}

fn main() -> Result<()> {
    let machine = Netns::new()?;
    let config = FabricConfig { cluster_id: "bench".into(), v4: Ranges::<Ipv4Addr>::DEFAULT, v6: None };
    let started = Instant::now();
    let fabric = machine.run(|| Fabric::create(config.clone()))?;
    println!("fabric                                  {:>9.3} ms", ms(started.elapsed()));
    let netns = Netns::new()?;
    let started = Instant::now();
    let addresses = fabric.add_node(1, netns.fd.as_fd())?;
    println!("node's link                             {:>9.3} ms", ms(started.elapsed()));
    let (sender, repaired) = std::sync::mpsc::channel();
    let node_config = NodeNetConfig {
        node_name: "node-1".into(),
        v4: addresses.v4,
        v6: addresses.v6,
        mtu: addresses.mtu,
        on_event: Box::new(move |event| drop(sender.send(event))),
    };
    let started = Instant::now();
    let net = netns.run(|| NodeNet::start(node_config))?;
    net.adopted()?;
    net.apply(vec![Event::UpsertNamespace("ns".into(), BTreeMap::new())])?;
    println!("node's table                            {:>9.3} ms", ms(started.elapsed()));

    let mut pods = Vec::new();
    let (mut namespaces, mut networks) = (Vec::new(), Vec::new());
    for i in 0..100 {
        let started = Instant::now();
        let pod = Netns::new()?;
        namespaces.push(started.elapsed());
        let socket = pod.route_fd()?;
        let started = Instant::now();
        let ip = net.prepare(pod_net(i), &pod.fd, socket)?.v4;
        networks.push(started.elapsed());
        pods.push((pod, ip));
    }
    println!(
        "pod: network namespace                  {:>9.3} ms (p90 {:.3})",
        ms(median(namespaces.clone())),
        ms(p90(namespaces))
    );
    println!(
        "pod: veth, address, rules, routes       {:>9.3} ms (p90 {:.3})",
        ms(median(networks.clone())),
        ms(p90(networks))
    );

    let empty = testkit::memory();
    println!("policy change → enforced (one policy's rule changes; p50 and p90 of 40)");
    for remote in [0u32, 900] {
        let events = (0..remote).map(|i| Event::UpsertPod(remote_pod(i)));
        net.apply(events.collect())?;
        for count in [10u32, 100, 1000] {
            net.apply((0..count).map(|i| Event::UpsertPolicy(policy(i, 80))).collect())?;
            let mut times = Vec::new();
            for round in 0..40u32 {
                let changed = policy(round % count, 81 + round as u16);
                let started = Instant::now();
                net.apply(vec![Event::UpsertPolicy(changed)])?;
                times.push(started.elapsed());
            }
            let pods = 100 + remote;
            println!(
                "  {count:>4} policies × {pods:>4} pods             {:>9.3} ms (p90 {:.3})",
                ms(median(times.clone())),
                ms(p90(times))
            );
            if (remote, count) == (0, 100) || (remote, count) == (900, 1000) {
                let all = (0..100).map(local_record).chain((0..remote).map(remote_pod)).collect::<Vec<_>>();
                at_size(&net, &netns, &repaired, &all, count, empty)?;
            }
        }
        if remote == 0 {
            net.apply(
                (0..1000)
                    .map(|i| Event::RemovePolicy { namespace: "ns".into(), name: format!("p{i}") })
                    .collect(),
            )?;
        }
    }
    let mut joins = Vec::new();
    for i in 0..20 {
        let pod = Netns::new()?;
        let socket = pod.route_fd()?;
        let started = Instant::now();
        let ip = net.prepare(pod_net(1000 + i), &pod.fd, socket)?.v4;
        joins.push(started.elapsed());
        pods.push((pod, ip));
    }
    println!("pod's network at 1 000 policies         {:>9.3} ms", ms(median(joins)));
    let mut audiences = Vec::new();
    for i in 0..20 {
        let started = Instant::now();
        let nodes = net.audience(&pod_net(1000 + i).uid, 2, |uid| Some(uid.to_owned()));
        audiences.push(started.elapsed());
        anyhow::ensure!(nodes.len() <= 2, "{nodes:?}");
    }
    println!("who must know a new pod, by 1 000 policies {:>6.3} ms", ms(median(audiences)));
    let started = Instant::now();
    anyhow::ensure!(net.verify()?.is_empty(), "the kernel holds something else");
    println!("read back and compare the whole table   {:>9.3} ms", ms(started.elapsed()));

    // A client and a server that policies guard, beside two routed pairs without.
    let (bare_client, bare_server, _bare) = routed_pair(false)?;
    let (tracked_client, tracked_server, _tracked) = routed_pair(true)?;
    bare_server.echo(&[80], &[])?;
    tracked_server.echo(&[80], &[])?;
    pods[1].0.echo(&[80], &[])?;
    net.apply(vec![Event::UpsertPolicy(allow_all())])?;
    let target = Ipv4Addr::new(10, 9, 0, 2);
    let cases = [
        ("bare", &bare_client, target),
        ("conntrack", &tracked_client, target),
        ("ours", &pods[0].0, pods[1].1),
    ];
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for _ in 0..20 {
        for (name, from, to) in cases {
            let sample = from.run(|| -> std::io::Result<Vec<Duration>> {
                (0..100)
                    .map(|_| {
                        let started = Instant::now();
                        TcpStream::connect(SocketAddrV4::new(to, 80)).map(|_| started.elapsed())
                    })
                    .collect()
            })?;
            times.entry(name).or_default().extend(sample);
        }
    }
    let bare = median(times["bare"].clone());
    println!("TCP connect (p50 of 2 000, interleaved)");
    for (name, _, _) in cases {
        let p50 = median(times[name].clone());
        println!(
            "  {name:<10} {:>9.1} µs  × {:.2}",
            p50.as_secs_f64() * 1e6,
            p50.as_secs_f64() / bare.as_secs_f64()
        );
    }
    let mut detached = Vec::new();
    for i in 0..100 {
        let started = Instant::now();
        net.detach(&pod_net(i).uid)?;
        detached.push(started.elapsed());
    }
    println!("pod goes: rules                         {:>9.3} ms", ms(median(detached)));
    drop(net);
    for line in machine.run(|| Fabric::teardown("bench"))? {
        println!("{line}");
    }
    Ok(())
}

/// What else a size costs: a pod that joins, all of it anew, its repair, its memory.
fn at_size(
    net: &NodeNet,
    netns: &Netns,
    repaired: &std::sync::mpsc::Receiver<NetEvent>,
    pods: &[PodRecord],
    policies: u32,
    empty: (f64, f64),
) -> Result<()> {
    let line = |what: &str, times: Vec<Duration>| {
        let (half, most) = (ms(median(times.clone())), ms(p90(times)));
        println!("       {what:<33}{half:>9.3} ms (p90 {most:.3})");
    };
    let (kernel, process) = testkit::memory();
    let mut joins = Vec::new();
    for i in 0..40 {
        let pod = remote_pod(5_000 + i);
        let uid = pod.uid.clone();
        let started = Instant::now();
        net.apply(vec![Event::UpsertPod(pod)])?;
        joins.push(started.elapsed());
        net.apply(vec![Event::RemovePod(uid)])?;
    }
    line("a pod joins → enforced", joins);
    // The other way to do all this: compile everything again, and put the whole table in the place of the old one.
    let mut anew = Vec::new();
    for _ in 0..5 {
        let mut other = Socket::open_in(netns.fd.as_fd(), Family::Netfilter)?;
        let whole = nft::table(&mut other, nft::Family::Inet, "cofferdam")?.context("the table")?;
        let mut events = vec![Event::UpsertNamespace("ns".into(), BTreeMap::new())];
        events.extend(pods.iter().cloned().map(Event::UpsertPod));
        events.extend((0..policies).map(|i| Event::UpsertPolicy(policy(i, 80))));
        let started = Instant::now();
        let mut compiler = Compiler::new(&[ir::Family::V4]);
        compiler.apply(events);
        anyhow::ensure!(!compiler.rule_set().chains.is_empty(), "nothing was compiled");
        let mut transaction = Transaction::new(nft::Family::Inet, "cofferdam");
        transaction.delete_table();
        transaction.add_table(None);
        transaction.add_all(&whole);
        transaction.commit(&mut other)?;
        anew.push(started.elapsed());
    }
    line("beside it: all compiled, replaced", anew);
    anyhow::ensure!(net.verify()?.is_empty(), "the kernel holds something else");
    // Someone deletes the table: how long until all of it is there again.
    let mut repairs = Vec::new();
    for _ in 0..10 {
        let mut vandal = Socket::open_in(netns.fd.as_fd(), Family::Netfilter)?;
        let mut transaction = Transaction::new(nft::Family::Inet, "cofferdam");
        transaction.delete_table();
        let started = Instant::now();
        transaction.commit(&mut vandal)?;
        let event = repaired.recv_timeout(Duration::from_secs(10)).context("the table was not repaired")?;
        repairs.push(started.elapsed());
        anyhow::ensure!(matches!(event, NetEvent::Repaired { .. }), "{event:?}");
    }
    line("deleted by another → whole again", repairs);
    println!(
        "       memory over no policies: kernel {:+.1} MiB, this process {:+.1} MiB",
        (kernel - empty.0) / 1024.0,
        (process - empty.1) / 1024.0
    );
    Ok(())
}

/// A pod of this node, as the compiler has it.
fn local_record(i: u32) -> PodRecord {
    let address = IpAddr::V4(Ipv4Addr::from_bits(0x0af4_0102 + i));
    PodRecord { uid: format!("uid-{i}"), local: true, addresses: vec![address], ..remote_pod(i) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn labels(i: u32) -> BTreeMap<String, String> {
    [("app".to_string(), format!("a{}", i % 100)), ("role".to_string(), format!("r{}", i % 7))].into()
}

fn pod_net(i: u32) -> PodNet {
    PodNet {
        uid: format!("uid-{i}"),
        namespace: "ns".into(),
        name: format!("pod-{i}"),
        labels: labels(i),
        ..PodNet::default()
    }
}

fn remote_pod(i: u32) -> PodRecord {
    PodRecord {
        uid: format!("remote-{i}"),
        namespace: "ns".into(),
        name: format!("remote-{i}"),
        labels: labels(i),
        local: false,
        addresses: vec![IpAddr::V4(Ipv4Addr::from_bits(0x0af4_0200 + i))],
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

/// Policies select the pods of one app each; every pod is selected by a tenth of a hundred of them.
fn policy(i: u32, port: u16) -> Policy {
    parse(serde_json::json!({
        "metadata": {"name": format!("p{i}"), "namespace": "ns"},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("a{}", i % 100)}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": format!("r{}", i % 7)}}}],
                         "ports": [{"port": port}]}],
        },
    }))
}

fn allow_all() -> Policy {
    parse(serde_json::json!({
        "metadata": {"name": "all", "namespace": "ns"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}], "egress": [{"ports": [{"port": 80}]}],
                 "policyTypes": ["Ingress", "Egress"]},
    }))
}

/// Two namespaces behind a router, with or without connection tracking.
fn routed_pair(tracked: bool) -> Result<(Netns, Netns, Netns)> {
    let (client, server, router) = (Netns::new()?, Netns::new()?, Netns::new()?);
    let mut middle = router.route_socket()?;
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    for (name, end, last) in [("c", &client, 1u8), ("s", &server, 2)] {
        let address = Ipv4Addr::new(10, 9, 0, last);
        let (here, there) = (Mac([2, 0, 0, 0, 0, last]), Mac([2, 0, 0, 0, 1, last]));
        let mut batch = Batch::new();
        let near = VethEnd { name, mac: here, netns: None };
        route::add_veth(
            &mut batch,
            near,
            VethEnd { name: "eth0", mac: there, netns: Some(end.fd.as_fd()) },
            1500,
        );
        middle.request(&batch)?;
        let link = route::index_of(&mut middle, name)?.context("the link just made")?;
        let mut batch = Batch::new();
        route::set_up(&mut batch, link);
        route::replace_neighbour(&mut batch, link, address, there);
        route::replace_route(
            &mut batch,
            Route { to: Ipv4Net::new(address, 32), link, via: None, source: None },
        );
        middle.request(&batch)?;
        let mut inside = end.route_socket()?;
        let eth0 = route::index_of(&mut inside, "eth0")?.context("the peer just made")?;
        let mut batch = Batch::new();
        route::add_address(&mut batch, eth0, address, 32);
        route::set_up(&mut batch, eth0);
        route::replace_neighbour(&mut batch, eth0, gateway, here);
        let to = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0);
        route::replace_route(&mut batch, Route { to, link: eth0, via: Some(gateway), source: None });
        inside.request(&batch)?;
    }
    router.run(|| route::netns::write_sysctl("net/ipv4/ip_forward", "1"))?;
    if tracked {
        let mut table = Table::default();
        let base = Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, drop: false });
        let rules = vec![Rule(vec![
            Expr::Ct { key: Ct::State, to: 1 },
            Expr::Bitwise { from: 1, to: 1, mask: 1u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
            Expr::Cmp { op: Op::Neq, from: 1, data: vec![0; 4] },
            Expr::Verdict(Verdict::Drop),
        ])];
        table.chains.insert("forward".into(), Chain { base, rules });
        let mut transaction = Transaction::new(nft::Family::Inet, "t");
        transaction.add_table(None);
        transaction.add_all(&table);
        transaction.commit(&mut Socket::open_in(router.fd.as_fd(), Family::Netfilter)?)?;
    }
    Ok((client, server, router))
}
