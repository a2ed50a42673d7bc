//! What of its own a node may change, and of other nodes it may not.

use super::*;

const MIRROR: &str = "kubernetes.io/config.mirror";

async fn refused(server: &Server, method: &str, target: &str, body: Value) -> String {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let node = Some(User::node("node-1"));
    let (code, _, text) = server.ask_as(node, method, target, media, body.to_string()).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    if code.is_success() {
        return String::new();
    }
    assert_eq!(code, 403, "{method} {target}: {text}");
    answer["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_node_changes_nothing_by_which_it_could_draw_pods() {
    let server = furnished().await;
    let labels = |labels: Value| json!({"metadata": {"name": "node-1", "labels": labels}});
    let nodes = "/api/v1/nodes";
    let forbidden = |what: &str| format!("nodes \"node-1\" is forbidden: {what}");
    assert_eq!(
        refused(
            &server,
            "POST",
            nodes,
            labels(json!({"node-restriction.kubernetes.io/fips": "1", "a": "b"}))
        )
        .await,
        forbidden(
            "node \"node-1\" is not allowed to set the following labels: node-restriction.kubernetes.io/fips"
        )
    );
    let own = labels(json!({"kubernetes.io/hostname": "node-1", "acme.example/rack": "7"}));
    assert_eq!(refused(&server, "POST", nodes, own).await, "");
    let table = [
        (json!({"metadata": {"labels": {"acme.example/rack": "8"}}}), ""),
        (json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}}), ""),
        (
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}),
            "is not allowed to modify labels: node-role.kubernetes.io/control-plane",
        ),
        (
            json!({"metadata": {"labels": {"x.node-restriction.kubernetes.io/y": "1"}}}),
            "is not allowed to modify labels: x.node-restriction.kubernetes.io/y",
        ),
        (
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            "node \"node-1\" is not allowed to modify taints",
        ),
        (
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}]}}),
            "node \"node-1\" is not allowed to modify ownerReferences",
        ),
        (json!({"spec": {"unschedulable": true}}), ""),
    ];
    for (patch, want) in table {
        let want = if want.is_empty() { String::new() } else { forbidden(want) };
        assert_eq!(refused(&server, "PATCH", &format!("{nodes}/node-1"), patch).await, want);
    }
    server.created("/api/v1/namespaces", json!({"metadata": {"name": "kube-node-lease"}})).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(refused(&server, "POST", leases, lease("node-1")).await, "");
    assert!(
        refused(&server, "POST", leases, lease("node-2"))
            .await
            .contains("with the same name as the requesting node")
    );
}

#[tokio::test]
async fn a_node_tells_of_its_pods_and_of_no_others() {
    let server = furnished().await;
    let node = server.created("/api/v1/nodes", json!({"metadata": {"name": "node-1"}})).await;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": node["metadata"]["uid"], "controller": true});
    let mirror = |owners: Value, more: Value| {
        let mut spec = json!({"nodeName": "node-1", "containers": [{"name": "main", "image": "x"}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"metadata": {"name": "m", "annotations": {MIRROR: "x"}, "ownerReferences": owners}, "spec": spec})
    };
    let mut stranger = owner.clone();
    stranger["uid"] = "other".into();
    let table = [
        (pod("m"), "pod does not have \"kubernetes.io/config.mirror\" annotation"),
        (
            mirror(json!([owner]), json!({"nodeName": "node-2"})),
            "can only create pods with spec.nodeName set to itself",
        ),
        (mirror(json!([]), json!({})), "can only create pods with an owner reference set to itself"),
        (mirror(json!([stranger]), json!({})), "node node-1 UID mismatch: expected other got"),
        (
            mirror(json!([owner]), json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]})),
            "can not create pods that reference secrets",
        ),
        (
            mirror(json!([owner]), json!({"volumes": [{"name": "v", "configMap": {"name": "s"}}]})),
            "can not create pods that reference configmaps",
        ),
        (mirror(json!([owner]), json!({})), ""),
    ];
    for (body, want) in table {
        let got = refused(&server, "POST", PODS, body).await;
        assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{want}: {got}");
    }
    let status = |labels: Value| json!({"metadata": {"labels": labels}, "status": {"phase": "Running"}});
    let target = format!("{PODS}/m/status");
    assert_eq!(
        refused(&server, "PATCH", &target, status(json!({"app": "web"}))).await,
        "pods \"m\" is forbidden: node \"node-1\" cannot update labels through pod status"
    );
    assert_eq!(refused(&server, "PATCH", &target, status(json!({}))).await, "");
}
