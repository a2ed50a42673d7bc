//! Probes of every kind from the node to pods that no policy lets anybody reach, by packets; and what failing ones do.

mod common;

use std::time::Duration;

use common::{Cluster, skipped, text};
use serde_json::Value;

const PODS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: v1
kind: Pod
metadata: {name: http}
spec:
  containers:
  - name: c
    image: cofferdam/tool
    args: [serve, "8080"]
    ports: [{name: web, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: https}
spec:
  containers:
  - name: c
    image: cofferdam/tool
    args: [serve, "80"]
    # A server whose certificate nobody here vouches for: probes do not ask for that.
    readinessProbe: {httpGet: {scheme: HTTPS, host: 10.88.0.1, port: 6443, path: /healthz}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: grpc}
spec:
  containers:
  - name: c
    image: cofferdam/tool
    args: [serve, --grpc, "5000"]
    readinessProbe: {grpc: {port: 5000}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: startup}
spec:
  containers:
  - name: c
    image: cofferdam/tool
    args: [serve, "80"]
    env: [{name: FILE, value: /tmp/started}]
    startupProbe: {exec: {command: [cat, "$(FILE)"]}, periodSeconds: 1, failureThreshold: 100}
    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec:
  containers:
  - name: c
    image: cofferdam/tool
    args: [serve, "80"]
    readinessProbe: {httpGet: {path: /status/500, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  containers:
  - name: c
    image: cofferdam/tool
    args: [serve, "80"]
    readinessProbe: {exec: {command: [sleep, infinity]}, timeoutSeconds: 1, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: dying}
spec:
  # Its hook never ends: without the probe's own grace period it would stay for an hour.
  terminationGracePeriodSeconds: 3600
  containers:
  - name: c
    image: cofferdam/tool
    args: [now]
    lifecycle: {preStop: {exec: {command: [sleep, infinity]}}}
    livenessProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 2, terminationGracePeriodSeconds: 1}
"#;

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn ready(pod: &Value) -> bool {
    container(pod)["ready"] == true
}

/// Waits until the pod has an event with these words.
fn event(cluster: &Cluster, pod: &str, reason: &str, message: &str) {
    let mut seen = String::new();
    for _ in 0..100 {
        seen = cluster.ok(&["describe", "pod", pod]);
        if seen.lines().any(|line| line.contains(reason) && line.contains(message)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{pod} has no event {reason}: {message}\n{seen}");
}

#[test]
fn probes_pass_under_default_deny_and_failing_ones_act() {
    if skipped("probes_pass_under_default_deny_and_failing_ones_act", false) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply(PODS);
    let exec = |pod: &str, command: &[&str]| {
        let mut arguments = vec!["exec", pod, "--", "/bin/tool"];
        arguments.extend(command);
        cluster.run(&arguments)
    };

    let http = cluster.pod_until("http", ready);
    cluster.pod_until("grpc", ready);
    cluster.pod_until("https", ready);
    // The policy holds meanwhile: what the node may, another pod may not.
    let ip = http["status"]["podIP"].as_str().expect("an address");
    let denied = exec("grpc", &["connect", ip, "8080", "--timeout", "500"]);
    assert_eq!(denied.status.code(), Some(2), "{}", text(&denied));
    assert_eq!(container(&cluster.pod_until("http", ready))["restartCount"], 0);

    // What does not serve any more is not ready, and is told so in the kubelet's words.
    assert!(exec("grpc", &["write", "/tmp/not-serving", "x"]).status.success());
    cluster.pod_until("grpc", |pod| !ready(pod));
    event(&cluster, "grpc", "Unhealthy", "service unhealthy (responded with \"NOT_SERVING\")");
    assert!(exec("grpc", &["rm", "/tmp/not-serving"]).status.success());
    cluster.pod_until("grpc", ready);

    event(&cluster, "failing", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500");
    event(&cluster, "slow", "Unhealthy", "Readiness probe failed: command \"sleep infinity\" timed out");

    // Until the startup probe passes, no other is asked.
    let waiting = cluster.pod_until("startup", |pod| pod["status"]["phase"] == "Running");
    assert_eq!((&container(&waiting)["started"], ready(&waiting)), (&Value::Bool(false), false));
    assert!(exec("startup", &["write", "/tmp/started", "x"]).status.success());
    let started = cluster.pod_until("startup", ready);
    assert_eq!(container(&started)["started"], true);

    let died = cluster.pod_until("dying", |pod| container(pod)["restartCount"].as_u64() > Some(0));
    assert_eq!(container(&died)["lastState"]["terminated"]["exitCode"], 0, "it heard its signal: {died}");
    event(&cluster, "dying", "FailedPreStopHook", "it did not end within the grace period of 1s");
    event(&cluster, "dying", "Killing", "Container c failed liveness probe, will be restarted");

    // A new agent goes on with what the old one reported: nothing is unready for its sake.
    cluster.kill("agent");
    for _ in 0..10 {
        assert!(ready(&cluster.pod_until("http", |_| true)), "the pod is not ready for a new agent");
        std::thread::sleep(Duration::from_millis(50));
    }
}
