//! Decides what the workload controllers do next: which replica sets a Deployment makes, grows and shrinks, which pods
//! a ReplicaSet, a StatefulSet, a Job or a DaemonSet makes and removes, which Jobs a CronJob starts, and what their statuses
//! say. The same decisions, words and order as kube-controller-manager (`pkg/controller/deployment`,
//! `pkg/controller/replicaset`), from objects and a time handed in.

pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod history;
pub mod job;
pub mod replica_set;
mod rollout_status;
pub mod stateful_set;
mod template;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// An event to be recorded on the object in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub reason: &'static str,
    pub message: String,
    pub warning: bool,
}

impl Note {
    fn normal(reason: &'static str, message: String) -> Note {
        Note { reason, message, warning: false }
    }

    fn warning(reason: &'static str, message: String) -> Note {
        Note { reason, message, warning: true }
    }
}

/// Succeeded or Failed: it runs no more and counts for nothing.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Being deleted.
fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_going(pod)
}

fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

pub fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|c| c.status == "True")
}

/// How long until a ready pod counts as available; zero if it does, None if it is not ready.
pub fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<SignedDuration> {
    let ready = ready_condition(pod).filter(|c| c.status == "True")?;
    if min_ready_seconds <= 0 {
        return Some(SignedDuration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let left = SignedDuration::from_secs(i64::from(min_ready_seconds)) - now.duration_since(since);
    Some(left.max(SignedDuration::ZERO))
}
