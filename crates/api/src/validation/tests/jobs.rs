//! Jobs.

use super::*;

fn job() -> Value {
    json!({
        "metadata": {"name": "j", "namespace": "default"},
        "spec": {
            "manualSelector": true,
            "selector": {"matchLabels": {"app": "j"}},
            "template": {
                "metadata": {"labels": {"app": "j"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "busybox"}]}
            }
        }
    })
}

#[test]
fn a_job_asks_for_what_can_end() {
    table(
        "batch",
        "Job",
        job(),
        &[
            ("/spec/completions", json!(3), &[]),
            (
                "/spec/completions",
                json!(-1),
                &["spec.completions: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/backoffLimit",
                json!(-1),
                &["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/template/spec/restartPolicy", json!("OnFailure"), &[]),
            (
                "/spec/template/spec/restartPolicy",
                json!("Always"),
                &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!(null),
                &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
            ),
            ("/spec/selector", json!(null), &["spec.selector: Required value"]),
            (
                "/spec/template/metadata/labels/app",
                json!("x"),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/completionMode",
                json!("Sorted"),
                &[
                    "spec.completionMode: Unsupported value: \"Sorted\": supported values: \"Indexed\", \"NonIndexed\"",
                ],
            ),
            ("/spec/completionMode", json!("Indexed"), &[]),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                "/spec/maxFailedIndexes",
                json!(1),
                &[
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                    "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
                ],
            ),
            ("/spec/managedBy", json!("acme.io/queue"), &[]),
            ("/spec/managedBy", json!("kubernetes.io/job-controller"), &[]),
            (
                "/spec/managedBy",
                json!("acme"),
                &[
                    "spec.managedBy: Invalid value: \"acme\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (
                "/spec/managedBy",
                json!("acme.io/a b"),
                &[
                    "spec.managedBy: Invalid value: \"a b\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                ],
            ),
            (
                "/spec/managedBy",
                json!(format!("acme.io/{}", "a".repeat(60))),
                &["spec.managedBy: Too long: may not be more than 63 bytes"],
            ),
            (
                "/spec/successPolicy",
                json!({"rules": [{"succeededCount": 1}]}),
                &[
                    "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode",
                ],
            ),
        ],
    );
}

#[test]
fn an_indexed_job_says_how_many_there_are() {
    let mut indexed = job();
    indexed["spec"]["completionMode"] = json!("Indexed");
    indexed["spec"]["completions"] = json!(4);
    let policy = |rule: Value| json!({"rules": [rule]});
    table(
        "batch",
        "Job",
        indexed.clone(),
        &[
            ("/spec/successPolicy", policy(json!({"succeededIndexes": "0,2-3", "succeededCount": 2})), &[]),
            (
                "/spec/successPolicy",
                policy(json!({"succeededIndexes": "2-4"})),
                &[
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2-4\": error parsing succeededIndexes: too large index: \"4\"",
                ],
            ),
            (
                "/spec/successPolicy",
                policy(json!({})),
                &[
                    "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                ],
            ),
            (
                "/spec/successPolicy",
                policy(json!({"succeededIndexes": "0,2", "succeededCount": 3})),
                &[
                    "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
                ],
            ),
            (
                "/spec/successPolicy",
                policy(json!({"succeededIndexes": "2,1-3"})),
                &[
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2,1-3\": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1",
                ],
            ),
            ("/spec/backoffLimitPerIndex", json!(0), &[]),
            (
                "/spec/maxFailedIndexes",
                json!(5),
                &[
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                    "spec.maxFailedIndexes: Invalid value: 5: must be less than or equal to completions",
                ],
            ),
            (
                "/spec/podFailurePolicy",
                policy(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}})),
                &[
                    "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                ],
            ),
            (
                "/spec/parallelism",
                json!(100001),
                &[
                    "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
                ],
            ),
        ],
    );
    let mut many = indexed.clone();
    many["spec"]["completions"] = json!(100_001);
    many["spec"]["parallelism"] = json!(10_001);
    many["spec"]["backoffLimitPerIndex"] = json!(1);
    assert_eq!(
        create("batch", "Job", many),
        [
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
            "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
        ]
    );
    let mut by_index = indexed.clone();
    by_index["spec"]["backoffLimitPerIndex"] = json!(1);
    by_index["spec"]["podFailurePolicy"] =
        policy(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}));
    assert_eq!(create("batch", "Job", by_index), [""; 0]);
    let mut endless = indexed;
    endless["spec"]["completions"] = Value::Null;
    endless["spec"]["parallelism"] = json!(1);
    assert_eq!(
        create("batch", "Job", endless),
        ["spec.completions: Required value: when completion mode is Indexed"]
    );
}

#[test]
fn a_policy_on_failures_says_what_it_looks_at() {
    let policy = |rule: Value| json!({"rules": [rule]});
    let codes = |more: Value| {
        let mut codes = json!({"operator": "In", "values": [1, 42]});
        for (key, value) in more.as_object().unwrap() {
            codes[key] = value.clone();
        }
        policy(json!({"action": "FailJob", "onExitCodes": codes}))
    };
    let rule = "spec.podFailurePolicy.rules[0]";
    table(
        "batch",
        "Job",
        job(),
        &[
            ("/spec/podFailurePolicy", codes(json!({"containerName": "a"})), &[]),
            (
                "/spec/podFailurePolicy",
                policy(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]})),
                &[],
            ),
            (
                "/spec/podFailurePolicy",
                codes(json!({"containerName": "b"})),
                &[&format!(
                    "{rule}.onExitCodes.containerName: Invalid value: \"b\": must be one of the container or initContainer names in the pod template"
                )],
            ),
            (
                "/spec/podFailurePolicy",
                codes(json!({"values": [2, 1]})),
                &[&format!("{rule}.onExitCodes.values: Invalid value: [2,1]: must be ordered")],
            ),
            (
                "/spec/podFailurePolicy",
                codes(json!({"values": [0]})),
                &[&format!(
                    "{rule}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"
                )],
            ),
            (
                "/spec/podFailurePolicy",
                policy(json!({"action": "Count"})),
                &[&format!(
                    "{rule}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
                )],
            ),
            (
                "/spec/podFailurePolicy",
                codes(json!({"values": [1, 1]})),
                &[&format!("{rule}.onExitCodes.values[1]: Duplicate value: 1")],
            ),
            (
                "/spec/podFailurePolicy",
                policy(json!({"onPodConditions": [{"type": "X"}]})),
                &[&format!(
                    "{rule}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"
                )],
            ),
        ],
    );
    let mut replaces = job();
    replaces["spec"]["podFailurePolicy"] = codes(json!({}));
    replaces["spec"]["podReplacementPolicy"] = json!("TerminatingOrFailed");
    assert_eq!(
        create("batch", "Job", replaces),
        [
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\""
        ]
    );
    let mut restarts = job();
    restarts["spec"]["podFailurePolicy"] = codes(json!({}));
    restarts["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    assert_eq!(
        create("batch", "Job", restarts),
        [
            "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified"
        ]
    );
}

#[test]
fn the_selector_is_the_servers() {
    let mut job = job();
    job["metadata"]["uid"] = json!("u");
    job["spec"]["manualSelector"] = json!(false);
    let errors = create("batch", "Job", job.clone());
    assert_eq!(
        errors,
        [
            "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Required value: must be 'u'",
            "spec.template.metadata.labels[batch.kubernetes.io/job-name]: Required value: must be 'j'",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"j\"}}: `selector` not auto-generated",
        ]
    );
    job["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
    job["spec"]["template"]["metadata"]["labels"] =
        json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
    assert_eq!(create("batch", "Job", job), [""; 0]);
}

#[test]
fn what_a_job_is_made_of_stays() {
    let old = |spec: Value| {
        let mut job = job();
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        apply_kind("batch", "Job", &mut job);
        job
    };
    let plain = || old(json!({"completions": 2}));
    let changes: [(&str, Value, &[&str]); 6] = [
        ("/spec/parallelism", json!(3), &[]),
        ("/spec/suspend", json!(true), &[]),
        ("/spec/ttlSecondsAfterFinished", json!(3), &[]),
        ("/spec/completions", json!(3), &["spec.completions: Invalid value: 3: field is immutable"]),
        (
            "/spec/completionMode",
            json!("Indexed"),
            &["spec.completionMode: Invalid value: \"Indexed\": field is immutable"],
        ),
        (
            "/spec/selector/matchLabels",
            json!({"app": "j", "b": "c"}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"j\"}: `selector` does not match template `labels`",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"j\",\"b\":\"c\"}}: field is immutable",
            ],
        ),
    ];
    for (pointer, value, want) in changes {
        assert_eq!(update("batch", "Job", "", with(plain(), pointer, value), plain()), want, "{pointer}");
    }
    let image = ("/spec/template/spec/containers/0/image", json!("other"));
    let errors = update("batch", "Job", "", with(plain(), image.0, image.1.clone()), plain());
    assert!(errors.len() == 1 && errors[0].ends_with("field is immutable"), "{errors:?}");
    // While it waits for its start, where its pods run may still be decided, and nothing else.
    let waiting = || old(json!({"completions": 2, "suspend": true}));
    let place = ("/spec/template/spec/nodeSelector", json!({"zone": "a"}));
    assert_eq!(update("batch", "Job", "", with(waiting(), place.0, place.1), waiting()), [""; 0]);
    assert_eq!(update("batch", "Job", "", with(waiting(), image.0, image.1), waiting()).len(), 1);
    let near = |term: &str| {
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1,
        "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [term]}]}}]}})
    };
    let place = ("/spec/template/spec/affinity", near("a"));
    assert_eq!(update("batch", "Job", "", with(waiting(), place.0, place.1), waiting()), [""; 0]);
    let apart = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
    assert_eq!(
        update("batch", "Job", "", with(waiting(), place.0, apart), waiting()).len(),
        1,
        "not to pods"
    );
    for (field, value) in [("managedBy", json!("acme.io/queue")), ("backoffLimitPerIndex", json!(2))] {
        let errors = update("batch", "Job", "", with(plain(), &format!("/spec/{field}"), value), plain());
        assert!(
            errors.iter().any(|e| e.starts_with(&format!("spec.{field}:")) && e.ends_with("immutable")),
            "{errors:?}"
        );
    }
    // As many as run at a time: it may grow and shrink.
    let elastic =
        |count: i64| old(json!({"completions": count, "parallelism": count, "completionMode": "Indexed"}));
    assert_eq!(update("batch", "Job", "", elastic(5), elastic(2)), [""; 0]);
    let apart = with(elastic(5), "/spec/parallelism", json!(3));
    assert_eq!(
        update("batch", "Job", "", apart, elastic(2)),
        ["spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"]
    );
}

#[test]
fn whoever_writes_a_status_keeps_to_what_an_end_looks_like() {
    let indexed =
        json!({"completionMode": "Indexed", "completions": 4, "parallelism": 1, "backoffLimitPerIndex": 1});
    let with_status = |spec: &Value, status: &Value| {
        let mut job = job();
        job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        job["status"] = status.clone();
        job
    };
    let yes = |kinds: &[&str]| -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    };
    let (start, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
    let done = json!({"conditions": yes(&["SuccessCriteriaMet", "Complete"]), "startTime": start, "completionTime": later});
    let failed = json!({"conditions": yes(&["FailureTarget", "Failed"]), "startTime": start});
    let none = json!({});
    let plain = json!({"completions": 2});
    let conditions = |why: &str| format!("status.conditions: Invalid value: {why}");
    let rows: Vec<(&Value, Value, Value, Vec<String>)> = vec![
        (&plain, none.clone(), done.clone(), vec![]),
        (&plain, none.clone(), failed.clone(), vec![]),
        (&plain, none.clone(), json!({"active": 1, "ready": 1, "startTime": start}), vec![]),
        (&plain, none.clone(), json!({"active": 1, "ready": 2}), vec!["status.ready: Invalid value: 2: cannot set more ready pods than active".into()]),
        (&plain, none.clone(), json!({"active": -1}), vec!["status.active: Invalid value: -1: must be greater than or equal to 0".into()]),
        (
            &plain,
            none.clone(),
            json!({"conditions": yes(&["Failed"]), "startTime": start}),
            vec![conditions("cannot set Failed=True condition without the FailureTarget=true condition")],
        ),
        (
            &plain,
            none.clone(),
            json!({"conditions": yes(&["Complete", "SuccessCriteriaMet"]), "startTime": start}),
            vec!["status.completionTime: Required value: completionTime is required for Complete jobs".into()],
        ),
        (
            &plain,
            none.clone(),
            with(done.clone(), "/completionTime", json!("2025-01-01T00:00:00Z")),
            vec!["status.completionTime: Invalid value: \"2025-01-01T00:00:00Z\": completionTime cannot be set before startTime".into()],
        ),
        (
            &plain,
            none.clone(),
            with(failed.clone(), "/startTime", Value::Null),
            vec!["status.startTime: Required value: startTime is required for finished job".into()],
        ),
        (
            &plain,
            none.clone(),
            with(with(done.clone(), "/active", json!(1)), "/terminating", json!(2)),
            vec![
                "status.active: Invalid value: 1: active>0 is invalid for finished job".into(),
                "status.terminating: Invalid value: 2: terminating>0 is invalid for finished job".into(),
            ],
        ),
        (
            &plain,
            done.clone(),
            json!({"startTime": start}),
            vec![
                conditions("cannot disable the terminal Complete=True condition"),
                conditions("cannot disable the SuccessCriteriaMet=True condition"),
            ],
        ),
        (&plain, json!({"failed": 2}), json!({"failed": 1}), vec!["status.failed: Invalid value: 1: cannot decrease the failed counter".into()]),
        (
            &plain,
            json!({"startTime": start}),
            json!({"startTime": later}),
            vec!["status.startTime: Required value: startTime cannot be removed for unsuspended job".into()],
        ),
        (&plain, json!({"startTime": start, "conditions": yes(&["Suspended"])}), json!({"startTime": later}), vec![]),
        (
            &plain,
            none.clone(),
            json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}),
            vec!["status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"".into()],
        ),
        (
            &plain,
            none.clone(),
            json!({"completedIndexes": "0", "failedIndexes": ""}),
            vec![
                "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode".into(),
                "status.failedIndexes: Invalid value: \"\": cannot set non-null failedIndexes when backoffLimitPerIndex is null".into(),
            ],
        ),
        (&indexed, none.clone(), json!({"completedIndexes": "0,2", "failedIndexes": "1"}), vec![]),
        (
            &indexed,
            none.clone(),
            json!({"completedIndexes": "0-2", "failedIndexes": "2-3"}),
            vec!["status.failedIndexes: Invalid value: \"2-3\": failedIndexes and completedIndexes overlap at index: 2".into()],
        ),
        (
            &indexed,
            none.clone(),
            json!({"completedIndexes": "4"}),
            vec!["status.completedIndexes: Invalid value: \"4\": error parsing completedIndexes: too large index: \"4\"".into()],
        ),
        // What was wrong before is not said again.
        (&indexed, json!({"completedIndexes": "4"}), json!({"completedIndexes": "4", "active": 1}), vec![]),
    ];
    for (spec, old, new, want) in rows {
        let got = update("batch", "Job", "status", with_status(spec, &new), with_status(spec, &old));
        assert_eq!(got, want, "{old} to {new}");
    }
}
