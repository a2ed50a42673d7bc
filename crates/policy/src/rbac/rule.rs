//! Rules and bindings as they are judged, and what a rule allows (upstream's `evaluation_helpers`).

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{self as rbac, PolicyRule, RoleRef};

use super::{Request, Target};

const ALL: &str = "*";

/// One rule of a role: for resources, or for paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    pub verbs: Vec<String>,
    /// "" is the core group.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Empty for all.
    pub resource_names: Vec<String>,
    /// Paths, exact or with `*` at the end.
    pub non_resource_urls: Vec<String>,
}

impl From<PolicyRule> for Rule {
    fn from(rule: PolicyRule) -> Rule {
        Rule {
            verbs: rule.verbs,
            api_groups: rule.api_groups.unwrap_or_default(),
            resources: rule.resources.unwrap_or_default(),
            resource_names: rule.resource_names.unwrap_or_default(),
            non_resource_urls: rule.non_resource_urls.unwrap_or_default(),
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == wanted || one == ALL)
}

impl Rule {
    /// A role's rules.
    pub fn list(rules: Option<Vec<PolicyRule>>) -> Arc<[Rule]> {
        rules.unwrap_or_default().into_iter().map(Rule::from).collect()
    }

    pub fn allows(&self, request: &Request<'_>) -> bool {
        if !has_or_all(&self.verbs, request.verb) {
            return false;
        }
        match request.target {
            Target::Path(path) => self.non_resource_urls.iter().any(|pattern| matches_path(pattern, path)),
            Target::Resource { group, resource, subresource, name, .. } => {
                has_or_all(&self.api_groups, group)
                    && self.resources.iter().any(|one| matches_resource(one, resource, subresource))
                    && (self.resource_names.is_empty() || has(&self.resource_names, name))
            }
        }
    }
}

/// `/healthz`, `/api/*`, `*`.
pub(super) fn matches_path(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

fn matches_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    match (pattern.split_once('/'), subresource) {
        (None, "") => pattern == resource,
        (Some((of, sub)), subresource) if !subresource.is_empty() => {
            sub == subresource && (of == resource || of == ALL)
        }
        _ => false,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    Role,
    ClusterRole,
}

impl RoleKind {
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Role => "Role",
            RoleKind::ClusterRole => "ClusterRole",
        }
    }

    /// None for what no valid binding refers to.
    pub fn parse(kind: &str) -> Option<RoleKind> {
        match kind {
            "Role" => Some(RoleKind::Role),
            "ClusterRole" => Some(RoleKind::ClusterRole),
            _ => None,
        }
    }
}

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::User(name) => write!(f, "User {name:?}"),
            Subject::Group(name) => write!(f, "Group {name:?}"),
            Subject::ServiceAccount { namespace, name } => {
                write!(f, "ServiceAccount {:?}", format!("{name}/{namespace}"))
            }
        }
    }
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub role: RoleKind,
    pub role_name: String,
    pub subjects: Vec<Subject>,
}

impl Binding {
    /// `namespace` is the binding's own, "" for a ClusterRoleBinding. None where the role is of no known kind, which
    /// validation refuses; subjects of no known kind are nobody.
    pub fn new(namespace: &str, role: RoleRef, subjects: Option<Vec<rbac::Subject>>) -> Option<Binding> {
        let kind = RoleKind::parse(&role.kind)?;
        let subjects = subjects.unwrap_or_default().into_iter().filter_map(|subject| {
            match subject.kind.as_str() {
                "User" => Some(Subject::User(subject.name)),
                "Group" => Some(Subject::Group(subject.name)),
                "ServiceAccount" => {
                    // One without namespace is of the binding's own.
                    let given = subject.namespace.filter(|given| !given.is_empty());
                    let namespace = given.unwrap_or_else(|| namespace.to_owned());
                    (!namespace.is_empty())
                        .then_some(Subject::ServiceAccount { namespace, name: subject.name })
                }
                _ => None,
            }
        });
        Some(Binding { role: kind, role_name: role.name, subjects: subjects.collect() })
    }
}
