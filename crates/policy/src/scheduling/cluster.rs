//! The picture of the cluster a pod is placed in: nodes with what their pods use, kept up to date event by event.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Taint};

use super::pod::{Amounts, HostPort, PodInfo, amount};
use crate::resources;
use crate::selector::Labels;

/// A node and the pods on it.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    /// False for a node that pods are bound to but that is not (or not yet) there.
    exists: bool,
    pods: BTreeMap<String, PodInfo>,
    used: Amounts,
    /// How many pods hold each: two may that were bound by hand.
    ports: BTreeMap<HostPort, usize>,
}

impl NodeState {
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &PodInfo> {
        self.pods.values()
    }

    pub fn used(&self, resource: &str) -> i64 {
        self.used.get(resource).copied().unwrap_or(0)
    }

    pub fn allocatable(&self, resource: &str) -> i64 {
        self.allocatable.get(resource).copied().unwrap_or(0)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = &HostPort> {
        self.ports.keys()
    }

    fn add(&mut self, pod: PodInfo) {
        for (name, amount) in &pod.requests {
            *self.used.entry(name.clone()).or_default() += amount;
        }
        for port in &pod.ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    fn remove(&mut self, uid: &str) -> Option<PodInfo> {
        let pod = self.pods.remove(uid)?;
        for (name, amount) in &pod.requests {
            if let Some(used) = self.used.get_mut(name) {
                *used -= amount;
            }
        }
        for port in &pod.ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
        Some(pod)
    }
}

/// What pods are placed by.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    /// Names of those that pods are bound to without the node being there.
    missing: BTreeMap<String, NodeState>,
    /// Pod uid → node name.
    placed: BTreeMap<String, String>,
    namespaces: BTreeMap<String, Labels>,
}

impl Cluster {
    pub fn nodes(&self) -> &BTreeMap<String, NodeState> {
        &self.nodes
    }

    /// All pods that have a node, with that node's state.
    pub fn pods(&self) -> impl Iterator<Item = (&NodeState, &PodInfo)> {
        self.nodes.values().flat_map(|node| node.pods().map(move |pod| (node, pod)))
    }

    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    pub fn upsert_namespace(&mut self, name: &str, labels: Labels) {
        self.namespaces.insert(name.to_string(), labels);
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// True if something changed that could let a waiting pod in.
    pub fn upsert_node(&mut self, node: &Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let kept = self.missing.remove(&name);
        let state = self.nodes.entry(name.clone()).or_insert_with(|| kept.unwrap_or_default());
        let spec = node.spec.as_ref();
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let allocatable: Amounts = allocatable
            .into_iter()
            .flat_map(|list| list.keys())
            .map(|key| (key.clone(), amount(key, resources::quantity(allocatable, key))))
            .collect();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        let unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        let changed = !state.exists
            || state.allocatable != allocatable
            || state.labels != labels
            || state.taints != taints
            || state.unschedulable != unschedulable;
        state.exists = true;
        state.name = name;
        state.allocatable = allocatable;
        state.labels = labels;
        state.taints = taints;
        state.unschedulable = unschedulable;
        changed
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(mut state) = self.nodes.remove(name)
            && !state.pods.is_empty()
        {
            state.exists = false;
            self.missing.insert(name.to_string(), state);
        }
    }

    /// Puts a pod on its node (`pod.node`); without a node it is taken off. Do not add finished pods: remove them.
    pub fn put_pod(&mut self, pod: PodInfo) {
        self.remove_pod(&pod.uid);
        let Some(name) = pod.node.clone() else { return };
        self.placed.insert(pod.uid.clone(), name.clone());
        match self.nodes.get_mut(&name) {
            Some(node) => node.add(pod),
            None => self.missing.entry(name).or_default().add(pod),
        }
    }

    /// True if it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(name) = self.placed.remove(uid) else { return false };
        if let Some(node) = self.nodes.get_mut(&name) {
            return node.remove(uid).is_some();
        }
        let Some(node) = self.missing.get_mut(&name) else { return false };
        let removed = node.remove(uid).is_some();
        if node.pods.is_empty() {
            self.missing.remove(&name);
        }
        removed
    }

    /// The uids of the pods that are placed.
    pub fn placed(&self) -> BTreeSet<String> {
        self.placed.keys().cloned().collect()
    }

    /// Where a pod is.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }
}
