//! `cofferdam reach`: what it says of pods is what the kernel, the API server and packets show.

mod common;

use std::fs;

use common::{Cluster, skipped, text};
use serde_json::Value;

const OBJECTS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: guarded, labels: {pod-security.kubernetes.io/enforce: baseline}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: maker}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: maker}, rules: [{apiGroups: [""], resources: [pods], verbs: [create]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: maker}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: maker}, subjects: [{kind: ServiceAccount, namespace: default, name: maker}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: key, namespace: guarded}, rules: [{apiGroups: [""], resources: [secrets], resourceNames: [key], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: key, namespace: guarded}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: key}, subjects: [{kind: ServiceAccount, namespace: default, name: maker}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: plain}, spec: {containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: secure, labels: {app: secure}}, spec: {automountServiceAccountToken: false, containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"],
  securityContext: {runAsUser: 405, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: secure}, spec: {podSelector: {matchLabels: {app: secure}}, policyTypes: [Egress]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: open}, spec: {serviceAccountName: maker, hostNetwork: true, hostPID: true, hostIPC: true, volumes: [{name: v, hostPath: {path: /run}}],
  containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"], securityContext: {privileged: true}, volumeMounts: [{name: v, mountPath: /node, readOnly: true}]}]}}
"#;

fn reach(cluster: &Cluster, pod: &str, code: i32) -> Vec<Value> {
    let output = cluster.run(&["reach", pod, "--live", "-o", "json"]);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    report["edges"].as_array().expect("edges").clone()
}

/// The ids of what was seen so, each once, in their order.
fn ids(edges: &[Value], verdict: &str) -> Vec<String> {
    let seen = edges.iter().filter(|edge| edge["verdict"] == verdict);
    let mut ids: Vec<_> = seen.map(|edge| edge["id"].as_str().expect("an id").to_owned()).collect();
    ids.dedup();
    ids
}

fn find<'a>(edges: &'a [Value], target: &str) -> &'a Value {
    let found =
        edges.iter().find(|edge| edge["target"].as_str().is_some_and(|text| text.starts_with(target)));
    found.unwrap_or_else(|| panic!("{target} in {edges:#?}"))
}

#[test]
fn every_edge_of_a_pod_is_proven_or_refuted() {
    if skipped("every_edge_of_a_pod_is_proven_or_refuted", false) {
        return;
    }
    let cluster = Cluster::with_images(2);
    cluster.apply(OBJECTS);
    for pod in ["plain", "secure", "open"] {
        cluster.pod_until(pod, |pod| pod["status"]["phase"] == "Running");
    }

    let plain = reach(&cluster, "plain", 0);
    assert_eq!(ids(&plain, "unknown"), [""; 0]);
    let proven = [
        "capabilities",
        "root",
        "system-calls",
        "token",
        "api-server",
        "pods",
        "nodes",
        "metadata",
        "outside",
    ];
    assert_eq!(ids(&plain, "proven"), proven);
    assert_eq!(find(&plain, "none of")["verdict"], "refuted", "a pod's account has no rights of its own");
    let witness = find(&plain, "the API server as")["witness"].as_str().expect("a witness").to_owned();
    assert!(witness.ends_with("is taken for system:serviceaccount:default:default's"), "{witness}");

    let secure = reach(&cluster, "secure", 0);
    assert_eq!((ids(&secure, "unknown"), ids(&secure, "proven")), (vec![], vec![]), "{secure:#?}");
    assert!(secure.iter().all(|edge| edge["remedy"].is_null()), "what is closed needs no remedy");

    let open = reach(&cluster, "open", 0);
    let node = [
        "host-network",
        "host-pid",
        "host-ipc",
        "devices",
        "kernel-settings",
        "host-path",
        "capabilities",
        "root",
        "system-calls",
    ];
    assert_eq!(ids(&open, "proven")[..node.len()], node);
    let mounted = find(&open, "/run of the node, to read")["witness"].as_str().expect("a witness").to_owned();
    assert!(mounted.ends_with(", ro"), "{mounted}");
    assert_eq!(find(&open, "pods: Secrets and ServiceAccounts")["verdict"], "proven");
    let key = find(&open, "Secrets: get secrets key in namespace guarded");
    assert_eq!((&key["open"], &key["verdict"]), (&true.into(), &"proven".into()), "{key}");
    let machine = find(&open, "the node, by a privileged pod in namespace default");
    assert_eq!((&machine["open"], &machine["verdict"]), (&true.into(), &"proven".into()), "{machine}");
    let guarded = find(&open, "the node, by a privileged pod in namespace guarded");
    assert_eq!((&guarded["open"], &guarded["verdict"]), (&false.into(), &"refuted".into()), "{guarded}");
    let refusal = guarded["witness"].as_str().expect("a witness");
    assert!(refusal.contains("violates PodSecurity \"baseline:latest\""), "{refusal}");

    something_that_no_object_says(&cluster);
    what_cannot_be_asked(&cluster);
}

/// A device comes into a container behind everybody's back.
fn something_that_no_object_says(cluster: &Cluster) {
    let output = cluster.run(&["reach", "secure", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let edges = report["edges"].as_array().expect("edges").clone();
    let witness = find(&edges, "every system call")["witness"].as_str().expect("a witness").to_owned();
    let pid = witness.rsplit(' ').next().expect("a pid");
    let device = format!("/proc/{pid}/root/dev/disk");
    let (file_type, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &device, file_type, mode, rustix::fs::makedev(1, 3)).expect("mknod");
    let edges = reach(cluster, "secure", 3);
    let devices = find(&edges, "the machine's devices");
    assert_eq!((&devices["open"], &devices["verdict"]), (&false.into(), &"proven".into()));
    assert!(devices["remedy"].is_string());
    let shown = text(&cluster.run(&["reach", "secure"]));
    assert!(shown.contains("seen: NOT as they say: /dev holds 1 devices more"), "{shown}");
    assert!(shown.contains("\n1 of them NOT as the objects say\n"), "{shown}");
    fs::remove_file(&device).expect("remove the device");
}

fn what_cannot_be_asked(cluster: &Cluster) {
    for (pod, why) in
        [("nobody", "pods \"nobody\" not found in namespace default"), ("node/node-1", "is no pod")]
    {
        let output = cluster.run(&["reach", pod]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(why), "{}", text(&output));
    }
}
