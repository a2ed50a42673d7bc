//! Role, ClusterRole, RoleBinding, ClusterRoleBinding: upstream's `pkg/apis/rbac/validation`.

use super::{metadata, names, view::At};
use crate::field::{Error, ErrorList};

const GROUP: &str = "rbac.authorization.k8s.io";

/// How far the rules of a role, or a binding, reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespace,
}

pub(super) fn rules(errors: &mut ErrorList, root: &At<'_>, scope: Scope) {
    for rule in root.child("rules").items() {
        let (verbs, urls) = (rule.child("verbs"), rule.child("nonResourceURLs"));
        let (groups, resources) = (rule.child("apiGroups"), rule.child("resources"));
        if verbs.is_empty() {
            errors.push(verbs.required("verbs must contain at least one value"));
        }
        if !urls.is_empty() {
            if scope == Scope::Namespace {
                errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
            }
            if !(groups.is_empty() && resources.is_empty() && rule.child("resourceNames").is_empty()) {
                let both = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(urls.invalid(both));
            }
            continue;
        }
        if groups.is_empty() {
            errors.push(groups.required("resource rules must supply at least one api group"));
        }
        if resources.is_empty() {
            errors.push(resources.required("resource rules must supply at least one resource"));
        }
    }
}

pub(super) fn cluster_role(errors: &mut ErrorList, root: &At<'_>) {
    rules(errors, root, Scope::Cluster);
    let aggregation = root.child("aggregationRule");
    if !aggregation.is_set() {
        return;
    }
    let selectors = aggregation.child("clusterRoleSelectors");
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(selectors.required(why));
    }
    for selector in selectors.items() {
        metadata::label_selector(errors, &selector);
    }
}

pub(super) fn binding(errors: &mut ErrorList, root: &At<'_>, scope: Scope) {
    let role = root.child("roleRef");
    only(errors, &role.child("apiGroup"), &[GROUP]);
    let kinds: &[&str] = match scope {
        Scope::Cluster => &["ClusterRole"],
        Scope::Namespace => &["Role", "ClusterRole"],
    };
    only(errors, &role.child("kind"), kinds);
    let name = role.child("name");
    if name.str().is_empty() {
        errors.push(name.required(""));
    } else {
        name.invalid_each(errors, names::path_segment(name.str()));
    }
    for one in root.child("subjects").items() {
        subject(errors, &one, scope);
    }
}

fn subject(errors: &mut ErrorList, subject: &At<'_>, scope: Scope) {
    let (kind, name) = (subject.child("kind"), subject.child("name"));
    if name.str().is_empty() {
        errors.push(name.required(""));
    }
    match kind.str() {
        "ServiceAccount" => {
            if !name.str().is_empty() {
                name.invalid_each(errors, names::dns_subdomain(name.str()));
            }
            only(errors, &subject.child("apiGroup"), &[""]);
            // In a RoleBinding it is the binding's own.
            let namespace = subject.child("namespace");
            if scope == Scope::Cluster && namespace.str().is_empty() {
                errors.push(namespace.required(""));
            }
        }
        "User" | "Group" => only(errors, &subject.child("apiGroup"), &[GROUP]),
        _ => only(errors, &kind, &["ServiceAccount", "User", "Group"]),
    }
}

/// An enumeration for which "" is a value like others.
fn only(errors: &mut ErrorList, at: &At<'_>, supported: &[&str]) {
    if !supported.contains(&at.str()) {
        errors.push(Error::not_supported(&at.path, at.str(), supported));
    }
}
