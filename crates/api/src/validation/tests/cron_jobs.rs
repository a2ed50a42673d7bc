//! CronJobs.

use super::*;

fn cron_job() -> Value {
    json!({
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {
            "schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "busybox"}]}
            }}}
        }
    })
}

#[test]
fn a_cron_job_says_when_and_what() {
    table(
        "batch",
        "CronJob",
        cron_job(),
        &[
            ("/spec/schedule", json!("@every 1h"), &[]),
            ("/spec/schedule", json!(""), &["spec.schedule: Required value"]),
            (
                "/spec/schedule",
                json!("error"),
                &["spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]"],
            ),
            (
                "/spec/schedule",
                json!("* * * * 7"),
                &["spec.schedule: Invalid value: \"* * * * 7\": end of range (7) above maximum (6): 7"],
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC 0 * * * *"),
                &[
                    "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            (
                "/spec/schedule",
                json!("CRON_TZ=UTC x"),
                &[
                    "spec.schedule: Invalid value: \"CRON_TZ=UTC x\": expected exactly 5 fields, found 1: [x]",
                    "spec.schedule: Invalid value: \"CRON_TZ=UTC x\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            ("/spec/concurrencyPolicy", json!("Forbid"), &[]),
            (
                "/spec/concurrencyPolicy",
                json!("Never"),
                &[
                    "spec.concurrencyPolicy: Unsupported value: \"Never\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                "/spec/startingDeadlineSeconds",
                json!(-1),
                &["spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/successfulJobsHistoryLimit", json!(0), &[]),
            (
                "/spec/failedJobsHistoryLimit",
                json!(-1),
                &["spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                &[
                    "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                ],
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                &[
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                ],
            ),
            (
                "/spec/jobTemplate/spec/template/spec/restartPolicy",
                json!("Always"),
                &[
                    "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/jobTemplate/spec/completionMode",
                json!("Indexed"),
                &["spec.jobTemplate.spec.completions: Required value: when completion mode is Indexed"],
            ),
        ],
    );
}

#[test]
fn a_time_zone_has_a_name_of_iana() {
    let strange = |zone: &str| format!("spec.timeZone: Invalid value: \"{zone}\": unknown time zone {zone}");
    let local = "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
    for (zone, want) in [
        ("Europe/Berlin", vec![]),
        ("Etc/GMT+5", vec![]),
        ("", vec!["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string".to_owned()]),
        ("local", vec![local.to_owned()]),
        ("../etc/passwd", vec![strange("../etc/passwd")]),
        ("/Europe/Berlin", vec![strange("/Europe/Berlin")]),
        ("Europe//Berlin", vec![strange("Europe//Berlin")]),
        ("Europe/-Berlin", vec![strange("Europe/-Berlin")]),
        ("Europe/Ber lin", vec![strange("Europe/Ber lin")]),
        ("Europe/Aaaaaaaaaaaaaaa", vec![strange("Europe/Aaaaaaaaaaaaaaa")]),
    ] {
        assert_eq!(create("batch", "CronJob", with(cron_job(), "/spec/timeZone", json!(zone))), want);
    }
}

#[test]
fn the_names_of_its_jobs_must_fit() {
    let named = |length: usize| with(cron_job(), "/metadata/name", json!("a".repeat(length)));
    assert_eq!(create("batch", "CronJob", named(52)), [""; 0]);
    let errors = create("batch", "CronJob", named(53));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with("metadata.name: Invalid value:")
            && errors[0].ends_with("must be no more than 52 characters")
    );
    assert_eq!(update("batch", "CronJob", "", named(53), named(53)), [""; 0], "what is there may stay");
}

#[test]
fn all_of_it_may_change() {
    for (pointer, value) in [
        ("/spec/schedule", json!("@daily")),
        ("/spec/timeZone", json!("UTC")),
        ("/spec/suspend", json!(true)),
        ("/spec/jobTemplate/spec/template/spec/containers/0/image", json!("other")),
        ("/spec/jobTemplate/metadata", json!({"labels": {"a": "b"}})),
    ] {
        assert_eq!(
            update("batch", "CronJob", "", with(cron_job(), pointer, value), cron_job()),
            [""; 0],
            "{pointer}"
        );
    }
}
