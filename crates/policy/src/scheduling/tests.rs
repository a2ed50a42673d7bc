use serde_json::{Value, json};

use super::*;

fn node(name: &str, more: Value) -> Value {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" } },
    });
    merge(&mut node, more);
    node
}

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c" }] },
    });
    merge(&mut pod, more);
    pod
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn info(pod: Value) -> PodInfo {
    PodInfo::from_api(&serde_json::from_value(pod).unwrap())
}

fn cluster(nodes: Vec<Value>, pods: Vec<Value>) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        assert!(cluster.upsert_node(&serde_json::from_value(node).unwrap()));
    }
    cluster.upsert_namespace("default", [("team".to_string(), "a".to_string())].into());
    pods.into_iter().for_each(|pod| cluster.put_pod(info(pod)));
    cluster
}

fn three() -> Vec<Value> {
    ["node-1", "node-2", "node-3"].into_iter().map(|name| node(name, json!({}))).collect()
}

fn host_port(port: Value) -> Value {
    json!({ "spec": { "containers": [{ "name": "c", "ports": [port] }] } })
}

/// `Ok(node)` or the message.
fn place(pod: Value, cluster: &Cluster) -> Result<String, String> {
    schedule(&info(pod), cluster).map_err(|error| error.to_string())
}

#[test]
fn four_replicas_with_one_host_port_fill_three_nodes_and_the_fourth_waits_for_one() {
    let mut cluster = cluster(three(), vec![]);
    let replica =
        |n: usize| pod(&format!("web-{n}"), host_port(json!({ "containerPort": 80, "hostPort": 8080 })));
    let mut placed = Vec::new();
    for n in 0..3 {
        let mut info = info(replica(n));
        let name = schedule(&info, &cluster).unwrap();
        info.node = Some(name.clone());
        cluster.put_pod(info);
        placed.push(name);
    }
    assert_eq!(placed, ["node-1", "node-2", "node-3"]);
    assert_eq!(
        place(replica(3), &cluster).unwrap_err(),
        "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports. preemption: 0/3 \
         nodes are available: 3 No preemption victims found for incoming pod."
    );
    assert!(cluster.remove_pod("web-1"));
    assert_eq!(place(replica(3), &cluster), Ok("node-2".to_string()));
}

#[test]
fn host_ports_conflict_by_protocol_address_and_port() {
    let rows = [
        (json!({ "hostPort": 80 }), json!({ "hostPort": 80 }), true),
        (json!({ "hostPort": 80 }), json!({ "hostPort": 81 }), false),
        (json!({ "hostPort": 80 }), json!({ "hostPort": 80, "protocol": "UDP" }), false),
        (
            json!({ "hostPort": 80, "hostIP": "10.0.0.1" }),
            json!({ "hostPort": 80, "hostIP": "10.0.0.2" }),
            false,
        ),
        (
            json!({ "hostPort": 80, "hostIP": "10.0.0.1" }),
            json!({ "hostPort": 80, "hostIP": "10.0.0.1" }),
            true,
        ),
        (
            json!({ "hostPort": 80, "hostIP": "0.0.0.0" }),
            json!({ "hostPort": 80, "hostIP": "10.0.0.1" }),
            true,
        ),
        (json!({ "hostPort": 80, "hostIP": "10.0.0.1" }), json!({ "hostPort": 80 }), true),
        (json!({ "containerPort": 80 }), json!({ "containerPort": 80 }), false),
    ];
    for (held, wanted, conflict) in rows {
        let with = |name: &str, port: &Value| {
            let mut port = port.clone();
            merge(&mut port, json!({ "containerPort": 80 }));
            pod(name, host_port(port))
        };
        let mut first = with("a", &held);
        merge(&mut first, json!({ "spec": { "nodeName": "node-1" } }));
        let cluster = cluster(vec![node("node-1", json!({}))], vec![first]);
        assert_eq!(place(with("b", &wanted), &cluster).is_err(), conflict, "{held} {wanted}");
    }
}

#[test]
fn every_refusal_has_kubernetes_words_and_they_are_counted_and_sorted() {
    let nodes = vec![
        node("a", json!({ "spec": { "unschedulable": true } })),
        node("b", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } })),
        node("c", json!({ "metadata": { "labels": { "disk": "hdd" } } })),
        node(
            "d",
            json!({ "metadata": { "labels": { "disk": "ssd" } }, "status": { "allocatable": { "cpu": "500m", "pods": "0" } } }),
        ),
        node(
            "e",
            json!({ "metadata": { "labels": { "disk": "ssd" } }, "status": { "allocatable": { "cpu": "1", "memory": "1Mi" } } }),
        ),
    ];
    let busy = pod(
        "busy",
        json!({ "spec": { "nodeName": "e", "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }] } }),
    );
    let wants = json!({ "spec": { "nodeSelector": { "disk": "ssd" },
        "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1", "memory": "1Mi" } } }] } });
    assert_eq!(
        place(pod("p", wants), &cluster(nodes, vec![busy])).unwrap_err(),
        "0/5 nodes are available: 1 Too many pods, 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) \
         had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/5 nodes are \
         available: 1 No preemption victims found for incoming pod, 4 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        place(pod("p", json!({})), &Cluster::default()).unwrap_err(),
        "no nodes available to schedule pods"
    );
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let cluster = cluster(three(), vec![]);
    let volume =
        json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] } });
    assert_eq!(
        place(pod("p", volume), &cluster).unwrap_err(),
        "0/3 nodes are available: persistentvolumeclaim \"data\" not found. preemption: 0/3 nodes are available: 3 \
         Preemption is not helpful for scheduling."
    );
    let never = json!({ "spec": { "preemptionPolicy": "Never", "nodeSelector": { "a": "b" } } });
    let message = place(pod("p", never), &cluster).unwrap_err();
    assert!(
        message.ends_with("selector. preemption: not eligible due to preemptionPolicy=Never."),
        "{message}"
    );
    let claim = json!({ "spec": { "resourceClaims": [{ "name": "gpu" }] } });
    assert!(place(pod("p", claim), &cluster).is_err());
    let gpu = json!({ "spec": { "containers": [{ "name": "c", "resources": { "limits": { "example.com/gpu": "1" } } }] } });
    assert!(place(pod("p", gpu), &cluster).unwrap_err().contains("3 Insufficient example.com/gpu."));
}

#[test]
fn node_affinity_selects_by_label_and_by_name() {
    let nodes = vec![
        node("a", json!({ "metadata": { "labels": { "zone": "x", "rank": "5" } } })),
        node("b", json!({ "metadata": { "labels": { "zone": "y" } } })),
    ];
    let cluster = cluster(nodes, vec![]);
    let required = |terms: Value| {
        pod(
            "p",
            json!({ "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } } }),
        )
    };
    let expression = |key: &str, operator: &str, values: Value| json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }]);
    for (terms, expected) in [
        (expression("zone", "In", json!(["y"])), Some("b")),
        (expression("zone", "NotIn", json!(["y"])), Some("a")),
        (expression("rank", "Gt", json!(["4"])), Some("a")),
        (expression("rank", "DoesNotExist", json!([])), Some("b")),
        (
            json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["b"] }] }]),
            Some("b"),
        ),
        (json!([{}]), None),
    ] {
        let got = place(required(terms.clone()), &cluster).ok();
        assert_eq!(got.as_deref(), expected, "{terms}");
    }
    let preferred = pod(
        "p",
        json!({ "spec": { "affinity": { "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 10, "preference": {
            "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["y"] }] } }] } } } }),
    );
    assert_eq!(place(preferred, &cluster), Ok("b".to_string()));
}

#[test]
fn tolerations_match_taints_as_kubernetes_has_them() {
    let rows = [
        (json!([]), false),
        (json!([{ "key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule" }]), true),
        (json!([{ "key": "k", "value": "v" }]), true),
        (json!([{ "key": "k", "value": "w" }]), false),
        (json!([{ "key": "k", "operator": "Exists" }]), true),
        (json!([{ "operator": "Exists" }]), true),
        (json!([{ "key": "other", "operator": "Exists" }]), false),
        (json!([{ "key": "k", "operator": "Exists", "effect": "NoExecute" }]), false),
    ];
    let tainted = json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } });
    let cluster = cluster(vec![node("a", tainted)], vec![]);
    for (tolerations, expected) in rows {
        let got = place(pod("p", json!({ "spec": { "tolerations": tolerations } })), &cluster).is_ok();
        assert_eq!(got, expected, "{tolerations}");
    }
}

#[test]
fn requests_count_containers_init_containers_sidecars_and_overhead() {
    let cpu = |amount: &str| json!({ "requests": { "cpu": amount } });
    let rows = [
        (
            json!({ "containers": [{ "name": "a", "resources": cpu("100m") }, { "name": "b", "resources": cpu("1") }] }),
            1100,
        ),
        (
            json!({ "containers": [{ "name": "a", "resources": cpu("100m") }], "initContainers": [{ "name": "i", "resources": cpu("1") }] }),
            1000,
        ),
        (
            json!({ "containers": [{ "name": "a", "resources": cpu("100m") }], "initContainers": [
            { "name": "s", "restartPolicy": "Always", "resources": cpu("200m") }, { "name": "i", "resources": cpu("50m") }] }),
            300,
        ),
        (
            json!({ "containers": [{ "name": "a", "resources": { "limits": { "cpu": "2" } } }], "overhead": { "cpu": "10m" } }),
            2010,
        ),
        (json!({ "containers": [{ "name": "a", "resources": cpu("100m") }], "resources": cpu("3") }), 3000),
    ];
    for (spec, expected) in rows {
        assert_eq!(info(pod("p", json!({ "spec": spec }))).requests["cpu"], expected, "{spec}");
    }
}

#[test]
fn pods_of_one_owner_spread_and_others_go_where_there_is_room() {
    let mut cluster = cluster(three(), vec![]);
    let owned = |n: usize| {
        pod(
            &format!("p{n}"),
            json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }] } }),
        )
    };
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..50 {
        let mut info = info(owned(n));
        let name = schedule(&info, &cluster).unwrap();
        *counts.entry(name.clone()).or_insert(0) += 1;
        info.node = Some(name);
        cluster.put_pod(info);
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [17, 17, 16]);
}

#[test]
fn pod_affinity_and_anti_affinity_hold_per_topology_domain() {
    let zoned = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let nodes = || vec![zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")];
    let term = |kind: &str, key: &str, app: &str| {
        json!({ "spec": { "affinity": { kind: {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            { "topologyKey": key, "labelSelector": { "matchLabels": { "app": app } } }] } } } })
    };
    let mut database =
        pod("db", json!({ "metadata": { "labels": { "app": "db" } }, "spec": { "nodeName": "b1" } }));
    let with_database = cluster(nodes(), vec![database.clone()]);
    assert_eq!(place(pod("p", term("podAffinity", "zone", "db")), &with_database), Ok("b1".to_string()));
    assert_eq!(place(pod("p", term("podAntiAffinity", "zone", "db")), &with_database), Ok("a1".to_string()));
    // The first of a group may go anywhere; one that waits for others may not.
    let empty = cluster(nodes(), vec![]);
    assert!(place(pod("p", term("podAffinity", "zone", "web")), &empty).is_ok());
    let message = place(pod("p", term("podAffinity", "zone", "db")), &empty).unwrap_err();
    assert!(message.contains("3 node(s) didn't match pod affinity rules. preemption: 0/3 nodes are available: 3 Preemption is not helpful"), "{message}");
    // A pod that runs may not want the new one.
    merge(&mut database, term("podAntiAffinity", "zone", "web"));
    let hostile = cluster(vec![zoned("b1", "b")], vec![database]);
    let message = place(pod("p", json!({})), &hostile).unwrap_err();
    assert!(message.contains("1 node(s) didn't satisfy existing pods anti-affinity rules."), "{message}");
}

#[test]
fn topology_spread_keeps_the_skew() {
    let zoned = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let nodes = vec![zoned("a", "a"), zoned("b", "b"), node("none", json!({}))];
    let spread = json!({ "spec": { "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] } });
    let on = |name: &str, node: &str| pod(name, json!({ "spec": { "nodeName": node } }));
    let one = cluster(nodes.clone(), vec![on("x", "a")]);
    assert_eq!(place(pod("p", spread.clone()), &one), Ok("b".to_string()));
    let mut cordoned = nodes;
    merge(&mut cordoned[1], json!({ "spec": { "unschedulable": true } }));
    let message = place(pod("p", spread), &cluster(cordoned, vec![on("x", "a")])).unwrap_err();
    assert!(
        message.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"),
        "{message}"
    );
    assert!(message.contains("1 node(s) didn't match pod topology spread constraints,"), "{message}");
}

#[test]
fn pods_bound_before_their_node_is_known_count_once_it_is() {
    let mut cluster = Cluster::default();
    let mut holder = pod("a", host_port(json!({ "containerPort": 80, "hostPort": 80 })));
    merge(&mut holder, json!({ "spec": { "nodeName": "node-1" } }));
    cluster.put_pod(info(holder));
    cluster.upsert_node(&serde_json::from_value(node("node-1", json!({}))).unwrap());
    assert!(place(pod("b", host_port(json!({ "containerPort": 80, "hostPort": 80 }))), &cluster).is_err());
    cluster.remove_node("node-1");
    assert!(cluster.remove_pod("a") && !cluster.remove_pod("a"));
}
