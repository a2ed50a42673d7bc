//! Which nodes can take a pod, and what the others say.

use super::Refusal;
use super::affinity::{PodAffinity, TopologySpread};
use super::cluster::{Cluster, NodeState};
use super::pod::PodInfo;

/// What of the filters is the same for all nodes, computed once per pod.
pub(super) struct Filters<'a> {
    pod: &'a PodInfo,
    spread: TopologySpread<'a>,
    affinity: PodAffinity<'a>,
}

impl<'a> Filters<'a> {
    pub fn prepare(pod: &'a PodInfo, cluster: &'a Cluster) -> Filters<'a> {
        Filters {
            pod,
            spread: TopologySpread::prepare(pod, cluster),
            affinity: PodAffinity::prepare(pod, cluster),
        }
    }

    /// None: the node can take it.
    pub fn refuse(&self, node: &NodeState) -> Option<Refusal> {
        let pod = self.pod;
        if node.unschedulable && !pod.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule") {
            return unresolvable("node(s) were unschedulable");
        }
        if !tolerates_taints(pod, node) {
            return unresolvable("node(s) had untolerated taint(s)");
        }
        if !matches_node_affinity(pod, node) {
            return unresolvable("node(s) didn't match Pod's node affinity/selector");
        }
        if node.ports().any(|held| pod.ports.iter().any(|wanted| wanted.conflicts(held))) {
            return resolvable("node(s) didn't have free ports for the requested pod ports");
        }
        refuse_resources(pod, node)
            .or_else(|| self.spread.refuse(node))
            .or_else(|| self.affinity.refuse(node))
    }
}

pub(super) fn resolvable(reason: &str) -> Option<Refusal> {
    Some(Refusal { reasons: vec![reason.to_string()], preemption_could_help: true })
}

pub(super) fn unresolvable(reason: &str) -> Option<Refusal> {
    Some(Refusal { reasons: vec![reason.to_string()], preemption_could_help: false })
}

pub(super) fn tolerates_taints(pod: &PodInfo, node: &NodeState) -> bool {
    node.taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .all(|taint| pod.tolerates(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect))
}

pub(super) fn matches_node_affinity(pod: &PodInfo, node: &NodeState) -> bool {
    pod.node_selector.matches(&node.labels)
        && pod
            .required_nodes
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, &node.labels)))
}

fn refuse_resources(pod: &PodInfo, node: &NodeState) -> Option<Refusal> {
    let mut reasons = Vec::new();
    let mut preemption_could_help = true;
    if node.pods().len() as i64 + 1 > node.allocatable("pods") {
        reasons.push("Too many pods".to_string());
    }
    for (name, wanted) in pod.requests.iter().filter(|(_, wanted)| **wanted > 0) {
        if *wanted > node.allocatable(name).saturating_sub(node.used(name)) {
            reasons.push(format!("Insufficient {name}"));
            // More than the whole node has: no eviction helps.
            preemption_could_help &= *wanted <= node.allocatable(name);
        }
    }
    (!reasons.is_empty()).then_some(Refusal { reasons, preemption_could_help })
}
