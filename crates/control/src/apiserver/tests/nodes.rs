//! What of its own a node may change, and of other nodes it may not.

use super::*;

const MIRROR: &str = "kubernetes.io/config.mirror";

async fn refused(server: &Server, method: &str, target: &str, body: Value) -> String {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let node = Some(User::node("node-1"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (code, _, text) = server.ask_as(node, method, target, media, body).await;
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

#[tokio::test]
async fn a_node_reaches_what_its_own_pods_use_and_nothing_else() {
    let server = furnished().await;
    for node in ["node-1", "node-2"] {
        server.created("/api/v1/nodes", json!({"metadata": {"name": node}})).await;
    }
    server.created("/api/v1/namespaces/d/serviceaccounts", json!({"metadata": {"name": "other"}})).await;
    for name in ["used", "unused", "foreign"] {
        let object = json!({"metadata": {"name": name}});
        server.created("/api/v1/namespaces/d/configmaps", object.clone()).await;
        server.created("/api/v1/namespaces/d/secrets", object).await;
    }
    let bound = async |name: &str, node: &str, uses: &str| {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = node.into();
        pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": uses}}]);
        pod["spec"]["imagePullSecrets"] = json!([{"name": uses}]);
        server.created(PODS, pod).await
    };
    let own = bound("own", "node-1", "used").await;
    bound("foreign", "node-2", "foreign").await;

    let namespace = "/api/v1/namespaces/d";
    let unrelated = "no relationship found between node 'node-1' and this object";
    let none = Value::Null;
    let labels = json!({"metadata": {"labels": {"app": "web"}}});
    let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "own", "uid": own["metadata"]["uid"]});
    let token = |audiences: Value| json!({"spec": {"audiences": audiences, "boundObjectRef": reference}});
    let table = [
        ("GET", "configmaps/used", none.clone(), ""),
        ("GET", "configmaps?fieldSelector=metadata.name%3Dused", none.clone(), ""),
        ("GET", "configmaps/unused", none.clone(), unrelated),
        ("GET", "configmaps/foreign", none.clone(), unrelated),
        ("GET", "configmaps?fieldSelector=metadata.name%3Dforeign", none.clone(), unrelated),
        ("GET", "configmaps", none.clone(), "No Object name found"),
        ("DELETE", "configmaps/used", none.clone(), "can only read resources of this type"),
        ("GET", "secrets/used", none.clone(), ""),
        ("GET", "secrets/unused", none.clone(), unrelated),
        ("GET", "secrets/foreign", none.clone(), unrelated),
        ("POST", "secrets", json!({"metadata": {"name": "x"}}), "can only read resources of this type"),
        ("GET", "serviceaccounts/default", none.clone(), ""),
        ("GET", "serviceaccounts/other", none.clone(), unrelated),
        ("POST", "serviceaccounts/other/token", token(json!([])), unrelated),
        ("POST", "serviceaccounts/default/token", token(json!([])), ""),
        (
            "POST",
            "serviceaccounts/default/token",
            token(json!(["a", "b"])),
            "node may only request 0 or 1 audiences",
        ),
        ("PATCH", "pods/own", labels.clone(), "cannot patch resource \"pods\""),
        (
            "POST",
            "pods/own/binding",
            json!({"target": {"kind": "Node", "name": "node-1"}}),
            "cannot create resource \"pods/binding\"",
        ),
        ("PATCH", "pods/own/ephemeralcontainers", none.clone(), "cannot patch resource"),
        (
            "PATCH",
            "pods/foreign/status",
            json!({"status": {"phase": "Failed"}}),
            "node \"node-1\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        (
            "POST",
            "pods/foreign/eviction",
            json!({"metadata": {"name": "foreign"}}),
            "node node-1 can only evict pods with spec.nodeName set to itself",
        ),
        (
            "DELETE",
            "pods/foreign",
            none.clone(),
            "node \"node-1\" can only delete pods with spec.nodeName set to itself",
        ),
        ("DELETE", "pods", none.clone(), "cannot deletecollection resource \"pods\""),
    ];
    for (method, target, body, want) in table {
        let got = refused(&server, method, &format!("{namespace}/{target}"), body).await;
        assert!(
            if want.is_empty() { got.is_empty() } else { got.contains(want) },
            "{method} {target}: {got}"
        );
    }
    for (method, target, body, want) in [
        ("PATCH", "nodes/node-2", labels.clone(), "is not allowed to modify node \"node-2\""),
        ("DELETE", "nodes/node-1", none.clone(), "cannot delete resource \"nodes\""),
        ("GET", "secrets", none.clone(), "can only read namespaced object of this type"),
        ("POST", "namespaces", json!({"metadata": {"name": "x"}}), "cannot create resource \"namespaces\""),
    ] {
        let got = refused(&server, method, &format!("/api/v1/{target}"), body).await;
        assert!(got.contains(want), "{method} {target}: {got}");
    }
    // What its last pod used is its no longer.
    let now = json!({"gracePeriodSeconds": 0});
    assert_eq!(refused(&server, "DELETE", &format!("{PODS}/own"), now).await, "");
    assert!(refused(&server, "GET", &format!("{namespace}/secrets/used"), none).await.contains(unrelated));
}
