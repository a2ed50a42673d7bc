//! Who has to look when an object of each kind changes.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;

use super::cache::{Cache, Change, controller_of, key_of};
use super::watches::Tracked;
use super::{
    World, adoption, aggregation, cron_job, daemon_set, endpoints, node, replication, service_account,
    stateful_set,
};

impl Tracked for Pod {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<Pod> {
        &world.pods
    }

    fn changed(world: &World, change: &Change<Pod>) {
        for pod in [&change.old, &change.new].into_iter().flatten() {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "ReplicaSet" => {
                    world.replica_set_queue.add((namespace, owner.name.clone()));
                }
                Some(owner) if owner.kind == "ReplicationController" => {
                    world.replication_queue.add((namespace, owner.name.clone()));
                }
                Some(owner) if owner.kind == "DaemonSet" => {
                    world.daemon_set_queue.add((namespace, owner.name.clone()));
                }
                Some(owner) if owner.kind == "StatefulSet" => {
                    world.stateful_set_queue.add((namespace, owner.name.clone()));
                }
                Some(owner) if owner.kind == "Job" => {
                    let key = (namespace, owner.name.clone());
                    let job = world.jobs.get(&key);
                    if job.is_some_and(|job| job.metadata.uid.as_ref() == Some(&owner.uid)) {
                        world.job_queue.add(key);
                    } else {
                        world.lost_job_queue.add(owner.uid.clone());
                    }
                }
                Some(_) => {}
                // Somebody may want to adopt it.
                None => {
                    for set in world.replica_sets.in_namespace(&namespace) {
                        if adoption::selects(set.spec.as_ref().map(|s| &s.selector), &pod.metadata) {
                            world.replica_set_queue.add(key_of(&set.metadata));
                        }
                    }
                    for controller in world.replication_controllers.in_namespace(&namespace) {
                        if adoption::selects(Some(&replication::selector(&controller)), &pod.metadata) {
                            world.replication_queue.add(key_of(&controller.metadata));
                        }
                    }
                    for set in world.daemon_sets.in_namespace(&namespace) {
                        if adoption::selects(set.spec.as_ref().map(|s| &s.selector), &pod.metadata) {
                            world.daemon_set_queue.add(key_of(&set.metadata));
                        }
                    }
                    for set in world.stateful_sets.in_namespace(&namespace) {
                        if stateful_set::may_adopt(&set, pod) {
                            world.stateful_set_queue.add(key_of(&set.metadata));
                        }
                    }
                    for job in world.jobs.in_namespace(&namespace) {
                        if adoption::selects(
                            job.spec.as_ref().and_then(|s| s.selector.as_ref()),
                            &pod.metadata,
                        ) {
                            world.job_queue.add(key_of(&job.metadata));
                        }
                    }
                }
            }
        }
        // Bound to a node that is not there: found like that at the start, or bound by hand.
        if let Some(node) = change.new.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone())
            && world.nodes.get(&(String::new(), node.clone())).is_none()
        {
            world.node_queue.add_after(node, node::QUARANTINE);
        }
        if endpoints::is_affected(change) {
            let pods: Vec<_> = [&change.old, &change.new].into_iter().flatten().collect();
            let namespace = pods.first().and_then(|pod| pod.metadata.namespace.clone()).unwrap_or_default();
            for service in world.services.in_namespace(&namespace) {
                if pods.iter().any(|pod| endpoints::selects(&service, pod)) {
                    world.endpoints_queue.add(key_of(&service.metadata));
                }
            }
        }
    }
}

impl Tracked for ReplicaSet {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<ReplicaSet> {
        &world.replica_sets
    }

    fn changed(world: &World, change: &Change<ReplicaSet>) {
        for set in [&change.old, &change.new].into_iter().flatten() {
            let key = key_of(&set.metadata);
            match controller_of(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => {
                    world.deployment_queue.add((key.0.clone(), owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    for deployment in world.deployments.in_namespace(&key.0) {
                        if adoption::selects(deployment.spec.as_ref().map(|s| &s.selector), &set.metadata) {
                            world.deployment_queue.add(key_of(&deployment.metadata));
                        }
                    }
                }
            }
            world.replica_set_queue.add(key);
        }
    }
}

impl Tracked for Deployment {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<Deployment> {
        &world.deployments
    }

    fn changed(world: &World, change: &Change<Deployment>) {
        for deployment in [&change.old, &change.new].into_iter().flatten() {
            world.deployment_queue.add(key_of(&deployment.metadata));
        }
    }
}

impl Tracked for ReplicationController {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<ReplicationController> {
        &world.replication_controllers
    }

    fn changed(world: &World, change: &Change<ReplicationController>) {
        for controller in [&change.old, &change.new].into_iter().flatten() {
            world.replication_queue.add(key_of(&controller.metadata));
        }
    }
}

impl Tracked for DaemonSet {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<DaemonSet> {
        &world.daemon_sets
    }

    fn changed(world: &World, change: &Change<DaemonSet>) {
        for set in [&change.old, &change.new].into_iter().flatten() {
            world.daemon_set_queue.add(key_of(&set.metadata));
        }
    }
}

impl Tracked for StatefulSet {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<StatefulSet> {
        &world.stateful_sets
    }

    fn changed(world: &World, change: &Change<StatefulSet>) {
        for set in [&change.old, &change.new].into_iter().flatten() {
            world.stateful_set_queue.add(key_of(&set.metadata));
        }
    }
}

impl Tracked for ControllerRevision {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<ControllerRevision> {
        &world.controller_revisions
    }

    fn changed(world: &World, change: &Change<ControllerRevision>) {
        for revision in [&change.old, &change.new].into_iter().flatten() {
            let Some(owner) = controller_of(&revision.metadata) else { continue };
            let key = (key_of(&revision.metadata).0, owner.name.clone());
            match owner.kind.as_str() {
                "DaemonSet" => world.daemon_set_queue.add(key),
                "StatefulSet" => world.stateful_set_queue.add(key),
                _ => {}
            }
        }
    }
}

impl Tracked for Job {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<Job> {
        &world.jobs
    }

    fn changed(world: &World, change: &Change<Job>) {
        if let Some(job) = &change.new {
            world.job_queue.add(key_of(&job.metadata));
        }
        let uid = |job: &Option<Arc<Job>>| job.as_ref().and_then(|job| job.metadata.uid.clone());
        if let Some(old) = uid(&change.old)
            && uid(&change.new).as_ref() != Some(&old)
        {
            world.lost_job_queue.add(old);
        }
        cron_job::job_changed(world, change);
    }
}

impl Tracked for CronJob {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<CronJob> {
        &world.cron_jobs
    }

    fn changed(world: &World, change: &Change<CronJob>) {
        cron_job::changed(world, change);
    }
}

impl Tracked for Service {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<Service> {
        &world.services
    }

    fn changed(world: &World, change: &Change<Service>) {
        for service in [&change.old, &change.new].into_iter().flatten() {
            world.endpoints_queue.add(key_of(&service.metadata));
        }
    }
}

impl Tracked for EndpointSlice {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<EndpointSlice> {
        &world.endpoint_slices
    }

    fn changed(world: &World, change: &Change<EndpointSlice>) {
        for slice in [&change.old, &change.new].into_iter().flatten() {
            if let Some(service) = endpoints::service_of(slice) {
                world.endpoints_queue.add((key_of(&slice.metadata).0, service.to_string()));
            }
        }
    }
}

impl Tracked for Endpoints {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<Endpoints> {
        &world.endpoints
    }

    fn changed(world: &World, change: &Change<Endpoints>) {
        for endpoints in [&change.old, &change.new].into_iter().flatten() {
            world.endpoints_queue.add(key_of(&endpoints.metadata));
        }
    }
}

impl Tracked for Namespace {
    const NAMESPACED: bool = false;

    fn cache(world: &World) -> &Cache<Namespace> {
        &world.namespaces
    }

    fn changed(world: &World, change: &Change<Namespace>) {
        if let Some(namespace) = &change.new {
            let name = key_of(&namespace.metadata).1;
            if namespace.metadata.deletion_timestamp.is_some() {
                world.namespace_queue.add(name);
            } else {
                world.service_account_queue.add(name);
            }
        }
    }
}

impl Tracked for ServiceAccount {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<ServiceAccount> {
        &world.service_accounts
    }

    fn changed(world: &World, change: &Change<ServiceAccount>) {
        if let Change { old: Some(account), new: None } = change {
            world.service_account_queue.add(key_of(&account.metadata).0);
        }
    }
}

impl Tracked for ConfigMap {
    const NAMESPACED: bool = true;

    fn cache(world: &World) -> &Cache<ConfigMap> {
        &world.config_maps
    }

    fn changed(world: &World, change: &Change<ConfigMap>) {
        let map = change.new.as_ref().or(change.old.as_ref());
        if let Some(map) = map.filter(|map| map.metadata.name.as_deref() == Some(service_account::ROOT_CA)) {
            world.service_account_queue.add(key_of(&map.metadata).0);
        }
    }
}

impl Tracked for Node {
    const NAMESPACED: bool = false;

    fn cache(world: &World) -> &Cache<Node> {
        &world.nodes
    }

    fn changed(world: &World, change: &Change<Node>) {
        if daemon_set::is_affected(change) {
            for set in world.daemon_sets.all() {
                world.daemon_set_queue.add(key_of(&set.metadata));
            }
        }
        if let Some(node) = endpoints::moved(change) {
            let on_it = |pod: &&Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&node);
            let pods = world.pods.all();
            for service in world.services.all() {
                let same = |pod: &&Arc<Pod>| pod.metadata.namespace == service.metadata.namespace;
                if pods.iter().filter(on_it).filter(same).any(|pod| endpoints::selects(&service, pod)) {
                    world.endpoints_queue.add(key_of(&service.metadata));
                }
            }
        }
        match (&change.new, &change.old) {
            (Some(node), _) => world.node_queue.add(key_of(&node.metadata).1),
            (None, Some(node)) => world.node_queue.add_after(key_of(&node.metadata).1, node::QUARANTINE),
            (None, None) => {}
        }
    }
}

impl Tracked for ClusterRole {
    const NAMESPACED: bool = false;

    fn cache(world: &World) -> &Cache<ClusterRole> {
        &world.cluster_roles
    }

    fn changed(world: &World, _: &Change<ClusterRole>) {
        aggregation::changed(world);
    }
}
