//! The filters that look at other pods: topology spread and pod (anti-)affinity
//! (kube-scheduler `plugins/podtopologyspread/filtering.go`, `plugins/interpodaffinity/filtering.go`).

use std::collections::{BTreeMap, BTreeSet};

use super::Refusal;
use super::cluster::{Cluster, NodeState};
use super::filter::{matches_node_affinity, resolvable, tolerates_taints, unresolvable};
use super::pod::{PodInfo, Spread};

pub(super) struct TopologySpread<'a> {
    /// With each constraint: pods per domain, the fewest, and whether the pod itself counts.
    constraints: Vec<(&'a Spread, BTreeMap<&'a str, i64>, i64, i64)>,
}

impl<'a> TopologySpread<'a> {
    pub fn prepare(pod: &'a PodInfo, cluster: &'a Cluster) -> TopologySpread<'a> {
        let required: Vec<&Spread> = pod.spread.iter().filter(|spread| spread.required).collect();
        let mut constraints = Vec::new();
        for spread in &required {
            let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
            for node in cluster.nodes().values() {
                let has_all = required.iter().all(|s| node.labels.contains_key(&s.topology_key));
                let eligible = has_all
                    && (!spread.honours_node_affinity || matches_node_affinity(pod, node))
                    && (!spread.honours_taints || tolerates_taints(pod, node));
                if eligible && let Some(domain) = node.labels.get(&spread.topology_key) {
                    let count = node.pods().filter(|other| spread.counts(&pod.namespace, other)).count();
                    *domains.entry(domain).or_default() += count as i64;
                }
            }
            let fewest = if domains.len() < spread.min_domains {
                0
            } else {
                domains.values().copied().min().unwrap_or(0)
            };
            let own = i64::from(spread.counts(&pod.namespace, pod));
            constraints.push((*spread, domains, fewest, own));
        }
        TopologySpread { constraints }
    }

    pub fn refuse(&self, node: &NodeState) -> Option<Refusal> {
        for (spread, domains, fewest, own) in &self.constraints {
            let Some(domain) = node.labels.get(&spread.topology_key) else {
                let why = "node(s) didn't match pod topology spread constraints (missing required label)";
                return unresolvable(why);
            };
            let here = domains.get(domain.as_str()).copied().unwrap_or(0);
            if here + own - fewest > spread.max_skew {
                return resolvable("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }
}

/// (topology key, its value)
type Domain<'a> = (&'a str, &'a str);

pub(super) struct PodAffinity<'a> {
    pod: &'a PodInfo,
    /// Where pods run that match all affinity terms, per term's key.
    wanted: BTreeSet<Domain<'a>>,
    /// No pod matches anywhere, but this one matches its own terms: it may be the first of its group.
    is_first: bool,
    /// Where pods run that a term of anti-affinity names.
    unwanted: BTreeSet<Domain<'a>>,
    /// Where pods run that do not want this one.
    forbidden: BTreeSet<Domain<'a>>,
}

impl<'a> PodAffinity<'a> {
    pub fn prepare(pod: &'a PodInfo, cluster: &'a Cluster) -> PodAffinity<'a> {
        let own_labels = cluster.namespace(&pod.namespace);
        let (mut wanted, mut unwanted, mut forbidden) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (node, other) in cluster.pods() {
            let labels = cluster.namespace(&other.namespace);
            let domain = |key: &'a str| node.labels.get(key).map(|value| (key, value.as_str()));
            if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| term.matches(other, labels)) {
                wanted.extend(pod.affinity.iter().filter_map(|term| domain(&term.topology_key)));
            }
            let terms = pod.anti_affinity.iter().filter(|term| term.matches(other, labels));
            unwanted.extend(terms.filter_map(|term| domain(&term.topology_key)));
            let terms = other.anti_affinity.iter().filter(|term| term.matches(pod, own_labels));
            forbidden.extend(terms.filter_map(|term| domain(&term.topology_key)));
        }
        let is_first = wanted.is_empty() && pod.affinity.iter().all(|term| term.matches(pod, own_labels));
        PodAffinity { pod, wanted, is_first, unwanted, forbidden }
    }

    pub fn refuse(&self, node: &NodeState) -> Option<Refusal> {
        let is_in = |domains: &BTreeSet<Domain>, key: &str| {
            node.labels.get(key).is_some_and(|value| domains.contains(&(key, value.as_str())))
        };
        let affinity_matches = self.pod.affinity.iter().all(|term| {
            let has_key = node.labels.contains_key(&term.topology_key);
            has_key && (self.is_first || is_in(&self.wanted, &term.topology_key))
        });
        if !affinity_matches {
            return unresolvable("node(s) didn't match pod affinity rules");
        }
        if self.pod.anti_affinity.iter().any(|term| is_in(&self.unwanted, &term.topology_key)) {
            return resolvable("node(s) didn't match pod anti-affinity rules");
        }
        if self.forbidden.iter().any(|(key, value)| node.labels.get(*key).is_some_and(|v| v == value)) {
            return resolvable("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        None
    }
}
