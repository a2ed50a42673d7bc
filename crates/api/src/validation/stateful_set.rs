//! StatefulSets: what they may ask for, and what of it may change (`pkg/apis/apps/validation`).

use serde_json::Value;

use super::names;
use super::view::At;
use super::workload::{amount_of, int_or_percent, selector_and_template};
use crate::field::ErrorList;

/// What an update may change, in the order of upstream's message.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    let policy = spec.child("podManagementPolicy");
    match policy.str() {
        "" => errors.push(policy.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    strategy(errors, &spec.child("updateStrategy"));
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for when in ["whenDeleted", "whenScaled"] {
            retention.child(when).one_of_set(errors, &["Retain", "Delete"]);
        }
    }
    for field in ["replicas", "minReadySeconds"] {
        spec.child(field).non_negative(errors);
    }
    spec.child("ordinals").child("start").non_negative(errors);
    let claims = spec.child("volumeClaimTemplates");
    if !claims.is_empty() {
        // Without them its pods would keep nothing of what they were told to keep.
        errors.push(claims.forbidden(
            "persistent volumes are not supported by this cluster: use a volume of \
             spec.template.spec.volumes, such as an emptyDir, which goes with its pod, or a hostPath",
        ));
    }
    selector_and_template(errors, &spec, "statefulset", "StatefulSet");
    let service = spec.child("serviceName");
    if !service.str().is_empty() {
        service.invalid_each(errors, names::dns_label(service.str()));
    }
}

fn strategy(errors: &mut ErrorList, strategy: &At<'_>) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").str() {
        "" => errors.push(strategy.required("")),
        "OnDelete" if rolling.is_set() => {
            errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.child("partition").non_negative(errors);
            let unavailable = rolling.child("maxUnavailable");
            if unavailable.is_set() {
                int_or_percent(errors, &unavailable);
                if amount_of(&unavailable) == 0 {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                if unavailable.is_string() && amount_of(&unavailable) > 100 {
                    errors.push(unavailable.invalid("must not be greater than 100%"));
                }
            }
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
}

pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let fixed = |root: &At<'_>| {
        let mut spec = root.child("spec").value();
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|field, value| !MUTABLE.contains(&field.as_str()) && !is_unset(value));
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.push(new.child("spec").forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden",
        ));
    }
}

/// As good as absent, to upstream's types.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
