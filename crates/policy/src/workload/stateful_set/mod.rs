//! What a StatefulSet does next: pods with names that stay, made in order and ended in reverse, each only when all before it
//! serve, or all at once (`podManagementPolicy`); replaced from the last to the first when the template changes
//! (`pkg/controller/statefulset`).

mod make;
mod rollout;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Range;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use make::{Revision, identity, ordinal};

use super::history::revision_of;
use super::{is_finished, is_going, is_ready, name_of, until_available};

/// No more pods than this are made in one go where the order does not matter (`MaxBatchSize`).
const BURST: usize = 500;

/// To be done in this order, and only until something fails.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Pods that lost the labels of their identity, and those labels.
    pub relabel: Vec<(String, BTreeMap<String, String>)>,
    /// Names of pods that have ended: another takes their place when they are gone.
    pub finished: Vec<String>,
    pub create: Vec<Pod>,
    /// Names of pods.
    pub delete: Vec<String>,
    pub status: StatefulSetStatus,
    /// When to look again though nothing has changed.
    pub recheck: Option<SignedDuration>,
}

struct Look<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    current: Revision<'a>,
    update: Revision<'a>,
    owner: &'a OwnerReference,
    now: Timestamp,
    /// Numbers of the pods that shall be there.
    wanted: Range<i64>,
    pods: BTreeMap<i64, &'a Pod>,
    plan: Plan,
}

/// Something keeps the pods that come after from being made, ended or replaced.
struct Blocked;

/// `pods`: those the StatefulSet controls. `current`: the revision that its pods were all of when it last was rolled out;
/// `update`: that of its present template. `owner`: the reference its pods carry.
pub fn plan<P: Borrow<Pod>>(
    set: &StatefulSet,
    pods: &[P],
    current: Revision<'_>,
    update: Revision<'_>,
    owner: &OwnerReference,
    now: Timestamp,
) -> Plan {
    let Some(spec) = &set.spec else {
        return Plan { status: set.status.clone().unwrap_or_default(), ..Plan::default() };
    };
    let start = make::start(spec);
    let wanted = start..start + i64::from(spec.replicas.unwrap_or(1).max(0));
    let pods = pods.iter().map(Borrow::borrow);
    let pods = pods.filter_map(|pod| Some((ordinal(set, pod)?, pod))).collect();
    let mut look = Look { set, spec, current, update, owner, now, wanted, pods, plan: Plan::default() };
    if set.metadata.deletion_timestamp.is_none() {
        // Scaling takes precedence over updates.
        let settled = if look.is_ordered() { look.in_order() } else { look.at_once() };
        if settled.is_ok() {
            look.roll();
        }
    }
    look.status();
    look.plan
}

impl<'a> Look<'a> {
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn until_available(&self, pod: &Pod) -> Option<SignedDuration> {
        until_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.until_available(pod).is_some_and(|left| left.is_zero())
    }

    /// Serves, and goes on to.
    fn stays_available(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !is_going(pod)
    }

    /// Whether all before it are served by that pod.
    fn is_settled(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && self.stays_available(pod)
    }

    fn make(&mut self, ordinal: i64) {
        let revision = if self.is_of_old(ordinal) { self.current } else { self.update };
        self.plan.create.push(make::pod(self.set, self.owner, revision, ordinal));
    }

    fn relabel(&mut self, ordinal: i64, pod: &Pod) {
        if let Some(labels) = make::lost_identity(pod, ordinal).filter(|_| !is_going(pod)) {
            self.plan.relabel.push((name_of(pod), labels));
        }
    }

    /// One step at a time, each only when all pods before it serve.
    fn in_order(&mut self) -> Result<(), Blocked> {
        for ordinal in self.wanted.clone() {
            let Some(pod) = self.pods.get(&ordinal).copied() else {
                self.make(ordinal);
                return Err(Blocked);
            };
            if is_finished(pod) && !is_going(pod) {
                self.plan.finished.push(name_of(pod));
            }
            if is_finished(pod) || !self.is_settled(pod) {
                return Err(Blocked);
            }
            self.relabel(ordinal, pod);
        }
        let condemned: Vec<&Pod> = self.condemned().collect();
        let Some(last) = condemned.first() else { return Ok(()) };
        // Of pods that are too many the last goes first. One that does not serve waits for those before it that do not
        // either; but for none that has ended, where upstream waits for ever: it will serve no more.
        let first = condemned.iter().rev().find(|pod| !self.stays_available(pod) && !is_finished(pod));
        let is_first = first.is_some_and(|first| first.metadata.name == last.metadata.name);
        if !is_going(last) && (self.is_settled(last) || is_first || is_finished(last)) {
            self.plan.delete.push(name_of(last));
        }
        Err(Blocked)
    }

    fn at_once(&mut self) -> Result<(), Blocked> {
        for ordinal in self.wanted.clone() {
            match self.pods.get(&ordinal).copied() {
                None if self.plan.create.len() == BURST => return Err(Blocked),
                None => self.make(ordinal),
                Some(pod) if is_finished(pod) && !is_going(pod) => self.plan.finished.push(name_of(pod)),
                Some(pod) => self.relabel(ordinal, pod),
            }
        }
        let condemned: Vec<String> = self.condemned().filter(|pod| !is_going(pod)).map(name_of).collect();
        self.plan.delete.extend(condemned);
        Ok(())
    }

    /// Pods that are too many, the last first.
    fn condemned(&self) -> impl Iterator<Item = &'a Pod> + '_ {
        let too_many = self.pods.iter().rev().filter(|(ordinal, _)| !self.wanted.contains(ordinal));
        too_many.map(|(_, pod)| *pod)
    }

    fn status(&mut self) {
        let before = self.set.status.clone().unwrap_or_default();
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        let mut recheck: Option<SignedDuration> = None;
        for pod in self.pods.values() {
            if is_running_and_ready(pod) {
                ready += 1;
                match self.until_available(pod) {
                    Some(left) if left.is_zero() => available += 1,
                    Some(left) => recheck = Some(recheck.map_or(left, |other| other.min(left))),
                    None => {}
                }
            }
            if !is_going(pod) {
                current += i32::from(revision_of(pod) == self.current.name);
                updated += i32::from(revision_of(pod) == self.update.name);
            }
        }
        let replicas = self.pods.len() as i32;
        let mut current_revision = self.current.name;
        let wanted = self.wanted.end - self.wanted.start;
        let is_rolled_out = [updated, ready, replicas].iter().all(|count| i64::from(*count) == wanted);
        if is_rolled_out && !self.is_on_delete() {
            (current, current_revision) = (updated, self.update.name);
        }
        let some = |count: i32| (count > 0).then_some(count);
        self.plan.recheck = recheck;
        self.plan.status = StatefulSetStatus {
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(available),
            current_replicas: some(current),
            updated_replicas: some(updated),
            current_revision: Some(current_revision.to_owned()),
            update_revision: Some(self.update.name.to_owned()),
            collision_count: Some(before.collision_count.unwrap_or(0)),
            observed_generation: self.set.metadata.generation,
            conditions: before.conditions,
        };
    }
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running") && is_ready(pod)
}
