//! NodeRestriction: a node's agent may write its own Node and the pods bound to it, and nothing of other nodes.

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
        let refuse = |why: String| Err(ApiError::forbidden(request.resource, request.name, &why));
        let node = quote(node);
        let bound_here = |pod: Option<&Value>| {
            pod.and_then(|pod| pod["spec"]["nodeName"].as_str()).is_some_and(|name| quote(name) == node)
        };
        match (request.resource.group, request.resource.plural, request.operation, request.subresource) {
            ("", "pods", Operation::Create, "") => {
                let mirror = object.is_some_and(|pod| {
                    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
                });
                if !mirror {
                    return refuse(format!(
                        "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node} can only create mirror pods"
                    ));
                }
                if !bound_here(object) {
                    return refuse(format!(
                        "node {node} can only create pods with spec.nodeName set to itself"
                    ));
                }
            }
            ("", "pods", Operation::Delete, "") if !bound_here(request.old) => {
                return refuse(format!("node {node} can only delete pods with spec.nodeName set to itself"));
            }
            ("", "pods", Operation::Update, "status") if !bound_here(request.old) => {
                return refuse(format!(
                    "node {node} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            ("", "pods", Operation::Create, "eviction") if !bound_here(request.old) => {
                return refuse(format!("node {node} can only evict pods with spec.nodeName set to itself"));
            }
            ("", "serviceaccounts", Operation::Create, "token") => {
                if let Err(why) = may_have_token(request, object) {
                    return refuse(why);
                }
            }
            ("", "nodes", Operation::Create | Operation::Update, _) => {
                let name = object.and_then(|node| node["metadata"]["name"].as_str()).unwrap_or(request.name);
                if quote(name) != node {
                    return refuse(format!("node {node} is not allowed to modify node {}", quote(name)));
                }
            }
            _ => {}
        }
        Ok(())
    }
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
