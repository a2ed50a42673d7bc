//! Defaults of the kinds that run nothing: Secret, Namespace, Node, Event.

use serde_json::{Map, Value, json};

use super::{is_empty, maybe, object_at, set, set_absent, text};

/// `type: Opaque`; `stringData` is written into `data` and dropped, as the API server never stores it.
pub(super) fn secret(root: &mut Map<String, Value>) {
    set(root, "type", "Opaque");
    let Some(Value::Object(plain)) = root.remove("stringData") else { return };
    if plain.is_empty() {
        return;
    }
    let Some(data) = object_at(root, "data") else { return };
    for (key, value) in plain {
        let Some(value) = value.as_str() else { continue };
        data.insert(key, Value::String(crate::base64::encode(value.as_bytes())));
    }
}

/// The label that selectors use to name a namespace, the finalizer that empties it, the first phase.
pub(super) fn namespace(root: &mut Map<String, Value>) {
    let name = root.get("metadata").and_then(Value::as_object).map(|m| text(m, "name").to_owned());
    if let (Some(name), Some(metadata)) = (name, maybe(root, "metadata"))
        && !name.is_empty()
        && let Some(labels) = object_at(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), Value::String(name));
    }
    let deleted = root.get("metadata").and_then(|m| m.get("deletionTimestamp")).is_some_and(|t| !t.is_null());
    if let Some(spec) = object_at(root, "spec")
        && !deleted
        && is_empty(spec, "finalizers")
    {
        spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
    }
    if let Some(status) = object_at(root, "status") {
        set(status, "phase", "Active");
    }
}

pub(super) fn node(root: &mut Map<String, Value>) {
    if let Some(status) = maybe(root, "status")
        && let Some(capacity) = status.get("capacity").filter(|c| c.is_object()).cloned()
    {
        set_absent(status, "allocatable", capacity);
    }
}

/// The fields that are always written.
pub(super) fn event(root: &mut Map<String, Value>) {
    object_at(root, "source");
    set(root, "reportingComponent", "");
    set(root, "reportingInstance", "");
}
