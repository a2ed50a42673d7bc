//! What people call the ends of a table: workloads of a namespace, nodes, blocks outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use policy::network_policy::table::{End, Table};
use serde::Serialize;

use super::objects::Objects;

/// A row and column of the table: what no policy tells apart, and what is of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// `foo/web,api`, `nodes`, `nodes with foo/agent`, `outside 192.0.2.0/24`
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Of nodes, those on their network, with their namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
    /// Number of pods or nodes; 0 outside.
    pub members: usize,
    #[serde(skip)]
    pub end: usize,
}

/// The end of a pod; of one on its node's network, its node's. None for a pod that has finished, or whose node is not known.
pub fn end_of(objects: &Objects, table: &Table, pod: usize) -> Option<usize> {
    table.end_of_pod(pod).or_else(|| {
        let object = objects.pods.get(pod)?;
        let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
        let spec = object.spec.as_ref()?;
        if spec.host_network != Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let named = |node: &String| objects.nodes.iter().position(|n| n.metadata.name.as_ref() == Some(node));
        match spec.node_name.as_ref().and_then(named) {
            Some(node) => table.end_of_node(node),
            // Wherever it will run, if nodes are all one.
            None => {
                let mut ends = (0..objects.nodes.len()).map(|node| table.end_of_node(node));
                let first = ends.next()?;
                ends.all(|end| end == first).then_some(first)?
            }
        }
    })
}

/// Workloads that are written out before "+n".
const WRITTEN: usize = 3;

/// All groups; with `namespace` its workloads only, and those of others as far as they are told apart.
pub fn groups(objects: &Objects, table: &Table, namespace: Option<&str>) -> Vec<Group> {
    let mut by_end: BTreeMap<(String, usize), (BTreeSet<String>, usize)> = BTreeMap::new();
    // Those on their nodes' network.
    let mut on_host: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let apart = told_apart([(objects, table)]);
    for (index, pod) in objects.pods.iter().enumerate() {
        let Some(end) = table.end_of_pod(index) else {
            if let Some(end) = end_of(objects, table, index) {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                on_host.entry(end).or_default().insert(format!("{namespace}/{}", called(pod, &apart)));
            }
            continue;
        };
        let of = pod.metadata.namespace.clone().unwrap_or_default();
        let entry = by_end.entry((of, end)).or_default();
        entry.0.insert(called(pod, &apart));
        entry.1 += 1;
    }
    let mut groups = Vec::new();
    for ((of, end), (workloads, members)) in by_end {
        let name = format!("{of}/{}", written(&workloads));
        groups.push(Group {
            name,
            namespace: Some(of),
            workloads: workloads.into_iter().collect(),
            members,
            end,
        });
    }
    // The namespace that is asked for comes first.
    groups.sort_by_key(|group: &Group| {
        (namespace.is_some() && group.namespace.as_deref() != namespace, group.name.clone())
    });
    for (end, kind) in table.ends().iter().enumerate() {
        let (name, members) = match kind {
            End::Pods(_) => continue,
            End::Nodes(nodes) if nodes.len() == objects.nodes.len() => ("nodes".to_string(), nodes.len()),
            End::Nodes(nodes) => {
                let names = nodes.iter().filter_map(|i| objects.nodes.get(*i)?.metadata.name.clone());
                (format!("nodes {}", names.collect::<Vec<_>>().join(",")), nodes.len())
            }
            End::Outside { largest: true, .. } => ("outside".to_string(), 0),
            End::Outside { ranges, .. } => {
                let shown: Vec<String> = ranges.iter().take(WRITTEN).map(|r| block(*r)).collect();
                let more = ranges.len() - shown.len();
                let more = if more > 0 { format!(",+{more}") } else { String::new() };
                (format!("outside {}{more}", shown.join(",")), 0)
            }
        };
        let (name, workloads) = match on_host.remove(&end) {
            Some(workloads) => {
                (format!("{name} with {}", written(&workloads)), workloads.into_iter().collect())
            }
            None => (name, Vec::new()),
        };
        groups.push(Group { name, namespace: None, workloads, members, end });
    }
    groups
}

fn written(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().map(String::as_str).take(WRITTEN).collect();
    let more = names.len() - shown.len();
    let more = if more > 0 { format!(",+{more}") } else { String::new() };
    format!("{}{more}", shown.join(","))
}

/// Namespace and name of the StatefulSet whose pod it is.
pub fn stateful_set(pod: &Pod) -> Option<(&str, &str)> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true) && owner.kind == "StatefulSet")?;
    Some((pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name))
}

/// StatefulSets whose pods policies tell apart on a side.
pub fn told_apart<'a>(
    sides: impl IntoIterator<Item = (&'a Objects, &'a Table)>,
) -> BTreeSet<(&'a str, &'a str)> {
    let mut apart = BTreeSet::new();
    for (objects, table) in sides {
        let mut ends = BTreeMap::new();
        for (index, pod) in objects.pods.iter().enumerate() {
            let (Some(set), Some(end)) = (stateful_set(pod), table.end_of_pod(index)) else { continue };
            if *ends.entry(set).or_insert(end) != end {
                apart.insert(set);
            }
        }
    }
    apart
}

/// What a pod is called: as its workload or, where its StatefulSet's pods are told apart, by its own name, which stays.
pub fn called(pod: &Pod, apart: &BTreeSet<(&str, &str)>) -> String {
    match stateful_set(pod).filter(|set| apart.contains(set)) {
        Some(_) => pod.metadata.name.clone().unwrap_or_default(),
        None => workload(pod),
    }
}

/// The Deployment, or whatever owns the pod; else the pod.
fn workload(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let owners = meta.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
        return meta.name.clone().unwrap_or_default();
    };
    let hash = meta.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let without = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    without.unwrap_or(&owner.name).to_owned()
}

/// `192.0.2.0/24`, or the two ends of what is no block.
fn block((first, last): (IpAddr, IpAddr)) -> String {
    let (low, high, bits) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return format!("{first}-{last}"),
    };
    let host = (low ^ high).checked_ilog2().map_or(0, |bit| bit + 1);
    let mask = 1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
    match low & mask == 0 && high & mask == mask {
        true => format!("{first}/{}", bits - host),
        false => format!("{first}-{last}"),
    }
}
