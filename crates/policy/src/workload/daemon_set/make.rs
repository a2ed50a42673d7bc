//! The pods of a DaemonSet: each for one node, and not put off by the taints that say how the node is.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::workload::history::REVISION;
use crate::workload::replica_set::pod_from_template;

const NODE_NAME: &str = "metadata.name";
/// Counts the changes of the template; of old, before revisions.
pub const GENERATION: &str = "deprecated.daemonset.template.generation";

/// For `node`; None: for any, as it is judged whether it belongs somewhere.
pub fn pod(set: &DaemonSet, owner: &OwnerReference, hash: &str, node: Option<&str>) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, namespace, owner.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), hash.to_owned());
    let annotations = set.metadata.annotations.as_ref();
    if let Some(generation) = annotations.and_then(|annotations| annotations.get(GENERATION)) {
        labels.insert("pod-template-generation".to_owned(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    tolerate(spec);
    if let Some(node) = node {
        let affinity = spec.affinity.get_or_insert_with(Affinity::default);
        let of_nodes = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
        // It was asked already whether the node is one that the template wants.
        of_nodes.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: None,
                match_fields: Some(vec![NodeSelectorRequirement {
                    key: NODE_NAME.to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![node.to_owned()]),
                }]),
            }],
        });
    }
    pod
}

/// `AddOrUpdateDaemonPodTolerations`
fn tolerate(spec: &mut PodSpec) {
    let mut taints = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        taints.push(("network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (taint, effect) in taints {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{taint}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// The node a pod is on, or is for; "" where nothing says it.
pub fn node_of(pod: &Pod) -> &str {
    let Some(spec) = &pod.spec else { return "" };
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return node;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let fields = required
        .into_iter()
        .flat_map(|s| &s.node_selector_terms)
        .flat_map(|t| t.match_fields.iter().flatten());
    fields
        .filter(|field| field.key == NODE_NAME)
        .find_map(|field| field.values.as_ref()?.first())
        .map(String::as_str)
        .unwrap_or_default()
}
