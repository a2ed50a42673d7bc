//! What a Job does next: which pods it makes and removes, what it counts, and when it is over (`pkg/controller/job`).
//!
//! Pods are counted exactly once, also where a controller dies in between: each carries the finalizer [`TRACKING`] until
//! its end stands in the status. A finished pod's uid is first written into `uncountedTerminatedPods`, then its
//! finalizer is taken away, and only then the counter grows and the uid goes.

mod failure;
mod index;
mod make;
mod manage;
mod per_index;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Note, is_active, is_ready};
use failure::Verdict;
use index::{Indexes, index_of};
use per_index::PerIndex;

/// The finalizer of a pod whose end is not counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The annotation, and label, of a pod of an Indexed Job.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// No more uids than this wait in a status to be counted.
const UNCOUNTED: usize = 500;
/// Who manages Jobs that name nobody else.
const MANAGER: &str = "kubernetes.io/job-controller";

/// What to do, in this order: pods are made and deleted, the status is written, and then pods are let go.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub create: Vec<Pod>,
    /// Names of pods. Their end will be counted.
    pub delete: Vec<String>,
    /// Names of pods that are not wanted any more, whatever becomes of them: they lose the finalizer [`TRACKING`] and are
    /// deleted.
    pub dismiss: Vec<String>,
    pub status: JobStatus,
    /// Names of pods whose end the status knows: they lose the finalizer [`TRACKING`].
    pub untrack: Vec<String>,
    pub notes: Vec<Note>,
    /// When to look again though nothing has changed.
    pub recheck: Option<SignedDuration>,
    /// It is over for longer than `ttlSecondsAfterFinished`, and is to be deleted.
    pub expired: bool,
}

impl Plan {
    fn recheck(&mut self, left: SignedDuration) {
        self.recheck = Some(self.recheck.map_or(left, |other| other.min(left)));
    }
}

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Complete { reason: String, message: String },
    Failed { reason: String, message: String },
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// How a Job that is over ended: Complete or Failed.
pub fn end(job: &Job) -> Option<&'static str> {
    let status = job.status.as_ref()?;
    ["Complete", "Failed"].into_iter().find(|kind| condition(status, kind).is_some())
}

pub fn is_over(job: &Job) -> bool {
    end(job).is_some()
}

/// Whether it is another controller's to see to (`spec.managedBy`).
pub fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn is_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

/// A pod that is being deleted counts as failed at once, or (`podReplacementPolicy: Failed`) when it has ended.
fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    if phase(pod) == "Failed" {
        return true;
    }
    let going = pod.metadata.deletion_timestamp.is_some() && !is_succeeded(pod);
    // Nobody is left who could end it in good order.
    let at_once = pod.metadata.deletion_grace_period_seconds == Some(0);
    going && (at_once || spec.pod_replacement_policy.as_deref() != Some("Failed"))
}

/// The index of a pod of an Indexed Job, if the Job has such a one.
fn valid_index(spec: &JobSpec, pod: &Pod) -> Option<i32> {
    index_of(pod).filter(|index| *index < spec.completions.unwrap_or(0))
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !super::is_finished(pod)
}

/// The job in hand, with its pods sorted out.
struct Look<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: Vec<&'a Pod>,
    active: Vec<&'a Pod>,
    now: Timestamp,
    completed: Indexes,
    /// Where failures are counted by index (`backoffLimitPerIndex`).
    per_index: Option<PerIndex<'a>>,
    status: JobStatus,
    plan: Plan,
}

/// `pods`: those the Job controls. `owner`: the reference to it that its pods carry.
pub fn plan<P: Borrow<Pod>>(job: &Job, pods: &[P], owner: &OwnerReference, now: Timestamp) -> Plan {
    let status = job.status.clone().unwrap_or_default();
    let Some(spec) = &job.spec else { return Plan { status, ..Plan::default() } };
    let pods: Vec<&Pod> = pods.iter().map(Borrow::borrow).collect();
    let is_ours = !is_managed_elsewhere(job);
    if is_over(job) || !is_ours {
        let tracked = pods.iter().filter(|pod| is_ours && is_tracked(pod));
        let untrack = tracked.map(|pod| name(pod)).collect();
        let mut plan = Plan { untrack, status, ..Plan::default() };
        outlived(job, spec, &mut plan, now);
        return plan;
    }
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| is_active(pod)).collect();
    let below = spec.completions.unwrap_or(i32::MAX);
    let mut completed = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), below);
    if is_indexed(spec) {
        let succeeded = pods.iter().filter(|pod| is_tracked(pod) && is_succeeded(pod));
        succeeded.filter_map(|pod| valid_index(spec, pod)).for_each(|index| completed.insert(index));
    }
    let per_index = PerIndex::look(spec, &status, &pods, &active, &completed);
    let plan = Plan::default();
    let mut look = Look { job, spec, pods, active, now, completed, per_index, status, plan };
    look.decide(owner);
    look.plan.status = look.status;
    look.plan
}

/// The Job for the second look of a step, after its pods were ended: that it fails is decided, and what it ended itself is not
/// to be taken for failures of theirs.
pub fn after(job: &Job, first: &JobStatus) -> Job {
    let mut job = job.clone();
    let status = job.status.get_or_insert_default();
    if let (Some(target), None) = (condition(first, "FailureTarget"), condition(status, "FailureTarget")) {
        status.conditions.get_or_insert_default().push(target.clone());
    }
    job
}

/// What is over may be deleted after a while (`pkg/controller/ttlafterfinished`).
fn outlived(job: &Job, spec: &JobSpec, plan: &mut Plan, now: Timestamp) {
    let Some(ttl) = spec.ttl_seconds_after_finished else { return };
    let ended = plan.status.conditions.iter().flatten();
    let ended = ended.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let Some(at) = ended.filter_map(|c| c.last_transition_time.as_ref()).next_back() else { return };
    let left = SignedDuration::from_secs(i64::from(ttl)) - now.duration_since(at.0);
    if left.is_positive() {
        plan.recheck(left);
    } else {
        plan.expired = job.metadata.deletion_timestamp.is_none();
    }
}

impl Look<'_> {
    fn decide(&mut self, owner: &OwnerReference) {
        let is_suspended = self.spec.suspend == Some(true);
        if self.status.start_time.is_none() && !is_suspended {
            self.status.start_time = Some(Time(self.now));
        }
        let begun = self.begun_end();
        let failure = self.failed_by_policy();
        let (succeeded, failed) = self.count(begun.as_ref());
        let mut end = begun.or(failure).or_else(|| self.failed_end(failed, is_suspended));
        if end.is_none() && is_indexed(self.spec) {
            let completions = self.spec.completions.unwrap_or(0);
            let by_index = self.per_index.as_ref();
            let failed = by_index.and_then(|all| all.end(self.spec, succeeded, completions));
            end = failed.or_else(|| self.success_policy());
        }
        if end.is_none() && self.is_complete(succeeded) {
            let message = "Reached expected number of succeeded pods".to_owned();
            end = Some(End::Complete { reason: "CompletionsReached".to_owned(), message });
        }
        match end {
            Some(end) => self.finish(end),
            None if self.job.metadata.deletion_timestamp.is_none() => {
                self.suspension(is_suspended);
                self.manage(is_suspended, succeeded, owner);
            }
            None => {}
        }
        let terminating = self.pods.iter().filter(|pod| is_terminating(pod)).count();
        let ready = self.active.iter().filter(|pod| is_ready(pod)).count();
        self.status.active = (!self.active.is_empty()).then_some(self.active.len() as i32);
        self.status.ready = Some(ready as i32);
        self.status.terminating = Some(terminating as i32);
    }

    /// Moves what finished on its way into the counters. How many have succeeded and failed by now, counted or not.
    fn count(&mut self, begun: Option<&End>) -> (i32, i32) {
        let (spec, indexed) = (self.spec, is_indexed(self.spec));
        let per_index = self.per_index.take();
        // A Job that has failed waits for no pod's end to count it.
        let fails = |pod: &Pod| {
            let is_ended =
                matches!(begun, Some(End::Failed { .. })) && pod.metadata.deletion_timestamp.is_some();
            is_failed(spec, pod) || is_ended
        };
        let is_going = begun.is_some() || self.job.metadata.deletion_timestamp.is_some();
        let waits =
            |pod: &Pod| !is_going && per_index.as_ref().is_some_and(|all| all.is_awaiting_replacement(pod));
        let waiting = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let tracked: BTreeSet<&str> =
            self.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(pod)).collect();
        let flush = |uids: Option<Vec<String>>| -> (i32, Vec<String>) {
            let all = uids.unwrap_or_default();
            let before = all.len();
            let left: Vec<String> = all.into_iter().filter(|uid| tracked.contains(uid.as_str())).collect();
            ((before - left.len()) as i32, left)
        };
        let (counted_ok, mut ok) = flush(waiting.succeeded);
        let (counted_bad, mut bad) = flush(waiting.failed);
        let (mut more_ok, mut more_bad) = (0, 0);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            if ok.iter().chain(&bad).any(|known| known == uid(pod)) {
                self.plan.untrack.push(name(pod));
            } else if is_succeeded(pod) {
                if indexed {
                    // The set of indexes counts each once by itself.
                } else if ok.len() + bad.len() < UNCOUNTED {
                    ok.push(uid(pod).to_owned());
                } else {
                    more_ok += 1;
                    continue;
                }
                self.plan.untrack.push(name(pod));
            } else if fails(pod) {
                let is_ignored = matches!(failure::judge(self.spec, pod), Verdict::Ignored);
                if waits(pod) {
                    more_bad += i32::from(!is_ignored);
                } else if is_ignored || indexed && valid_index(self.spec, pod).is_none() {
                    self.plan.untrack.push(name(pod));
                } else if ok.len() + bad.len() < UNCOUNTED {
                    bad.push(uid(pod).to_owned());
                    self.plan.untrack.push(name(pod));
                } else {
                    more_bad += 1;
                }
            }
        }
        let add = |counter: &mut Option<i32>, more: i32| {
            let sum = counter.unwrap_or(0) + more;
            *counter = (sum > 0).then_some(sum);
            sum
        };
        let mut succeeded = add(&mut self.status.succeeded, counted_ok) + ok.len() as i32 + more_ok;
        let failed = add(&mut self.status.failed, counted_bad) + bad.len() as i32 + more_bad;
        if indexed {
            succeeded = self.completed.len();
            self.status.succeeded = (succeeded > 0).then_some(succeeded);
            self.status.completed_indexes = (succeeded > 0).then(|| self.completed.to_string());
            self.status.failed_indexes = per_index.as_ref().map(|all| all.failed.to_string());
        }
        self.per_index = per_index;
        let some = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
        self.status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: some(ok), failed: some(bad) });
        (succeeded, failed)
    }

    /// An end that was decided before: its pods may still be ending.
    fn begun_end(&self) -> Option<End> {
        let said =
            |c: &JobCondition| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
        if let Some((reason, message)) = condition(&self.status, "FailureTarget").map(said) {
            return Some(End::Failed { reason, message });
        }
        let (reason, message) = condition(&self.status, "SuccessCriteriaMet").map(said)?;
        Some(End::Complete { reason, message })
    }

    /// A failed pod that the policy does not forgive.
    fn failed_by_policy(&self) -> Option<End> {
        let failed = self.pods.iter().filter(|pod| is_tracked(pod) && is_failed(self.spec, pod));
        failed.into_iter().find_map(|pod| match failure::judge(self.spec, pod) {
            Verdict::FailsJob(message) => {
                Some(End::Failed { reason: "PodFailurePolicy".to_owned(), message })
            }
            _ => None,
        })
    }

    fn failed_end(&mut self, failed: i32, is_suspended: bool) -> Option<End> {
        let failed_with = |reason: &str, message: &str| {
            Some(End::Failed { reason: reason.to_owned(), message: message.to_owned() })
        };
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if failed > limit || self.restarts_exceed(limit) {
            return failed_with("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let (Some(deadline), Some(start)) = (self.spec.active_deadline_seconds, &self.status.start_time)
        else {
            return None;
        };
        if is_suspended {
            return None;
        }
        let left = SignedDuration::from_secs(deadline) - self.now.duration_since(start.0);
        if left.is_positive() {
            self.plan.recheck(left);
            return None;
        }
        failed_with("DeadlineExceeded", "Job was active longer than specified deadline")
    }

    /// Containers that are started again in their pods (`restartPolicy: OnFailure`) count too.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        let restarts: i32 = running
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten())
            .map(|container| container.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// The first rule whose indexes have succeeded.
    fn success_policy(&self) -> Option<End> {
        let rules = &self.spec.success_policy.as_ref()?.rules;
        let at = rules.iter().position(|rule| {
            let of = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, i32::MAX));
            let done = self.completed.common(of.as_ref());
            let wanted = match (rule.succeeded_count, &of) {
                (Some(count), _) => count,
                (None, Some(of)) => of.len(),
                (None, None) => return false,
            };
            done >= wanted
        })?;
        let message = format!("Matched rules at index {at}");
        Some(End::Complete { reason: "SuccessPolicy".to_owned(), message })
    }

    /// Without `completions` one success is enough, and all pods have to end by themselves.
    fn is_complete(&self, succeeded: i32) -> bool {
        match self.spec.completions {
            None => succeeded > 0 && self.active.is_empty(),
            Some(completions) => succeeded >= completions,
        }
    }

    /// Ends what runs; the Job is over when nothing runs any more and everything is counted.
    fn finish(&mut self, end: End) {
        let (target, last, reason, message) = match &end {
            End::Complete { reason, message } => ("SuccessCriteriaMet", "Complete", reason, message),
            End::Failed { reason, message } => ("FailureTarget", "Failed", reason, message),
        };
        self.set_condition(target, "True", reason, message);
        let active = self.active.iter().map(|pod| name(pod)).collect();
        match end {
            // What others have achieved makes nobody's failure of what is ended now.
            End::Complete { .. } => self.plan.dismiss = active,
            End::Failed { .. } => self.plan.delete = active,
        }
        let waiting = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let is_counted = waiting.succeeded.is_none() && waiting.failed.is_none();
        let seen: BTreeSet<&String> = self.plan.untrack.iter().collect();
        let is_all_seen =
            !self.pods.iter().any(|pod| is_terminating(pod) || is_tracked(pod) && !seen.contains(&name(pod)));
        if !self.active.is_empty() || !is_counted || !is_all_seen {
            return;
        }
        self.set_condition(last, "True", reason, message);
        match end {
            End::Complete { .. } => {
                self.status.completion_time = Some(Time(self.now));
                if self.spec.completions.is_some_and(|wanted| self.status.succeeded > Some(wanted)) {
                    let message = "Too many succeeded pods running after completion count reached";
                    self.plan.notes.push(Note::warning("TooManySucceededPods", message.to_owned()));
                }
                self.plan.notes.push(Note::normal("Completed", "Job completed".to_owned()));
            }
            End::Failed { reason, message } => {
                self.plan.notes.push(Note { reason: failure::reason(&reason), message, warning: true });
            }
        }
        // A Job that was not there for long enough to be seen by this look's end is seen by the next.
        if let Some(ttl) = self.spec.ttl_seconds_after_finished {
            self.plan.recheck(SignedDuration::from_secs(i64::from(ttl)));
        }
    }

    fn suspension(&mut self, is_suspended: bool) {
        let was = condition(&self.status, "Suspended").is_some();
        if is_suspended && !was {
            self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
            self.plan.notes.push(Note::normal("Suspended", "Job suspended".to_owned()));
        } else if was && !is_suspended {
            self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
            self.plan.notes.push(Note::normal("Resumed", "Job resumed".to_owned()));
            // Its deadline begins anew.
            self.status.start_time = Some(Time(self.now));
        }
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        let same = |c: &JobCondition| c.type_ == kind;
        if conditions.iter().any(|c| same(c) && c.status == status && c.reason.as_deref() == Some(reason)) {
            return;
        }
        let new = JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        match conditions.iter_mut().find(|c| same(c)) {
            Some(there) => *there = new,
            None => conditions.push(new),
        }
    }
}
