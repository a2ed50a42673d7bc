//! NodeRestriction: a node's agent may write its own Node, its Lease and the pods bound to it, and nothing of other nodes;
//! and of its own nothing by which it could draw pods to itself or reach what it does not hold (upstream's
//! `plugin/pkg/admission/noderestriction`).

use std::collections::BTreeSet;

use api::ApiError;
use api::field::quote;
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::tokens::ISSUER;

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        _: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let Some(node) = request.user.node_name() else { return Ok(()) };
        let verdict = match (request.resource.group, request.resource.plural, request.subresource) {
            ("", "pods", "") => pod(request, node, object),
            ("", "pods", "status") => pod_status(request, node, object),
            ("", "pods", "eviction") if is_bound(request.old, node) => Ok(()),
            ("", "pods", "eviction") => {
                Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
            }
            ("", "pods", other) => Err(format!(
                "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                quote(other)
            )),
            ("", "serviceaccounts", "token") if request.operation == Operation::Create => {
                may_have_token(request, object)
            }
            ("", "nodes", _) => own_node(request, node, object),
            ("coordination.k8s.io", "leases", _) => own_lease(request, node, object),
            _ => Ok(()),
        };
        verdict.map_err(|why| ApiError::forbidden(request.resource, request.name, &why))
    }
}

fn text<'a>(object: Option<&'a Value>, pointer: &str) -> &'a str {
    object.and_then(|object| object.pointer(pointer)).and_then(Value::as_str).unwrap_or_default()
}

fn is_bound(pod: Option<&Value>, node: &str) -> bool {
    text(pod, "/spec/nodeName") == node
}

fn pod(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    match request.operation {
        Operation::Create => mirror_pod(request, node, object),
        Operation::Delete if is_bound(request.old, node) => Ok(()),
        Operation::Delete => {
            Err(format!("node {} can only delete pods with spec.nodeName set to itself", quote(node)))
        }
        Operation::Update | Operation::Connect => Err(format!(
            "unexpected operation {}, node {} can only create and delete mirror pods",
            quote(if request.operation == Operation::Update { "UPDATE" } else { "CONNECT" }),
            quote(node)
        )),
    }
}

/// A node tells of a pod it runs by itself, and that pod refers to nothing but its node.
fn mirror_pod(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    let name = quote(node);
    let Some(pod) = object else { return Err(format!("node {name} sent no pod")) };
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Err(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {name} can only create mirror pods"
        ));
    }
    if !is_bound(object, node) {
        return Err(format!("node {name} can only create pods with spec.nodeName set to itself"));
    }
    let none = Vec::new();
    let owner = match pod["metadata"]["ownerReferences"].as_array().unwrap_or(&none).as_slice() {
        [] => {
            return Err(format!("node {name} can only create pods with an owner reference set to itself"));
        }
        [owner] => owner,
        _ => {
            return Err(format!(
                "node {name} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Err(format!("node {name} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!(
            "node {name} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {name} must not set blockOwnerDeletion on an owner reference"));
    }
    let there = request.store.get(&format!("/nodes/{node}")).map(|node| node.value());
    let Some(there) = there else { return Err(format!("nodes {name} not found")) };
    let (uid, given) = (text(Some(&there), "/metadata/uid"), text(Some(owner), "/uid"));
    if uid != given {
        return Err(format!("node {node} UID mismatch: expected {given} got {uid}"));
    }
    use crate::authorization::Referred;
    for (kind, _) in crate::authorization::references(&pod["spec"]) {
        let what = match kind {
            Referred::ServiceAccount => "a service account",
            Referred::Secret => "secrets",
            Referred::ConfigMap => "configmaps",
            Referred::Claim => "persistentvolumeclaims",
            Referred::Pod => continue,
        };
        return Err(format!("node {name} can not create pods that reference {what}"));
    }
    Ok(())
}

fn pod_status(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    if request.operation != Operation::Update {
        return Err(format!("unexpected operation, node {} can only update pod status", quote(node)));
    }
    if !is_bound(request.old, node) {
        return Err(format!(
            "node {} can only update pod status for pods with spec.nodeName set to itself",
            quote(node)
        ));
    }
    if labels(object) != labels(request.old) {
        return Err(format!("node {} cannot update labels through pod status", quote(node)));
    }
    Ok(())
}

/// Keys and values, in order.
fn labels(object: Option<&Value>) -> BTreeSet<(&str, &str)> {
    let labels = object.and_then(|object| object["metadata"]["labels"].as_object()).into_iter().flatten();
    labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
}

fn own_node(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    let name = quote(node);
    let asked = text(object, "/metadata/name");
    let asked = if request.name.is_empty() { asked } else { request.name };
    if asked != node {
        return Err(format!("node {name} is not allowed to modify node {}", quote(asked)));
    }
    let old = request.old;
    let changed: BTreeSet<&str> =
        labels(object).symmetric_difference(&labels(old)).map(|(key, _)| *key).collect();
    let forbidden: Vec<&str> = changed.into_iter().filter(|key| is_forbidden_label(key)).collect();
    let taints = |node: Option<&Value>| {
        let taints = node.and_then(|node| node["spec"]["taints"].as_array());
        taints.filter(|taints| !taints.is_empty()).cloned()
    };
    match request.operation {
        Operation::Create if !forbidden.is_empty() => {
            Err(format!("node {name} is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        // With others it could draw pods to itself.
        Operation::Update if taints(object) != taints(old) => {
            Err(format!("node {name} is not allowed to modify taints"))
        }
        Operation::Update if !forbidden.is_empty() => {
            Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        // The owner of a Node takes it along when it goes (CVE-2025-5187).
        Operation::Update
            if object.map(|node| &node["metadata"]["ownerReferences"])
                != old.map(|node| &node["metadata"]["ownerReferences"]) =>
        {
            Err(format!("node {name} is not allowed to modify ownerReferences"))
        }
        _ => Ok(()),
    }
}

/// Labels by which an administrator sets nodes apart, and those of Kubernetes that are no kubelet's to set.
fn is_forbidden_label(key: &str) -> bool {
    const KUBELETS: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let within =
        |domain: &str| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let kubelets = KUBELETS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    kubernetes && !kubelets
}

fn own_lease(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    if request.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    let given = text(object, "/metadata/name");
    let name = if request.operation == Operation::Create { given } else { request.name };
    if name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

/// A node gets tokens for the pods bound to it, for the audiences their volumes name, and for nothing else.
fn may_have_token(request: &Request<'_>, object: Option<&Value>) -> Result<(), String> {
    let Some(asked) = object else { return Err("node requested no token".to_owned()) };
    let reference = &asked["spec"]["boundObjectRef"];
    let field = |name: &str| reference[name].as_str().unwrap_or_default();
    let (name, uid) = (field("name"), field("uid"));
    if field("apiVersion") != "v1" || field("kind") != "Pod" || name.is_empty() {
        return Err("node requested token not bound to a pod".to_owned());
    }
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    let pod = request.store.get(&format!("/pods/{}/{name}", request.namespace));
    let Some(pod) = pod.map(|pod| pod.value()) else { return Err(format!("pod {} not found", quote(name))) };
    if pod["metadata"]["uid"] != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"].as_str() != request.user.node_name() {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    let audiences: Vec<&str> =
        asked["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [audience] = audiences[..] else { return Err("node may only request 0 or 1 audiences".to_owned()) };
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    let named = sources.filter_map(|source| source["serviceAccountToken"].as_object());
    // No audience means that of the API server.
    let mut named = named.map(|token| token.get("audience").and_then(Value::as_str).unwrap_or_default());
    if named.any(|one| one == audience || one.is_empty() && audience == ISSUER) {
        return Ok(());
    }
    Err(format!("audience {} not found in pod spec volume", quote(audience)))
}
