//! What the loops may do, and that the log names them.

use control::apiserver::User;
use serde_json::{Value, json};

use crate::server::*;

/// Each controller is somebody of its own, who may do its own work and no other's.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_do_its_own_work_alone() {
    let server = Server::start().await;
    let account = |name: &str| User::of_account("kube-system", name);
    let table = [
        ("deployment-controller", "POST", "/apis/apps/v1/namespaces/d/replicasets", 422),
        ("deployment-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("deployment-controller", "POST", "/api/v1/namespaces/d/pods", 403),
        ("deployment-controller", "DELETE", "/api/v1/namespaces/d/secrets/s", 403),
        ("replicaset-controller", "POST", "/api/v1/namespaces/d/pods", 422),
        ("replicaset-controller", "GET", "/api/v1/secrets", 403),
        ("replicaset-controller", "PUT", "/apis/apps/v1/namespaces/d/deployments/x", 403),
        ("endpoint-controller", "GET", "/api/v1/namespaces/d/configmaps/kube-root-ca.crt", 403),
        ("endpointslice-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("job-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("job-controller", "POST", "/apis/batch/v1/namespaces/d/jobs", 403),
        ("cronjob-controller", "POST", "/apis/batch/v1/namespaces/d/jobs", 422),
        ("cronjob-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("cronjob-controller", "POST", "/api/v1/namespaces/d/pods", 403),
        ("cronjob-controller", "POST", "/apis/batch/v1/namespaces/d/cronjobs", 403),
        ("daemon-set-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("daemon-set-controller", "PATCH", "/api/v1/nodes/n", 403),
        ("statefulset-controller", "POST", "/api/v1/namespaces/d/pods", 422),
        ("statefulset-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("statefulset-controller", "PUT", "/apis/apps/v1/namespaces/d/statefulsets/x", 403),
        ("node-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("pod-garbage-collector", "POST", "/api/v1/namespaces/d/pods", 403),
        ("root-ca-cert-publisher", "GET", "/api/v1/namespaces/d/configmaps/kube-root-ca.crt", 403),
        ("root-ca-cert-publisher", "POST", "/api/v1/namespaces/d/secrets", 403),
        ("service-account-controller", "POST", "/api/v1/namespaces/d/serviceaccounts/default/token", 403),
        ("clusterrole-aggregation-controller", "POST", CLUSTER_BINDINGS, 403),
        ("clusterrole-aggregation-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        // Whoever deletes everything has to see it, but makes nothing.
        ("generic-garbage-collector", "POST", "/api/v1/namespaces/d/pods", 403),
        ("namespace-controller", "PATCH", "/api/v1/namespaces/d/secrets/s", 403),
    ];
    for (name, method, target, want) in table {
        let (code, value) = server.ask(&account(name), method, target, json!({})).await;
        assert_eq!(code, want, "{name}: {method} {target}: {value}");
    }
    let scheduler = User::new("system:kube-scheduler", []);
    server.refused(&scheduler, "GET", "/api/v1/namespaces/d/secrets/s", Value::Null).await;
    server.refused(&scheduler, "POST", "/api/v1/namespaces/d/pods", json!({})).await;
    let watches = User::new("system:kube-controller-manager", []);
    server.refused(&watches, "DELETE", "/api/v1/namespaces/d/pods/p", Value::Null).await;
}

/// The loops do all their work under those names: nothing they ask for is refused, and the log names them.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_controller_that_did_it() {
    let server = Server::start().await;
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "web"}}, "template": &template}});
    let deployments = "/apis/apps/v1/namespaces/d/deployments";
    server.made(deployments, deployment).await;
    let set = json!({"metadata": {"name": "db"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": template}});
    let sets = "/apis/apps/v1/namespaces/d/statefulsets";
    server.made(sets, set).await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    server.made("/api/v1/namespaces/d/services", service).await;
    let bare = json!({"metadata": {"name": "bare"}, "spec": {"ports": [{"port": 80}]}});
    server.made("/api/v1/namespaces/d/services", bare).await;
    let endpoints = json!({"metadata": {"name": "bare"},
        "subsets": [{"addresses": [{"ip": "10.9.8.7"}], "ports": [{"port": 80}]}]});
    server.made("/api/v1/namespaces/d/endpoints", endpoints).await;
    let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}});
    server.made("/api/v1/nodes", node).await;
    let has = |field: &'static str, value: Value| move |object: &Value| object["status"][field] == value;
    server.until(&format!("{deployments}/web"), has("replicas", json!(2))).await;
    server.until(&format!("{deployments}/web"), has("observedGeneration", json!(1))).await;
    server.until(&format!("{sets}/db"), has("observedGeneration", json!(1))).await;
    server
        .until("/api/v1/nodes/n", |node| node["spec"]["taints"].to_string().contains("unschedulable"))
        .await;
    let by = async |who: &str, verb: &str, resource: &str| {
        let name = match who.strip_prefix("system:") {
            Some(_) => who.to_owned(),
            None => format!("system:serviceaccount:kube-system:{who}"),
        };
        let what = format!("{name}: {verb} {resource}");
        let line = server
            .logged(&what, |line| {
                line["user"]["username"] == name
                    && line["verb"] == verb
                    && line["objectRef"]["resource"] == resource
            })
            .await;
        assert_eq!(line["annotations"]["authorization.k8s.io/decision"], "allow", "{line}");
    };
    for (who, verb, resource) in [
        ("deployment-controller", "create", "replicasets"),
        ("deployment-controller", "update", "deployments"),
        ("deployment-controller", "create", "events"),
        ("replicaset-controller", "create", "pods"),
        ("replicaset-controller", "update", "replicasets"),
        ("replicaset-controller", "create", "events"),
        ("statefulset-controller", "create", "controllerrevisions"),
        ("statefulset-controller", "create", "pods"),
        ("statefulset-controller", "update", "statefulsets"),
        ("statefulset-controller", "create", "events"),
        ("endpointslice-controller", "create", "endpointslices"),
        ("endpoint-controller", "create", "endpoints"),
        ("endpointslicemirroring-controller", "create", "endpointslices"),
        ("node-controller", "patch", "nodes"),
        ("service-account-controller", "create", "serviceaccounts"),
        ("root-ca-cert-publisher", "create", "configmaps"),
        ("clusterrole-aggregation-controller", "update", "clusterroles"),
        ("system:kube-controller-manager", "watch", "pods"),
    ] {
        by(who, verb, resource).await;
    }
    server.ask(&User::admin(), "DELETE", &format!("{deployments}/web"), Value::Null).await;
    by("generic-garbage-collector", "delete", "replicasets").await;
    by("generic-garbage-collector", "delete", "pods").await;
    server.ask(&User::admin(), "DELETE", "/api/v1/namespaces/d", Value::Null).await;
    by("namespace-controller", "delete", "secrets").await;
    by("namespace-controller", "update", "namespaces").await;
    let refused: Vec<Value> =
        server.log().into_iter().filter(|line| line["responseStatus"]["code"] == 403).collect();
    // A namespace that goes takes nothing in any more: that is how its ServiceAccount is not made again.
    let other: Vec<&Value> = refused
        .iter()
        .filter(|line| !line["responseStatus"].to_string().contains("because it is being terminated"))
        .collect();
    assert!(other.is_empty(), "{other:#?}");
}
