//! What an update of a pod may change: almost nothing, on each of its paths.

use serde_json::{Map, Value};

use super::names;
use super::view::At;
use crate::field::{Error, ErrorList, Path};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    mirror_annotation(errors, new, old);
    app_armor_annotations(errors, new, old);
    let (new, old) = (new.child("spec"), old.child("spec"));
    for list in ["containers", "initContainers"] {
        if new.child(list).items().len() != old.child(list).items().len() {
            errors.push(new.child(list).forbidden("pod updates may not add or remove containers"));
            return;
        }
    }
    deadline(errors, &new.child("activeDeadlineSeconds"), &old.child("activeDeadlineSeconds"));
    added_tolerations(errors, &new.child("tolerations"), &old.child("tolerations"));
    deleted_gates(errors, &new.child("schedulingGates"), &old.child("schedulingGates"));

    let (Some(Value::Object(now)), Some(Value::Object(was))) = (new.raw(), old.raw()) else { return };
    let gated = !old.child("schedulingGates").is_empty();
    let munged = munge(now, was, gated);
    let mut changes = Vec::new();
    difference(&mut changes, "", &Value::Object(was.clone()), &Value::Object(munged));
    if !changes.is_empty() {
        errors.push(new.forbidden(&format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            changes.join("\n")
        )));
    }
}

/// The new spec with every field that may change set back to what it was.
fn munge(now: &Map<String, Value>, was: &Map<String, Value>, gated: bool) -> Map<String, Value> {
    let mut munged = now.clone();
    let mut restore = |field: &str| match was.get(field) {
        Some(value) => munged.insert(field.to_owned(), value.clone()),
        None => munged.remove(field),
    };
    restore("activeDeadlineSeconds");
    restore("tolerations");
    restore("schedulingGates");
    // A gated pod has not been placed: where it may go may still be narrowed.
    if gated {
        restore("nodeSelector");
        restore("affinity");
    }
    let grace = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(was).is_some_and(|g| g < 0) && grace(now) == Some(1) {
        restore("terminationGracePeriodSeconds");
    }
    for list in ["containers", "initContainers"] {
        let images: Vec<Option<Value>> = match was.get(list).and_then(Value::as_array) {
            Some(old) => old.iter().map(|c| c.get("image").cloned()).collect(),
            None => continue,
        };
        let Some(new) = munged.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (container, image) in new.iter_mut().zip(images) {
            if let (Some(container), Some(image)) = (container.as_object_mut(), image) {
                container.insert("image".to_owned(), image);
            }
        }
    }
    // Ephemeral containers have their own path; the main one keeps what is there.
    if let Some(kept) = was.get("ephemeralContainers") {
        munged.insert("ephemeralContainers".to_owned(), kept.clone());
    }
    munged
}

/// The leaves that differ, as lines `-old` and `+new`. Zero values and absent ones are the same to Kubernetes.
fn difference(out: &mut Vec<String>, path: &str, old: &Value, new: &Value) {
    const MOST: usize = 20;
    if old == new || (is_zero(old) && is_zero(new)) || out.len() >= MOST {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for key in keys {
                let at = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                difference(out, &format!("{path}.{key}"), &at(a), &at(b));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                difference(out, &format!("{path}[{i}]"), a, b);
            }
        }
        _ => {
            let path = path.trim_start_matches('.');
            if !is_zero(old) {
                out.push(format!("- \t{path}: {old}"));
            }
            if !is_zero(new) {
                out.push(format!("+ \t{path}: {new}"));
            }
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn mirror_annotation(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let at = |root: &At<'_>| root.child("metadata").child("annotations").key(MIRROR).value();
    let (now, was) = (at(new), at(old));
    if now != was {
        let verb = if was.is_null() { "add" } else { "remove or update" };
        let path = new.child("metadata").child("annotations").key(MIRROR).path;
        errors.push(Error::forbidden(&path, format!("may not {verb} mirror pod annotation")));
    }
}

/// A container's profile is decided when it is made (`ValidatePodSpecificAnnotationUpdates`).
fn app_armor_annotations(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let (now, was) = (new.child("metadata").child("annotations"), old.child("metadata").child("annotations"));
    let profiles = |at: &At<'_>| -> Map<String, Value> {
        let Value::Object(all) = at.value() else { return Map::new() };
        all.into_iter().filter(|(key, _)| key.starts_with(PREFIX)).collect()
    };
    let (had, has) = (profiles(&was), profiles(&now));
    for key in had.keys().chain(has.keys().filter(|key| !had.contains_key(*key))) {
        if had.get(key) != has.get(key) {
            let verb = if had.contains_key(key) { "remove or update" } else { "add" };
            errors.push(Error::forbidden(&now.key(key).path, format!("may not {verb} AppArmor annotations")));
        }
    }
}

fn deadline(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    match (new.int(), old.int()) {
        (Some(now), Some(was)) if now > was => {
            errors.push(new.invalid("must be less than or equal to previous value"));
        }
        (None, Some(_)) => errors.push(new.invalid("must not update from a positive integer to nil value")),
        _ => {}
    }
}

fn added_tolerations(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let without_seconds = |at: &At<'_>| {
        let mut value = at.value();
        if let Some(map) = value.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        value
    };
    let now: Vec<Value> = new.items().iter().map(without_seconds).collect();
    if old.items().iter().any(|t| !now.contains(&without_seconds(t))) {
        errors.push(new.forbidden("existing toleration can not be modified except its tolerationSeconds"));
    }
}

fn deleted_gates(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let before: Vec<&str> = old.items().iter().map(|g| g.child("name").str()).collect();
    for gate in new.items() {
        let name = gate.child("name");
        if !before.contains(&name.str()) {
            errors.push(name.forbidden(&format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.str()
            )));
        }
    }
}

/// `pods/ephemeralcontainers`: only additions.
pub(super) fn ephemeral_containers(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    let list = new.child("ephemeralContainers");
    let now = list.items();
    for container in old.child("ephemeralContainers").items() {
        let name = container.child("name").str();
        let quoted = crate::field::quote(name);
        match now.iter().find(|c| c.child("name").str() == name) {
            None => {
                errors.push(
                    list.forbidden(&format!("existing ephemeral containers {quoted} may not be removed\n")),
                );
            }
            Some(found) if found.raw() != container.raw() => {
                let mut changes = Vec::new();
                difference(&mut changes, "", &container.value(), &found.value());
                errors.push(list.forbidden(&format!(
                    "existing ephemeral containers {quoted} may not be changed\n{}",
                    changes.join("\n")
                )));
            }
            Some(_) => {}
        }
    }
}

/// `pods/status`.
pub(super) fn status(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    const SYSTEM: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
    let path = Path::new("metadata").child("conditions");
    for (i, condition) in new.child("status").child("conditions").items().iter().enumerate() {
        let kind = condition.child("type").str();
        if !SYSTEM.contains(&kind) {
            for message in names::qualified_name(kind) {
                errors.push(Error::invalid(&path.index(i).child("Type"), kind, message));
            }
        }
    }
    let node = |root: &At<'_>| root.child("spec").child("nodeName").str().to_owned();
    if node(new) != node(old) {
        errors.push(new.child("status").child("nodeName").forbidden("may not be changed directly"));
    }
    let (was, spec) = (old.child("status"), old.child("spec"));
    let new = new.child("status");
    let nominated = new.child("nominatedNodeName");
    if !nominated.str().is_empty() {
        nominated.invalid_each(errors, names::dns_subdomain(nominated.str()));
    }
    // The class follows from the spec, which does not change.
    if was.child("qosClass").is_set() && new.child("qosClass").is_set() {
        new.child("qosClass").immutable(errors, &was.child("qosClass"));
    }
    let policy = spec.child("restartPolicy").str();
    let sidecars: Vec<&str> = spec
        .child("initContainers")
        .items()
        .iter()
        .filter(|c| c.child("restartPolicy").str() == "Always")
        .map(|c| c.child("name").str())
        .collect();
    for (list, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        restarted(errors, &new.child(list), &was.child(list), policy, &sidecars);
    }
    for (list, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(errors, &new, list, single);
    }
}

/// A container that has ended for good may not come back.
fn restarted(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>, policy: &str, sidecars: &[&str]) {
    if policy == "Always" {
        return;
    }
    for (i, was) in old.items().iter().enumerate() {
        let name = was.child("name").str();
        let ended = was.child("state").child("terminated");
        let failed = ended.child("exitCode").int().unwrap_or(0) != 0;
        if !ended.is_set() || (failed && policy == "OnFailure") || sidecars.contains(&name) {
            continue;
        }
        let now = new.items().into_iter().find(|c| c.child("name").str() == name);
        if now.is_some_and(|c| !c.child("state").child("terminated").is_set()) {
            errors.push(Error::forbidden(
                &new.path.index(i).child("state"),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}

fn addresses(errors: &mut ErrorList, status: &At<'_>, list: &str, single: &str) {
    let list = status.child(list);
    let items = list.items();
    let mut seen = Vec::new();
    for item in &items {
        let ip = item.child("ip").str();
        for message in names::ip(ip) {
            errors.push(Error::invalid(&item.path, ip, message));
        }
        if seen.contains(&ip) {
            errors.push(Error::duplicate(&item.path, item.value()));
        }
        seen.push(ip);
    }
    let families = |v6: bool| seen.iter().filter(|ip| ip.contains(':') == v6).count();
    if families(false) > 1 || families(true) > 1 {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
    if single == "hostIP"
        && let Some(first) = items.first()
        && first.child("ip").str() != status.child(single).str()
    {
        errors.push(first.child("ip").invalid("must be equal to `hostIP`"));
    }
}
