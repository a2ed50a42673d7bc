//! Carries out what StatefulSets ask for: their pods one after the other, the revisions of their templates, their status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use policy::workload::history::{name_of, revision_of, template_of};
use policy::workload::stateful_set::{self, Plan, Revision};
use serde_json::json;

use super::adoption::{self, claim, claim_where, owner_reference};
use super::cache::Key;
use super::deployment::to_wait;
use super::pods::{Write, Writer, message_of};
use super::{Error, World, gone_is_fine, revisions};

/// Whether an orphan is one that the StatefulSet may adopt: its selector and its name say so.
pub(super) fn may_adopt(set: &StatefulSet, pod: &Pod) -> bool {
    stateful_set::ordinal(set, pod).is_some()
        && adoption::selects(set.spec.as_ref().map(|spec| &spec.selector), &pod.metadata)
}

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(set) = world.stateful_sets.get(&key) else { return Ok(None) };
    let Some(selector) = set.spec.as_ref().map(|spec| spec.selector.clone()) else { return Ok(None) };
    let client = &world.clients.stateful_set;
    let owner = owner_reference(&*set);
    let history = claim::<ControllerRevision, _>(world, client, &*set, &selector).await?;
    let Some(update) = revisions::settle(world, client, &*set, &history, &owner).await? else {
        return Ok(None);
    };
    // What its pods were all of when it last was rolled out; at first, what they are made of.
    let current = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let current = history.iter().find(|revision| Some(name_of(revision)) == current);
    let current = current.map_or_else(|| Arc::new(update.clone()), Arc::clone);
    let (current, update) = (Known::read(&current)?, Known::read(&update)?);
    let is_member = |pod: &Pod| stateful_set::ordinal(&set, pod).is_some();
    let pods = claim_where::<Pod, _>(world, client, &*set, &selector, is_member).await?;
    let look = |set: &StatefulSet, pods: &[Arc<Pod>]| {
        stateful_set::plan(set, pods, current.as_revision(), update.as_revision(), &owner, Timestamp::now())
    };
    let changed = carry_out(world, &set, look(&set, &pods)).await;
    // As it is after the writes, whose answers the cache has.
    let Some(set) = world.stateful_sets.get(&key).filter(|now| now.metadata.uid == set.metadata.uid) else {
        return Ok(None);
    };
    let pods = world.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    let Plan { status, recheck, .. } = look(&set, &pods);
    if set.status.as_ref() != Some(&status) {
        let next = StatefulSet { status: Some(status), ..(*set).clone() };
        if !revisions::write_status(world, client, &next).await? {
            return Ok(None);
        }
    }
    changed?;
    let is_alive = |revision: &ControllerRevision| {
        let name = name_of(revision);
        name == current.name || name == update.name || pods.iter().any(|pod| revision_of(pod) == name)
    };
    revisions::forget(world, client, &*set, is_alive).await?;
    Ok(recheck.map(to_wait))
}

/// A revision that was read.
struct Known {
    name: String,
    template: PodTemplateSpec,
}

impl Known {
    fn read(revision: &ControllerRevision) -> Result<Known, Error> {
        let name = name_of(revision).to_owned();
        let template = template_of(revision).ok_or_else(|| Error::Revision(name.clone()))?;
        Ok(Known { name, template })
    }

    fn as_revision(&self) -> Revision<'_> {
        Revision { name: &self.name, template: &self.template }
    }
}

async fn carry_out(world: &World, set: &StatefulSet, plan: Plan) -> Result<(), Error> {
    let client = &world.clients.stateful_set;
    let recorder = world.recorder.of("statefulset-controller", client);
    let writer = Writer { world, client, recorder: &recorder };
    for (name, labels) in plan.relabel {
        let result = relabel(world, set, &name, labels).await;
        writer.tell(set, Write::Update, &name, result.as_ref().err().map(message_of).as_deref());
        result?;
    }
    writer.end(set, plan.finished).await?;
    writer.make(set, plan.create).await?;
    writer.end(set, plan.delete).await
}

async fn relabel(
    world: &World,
    set: &StatefulSet,
    name: &str,
    labels: BTreeMap<String, String>,
) -> Result<(), Error> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let Some(pod) = world.pods.get(&(namespace.to_owned(), name.to_owned())) else { return Ok(()) };
    let api: Api<Pod> = Api::namespaced(world.clients.stateful_set.clone(), namespace);
    let patch = json!({ "metadata": { "uid": pod.metadata.uid, "labels": labels } });
    if let Some(pod) = gone_is_fine(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await)? {
        world.saw(pod);
    }
    Ok(())
}
