//! RBAC by its documentation: every binding and every rule is read for every question, straight from the objects.

use serde_json::Value;

use super::{Request, Requester, Target};

fn list<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    value[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn rule_allows(rule: &Value, request: &Request<'_>) -> bool {
    let verbs = list(rule, "verbs");
    if !verbs.contains(&"*") && !verbs.contains(&request.verb) {
        return false;
    }
    match request.target {
        Target::Path(path) => list(rule, "nonResourceURLs").into_iter().any(|url| {
            url == "*" || url == path || url.ends_with('*') && path.starts_with(&url[..url.len() - 1])
        }),
        Target::Resource { group, resource, subresource, name, .. } => {
            let groups = list(rule, "apiGroups");
            let wanted = match subresource {
                "" => vec!["*".to_owned(), resource.to_owned()],
                sub => vec!["*".to_owned(), format!("{resource}/{sub}"), format!("*/{sub}")],
            };
            let names = list(rule, "resourceNames");
            (groups.contains(&"*") || groups.contains(&group))
                && list(rule, "resources").into_iter().any(|one| wanted.iter().any(|wanted| wanted == one))
                && (names.is_empty() || names.contains(&name))
        }
    }
}

fn names(subject: &Value, namespace: &str, who: Requester<'_>) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == who.name,
        Some("Group") => who.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let of = subject["namespace"].as_str().unwrap_or(namespace);
            !of.is_empty() && who.name == format!("system:serviceaccount:{of}:{name}")
        }
        _ => false,
    }
}

/// Every binding (`namespace/name`) by which the request is allowed.
pub fn grants(objects: &[Value], who: Requester<'_>, request: &Request<'_>) -> Vec<(String, String)> {
    let asked = match request.target {
        Target::Resource { namespace, .. } => namespace,
        Target::Path(_) => "",
    };
    let mut out = Vec::new();
    for binding in objects.iter().filter(|object| object.get("roleRef").is_some()) {
        let namespace = binding["metadata"]["namespace"].as_str().unwrap_or_default();
        let in_scope = namespace.is_empty() || namespace == asked;
        let named =
            binding["subjects"].as_array().into_iter().flatten().any(|one| names(one, namespace, who));
        if !in_scope || !named {
            continue;
        }
        let role = objects.iter().find(|object| {
            let of = object["metadata"]["namespace"].as_str().unwrap_or_default();
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && (of.is_empty() || of == namespace)
        });
        let allowed = role.is_some_and(|role| {
            role["rules"].as_array().into_iter().flatten().any(|rule| rule_allows(rule, request))
        });
        if allowed {
            let name = binding["metadata"]["name"].as_str().unwrap_or_default();
            out.push((namespace.to_owned(), name.to_owned()));
        }
    }
    out
}
