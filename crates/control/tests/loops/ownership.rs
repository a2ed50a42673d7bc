use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, deployment, eventually};

fn owned(name: &str, owners: &[&ConfigMap], block: bool) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|o| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": o.name_any(), "uid": o.uid(), "blockOwnerDeletion": block }))
        .collect();
    json!({ "metadata": { "name": name, "ownerReferences": owners } })
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let maps = cluster.api::<ConfigMap>().list(&ListParams::default()).await.unwrap().items;
    maps.iter().map(|map| map.name_any()).filter(|name| name != "kube-root-ca.crt").collect()
}

async fn until_names_are(cluster: &Cluster, expected: &[&str]) {
    eventually(&format!("{expected:?}"), async || (names(cluster).await == expected).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deployment_owns_goes_with_it() {
    let cluster = Cluster::start(&["node-1"]).await;
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        cluster.create::<Deployment>(deployment("web", 2)).await;
        cluster.rolled_out("web").await;
        cluster.delete::<Deployment>("web", params).await;
        eventually("nothing is left", async || {
            let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.len();
            let deployments =
                cluster.api::<Deployment>().list(&ListParams::default()).await.unwrap().items.len();
            (sets + deployments + cluster.pods().await.len() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_stay_and_are_adopted_by_a_new_owner() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.rolled_out("web").await;
    let before: Vec<_> = cluster.pods().await.iter().map(|pod| pod.uid()).collect();
    cluster.delete::<Deployment>("web", DeleteParams::orphan()).await;
    eventually("an orphan", async || {
        let gone = cluster.api::<Deployment>().get_opt("web").await.unwrap().is_none();
        let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
        (gone && sets.len() == 1 && sets[0].owner_references().is_empty()).then_some(())
    })
    .await;
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.rolled_out("web").await;
    let after: Vec<_> = cluster.pods().await.iter().map(|pod| pod.uid()).collect();
    assert_eq!(before, after, "the same pods");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_goes_when_its_last_owner_is_gone() {
    let cluster = Cluster::start(&[]).await;
    let a: ConfigMap = cluster.create(json!({ "metadata": { "name": "a" } })).await;
    let b: ConfigMap = cluster.create(json!({ "metadata": { "name": "b" } })).await;
    cluster.create::<ConfigMap>(owned("child", &[&a, &b], false)).await;
    let child: ConfigMap = cluster.api::<ConfigMap>().get("child").await.unwrap();
    cluster.create::<ConfigMap>(owned("grandchild", &[&child], false)).await;
    cluster.delete::<ConfigMap>("a", DeleteParams::default()).await;
    eventually("one owner", async || {
        let child = cluster.api::<ConfigMap>().get("child").await.unwrap();
        (child.owner_references().len() == 1).then_some(())
    })
    .await;
    until_names_are(&cluster, &["b", "child", "grandchild"]).await;
    cluster.delete::<ConfigMap>("b", DeleteParams::default()).await;
    until_names_are(&cluster, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_told_by_its_uid_not_by_its_name() {
    let cluster = Cluster::start(&[]).await;
    let mut ghost: ConfigMap = cluster.create(json!({ "metadata": { "name": "owner" } })).await;
    ghost.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
    cluster.create::<ConfigMap>(owned("child", &[&ghost], false)).await;
    until_names_are(&cluster, &["owner"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_deleted_in_the_foreground_waits_for_what_blocks_it() {
    let cluster = Cluster::start(&[]).await;
    let owner: ConfigMap = cluster.create(json!({ "metadata": { "name": "owner" } })).await;
    let mut held = owned("held", &[&owner], true);
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    cluster.create::<ConfigMap>(held).await;
    cluster.create::<ConfigMap>(owned("free", &[&owner], false)).await;
    cluster.delete::<ConfigMap>("owner", DeleteParams::foreground()).await;
    until_names_are(&cluster, &["held", "owner"]).await;
    let owner = cluster.api::<ConfigMap>().get("owner").await.unwrap();
    assert_eq!(owner.finalizers(), ["foregroundDeletion"]);
    cluster.patch::<ConfigMap>("held", json!({ "metadata": { "finalizers": null } })).await;
    until_names_are(&cluster, &[]).await;
}
