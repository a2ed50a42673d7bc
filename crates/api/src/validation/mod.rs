//! Which objects are refused, and in what words: upstream's validation of each kind, on the JSON value after
//! defaulting. Field paths, types and messages are upstream's. A file per family of kinds; values of the wrong type
//! are strict decoding's to refuse and count as absent here.

mod cluster_network_policy;
mod container;
mod cron_job;
mod job;
mod job_policies;
mod job_status;
mod metadata;
pub mod names;
mod network_policy;
mod pod;
mod pod_update;
pub mod quantity;
mod rbac;
mod records;
mod resources;
mod scheduling;
mod security;
mod service;
mod stateful_set;
mod view;
mod volume;
mod workload;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::field::ErrorList;
use crate::registry::Resource;
use view::At;

/// What is wrong with a new object of `resource`. The name has been generated and defaults applied.
pub fn validate_create(resource: &Resource, object: &Value) -> ErrorList {
    validate_create_kind(resource.group, resource.kind, resource.namespaced(), object)
}

/// What is wrong with `new` in place of `old`, on the main resource. Defaults have been applied to both.
pub fn validate_update(resource: &Resource, new: &Value, old: &Value) -> ErrorList {
    validate_update_kind(resource.group, resource.kind, resource.namespaced(), "", new, old)
}

/// The same for a subresource that writes the object: `status`, `ephemeralcontainers`, `resize`.
pub fn validate_update_subresource(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> ErrorList {
    validate_update_kind(resource.group, resource.kind, resource.namespaced(), subresource, new, old)
}

/// How a Service's addresses and families go together: the part that must hold before the server gives it what it lacks.
pub fn service_addresses(service: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    service::cluster_ips(&mut errors, &At::root(service).child("spec"));
    errors
}

/// A `Binding`: what `pods/binding` takes.
pub fn validate_binding(binding: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    pod::binding(&mut errors, &At::root(binding));
    errors
}

/// As [`validate_create`], by group and kind; `namespaced` says whether `metadata.namespace` is required.
pub fn validate_create_kind(group: &str, kind: &str, namespaced: bool, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let root = At::root(object);
    if (group, kind) == ("", "Event") {
        // An event's name is whatever its reporter says; the rest of its metadata is as everyone's.
        metadata::common(&mut errors, &root.child("metadata"));
        records::event(&mut errors, &root);
        return errors;
    }
    metadata::create(&mut errors, &root, metadata::name_rule(group, kind), namespaced);
    body(&mut errors, group, kind, &root);
    match (group, kind) {
        ("", "Pod") => pod::create_only(&mut errors, &root),
        ("batch", "CronJob") => cron_job::create_only(&mut errors, &root),
        _ => {}
    }
    errors
}

/// As [`validate_update`], by group and kind.
pub fn validate_update_kind(
    group: &str,
    kind: &str,
    namespaced: bool,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let (new, old) = (At::root(new), At::root(old));
    metadata::update(&mut errors, &new, &old);
    match (group, kind, subresource) {
        ("", "Pod", "status") => pod_update::status(&mut errors, &new, &old),
        ("", "Pod", "ephemeralcontainers") => {
            body(&mut errors, group, kind, &new);
            pod_update::ephemeral_containers(&mut errors, &new, &old);
        }
        ("batch", "Job", "status") => job_status::update(&mut errors, &new, &old),
        (_, _, "status") => records::status(&mut errors, group, kind, &new, &old),
        ("", "Event", _) => records::event(&mut errors, &new),
        _ => {
            if namespaced && new.child("metadata").child("namespace").str().is_empty() {
                errors.push(new.child("metadata").child("namespace").required(""));
            }
            body(&mut errors, group, kind, &new);
            transition(&mut errors, group, kind, &new, &old);
        }
    }
    errors
}

/// What must hold of an object whenever it is written.
fn body(errors: &mut ErrorList, group: &str, kind: &str, root: &At<'_>) {
    match (group, kind) {
        ("", "Pod") => pod::pod(errors, root),
        ("", "PodTemplate") => pod::template(errors, &root.child("template")),
        ("apps", "Deployment") => workload::deployment(errors, root),
        ("apps", "DaemonSet") => workload::daemon_set(errors, root),
        ("apps", "ControllerRevision") => workload::controller_revision(errors, root),
        ("apps", "ReplicaSet") => workload::replica_set(errors, root),
        ("apps", "StatefulSet") => stateful_set::stateful_set(errors, root),
        ("", "ReplicationController") => workload::replication_controller(errors, root),
        ("batch", "Job") => job::job(errors, root),
        ("batch", "CronJob") => cron_job::cron_job(errors, root),
        ("", "Service") => service::service(errors, root),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::network_policy(errors, root),
        ("rbac.authorization.k8s.io", "Role") => rbac::rules(errors, root, rbac::Scope::Namespace),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::cluster_role(errors, root),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(errors, root, rbac::Scope::Namespace),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            rbac::binding(errors, root, rbac::Scope::Cluster);
        }
        ("policy.networking.k8s.io", "ClusterNetworkPolicy") => {
            cluster_network_policy::cluster_network_policy(errors, root);
        }
        ("", "ConfigMap") => records::config_map(errors, root),
        ("", "Secret") => records::secret(errors, root),
        ("", "Namespace") => records::namespace(errors, root),
        ("", "Node") => records::node(errors, root),
        ("", "Endpoints") => records::endpoints(errors, root),
        ("discovery.k8s.io", "EndpointSlice") => records::endpoint_slice(errors, root),
        _ => {}
    }
}

/// What an update may not do.
fn transition(errors: &mut ErrorList, group: &str, kind: &str, new: &At<'_>, old: &At<'_>) {
    match (group, kind) {
        ("", "Pod") => pod_update::update(errors, new, old),
        ("apps", "ControllerRevision") => new.child("data").immutable(errors, &old.child("data")),
        ("apps", "DaemonSet" | "Deployment" | "ReplicaSet") => {
            let selector = |root: &At<'_>| root.child("spec").child("selector").value();
            let (now, was) = (selector(new), selector(old));
            if now != was {
                errors.push(new.child("spec").child("selector").invalid("field is immutable"));
            }
        }
        ("apps", "StatefulSet") => stateful_set::update(errors, new, old),
        ("batch", "Job") => job::update(errors, new, old),
        ("", "Service") => service::update(errors, new, old),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            let (now, was) = (new.child("roleRef"), old.child("roleRef"));
            if now.value() != was.value() {
                errors.push(now.invalid("cannot change roleRef"));
            }
        }
        ("", "ConfigMap") => records::immutable(errors, new, old, &["data", "binaryData"]),
        ("", "Secret") => {
            new.child("type").immutable(errors, &old.child("type"));
            records::immutable(errors, new, old, &["data"]);
        }
        ("", "Node") => records::node_update(errors, new, old),
        ("discovery.k8s.io", "EndpointSlice") => {
            new.child("addressType").immutable(errors, &old.child("addressType"));
        }
        _ => {}
    }
}
