//! Jobs: what they may ask for, and what of it may change (`pkg/apis/batch/validation`).

use serde_json::Value;

use super::view::At;
use super::{job_policies, metadata, names, pod};
use crate::field::{Error, ErrorList};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// As many indexes may be completed, and failed, as their lists in a status are meant to hold.
const MOST_INDEXES: i64 = 100_000;
/// With more indexes than those, no more than this many may run or fail.
const MOST_OF_MANY: i64 = 10_000;

pub(super) fn job(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    generated_selector(errors, root);
    job_spec(errors, &spec);
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    let before = errors.len();
    if selector.is_set() {
        metadata::label_selector(errors, &selector);
    } else {
        errors.push(selector.required(""));
    }
    let labels = template.child("metadata").child("labels");
    if errors.len() == before && !metadata::selects(&selector, &labels) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    host_name(errors, root);
}

/// What a Job asks for, and what the template of one does.
pub(super) fn job_spec(errors: &mut ErrorList, spec: &At<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.child(field).non_negative(errors);
    }
    let per_index = spec.child("backoffLimitPerIndex");
    if spec.child("maxFailedIndexes").is_set() && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    managed_by(errors, &spec.child("managedBy"));
    let mode = spec.child("completionMode");
    mode.one_of_set(errors, &["Indexed", "NonIndexed"]);
    match mode.str() {
        "Indexed" => indexed(errors, spec),
        "" | "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"].map(|field| spec.child(field)) {
                if field.is_set() {
                    errors.push(field.invalid("requires indexed completion mode"));
                }
            }
        }
        _ => {}
    }
    job_policies::failure(errors, spec);
    job_policies::success(errors, spec);
    job_policies::replacement(errors, spec);
    let template = spec.child("template");
    pod::template(errors, &template);
    let restarts = template.child("spec").child("restartPolicy");
    match restarts.str() {
        "Never" => {}
        "OnFailure" if spec.child("podFailurePolicy").is_set() => {
            errors.push(restarts.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        "OnFailure" => {}
        "Always" | "" => errors.push(restarts.required("valid values: \"OnFailure\", \"Never\"")),
        _ => errors.push(Error::not_supported(&restarts.path, restarts.str(), &["Never", "OnFailure"])),
    }
}

fn managed_by(errors: &mut ErrorList, manager: &At<'_>) {
    const LONGEST: usize = 63;
    if !manager.is_set() {
        return;
    }
    if manager.str().is_empty() {
        errors.push(manager.required(""));
        return;
    }
    for (part, message) in names::domain_prefixed_path(manager.str()) {
        errors.push(Error::invalid(&manager.path, part, message));
    }
    if manager.str().len() > LONGEST {
        errors.push(Error::too_long(&manager.path, LONGEST));
    }
}

/// Each pod has an index of its own.
fn indexed(errors: &mut ErrorList, spec: &At<'_>) {
    let (completions, parallelism) = (spec.child("completions"), spec.child("parallelism"));
    let most_failed = spec.child("maxFailedIndexes");
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    let exceeds = |field: &At<'_>, most: i64| field.int().is_some_and(|count| count > most);
    if exceeds(&parallelism, MOST_INDEXES) {
        errors.push(parallelism.invalid(format!(
            "must be less than or equal to {MOST_INDEXES} when completion mode is Indexed"
        )));
    }
    if completions.int().is_some_and(|all| exceeds(&most_failed, all)) {
        errors.push(most_failed.invalid("must be less than or equal to completions"));
    }
    if exceeds(&most_failed, MOST_INDEXES) {
        errors.push(most_failed.invalid(format!("must be less than or equal to {MOST_INDEXES}")));
    }
    if !exceeds(&completions, MOST_INDEXES) || !spec.child("backoffLimitPerIndex").is_set() {
        return;
    }
    if !most_failed.is_set() {
        errors.push(
            most_failed.required(&format!("must be specified when completions is above {MOST_INDEXES}")),
        );
    }
    for field in [&parallelism, &most_failed] {
        if exceeds(field, MOST_OF_MANY) {
            errors.push(field.invalid(format!(
                "must be less than or equal to {MOST_OF_MANY} when completions are above {MOST_INDEXES} and used with \
                 backoff limit per index"
            )));
        }
    }
}

/// `<job>-<index>` is the host name of an Indexed Job's pod.
fn host_name(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    let Some(last) = spec.child("completions").int().filter(|count| *count > 0).map(|count| count - 1) else {
        return;
    };
    let name = root.child("metadata").child("name");
    let host = format!("{}-{last}", name.str());
    if spec.child("completionMode").str() == "Indexed" && !names::dns_label(&host).is_empty() {
        errors.push(name.invalid(format!("will not able to create pod with invalid DNS label: {host}")));
    }
}

/// The server makes the selector, from the Job's uid, unless it is told to leave that (`manualSelector`).
fn generated_selector(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    let uid = root.child("metadata").child("uid");
    if spec.child("manualSelector").bool() || uid.str().is_empty() {
        return;
    }
    let labels = spec.child("template").child("metadata").child("labels");
    let name = root.child("metadata").child("name");
    for (key, wanted) in [(UID_LABEL, uid.str()), (NAME_LABEL, name.str())] {
        let label = labels.key(key);
        if !label.is_set() {
            errors.push(label.required(&format!("must be '{wanted}'")));
        } else if label.str() != wanted {
            errors.push(Error::invalid(&label.path, labels.value(), format!("must be '{wanted}'")));
        }
    }
    let selector = spec.child("selector");
    let matches = selector.child("matchLabels");
    let is_ours = selector.child("matchExpressions").is_empty()
        && matches.entries().iter().all(|(key, value)| match *key {
            UID_LABEL | "controller-uid" => value.str() == uid.str(),
            _ => false,
        })
        && !matches.is_empty();
    if selector.is_set() && !is_ours {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// What a Job is made of stays; how many of its pods run at a time, and when it gives up, may change.
pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (spec, was) = (new.child("spec"), old.child("spec"));
    let completions = spec.child("completions");
    if spec.child("completionMode").str() != "Indexed" {
        completions.immutable(errors, &was.child("completions"));
    } else if completions.is_set()
        && completions.int() != was.child("completions").int()
        && completions.int() != spec.child("parallelism").int()
    {
        errors.push(completions.invalid("can only be modified in tandem with spec.parallelism"));
    }
    let immutable = |errors: &mut ErrorList, field: &str| {
        spec.child(field).immutable(errors, &was.child(field));
    };
    immutable(errors, "selector");
    let is_waiting = was.child("suspend").bool() && !old.child("status").child("startTime").is_set();
    let template = |spec: &At<'_>| {
        let mut template = spec.child("template").value();
        if is_waiting {
            without_directives(&mut template);
        }
        template
    };
    if template(&spec) != template(&was) {
        errors.push(spec.child("template").invalid("field is immutable"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        immutable(errors, field);
    }
}

/// Where its pods run may still be decided while a Job waits for its start.
fn without_directives(template: &mut Value) {
    for (part, fields) in [
        ("metadata", &["annotations", "labels"][..]),
        ("spec", &["nodeSelector", "tolerations", "schedulingGates"][..]),
    ] {
        if let Some(part) = template.get_mut(part).and_then(Value::as_object_mut) {
            part.retain(|field, _| !fields.contains(&field.as_str()));
        }
    }
    // Of affinity, that to nodes alone.
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            spec.remove("affinity");
        }
    }
}
