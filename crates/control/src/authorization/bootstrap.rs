//! Makes the default roles and bindings, and at each start gives back to them what they lack, as upstream's reconciliation: what
//! an administrator added stays, and one whose annotation `autoupdate` is `"false"` is left alone.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt as _, try_join_all};
use k8s_openapi::{
    api::rbac::v1::{AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use policy::rbac::{self, GROUP, Rule};

use super::roles::{Given, Grants, Role, Who, bindings, roles};

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn aggregation_label(to: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{to}")
}

fn metadata(name: &str, part_of: Option<&str>) -> ObjectMeta {
    let mut labels: BTreeMap<String, String> =
        [("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())].into();
    labels.extend(part_of.map(|to| (aggregation_label(to), "true".to_owned())));
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels),
        annotations: Some([(AUTOUPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn policy_rule(grants: &Grants) -> PolicyRule {
    from_rule(grants.rule())
}

fn from_rule(rule: Rule) -> PolicyRule {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    PolicyRule {
        verbs: rule.verbs,
        api_groups: some(rule.api_groups),
        resources: some(rule.resources),
        resource_names: some(rule.resource_names),
        non_resource_urls: some(rule.non_resource_urls),
    }
}

fn cluster_role(role: &Role) -> ClusterRole {
    let aggregation_rule = role.gathers.map(|to| {
        let selector = LabelSelector {
            match_labels: Some([(aggregation_label(to), "true".to_owned())].into()),
            ..LabelSelector::default()
        };
        AggregationRule { cluster_role_selectors: Some(vec![selector]) }
    });
    ClusterRole {
        metadata: metadata(role.name, role.part_of),
        // The rules of a sum are the aggregation's to write.
        rules: role.gathers.is_none().then(|| role.rules.iter().map(policy_rule).collect()),
        aggregation_rule,
    }
}

fn subject(who: &Who) -> Subject {
    let (kind, group, namespace, name) = match *who {
        Who::User(name) => ("User", Some(GROUP), None, name),
        Who::Group(name) => ("Group", Some(GROUP), None, name),
        Who::Account(namespace, name) => ("ServiceAccount", None, Some(namespace), name),
    };
    Subject {
        kind: kind.to_owned(),
        api_group: group.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}

fn cluster_role_binding(given: &Given) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: metadata(given.role, None),
        role_ref: RoleRef {
            api_group: GROUP.to_owned(),
            kind: "ClusterRole".to_owned(),
            name: given.role.to_owned(),
        },
        subjects: Some(given.to.iter().map(subject).collect()),
    }
}

/// Adds labels and annotations that are not there. None: the object is not to be touched.
fn settle_metadata(there: &mut ObjectMeta, wanted: &ObjectMeta) -> Option<()> {
    if there.annotations.as_ref().and_then(|all| all.get(AUTOUPDATE)).is_some_and(|value| value == "false") {
        return None;
    }
    let add = |there: &mut Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        let there = there.get_or_insert_default();
        for (key, value) in wanted.iter().flatten() {
            there.entry(key.clone()).or_insert_with(|| value.clone());
        }
    };
    add(&mut there.labels, &wanted.labels);
    add(&mut there.annotations, &wanted.annotations);
    Some(())
}

/// What the role should be; None where it is left as it is.
fn settled_role(there: &ClusterRole, wanted: ClusterRole) -> Option<ClusterRole> {
    let mut next = there.clone();
    settle_metadata(&mut next.metadata, &wanted.metadata)?;
    if wanted.aggregation_rule.is_some() {
        next.aggregation_rule = next.aggregation_rule.or(wanted.aggregation_rule);
    } else {
        let held = Rule::list(there.rules.clone());
        let given = Rule::list(wanted.rules);
        if let Err(lacking) = rbac::covers(&held, &given) {
            let lacking = rbac::compact(&lacking).into_iter().map(from_rule);
            next.rules.get_or_insert_default().extend(lacking);
        }
    }
    (next != *there).then_some(next)
}

fn settled_binding(there: &ClusterRoleBinding, wanted: ClusterRoleBinding) -> Option<ClusterRoleBinding> {
    let mut next = there.clone();
    settle_metadata(&mut next.metadata, &wanted.metadata)?;
    let subjects = next.subjects.get_or_insert_default();
    for subject in wanted.subjects.into_iter().flatten() {
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    (next != *there).then_some(next)
}

/// Makes what is not there and mends what is, all at once, so that the writes share commits. `client` is a member of
/// `system:masters`.
///
/// # Errors
/// As the API server's.
pub async fn run(client: &Client) -> Result<(), kube::Error> {
    let roles = roles().map(|role| settle_role(Api::all(client.clone()), role).boxed());
    let bindings = bindings().map(|given| settle_binding(Api::all(client.clone()), given).boxed());
    let all: Vec<BoxFuture<'_, _>> = roles.chain(bindings).collect();
    try_join_all(all).await.map(drop)
}

async fn settle_role(roles: Api<ClusterRole>, role: &'static Role) -> Result<(), kube::Error> {
    let (wanted, params) = (cluster_role(role), PostParams::default());
    match roles.get_opt(role.name).await? {
        None => roles.create(&params, &wanted).await.map(drop),
        Some(there) => match settled_role(&there, wanted) {
            Some(next) => roles.replace(role.name, &params, &next).await.map(drop),
            None => Ok(()),
        },
    }
}

async fn settle_binding(bindings: Api<ClusterRoleBinding>, given: &'static Given) -> Result<(), kube::Error> {
    let (wanted, params) = (cluster_role_binding(given), PostParams::default());
    match bindings.get_opt(given.role).await? {
        None => bindings.create(&params, &wanted).await.map(drop),
        // What a binding refers to never changes: one that leads elsewhere is made anew.
        Some(there) if there.role_ref != wanted.role_ref => {
            bindings.delete(given.role, &DeleteParams::default()).await?;
            bindings.create(&params, &wanted).await.map(drop)
        }
        Some(there) => match settled_binding(&there, wanted) {
            Some(next) => bindings.replace(given.role, &params, &next).await.map(drop),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> ClusterRole {
        cluster_role(roles().find(|role| role.name == name).unwrap())
    }

    #[test]
    fn what_a_default_role_lacks_is_given_back_and_what_was_added_stays() {
        let wanted = role("system:auth-delegator");
        assert_eq!(settled_role(&wanted, wanted.clone()), None);

        let mut there = wanted.clone();
        let added = PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: Some(vec!["/x".into()]),
            ..PolicyRule::default()
        };
        there.rules = Some(vec![wanted.rules.clone().unwrap()[0].clone(), added.clone()]);
        there.metadata.labels = None;
        let next = settled_role(&there, wanted.clone()).unwrap();
        let rules = next.rules.clone().unwrap();
        assert!(rules.contains(&added) && rules.len() == 3, "{rules:?}");
        assert_eq!(next.metadata.labels, wanted.metadata.labels);
        assert_eq!(settled_role(&next, wanted.clone()), None, "once");

        there.metadata.annotations = Some([(AUTOUPDATE.to_owned(), "false".to_owned())].into());
        assert_eq!(settled_role(&there, wanted), None, "protected");
    }

    #[test]
    fn a_default_binding_gets_its_subjects_back() {
        let wanted = cluster_role_binding(bindings().next().unwrap());
        let mut there = wanted.clone();
        there.subjects = None;
        assert_eq!(settled_binding(&there, wanted.clone()).unwrap().subjects, wanted.subjects);
        assert_eq!(settled_binding(&wanted, wanted.clone()), None);
    }

    #[test]
    fn every_default_is_valid_and_every_binding_has_its_role() {
        for role in roles() {
            let resource = api::registry::by_plural(GROUP, "v1", "clusterroles").unwrap();
            let object = serde_json::to_value(cluster_role(role)).unwrap();
            let errors = api::validation::validate_create(resource, &object);
            assert!(errors.is_empty(), "{}: {errors}", role.name);
        }
        for given in bindings() {
            assert!(roles().any(|role| role.name == given.role), "{}", given.role);
            let resource = api::registry::by_plural(GROUP, "v1", "clusterrolebindings").unwrap();
            let object = serde_json::to_value(cluster_role_binding(given)).unwrap();
            assert!(api::validation::validate_create(resource, &object).is_empty(), "{}", given.role);
        }
    }
}
