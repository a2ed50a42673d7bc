use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

fn daemon(name: &str, image: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": name },
            "spec": { "selector": { "matchLabels": { "app": name } },
                      "template": { "metadata": { "labels": { "app": name } },
                                    "spec": { "containers": [{ "name": "c", "image": image }] } } } })
}

/// Every node that is its own has a pod of the present template, and it is available.
async fn rolled_out(cluster: &Cluster, name: &str, nodes: i32) -> DaemonSet {
    eventually(&format!("{name} is on {nodes} nodes"), async || {
        let set = cluster.api::<DaemonSet>().get(name).await.unwrap();
        let status = set.status.clone().unwrap_or_default();
        let counts = [
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.updated_number_scheduled.unwrap_or(0),
            status.number_available.unwrap_or(0),
        ];
        let seen = status.observed_generation == set.metadata.generation;
        (seen && counts == [nodes; 4]).then_some(set)
    })
    .await
}

async fn places(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.pods().await;
    let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut all: Vec<String> = alive.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    all.sort();
    all
}

async fn revisions(cluster: &Cluster) -> Vec<(i64, String)> {
    let all = cluster.api::<ControllerRevision>().list(&ListParams::default()).await.unwrap().items;
    let mut all: Vec<_> = all
        .into_iter()
        .map(|revision| {
            let image = "/spec/template/spec/containers/0/image";
            let data = revision.data.unwrap().0;
            (revision.revision, data.pointer(image).unwrap().as_str().unwrap().to_owned())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_and_follows_its_template() {
    let cluster = Cluster::start(&["node-1", "node-2"]).await;
    cluster.create::<DaemonSet>(daemon("agent", "one")).await;
    let set = rolled_out(&cluster, "agent", 2).await;
    assert_eq!(set.annotations()["deprecated.daemonset.template.generation"], "1");
    assert_eq!(places(&cluster).await, ["node-1", "node-2"]);
    cluster.node("node-3").await;
    rolled_out(&cluster, "agent", 3).await;

    let image = |image: &str| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } });
    cluster.patch::<DaemonSet>("agent", image("two")).await;
    let set = rolled_out(&cluster, "agent", 3).await;
    assert_eq!(set.annotations()["deprecated.daemonset.template.generation"], "2");
    eventually("all pods are of the new template", async || {
        let pods = cluster.pods().await;
        let images: BTreeSet<_> =
            pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect();
        (images == BTreeSet::from(["two".to_owned()]) && pods.len() == 3).then_some(())
    })
    .await;
    assert_eq!(revisions(&cluster).await, [(1, "one".into()), (2, "two".into())]);
    // Back again: the revision of old is the newest.
    cluster.patch::<DaemonSet>("agent", image("one")).await;
    rolled_out(&cluster, "agent", 3).await;
    assert_eq!(revisions(&cluster).await, [(2, "two".into()), (3, "one".into())]);
    assert!(!cluster.events("agent", "SuccessfulCreate").await.is_empty());

    // A selector that a node no longer meets takes its pod away.
    cluster
        .patch::<DaemonSet>(
            "agent",
            json!({ "spec": { "template": { "spec": { "nodeSelector": { "disk": "ssd" } } } } }),
        )
        .await;
    rolled_out(&cluster, "agent", 0).await;
    let label = json!({ "metadata": { "labels": { "disk": "ssd" } } });
    cluster.all::<Node>().patch("node-2", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    rolled_out(&cluster, "agent", 1).await;
    eventually("the others are gone", async || (places(&cluster).await == ["node-2"]).then_some(())).await;

    cluster.delete::<DaemonSet>("agent", DeleteParams::background()).await;
    eventually("nothing is left", async || {
        (cluster.pods().await.is_empty() && revisions(&cluster).await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemons_pod_comes_back_and_stays_on_a_cordoned_node() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<DaemonSet>(daemon("agent", "one")).await;
    rolled_out(&cluster, "agent", 1).await;
    let cordon = json!({ "spec": { "unschedulable": true } });
    cluster.all::<Node>().patch("node-1", &PatchParams::default(), &Patch::Merge(&cordon)).await.unwrap();
    let first = cluster.pods().await.remove(0);
    cluster.delete::<Pod>(&first.name_any(), DeleteParams::default()).await;
    eventually("another runs there", async || {
        let pods = cluster.pods().await;
        (pods.len() == 1 && pods[0].uid() != first.uid()).then_some(())
    })
    .await;
    rolled_out(&cluster, "agent", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemons_pod_that_fails_is_replaced_and_told_of() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<DaemonSet>(daemon("agent", "one")).await;
    let mut failed = Vec::new();
    // At once, and again a second later.
    for _ in 0..2 {
        rolled_out(&cluster, "agent", 1).await;
        let name = cluster.pods().await.remove(0).name_any();
        let status = Patch::Merge(json!({ "status": { "phase": "Failed", "conditions": null } }));
        cluster.api::<Pod>().patch_status(&name, &PatchParams::default(), &status).await.unwrap();
        eventually("another runs there", async || {
            let pods = cluster.pods().await;
            (pods.len() == 1 && pods[0].name_any() != name).then_some(())
        })
        .await;
        failed.push(name);
    }
    for name in failed {
        let message = format!("Found failed daemon pod default/{name} on node node-1, will try to kill it");
        eventually("the event says it", async || {
            cluster.events("agent", "FailedDaemonPod").await.contains(&message).then_some(())
        })
        .await;
    }
}
