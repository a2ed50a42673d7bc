//! ObjectMeta: the rules that hold for every kind (apimachinery `ValidateObjectMeta` and core's finalizer names).

use serde_json::Value;

use super::names;
use super::view::At;
use crate::field::{Error, ErrorList};

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// How the name of a kind is written.
pub(super) fn name_rule(group: &str, kind: &str) -> fn(&str) -> Vec<String> {
    match (group, kind) {
        // A pod's host name begins with a StatefulSet's name.
        ("", "Namespace") | ("apps", "StatefulSet") => names::dns_label,
        ("", "Service") => names::dns_1035_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        (
            ""
            | "apps"
            | "networking.k8s.io"
            | "policy.networking.k8s.io"
            | "discovery.k8s.io"
            | "batch"
            | "policy"
            | "coordination.k8s.io"
            | "scheduling.k8s.io"
            | "node.k8s.io"
            | "storage.k8s.io",
            _,
        ) => names::dns_subdomain,
        _ => names::path_segment,
    }
}

pub(super) fn create(errors: &mut ErrorList, root: &At<'_>, rule: fn(&str) -> Vec<String>, namespaced: bool) {
    let meta = root.child("metadata");
    let generate = meta.child("generateName");
    if !generate.str().is_empty() {
        generate.invalid_each(errors, rule(&names::mask_trailing_dash(generate.str())));
    }
    let name = meta.child("name");
    if name.str().is_empty() {
        errors.push(name.required("name or generateName is required"));
    } else {
        name.invalid_each(errors, rule(name.str()));
    }
    let namespace = meta.child("namespace");
    match (namespaced, namespace.str()) {
        (true, "") => errors.push(namespace.required("")),
        (true, text) => namespace.invalid_each(errors, names::dns_label(text)),
        (false, "") => {}
        (false, _) => errors.push(namespace.forbidden("not allowed on this type")),
    }
    common(errors, &meta);
}

/// What holds of every object's metadata, whatever rule its name has.
pub(super) fn common(errors: &mut ErrorList, meta: &At<'_>) {
    meta.child("generation").non_negative(errors);
    labels(errors, &meta.child("labels"));
    annotations(errors, &meta.child("annotations"));
    owners(errors, &meta.child("ownerReferences"));
    finalizers(errors, &meta.child("finalizers"));
}

/// What an update may not change. The server itself fills in what a client leaves out (uid, creationTimestamp, …), so
/// an absent value is no change.
pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.child("metadata"), old.child("metadata"));
    if old.child("deletionTimestamp").is_set() {
        let before = old.child("finalizers").strings();
        let mut added: Vec<&str> =
            new.child("finalizers").strings().into_iter().filter(|f| !before.contains(f)).collect();
        added.sort_unstable();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|f| crate::field::quote(f)).collect();
            errors.push(new.child("finalizers").forbidden(&format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            )));
        }
    }
    let generation = new.child("generation");
    if generation.int().is_some_and(|n| n < old.child("generation").int().unwrap_or(0)) {
        errors.push(generation.invalid("must not be decremented"));
    }
    for field in ["name", "namespace"] {
        new.child(field).immutable(errors, &old.child(field));
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = new.child(field);
        if value.is_set() {
            value.immutable(errors, &old.child(field));
        }
    }
    common(errors, &new);
}

pub(super) fn labels(errors: &mut ErrorList, labels: &At<'_>) {
    for (key, value) in labels.entries() {
        for message in names::qualified_name(key) {
            errors.push(Error::invalid(&labels.path, key, message));
        }
        for message in names::label_value(value.str()) {
            errors.push(Error::invalid(&labels.path, value.str(), message));
        }
    }
}

pub(super) fn annotations(errors: &mut ErrorList, annotations: &At<'_>) {
    let mut total = 0;
    for (key, value) in annotations.entries() {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(&annotations.path, key, message));
        }
        total += key.len() + value.str().len();
    }
    if total > ANNOTATIONS_MAX {
        errors.push(Error::too_long(&annotations.path, ANNOTATIONS_MAX));
    }
}

fn owners(errors: &mut ErrorList, owners: &At<'_>) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        let at = |name: &str| owner.child(name).with_path(owners.path.child(name));
        let version = at("apiVersion");
        if version.str().rsplit('/').next().unwrap_or("").is_empty() {
            errors.push(Error::invalid(&version.path, version.str(), "version must not be empty"));
        }
        for name in ["kind", "name", "uid"] {
            let field = at(name);
            if field.str().is_empty() {
                errors.push(Error::invalid(&field.path, "", "must not be empty"));
            }
        }
        let kind = owner.child("kind").str();
        if version.str() == "v1" && kind == "Event" {
            errors.push(Error::invalid(
                &owners.path,
                owner.value(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.child("controller").bool() {
            let this = format!("{kind}/{}", owner.child("name").str());
            match &controller {
                Some(first) => errors.push(owners.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                     and {this}"
                ))),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(errors: &mut ErrorList, list: &At<'_>) {
    let all = list.strings();
    for item in list.items() {
        finalizer(errors, &item);
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        errors.push(list.invalid("finalizer orphan and foregroundDeletion cannot be both set"));
    }
}

/// A qualified name with a prefix, or one of Kubernetes' own three.
pub(super) fn finalizer(errors: &mut ErrorList, item: &At<'_>) {
    item.invalid_each(errors, names::qualified_name(item.str()));
    let standard = ["kubernetes", "orphan", "foregroundDeletion"].contains(&item.str());
    if !item.str().contains('/') && !standard {
        errors.push(item.invalid("name is neither a standard finalizer name nor is it fully qualified"));
    }
}

/// A `LabelSelector`.
pub(super) fn label_selector(errors: &mut ErrorList, selector: &At<'_>) {
    labels(errors, &selector.child("matchLabels"));
    for requirement in selector.child("matchExpressions").items() {
        let values = requirement.child("values");
        match requirement.child("operator").str() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.push(
                        values
                            .forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                    );
                }
            }
            _ => {
                let operator = requirement.child("operator");
                errors.push(Error::invalid(&operator.path, operator.str(), "not a valid selector operator"));
            }
        }
        let key = requirement.child("key");
        for message in names::qualified_name(key.str()) {
            errors.push(Error::invalid(&key.path, key.str(), message));
        }
        for value in values.items() {
            value.invalid_each(errors, names::label_value(value.str()));
        }
    }
}

/// Whether `selector` (a LabelSelector that is valid) matches `labels`.
pub(super) fn selects(selector: &At<'_>, labels: &At<'_>) -> bool {
    let get = |key: &str| labels.raw().and_then(|l| l.get(key)).and_then(Value::as_str);
    let by_labels =
        selector.child("matchLabels").entries().iter().all(|(key, value)| get(key) == Some(value.str()));
    by_labels
        && selector.child("matchExpressions").items().iter().all(|requirement| {
            let found = get(requirement.child("key").str());
            let values = requirement.child("values").strings();
            match requirement.child("operator").str() {
                "In" => found.is_some_and(|v| values.contains(&v)),
                "NotIn" => found.is_none_or(|v| !values.contains(&v)),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}
