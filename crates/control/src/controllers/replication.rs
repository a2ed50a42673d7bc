//! ReplicationControllers: ReplicaSets of old, whose selector is labels alone. What to do is decided as for those
//! (`pkg/controller/replication` does the same).

use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use policy::workload::replica_set::{self, Scale};

use super::adoption::{claim, owner_reference};
use super::cache::Key;
use super::deployment::to_wait;
use super::pods::Writer;
use super::{Error, World, gone_is_fine};

pub(super) fn selector(controller: &ReplicationController) -> LabelSelector {
    let labels = controller.spec.as_ref().and_then(|spec| spec.selector.clone());
    LabelSelector { match_labels: labels, match_expressions: None }
}

/// The same as a ReplicaSet.
fn as_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().map(|status| ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        terminating_replicas: None,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(|all| {
            let same = |c: ReplicationControllerCondition| ReplicaSetCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            all.into_iter().map(same).collect()
        }),
    });
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: selector(controller),
            template: spec.template,
        }),
        status,
    }
}

fn status_of(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(|all| {
            let same = |c: ReplicaSetCondition| ReplicationControllerCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            all.into_iter().map(same).collect()
        }),
    }
}

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let Some(controller) = world.replication_controllers.get(&key) else { return Ok(None) };
    let client = &world.clients.replication;
    let pods = claim::<Pod, _>(world, client, &*controller, &selector(&controller)).await?;
    let recorder = world.recorder.of("replication-controller", client);
    let writer = Writer { world, client, recorder: &recorder };
    let set = as_set(&controller);
    let mut failure = None;
    if controller.metadata.deletion_timestamp.is_none() {
        let (reason, result) = match replica_set::scale(&set, &pods, &[], Timestamp::now()) {
            Scale::Keep => ("", Ok(())),
            Scale::Create(count) => {
                let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
                let pod = template.map(|template| {
                    replica_set::pod_from_template(template, &key.0, owner_reference(&*controller))
                });
                let pods = pod.map(|pod| vec![pod; count]).unwrap_or_default();
                ("FailedCreate", writer.make(&*controller, pods).await)
            }
            Scale::Delete(names) => ("FailedDelete", writer.end(&*controller, names).await),
        };
        failure = result.err().map(|error| (reason, error));
    }
    // As it is after the writes, whose answers the cache has.
    let Some(controller) = world.replication_controllers.get(&key) else { return Ok(None) };
    let pods = world.pods.owned_by(controller.metadata.uid.as_deref().unwrap_or_default());
    let message = failure.as_ref().map(|(reason, error)| (*reason, error.to_string()));
    let told = message.as_ref().map(|(reason, message)| (*reason, message.as_str()));
    let (status, recheck) = replica_set::status(&as_set(&controller), &pods, told, Timestamp::now());
    let status = status_of(status);
    if controller.status.as_ref() != Some(&status) {
        let next = ReplicationController { status: Some(status), ..(*controller).clone() };
        let api: Api<ReplicationController> = Api::namespaced(client.clone(), &key.0);
        let answer = api.replace_status(&key.1, &PostParams::default(), &next).await;
        if let Some(controller) = gone_is_fine(answer)? {
            world.saw(controller);
        }
    }
    match failure {
        Some((_, error)) => Err(error),
        None => Ok(recheck.map(to_wait)),
    }
}
