//! The objects that say who may talk to whom, from the cluster.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use policy::network_policy::explain::World;
use policy::network_policy::{Cluster, ClusterNetworkPolicy};

use crate::cli::remote;

#[derive(Debug, Default)]
pub struct Objects {
    pub pods: Vec<Pod>,
    pub namespaces: Vec<Namespace>,
    pub nodes: Vec<Node>,
    pub policies: Vec<NetworkPolicy>,
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
}

impl Objects {
    pub async fn fetch(client: &kube::Client) -> Result<Objects> {
        Ok(Objects {
            pods: all(client).await?,
            namespaces: all(client).await?,
            nodes: all(client).await?,
            policies: all(client).await?,
            cluster_policies: all(client).await?,
            services: all(client).await?,
            slices: all(client).await?,
        })
    }

    /// Pods on their node's network are on some node, also where manifests have none.
    pub fn on_some_node(mut self) -> Objects {
        let on_host = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        if self.nodes.is_empty() && self.pods.iter().any(on_host) {
            self.nodes.push(Node::default());
        }
        self
    }

    /// Whether a pod has an IPv6 address, or a policy speaks of one.
    pub fn speaks_ipv6(&self) -> bool {
        let is_v6 = |text: &str| text.contains(':');
        let pods = self.pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ips.as_ref());
        let of_rules = self.policies.iter().filter_map(|policy| policy.spec.as_ref()).flat_map(|spec| {
            let from = spec.ingress.iter().flatten().flat_map(|rule| rule.from.iter().flatten());
            let to = spec.egress.iter().flatten().flat_map(|rule| rule.to.iter().flatten());
            from.chain(to).filter_map(|peer| Some(peer.ip_block.as_ref()?.cidr.as_str()))
        });
        let of_tiers = self.cluster_policies.iter().flat_map(|policy| {
            let rules = policy.spec.ingress.iter().chain(&policy.spec.egress);
            rules
                .flat_map(|rule| rule.from.iter().chain(&rule.to))
                .flat_map(|peer| peer.networks.iter().flatten())
        });
        pods.flatten().any(|ip| is_v6(&ip.ip))
            || of_rules.into_iter().any(is_v6)
            || of_tiers.into_iter().any(|network| is_v6(network))
    }

    pub fn cluster(&self) -> Cluster<'_> {
        Cluster {
            pods: &self.pods,
            namespaces: &self.namespaces,
            nodes: &self.nodes,
            policies: &self.policies,
            cluster_policies: &self.cluster_policies,
        }
    }

    pub fn world(&self) -> World<'_> {
        World { cluster: self.cluster(), services: &self.services, slices: &self.slices }
    }
}

/// All objects of a kind. A server that does not know the kind has none.
pub async fn all<K>(client: &kube::Client) -> Result<Vec<K>>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => bail!(remote::explain(error)),
    }
}
