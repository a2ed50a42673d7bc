//! Which run of a schedule is due, and when the next one is.

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Timetable;

/// With more missed runs than this, clocks are suspected.
const MANY: i64 = 100;
/// A run is looked at so much after its moment, since clocks differ a little.
const DELTA: SignedDuration = SignedDuration::from_millis(100);

/// A run that has not been started.
pub struct Unmet {
    pub at: Timestamp,
    /// It is the last of many.
    pub many: bool,
}

struct Recent {
    /// From when on runs are looked for.
    earliest: Timestamp,
    /// The last run until now.
    at: Option<Timestamp>,
    missed: i64,
}

/// The run to start, if any: the last one until now that came after the last one started.
pub fn unmet(
    cron_job: &CronJob,
    status: &CronJobStatus,
    timetable: &Timetable<'_>,
    now: Timestamp,
) -> Result<Option<Unmet>, &'static str> {
    let spec = cron_job.spec.as_ref();
    let deadline = spec.and_then(|spec| spec.starting_deadline_seconds).map(SignedDuration::from_secs);
    // What would be too late is not looked at.
    let not_before = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    let recent = recent(cron_job, status, timetable, now, not_before)?;
    Ok(recent.at.map(|at| Unmet { at, many: recent.missed > MANY }))
}

/// When to look at the schedule again.
pub fn wake(
    cron_job: &CronJob,
    status: &CronJobStatus,
    timetable: &Timetable<'_>,
    now: Timestamp,
) -> Option<Timestamp> {
    let after = match recent(cron_job, status, timetable, now, None) {
        Ok(Recent { at: Some(at), .. }) => at,
        Ok(Recent { at: None, earliest, missed: 0 }) => earliest,
        Ok(_) | Err(_) => now,
    };
    (timetable.next)(after)?.checked_add(DELTA).ok()
}

fn recent(
    cron_job: &CronJob,
    status: &CronJobStatus,
    timetable: &Timetable<'_>,
    now: Timestamp,
    not_before: Option<Timestamp>,
) -> Result<Recent, &'static str> {
    const NEVER: &str = "time difference between two schedules is less than 1 second";
    let next = timetable.next;
    let made = cron_job.metadata.creation_timestamp.as_ref();
    let last = status.last_schedule_time.as_ref();
    let mut earliest = last.or(made).map_or(now, |at| at.0);
    earliest = earliest.max(not_before.unwrap_or(earliest));

    let first = next(earliest).ok_or(NEVER)?;
    if now < first {
        return Ok(Recent { earliest, at: None, missed: 0 });
    }
    let second = next(first).ok_or(NEVER)?;
    if now < second {
        return Ok(Recent { earliest, at: Some(first), missed: 0 });
    }
    let between = second.duration_since(first).as_secs();
    if between < 1 {
        return Err(NEVER);
    }
    // How many there were is a guess, by the distance of the first two. The search begins one such distance before the last of
    // them, for distances that differ; where they differ by more it finds none, and that run is passed over.
    let missed = now.duration_since(first).as_secs() / between + 1;
    let from = first.checked_add(SignedDuration::from_secs((missed - 2) * between)).unwrap_or(first);
    let runs = std::iter::successors(next(from), |at| next(*at));
    let at = runs.take_while(|at| *at <= now).last();
    Ok(Recent { earliest, at, missed })
}
