//! Which of the nodes that can take a pod is the best. Every score is 0 to 100 before its weight; the weights are those
//! of kube-scheduler's default profile.

use super::cluster::{Cluster, NodeState};
use super::pod::PodInfo;

/// What a pod without requests is taken to use, so that such pods spread too (`schedutil.GetNonzeroRequests`).
const NONZERO: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024)];

const TAINTS: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const POD_AFFINITY: i64 = 2;

/// None only if there are no nodes.
pub(super) fn best<'a>(pod: &PodInfo, cluster: &Cluster, nodes: &[&'a NodeState]) -> Option<&'a NodeState> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let mut totals: Vec<i64> = nodes.iter().map(|node| least_allocated(pod, node)).collect();
    let mut count = |weight: i64, is_better: Better, of: &dyn Fn(&NodeState) -> i64| {
        let scores = normalise(nodes.iter().map(|node| of(node)).collect(), is_better);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    count(TAINTS, Better::Less, &|node| avoided_taints(pod, node));
    if !pod.preferred_nodes.is_empty() {
        count(NODE_AFFINITY, Better::More, &|node| {
            let matching =
                pod.preferred_nodes.iter().filter(|(_, term)| term.matches(&node.name, &node.labels));
            matching.map(|(weight, _)| *weight).sum()
        });
    }
    if let Some(owner) = &pod.owner {
        count(SPREAD, Better::Less, &|node| {
            node.pods().filter(|other| other.owner.as_ref() == Some(owner) && !other.terminating).count()
                as i64
        });
    }
    for spread in pod.spread.iter().filter(|spread| !spread.required) {
        count(SPREAD, Better::Less, &|node| {
            let domain = node.labels.get(&spread.topology_key);
            let same = cluster
                .pods()
                .filter(|(n, _)| domain.is_some() && n.labels.get(&spread.topology_key) == domain);
            same.filter(|(_, other)| spread.counts(&pod.namespace, other)).count() as i64
        });
    }
    if !pod.preferred_pods.is_empty() {
        count(POD_AFFINITY, Better::More, &|node| {
            let terms = pod.preferred_pods.iter();
            terms
                .map(|(weight, term)| {
                    let domain = node.labels.get(&term.topology_key);
                    let there = cluster.pods().filter(|(other_node, other)| {
                        domain.is_some()
                            && other_node.labels.get(&term.topology_key) == domain
                            && term.matches(other, cluster.namespace(&other.namespace))
                    });
                    weight * there.count() as i64
                })
                .sum()
        });
    }
    let ranked = nodes.iter().zip(totals);
    ranked
        .max_by(|(a, a_total), (b, b_total)| {
            a_total.cmp(b_total).then(b.pods().len().cmp(&a.pods().len())).then(b.name.cmp(&a.name))
        })
        .map(|(node, _)| *node)
}

#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

/// To 0..=100 between the least and the most; all alike is 100 for everyone.
fn normalise(scores: Vec<i64>, is_better: Better) -> Vec<i64> {
    let (least, most) =
        (scores.iter().min().copied().unwrap_or(0), scores.iter().max().copied().unwrap_or(0));
    scores
        .into_iter()
        .map(|score| match (most - least, is_better) {
            (0, _) => 100,
            (span, Better::More) => (score - least) * 100 / span,
            (span, Better::Less) => (most - score) * 100 / span,
        })
        .collect()
}

fn least_allocated(pod: &PodInfo, node: &NodeState) -> i64 {
    let of = |pod: &PodInfo, name: &str, default: i64| pod.requests.get(name).copied().unwrap_or(default);
    let free = NONZERO.iter().map(|(name, default)| {
        let capacity = node.allocatable(name);
        let used: i64 =
            node.pods().map(|other| of(other, name, *default)).sum::<i64>() + of(pod, name, *default);
        if capacity <= 0 || used > capacity { 0 } else { (capacity - used) * 100 / capacity }
    });
    free.sum::<i64>() / NONZERO.len() as i64
}

fn avoided_taints(pod: &PodInfo, node: &NodeState) -> i64 {
    let avoided = node.taints.iter().filter(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        taint.effect == "PreferNoSchedule" && !pod.tolerates(&taint.key, value, &taint.effect)
    });
    avoided.count() as i64
}
