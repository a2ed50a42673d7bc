//! Carries out what DaemonSets ask for: a pod on each node that is theirs, the revisions of their templates, their status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams};
use policy::workload::daemon_set::history::{self, Present, hash_of};
use policy::workload::daemon_set::{self, HASH, Plan};

use super::adoption::{claim, owner_reference};
use super::cache::{Change, Key};
use super::deployment::to_wait;
use super::pods::Writer;
use super::{Error, World, gone_is_fine};

/// Whether a change of a node can make a pod belong there, or no longer.
pub(super) fn is_affected(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(set) = world.daemon_sets.get(&key) else { return Ok(None) };
    let Some(selector) = set.spec.as_ref().map(|spec| spec.selector.clone()) else { return Ok(None) };
    let client = &world.clients.daemon_set;
    let owner = owner_reference(&*set);
    let revisions = claim::<ControllerRevision, _>(world, client, &*set, &selector).await?;
    let Some(hash) = settle(world, &set, &revisions, &owner).await? else { return Ok(None) };
    let pods = claim::<Pod, _>(world, client, &*set, &selector).await?;
    let now = Timestamp::now();
    let plan = daemon_set::plan(&set, &pods, &world.nodes.all(), &hash, &owner, now);
    let recorder = world.recorder.of("daemonset-controller", client);
    for note in plan.notes {
        if note.warning {
            recorder.warning(&*set, note.reason, note.message);
        } else {
            recorder.normal(&*set, note.reason, note.message);
        }
    }
    let writer = Writer { world, client, recorder: &recorder };
    let ended = writer.end(&*set, plan.delete).await;
    let changed = match writer.make(&*set, plan.create).await {
        Ok(()) => ended,
        Err(error) => Err(error),
    };
    // As it is after the writes, whose answers the cache has.
    let Some(set) = world.daemon_sets.get(&key).filter(|now| now.metadata.uid == set.metadata.uid) else {
        return Ok(None);
    };
    let pods = world.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    let Plan { status, recheck, .. } =
        daemon_set::plan(&set, &pods, &world.nodes.all(), &hash, &owner, Timestamp::now());
    if set.status.as_ref() != Some(&status) {
        let next = DaemonSet { status: Some(status), ..(*set).clone() };
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), &key.0);
        match api.replace_status(&key.1, &PostParams::default(), &next).await {
            // Somebody wrote it meanwhile: the watch brings that, and with it the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(None),
            answer => {
                if let Some(set) = gone_is_fine(answer)? {
                    world.saw(set);
                }
            }
        }
    }
    changed?;
    forget(world, &set, &pods, &hash).await?;
    Ok(recheck.map(to_wait))
}

/// The hash of the present template, whose revision is there then. None: the name was taken, and another is tried at once.
async fn settle(
    world: &World,
    set: &DaemonSet,
    revisions: &[Arc<ControllerRevision>],
    owner: &OwnerReference,
) -> Result<Option<String>, Error> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ControllerRevision> = Api::namespaced(world.clients.daemon_set.clone(), namespace);
    let present = history::present(set, revisions, owner);
    let hash = hash_of(present.revision()).to_owned();
    let name = present.revision().metadata.name.clone().unwrap_or_default();
    match present {
        Present::Is(_) => {}
        // What goes makes nothing any more.
        _ if set.metadata.deletion_timestamp.is_some() => {}
        Present::Renumber(revision) => {
            world.saw(api.replace(&name, &PostParams::default(), &revision).await?);
        }
        Present::Create(revision) => match api.create(&PostParams::default(), &revision).await {
            Ok(revision) => world.saw(revision),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = gone_is_fine(api.get(&name).await)?;
                let is_ours = there.as_ref().is_some_and(|there| history::is_same(there, &revision));
                match there {
                    // The watch has not brought it yet.
                    Some(there) if is_ours => world.saw(there),
                    _ => {
                        collide(world, set).await?;
                        return Ok(None);
                    }
                }
            }
            Err(error) => return Err(error.into()),
        },
    }
    Ok(Some(hash))
}

/// Another name is tried next time.
async fn collide(world: &World, set: &DaemonSet) -> Result<(), Error> {
    let mut next = set.clone();
    let status = next.status.get_or_insert_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<DaemonSet> = Api::namespaced(world.clients.daemon_set.clone(), namespace);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    world.saw(api.replace_status(name, &PostParams::default(), &next).await?);
    Ok(())
}

/// Deletes revisions that are more than are kept.
async fn forget(world: &World, set: &DaemonSet, pods: &[Arc<Pod>], hash: &str) -> Result<(), Error> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let revisions = world.controller_revisions.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    let alive: BTreeSet<String> =
        pods.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH).cloned()).collect();
    let api: Api<ControllerRevision> = Api::namespaced(world.clients.daemon_set.clone(), namespace);
    for name in history::outlived(set, &revisions, hash, &alive) {
        gone_is_fine(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}
