//! Each lint: pods that it finds something in, with the words and the field, and pods that it leaves alone.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

/// The findings of a pod as `id path: message`.
fn found(spec: Value) -> Vec<String> {
    let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
    let findings = lint(&pod.metadata, &pod.spec.unwrap());
    findings.into_iter().map(|(lint, f)| format!("{} {}: {}", lint.id, f.path, f.message)).collect()
}

fn with(container: Value, volumes: Value) -> Value {
    let mut container = container;
    container["name"] = "a".into();
    json!({ "containers": [container], "volumes": volumes })
}

#[test]
fn every_lint_finds_what_it_is_for_and_leaves_the_rest_alone() {
    let nginx = |image: &str, mounts: Value| {
        with(
            json!({ "image": image, "securityContext": { "readOnlyRootFilesystem": true }, "volumeMounts": mounts }),
            json!([]),
        )
    };
    let mount = |path: &str| json!({ "name": "v", "mountPath": path });
    let claim = |security: Value, read_only: bool| {
        let mut spec = with(
            json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": read_only }] }),
            json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]),
        );
        spec["securityContext"] = security;
        spec
    };
    let host_path = |security: Value| json!({ "securityContext": security, "containers": [], "volumes": [{ "name": "v", "hostPath": { "path": "/v" } }] });
    let as_root = |of_pod: Value, own: Value| json!({ "securityContext": of_pod, "containers": [{ "name": "a", "securityContext": own }] });
    let table: Vec<(Value, &[&str])> = vec![
        (
            nginx("nginx:1.27", json!([])),
            &[
                "read-only-root-needs-volume spec.containers[0].securityContext.readOnlyRootFilesystem: container \"a\" has a read-only root, and its image nginx:1.27 writes to /var/cache/nginx, /var/run",
            ],
        ),
        (
            nginx("registry.example:5000/library/nginx@sha256:0", json!([mount("/var/cache")])),
            &[
                "read-only-root-needs-volume spec.containers[0].securityContext.readOnlyRootFilesystem: container \"a\" has a read-only root, and its image registry.example:5000/library/nginx@sha256:0 writes to /var/run",
            ],
        ),
        (nginx("nginx", json!([mount("/var/cache/nginx/"), mount("/run")])), &[]),
        (
            nginx(
                "nginx",
                json!([{ "name": "v", "mountPath": "/var/cache/nginx", "readOnly": true }, mount("/var/run")]),
            ),
            &[
                "read-only-root-needs-volume spec.containers[0].securityContext.readOnlyRootFilesystem: container \"a\" has a read-only root, and its image nginx writes to /var/cache/nginx",
            ],
        ),
        (nginx("bitnami/nginx", json!([])), &[]),
        (nginx("busybox", json!([])), &[]),
        (with(json!({ "image": "nginx" }), json!([])), &[]),
        (
            claim(json!({ "runAsUser": 405 }), false),
            &[
                "claim-without-fs-group spec.volumes[0]: container \"a\" is not root and may not write to volume \"v\", which belongs to root: the pod has no fsGroup",
            ],
        ),
        (claim(json!({ "runAsUser": 405, "fsGroup": 1 }), false), &[]),
        (claim(json!({ "runAsUser": 405, "supplementalGroups": [1] }), false), &[]),
        (claim(json!({ "runAsUser": 0 }), false), &[]),
        (claim(json!({ "runAsUser": 405 }), true), &[]),
        (
            host_path(json!({ "fsGroup": 5 })),
            &[
                "fs-group-host-path spec.volumes[0].hostPath: fsGroup 5 does not change volume \"v\": a hostPath keeps the node's owner and mode",
            ],
        ),
        (host_path(json!({})), &[]),
        (
            as_root(json!({ "runAsNonRoot": true, "runAsUser": 0 }), json!({})),
            &[
                "non-root-as-root spec.securityContext.runAsUser: container \"a\" never starts: its runAsUser breaks its runAsNonRoot",
            ],
        ),
        (
            as_root(json!({ "runAsNonRoot": true }), json!({ "runAsUser": 0 })),
            &[
                "non-root-as-root spec.containers[0].securityContext.runAsUser: container \"a\" never starts: its runAsUser breaks its runAsNonRoot",
            ],
        ),
        (as_root(json!({ "runAsNonRoot": true, "runAsUser": 0 }), json!({ "runAsUser": 1 })), &[]),
        (as_root(json!({ "runAsUser": 0 }), json!({})), &[]),
        (
            json!({ "hostNetwork": true, "containers": [] }),
            &[
                "host-network-dns spec.dnsPolicy: the pod is in the node's network and cannot resolve the cluster's names",
            ],
        ),
        (json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "containers": [] }), &[]),
        (json!({ "hostNetwork": true, "dnsPolicy": "Default", "containers": [] }), &[]),
        (
            with(
                json!({ "securityContext": { "capabilities": { "add": ["NET_RAW", "CAP_NET_ADMIN"] } } }),
                json!([]),
            ),
            &[
                "capability-name spec.containers[0].securityContext.capabilities.add[1]: container \"a\" does not start: its runtime knows no capability CAP_CAP_NET_ADMIN; Kubernetes calls it NET_ADMIN",
            ],
        ),
        (
            with(
                json!({ "securityContext": { "privileged": true, "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" } } }),
                json!([]),
            ),
            &[
                "privileged-overrides spec.containers[0].securityContext.capabilities: container \"a\" is privileged: the capabilities it drops have no effect",
                "privileged-overrides spec.containers[0].securityContext.seccompProfile: container \"a\" is privileged: its seccomp profile has no effect",
            ],
        ),
        (with(json!({ "securityContext": { "privileged": true } }), json!([])), &[]),
    ];
    let mut seen = BTreeSet::new();
    for (spec, expected) in table {
        let findings = found(spec.clone());
        assert_eq!(findings, expected, "{spec}");
        seen.extend(findings.iter().filter_map(|f| f.split(' ').next()).map(str::to_owned));
    }
    let ids: Vec<&str> = LINTS.iter().map(|lint| lint.id).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ids, "a lint lacks a pod, or the table's order");
    assert!(LINTS.iter().all(|lint| lint.about.ends_with('.') && lint.fix.ends_with('.')));
}

#[test]
fn a_namespace_is_guarded_by_any_policy_of_its_own() {
    assert_eq!(unguarded(["a", "b", "a"], ["b", "c"]), BTreeSet::from(["a"]));
}
