//! Empties a namespace that is deleted, then lets it go (`pkg/controller/namespace/deletion`). Pods go first, and all
//! else only when they are gone: a pod must not outlive the NetworkPolicies that guard it (CVE-2024-7598,
//! OrderedNamespaceDeletion).

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use super::garbage::{self, Item, api_of};
use super::{Error, World, gone_is_fine};

/// What the API server puts into `spec.finalizers`.
const FINALIZER: &str = "kubernetes";
/// Deletions under way at a time.
const AT_ONCE: usize = 32;
/// Objects are there that no watch has shown yet: a moment later it will have.
const LAG: Duration = Duration::from_millis(50);

pub(super) async fn sync(world: &World, name: String) -> Result<Option<Duration>, Error> {
    let Some(namespace) = world.namespaces.get(&(String::new(), name.clone())) else { return Ok(None) };
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|f| f == FINALIZER) {
        return Ok(None);
    }
    let items = world.graph().in_namespace(&name);
    let is_pod =
        |item: &Item| world.graph().resource(item).is_some_and(|r| r.kind == "Pod" && r.group.is_empty());
    let (pods, others): (Vec<Item>, Vec<Item>) = items.into_iter().partition(is_pod);
    let now = if pods.is_empty() { others } else { pods };
    if !now.is_empty() {
        delete_all(world, now).await?;
        // Whatever goes brings this namespace back.
        return Ok(None);
    }
    if !is_empty(world, &name).await? {
        return Ok(Some(LAG));
    }
    let events: Api<Event> = Api::namespaced(world.clients.namespace.clone(), &name);
    events.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    finalize(world, &namespace).await?;
    Ok(None)
}

async fn delete_all(world: &World, items: Vec<Item>) -> Result<(), Error> {
    let mut deletions = stream::iter(items.into_iter().filter(|item| !item.is_going))
        .map(|item| async move {
            let Some(resource) = world.graph().resource(&item) else { return Ok(()) };
            garbage::delete(&api_of(&world.clients.namespace, &resource, &item.namespace), &item, None).await
        })
        .buffer_unordered(AT_ONCE);
    let mut first_error = None;
    while let Some(result) = deletions.next().await {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Asks the server itself: what was made just before the namespace began to go may not have come by yet.
async fn is_empty(world: &World, namespace: &str) -> Result<bool, Error> {
    let resources = world.graph().namespaced_resources();
    let one = ListParams::default().limit(1);
    for resource in resources {
        if !api_of(&world.clients.namespace, &resource, namespace).list_metadata(&one).await?.items.is_empty()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn finalize(world: &World, namespace: &Namespace) -> Result<(), Error> {
    let mut changed = namespace.clone();
    if let Some(finalizers) = changed.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let api: Api<Namespace> = Api::all(world.clients.namespace.clone());
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    gone_is_fine(api.replace_subresource("finalize", name, &PostParams::default(), &changed).await)?;
    Ok(())
}
