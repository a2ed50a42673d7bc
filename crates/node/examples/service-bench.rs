//! Measures what a change of one Service costs: `cargo run --release -p node --example service-bench` as root. In one run:
//! the node's table as it is, all of it at once, a chain per Service behind a verdict map, and, where iptables is installed,
//! rules as kube-proxy writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
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
        guarded: None,
        node_port: None,
        affinity: None,
        inside: all.clone(),
        outside: all.clone(),
        all,
    };
    ServiceChange { name: ("ns".into(), format!("s{number}")), ports: vec![port] }
}

/// Resident memory of this process, and what the kernel holds on its behalf, in MiB. A process that measured something
/// smaller before keeps what it had then, and counters of the whole machine move with whatever else goes on: each size is
/// measured in a process of its own, in a cgroup of its own.
fn memory(cgroup: Option<&Cgroup>) -> Result<(f64, Option<f64>)> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("RssAnon")?;
    let kernel = cgroup.map(Cgroup::kernel_bytes).transpose()?;
    Ok((kib / 1024.0, kernel.map(|bytes| bytes / 1024.0 / 1024.0)))
}

/// A cgroup that counts the kernel memory of this process: sets, elements, chains.
struct Cgroup {
    path: PathBuf,
    parent: PathBuf,
    v2: bool,
}

impl Cgroup {
    fn enter() -> Result<Cgroup> {
        let v1 = PathBuf::from("/sys/fs/cgroup/memory");
        let v2 = !v1.exists();
        let parent = if v2 { PathBuf::from("/sys/fs/cgroup") } else { v1 };
        let path = parent.join(format!("cofferdam-service-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let cgroup = Cgroup { path, parent, v2 };
        std::fs::write(cgroup.path.join("cgroup.procs"), "0").context("enter the cgroup")?;
        cgroup.kernel_bytes()?;
        Ok(cgroup)
    }

    fn kernel_bytes(&self) -> Result<f64> {
        let file = self.path.join(if self.v2 { "memory.stat" } else { "memory.kmem.usage_in_bytes" });
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let number = match self.v2 {
            true => text.lines().find_map(|line| line.strip_prefix("kernel ")).context("no line kernel")?,
            false => text.trim(),
        };
        number.parse().with_context(|| file.display().to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let left = std::fs::write(self.parent.join("cgroup.procs"), "0");
        if let Err(error) = left.and_then(|()| std::fs::remove_dir(&self.path)) {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}

fn main() -> Result<()> {
    if let Some(count) = std::env::args().nth(1) {
        return measure(count.parse().context("a number of Services")?);
    }
    println!("a change of one Service → in the kernel, two endpoints each (medians of {ROUNDS}, ms)");
    match Command::new("iptables-restore").arg("--version").output() {
        Ok(output) => println!("beside {}", String::from_utf8_lossy(&output.stdout).trim()),
        Err(error) => println!("SKIPPED the comparison with iptables-restore: {error}"),
    }
    println!(
        "{:>8} {:>13} {:>12} {:>14} {:>13} {:>12} {:>14} {:>14}",
        "Services",
        "one endpoint",
        "all at once",
        "a chain each",
        "process MiB",
        "kernel MiB",
        "iptables one",
        "iptables all"
    );
    for count in ["10", "1000", "10000"] {
        let status = Command::new(std::env::current_exe()?).arg(count).status().context("start itself")?;
        anyhow::ensure!(status.success(), "{count} Services: {status}");
    }
    Ok(())
}

fn measure(count: u32) -> Result<()> {
    let cgroup = Cgroup::enter().inspect_err(|error| println!("SKIPPED kernel memory: {error:#}")).ok();
    let machine = Netns::new()?;
    let config = FabricConfig { cluster_id: "bench-s".into(), v4: Ranges::<Ipv4Addr>::DEFAULT, v6: None };
    let fabric = machine.run(|| Fabric::create(config))?;
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
    let before = memory(cgroup.as_ref())?;
    let started = Instant::now();
    net.change_services((0..count).map(|number| service(number, 0)).collect())?;
    let whole = started.elapsed();
    let after = memory(cgroup.as_ref())?;
    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        let change = service(round * 7 % count, round);
        let started = Instant::now();
        net.change_services(vec![change])?;
        times.push(started.elapsed());
    }
    anyhow::ensure!(net.verify()?.is_empty(), "the kernel holds something else");
    let chains = a_chain_each(count)?;
    let iptables = iptables(count)?;
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    println!(
        "{count:>8} {:>13.3} {:>12.3} {:>14.3} {:>13.1} {:>12} {:>14} {:>14}",
        median(times),
        whole.as_secs_f64() * 1e3,
        chains,
        after.0 - before.0,
        after.1.zip(before.1).map_or("-".to_owned(), |(after, before)| format!("{:.1}", after - before)),
        shown(iptables.map(|(one, _)| one)),
        shown(iptables.map(|(_, all)| all)),
    );
    drop(net);
    fabric.remove_node(1)?;
    machine.run(|| Fabric::teardown("bench-s"))?;
    Ok(())
}

/// Rules as kube-proxy's iptables mode has them: a rule per Service in one chain, a chain per Service that chooses, a chain
/// per endpoint that translates. Milliseconds of a change of one Service (its own chains alone, as kube-proxy writes since
/// 1.28), and of writing all. None: there is no such program.
fn iptables(count: u32) -> Result<Option<(f64, f64)>> {
    if Command::new("iptables-restore").arg("--version").output().is_err() {
        return Ok(None);
    }
    let netns = Netns::new()?;
    let chains = |number: u32, round: u32| {
        let hosts = [2 * number, 2 * number + 1 + 2 * round];
        let address = |host: u32| Ipv4Addr::from_bits(0x0af4_0000 + host % 65_536);
        let declared = format!(":SVC-{number} - [0:0]\n:SEP-{number}-0 - [0:0]\n:SEP-{number}-1 - [0:0]\n");
        let mut rules = format!(
            "-A SVC-{number} -m statistic --mode random --probability 0.5 -j SEP-{number}-0\n-A SVC-{number} -j SEP-{number}-1\n"
        );
        for (at, host) in hosts.into_iter().enumerate() {
            let to = address(host);
            rules += &format!(
                "-A SEP-{number}-{at} -s {to}/32 -j MARK --set-xmark 0x4000/0x4000\n\
                 -A SEP-{number}-{at} -p tcp -m tcp -j DNAT --to-destination {to}:8080\n"
            );
        }
        (declared, rules)
    };
    let restore = |text: String| -> Result<Duration> {
        let started = Instant::now();
        let done = netns.run(|| {
            let mut child = Command::new("iptables-restore")
                .args(["--noflush"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                input.write_all(text.as_bytes())?;
            }
            child.wait_with_output()
        })?;
        let took = started.elapsed();
        anyhow::ensure!(done.status.success(), "iptables-restore: {}", String::from_utf8_lossy(&done.stderr));
        Ok(took)
    };
    let (mut declared, mut rules) =
        (String::from(":SERVICES - [0:0]\n"), String::from("-A PREROUTING -j SERVICES\n"));
    for number in 0..count {
        let (own, of_own) = chains(number, 0);
        let address = Ipv4Addr::from_bits(0x0a60_0001 + number);
        rules += &format!("-A SERVICES -d {address}/32 -p tcp -m tcp --dport 80 -j SVC-{number}\n");
        declared += &own;
        rules += &of_own;
    }
    let all = restore(format!("*nat\n{declared}{rules}COMMIT\n"))?;
    let mut times = Vec::new();
    for round in 1..=ROUNDS / 4 {
        let (declared, rules) = chains(round * 7 % count, round);
        times.push(restore(format!("*nat\n{declared}{rules}COMMIT\n"))?);
    }
    Ok(Some((median(times), all.as_secs_f64() * 1e3)))
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
