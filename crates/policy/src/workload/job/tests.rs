//! Jobs in a small world: pods are made, end as the case says, lose their finalizers; what is seen in the end is the status.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

const START: &str = "2026-01-01T00:00:00Z";

fn owner() -> OwnerReference {
    serde_json::from_value(
        json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "J", "controller": true }),
    )
    .unwrap()
}

struct World {
    /// Deleted pods stay until they are taken out by hand.
    lingers: bool,
    job: Job,
    pods: BTreeMap<String, Pod>,
    made: usize,
    now: Timestamp,
    notes: Vec<String>,
    recheck: Option<SignedDuration>,
    expired: bool,
}

impl World {
    fn new(spec: Value) -> World {
        let mut full = json!({ "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed",
            "template": { "metadata": { "labels": { "job-name": "j" } },
                          "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } });
        for (key, value) in spec.as_object().unwrap() {
            full[key] = value.clone();
        }
        let job = json!({ "metadata": { "name": "j", "namespace": "n", "uid": "J" }, "spec": full });
        World {
            lingers: false,
            job: serde_json::from_value(job).unwrap(),
            pods: BTreeMap::new(),
            made: 0,
            now: START.parse().unwrap(),
            notes: Vec::new(),
            recheck: None,
            expired: false,
        }
    }

    /// One look, as the controller carries it out: pods, then the status of what is there then, then the finalizers.
    fn step(&mut self) {
        let pods: Vec<Pod> = self.pods.values().cloned().collect();
        let first = plan(&self.job, &pods, &owner(), self.now);
        self.expired = first.expired;
        for mut pod in first.create {
            self.made += 1;
            let name = format!("p{:02}", self.made);
            pod.metadata.uid = Some(format!("uid-{name}"));
            pod.metadata.name = Some(name.clone());
            self.pods.insert(name, pod);
        }
        for name in &first.dismiss {
            self.pods.get_mut(name).unwrap().metadata.finalizers = None;
        }
        for name in first.delete.iter().chain(&first.dismiss) {
            self.delete(name);
        }
        let pods: Vec<Pod> = self.pods.values().cloned().collect();
        let then = plan(&after(&self.job, &first.status), &pods, &owner(), self.now);
        self.job.status = Some(then.status);
        self.notes.extend(then.notes.into_iter().map(|note| format!("{}: {}", note.reason, note.message)));
        self.recheck = then.recheck;
        for name in then.untrack {
            let pod = self.pods.get_mut(&name).unwrap();
            pod.metadata.finalizers.as_mut().unwrap().retain(|finalizer| finalizer != TRACKING);
        }
        // What nothing holds any more is gone.
        let lingers = self.lingers;
        self.pods.retain(|_, pod| lingers || pod.metadata.deletion_timestamp.is_none() || is_tracked(pod));
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let before = (self.job.clone(), self.pods.clone());
            self.step();
            if before == (self.job.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("never settles: {:?}", self.job.status);
    }

    fn delete(&mut self, name: &str) {
        let meta = &mut self.pods.get_mut(name).unwrap().metadata;
        meta.deletion_timestamp = Some(Time(self.now + SignedDuration::from_secs(30)));
        meta.deletion_grace_period_seconds = Some(30);
    }

    fn end(&mut self, name: &str, code: i32) {
        let pod = self.pods.get_mut(name).unwrap();
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({ "phase": phase, "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "terminated": { "exitCode": code, "finishedAt": self.now.to_string() } } }] });
        pod.status = Some(serde_json::from_value(status).unwrap());
    }

    /// Ends each active pod so, one after the other, until none is made any more.
    fn run(&mut self, code: i32) {
        for _ in 0..40 {
            self.settle();
            let Some(name) = self.active().first().cloned() else {
                match self.recheck {
                    Some(left) if !is_over(&self.job) => self.now += left,
                    _ => return,
                }
                continue;
            };
            self.end(&name, code);
        }
        panic!("runs for ever: {:?}", self.job.status);
    }

    fn annotation(&self, pod: &str, name: &str) -> Option<&str> {
        let all = self.pods[pod].metadata.annotations.as_ref()?;
        all.get(name).map(String::as_str)
    }

    fn active(&self) -> Vec<String> {
        self.pods.iter().filter(|(_, pod)| is_active(pod)).map(|(name, _)| name.clone()).collect()
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    /// `Complete CompletionsReached`
    fn conditions(&self) -> Vec<String> {
        let all = self.status().conditions.iter().flatten().filter(|c| c.status == "True");
        all.map(|c| format!("{} {}", c.type_, c.reason.as_deref().unwrap_or_default())).collect()
    }

    /// active, succeeded, failed
    fn counts(&self) -> (i32, i32, i32) {
        let status = self.status();
        let count = |n: Option<i32>| n.unwrap_or(0);
        (count(status.active), count(status.succeeded), count(status.failed))
    }
}

#[test]
fn a_job_is_complete_when_enough_pods_have_succeeded() {
    let mut world = World::new(json!({ "completions": 5, "parallelism": 2 }));
    world.settle();
    assert_eq!((world.active().len(), world.counts()), (2, (2, 0, 0)));
    let pod = &world.pods["p01"];
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-"));
    assert!(is_tracked(pod));
    world.run(0);
    assert_eq!((world.made, world.counts()), (5, (0, 5, 0)));
    assert_eq!(world.conditions(), ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"]);
    assert_eq!(world.notes, ["Completed: Job completed"]);
    assert!(world.status().completion_time.is_some() && world.status().start_time.is_some());
    assert!(!world.pods.values().any(is_tracked), "nothing is held");
}

#[test]
fn without_completions_one_success_ends_it_when_the_others_have_ended() {
    let mut world = World::new(json!({ "parallelism": 3 }));
    world.settle();
    world.end("p02", 0);
    world.settle();
    assert_eq!((world.made, world.counts(), world.conditions().len()), (3, (2, 1, 0), 0), "no more are made");
    world.run(0);
    assert_eq!((world.made, world.counts()), (3, (0, 3, 0)));
    assert!(world.conditions().contains(&"Complete CompletionsReached".to_owned()));
}

#[test]
fn failures_are_tried_again_later_and_later_and_then_no_more() {
    let mut world = World::new(json!({ "completions": 1, "backoffLimit": 2 }));
    let begin = world.now;
    world.settle();
    let mut waits = Vec::new();
    for _ in 0..3 {
        let name = world.active()[0].clone();
        world.end(&name, 1);
        world.settle();
        if let Some(left) = world.recheck {
            assert!(world.active().is_empty());
            waits.push(left.as_secs());
            world.now += left;
            world.settle();
        }
    }
    assert_eq!((waits, world.now.duration_since(begin).as_secs()), (vec![10, 20], 30));
    assert_eq!((world.made, world.counts()), (3, (0, 0, 3)));
    assert_eq!(world.conditions(), ["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"]);
    assert_eq!(world.notes, ["BackoffLimitExceeded: Job has reached the specified backoff limit"]);
}

#[test]
fn a_deadline_ends_what_runs() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 3, "activeDeadlineSeconds": 60 }));
    world.settle();
    assert_eq!(world.recheck, Some(SignedDuration::from_secs(60)));
    world.end("p01", 0);
    world.now += SignedDuration::from_secs(60);
    world.settle();
    assert_eq!(world.counts(), (0, 1, 2), "what was ended counts as failed");
    assert_eq!(world.conditions(), ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]);
    assert!(world.active().is_empty());
}

#[test]
fn restarts_in_place_count_towards_the_limit() {
    let mut world = World::new(json!({ "completions": 1, "backoffLimit": 3 }));
    world.job.spec.as_mut().unwrap().template.spec.as_mut().unwrap().restart_policy =
        Some("OnFailure".into());
    world.settle();
    let restarted = |world: &mut World, count: i32| {
        let status = json!({ "phase": "Running", "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count }] });
        world.pods.get_mut("p01").unwrap().status = Some(serde_json::from_value(status).unwrap());
        world.settle();
    };
    restarted(&mut world, 2);
    assert!(world.conditions().is_empty());
    restarted(&mut world, 3);
    assert!(world.conditions().contains(&"Failed BackoffLimitExceeded".to_owned()));
}

#[test]
fn a_suspended_job_has_no_pods_and_its_deadline_begins_when_it_goes_on() {
    let mut world = World::new(
        json!({ "completions": 2, "parallelism": 2, "suspend": true, "activeDeadlineSeconds": 60 }),
    );
    world.settle();
    assert_eq!((world.made, world.conditions()), (0, vec!["Suspended JobSuspended".to_owned()]));
    assert!(world.status().start_time.is_none());
    world.now += SignedDuration::from_secs(3600);
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!((world.active().len(), world.conditions().len()), (2, 0));
    assert_eq!(world.notes, ["Suspended: Job suspended", "Resumed: Job resumed"]);
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert_eq!(world.counts(), (0, 0, 0), "what is taken away has not failed");
    world.now += SignedDuration::from_secs(1);
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!(
        (world.active().len(), world.recheck),
        (2, Some(SignedDuration::from_secs(60))),
        "nor does it wait"
    );
    world.run(0);
    assert_eq!(world.counts(), (0, 2, 0));
}

#[test]
fn each_index_succeeds_once() {
    let mut world = World::new(json!({ "completions": 4, "parallelism": 2, "completionMode": "Indexed" }));
    world.settle();
    let pod = &world.pods["p02"];
    let meta = &pod.metadata;
    assert_eq!(meta.generate_name.as_deref(), Some("j-1-"));
    assert_eq!(
        (meta.annotations.as_ref().unwrap()[INDEX].as_str(), meta.labels.as_ref().unwrap()[INDEX].as_str()),
        ("1", "1")
    );
    let spec = serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
    assert_eq!(spec["hostname"], "j-1");
    let field = "metadata.labels['batch.kubernetes.io/job-completion-index']";
    assert_eq!(
        spec["containers"][0]["env"][0],
        json!({ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": { "fieldPath": field } } })
    );
    world.end("p02", 0);
    world.end("p01", 1);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
    world.run(0);
    assert_eq!((world.counts(), world.made), ((0, 4, 1), 5));
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-3"));
}

#[test]
fn a_success_policy_ends_it_early() {
    let policy = json!({ "rules": [{ "succeededIndexes": "0,2-3", "succeededCount": 2 }] });
    let mut world = World::new(
        json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed", "successPolicy": policy }),
    );
    world.settle();
    world.end("p02", 0);
    world.end("p03", 0);
    world.settle();
    assert!(world.conditions().is_empty());
    world.end("p01", 0);
    world.settle();
    assert_eq!(world.conditions(), ["SuccessCriteriaMet SuccessPolicy", "Complete SuccessPolicy"]);
    assert_eq!((world.active().len(), world.counts()), (0, (0, 3, 0)), "the last one has not failed");
}

#[test]
fn a_failure_policy_tells_failures_apart() {
    let policy = json!({ "rules": [
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        { "action": "Count", "onExitCodes": { "containerName": "other", "operator": "NotIn", "values": [1] } }] });
    let new = || {
        let spec = json!({ "completions": 1, "backoffLimit": 0, "podFailurePolicy": policy.clone() });
        let mut world = World::new(spec);
        world.settle();
        world
    };
    let mut world = new();
    world.end("p01", 42);
    world.settle();
    let failed = world.status().conditions.iter().flatten().find(|c| c.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("PodFailurePolicy"));
    assert_eq!(
        failed.message.as_deref(),
        Some("Container c for pod n/p01 failed with exit code 42 matching FailJob rule at index 0")
    );
    let mut world = new();
    world.end("p01", 1);
    let condition = json!([{ "type": "DisruptionTarget", "status": "True" }]);
    let status = world.pods.get_mut("p01").unwrap().status.as_mut().unwrap();
    status.conditions = Some(serde_json::from_value(condition).unwrap());
    world.run(0);
    assert_eq!(world.counts(), (0, 1, 0), "an ignored failure is none");
    let mut world = new();
    world.end("p01", 1);
    world.settle();
    assert!(world.conditions().contains(&"Failed BackoffLimitExceeded".to_owned()));
}

#[test]
fn a_pod_is_counted_once_wherever_the_controller_dies() {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 2 }));
    world.settle();
    world.end("p01", 0);
    // The status was written, and nobody took the finalizer away.
    let pods: Vec<Pod> = world.pods.values().cloned().collect();
    let first = plan(&world.job, &pods, &owner(), world.now);
    assert_eq!(first.untrack, ["p01"]);
    assert_eq!((first.status.succeeded, first.create.len()), (None, 0), "it waits to be counted");
    world.job.status = Some(first.status);
    // The next one does, and dies before it counts; then the pod is deleted.
    world.step();
    world.pods.remove("p01");
    world.settle();
    assert_eq!(world.counts(), (1, 1, 0));
    world.run(0);
    assert_eq!((world.made, world.counts()), (2, (0, 2, 0)));
}

#[test]
fn another_takes_the_place_of_a_deleted_pod_at_once_or_when_it_has_ended() {
    let mut world = World::new(json!({ "completions": 1, "podReplacementPolicy": "Failed" }));
    world.settle();
    world.delete("p01");
    world.settle();
    assert_eq!((world.made, world.status().terminating), (1, Some(1)));
    world.end("p01", 137);
    world.now += SignedDuration::from_secs(60);
    world.settle();
    assert_eq!((world.made, world.counts()), (2, (1, 0, 1)));
}

#[test]
fn what_is_over_is_deleted_after_its_time() {
    let mut world = World::new(json!({ "completions": 1, "ttlSecondsAfterFinished": 100 }));
    world.run(0);
    assert_eq!((world.expired, world.recheck), (false, Some(SignedDuration::from_secs(100))));
    world.now += SignedDuration::from_secs(100);
    world.step();
    assert!(world.expired);
}

#[test]
fn fewer_at_a_time_ends_the_most_dispensable() {
    let mut world = World::new(json!({ "completions": 9, "parallelism": 3, "completionMode": "Indexed" }));
    world.settle();
    world.job.spec.as_mut().unwrap().parallelism = Some(1);
    world.settle();
    assert_eq!(world.active(), ["p01"], "the highest indexes go");
}

#[test]
fn indexes_are_read_and_written_as_runs() {
    for (text, count, again) in
        [("", 0, ""), ("3", 1, "3"), ("1,2", 2, "1,2"), ("0-2,4,6-7,9", 7, "0-2,4,6,7,9"), ("x,2-1", 0, "")]
    {
        let all = Indexes::parse(text, 100);
        assert_eq!((all.len(), all.to_string().as_str()), (count, again), "{text}");
    }
}

/// Indexes 0 to 2 at once, each of which may fail once.
fn by_index(more: Value) -> World {
    let mut spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": i32::MAX });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut world = World::new(spec);
    world.settle();
    world
}

#[test]
fn an_index_that_fails_too_often_fails_for_good_and_the_others_go_on() {
    let mut world = by_index(json!({}));
    assert_eq!(world.status().failed_indexes.as_deref(), Some(""));
    assert_eq!(world.annotation("p01", per_index::FAILURES), Some("0"));
    world.end("p01", 1);
    world.settle();
    assert_eq!((world.made, world.recheck), (3, Some(SignedDuration::from_secs(10))));
    assert!(is_tracked(&world.pods["p01"]), "it waits for the one that carries its number on");
    assert_eq!(world.counts(), (2, 0, 0));
    world.now += SignedDuration::from_secs(10);
    world.settle();
    assert_eq!(world.annotation("p04", per_index::FAILURES), Some("1"));
    assert_eq!(
        (world.annotation("p04", INDEX), world.annotation("p04", per_index::IGNORED)),
        (Some("0"), None)
    );
    assert_eq!((is_tracked(&world.pods["p01"]), world.counts()), (false, (3, 0, 1)));
    world.end("p04", 1);
    world.settle();
    assert_eq!((world.made, world.counts(), world.conditions().len()), (4, (2, 0, 2), 0));
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    world.run(0);
    assert_eq!((world.made, world.counts()), (4, (0, 2, 2)));
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1,2"));
    assert_eq!(world.conditions(), ["FailureTarget FailedIndexes", "Failed FailedIndexes"]);
    assert_eq!(world.notes, ["FailedIndexes: Job has failed indexes"]);
    assert!(!world.pods.values().any(is_tracked), "nothing is held");
}

#[test]
fn each_index_waits_by_itself() {
    let mut world = by_index(json!({ "backoffLimitPerIndex": 5 }));
    world.end("p01", 1);
    world.settle();
    world.now += SignedDuration::from_secs(6);
    world.end("p02", 1);
    world.settle();
    assert_eq!((world.made, world.recheck), (3, Some(SignedDuration::from_secs(4))));
    world.now += SignedDuration::from_secs(4);
    world.settle();
    assert_eq!((world.made, world.recheck), (4, Some(SignedDuration::from_secs(6))));
    world.end("p04", 1);
    world.settle();
    world.now += SignedDuration::from_secs(6);
    world.settle();
    assert_eq!(
        (world.made, world.recheck),
        (5, Some(SignedDuration::from_secs(14))),
        "twice the pause of the first"
    );
    world.now += SignedDuration::from_secs(14);
    world.run(0);
    assert_eq!(world.annotation("p06", per_index::FAILURES), Some("2"));
    assert_eq!((world.counts(), world.status().failed_indexes.as_deref()), ((0, 3, 3), Some("")));
    assert!(world.conditions().contains(&"Complete CompletionsReached".to_owned()));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let mut world = by_index(json!({ "backoffLimitPerIndex": 0, "maxFailedIndexes": 1 }));
    world.end("p01", 1);
    world.settle();
    assert_eq!((world.made, world.conditions().len(), world.counts()), (3, 0, (2, 0, 1)));
    world.end("p03", 1);
    world.settle();
    assert_eq!(
        world.conditions(),
        ["FailureTarget MaxFailedIndexesExceeded", "Failed MaxFailedIndexesExceeded"]
    );
    assert_eq!(
        world.notes,
        ["MaxFailedIndexesExceeded: Job has exceeded the specified maximal number of failed indexes"]
    );
    assert_eq!((world.active().len(), world.counts()), (0, (0, 0, 3)), "what was ended counts as failed");
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0,2"));
}

#[test]
fn a_failure_policy_may_fail_an_index_or_forgive_it() {
    let policy = json!({ "rules": [
        { "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } }] });
    let mut world = by_index(json!({ "podFailurePolicy": policy, "podReplacementPolicy": "Failed" }));
    world.end("p01", 42);
    world.end("p02", 7);
    world.settle();
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    world.now += SignedDuration::from_secs(10);
    world.settle();
    assert_eq!((world.made, world.annotation("p04", INDEX)), (4, Some("1")));
    assert_eq!(world.annotation("p04", per_index::FAILURES), Some("0"));
    assert_eq!(world.annotation("p04", per_index::IGNORED), Some("1"));
    assert_eq!(world.counts(), (2, 0, 1), "what is forgiven is not counted");
    world.run(0);
    assert!(world.conditions().contains(&"Failed FailedIndexes".to_owned()));
}

#[test]
fn a_job_that_others_manage_is_left_alone() {
    let mut world =
        World::new(json!({ "completions": 1, "managedBy": "acme.io/queue", "ttlSecondsAfterFinished": 5 }));
    world.settle();
    assert_eq!((world.made, world.status()), (0, &JobStatus::default()));
    let ended =
        json!({ "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": START }] });
    world.job.status = Some(serde_json::from_value(ended).unwrap());
    world.step();
    assert_eq!((world.expired, world.recheck), (false, Some(SignedDuration::from_secs(5))));
    world.now += SignedDuration::from_secs(5);
    world.step();
    assert!(world.expired);
    let mut ours = World::new(json!({ "completions": 1, "managedBy": "kubernetes.io/job-controller" }));
    ours.settle();
    assert_eq!(ours.made, 1);
}

#[test]
fn what_was_taken_away_is_no_failure_to_wait_after() {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 2 }));
    world.lingers = true;
    world.settle();
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert_eq!((world.counts(), world.status().terminating), ((0, 0, 0), Some(2)));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!((world.made, world.counts()), (4, (2, 0, 0)));
    // Fewer at a time: neither.
    world.job.spec.as_mut().unwrap().parallelism = Some(1);
    world.settle();
    assert_eq!((world.counts(), world.status().terminating), ((1, 0, 0), Some(3)));
}

#[test]
fn a_job_that_has_failed_counts_what_it_ends_without_waiting_for_it() {
    let mut world = World::new(
        json!({ "completions": 2, "parallelism": 2, "backoffLimit": 0, "podReplacementPolicy": "Failed" }),
    );
    world.lingers = true;
    world.settle();
    world.end("p01", 1);
    world.settle();
    assert_eq!((world.counts(), world.status().terminating), ((0, 0, 2), Some(1)));
    assert_eq!(
        world.conditions(),
        ["FailureTarget BackoffLimitExceeded"],
        "it is over when the last has ended"
    );
    world.pods.remove("p02");
    world.settle();
    assert_eq!(world.conditions().len(), 2);
}

#[test]
fn of_two_pods_of_an_index_the_better_one_stays() {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" }));
    world.settle();
    let mut twin = world.pods["p01"].clone();
    twin.metadata.name = Some("p00".to_owned());
    twin.metadata.uid = Some("uid-p00".to_owned());
    world.pods.insert("p00".to_owned(), twin);
    let running = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    world.pods.get_mut("p01").unwrap().status = Some(serde_json::from_value(running).unwrap());
    world.settle();
    assert_eq!((world.active(), world.counts()), (vec!["p01".to_owned(), "p02".to_owned()], (2, 0, 0)));
}

#[test]
fn a_job_of_fewer_indexes_forgets_those_it_has_no_more() {
    let mut world = World::new(json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" }));
    world.settle();
    world.end("p04", 0);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("3"));
    let spec = world.job.spec.as_mut().unwrap();
    (spec.completions, spec.parallelism) = (Some(3), Some(3));
    world.settle();
    assert_eq!((world.status().completed_indexes.as_deref(), world.counts()), (None, (3, 0, 0)));
}

#[test]
fn more_successes_than_were_wanted_are_spoken_of() {
    let mut world = World::new(json!({ "completions": 1 }));
    world.settle();
    let mut twin = world.pods["p01"].clone();
    (twin.metadata.name, twin.metadata.uid) = (Some("p00".to_owned()), Some("uid-p00".to_owned()));
    world.pods.insert("p00".to_owned(), twin);
    for name in ["p00", "p01"] {
        world.end(name, 0);
    }
    world.settle();
    let many = "TooManySucceededPods: Too many succeeded pods running after completion count reached";
    assert_eq!(
        (world.notes.clone(), world.counts()),
        (vec![many.to_owned(), "Completed: Job completed".to_owned()], (0, 2, 0))
    );
}

#[test]
fn a_pod_ended_with_its_last_container_or_when_it_was_not_ready_or_was_deleted() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let ended_at = |at: &str| {
        json!({ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 0, "finishedAt": format!("2026-01-01T00:{at}:00Z") } } })
    };
    let runs =
        json!({ "name": "d", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {} });
    let not_ready =
        json!([{ "type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:30:00Z" }]);
    let gone = json!({ "deletionTimestamp": "2026-01-01T00:41:00Z", "deletionGracePeriodSeconds": 60 });
    let none = json!({});
    for (metadata, status, want) in [
        (
            &gone,
            json!({ "containerStatuses": [ended_at("10"), ended_at("20")], "conditions": not_ready }),
            "00:20",
        ),
        (&gone, json!({ "containerStatuses": [ended_at("10"), runs], "conditions": not_ready }), "00:30"),
        (&gone, json!({ "containerStatuses": [ended_at("10"), runs] }), "00:40"),
        (&none, json!({}), "01:00"),
    ] {
        let pod: Pod = serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap();
        assert_eq!(failure::ended(&pod, now).to_string(), format!("2026-01-01T{want}:00Z"), "{status}");
    }
}
