//! How long the compiler takes for one event in a large cluster, all of it on one node (the worst case).
//!
//! `cargo run --release -p policy --example network_policy_scale`

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use policy::network_policy::ir::Family;
use policy::network_policy::{Compiler, Event, PodRecord, Policy};
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

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
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
