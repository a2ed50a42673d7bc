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
async fn all<K>(client: &kube::Client) -> Result<Vec<K>>
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
