//! Makes and deletes the pods of ReplicaSets, and writes their statuses.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use policy::workload::replica_set::{self, Scale};

use super::adoption::{claim, owner_reference};
use super::cache::{Key, controller_of};
use super::deployment::to_wait;
use super::pods::Writer;
use super::{Error, World, gone_is_fine};

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(set) = world.replica_sets.get(&key) else { return Ok(None) };
    let Some(spec) = &set.spec else { return Ok(None) };
    let pods = claim::<Pod, _>(world, &world.clients.replica_set, &*set, &spec.selector).await?;
    let recorder = world.recorder.of("replicaset-controller", &world.clients.replica_set);
    let writer = Writer { world, client: &world.clients.replica_set, recorder: &recorder };
    let mut failure: Option<(&'static str, String)> = None;
    let mut error = None;
    if set.metadata.deletion_timestamp.is_none() {
        let result = match replica_set::scale(&set, &pods, &related(world, &set), Timestamp::now()) {
            Scale::Keep => Ok(()),
            Scale::Create(count) => {
                writer.make(&*set, pods_of(&set, count)).await.map_err(|error| ("FailedCreate", error))
            }
            Scale::Delete(names) => writer.end(&*set, names).await.map_err(|error| ("FailedDelete", error)),
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

fn pods_of(set: &ReplicaSet, count: usize) -> Vec<Pod> {
    let Some(template) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else { return Vec::new() };
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    vec![replica_set::pod_from_template(template, namespace, owner_reference(set)); count]
}
