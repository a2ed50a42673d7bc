//! Decides where a pending pod runs: the pod and a picture of the cluster in, a node or the reason per node out, in
//! Kubernetes' own words.
//!
//! The filters run in the order of kube-scheduler's default profile, and a node gives the reasons of the first that
//! refuses it: unschedulable, taints, node selector and affinity, host ports, resources, topology spread, pod
//! (anti-)affinity. The scores are fewer: least allocated, spreading of one owner's pods, and what the pod prefers.
//! What cannot be honoured here (claims on storage or devices) is refused by name, never left out.

mod affinity;
mod cluster;
mod filter;
mod pod;
#[cfg(test)]
mod properties;
mod score;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Node;

pub use cluster::{Cluster, NodeState};
pub use pod::{HostPort, PodInfo};

use filter::Filters;

/// Why one node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Never empty; more than one only for resources.
    pub reasons: Vec<String>,
    /// Whether removing pods from the node could change it (`Unschedulable`), or not (`UnschedulableAndUnresolvable`).
    pub preemption_could_help: bool,
}

/// No node takes the pod. Its text is what kube-scheduler writes into the event and the `PodScheduled` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitError {
    /// All nodes of the cluster.
    pub nodes: usize,
    /// Refused for the pod's own sake, whatever the node.
    pub everywhere: Option<String>,
    pub refusals: BTreeMap<String, Refusal>,
    pub preemption: Preemption,
}

/// What evicting others would do. Nothing is evicted here: only what is said differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// No pod of lower priority is in the way.
    NoVictims,
    /// The pod's own `preemptionPolicy` is Never.
    Never,
    /// There are pods of lower priority; evicting them is not implemented.
    NotImplemented,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let total = self.nodes;
        write!(f, "0/{total} nodes are available:")?;
        match &self.everywhere {
            Some(reason) => write!(f, " {reason}.")?,
            None => {
                let reasons = self.refusals.values().flat_map(|r| r.reasons.iter().map(String::as_str));
                write!(f, " {}.", histogram(reasons))?;
            }
        }
        match self.preemption {
            Preemption::Never => f.write_str(" preemption: not eligible due to preemptionPolicy=Never."),
            Preemption::NotImplemented if self.everywhere.is_none() => {
                f.write_str(" preemption: evicting pods of lower priority is not implemented.")
            }
            _ => {
                let helps = self.refusals.values().filter(|r| r.preemption_could_help).count();
                let words = std::iter::repeat_n("No preemption victims found for incoming pod", helps)
                    .chain(std::iter::repeat_n("Preemption is not helpful for scheduling", total - helps));
                write!(f, " preemption: 0/{total} nodes are available: {}.", histogram(words))
            }
        }
    }
}

impl std::error::Error for FitError {}

/// "1 a, 2 b": counted, then sorted as text, as `FitError.Error` of kube-scheduler does.
fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut texts: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

/// Whether a pod that is made for each node belongs onto one (`NodeShouldRunDaemonPod`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    Yes,
    /// None is to be made there, and one that runs may stay.
    IfThere,
    No,
}

/// What the node has and runs does not count: a pod that belongs there and finds no room waits.
pub fn belongs(pod: &PodInfo, node: &Node) -> Belongs {
    let mut cluster = Cluster::default();
    cluster.upsert_node(node);
    let Some(state) = cluster.nodes().values().next() else { return Belongs::No };
    let elsewhere = pod.node.as_ref().is_some_and(|name| *name != state.name);
    if elsewhere || !filter::matches_node_affinity(pod, state) {
        return Belongs::No;
    }
    if filter::tolerates_taints(pod, state) {
        return Belongs::Yes;
    }
    let stays =
        state.taints.iter().filter(|taint| taint.effect == "NoExecute").all(|taint| {
            pod.tolerates(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)
        });
    if stays { Belongs::IfThere } else { Belongs::No }
}

/// The node for a pod. Of nodes that are equally good it takes the one with the fewest pods, then the first by name.
pub fn schedule(pod: &PodInfo, cluster: &Cluster) -> Result<String, FitError> {
    let mut error = FitError {
        nodes: cluster.nodes().len(),
        everywhere: None,
        refusals: BTreeMap::new(),
        preemption: preemption(pod, cluster),
    };
    if let Some(reason) = &pod.refused {
        error.everywhere = Some(reason.clone());
        return Err(error);
    }
    let filters = Filters::prepare(pod, cluster);
    let mut fitting = Vec::new();
    for (name, node) in cluster.nodes() {
        match filters.refuse(node) {
            None => fitting.push(node),
            Some(refusal) => {
                error.refusals.insert(name.clone(), refusal);
            }
        }
    }
    match score::best(pod, cluster, &fitting) {
        Some(node) => Ok(node.name.clone()),
        None => Err(error),
    }
}

fn preemption(pod: &PodInfo, cluster: &Cluster) -> Preemption {
    if pod.never_preempts {
        Preemption::Never
    } else if cluster.pods().any(|(_, other)| other.priority < pod.priority) {
        Preemption::NotImplemented
    } else {
        Preemption::NoVictims
    }
}
