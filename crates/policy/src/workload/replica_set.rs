//! What a ReplicaSet does next: how many pods to make, which to delete, and its status
//! (`pkg/controller/replicaset/replica_set.go`, `ActivePodsWithRanks` of `pkg/controller/controller_utils.go`).

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{is_active, is_finished, is_ready, ready_condition, until_available};

/// No more pods than this are made or deleted in one go (`BurstReplicas`).
pub const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    Keep,
    Create(usize),
    /// Names of pods, the most dispensable first.
    Delete(Vec<String>),
}

/// `pods`: those the replica set controls. `related`: those of the same owner (other replica sets of the Deployment),
/// which count when pods on crowded nodes are deleted first.
pub fn scale<P: Borrow<Pod>>(replica_set: &ReplicaSet, pods: &[P], related: &[P], now: Timestamp) -> Scale {
    let wanted = replica_set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).max(0) as usize;
    let active: Vec<&Pod> = pods.iter().map(Borrow::borrow).filter(|pod| is_active(pod)).collect();
    match active.len().cmp(&wanted) {
        Ordering::Equal => Scale::Keep,
        Ordering::Less => Scale::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let count = (active.len() - wanted).min(BURST);
            let mut crowd: BTreeMap<&str, usize> = BTreeMap::new();
            for pod in pods.iter().chain(related).map(Borrow::borrow).filter(|pod| is_active(pod)) {
                *crowd.entry(node_of(pod)).or_default() += 1;
            }
            let mut ranked = active;
            ranked.sort_by_cached_key(|pod| {
                dispensability(pod, crowd.get(node_of(pod)).copied().unwrap_or(0), now)
            });
            let name = |pod: &&Pod| pod.metadata.name.clone().unwrap_or_default();
            Scale::Delete(ranked.iter().take(count).map(name).collect())
        }
    }
}

/// Smaller is deleted first: unassigned, then Pending before Unknown before Running, then not ready, then the lower
/// deletion cost, then on the more crowded node, then ready for a shorter time, then more restarts, then younger.
/// Times are compared by their magnitude (LogarithmicScaleDown), so that pods of about one age are picked by uid.
pub(super) type Dispensability = (bool, u8, bool, i64, Reverse<usize>, u32, Reverse<i32>, u32, String);

pub(super) fn dispensability(pod: &Pod, crowd: usize, now: Timestamp) -> Dispensability {
    let status = pod.status.as_ref();
    let phase = match status.and_then(|s| s.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost =
        pod.metadata.annotations.as_ref().and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
    let cost = cost.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    let magnitude = |since: Option<&Time>| {
        let seconds = since.map(|time| now.duration_since(time.0).as_secs()).unwrap_or(0).max(0);
        (seconds as u64).checked_ilog2().map_or(0, |log| log + 1)
    };
    let ready = is_ready(pod);
    let ready_for =
        if ready { magnitude(ready_condition(pod).and_then(|c| c.last_transition_time.as_ref())) } else { 0 };
    let containers = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let restarts = containers.iter().map(|c| c.restart_count).max().unwrap_or(0);
    (
        !node_of(pod).is_empty(),
        phase,
        ready,
        i64::from(cost),
        Reverse(crowd),
        ready_for,
        Reverse(restarts),
        magnitude(pod.metadata.creation_timestamp.as_ref()),
        pod.metadata.uid.clone().unwrap_or_default(),
    )
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// The status these pods make. `failure`: why pods could not be made or deleted, as (reason, message). With it, how
/// long until a ready pod becomes available by time alone.
pub fn status<P: Borrow<Pod>>(
    replica_set: &ReplicaSet,
    pods: &[P],
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<SignedDuration>) {
    let spec = replica_set.spec.as_ref();
    let min_ready_seconds = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let template = spec.and_then(|s| s.template.as_ref()).and_then(|t| t.metadata.as_ref());
    let labels = template.and_then(|m| m.labels.clone()).unwrap_or_default();
    let (mut ready, mut available, mut labelled) = (0, 0, 0);
    let mut recheck: Option<SignedDuration> = None;
    let active: Vec<&Pod> = pods.iter().map(Borrow::borrow).filter(|pod| is_active(pod)).collect();
    for pod in &active {
        let has = pod.metadata.labels.as_ref();
        if labels.iter().all(|(key, value)| has.and_then(|l| l.get(key)) == Some(value)) {
            labelled += 1;
        }
        ready += i32::from(is_ready(pod));
        match until_available(pod, min_ready_seconds, now) {
            Some(left) if left.is_zero() => available += 1,
            Some(left) => recheck = Some(recheck.map_or(left, |other| other.min(left))),
            None => {}
        }
    }
    let is_terminating = |pod: &&Pod| !is_finished(pod) && pod.metadata.deletion_timestamp.is_some();
    let terminating = pods.iter().map(Borrow::borrow).filter(is_terminating).count() as i32;
    let before = replica_set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: (labelled > 0).then_some(labelled),
        ready_replicas: (ready > 0).then_some(ready),
        available_replicas: (available > 0).then_some(available),
        terminating_replicas: Some(terminating),
        observed_generation: replica_set.metadata.generation,
        conditions: failure_condition(before.conditions, failure, now),
    };
    (status, recheck)
}

fn failure_condition(
    before: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = before.unwrap_or_default();
    let known = conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned();
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    if let Some((reason, message)) = failure {
        let same = known.filter(|c| c.reason.as_deref() == Some(reason));
        conditions.push(same.unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".to_string(),
            status: "True".to_string(),
            reason: Some(reason.to_string()),
            message: Some(message.to_string()),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// A pod as a controller makes it; the API server completes the name.
pub fn pod_from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.to_string()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
