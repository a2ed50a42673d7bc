//! CronJobs: when they run, and what (`pkg/apis/batch/validation`). Whether a time zone is known is the machine's to say: the
//! server asks it for what passes here.

use super::job;
use super::view::At;
use crate::cron::{Schedule, without_zone};
use crate::field::{Error, ErrorList};

/// The names of its Jobs are 11 characters longer: a dash, and the minute of their run.
const LONGEST_NAME: usize = 52;

pub(super) fn cron_job(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    schedule(errors, &spec.child("schedule"));
    spec.child("startingDeadlineSeconds").non_negative(errors);
    time_zone(errors, &spec.child("timeZone"));
    spec.child("concurrencyPolicy").one_of(errors, &["Allow", "Forbid", "Replace"]);
    let template = spec.child("jobTemplate").child("spec");
    job::job_spec(errors, &template);
    let (selector, manual) = (template.child("selector"), template.child("manualSelector"));
    if selector.is_set() {
        errors.push(selector.invalid("`selector` will be auto-generated"));
    }
    if manual.bool() {
        errors.push(Error::not_supported(&manual.path, true, &["nil", "false"]));
    }
    for limit in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.child(limit).non_negative(errors);
    }
}

pub(super) fn create_only(errors: &mut ErrorList, root: &At<'_>) {
    let name = root.child("metadata").child("name");
    if name.str().len() > LONGEST_NAME {
        errors.push(name.invalid(format!("must be no more than {LONGEST_NAME} characters")));
    }
}

fn schedule(errors: &mut ErrorList, schedule: &At<'_>) {
    let text = schedule.str();
    if text.is_empty() {
        errors.push(schedule.required(""));
        return;
    }
    if let Err(error) = Schedule::parse(without_zone(text)) {
        errors.push(schedule.invalid(error.to_string()));
    }
    if text.contains("TZ") {
        errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
    }
}

/// Whether it can be a name of IANA's at all.
fn time_zone(errors: &mut ErrorList, zone: &At<'_>) {
    const LONGEST_PART: usize = 14;
    let name = zone.str();
    if !zone.is_set() {
        return;
    }
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
        return;
    }
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= LONGEST_PART
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if !name.split('/').all(is_part) {
        errors.push(zone.invalid(format!("unknown time zone {name}")));
    } else if name.eq_ignore_ascii_case("local") {
        errors.push(
            zone.invalid(
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ),
        );
    }
}
