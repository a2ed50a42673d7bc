//! Carries out what DaemonSets ask for: a pod on each node that is theirs, the revisions of their templates, their status.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use policy::workload::daemon_set::{self, Plan};
use policy::workload::history::{hash_of, revision_of};

use super::adoption::{claim, owner_reference};
use super::cache::{Change, Key};
use super::deployment::to_wait;
use super::pods::Writer;
use super::{Error, World, revisions};

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
    let history = claim::<ControllerRevision, _>(world, client, &*set, &selector).await?;
    let Some(present) = revisions::settle(world, client, &*set, &history, &owner).await? else {
        return Ok(None);
    };
    let hash = hash_of::<DaemonSet>(&present).to_owned();
    let pods = claim::<Pod, _>(world, client, &*set, &selector).await?;
    let look = |set: &DaemonSet, pods: &[_]| {
        let backoff = world.failed_daemons();
        daemon_set::plan(set, pods, &world.nodes.all(), &hash, &owner, &backoff, Timestamp::now())
    };
    let plan = look(&set, &pods);
    for node in &plan.failed {
        world.failed_daemons().replaced(&set, node, Timestamp::now());
    }
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
    let Plan { status, recheck, .. } = look(&set, &pods);
    if set.status.as_ref() != Some(&status) {
        let next = DaemonSet { status: Some(status), ..(*set).clone() };
        if !revisions::write_status(world, client, &next).await? {
            return Ok(None);
        }
    }
    changed?;
    let is_alive = |revision: &ControllerRevision| {
        let of = hash_of::<DaemonSet>(revision);
        of == hash || pods.iter().any(|pod| revision_of(pod) == of)
    };
    revisions::forget(world, client, &*set, is_alive).await?;
    Ok(recheck.map(to_wait))
}
