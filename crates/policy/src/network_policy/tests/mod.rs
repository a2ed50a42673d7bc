//! Tables of behaviour, and the two properties: the rule set says what the naive evaluator says, and a compiler that
//! was told a history says what one says that was told its outcome.

mod explain;
mod properties;
mod routes;
mod tables;
mod tiers;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::explain::*;
use super::*;
use crate::network_policy::ir::Family;

/// Objects as a test has them.
#[derive(Clone, Debug, Default)]
struct Objects {
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    nodes: Vec<Node>,
    policies: Vec<NetworkPolicy>,
    cluster_policies: Vec<ClusterNetworkPolicy>,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
}

impl Objects {
    fn cluster(&self) -> Cluster<'_> {
        Cluster {
            pods: &self.pods,
            namespaces: &self.namespaces,
            nodes: &self.nodes,
            policies: &self.policies,
            cluster_policies: &self.cluster_policies,
        }
    }

    fn world(&self) -> World<'_> {
        World { cluster: self.cluster(), services: &self.services, slices: &self.slices }
    }

    fn events(&self, node: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for namespace in &self.namespaces {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            events.push(Event::UpsertNamespace(namespace.metadata.name.clone().unwrap(), labels));
        }
        events.extend(self.pods.iter().map(|pod| Event::UpsertPod(PodRecord::from_api(pod, node))));
        events.extend(self.policies.iter().map(|p| Event::UpsertPolicy(Policy::from_api(p).0)));
        events.extend(self.nodes.iter().map(|node| Event::UpsertNode(NodeRecord::from_api(node))));
        let clusters = self.cluster_policies.iter().map(|p| ClusterPolicy::from_api(p).0);
        events.extend(clusters.map(Event::UpsertClusterPolicy));
        events
    }

    fn rule_set(&self, node: &str) -> RuleSet {
        self.rule_set_of(node, &[Family::V4])
    }

    fn rule_set_of(&self, node: &str, families: &[Family]) -> RuleSet {
        let mut compiler = Compiler::new(families);
        let changes = compiler.apply(self.events(node));
        let mut applied = RuleSet::default();
        for change in &changes {
            applied.apply(change).unwrap_or_else(|error| panic!("{error}: {changes:#?}"));
        }
        assert_eq!(applied, compiler.rule_set(), "the changes lead to the rule set");
        applied
    }

    /// As three nodes do: the client's node judges egress, the server's node ingress.
    fn judged_by_nodes(&self, flow: &Flow) -> bool {
        ["node-1", "node-2"].into_iter().all(|node| self.rule_set(node).judge(flow))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
