//! What a field is when nobody said: upstream's defaulting of each kind, on the JSON value.
//!
//! Run on every object that comes in, before admission and validation, and again after a patch; running it twice
//! changes nothing. A file per family of kinds. Values of the wrong type are left alone: strict decoding and
//! validation name them.

mod meta;
mod network;
mod pod;
mod rbac;
mod workload;

use serde_json::{Map, Value};

use crate::registry::Resource;

pub use pod::qos_class;

/// Defaults of an object of `resource`.
pub fn apply(resource: &Resource, object: &mut Value) {
    apply_kind(resource.group, resource.kind, object);
}

/// Defaults of `kind` in API group `group` ("" is the core group). Kinds without defaults are left alone.
pub fn apply_kind(group: &str, kind: &str, object: &mut Value) {
    let Some(root) = object.as_object_mut() else { return };
    match (group, kind) {
        ("", "Pod") => pod::pod(root),
        ("", "PodTemplate") => pod::template(root),
        ("", "ReplicationController") => workload::replication_controller(root),
        ("apps", "Deployment") => workload::deployment(root),
        ("apps", "DaemonSet") => workload::daemon_set(root),
        ("apps", "ReplicaSet") => workload::replica_set(root),
        ("apps", "StatefulSet") => workload::stateful_set(root),
        ("batch", "Job") => workload::job(root),
        ("batch", "CronJob") => workload::cron_job(root),
        ("", "Service") => network::service(root),
        ("", "Endpoints") => network::endpoints(root),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(root),
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy(root),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding(root),
        ("", "Secret") => meta::secret(root),
        ("", "Namespace") => meta::namespace(root),
        ("", "Node") => meta::node(root),
        ("", "Event") => meta::event(root),
        ("scheduling.k8s.io", "PriorityClass") => set(root, "preemptionPolicy", "PreemptLowerPriority"),
        // ConfigMap, ServiceAccount and the rest have none that show: an empty `data` is not written.
        _ => {}
    }
}

/// Whether upstream's typed field would be its zero value: absent, null, "", 0 or false.
fn unset(map: &Map<String, Value>, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Number(n)) => n.as_i64() == Some(0),
        Some(Value::Bool(b)) => !b,
        _ => false,
    }
}

/// For fields that are not pointers upstream: a zero value means "not said".
fn set(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if unset(map, key) {
        map.insert(key.to_owned(), value.into());
    }
}

/// For fields that are pointers upstream: 0, "" and false were said.
fn set_absent(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if matches!(map.get(key), None | Some(Value::Null)) {
        map.insert(key.to_owned(), value.into());
    }
}

/// The object under `key`, made where it is absent; None where something else stands there.
fn object_at<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    set_absent(map, key, Value::Object(Map::new()));
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// The object under `key` where there is one.
fn maybe<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// The objects of the list under `key`.
fn each<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

fn is_empty(map: &Map<String, Value>, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Array(a)) => a.is_empty(),
        Some(Value::Object(o)) => o.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
