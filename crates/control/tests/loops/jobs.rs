use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

fn job(name: &str, spec: Value) -> Value {
    let mut full = json!({ "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "one" }] } } });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name }, "spec": full })
}

/// The running pods of a Job.
async fn running(cluster: &Cluster, name: &str) -> Vec<Pod> {
    let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    let pods = cluster.api::<Pod>().list(&of).await.unwrap().items;
    let runs = |pod: &Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    };
    pods.into_iter().filter(runs).collect()
}

pub async fn until_running(cluster: &Cluster, name: &str, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods of {name} run"), async || {
        let pods = running(cluster, name).await;
        (pods.len() == count).then_some(pods)
    })
    .await
}

pub async fn end(cluster: &Cluster, pod: &Pod, phase: &str) {
    let code = if phase == "Succeeded" { 0 } else { 1 };
    let status = json!({ "status": { "phase": phase, "containerStatuses": [{ "name": "c", "image": "one", "imageID": "",
        "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": code, "finishedAt": "2026-01-01T00:00:00Z" } } }] } });
    let api = cluster.api::<Pod>();
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
}

async fn until(cluster: &Cluster, name: &str, what: &str, is_it: impl Fn(&Job) -> bool) -> Job {
    eventually(&format!("{name} is {what}"), async || {
        cluster.api::<Job>().get_opt(name).await.unwrap().filter(|job| is_it(job))
    })
    .await
}

fn is(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_until_enough_have_succeeded() {
    let cluster = Cluster::start(&["node-1"]).await;
    let made = cluster.create::<Job>(job("sum", json!({ "completions": 5, "parallelism": 2 }))).await;
    let uid = made.uid().unwrap();
    let spec = made.spec.as_ref().unwrap();
    let matches = spec.selector.as_ref().unwrap().match_labels.as_ref().unwrap();
    assert_eq!(matches["batch.kubernetes.io/controller-uid"], uid);
    for _ in 0..4 {
        let pods = until_running(&cluster, "sum", 2).await;
        assert!(pods[0].name_any().starts_with("sum-") && pods[0].finalizers() == [TRACKING]);
        let first = pods[0].clone();
        end(&cluster, &first, "Succeeded").await;
        eventually("another runs", async || {
            (!running(&cluster, "sum").await.iter().any(|pod| pod.uid() == first.uid())).then_some(())
        })
        .await;
    }
    let pods = until_running(&cluster, "sum", 1).await;
    end(&cluster, &pods[0], "Succeeded").await;
    let job = until(&cluster, "sum", "complete", |job| is(job, "Complete")).await;
    let status = job.status.unwrap();
    assert_eq!((status.succeeded, status.active, status.failed), (Some(5), None, None));
    assert!(status.completion_time.is_some());
    eventually("the pods are let go", async || {
        let pods = cluster.pods().await;
        (pods.len() == 5 && pods.iter().all(|pod| pod.finalizers().is_empty())).then_some(())
    })
    .await;
    eventually("events", async || (!cluster.events("sum", "Completed").await.is_empty()).then_some(())).await;
    assert_eq!(cluster.events("sum", "Completed").await, ["Job completed"]);
    assert_eq!(cluster.events("sum", "SuccessfulCreate").await.len(), 5);
    // What is gone takes its pods along.
    cluster.delete::<Job>("sum", DeleteParams::background()).await;
    eventually("nothing is left", async || cluster.pods().await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_too_often_gives_up_and_its_pods_stay_to_be_read() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<Job>(job("bad", json!({ "backoffLimit": 0 }))).await;
    let pods = until_running(&cluster, "bad", 1).await;
    end(&cluster, &pods[0], "Failed").await;
    let job = until(&cluster, "bad", "failed", |job| is(job, "Failed")).await;
    assert_eq!(job.status.unwrap().failed, Some(1));
    assert_eq!(cluster.pods().await.len(), 1);
    eventually("its event", async || {
        (cluster.events("bad", "BackoffLimitExceeded").await
            == ["Job has reached the specified backoff limit"])
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_wait_and_go_on() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<Job>(job("later", json!({ "suspend": true, "parallelism": 2, "completions": 2 }))).await;
    until(&cluster, "later", "suspended", |job| is(job, "Suspended")).await;
    assert!(cluster.pods().await.is_empty());
    cluster.patch::<Job>("later", json!({ "spec": { "suspend": false } })).await;
    let pods = until_running(&cluster, "later", 2).await;
    cluster.patch::<Job>("later", json!({ "spec": { "suspend": true } })).await;
    eventually("none runs", async || running(&cluster, "later").await.is_empty().then_some(())).await;
    cluster.patch::<Job>("later", json!({ "spec": { "suspend": false } })).await;
    eventually("others run", async || {
        let now = running(&cluster, "later").await;
        (now.len() == 2 && now.iter().all(|pod| pods.iter().all(|was| was.uid() != pod.uid()))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_over_goes_after_its_time_with_its_pods() {
    let cluster = Cluster::start(&["node-1"]).await;
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "ttlSecondsAfterFinished": 1 });
    cluster.create::<Job>(job("brief", spec)).await;
    let pods = until_running(&cluster, "brief", 2).await;
    let mut indexes: Vec<_> = pods
        .iter()
        .map(|pod| pod.annotations()["batch.kubernetes.io/job-completion-index"].clone())
        .collect();
    indexes.sort();
    assert_eq!(indexes, ["0", "1"]);
    for pod in &pods {
        end(&cluster, pod, "Succeeded").await;
    }
    let api: Api<Job> = cluster.api();
    eventually("nothing is left", async || {
        let none = api.list(&ListParams::default()).await.unwrap().items.is_empty();
        (none && cluster.pods().await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_for_good_fails_the_job_when_the_others_are_done() {
    let cluster = Cluster::start(&["node-1"]).await;
    let spec =
        json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0 });
    cluster.create::<Job>(job("apart", spec)).await;
    for pod in until_running(&cluster, "apart", 2).await {
        let index = &pod.annotations()["batch.kubernetes.io/job-completion-index"];
        assert_eq!(pod.annotations()["batch.kubernetes.io/job-index-failure-count"], "0");
        end(&cluster, &pod, if index == "0" { "Failed" } else { "Succeeded" }).await;
    }
    let job = until(&cluster, "apart", "failed", |job| is(job, "Failed")).await;
    let status = job.status.unwrap();
    assert_eq!(
        (status.failed_indexes.as_deref(), status.completed_indexes.as_deref()),
        (Some("0"), Some("1"))
    );
    assert_eq!((status.failed, status.succeeded), (Some(1), Some(1)));
    eventually("its event", async || {
        (cluster.events("apart", "FailedIndexes").await == ["Job has failed indexes"]).then_some(())
    })
    .await;
    eventually("the pods are let go", async || {
        cluster.pods().await.iter().all(|pod| pod.finalizers().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_others_manage_is_left_to_them() {
    let cluster = Cluster::start(&["node-1"]).await;
    let theirs = cluster.create::<Job>(job("theirs", json!({ "managedBy": "acme.io/queue" }))).await;
    cluster.create::<Job>(job("ours", json!({}))).await;
    until_running(&cluster, "ours", 1).await;
    let now = cluster.api::<Job>().get("theirs").await.unwrap();
    assert_eq!((cluster.pods().await.len(), now.status), (1, theirs.status));
}

#[tokio::test(flavor = "multi_thread")]
async fn suspension_is_no_failure() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<Job>(job("paused", json!({ "backoffLimit": 0 }))).await;
    until_running(&cluster, "paused", 1).await;
    cluster.patch::<Job>("paused", json!({ "spec": { "suspend": true } })).await;
    let job = until(&cluster, "paused", "suspended", |job| {
        let status = job.status.clone().unwrap_or_default();
        is(job, "Suspended") && status.active.is_none() && status.terminating == Some(0)
    })
    .await;
    assert_eq!(job.status.unwrap().failed, None);
    cluster.patch::<Job>("paused", json!({ "spec": { "suspend": false } })).await;
    let pods = until_running(&cluster, "paused", 1).await;
    end(&cluster, &pods[0], "Succeeded").await;
    until(&cluster, "paused", "complete", |job| is(job, "Complete")).await;
}
