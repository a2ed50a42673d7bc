//! Failures by index (`backoffLimitPerIndex`): an index that fails too often fails for good, and the others go on. How often
//! it has failed stands in the annotation of its latest pod; so a failed pod keeps its finalizer, and stays, until another
//! carries the number on.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::failure::{self, Verdict};
use super::index::{Indexes, index_of};
use super::manage::pause;
use super::{End, condition, is_failed, is_tracked, uid, valid_index};

/// How often the index failed before this pod, and how often it did so without being counted.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

pub struct PerIndex<'a> {
    /// For good.
    pub failed: Indexes,
    /// The latest pods of indexes whose next ones are not made yet.
    last: BTreeMap<i32, &'a Pod>,
}

/// What anybody else may have written there counts as nothing.
fn number(pod: &Pod, annotation: &str) -> i32 {
    let value = pod.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
    value.and_then(|value| value.parse().ok()).filter(|number| *number >= 0).unwrap_or(0)
}

fn all_failures(pod: &Pod) -> i32 {
    number(pod, FAILURES).saturating_add(number(pod, IGNORED))
}

impl<'a> PerIndex<'a> {
    /// None: the Job counts its failures all together.
    pub fn look(
        spec: &JobSpec,
        status: &JobStatus,
        pods: &[&'a Pod],
        active: &[&Pod],
        completed: &Indexes,
    ) -> Option<PerIndex<'a>> {
        let limit = spec.backoff_limit_per_index.filter(|_| super::is_indexed(spec))?;
        let below = spec.completions.unwrap_or(0);
        let mut failed = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), below);
        let ended: Vec<(i32, &Pod)> = pods
            .iter()
            .filter(|pod| is_tracked(pod) && is_failed(spec, pod))
            .filter_map(|pod| Some((valid_index(spec, pod)?, *pod)))
            .collect();
        // What is ended with the Job has not failed by itself.
        let is_going = condition(status, "FailureTarget").is_some();
        let by_itself = |pod: &Pod| !is_going || pod.metadata.deletion_timestamp.is_none();
        for (index, pod) in ended.iter().filter(|(_, pod)| by_itself(pod)) {
            let is_last = match failure::judge(spec, pod) {
                Verdict::FailsIndex => true,
                Verdict::Ignored => false,
                Verdict::Counted | Verdict::FailsJob(_) => number(pod, FAILURES) >= limit,
            };
            // An index cannot be both; a success before it was found out counts.
            if is_last && !completed.contains(*index) {
                failed.insert(*index);
            }
        }
        let mut last: BTreeMap<i32, &Pod> = BTreeMap::new();
        for (index, pod) in ended {
            let has_next = active.iter().any(|pod| index_of(pod) == Some(index));
            if has_next || completed.contains(index) || failed.contains(index) {
                continue;
            }
            let other = last.entry(index).or_insert(pod);
            if all_failures(pod) > all_failures(other) {
                *other = pod;
            }
        }
        Some(PerIndex { failed, last })
    }

    pub fn is_awaiting_replacement(&self, pod: &Pod) -> bool {
        let index = index_of(pod).and_then(|index| self.last.get(&index));
        index.is_some_and(|last| uid(last) == uid(pod))
    }

    /// How the Job ends by what failed.
    pub fn end(&self, spec: &JobSpec, succeeded: i32, completions: i32) -> Option<End> {
        let failed = self.failed.len();
        let (reason, message) = if spec.max_failed_indexes.is_some_and(|most| failed > most) {
            ("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
        } else if failed > 0 && failed + succeeded >= completions {
            ("FailedIndexes", "Job has failed indexes")
        } else {
            return None;
        };
        Some(End::Failed { reason: reason.to_owned(), message: message.to_owned() })
    }

    /// How long no pod of this index is made yet.
    pub fn backoff(&self, index: i32, now: Timestamp) -> Option<SignedDuration> {
        let last = self.last.get(&index)?;
        let failures = usize::try_from(all_failures(last)).unwrap_or(0).saturating_add(1);
        pause(failures, failure::ended(last, now), now)
    }

    /// Writes on the next pod of an index how often those before it failed.
    pub fn count_failures(&self, spec: &JobSpec, index: i32, pod: &mut Pod) {
        let (mut failures, mut ignored) = (0, 0);
        if let Some(last) = self.last.get(&index) {
            (failures, ignored) = (number(last, FAILURES), number(last, IGNORED));
            match failure::judge(spec, last) {
                Verdict::Ignored => ignored = ignored.saturating_add(1),
                _ => failures = failures.saturating_add(1),
            }
        }
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
}
