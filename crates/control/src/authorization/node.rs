//! The Node authorizer: of Secrets, ConfigMaps, claims and ServiceAccounts a node reaches those that pods bound to it refer
//! to; of Nodes, Leases and pods its own; and beside them what the role `system:node` says. What of its own a node may
//! change, the NodeRestriction says at admission.

use std::sync::LazyLock;

use policy::rbac::{Rule, Target};

use super::{
    Question,
    graph::{Graph, Kind},
    roles,
};

static RULES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| roles::NODE_RULES.iter().map(roles::Grants::rule).collect());

/// Whether a node may.
///
/// # Errors
/// Why not, in upstream's words; "" for what is no business of nodes.
pub(super) fn decide(graph: &Graph, node: &str, question: &Question<'_>) -> Result<(), String> {
    let verb = question.request.verb;
    let reads = matches!(verb, "get" | "list" | "watch");
    let Target::Resource { group, resource, subresource, namespace, name } = question.request.target else {
        return by_rules(question);
    };
    let reached = |kind| {
        if name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        if graph.reaches(node, kind, namespace, name) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    };
    match (group, resource) {
        ("", "secrets" | "configmaps") => {
            if !reads {
                return Err("can only read resources of this type".to_owned());
            }
            if !subresource.is_empty() {
                return Err("cannot read subresource".to_owned());
            }
            if namespace.is_empty() {
                return Err("can only read namespaced object of this type".to_owned());
            }
            reached(if resource == "secrets" { Kind::Secret } else { Kind::ConfigMap })
        }
        ("", "persistentvolumeclaims") => match (verb, subresource) {
            ("get", "") => reached(Kind::Claim),
            ("get" | "update" | "patch", "status") => reached(Kind::Claim),
            (_, "status") => Err("can only get/update/patch this type".to_owned()),
            (_, "") => Err("can only get individual resources of this type".to_owned()),
            _ => Err("cannot get subresource".to_owned()),
        },
        ("", "serviceaccounts") => match (verb, subresource) {
            ("create", "token") if !name.is_empty() => reached(Kind::ServiceAccount),
            ("get", "") => reached(Kind::ServiceAccount),
            (_, "") => Err("can only get individual resources of this type".to_owned()),
            ("create", "token") => Err("can only create tokens for individual service accounts".to_owned()),
            _ => Err("can only create token subresource of serviceaccount".to_owned()),
        },
        ("", "nodes") => own_node(node, verb, subresource, name),
        ("", "pods") => match (verb, subresource) {
            ("get", "") => reached(Kind::Pod),
            ("list" | "watch", "") if question.selected_node == node => Ok(()),
            ("list" | "watch", "") => {
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            // Which pods, the NodeRestriction says.
            ("create" | "delete", "") | ("get" | "update" | "patch", "status") | ("create", "eviction") => {
                Ok(())
            }
            _ => Err(String::new()),
        },
        ("coordination.k8s.io", "leases") => own_lease(node, verb, namespace, name),
        _ => by_rules(question),
    }
}

fn by_rules(question: &Question<'_>) -> Result<(), String> {
    if RULES.iter().any(|rule| rule.allows(&question.request)) { Ok(()) } else { Err(String::new()) }
}

fn own_node(node: &str, verb: &str, subresource: &str, name: &str) -> Result<(), String> {
    match (subresource, verb) {
        ("", "create" | "update" | "patch") | ("status", "get" | "update" | "patch") => Ok(()),
        // By name and not by what is there, so that a node may look before it registers.
        ("", "get" | "list" | "watch") if name == node => Ok(()),
        ("", "get" | "list" | "watch") if name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

fn own_lease(node: &str, verb: &str, namespace: &str, name: &str) -> Result<(), String> {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    // A create has no name yet: the NodeRestriction looks at it.
    if verb != "create" && name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}
