use k8s_openapi::api::core::v1::{Pod, PodTemplate, ReplicationController};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, eventually};

async fn ready(cluster: &Cluster, count: i32) {
    eventually(&format!("{count} are ready"), async || {
        let controller = cluster.api::<ReplicationController>().get("web").await.unwrap();
        let status = controller.status.unwrap_or_default();
        let seen = status.observed_generation == controller.metadata.generation;
        (seen && status.replicas == count && status.ready_replicas.unwrap_or(0) == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_keeps_so_many_pods() {
    let cluster = Cluster::start(&["node-1"]).await;
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "one" }] } });
    let made = cluster
        .create::<ReplicationController>(
            json!({ "metadata": { "name": "web" }, "spec": { "replicas": 2, "template": template } }),
        )
        .await;
    assert_eq!(made.spec.unwrap().selector.unwrap()["app"], "web", "the template's labels");
    ready(&cluster, 2).await;
    let first = cluster.pods().await.remove(0);
    cluster.delete::<Pod>(&first.name_any(), DeleteParams::default()).await;
    eventually("another takes its place", async || {
        let pods = cluster.pods().await;
        (pods.len() == 2 && pods.iter().all(|pod| pod.uid() != first.uid())).then_some(())
    })
    .await;
    let api = cluster.api::<ReplicationController>();
    let scale = json!({ "spec": { "replicas": 4 } });
    let scale = api.patch_scale("web", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=web"));
    ready(&cluster, 4).await;
    cluster.patch::<ReplicationController>("web", json!({ "spec": { "replicas": 1 } })).await;
    ready(&cluster, 1).await;
    assert!(!cluster.events("web", "SuccessfulDelete").await.is_empty());
    cluster.delete::<ReplicationController>("web", DeleteParams::background()).await;
    eventually("nothing is left", async || cluster.pods().await.is_empty().then_some(())).await;

    let kept =
        cluster.create::<PodTemplate>(json!({ "metadata": { "name": "t" }, "template": template })).await;
    assert_eq!(kept.template.unwrap().spec.unwrap().restart_policy.as_deref(), Some("Always"));
}
