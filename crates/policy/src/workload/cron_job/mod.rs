//! What a CronJob does next: which Job it starts, which it replaces or forgets, and when it looks again
//! (`pkg/controller/cronjob`, `cronjob_controllerv2.go`). When its schedule comes is somebody else's to say: a
//! [`Timetable`] is handed in.

mod due;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Note, job};
pub use due::wake;

/// The annotation of a Job that says which run it is.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// When a schedule comes.
pub struct Timetable<'a> {
    /// The first moment after another; None: never again.
    pub next: &'a (dyn Fn(Timestamp) -> Option<Timestamp> + Send + Sync),
    /// `spec.timeZone`, else UTC: in it a run is written down.
    pub zone: TimeZone,
}

/// What to do. The Jobs of `run` come first, then the status is written.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub run: Option<Run>,
    pub status: CronJobStatus,
    pub notes: Vec<Note>,
    /// When to look again though nothing has changed.
    pub wake: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct Run {
    /// Names of Jobs that are deleted before, because this one takes their place.
    pub replace: Vec<String>,
    pub job: Job,
    pub at: Timestamp,
}

fn uid(job: &Job) -> &str {
    job.metadata.uid.as_deref().unwrap_or_default()
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn position(status: &CronJobStatus, uid: &str) -> Option<usize> {
    status.active.iter().flatten().position(|active| active.uid.as_deref() == Some(uid))
}

/// Takes a Job out of those that run.
pub fn ended(status: &mut CronJobStatus, uid: &str) {
    if let (Some(at), Some(active)) = (position(status, uid), &mut status.active) {
        active.remove(at);
    }
    status.active.take_if(|active| active.is_empty());
}

/// Writes down that a Job was started.
pub fn started(status: &mut CronJobStatus, job: ObjectReference, at: Timestamp) {
    status.active.get_or_insert_default().push(job);
    status.last_schedule_time = Some(Time(at));
}

/// What has ended longest ago, beyond what `successfulJobsHistoryLimit` and `failedJobsHistoryLimit` keep.
pub fn outlived<'a, P: Borrow<Job>>(cron_job: &CronJob, jobs: &'a [P]) -> Vec<&'a Job> {
    let Some(spec) = &cron_job.spec else { return Vec::new() };
    let mut all = Vec::new();
    for (kind, limit) in
        [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit else { continue };
        let mut ended: Vec<&Job> =
            jobs.iter().map(Borrow::borrow).filter(|one| job::end(one) == Some(kind)).collect();
        let start = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|at| at.0);
        ended.sort_by_key(|job| (start(job).is_none(), start(job), name(&job.metadata).to_owned()));
        let too_many = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        all.extend(ended.into_iter().take(too_many));
    }
    all
}

/// `jobs`: those the CronJob controls; `forgotten`: the uids of those of them that were just deleted. `timetable`: or why
/// there is none.
pub fn plan<P: Borrow<Job>>(
    cron_job: &CronJob,
    jobs: &[P],
    forgotten: &BTreeSet<String>,
    timetable: Result<Timetable<'_>, Note>,
    owner: OwnerReference,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Plan::default() };
    for gone in forgotten {
        ended(&mut plan.status, gone);
    }
    plan.take_in(jobs);
    let Some(spec) = &cron_job.spec else { return plan };
    if cron_job.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    match timetable {
        Err(why) => plan.notes.push(why),
        Ok(_) if spec.suspend == Some(true) => {}
        Ok(timetable) => plan.decide(cron_job, spec, &timetable, owner, now),
    }
    plan
}

impl Plan {
    /// What became of the Jobs.
    fn take_in<P: Borrow<Job>>(&mut self, jobs: &[P]) {
        let mut there = BTreeSet::new();
        for one in jobs.iter().map(Borrow::borrow) {
            there.insert(uid(one));
            let is_known = position(&self.status, uid(one)).is_some();
            let Some(end) = job::end(one) else {
                if !is_known {
                    let of = name(&one.metadata);
                    let message = format!("Saw a job that the controller did not create or forgot: {of}");
                    self.notes.push(Note::warning("UnexpectedJob", message));
                }
                continue;
            };
            if is_known {
                ended(&mut self.status, uid(one));
                let message = format!("Saw completed job: {}, condition: {end}", name(&one.metadata));
                self.notes.push(Note::normal("SawCompletedJob", message));
            }
            let completed = one.status.as_ref().and_then(|status| status.completion_time.as_ref());
            if end == "Complete" && self.status.last_successful_time.as_ref() < completed {
                self.status.last_successful_time = completed.cloned();
            }
        }
        let active = self.status.active.clone().unwrap_or_default();
        for gone in active.iter().filter(|one| !there.contains(one.uid.as_deref().unwrap_or_default())) {
            let of = gone.name.as_deref().unwrap_or_default();
            self.notes.push(Note::normal("MissingJob", format!("Active job went missing: {of}")));
            ended(&mut self.status, gone.uid.as_deref().unwrap_or_default());
        }
    }

    fn decide(
        &mut self,
        cron_job: &CronJob,
        spec: &CronJobSpec,
        timetable: &Timetable<'_>,
        owner: OwnerReference,
        now: Timestamp,
    ) {
        let unmet = match due::unmet(cron_job, &self.status, timetable, now) {
            Ok(unmet) => unmet,
            Err(why) => {
                let message = format!("invalid schedule: {} : {why}", spec.schedule);
                self.notes.push(Note::warning("InvalidSchedule", message));
                return;
            }
        };
        self.wake = wake(cron_job, &self.status, timetable, now);
        let Some(due::Unmet { at, many }) = unmet else { return };
        if many {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.notes.push(Note::warning("TooManyMissedTimes", message.to_owned()));
        }
        // The search leaves out what is too late; upstream asks again.
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| at.checked_add(deadline).is_ok_and(|until| until < now)) {
            let shown = at.strftime("%a, %d %b %Y %H:%M:%S %z");
            let message = format!("Missed scheduled time to start a job: {shown}");
            self.notes.push(Note::warning("MissSchedule", message));
            return;
        }
        let job = make(cron_job, spec, &timetable.zone, owner, at);
        let active = self.status.active.as_deref().unwrap_or_default();
        let is_started = active.iter().any(|active| active.name == job.metadata.name)
            || self.status.last_schedule_time.as_ref() == Some(&Time(at));
        if is_started {
            return;
        }
        let policy = spec.concurrency_policy.as_deref();
        if policy == Some("Forbid") && !active.is_empty() {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.notes.push(Note::normal("JobAlreadyActive", message.to_owned()));
            return;
        }
        let replaced = active.iter().filter(|_| policy == Some("Replace"));
        let replace = replaced.filter_map(|active| active.name.clone()).collect();
        self.run = Some(Run { replace, job, at });
    }
}

/// The Job of a run. Its name is the same whoever makes it, so that none is made twice.
fn make(
    cron_job: &CronJob,
    spec: &CronJobSpec,
    zone: &TimeZone,
    owner: OwnerReference,
    at: Timestamp,
) -> Job {
    let template = &spec.job_template;
    let given = template.metadata.clone().unwrap_or_default();
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), rfc3339(at, zone));
    let minutes = at.as_second().div_euclid(60);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{minutes}", name(&cron_job.metadata))),
            namespace: cron_job.metadata.namespace.clone(),
            labels: given.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// As Go prints it: no offset is a Z.
fn rfc3339(at: Timestamp, zone: &TimeZone) -> String {
    let shown = at.to_zoned(zone.clone());
    let format = if shown.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    shown.strftime(format).to_string()
}
