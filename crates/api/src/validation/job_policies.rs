//! What a Job makes of its pods' ends: which failures count, which successes are enough, and when another pod takes the
//! place of one.

use std::collections::BTreeSet;

use super::names;
use super::view::At;
use crate::field::{Error, ErrorList, quote};

const MOST_RULES: usize = 20;

/// One of `supported`; upstream says which there are also where none is given.
fn one_of(errors: &mut ErrorList, field: &At<'_>, supported: &[&str]) {
    if field.str().is_empty() {
        let all: Vec<String> = supported.iter().map(|one| quote(one)).collect();
        errors.push(field.required(&format!("valid values: [{}]", all.join(" "))));
    } else {
        field.one_of_set(errors, supported);
    }
}

pub(super) fn failure(errors: &mut ErrorList, spec: &At<'_>) {
    let policy = spec.child("podFailurePolicy");
    if !policy.is_set() {
        return;
    }
    let rules = policy.child("rules");
    let all = rules.items();
    if all.len() > MOST_RULES {
        errors.push(Error::too_many(&rules.path, all.len(), MOST_RULES));
    }
    let template = spec.child("template").child("spec");
    let containers = ["containers", "initContainers"].map(|list| template.child(list).items());
    let names: Vec<&str> = containers.iter().flatten().map(|one| one.child("name").str()).collect();
    for rule in all {
        let action = rule.child("action");
        one_of(errors, &action, &["Count", "FailIndex", "FailJob", "Ignore"]);
        if action.str() == "FailIndex" && !spec.child("backoffLimitPerIndex").is_set() {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        if codes.is_set() {
            exit_codes(errors, &codes, &names);
        }
        pod_conditions(errors, &conditions);
        let wrong = match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(Error::invalid_unshown(&rule.path, wrong));
    }
}

fn pod_conditions(errors: &mut ErrorList, conditions: &At<'_>) {
    let all = conditions.items();
    if all.len() > MOST_RULES {
        errors.push(Error::too_many(&conditions.path, all.len(), MOST_RULES));
    }
    for condition in all {
        let kind = condition.child("type");
        kind.invalid_each(errors, names::qualified_name(kind.str()));
        one_of(errors, &condition.child("status"), &["False", "True", "Unknown"]);
    }
}

fn exit_codes(errors: &mut ErrorList, codes: &At<'_>, names: &[&str]) {
    const MOST: usize = 255;
    let operator = codes.child("operator");
    one_of(errors, &operator, &["In", "NotIn"]);
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
    } else if all.len() > MOST {
        errors.push(Error::too_many(&values.path, all.len(), MOST));
    }
    let mut seen = BTreeSet::new();
    let mut last = None;
    let mut is_ordered = true;
    for value in all {
        let code = value.int();
        if code == Some(0) && operator.str() == "In" {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(Error::duplicate(&value.path, value.value()));
        }
        is_ordered &= last <= code;
        last = code;
    }
    if !is_ordered {
        errors.push(values.invalid("must be ordered"));
    }
}

pub(super) fn success(errors: &mut ErrorList, spec: &At<'_>) {
    let policy = spec.child("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.child("completionMode").str() != "Indexed" {
        errors.push(policy.invalid("requires indexed completion mode"));
        return;
    }
    let rules = policy.child("rules");
    let all = rules.items();
    if all.is_empty() {
        errors
            .push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if all.len() > MOST_RULES {
        errors.push(Error::too_many(&rules.path, all.len(), MOST_RULES));
    }
    let completions = spec.child("completions").int().unwrap_or(0);
    for rule in all {
        success_rule(errors, &rule, completions);
    }
}

fn success_rule(errors: &mut ErrorList, rule: &At<'_>, completions: i64) {
    const LONGEST: usize = 64 * 1024;
    let (count, indexes) = (rule.child("succeededCount"), rule.child("succeededIndexes"));
    if !count.is_set() && !indexes.is_set() {
        errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
    }
    if indexes.str().len() > LONGEST {
        errors.push(Error::too_long(&indexes.path, LONGEST));
    }
    let listed = read_indexes(indexes.str(), completions).unwrap_or_else(|why| {
        errors.push(indexes.invalid(format!("error parsing succeededIndexes: {why}")));
        Vec::new()
    });
    let listed: i64 = listed.iter().map(|(first, last)| last - first + 1).sum();
    count.non_negative(errors);
    let wanted = count.int().unwrap_or(0);
    if wanted > completions {
        errors.push(count.invalid(format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        )));
    }
    if indexes.is_set() && wanted > listed {
        errors.push(count.invalid(format!(
            "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
        )));
    }
}

/// First and last of each run of `1,3-5`: in order, below `completions`.
pub(super) fn read_indexes(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {}", quote(text))),
        Ok(index) if index >= completions => Err(format!("too large index: {}", quote(text))),
        Ok(index) => Ok(index),
    };
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = match part.split('-').collect::<Vec<_>>()[..] {
            [one] => {
                let one = index(one)?;
                (one, one)
            }
            [first, end] => {
                let (first, end) = (index(first)?, index(end)?);
                if first >= end {
                    return Err(format!("non-increasing order, previous: {first}, current: {end}"));
                }
                (first, end)
            }
            _ => {
                return Err(format!(
                    "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
                    quote(part)
                ));
            }
        };
        if let Some((_, last)) = runs.last().filter(|(_, last)| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        runs.push((first, end));
    }
    Ok(runs)
}

pub(super) fn replacement(errors: &mut ErrorList, spec: &At<'_>) {
    // What a failed pod means is known when it has failed, not while it ends.
    let supported: &[&str] = if spec.child("podFailurePolicy").is_set() {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    spec.child("podReplacementPolicy").one_of_set(errors, supported);
}
