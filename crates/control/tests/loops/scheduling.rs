use std::sync::{Arc, Mutex};
use std::time::Instant;

use control::store::engine::{Engine, EngineError, Loaded, Record, Volatile};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, deployment, eventually, from, pod};

fn with_host_port(name: &str) -> serde_json::Value {
    pod(name, json!({ "ports": [{ "containerPort": 80, "hostPort": 8080 }] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pod_per_node_and_host_port_and_a_freed_port_lets_the_next_in() {
    let cluster = Cluster::start(&["node-1", "node-2", "node-3"]).await;
    let mut nodes = Vec::new();
    for n in 0..3 {
        cluster.create::<Pod>(with_host_port(&format!("web-{n}"))).await;
        nodes.push(cluster.bound(&format!("web-{n}")).await);
    }
    nodes.sort();
    assert_eq!(nodes, ["node-1", "node-2", "node-3"]);

    cluster.create::<Pod>(with_host_port("web-3")).await;
    let message = "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports. preemption: \
                   0/3 nodes are available: 3 No preemption victims found for incoming pod.";
    let api = cluster.api::<Pod>();
    let condition = eventually("the condition", async || {
        let conditions = api.get("web-3").await.unwrap().status?.conditions?;
        conditions.into_iter().find(|c| c.type_ == "PodScheduled")
    })
    .await;
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("Unschedulable")));
    assert_eq!(condition.message.as_deref(), Some(message));
    eventually("the event", async || {
        cluster.events("web-3", "FailedScheduling").await.contains(&message.to_string()).then_some(())
    })
    .await;

    cluster.delete::<Pod>("web-1", DeleteParams::default()).await;
    cluster.bound("web-3").await;
    let scheduled = eventually("the event", async || cluster.events("web-3", "Scheduled").await.pop()).await;
    assert!(scheduled.starts_with("Successfully assigned default/web-3 to node-"), "{scheduled}");
    let conditions = api.get("web-3").await.unwrap().status.unwrap().conditions.unwrap();
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled").unwrap();
    assert_eq!(scheduled.status, "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_a_label_and_an_uncordoned_node_each_let_a_waiting_pod_in() {
    let cluster = Cluster::start(&[]).await;
    cluster.create::<Pod>(pod("any", json!({}))).await;
    eventually("the event", async || cluster.events("any", "FailedScheduling").await.pop())
        .await
        .contains("no nodes available to schedule pods")
        .then_some(())
        .unwrap();
    cluster.node("node-1").await;
    assert_eq!(cluster.bound("any").await, "node-1");

    let mut picky = pod("picky", json!({}));
    picky["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
    cluster.create::<Pod>(picky).await;
    eventually("the event", async || cluster.events("picky", "FailedScheduling").await.pop()).await;
    let nodes: Api<Node> = cluster.all();
    let patch = |patch| {
        let nodes = nodes.clone();
        async move { nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap() }
    };
    patch(json!({ "metadata": { "labels": { "disk": "ssd" } } })).await;
    assert_eq!(cluster.bound("picky").await, "node-1");

    patch(json!({ "spec": { "unschedulable": true } })).await;
    eventually("the taint", async || {
        let taints = nodes.get("node-1").await.unwrap().spec?.taints?;
        taints.iter().any(|t| t.key == "node.kubernetes.io/unschedulable").then_some(())
    })
    .await;
    cluster.create::<Pod>(pod("later", json!({}))).await;
    eventually("the event", async || cluster.events("later", "FailedScheduling").await.pop()).await;
    patch(json!({ "spec": { "unschedulable": null } })).await;
    assert_eq!(cluster.bound("later").await, "node-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_from_post_to_bound_and_fifty_of_a_deployment_get_ready() {
    let cluster = Cluster::start(&["node-1", "node-2", "node-3"]).await;
    let api = cluster.api::<Pod>();
    let mut times = Vec::new();
    for n in 0..20 {
        let name = format!("single-{n}");
        let mut watch = Box::pin(
            api.watch(&kube::api::WatchParams::default().fields(&format!("metadata.name={name}")), "0")
                .await
                .unwrap(),
        );
        let start = Instant::now();
        api.create(&PostParams::default(), &from(pod(&name, json!({})))).await.unwrap();
        while let Some(event) = futures::StreamExt::next(&mut watch).await {
            let is_bound = match event.unwrap() {
                kube::api::WatchEvent::Added(pod) | kube::api::WatchEvent::Modified(pod) => {
                    pod.spec.and_then(|s| s.node_name).is_some()
                }
                _ => false,
            };
            if is_bound {
                break;
            }
        }
        times.push(start.elapsed());
    }
    times.sort();
    eprintln!("POST of a pod to bound, as a watch sees it: median {:?}, best {:?}", times[10], times[0]);

    let start = Instant::now();
    cluster.create::<Deployment>(deployment("fifty", 50)).await;
    eventually("50 pods are bound", async || {
        let pods = cluster.pods().await;
        let bound = pods
            .iter()
            .filter(|p| p.name_any().starts_with("fifty-") && p.spec.as_ref().unwrap().node_name.is_some());
        (bound.count() == 50).then_some(())
    })
    .await;
    let bound = start.elapsed();
    cluster.rolled_out("fifty").await;
    eprintln!(
        "Deployment of 50: all bound {bound:?}, all ready as the Deployment says {:?}",
        start.elapsed()
    );
    let mut per_node = std::collections::BTreeMap::new();
    for pod in cluster.pods().await.iter().filter(|p| p.name_any().starts_with("fifty-")) {
        *per_node.entry(pod.spec.as_ref().unwrap().node_name.clone()).or_insert(0) += 1;
    }
    assert!(per_node.len() == 3 && per_node.values().all(|count| (16..=18).contains(count)), "{per_node:?}");
}

/// The keys of each commit.
struct Noting(Arc<Mutex<Vec<Vec<String>>>>);

impl Engine for Noting {
    fn load(&mut self) -> Result<Loaded, EngineError> {
        Volatile.load()
    }
    fn commit(&mut self, records: Vec<Record<'_>>, _: u64) -> Result<(), EngineError> {
        self.0.lock().unwrap().push(records.iter().map(|record| record.key.to_string()).collect());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_and_its_binding_are_one_commit() {
    let commits = Arc::default();
    let cluster = Cluster::start_over(Noting(Arc::clone(&commits)), &["node-1"]).await;
    // The commit waits for a moment only, which a loaded machine may miss.
    for n in 0..100 {
        let name = format!("web-{n}");
        let created = cluster.create::<Pod>(pod(&name, json!({}))).await;
        assert_eq!(created.spec.unwrap().node_name, None, "who creates a pod sees it as it was written");
        cluster.bound(&name).await;
        let key = format!("/pods/default/{name}");
        let times = |commit: &Vec<String>| commit.iter().filter(|one| **one == key).count();
        if commits.lock().unwrap().iter().any(|commit| times(commit) >= 2) {
            return;
        }
    }
    panic!("no binding was in the commit of its pod");
}
