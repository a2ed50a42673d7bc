//! Defaults of the kinds that own pods: Deployment, DaemonSet, ReplicaSet, StatefulSet, ReplicationController, Job,
//! CronJob.

use serde_json::{Map, Value};

use super::{is_empty, maybe, object_at, pod, set, set_absent, text, unset};

pub(super) fn deployment(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set_absent(spec, "replicas", 1);
    set_absent(spec, "revisionHistoryLimit", 10);
    set_absent(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = object_at(spec, "strategy") {
        set(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object_at(strategy, "rollingUpdate")
        {
            set_absent(rolling, "maxUnavailable", "25%");
            set_absent(rolling, "maxSurge", "25%");
        }
    }
    template_of(spec);
    object_at(root, "status");
}

pub(super) fn daemon_set(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set_absent(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = object_at(spec, "updateStrategy") {
        set(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object_at(strategy, "rollingUpdate")
        {
            set_absent(rolling, "maxUnavailable", 1);
            set_absent(rolling, "maxSurge", 0);
        }
    }
    template_of(spec);
    if let Some(status) = object_at(root, "status") {
        for counter in
            ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"]
        {
            set_absent(status, counter, 0);
        }
    }
}

pub(super) fn replica_set(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set_absent(spec, "replicas", 1);
    template_of(spec);
    if let Some(status) = object_at(root, "status") {
        set_absent(status, "replicas", 0);
    }
}

pub(super) fn stateful_set(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object_at(spec, "updateStrategy") {
        if unset(strategy, "type") {
            set(strategy, "type", "RollingUpdate");
            object_at(strategy, "rollingUpdate");
        }
        // A strategy that was named without its parameters keeps none.
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = maybe(strategy, "rollingUpdate")
        {
            set_absent(rolling, "partition", 0);
            set_absent(rolling, "maxUnavailable", 1);
        }
    }
    if let Some(retention) = object_at(spec, "persistentVolumeClaimRetentionPolicy") {
        set(retention, "whenDeleted", "Retain");
        set(retention, "whenScaled", "Retain");
    }
    set_absent(spec, "replicas", 1);
    set_absent(spec, "revisionHistoryLimit", 10);
    template_of(spec);
    if let Some(status) = object_at(root, "status") {
        set_absent(status, "replicas", 0);
        set_absent(status, "availableReplicas", 0);
    }
}

/// Selector and labels come from the template's labels where they are not given (this kind alone does so).
pub(super) fn replication_controller(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set_absent(spec, "replicas", 1);
    template_of(spec);
    let labels = spec
        .get("template")
        .and_then(|t| t.pointer("/metadata/labels"))
        .filter(|labels| labels.as_object().is_some_and(|l| !l.is_empty()))
        .cloned();
    if let Some(labels) = labels {
        if is_empty(spec, "selector") {
            spec.insert("selector".to_owned(), labels.clone());
        }
        if let Some(metadata) = object_at(root, "metadata")
            && is_empty(metadata, "labels")
        {
            metadata.insert("labels".to_owned(), labels);
        }
    }
    if let Some(status) = object_at(root, "status") {
        set_absent(status, "replicas", 0);
    }
}

/// One pod that has to succeed once, where nothing else is said.
pub(super) fn job(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    let is_said = |spec: &Map<String, Value>, key: &str| spec.get(key).is_some_and(|value| !value.is_null());
    if !is_said(spec, "parallelism") && !is_said(spec, "completions") {
        set_absent(spec, "completions", 1);
    }
    set_absent(spec, "parallelism", 1);
    // Where failures are counted by index, all of them together may be any number.
    let limit = if is_said(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    set_absent(spec, "backoffLimit", limit);
    set_absent(spec, "completionMode", "NonIndexed");
    set_absent(spec, "suspend", false);
    set_absent(spec, "manualSelector", false);
    // With a policy on failures, a pod has to have failed before another takes its place.
    let replaced = if is_said(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_absent(spec, "podReplacementPolicy", replaced);
    failure_rules(spec);
    template_of(spec);
    let labels = spec.get("template").and_then(|template| template.pointer("/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|all| !all.is_empty()))
        && let Some(metadata) = object_at(root, "metadata")
        && is_empty(metadata, "labels")
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

/// Its template is completed where that has no meaning of its own: the rest is the Job's that is made of it.
pub(super) fn cron_job(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set(spec, "concurrencyPolicy", "Allow");
    set_absent(spec, "suspend", false);
    set_absent(spec, "successfulJobsHistoryLimit", 3);
    set_absent(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = maybe(spec, "jobTemplate").and_then(|template| maybe(template, "spec")) {
        failure_rules(job);
        template_of(job);
    }
    object_at(root, "status");
}

fn failure_rules(spec: &mut Map<String, Value>) {
    let rules = spec.get_mut("podFailurePolicy").and_then(|policy| policy.get_mut("rules"));
    for rule in rules.and_then(Value::as_array_mut).into_iter().flatten() {
        let conditions = rule.get_mut("onPodConditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
            set(condition, "status", "True");
        }
    }
}

fn template_of(spec: &mut Map<String, Value>) {
    if let Some(template) = maybe(spec, "template")
        && let Some(spec) = maybe(template, "spec")
    {
        pod::spec(spec);
    }
}
