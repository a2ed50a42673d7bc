//! Which pods of a Job are made and which are taken away, so that as many run as are wanted.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::failure::{self, Verdict};
use super::index::index_of;
use super::{
    Look, is_active, is_failed, is_indexed, is_succeeded, is_terminating, is_tracked, make, name, valid_index,
};
use crate::workload::replica_set::dispensability;

/// No more pods than this are made or deleted in one go.
const BURST: usize = 500;
/// The pause after a first failure, which doubles with each further one, and the longest.
const BACKOFF: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_secs(600);

impl Look<'_> {
    /// As many pods as may run at a time, and as are still wanted.
    pub(super) fn manage(&mut self, is_suspended: bool, succeeded: i32, owner: &OwnerReference) {
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0) as usize;
        let active = self.active.len();
        let wanted = match self.spec.completions {
            _ if is_suspended => 0,
            // One has succeeded: no more are made.
            None if succeeded > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => parallelism.min((completions - succeeded).max(0) as usize),
        };
        let doubled = if is_indexed(self.spec) { self.doubled() } else { Vec::new() };
        let too_many = active.saturating_sub(wanted).max(doubled.len());
        if too_many > 0 {
            self.plan.dismiss = self.most_dispensable(doubled, too_many.min(BURST));
            return;
        }
        let mut missing = wanted - active;
        let replaces_ended_alone = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        if replaces_ended_alone {
            let ending = self.pods.iter().filter(|pod| is_terminating(pod)).count();
            missing = missing.saturating_sub(ending);
        }
        if missing == 0 {
            return;
        }
        // Where each index has failures of its own, it also waits by itself.
        if self.per_index.is_none()
            && let Some(left) = self.backoff()
        {
            self.plan.recheck(left);
            return;
        }
        let missing = missing.min(BURST);
        self.plan.create = match self.spec.completions.filter(|_| is_indexed(self.spec)) {
            Some(completions) => self.next_indexes(completions, missing, replaces_ended_alone, owner),
            None => (0..missing).map(|_| make::pod(self.job, owner, None)).collect(),
        };
    }

    /// The pods of the first indexes that have none, have not succeeded, and have not failed for good.
    fn next_indexes(
        &mut self,
        completions: i32,
        missing: usize,
        replaces_ended_alone: bool,
        owner: &OwnerReference,
    ) -> Vec<Pod> {
        let occupied: BTreeSet<i32> = self
            .pods
            .iter()
            .filter(|pod| is_active(pod) || replaces_ended_alone && is_terminating(pod))
            .filter_map(|pod| index_of(pod))
            .collect();
        let is_free = |index: &i32| {
            let failed = self.per_index.as_ref().is_some_and(|all| all.failed.contains(*index));
            !failed && !self.completed.contains(*index) && !occupied.contains(index)
        };
        let next: Vec<i32> = (0..completions).filter(is_free).take(missing).collect();
        let mut pods = Vec::new();
        for index in next {
            let mut pod = make::pod(self.job, owner, Some(index));
            if let Some(all) = &self.per_index {
                if let Some(left) = all.backoff(index, self.now) {
                    self.plan.recheck(left);
                    continue;
                }
                all.count_failures(self.spec, index, &mut pod);
            }
            pods.push(pod);
        }
        pods
    }

    /// Pods of an Indexed Job that are not wanted whatever the number: without an index of it, or another of one.
    fn doubled(&self) -> Vec<String> {
        let mut in_order = self.active.clone();
        in_order.sort_by_cached_key(|pod| Reverse(dispensability(pod, 0, self.now)));
        let mut seen = BTreeSet::new();
        in_order.retain(|pod| !valid_index(self.spec, pod).is_some_and(|index| seen.insert(index)));
        in_order.into_iter().map(name).collect()
    }

    fn most_dispensable(&self, first: Vec<String>, count: usize) -> Vec<String> {
        let mut others: Vec<&Pod> = self.active.clone();
        others.retain(|pod| !first.contains(&name(pod)));
        // Where nothing else tells them apart, the highest indexes go.
        others.sort_by_cached_key(|pod| {
            let mut rank = dispensability(pod, 0, self.now);
            let uid = std::mem::take(&mut rank.8);
            (rank, Reverse(index_of(pod)), uid)
        });
        first.into_iter().chain(others.into_iter().map(name)).take(count).collect()
    }

    /// How long no pod is made yet, after failures that no success followed.
    fn backoff(&self) -> Option<SignedDuration> {
        let ends = |wanted: &dyn Fn(&Pod) -> bool| -> Vec<Timestamp> {
            self.pods.iter().filter(|pod| wanted(pod)).map(|pod| failure::ended(pod, self.now)).collect()
        };
        let last_success = ends(&is_succeeded).into_iter().max();
        let failed = |pod: &Pod| {
            let is_failure = is_failed(self.spec, pod) && !self.is_dismissed(pod);
            is_failure && !matches!(failure::judge(self.spec, pod), Verdict::Ignored)
        };
        let mut failures = ends(&failed);
        failures.retain(|at| last_success.is_none_or(|success| *at > success));
        let last = failures.iter().max()?;
        pause(failures.len(), *last, self.now)
    }

    /// One that was taken away when the Job was suspended: that was no failure.
    fn is_dismissed(&self, pod: &Pod) -> bool {
        let resumed = self.status.start_time.as_ref();
        !is_tracked(pod)
            && is_terminating(pod)
            && resumed.is_some_and(|at| failure::ended(pod, self.now) <= at.0)
    }
}

/// What is left of the pause after so many failures, of which this was the last.
pub(super) fn pause(failures: usize, last: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    let pause = (BACKOFF * 2i32.pow(doublings)).min(LONGEST_BACKOFF);
    let left = pause - now.duration_since(last);
    left.is_positive().then_some(left)
}
