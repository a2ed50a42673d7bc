//! Measures what a change of one Service costs: `cargo run --release -p node --example service-bench` as root. In one run:
//! the node's table as it is, its whole part about Services written again, and a chain per Service behind a verdict map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::netlink::{Family, Socket};
use kernel::nft::{
    self, Base, Chain, ChainKind, Data, DataType, Elements, Expr, Header, Hook, Meta, Rule, Set, SetType,
    Table, Transaction, Verdict,
};
use node::net::fabric::{Fabric, FabricConfig, Ranges};
use node::net::{Backends, NodeNet, NodeNetConfig, Protocol, ServiceChange, ServicePort};
use policy::network_policy::Event;
use testkit::net::Netns;

const ROUNDS: u32 = 40;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// Two endpoints; another `round` has another second one.
fn service(number: u32, round: u32) -> ServiceChange {
    let endpoint = |host: u32| SocketAddr::from((Ipv4Addr::from_bits(0x0af4_0000 + host % 65_536), 8080));
    let all = Backends::of([endpoint(2 * number), endpoint(2 * number + 1 + 2 * round)]);
    let port = ServicePort {
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ip: IpAddr::V4(Ipv4Addr::from_bits(0x0a60_0001 + number)),
        external_ips: BTreeSet::new(),
        node_port: None,
        affinity: None,
        inside: all.clone(),
        outside: all.clone(),
        all,
    };
    ServiceChange { name: ("ns".into(), format!("s{number}")), ports: vec![port] }
}

/// Resident memory of this process, and what the kernel has in slabs and vmalloc, in MiB.
fn memory() -> Result<(f64, f64)> {
    let number = |file: &str, names: &[&str]| -> Result<f64> {
        let text = std::fs::read_to_string(file).with_context(|| file.to_string())?;
        let of = |line: &str| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name).then(|| value.trim().trim_end_matches(" kB").parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(of).sum::<f64>() / 1024.0)
    };
    Ok((number("/proc/self/status", &["VmRSS"])?, number("/proc/meminfo", &["Slab", "VmallocUsed"])?))
}

fn main() -> Result<()> {
    let machine = Netns::new()?;
    let config = FabricConfig { cluster_id: "bench-s".into(), v4: Ranges::<Ipv4Addr>::DEFAULT, v6: None };
    let fabric = machine.run(|| Fabric::create(config))?;
    println!("a change of one Service → in the kernel, two endpoints each (medians of {ROUNDS}, ms)");
    println!("Services   one endpoint   all at once   a chain each   process MiB   kernel MiB");
    for count in [10u32, 1000, 10_000] {
        let netns = Netns::new()?;
        let addresses = fabric.add_node(1, netns.fd.as_fd())?;
        let node_config = NodeNetConfig {
            node_name: "node-1".into(),
            v4: addresses.v4,
            v6: addresses.v6,
            mtu: addresses.mtu,
            on_event: Box::new(|event| println!("{event:?}")),
        };
        let net = netns.run(|| NodeNet::start(node_config))?;
        net.adopted()?;
        net.apply(vec![Event::UpsertNamespace("ns".into(), BTreeMap::new())])?;
        net.set_services(Vec::new())?;
        let before = memory()?;
        let started = Instant::now();
        net.change_services((0..count).map(|number| service(number, 0)).collect())?;
        let whole = started.elapsed();
        let after = memory()?;
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let change = service(round * 7 % count, round);
            let started = Instant::now();
            net.change_services(vec![change])?;
            times.push(started.elapsed());
        }
        anyhow::ensure!(net.verify()?.is_empty(), "the kernel holds something else");
        let chains = a_chain_each(count)?;
        println!(
            "{count:>8} {:>14.3} {:>13.3} {:>14.3} {:>13.1} {:>12.1}",
            median(times),
            whole.as_secs_f64() * 1e3,
            chains,
            after.0 - before.0,
            after.1 - before.1,
        );
        drop(net);
        fabric.remove_node(1)?;
    }
    for line in machine.run(|| Fabric::teardown("bench-s"))? {
        println!("{line}");
    }
    Ok(())
}

/// The layout that most have: (address, protocol, port) → chain of the Service, which chooses. The median of its changes.
fn a_chain_each(count: u32) -> Result<f64> {
    let netns = Netns::new()?;
    let mut socket = Socket::open_in(netns.fd.as_fd(), Family::Netfilter)?;
    let key = |number: u32| {
        let mut key = Ipv4Addr::from_bits(0x0a60_0001 + number).octets().to_vec();
        key.extend([6, 0, 0, 0, 0, 80, 0, 0]);
        key
    };
    let chain = |number: u32, round: u32| {
        let to = |host: u32| {
            vec![
                Expr::Immediate { to: 1, data: Ipv4Addr::from_bits(0x0af4_0000 + host).octets().to_vec() },
                Expr::Immediate { to: 2, data: 8080u16.to_be_bytes().to_vec() },
                Expr::Nat { family: 2, source: false, address: 1, port: Some(2) },
            ]
        };
        let mut first = vec![
            Expr::Numgen { modulus: 2, random: true, to: 1 },
            Expr::Cmp { op: nft::Op::Eq, from: 1, data: vec![0; 4] },
        ];
        first.extend(to(2 * number));
        Chain { base: None, rules: vec![Rule(first), Rule(to(2 * number + 1 + 2 * round))] }
    };
    let by_address = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    let mut table = Table::default();
    let mut elements = Elements::new();
    for number in 0..count {
        table.chains.insert(format!("s{number}-0"), chain(number, 0));
        elements.insert((key(number), false), Data::Verdict(Verdict::Goto(format!("s{number}-0"))));
    }
    table.sets.insert("services".into(), Set { of: SetType::verdict_map(&by_address), elements });
    let rules = vec![Rule(vec![
        Expr::Meta { key: Meta::NfProto, to: 1 },
        Expr::Cmp { op: nft::Op::Eq, from: 1, data: vec![2] },
        Expr::Payload { base: Header::Network, offset: 16, len: 4, to: 1 },
        Expr::Meta { key: Meta::L4Proto, to: 9 },
        Expr::Payload { base: Header::Transport, offset: 2, len: 2, to: 10 },
        Expr::Lookup { set: "services".into(), from: 1, to: Some(0), inverted: false },
    ])];
    let base = Some(Base { kind: ChainKind::Nat, hook: Hook::Prerouting, priority: -100, drop: false });
    table.chains.insert("prerouting".into(), Chain { base, rules });
    let mut transaction = Transaction::new(nft::Family::Inet, "t");
    transaction.add_table(None);
    transaction.add_all(&table);
    transaction.commit(&mut socket)?;
    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        // A change is a chain flushed and filled again: the map's element stays.
        let number = round * 7 % count;
        let started = Instant::now();
        let mut transaction = Transaction::new(nft::Family::Inet, "t");
        let name = format!("s{number}-0");
        transaction.flush_chain(&name);
        chain(number, round).rules.iter().for_each(|rule| transaction.add_rule(&name, rule));
        transaction.commit(&mut socket)?;
        times.push(started.elapsed());
    }
    Ok(median(times))
}
