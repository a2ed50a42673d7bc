//! What an identity may do that leads further than its own work.

use std::collections::BTreeSet;

use super::{Access, Claim, Identity, Question, World, claim};
use crate::rbac::{Grant, Request, Target};

/// A verb on a resource, and what it is worth.
#[derive(Debug, PartialEq, Eq)]
pub struct Power {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
    /// What whoever has it reaches.
    pub gives: &'static str,
    /// Whoever has it can start a pod, and so one of any ServiceAccount of the namespace.
    pub makes_pods: bool,
}

impl Power {
    const fn new(
        verb: &'static str,
        (group, resource, subresource): (&'static str, &'static str, &'static str),
        gives: &'static str,
    ) -> Power {
        Power { verb, group, resource, subresource, gives, makes_pods: false }
    }

    /// To create a pod, or what a controller makes pods of.
    const fn of_pods(group: &'static str, resource: &'static str) -> Power {
        let gives = "pods: Secrets and ServiceAccounts of their namespace";
        Power { makes_pods: true, ..Power::new("create", (group, resource, ""), gives) }
    }

    /// `create pods/exec`.
    pub fn words(&self) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{}", self.verb, self.resource, self.subresource)
    }
}

const RBAC: &str = crate::rbac::GROUP;

/// Ordered by what they are worth.
pub static POWERS: [Power; 24] = [
    Power::new("*", ("*", "*", ""), "everything"),
    Power::new("escalate", (RBAC, "clusterroles", ""), "roles with more than its own rights"),
    Power::new("bind", (RBAC, "clusterroles", ""), "every ClusterRole, for itself"),
    Power::new("escalate", (RBAC, "roles", ""), "roles with more than its own rights"),
    Power::new("impersonate", ("", "users", ""), "everybody's rights"),
    Power::new("impersonate", ("", "groups", ""), "every group's rights"),
    Power::new("impersonate", ("", "serviceaccounts", ""), "every ServiceAccount's rights"),
    Power::new("create", ("", "serviceaccounts", "token"), "tokens of ServiceAccounts"),
    Power::of_pods("", "pods"),
    Power::of_pods("apps", "deployments"),
    Power::of_pods("apps", "replicasets"),
    Power::of_pods("apps", "daemonsets"),
    Power::of_pods("apps", "statefulsets"),
    Power::of_pods("batch", "jobs"),
    Power::of_pods("batch", "cronjobs"),
    Power::of_pods("", "replicationcontrollers"),
    Power::new("create", ("", "pods", "exec"), "commands in pods that run"),
    Power::new("create", ("", "pods", "attach"), "the terminals of pods that run"),
    Power::new("patch", ("", "pods", "ephemeralcontainers"), "containers in pods that run"),
    Power::new("get", ("", "secrets", ""), "Secrets"),
    Power::new("list", ("", "secrets", ""), "Secrets"),
    Power::new("create", ("networking.k8s.io", "networkpolicies", ""), "the network of its namespaces"),
    Power::new("patch", ("", "namespaces", ""), "what Pod Security enforces in them"),
    Power::new("patch", ("", "nodes", ""), "where pods run"),
];

/// The grant of a power, in one namespace ("" for all of them).
pub(super) fn grant<'a>(
    who: &'a Identity,
    power: &'static Power,
    namespace: &'a str,
    name: &'a str,
    world: &World<'a>,
) -> Option<Grant<'a>> {
    let Power { verb, group, resource, subresource, .. } = power;
    let target = Target::Resource { group, resource, subresource, namespace, name };
    world.rbac.decide(who.requester(), &Request { verb, target }).ok()
}

const REMEDY: &str = "a Role with the verbs, resources and resourceNames that its work needs, and no more";

/// All places, that of every namespace at once first.
fn places<'a>(world: &'a World<'_>) -> impl Iterator<Item = &'a str> {
    std::iter::once("").chain(world.namespaces.iter().map(|place| place.name.as_str()))
}

/// The names that rules of the identity say, place by place: what is not given for all may be given for those.
fn names_in_rules<'a>(who: &Identity, world: &'a World<'_>) -> Vec<(&'a str, BTreeSet<String>)> {
    let of_place = |place: &'a str| {
        let held = world.rbac.held(who.requester(), place);
        (place, held.rules.into_iter().flat_map(|rule| rule.resource_names).collect())
    };
    places(world).map(of_place).collect()
}

/// A power over some objects alone, by their names.
fn by_name(
    who: &Identity,
    power: &'static Power,
    names: &[(&str, BTreeSet<String>)],
    world: &World<'_>,
) -> Vec<Claim> {
    let mut everywhere = BTreeSet::new();
    let mut claims = Vec::new();
    for (place, names) in names {
        let granted = names.iter().filter(|name| !everywhere.contains(*name)).filter_map(|name| {
            grant(who, power, place, name, world).map(|grant| (name.clone(), grant.to_string()))
        });
        let granted: Vec<(String, String)> = granted.collect();
        let Some((_, because)) = granted.first() else { continue };
        let listed: Vec<&str> = granted.iter().map(|(name, _)| name.as_str()).collect();
        let within =
            if place.is_empty() { "in every namespace".to_owned() } else { format!("in namespace {place}") };
        let access = |name: &str| Access { power, namespace: (*place).to_owned(), name: name.to_owned() };
        let any_of = listed.iter().map(|name| access(name)).collect();
        claims.push(Claim {
            target: format!("{}: {} {} {within}", power.gives, power.words(), listed.join(", ")),
            because: because.clone(),
            remedy: Some(REMEDY),
            ..claim("rights", Question::Access { who: who.clone(), any_of }, true)
        });
        if place.is_empty() {
            everywhere.extend(granted.into_iter().map(|(name, _)| name));
        }
    }
    claims
}

pub(super) fn claims(who: &Identity, world: &World<'_>) -> Vec<Claim> {
    let (mut claims, mut refused) = (Vec::new(), Vec::new());
    let names_in_rules = names_in_rules(who, world);
    for power in &POWERS {
        let everywhere = grant(who, power, "", "", world).map(|grant| (String::new(), grant.to_string()));
        let found: Vec<(String, String)> = match everywhere {
            Some(found) => vec![found],
            None => {
                let places = world.namespaces.iter().map(|place| place.name.as_str());
                let granted = places.filter_map(|place| Some((place, grant(who, power, place, "", world)?)));
                granted.map(|(place, grant)| (place.to_owned(), grant.to_string())).collect()
            }
        };
        let access = |namespace: &str| Access { power, namespace: namespace.to_owned(), name: String::new() };
        if found.is_empty() {
            refused.push(power);
            claims.extend(by_name(who, power, &names_in_rules, world));
            continue;
        }
        let names: Vec<&str> = found.iter().map(|(namespace, _)| namespace.as_str()).collect();
        let place = match names.as_slice() {
            [""] => "in every namespace".to_owned(),
            [one] => format!("in namespace {one}"),
            many => format!("in namespaces {}", many.join(", ")),
        };
        let any_of = names.iter().map(|namespace| access(namespace)).collect();
        claims.push(Claim {
            target: format!("{}: {} {place}", power.gives, power.words()),
            because: found[0].1.clone(),
            remedy: Some(REMEDY),
            ..claim("rights", Question::Access { who: who.clone(), any_of }, true)
        });
        // Who may do everything need not be told each.
        if power.verb == "*" && names == [""] {
            return claims;
        }
    }
    let any_of = refused
        .iter()
        .flat_map(|power| {
            places(world).map(|place| Access { power, namespace: place.to_owned(), name: String::new() })
        })
        .collect();
    let other = if claims.is_empty() { "" } else { " other" };
    claims.push(Claim {
        target: format!(
            "none{other} of {} rights for all names that lead further: to Secrets, pods, roles, others' identities",
            POWERS.len()
        ),
        because: "no role that is bound to it allows that".into(),
        ..claim("rights", Question::Access { who: who.clone(), any_of }, false)
    });
    claims
}
