//! A whole reachability table, in time and memory, beside the naive evaluator asked for every pair of pods at a size that it
//! can do; and how long the compiler takes for one event in a large cluster, all of it on one node (the worst case).
//!
//! `cargo run --release -p policy --example network_policy_scale`

use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use policy::network_policy::ir::{Cidr, Family};
use policy::network_policy::table::Table;
use policy::network_policy::{Cluster, Compiler, Event, Flow, Layer4, PodRecord, Policy, Protocol, evaluate};
use serde_json::json;

const NAMESPACES: usize = 20;

fn pod(number: usize) -> PodRecord {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "namespace": format!("n{}", number % NAMESPACES), "name": format!("p{number}"), "uid": format!("u{number}"),
                      "labels": { "app": format!("a{}", number % 100), "tier": format!("t{}", number % 3) } },
        "spec": { "nodeName": "node", "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": 80 }] }] },
        "status": { "phase": "Running", "podIP": format!("10.{}.{}.{}", 1 + number / 65536, number / 256 % 256, number % 256) },
    }))
    .expect("a pod");
    PodRecord::from_api(&pod, "node")
}

fn policy(number: usize, port: u16) -> Policy {
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": { "namespace": format!("n{}", number % NAMESPACES), "name": format!("np{number}") },
        "spec": { "podSelector": { "matchLabels": { "app": format!("a{}", number % 100) } },
                  "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": format!("a{}", number * 7 % 100) } } },
                                         { "namespaceSelector": { "matchLabels": { "team": format!("x{}", number % 10) } } }],
                                "ports": [{ "port": port }, { "port": "web" }] }] },
    }))
    .expect("a policy");
    Policy::from_api(&policy).0
}

/// A cluster's objects.
struct Objects {
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
}

impl Objects {
    fn cluster(&self) -> Cluster<'_> {
        let Objects { pods, namespaces, policies } = self;
        Cluster { pods, namespaces, nodes: &[], policies, cluster_policies: &[] }
    }
}

/// `pods` in 50 namespaces with 40 applications each, and `policies` that select one of those.
fn objects(pods: usize, policies: usize) -> Objects {
    let (namespaces, apps) = (50, 40);
    let place =
        |number: usize| (format!("n{}", number % namespaces), format!("a{}", number / namespaces % apps));
    let from = |value| serde_json::from_value(value).expect("an object");
    let pods: Vec<Pod> = (0..pods)
        .map(|number| {
            let (namespace, app) = place(number);
            from(json!({
                "metadata": { "namespace": namespace, "name": format!("p{number}"), "uid": format!("u{number}"),
                              "labels": { "app": app, "pod-template-hash": format!("h{}", number % 7) } },
                "spec": { "nodeName": "node", "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": 80 }] }] },
                "status": { "phase": "Running", "podIP": format!("10.244.{}.{}", number / 256, number % 256) },
            }))
        })
        .collect();
    let spaces: Vec<Namespace> = (0..namespaces)
        .map(|n| {
            let labels = json!({ "team": format!("x{}", n % 10) });
            serde_json::from_value(json!({ "metadata": { "name": format!("n{n}"), "labels": labels } }))
                .expect("a namespace")
        })
        .collect();
    let policies: Vec<NetworkPolicy> = (0..policies)
        .map(|number| {
            let (namespace, app) = place(number * 7);
            let peers = json!([{ "podSelector": { "matchLabels": { "app": place(number * 13).1 } } },
                               { "namespaceSelector": { "matchLabels": { "team": format!("x{}", number % 10) } },
                                 "podSelector": { "matchLabels": { "app": place(number * 3).1 } } }]);
            let block = json!({ "ipBlock": { "cidr": format!("192.0.{}.0/24", number % 200) } });
            let ports = json!([{ "port": 1000 + number % 300 }, { "port": "web" }]);
            let egress = json!([{ "to": [peers[0].clone(), block] }]);
            serde_json::from_value(json!({
                "metadata": { "namespace": namespace, "name": format!("np{number}") },
                "spec": { "podSelector": { "matchLabels": { "app": app } }, "policyTypes": ["Ingress", "Egress"],
                          "ingress": [{ "from": peers, "ports": ports }], "egress": egress },
            }))
            .expect("a policy")
        })
        .collect();
    Objects { pods, namespaces: spaces, policies }
}

const RANGE: &str = "10.244.0.0/16";

/// Memory of this process in MiB: resident now, and at most since [`forget_peak`].
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn forget_peak() {
    // clear_refs(5) sets VmHWM to VmRSS (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").expect("write /proc/self/clear_refs");
}

fn table(pods: usize, policies: usize) {
    let objects = objects(pods, policies);
    forget_peak();
    let (before, _) = memory();
    let start = Instant::now();
    let table = Table::new(&objects.cluster(), Cidr::parse(RANGE).expect("a range"));
    let took = start.elapsed();
    let (_, peak) = memory();
    let ends = table.ends().len();
    let reached = (0..ends).flat_map(|from| (0..ends).map(move |to| (from, to)));
    let reached = reached.filter(|(from, to)| !table.ports(*from, *to).is_empty()).count();
    let (sets, bytes) = table.size();
    println!(
        "table of {pods} pods, {policies} policies: {took:?}; {ends} classes, {reached} of {} pairs reach each other, {sets} \
         distinct port sets; {} MiB kept, {:.0} MiB at most beside the objects",
        ends * ends,
        bytes >> 20,
        peak - before
    );
}

/// Every pair of pods on a few ports: the naive evaluator, and the table, which must say the same.
fn beside_naive(pods: usize, policies: usize) {
    let objects = objects(pods, policies);
    let cluster = objects.cluster();
    let addresses: Vec<IpAddr> =
        objects.pods.iter().map(|pod| PodRecord::from_api(pod, "").addresses[0]).collect();
    let ports =
        [Layer4::Port(Protocol::Tcp, 80), Layer4::Port(Protocol::Tcp, 1001), Layer4::Port(Protocol::Udp, 53)];
    let start = Instant::now();
    let mut naive = Vec::new();
    for client in &addresses {
        for server in addresses.iter().filter(|server| *server != client) {
            for layer4 in ports {
                naive.push(evaluate(&cluster, &Flow { client: *client, server: *server, layer4 }));
            }
        }
    }
    let by_pairs = start.elapsed();
    let start = Instant::now();
    let table = Table::new(&cluster, Cidr::parse(RANGE).expect("a range"));
    let by_classes = start.elapsed();
    let end = |pod: usize| table.end_of_pod(pod).expect("an end");
    let mut told = naive.iter();
    for client in 0..pods {
        for server in (0..pods).filter(|server| *server != client) {
            for layer4 in ports {
                let says = table.ports(end(client), end(server)).contains(layer4);
                assert_eq!(Some(&says), told.next(), "{client} to {server} on {layer4:?}");
            }
        }
    }
    println!(
        "{pods} pods, {policies} policies: naive, {} answers: {by_pairs:?}; the table of all ports: {by_classes:?} (× {:.0}), the same answers",
        naive.len(),
        by_pairs.as_secs_f64() / by_classes.as_secs_f64()
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    beside_naive(100, 200);
    for (pods, policies) in [(1000, 500), (10_000, 5_000)] {
        table(pods, policies);
    }
    for (pods, policies) in [(100, 10), (1000, 100), (1000, 1000), (5000, 1000)] {
        let mut compiler = Compiler::new(&[Family::V4]);
        let namespaces = (0..NAMESPACES).map(|n| {
            Event::UpsertNamespace(format!("n{n}"), [("team".into(), format!("x{}", n % 10))].into())
        });
        let all = namespaces
            .chain((0..pods).map(|n| Event::UpsertPod(pod(n))))
            .chain((0..policies).map(|n| Event::UpsertPolicy(policy(n, 80))))
            .collect::<Vec<_>>();
        let start = Instant::now();
        let changes = compiler.apply(all).len();
        let whole = start.elapsed();
        let timed = |compiler: &mut Compiler, event: Event| {
            let start = Instant::now();
            compiler.apply([event]);
            start.elapsed()
        };
        let change = median(
            (0..50)
                .map(|n| timed(&mut compiler, Event::UpsertPolicy(policy(n % policies, 1000 + n as u16))))
                .collect(),
        );
        let join = median((0..50).map(|n| timed(&mut compiler, Event::UpsertPod(pod(pods + n)))).collect());
        let leave = median(
            (0..50).map(|n| timed(&mut compiler, Event::RemovePod(format!("u{}", pods + n)))).collect(),
        );
        println!(
            "{pods} pods, {policies} policies: from nothing {whole:?} ({changes} steps); a policy changes {change:?}; a pod joins {join:?}, leaves {leave:?}"
        );
    }
}
