//! Writes the rules of ClusterRoles that are the sum of others (`pkg/controller/clusterroleaggregation`).

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Api, PostParams};
use policy::selector::Selector;

use super::{Error, World, gone_is_fine};

/// Every role that is a sum may have to look when any role changes.
pub(super) fn changed(world: &World) {
    for role in world.cluster_roles.all() {
        if role.aggregation_rule.is_some()
            && let Some(name) = &role.metadata.name
        {
            world.aggregation_queue.add(name.clone());
        }
    }
}

pub(super) async fn sync(world: &World, name: String) -> Result<Option<Duration>, Error> {
    let Some(role) = world.cluster_roles.get(&(String::new(), name.clone())) else { return Ok(None) };
    if role.aggregation_rule.is_none() || role.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let rules = sum(&role, world)?;
    if role.rules.as_deref().unwrap_or_default() == rules {
        return Ok(None);
    }
    let next = ClusterRole { rules: Some(rules), ..(*role).clone() };
    let api: Api<ClusterRole> = Api::all(world.clients.aggregation.clone());
    match api.replace(&name, &PostParams::default(), &next).await {
        // The watch will show what is there now.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        answer => {
            if let Some(role) = gone_is_fine(answer)? {
                world.saw(role);
            }
        }
    }
    Ok(None)
}

/// The rules of all roles that the selectors take, each once: by selector, then by name.
fn sum(role: &ClusterRole, world: &World) -> Result<Vec<PolicyRule>, Error> {
    let mut roles = world.cluster_roles.all();
    roles.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let selectors =
        role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    let mut out: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let selector = Selector::parse(selector).map_err(|error| {
            let name = role.metadata.name.clone().unwrap_or_default();
            Error::Selector(format!("ClusterRole {name}"), error)
        })?;
        let chosen = roles.iter().filter(|one| {
            one.metadata.name != role.metadata.name
                && selector.matches(one.metadata.labels.as_ref().unwrap_or(&Default::default()))
        });
        for rule in chosen.flat_map(|one| one.rules.iter().flatten()) {
            if !out.contains(rule) {
                out.push(rule.clone());
            }
        }
    }
    Ok(out)
}
