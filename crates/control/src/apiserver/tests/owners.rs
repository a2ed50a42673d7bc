//! Who owns the fields of objects that are written by other means than an apply.

use super::apply::{DEPLOYMENTS, deployment, fields, managers, whole};
use super::*;

fn web(query: &str) -> String {
    format!("{DEPLOYMENTS}/web?{query}")
}

#[tokio::test]
async fn a_creator_owns_what_it_sent_and_its_defaults_and_not_what_admission_adds() {
    let server = furnished().await;
    let made = server.created(&format!("{PODS}?fieldManager=me"), pod("a")).await;
    assert_eq!(managers(&made), ["me/Update"]);
    let owned = fields(&made, "me");
    assert_eq!(owned["f:spec"]["f:restartPolicy"], json!({}), "a default");
    assert!(made["spec"]["volumes"].is_array() && owned["f:spec"].get("f:volumes").is_none(), "{owned}");
    assert!(owned.get("f:status").is_none() && owned.get("f:metadata").is_none(), "{owned}");
    assert_eq!(made["metadata"]["managedFields"][0]["apiVersion"], "v1");
    assert_eq!(made["metadata"]["managedFields"][0]["time"], made["metadata"]["creationTimestamp"]);
}

#[tokio::test]
async fn every_kind_of_write_has_an_owner() {
    let server = furnished().await;
    server.created(&format!("{DEPLOYMENTS}?fieldManager=creator"), whole(1)).await;
    let mut object = server.get(&web("")).await;
    object["spec"]["replicas"] = 2.into();
    let (code, object) = server.ask("PUT", &web("fieldManager=putter"), object).await;
    assert_eq!(code, 200, "{object}");
    server.ask("PATCH", &web("fieldManager=merger"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    let patch = |media: &'static str, manager: &str, body: Value| {
        let target = web(&format!("fieldManager={manager}"));
        let server = &server;
        async move {
            let (status, _, text) =
                server.ask_as(Some(User::admin()), "PATCH", &target, media, body.to_string()).await;
            assert_eq!(status, 200, "{text}");
        }
    };
    patch(
        "application/strategic-merge-patch+json",
        "strategist",
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "y"}]}}}}),
    )
    .await;
    patch(
        "application/json-patch+json",
        "pointer",
        json!([{"op": "add", "path": "/spec/paused", "value": true}]),
    )
    .await;
    let scale = format!("{DEPLOYMENTS}/web/scale?fieldManager=scaler");
    server.ask("PATCH", &scale, json!({"spec": {"replicas": 5}})).await;
    let status = format!("{DEPLOYMENTS}/web/status?fieldManager=controller");
    server.ask("PATCH", &status, json!({"spec": {"replicas": 8}, "status": {"replicas": 5}})).await;

    let object = server.get(&web("")).await;
    let mut all = managers(&object);
    all.sort();
    assert_eq!(
        all,
        [
            "controller/Update/status",
            "creator/Update",
            "merger/Update",
            "pointer/Update",
            "scaler/Update/scale",
            "strategist/Update"
        ],
        "the putter's replicas went to the scaler"
    );
    assert_eq!(fields(&object, "controller"), &json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(fields(&object, "scaler"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&object, "merger"), &json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}));
    assert_eq!(
        fields(&object, "strategist"),
        &json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {"f:image": {}}}}}}})
    );
    assert!(fields(&object, "creator")["f:spec"].get("f:replicas").is_none());
    assert!(fields(&object, "creator")["f:spec"].get("f:selector").is_some());
}

#[tokio::test]
async fn without_a_name_the_writer_is_the_program() {
    let server = furnished().await;
    let body =
        http_body_util::Full::new(pod("a").to_string().into()).map_err(|never| match never {}).boxed_unsync();
    let request = Request::post(PODS)
        .header("content-type", "application/json")
        .header("user-agent", "kubectl/v1.32.4 (linux/amd64)")
        .body(body)
        .unwrap();
    let response = server.0.clone().handle(request, Some(Arc::new(User::admin()))).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(managers(&server.get(&format!("{PODS}/a")).await), ["kubectl/Update"]);
    let client = server.0.client(User::of_account("kube-system", "deployment-controller"));
    let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client, "d");
    let patch = kube::api::Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    // Not what its role lets it do; that it is asked, is enough to be named.
    drop(pods.patch("a", &Default::default(), &patch).await);
    let client = server.0.client(User::component("system:kube-scheduler"));
    let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client, "d");
    pods.patch("a", &Default::default(), &patch).await.unwrap();
    let mut both = managers(&server.get(&format!("{PODS}/a")).await);
    both.sort();
    assert_eq!(both, ["kube-scheduler/Update", "kubectl/Update"]);
}

#[tokio::test]
async fn owners_are_put_in_order_by_a_write_and_taken_away_by_a_reset() {
    let server = furnished().await;
    server.created(&format!("{DEPLOYMENTS}?fieldManager=old"), whole(1)).await;
    let object = server.get(&web("")).await;
    // A client that knows nothing of owners leaves them out.
    let mut bare = object.clone();
    bare["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(server.ask("PUT", &web("fieldManager=x"), bare).await.1, object, "nothing has changed");

    // kubectl goes over from client-side to server-side by such a patch.
    let mut renamed = object["metadata"]["managedFields"].clone();
    renamed[0]["manager"] = "new".into();
    renamed[0]["operation"] = "Apply".into();
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": renamed},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]},
    ]);
    let media = "application/json-patch+json";
    let ask = |target: String, patch: Value| {
        let server = &server;
        async move {
            let (status, _, text) =
                server.ask_as(Some(User::admin()), "PATCH", &target, media, patch.to_string()).await;
            assert_eq!(status, 200, "{text}");
            serde_json::from_str::<Value>(&text).unwrap()
        }
    };
    let object = ask(web("fieldManager=migration"), patch.clone()).await;
    assert_eq!(managers(&object), ["new/Apply"]);
    // Through a subresource nobody does.
    let stolen = json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "thief"}]);
    let object = ask(format!("{DEPLOYMENTS}/web/status"), stolen).await;
    assert_eq!(managers(&object), ["new/Apply"]);
    let empty = json!([{"op": "replace", "path": "/metadata/managedFields", "value": []}]);
    let object = ask(web("fieldManager=x"), empty).await;
    assert!(object["metadata"].get("managedFields").is_none(), "{object}");
}

#[tokio::test]
async fn an_object_that_brings_owners_along_keeps_them() {
    let server = furnished().await;
    let made = server
        .created(
            "/api/v1/namespaces/d/configmaps?fieldManager=me",
            json!({"metadata": {"name": "c"}, "data": {"a": "b"}}),
        )
        .await;
    let mut moved = made.clone();
    moved["metadata"] = json!({"name": "copy", "managedFields": made["metadata"]["managedFields"]});
    let copy = server.created("/api/v1/namespaces/d/configmaps?fieldManager=backup", moved).await;
    let mut both = managers(&copy);
    both.sort();
    assert_eq!(both, ["backup/Update", "me/Update"]);
}

#[tokio::test]
async fn a_status_report_changes_no_other_owner() {
    let server = furnished().await;
    server.created(&format!("{PODS}?fieldManager=me"), pod("a")).await;
    let target = format!("{PODS}/a/status?fieldManager=kubelet");
    let report = |ready: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    server.ask("PATCH", &target, report("False")).await;
    let before = server.get(&format!("{PODS}/a")).await;
    assert_eq!(managers(&before), ["kubelet/Update/status", "me/Update"]);
    assert_eq!(
        fields(&before, "kubelet")["f:status"]["f:conditions"],
        json!({".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}})
    );
    let same = server.ask("PATCH", &target, report("False")).await.1;
    assert_eq!(same, before, "the same report again writes nothing");
    let after = server.ask("PATCH", &target, report("True")).await.1;
    assert_eq!(fields(&after, "me"), fields(&before, "me"));
    assert_eq!(fields(&after, "kubelet"), fields(&before, "kubelet"));
}

#[tokio::test]
async fn an_applier_and_a_controller_get_along() {
    let server = furnished().await;
    server.applied(&web("fieldManager=me"), &whole(1)).await;
    server
        .ask(
            "PATCH",
            &web("fieldManager=controller"),
            json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}}),
        )
        .await;
    let mut config = whole(1);
    config["metadata"]["annotations"] = json!({"mine": "x"});
    server.applied(&web("fieldManager=me"), &config).await;
    let object = server.applied(&web("fieldManager=me"), &whole(1)).await;
    assert_eq!(object["metadata"]["annotations"], json!({"deployment.kubernetes.io/revision": "1"}));
    let answer = server
        .apply(&web("fieldManager=rude"), &{
            let mut config = deployment(json!({}));
            config["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "7"});
            config
        })
        .await;
    assert_eq!(
        message(&answer),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"controller\" using apps/v1: .metadata.annotations.deployment.kubernetes.io/revision"
        )
    );
}
