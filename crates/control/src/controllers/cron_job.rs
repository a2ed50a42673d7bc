//! Carries out what CronJobs ask for: starts their Jobs, replaces and forgets them (`pkg/controller/cronjob`). What to do is
//! [`policy::workload::cron_job`]'s to say.

use std::collections::BTreeSet;
use std::time::Duration;

use api::cron::Schedule;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Resource as _;
use kube::api::{Api, PostParams, PropagationPolicy};
use policy::workload::Note;
use policy::workload::cron_job::{self, Plan, Run, Timetable};

use super::adoption::owner_reference;
use super::cache::{Change, Key, controller_of, key_of};
use super::deployment::exactly;
use super::recorder::{Recorder, reference};
use super::{Error, World, gone_is_fine};
use crate::time_zones;

/// A schedule, and where its hours are counted.
struct Timed {
    schedule: Schedule,
    /// Of `spec.timeZone`.
    named: Option<TimeZone>,
    /// That, or what the machine's clocks are set to.
    zone: TimeZone,
}

impl Timed {
    fn of(world: &World, cron_job: &CronJob) -> Result<Timed, Note> {
        let Some(spec) = &cron_job.spec else { return Err(unparseable("", &api::cron::Error::Empty)) };
        let named = spec.time_zone.as_deref().map(|name| {
            time_zones::load(name).map_err(|why| Note {
                reason: "UnknownTimeZone",
                message: format!("invalid timeZone: {name:?}: {why}"),
                warning: true,
            })
        });
        let named = named.transpose()?;
        let schedule = Schedule::parse(&spec.schedule).map_err(|why| unparseable(&spec.schedule, &why))?;
        Ok(Timed { schedule, zone: named.clone().unwrap_or_else(|| world.clock.zone()), named })
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let offset = |second: i64| {
            Timestamp::from_second(second).map_or(0, |at| i64::from(self.zone.to_offset(at).seconds()))
        };
        // A moment with a part of a second is after the second's beginning, whatever the sign.
        let after = after.as_nanosecond().div_euclid(1_000_000_000);
        Timestamp::from_second(self.schedule.next(i64::try_from(after).ok()?, offset)?).ok()
    }
}

fn unparseable(schedule: &str, why: &api::cron::Error) -> Note {
    let message = format!("unparseable schedule: {schedule:?} : {why}");
    Note { reason: "UnparseableSchedule", message, warning: true }
}

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(cron_job) = world.cron_jobs.get(&key) else {
        world.cron_job_alarms.set(key, None);
        return Ok(None);
    };
    let work = Work { world, recorder: world.recorder.of("cronjob-controller", &world.clients.cron_job) };
    let jobs = world.jobs.owned_by(cron_job.metadata.uid.as_deref().unwrap_or_default());
    let mut forgotten = BTreeSet::new();
    for job in cron_job::outlived(&cron_job, &jobs) {
        // What cannot be deleted now is tried again with the next change; it is in nobody's way.
        if work.delete(&cron_job, job).await.is_ok() {
            forgotten.extend(job.metadata.uid.clone());
        }
    }
    let timed = Timed::of(world, &cron_job);
    let next;
    let timetable = match &timed {
        Ok(timed) => {
            next = |after| timed.next(after);
            Ok(Timetable { next: &next, zone: timed.named.clone().unwrap_or(TimeZone::UTC) })
        }
        Err(note) => Err(note.clone()),
    };
    let owner = owner_reference(&*cron_job);
    let now = world.clock.now();
    let Plan { run, mut status, notes, wake } =
        cron_job::plan(&cron_job, &jobs, &forgotten, timetable, owner, now);
    world.cron_job_alarms.set(key.clone(), wake);
    if let Some(now) = world.cron_jobs.get(&key) {
        // It may say something else by now.
        reschedule(world, &cron_job, &now);
    }
    for note in notes {
        if note.warning {
            work.recorder.warning(&*cron_job, note.reason, note.message);
        } else {
            work.recorder.normal(&*cron_job, note.reason, note.message);
        }
    }
    let done = match run {
        Some(run) => work.start(&cron_job, run, &mut status).await,
        None => Ok(()),
    };
    if cron_job.status.as_ref().unwrap_or(&Default::default()) != &status {
        let api: Api<CronJob> = Api::namespaced(world.clients.cron_job.clone(), &key.0);
        let mut next = (*cron_job).clone();
        next.status = Some(status);
        match api.replace_status(&key.1, &PostParams::default(), &next).await {
            // Somebody wrote it meanwhile: the watch brings that, and with it the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            answer => {
                if let Some(cron_job) = gone_is_fine(answer)? {
                    world.saw(cron_job);
                }
            }
        }
    }
    done.map(|()| None)
}

/// Another schedule says when to look; what else changed is looked at at once.
pub(super) fn changed(world: &World, change: &Change<CronJob>) {
    if let Change { old: Some(old), new: Some(new) } = change
        && reschedule(world, old, new)
    {
        return;
    }
    for one in [&change.old, &change.new].into_iter().flatten() {
        world.cron_job_queue.add(key_of(&one.metadata));
    }
}

/// Sets the alarm by another schedule. False: it is the same, or there is something to be said about it.
fn reschedule(world: &World, was: &CronJob, is: &CronJob) -> bool {
    let schedule =
        |of: &CronJob| of.spec.as_ref().map(|spec| (spec.schedule.clone(), spec.time_zone.clone()));
    if schedule(was) == schedule(is) {
        return false;
    }
    let Ok(timed) = Timed::of(world, is) else { return false };
    let next = |after| timed.next(after);
    let timetable = Timetable { next: &next, zone: TimeZone::UTC };
    let status = is.status.clone().unwrap_or_default();
    let wake = cron_job::wake(is, &status, &timetable, world.clock.now());
    world.cron_job_alarms.set(key_of(&is.metadata), wake);
    true
}

/// A Job of it changed.
pub(super) fn job_changed(world: &World, change: &Change<Job>) {
    for job in [&change.old, &change.new].into_iter().flatten() {
        if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == CronJob::kind(&())) {
            let key = (key_of(&job.metadata).0, owner.name.clone());
            let cron_job = world.cron_jobs.get(&key);
            if cron_job.is_some_and(|one| one.metadata.uid.as_ref() == Some(&owner.uid)) {
                world.cron_job_queue.add(key);
            }
        }
    }
}

struct Work<'a> {
    world: &'a World,
    recorder: Recorder,
}

impl Work<'_> {
    fn jobs(&self, cron_job: &CronJob) -> Api<Job> {
        let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.world.clients.cron_job.clone(), namespace)
    }

    /// With its pods.
    async fn delete(&self, cron_job: &CronJob, job: &Job) -> Result<(), Error> {
        let mut params = exactly(job.metadata.uid.as_ref());
        params.propagation_policy = Some(PropagationPolicy::Background);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        match gone_is_fine(self.jobs(cron_job).delete(name, &params).await) {
            Ok(answer) => {
                match answer.and_then(|answer| answer.left()) {
                    Some(job) if job.metadata.deletion_timestamp.is_some() => self.world.saw(job),
                    _ => self.world.lost::<Job>(&job.metadata),
                }
                self.recorder.normal(cron_job, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) => {
                self.recorder.warning(cron_job, "FailedDelete", format!("Deleted job: {}", said(&error)));
                Err(error)
            }
        }
    }

    async fn start(
        &self,
        cron_job: &CronJob,
        run: Run,
        status: &mut k8s_openapi::api::batch::v1::CronJobStatus,
    ) -> Result<(), Error> {
        let Run { replace, job, at } = run;
        let namespace = job.metadata.namespace.clone().unwrap_or_default();
        for name in replace {
            if let Some(old) = self.world.jobs.get(&(namespace.clone(), name)) {
                self.delete(cron_job, &old).await?;
                cron_job::ended(status, old.metadata.uid.as_deref().unwrap_or_default());
            }
        }
        let api = self.jobs(cron_job);
        let job = match api.create(&PostParams::default(), &job).await {
            Ok(job) => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                self.recorder.normal(cron_job, "SuccessfulCreate", format!("Created job {name}"));
                job
            }
            // Made before, by this one unless the owner says otherwise, which then could not write it down.
            Err(kube::Error::Api(refused)) if refused.reason == "AlreadyExists" => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                let there = api.get(name).await?;
                let owner = controller_of(&there.metadata).map(|owner| &owner.uid);
                if owner != cron_job.metadata.uid.as_ref() {
                    return Ok(());
                }
                there
            }
            // Nothing can be made there any more.
            Err(_) if self.world.namespace_is_going(&namespace) => return Ok(()),
            Err(error) => {
                let error = Error::from(error);
                let message = format!("Error creating job: {}", said(&error));
                self.recorder.warning(cron_job, "FailedCreate", message);
                return Err(error);
            }
        };
        cron_job::started(status, reference(&job), at);
        self.world.saw(job);
        Ok(())
    }
}

fn said(error: &Error) -> String {
    match error {
        Error::Api(kube::Error::Api(status)) => status.message.clone(),
        other => other.to_string(),
    }
}
