//! Who asks, and whether they may. Until roles are served there are two kinds of people: members of `system:masters`, who
//! may do everything, and node agents, who may do what a node needs. All others are refused.

use std::collections::BTreeMap;

use api::ApiError;
use api::field::quote;

use super::request::{Route, Verb};

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// "" where the credentials name none.
    pub uid: String,
    pub groups: Vec<String>,
    /// What the credentials say beside who it is.
    pub extra: BTreeMap<String, Vec<String>>,
}

const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const AUTHENTICATED: &str = "system:authenticated";

impl User {
    /// `groups` are those its credentials name; `system:authenticated` is added.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> User {
        let mut groups: Vec<String> = groups.into_iter().collect();
        groups.push(AUTHENTICATED.into());
        User { name: name.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// The administrator behind the admin socket.
    pub fn admin() -> User {
        User::new("system:admin", [MASTERS.into()])
    }

    /// The agent of the node `name`.
    pub fn node(name: &str) -> User {
        User::new(format!("system:node:{name}"), [NODES.into()])
    }

    /// A part of the control process itself, such as `system:kube-scheduler`.
    pub fn component(name: &str) -> User {
        User::new(name, [MASTERS.into()])
    }

    /// May do everything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        self.groups.iter().any(|group| group == NODES).then_some(name)
    }
}

/// Whether `user` may do what `route` says.
///
/// # Errors
/// Forbidden, in upstream's words.
pub fn authorize(user: &User, route: &Route) -> Result<(), ApiError> {
    if user.is_master() || user.node_name().is_some_and(|_| node_may(route)) || is_self_review(route) {
        return Ok(());
    }
    let resource = match route.subresource_name() {
        "" => route.resource.plural.to_owned(),
        sub => format!("{}/{sub}", route.resource.plural),
    };
    let place = if route.namespace.is_empty() {
        " at the cluster scope".to_owned()
    } else {
        format!(" in the namespace {}", quote(&route.namespace))
    };
    let why = format!(
        "User {} cannot {} resource {} in API group {}{place}",
        quote(&user.name),
        route.verb.as_str(),
        quote(&resource),
        quote(route.resource.group)
    );
    Err(ApiError::forbidden(route.resource, &route.name, &why))
}

/// Everybody may ask about themselves (upstream's `system:basic-user`).
fn is_self_review(route: &Route) -> bool {
    route.verb == Verb::Create && route.resource.plural.starts_with("selfsubject")
}

/// Upstream's `system:node` role, by resource; which objects of it, the node restriction says at admission.
fn node_may(route: &Route) -> bool {
    let reads = matches!(route.verb, Verb::Get | Verb::List | Verb::Watch);
    let updates = matches!(route.verb, Verb::Update | Verb::Patch);
    match (route.resource.group, route.resource.plural, route.subresource_name()) {
        ("", "pods", "") => reads || matches!(route.verb, Verb::Create | Verb::Delete),
        ("", "pods", "status") => updates || reads,
        ("", "pods", "eviction") => route.verb == Verb::Create,
        ("", "nodes", "") => reads || updates || route.verb == Verb::Create,
        ("", "nodes", "status") => updates || reads,
        ("", "configmaps" | "secrets" | "services" | "endpoints" | "namespaces" | "serviceaccounts", "") => {
            reads
        }
        ("discovery.k8s.io" | "networking.k8s.io", _, "") => reads,
        ("" | "events.k8s.io", "events", "") => updates || route.verb == Verb::Create,
        ("coordination.k8s.io", "leases", "") => true,
        ("", "serviceaccounts", "token") => route.verb == Verb::Create,
        ("authentication.k8s.io", "tokenreviews", "") => route.verb == Verb::Create,
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            route.verb == Verb::Create
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Query, route};
    use super::*;

    fn ask(user: &User, method: &str, path: &str) -> Result<(), ApiError> {
        authorize(user, &route(&method.parse().unwrap(), path, &Query::default()).unwrap().unwrap())
    }

    #[test]
    fn a_stranger_is_refused_in_upstreams_words() {
        let user = User::new("jane", ["dev".to_owned()]);
        let error = ask(&user, "GET", "/api/v1/namespaces/d/pods").unwrap_err();
        assert_eq!(
            error.message,
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "d""#
        );
        let error = ask(&user, "DELETE", "/api/v1/nodes/n").unwrap_err();
        assert_eq!(
            error.message,
            r#"nodes "n" is forbidden: User "jane" cannot delete resource "nodes" in API group "" at the cluster scope"#
        );
        assert!(ask(&user, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").is_ok());
    }

    #[test]
    fn a_node_may_do_what_a_node_needs() {
        let node = User::node("node-1");
        let table = [
            ("GET", "/api/v1/pods", true),
            ("PATCH", "/api/v1/namespaces/d/pods/a/status", true),
            ("DELETE", "/api/v1/namespaces/d/pods/a", true),
            ("PATCH", "/api/v1/namespaces/d/pods/a", false),
            ("POST", "/api/v1/namespaces/d/pods/a/binding", false),
            ("GET", "/api/v1/namespaces/d/secrets/s", true),
            ("POST", "/api/v1/namespaces/d/secrets", false),
            ("DELETE", "/api/v1/nodes/node-1", false),
            ("POST", "/api/v1/namespaces/d/events", true),
            ("POST", "/api/v1/namespaces", false),
            ("GET", "/apis/networking.k8s.io/v1/networkpolicies", true),
        ];
        for (method, path, may) in table {
            assert_eq!(ask(&node, method, path).is_ok(), may, "{method} {path}");
        }
        let impostor = User::new("system:node:node-1", []);
        assert!(ask(&impostor, "GET", "/api/v1/pods").is_err(), "the name alone makes no node");
    }
}
