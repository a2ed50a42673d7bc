//! Where a pod may run: affinity, tolerations, spreading, taints.

use super::view::At;
use super::{metadata, names};
use crate::field::{Error, ErrorList};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn tolerations(errors: &mut ErrorList, list: &At<'_>) {
    for toleration in list.items() {
        toleration_entry(errors, &toleration);
    }
}

fn toleration_entry(errors: &mut ErrorList, at: &At<'_>) {
    let (key, operator, effect, value) =
        (at.child("key"), at.child("operator"), at.child("effect"), at.child("value"));
    if !key.str().is_empty() {
        key.invalid_each(errors, names::qualified_name(key.str()));
    }
    if key.str().is_empty() && operator.str() != "Exists" {
        errors.push(Error::invalid(
            &operator.path,
            operator.str(),
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ));
    }
    if at.child("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
        errors.push(Error::invalid(
            &effect.path,
            effect.str(),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    match operator.str() {
        "" | "Equal" => {
            let wrong = names::label_value(value.str());
            if !wrong.is_empty() {
                errors.push(Error::invalid(&operator.path, value.str(), wrong.join(";")));
            }
        }
        "Exists" => {
            if !value.str().is_empty() {
                errors.push(Error::invalid(
                    &operator.path,
                    value.str(),
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
        }
        _ => operator.one_of_set(errors, &["Equal", "Exists"]),
    }
    if !effect.str().is_empty() {
        effect.one_of_set(errors, &EFFECTS);
    }
}

/// `spec.taints` of a node.
pub(super) fn taints(errors: &mut ErrorList, list: &At<'_>) {
    let mut seen = Vec::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.child("key"), taint.child("value"), taint.child("effect"));
        for message in names::qualified_name(key.str()) {
            errors.push(Error::invalid(&key.path, key.str(), message));
        }
        let wrong = names::label_value(value.str());
        if !wrong.is_empty() {
            errors.push(value.invalid(wrong.join(";")));
        }
        effect.one_of(errors, &EFFECTS);
        let id = (key.str(), effect.str());
        if seen.contains(&id) {
            let mut error = Error::duplicate(&taint.path, taint.value());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.push(id);
    }
}

pub(super) fn affinity(errors: &mut ErrorList, affinity: &At<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = affinity.child("nodeAffinity");
    let required = node.child(REQUIRED);
    if required.is_set() {
        let terms = required.child("nodeSelectorTerms");
        if terms.is_empty() {
            errors.push(terms.required("must have at least one node selector term"));
        }
        for term in terms.items() {
            node_selector_term(errors, &term, true);
        }
    }
    for term in node.child(PREFERRED).items() {
        weight(errors, &term);
        node_selector_term(errors, &term.child("preference"), false);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = affinity.child(kind);
        for term in at.child(REQUIRED).items() {
            pod_term(errors, &term);
        }
        for term in at.child(PREFERRED).items() {
            weight(errors, &term);
            pod_term(errors, &term.child("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut ErrorList, term: &At<'_>) {
    let weight = term.child("weight");
    let number = weight.int().unwrap_or(0);
    if !(1..=100).contains(&number) {
        errors.push(Error::invalid(&weight.path, number, "must be in the range 1-100"));
    }
}

fn node_selector_term(errors: &mut ErrorList, term: &At<'_>, strict_values: bool) {
    for requirement in term.child("matchExpressions").items() {
        let (key, operator, values) =
            (requirement.child("key"), requirement.child("operator"), requirement.child("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(
                    values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                );
            }
            "Gt" | "Lt" if values.items().len() != 1 => {
                errors
                    .push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(Error::invalid(&operator.path, other, "not a valid selector operator")),
        }
        for message in names::qualified_name(key.str()) {
            errors.push(Error::invalid(&key.path, key.str(), message));
        }
        if strict_values {
            for value in values.items() {
                value.invalid_each(errors, names::label_value(value.str()));
            }
        }
    }
    for requirement in term.child("matchFields").items() {
        let (key, operator, values) =
            (requirement.child("key"), requirement.child("operator"), requirement.child("values"));
        match operator.str() {
            "In" | "NotIn" if values.items().len() != 1 => errors.push(values.required(
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )),
            "In" | "NotIn" => {}
            other => errors.push(Error::invalid(&operator.path, other, "not a valid selector operator")),
        }
        if key.str() == "metadata.name" {
            for value in values.items() {
                value.invalid_each(errors, names::dns_subdomain(value.str()));
            }
        } else {
            errors.push(Error::invalid(&key.path, key.str(), "not a valid field selector key"));
        }
    }
}

fn pod_term(errors: &mut ErrorList, term: &At<'_>) {
    metadata::label_selector(errors, &term.child("labelSelector"));
    metadata::label_selector(errors, &term.child("namespaceSelector"));
    for name in term.child("namespaces").strings() {
        for message in names::dns_label(name) {
            errors.push(Error::invalid(&term.child("namespace").path, name, message));
        }
    }
    topology_key(errors, &term.child("topologyKey"));
}

fn topology_key(errors: &mut ErrorList, key: &At<'_>) {
    if key.str().is_empty() {
        errors.push(key.required("can not be empty"));
    }
    for message in names::qualified_name(key.str()) {
        errors.push(Error::invalid(&key.path, key.str(), message));
    }
}

pub(super) fn spread(errors: &mut ErrorList, list: &At<'_>) {
    let mut seen = Vec::new();
    for constraint in list.items() {
        let at = |field: &str| constraint.child(field);
        if at("maxSkew").int().unwrap_or(0) <= 0 {
            let skew = at("maxSkew").int().unwrap_or(0);
            errors.push(Error::invalid(&at("maxSkew").path, skew, "must be greater than zero"));
        }
        let key = at("topologyKey");
        if key.str().is_empty() {
            errors.push(key.required("can not be empty"));
        } else {
            key.invalid_each(errors, names::qualified_name(key.str()));
        }
        let when = at("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&when.str()) {
            errors.push(Error::not_supported(&when.path, when.str(), &["DoNotSchedule", "ScheduleAnyway"]));
        }
        let id = (key.str(), when.str());
        if seen.contains(&id) {
            errors.push(Error::duplicate(
                &constraint.path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {}}}", id.0, id.1),
            ));
        }
        seen.push(id);
        let domains = at("minDomains");
        if domains.int().is_some_and(|n| n <= 0) {
            errors.push(domains.invalid("must be greater than zero"));
        }
        if domains.is_set() && when.str() != "DoNotSchedule" {
            errors.push(
                domains.invalid(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                ),
            );
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            at(policy).one_of_set(errors, &["Honor", "Ignore"]);
        }
        metadata::label_selector(errors, &at("labelSelector"));
    }
}
