//! What commonly goes wrong with NetworkPolicies the API server takes: rules that match nobody or nothing new, and rules
//! that say something else than people usually mean by them. Nothing here is against Kubernetes' rules; each finding says
//! what the policy does, and what to write if that is not what was meant.
//!
//! Held against the objects given: "matches no pod" means none of those. ClusterNetworkPolicies are not looked at.

mod covers;
mod meaning;
mod reach;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;

use super::Cluster;
use super::ir::{Cidr, Direction};
use super::model::{AllowRule, Policy};
use crate::selector::Labels;

/// A rule of the linter.
pub struct Lint {
    pub id: &'static str,
    /// A sentence: what to write instead.
    pub fix: &'static str,
    run: fn(&Known<'_>, &Subject<'_>) -> Vec<(String, String)>,
}

/// Where a policy is probably not what its author meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub namespace: String,
    pub policy: String,
    /// In the policy, as the API server writes paths: `spec.ingress[0].from[1]`.
    pub path: String,
    pub message: String,
    pub fix: &'static str,
}

/// All of them, in the order in which they are reported.
pub static LINTS: [Lint; 10] = [
    reach::NOT_UNDERSTOOD,
    reach::SELECTS_NO_POD,
    reach::HOST_NETWORK_ONLY,
    reach::PEER_MATCHES_NOBODY,
    reach::NAMED_PORT_NOWHERE,
    meaning::SELECTORS_APART,
    meaning::EMPTY_LIST,
    meaning::TYPE_MISSING,
    meaning::EGRESS_WITHOUT_DNS,
    meaning::BLOCK_OF_PODS,
];

/// Beside the others because it looks at pairs.
pub const SHADOWED: &str = "shadowed";

/// What is known of the cluster, or of the manifests.
struct Known<'a> {
    pods: &'a [Pod],
    namespaces: BTreeMap<&'a str, Labels>,
    policies: Vec<Subject<'a>>,
    pod_ranges: &'a [Cidr],
}

/// One policy, as it is written and as it is understood.
struct Subject<'a> {
    object: &'a NetworkPolicy,
    parsed: Policy,
    error: Option<String>,
    /// The pods it selects.
    pods: Vec<&'a Pod>,
}

impl Subject<'_> {
    /// What is written, whether or not it counts: (direction, path of the rule's list of peers, rule).
    fn rules(&self) -> impl Iterator<Item = (Direction, String, &AllowRule)> {
        Direction::ALL.into_iter().flat_map(|direction| {
            let rules = self.parsed.rules(direction).unwrap_or_default().iter().enumerate();
            rules.map(move |(index, rule)| (direction, format!("spec.{}[{index}]", field(direction)), rule))
        })
    }
}

fn field(direction: Direction) -> &'static str {
    super::cluster_policy::field_of(direction)
}

fn peers_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// Findings in the order of the policies given, and within one of [`LINTS`], [`SHADOWED`] last. `pod_ranges` is where the
/// cluster's pods have their addresses from, of each family.
pub fn lint(cluster: &Cluster<'_>, pod_ranges: &[Cidr]) -> Vec<Finding> {
    let namespaces = cluster.namespaces.iter().filter_map(|namespace| {
        let name = namespace.metadata.name.as_deref()?;
        Some((name, namespace.metadata.labels.clone().unwrap_or_default()))
    });
    let policies = cluster.policies.iter().map(|object| {
        let (parsed, error) = Policy::from_api(object);
        let selects = |pod: &&Pod| namespace(pod) == parsed.namespace && parsed.subject.matches(&labels(pod));
        let pods = cluster.pods.iter().filter(selects).collect();
        Subject { object, parsed, error: error.map(|error| error.to_string()), pods }
    });
    let known = Known {
        pods: cluster.pods,
        namespaces: namespaces.collect(),
        policies: policies.collect(),
        pod_ranges,
    };
    let mut findings = Vec::new();
    for (index, policy) in known.policies.iter().enumerate() {
        let mut found = |id, fix, (path, message)| {
            let (namespace, name) = (policy.parsed.namespace.clone(), policy.parsed.name.clone());
            findings.push(Finding { id, namespace, policy: name, path, message, fix });
        };
        for lint in &LINTS {
            // What could not be read isolates and allows nothing: there is nothing more to say about it.
            if policy.error.is_none() || lint.id == reach::NOT_UNDERSTOOD.id {
                (lint.run)(&known, policy).into_iter().for_each(|at| found(lint.id, lint.fix, at));
            }
        }
        const FIX: &str = "Remove one of the two, or narrow the wider one if it allows more than was meant.";
        covers::shadowed(&known, index).into_iter().for_each(|at| found(SHADOWED, FIX, at));
    }
    findings
}
