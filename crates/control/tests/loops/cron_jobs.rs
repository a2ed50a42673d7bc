//! CronJobs by a clock that the test sets.

use std::sync::Arc;

use control::controllers::clock::Clock;
use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::{Cluster, eventually, from};
use crate::jobs::{end, until_running};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

struct ByHand(watch::Sender<Timestamp>);

impl ByHand {
    /// It shows the time there is, and then stands still.
    fn new() -> Arc<ByHand> {
        Arc::new(ByHand(watch::Sender::new(Timestamp::now())))
    }

    fn set(&self, now: Timestamp) {
        self.0.send_replace(now);
    }
}

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn zone(&self) -> TimeZone {
        TimeZone::UTC
    }

    fn reached(&self, moment: Timestamp) -> BoxFuture<'_, ()> {
        let mut seen = self.0.subscribe();
        async move { drop(seen.wait_for(|now| *now >= moment).await) }.boxed()
    }
}

/// Every full hour.
fn hourly(name: &str, spec: Value) -> Value {
    let mut full = json!({ "schedule": "0 * * * *", "jobTemplate": {
        "metadata": { "labels": { "of": name } },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "one" }] } } } } });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name }, "spec": full })
}

/// The first full hour after it was made.
fn first_hour(made: &CronJob) -> Timestamp {
    let second = made.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
    Timestamp::from_second((second / 3600 + 1) * 3600).unwrap()
}

/// `hourly-29454060`
fn job_of(name: &str, at: Timestamp) -> String {
    format!("{name}-{}", at.as_second() / 60)
}

/// The clock shows this, and the controller looks a little later.
fn strike(clock: &ByHand, at: Timestamp) {
    clock.set(at + SignedDuration::from_millis(200));
}

async fn job(cluster: &Cluster, name: &str) -> Job {
    eventually(&format!("{name} is made"), async || cluster.api::<Job>().get_opt(name).await.unwrap()).await
}

async fn until(cluster: &Cluster, name: &str, what: &str, is_it: impl Fn(&CronJob) -> bool) -> CronJob {
    eventually(&format!("{name} {what}"), async || {
        cluster.api::<CronJob>().get_opt(name).await.unwrap().filter(|one| is_it(one))
    })
    .await
}

fn active(one: &CronJob) -> Vec<String> {
    let active = one.status.iter().flat_map(|status| status.active.iter().flatten());
    active.filter_map(|job| job.name.clone()).collect()
}

/// Makes a Job as the controller would.
async fn job_by_hand(cluster: &Cluster, of: &CronJob, name: &str) {
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "CronJob", "name": of.name_any(), "uid": of.uid(),
        "controller": true }]);
    let spec = of.spec.as_ref().unwrap().job_template.spec.clone();
    let metadata = json!({ "name": name, "ownerReferences": owner });
    cluster
        .create::<Job>(json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": spec, "metadata": metadata }))
        .await;
}

/// Waits until the controller has seen all changes of CronJobs so far: it speaks of one that is made now.
async fn caught_up(cluster: &Cluster) {
    let marker = cluster.create::<CronJob>(hourly("marker", json!({ "suspend": true }))).await;
    job_by_hand(cluster, &marker, "mark").await;
    let unknown = "Saw a job that the controller did not create or forgot: mark";
    said(cluster, "marker", "UnexpectedJob", unknown).await;
}

async fn said(cluster: &Cluster, of: &str, reason: &str, message: &str) {
    eventually(&format!("{reason}: {message}"), async || {
        cluster.events(of, reason).await.iter().any(|said| said == message).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_at_each_time_of_the_schedule() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let made = cluster.create::<CronJob>(hourly("hourly", json!({}))).await;
    let hour = first_hour(&made);
    strike(&clock, hour);
    let first = job(&cluster, &job_of("hourly", hour)).await;
    let owner = &first.owner_references()[0];
    assert_eq!(
        (&owner.uid, owner.controller, owner.block_owner_deletion),
        (&made.uid().unwrap(), Some(true), Some(true))
    );
    assert_eq!(
        (first.labels()["of"].as_str(), &first.annotations()[SCHEDULED]),
        ("hourly", &hour.to_string())
    );
    let one = until(&cluster, "hourly", "runs", |one| active(one) == [first.name_any()]).await;
    assert_eq!(one.status.as_ref().unwrap().last_schedule_time.as_ref().unwrap().0, hour);
    let reference = &one.status.as_ref().unwrap().active.as_ref().unwrap()[0];
    assert_eq!(
        (reference.kind.as_deref(), reference.uid.as_ref()),
        (Some("Job"), first.metadata.uid.as_ref())
    );
    said(&cluster, "hourly", "SuccessfulCreate", &format!("Created job {}", first.name_any())).await;

    let pods = until_running(&cluster, &first.name_any(), 1).await;
    end(&cluster, &pods[0], "Succeeded").await;
    let one = until(&cluster, "hourly", "runs no more", |one| active(one).is_empty()).await;
    let done = cluster.api::<Job>().get(&first.name_any()).await.unwrap().status.unwrap().completion_time;
    assert_eq!(one.status.unwrap().last_successful_time, done);
    let message = format!("Saw completed job: {}, condition: Complete", first.name_any());
    said(&cluster, "hourly", "SawCompletedJob", &message).await;

    strike(&clock, hour + HOUR);
    job(&cluster, &job_of("hourly", hour + HOUR)).await;
    assert_eq!(cluster.api::<Job>().list(&ListParams::default()).await.unwrap().items.len(), 2);
    // What is deleted takes its Jobs along, and they their pods.
    cluster.delete::<CronJob>("hourly", DeleteParams::background()).await;
    eventually("nothing is left", async || {
        let jobs = cluster.api::<Job>().list(&ListParams::default()).await.unwrap().items;
        (jobs.is_empty() && cluster.pods().await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_would_overlap_wait_or_take_the_others_place() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let patient =
        cluster.create::<CronJob>(hourly("patient", json!({ "concurrencyPolicy": "Forbid" }))).await;
    cluster.create::<CronJob>(hourly("hasty", json!({ "concurrencyPolicy": "Replace" }))).await;
    let hour = first_hour(&patient);
    strike(&clock, hour);
    let (waits, goes) = (job_of("patient", hour), job_of("hasty", hour));
    let pods = until_running(&cluster, &waits, 1).await;
    until_running(&cluster, &goes, 1).await;
    until(&cluster, "patient", "runs", |one| active(one) == [waits.clone()]).await;
    until(&cluster, "hasty", "runs", |one| active(one) == [goes.clone()]).await;

    strike(&clock, hour + HOUR);
    let next = job_of("hasty", hour + HOUR);
    until(&cluster, "hasty", "runs its next", |one| active(one) == [next.clone()]).await;
    eventually("the Job before is gone with its pod", async || {
        let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={goes}"));
        let gone = cluster.api::<Job>().get_opt(&goes).await.unwrap().is_none();
        (gone && cluster.api::<Pod>().list(&of).await.unwrap().items.is_empty()).then_some(())
    })
    .await;
    said(&cluster, "hasty", "SuccessfulDelete", &format!("Deleted job {goes}")).await;
    let waiting = "Not starting job because prior execution is running and concurrency policy is Forbid";
    said(&cluster, "patient", "JobAlreadyActive", waiting).await;
    let next = job_of("patient", hour + HOUR);
    assert!(cluster.api::<Job>().get_opt(&next).await.unwrap().is_none());
    end(&cluster, &pods[0], "Succeeded").await;
    job(&cluster, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_ended_only_the_latest_is_kept() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let limits = json!({ "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0 });
    let mut made = hourly("brief", limits);
    made["spec"]["jobTemplate"]["spec"]["backoffLimit"] = json!(0);
    let hour = first_hour(&cluster.create::<CronJob>(made).await);
    for (n, phase) in ["Succeeded", "Succeeded", "Failed"].into_iter().enumerate() {
        let at = hour + HOUR * n as i32;
        strike(&clock, at);
        let pods = until_running(&cluster, &job_of("brief", at), 1).await;
        end(&cluster, &pods[0], phase).await;
        until(&cluster, "brief", "runs no more", |one| {
            let last = one.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
            active(one).is_empty() && last.is_some_and(|last| last.0 == at)
        })
        .await;
    }
    eventually("one is kept", async || {
        let jobs = cluster.api::<Job>().list(&ListParams::default()).await.unwrap().items;
        let names: Vec<String> = jobs.iter().map(|job| job.name_any()).collect();
        (names == [job_of("brief", hour + HOUR)]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_slept_through_is_made_up_for_once() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let hour = first_hour(&cluster.create::<CronJob>(hourly("late", json!({}))).await);
    cluster.create::<CronJob>(hourly("prompt", json!({ "startingDeadlineSeconds": 60 }))).await;
    cluster.create::<CronJob>(hourly("idle", json!({ "suspend": true }))).await;
    let days = hour + HOUR * 200 + SignedDuration::from_mins(10);
    clock.set(days);
    let name = job_of("late", hour + HOUR * 200);
    job(&cluster, &name).await;
    let many =
        "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    said(&cluster, "late", "TooManyMissedTimes", many).await;
    let next = hour + HOUR * 201;
    strike(&clock, next);
    for name in ["late", "prompt"] {
        job(&cluster, &job_of(name, next)).await;
    }
    let mut names: Vec<String> = cluster
        .api::<Job>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .iter()
        .map(|job| job.name_any())
        .collect();
    names.sort();
    assert_eq!(names, [name, job_of("late", next), job_of("prompt", next)]);
    cluster.patch::<CronJob>("idle", json!({ "spec": { "suspend": false } })).await;
    job(&cluster, &job_of("idle", next)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schedule_is_followed_from_then_on() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let hour = first_hour(&cluster.create::<CronJob>(hourly("moved", json!({}))).await);
    cluster.patch::<CronJob>("moved", json!({ "spec": { "schedule": "30 * * * *" } })).await;
    caught_up(&cluster).await;
    let half = hour + HOUR / 2;
    strike(&clock, half);
    job(&cluster, &job_of("moved", half)).await;
    assert!(cluster.api::<Job>().get_opt(&job_of("moved", hour)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_made_and_not_written_down_is_found_again() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let made = cluster.create::<CronJob>(hourly("found", json!({}))).await;
    let hour = first_hour(&made);
    // As by a controller that died before it wrote its status.
    let name = job_of("found", hour);
    job_by_hand(&cluster, &made, &name).await;
    let unknown = format!("Saw a job that the controller did not create or forgot: {name}");
    said(&cluster, "found", "UnexpectedJob", &unknown).await;
    strike(&clock, hour);
    let one = until(&cluster, "found", "knows its Job", |one| active(one) == [name.clone()]).await;
    assert_eq!(one.status.unwrap().last_schedule_time.unwrap().0, hour);
    // A Job that is somebody else's is not touched, and the next run comes.
    let foreign = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": job_of("found", hour + HOUR) },
        "spec": { "suspend": true, "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "one" }] } } } });
    cluster.create::<Job>(foreign).await;
    strike(&clock, hour + HOUR);
    strike(&clock, hour + HOUR * 2);
    let next = job_of("found", hour + HOUR * 2);
    until(&cluster, "found", "goes on", |one| active(one) == [name.clone(), next.clone()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_held_against_the_machines_time_zones() {
    let clock = ByHand::new();
    let cluster = Cluster::start_by(clock.clone(), &["node-1"]).await;
    let api = cluster.api::<CronJob>();
    for (spec, want) in [
        (
            json!({ "timeZone": "Europe/Atlantis" }),
            "spec.timeZone: Invalid value: \"Europe/Atlantis\": unknown time zone Europe/Atlantis",
        ),
        (
            json!({ "schedule": "0 25 * * *" }),
            "spec.schedule: Invalid value: \"0 25 * * *\": end of range (25) above maximum (23): 25",
        ),
        (
            json!({ "schedule": "TZ=UTC 0 * * * *" }),
            "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ),
    ] {
        let Err(kube::Error::Api(refused)) =
            api.create(&PostParams::default(), &from(hourly("bad", spec))).await
        else {
            panic!("it is let in");
        };
        assert_eq!(refused.code, 422);
        assert!(
            refused.message.starts_with(&format!("CronJob.batch \"bad\" is invalid: {want}")),
            "{}",
            refused.message
        );
    }
    if k8s_openapi::jiff::tz::db().get("Asia/Kolkata").is_err() {
        println!("SKIPPED: this machine has no time zone database");
        return;
    }
    // Half past five ahead: its full hours are half hours here.
    let made = cluster.create::<CronJob>(hourly("far", json!({ "timeZone": "Asia/Kolkata" }))).await;
    let second = made.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
    let at = Timestamp::from_second((second + 1800).div_euclid(3600) * 3600 + 1800).unwrap();
    strike(&clock, at);
    let shown = &job(&cluster, &job_of("far", at)).await.annotations()[SCHEDULED].clone();
    assert!(shown.ends_with(":00:00+05:30"), "{shown}");
}
