//! CronJobs, their Jobs and a clock; what is seen is what starts, what is said, and when the controller looks again.

use std::collections::BTreeSet;

use api::cron::Schedule;
use k8s_openapi::jiff::tz::{Offset, TimeZone};
use serde_json::{Value, json};

use super::*;

struct World {
    cron_job: CronJob,
    jobs: Vec<Job>,
    now: Timestamp,
    wake: Option<Timestamp>,
    zone: TimeZone,
    /// `Reason: message`
    notes: Vec<String>,
}

fn at(text: &str) -> Timestamp {
    format!("{text}Z").parse().expect("a moment")
}

impl World {
    /// Made on 1 January 2026.
    fn new(schedule: &str, more: Value) -> World {
        let mut spec = json!({ "schedule": schedule, "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": { "metadata": { "labels": { "a": "b" }, "annotations": { "c": "d" } },
                "spec": { "completions": 7, "template": { "spec": { "containers": [{ "name": "c" }] } } } } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = "2026-01-01T00:00:00Z";
        let metadata = json!({ "name": "c", "namespace": "n", "uid": "C", "creationTimestamp": made });
        World {
            cron_job: serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap(),
            jobs: Vec::new(),
            now: made.parse().unwrap(),
            wake: None,
            zone: TimeZone::UTC,
            notes: Vec::new(),
        }
    }

    /// One look, as the controller carries it out. The name of the Job it starts, if any.
    fn look(&mut self, now: &str) -> Option<String> {
        self.now = at(now);
        let forgotten: BTreeSet<String> =
            outlived(&self.cron_job, &self.jobs).into_iter().map(|job| uid(job).to_owned()).collect();
        let schedule = Schedule::parse(&self.cron_job.spec.as_ref().unwrap().schedule).unwrap();
        let offset = self.zone.to_offset(self.now).seconds();
        let next = |after: Timestamp| {
            let next = schedule.next(after.as_second(), |_| i64::from(offset))?;
            Timestamp::from_second(next).ok()
        };
        let timetable = Timetable { next: &next, zone: self.zone.clone() };
        let owner = OwnerReference { name: "c".to_owned(), ..OwnerReference::default() };
        let mut plan = plan(&self.cron_job, &self.jobs, &forgotten, Ok(timetable), owner, self.now);
        self.jobs.retain(|job| !forgotten.contains(uid(job)));
        self.notes =
            plan.notes.into_iter().map(|note| format!("{}: {}", note.reason, note.message)).collect();
        self.wake = plan.wake;
        let started = plan.run.take().map(|Run { replace, mut job, at }| {
            for gone in replace {
                self.jobs.retain(|job| job.metadata.name.as_ref() != Some(&gone));
                ended(&mut plan.status, &gone);
            }
            let of = job.metadata.name.clone().unwrap();
            job.metadata.uid = Some(of.clone());
            let reference =
                ObjectReference { name: Some(of.clone()), uid: Some(of.clone()), ..Default::default() };
            started(&mut plan.status, reference, at);
            self.jobs.push(job);
            of
        });
        self.cron_job.status = Some(plan.status);
        started
    }

    fn end(&mut self, name: &str, kind: &str, when: &str) {
        let job = self.jobs.iter_mut().find(|job| job.metadata.name.as_deref() == Some(name)).unwrap();
        let status = json!({ "startTime": format!("{when}Z"), "completionTime": (kind == "Complete").then(|| format!("{when}Z")),
            "conditions": [{ "type": kind, "status": "True" }] });
        job.status = Some(serde_json::from_value(status).unwrap());
    }

    fn active(&self) -> Vec<&str> {
        let status = self.cron_job.status.as_ref().unwrap();
        status.active.iter().flatten().filter_map(|active| active.name.as_deref()).collect()
    }

    fn last_schedule(&self) -> String {
        self.cron_job
            .status
            .as_ref()
            .unwrap()
            .last_schedule_time
            .as_ref()
            .map_or_else(String::new, |t| t.0.to_string())
    }
}

/// Minutes since 1970.
fn job_of(moment: &str) -> String {
    format!("c-{}", at(moment).as_second() / 60)
}

#[test]
fn a_job_starts_at_its_time_and_the_next_look_is_a_little_after_the_next_time() {
    let mut world = World::new("0 * * * *", json!({}));
    assert_eq!(world.look("2026-01-01T00:10:00"), None);
    assert_eq!(world.wake, Some(at("2026-01-01T01:00:00.1")));
    assert_eq!(world.look("2026-01-01T01:00:00.1"), Some(job_of("2026-01-01T01:00:00")));
    assert_eq!((world.active().len(), world.last_schedule()), (1, "2026-01-01T01:00:00Z".to_owned()));
    assert_eq!(world.wake, Some(at("2026-01-01T02:00:00.1")));
    assert_eq!(world.look("2026-01-01T01:00:00.2"), None, "once");
    assert_eq!(world.wake, Some(at("2026-01-01T02:00:00.1")));
    let job = &world.jobs[0];
    let labels = job.metadata.labels.as_ref().unwrap();
    assert_eq!((labels.len(), labels["a"].as_str()), (1, "b"));
    let annotations = job.metadata.annotations.as_ref().unwrap();
    assert_eq!((annotations["c"].as_str(), annotations[SCHEDULED].as_str()), ("d", "2026-01-01T01:00:00Z"));
    assert_eq!(
        (job.spec.as_ref().unwrap().completions, job.metadata.namespace.as_deref()),
        (Some(7), Some("n"))
    );
    assert_eq!(job.metadata.owner_references.as_ref().unwrap()[0].name, "c");
}

#[test]
fn a_run_is_written_down_in_the_zone_of_its_schedule() {
    let mut world = World::new("0 3 * * *", json!({}));
    world.zone = TimeZone::fixed(Offset::constant(5));
    assert_eq!(world.look("2026-01-01T22:00:00"), Some(job_of("2026-01-01T22:00:00")));
    let annotations = world.jobs[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[SCHEDULED], "2026-01-02T03:00:00+05:00");
}

#[test]
fn of_missed_runs_the_last_one_is_made_up_for() {
    for (schedule, now, want, many) in [
        ("0 * * * *", "2026-01-01T05:30:00", "2026-01-01T05:00:00", false),
        // A hundred hours.
        ("0 * * * *", "2026-01-05T04:59:00", "2026-01-05T04:00:00", false),
        ("0 * * * *", "2026-01-05T05:00:00", "2026-01-05T05:00:00", true),
        ("* * * * *", "2026-07-01T12:00:30", "2026-07-01T12:00:00", true),
        // Distances that differ.
        ("30 6-16/4 * * 1-5", "2026-01-05T12:00:00", "2026-01-05T10:30:00", false),
        ("0 9,17 * * *", "2026-01-03T18:00:00", "2026-01-03T17:00:00", false),
        ("@every 90m", "2026-01-02T00:10:00", "2026-01-02T00:00:00", false),
    ] {
        let mut world = World::new(schedule, json!({}));
        assert_eq!(world.look(now), Some(job_of(want)), "{schedule} at {now}");
        let said = "TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        assert_eq!(world.notes, if many { vec![said] } else { vec![] }, "{schedule} at {now}");
        assert!(world.wake.is_some_and(|wake| wake > world.now));
    }
    // Eight hours and sixteen: the guess is past the last run. Upstream passes it over.
    let mut world = World::new("0 9,17 * * *", json!({}));
    assert_eq!(world.look("2026-01-03T08:00:00"), None);
    assert_eq!(world.wake, Some(at("2026-01-03T09:00:00.1")));
}

#[test]
fn what_is_too_late_is_not_made_up_for() {
    let mut world = World::new("0 * * * *", json!({ "startingDeadlineSeconds": 60 }));
    assert_eq!(world.look("2026-01-01T05:00:59"), Some(job_of("2026-01-01T05:00:00")));
    assert_eq!(world.look("2026-01-01T06:01:00"), None);
    assert_eq!((world.notes.clone(), world.wake), (vec![], Some(at("2026-01-01T07:00:00.1"))));
    // Of the many that were missed, only those within the deadline are looked at.
    let mut world = World::new("* * * * *", json!({ "startingDeadlineSeconds": 200 }));
    assert_eq!(world.look("2026-06-01T00:00:30"), Some(job_of("2026-06-01T00:00:00")));
    assert_eq!(world.notes, [""; 0]);
}

#[test]
fn runs_that_overlap_are_allowed_forbidden_or_replaced() {
    let (first, second) = (job_of("2026-01-01T01:00:00"), job_of("2026-01-01T02:00:00"));
    let start = |policy: &str| {
        let mut world = World::new("0 * * * *", json!({ "concurrencyPolicy": policy }));
        world.look("2026-01-01T01:00:00.1");
        let started = world.look("2026-01-01T02:00:00.1");
        (world, started)
    };
    let (world, started) = start("Allow");
    assert_eq!((started, world.active()), (Some(second.clone()), vec![first.as_str(), second.as_str()]));

    let (world, started) = start("Replace");
    assert_eq!((started, world.active()), (Some(second.clone()), vec![second.as_str()]));

    let (mut world, started) = start("Forbid");
    assert_eq!((started, world.active()), (None, vec![first.as_str()]));
    assert_eq!(
        world.notes,
        [
            "JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid"
        ]
    );
    assert_eq!(world.wake, Some(at("2026-01-01T03:00:00.1")));
    // When the other has ended, the run that waited for it starts late.
    world.end(&first, "Complete", "2026-01-01T02:20:00");
    assert_eq!(world.look("2026-01-01T02:20:00"), Some(second));
    assert_eq!(world.notes, [format!("SawCompletedJob: Saw completed job: {first}, condition: Complete")]);
}

#[test]
fn a_suspended_one_starts_nothing_and_still_sees_what_ends() {
    let mut world = World::new("0 * * * *", json!({}));
    let job = world.look("2026-01-01T01:00:00.1").unwrap();
    world.cron_job.spec.as_mut().unwrap().suspend = Some(true);
    assert_eq!((world.look("2026-01-01T02:30:00"), world.wake), (None, None));
    world.end(&job, "Failed", "2026-01-01T02:40:00");
    world.look("2026-01-01T02:40:00");
    assert_eq!(world.notes, [format!("SawCompletedJob: Saw completed job: {job}, condition: Failed")]);
    assert!(world.active().is_empty());
    world.cron_job.spec.as_mut().unwrap().suspend = Some(false);
    assert_eq!(world.look("2026-01-01T03:30:00"), Some(job_of("2026-01-01T03:00:00")));
}

#[test]
fn one_that_is_deleted_starts_nothing() {
    let mut world = World::new("0 * * * *", json!({}));
    world.cron_job.metadata.deletion_timestamp = Some(Time(at("2026-01-01T00:30:00")));
    assert_eq!((world.look("2026-01-01T01:00:00.1"), world.wake), (None, None));
}

#[test]
fn a_schedule_that_never_comes_is_said_to_be_invalid() {
    let mut world = World::new("59 23 31 2 *", json!({}));
    assert_eq!((world.look("2026-01-01T01:00:00"), world.wake), (None, None));
    assert_eq!(
        world.notes,
        [
            "InvalidSchedule: invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second"
        ]
    );
}

#[test]
fn what_ended_is_kept_up_to_a_limit_the_oldest_goes_first() {
    let mut world = World::new("0 * * * *", json!({ "successfulJobsHistoryLimit": 2 }));
    for hour in 1..=6 {
        let job = world.look(&format!("2026-01-01T0{hour}:00:00.1")).unwrap();
        let kind = if hour % 2 == 0 { "Failed" } else { "Complete" };
        world.end(&job, kind, &format!("2026-01-01T0{hour}:10:00"));
        world.look(&format!("2026-01-01T0{hour}:10:00"));
    }
    let left: Vec<&str> = world.jobs.iter().filter_map(|job| job.metadata.name.as_deref()).collect();
    assert_eq!(left, [3, 5, 6].map(|hour| job_of(&format!("2026-01-01T0{hour}:00:00"))));
    let last = world.cron_job.status.as_ref().unwrap().last_successful_time.as_ref().map(|t| t.0);
    assert_eq!(last, Some(at("2026-01-01T05:10:00")));
    // None is kept: it is seen no more when it has ended, but its success is.
    let mut world = World::new("0 * * * *", json!({ "successfulJobsHistoryLimit": 0 }));
    let job = world.look("2026-01-01T01:00:00.1").unwrap();
    world.end(&job, "Complete", "2026-01-01T01:10:00");
    world.look("2026-01-01T01:10:00");
    assert!(world.jobs.is_empty() && world.active().is_empty());
    assert_eq!(world.notes, [""; 0]);
    let last = world.cron_job.status.as_ref().unwrap().last_successful_time.as_ref().map(|t| t.0);
    assert_eq!(last, Some(at("2026-01-01T01:10:00")));
}

#[test]
fn a_job_that_is_gone_or_that_nobody_knows_is_spoken_of() {
    let mut world = World::new("0 * * * *", json!({}));
    let job = world.look("2026-01-01T01:00:00.1").unwrap();
    let mut strange = world.jobs.remove(0);
    strange.metadata.name = Some("by-hand".to_owned());
    strange.metadata.uid = Some("H".to_owned());
    world.jobs.push(strange);
    world.look("2026-01-01T01:00:01");
    assert_eq!(
        world.notes,
        [
            "UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand".to_owned(),
            format!("MissingJob: Active job went missing: {job}"),
        ]
    );
    assert!(world.active().is_empty());
    assert_eq!(world.last_schedule(), "2026-01-01T01:00:00Z", "it is not made again");
}

#[test]
fn within_a_minute_a_job_has_one_name() {
    let mut world = World::new("@every 10s", json!({}));
    let job = world.look("2026-01-01T00:00:10.1").unwrap();
    assert_eq!(job, job_of("2026-01-01T00:00:00"));
    assert_eq!(world.look("2026-01-01T00:00:20.1"), None);
    assert_eq!(world.wake, Some(at("2026-01-01T00:00:30.1")));
    assert_eq!(world.look("2026-01-01T00:01:00.1"), Some(job_of("2026-01-01T00:01:00")));
}
