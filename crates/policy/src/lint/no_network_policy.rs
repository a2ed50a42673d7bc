//! Pods are reached by everybody until a NetworkPolicy selects them. This is a rule about all objects of a set of manifests,
//! not about one pod.

use std::collections::BTreeSet;

use super::Severity;

/// What is said of a namespace.
pub struct NamespaceLint {
    pub id: &'static str,
    pub severity: Severity,
    pub about: &'static str,
    pub fix: &'static str,
}

pub const NO_NETWORK_POLICY: NamespaceLint = NamespaceLint {
    id: "no-network-policy",
    severity: Severity::Warning,
    about: "A namespace has pods and no NetworkPolicy: every pod of the cluster reaches them.",
    fix: "Add a NetworkPolicy with podSelector: {} and policyTypes: [Ingress], then one for each connection that is meant.",
};

/// The namespaces that have pods and no policy.
pub fn unguarded<'a>(
    pods: impl IntoIterator<Item = &'a str>,
    policies: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<&'a str> {
    let policies: BTreeSet<&str> = policies.into_iter().collect();
    pods.into_iter().filter(|namespace| !policies.contains(namespace)).collect()
}
