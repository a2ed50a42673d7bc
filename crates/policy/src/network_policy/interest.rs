//! Which policies must know a pod by its address. A node's own sets answer that for the policies of its own pods; here it
//! is asked of all policies of the cluster, wherever their pods run: the nodes of those must know a new pod before it
//! starts, and a pod that no policy means as a peer need not be announced to anybody.

use std::collections::{BTreeMap, BTreeSet};

use super::ir::{Action, Family, SetName};
use super::model::{AllowRule, PodRecord};
use super::sets::{SetKey, compile_rule};
use crate::selector::Labels;

/// What the peers and named ports of all policies select, each distinct selector once.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// With the policies that have it.
    keys: BTreeMap<SetName, (SetKey, BTreeSet<Id>)>,
    of_policy: BTreeMap<Id, BTreeSet<SetName>>,
}

/// A policy of either kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    NetworkPolicy { namespace: String, name: String },
    ClusterNetworkPolicy(String),
}

impl Interest {
    /// A policy that was added or changed, with its rules of both directions; deleted: with none. What a rule does with
    /// its peer does not matter: who shall be denied must be known as well.
    pub fn put<'a>(&mut self, id: Id, rules: impl IntoIterator<Item = &'a AllowRule>, families: &[Family]) {
        let mut keys = BTreeMap::new();
        for rule in rules {
            for family in families {
                compile_rule(rule, Action::Allow, *family, &mut Vec::new(), &mut keys);
            }
        }
        // A block of addresses is known to whoever knows the policy.
        keys.retain(|_, key| !matches!(key, SetKey::Cidrs { .. }));
        let new: BTreeSet<SetName> = keys.keys().cloned().collect();
        for (set, key) in keys {
            self.keys.entry(set).or_insert_with(|| (key, BTreeSet::new())).1.insert(id.clone());
        }
        let old = match new.is_empty() {
            true => self.of_policy.remove(&id),
            false => self.of_policy.insert(id.clone(), new.clone()),
        };
        for set in old.unwrap_or_default().difference(&new) {
            if let Some((_, policies)) = self.keys.get_mut(set) {
                policies.remove(&id);
                if policies.is_empty() {
                    self.keys.remove(set);
                }
            }
        }
    }

    /// The policies that mean this pod as a peer or by the name of one of its ports. `labels` are
    /// those of its namespace, if that is known. A pod without an address is meant by nobody.
    pub fn in_pod(&self, pod: &PodRecord, labels: Option<&Labels>) -> BTreeSet<&Id> {
        let means = |key: &SetKey| key.elements_of(pod, labels).next().is_some();
        self.keys.values().filter(|(key, _)| means(key)).flat_map(|(_, policies)| policies).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster_policy::ClusterPolicy;
    use super::super::compile::Compiler;
    use super::super::model::Policy;
    use super::*;
    use std::net::IpAddr;

    fn policy(yaml: &str) -> Policy {
        let (policy, error) = Policy::from_api(&serde_yaml::from_str(yaml).unwrap());
        assert!(error.is_none(), "{error:?}");
        policy
    }

    fn pod(namespace: &str, app: &str) -> PodRecord {
        PodRecord {
            uid: "u".into(),
            namespace: namespace.into(),
            name: app.into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            local: false,
            addresses: vec![IpAddr::from([10, 244, 1, 2])],
            named_ports: [((super::super::Protocol::Tcp, "web".to_owned()), 80)].into(),
            created: String::new(),
        }
    }

    fn interests(compiler: &Compiler, pod: &PodRecord) -> bool {
        // Each namespace has a pod that the policies select.
        compiler.interested_in(pod).next().is_some()
    }

    fn with_subjects() -> Compiler {
        let mut compiler = Compiler::new(&[Family::V4]);
        for (namespace, ip) in [("a", 3), ("b", 4)] {
            let addresses = vec![IpAddr::from([10, 244, 1, ip])];
            compiler.upsert_pod(PodRecord { uid: namespace.into(), addresses, ..pod(namespace, "subject") });
        }
        compiler
    }

    #[test]
    fn only_pods_that_a_policy_means_by_its_peers_or_ports_are_of_interest() {
        let from = |peer: &str| {
            format!(
                "{{metadata: {{name: p, namespace: a}}, spec: {{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}}}"
            )
        };
        let table = [
            ("a default deny", "{metadata: {name: p, namespace: a}, spec: {podSelector: {}}}".into(), false),
            ("anyone", "{metadata: {name: p, namespace: a}, spec: {podSelector: {}, ingress: [{}]}}".into(), false),
            ("addresses", from("{ipBlock: {cidr: 0.0.0.0/0}}"), false),
            ("its own label", from("{podSelector: {matchLabels: {app: x}}}"), true),
            ("another label", from("{podSelector: {matchLabels: {app: y}}}"), false),
            ("its namespace", from("{namespaceSelector: {matchLabels: {team: red}}}"), true),
            ("another namespace", from("{namespaceSelector: {matchLabels: {team: blue}}}"), false),
            (
                "egress to its port's name",
                "{metadata: {name: p, namespace: b}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}}".into(),
                true,
            ),
        ];
        for (what, yaml, want) in table {
            let mut compiler = with_subjects();
            compiler.upsert_namespace("a", [("team".to_owned(), "red".to_owned())].into());
            compiler.upsert_policy(policy(&yaml));
            assert_eq!(interests(&compiler, &pod("a", "x")), want, "{what}");
            let nowhere = PodRecord { addresses: Vec::new(), ..pod("a", "x") };
            assert!(!interests(&compiler, &nowhere), "{what}: a pod without an address");
            compiler.remove_policy("a", "p");
            compiler.remove_policy("b", "p");
            assert!(!interests(&compiler, &pod("a", "x")), "{what}: a policy that is gone");
        }
    }

    #[test]
    fn a_selector_that_two_policies_have_stays_until_both_are_gone() {
        let one = |name: &str, app: &str| {
            policy(&format!(
                "{{metadata: {{name: {name}, namespace: a}}, spec: {{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}}}"
            ))
        };
        let mut compiler = with_subjects();
        compiler.upsert_policy(one("p", "x"));
        compiler.upsert_policy(one("q", "x"));
        compiler.upsert_policy(one("p", "y"));
        assert!(interests(&compiler, &pod("a", "x")) && interests(&compiler, &pod("a", "y")));
        compiler.remove_policy("a", "q");
        assert!(!interests(&compiler, &pod("a", "x")) && interests(&compiler, &pod("a", "y")));
    }

    #[test]
    fn a_cluster_policy_that_denies_a_pod_must_know_it_too() {
        let mut compiler = with_subjects();
        compiler.upsert_namespace("a", Labels::new());
        let yaml = "{metadata: {name: p}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, \
            ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}}]}]}}";
        let (denies, error) = ClusterPolicy::from_api(&serde_yaml::from_str(yaml).unwrap());
        assert!(error.is_none(), "{error:?}");
        compiler.apply([super::super::Event::UpsertClusterPolicy(denies)]);
        assert!(interests(&compiler, &pod("a", "x")) && !interests(&compiler, &pod("a", "y")));
        compiler.apply([super::super::Event::RemoveClusterPolicy("p".to_owned())]);
        assert!(!interests(&compiler, &pod("a", "x")));
    }
}
