//! Carries out what Jobs ask for: makes and ends their pods, counts them, and deletes what is over for long enough
//! (`pkg/controller/job`, `pkg/controller/ttlafterfinished`). What to do is [`policy::workload::job`]'s to say.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use policy::workload::job::{self, Plan, TRACKING, is_tracked};
use serde_json::json;

use super::adoption::{claim, owner_reference};
use super::cache::{Key, key_of};
use super::deployment::{exactly, to_wait};
use super::pods::Writer;
use super::{Error, World, gone_is_fine};

/// Writes of one Job under way at a time.
const AT_ONCE: usize = 64;

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(job) = world.jobs.get(&key) else { return Ok(None) };
    let Some(selector) = job.spec.as_ref().and_then(|spec| spec.selector.clone()) else { return Ok(None) };
    let client = &world.clients.job;
    if job::is_managed_elsewhere(&job) {
        // Nothing of it is touched; but what is over and has outlived its time goes, whoever ended it.
        let plan = job::plan::<Pod>(&job, &[], &owner_reference(&*job), Timestamp::now());
        if plan.expired {
            delete_expired(world, &key, &job).await?;
        }
        return Ok(plan.recheck.map(to_wait));
    }
    let pods = claim::<Pod, _>(world, client, &*job, &selector).await?;
    let owner = owner_reference(&*job);
    let Plan { create, delete, dismiss, expired, status, .. } =
        job::plan(&job, &pods, &owner, Timestamp::now());
    if expired {
        delete_expired(world, &key, &job).await?;
        return Ok(None);
    }
    let recorder = world.recorder.of("job-controller", client);
    let writer = Writer { world, client, recorder: &recorder };
    let change = async {
        writer.make(&*job, create).await?;
        untrack(world, &key.0, dismiss.clone()).await?;
        writer.end(&*job, delete.into_iter().chain(dismiss).collect()).await
    };
    let changed = change.await;
    // As it is after the writes, whose answers the cache has.
    let Some(job) = world.jobs.get(&key).filter(|now| now.metadata.uid == job.metadata.uid) else {
        return Ok(None);
    };
    let pods = world.pods.owned_by(job.metadata.uid.as_deref().unwrap_or_default());
    let plan = job::plan(&job::after(&job, &status), &pods, &owner, Timestamp::now());
    if job.status.as_ref() != Some(&plan.status) {
        let api: Api<Job> = Api::namespaced(client.clone(), &key.0);
        let mut next = (*job).clone();
        next.status = Some(plan.status);
        match api.replace_status(&key.1, &PostParams::default(), &next).await {
            // Somebody wrote it meanwhile: the watch brings that, and with it the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(None),
            answer => match gone_is_fine(answer)? {
                Some(job) => world.saw(job),
                None => return Ok(None),
            },
        }
        for note in plan.notes {
            if note.warning {
                recorder.warning(&*job, note.reason, note.message);
            } else {
                recorder.normal(&*job, note.reason, note.message);
            }
        }
    }
    // Only now, when the status knows their end.
    untrack(world, &key.0, plan.untrack).await?;
    changed?;
    Ok(plan.recheck.map(to_wait))
}

async fn delete_expired(world: &World, key: &Key, job: &Job) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(world.clients.ttl_after_finished.clone(), &key.0);
    let mut params = exactly(job.metadata.uid.as_ref());
    params.propagation_policy = Some(kube::api::PropagationPolicy::Foreground);
    gone_is_fine(api.delete(&key.1, &params).await).map(drop)
}

/// The pods of a Job that is gone wait for nobody.
pub(super) async fn let_go(world: &World, uid: String) -> Result<Option<Duration>, Error> {
    for pod in world.pods.owned_by(&uid).into_iter().filter(|pod| is_tracked(pod)) {
        let (namespace, name) = key_of(&pod.metadata);
        untrack(world, &namespace, vec![name]).await?;
    }
    Ok(None)
}

async fn untrack(world: &World, namespace: &str, names: Vec<String>) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(world.clients.job.clone(), namespace);
    let mut writes = stream::iter(names)
        .map(|name| {
            let (api, pod) = (&api, world.pods.get(&(namespace.to_owned(), name.clone())));
            async move {
                let Some(pod) = pod else { return Ok(None) };
                let patch = json!({ "metadata": { "uid": pod.metadata.uid,
                    "$deleteFromPrimitiveList/finalizers": [TRACKING] } });
                let answer = api.patch(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
                gone_is_fine(answer).map(|pod| pod.map(Box::new))
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut first_error = None;
    while let Some(answer) = writes.next().await {
        match answer {
            Ok(Some(pod)) => world.saw(*pod),
            Ok(None) => {}
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(()), Err)
}
