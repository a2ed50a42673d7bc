//! What a DaemonSet does next: one pod on every node that it belongs to, replaced node by node when its template changes
//! (`pkg/controller/daemon`). The nodes are told to the scheduler by each pod's own affinity; where a pod does not belong
//! none is made, and one that is there goes.

mod backoff;
mod make;
mod rollout;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use backoff::Backoff;

use super::history::revision_of;
use super::{Note, is_finished, is_going, is_ready, name_of, until_available};
use crate::scheduling::{Belongs, PodInfo, belongs};

/// No more pods than this are made or deleted in one go (`BurstReplicas`).
const BURST: usize = 250;

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub create: Vec<Pod>,
    /// Names of pods.
    pub delete: Vec<String>,
    pub status: DaemonSetStatus,
    pub notes: Vec<Note>,
    /// Nodes whose failed pod goes: their [`Backoff`] grows.
    pub failed: Vec<String>,
    /// When to look again though nothing has changed.
    pub recheck: Option<SignedDuration>,
}

fn is_of(pod: &Pod, hash: &str) -> bool {
    revision_of(pod) == hash
}

/// A node, and the DaemonSet's pods there, the oldest first.
struct Place<'a> {
    name: String,
    belongs: Belongs,
    pods: Vec<&'a Pod>,
}

struct Look<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    hash: &'a str,
    owner: &'a OwnerReference,
    now: Timestamp,
    backoff: &'a Backoff,
    places: Vec<Place<'a>>,
    /// Of pods that are for a node that is not there, and were never started.
    lost: Vec<String>,
    plan: Plan,
}

/// `pods`: those the DaemonSet controls; `hash`: the label of its present template's revision; `owner`: the reference its pods
/// carry; `backoff`: how pods failed before.
pub fn plan<P: Borrow<Pod>, N: Borrow<Node>>(
    set: &DaemonSet,
    pods: &[P],
    nodes: &[N],
    hash: &str,
    owner: &OwnerReference,
    backoff: &Backoff,
    now: Timestamp,
) -> Plan {
    let Some(spec) = &set.spec else {
        return Plan { status: set.status.clone().unwrap_or_default(), ..Plan::default() };
    };
    let wanted = PodInfo::from_api(&make::pod(set, owner, hash, None));
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    // One that has ended and is being deleted holds no place any more.
    let counted = pods.iter().map(Borrow::borrow).filter(|pod| !(is_finished(pod) && is_going(pod)));
    for pod in counted {
        by_node.entry(make::node_of(pod)).or_default().push(pod);
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| {
            let meta = &pod.metadata;
            (meta.creation_timestamp.as_ref().map(|at| at.0), meta.name.clone())
        });
    }
    let mut places: Vec<Place<'_>> = Vec::new();
    for node in nodes.iter().map(Borrow::borrow) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let pods = by_node.remove(name.as_str()).unwrap_or_default();
        places.push(Place { belongs: belongs(&wanted, node), name, pods });
    }
    places.sort_by(|a, b| a.name.cmp(&b.name));
    let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let lost =
        by_node.into_values().flatten().filter(|pod| !is_bound(pod) && !is_going(pod)).map(name_of).collect();
    let mut look = Look { set, spec, hash, owner, now, backoff, places, lost, plan: Plan::default() };
    if set.metadata.deletion_timestamp.is_none() {
        look.manage();
        look.roll();
        look.plan.create.truncate(BURST);
        look.plan.delete.truncate(BURST);
    }
    look.status();
    look.plan
}

impl<'a> Look<'a> {
    fn make(&mut self, node: &str) {
        self.plan.create.push(make::pod(self.set, self.owner, self.hash, Some(node)));
    }

    fn delete(&mut self, pod: &Pod) {
        if !is_going(pod) && !self.plan.delete.contains(&name_of(pod)) {
            self.plan.delete.push(name_of(pod));
        }
    }

    fn recheck(&mut self, left: SignedDuration) {
        self.plan.recheck = Some(self.plan.recheck.map_or(left, |other| other.min(left)));
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        until_available(pod, self.min_ready_seconds(), self.now).is_some_and(|left| left.is_zero())
    }

    /// One pod where it belongs, none elsewhere.
    fn manage(&mut self) {
        for at in 0..self.places.len() {
            let (here, pods) = (self.places[at].belongs, self.places[at].pods.clone());
            match here {
                Belongs::Yes if pods.is_empty() => {
                    let node = self.places[at].name.clone();
                    self.make(&node);
                }
                Belongs::Yes | Belongs::IfThere => self.keep_one(at, &pods),
                Belongs::No => pods.into_iter().for_each(|pod| self.delete(pod)),
            }
        }
        self.plan.delete.append(&mut self.lost);
    }

    fn keep_one(&mut self, at: usize, pods: &[&'a Pod]) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|pod| !is_going(pod)) {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let full = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), name_of(pod));
            let node = &self.places[at].name;
            match phase {
                Some("Failed") => {
                    let left = self.backoff.left(self.set, node, self.now);
                    if left.is_positive() {
                        self.recheck(left);
                        continue;
                    }
                    let message =
                        format!("Found failed daemon pod {full} on node {node}, will try to kill it");
                    self.plan.notes.push(Note { reason: "FailedDaemonPod", message, warning: true });
                    self.plan.failed.push(node.clone());
                    self.delete(pod);
                }
                Some("Succeeded") => {
                    let message =
                        format!("Found succeeded daemon pod {full} on node {node}, will try to delete it");
                    self.plan.notes.push(Note::normal("SucceededDaemonPod", message));
                    self.delete(pod);
                }
                _ => running.push(*pod),
            }
        }
        if running.len() < 2 {
            return;
        }
        if rollout::Limits::of(self.spec, self.desired()).surge == 0 {
            running[1..].iter().for_each(|pod| self.delete(pod));
            return;
        }
        // During a surge an old one and a new one may be there, until the new one is as good as the old.
        let (mut new, mut old) = (None, None);
        for pod in running {
            let first = if is_of(pod, self.hash) { &mut new } else { &mut old };
            match first {
                None => *first = Some(pod),
                Some(_) => self.delete(pod),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!is_ready(old) || self.is_available(new))
        {
            self.delete(old);
        }
    }

    /// Nodes that shall have a pod.
    fn desired(&self) -> usize {
        self.places.iter().filter(|place| place.belongs == Belongs::Yes).count()
    }

    fn status(&mut self) {
        let before = self.set.status.clone().unwrap_or_default();
        let (mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0);
        let mut waits = false;
        for place in &self.places {
            let Some(pod) = place.pods.first() else { continue };
            if place.belongs != Belongs::Yes {
                misplaced += 1;
                continue;
            }
            current += 1;
            if is_ready(pod) {
                ready += 1;
                if self.is_available(pod) {
                    available += 1;
                } else {
                    waits = true;
                }
            }
            updated += i32::from(is_of(pod, self.hash));
        }
        if waits {
            self.recheck(SignedDuration::from_secs(i64::from(self.min_ready_seconds())));
        }
        let desired = self.desired() as i32;
        let some = |count: i32| (count > 0).then_some(count);
        self.plan.status = DaemonSetStatus {
            current_number_scheduled: current,
            number_misscheduled: misplaced,
            desired_number_scheduled: desired,
            number_ready: ready,
            observed_generation: self.set.metadata.generation,
            updated_number_scheduled: some(updated),
            number_available: some(available),
            number_unavailable: some(desired - available),
            collision_count: before.collision_count,
            conditions: before.conditions,
        };
    }
}
