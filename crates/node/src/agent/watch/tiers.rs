//! ClusterNetworkPolicies, and the nodes that are peers of theirs.

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::{ResourceExt, runtime::watcher};
use policy::network_policy::{self, ClusterNetworkPolicy, ClusterPolicy, NodeRecord};

use super::{Batch, Cluster, key, version};
use crate::agent::events::Kind;

/// What an event on the policy is about.
fn reference(policy: &ClusterNetworkPolicy) -> ObjectReference {
    ObjectReference {
        api_version: Some("policy.networking.k8s.io/v1alpha2".into()),
        kind: Some("ClusterNetworkPolicy".into()),
        name: policy.metadata.name.clone(),
        uid: policy.metadata.uid.clone(),
        ..Default::default()
    }
}

impl Cluster {
    pub(super) fn cluster_policy(&mut self, event: watcher::Event<ClusterNetworkPolicy>, batch: &mut Batch) {
        use network_policy::Event::{RemoveClusterPolicy, UpsertClusterPolicy};
        match event {
            watcher::Event::Init => self.cluster_policies.begin(),
            watcher::Event::InitApply(policy) | watcher::Event::Apply(policy) => {
                self.cluster_policies.add(key(&policy));
                self.version = self.version.max(version(&policy));
                let (parsed, error) = ClusterPolicy::from_api(&policy);
                if let Some(error) = &error {
                    // It fails closed, and says so.
                    let (object, message) = (reference(&policy), error.to_string());
                    self.ctx.recorder.object(object, Kind::Warning, "ClusterNetworkPolicyInvalid", &message);
                }
                self.ctx.programmed.invalid(&parsed.name, error.map(|error| error.to_string()));
                batch.changed.insert(key(&policy), (reference(&policy), false));
                batch.policy.push(UpsertClusterPolicy(parsed));
            }
            watcher::Event::Delete(policy) => {
                let key = key(&policy);
                self.version = self.version.max(version(&policy));
                self.cluster_policies.remove(&key);
                self.ctx.programmed.invalid(&key.1, None);
                self.refused.policies.remove(&key);
                batch.policy.push(RemoveClusterPolicy(key.1));
            }
            watcher::Event::InitDone => {
                for (_, name) in self.cluster_policies.end() {
                    self.ctx.programmed.invalid(&name, None);
                    batch.policy.push(RemoveClusterPolicy(name));
                }
            }
        }
    }

    /// A node's heartbeats change nothing that a policy asks for.
    pub(super) fn node(&mut self, event: watcher::Event<Node>, batch: &mut Batch) {
        use network_policy::Event::{RemoveNode, UpsertNode};
        match event {
            watcher::Event::Init => self.nodes.begin(),
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                self.nodes.add(key(&node));
                let record = NodeRecord::from_api(&node);
                if self.node_records.get(&record.name) != Some(&record) {
                    self.node_records.insert(record.name.clone(), record.clone());
                    batch.policy.push(UpsertNode(record));
                }
            }
            watcher::Event::Delete(node) => {
                self.nodes.remove(&key(&node));
                self.node_records.remove(&node.name_any());
                batch.policy.push(RemoveNode(node.name_any()));
            }
            watcher::Event::InitDone => {
                for (_, name) in self.nodes.end() {
                    self.node_records.remove(&name);
                    batch.policy.push(RemoveNode(name));
                }
            }
        }
    }
}
