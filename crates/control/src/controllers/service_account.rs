//! Gives every namespace its ServiceAccount `default` and the cluster's certificate authority in a ConfigMap
//! (`pkg/controller/serviceaccount/serviceaccounts_controller.go`, `pkg/controller/certificates/rootcacertpublisher`), and
//! `kube-system` the accounts that the controllers are.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};

use super::{Error, World, clients};

pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";

const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

pub(super) async fn sync(world: &World, namespace: String) -> Result<Option<Duration>, Error> {
    let known = world.namespaces.get(&(String::new(), namespace.clone()));
    if known.is_none_or(|known| known.metadata.deletion_timestamp.is_some()) {
        return Ok(None);
    }
    // No pod is let in without it.
    settle(world, &namespace, "default").await?;
    let data = [("ca.crt".to_string(), world.root_ca.clone())].into();
    let api: Api<ConfigMap> = Api::namespaced(world.clients.root_ca.clone(), &namespace);
    match world.config_maps.get(&(namespace.clone(), ROOT_CA.to_string())) {
        Some(map) if map.data.as_ref() == Some(&data) => {}
        Some(map) => {
            let changed = ConfigMap { data: Some(data), ..(*map).clone() };
            world.saw(api.replace(ROOT_CA, &PostParams::default(), &changed).await?);
        }
        None => {
            let mut metadata = named(ROOT_CA, &namespace);
            metadata.annotations =
                Some([("kubernetes.io/description".to_string(), DESCRIPTION.to_string())].into());
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            match api.create(&PostParams::default(), &map).await {
                Ok(map) => world.saw(map),
                Err(error) => exists_is_fine(error)?,
            }
        }
    }
    if namespace == clients::NAMESPACE {
        try_join_all(clients::ACCOUNTS.iter().map(|name| settle(world, &namespace, name))).await?;
    }
    Ok(None)
}

/// Makes the account where it is not there.
async fn settle(world: &World, namespace: &str, name: &str) -> Result<(), Error> {
    if world.service_accounts.get(&(namespace.to_owned(), name.to_owned())).is_some() {
        return Ok(());
    }
    let account = ServiceAccount { metadata: named(name, namespace), ..ServiceAccount::default() };
    let api: Api<ServiceAccount> = Api::namespaced(world.clients.service_account.clone(), namespace);
    match api.create(&PostParams::default(), &account).await {
        Ok(account) => world.saw(account),
        Err(error) => exists_is_fine(error)?,
    }
    Ok(())
}

fn named(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() }
}

/// The watch will show it.
fn exists_is_fine(error: kube::Error) -> Result<(), Error> {
    match error {
        kube::Error::Api(status) if status.reason == "AlreadyExists" => Ok(()),
        error => Err(error.into()),
    }
}
