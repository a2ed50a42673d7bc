//! What the server itself writes into an object, by kind: upstream's `PrepareForCreate` and `PrepareForUpdate`.

use api::{defaults, registry::Resource};
use serde_json::{Map, Value, json};

/// Kinds whose `metadata.generation` counts the changes of their spec.
fn counts_generations(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.plural),
        ("", "pods" | "podtemplates" | "replicationcontrollers")
            | ("apps" | "batch", _)
            | ("networking.k8s.io", _)
            | ("discovery.k8s.io", "endpointslices")
    )
}

/// Kinds that a PUT of an absent object creates (`AllowCreateOnUpdate`).
pub fn creates_on_update(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.plural),
        ("", "events" | "endpoints" | "services") | ("coordination.k8s.io", "leases")
    )
}

/// Kinds whose PUT must name a resource version (no `AllowUnconditionalUpdate`).
pub fn needs_revision(resource: &Resource) -> bool {
    (resource.group, resource.plural) == ("coordination.k8s.io", "leases")
}

/// Kinds whose delete answers with the object and not a `Status` (`ReturnDeletedObject`).
pub fn returns_deleted(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(resource.plural, "pods" | "services" | "serviceaccounts")
}

/// Before a create: the status is the server's, the generation starts.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    if counts_generations(resource) {
        object["metadata"]["generation"] = 1.into();
    } else if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("generation");
    }
    match (resource.group, resource.plural) {
        ("", "pods") => {
            object["status"] = json!({"phase": "Pending", "qosClass": defaults::qos_class(object)})
        }
        ("", "namespaces") => {
            object["status"] = json!({"phase": "Active"});
            let finalizers = &mut object["spec"]["finalizers"];
            match finalizers.as_array_mut() {
                Some(list) if list.iter().any(|name| name == "kubernetes") => {}
                Some(list) => list.push("kubernetes".into()),
                None => *finalizers = json!(["kubernetes"]),
            }
        }
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        ("batch", "jobs") => {
            object["status"] = json!({});
            generate_selector(object);
        }
        ("apps", "daemonsets") => {
            object["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0});
            count_template(object, 1);
        }
        ("apps", "statefulsets") => object["status"] = json!({"replicas": 0, "availableReplicas": 0}),
        // A kubelet registers with its status.
        ("", "nodes") => {}
        _ if resource.has_status() => object["status"] = json!({}),
        _ => {}
    }
}

/// Counts the changes of a DaemonSet's template; clients may not.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn count_template(set: &mut Value, count: i64) {
    let annotations = &mut set["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), count.to_string().into());
    }
}

/// The selector of a Job and the labels of its pods are the server's, so that no two Jobs see the same pods
/// (`pkg/registry/batch/job`). What somebody set already, validation refuses.
fn generate_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    let template = &mut job["spec"]["template"];
    let labels = &mut template["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    let Some(labels) = labels.as_object_mut() else { return };
    for prefix in ["", "batch.kubernetes.io/"] {
        labels.entry(format!("{prefix}controller-uid")).or_insert_with(|| uid.clone());
        labels.entry(format!("{prefix}job-name")).or_insert_with(|| name.clone());
    }
    let selector = &mut job["spec"]["selector"];
    if selector.is_null() {
        *selector = json!({"matchLabels": {}});
    }
    if selector["matchLabels"].is_null() {
        selector["matchLabels"] = json!({});
    }
    if let Some(matches) = selector["matchLabels"].as_object_mut() {
        matches.entry("batch.kubernetes.io/controller-uid").or_insert(uid);
    }
}

/// Before an update through the main path or `subresource`: what that path does not write stays as it is.
pub fn prepare_update(resource: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    let keep = |new: &mut Value, field: &str| match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => {
            if let Some(root) = new.as_object_mut() {
                root.remove(field);
            }
        }
    };
    match subresource {
        "status" => {
            let status = new.get("status").cloned();
            let metadata = new["metadata"].clone();
            *new = old.clone();
            if let Some(status) = status {
                new["status"] = status;
            }
            // Upstream's status strategies let labels, annotations and finalizers through.
            for field in ["labels", "annotations", "finalizers", "resourceVersion"] {
                set_or_remove(&mut new["metadata"], field, metadata.get(field));
            }
            if (resource.group, resource.plural) == ("", "pods") && new["status"]["qosClass"].is_null() {
                new["status"]["qosClass"] = old["status"]["qosClass"].clone();
            }
        }
        "finalize" => keep(new, "status"),
        "ephemeralcontainers" => {
            let added = new["spec"]["ephemeralContainers"].clone();
            let revision = new["metadata"].get("resourceVersion").cloned();
            *new = old.clone();
            if !added.is_null() {
                new["spec"]["ephemeralContainers"] = added;
            }
            set_or_remove(&mut new["metadata"], "resourceVersion", revision.as_ref());
        }
        _ => {
            if resource.has_status() {
                keep(new, "status");
            }
            if (resource.group, resource.plural) == ("", "namespaces") {
                let finalizers = old["spec"].get("finalizers").cloned();
                if !new["spec"].is_object() {
                    new["spec"] = Value::Object(Map::new());
                }
                set_or_remove(&mut new["spec"], "finalizers", finalizers.as_ref());
            }
        }
    }
    if (resource.group, resource.plural, subresource) == ("apps", "daemonsets", "") {
        let count = old["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
        let count: i64 = count.and_then(|count| count.parse().ok()).unwrap_or(1);
        let changed = new["spec"]["template"] != old["spec"]["template"];
        count_template(new, count + i64::from(changed));
    }
    set_or_remove(&mut new["metadata"], "generation", old["metadata"].get("generation"));
    if counts_generations(resource) && subresource != "status" && differs(resource, new, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = (generation + 1).into();
    }
}

fn differs(resource: &Resource, new: &Value, old: &Value) -> bool {
    if resource.plural == "podtemplates" {
        return new.get("template") != old.get("template");
    }
    if resource.plural == "endpointslices" {
        return ["endpoints", "ports"].iter().any(|field| new.get(*field) != old.get(*field));
    }
    new.get("spec") != old.get("spec")
}

/// Puts `value` into an object's field, or takes the field away.
pub fn set_or_remove(object: &mut Value, field: &str, value: Option<&Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) if !value.is_null() => {
            map.insert(field.to_owned(), value.clone());
        }
        _ => {
            map.remove(field);
        }
    }
}
