//! How many verdicts on pods one core gives in a second: of pods that keep to `restricted` and of pods that violate all of it,
//! from objects in memory and from the JSON that a request brings; beside that the floor, which is to read the JSON into
//! objects and judge nothing.
//!
//! `cargo run --release -p policy --example pod_security_rate`

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use policy::pod_security::{Level, LevelVersion, Version, evaluate};
use serde::Deserialize;
use serde_json::{Value, json};

/// A pod of this many containers, as workloads have them.
const CONTAINERS: usize = 3;
/// Long enough that the clock's own cost does not show.
const MEASURED: Duration = Duration::from_millis(300);
const RUNS: usize = 5;

fn pod(security: &Value, of_pod: &Value, extra: &Value) -> Value {
    let container = |number: usize| {
        json!({
            "name": format!("c{number}"), "image": "registry.example/app:1", "securityContext": security,
            "ports": [{ "containerPort": 8080 + number }],
            "env": [{ "name": "A", "value": "b" }, { "name": "C", "value": "d" }],
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 } },
        })
    };
    let mut spec = json!({
        "securityContext": of_pod, "containers": (0..CONTAINERS).map(container).collect::<Vec<_>>(),
        "initContainers": [container(CONTAINERS)], "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "config", "configMap": { "name": "c" } }],
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({ "metadata": { "name": "p", "namespace": "n", "labels": { "app": "a" } }, "spec": spec })
}

fn typed(pod: &Value) -> (ObjectMeta, PodSpec) {
    let metadata = ObjectMeta::deserialize(&pod["metadata"]).expect("metadata");
    (metadata, PodSpec::deserialize(&pod["spec"]).expect("a spec"))
}

/// The median of the runs, in times per second.
fn rate(mut once: impl FnMut()) -> f64 {
    let mut rates: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (start, mut times) = (Instant::now(), 0u32);
            while start.elapsed() < MEASURED {
                for _ in 0..64 {
                    once();
                }
                times += 64;
            }
            f64::from(times) / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[RUNS / 2]
}

fn main() {
    let careful = pod(
        &json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } }),
        &json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } }),
        &json!({}),
    );
    let silent = pod(&json!({}), &json!({}), &json!({}));
    let worst = pod(
        &json!({ "privileged": true, "capabilities": { "add": ["SYS_ADMIN", "NET_ADMIN"] }, "runAsUser": 0, "procMount": "Unmasked" }),
        &json!({ "runAsNonRoot": false, "seccompProfile": { "type": "Unconfined" }, "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] }),
        &json!({ "hostNetwork": true, "hostPID": true, "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] }),
    );
    println!(
        "verdicts per second on one core, pods of {CONTAINERS} containers and an init container, restricted:latest"
    );
    println!(
        "{:<42} {:>12} {:>22} {:>14} {:>6}",
        "pod", "from memory", "from a request's JSON", "only read", "ratio"
    );
    for (name, pod) in [("keeps to it", &careful), ("says nothing", &silent), ("asks for all it can", &worst)]
    {
        let policy = LevelVersion { level: Level::Restricted, version: Version::Latest };
        let (metadata, spec) = typed(pod);
        let name = format!("{name} ({} violations)", evaluate(policy, &metadata, &spec).violations.len());
        let memory = rate(|| {
            black_box(evaluate(policy, black_box(&metadata), black_box(&spec)));
        });
        let request = rate(|| {
            let (metadata, spec) = typed(black_box(pod));
            black_box(evaluate(policy, &metadata, &spec).details());
        });
        let floor = rate(|| {
            black_box(typed(black_box(pod)));
        });
        println!("{name:<42} {memory:>12.0} {request:>22.0} {floor:>14.0} {:>6.2}", floor / request);
    }
}
