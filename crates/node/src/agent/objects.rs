//! The objects a pod refers to: ConfigMaps and Secrets, fetched when they are needed and no others.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::Api;
use policy::{
    env::{Environment, Sources, TokenSource, references, resolve},
    security_context::ConfigError,
};
use serde::de::DeserializeOwned;

use super::{context::Context, tokens::PodTokens};
use crate::volumes;

/// The container's environment.
pub async fn environment(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> Result<Environment, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let wanted = references(container);
    let failed = |error: kube::Error| ConfigError::config(error.to_string());
    let config_maps: BTreeMap<String, ConfigMap> =
        fetch(&ctx.client, namespace, &wanted.config_maps).await.map_err(failed)?;
    let secrets: BTreeMap<String, Secret> =
        fetch(&ctx.client, namespace, &wanted.secrets).await.map_err(failed)?;
    let state = ctx.services.state();
    let services: Vec<&Service> = state
        .iter()
        .map(AsRef::as_ref)
        .filter(|service| {
            let of = service.metadata.namespace.as_deref();
            let is_api = of == Some("default") && service.metadata.name.as_deref() == Some("kubernetes");
            is_api || of == Some(namespace)
        })
        .collect();
    let sources = Sources {
        config_maps: config_maps.iter().map(|(name, object)| (name.clone(), object)).collect(),
        secrets: secrets.iter().map(|(name, object)| (name.clone(), object)).collect(),
        tokens: BTreeMap::new(),
        services,
        pod_ips: pod_ips.to_vec(),
        host_ips: ctx.config.ips(),
    };
    resolve(pod, container, &sources, &ctx.facts)
}

/// What the pod's volumes refer to.
pub struct VolumeObjects {
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
    tokens: BTreeMap<TokenSource, String>,
}

impl VolumeObjects {
    pub fn sources(&self, ctx: &Context) -> Sources<'_> {
        Sources {
            config_maps: self.config_maps.iter().map(|(name, object)| (name.clone(), object)).collect(),
            secrets: self.secrets.iter().map(|(name, object)| (name.clone(), object)).collect(),
            tokens: self.tokens.clone(),
            host_ips: ctx.config.ips(),
            ..Sources::default()
        }
    }
}

pub async fn volume_objects(
    client: &kube::Client,
    pod: &Pod,
    tokens: &PodTokens,
) -> Result<VolumeObjects, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let wanted = volumes::references(pod);
    let failed = |error: kube::Error| error.to_string();
    let (config_maps, secrets, tokens) = futures::try_join!(
        async { fetch(client, namespace, &wanted.config_maps).await.map_err(failed) },
        async { fetch(client, namespace, &wanted.secrets).await.map_err(failed) },
        tokens.current(client, pod),
    )?;
    Ok(VolumeObjects { config_maps, secrets, tokens })
}

/// Those of the named objects that exist: what a missing one means is for the decision to say.
async fn fetch<K>(
    client: &kube::Client,
    namespace: &str,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, K>, kube::Error>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(object) = api.get_opt(name).await? {
            found.insert(name.clone(), object);
        }
    }
    Ok(found)
}
