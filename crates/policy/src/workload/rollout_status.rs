//! The conditions of a Deployment: available, progressing, failing (`pkg/controller/deployment/progress.go`).

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A list of conditions with the rule that a time changes only with what it dates.
pub(super) struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    pub fn new(list: Option<&Vec<DeploymentCondition>>, now: Timestamp) -> Conditions {
        Conditions { list: list.cloned().unwrap_or_default(), now }
    }

    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == kind)
    }

    pub fn reason(&self, kind: &str) -> Option<&str> {
        self.get(kind).map(|c| c.reason.as_deref().unwrap_or_default())
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|c| c.type_ != kind);
    }

    /// Nothing changes if status and reason stay; the transition is dated by the status.
    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let known = self.get(kind);
        if known.is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason)) {
            return;
        }
        let same_status = known.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        self.replace(kind, status, reason, message, same_status);
    }

    fn replace(&mut self, kind: &str, status: &str, reason: &str, message: String, since: Option<Time>) {
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_string(),
            status: status.to_string(),
            reason: Some(reason.to_string()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        });
    }

    /// What a replica set says about pods that could not be made.
    pub fn take_failure(&mut self, failure: Option<ReplicaSetCondition>) {
        match failure {
            Some(failure) => {
                let reason = failure.reason.unwrap_or_default();
                self.set("ReplicaFailure", &failure.status, &reason, failure.message.unwrap_or_default());
            }
            None => self.remove("ReplicaFailure"),
        }
    }

    pub fn into_list(self) -> Option<Vec<DeploymentCondition>> {
        (!self.list.is_empty()).then_some(self.list)
    }
}

/// No deadline, or one of more than 68 years, is none (`HasProgressDeadline`).
pub(super) fn has_deadline(spec: &DeploymentSpec) -> bool {
    spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

pub(super) fn is_complete(spec: &DeploymentSpec, status: &DeploymentStatus, generation: Option<i64>) -> bool {
    let wanted = spec.replicas.unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= generation
}

/// Writes the Progressing condition; gives how long until the deadline is over, if it runs.
pub(super) fn judge_progress(
    conditions: &mut Conditions,
    (deployment, spec, status, new): (&Deployment, &DeploymentSpec, &DeploymentStatus, Option<&str>),
    now: Timestamp,
) -> Option<SignedDuration> {
    if !has_deadline(spec) {
        conditions.remove("Progressing");
        return None;
    }
    let current = conditions.get("Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c.reason.as_deref());
    let was_complete = status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0)
        && reason == Some("NewReplicaSetAvailable");
    if was_complete {
        return None;
    }
    let subject = match new {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let deadline = SignedDuration::from_secs(i64::from(spec.progress_deadline_seconds.unwrap_or(i32::MAX)));
    let left = current.as_ref().and_then(|c| c.last_update_time.as_ref());
    let left = left.map(|since| deadline - now.duration_since(since.0));
    if is_complete(spec, status, deployment.metadata.generation) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", message);
        return None;
    }
    if has_progressed(deployment.status.as_ref(), status) {
        let since = current.filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
        conditions.replace(
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            format!("{subject} is progressing."),
            since,
        );
        return Some(deadline);
    }
    let is_judged = !matches!(reason, None | Some("NewReplicaSetAvailable"));
    let timed_out = reason == Some("ProgressDeadlineExceeded")
        || is_judged && left.is_some_and(|left| left <= SignedDuration::ZERO);
    if timed_out {
        let message = format!("{subject} has timed out progressing.");
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", message);
        return None;
    }
    left.filter(|_| is_judged)
}

fn has_progressed(before: Option<&DeploymentStatus>, now: &DeploymentStatus) -> bool {
    let none = DeploymentStatus::default();
    let before = before.unwrap_or(&none);
    let of = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(now.updated_replicas) > of(before.updated_replicas)
        || old(now) < old(before)
        || of(now.ready_replicas) > of(before.ready_replicas)
        || of(now.available_replicas) > of(before.available_replicas)
}
