//! Jobs: what they may ask for, and what of it may change (`pkg/apis/batch/validation`).

use serde_json::Value;

use super::view::At;
use super::{metadata, pod};
use crate::field::{Error, ErrorList};

/// Fields that this cluster has no controller for: refused, because a Job without them is another Job.
const UNSUPPORTED: [&str; 3] = ["backoffLimitPerIndex", "maxFailedIndexes", "managedBy"];
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

pub(super) fn job(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    generated_selector(errors, root);
    for field in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        spec.child(field).non_negative(errors);
    }
    for field in UNSUPPORTED {
        let field = spec.child(field);
        if field.is_set() {
            errors.push(field.forbidden("is not supported by this cluster"));
        }
    }
    let is_indexed = mode(errors, root);
    spec.child("podReplacementPolicy").one_of_set(errors, &["Failed", "TerminatingOrFailed"]);
    failure_policy(errors, &spec);
    success_policy(errors, &spec, is_indexed);

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
    pod::template(errors, &template);
    let policy = template.child("spec").child("restartPolicy");
    match policy.str() {
        "Never" => {}
        "OnFailure" if spec.child("podFailurePolicy").is_set() => {
            errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        "OnFailure" => {}
        "Always" | "" => errors.push(policy.required("valid values: \"OnFailure\", \"Never\"")),
        _ => errors.push(Error::not_supported(&policy.path, policy.str(), &["Never", "OnFailure"])),
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

/// Whether each pod has an index of its own.
fn mode(errors: &mut ErrorList, root: &At<'_>) -> bool {
    let spec = root.child("spec");
    let mode = spec.child("completionMode");
    mode.one_of_set(errors, &["Indexed", "NonIndexed"]);
    if mode.str() != "Indexed" {
        return false;
    }
    let (completions, parallelism) = (spec.child("completions"), spec.child("parallelism"));
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    const MOST: i64 = 100_000;
    if parallelism.int().is_some_and(|count| count > MOST) {
        errors.push(
            parallelism
                .invalid(format!("must be less than or equal to {MOST} when completion mode is Indexed")),
        );
    }
    // `<job>-<index>` is the pod's host name.
    let name = root.child("metadata").child("name");
    let last = completions.int().unwrap_or(1).max(1) - 1;
    let host = format!("{}-{last}", name.str());
    if host.len() > 63 || host.contains('.') {
        errors.push(name.invalid(format!("will not able to create pod with invalid DNS label: {host}")));
    }
    true
}

fn failure_policy(errors: &mut ErrorList, spec: &At<'_>) {
    let policy = spec.child("podFailurePolicy");
    if !policy.is_set() {
        return;
    }
    let rules = policy.child("rules");
    const MOST: usize = 20;
    let all = rules.items();
    if all.len() > MOST {
        errors.push(Error::too_many(&rules.path, all.len(), MOST));
    }
    let template = spec.child("template").child("spec");
    let containers = ["containers", "initContainers"].map(|list| template.child(list).items());
    let names: Vec<&str> = containers.iter().flatten().map(|one| one.child("name").str()).collect();
    for rule in all {
        let action = rule.child("action");
        action.one_of(errors, &["Count", "FailIndex", "FailJob", "Ignore"]);
        if action.str() == "FailIndex" {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"))
            }
            (false, false) => {
                errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
        if codes.is_set() {
            exit_codes(errors, &codes, &names);
        }
        for condition in conditions.items() {
            if condition.child("type").is_empty() {
                errors.push(condition.child("type").required(""));
            }
            condition.child("status").one_of(errors, &["False", "True", "Unknown"]);
        }
    }
}

fn exit_codes(errors: &mut ErrorList, codes: &At<'_>, names: &[&str]) {
    let operator = codes.child("operator");
    operator.one_of(errors, &["In", "NotIn"]);
    let container = codes.child("containerName");
    if container.is_set() && !names.contains(&container.str()) {
        errors.push(
            container.invalid("must be one of the container or initContainer names in the pod template"),
        );
    }
    let values = codes.child("values");
    let all: Vec<At<'_>> = values.items();
    if all.is_empty() {
        errors.push(values.invalid("at least one value is required"));
    } else if all.len() > 255 {
        errors.push(Error::too_many(&values.path, all.len(), 255));
    }
    let mut last = None;
    for value in all {
        let code = value.int();
        if code == Some(0) && operator.str() == "In" {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if last.is_some() && code <= last {
            let what = if code == last { "must not contain duplicates" } else { "must be ordered" };
            errors.push(values.invalid(what));
            break;
        }
        last = code;
    }
}

fn success_policy(errors: &mut ErrorList, spec: &At<'_>, is_indexed: bool) {
    let policy = spec.child("successPolicy");
    if !policy.is_set() {
        return;
    }
    if !is_indexed {
        errors.push(policy.invalid("requires indexed completion mode"));
        return;
    }
    let rules = policy.child("rules");
    if rules.is_empty() {
        errors
            .push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    let completions = spec.child("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (count, indexes) = (rule.child("succeededCount"), rule.child("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            errors
                .push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
        }
        count.non_negative(errors);
        if count.int().is_some_and(|count| count > completions) {
            errors.push(count.invalid(format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            )));
        }
        if let Err(why) = read_indexes(indexes.str(), completions) {
            errors.push(indexes.invalid(why));
        }
    }
}

/// `1,3-5`: in order, below `completions`.
fn read_indexes(text: &str, completions: i64) -> Result<(), String> {
    let mut next = 0;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first < next || last < first {
            return Err(format!("non-increasing order, previous: {}, current: {first}", next - 1));
        }
        if last >= completions {
            return Err(format!("too large index: {last:?}"));
        }
        next = last + 1;
    }
    Ok(())
}

/// What a Job is made of stays; how many of its pods run at a time, and when it gives up, may change.
pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (spec, was) = (new.child("spec"), old.child("spec"));
    let (completions, parallelism) = (spec.child("completions"), spec.child("parallelism"));
    let is_elastic = spec.child("completionMode").str() == "Indexed"
        && completions.is_set()
        && completions.int() == parallelism.int()
        && was.child("completions").int() == was.child("parallelism").int();
    if !is_elastic {
        completions.immutable(errors, &was.child("completions"));
    }
    for field in ["selector", "completionMode", "podFailurePolicy", "successPolicy"] {
        spec.child(field).immutable(errors, &was.child(field));
    }
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
}

/// Where its pods run may still be decided while a Job waits for its start.
fn without_directives(template: &mut Value) {
    for (part, fields) in [
        ("metadata", &["annotations", "labels"][..]),
        ("spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"][..]),
    ] {
        if let Some(part) = template.get_mut(part).and_then(Value::as_object_mut) {
            part.retain(|field, _| !fields.contains(&field.as_str()));
        }
    }
}
