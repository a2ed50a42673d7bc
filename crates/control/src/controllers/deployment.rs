//! Carries out the steps of a Deployment's rollout.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use policy::workload::deployment::{self, Action, Plan};
use policy::workload::is_finished;

use super::adoption::claim;
use super::cache::{Key, controller_of};
use super::{Error, World, gone_is_fine};

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(deployment) = world.deployments.get(&key) else { return Ok(None) };
    let Some(spec) = &deployment.spec else { return Ok(None) };
    let sets = claim::<ReplicaSet, _>(world, &world.clients.deployment, &*deployment, &spec.selector).await?;
    let sets: Vec<ReplicaSet> = sets.iter().map(|set| (**set).clone()).collect();
    let old_pods_run = |old: &[&ReplicaSet]| {
        let uids = old.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.flat_map(|uid| world.pods.owned_by(uid)).any(|pod| !is_finished(&pod))
    };
    let plan = deployment::plan(&deployment, &sets, old_pods_run, Timestamp::now());
    let recheck = plan.recheck.map(to_wait);
    carry_out(world, &deployment, plan).await?;
    Ok(recheck)
}

/// A moment later than asked, so that the time is surely over.
pub(super) fn to_wait(left: SignedDuration) -> Duration {
    left.unsigned_abs() + Duration::from_millis(5)
}

async fn carry_out(world: &World, deployment: &Deployment, plan: Plan) -> Result<(), Error> {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let sets: Api<ReplicaSet> = Api::namespaced(world.clients.deployment.clone(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(world.clients.deployment.clone(), namespace);
    for action in plan.actions {
        match action {
            Action::Create(set) => match sets.create(&PostParams::default(), &set).await {
                Ok(set) => world.saw(set),
                Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
                    return collide(world, deployment, &set, &sets, &deployments).await;
                }
                Err(error) => {
                    let message = format!("Failed to create new replica set \"{}\": {error}", name_of(&set));
                    let recorder = world.recorder.of("deployment-controller", &world.clients.deployment);
                    recorder.warning(deployment, "ReplicaSetCreateError", message);
                    return Err(error.into());
                }
            },
            Action::Update(set) => {
                let changed = sets.replace(name_of(&set), &PostParams::default(), &set).await?;
                world.saw(changed);
            }
            Action::Delete(set) => {
                gone_is_fine(sets.delete(&set, &DeleteParams::default()).await)?;
            }
        }
    }
    for note in plan.notes {
        let recorder = world.recorder.of("deployment-controller", &world.clients.deployment);
        if note.warning {
            recorder.warning(deployment, note.reason, note.message);
        } else {
            recorder.normal(deployment, note.reason, note.message);
        }
    }
    // A write of the status carries annotations too.
    let mut metadata = deployment.metadata.clone();
    if let Some(revision) = plan.revision {
        let mut wanted = deployment.clone();
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(deployment::REVISION.to_string(), revision);
        let changed = match deployments.replace(name, &PostParams::default(), &wanted).await {
            // Somebody wrote it meanwhile: the watch brings that, and with it the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            answer => answer?,
        };
        metadata = changed.metadata.clone();
        // What the spec says now may be another than what was decided on: the status is then written next time.
        let is_same = changed.metadata.generation == deployment.metadata.generation;
        world.saw(changed);
        if !is_same {
            return Ok(());
        }
    }
    if deployment.status.as_ref() != Some(&plan.status) {
        let changed = Deployment { metadata, status: Some(plan.status), ..deployment.clone() };
        world.saw(deployments.replace_status(name, &PostParams::default(), &changed).await?);
    }
    Ok(())
}

/// A replica set of that name is there. If it is the one meant, the watch will show it; if it is another's, the next
/// attempt takes another name (`collisionCount`).
async fn collide(
    world: &World,
    deployment: &Deployment,
    wanted: &ReplicaSet,
    sets: &Api<ReplicaSet>,
    deployments: &Api<Deployment>,
) -> Result<(), Error> {
    let Some(found) = gone_is_fine(sets.get(name_of(wanted)).await)? else { return Ok(()) };
    let is_ours =
        controller_of(&found.metadata).is_some_and(|o| Some(&o.uid) == deployment.metadata.uid.as_ref());
    let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    if is_ours && deployment::equal_ignoring_hash(&template(&found), &template(wanted)) {
        world.saw(found);
        return Ok(());
    }
    let mut changed = deployment.clone();
    let status = changed.status.get_or_insert_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    world.saw(deployments.replace_status(name, &PostParams::default(), &changed).await?);
    Ok(())
}

fn name_of(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// Deletes exactly this object, not a namesake.
pub(super) fn exactly(uid: Option<&String>) -> DeleteParams {
    let preconditions = Preconditions { uid: uid.cloned(), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}
