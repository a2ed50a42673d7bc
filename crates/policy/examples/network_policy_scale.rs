//! How long the compiler takes for one event in a large cluster, all of it on one node (the worst case); and a whole
//! reachability table.
//!
//! `cargo run --release -p policy --example network_policy_scale`

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use policy::network_policy::ir::{Cidr, Family};
use policy::network_policy::table::Table;
use policy::network_policy::{Cluster, Compiler, Event, PodRecord, Policy};
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

/// A cluster of `pods` in 50 namespaces with 40 applications each, and `policies` that select one of those.
fn table(pods: usize, policies: usize) {
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
    let cluster =
        Cluster { pods: &pods, namespaces: &spaces, nodes: &[], policies: &policies, cluster_policies: &[] };
    let start = Instant::now();
    let table = Table::new(&cluster, Cidr::parse("10.244.0.0/16").expect("a range"));
    let took = start.elapsed();
    let ends = table.ends().len();
    let reached = (0..ends).flat_map(|from| (0..ends).map(move |to| (from, to)));
    let reached = reached.filter(|(from, to)| !table.ports(*from, *to).is_empty()).count();
    let (sets, bytes) = table.size();
    println!(
        "table of {} pods, {} policies: {took:?}; {ends} classes, {reached} of {} pairs reach each other, {sets} distinct port sets, {} MiB",
        pods.len(),
        policies.len(),
        ends * ends,
        bytes >> 20
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
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
