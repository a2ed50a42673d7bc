//! Deployments, DaemonSets, ReplicaSets, ReplicationControllers: the template, and a selector that matches it.

use super::view::At;
use super::{metadata, names, pod};
use crate::field::{Error, ErrorList};

pub(super) fn deployment(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.child(field).non_negative(errors);
    }
    selector_and_template(errors, &spec, "deployment", "ReplicaSet");
    strategy(errors, &spec.child("strategy"));
    let deadline = spec.child("progressDeadlineSeconds");
    if let Some(seconds) = deadline.int() {
        deadline.non_negative(errors);
        if seconds <= spec.child("minReadySeconds").int().unwrap_or(0) {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
    }
}

pub(super) fn replica_set(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    for field in ["replicas", "minReadySeconds"] {
        spec.child(field).non_negative(errors);
    }
    selector_and_template(errors, &spec, "deployment", "ReplicaSet");
}

pub(super) fn daemon_set(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.child(field).non_negative(errors);
    }
    selector_and_template(errors, &spec, "daemonset", "DaemonSet");
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").str() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => errors.push(rolling.required("")),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            for amount in [&unavailable, &surge] {
                int_or_percent(errors, amount);
                if amount.is_string() && amount_of(amount) > 100 {
                    errors.push(amount.invalid("must not be greater than 100%"));
                }
            }
            match (amount_of(&unavailable), amount_of(&surge)) {
                (0, 0) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
                (0, _) | (_, 0) => {}
                _ => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
            }
        }
        _ => errors.push(Error::not_supported(
            &strategy.path,
            strategy.value(),
            &["OnDelete", "RollingUpdate"],
        )),
    }
}

pub(super) fn controller_revision(errors: &mut ErrorList, root: &At<'_>) {
    root.child("revision").non_negative(errors);
    let data = root.child("data");
    if !data.is_set() {
        errors.push(data.required("data is mandatory"));
    }
}

/// `what` and `owner` are the kind in messages.
pub(super) fn selector_and_template(errors: &mut ErrorList, spec: &At<'_>, what: &str, owner: &str) {
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    let before = errors.len();
    if !selector.is_set() {
        errors.push(selector.required(""));
    } else {
        metadata::label_selector(errors, &selector);
        if selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty() {
            errors.push(selector.invalid(format!("empty selector is invalid for {what}")));
        }
    }
    let labels = template.child("metadata").child("labels");
    if errors.len() == before && !metadata::selects(&selector, &labels) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    owned_template(errors, &template, owner);
}

/// The rules for templates whose pods are kept running.
fn owned_template(errors: &mut ErrorList, template: &At<'_>, owner: &str) {
    pod::template(errors, template);
    let spec = template.child("spec");
    let policy = spec.child("restartPolicy");
    if policy.str() != "Always" {
        errors.push(Error::not_supported(&policy.path, policy.str(), &["Always"]));
    }
    let deadline = spec.child("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden(&format!("activeDeadlineSeconds in {owner} is not Supported")));
    }
}

fn strategy(errors: &mut ErrorList, strategy: &At<'_>) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").str() {
        "Recreate" => {
            if rolling.is_set() {
                errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => {
            if !rolling.is_set() {
                errors.push(rolling.required("this should be defaulted and never be nil"));
                return;
            }
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            for amount in [&unavailable, &surge] {
                int_or_percent(errors, amount);
            }
            if amount_of(&unavailable) == 0 && amount_of(&surge) == 0 {
                errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            if unavailable.is_string() && amount_of(&unavailable) > 100 {
                errors.push(unavailable.invalid("must not be greater than 100%"));
            }
        }
        _ => errors.push(Error::not_supported(
            &strategy.path,
            strategy.value(),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

pub(super) fn int_or_percent(errors: &mut ErrorList, at: &At<'_>) {
    if at.is_string() {
        at.invalid_each(errors, names::percent(at.str()));
    } else {
        at.non_negative(errors);
    }
}

/// The number, or the number before the percent sign; 0 where there is neither.
pub(super) fn amount_of(at: &At<'_>) -> i64 {
    match at.int() {
        Some(number) => number,
        None => at.str().trim_end_matches('%').parse().unwrap_or(0),
    }
}

pub(super) fn replication_controller(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    for field in ["replicas", "minReadySeconds"] {
        spec.child(field).non_negative(errors);
    }
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    if selector.is_empty() {
        errors.push(selector.required(""));
    }
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    let labels = template.child("metadata").child("labels");
    let matches = selector
        .entries()
        .iter()
        .all(|(key, value)| labels.entries().iter().any(|(k, v)| k == key && v.str() == value.str()));
    if !matches {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    owned_template(errors, &template, "ReplicationController");
}
