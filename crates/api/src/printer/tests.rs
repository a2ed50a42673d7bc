//! Objects and the rows they make.

use serde_json::{Value, json};

use super::{IncludeObject, table_kind};

/// 2026-11-23T20:30:00Z.
const NOW: i64 = 1_795_465_800;
const CREATED: &str = "2026-11-23T20:29:00Z";

fn cells(group: &str, kind: &str, mut object: Value) -> Value {
    object["metadata"]["creationTimestamp"] = json!(CREATED);
    let table = table_kind(group, kind, &[object], NOW, IncludeObject::None);
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    let row = table["rows"][0]["cells"].clone();
    assert_eq!(row.as_array().unwrap().len(), columns, "{kind}: a cell for each column");
    row
}

fn status_of(spec: Value, status: Value) -> Vec<String> {
    let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    let row = cells("", "Pod", pod);
    (1..4).map(|i| row[i].as_str().unwrap().to_owned()).collect()
}

fn two() -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "j"}]})
}

#[test]
fn the_status_of_a_pod_is_the_word_that_says_most() {
    let running = |name: &str| json!({"name": name, "ready": true, "state": {"running": {}}});
    let waiting = |name: &str, reason: &str| json!({"name": name, "state": {"waiting": {"reason": reason}}});
    let ended = |name: &str, reason: &str, code: i64| json!({"name": name, "state": {"terminated": {"reason": reason, "exitCode": code}}});
    let phase = |phase: &str, init: Value, containers: Value| json!({"phase": phase, "initContainerStatuses": init, "containerStatuses": containers});
    let done = json!([ended("i", "Completed", 0), ended("j", "Completed", 0)]);
    let rows = [
        (json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
        (
            phase("Pending", json!([{"name": "i", "state": {"running": {}}}]), json!([])),
            ["0/2", "Init:0/2", "0"],
        ),
        (
            phase("Pending", json!([ended("i", "Completed", 0), waiting("j", "PodInitializing")]), json!([])),
            ["0/2", "Init:1/2", "0"],
        ),
        (
            phase("Pending", json!([waiting("i", "ErrImagePull")]), json!([])),
            ["0/2", "Init:ErrImagePull", "0"],
        ),
        (phase("Pending", json!([ended("i", "Error", 1)]), json!([])), ["0/2", "Init:Error", "0"]),
        (phase("Pending", json!([ended("i", "", 3)]), json!([])), ["0/2", "Init:ExitCode:3", "0"]),
        (
            phase("Pending", done.clone(), json!([waiting("a", "ContainerCreating"), running("b")])),
            ["1/2", "ContainerCreating", "0"],
        ),
        (phase("Running", done.clone(), json!([running("a"), running("b")])), ["2/2", "Running", "0"]),
        (
            phase("Running", done.clone(), json!([running("a"), waiting("b", "CrashLoopBackOff")])),
            ["1/2", "CrashLoopBackOff", "0"],
        ),
        (
            phase("Running", done.clone(), json!([ended("a", "OOMKilled", 137), running("b")])),
            ["1/2", "OOMKilled", "0"],
        ),
        (
            phase("Running", done.clone(), json!([ended("a", "Completed", 0), running("b")])),
            ["1/2", "NotReady", "0"],
        ),
        (
            phase("Succeeded", done.clone(), json!([ended("a", "Completed", 0), ended("b", "Completed", 0)])),
            ["0/2", "Completed", "0"],
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), ["0/2", "Evicted", "0"]),
    ];
    for (status, want) in rows {
        assert_eq!(status_of(two(), status.clone()), want, "{status}");
    }
}

#[test]
fn restarts_say_when_the_last_one_was() {
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
         "lastState": {"terminated": {"finishedAt": "2026-11-23T20:25:00Z"}}},
        {"name": "b", "ready": true, "restartCount": 1, "state": {"running": {}},
         "lastState": {"terminated": {"finishedAt": "2026-11-23T20:20:00Z"}}}
    ]});
    assert_eq!(status_of(json!({"containers": [{}, {}]}), status), ["2/2", "Running", "3 (5m ago)"]);
}

#[test]
fn a_sidecar_counts_among_the_containers() {
    let spec =
        json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    let status = json!({"phase": "Running",
        "initContainerStatuses": [{"name": "s", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}],
        "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]});
    assert_eq!(status_of(spec, status), ["2/2", "Running", "1"]);
}

#[test]
fn a_pod_that_goes_is_terminating() {
    let pod = |phase: &str| json!({"metadata": {"name": "p", "deletionTimestamp": CREATED}, "spec": {"containers": [{}]}, "status": {"phase": phase}});
    assert_eq!(cells("", "Pod", pod("Running"))[2], "Terminating");
    assert_eq!(cells("", "Pod", pod("Succeeded"))[2], "Succeeded");
}

#[test]
fn each_kind_has_its_columns() {
    let template =
        json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
    let rows = [
        (
            "",
            "Pod",
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node-1", "containers": [{}], "readinessGates": [{"conditionType": "x"}]},
                   "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.2"}]}}),
            json!(["p", "0/1", "Running", "0", "60s", "10.244.0.2", "node-1", "<none>", "0/1"]),
        ),
        (
            "apps",
            "Deployment",
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "x"}}},
                   "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}}),
            json!(["d", "2/3", 3, 1, "60s", "a,b", "x,y", "app=x"]),
        ),
        (
            "apps",
            "DaemonSet",
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "x"}},
                       "template": {"spec": {"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"disk": "ssd"}}}},
                   "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
            json!(["d", 3, 2, 1, 2, 1, "disk=ssd", "60s", "a", "x", "app=x"]),
        ),
        (
            "apps",
            "StatefulSet",
            json!({"metadata": {"name": "s"}, "spec": {"replicas": 3, "template": template}, "status": {"readyReplicas": 2}}),
            json!(["s", "2/3", "60s", "a,b", "x,y"]),
        ),
        (
            "",
            "PodTemplate",
            json!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}),
            json!(["t", "a", "x", "app=x"]),
        ),
        (
            "apps",
            "ControllerRevision",
            json!({"metadata": {"name": "d-1", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]}, "revision": 4}),
            json!(["d-1", "daemonset.apps/d", 4, "60s"]),
        ),
        (
            "batch",
            "Job",
            json!({"metadata": {"name": "j"}, "spec": {"completions": 5, "template": template, "selector": {"matchLabels": {"u": "x"}}},
                   "status": {"succeeded": 5, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:40Z",
                              "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}}),
            json!(["j", "Complete", "5/5", "100s", "60s", "a,b", "x,y", "u=x"]),
        ),
        (
            "batch",
            "Job",
            json!({"metadata": {"name": "j"}, "spec": {"parallelism": 3}, "status": {"succeeded": 1}}),
            json!(["j", "Running", "1/1 of 3", "", "60s", "", "", "<none>"]),
        ),
        (
            "batch",
            "Job",
            json!({"metadata": {"name": "j"}, "spec": {"completions": 1},
                   "status": {"conditions": [{"type": "Suspended", "status": "True"}]}}),
            json!(["j", "Suspended", "0/1", "", "60s", "", "", "<none>"]),
        ),
        (
            "batch",
            "CronJob",
            json!({"metadata": {"name": "c"}, "spec": {"schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "suspend": false,
                       "jobTemplate": {"spec": {"template": template}}},
                   "status": {"active": [{"name": "c-1"}], "lastScheduleTime": CREATED}}),
            json!(["c", "0 3 * * *", "Europe/Berlin", "False", 1, "60s", "60s", "a,b", "x,y", "<none>"]),
        ),
        (
            "batch",
            "CronJob",
            json!({"metadata": {"name": "c"}, "spec": {"schedule": "@daily", "suspend": true}}),
            json!(["c", "@daily", "<none>", "True", 0, "<none>", "60s", "", "", "<none>"]),
        ),
        (
            "apps",
            "ReplicaSet",
            json!({"metadata": {"name": "r"}, "spec": {"replicas": 3, "template": template, "selector": {
                "matchLabels": {"app": "x"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["c", "b"]}]}}, "status": {"replicas": 2}}),
            json!(["r", 3, 2, 0, "60s", "a,b", "x,y", "a in (b,c),app=x"]),
        ),
        (
            "",
            "ReplicationController",
            json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"app": "x"}}}),
            json!(["r", 1, 0, 0, "60s", "", "", "app=x"]),
        ),
        (
            "",
            "Service",
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "selector": {"a": "b"},
                   "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!(["s", "NodePort", "10.96.0.9", "<none>", "80:30080/TCP,53/UDP", "60s", "a=b"]),
        ),
        (
            "",
            "Service",
            json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9"}}),
            json!(["s", "LoadBalancer", "10.96.0.9", "<pending>", "<none>", "60s", "<none>"]),
        ),
        (
            "",
            "Service",
            json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "a.b"}}),
            json!(["s", "ExternalName", "<none>", "a.b", "<none>", "60s", "<none>"]),
        ),
        (
            "",
            "Node",
            json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "x"}},
                   "spec": {"unschedulable": true},
                   "status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": [{"type": "InternalIP", "address": "10.88.0.2"}],
                              "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian"}}}),
            json!([
                "n",
                "NotReady,SchedulingDisabled",
                "worker,x",
                "60s",
                "v1.35.0",
                "10.88.0.2",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (
            "",
            "Namespace",
            json!({"metadata": {"name": "n"}, "status": {"phase": "Active"}}),
            json!(["n", "Active", "60s"]),
        ),
        (
            "",
            "ConfigMap",
            json!({"metadata": {"name": "c"}, "data": {"a": "", "b": ""}, "binaryData": {"c": ""}}),
            json!(["c", 3, "60s"]),
        ),
        (
            "",
            "Secret",
            json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": ""}}),
            json!(["s", "Opaque", 1, "60s"]),
        ),
        ("", "ServiceAccount", json!({"metadata": {"name": "s"}}), json!(["s", 0, "60s"])),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}}}),
            json!(["n", "<none>", "60s"]),
        ),
        (
            "",
            "Endpoints",
            json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
            json!(["e", "10.0.0.1:80,10.0.0.1:81,10.0.0.2:80 + 1 more...", "60s"]),
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}]}),
            json!(["e", "IPv4", "80", "10.0.0.1", "60s"]),
        ),
        (
            "",
            "Event",
            json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "FailedScheduling", "message": "0/3 nodes\n", "count": 4,
                   "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "source": {"component": "s", "host": "h"},
                   "firstTimestamp": "2026-11-23T20:20:00Z", "lastTimestamp": "2026-11-23T20:29:30Z"}),
            json!([
                "30s",
                "Warning",
                "FailedScheduling",
                "pod/p",
                "spec",
                "s, h",
                "0/3 nodes",
                "10m",
                4,
                "e"
            ]),
        ),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "h"}}),
            json!(["l", "h", "60s"]),
        ),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [
                {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            json!(["b", "Role/r", "60s", "u", "", "n/s"]),
        ),
        ("x.example", "Other", json!({"metadata": {"name": "o"}}), json!(["o", CREATED])),
    ];
    for (group, kind, object, want) in rows {
        assert_eq!(cells(group, kind, object), want, "{kind}");
    }
}

#[test]
fn a_row_carries_what_was_asked_for() {
    let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {}});
    let row = |include| {
        table_kind("", "ConfigMap", std::slice::from_ref(&object), NOW, include)["rows"][0]["object"].clone()
    };
    assert_eq!(row(IncludeObject::None), Value::Null);
    assert_eq!(row(IncludeObject::Object), object);
    assert_eq!(
        row(IncludeObject::Metadata),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
    );
    assert_eq!(IncludeObject::parse("Table"), None);
}

#[test]
fn a_table_of_nothing_still_has_columns() {
    let table = table_kind("", "Pod", &[], NOW, IncludeObject::Metadata);
    assert_eq!(table["rows"], json!([]));
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(table["columnDefinitions"][5]["priority"], 1);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
}

#[test]
fn odd_objects_make_rows_too() {
    for kind in ["Pod", "Service", "Node", "Event", "ConfigMap", "Endpoints", "ReplicationController"] {
        for object in [json!(null), json!([]), json!({"metadata": 3, "spec": [], "status": "x"})] {
            let table = table_kind("", kind, &[object], NOW, IncludeObject::Metadata);
            assert_eq!(table["rows"].as_array().unwrap().len(), 1);
        }
    }
}
