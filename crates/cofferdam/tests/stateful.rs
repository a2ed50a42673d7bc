//! StatefulSets on real nodes, driven by kubectl.

mod common;

use std::time::Duration;

use common::{Cluster, skipped, text};
use serde_json::Value;

/// `web` serves; `shy` never does, and is published nevertheless under one of its two names.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: peers
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: cofferdam/tool
        args: [serve, "8080"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: shy}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: shy}}
---
apiVersion: v1
kind: Service
metadata: {name: ready}
spec: {clusterIP: None, selector: {app: shy}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shy}
spec:
  serviceName: shy
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: shy}}
  template:
    metadata: {labels: {app: shy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: cofferdam/tool
        readinessProbe: {exec: {command: [/bin/tool, cat, /nothing]}, periodSeconds: 1}
"#;

const CLAIMS: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: cofferdam/tool, volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

/// Asks in a pod until the answer is this one: a watch's news needs its moment.
fn resolves(cluster: &Cluster, pod: &str, name: &str, wanted: &str) {
    let mut last = String::new();
    for _ in 0..150 {
        let output = cluster.run(&["exec", pod, "--", "/bin/tool", "resolve", name]);
        last = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if last == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{name} in {pod}: {last:?}, not {wanted:?}{}", cluster.logs());
}

fn pod(cluster: &Cluster, name: &str) -> Value {
    let output = cluster.ok(&["get", "pod", name, "-o", "json"]);
    serde_json::from_str(&output).expect("a pod")
}

fn address(cluster: &Cluster, name: &str) -> String {
    pod(cluster, name)["status"]["podIP"].as_str().expect("an address").to_owned()
}

#[test]
fn a_stateful_set_starts_in_order_and_its_pods_know_each_other_by_name() {
    if skipped("a_stateful_set_starts_in_order_and_its_pods_know_each_other_by_name", true) {
        return;
    }
    let cluster = Cluster::with_images(2);
    cluster.apply(OBJECTS);
    let rolled_out = || {
        let said = cluster.kubectl_ok(&["rollout", "status", "sts/web", "--timeout=60s"]);
        assert!(said.contains("roll"), "{said}");
        said
    };
    rolled_out();
    for number in 0..2 {
        let (before, after) =
            (pod(&cluster, &format!("web-{number}")), pod(&cluster, &format!("web-{}", number + 1)));
        let conditions = before["status"]["conditions"].as_array().expect("conditions").clone();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").expect("Ready");
        let (ready, made) =
            (ready["lastTransitionTime"].clone(), after["metadata"]["creationTimestamp"].clone());
        assert!(ready.as_str() <= made.as_str(), "web-{number} served at {ready}, the next came at {made}");
    }

    // Each is found by its name, from another node too, and calls itself by it.
    for (at, of) in [("web-0", "web-2"), ("web-1", "web-0"), ("web-2", "web-2")] {
        let full = format!("{of}.peers.default.svc.cluster.local");
        resolves(&cluster, at, &format!("{of}.peers"), &format!("{full} A {}", address(&cluster, of)));
        let name = cluster.kubectl_ok(&["exec", of, "--", "/bin/tool", "hostname"]);
        assert_eq!(name.trim(), of);
    }
    let reached = cluster.kubectl(&["exec", "web-0", "--", "/bin/tool", "connect", "web-1.peers", "8080"]);
    assert!(reached.status.success(), "{}", text(&reached));
    // One that does not serve has a record where its Service says so, and there alone.
    let full = "shy-1.shy.default.svc.cluster.local";
    resolves(&cluster, "web-0", "shy-1.shy", &format!("{full} A {}", address(&cluster, "shy-1")));
    resolves(&cluster, "web-0", "ready.default.svc.cluster.local.", "NXDOMAIN");

    // A canary, then all, then back.
    let partition = |number: u32| {
        let patch =
            format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":{number}}}}}}}}}"#);
        cluster.kubectl_ok(&["patch", "sts", "web", "-p", &patch]);
    };
    let colors = || {
        let color = |number: u32| {
            let pod = format!("web-{number}");
            let env = text(&cluster.kubectl(&["exec", &pod, "--", "/bin/tool", "env"]));
            env.contains("COLOR=blue\n")
        };
        [color(0), color(1), color(2)]
    };
    partition(2);
    cluster.kubectl_ok(&["set", "env", "sts/web", "COLOR=blue"]);
    let said = rolled_out();
    assert!(said.contains("partitioned roll out complete: 1 new pods have been updated"), "{said}");
    assert_eq!(colors(), [false, false, true]);
    partition(0);
    let said = rolled_out();
    assert!(
        said.contains("partitioned roll out complete: 3 new pods")
            || said.contains("rolling update complete"),
        "{said}"
    );
    assert_eq!(colors(), [true; 3]);
    let history = cluster.kubectl_ok(&["rollout", "history", "sts/web"]);
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    cluster.kubectl_ok(&["rollout", "undo", "sts/web"]);
    rolled_out();
    assert_eq!(colors(), [false; 3]);
    // A name leads to the pod that has it now.
    let full = "web-0.peers.default.svc.cluster.local";
    resolves(&cluster, "web-2", "web-0.peers", &format!("{full} A {}", address(&cluster, "web-0")));

    let table = cluster.kubectl_ok(&["get", "sts", "web"]);
    let row: Vec<&str> = table.lines().last().expect("a row").split_whitespace().collect();
    assert_eq!(row[..2], ["web", "3/3"], "{table}");
    let described = cluster.kubectl_ok(&["describe", "sts", "web"]);
    assert!(described.contains("create Pod web-0 in StatefulSet web successful"), "{described}");
    assert!(described.contains("3 desired | 3 total"), "{described}");
    cluster.kubectl_ok(&["scale", "sts/web", "--replicas=1"]);
    cluster.kubectl_ok(&["wait", "--for=delete", "pod/web-1", "pod/web-2", "--timeout=30s"]);
    rolled_out();

    let path = cluster.data.join("claims.yaml");
    std::fs::write(&path, CLAIMS).expect("write a manifest");
    let refused = cluster.kubectl(&["apply", "-f", path.to_str().expect("a path")]);
    let said = text(&refused);
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("spec.volumeClaimTemplates: Forbidden: persistent volumes are not supported"),
        "{said}"
    );

    cluster.kubectl_ok(&["delete", "sts", "web", "shy", "--cascade=foreground", "--timeout=30s"]);
    let left = cluster.kubectl_ok(&["get", "pods,controllerrevisions", "-o", "name"]);
    assert_eq!(left, "");
}
