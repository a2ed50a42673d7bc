//! Nobody gives away what they do not hold (upstream's `policybased` storages): who writes a role must hold its rules, or
//! the verb `escalate` on it; who writes a binding must hold the rules of its role, or the verb `bind` on that.

use api::{ApiError, field::quote, registry::Resource};
use k8s_openapi::api::rbac::v1::PolicyRule;
use policy::rbac::{self, GROUP, Request, RoleKind, Rule, Target};
use serde_json::Value;

use super::{Authorizer, Question};
use crate::apiserver::User;

/// A role or a binding that is about to be written.
pub struct Written<'a> {
    pub resource: &'static Resource,
    /// The namespace of the path.
    pub namespace: &'a str,
    /// The name in the path; "" for a create.
    pub asked_name: &'a str,
    pub new: &'a Value,
    pub old: Option<&'a Value>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn rules(role: &Value) -> Vec<Rule> {
    let rules: Option<Vec<PolicyRule>> = serde_json::from_value(role["rules"].clone()).unwrap_or_default();
    rules.unwrap_or_default().into_iter().map(Rule::from).collect()
}

/// Everything there is.
fn full_authority() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

/// Whether nothing changes but what the garbage collector changes when it deletes.
fn only_ownership(new: &Value, old: &Value) -> bool {
    let mut stomped = new.clone();
    for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
        match (old["metadata"].get(field), stomped["metadata"].as_object_mut()) {
            (Some(value), Some(metadata)) => drop(metadata.insert(field.to_owned(), value.clone())),
            (None, Some(metadata)) => drop(metadata.remove(field)),
            _ => {}
        }
    }
    stomped == *old
}

impl Authorizer {
    /// Lets a role or binding pass whose writer may give away what it gives; every other kind passes.
    ///
    /// # Errors
    /// Forbidden with the rules that are lacking, NotFound for a binding's role, both in upstream's words.
    pub fn confirm_no_escalation(&self, user: &User, written: &Written<'_>) -> Result<(), ApiError> {
        if written.resource.group != GROUP || user.is_master() {
            return Ok(());
        }
        if written.old.is_some_and(|old| only_ownership(written.new, old)) {
            return Ok(());
        }
        match written.resource.plural {
            "roles" | "clusterroles" => self.confirm_role(user, written),
            _ => self.confirm_binding(user, written),
        }
    }

    fn may(&self, user: &User, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let target = Target::Resource { group: GROUP, resource, subresource: "", namespace, name };
        self.decide(user, &Question { request: Request { verb, target }, selected_node: "" }).is_allowed()
    }

    fn confirm_role(&self, user: &User, written: &Written<'_>) -> Result<(), ApiError> {
        let resource = written.resource;
        if self.may(user, "escalate", resource.plural, written.namespace, written.asked_name) {
            return Ok(());
        }
        let name = text(written.new, "/metadata/name");
        self.confirm_rules(user, written.namespace, &rules(written.new))
            .map_err(|why| ApiError::forbidden(resource, name, &why))?;
        // A rule of aggregation can gather anything.
        let aggregates = |role: &Value| {
            role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|list| !list.is_empty())
        };
        let gathers = aggregates(written.new) || written.old.is_some_and(aggregates);
        if gathers && self.confirm_rules(user, written.namespace, &full_authority()).is_err() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(ApiError::forbidden(resource, name, why));
        }
        Ok(())
    }

    fn confirm_binding(&self, user: &User, written: &Written<'_>) -> Result<(), ApiError> {
        let (namespace, role) = (written.namespace, text(written.new, "/roleRef/name"));
        let kind = RoleKind::parse(text(written.new, "/roleRef/kind"));
        // Validation comes after this and refuses what refers to nothing that can be.
        let Some(kind) = kind.filter(|_| !role.is_empty()) else { return Ok(()) };
        let plural = match kind {
            RoleKind::Role => "roles",
            RoleKind::ClusterRole => "clusterroles",
        };
        if self.may(user, "bind", plural, namespace, role) {
            return Ok(());
        }
        let rules =
            self.role(kind, namespace, role).ok_or_else(|| ApiError::not_found((GROUP, plural), role))?;
        self.confirm_rules(user, namespace, &rules)
            .map_err(|why| ApiError::forbidden(written.resource, text(written.new, "/metadata/name"), &why))
    }

    fn confirm_rules(&self, user: &User, namespace: &str, given: &[Rule]) -> Result<(), String> {
        let held = self.held(user, namespace);
        let Err(lacking) = rbac::covers(&held.rules, given) else { return Ok(()) };
        let mut lacking: Vec<String> = rbac::compact(&lacking).iter().map(rbac::describe).collect();
        lacking.sort();
        lacking.dedup();
        let mut why = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quote(&user.name),
            rbac::quoted(&user.groups),
            lacking.join("\n")
        );
        if !held.missing.is_empty() {
            let missing: Vec<String> = held.missing.iter().map(ToString::to_string).collect();
            why.push_str(&format!("; resolution errors: [{}]", missing.join(", ")));
        }
        Err(why)
    }
}
