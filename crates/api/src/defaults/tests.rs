//! Input → what defaulting makes of it. Only what changes is written down: `merge` lays the additions over the input.

use serde_json::{Value, json};

use super::apply_kind;

/// `want` is laid over `input` (objects by key, lists by index) and compared with what defaulting gives; and
/// defaulting again changes nothing.
fn check(group: &str, kind: &str, input: Value, want: Value) {
    let mut expected = input.clone();
    merge(&mut expected, &want);
    let mut got = input;
    apply_kind(group, kind, &mut got);
    assert_eq!(got, expected, "{kind}\n got {got:#}\nwant {expected:#}");
    let mut twice = got.clone();
    apply_kind(group, kind, &mut twice);
    assert_eq!(twice, got, "{kind}: a second run changes nothing");
}

fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                if value.is_null() {
                    a.remove(key);
                } else {
                    merge(a.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for (i, value) in b.iter().enumerate() {
                match a.get_mut(i) {
                    Some(old) => merge(old, value),
                    None => a.push(value.clone()),
                }
            }
        }
        (into, over) => *into = over.clone(),
    }
}

fn tolerations() -> Value {
    json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    ])
}

/// What every template's spec gets.
fn spec_defaults() -> Value {
    json!({
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"
    })
}

/// What a pod's spec gets beyond that.
fn pod_defaults(more: Value) -> Value {
    let mut spec = spec_defaults();
    merge(
        &mut spec,
        &json!({
            "serviceAccountName": "default", "serviceAccount": "default", "enableServiceLinks": true,
            "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "tolerations": tolerations()
        }),
    );
    merge(&mut spec, &more);
    json!({"spec": spec, "status": {"phase": "Pending"}})
}

fn container_defaults(more: Value) -> Value {
    let mut container = json!({
        "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File", "resources": {}
    });
    merge(&mut container, &more);
    container
}

fn check_container(container: Value, more: Value) {
    check(
        "",
        "Pod",
        json!({"spec": {"containers": [container]}}),
        pod_defaults(json!({"containers": [container_defaults(more)]})),
    );
}

#[test]
fn a_bare_pod_gets_what_upstream_fills_in() {
    check_container(json!({"name": "a", "image": "nginx"}), json!({}));
}

#[test]
fn the_pull_policy_follows_the_tag() {
    let table = [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
        ("nginx:latest@sha256:0123", "Always"),
    ];
    for (image, policy) in table {
        check_container(json!({"name": "a", "image": image}), json!({"imagePullPolicy": policy}));
    }
    check_container(
        json!({"name": "a", "image": "nginx", "imagePullPolicy": "Never"}),
        json!({"imagePullPolicy": "Never"}),
    );
}

#[test]
fn containers_get_protocols_probes_and_requests() {
    check_container(
        json!({
            "name": "a", "image": "a:1",
            "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5, "timeoutSeconds": 0},
            "lifecycle": {"preStop": {"httpGet": {"port": 1, "path": "/x"}}},
            "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
            ],
            "resources": {"limits": {"cpu": "1000m", "memory": 1024}, "requests": {"cpu": "0.5"}}
        }),
        json!({
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"protocol": "TCP"}, {}],
            "livenessProbe": {
                "httpGet": {"path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3
            },
            "readinessProbe": {"timeoutSeconds": 1, "periodSeconds": 5, "successThreshold": 1, "failureThreshold": 3},
            "lifecycle": {"preStop": {"httpGet": {"scheme": "HTTP"}}},
            "env": [
                {"valueFrom": {"fieldRef": {"apiVersion": "v1"}}},
                {"valueFrom": {"resourceFieldRef": {"divisor": "0"}}}
            ],
            "resources": {"limits": {"cpu": "1", "memory": "1024"}, "requests": {"cpu": "500m", "memory": "1024"}}
        }),
    );
}

#[test]
fn a_pod_on_the_nodes_network_asks_for_its_ports_there() {
    check(
        "",
        "Pod",
        json!({"spec": {"hostNetwork": true, "containers": [
            {"name": "a", "image": "a:1", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 82}]}
        ]}}),
        pod_defaults(json!({"containers": [container_defaults(json!({
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"hostPort": 80, "protocol": "TCP"}, {"protocol": "TCP"}]
        }))]})),
    );
}

#[test]
fn volumes_get_their_modes_and_sources() {
    check(
        "",
        "Pod",
        json!({"spec": {"containers": [], "volumes": [
            {"name": "a"},
            {"name": "b", "hostPath": {"path": "/x"}},
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "d", "secret": {"secretName": "c", "defaultMode": 0}},
            {"name": "e", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "f", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "g", "image": {"reference": "x"}}
        ]}}),
        pod_defaults(json!({"volumes": [
            {"emptyDir": {}},
            {"hostPath": {"type": ""}},
            {"configMap": {"defaultMode": 420}},
            {},
            {"downwardAPI": {"defaultMode": 420, "items": [{"fieldRef": {"apiVersion": "v1"}}]}},
            {"projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3600}}]}},
            {"image": {"pullPolicy": "Always"}}
        ]})),
    );
}

#[test]
fn tolerations_that_are_there_are_not_doubled() {
    let mut pod = json!({"spec": {"containers": [], "tolerations": [{"operator": "Exists"}]}});
    apply_kind("", "Pod", &mut pod);
    assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    let mut pod = json!({"spec": {"containers": [], "tolerations": [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    ]}});
    apply_kind("", "Pod", &mut pod);
    let keys: Vec<_> =
        pod["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].clone()).collect();
    assert_eq!(keys, ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"]);
}

#[test]
fn workloads_get_replicas_and_a_rollout() {
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let mut template_spec = spec_defaults();
    merge(&mut template_spec, &json!({"containers": [container_defaults(json!({}))]}));
    check(
        "apps",
        "Deployment",
        json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template}}),
        json!({"spec": {
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": {"spec": template_spec}
        }, "status": {}}),
    );
    check(
        "apps",
        "Deployment",
        json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}),
        json!({"spec": {"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}, "status": {}}),
    );
    check(
        "apps",
        "ReplicaSet",
        json!({"spec": {"template": template}}),
        json!({"spec": {"replicas": 1, "template": {"spec": template_spec}}, "status": {"replicas": 0}}),
    );
    check(
        "apps",
        "DaemonSet",
        json!({"spec": {"template": template}}),
        json!({"spec": {
            "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"spec": template_spec}
        }, "status": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}}),
    );
    let retention = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    check(
        "apps",
        "StatefulSet",
        json!({"spec": {"template": template}}),
        json!({"spec": {
            "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "persistentVolumeClaimRetentionPolicy": retention,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
            "template": {"spec": template_spec}
        }, "status": {"replicas": 0, "availableReplicas": 0}}),
    );
    check(
        "apps",
        "StatefulSet",
        json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}}),
        json!({"spec": {
            "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "persistentVolumeClaimRetentionPolicy": retention,
        }, "status": {"replicas": 0, "availableReplicas": 0}}),
    );
    check(
        "",
        "ReplicationController",
        json!({"metadata": {"name": "a"}, "spec": {"template": template}}),
        json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"replicas": 1, "selector": {"app": "a"}, "template": {"spec": template_spec}},
            "status": {"replicas": 0}
        }),
    );
}

#[test]
fn a_job_is_one_pod_that_has_to_succeed_once() {
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"restartPolicy": "Never", "containers": []}});
    let job = |spec: Value| {
        let mut job = json!({"spec": spec});
        job["spec"]["template"] = template.clone();
        apply_kind("batch", "Job", &mut job);
        job["spec"].as_object_mut().unwrap().remove("template");
        job
    };
    let common = json!({"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
        "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed"});
    let with = |more: Value| {
        let mut spec = common.clone();
        merge(&mut spec, &more);
        json!({"spec": spec, "metadata": {"labels": {"app": "a"}}})
    };
    let rule = |condition: Value| json!({"rules": [{"action": "Ignore", "onPodConditions": [condition]}]});
    for (given, want) in [
        (json!({}), json!({"completions": 1})),
        // One success is enough, of however many.
        (json!({"parallelism": 3}), json!({"parallelism": 3})),
        (json!({"completions": 5}), json!({"completions": 5})),
        (
            json!({"podFailurePolicy": rule(json!({"type": "X"}))}),
            json!({"completions": 1, "podReplacementPolicy": "Failed",
                   "podFailurePolicy": rule(json!({"type": "X", "status": "True"}))}),
        ),
        (
            json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1}),
            json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}),
        ),
    ] {
        assert_eq!(job(given.clone()), with(want), "{given}");
    }
}

#[test]
fn a_cron_job_keeps_some_of_what_has_run() {
    let condition = |status: Value| json!({"rules": [{"action": "Ignore", "onPodConditions": [status]}]});
    let mut given = json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {
        "podFailurePolicy": condition(json!({"type": "X"})), "template": {"spec": {"containers": [{"name": "a"}]}}}}}});
    apply_kind("batch", "CronJob", &mut given);
    let job = &given["spec"]["jobTemplate"]["spec"];
    assert_eq!(job["template"]["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(job["podFailurePolicy"], condition(json!({"type": "X", "status": "True"})));
    assert!(
        job["backoffLimit"].is_null() && job["completions"].is_null(),
        "that is for the Job to say: {job}"
    );
    given["spec"].as_object_mut().unwrap().remove("jobTemplate");
    let want = json!({"schedule": "@daily", "concurrencyPolicy": "Allow", "suspend": false,
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1});
    assert_eq!(given["spec"], want);
    let mut none = json!({"spec": {"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0}});
    apply_kind("batch", "CronJob", &mut none);
    assert_eq!(none["spec"]["successfulJobsHistoryLimit"], 0);
    assert_eq!(none["spec"]["failedJobsHistoryLimit"], 0);
}

#[test]
fn services_by_type() {
    let status = json!({"loadBalancer": {}});
    let cluster = |more: Value| {
        let mut spec = json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"
        });
        merge(&mut spec, &more);
        json!({"spec": spec, "status": status})
    };
    let check = |input: Value, want: Value| check("", "Service", json!({"spec": input}), want);
    check(
        json!({"ports": [{"port": 80}, {"port": 81, "targetPort": "web", "protocol": "UDP"}]}),
        cluster(json!({"ports": [{"targetPort": 80, "protocol": "TCP"}, {}]})),
    );
    check(
        json!({"type": "NodePort", "ports": []}),
        cluster(json!({"type": "NodePort", "externalTrafficPolicy": "Cluster"})),
    );
    check(json!({"externalIPs": ["192.0.2.1"]}), cluster(json!({"externalTrafficPolicy": "Cluster"})));
    check(
        json!({"sessionAffinity": "ClientIP"}),
        cluster(
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}),
        ),
    );
    check(json!({"clusterIP": "None"}), cluster(json!({})));
    check(
        json!({"type": "ExternalName", "externalName": "a.b"}),
        json!({"spec": {"sessionAffinity": "None"}, "status": status}),
    );
}

#[test]
fn policy_types_follow_the_rules_that_are_there() {
    let check = |input: Value, want: Value| {
        check("networking.k8s.io", "NetworkPolicy", json!({"spec": input}), json!({"spec": want}));
    };
    check(json!({"podSelector": {}}), json!({"policyTypes": ["Ingress"]}));
    check(json!({"egress": []}), json!({"policyTypes": ["Ingress"]}));
    check(
        json!({"egress": [{"ports": [{"port": 80}]}]}),
        json!({"policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"protocol": "TCP"}]}]}),
    );
    check(json!({"policyTypes": ["Egress"], "ingress": [{}]}), json!({}));
}

#[test]
fn kinds_that_run_nothing() {
    check(
        "",
        "Secret",
        json!({"data": {"a": "eA=="}, "stringData": {"b": "hello", "c": "é"}}),
        json!({"type": "Opaque", "data": {"b": "aGVsbG8=", "c": "w6k="}, "stringData": null}),
    );
    check("", "Secret", json!({"type": "t"}), json!({}));
    check(
        "",
        "Namespace",
        json!({"metadata": {"name": "shop", "labels": {"a": "b"}}}),
        json!({
            "metadata": {"labels": {"kubernetes.io/metadata.name": "shop"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}
        }),
    );
    // One that is being deleted does not get its finalizer back.
    check(
        "",
        "Namespace",
        json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Terminating"}}),
        json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "x"}}, "spec": {}}),
    );
    check(
        "",
        "Node",
        json!({"status": {"capacity": {"cpu": "2"}}}),
        json!({"status": {"allocatable": {"cpu": "2"}}}),
    );
    check("", "ConfigMap", json!({"data": {"a": "b"}}), json!({}));
}

#[test]
fn wrong_types_are_left_for_validation_to_name() {
    for kind in ["Pod", "Service", "Namespace", "Secret"] {
        for object in [json!(null), json!([]), json!("x"), json!({"spec": 3, "metadata": "x", "status": []})]
        {
            let mut got = object.clone();
            apply_kind("", kind, &mut got);
        }
    }
    let mut pod = json!({"spec": {"containers": [1, {"resources": [], "ports": {"a": 1}}], "volumes": "x", "tolerations": 1}});
    apply_kind("", "Pod", &mut pod);
    assert_eq!(pod["spec"]["volumes"], "x");
}

#[test]
fn the_quality_of_service_class_follows_requests_and_limits() {
    let pod = |resources: Value| {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        apply_kind("", "Pod", &mut pod);
        super::qos_class(&pod)
    };
    assert_eq!(pod(json!({})), "BestEffort");
    assert_eq!(pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(
        pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
        "Burstable"
    );
    assert_eq!(pod(json!({"requests": {"cpu": "1m"}})), "Burstable");
    assert_eq!(pod(json!({"limits": {"cpu": "1"}})), "Burstable");
}

#[test]
fn users_groups_and_roles_are_of_the_rbac_group() {
    let group = "rbac.authorization.k8s.io";
    check(
        group,
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s"}
        ]}),
        json!({"roleRef": {"apiGroup": group, "kind": "Role", "name": "r"}, "subjects": [
            {"apiGroup": group, "kind": "User", "name": "u"}, {"apiGroup": group, "kind": "Group", "name": "g"},
            {"kind": "ServiceAccount", "name": "s"}
        ]}),
    );
}
