//! NodeRestriction: a node's agent may write its own Node and the pods bound to it, and nothing of other nodes.

use api::ApiError;
use api::field::quote;
use serde_json::Value;

use super::{Operation, Plugin, Request};

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
