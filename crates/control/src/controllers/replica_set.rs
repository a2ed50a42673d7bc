//! Makes and deletes the pods of ReplicaSets, and writes their statuses.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use policy::workload::replica_set::{self, Scale};

use super::adoption::{claim, owner_reference};
use super::cache::{Key, controller_of};
use super::deployment::{exactly, to_wait};
use super::{Error, World, gone_is_fine};

/// Writes of one replica set under way at a time.
const AT_ONCE: usize = 64;

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(set) = world.replica_sets.get(&key) else { return Ok(None) };
    let Some(spec) = &set.spec else { return Ok(None) };
    let pods = claim::<Pod, _>(world, &world.clients.replica_set, &*set, &spec.selector).await?;
    let mut failure: Option<(&'static str, String)> = None;
    let mut error = None;
    if set.metadata.deletion_timestamp.is_none() {
        let result = match replica_set::scale(&set, &pods, &related(world, &set), Timestamp::now()) {
            Scale::Keep => Ok(()),
            Scale::Create(count) => create(world, &set, count).await.map_err(|error| ("FailedCreate", error)),
            Scale::Delete(names) => delete(world, &set, names).await.map_err(|error| ("FailedDelete", error)),
        };
        if let Err((reason, cause)) = result {
            failure = Some((reason, cause.to_string()));
            error = Some(cause);
        }
    }
    // As it is after the writes, whose answers the cache has.
    let Some(set) = world.replica_sets.get(&key) else { return Ok(None) };
    let pods = world.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    let told = failure.as_ref().map(|(reason, message)| (*reason, message.as_str()));
    let (status, recheck) = replica_set::status(&set, &pods, told, Timestamp::now());
    if set.status.as_ref() != Some(&status) {
        let api: Api<ReplicaSet> = Api::namespaced(world.clients.replica_set.clone(), &key.0);
        let mut changed = (*set).clone();
        changed.status = Some(status);
        let answer = api.replace_status(&key.1, &PostParams::default(), &changed).await;
        if let Some(changed) = gone_is_fine(answer)? {
            world.saw(changed);
        }
    }
    match error {
        Some(error) => Err(error),
        None => Ok(recheck.map(to_wait)),
    }
}

/// Pods of the other replica sets of the same owner.
fn related(world: &World, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let Some(owner) = controller_of(&set.metadata) else { return Vec::new() };
    let siblings = world.replica_sets.owned_by(&owner.uid);
    let siblings = siblings.iter().filter(|sibling| sibling.metadata.uid != set.metadata.uid);
    let uids = siblings.filter_map(|sibling| sibling.metadata.uid.clone());
    uids.flat_map(|uid| world.pods.owned_by(&uid)).collect()
}

/// The first alone, then all others at once: if the first is refused, so would they be (the reason for upstream's
/// slow start).
async fn create(world: &World, set: &ReplicaSet, count: usize) -> Result<(), Error> {
    let Some(template) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else { return Ok(()) };
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let pod = replica_set::pod_from_template(template, namespace, owner_reference(set));
    let api: Api<Pod> = Api::namespaced(world.clients.replica_set.clone(), namespace);
    create_one(world, set, &api, &pod).await?;
    let mut others =
        stream::iter(1..count).map(|_| create_one(world, set, &api, &pod)).buffer_unordered(AT_ONCE);
    let mut first_error = None;
    while let Some(result) = others.next().await {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn create_one(world: &World, set: &ReplicaSet, api: &Api<Pod>, pod: &Pod) -> Result<(), Error> {
    let recorder = world.recorder.of("replicaset-controller", &world.clients.replica_set);
    match api.create(&PostParams::default(), pod).await {
        Ok(pod) => {
            let name = pod.metadata.name.clone().unwrap_or_default();
            world.saw(pod);
            recorder.normal(set, "SuccessfulCreate", format!("Created pod: {name}"));
            Ok(())
        }
        Err(error) => {
            let message = match &error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            recorder.warning(set, "FailedCreate", format!("Error creating: {message}"));
            Err(error.into())
        }
    }
}

async fn delete(world: &World, set: &ReplicaSet, names: Vec<String>) -> Result<(), Error> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(world.clients.replica_set.clone(), namespace);
    let mut deletions =
        stream::iter(names).map(|name| delete_one(world, set, &api, name)).buffer_unordered(AT_ONCE);
    let mut first_error = None;
    while let Some(result) = deletions.next().await {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn delete_one(world: &World, set: &ReplicaSet, api: &Api<Pod>, name: String) -> Result<(), Error> {
    let key = (set.metadata.namespace.clone().unwrap_or_default(), name.clone());
    let Some(pod) = world.pods.get(&key) else { return Ok(()) };
    let recorder = world.recorder.of("replicaset-controller", &world.clients.replica_set);
    let answer = gone_is_fine(api.delete(&name, &exactly(pod.metadata.uid.as_ref())).await);
    match answer.map(|answer| answer.and_then(|answer| answer.left())) {
        Ok(Some(pod)) if pod.metadata.deletion_timestamp.is_some() => world.saw(pod),
        Ok(_) => world.lost::<Pod>(&pod.metadata),
        Err(error) => {
            recorder.warning(set, "FailedDelete", format!("Error deleting: {error}"));
            return Err(error);
        }
    }
    recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
    Ok(())
}
